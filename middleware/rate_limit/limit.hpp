// SPDX-License-Identifier: Apache-2.0
//
// What a rate limit is and how one request is decided: pure arithmetic on integers, in nanoseconds
// of a clock that the caller gives. Knows no HTTP, no store and no thread.
//
//   fixed window     at most `permits` in each window; windows begin at multiples of their length.
//                    Around the seam of two windows twice as many can pass.
//   sliding window   two counters: the last window's share that still overlaps the window behind us,
//                    taken as spread evenly, plus this window's count, is at most `permits`.
//   token bucket     the generic cell rate algorithm (ITU-T I.371): a permit every
//                    window / permits, up to `burst` of them saved up.
#pragma once

#include <chrono>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace spillway::middleware {

enum class RateAlgorithm : std::uint8_t { token_bucket, sliding_window, fixed_window };
std::string_view to_string(RateAlgorithm algorithm) noexcept;

/// So many permits in so much time.
struct RateLimit {
  std::int64_t permits = 0;
  std::chrono::nanoseconds window = std::chrono::seconds(1);
  RateAlgorithm algorithm = RateAlgorithm::token_bucket;
  /// Token bucket only: permits that can be taken at once. 0: as many as `permits`.
  std::int64_t burst = 0;

  friend bool operator==(const RateLimit&, const RateLimit&) = default;
};

inline constexpr std::int64_t rate_permits_max = std::int64_t{1} << 31;
inline constexpr std::chrono::nanoseconds rate_window_min = std::chrono::milliseconds(1);
inline constexpr std::chrono::nanoseconds rate_window_max = std::chrono::hours(31 * 24);
/// A bucket is full again after so long at the latest: bounds `burst`.
inline constexpr std::chrono::nanoseconds rate_refill_max = std::chrono::hours(366 * 24);
/// A token bucket gives at most a permit in so long: the arithmetic is in whole nanoseconds, and its
/// interval, rounded up, is then at most 0.1 % too long.
inline constexpr std::chrono::nanoseconds rate_interval_min = std::chrono::microseconds(1);

/// What is wrong with a limit, each with the allowed range, `name` in front; appended to `errors`.
void validate(const RateLimit& limit, std::string_view name, std::vector<std::string>& errors);

/// What became of one request.
struct RateDecision {
  enum class Outcome : std::uint8_t {
    admitted,
    denied,                ///< over the limit
    admitted_unavailable,  ///< the store does not answer, and the limit fails open
    denied_unavailable     ///< the store does not answer, and the limit fails closed
  };
  Outcome outcome = Outcome::admitted;
  std::int64_t limit = 0;           ///< what `remaining` counts down from
  std::int64_t remaining = 0;       ///< could be taken at once
  std::int64_t reset_after_ns = 0;  ///< until all of `limit` is there again
  std::int64_t retry_after_ns = 0;  ///< when denied: until the same request can pass
  std::int64_t receipt = 0;  ///< what give_back() needs to undo exactly this; 0: nothing was taken

  bool admitted() const noexcept {
    return outcome == Outcome::admitted || outcome == Outcome::admitted_unavailable;
  }
};

}  // namespace spillway::middleware
namespace spillway::detail {

/// One key's state under any of the algorithms; all zero is a key that was never seen.
struct RateState {
  /// From this moment on the state is as good as none: GCRA's theoretical arrival time; the end of
  /// a fixed window; for a sliding window one window behind its end.
  std::int64_t fresh_at = 0;
  std::uint32_t current = 0;   ///< taken in this window
  std::uint32_t previous = 0;  ///< taken in the one before (sliding window)
};

/// A limit made ready: what each decision would compute again.
struct RateRule {
  middleware::RateAlgorithm algorithm = middleware::RateAlgorithm::token_bucket;
  std::int64_t permits = 1;
  std::int64_t window_ns = 1;
  std::int64_t interval_ns = 1;  ///< token bucket: one permit's time
  std::int64_t depth_ns = 1;     ///< token bucket: all permits' time
  std::int64_t capacity = 1;     ///< that can be taken at once

  RateRule() = default;
  /// `limit` is valid.
  explicit RateRule(const middleware::RateLimit& limit) noexcept;
};

/// Times lie in [0, rate_time_max): the arithmetic cannot overflow.
inline constexpr std::int64_t rate_time_max = std::int64_t{1} << 62;

/// Takes `permits` (1 or more) at `now_ns`, or says when they can be taken. A `now_ns` somewhat
/// before an earlier one, as threads that race see it, counts as the earlier one.
middleware::RateDecision take(RateState& state, const RateRule& rule, std::int64_t permits,
                              std::int64_t now_ns) noexcept;

/// Gives back what a decision with `receipt` took, unless time has given it back already: never
/// makes room for more than the limit.
void give_back(RateState& state, const RateRule& rule, std::int64_t permits, std::int64_t receipt,
               std::int64_t now_ns) noexcept;

}  // namespace spillway::detail
