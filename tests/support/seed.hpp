// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstdlib>
#include <random>
#include <string>

namespace spillway::testing {

/// The seed of a random test: SPILLWAY_TEST_SEED, or the given one. Print it where the test fails:
/// SCOPED_TRACE(seed).
inline std::uint64_t seed_or(std::uint64_t otherwise) {
  const char* const text = std::getenv("SPILLWAY_TEST_SEED");
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

inline std::string seed_note(std::uint64_t seed) {
  return "replay with SPILLWAY_TEST_SEED=" + std::to_string(seed);
}

}  // namespace spillway::testing
