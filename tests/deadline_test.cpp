// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <random>
#include <string>

#include <gtest/gtest.h>
#include <support/seed.hpp>

#include <spillway/middleware/resilience/deadline.hpp>

namespace spillway::middleware {
namespace {

using namespace std::chrono_literals;

TEST(TimeoutHeaderTest, EveryUnitIsRead) {
  EXPECT_EQ(parse_timeout("1500m"), 1500ms);
  EXPECT_EQ(parse_timeout("1n"), 1ns);
  EXPECT_EQ(parse_timeout("20u"), 20us);
  EXPECT_EQ(parse_timeout("3S"), 3s);
  EXPECT_EQ(parse_timeout("2M"), 2min);
  EXPECT_EQ(parse_timeout("1H"), 1h);
  EXPECT_EQ(parse_timeout("0m"), 0ns);
  EXPECT_EQ(parse_timeout("00000001S"), 1s);
}

TEST(TimeoutHeaderTest, WhatIsNotOfTheGrammarIsNothing) {
  for (const std::string& text :
       {std::string(""), std::string("m"), std::string("5"), std::string("-1m"), std::string("+1m"),
        std::string("1.5S"), std::string("1 m"), std::string(" 1m"), std::string("1m "),
        std::string("1ms"), std::string("1s"), std::string("1h"), std::string("123456789m"),
        std::string("0x10m"), std::string("1\0m", 3), std::string("1m\0", 3),
        std::string("1m\r\nX: y"), std::string("1m,2m"), std::string(10'000, '9') + "m"}) {
    EXPECT_EQ(parse_timeout(text), std::nullopt) << text;
  }
}

TEST(TimeoutHeaderTest, ALongTimeDoesNotOverflow) {
  EXPECT_EQ(parse_timeout("99999999H"), 100 * 365 * 24h);
  EXPECT_EQ(parse_timeout("99999999M"), 100 * 365 * 24h);
}

TEST(TimeoutHeaderTest, IsWrittenInTheFinestUnitThatFits) {
  const auto text = [](std::chrono::nanoseconds time) {
    return std::string(TimeoutText(time).view());
  };
  EXPECT_EQ(text(0ns), "0n");
  EXPECT_EQ(text(-5s), "0n");
  EXPECT_EQ(text(99'999'999ns), "99999999n");
  EXPECT_EQ(text(100'000'000ns), "100000u");
  EXPECT_EQ(text(1500ms), "1500000u");
  EXPECT_EQ(text(100s), "100000m");
  EXPECT_EQ(text(std::chrono::nanoseconds::max()), "2562047H");
}

TEST(TimeoutHeaderTest, WhatIsWrittenReadsBackNoLongerThanItWas) {
  const std::uint64_t seed = spillway::testing::seed_or(3);
  SCOPED_TRACE(spillway::testing::seed_note(seed));
  std::mt19937_64 random(seed);
  for (int i = 0; i < 20'000; ++i) {
    const std::chrono::nanoseconds time(static_cast<std::int64_t>(random() >> (2 + random() % 60)));
    const auto back = parse_timeout(TimeoutText(time).view());
    ASSERT_TRUE(back);
    const auto most = std::min<std::chrono::nanoseconds>(time, 100 * 365 * 24h);
    ASSERT_LE(*back, most);
    ASSERT_GE(*back, most - most / 100 - 1ns);
  }
}

TEST(LambdaDeadlineTest, IsTheRemainingTimeWithoutTheMargin) {
  const WallTime wall(1'795'222'800s);
  const SteadyTime now(50s);
  EXPECT_EQ(lambda_deadline("1795222803000", wall, now, 100ms), now + 2900ms);
  EXPECT_EQ(lambda_deadline("1795222799000", wall, now, 0ms), now - 1s);  // over already
}

TEST(LambdaDeadlineTest, WhatIsNoTimeIsNothing) {
  for (const char* const text : {"", "abc", "-1", "1", "1795222803", "1795222803000 ",
                                 "99999999999999999999", "9223372036854775807", "1e12"}) {
    EXPECT_EQ(lambda_deadline(text, WallTime(1'795'222'800s), SteadyTime(1s), 0ms), std::nullopt)
        << text;
  }
}

}  // namespace
}  // namespace spillway::middleware
