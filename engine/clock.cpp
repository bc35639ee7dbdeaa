// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <ctime>
#include <optional>

#include <spillway/engine/clock.hpp>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace spillway::detail {
namespace {

std::int64_t read(clockid_t clock) noexcept {
  timespec now{};
  clock_gettime(clock, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

// The tightest of a few tries: a preemption between two reads would bend the line.
Instant now_on_all_clocks() noexcept {
  Instant best{};
  std::uint64_t best_width = ~std::uint64_t{0};
  for (int i = 0; i < 5; ++i) {
    const std::uint64_t before = hardware_ticks();
    const std::int64_t wall = read(CLOCK_REALTIME);
    const std::int64_t steady = read(CLOCK_MONOTONIC);
    const std::uint64_t after = hardware_ticks();
    if (after - before < best_width) {
      best_width = after - before;
      best = {before + best_width / 2, wall, steady};
    }
  }
  return best;
}

TickLine first_line() noexcept {
  // A slope needs a stretch of time to be read off; one millisecond gives some 50 ppm, follow()
  // makes it better.
  const Instant first = now_on_all_clocks();
  Instant latest{};
  do {
    latest = now_on_all_clocks();
  } while (latest.steady_ns - first.steady_ns < 1'000'000);
  return {first, latest};
}

class SystemClock final : public Clock {
 public:
  explicit SystemClock(bool hardware) : Clock(hardware) {
    if (hardware) line_.emplace(first_line());
  }

  WallTime wall() const noexcept override { return std::chrono::system_clock::now(); }
  SteadyTime steady() const noexcept override { return std::chrono::steady_clock::now(); }

  std::int64_t wall_ns_of(std::uint64_t ticks) noexcept override {
    return line_ ? line_->wall_ns_of(ticks) : static_cast<std::int64_t>(ticks);
  }

  void follow() noexcept override {
    if (line_ && line_->is_due(hardware_ticks(), read(CLOCK_MONOTONIC))) {
      line_->anchor(now_on_all_clocks());
    }
  }

 private:
  std::uint64_t now() const noexcept override {
    return static_cast<std::uint64_t>(read(CLOCK_REALTIME));
  }
  std::optional<TickLine> line_;
};

double slope(const Instant& from, const Instant& to) noexcept {
  return static_cast<double>(to.steady_ns - from.steady_ns) /
         static_cast<double>(to.ticks - from.ticks);
}

}  // namespace

TickLine::TickLine(const Instant& first, const Instant& latest) noexcept
    : first_(first), before_(latest), latest_(latest), ns_per_tick_(slope(first, latest)) {}

void TickLine::anchor(const Instant& now) noexcept {
  before_ = latest_;
  latest_ = now;
  if (latest_.ticks <= before_.ticks) {  // The counter began again: no line leads here.
    first_ = latest_;
    return;
  }
  // Of one rate, the two differ by what an anchor may be off: microseconds in a second.
  constexpr double rate_change = 1e-3;
  const double latest_slope = slope(before_, latest_);
  const bool is_first = first_.ticks == before_.ticks;
  if (!is_first && std::abs(latest_slope - ns_per_tick_) > rate_change * ns_per_tick_) {
    first_ = latest_;
    return;
  }
  ns_per_tick_ = slope(first_, latest_);
}

std::int64_t TickLine::wall_ns_of(std::uint64_t ticks) const noexcept {
  const auto distance_to = [ticks](const Instant& anchor) {
    return ticks < anchor.ticks ? anchor.ticks - ticks : ticks - anchor.ticks;
  };
  // Where the counter began again the nearer one is that of the same run.
  const bool is_before = latest_.ticks > before_.ticks
                             ? ticks < latest_.ticks
                             : distance_to(before_) < distance_to(latest_);
  const Instant& anchor = is_before ? before_ : latest_;
  const auto distance = static_cast<std::int64_t>(ticks - anchor.ticks);
  const double ns = static_cast<double>(distance) * ns_per_tick_;
  return anchor.wall_ns + static_cast<std::int64_t>(ns + (ns < 0 ? -0.5 : 0.5));
}

bool hardware_ticks_are_steady() noexcept {
#if defined(__x86_64__)
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  return __get_cpuid(0x80000007, &a, &b, &c, &d) != 0 && (d & 1U << 8) != 0;
#elif defined(__aarch64__)
  return true;  // The generic timer's rate is constant by its architecture.
#else
  return false;
#endif
}

std::shared_ptr<Clock> system_clock() {
  return std::make_shared<SystemClock>(hardware_ticks_are_steady());
}

}  // namespace spillway::detail
