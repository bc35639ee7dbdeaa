// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <optional>

#include <spillway/middleware/resilience/circuit_breaker.hpp>
#include <spillway/middleware/resilience/draw.hpp>
#include <spillway/middleware/resilience/settings.hpp>

namespace spillway::middleware {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;

namespace {

void check(const KeyTableLimits& limits) {
  SettingsCheck("a table of circuit breakers")
      .within("keys_max", limits.keys_max, std::size_t{1}, std::size_t{1} << 20)
      .within("idle_after", milliseconds(limits.idle_after), milliseconds(1'000),
              milliseconds(std::chrono::hours(24 * 365)))
      .done();
}

}  // namespace

std::string_view to_string(BreakerState state) noexcept {
  switch (state) {
    case BreakerState::closed:
      return "closed";
    case BreakerState::open:
      return "open";
    case BreakerState::half_open:
      break;
  }
  return "half_open";
}

std::string_view to_string(BreakerReason reason) noexcept {
  switch (reason) {
    case BreakerReason::failure_rate:
      return "failure_rate";
    case BreakerReason::slow_call_rate:
      return "slow_call_rate";
    case BreakerReason::open_time_over:
      return "open_time_over";
    case BreakerReason::probes_succeeded:
      return "probes_succeeded";
    case BreakerReason::probes_failed:
      return "probes_failed";
    case BreakerReason::probes_slow:
      break;
  }
  return "probes_slow";
}

CircuitBreakers::CircuitBreakers(CircuitBreakerOptions options, const KeyTableLimits& limits)
    : options_((options.check(), check(limits), std::move(options))), table_(limits, options_) {}

void CircuitBreakerOptions::check() const {
  constexpr milliseconds hour{3'600'000};
  SettingsCheck("a circuit breaker")
      .within("window", window, milliseconds(breaker_buckets), hour)
      .within("failure_rate", failure_rate, 0.001, 2.0)
      .within("slow_call_rate", slow_call_rate, 0.001, 2.0)
      .within("slow_call", slow_call, milliseconds(1), hour)
      .within("calls_min", calls_min, 1U, 1'000'000U)
      .within("open_time", open_time, milliseconds(1), hour)
      .within("open_growth", open_growth, 1.0, 10.0)
      .within("open_time_max", open_time_max, open_time, hour)
      .within("open_jitter", open_jitter, 0.0, 0.5)
      .within("probes", probes, 1U, breaker_probes_max)
      .within("probe_timeout", probe_timeout, milliseconds(1), hour)
      .done();
}

CircuitBreaker::CircuitBreaker(const CircuitBreakerOptions& options) noexcept
    : options_(&options),
      slow_call_(options.slow_call),
      bucket_ns_(nanoseconds(options.window).count() / breaker_buckets) {}

CircuitBreaker::Permit CircuitBreaker::try_acquire_slow(SteadyTime now) noexcept {
  if (state() == BreakerState::open &&
      ns_of(now) < open_until_ns_.load(std::memory_order_relaxed)) {
    return {};  // Refused: open.
  }
  std::optional<BreakerChange> change;
  Permit permit;
  {
    const std::scoped_lock lock(mutex_);
    const std::uint32_t phase = phase_.load(std::memory_order_relaxed);
    switch (state_of(phase)) {
      case BreakerState::closed:
        permit.phase_ = phase;
        permit.refusal_ = BreakerRefusal::none;
        break;
      case BreakerState::open:
        if (ns_of(now) < open_until_ns_.load(std::memory_order_relaxed)) break;
        enter(BreakerState::half_open);
        probes_ = {};
        probe_counts_ = {};
        change = {
            BreakerState::open, BreakerState::half_open, BreakerReason::open_time_over, 0, 0, 0,
            nanoseconds::zero()};
        permit = grant_probe(now);
        break;
      case BreakerState::half_open:
        permit = grant_probe(now);
        break;
    }
  }
  if (change) tell(*change);
  return permit;
}

CircuitBreaker::Permit CircuitBreaker::grant_probe(SteadyTime now) noexcept {
  Permit permit;
  permit.refusal_ = BreakerRefusal::probing;
  const std::int64_t lost_since = ns_of(now) - nanoseconds(options_->probe_timeout).count();
  for (std::uint32_t i = 0; i < options_->probes; ++i) {
    Probe& probe = probes_[i];
    const bool lost = probe.step == Probe::Step::out && probe.out_since_ns <= lost_since;
    if (probe.step != Probe::Step::unused && !lost) continue;
    if (++probe_serial_ == 0) ++probe_serial_;  // 0 stands for no probe.
    probe = {Probe::Step::out, probe_serial_, ns_of(now)};
    permit.phase_ = phase_.load(std::memory_order_relaxed);
    permit.serial_ = probe_serial_;
    permit.probe_ = static_cast<std::uint8_t>(i);
    permit.refusal_ = BreakerRefusal::none;
    break;
  }
  return permit;
}

// What does not only count: refused permits, results that say nothing, and probes.
void CircuitBreaker::record_slow(const Permit& permit, CallResult result, nanoseconds took,
                                 SteadyTime now) noexcept {
  if (!permit || !permit.is_probe()) return;
  std::optional<BreakerChange> change;
  {
    const std::scoped_lock lock(mutex_);
    if (phase_.load(std::memory_order_relaxed) != permit.phase_) return;
    Probe& probe = probes_[permit.probe_];
    if (probe.step != Probe::Step::out || probe.serial != permit.serial_) return;
    if (result == CallResult::ignored) {
      probe.step = Probe::Step::unused;
      return;
    }
    probe.step = Probe::Step::done;
    ++probe_counts_.calls;
    if (result == CallResult::failure) ++probe_counts_.failed;
    if (took >= slow_call_) ++probe_counts_.slow;
    // As soon as the others cannot make it good any more.
    const auto reached = [this](std::uint64_t count, double rate) {
      return static_cast<double>(count) >= rate * options_->probes && count != 0;
    };
    if (reached(probe_counts_.failed, options_->failure_rate)) {
      change = open(now, BreakerReason::probes_failed, probe_counts_);
    } else if (reached(probe_counts_.slow, options_->slow_call_rate)) {
      change = open(now, BreakerReason::probes_slow, probe_counts_);
    } else if (probe_counts_.calls == options_->probes) {
      change = close(now);
    }
  }
  if (change) tell(*change);
}

void CircuitBreaker::record_bad(const Permit& permit, Stripe& stripe, CallResult result,
                                nanoseconds took, SteadyTime now) noexcept {
  if (result == CallResult::failure) stripe.failed.fetch_add(1, std::memory_order_relaxed);
  if (took >= slow_call_) stripe.slow.fetch_add(1, std::memory_order_relaxed);
  std::optional<BreakerChange> change;
  {
    const std::scoped_lock lock(mutex_);
    if (phase_.load(std::memory_order_relaxed) != permit.phase_) return;
    const Counts seen = counts_locked();
    if (seen.calls < options_->calls_min) return;
    const auto reached = [&](std::uint64_t count, double rate) {
      return static_cast<double>(count) >= rate * static_cast<double>(seen.calls);
    };
    if (reached(seen.failed, options_->failure_rate)) {
      change = open(now, BreakerReason::failure_rate, seen);
    } else if (reached(seen.slow, options_->slow_call_rate)) {
      change = open(now, BreakerReason::slow_call_rate, seen);
    }
  }
  if (change) tell(*change);
}

void CircuitBreaker::roll(SteadyTime now) noexcept {
  const std::scoped_lock lock(mutex_);
  const std::int64_t end = bucket_end_ns_.load(std::memory_order_relaxed);
  const std::int64_t past_ns = ns_of(now) - end;
  if (past_ns < 0) return;  // Another thread was first.
  close_bucket();
  // Buckets that began and ended without a call.
  const std::int64_t empty =
      std::min(past_ns / bucket_ns_, static_cast<std::int64_t>(closed_buckets_.size()));
  for (std::int64_t i = 0; i < empty; ++i) {
    closed_buckets_[bucket_] = {};
    bucket_ = (bucket_ + 1) % (breaker_buckets - 1);
  }
  bucket_end_ns_.store(ns_of(now) - past_ns % bucket_ns_ + bucket_ns_, std::memory_order_relaxed);
}

void CircuitBreaker::close_bucket() noexcept {
  Counts counts;
  for (Stripe& stripe : stripes_) {
    counts.failed += stripe.failed.exchange(0, std::memory_order_relaxed);
    counts.slow += stripe.slow.exchange(0, std::memory_order_relaxed);
    counts.calls += stripe.calls.exchange(0, std::memory_order_relaxed);
  }
  closed_buckets_[bucket_] = counts;
  bucket_ = (bucket_ + 1) % (breaker_buckets - 1);
}

CircuitBreaker::Counts CircuitBreaker::counts_locked() const noexcept {
  Counts sum;
  for (const Counts& bucket : closed_buckets_) {
    sum.calls += bucket.calls;
    sum.failed += bucket.failed;
    sum.slow += bucket.slow;
  }
  for (const Stripe& stripe : stripes_) {
    sum.failed += stripe.failed.load(std::memory_order_relaxed);
    sum.slow += stripe.slow.load(std::memory_order_relaxed);
    sum.calls += stripe.calls.load(std::memory_order_relaxed);
  }
  return sum;
}

CircuitBreaker::Counts CircuitBreaker::counts() const noexcept {
  const std::scoped_lock lock(mutex_);
  return counts_locked();
}

void CircuitBreaker::enter(BreakerState state) noexcept {
  const std::uint32_t phase = phase_.load(std::memory_order_relaxed);
  phase_.store(((phase >> 2) + 1) << 2 | static_cast<std::uint32_t>(state),
               std::memory_order_release);
}

BreakerChange CircuitBreaker::open(SteadyTime now, BreakerReason reason,
                                   const Counts& seen) noexcept {
  const BreakerState from = state();
  const bool recovered = from == BreakerState::closed &&
                         ns_of(now) - closed_since_ns_ >= nanoseconds(options_->window).count();
  opened_in_a_row_ = recovered || opened_in_a_row_ == 0 ? 1 : opened_in_a_row_ + 1;
  const auto longest = static_cast<double>(nanoseconds(options_->open_time_max).count());
  const double grown = static_cast<double>(nanoseconds(options_->open_time).count()) *
                       std::pow(options_->open_growth, std::min(opened_in_a_row_ - 1, 64U));
  const double random = options_->random ? options_->random() : draw();
  const nanoseconds open_for(
      std::llround(std::min(grown, longest) * (1 + options_->open_jitter * (2 * random - 1))));
  open_until_ns_.store(ns_of(now) + open_for.count(), std::memory_order_relaxed);
  enter(BreakerState::open);
  return {from,
          BreakerState::open,
          reason,
          static_cast<std::uint32_t>(seen.calls),
          static_cast<std::uint32_t>(seen.failed),
          static_cast<std::uint32_t>(seen.slow),
          open_for};
}

BreakerChange CircuitBreaker::close(SteadyTime now) noexcept {
  clear();
  closed_since_ns_ = ns_of(now);
  enter(BreakerState::closed);
  return {BreakerState::half_open,
          BreakerState::closed,
          BreakerReason::probes_succeeded,
          static_cast<std::uint32_t>(probe_counts_.calls),
          static_cast<std::uint32_t>(probe_counts_.failed),
          static_cast<std::uint32_t>(probe_counts_.slow),
          nanoseconds::zero()};
}

void CircuitBreaker::clear() noexcept {
  close_bucket();
  closed_buckets_ = {};
}

nanoseconds CircuitBreaker::retry_in(SteadyTime now) const noexcept {
  if (state() != BreakerState::open) return nanoseconds::zero();
  return std::max(nanoseconds(open_until_ns_.load(std::memory_order_relaxed) - ns_of(now)),
                  nanoseconds::zero());
}

bool CircuitBreaker::try_recycle(std::int64_t /*now_ns*/) noexcept {
  const std::scoped_lock lock(mutex_);
  clear();
  opened_in_a_row_ = 0;
  closed_since_ns_ = 0;
  enter(BreakerState::closed);
  return true;
}

}  // namespace spillway::middleware
