// SPDX-License-Identifier: Apache-2.0
//
// The engine's account as metrics of its own: what changed since the last interval, and what is held.
// The flusher makes them at the end of each metric interval and encodes them behind the host's. Each
// point counts as no measurement, so that the account does not grow by being reported.
//
//   spillway.records.recorded   .delivered .recovered   counts    Signal, Destination
//   spillway.records.dropped                            count     the same, and Cause
//   spillway.records.held       .spooled   .residue     gauges    Signal, Destination
//   spillway.exporter.requests  .retries   .throttles   counts    Signal, Destination
//                     .failures .bytes     .uncertain_records
//
// A count that has not changed is not reported; gauges always are. A signal that goes nowhere has none.
// Named in the way of the OpenTelemetry SDK's own metrics (otel.sdk.exporter.*):
// https://opentelemetry.io/docs/specs/semconv/otel/sdk-metrics/
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <spillway/buffers/batch.hpp>
#include <spillway/engine/drop_counts.hpp>
#include <spillway/engine/stats.hpp>

namespace spillway::detail {

class SelfMetrics {
 public:
  struct Parts {
    std::function<Stats()> stats;
    /// The series of a metric with these dimensions beside the configured ones.
    std::function<const Series&(MetricKind, std::string_view name, Unit, const Dimensions&)> series;
  };
  explicit SelfMetrics(Parts parts) : parts_(std::move(parts)) {}

  /// What became of everything since the last call, as points at `time_ms`, valid until the next
  /// call; points of the same dimensions stand together. Without memory there are none, and the next
  /// call has it all.
  std::span<const MetricPoint> close(std::int64_t time_ms) noexcept;
  /// The drops that the calls so far have reported.
  const DropCounts& reported_drops() const noexcept { return reported_drops_; }

 private:
  struct Metric;
  static const std::array<Metric, 12> metrics;
  /// One metric of one signal.
  struct Slot {
    const Series* series = nullptr;  // null: not known yet
    std::int64_t reported = 0;       // of a total, so far
    std::int64_t seen = 0;           // of a total, in this call
  };

  void report(Slot& slot, const Metric& metric, const Dimensions& dimensions, std::int64_t value,
              std::int64_t time_ms);

  const Parts parts_;
  std::vector<MetricPoint> points_;
  DropCounts reported_drops_;
  std::vector<Slot> slots_;  // by signal, of each its metrics and then its causes
};

}  // namespace spillway::detail
