// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <ctime>

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

// The same instant on three clocks. The tightest of a few tries: a preemption between two reads
// would bend the line.
struct Instant {
  std::uint64_t ticks;
  std::int64_t wall_ns;
  std::int64_t steady_ns;
};
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

class SystemClock final : public Clock {
 public:
  explicit SystemClock(bool hardware) : Clock(hardware) {
    if (!hardware) return;
    first_ = now_on_all_clocks();
    // The rate needs a stretch of time to be read off; one millisecond gives some 50 ppm, follow()
    // makes it better.
    do {
      latest_ = now_on_all_clocks();
    } while (latest_.steady_ns - first_.steady_ns < 1'000'000);
    ns_per_tick_ = rate();
    before_ = latest_;
  }

  WallTime wall() const noexcept override { return std::chrono::system_clock::now(); }
  SteadyTime steady() const noexcept override { return std::chrono::steady_clock::now(); }

  std::int64_t wall_ns_of(std::uint64_t ticks) noexcept override {
    if (!is_hardware()) return static_cast<std::int64_t>(ticks);
    // Made before the latest anchor: the line of the one before, so that a step does not reach
    // back.
    const Instant& anchor = ticks < latest_.ticks ? before_ : latest_;
    const auto distance = static_cast<std::int64_t>(ticks - anchor.ticks);
    return anchor.wall_ns + std::llround(static_cast<double>(distance) * ns_per_tick_);
  }

  void follow() noexcept override {
    if (!is_hardware()) return;
    const auto since = static_cast<double>(hardware_ticks() - latest_.ticks) * ns_per_tick_;
    if (since < 1e9) return;
    before_ = latest_;
    latest_ = now_on_all_clocks();
    ns_per_tick_ = rate();
  }

 private:
  std::uint64_t now() const noexcept override {
    return static_cast<std::uint64_t>(read(CLOCK_REALTIME));
  }
  double rate() const noexcept {
    return static_cast<double>(latest_.steady_ns - first_.steady_ns) /
           static_cast<double>(latest_.ticks - first_.ticks);
  }

  Instant first_{};
  Instant before_{};
  Instant latest_{};
  double ns_per_tick_ = 1;
};

}  // namespace

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
