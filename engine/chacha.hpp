// SPDX-License-Identifier: Apache-2.0
//
// ChaCha's block function (RFC 8439, section 2.3), a random generator without calls, locks or memory of its own: from the
// system's randomness as the key, block after block. With 8 rounds it is the generator of Go's runtime; the test holds the
// RFC's 20 against the RFC.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace spillway::detail {

using ChachaBlock = std::array<std::uint32_t, 16>;

/// `input`: the RFC's constants, key, counter and nonce, in this order.
template <int rounds>
constexpr ChachaBlock chacha(const ChachaBlock& input) noexcept {
  ChachaBlock x = input;
  const auto quarter = [&x](std::size_t a, std::size_t b, std::size_t c, std::size_t d) {
    x[d] = std::rotl(x[d] ^ (x[a] += x[b]), 16);
    x[b] = std::rotl(x[b] ^ (x[c] += x[d]), 12);
    x[d] = std::rotl(x[d] ^ (x[a] += x[b]), 8);
    x[b] = std::rotl(x[b] ^ (x[c] += x[d]), 7);
  };
  for (int i = 0; i < rounds; i += 2) {
    for (std::size_t j = 0; j < 4; ++j) quarter(j, 4 + j, 8 + j, 12 + j);
    for (std::size_t j = 0; j < 4; ++j)
      quarter(j, 4 + (j + 1) % 4, 8 + (j + 2) % 4, 12 + (j + 3) % 4);
  }
  for (std::size_t i = 0; i < x.size(); ++i) x[i] += input[i];
  return x;
}

/// "expand 32-byte k".
inline constexpr std::array<std::uint32_t, 4> chacha_constants{0x61707865, 0x3320646e, 0x79622d32,
                                                               0x6b206574};

}  // namespace spillway::detail
