// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <cmath>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <spillway/middleware/resilience/retry.hpp>

namespace spillway::middleware {
namespace {

using namespace std::chrono_literals;

constexpr SteadyTime t0{1000s};

FailedAttempt failed(int status, int number = 1) {
  return {.number = number, .status = status, .idempotent = true, .now = t0};
}

TEST(RetryPolicyTest, StatusesThatMayPassAreTriedAgain) {
  Retry retry({});
  for (const int status : {429, 502, 503, 504}) EXPECT_TRUE(retry.after(failed(status), 0.5));
  for (const int status : {200, 400, 404, 409, 500, 501, 99, 600, -1})
    EXPECT_EQ(retry.after(failed(status), 0.5).reason, RetryReason::not_retryable) << status;
  EXPECT_TRUE(retry.after(failed(0), 0.5));  // no answer
}

TEST(RetryPolicyTest, WhatMayHaveBeenDoneIsNotDoneTwice) {
  Retry retry({});
  FailedAttempt attempt = failed(503);
  attempt.idempotent = false;
  EXPECT_EQ(retry.after(attempt, 0.5).reason, RetryReason::not_idempotent);
  attempt.status = 0;
  EXPECT_EQ(retry.after(attempt, 0.5).reason, RetryReason::not_idempotent);
  attempt.reached = false;  // The connection never stood.
  EXPECT_TRUE(retry.after(attempt, 0.5));
  Retry told({.any_method = true});
  attempt.reached = true;
  EXPECT_TRUE(told.after(attempt, 0.5));
}

TEST(RetryPolicyTest, IdempotentMethodsAreThoseOfTheStandard) {
  for (const char* const method : {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
    EXPECT_TRUE(is_idempotent(method)) << method;
  for (const char* const method : {"POST", "PATCH", "CONNECT", "get", "", "GETX"})
    EXPECT_FALSE(is_idempotent(method)) << method;
}

TEST(RetryPolicyTest, WaitsAreARandomPartOfADoublingCeiling) {
  Retry retry({.attempts_max = 10, .backoff = 100ms, .backoff_max = 500ms});
  EXPECT_EQ(retry.after(failed(503, 1), 0.0).wait, 0ms);
  EXPECT_EQ(retry.after(failed(503, 1), 0.5).wait, 50ms);
  EXPECT_EQ(retry.after(failed(503, 2), 0.5).wait, 100ms);
  EXPECT_EQ(retry.after(failed(503, 3), 0.5).wait, 200ms);
  EXPECT_EQ(retry.after(failed(503, 4), 0.5).wait, 250ms);
  EXPECT_EQ(retry.after(failed(503, 9), 0.5).wait, 250ms);
}

TEST(RetryPolicyTest, AttemptsAreBounded) {
  Retry retry({.attempts_max = 3});
  EXPECT_TRUE(retry.after(failed(503, 2), 0.5));
  EXPECT_EQ(retry.after(failed(503, 3), 0.5).reason, RetryReason::attempts_used);
}

TEST(RetryPolicyTest, TheServersWordIsKeptAndClamped) {
  Retry retry({.backoff = 100ms, .retry_after_max = 10s});
  FailedAttempt attempt = failed(503);
  attempt.retry_after = 3s;
  EXPECT_EQ(retry.after(attempt, 0.5).wait, 3s);
  attempt.retry_after = 1h;
  EXPECT_EQ(retry.after(attempt, 0.5).wait, 10s);
  attempt.retry_after = 0s;  // No less than our own.
  EXPECT_EQ(retry.after(attempt, 0.5).wait, 50ms);
  attempt.retry_after = -5s;
  EXPECT_EQ(retry.after(attempt, 0.5).wait, 50ms);
}

TEST(RetryPolicyTest, AWaitBeyondTheDeadlineIsNotBegun) {
  Retry retry({.backoff = 100ms});
  FailedAttempt attempt = failed(503);
  attempt.deadline = t0 + 51ms;
  EXPECT_TRUE(retry.after(attempt, 0.5));
  attempt.deadline = t0 + 50ms;
  EXPECT_EQ(retry.after(attempt, 0.5).reason, RetryReason::deadline);
  attempt.deadline = t0 - 1s;
  EXPECT_EQ(retry.after(attempt, 0.0).reason, RetryReason::deadline);
}

TEST(RetryPolicyTest, TheBudgetBoundsRetriesToAShareOfSuccesses) {
  Retry retry({.budget_max = 2, .budget_per_success = 0.1});
  EXPECT_TRUE(retry.after(failed(503), 0.5));
  EXPECT_TRUE(retry.after(failed(503), 0.5));
  EXPECT_EQ(retry.after(failed(503), 0.5).reason, RetryReason::budget_empty);
  for (int i = 0; i < 9; ++i) retry.succeeded();
  EXPECT_EQ(retry.after(failed(503), 0.5).reason, RetryReason::budget_empty);
  retry.succeeded();
  EXPECT_TRUE(retry.after(failed(503), 0.5));
  for (int i = 0; i < 1000; ++i) retry.succeeded();
  EXPECT_DOUBLE_EQ(retry.budget(), 2);
  // What is not tried again costs nothing.
  static_cast<void>(retry.after(failed(404), 0.5));
  EXPECT_DOUBLE_EQ(retry.budget(), 2);
}

TEST(RetryPolicyTest, ThreadsDoNotOverdrawTheBudget) {
  Retry retry({.budget_max = 100, .budget_per_success = 0});
  std::atomic<int> granted{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 100; ++i) granted += retry.after(failed(503), 0.5) ? 1 : 0;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(granted.load(), 100);
}

TEST(RetryPolicyTest, OptionsThatCannotWorkAreAllNamed) {
  try {
    Retry retry({.attempts_max = 0, .budget_per_success = std::nan("")});
    FAIL();
  } catch (const std::invalid_argument& error) {
    const std::string what = error.what();
    EXPECT_NE(what.find("attempts_max = 0: allowed are 1 to 20"), std::string::npos) << what;
    EXPECT_NE(what.find("budget_per_success = nan"), std::string::npos) << what;
  }
}

TEST(RetryAfterTest, SecondsAndDatesAreRead) {
  const WallTime now(784'111'777s);  // 1994-11-06T08:49:37Z
  EXPECT_EQ(parse_retry_after("120", now), 120s);
  EXPECT_EQ(parse_retry_after(" 0 ", now), 0s);
  EXPECT_EQ(parse_retry_after("Sun, 06 Nov 1994 08:50:00 GMT", now), 23s);
  EXPECT_EQ(parse_retry_after("Sunday, 06-Nov-94 08:50:00 GMT", now), 23s);
  EXPECT_EQ(parse_retry_after("Sun Nov  6 08:50:00 1994", now), 23s);
  EXPECT_EQ(parse_retry_after("Sun, 06 Nov 1994 08:49:37 GMT", now), 0s);
  EXPECT_EQ(parse_retry_after("Sun, 06 Nov 1988 08:49:37 GMT", now), 0s);
}

TEST(RetryAfterTest, GarbageIsNothingAndHugeIsBounded) {
  const WallTime now(784'111'777s);
  for (const char* const text : {"", "soon", "-1", "1.5", "1s", "0x10", "12 12", "\r\n", "Sun, 99"})
    EXPECT_EQ(parse_retry_after(text, now), std::nullopt) << text;
  EXPECT_EQ(parse_retry_after(std::string(5000, '9'), now), std::nullopt);
  EXPECT_EQ(parse_retry_after("99999999999999999999", now), 1'000'000'000s);
  EXPECT_EQ(parse_retry_after("Fri, 31 Dec 9999 23:59:59 GMT", now), 1'000'000'000s);
}

TEST(StatusSetTest, HoldsStatusesAndNothingElse) {
  constexpr StatusSet errors = StatusSet::server_errors();
  static_assert(errors.contains(500) && errors.contains(599) && !errors.contains(499));
  StatusSet edges{100, 163, 164, 599, 600, 99, -4, 1 << 30};
  for (int status = -1000; status < 2000; ++status) {
    EXPECT_EQ(edges.contains(status),
              status == 100 || status == 163 || status == 164 || status == 599)
        << status;
  }
}

}  // namespace
}  // namespace spillway::middleware
