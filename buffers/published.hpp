// SPDX-License-Identifier: Apache-2.0
//
// A value that any thread reads without a lock and one thread replaces.
//
//   value_    the present value; written by the publisher only
//   readers_  how many threads are between read() and the end of their Reading, counted in several
//             places so that they do not meet at one
//
//   reader                              publisher
//   R1  readers_[mine] += 1             W1  value_ = the new one
//   R2  load value_                     W2  look at each of readers_, now or later
//   R3  read what it points to          W3  free the old one once each was seen 0
//   R4  readers_[mine] -= 1
//
// R1, R2, W1, W2 are sequentially consistent. A reader whose R1 comes before W2 in their order is seen
// there; one whose R1 comes after it finds the new value at R2. So each count has to be seen 0 once, not
// all at the same time. R4 (release) pairs with W2 (acquire): what was read has been read when it is
// freed.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include <spillway/buffers/cache_line.hpp>

namespace spillway::detail {

template <class T>
class Published {
  static constexpr std::size_t places = 16;
  struct alignas(cache_line_bytes) Place {
    mutable std::atomic<std::uint32_t> readers{0};
  };

 public:
  /// Keeps the value alive that it was made for. On the stack, and not for long.
  class Reading {
   public:
    Reading(const Reading&) = delete;
    Reading& operator=(const Reading&) = delete;
    ~Reading() { readers_.fetch_sub(1, std::memory_order_release); }  // R4.
    /// May be null.
    const T* get() const noexcept { return value_; }

   private:
    friend class Published;
    Reading(std::atomic<std::uint32_t>& readers, const std::atomic<const T*>& value) noexcept
        : readers_(readers) {
      readers_.fetch_add(1, std::memory_order_seq_cst);  // R1.
      value_ = value.load(std::memory_order_seq_cst);    // R2.
    }
    std::atomic<std::uint32_t>& readers_;
    const T* value_;
  };

  Published() = default;
  Published(const Published&) = delete;
  Published& operator=(const Published&) = delete;
  /// No thread reads any more.
  ~Published() { delete value_.load(std::memory_order_relaxed); }

  /// Any thread; never waits.
  Reading read() const noexcept {
    // Stacks of threads lie apart; the middle bits of an address on one tell them from each other.
    const char here = 0;
    const auto address = reinterpret_cast<std::uintptr_t>(&here) >> 16;
    return {places_[(address * 0x9E3779B97F4A7C15U) >> 60].readers, value_};
  }

  /// Whether there was no value a moment ago. Any thread; costs a load.
  bool empty() const noexcept { return value_.load(std::memory_order_relaxed) == nullptr; }

  // ---- the publisher ----

  const T* get() const noexcept { return value_.load(std::memory_order_relaxed); }
  /// Null: none.
  void publish(std::unique_ptr<const T> value) {
    retired_.emplace_back();
    retired_.back().value.reset(
        value_.exchange(value.release(), std::memory_order_seq_cst));  // W1.
    free_unread();
  }
  /// Frees replaced values that nobody can be reading any more. Returns how many are left.
  std::size_t free_unread() {
    for (std::size_t i = 0; i < places; ++i) {
      if (places_[i].readers.load(std::memory_order_seq_cst) != 0) continue;  // W2.
      for (Retired& old : retired_) old.unseen &= ~(1U << i);
    }
    std::erase_if(retired_, [](const Retired& old) { return old.unseen == 0; });  // W3.
    return retired_.size();
  }

 private:
  struct Retired {
    std::unique_ptr<const T> value;
    std::uint32_t unseen = (1U << places) - 1;  // places not yet seen without a reader
  };
  std::array<Place, places> places_;
  std::atomic<const T*> value_{nullptr};
  std::vector<Retired> retired_;
};

}  // namespace spillway::detail
