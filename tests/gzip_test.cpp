// SPDX-License-Identifier: Apache-2.0
#include <random>
#include <string>

#include <support/gunzip.hpp>
#include <support/seed.hpp>

#include <spillway/transport/gzip.hpp>

namespace spillway::transport {
namespace {

std::string noise(std::size_t size, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string bytes;
  for (std::size_t i = 0; i < size; ++i) bytes += static_cast<char>(random());
  return bytes;
}

TEST(GzipTest, TextComesBackAndIsSmaller) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += "{\"MetricName\":\"M" + std::to_string(i) + "\"},";
  const auto compressed = gzip(text);
  ASSERT_TRUE(compressed);
  EXPECT_LT(compressed->size(), text.size() / 3);
  EXPECT_TRUE(testing::gunzip(*compressed) == text);
}

TEST(GzipTest, WhatDoesNotShrinkIsLeft) {
  EXPECT_FALSE(gzip(""));
  EXPECT_FALSE(gzip("a"));
  EXPECT_FALSE(gzip("short text"));
  EXPECT_FALSE(gzip(noise(100'000, 1)));
}

TEST(GzipTest, WhateverIsCompressedIsSmaller) {
  // Noise with more and more zeroes behind it passes through the length at which both are equal.
  const std::uint64_t seed = testing::seed_or(9);
  SCOPED_TRACE(testing::seed_note(seed));
  int taken = 0;
  for (std::size_t zeroes = 0; zeroes < 400; ++zeroes) {
    const std::string bytes = noise(500, seed) + std::string(zeroes, '\0');
    if (const auto compressed = gzip(bytes)) {
      ++taken;
      EXPECT_LT(compressed->size(), bytes.size()) << zeroes;
      EXPECT_TRUE(testing::gunzip(*compressed) == bytes) << zeroes;
    }
  }
  EXPECT_GT(taken, 100);
  EXPECT_LT(taken, 400);
}

}  // namespace
}  // namespace spillway::transport
