// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include <spillway/engine/clock.hpp>
#include <spillway/engine/health.hpp>

namespace spillway::detail {

/// What one destination's deliveries say of its health. The sender writes, any thread reads. "Lost"
/// is the running count of the records that delivery has dropped.
class DeliveryHealth {
 public:
  void succeeded(SteadyTime now, std::uint64_t lost_so_far) noexcept;
  void failed(SteadyTime now, std::string_view message);
  /// Each round: since when the oldest record waits.
  void observe(SteadyTime now, std::optional<SteadyTime> oldest,
               std::uint64_t lost_so_far) noexcept;

  /// All but the name.
  DestinationHealth read(SteadyTime now, std::uint64_t lost_so_far) const;

 private:
  static constexpr std::size_t message_chars_max = 300;
  // Nanoseconds of the steady clock; 0: never.
  std::atomic<std::int64_t> succeeded_ns_{0};
  std::atomic<std::int64_t> failing_since_ns_{0};
  std::atomic<std::int64_t> oldest_ns_{0};
  std::atomic<std::int64_t> lost_ns_{0};
  std::atomic<std::uint64_t> lost_at_success_{0};
  std::uint64_t lost_seen_ = 0;  // the sender's own
  mutable std::mutex mutex_;
  std::string message_;
};

/// When a thread of the engine last went round.
class Heartbeat {
 public:
  void beat(SteadyTime now) noexcept {
    last_ns_.store(now.time_since_epoch().count(), std::memory_order_relaxed);
  }
  std::chrono::nanoseconds age(SteadyTime now) const noexcept {
    return now.time_since_epoch() -
           std::chrono::nanoseconds(last_ns_.load(std::memory_order_relaxed));
  }

 private:
  std::atomic<std::int64_t> last_ns_{0};
};

}  // namespace spillway::detail
