// SPDX-License-Identifier: Apache-2.0
//
// Sixteen characters at a time, for looking through texts: compare them all with vector operations,
// and look at the outcome as bits.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace spillway::detail {

using Characters [[gnu::vector_size(16)]] = unsigned char;

inline Characters all(char c) noexcept {
  const auto u = static_cast<unsigned char>(c);
  return Characters{u, u, u, u, u, u, u, u, u, u, u, u, u, u, u, u};
}

/// One bit a character, the first one lowest, on any processor. `mask`: the outcome of a comparison.
template <class Mask>
std::uint32_t bits_of_portable(const Mask& mask) noexcept {
  std::uint32_t bits = 0;
  for (unsigned i = 0; i < 16; ++i) bits |= static_cast<std::uint32_t>(mask[i] != 0) << i;
  return bits;
}

/// The same as fast as the processor can.
template <class Mask>
std::uint32_t bits_of(const Mask& mask) noexcept {
#if defined(__SSE2__)
  using Bytes [[gnu::vector_size(16)]] = char;
  return static_cast<std::uint32_t>(__builtin_ia32_pmovmskb128(std::bit_cast<Bytes>(mask)));
#else
  return bits_of_portable(mask);
#endif
}

/// Up to sixteen characters; zeros behind them.
inline Characters load(const char* text, std::size_t bytes) noexcept {
  Characters characters;
  if (bytes >= 16) {
    std::memcpy(&characters, text, 16);
    return characters;
  }
  std::uint64_t halves[2] = {0, 0};
  if (bytes >= 8) {
    std::memcpy(&halves[0], text, 8);
    std::memcpy(&halves[1], text + bytes - 8, 8);
    halves[1] = bytes == 8 ? 0 : halves[1] >> (8 * (16 - bytes));
  } else if (bytes >= 4) {
    std::uint32_t first = 0;
    std::uint32_t last = 0;
    std::memcpy(&first, text, 4);
    std::memcpy(&last, text + bytes - 4, 4);
    halves[0] = first | std::uint64_t{last} << (8 * (bytes - 4));
  } else {
    for (std::size_t i = 0; i < bytes; ++i) {
      halves[0] |= std::uint64_t{static_cast<unsigned char>(text[i])} << (8 * i);
    }
  }
  // Not by way of memory: two stores of 8 are not forwarded to one load of 16.
  using Halves [[gnu::vector_size(16)]] = std::uint64_t;
  return std::bit_cast<Characters>(Halves{halves[0], halves[1]});
}

}  // namespace spillway::detail
