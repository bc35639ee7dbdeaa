// SPDX-License-Identifier: Apache-2.0
//
// Which records below the level go out, and that each is shipped or dropped once.
#include <map>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <support/records.hpp>
#include <support/seed.hpp>

#include <spillway/engine/debug_retention.hpp>
#include <spillway/engine/log_limiter.hpp>

namespace spillway::detail {
namespace {

using namespace std::chrono_literals;

class DebugRetentionTest : public ::testing::Test {
 protected:
  DebugRetention make(std::size_t bytes_max) {
    return DebugRetention(
        bytes_max,
        [this](const LogView& log, std::uint32_t /*site*/, std::uint64_t ticks) {
          ValueReader values(log.values);
          shipped_.push_back(std::string(log.context->request_id) + ":" +
                             std::to_string(values.number()));
          ticks_.push_back(ticks);
        },
        [this](std::uint64_t records) { dropped_ += records; });
  }
  void take(DebugRetention& retention, const ContextTexts& context, std::uint64_t n) {
    testing::Packed values;
    values.number(n);
    retention.take({&info_, 0, 0, &context, values.bytes()}, 1, n, now_);
  }

  const SiteInfo info_{Severity::debug, "m", "f.cpp", 1, {{"n", ValueType::unsigned_integer}}};
  const ContextTexts one_{"acme", "u", "r-1", {}};
  const ContextTexts two_{"acme", "u", "r-2", {}};
  const ContextTexts nobody_{};
  SteadyTime now_{};
  std::vector<std::string> shipped_;
  std::vector<std::uint64_t> ticks_;
  std::uint64_t dropped_ = 0;
};

using Texts = std::vector<std::string>;

TEST_F(DebugRetentionTest, ARequestThatIsInterestingShipsWhatWasKeptAndWhatComes) {
  DebugRetention retention = make(1 << 20);
  take(retention, one_, 1);
  take(retention, two_, 2);
  take(retention, one_, 3);
  EXPECT_TRUE(shipped_.empty());
  retention.keep(one_, now_);
  EXPECT_EQ(shipped_, (Texts{"r-1:1", "r-1:3"}));
  EXPECT_EQ(ticks_, (std::vector<std::uint64_t>{1, 3}));
  take(retention, one_, 4);
  retention.end(one_);
  take(retention, one_, 5);
  EXPECT_EQ(shipped_.size(), 4U) << "late ones of other threads too";
  retention.end(two_);
  EXPECT_EQ(dropped_, 1U);
  retention.clear();
  EXPECT_EQ(dropped_, 1U);
  EXPECT_EQ(retention.bytes(), 0U);
}

TEST_F(DebugRetentionTest, RequestsAreToldApart) {
  DebugRetention retention = make(1 << 20);
  const ContextTexts other_tenant{"globex", "u", "r-1", {}};
  const ContextTexts traced{{}, {}, {}, {1, 2}};
  const ContextTexts traced_too{{}, {}, {}, {1, 3}};
  const ContextTexts elsewhere{"acme", "u", "r-1", {7, 7}};
  take(retention, one_, 1);
  take(retention, other_tenant, 2);
  take(retention, traced, 3);
  take(retention, traced_too, 4);
  take(retention, elsewhere, 5);
  take(retention, nobody_, 6);
  EXPECT_EQ(dropped_, 1U) << "of no request";
  retention.keep(one_, now_);
  EXPECT_EQ(shipped_, (Texts{"r-1:1", "r-1:5"})) << "a request, wherever in a trace";
  retention.keep(traced, now_);
  EXPECT_EQ(shipped_.back(), ":3");
  retention.keep(nobody_, now_);
  retention.end(nobody_);
  retention.clear();
  EXPECT_EQ(dropped_, 3U);
}

TEST_F(DebugRetentionTest, TheOldestRequestMakesRoom) {
  DebugRetention retention = make(2000);
  for (std::uint64_t i = 0; i < 100; ++i) {
    take(retention, i < 3 ? one_ : two_, i);
    EXPECT_LE(retention.bytes(), 2000U);
  }
  EXPECT_GT(dropped_, 50U);
  retention.keep(one_, now_);
  EXPECT_TRUE(shipped_.empty());
  const std::uint64_t before = dropped_;
  retention.keep(two_, now_);
  EXPECT_EQ(shipped_.size() + before, 100U);
}

TEST_F(DebugRetentionTest, WhatDoesNotEndIsLetGo) {
  DebugRetention retention = make(1 << 20);
  take(retention, one_, 1);
  now_ += 30s;
  take(retention, two_, 2);
  now_ += 30s;
  retention.expire(now_);
  EXPECT_EQ(dropped_, 1U);
  now_ += 30s;
  retention.expire(now_);
  EXPECT_EQ(dropped_, 2U);
  EXPECT_EQ(retention.bytes(), 0U);
}

TEST_F(DebugRetentionTest, EachRecordIsShippedOrDroppedOnce) {
  const std::uint64_t seed = testing::seed_or(20261121);
  SCOPED_TRACE(testing::seed_note(seed));
  std::mt19937_64 random(seed);
  DebugRetention retention = make(20'000);
  std::vector<std::string> ids;
  for (int i = 0; i < 20; ++i) ids.push_back("r-" + std::to_string(i));
  std::uint64_t taken = 0;
  for (int step = 0; step < 20'000; ++step) {
    const ContextTexts context{"t", {}, ids[random() % ids.size()], {}};
    switch (random() % 20) {
      case 0:
        retention.keep(context, now_);
        break;
      case 1:
        retention.end(context);
        break;
      case 2:
        now_ += 1s;
        retention.expire(now_);
        break;
      default:
        take(retention, context, taken++);
    }
    ASSERT_LE(retention.bytes(), 20'000U + 200 * ids.size());
  }
  retention.clear();
  EXPECT_EQ(shipped_.size() + dropped_, taken);
  std::map<std::uint64_t, int> times;
  for (const std::uint64_t tick : ticks_) EXPECT_EQ(++times[tick], 1);
  EXPECT_EQ(retention.bytes(), 0U);
}

TEST(LogLimiterTest, EachSiteHasItsOwnShareOfASecond) {
  LogLimiter limiter(3);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(limiter.admit(7, 1), i < 3);
  EXPECT_TRUE(limiter.admit(8, 1));
  std::map<std::uint32_t, std::uint64_t> held;
  const auto collect = [&](std::uint32_t site, std::uint64_t count) { held[site] += count; };
  limiter.report(collect);
  EXPECT_EQ(held, (std::map<std::uint32_t, std::uint64_t>{{7, 2}}));
  EXPECT_FALSE(limiter.admit(7, 1)) << "the second is not over";
  for (int i = 0; i < 4; ++i) EXPECT_EQ(limiter.admit(7, 2), i < 3);
  limiter.report(collect);
  EXPECT_EQ(held[7], 4U);
  limiter.report(collect);
  EXPECT_EQ(held[7], 4U);
  LogLimiter off(0);
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(off.admit(1, 1));
}

}  // namespace
}  // namespace spillway::detail
