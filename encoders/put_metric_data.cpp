// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include <spillway/encoders/cbor.hpp>
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

// Calls `piece(values, statistics, records)` for what of a histogram goes into each datum.
template <class Piece>
void for_each_piece(const MetricPoint& point, Piece&& piece) {
  double sum_left = point.sum;
  for (std::size_t first = 0; first < point.values.size(); first += limits::values_per_datum_max) {
    const auto values = point.values.subspan(
        first, std::min(limits::values_per_datum_max, point.values.size() - first));
    Statistics statistics{0, 0, values.front().value, values.back().value};
    for (const ValueCount& one : values) {
      statistics.count += one.count;
      statistics.sum += one.value * one.count;
    }
    // The last piece takes what is left, so that the pieces together have the exact sum.
    const bool last = first + values.size() == point.values.size();
    if (last) statistics.sum = sum_left;
    sum_left -= statistics.sum;
    piece(values, statistics,
          point.records_of_piece(static_cast<std::uint64_t>(std::llround(statistics.count)),
                                 first == 0));
  }
}

Statistics statistics_of(const MetricPoint& point) {
  return {static_cast<double>(point.count), point.sum, point.minimum, point.maximum};
}

void encode_json(const MetricPoint& point, Payload& payload) {
  ByteBuffer& out = payload.bytes;
  if (!point.values.empty()) {
    return for_each_piece(point, [&](std::span<const ValueCount> values,
                                     const Statistics& statistics, std::uint64_t records) {
      const std::size_t offset = out.size();
      append_head(point, out);
      append_list(",\"Values\":", values, &ValueCount::value, out);
      append_list(",\"Counts\":", values, &ValueCount::count, out);
      append_statistics(statistics, out);
      out.append('}');
      payload.end_item(offset, records, point.time_ms);
    });
  }
  const std::size_t offset = out.size();
  append_head(point, out);
  if (point.series->key.kind == MetricKind::counter) {
    out.append(",\"Value\":");
    append_number(out, point.sum);
  } else {
    append_statistics(statistics_of(point), out);
  }
  out.append('}');
  payload.end_item(offset, point.records_of_piece(point.count, true), point.time_ms);
}

// ---- CBOR ----

// The map with its first members; `more` are to follow.
void append_cbor_head(const MetricPoint& point, std::uint64_t more, ByteBuffer& out) {
  const SeriesKey& key = point.series->key;
  const bool has_dimensions = !key.dimensions.empty();
  cbor::append_head(out, cbor::Major::map, 4 + (has_dimensions ? 1 : 0) + more);
  cbor::append_text(out, "MetricName");
  cbor::append_text(out, key.name);
  cbor::append_text(out, "Unit");
  cbor::append_text(out, to_string(key.unit));
  cbor::append_text(out, "Timestamp");
  constexpr std::uint64_t epoch_time = 1;  // RFC 8949, section 3.4.2
  cbor::append_head(out, cbor::Major::tag, epoch_time);
  const std::int64_t seconds = point.time_ms / 1000;
  if (seconds >= 0) {
    cbor::append_head(out, cbor::Major::unsigned_number, static_cast<std::uint64_t>(seconds));
  } else {
    cbor::append_head(out, cbor::Major::negative, static_cast<std::uint64_t>(-1 - seconds));
  }
  cbor::append_text(out, "StorageResolution");
  cbor::append_head(out, cbor::Major::unsigned_number, static_cast<std::uint8_t>(key.resolution));
  if (!has_dimensions) return;
  cbor::append_text(out, "Dimensions");
  cbor::append_head(out, cbor::Major::array, key.dimensions.size());
  for (const Dimension& dimension : key.dimensions) {
    cbor::append_head(out, cbor::Major::map, 2);
    cbor::append_text(out, "Name");
    cbor::append_text(out, dimension.name);
    cbor::append_text(out, "Value");
    cbor::append_text(out, dimension.value);
  }
}

void append_cbor_number(std::string_view name, double value, ByteBuffer& out) {
  cbor::append_text(out, name);
  cbor::append_double(out, value);
}

void append_cbor_statistics(const Statistics& statistics, ByteBuffer& out) {
  cbor::append_text(out, "StatisticValues");
  cbor::append_head(out, cbor::Major::map, 4);
  append_cbor_number("SampleCount", statistics.count, out);
  append_cbor_number("Sum", statistics.sum, out);
  append_cbor_number("Minimum", statistics.minimum, out);
  append_cbor_number("Maximum", statistics.maximum, out);
}

void append_cbor_list(std::string_view name, std::span<const ValueCount> values,
                      double ValueCount::*member, ByteBuffer& out) {
  cbor::append_text(out, name);
  cbor::append_head(out, cbor::Major::array, values.size());
  for (const ValueCount& one : values) cbor::append_double(out, one.*member);
}

void encode_cbor(const MetricPoint& point, Payload& payload) {
  ByteBuffer& out = payload.bytes;
  if (!point.values.empty()) {
    return for_each_piece(point, [&](std::span<const ValueCount> values,
                                     const Statistics& statistics, std::uint64_t records) {
      const std::size_t offset = out.size();
      append_cbor_head(point, 3, out);
      append_cbor_list("Values", values, &ValueCount::value, out);
      append_cbor_list("Counts", values, &ValueCount::count, out);
      append_cbor_statistics(statistics, out);
      payload.end_item(offset, records, point.time_ms);
    });
  }
  const std::size_t offset = out.size();
  append_cbor_head(point, 1, out);
  if (point.series->key.kind == MetricKind::counter) {
    append_cbor_number("Value", point.sum, out);
  } else {
    append_cbor_statistics(statistics_of(point), out);
  }
  payload.end_item(offset, point.records_of_piece(point.count, true), point.time_ms);
}

// ---- Requests ----

void append_json_members(const Dimensions& members, ByteBuffer& out) {
  char separator = '{';
  for (const Dimension& one : members) {
    out.append(separator);
    append_json_string(out, one.name);
    out.append(':');
    append_json_string(out, one.value);
    separator = ',';
  }
  out.append('}');
}

void append_json_request(const Payload& payload, std::string_view metric_namespace,
                         const MetricEntity& entity, ByteBuffer& out) {
  out.append("{\"Namespace\":");
  append_json_string(out, metric_namespace);
  if (!entity.empty()) {
    out.append(
        ",\"StrictEntityValidation\":false,\"EntityMetricData\":[{\"Entity\":{\"KeyAttributes\":");
    append_json_members(entity.key_attributes, out);
    if (!entity.attributes.empty()) {
      out.append(",\"Attributes\":");
      append_json_members(entity.attributes, out);
    }
    out.append('}');
  }
  out.append(",\"MetricData\":");
  char separator = '[';
  for (const PayloadItem& item : payload.items) {
    out.append(separator);
    out.append(payload.item(item));
    separator = ',';
  }
  out.append(entity.empty() ? "]}" : "]}]}");
}

void append_cbor_members(std::string_view name, const Dimensions& members, ByteBuffer& out) {
  cbor::append_text(out, name);
  cbor::append_head(out, cbor::Major::map, members.size());
  for (const Dimension& one : members) {
    cbor::append_text(out, one.name);
    cbor::append_text(out, one.value);
  }
}

void append_cbor_request(const Payload& payload, std::string_view metric_namespace,
                         const MetricEntity& entity, ByteBuffer& out) {
  cbor::append_head(out, cbor::Major::map, entity.empty() ? 2 : 3);
  cbor::append_text(out, "Namespace");
  cbor::append_text(out, metric_namespace);
  if (!entity.empty()) {
    cbor::append_text(out, "StrictEntityValidation");
    cbor::append_bool(out, false);
    cbor::append_text(out, "EntityMetricData");
    cbor::append_head(out, cbor::Major::array, 1);
    cbor::append_head(out, cbor::Major::map, 2);
    cbor::append_text(out, "Entity");
    cbor::append_head(out, cbor::Major::map, entity.attributes.empty() ? 1 : 2);
    append_cbor_members("KeyAttributes", entity.key_attributes, out);
    if (!entity.attributes.empty()) append_cbor_members("Attributes", entity.attributes, out);
  }
  cbor::append_text(out, "MetricData");
  cbor::append_head(out, cbor::Major::array, payload.items.size());
  for (const PayloadItem& item : payload.items) out.append(payload.item(item));
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

void encode_metric_datums(const MetricPoint& point, DatumFormat format, Payload& payload) {
  return format == DatumFormat::cbor ? encode_cbor(point, payload) : encode_json(point, payload);
}

void append_put_metric_data(const Payload& payload, DatumFormat format,
                            std::string_view metric_namespace, const MetricEntity& entity,
                            ByteBuffer& out) {
  if (format == DatumFormat::cbor) {
    append_cbor_request(payload, metric_namespace, entity, out);
  } else {
    append_json_request(payload, metric_namespace, entity, out);
  }
}

}  // namespace spillway::detail
