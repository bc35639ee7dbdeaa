// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <set>
#include <utility>

#include <gtest/gtest.h>

#include <spillway/engine/chacha.hpp>
#include <spillway/engine/span.hpp>

namespace spillway::detail {
namespace {

TEST(ChachaTest, IsTheRfcs) {
  // RFC 8439, section 2.3.2.
  constexpr ChachaBlock input{0x61707865, 0x3320646e, 0x79622d32, 0x6b206574,
                              0x03020100, 0x07060504, 0x0b0a0908, 0x0f0e0d0c,
                              0x13121110, 0x17161514, 0x1b1a1918, 0x1f1e1d1c,
                              0x00000001, 0x09000000, 0x4a000000, 0x00000000};
  constexpr ChachaBlock output{0xe4e7f110, 0x15593bd1, 0x1fdd0f50, 0xc47120a3,
                               0xc7f4d1c7, 0x0368c033, 0x9aaa2204, 0x4e6cd4c3,
                               0x466482d2, 0x09aa9f07, 0x05d7c214, 0xa2028bd9,
                               0xd19c12b5, 0xb94e16de, 0xe883d0cb, 0x4e3c50a2};
  EXPECT_EQ(chacha<20>(input), output);
  EXPECT_TRUE(std::equal(chacha_constants.begin(), chacha_constants.end(), input.begin()));
  EXPECT_NE(chacha<8>(input), output);
}

TEST(TraceIdTest, NoneComesTwiceAndTheTimeStandsInFront) {
  std::set<std::pair<std::uint64_t, std::uint64_t>> ids;
  std::uint64_t ones = 0;
  std::uint64_t zeros = 0;
  for (int i = 0; i < 10'000; ++i) {
    const TraceId id = next_trace_id(0x6b00e354);
    EXPECT_EQ(id.high >> 32, 0x6b00e354U);
    EXPECT_TRUE(ids.emplace(id.high, id.low).second);
    ones |= id.low;
    ones |= (id.high & 0xFFFF'FFFF) << 32;
    zeros |= ~id.low;
  }
  EXPECT_EQ(ones, ~std::uint64_t{0}) << "every bit is one in some ids";
  EXPECT_EQ(zeros, ~std::uint64_t{0}) << "and none in others";
}

}  // namespace
}  // namespace spillway::detail
