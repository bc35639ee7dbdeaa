// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <spillway/buffers/record.hpp>
#include <spillway/engine/context.hpp>
#include <spillway/engine/log.hpp>
#include <spillway/engine/metric.hpp>

namespace spillway::detail {

/// A log record that is too large for a ring, on its way beside it.
struct LargeLog {
  std::uint32_t site = 0;
  const LoggerState* logger = nullptr;
  std::uint64_t ticks = 0;
  std::uint64_t span_id = 0;
  TraceId trace_id;
  std::uint8_t trace_flags = 0;
  std::string tenant;
  std::string user;
  std::string request_id;
  std::string values;  ///< packed as record.hpp says
};

/// What an engine does for its producers out of line. Called by any thread, inside an operation, so
/// while it is open.
class EngineServices {
 public:
  virtual ~EngineServices() = default;
  /// Queues it for the flusher; false when too many bytes wait already.
  virtual bool take_large_log(LargeLog&& log) noexcept = 0;
  /// The series of `base` with one more dimension. An illegal value gives the refused series of its
  /// kind.
  virtual MetricRef with_dimension(const MetricRef& base, std::string_view name,
                                   std::string_view value) noexcept = 0;
  /// Wall-clock nanoseconds since 1970, for what happens rarely: records have ticks.
  virtual std::int64_t wall_ns() const noexcept = 0;
};

}  // namespace spillway::detail
