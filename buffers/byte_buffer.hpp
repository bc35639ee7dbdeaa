// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstring>
#include <memory_resource>
#include <string_view>
#include <utility>

namespace spillway::detail {

/// Growing bytes that encoders write to. Keeps its memory when cleared, so steady state allocates
/// nothing. One thread.
class ByteBuffer {
 public:
  explicit ByteBuffer(std::pmr::memory_resource* memory = std::pmr::get_default_resource()) noexcept
      : memory_(memory) {}
  ByteBuffer(ByteBuffer&& other) noexcept
      : memory_(other.memory_),
        data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)),
        capacity_(std::exchange(other.capacity_, 0)) {}
  ByteBuffer& operator=(ByteBuffer&& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
    return *this;
  }
  ~ByteBuffer() {
    if (data_ != nullptr) memory_->deallocate(data_, capacity_, 1);
  }

  const char* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }
  std::size_t capacity() const noexcept { return capacity_; }
  bool empty() const noexcept { return size_ == 0; }
  std::string_view view() const noexcept { return {data_, size_}; }
  std::string_view view(std::size_t offset, std::size_t bytes) const noexcept {
    return {data_ + offset, bytes};
  }

  void clear() noexcept { size_ = 0; }
  /// Drops everything behind `size`, which is at most size().
  void truncate(std::size_t size) noexcept { size_ = size; }

  /// Room for at least `bytes` more; write there, then say with advance_to() how far. Throws
  /// std::bad_alloc.
  char* reserve(std::size_t bytes) {
    if (capacity_ - size_ < bytes) [[unlikely]]
      grow(bytes);
    return data_ + size_;
  }
  void advance_to(const char* end) noexcept { size_ = static_cast<std::size_t>(end - data_); }

  void append(std::string_view text) {
    char* const to = reserve(text.size());
    if (!text.empty()) std::memcpy(to, text.data(), text.size());
    size_ += text.size();
  }
  void append(char c) {
    *reserve(1) = c;
    ++size_;
  }

 private:
  void grow(std::size_t bytes) {
    std::size_t capacity = capacity_ == 0 ? 4096 : capacity_ * 2;
    while (capacity < size_ + bytes) capacity *= 2;
    char* const data = static_cast<char*>(memory_->allocate(capacity, 1));
    if (data_ != nullptr) {
      std::memcpy(data, data_, size_);
      memory_->deallocate(data_, capacity_, 1);
    }
    data_ = data;
    capacity_ = capacity;
  }

  std::pmr::memory_resource* memory_;
  char* data_ = nullptr;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
};

}  // namespace spillway::detail
