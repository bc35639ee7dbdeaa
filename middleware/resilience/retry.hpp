// SPDX-License-Identifier: Apache-2.0
//
// Whether a call to another service is tried again, and when. Only what may be done twice: methods
// that are idempotent by RFC 9110, or any whose request surely never reached the other side, unless
// the caller says more. Never past the deadline, never more often than `attempts_max`, and only
// while the budget lasts: every success puts a part of a token into it, every retry takes one out,
// so that an outage is not met by a multiple of the normal load.
//
// Threads: any. No lock, no allocation.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string_view>

#include <spillway/engine/clock.hpp>

namespace spillway::middleware {

/// A set of HTTP statuses.
class StatusSet {
 public:
  constexpr StatusSet() = default;
  constexpr StatusSet(std::initializer_list<int> statuses) {
    for (const int status : statuses) add(status, status);
  }
  /// 500 to 599.
  static constexpr StatusSet server_errors() {
    StatusSet set;
    set.add(500, 599);
    return set;
  }
  /// Those outside 100 to 599 are passed over.
  constexpr StatusSet& add(int first, int last) {
    for (int status = first; status <= last; ++status) {
      if (in_range(status)) words_[static_cast<unsigned>(status - 100) / 64] |= bit(status);
    }
    return *this;
  }
  constexpr bool contains(int status) const noexcept {
    return in_range(status) &&
           (words_[static_cast<unsigned>(status - 100) / 64] & bit(status)) != 0;
  }

 private:
  static constexpr bool in_range(int status) noexcept { return status >= 100 && status < 600; }
  static constexpr std::uint64_t bit(int status) noexcept {
    return std::uint64_t{1} << (static_cast<unsigned>(status - 100) % 64);
  }
  std::uint64_t words_[8]{};
};

struct RetryOptions {
  int attempts_max = 3;                   ///< the first one included
  std::chrono::milliseconds backoff{50};  ///< ceiling of the first wait; doubles each time
  std::chrono::milliseconds backoff_max{2'000};
  std::chrono::milliseconds retry_after_max{10'000};  ///< a Retry-After beyond is cut to it
  StatusSet statuses{429, 502, 503, 504};             ///< answers that are worth another try
  bool any_method = false;                            ///< also methods that are not idempotent
  double budget_max = 50;  ///< tokens that can be saved up; so many there are at first
  double budget_per_success = 0.1;

  /// Throws std::invalid_argument that lists everything that cannot work.
  void check() const;
};

enum class RetryReason : std::uint8_t {
  retry,
  not_retryable,   ///< the answer would be the same
  not_idempotent,  ///< the request may have been carried out already
  attempts_used,
  deadline,  ///< the wait would end behind it
  budget_empty,
  nowhere_to_go  ///< after the wait no endpoint's circuit breaker let the call through (ServiceClient)
};
inline constexpr std::size_t retry_reason_count = 7;
std::string_view to_string(RetryReason reason) noexcept;

/// What is known of an attempt that failed.
struct FailedAttempt {
  int number = 1;           ///< the first being 1
  int status = 0;           ///< of the answer; 0: there was none
  bool reached = true;      ///< the request may have reached the other side
  bool idempotent = false;  ///< see is_idempotent(); or the request carries an idempotency key
  std::optional<std::chrono::milliseconds> retry_after{};  ///< as the server asked
  SteadyTime now{};
  SteadyTime deadline = SteadyTime::max();
};

struct RetryDecision {
  RetryReason reason;
  std::chrono::milliseconds wait{0};
  explicit operator bool() const noexcept { return reason == RetryReason::retry; }
};

/// GET, HEAD, OPTIONS, TRACE, PUT, DELETE (RFC 9110, 9.2.2). Methods are compared with case.
bool is_idempotent(std::string_view method) noexcept;

/// Retry-After as a duration (RFC 9110, 10.2.3): seconds, or a date.
/// Nothing when it is neither. A date that is past is 0.
std::optional<std::chrono::milliseconds> parse_retry_after(std::string_view text,
                                                           WallTime now) noexcept;

class Retry {
 public:
  /// Throws std::invalid_argument for options that cannot work.
  explicit Retry(const RetryOptions& options);

  /// Takes a token when it says yes. `draw`: a random number in [0, 1).
  RetryDecision after(const FailedAttempt& attempt, double draw) noexcept;
  /// A call succeeded, at whichever attempt.
  void succeeded() noexcept;

  double budget() const noexcept {
    return static_cast<double>(tokens_.load(std::memory_order_relaxed)) / token;
  }
  const RetryOptions& options() const noexcept { return options_; }

 private:
  static constexpr std::int64_t token = 1000;  // kept in thousandths
  const RetryOptions options_;
  const std::int64_t tokens_max_;
  const std::int64_t tokens_per_success_;
  std::atomic<std::int64_t> tokens_;
};

}  // namespace spillway::middleware
