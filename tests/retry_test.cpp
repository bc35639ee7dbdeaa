// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <spillway/transport/retry.hpp>

namespace spillway::transport {
namespace {

using namespace std::chrono_literals;
using std::chrono::milliseconds;

TEST(BackoffTest, TheCeilingDoublesToTwentySeconds) {
  const auto ceiling = [](Failure failure, int attempt) {
    return backoff(failure, attempt, 1, std::nullopt);
  };
  EXPECT_EQ(ceiling(Failure::transient, 1), 50ms);
  EXPECT_EQ(ceiling(Failure::transient, 2), 100ms);
  EXPECT_EQ(ceiling(Failure::transient, 9), 12'800ms);
  EXPECT_EQ(ceiling(Failure::transient, 10), 20s);
  EXPECT_EQ(ceiling(Failure::throttled, 1), 1s);
  EXPECT_EQ(ceiling(Failure::throttled, 5), 16s);
  EXPECT_EQ(ceiling(Failure::throttled, 6), 20s);
  for (const int attempt : {30, 100, 2'000'000'000}) {
    EXPECT_EQ(ceiling(Failure::throttled, attempt), 20s) << attempt;
    EXPECT_EQ(ceiling(Failure::credentials, attempt), 20s) << attempt;
  }
}

TEST(BackoffTest, TheJitterIsFullButNeverNothing) {
  EXPECT_EQ(backoff(Failure::throttled, 3, 0.5, std::nullopt), 2s);
  EXPECT_EQ(backoff(Failure::throttled, 3, 0.25, std::nullopt), 1s);
  EXPECT_EQ(backoff(Failure::throttled, 3, 0, std::nullopt), 10ms);
  EXPECT_EQ(backoff(Failure::transient, 1, 0.1, std::nullopt), 10ms);
}

TEST(BackoffTest, TheServersWordCountsFromOurWaitToFiveSecondsMore) {
  const auto asked = [](milliseconds wish) {
    return backoff(Failure::throttled, 2, 0.5, wish);  // 1 s by itself
  };
  EXPECT_EQ(asked(0ms), 1s) << "never less than our own";
  EXPECT_EQ(asked(999ms), 1s);
  EXPECT_EQ(asked(3s), 3s);
  EXPECT_EQ(asked(6s), 6s);
  EXPECT_EQ(asked(1h), 6s);
}

TEST(BackoffTest, AnotherProtocolMayHeedMoreOfTheServersWord) {
  const auto asked = [](milliseconds wish) {
    return backoff(Failure::throttled, 2, 0.5, wish, 5min);  // 1 s by itself
  };
  EXPECT_EQ(asked(0ms), 1s);
  EXPECT_EQ(asked(20s), 20s);
  EXPECT_EQ(asked(300s), 300s);
  EXPECT_EQ(asked(1h), 301s);
}

}  // namespace
}  // namespace spillway::transport
