// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <spillway/middleware/rate_limit/limit.hpp>

namespace spillway {
namespace {

// A window's share is a product of a count and nanoseconds: 31 + 52 bits.
__extension__ using Wide = __int128;

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) noexcept {
  return a / b + (a % b != 0 ? 1 : 0);
}

}  // namespace
}  // namespace spillway
namespace spillway::middleware {

std::string_view to_string(RateAlgorithm algorithm) noexcept {
  switch (algorithm) {
    case RateAlgorithm::token_bucket:
      return "token_bucket";
    case RateAlgorithm::sliding_window:
      return "sliding_window";
    case RateAlgorithm::fixed_window:
      break;
  }
  return "fixed_window";
}

namespace {

std::string as_text(std::chrono::nanoseconds time) { return std::to_string(time.count()) + " ns"; }

}  // namespace

void validate(const RateLimit& limit, std::string_view name, std::vector<std::string>& errors) {
  const auto wrong = [&](std::string_view field, const std::string& value,
                         const std::string& allowed) {
    errors.push_back(std::string(name) + ": " + std::string(field) + " is " + value +
                     ", allowed is " + allowed);
  };
  const bool permits_ok = limit.permits >= 1 && limit.permits <= rate_permits_max;
  if (!permits_ok) {
    wrong("permits", std::to_string(limit.permits), "1 to " + std::to_string(rate_permits_max));
  }
  const bool window_ok = limit.window >= rate_window_min && limit.window <= rate_window_max;
  if (!window_ok) wrong("window", as_text(limit.window), "1 ms to 31 days");
  if (limit.algorithm != RateAlgorithm::token_bucket) {
    if (limit.burst != 0) {
      wrong("burst", std::to_string(limit.burst),
            "0: only a token bucket has one, this is a " + std::string(to_string(limit.algorithm)));
    }
    return;
  }
  if (!permits_ok || !window_ok) return;
  if (limit.window / limit.permits < rate_interval_min) {
    wrong("permits", std::to_string(limit.permits),
          "at most one a microsecond, " + std::to_string(limit.window / rate_interval_min) +
              " in this window");
    return;
  }
  const std::int64_t burst_max = std::min(
      rate_refill_max.count() / ceil_div(limit.window.count(), limit.permits), rate_permits_max);
  if (limit.burst < 0 || limit.burst > burst_max) {
    wrong("burst", std::to_string(limit.burst),
          "0 (as many as permits) to " + std::to_string(burst_max));
  }
}

}  // namespace spillway::middleware
namespace spillway::detail {

RateRule::RateRule(const middleware::RateLimit& limit) noexcept
    : algorithm(limit.algorithm),
      permits(limit.permits),
      window_ns(limit.window.count()),
      interval_ns(ceil_div(window_ns, permits)),
      depth_ns(interval_ns * (limit.burst == 0 ? permits : limit.burst)),
      capacity(algorithm == middleware::RateAlgorithm::token_bucket && limit.burst != 0
                   ? limit.burst
                   : permits) {}

namespace {

using Outcome = middleware::RateDecision::Outcome;

// The state is one number, the theoretical arrival time: when all that was taken will have
// flowed back.
middleware::RateDecision take_tokens(RateState& state, const RateRule& rule, std::int64_t permits,
                                     std::int64_t now) noexcept {
  const std::int64_t before = std::max(state.fresh_at, now);
  if (permits > rule.capacity) {  // Never: not even from a full bucket.
    return {Outcome::denied, rule.capacity, (rule.depth_ns - (before - now)) / rule.interval_ns,
            before - now,    rule.depth_ns, 0};
  }
  const std::int64_t after = before + permits * rule.interval_ns;
  const std::int64_t room = rule.depth_ns - (after - now);
  if (room < 0) {
    return {Outcome::denied,
            rule.capacity,
            std::max(rule.depth_ns - (before - now), std::int64_t{0}) / rule.interval_ns,
            before - now,
            -room,
            0};
  }
  state.fresh_at = after;
  return {Outcome::admitted, rule.capacity, room / rule.interval_ns, after - now, 0, after};
}

middleware::RateDecision take_in_window(RateState& state, const RateRule& rule,
                                        std::int64_t permits, std::int64_t now) noexcept {
  if (now >= state.fresh_at) {
    state.fresh_at = now - now % rule.window_ns + rule.window_ns;
    state.current = 0;
  }
  const std::int64_t left = rule.permits - state.current;
  const std::int64_t until_end = state.fresh_at - now;
  if (permits > left) {
    return {Outcome::denied, rule.capacity, std::max(left, std::int64_t{0}),
            until_end,       until_end,     0};
  }
  state.current += static_cast<std::uint32_t>(permits);
  return {Outcome::admitted, rule.capacity, left - permits, until_end, 0, state.fresh_at};
}

// How much of the last window counts at `remaining_ns` before this one's end, rounded up.
std::int64_t overlap(const RateState& state, const RateRule& rule,
                     std::int64_t remaining) noexcept {
  if (state.previous == 0) return 0;
  const Wide share = Wide{state.previous} * remaining + rule.window_ns - 1;
  return static_cast<std::int64_t>(share / rule.window_ns);
}

// The wait until `permits` fit, nothing being taken meanwhile.
std::int64_t sliding_wait(const RateState& state, const RateRule& rule, std::int64_t permits,
                          std::int64_t remaining) noexcept {
  const std::int64_t free_now = rule.permits - permits - state.current;
  if (free_now >= 0) {  // In this window: when the last one's share has shrunk to free_now.
    const auto at = static_cast<std::int64_t>(Wide{free_now} * rule.window_ns / state.previous);
    return remaining - at;
  }
  const std::int64_t free_next = rule.permits - permits;
  if (free_next < 0) return remaining + rule.window_ns;
  const auto at = static_cast<std::int64_t>(Wide{free_next} * rule.window_ns / state.current);
  return remaining + rule.window_ns - at;
}

middleware::RateDecision take_sliding(RateState& state, const RateRule& rule, std::int64_t permits,
                                      std::int64_t now) noexcept {
  // The window ends one window before the state is fresh.
  std::int64_t end = state.fresh_at - rule.window_ns;
  if (now >= end) {
    const bool adjacent = now < state.fresh_at;
    state.previous = adjacent ? state.current : 0;
    state.current = 0;
    end = adjacent ? state.fresh_at : now - now % rule.window_ns + rule.window_ns;
    state.fresh_at = end + rule.window_ns;
  }
  const std::int64_t remaining = std::min(end - now, rule.window_ns);
  const std::int64_t left = rule.permits - state.current - overlap(state, rule, remaining);
  const std::int64_t reset = state.current == 0 ? end - now : state.fresh_at - now;
  if (permits > left) {
    return {Outcome::denied,
            rule.capacity,
            std::max(left, std::int64_t{0}),
            reset,
            sliding_wait(state, rule, permits, remaining) + (end - now - remaining),
            0};
  }
  state.current += static_cast<std::uint32_t>(permits);
  return {Outcome::admitted, rule.capacity, left - permits, state.fresh_at - now, 0,
          state.fresh_at};
}

void subtract(std::uint32_t& count, std::int64_t permits) noexcept {
  count -= static_cast<std::uint32_t>(std::min(std::int64_t{count}, permits));
}

}  // namespace

middleware::RateDecision take(RateState& state, const RateRule& rule, std::int64_t permits,
                              std::int64_t now) noexcept {
  switch (rule.algorithm) {
    case middleware::RateAlgorithm::token_bucket:
      return take_tokens(state, rule, permits, now);
    case middleware::RateAlgorithm::sliding_window:
      return take_sliding(state, rule, permits, now);
    case middleware::RateAlgorithm::fixed_window:
      break;
  }
  return take_in_window(state, rule, permits, now);
}

void give_back(RateState& state, const RateRule& rule, std::int64_t permits, std::int64_t receipt,
               std::int64_t now) noexcept {
  if (rule.algorithm == middleware::RateAlgorithm::token_bucket) {
    // From its receipt on, the bucket may have been full since: what was taken has flowed back.
    if (now < receipt) state.fresh_at -= permits * rule.interval_ns;
  } else if (state.fresh_at == receipt) {
    subtract(state.current, permits);
  } else if (rule.algorithm == middleware::RateAlgorithm::sliding_window &&
             state.fresh_at == receipt + rule.window_ns) {
    subtract(state.previous, permits);
  }
}

}  // namespace spillway::detail
