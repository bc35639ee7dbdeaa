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

// Bytes of the texts in a datum, an escape making up to six of one.
std::size_t texts_bytes_max(const SeriesKey& key) noexcept {
  std::size_t bytes = json_string_bytes_max(key.name);
  for (const Dimension& dimension : key.dimensions) {
    bytes += json_string_bytes_max(dimension.name) + json_string_bytes_max(dimension.value);
  }
  return bytes;
}
// And of all that is not values, in JSON or CBOR: names of members, the unit, seven numbers.
std::size_t fixed_bytes_max(const SeriesKey& key) noexcept {
  constexpr std::size_t members_bytes = 512;
  constexpr std::size_t dimension_bytes = 32;
  return members_bytes + dimension_bytes * key.dimensions.size() + texts_bytes_max(key);
}

char* write_head(char* to, const MetricPoint& point) noexcept {
  const SeriesKey& key = point.series->key;
  to = write_bytes(to, "{\"MetricName\":");
  to = write_json_string(to, key.name);
  to = write_bytes(to, ",\"Unit\":\"");
  to = write_bytes(to, to_string(key.unit));
  to = write_bytes(to, "\",\"Timestamp\":");
  to = write_number(to, point.time_ms / 1000);
  to = write_bytes(to, key.resolution == Resolution::second ? ",\"StorageResolution\":1"
                                                            : ",\"StorageResolution\":60");
  if (key.dimensions.empty()) return to;
  to = write_bytes(to, ",\"Dimensions\":");
  char separator = '[';
  for (const Dimension& dimension : key.dimensions) {
    *to++ = separator;
    to = write_bytes(to, "{\"Name\":");
    to = write_json_string(to, dimension.name);
    to = write_bytes(to, ",\"Value\":");
    to = write_json_string(to, dimension.value);
    *to++ = '}';
    separator = ',';
  }
  *to++ = ']';
  return to;
}

char* write_statistics(char* to, const Statistics& statistics) noexcept {
  to = write_bytes(to, ",\"StatisticValues\":{\"SampleCount\":");
  to = write_number(to, statistics.count);
  to = write_bytes(to, ",\"Sum\":");
  to = write_number(to, statistics.sum);
  to = write_bytes(to, ",\"Minimum\":");
  to = write_number(to, statistics.minimum);
  to = write_bytes(to, ",\"Maximum\":");
  to = write_number(to, statistics.maximum);
  *to++ = '}';
  return to;
}

// `name` is the whole of what stands before the list.
char* write_list(char* to, std::string_view name, std::span<const ValueCount> values,
                 double ValueCount::*member) noexcept {
  to = write_bytes(to, name);
  char separator = '[';
  for (const ValueCount& one : values) {
    *to++ = separator;
    to = write_number(to, one.*member);
    separator = ',';
  }
  *to++ = ']';
  return to;
}
std::size_t lists_bytes_max(std::span<const ValueCount> values) noexcept {
  return 2 * (number_bytes_max + 1) * values.size();
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
  const std::size_t fixed_bytes = fixed_bytes_max(point.series->key);
  if (!point.values.empty()) {
    return for_each_piece(point, [&](std::span<const ValueCount> values,
                                     const Statistics& statistics, std::uint64_t records) {
      const std::size_t offset = out.size();
      char* to = write_head(out.reserve(fixed_bytes + lists_bytes_max(values)), point);
      to = write_list(to, ",\"Values\":", values, &ValueCount::value);
      to = write_list(to, ",\"Counts\":", values, &ValueCount::count);
      to = write_statistics(to, statistics);
      *to++ = '}';
      out.advance_to(to);
      payload.end_item(offset, records, point.time_ms);
    });
  }
  const std::size_t offset = out.size();
  char* to = write_head(out.reserve(fixed_bytes), point);
  if (point.series->key.kind == MetricKind::counter) {
    to = write_bytes(to, ",\"Value\":");
    to = write_number(to, point.sum);
  } else {
    to = write_statistics(to, statistics_of(point));
  }
  *to++ = '}';
  out.advance_to(to);
  payload.end_item(offset, point.records_of_piece(point.count, true), point.time_ms);
}

// ---- CBOR ----

// The map with its first members; `more` are to follow.
char* write_cbor_head(char* to, const MetricPoint& point, std::uint64_t more) noexcept {
  const SeriesKey& key = point.series->key;
  const bool has_dimensions = !key.dimensions.empty();
  to = cbor::write_head(to, cbor::Major::map, 4 + (has_dimensions ? 1 : 0) + more);
  to = cbor::write_literal(to, cbor::Literal("MetricName"));
  to = cbor::write_text(to, key.name);
  to = cbor::write_literal(to, cbor::Literal("Unit"));
  to = cbor::write_text(to, to_string(key.unit));
  to = cbor::write_literal(to, cbor::Literal("Timestamp"));
  constexpr std::uint64_t epoch_time = 1;  // RFC 8949, section 3.4.2
  to = cbor::write_head(to, cbor::Major::tag, epoch_time);
  const std::int64_t seconds = point.time_ms / 1000;
  to = seconds >= 0
           ? cbor::write_head(to, cbor::Major::unsigned_number, static_cast<std::uint64_t>(seconds))
           : cbor::write_head(to, cbor::Major::negative, static_cast<std::uint64_t>(-1 - seconds));
  to = cbor::write_literal(to, cbor::Literal("StorageResolution"));
  to =
      cbor::write_head(to, cbor::Major::unsigned_number, static_cast<std::uint8_t>(key.resolution));
  if (!has_dimensions) return to;
  to = cbor::write_literal(to, cbor::Literal("Dimensions"));
  to = cbor::write_head(to, cbor::Major::array, key.dimensions.size());
  for (const Dimension& dimension : key.dimensions) {
    to = cbor::write_head(to, cbor::Major::map, 2);
    to = cbor::write_literal(to, cbor::Literal("Name"));
    to = cbor::write_text(to, dimension.name);
    to = cbor::write_literal(to, cbor::Literal("Value"));
    to = cbor::write_text(to, dimension.value);
  }
  return to;
}

char* write_cbor_statistics(char* to, const Statistics& statistics) noexcept {
  to = cbor::write_literal(to, cbor::Literal("StatisticValues"));
  to = cbor::write_head(to, cbor::Major::map, 4);
  to = cbor::write_literal(to, cbor::Literal("SampleCount"));
  to = cbor::write_double(to, statistics.count);
  to = cbor::write_literal(to, cbor::Literal("Sum"));
  to = cbor::write_double(to, statistics.sum);
  to = cbor::write_literal(to, cbor::Literal("Minimum"));
  to = cbor::write_double(to, statistics.minimum);
  to = cbor::write_literal(to, cbor::Literal("Maximum"));
  return cbor::write_double(to, statistics.maximum);
}

char* write_cbor_list(char* to, std::span<const ValueCount> values,
                      double ValueCount::*member) noexcept {
  to = cbor::write_head(to, cbor::Major::array, values.size());
  for (const ValueCount& one : values) to = cbor::write_double(to, one.*member);
  return to;
}

void encode_cbor(const MetricPoint& point, Payload& payload) {
  ByteBuffer& out = payload.bytes;
  const std::size_t fixed_bytes = fixed_bytes_max(point.series->key);
  if (!point.values.empty()) {
    return for_each_piece(point, [&](std::span<const ValueCount> values,
                                     const Statistics& statistics, std::uint64_t records) {
      const std::size_t offset = out.size();
      char* to = write_cbor_head(out.reserve(fixed_bytes + lists_bytes_max(values)), point, 3);
      to = cbor::write_literal(to, cbor::Literal("Values"));
      to = write_cbor_list(to, values, &ValueCount::value);
      to = cbor::write_literal(to, cbor::Literal("Counts"));
      to = write_cbor_list(to, values, &ValueCount::count);
      out.advance_to(write_cbor_statistics(to, statistics));
      payload.end_item(offset, records, point.time_ms);
    });
  }
  const std::size_t offset = out.size();
  char* to = write_cbor_head(out.reserve(fixed_bytes), point, 1);
  if (point.series->key.kind == MetricKind::counter) {
    to = cbor::write_literal(to, cbor::Literal("Value"));
    to = cbor::write_double(to, point.sum);
  } else {
    to = write_cbor_statistics(to, statistics_of(point));
  }
  out.advance_to(to);
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
