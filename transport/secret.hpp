// SPDX-License-Identifier: Apache-2.0
//
// Strings for keys and tokens: their bytes lie in pages that the kernel leaves out of core dumps
// (MADV_DONTDUMP) and are overwritten when they are given back. What is shorter than a string keeps
// within itself (15 characters) is not protected: keys and tokens are longer.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace spillway::transport {

namespace detail {
/// Whole pages of their own: secrets are few and made seldom. Throws std::bad_alloc.
void* allocate_secret(std::size_t bytes);
void free_secret(void* memory, std::size_t bytes) noexcept;
}  // namespace detail

template <class T>
struct SecretAllocator {
  using value_type = T;
  SecretAllocator() = default;
  template <class U>
  SecretAllocator(const SecretAllocator<U>& /*other*/) noexcept {}  // NOLINT: a conversion

  T* allocate(std::size_t count) {
    return static_cast<T*>(detail::allocate_secret(count * sizeof(T)));
  }
  void deallocate(T* memory, std::size_t count) noexcept {
    detail::free_secret(memory, count * sizeof(T));
  }
  bool operator==(const SecretAllocator& /*other*/) const noexcept { return true; }
};

using Secret = std::basic_string<char, std::char_traits<char>, SecretAllocator<char>>;

/// Overwrites what passed through ordinary memory: a file's text, an answer's body.
void wipe(std::string& text) noexcept;

}  // namespace spillway::transport
