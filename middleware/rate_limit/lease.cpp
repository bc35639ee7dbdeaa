// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <utility>

#include <spillway/middleware/rate_limit/lease.hpp>

namespace spillway::detail {

using middleware::RateAlgorithm;
using middleware::RateDecision;

namespace {

constexpr std::int64_t growth = 4;
constexpr std::int64_t share_of_the_rest = 4;
// A lease that gets nothing asks again so many times in a lease time at most, so that permits that
// trickle back are taken in handfuls.
constexpr std::int64_t asks_when_empty = 16;

// An ended lot is still held for so long, for its owner to give it back.
constexpr std::int64_t grace_ns = 1'000'000'000;

std::int64_t end_of(const Lease::Lot& lot) noexcept {
  return lot.permits > 0 ? lot.until + grace_ns : 0;
}

}  // namespace

Lease::Answer Lease::take(const RateRule& rule, std::int64_t permits, std::int64_t now,
                          RateDecision& decision) noexcept {
  for (Lot& lot : lots_) {
    if (lot.permits < permits || now < lot.from || now >= lot.until) continue;
    lot.permits -= permits;
    decision = {RateDecision::Outcome::admitted,
                rule.capacity,
                std::min(lot.permits + lot.left, rule.capacity - permits),
                std::max(lot.full_at - now, std::int64_t{0}),
                0,
                lot.receipt};
    return Answer::admitted;
  }
  if (now < denied_until_ && permits >= denied_permits_) {
    decision = denial(rule, now);
    return Answer::denied;
  }
  return Answer::ask;
}

bool Lease::was_denied_since(std::uint32_t before, const RateRule& rule, std::int64_t permits,
                             std::int64_t now, RateDecision& decision) const noexcept {
  if (denials == before || permits < denied_permits_) return false;
  decision = denial(rule, now);
  return true;
}

RateDecision Lease::denial(const RateRule& rule, std::int64_t now) const noexcept {
  return {RateDecision::Outcome::denied,
          rule.capacity,
          0,
          std::max({denied_full_at_ - now, denied_until_ - now, std::int64_t{0}}),
          std::max(denied_until_ - now, std::int64_t{0}),
          0};
}

bool Lease::put_back(std::int64_t permits, std::int64_t receipt, std::int64_t now) noexcept {
  denied_until_ = 0;
  for (Lot& lot : lots_) {
    if (lot.receipt != receipt || now >= lot.until) continue;
    lot.permits += permits;
    return true;
  }
  return false;
}

// Rolls the window on when its time is over.
bool Lease::is_next_window_due(const LeaseSettings& settings, std::int64_t now) noexcept {
  const std::int64_t window = key->rule.window_ns;
  if (now >= window_end_) window_end_ += ((now - window_end_) / window + 1) * window;
  return window_end_ - now <= std::min(window, settings.time_ns) / 4 && asked_ahead_ != window_end_;
}

bool Lease::wants_more(const LeaseSettings& settings, std::int64_t now) noexcept {
  // A key whose requests are rarer than a lease is long would only carry permits there and back.
  if (asked || size_ <= 1 || now < retry_at || key == nullptr) return false;
  const bool fixed = key->rule.algorithm == RateAlgorithm::fixed_window;
  if (fixed && is_next_window_due(settings, now)) return true;
  if (now < denied_until_) return false;
  std::int64_t usable = 0;
  bool place = fixed;  // Lots of one window become one.
  for (const Lot& lot : lots_) {
    if (now >= lot.from && now < lot.until) usable += lot.permits;
    place = place || lot.permits == 0;
  }
  return place && usable <= size_ / 2;
}

std::int64_t Lease::idle_at() const noexcept {
  if (asked || waiting != 0) return std::numeric_limits<std::int64_t>::max();
  return std::max({end_of(lots_[0]), end_of(lots_[1]), denied_until_, retry_at});
}

Lease::Ask Lease::begin(const LeaseSettings& settings, std::int64_t now) noexcept {
  Ask ask{key, std::max(least, std::int64_t{1}), 1, 1, false, state_};
  if (settings.permits_max == 0) {
    ask.want = std::max(waiting, ask.least);
    return ask;
  }
  ask.share = share_of_the_rest;
  ask.next_window = waiting == 0 && key->rule.algorithm == RateAlgorithm::fixed_window &&
                    window_end_ != 0 && size_ > 1 && is_next_window_due(settings, now);
  if (ask.next_window) {
    asked_ahead_ = window_end_;
  } else if (now - taken_at_ < settings.time_ns / 2) {
    size_ = std::min(size_ * growth, settings.permits_max);
  } else if (now - taken_at_ > settings.time_ns * growth) {
    size_ = std::max(size_ / growth, std::int64_t{1});
  }
  ask.want = std::max({size_, waiting, ask.least});
  return ask;
}

Lease::Lot Lease::settle(const LeaseSettings& settings, const SharedTake& result, const Asked& when,
                         std::int64_t retry) noexcept {
  using Outcome = SharedTake::Outcome;
  asked = false;
  least = 1;
  const RateRule& rule = key->rule;
  const bool fixed = rule.algorithm == RateAlgorithm::fixed_window;
  const std::int64_t to_steady = when.steady_ns - when.wall_ns;
  if (result.outcome != Outcome::taken && result.outcome != Outcome::denied) {
    ++failures;
    retry_at = retry;
    if (result.outcome == Outcome::lost) size_ = 1;
    return {};
  }
  failures = 0;
  retry_at = 0;
  state_ = result.state;
  if (fixed && !when.next_window) window_end_ = result.state.fresh_at + to_steady;
  if (result.outcome == Outcome::denied) {
    if (when.next_window) return {};  // It will be asked again when it has begun.
    std::int64_t wait = result.retry_after_ns;
    if (settings.permits_max != 0 && !fixed) {
      // Not so long that the bucket would overflow meanwhile.
      const std::int64_t fills =
          rule.algorithm == RateAlgorithm::token_bucket ? rule.depth_ns : rule.window_ns;
      wait = std::max(wait, std::min(settings.time_ns / asks_when_empty, fills / 2));
    }
    denied_until_ = when.steady_ns + std::min(wait, settings.denial_ns_max);
    denied_permits_ = result.least;
    ++denials;
    denied_full_at_ = result.state.fresh_at + to_steady;
    return {};
  }
  if (!when.next_window) {
    taken_at_ = when.steady_ns;
    denied_until_ = 0;
  }
  Lot lot{.permits = result.permits,
          .taken = result.permits,
          .from = 0,
          .until = when.answered_ns + settings.time_ns,
          .receipt = result.state.fresh_at,
          .left = result.left,
          .full_at = result.state.fresh_at + to_steady};
  if (fixed) {
    if (when.next_window) lot.from = lot.full_at - rule.window_ns;
    lot.until = std::min(lot.full_at, std::max(lot.from, when.answered_ns) + settings.time_ns);
    // Of one window: one lot, which ends as the last one of them.
    for (Lot& same : lots_) {
      if (same.receipt != lot.receipt) continue;
      lot.permits += std::exchange(same.permits, 0);
      lot.taken = lot.permits;
    }
  }
  // In place of the one that is empty, else of the one that ends first.
  std::size_t at = lots_[0].permits == 0 || lots_[1].permits != 0 ? 0 : 1;
  Lot out = std::exchange(lots_[at], lot);
  if (out.permits == 0) out = {};
  if (lots_[1].permits != 0 && (lots_[0].permits == 0 || lots_[1].until < lots_[0].until))
    std::swap(lots_[0], lots_[1]);
  return out;
}

std::array<Lease::Lot, 2> Lease::take_ended(std::int64_t now) noexcept {
  std::array<Lot, 2> ended{};
  for (std::size_t i = 0; i < lots_.size(); ++i) {
    if (lots_[i].permits == 0 || now < lots_[i].until) continue;
    ended[i] = std::exchange(lots_[i], Lot{});
    if (ended[i].permits * 2 > ended[i].taken) size_ = std::max(size_ / 2, std::int64_t{1});
  }
  return ended;
}

}  // namespace spillway::detail
