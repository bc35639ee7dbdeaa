// SPDX-License-Identifier: Apache-2.0
//
// Whether telemetry arrives, told from what destinations took and from how long records wait. Counts
// alone cannot tell: a process that delivers nothing at all counts nothing as failed.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace spillway {

enum class HealthState : std::uint8_t {
  healthy,   ///< what is recorded arrives
  degraded,  ///< it arrives late, or some of it was lost within the last minute
  failing    ///< it does not arrive
};
std::string_view to_string(HealthState state) noexcept;

/// A record that waits longer makes its destination degraded.
inline constexpr std::chrono::seconds health_late{30};
/// Attempts that fail for longer, with no success between, make it failing.
inline constexpr std::chrono::seconds health_failing_after{60};
/// So long after records were lost it stays degraded.
inline constexpr std::chrono::seconds health_loss_remembered{60};
/// The engine's own threads go round at least so often; beyond it they are stuck.
inline constexpr std::chrono::seconds health_thread_stuck{10};

struct DestinationHealth {
  std::string name;  ///< "put-log-events"
  HealthState state = HealthState::healthy;
  std::string reason;                           ///< for people; empty: healthy
  std::chrono::milliseconds oldest_held{};      ///< age of the oldest record on its way; 0: none
  std::chrono::milliseconds since_success{-1};  ///< -1: nothing was delivered yet
  std::uint64_t lost_since_success = 0;         ///< records dropped by delivery since then
};

struct Health {
  HealthState state = HealthState::healthy;  ///< the worst of all
  std::string reason;                        ///< of the engine's own trouble; empty: none
  std::vector<DestinationHealth> destinations;

  /// One JSON object.
  std::string to_json() const;
};

}  // namespace spillway
