// SPDX-License-Identifier: Apache-2.0
#include <numeric>

#include <spillway/encoders/json.hpp>
#include <spillway/engine/ledger.hpp>
#include <spillway/engine/stats.hpp>

namespace spillway {

std::string_view to_string(DropCause cause) noexcept {
  constexpr std::array<std::string_view, drop_cause_count> names{
      "ring_full",    "queue_full",    "too_large",         "invalid",           "expired",
      "rejected",     "unauthorised",  "retries_exhausted", "shutdown_deadline", "closed",
      "no_memory",    "series_limit",  "spool_full",        "spool_damaged",     "rate_limited",
      "not_retained", "no_destination"};
  return names[static_cast<std::size_t>(cause)];
}

std::uint64_t SignalStats::dropped_total() const noexcept {
  return std::accumulate(dropped.begin(), dropped.end(), std::uint64_t{0});
}

std::int64_t SignalStats::residue() const noexcept {
  return static_cast<std::int64_t>(recorded - delivered - dropped_total() - held());
}

DeliveryStats& DeliveryStats::operator+=(const DeliveryStats& other) noexcept {
  requests += other.requests;
  retries += other.retries;
  throttles += other.throttles;
  failures += other.failures;
  bytes += other.bytes;
  uncertain_records += other.uncertain_records;
  return *this;
}

std::string Stats::to_json() const {
  detail::ByteBuffer out;
  const auto number = [&](std::string_view name, std::uint64_t value) {
    out.append(name);
    detail::append_number(out, value);
  };
  const auto delivered_by = [&](std::string_view name, const DeliveryStats& stats) {
    out.append(name);
    number("{\"requests\":", stats.requests);
    number(",\"retries\":", stats.retries);
    number(",\"throttles\":", stats.throttles);
    number(",\"failures\":", stats.failures);
    number(",\"bytes\":", stats.bytes);
    number(",\"uncertain_records\":", stats.uncertain_records);
    out.append('}');
  };
  const auto signal = [&](std::string_view name, const SignalStats& stats) {
    out.append(name);
    number("{\"recorded\":", stats.recorded);
    number(",\"delivered\":", stats.delivered);
    out.append(",\"dropped\":{");
    std::string_view separator;
    for (std::size_t i = 0; i < drop_cause_count; ++i) {
      if (stats.dropped[i] == 0) continue;
      out.append(separator);
      detail::append_json_string(out, to_string(static_cast<DropCause>(i)));
      number(":", stats.dropped[i]);
      separator = ",";
    }
    number("},\"held\":", stats.held());
    if (stats.held_in_spool != 0) number(",\"held_in_spool\":", stats.held_in_spool);
    if (stats.recovered != 0) number(",\"recovered\":", stats.recovered);
    out.append(",\"residue\":");
    detail::append_number(out, stats.residue());
    if (!stats.destination.empty()) {
      out.append(",\"destination\":");
      detail::append_json_string(out, stats.destination);
      delivered_by(",\"delivery\":", stats.delivery);
    }
    out.append('}');
  };
  signal("{\"metrics\":", metrics);
  signal(",\"logs\":", logs);
  signal(",\"spans\":", spans);
  delivered_by(",\"delivery\":", delivery);
  number(",\"samples_folded\":", samples_folded);
  number(",\"measurements_unbucketed\":", measurements_unbucketed);
  number(",\"trace_headers_refused\":", trace_headers_refused);
  number(",\"lanes\":", lanes);
  number(",\"series\":", series);
  if (!folded_metrics.empty()) {
    char separator = '[';
    out.append(",\"folded_metrics\":");
    for (const FoldedMetric& folded : folded_metrics) {
      out.append(separator);
      out.append("{\"metric\":");
      detail::append_json_string(out, folded.metric);
      out.append(",\"dimension\":");
      detail::append_json_string(out, folded.dimension);
      number(",\"dimension_values\":", folded.dimension_values);
      number(",\"measurements\":", folded.measurements);
      out.append(",\"top_values\":{");
      std::string_view comma;
      for (const auto& [value, count] : folded.top_values) {
        out.append(comma);
        detail::append_json_string(out, value);
        number(":", count);
        comma = ",";
      }
      out.append("}}");
      separator = ',';
    }
    out.append(']');
  }
  out.append('}');
  return std::string(out.view());
}

std::string Stats::to_text() const {
  constexpr std::array<std::pair<std::string_view, const SignalStats Stats::*>, 3> signals{
      {{"metrics", &Stats::metrics}, {"logs", &Stats::logs}, {"spans", &Stats::spans}}};
  constexpr std::size_t name_width = 9;
  constexpr std::size_t width = 13;
  std::string text;
  const auto cell = [&](const std::string& value) {
    if (value.size() < width) text.append(width - value.size(), ' ');
    text += value;
  };
  text.append(name_width, ' ');
  for (const char* const head : {"recorded", "delivered", "dropped", "held", "residue"}) cell(head);
  text += "  destination\n";
  for (const auto& [name, member] : signals) {
    const SignalStats& signal = this->*member;
    text.append("  ").append(name).append(name_width - 2 - name.size(), ' ');
    for (const std::uint64_t value :
         {signal.recorded, signal.delivered, signal.dropped_total(), signal.held()}) {
      cell(std::to_string(value));
    }
    cell(std::to_string(signal.residue()));
    text.append("  ").append(signal.destination.empty() ? "none" : signal.destination) += '\n';
  }
  // What there was none of is left out.
  std::string line;
  const auto item = [&](std::string_view name, std::uint64_t value) {
    if (value == 0) return;
    line.append(line.empty() ? " " : ", ").append(name).append(" ").append(std::to_string(value));
  };
  const auto end_line = [&](std::string_view signal, std::string_view title) {
    if (line.empty()) return;
    text.append("  ").append(signal).append(" ").append(title).append(":").append(line) += '\n';
    line.clear();
  };
  for (const auto& [name, member] : signals) {
    const SignalStats& signal = this->*member;
    for (std::size_t i = 0; i < drop_cause_count; ++i) {
      item(to_string(static_cast<DropCause>(i)), signal.dropped[i]);
    }
    end_line(name, "dropped");
    item("in rings", signal.held_in_rings);
    item("in a batch", signal.held_in_batch);
    item("in the queue", signal.held_in_queue);
    item("on disk", signal.held_in_spool);
    end_line(name, "held");
    item("recovered from an earlier process", signal.recovered);
    end_line(name, "recorded");
    item("requests", signal.delivery.requests);
    item("retries", signal.delivery.retries);
    item("throttles", signal.delivery.throttles);
    item("failures", signal.delivery.failures);
    item("bytes", signal.delivery.bytes);
    item("uncertain records", signal.delivery.uncertain_records);
    end_line(name, "delivery");
  }
  return text;
}

namespace detail {

DeliveryStats DeliveryLedger::read() const noexcept {
  const auto load = [](const std::atomic<std::uint64_t>& value) {
    return value.load(std::memory_order_relaxed);
  };
  return {load(requests), load(retries), load(throttles),
          load(failures), load(bytes),   load(uncertain_records)};
}

std::uint64_t SignalLedger::lost() const noexcept {
  std::uint64_t sum = 0;
  for (const auto& cause : dropped_in_queue) sum += cause.load(std::memory_order_relaxed);
  return sum;
}

}  // namespace detail
}  // namespace spillway
