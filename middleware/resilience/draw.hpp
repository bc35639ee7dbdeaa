// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <spillway/engine/span.hpp>

namespace spillway::middleware {

/// A random number in [0, 1): jitter and shedding by chance, nothing secret. A nanosecond, any
/// thread, a generator of the thread's own.
inline double draw() noexcept {
  return static_cast<double>(spillway::detail::next_span_id() >> 11) * 0x1p-53;
}

}  // namespace spillway::middleware
