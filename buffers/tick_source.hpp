// SPDX-License-Identifier: Apache-2.0
//
// Where records get their time: ticks, a number that grows at a steady rate. The engine turns them
// into wall-clock time on the flusher (engine/clock.hpp); a producer only reads a counter.
#pragma once

#include <atomic>
#include <cstdint>

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

namespace spillway::detail {

/// The processor's counter: 10 ns on the virtual machines we measured, where clock_gettime
/// costs 23.
inline std::uint64_t hardware_ticks() noexcept {
#if defined(__x86_64__)
  return __rdtsc();
#elif defined(__aarch64__)
  std::uint64_t ticks = 0;
  asm volatile("mrs %0, cntvct_el0" : "=r"(ticks));
  return ticks;
#else
  return 0;
#endif
}

/// One per engine, shared with its lanes. `now` is for engines without a usable counter and for
/// tests.
class TickSource {
 public:
  explicit TickSource(bool is_hardware) noexcept : is_hardware_(is_hardware) {}
  TickSource(const TickSource&) = delete;
  TickSource& operator=(const TickSource&) = delete;
  virtual ~TickSource() = default;

  /// The time now. Any thread.
  std::uint64_t ticks() const noexcept { return is_hardware_ ? hardware_ticks() : now(); }
  bool is_hardware() const noexcept { return is_hardware_; }

  /// Time of the flusher's last round: written by it only, read by producers who can do with a
  /// millisecond.
  std::atomic<std::uint64_t> coarse{0};

 private:
  virtual std::uint64_t now() const noexcept = 0;
  const bool is_hardware_;
};

}  // namespace spillway::detail
