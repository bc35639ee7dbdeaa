// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include <spillway/transport/retry.hpp>

namespace spillway::transport {

std::chrono::milliseconds backoff(Failure failure, int attempt, double draw,
                                  std::optional<std::chrono::milliseconds> asked) noexcept {
  using std::chrono::milliseconds;
  constexpr double cap_ms = 20'000;
  // A draw near zero would make a loop of a failing host; nobody waits for telemetry.
  constexpr double floor_ms = 10;
  const double scale_ms = failure == Failure::throttled ? 1000 : 50;
  const double ceiling = std::min(std::ldexp(scale_ms, std::min(attempt, 30) - 1), cap_ms);
  const milliseconds jittered(std::llround(std::max(draw * ceiling, floor_ms)));
  if (!asked) return jittered;
  return std::max(jittered, std::min(*asked, jittered + milliseconds(5000)));
}

}  // namespace spillway::transport
