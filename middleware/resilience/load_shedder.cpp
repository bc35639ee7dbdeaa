// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <limits>
#include <new>
#include <thread>

#include <spillway/middleware/resilience/draw.hpp>
#include <spillway/middleware/resilience/load_shedder.hpp>
#include <spillway/middleware/resilience/settings.hpp>
#include <spillway/transport/background_thread.hpp>

namespace spillway::middleware {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;

namespace {

// Of Gradient2 (Gradient2Limit.java of Netflix's concurrency-limits, read 2026-11).
constexpr double smoothing = 0.2;     // The share of a new limit that is taken over.
constexpr double long_windows = 600;  // The long-term latency is an average over so many windows.
constexpr double long_too_slow = 2;   // Above it by this, latencies pull the average down faster,
constexpr double long_decay = 0.95;   // by this.
constexpr double gradient_min = 0.5;

constexpr milliseconds window{100};
constexpr std::uint32_t window_requests_min = 10;  // Fewer say little of the latency.

constexpr std::int64_t no_delay = std::numeric_limits<std::int64_t>::max();
constexpr double share_whole = 65535;

void raise_to(std::atomic<std::uint32_t>& most, std::uint32_t value) noexcept {
  std::uint32_t before = most.load(std::memory_order_relaxed);
  while (before < value && !most.compare_exchange_weak(before, value, std::memory_order_relaxed)) {
  }
}

}  // namespace

std::string_view to_string(ShedReason reason) noexcept {
  constexpr std::array<std::string_view, shed_reason_count> names{
      "none", "in_flight", "queue_delay", "cpu_pressure", "cpu_throttled", "memory"};
  return names[static_cast<std::size_t>(reason)];
}

void LoadShedderOptions::check() const {
  constexpr milliseconds minute{60'000};
  constexpr std::uint32_t in_flight_limit = 1'000'000;
  SettingsCheck check("load shedding");
  check.within("in_flight_min", in_flight_min, 1U, in_flight_limit)
      .within("in_flight_first", in_flight_first, in_flight_min, in_flight_max)
      .within("in_flight_max", in_flight_max, in_flight_min, in_flight_limit)
      .within("latency_tolerance", latency_tolerance, 1.0, 10.0)
      .within("sheddable_part", sheddable_part, 0.0, 1.0)
      .within("critical_part", critical_part, 1.0, 10.0)
      .within("queue_target", queue_target, milliseconds(1), minute)
      .within("queue_interval", queue_interval, queue_target, minute)
      .within("sample_interval", sample_interval, milliseconds(10), minute);
  const auto thresholds = [&](const std::string& name, const ShedThresholds& of) {
    // Above 1: never.
    check.within(name + ".sheddable", of.sheddable, 0.0, of.normal_from)
        .within(name + ".normal_from", of.normal_from, of.sheddable, of.normal_all)
        .within(name + ".normal_all", of.normal_all, of.normal_from, 10.0);
  };
  thresholds("cpu_pressure", cpu_pressure);
  thresholds("cpu_throttled", cpu_throttled);
  thresholds("memory", memory);
  check.done();
}

/// The thread that reads the kernel's files.
struct LoadShedder::Sampler {
  explicit Sampler(LoadShedder& shedder) {
    thread = transport::start_thread("spillway-load", [this, &shedder] {
      std::unique_lock lock(mutex);
      while (!stopping) {
        lock.unlock();
        try {
          shedder.sample();
        } catch (const std::bad_alloc&) {  // The next one may.
        }
        lock.lock();
        changed.wait_for(lock, shedder.options_.sample_interval, [this] { return stopping; });
      }
    });
  }
  Sampler(const Sampler&) = delete;
  Sampler& operator=(const Sampler&) = delete;
  ~Sampler() {
    {
      const std::scoped_lock lock(mutex);
      stopping = true;
    }
    changed.notify_all();
    thread.join();
  }

  bool is_inherited() const noexcept { return home.is_another(); }

  const transport::HomeProcess home;
  std::mutex mutex;
  std::condition_variable changed;
  bool stopping = false;
  std::thread thread;
};

LoadShedder::LoadShedder(const LoadShedderOptions& options)
    : options_((options.check(), options)),
      clock_(options.clock != nullptr ? options.clock : spillway::detail::system_clock()),
      cgroup_(options.root),
      limit_(options.in_flight_first),
      exact_limit_(options.in_flight_first),
      least_delay_ns_(no_delay) {
  static_assert(std::atomic<Level>::is_always_lock_free);
  if (options_.threads) sampler_ = std::make_unique<Sampler>(*this);
}

LoadShedder::~LoadShedder() {
  transport::release_inherited(sampler_);
  sampler_.reset();  // Before what it writes to.
}

// ---- A request ----

ShedReason LoadShedder::try_begin(Priority priority, SteadyTime now) noexcept {
  ShedReason reason = shed_by_kernel(priority);
  if (reason == ShedReason::none) reason = shed_by_queue(priority, now);
  if (reason != ShedReason::none) return reason;
  const auto limit = static_cast<double>(limit_.load(std::memory_order_relaxed));
  const double part = priority == Priority::normal      ? 1
                      : priority == Priority::sheddable ? options_.sheddable_part
                                                        : options_.critical_part;
  const std::uint32_t in_flight = in_flight_.fetch_add(1, std::memory_order_relaxed) + 1;
  if (in_flight > limit * part) {
    in_flight_.fetch_sub(1, std::memory_order_relaxed);
    raise_to(in_flight_most_, in_flight);  // It is in use: the limit may grow.
    return ShedReason::in_flight;
  }
  if (in_flight > in_flight_most_.load(std::memory_order_relaxed))
    raise_to(in_flight_most_, in_flight);
  return ShedReason::none;
}

void LoadShedder::end(std::optional<nanoseconds> took, SteadyTime now) noexcept {
  in_flight_.fetch_sub(1, std::memory_order_relaxed);
  if (!took) return;
  took_sum_ns_.fetch_add(std::max<std::int64_t>(took->count(), 0), std::memory_order_relaxed);
  const std::uint32_t count = took_count_.fetch_add(1, std::memory_order_relaxed) + 1;
  if (count >= window_requests_min && ns_of(now) >= window_end_ns_.load(std::memory_order_relaxed))
      [[unlikely]]
    end_window(now);
}

// ---- In flight ----

void LoadShedder::end_window(SteadyTime now) noexcept {
  const std::unique_lock lock(window_mutex_, std::try_to_lock);
  if (!lock || ns_of(now) < window_end_ns_.load(std::memory_order_relaxed)) return;
  window_end_ns_.store(ns_of(now + window), std::memory_order_relaxed);
  const std::uint32_t count = took_count_.exchange(0, std::memory_order_relaxed);
  const auto sum = static_cast<double>(took_sum_ns_.exchange(0, std::memory_order_relaxed));
  const std::uint32_t most = in_flight_most_.exchange(in_flight(), std::memory_order_relaxed);
  if (count == 0 || sum <= 0) return;
  const double short_ns = sum / count;
  long_ns_ = long_ns_ == 0 ? short_ns : long_ns_ + (short_ns - long_ns_) * 2 / (long_windows + 1);
  // After a time of overload the average comes down faster than by averaging.
  if (long_ns_ > long_too_slow * short_ns) long_ns_ *= long_decay;
  // What is not used says nothing about how far it may go.
  if (most < exact_limit_ / 2) return;
  const double gradient =
      std::clamp(options_.latency_tolerance * long_ns_ / short_ns, gradient_min, 1.0);
  const double wanted = exact_limit_ * gradient + std::sqrt(exact_limit_);
  exact_limit_ = std::clamp<double>(exact_limit_ * (1 - smoothing) + wanted * smoothing,
                                    options_.in_flight_min, options_.in_flight_max);
  limit_.store(static_cast<std::uint32_t>(exact_limit_), std::memory_order_relaxed);
}

// ---- Queue delay ----

void LoadShedder::observe_queue_delay(nanoseconds delay, SteadyTime now) noexcept {
  const std::int64_t now_ns = ns_of(now);
  std::int64_t end = interval_end_ns_.load(std::memory_order_relaxed);
  if (now_ns >= end &&
      interval_end_ns_.compare_exchange_strong(
          end, now_ns + nanoseconds(options_.queue_interval).count(), std::memory_order_relaxed)) {
    const std::int64_t least = least_delay_ns_.exchange(no_delay, std::memory_order_relaxed);
    const bool standing = least != no_delay && least > nanoseconds(options_.queue_target).count();
    if (standing && !standing_queue_.load(std::memory_order_relaxed)) {
      drops_.store(0, std::memory_order_relaxed);
      drop_next_ns_.store(now_ns, std::memory_order_relaxed);
    }
    standing_queue_.store(standing, std::memory_order_relaxed);
  }
  std::int64_t least = least_delay_ns_.load(std::memory_order_relaxed);
  while (delay.count() < least &&
         !least_delay_ns_.compare_exchange_weak(least, delay.count(), std::memory_order_relaxed)) {
  }
}

ShedReason LoadShedder::shed_by_queue(Priority priority, SteadyTime now) noexcept {
  if (!standing_queue_.load(std::memory_order_relaxed)) [[likely]]
    return ShedReason::none;
  const std::int64_t now_ns = ns_of(now);
  const std::int64_t interval_ns = nanoseconds(options_.queue_interval).count();
  // Nobody has observed anything for an interval: it says nothing any more.
  if (now_ns >= interval_end_ns_.load(std::memory_order_relaxed) + interval_ns)
    return ShedReason::none;
  if (priority == Priority::critical) return ShedReason::none;
  if (priority == Priority::sheddable) return ShedReason::queue_delay;
  // RFC 8289, 4.3: one, and the next ones sooner and sooner until the queue is gone.
  std::int64_t next = drop_next_ns_.load(std::memory_order_relaxed);
  if (now_ns < next) return ShedReason::none;
  const std::uint32_t drops = drops_.fetch_add(1, std::memory_order_relaxed) + 1;
  const auto wait = static_cast<std::int64_t>(static_cast<double>(interval_ns) / std::sqrt(drops));
  return drop_next_ns_.compare_exchange_strong(next, now_ns + wait, std::memory_order_relaxed)
             ? ShedReason::queue_delay
             : ShedReason::none;
}

// ---- CPU and memory ----

ShedReason LoadShedder::shed_by_kernel(Priority priority) const noexcept {
  const Level level = level_.load(std::memory_order_relaxed);
  if (level.sheddable == ShedReason::none) [[likely]]
    return ShedReason::none;
  switch (priority) {
    case Priority::critical:
      return ShedReason::none;
    case Priority::sheddable:
      return level.sheddable;
    case Priority::normal:
      break;
  }
  return draw() * share_whole < level.normal_share ? level.normal : ShedReason::none;
}

void LoadShedder::sample() {
  const std::scoped_lock lock(sample_mutex_);
  const SteadyTime now = clock_->steady();
  Level level;
  const auto judge = [&](double value, const ShedThresholds& thresholds, ShedReason reason) {
    if (value >= thresholds.sheddable && level.sheddable == ShedReason::none)
      level.sheddable = reason;
    if (value < thresholds.normal_from) return;
    const double span = thresholds.normal_all - thresholds.normal_from;
    const double share =
        span <= 0 ? 1 : std::clamp((value - thresholds.normal_from) / span, 0.0, 1.0);
    const auto whole = static_cast<std::uint16_t>(std::lround(share * share_whole));
    if (whole < level.normal_share || whole == 0) return;
    level.normal_share = whole;
    level.normal = reason;
  };
  if (const auto memory = cgroup_.memory())
    judge(memory->utilization(), options_.memory, ShedReason::memory);
  const auto cpu = cgroup_.cpu();
  if (cpu && last_cpu_ && cpu->periods > last_cpu_->periods) {
    judge(static_cast<double>(cpu->throttled - std::min(cpu->throttled, last_cpu_->throttled)) /
              static_cast<double>(cpu->periods - last_cpu_->periods),
          options_.cpu_throttled, ShedReason::cpu_throttled);
  }
  const auto pressure = cgroup_.cpu_pressure();
  if (pressure && last_pressure_ && now > last_sample_) {
    const std::chrono::duration<double> waited = *pressure - *last_pressure_;
    judge(std::clamp(waited / std::chrono::duration<double>(now - last_sample_), 0.0, 1.0),
          options_.cpu_pressure, ShedReason::cpu_pressure);
  }
  last_cpu_ = cpu;
  last_pressure_ = pressure;
  last_sample_ = now;
  level_.store(level, std::memory_order_relaxed);
}

}  // namespace spillway::middleware
