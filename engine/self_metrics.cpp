// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <new>
#include <utility>

#include <spillway/buffers/lane.hpp>
#include <spillway/engine/self_metrics.hpp>

namespace spillway::detail {

struct SelfMetrics::Metric {
  std::string_view name;
  MetricKind kind;
  Unit unit;
  /// Of a counter its total, of a gauge its value.
  std::int64_t (*read)(const SignalStats&);
};

const std::array<SelfMetrics::Metric, 12> SelfMetrics::metrics{{
    {"spillway.records.recorded", MetricKind::counter, Unit::count,
     [](const SignalStats& of) { return static_cast<std::int64_t>(of.recorded); }},
    {"spillway.records.delivered", MetricKind::counter, Unit::count,
     [](const SignalStats& of) { return static_cast<std::int64_t>(of.delivered); }},
    {"spillway.records.recovered", MetricKind::counter, Unit::count,
     [](const SignalStats& of) { return static_cast<std::int64_t>(of.recovered); }},
    {"spillway.records.held", MetricKind::gauge, Unit::count,
     [](const SignalStats& of) { return static_cast<std::int64_t>(of.held()); }},
    {"spillway.records.spooled", MetricKind::gauge, Unit::count,
     [](const SignalStats& of) { return static_cast<std::int64_t>(of.held_in_spool); }},
    {"spillway.records.residue", MetricKind::gauge, Unit::count,
     [](const SignalStats& of) { return of.residue(); }},
    {"spillway.exporter.requests", MetricKind::counter, Unit::count,
     [](const SignalStats& of) { return static_cast<std::int64_t>(of.delivery.requests); }},
    {"spillway.exporter.retries", MetricKind::counter, Unit::count,
     [](const SignalStats& of) { return static_cast<std::int64_t>(of.delivery.retries); }},
    {"spillway.exporter.throttles", MetricKind::counter, Unit::count,
     [](const SignalStats& of) { return static_cast<std::int64_t>(of.delivery.throttles); }},
    {"spillway.exporter.failures", MetricKind::counter, Unit::count,
     [](const SignalStats& of) { return static_cast<std::int64_t>(of.delivery.failures); }},
    {"spillway.exporter.bytes", MetricKind::counter, Unit::bytes,
     [](const SignalStats& of) { return static_cast<std::int64_t>(of.delivery.bytes); }},
    {"spillway.exporter.uncertain_records", MetricKind::counter, Unit::count,
     [](const SignalStats& of) {
       return static_cast<std::int64_t>(of.delivery.uncertain_records);
     }},
}};

void SelfMetrics::report(Slot& slot, const Metric& metric, const Dimensions& dimensions,
                         std::int64_t value, std::int64_t time_ms) {
  if (metric.kind == MetricKind::counter) {
    // Read while records move, a total may be a little less than the last time.
    slot.seen = std::max(slot.reported, value);
    value = slot.seen - slot.reported;
    if (value == 0) return;
  }
  if (slot.series == nullptr) {
    slot.series = &parts_.series(metric.kind, metric.name, metric.unit, dimensions);
  }
  // One of too many, or the configured dimensions leave no room for these.
  if (slot.series->refusal != Refusal::none || slot.series->is_folded) return;
  MetricPoint point{};
  point.series = slot.series;
  point.time_ms = time_ms;
  point.count = point.counted_elsewhere = 1;
  point.sum = point.minimum = point.maximum = point.last = static_cast<double>(value);
  points_.push_back(point);
}

std::span<const MetricPoint> SelfMetrics::close(std::int64_t time_ms) noexcept try {
  constexpr Metric dropped{"spillway.records.dropped", MetricKind::counter, Unit::count, nullptr};
  points_.clear();
  const Stats stats = parts_.stats();
  slots_.resize(signal_count * (metrics.size() + drop_cause_count));
  auto slot = slots_.begin();
  for (const auto& [name, signal] :
       {std::pair("metrics", &stats.metrics), std::pair("logs", &stats.logs),
        std::pair("spans", &stats.spans)}) {
    const auto end = slot + metrics.size() + drop_cause_count;
    if (!signal->destination.empty()) {
      Dimensions dimensions{{"Signal", name}, {"Destination", signal->destination}};
      for (const Metric& metric : metrics) {
        report(*slot++, metric, dimensions, metric.read(*signal), time_ms);
      }
      dimensions.push_back({"Cause", {}});
      for (std::size_t i = 0; i < drop_cause_count; ++i) {
        dimensions.back().value = to_string(static_cast<DropCause>(i));
        report(*slot++, dropped, dimensions, static_cast<std::int64_t>(signal->dropped[i]),
               time_ms);
      }
    }
    slot = end;
  }
  for (Slot& one : slots_) one.reported = one.seen;
  const DropCounts drops = drop_counts_of(stats);
  for (const auto& [signal, of] :
       {std::pair(Signal::metrics, &stats.metrics), std::pair(Signal::logs, &stats.logs),
        std::pair(Signal::spans, &stats.spans)}) {
    if (!of->destination.empty()) reported_drops_.of(signal) = drops.of(signal);
  }
  return points_;
} catch (const std::bad_alloc&) {
  points_.clear();
  return points_;
}

}  // namespace spillway::detail
