// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>

namespace spillway::detail {

/// A table that only grows, whose entries never move: written under the caller's lock, read by any
/// thread without one. `push` publishes with a release that `operator[]` and `size` pair with. At
/// most chunk_max * chunk_entries entries.
template <class T, std::uint32_t chunk_entries = 1024, std::uint32_t chunk_max = 1024>
class StableTable {
 public:
  static constexpr std::uint32_t capacity() noexcept { return chunk_entries * chunk_max; }

  std::uint32_t size() const noexcept { return size_.load(std::memory_order_acquire); }

  /// `index` is below size().
  T& operator[](std::uint32_t index) noexcept {
    return chunks_[index / chunk_entries].load(std::memory_order_acquire)[index % chunk_entries];
  }
  const T& operator[](std::uint32_t index) const noexcept {
    return chunks_[index / chunk_entries].load(std::memory_order_acquire)[index % chunk_entries];
  }

  /// Appends; the caller holds the lock of all writers and has seen size() < capacity(). Returns
  /// the new index.
  std::uint32_t push(T&& entry) {
    const std::uint32_t index = size_.load(std::memory_order_relaxed);
    auto& chunk = chunks_[index / chunk_entries];
    if (index % chunk_entries == 0) {
      owned_[index / chunk_entries] = std::make_unique<T[]>(chunk_entries);
      chunk.store(owned_[index / chunk_entries].get(), std::memory_order_release);
    }
    (*this)[index] = std::move(entry);
    size_.store(index + 1, std::memory_order_release);
    return index;
  }

 private:
  std::array<std::atomic<T*>, chunk_max> chunks_{};
  std::array<std::unique_ptr<T[]>, chunk_max> owned_{};
  std::atomic<std::uint32_t> size_{0};
};

}  // namespace spillway::detail
