// SPDX-License-Identifier: Apache-2.0
//
// SipHash with 128 bits of output (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012;
// the 128-bit variant as in their reference code): a keyed hash whose collisions nobody finds
// without the key, so that it can stand for a text that strangers choose: in the tables of limits,
// breakers and bulkheads.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace spillway::detail {

struct Hash128 {
  std::uint64_t low = 0;
  std::uint64_t high = 0;
  friend bool operator==(const Hash128&, const Hash128&) = default;
};

/// The key of this process's hashes: random, made at the first call, which throws when the system
/// has no randomness.
const Hash128& process_hash_key();

/// `compression` rounds for every 8 bytes, `finalization` rounds at the end: SipHash-1-3 for tables.
/// Inlined, so that who takes the low half alone does not pay for the other.
template <int compression = 1, int finalization = 3>
[[gnu::always_inline]] inline Hash128 siphash128(const Hash128& key,
                                                 std::string_view bytes) noexcept {
  static_assert(std::endian::native == std::endian::little);
  std::uint64_t v0 = key.low ^ 0x736f6d6570736575U;
  std::uint64_t v1 = key.high ^ 0x646f72616e646f6dU ^ 0xeeU;
  std::uint64_t v2 = key.low ^ 0x6c7967656e657261U;
  std::uint64_t v3 = key.high ^ 0x7465646279746573U;
  const auto rounds = [&](int count) __attribute__((always_inline)) {
    for (int i = 0; i < count; ++i) {
      v0 += v1;
      v1 = std::rotl(v1, 13) ^ v0;
      v0 = std::rotl(v0, 32);
      v2 += v3;
      v3 = std::rotl(v3, 16) ^ v2;
      v0 += v3;
      v3 = std::rotl(v3, 21) ^ v0;
      v2 += v1;
      v1 = std::rotl(v1, 17) ^ v2;
      v2 = std::rotl(v2, 32);
    }
  };
  const char* at = bytes.data();
  for (std::size_t left = bytes.size() / 8; left != 0; --left, at += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, at, 8);
    v3 ^= word;
    rounds(compression);
    v0 ^= word;
  }
  // The rest, byte i at bit 8 * i, in halves that may overlap.
  std::uint64_t last = std::uint64_t{bytes.size() & 0xffU} << 56;
  if (const std::size_t rest = bytes.size() % 8; rest >= 4) {
    std::uint32_t first = 0;
    std::uint32_t end = 0;
    std::memcpy(&first, at, 4);
    std::memcpy(&end, at + rest - 4, 4);
    last |= std::uint64_t{end} << (8 * (rest - 4)) | first;
  } else if (rest != 0) {
    const auto byte = [&](std::size_t i) {
      return std::uint64_t{static_cast<unsigned char>(at[i])} << (8 * i);
    };
    last |= byte(0) | byte(rest / 2) | byte(rest - 1);
  }
  v3 ^= last;
  rounds(compression);
  v0 ^= last;
  v2 ^= 0xeeU;
  rounds(finalization);
  Hash128 hash{v0 ^ v1 ^ v2 ^ v3, 0};
  v1 ^= 0xddU;
  rounds(finalization);
  hash.high = v0 ^ v1 ^ v2 ^ v3;
  return hash;
}

}  // namespace spillway::detail
