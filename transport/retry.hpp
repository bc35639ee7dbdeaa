// SPDX-License-Identifier: Apache-2.0
//
// When to try again: AWS's standard mode with the rules of 2026 (SDK reference, "Retry behavior";
// botocore 1.43.3): full jitter on an exponential back-off, slower for throttling, and the server's
// own word where it gives one.
#pragma once

#include <chrono>
#include <optional>

#include <spillway/transport/aws_error.hpp>

namespace spillway::transport {

/// The wait before attempt `attempt` + 1, the first attempt being 1. `draw` is a random number in
/// [0, 1).
std::chrono::milliseconds backoff(Failure failure, int attempt, double draw,
                                  std::optional<std::chrono::milliseconds> asked) noexcept;

}  // namespace spillway::transport
