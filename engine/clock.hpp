// SPDX-License-Identifier: Apache-2.0
//
// Time for an engine: ticks for records, wall clock for what goes over the wire, steady clock for
// every wait.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>

#include <spillway/buffers/tick_source.hpp>

namespace spillway {

using WallTime = std::chrono::system_clock::time_point;
using SteadyTime = std::chrono::steady_clock::time_point;

/// A seam: the engine asks nobody else for the time. Tests use testing::ManualClock.
class Clock : public detail::TickSource {
 public:
  using TickSource::TickSource;
  virtual WallTime wall() const noexcept = 0;
  virtual SteadyTime steady() const noexcept = 0;
  /// Wall-clock nanoseconds since 1970 of a record's ticks. Flusher only.
  virtual std::int64_t wall_ns_of(std::uint64_t ticks) noexcept = 0;
  /// Called by the flusher each round, so that the clock can follow the wall clock.
  virtual void follow() noexcept {}
};

namespace detail {

/// One instant on three clocks.
struct Instant {
  std::uint64_t ticks;
  std::int64_t wall_ns;
  std::int64_t steady_ns;
};

/// Ticks as wall time: a line through the latest anchor, whose slope is read off all of them. Where
/// the counter does not run with the steady clock, as over a suspension or hibernation of the machine,
/// the slope is learnt anew from there on.
class TickLine {
 public:
  /// A point and a later one, far enough from it for a first slope.
  TickLine(const Instant& first, const Instant& latest) noexcept;

  /// A second since the latest anchor is over, or the counter began again.
  bool is_due(std::uint64_t ticks, std::int64_t steady_ns) const noexcept {
    return ticks < latest_.ticks || steady_ns - latest_.steady_ns >= 1'000'000'000;
  }
  void anchor(const Instant& now) noexcept;
  /// Of ticks before the latest anchor: by the line of the one before, so that a step of the wall
  /// clock does not reach back.
  std::int64_t wall_ns_of(std::uint64_t ticks) const noexcept;

 private:
  Instant first_;  // from where on the slope is read
  Instant before_;
  Instant latest_;
  double ns_per_tick_ = 1;
};

/// The machine's clock: the processor's counter where it runs at one rate on all cores, else
/// CLOCK_REALTIME.
///
/// Ticks become wall time by a line through the last anchor, a pair (ticks, wall) that follow()
/// renews each second. A step of the wall clock begins a new line at once; records made before the
/// step are read by the old one.
std::shared_ptr<Clock> system_clock();

/// Whether the processor says that its counter runs at a constant rate (CPUID 0x80000007,
/// "invariant TSC").
bool hardware_ticks_are_steady() noexcept;

}  // namespace detail
}  // namespace spillway
