// SPDX-License-Identifier: Apache-2.0
//
// A circuit breaker: calls to something that fails too often, or answers too slowly, are refused
// for a while, then a few probes find out whether it is well again.
//
//   CircuitBreaker breaker(options);
//   const auto permit = breaker.try_acquire(now);
//   if (!permit) ... refused: permit.refusal() says why, breaker.retry_in(now) for how long ...
//   ... the call ...
//   breaker.record(permit, CallResult::success, took, now);     // or release(permit): no result
//
// Closed: results are counted in buckets of a sliding window. A failed or slow call that finds at
// least `calls_min` calls in the window, and too many of them failed or slow, opens the breaker.
// Open: everything is refused until the open time is over.
// Half-open: exactly `probes` calls are let through. All well enough: closed, with an empty window.
// Too many bad: open again, for longer. A probe that gives no result within `probe_timeout` loses
// its permit to another call, so that a lost one cannot keep the breaker half-open.
//
// Threads: any. While it is closed, a good call costs two loads, one addition to a counter that
// threads seldom share, and no lock; bad calls and what is not closed take a lock for a moment.
// Time comes from the caller: a clock read for the call anyway serves it too.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string_view>
#include <utility>

#include <spillway/buffers/cache_line.hpp>
#include <spillway/engine/clock.hpp>
#include <spillway/middleware/resilience/key_table.hpp>
#include <spillway/middleware/resilience/stripes.hpp>

namespace spillway::middleware {

/// What a call says of the health of what was called. `ignored`: nothing (the caller's own mistake,
/// a cancelled call).
enum class CallResult : std::uint8_t { success, failure, ignored };

enum class BreakerState : std::uint8_t { closed, open, half_open };

/// Why a call was not let through.
enum class BreakerRefusal : std::uint8_t {
  none,
  open,    ///< too many calls failed or were slow
  probing  ///< as many probes as are allowed are under way
};

/// Why a breaker changed its state.
enum class BreakerReason : std::uint8_t {
  failure_rate,
  slow_call_rate,
  open_time_over,
  probes_succeeded,
  probes_failed,
  probes_slow
};

std::string_view to_string(BreakerState state) noexcept;
std::string_view to_string(BreakerReason reason) noexcept;

/// A change of state, for events.
struct BreakerChange {
  BreakerState from;
  BreakerState to;
  BreakerReason reason;
  std::uint32_t calls;                ///< of the window, or the probes that gave a result
  std::uint32_t failed;               ///< of `calls`
  std::uint32_t slow;                 ///< of `calls`
  std::chrono::nanoseconds open_for;  ///< when `to` is open
};

inline constexpr std::uint32_t breaker_buckets = 10;
inline constexpr std::uint32_t breaker_probes_max = 16;

struct CircuitBreakerOptions {
  std::chrono::milliseconds window{10'000};  ///< in breaker_buckets buckets
  double failure_rate = 0.5;    ///< of the window's calls; reaching it opens. Above 1: never
  double slow_call_rate = 0.8;  ///< likewise
  std::chrono::milliseconds slow_call{5'000};  ///< a call that took so long is slow, failed or not
  std::uint32_t calls_min = 20;                ///< in the window, before it is judged
  std::chrono::milliseconds open_time{5'000};
  /// Open time of a breaker that opens again before it was closed for a whole window: multiplied
  /// each time, up to open_time_max.
  double open_growth = 2;
  std::chrono::milliseconds open_time_max{60'000};
  double open_jitter = 0.1;  ///< open times vary by this share up and down, so that callers spread
  std::uint32_t probes = 3;  ///< in half-open
  std::chrono::milliseconds probe_timeout{30'000};

  /// Numbers in [0, 1) for jitter; null: the process's own generator.
  std::function<double()> random{};
  /// Told of every change, on the thread that caused it, with no lock held. Must not throw.
  std::function<void(const BreakerChange&)> on_change{};

  /// Throws std::invalid_argument that lists everything that cannot work.
  void check() const;
};

class CircuitBreaker {
 public:
  /// The right to one call, to be given to record() or release() of the same breaker. A value;
  /// dropping one of a closed breaker costs nothing, dropping a probe's costs probe_timeout.
  class Permit {
   public:
    Permit() = default;
    explicit operator bool() const noexcept { return refusal_ == BreakerRefusal::none; }
    BreakerRefusal refusal() const noexcept { return refusal_; }
    bool is_probe() const noexcept { return serial_ != 0; }

   private:
    friend class CircuitBreaker;
    std::uint32_t phase_ = 0;
    std::uint32_t serial_ = 0;  // of a probe; 0: none
    std::uint8_t probe_ = 0;    // index of the probe
    BreakerRefusal refusal_ = BreakerRefusal::open;
  };

  /// `options` outlive the breaker, and have been checked.
  explicit CircuitBreaker(const CircuitBreakerOptions& options) noexcept;

  Permit try_acquire(SteadyTime now) noexcept {
    const std::uint32_t phase = phase_.load(std::memory_order_acquire);
    if (state_of(phase) == BreakerState::closed) [[likely]] {
      Permit permit;
      permit.phase_ = phase;
      permit.refusal_ = BreakerRefusal::none;
      return permit;
    }
    return try_acquire_slow(now);
  }

  /// What became of the call, which ended `now` after `took`. A permit of an earlier state of the
  /// breaker, or one that was refused, changes nothing.
  void record(const Permit& permit, CallResult result, std::chrono::nanoseconds took,
              SteadyTime now) noexcept {
    const bool bad = result == CallResult::failure || took >= slow_call_;
    if (!permit || result == CallResult::ignored || permit.is_probe()) [[unlikely]]
      return record_slow(permit, result, took, now);
    if (phase_.load(std::memory_order_relaxed) != permit.phase_) return;
    if (ns_of(now) >= bucket_end_ns_.load(std::memory_order_relaxed)) [[unlikely]]
      roll(now);
    Stripe& stripe = stripes_[this_stripe()];
    stripe.calls.fetch_add(1, std::memory_order_relaxed);
    if (bad) [[unlikely]]
      record_bad(permit, stripe, result, took, now);
  }

  /// The call came to no result: a probe's permit goes to the next caller.
  void release(const Permit& permit) noexcept {
    if (permit && permit.is_probe()) record_slow(permit, CallResult::ignored, {}, {});
  }

  BreakerState state() const noexcept { return state_of(phase_.load(std::memory_order_relaxed)); }
  /// How long it stays open at least; 0 when it is not open.
  std::chrono::nanoseconds retry_in(SteadyTime now) const noexcept;

  /// Of the sliding window as of the latest record. For tests and status pages.
  struct Counts {
    std::uint64_t calls = 0;
    std::uint64_t failed = 0;
    std::uint64_t slow = 0;
  };
  Counts counts() const noexcept;

  /// For KeyTable: a breaker that nobody used for long begins anew.
  bool try_recycle(std::int64_t now_ns) noexcept;

 private:
  // phase_: how often the state changed, and the state in the lowest two bits. Stored under mutex_
  // (release), loaded without it. A permit that carries another phase is out of date.
  static BreakerState state_of(std::uint32_t phase) noexcept {
    return static_cast<BreakerState>(phase & 3U);
  }
  static std::int64_t ns_of(SteadyTime time) noexcept {
    return std::chrono::nanoseconds(time.time_since_epoch()).count();
  }
  // The bucket that is being filled. A record that comes late, after its bucket was closed, counts
  // in the next one: nothing is lost.
  struct alignas(cache_line_bytes) Stripe {
    std::atomic<std::uint32_t> calls{0};
    std::atomic<std::uint32_t> failed{0};
    std::atomic<std::uint32_t> slow{0};
  };
  struct Probe {
    enum class Step : std::uint8_t { unused, out, done } step = Step::unused;
    std::uint32_t serial = 0;
    std::int64_t out_since_ns = 0;
  };

  Permit try_acquire_slow(SteadyTime now) noexcept;
  void record_slow(const Permit& permit, CallResult result, std::chrono::nanoseconds took,
                   SteadyTime now) noexcept;
  void record_bad(const Permit& permit, Stripe& stripe, CallResult result,
                  std::chrono::nanoseconds took, SteadyTime now) noexcept;
  void roll(SteadyTime now) noexcept;

  // With mutex_ held.
  void close_bucket() noexcept;
  Counts counts_locked() const noexcept;
  void enter(BreakerState state) noexcept;
  BreakerChange open(SteadyTime now, BreakerReason reason, const Counts& seen) noexcept;
  BreakerChange close(SteadyTime now) noexcept;
  void clear() noexcept;
  Permit grant_probe(SteadyTime now) noexcept;

  void tell(const BreakerChange& change) const noexcept {
    if (options_->on_change) options_->on_change(change);
  }

  const CircuitBreakerOptions* const options_;
  const std::chrono::nanoseconds slow_call_;
  const std::int64_t bucket_ns_;
  // Read by every call, written seldom.
  std::atomic<std::uint32_t> phase_{0};
  std::atomic<std::int64_t> bucket_end_ns_{0};
  std::atomic<std::int64_t> open_until_ns_{0};

  std::array<Stripe, stripe_count> stripes_;

  mutable std::mutex mutex_;                                  // of what follows
  std::array<Counts, breaker_buckets - 1> closed_buckets_{};  // beside the one being filled
  std::uint32_t bucket_ = 0;  // the next of closed_buckets_ to be replaced
  std::uint32_t opened_in_a_row_ = 0;
  std::int64_t closed_since_ns_ = 0;
  std::array<Probe, breaker_probes_max> probes_{};
  std::uint32_t probe_serial_ = 0;
  Counts probe_counts_;
};

/// A breaker for each key: a host, a route, a dependency.
class CircuitBreakers {
 public:
  /// Throws std::invalid_argument for options that cannot work.
  explicit CircuitBreakers(CircuitBreakerOptions options, const KeyTableLimits& limits = {});

  CircuitBreaker& of(std::string_view key, SteadyTime now) noexcept {
    return table_.find(key, std::chrono::nanoseconds(now.time_since_epoch()).count());
  }
  CircuitBreaker& of(std::uint64_t hash, SteadyTime now) noexcept {
    return table_.find(hash, std::chrono::nanoseconds(now.time_since_epoch()).count());
  }
  const CircuitBreakerOptions& options() const noexcept { return options_; }
  const KeyTable<CircuitBreaker>& table() const noexcept { return table_; }

 private:
  const CircuitBreakerOptions options_;
  KeyTable<CircuitBreaker> table_;
};

}  // namespace spillway::middleware
