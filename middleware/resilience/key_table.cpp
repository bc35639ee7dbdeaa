// SPDX-License-Identifier: Apache-2.0
#include <cstring>
#include <random>

#include <spillway/middleware/resilience/key_table.hpp>

namespace spillway::middleware {
namespace {

__extension__ using Product = unsigned __int128;

/// Both halves of a 128-bit product: every bit of the result depends on every bit that went in.
std::uint64_t mix(std::uint64_t a, std::uint64_t b) noexcept {
  const Product product = Product{a} * b;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

struct Seed {
  std::uint64_t first;
  std::uint64_t second;
  Seed() {
    std::random_device system;
    const auto word = [&] { return std::uint64_t{system()} << 32 | system(); };
    first = word();
    second = word() | 1U;
  }
};

}  // namespace

std::uint64_t hash_key(std::string_view key) noexcept {
  static const Seed seed;
  constexpr std::uint64_t odd = 0x9E3779B97F4A7C15U;
  std::uint64_t hash = seed.first ^ key.size() * odd;
  while (key.size() > 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, key.data(), 8);
    hash = mix(hash ^ word, seed.second ^ odd);
    key.remove_prefix(8);
  }
  std::uint64_t word = 0;
  if (!key.empty()) std::memcpy(&word, key.data(), key.size());
  hash = mix(hash ^ word, seed.second);
  hash = mix(hash ^ seed.first, seed.second ^ odd);
  return hash != 0 ? hash : 1;
}

}  // namespace spillway::middleware
