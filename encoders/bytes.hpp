// SPDX-License-Identifier: Apache-2.0
//
// Bytes as they are, for encoders that have reserved the memory they write to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace spillway::detail {

/// Copies all of `size` bytes, at least one `Word` and at most two, as its first and its last one.
template <class Word>
char* write_ends(char* to, const char* from, std::size_t size) noexcept {
  Word first;
  Word last;
  std::memcpy(&first, from, sizeof first);
  std::memcpy(&last, from + size - sizeof last, sizeof last);
  std::memcpy(to, &first, sizeof first);
  std::memcpy(to + size - sizeof last, &last, sizeof last);
  return to + size;
}

/// Returns where the next byte goes. A literal is a move or two, so what never changes stands together in
/// one; names and short values are copied without a call.
[[gnu::always_inline]] inline char* write_bytes(char* to, std::string_view bytes) noexcept {
  const char* const from = bytes.data();
  const std::size_t size = bytes.size();
  if (!__builtin_constant_p(size)) {
    using Sixteen [[gnu::vector_size(16)]] = char;
    if (size >= 4 && size < 8) return write_ends<std::uint32_t>(to, from, size);
    if (size >= 8 && size < 16) return write_ends<std::uint64_t>(to, from, size);
    if (size >= 16 && size <= 32) return write_ends<Sixteen>(to, from, size);
  }
  if (size != 0) std::memcpy(to, from, size);
  return to + size;
}

}  // namespace spillway::detail
