// SPDX-License-Identifier: Apache-2.0
//
// A time in which a step refuses requests, so that its log says once that it begins and once that it is
// over, and not a line for each request. Steps own one. Thread-safe; outside of a spell an admitted
// request costs one load.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <limits>

#include <spillway/buffers/cache_line.hpp>
#include <spillway/engine/clock.hpp>

namespace spillway::middleware {

class alignas(cache_line_bytes) RefusalSpell {
 public:
  /// calm_after  without a refusal for so long, the spell is over
  explicit constexpr RefusalSpell(std::chrono::nanoseconds calm_after) noexcept
      : calm_after_ns_(calm_after.count()) {}

  /// A request was refused. True: a spell begins.
  bool refused(SteadyTime now) noexcept {
    return refused_ns_.exchange(ns_of(now), std::memory_order_relaxed) == none;
  }
  /// A request was admitted. True, for one of them: the spell is over.
  bool admitted(SteadyTime now) noexcept {
    std::int64_t last = refused_ns_.load(std::memory_order_relaxed);
    if (last == none) [[likely]]
      return false;
    return ns_of(now) - last >= calm_after_ns_ &&
           refused_ns_.compare_exchange_strong(last, none, std::memory_order_relaxed);
  }

 private:
  static constexpr std::int64_t none = std::numeric_limits<std::int64_t>::min();
  static std::int64_t ns_of(SteadyTime time) noexcept {
    return std::chrono::nanoseconds(time.time_since_epoch()).count();
  }

  const std::int64_t calm_after_ns_;
  std::atomic<std::int64_t> refused_ns_{none};  // when last
};

}  // namespace spillway::middleware
