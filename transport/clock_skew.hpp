// SPDX-License-Identifier: Apache-2.0
//
// How far this machine's clock is from that of the services, learnt from the Date header of their
// answers. AWS refuses signatures that are some minutes off; a machine whose clock is wrong would
// deliver nothing.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

#include <spillway/transport/http.hpp>

namespace spillway::transport {

/// Below this the clock is left alone: an answer takes its time, and the Date header has whole
/// seconds (aws-sdk-cpp corrects from four minutes on).
inline constexpr std::chrono::minutes clock_skew_min{4};

/// Any thread.
class ClockSkew {
 public:
  using Time = std::chrono::system_clock::time_point;

  /// Learns from an answer. `trusted`: it came by verified TLS, or from this machine. True: the
  /// offset is another than before, so that a request that was refused for its date is worth
  /// signing again.
  bool learn(const HttpResponse& response, Time now, bool trusted) noexcept;
  /// The time to sign with.
  Time corrected(Time now) const noexcept { return now + offset(); }
  std::chrono::milliseconds offset() const noexcept {
    return std::chrono::milliseconds(offset_ms_.load(std::memory_order_relaxed));
  }

 private:
  std::atomic<std::int64_t> offset_ms_{0};
};

}  // namespace spillway::transport
