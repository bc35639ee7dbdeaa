// SPDX-License-Identifier: Apache-2.0
#include "local/otlp_schema.hpp"

#include <algorithm>
#include <array>
#include <map>

#include <spillway/encoders/json.hpp>
#include <spillway/encoders/protobuf.hpp>

namespace spillway::local {
namespace {

using detail::protobuf::Reader;
using detail::protobuf::WireType;
using enum ProtoType;

// ---- The tables ----

constexpr ProtoField one(std::uint32_t number, std::string_view name, ProtoType type) {
  return {number, name, type};
}
constexpr ProtoField one(std::uint32_t number, std::string_view name, const ProtoMessage& of) {
  return {number, name, message, false, &of};
}
constexpr ProtoField many(std::uint32_t number, std::string_view name, ProtoType type) {
  return {number, name, type, true};
}
constexpr ProtoField many(std::uint32_t number, std::string_view name, const ProtoMessage& of) {
  return {number, name, message, true, &of};
}
constexpr ProtoField enumerated(std::uint32_t number, std::string_view name, std::uint32_t max) {
  return {number, name, enumeration, false, nullptr, max};
}
constexpr ProtoField choice(ProtoField field) {
  field.in_oneof = true;
  return field;
}

// Common. The fields *_strindex are the profiles' alone: they are not taken.
extern const ProtoMessage any_value;
extern const ProtoMessage key_value;
constexpr std::array array_value_fields{many(1, "values", any_value)};
constexpr ProtoMessage array_value{"ArrayValue", array_value_fields};
constexpr std::array key_value_list_fields{many(1, "values", key_value)};
constexpr ProtoMessage key_value_list{"KeyValueList", key_value_list_fields};
constexpr std::array any_value_fields{
    choice(one(1, "string_value", string)),     choice(one(2, "bool_value", boolean)),
    choice(one(3, "int_value", int64)),         choice(one(4, "double_value", real)),
    choice(one(5, "array_value", array_value)), choice(one(6, "kvlist_value", key_value_list)),
    choice(one(7, "bytes_value", bytes))};
constexpr ProtoMessage any_value{"AnyValue", any_value_fields};
constexpr std::array key_value_fields{one(1, "key", string), one(2, "value", any_value)};
constexpr ProtoMessage key_value{"KeyValue", key_value_fields};
constexpr std::array entity_ref_fields{one(1, "schema_url", string), one(2, "type", string),
                                       many(3, "id_keys", string),
                                       many(4, "description_keys", string)};
constexpr ProtoMessage entity_ref{"EntityRef", entity_ref_fields};
constexpr std::array resource_fields{many(1, "attributes", key_value),
                                     one(2, "dropped_attributes_count", uint32),
                                     many(3, "entity_refs", entity_ref)};
constexpr ProtoMessage resource{"Resource", resource_fields};
constexpr std::array scope_fields{one(1, "name", string), one(2, "version", string),
                                  many(3, "attributes", key_value),
                                  one(4, "dropped_attributes_count", uint32)};
constexpr ProtoMessage scope{"InstrumentationScope", scope_fields};

// Metrics.
constexpr std::uint32_t temporality_max = 2;
constexpr std::array exemplar_fields{
    one(2, "time_unix_nano", fixed64), choice(one(3, "as_double", real)),
    one(4, "span_id", bytes),          one(5, "trace_id", bytes),
    choice(one(6, "as_int", fixed64)), many(7, "filtered_attributes", key_value)};
constexpr ProtoMessage exemplar{"Exemplar", exemplar_fields};
constexpr std::array number_point_fields{one(2, "start_time_unix_nano", fixed64),
                                         one(3, "time_unix_nano", fixed64),
                                         choice(one(4, "as_double", real)),
                                         many(5, "exemplars", exemplar),
                                         choice(one(6, "as_int", fixed64)),
                                         many(7, "attributes", key_value),
                                         one(8, "flags", uint32)};
constexpr ProtoMessage number_point{"NumberDataPoint", number_point_fields};
constexpr std::array gauge_fields{many(1, "data_points", number_point)};
constexpr ProtoMessage gauge{"Gauge", gauge_fields};
constexpr std::array sum_fields{many(1, "data_points", number_point),
                                enumerated(2, "aggregation_temporality", temporality_max),
                                one(3, "is_monotonic", boolean)};
constexpr ProtoMessage sum{"Sum", sum_fields};
constexpr std::array histogram_point_fields{one(2, "start_time_unix_nano", fixed64),
                                            one(3, "time_unix_nano", fixed64),
                                            one(4, "count", fixed64),
                                            one(5, "sum", real),
                                            many(6, "bucket_counts", fixed64),
                                            many(7, "explicit_bounds", real),
                                            many(8, "exemplars", exemplar),
                                            many(9, "attributes", key_value),
                                            one(10, "flags", uint32),
                                            one(11, "min", real),
                                            one(12, "max", real)};
constexpr ProtoMessage histogram_point{"HistogramDataPoint", histogram_point_fields};
constexpr std::array histogram_fields{many(1, "data_points", histogram_point),
                                      enumerated(2, "aggregation_temporality", temporality_max)};
constexpr ProtoMessage histogram{"Histogram", histogram_fields};
constexpr std::array buckets_fields{one(1, "offset", sint32), many(2, "bucket_counts", uint64)};
constexpr ProtoMessage buckets{"Buckets", buckets_fields};
constexpr std::array exponential_point_fields{many(1, "attributes", key_value),
                                              one(2, "start_time_unix_nano", fixed64),
                                              one(3, "time_unix_nano", fixed64),
                                              one(4, "count", fixed64),
                                              one(5, "sum", real),
                                              one(6, "scale", sint32),
                                              one(7, "zero_count", fixed64),
                                              one(8, "positive", buckets),
                                              one(9, "negative", buckets),
                                              one(10, "flags", uint32),
                                              many(11, "exemplars", exemplar),
                                              one(12, "min", real),
                                              one(13, "max", real),
                                              one(14, "zero_threshold", real)};
constexpr ProtoMessage exponential_point{"ExponentialHistogramDataPoint", exponential_point_fields};
constexpr std::array exponential_fields{many(1, "data_points", exponential_point),
                                        enumerated(2, "aggregation_temporality", temporality_max)};
constexpr ProtoMessage exponential{"ExponentialHistogram", exponential_fields};
constexpr std::array quantile_fields{one(1, "quantile", real), one(2, "value", real)};
constexpr ProtoMessage quantile{"ValueAtQuantile", quantile_fields};
constexpr std::array summary_point_fields{one(2, "start_time_unix_nano", fixed64),
                                          one(3, "time_unix_nano", fixed64),
                                          one(4, "count", fixed64),
                                          one(5, "sum", real),
                                          many(6, "quantile_values", quantile),
                                          many(7, "attributes", key_value),
                                          one(8, "flags", uint32)};
constexpr ProtoMessage summary_point{"SummaryDataPoint", summary_point_fields};
constexpr std::array summary_fields{many(1, "data_points", summary_point)};
constexpr ProtoMessage summary{"Summary", summary_fields};
constexpr std::array metric_fields{one(1, "name", string),
                                   one(2, "description", string),
                                   one(3, "unit", string),
                                   choice(one(5, "gauge", gauge)),
                                   choice(one(7, "sum", sum)),
                                   choice(one(9, "histogram", histogram)),
                                   choice(one(10, "exponential_histogram", exponential)),
                                   choice(one(11, "summary", summary)),
                                   many(12, "metadata", key_value)};
constexpr ProtoMessage metric{"Metric", metric_fields};
constexpr std::array scope_metrics_fields{one(1, "scope", scope), many(2, "metrics", metric),
                                          one(3, "schema_url", string)};
constexpr ProtoMessage scope_metrics{"ScopeMetrics", scope_metrics_fields};
constexpr std::array resource_metrics_fields{one(1, "resource", resource),
                                             many(2, "scope_metrics", scope_metrics),
                                             one(3, "schema_url", string)};
constexpr ProtoMessage resource_metrics{"ResourceMetrics", resource_metrics_fields};
constexpr std::array metrics_request_fields{many(1, "resource_metrics", resource_metrics)};

// Logs.
constexpr std::array log_record_fields{
    one(1, "time_unix_nano", fixed64), enumerated(2, "severity_number", 24),
    one(3, "severity_text", string),   one(5, "body", any_value),
    many(6, "attributes", key_value),  one(7, "dropped_attributes_count", uint32),
    one(8, "flags", fixed32),          one(9, "trace_id", bytes),
    one(10, "span_id", bytes),         one(11, "observed_time_unix_nano", fixed64),
    one(12, "event_name", string)};
constexpr ProtoMessage log_record{"LogRecord", log_record_fields};
constexpr std::array scope_logs_fields{one(1, "scope", scope), many(2, "log_records", log_record),
                                       one(3, "schema_url", string)};
constexpr ProtoMessage scope_logs{"ScopeLogs", scope_logs_fields};
constexpr std::array resource_logs_fields{
    one(1, "resource", resource), many(2, "scope_logs", scope_logs), one(3, "schema_url", string)};
constexpr ProtoMessage resource_logs{"ResourceLogs", resource_logs_fields};
constexpr std::array logs_request_fields{many(1, "resource_logs", resource_logs)};

// Traces.
constexpr std::array event_fields{one(1, "time_unix_nano", fixed64), one(2, "name", string),
                                  many(3, "attributes", key_value),
                                  one(4, "dropped_attributes_count", uint32)};
constexpr ProtoMessage event{"Event", event_fields};
constexpr std::array link_fields{one(1, "trace_id", bytes),
                                 one(2, "span_id", bytes),
                                 one(3, "trace_state", string),
                                 many(4, "attributes", key_value),
                                 one(5, "dropped_attributes_count", uint32),
                                 one(6, "flags", fixed32)};
constexpr ProtoMessage link{"Link", link_fields};
constexpr std::array status_fields{one(2, "message", string), enumerated(3, "code", 2)};
constexpr ProtoMessage status{"Status", status_fields};
constexpr std::array span_fields{one(1, "trace_id", bytes),
                                 one(2, "span_id", bytes),
                                 one(3, "trace_state", string),
                                 one(4, "parent_span_id", bytes),
                                 one(5, "name", string),
                                 enumerated(6, "kind", 5),
                                 one(7, "start_time_unix_nano", fixed64),
                                 one(8, "end_time_unix_nano", fixed64),
                                 many(9, "attributes", key_value),
                                 one(10, "dropped_attributes_count", uint32),
                                 many(11, "events", event),
                                 one(12, "dropped_events_count", uint32),
                                 many(13, "links", link),
                                 one(14, "dropped_links_count", uint32),
                                 one(15, "status", status),
                                 one(16, "flags", fixed32)};
constexpr ProtoMessage span{"Span", span_fields};
constexpr std::array scope_spans_fields{one(1, "scope", scope), many(2, "spans", span),
                                        one(3, "schema_url", string)};
constexpr ProtoMessage scope_spans{"ScopeSpans", scope_spans_fields};
constexpr std::array resource_spans_fields{one(1, "resource", resource),
                                           many(2, "scope_spans", scope_spans),
                                           one(3, "schema_url", string)};
constexpr ProtoMessage resource_spans{"ResourceSpans", resource_spans_fields};
constexpr std::array traces_request_fields{many(1, "resource_spans", resource_spans)};

// ---- The check ----

/// How deep the official parsers follow messages.
constexpr int depth_max = 100;

WireType wire_type_of(ProtoType type) {
  switch (type) {
    case fixed32:
      return WireType::fixed32;
    case fixed64:
    case real:
      return WireType::fixed64;
    case string:
    case bytes:
    case message:
      return WireType::length;
    default:
      return WireType::varint;
  }
}

std::string_view name_of(WireType type) {
  switch (type) {
    case WireType::varint:
      return "a varint";
    case WireType::fixed64:
      return "64 bits";
    case WireType::fixed32:
      return "32 bits";
    case WireType::length:
      break;
  }
  return "length-delimited";
}

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const std::size_t bytes = detail::decode_utf8(text).bytes;
    if (bytes == 0) return false;
    text.remove_prefix(bytes);
  }
  return true;
}

// Negative numbers of type int32 are sign-extended to 64 bits.
bool is_in_range(const ProtoField& field, std::uint64_t number) {
  constexpr std::uint64_t max32 = 0xFFFF'FFFF;
  switch (field.type) {
    case boolean:
      return number <= 1;
    case enumeration:
      return number <= field.enum_max;
    case uint32:
    case sint32:
      return number <= max32;
    case int32: {
      const auto value = static_cast<std::int64_t>(number);
      return value >= INT32_MIN && value <= INT32_MAX;
    }
    default:
      return true;
  }
}

class Check {
 public:
  /// False when something is wrong: error() says what then.
  bool message(std::string_view bytes, const ProtoMessage& of, int depth) {
    if (depth > depth_max) return fail("is nested too deep");
    std::map<std::uint32_t, std::size_t> seen;
    bool chosen = false;
    Reader reader(bytes);
    while (reader.next()) {
      const auto found =
          std::find_if(of.fields.begin(), of.fields.end(),
                       [&](const ProtoField& one) { return one.number == reader.field(); });
      if (found == of.fields.end()) {
        return fail("field " + std::to_string(reader.field()) + " is none of " +
                    std::string(of.name) + "'s");
      }
      const ProtoField& known = *found;
      const std::size_t length = path_.size();
      const std::size_t index = seen[known.number]++;
      path_.append(path_.empty() ? "" : ".").append(known.name);
      if (known.repeated) path_ += "[" + std::to_string(index) + "]";
      if (!known.repeated && index != 0) return fail("stands twice");
      if (known.in_oneof && chosen) return fail("is a second value where one of them may stand");
      chosen = chosen || known.in_oneof;
      if (!field(reader, known, depth)) return false;
      path_.resize(length);
    }
    return !reader.damaged() || fail("is cut short, or no message");
  }

  std::string take_error() { return std::move(error_); }

 private:
  bool field(const Reader& reader, const ProtoField& known, int depth) {
    const WireType wanted = wire_type_of(known.type);
    if (known.repeated && wanted != WireType::length && reader.type() == WireType::length) {
      return packed(reader.bytes(), wanted);
    }
    if (reader.type() != wanted) {
      return fail("is " + std::string(name_of(reader.type())) + ", must be " +
                  std::string(name_of(wanted)));
    }
    if (known.type == ProtoType::message) return message(reader.bytes(), *known.message, depth + 1);
    if (known.type == string && !is_utf8(reader.bytes())) return fail("is not UTF-8");
    if (!is_in_range(known, reader.number())) return out_of_range(reader.number());
    return true;
  }

  bool packed(std::string_view bytes, WireType wanted) {
    if (wanted != WireType::varint) {
      const std::size_t width = wanted == WireType::fixed64 ? 8 : 4;
      return bytes.size() % width == 0 || fail("is cut short");
    }
    // Only uint64 is packed as varints in OTLP: any value is in range.
    for (std::size_t run = 0; const char byte : bytes) {
      run = (static_cast<unsigned char>(byte) & 0x80U) != 0 ? run + 1 : 0;
      if (run >= detail::protobuf::varint_bytes_max) return fail("has a varint that is too long");
    }
    const bool ends = bytes.empty() || (static_cast<unsigned char>(bytes.back()) & 0x80U) == 0;
    return ends || fail("is cut short");
  }

  bool out_of_range(std::uint64_t number) {
    return fail(std::to_string(number) + " is out of range");
  }
  bool fail(std::string_view what) {
    error_ = (path_.empty() ? "the message" : path_) + ": " + std::string(what);
    return false;
  }

  std::string path_;
  std::string error_;
};

}  // namespace

constexpr ProtoMessage otlp_metrics_request{"ExportMetricsServiceRequest", metrics_request_fields};
constexpr ProtoMessage otlp_logs_request{"ExportLogsServiceRequest", logs_request_fields};
constexpr ProtoMessage otlp_traces_request{"ExportTraceServiceRequest", traces_request_fields};

std::optional<std::string> find_proto_error(std::string_view bytes, const ProtoMessage& message) {
  Check check;
  if (check.message(bytes, message, 0)) return std::nullopt;
  return check.take_error();
}

}  // namespace spillway::local
