// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include <spillway/encoders/emf.hpp>
#include <spillway/encoders/json.hpp>
#include <spillway/encoders/limits.hpp>

namespace spillway::detail {
namespace {

// A point on its way into documents: which of its values are still to be written.
struct Pending {
  const MetricPoint* point;
  std::size_t value_index = 0;
  double count_used = 0;
  bool done = false;

  bool is_untouched() const noexcept { return value_index == 0 && count_used == 0; }
};

// Numbers are of an engine's series only.
bool have_same_name(const Series& a, const Series& b) noexcept {
  if (a.metric != 0 && b.metric != 0) return a.metric == b.metric;
  return a.key.name == b.key.name;
}

// `plain`: Series::has_plain_texts of what it is of.
[[gnu::always_inline]] inline char* write_text(char* to, std::string_view text,
                                               bool plain) noexcept {
  return plain ? write_plain_string(to, text) : write_json_string(to, text);
}

// Bytes of append_directive(), an escape making up to six of one.
std::size_t directive_bytes_max(std::span<const Pending* const> metrics,
                                const EmfOptions& options) noexcept {
  constexpr std::size_t members_bytes = 256;
  constexpr std::size_t metric_bytes = 96;
  std::size_t bytes = members_bytes + json_string_bytes_max(options.log_group) +
                      json_string_bytes_max(options.log_stream) +
                      json_string_bytes_max(options.metric_namespace);
  for (const Dimension& dimension : metrics.front()->point->series->key.dimensions) {
    bytes += 2 * json_string_bytes_max(dimension.name) + json_string_bytes_max(dimension.value);
  }
  for (const Pending* const metric : metrics) {
    bytes += metric_bytes + json_string_bytes_max(metric->point->series->key.name);
  }
  return bytes;
}

void append_directive(std::span<const Pending* const> metrics, const EmfOptions& options,
                      ByteBuffer& out) {
  const MetricPoint& first = *metrics.front()->point;
  const bool plain = first.series->has_plain_texts;
  char* to = out.reserve(directive_bytes_max(metrics, options));
  to = write_bytes(to, "{\"_aws\":{\"Timestamp\":");
  to = write_number(to, first.time_ms);
  if (!options.log_group.empty()) {
    to = write_bytes(to, ",\"LogGroupName\":");
    to = write_json_string(to, options.log_group);
  }
  if (!options.log_stream.empty()) {
    to = write_bytes(to, ",\"LogStreamName\":");
    to = write_json_string(to, options.log_stream);
  }
  to = write_bytes(to, ",\"CloudWatchMetrics\":[{\"Namespace\":");
  to = write_json_string(to, options.metric_namespace);
  to = write_bytes(to, ",\"Dimensions\":[[");
  bool is_first = true;
  for (const Dimension& dimension : first.series->key.dimensions) {
    if (!is_first) *to++ = ',';
    to = write_text(to, dimension.name, plain);
    is_first = false;
  }
  to = write_bytes(to, "]],\"Metrics\":[");
  is_first = true;
  for (const Pending* const metric : metrics) {
    const SeriesKey& key = metric->point->series->key;
    if (!is_first) *to++ = ',';
    to = write_bytes(to, "{\"Name\":");
    to = write_text(to, key.name, metric->point->series->has_plain_texts);
    to = write_bytes(to, ",\"Unit\":\"");
    to = write_bytes(to, to_string(key.unit));
    to = key.resolution == Resolution::second ? write_bytes(to, "\",\"StorageResolution\":1}")
                                              : write_bytes(to, "\"}");
    is_first = false;
  }
  to = write_bytes(to, "]}]}");
  for (const Dimension& dimension : first.series->key.dimensions) {
    *to++ = ',';
    to = write_text(to, dimension.name, plain);
    *to++ = ':';
    to = write_text(to, dimension.value, plain);
  }
  out.advance_to(to);
}

void append_statistics(const MetricPoint& point, ByteBuffer& out) {
  out.append("\"Max\":");
  append_number(out, point.maximum);
  out.append(",\"Min\":");
  append_number(out, point.minimum);
  out.append(",\"Count\":");
  append_number(out, point.count);
  out.append(",\"Sum\":");
  append_number(out, point.sum);
  out.append('}');
}

// Numbers as an array, a single one as itself.
void append_values(std::span<const double> values, ByteBuffer& out) {
  if (values.size() == 1) return append_number(out, values.front());
  char* to = out.reserve((number_bytes_max + 1) * values.size() + 2);
  char separator = '[';
  for (const double value : values) {
    *to++ = separator;
    to = write_number(to, value);
    separator = ',';
  }
  *to++ = ']';
  out.advance_to(to);
}

// How many numbers an array needs for a gauge, if its extremes are to be the gauge's and its mean
// that of all that was set. Infinite where rounding leaves the mean no place between the extremes.
double gauge_values_needed(const MetricPoint& point, double mean) {
  const double width = point.maximum - point.minimum;
  if (width == 0) return 1;
  const double nearer = std::min(mean - point.minimum, point.maximum - mean);
  if (nearer <= 0) return std::numeric_limits<double>::infinity();
  return std::ceil(width / nearer);
}

// CloudWatch takes the mean of an array for the average: beside the extremes stands, as often as it
// takes, the number that makes it right. Where that would be too often, the object.
void append_gauge(const MetricPoint& point, ByteBuffer& out) {
  const double mean = point.sum / static_cast<double>(point.count);
  const double needed = gauge_values_needed(point, mean);
  if (needed > static_cast<double>(limits::emf_values_per_metric_max)) {
    out.append('{');
    return append_statistics(point, out);
  }
  std::array<double, limits::emf_values_per_metric_max> values{point.minimum, point.maximum};
  const auto used = static_cast<std::size_t>(needed);
  if (used > 2) {
    const double others = static_cast<double>(used - 2);
    const double rest = mean * needed - point.minimum - point.maximum;
    std::fill_n(values.begin() + 2, used - 2,
                std::clamp(rest / others, point.minimum, point.maximum));
  }
  append_values({values.data(), used}, out);
}

// Up to 100 of a histogram's values, each as often as it was recorded. Returns how many.
std::uint64_t append_next_values(Pending& pending, ByteBuffer& out) {
  std::array<double, limits::emf_values_per_metric_max> values{};
  std::size_t used = 0;
  const bool is_first = pending.is_untouched();
  const auto all = pending.point->values;
  while (used < values.size() && pending.value_index < all.size()) {
    values[used++] = all[pending.value_index].value;
    if (++pending.count_used >= all[pending.value_index].count) {
      pending.count_used = 0;
      ++pending.value_index;
    }
  }
  append_values({values.data(), used}, out);
  pending.done = pending.value_index == all.size();
  return pending.point->records_of_piece(used, is_first);
}

// As an object: up to 100 distinct values with their counts, the whole statistics beside the first
// of them.
std::uint64_t append_object(Pending& pending, ByteBuffer& out) {
  const auto all = pending.point->values;
  const auto piece = all.subspan(pending.value_index, std::min(limits::emf_values_per_metric_max,
                                                               all.size() - pending.value_index));
  MetricPoint part = *pending.point;
  double count = 0;
  double sum = 0;
  out.append("{\"Values\":");
  char separator = '[';
  for (const ValueCount& one : piece) {
    out.append(separator);
    append_number(out, one.value);
    separator = ',';
    count += one.count;
    sum += one.value * one.count;
  }
  out.append("],\"Counts\":");
  separator = '[';
  for (const ValueCount& one : piece) {
    out.append(separator);
    append_number(out, one.count);
    separator = ',';
  }
  out.append("],");
  const bool whole = piece.size() == all.size();
  if (!whole) {
    part.sum = sum;
    part.minimum = piece.front().value;
    part.maximum = piece.back().value;
  }
  part.count = static_cast<std::uint64_t>(count);
  append_statistics(part, out);
  const bool is_first = pending.is_untouched();
  pending.value_index += piece.size();
  pending.done = pending.value_index == all.size();
  return pending.point->records_of_piece(part.count, is_first);
}

bool has_member(std::span<const Pending* const> metrics, std::string_view name) {
  const Dimensions& dimensions = metrics.front()->point->series->key.dimensions;
  return std::any_of(dimensions.begin(), dimensions.end(),
                     [&](const Dimension& one) { return one.name == name; }) ||
         std::any_of(metrics.begin(), metrics.end(),
                     [&](const Pending* one) { return one->point->series->key.name == name; });
}

// A property: CloudWatch Logs finds it, and makes no metric of it.
void append_exemplars(std::span<const Pending* const> metrics, ByteBuffer& out) {
  constexpr std::string_view property = "exemplars";
  const bool any = std::any_of(metrics.begin(), metrics.end(), [](const Pending* metric) {
    return !metric->point->exemplars.empty();
  });
  if (!any || has_member(metrics, property)) return;
  char separator = '{';
  for (const Pending* const metric : metrics) {
    if (metric->point->exemplars.empty() || !metric->is_untouched()) continue;
    if (separator == '{') {
      out.append(",\"");
      out.append(property);
      out.append("\":");
    }
    out.append(separator);
    append_json_string(out, metric->point->series->key.name);
    out.append(':');
    separator = '[';
    for (const Exemplar& exemplar : metric->point->exemplars) {
      out.append(separator);
      out.append("{\"value\":");
      append_number(out, exemplar.value);
      out.append(",\"trace_id\":\"");
      append_xray_trace_id(out, exemplar.trace_id);
      if (exemplar.span_id != 0) {
        out.append("\",\"span_id\":\"");
        append_hex16(out, exemplar.span_id);
      }
      out.append("\"}");
      separator = ',';
    }
    out.append(']');
    separator = ',';
  }
  if (separator == ',') out.append('}');
}

std::uint64_t append_metric(Pending& pending, const EmfOptions& options, ByteBuffer& out) {
  const MetricPoint& point = *pending.point;
  const Series& series = *point.series;
  char* to = out.reserve(json_string_bytes_max(series.key.name) + 2);
  *to++ = ',';
  to = write_text(to, series.key.name, series.has_plain_texts);
  *to++ = ':';
  out.advance_to(to);
  if (!point.values.empty()) {
    const bool many = point.count > limits::emf_array_measurements_max;
    if (many || (options.histogram_object && point.count > 1)) return append_object(pending, out);
    return append_next_values(pending, out);
  }
  pending.done = true;
  if (series.key.kind == MetricKind::counter) {
    append_number(out, point.sum);
  } else if (options.histogram_object && point.count > 1) {
    out.append('{');
    append_statistics(point, out);
  } else {
    append_gauge(point, out);
  }
  return point.records_of_piece(point.count, true);
}

// Returns how many measurements are in it.
std::uint64_t append_document(std::span<Pending* const> metrics, const EmfOptions& options,
                              ByteBuffer& out) {
  append_directive(metrics, options, out);
  append_exemplars(metrics, out);
  std::uint64_t records = 0;
  for (Pending* const metric : metrics) records += append_metric(*metric, options, out);
  out.append('}');
  return records;
}

}  // namespace

void encode_emf(std::span<const MetricPoint> points, const EmfOptions& options, Payload& payload) {
  // Kept from call to call: an encoder allocates nothing of its own once it has run. Together, because
  // each thread_local is looked for, and asked whether it is there yet.
  struct Scratch {
    std::vector<Pending> pending;
    std::vector<Pending*> chosen;
    std::vector<Pending> before;
  };
  thread_local Scratch scratch;
  auto& [pending, chosen, before] = scratch;
  pending.clear();
  for (const MetricPoint& point : points) pending.push_back({&point});
  ByteBuffer& out = payload.bytes;
  while (!pending.empty()) {
    chosen.clear();
    for (Pending& metric : pending) {
      if (chosen.size() == limits::emf_metrics_per_document_max) break;
      const bool taken = std::any_of(chosen.begin(), chosen.end(), [&](const Pending* other) {
        return have_same_name(*other->point->series, *metric.point->series);
      });
      if (!taken) chosen.push_back(&metric);
    }
    before.clear();
    if (chosen.size() > 1) {
      for (const Pending* const metric : chosen) before.push_back(*metric);
    }
    const std::size_t offset = out.size();
    std::uint64_t records = append_document(chosen, options, out);
    // Fewer metrics, and the others in the next one.
    while (out.size() - offset > options.document_bytes_max && chosen.size() > 1) {
      out.truncate(offset);
      for (std::size_t i = 0; i < chosen.size(); ++i) *chosen[i] = before[i];
      chosen.resize(chosen.size() / 2);
      records = append_document(chosen, options, out);
    }
    payload.end_item(offset, records, points.front().time_ms);
    std::erase_if(pending, [](const Pending& metric) { return metric.done; });
  }
}

std::size_t emf_document_bytes_max(std::span<const MetricPoint> points) noexcept {
  const std::size_t metrics = std::min(points.size(), limits::emf_metrics_per_document_max);
  std::size_t bytes = 1024;
  for (const Dimension& dimension : points.front().series->key.dimensions) {
    bytes += 16 + 4 * dimension.name.size() + 2 * dimension.value.size();
  }
  constexpr std::size_t exemplar_bytes = 128;
  bytes += metrics * (2 * limits::metric_name_chars_max + exemplars_per_point_max * exemplar_bytes);
  return bytes + metrics * (200 + 4 * limits::metric_name_chars_max +
                            2 * 25 * limits::emf_values_per_metric_max);
}

}  // namespace spillway::detail
