// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include <spillway/encoders/json.hpp>
#include <spillway/encoders/limits.hpp>
#include <spillway/encoders/put_metric_data.hpp>

namespace spillway::detail {
namespace {

struct Statistics {
  double count;
  double sum;
  double minimum;
  double maximum;
};

void append_head(const MetricPoint& point, ByteBuffer& out) {
  const SeriesKey& key = point.series->key;
  out.append("{\"MetricName\":");
  append_json_string(out, key.name);
  out.append(",\"Unit\":\"");
  out.append(to_string(key.unit));
  out.append("\",\"Timestamp\":");
  append_number(out, point.time_ms / 1000);
  out.append(",\"StorageResolution\":");
  append_number(out, std::uint64_t{static_cast<std::uint8_t>(key.resolution)});
  if (!key.dimensions.empty()) {
    char separator = '[';
    out.append(",\"Dimensions\":");
    for (const Dimension& dimension : key.dimensions) {
      out.append(separator);
      out.append("{\"Name\":");
      append_json_string(out, dimension.name);
      out.append(",\"Value\":");
      append_json_string(out, dimension.value);
      out.append('}');
      separator = ',';
    }
    out.append(']');
  }
}

void append_statistics(const Statistics& statistics, ByteBuffer& out) {
  out.append(",\"StatisticValues\":{\"SampleCount\":");
  append_number(out, statistics.count);
  out.append(",\"Sum\":");
  append_number(out, statistics.sum);
  out.append(",\"Minimum\":");
  append_number(out, statistics.minimum);
  out.append(",\"Maximum\":");
  append_number(out, statistics.maximum);
  out.append('}');
}

void append_list(std::string_view name, std::span<const ValueCount> values,
                 double ValueCount::*member, ByteBuffer& out) {
  out.append(name);
  char separator = '[';
  for (const ValueCount& one : values) {
    out.append(separator);
    append_number(out, one.*member);
    separator = ',';
  }
  out.append(']');
}

void encode_histogram(const MetricPoint& point, Payload& payload) {
  ByteBuffer& out = payload.bytes;
  double sum_left = point.sum;
  for (std::size_t first = 0; first < point.values.size(); first += limits::values_per_datum_max) {
    const auto piece = point.values.subspan(
        first, std::min(limits::values_per_datum_max, point.values.size() - first));
    Statistics statistics{0, 0, piece.front().value, piece.back().value};
    for (const ValueCount& one : piece) {
      statistics.count += one.count;
      statistics.sum += one.value * one.count;
    }
    // The last piece takes what is left, so that the pieces together have the exact sum.
    const bool last = first + piece.size() == point.values.size();
    if (last) statistics.sum = sum_left;
    sum_left -= statistics.sum;

    const std::size_t offset = out.size();
    append_head(point, out);
    append_list(",\"Values\":", piece, &ValueCount::value, out);
    append_list(",\"Counts\":", piece, &ValueCount::count, out);
    append_statistics(statistics, out);
    out.append('}');
    payload.end_item(offset,
                     point.records_of_piece(
                         static_cast<std::uint64_t>(std::llround(statistics.count)), first == 0),
                     point.time_ms);
  }
}

}  // namespace

std::size_t metric_datum_bytes_max(const MetricPoint& point) noexcept {
  const SeriesKey& key = point.series->key;
  // A number takes at most 24 characters and a comma; names are ASCII, of which '"' and '\' double.
  std::size_t bytes = 400 + 2 * key.name.size();
  for (const Dimension& dimension : key.dimensions) {
    bytes += 24 + 2 * (dimension.name.size() + dimension.value.size());
  }
  return bytes + 2 * 25 * std::min(point.values.size(), limits::values_per_datum_max);
}

void encode_metric_datums(const MetricPoint& point, Payload& payload) {
  if (!point.values.empty()) return encode_histogram(point, payload);
  ByteBuffer& out = payload.bytes;
  const std::size_t offset = out.size();
  append_head(point, out);
  if (point.series->key.kind == MetricKind::counter) {
    out.append(",\"Value\":");
    append_number(out, point.sum);
  } else {
    append_statistics({static_cast<double>(point.count), point.sum, point.minimum, point.maximum},
                      out);
  }
  out.append('}');
  payload.end_item(offset, point.records_of_piece(point.count, true), point.time_ms);
}

void append_put_metric_data(const Payload& payload, std::string_view metric_namespace,
                            ByteBuffer& out) {
  out.append("{\"Namespace\":");
  append_json_string(out, metric_namespace);
  out.append(",\"MetricData\":");
  char separator = '[';
  for (const PayloadItem& item : payload.items) {
    out.append(separator);
    out.append(payload.item(item));
    separator = ',';
  }
  out.append("]}");
}

}  // namespace spillway::detail
