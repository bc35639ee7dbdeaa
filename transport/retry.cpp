// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include <spillway/transport/retry.hpp>

namespace spillway::transport {

using std::chrono::milliseconds;

milliseconds full_jitter(milliseconds scale, milliseconds cap, int attempt, double draw) noexcept {
  const double ceiling =
      std::min(std::ldexp(static_cast<double>(scale.count()), std::clamp(attempt, 1, 31) - 1),
               static_cast<double>(cap.count()));
  return milliseconds(std::llround(draw * ceiling));
}

milliseconds backoff(Failure failure, int attempt, double draw, std::optional<milliseconds> asked,
                     milliseconds asked_excess_max) noexcept {
  // A draw near zero would make a loop of a failing host; nobody waits for telemetry.
  constexpr milliseconds floor(10);
  const milliseconds scale(failure == Failure::throttled ? 1000 : 50);
  const milliseconds jittered = std::max(full_jitter(scale, backoff_max, attempt, draw), floor);
  if (!asked) return jittered;
  return std::max(jittered, std::min(*asked, jittered + asked_excess_max));
}

}  // namespace spillway::transport
