// SPDX-License-Identifier: Apache-2.0
//
// When to try again: AWS's standard mode with the rules of 2026 (SDK reference, "Retry behavior";
// botocore 1.43.3): full jitter on an exponential back-off, slower for throttling, and the server's
// own word where it gives one.
#pragma once

#include <algorithm>
#include <chrono>
#include <optional>

#include <spillway/transport/aws_error.hpp>

namespace spillway::transport {

/// A random part (`draw`, in [0, 1)) of a ceiling that doubles with each attempt, the first being 1:
/// `scale`, 2 `scale`, ... up to `cap` ("Exponential Backoff And Jitter", AWS Architecture Blog,
/// 2015).
std::chrono::milliseconds full_jitter(std::chrono::milliseconds scale,
                                      std::chrono::milliseconds cap, int attempt,
                                      double draw) noexcept;

/// The longest back-off of our own.
inline constexpr std::chrono::milliseconds backoff_max(20'000);
/// So much longer than our own back-off we wait when an AWS service asks for it (SDK reference).
inline constexpr std::chrono::milliseconds aws_asked_excess_max(5'000);

/// The wait before attempt `attempt` + 1, the first attempt being 1. `draw` is a random number in
/// [0, 1). What the server `asked` for is heeded up to `asked_excess_max` beyond our own back-off.
std::chrono::milliseconds backoff(
    Failure failure, int attempt, double draw, std::optional<std::chrono::milliseconds> asked,
    std::chrono::milliseconds asked_excess_max = aws_asked_excess_max) noexcept;

/// What retries of one destination may cost: a bucket of tokens that retries take out and successes
/// put back, so that an outage is not met by a storm. Source: SDK reference "Retry behavior", rules of
/// 2026. One thread.
class RetryQuota {
 public:
  static constexpr int capacity = 500;
  static constexpr int throttled_cost = 5;
  static constexpr int failed_cost = 14;
  static constexpr int first_try_refund = 1;

  static constexpr int cost(Failure failure) noexcept {
    return failure == Failure::throttled ? throttled_cost : failed_cost;
  }
  /// Pays for a retry after `failure`. False: there is not enough, do not retry.
  bool take(Failure failure) noexcept {
    if (tokens_ < cost(failure)) return false;
    tokens_ -= cost(failure);
    return true;
  }
  /// A request was taken; `paid` for its last retry, 0 when it was the first attempt.
  void succeeded(int paid) noexcept {
    tokens_ = std::min(tokens_ + std::max(paid, first_try_refund), capacity);
  }
  int tokens() const noexcept { return tokens_; }

 private:
  int tokens_ = capacity;
};

}  // namespace spillway::transport
