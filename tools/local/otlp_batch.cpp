// SPDX-License-Identifier: Apache-2.0
#include "local/otlp_batch.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <optional>
#include <set>
#include <span>
#include <utility>

#include "local/json.hpp"
#include "local/limits.hpp"
#include <spillway/encoders/protobuf.hpp>
#include <spillway/transport/sha256.hpp>

namespace spillway::local {
namespace {

using detail::protobuf::Reader;
using detail::protobuf::WireType;
using std::chrono::system_clock;

// Field numbers that all three requests share.
constexpr std::uint32_t resource_field = 1;
constexpr std::uint32_t scopes_field = 2;  // and the items of a scope

template <class Visit>
void for_each(std::string_view message, const Visit& visit) {
  for (Reader reader(message); reader.next();) visit(reader);
}

double real(const Reader& reader) { return std::bit_cast<double>(reader.number()); }
std::int64_t signed_number(const Reader& reader) {
  return static_cast<std::int64_t>(reader.number());
}
std::int64_t unzigzag(std::uint64_t number) {
  return static_cast<std::int64_t>(number >> 1) ^ -static_cast<std::int64_t>(number & 1U);
}

std::string hex(std::string_view bytes) {
  return transport::hex(
      std::span(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()));
}
bool is_zero(std::string_view id) {
  return std::all_of(id.begin(), id.end(), [](char byte) { return byte == 0; });
}

void append_value(JsonWriter& json, std::string_view any_value);

// `field` of `message` holds KeyValues.
void append_attributes(JsonWriter& json, std::string_view message, std::uint32_t field) {
  json.begin_object();
  for_each(message, [&](const Reader& at) {
    if (at.field() != field) return;
    std::string_view key;
    std::string_view value;
    for_each(at.bytes(),
             [&](const Reader& pair) { (pair.field() == 1 ? key : value) = pair.bytes(); });
    json.key(key);
    append_value(json, value);
  });
  json.end_object();
}

void append_value(JsonWriter& json, std::string_view any_value) {
  Reader value(any_value);
  if (!value.next()) {
    json.null();
    return;
  }
  switch (value.field()) {
    case 1:
      json.value(value.bytes());
      return;
    case 2:
      json.value(value.number() != 0);
      return;
    case 3:
      json.value(signed_number(value));
      return;
    case 4:
      json.value(real(value));
      return;
    case 5:
      json.begin_array();
      for_each(value.bytes(), [&](const Reader& at) { append_value(json, at.bytes()); });
      json.end_array();
      return;
    case 6:
      append_attributes(json, value.bytes(), 1);
      return;
    default:
      json.value(hex(value.bytes()));
      return;
  }
}

// The value of a text attribute; empty when there is none.
std::string_view text_attribute(std::string_view message, std::uint32_t field,
                                std::string_view wanted) {
  std::string_view found;
  for_each(message, [&](const Reader& at) {
    if (at.field() != field) return;
    std::string_view key;
    std::string_view text;
    for_each(at.bytes(), [&](const Reader& pair) {
      if (pair.field() == 1) key = pair.bytes();
      if (pair.field() != 2) return;
      Reader value(pair.bytes());
      if (value.next() && value.field() == 1) text = value.bytes();
    });
    if (key == wanted) found = text;
  });
  return found;
}

std::int64_t number_attribute(std::string_view message, std::uint32_t field,
                              std::string_view wanted) {
  std::int64_t found = 0;
  for_each(message, [&](const Reader& at) {
    if (at.field() != field) return;
    std::string_view key;
    std::int64_t number = 0;
    for_each(at.bytes(), [&](const Reader& pair) {
      if (pair.field() == 1) key = pair.bytes();
      if (pair.field() != 2) return;
      Reader value(pair.bytes());
      if (value.next() && value.field() == 3) number = signed_number(value);
    });
    if (key == wanted) found = number;
  });
  return found;
}

// "Attribute keys MUST be unique" (common.proto), and not empty.
bool has_bad_keys(std::string_view message, std::uint32_t field) {
  std::set<std::string_view> keys;
  bool bad = false;
  for_each(message, [&](const Reader& at) {
    if (at.field() != field) return;
    std::string_view key;
    for_each(at.bytes(), [&](const Reader& pair) {
      if (pair.field() == 1) key = pair.bytes();
    });
    bad = bad || key.empty() || !keys.insert(key).second;
  });
  return bad;
}

// Calls `visit(service, item)` for each item of each scope of each resource; a refusal ends it.
template <class Visit>
Refusal for_each_item(std::string_view body, const Visit& visit) {
  Refusal refusal;
  for_each(body, [&](const Reader& per_resource) {
    std::string_view resource;
    std::size_t resource_bytes = 0;
    for_each(per_resource.bytes(), [&](const Reader& at) {
      if (at.field() == resource_field) resource = at.bytes();
    });
    resource_bytes = resource.size();
    const std::string_view service = text_attribute(resource, 1, "service.name");
    for_each(per_resource.bytes(), [&](const Reader& per_scope) {
      if (per_scope.field() != scopes_field) return;
      std::size_t scope_bytes = 0;
      for_each(per_scope.bytes(), [&](const Reader& at) {
        if (at.field() == resource_field) scope_bytes = at.bytes().size();
      });
      if (resource_bytes + scope_bytes > limits::otlp_resource_bytes_max) {
        refusal = ApiError{400, "ResourceTooLarge",
                           "Resource and scope may have " +
                               std::to_string(limits::otlp_resource_bytes_max) + " bytes, not " +
                               std::to_string(resource_bytes + scope_bytes) + "."};
      }
      for_each(per_scope.bytes(), [&](const Reader& at) {
        if (at.field() == scopes_field) visit(service, at.bytes());
      });
    });
  });
  return refusal;
}

std::int64_t to_ms(system_clock::time_point time) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(time.time_since_epoch()).count();
}

// Why a record of this time is too late or too early; nothing when it is neither.
const char* age_problem(std::int64_t time_ms, system_clock::time_point now) {
  if (time_ms < to_ms(now - limits::log_age_max)) return "TooOld";
  return time_ms > to_ms(now + limits::log_ahead_max) ? "TooNew" : nullptr;
}

/// The earliest and the latest time of a request.
struct Range {
  std::int64_t first = std::numeric_limits<std::int64_t>::max();
  std::int64_t last = std::numeric_limits<std::int64_t>::min();

  void add(std::int64_t time_ms) {
    first = std::min(first, time_ms);
    last = std::max(last, time_ms);
  }
  Refusal refuse_wide() const {
    constexpr auto most =
        std::chrono::duration_cast<std::chrono::milliseconds>(limits::log_batch_span_max).count();
    if (first > last || last - first <= most) return std::nullopt;
    return ApiError{400, "SpanOfTimesTooWide",
                    "The records of a request may span 24 hours, not " +
                        std::to_string((last - first) / 1000) + " s."};
  }
};

// ---- Metrics ----

// Fields of Metric.
constexpr std::uint32_t metric_name = 1;
constexpr std::uint32_t metric_unit = 3;
constexpr std::uint32_t metric_gauge = 5;
constexpr std::uint32_t metric_sum = 7;
constexpr std::uint32_t metric_histogram = 9;
constexpr std::uint32_t metric_exponential = 10;
constexpr std::uint64_t delta = 1;

class MetricsReader {
 public:
  explicit MetricsReader(OtlpMetrics& metrics) : metrics_(metrics) {}

  void read(std::string_view service, std::string_view metric) {
    if (metrics_.batches.empty() || metrics_.batches.back().metric_namespace != service) {
      metrics_.batches.push_back({service, {}, {}});
    }
    name_ = unit_ = {};
    std::uint32_t kind = 0;
    std::string_view data;
    for_each(metric, [&](const Reader& at) {
      if (at.field() == metric_name) name_ = at.bytes();
      if (at.field() == metric_unit) unit_ = at.bytes();
      if (at.field() >= metric_gauge && at.field() <= 11) {
        kind = at.field();
        data = at.bytes();
      }
    });
    std::uint64_t temporality = 0;
    for_each(data, [&](const Reader& at) {
      if (at.field() == 2) temporality = at.number();
    });
    for_each(data, [&](const Reader& at) {
      if (at.field() == 1) read_point(kind, temporality, at.bytes());
    });
  }

 private:
  struct Point {
    MetricDatum datum{};
    std::uint64_t start = 0;
    std::uint64_t time = 0;
    std::uint64_t count = 0;
    std::uint64_t counted = 0;  ///< in its buckets
    bool has_value = false;
    bool bounds_fit = true;
    std::uint32_t attributes = 7;  ///< the field that has them
  };

  void read_point(std::uint32_t kind, std::uint64_t temporality, std::string_view bytes) {
    Point point;
    switch (kind) {
      case metric_gauge:
      case metric_sum:
        read_number(bytes, point);
        break;
      case metric_histogram:
        read_histogram(bytes, point);
        break;
      case metric_exponential:
        read_exponential(bytes, point);
        break;
      default:
        return refuse("UnsupportedMetric", "CloudWatch takes no summaries");
    }
    if (name_.empty()) return refuse("NoName", "a metric needs a name");
    if (kind != metric_gauge && temporality != delta) {
      return refuse("NotDelta", "this receiver adds points up: their temporality must be delta");
    }
    if (point.time == 0) return refuse("NoTime", "time_unix_nano is not set");
    if (point.start > point.time) return refuse("WrongTime", "it ends before it starts");
    if (!point.has_value) return refuse("NoValue", "it has no value");
    if (!std::isfinite(point.datum.sum) || !std::isfinite(point.datum.minimum) ||
        !std::isfinite(point.datum.maximum)) {
      return refuse("NotFinite", "CloudWatch takes no NaN and no infinity");
    }
    if (point.count != point.counted) {
      return refuse("WrongCount", "count is " + std::to_string(point.count) +
                                      ", its buckets hold " + std::to_string(point.counted));
    }
    if (!point.bounds_fit) return refuse("WrongBounds", "its bounds do not rise, or are too few");
    if (point.datum.minimum > point.datum.maximum) {
      return refuse("WrongExtremes", "min is above max");
    }
    if (has_bad_keys(bytes, point.attributes)) {
      return refuse("WrongAttributes", "a key is empty or stands twice");
    }
    read_dimensions(bytes, point);
    if (point.datum.dimensions.size() > limits::otlp_labels_max) {
      return refuse("TooManyLabels",
                    "a point may have " + std::to_string(limits::otlp_labels_max) + " labels");
    }
    point.datum.name = name_;
    point.datum.unit = unit_;
    point.datum.storage_resolution = 0;  // OTLP has none.
    metrics_.batches.back().datums.push_back(std::move(point.datum));
  }

  static void read_number(std::string_view bytes, Point& point) {
    for_each(bytes, [&](const Reader& at) {
      if (at.field() == 2) point.start = at.number();
      if (at.field() == 3) point.time = at.number();
      if (at.field() != 4 && at.field() != 6) return;
      const double value = at.field() == 4 ? real(at) : static_cast<double>(signed_number(at));
      point.has_value = true;
      point.datum.sample_count = 1;
      point.datum.sum = point.datum.minimum = point.datum.maximum = value;
      point.datum.values = {{value, 1}};
    });
  }

  static void read_histogram(std::string_view bytes, Point& point) {
    point.attributes = 9;
    std::size_t counts = 0;
    std::vector<double> bounds;
    read_common(bytes, point, 11);
    for_each(bytes, [&](const Reader& at) {
      if (at.field() == 6) {
        for_each_fixed(at, [&](std::uint64_t count) {
          ++counts;
          point.counted += count;
        });
      } else if (at.field() == 7) {
        for_each_fixed(at,
                       [&](std::uint64_t bits) { bounds.push_back(std::bit_cast<double>(bits)); });
      }
    });
    // "explicit_bounds [...] must be strictly increasing"; a count more than bounds, or neither.
    const bool rise =
        std::adjacent_find(bounds.begin(), bounds.end(), std::greater_equal<>()) == bounds.end();
    point.bounds_fit = rise && (counts == 0 ? bounds.empty() : counts == bounds.size() + 1);
    if (counts == 0) point.counted = point.count;  // "MAY be omitted".
  }

  void read_exponential(std::string_view bytes, Point& point) {
    point.attributes = 1;
    read_common(bytes, point, 12);
    std::int64_t scale = 0;
    for_each(bytes, [&](const Reader& at) {
      if (at.field() == 6) scale = unzigzag(at.number());
      if (at.field() == 7 && at.number() != 0) {
        point.counted += at.number();
        point.datum.values.emplace_back(0, static_cast<double>(at.number()));
      }
    });
    for_each(bytes, [&](const Reader& at) {
      if (at.field() == 8 || at.field() == 9) {
        read_buckets(at.bytes(), scale, at.field() == 8 ? 1 : -1, point);
      }
    });
  }

  // Count, sum and times stand in the same fields of both histograms, minimum and maximum in two
  // that follow each other.
  static void read_common(std::string_view bytes, Point& point, std::uint32_t minimum_field) {
    bool has_extremes = false;
    for_each(bytes, [&](const Reader& at) {
      if (at.field() == 2) point.start = at.number();
      if (at.field() == 3) point.time = at.number();
      if (at.field() == 4) point.count = at.number();
      if (at.field() == 5) point.datum.sum = real(at);
      if (at.field() == minimum_field) point.datum.minimum = real(at);
      if (at.field() == minimum_field + 1) point.datum.maximum = real(at);
      has_extremes = has_extremes || at.field() == minimum_field;
    });
    point.has_value = point.count != 0;
    point.datum.sample_count = static_cast<double>(point.count);
    if (!has_extremes && point.count != 0) {
      point.datum.minimum = point.datum.maximum = point.datum.sum / point.datum.sample_count;
    }
  }

  // A bucket stands for its middle, on the logarithmic scale that it is one of.
  static void read_buckets(std::string_view bytes, std::int64_t scale, int sign, Point& point) {
    std::int64_t index = 0;
    for_each(bytes, [&](const Reader& at) {
      if (at.field() == 1) index = unzigzag(at.number());
    });
    const double width = std::exp2(-static_cast<double>(scale));
    const auto take = [&](std::uint64_t count) {
      if (count != 0) {
        point.counted += count;
        point.datum.values.emplace_back(
            sign * std::exp2((static_cast<double>(index) + 0.5) * width),
            static_cast<double>(count));
      }
      ++index;
    };
    for_each(bytes, [&](const Reader& at) {
      if (at.field() != 2) return;
      if (at.type() != WireType::length) return take(at.number());
      std::uint64_t count = 0;
      int shift = 0;
      for (const char byte : at.bytes()) {
        count |= std::uint64_t{static_cast<unsigned char>(byte) & 0x7FU} << shift;
        shift += 7;
        if ((static_cast<unsigned char>(byte) & 0x80U) != 0) continue;
        take(std::exchange(count, 0));
        shift = 0;
      }
    });
  }

  template <class Visit>
  static void for_each_fixed(const Reader& at, const Visit& visit) {
    if (at.type() == WireType::fixed64) return visit(at.number());
    for (std::size_t i = 0; i + 8 <= at.bytes().size(); i += 8) {
      std::uint64_t bits = 0;
      std::memcpy(&bits, at.bytes().data() + i, sizeof bits);
      visit(bits);
    }
  }

  void read_dimensions(std::string_view bytes, Point& point) {
    for_each(bytes, [&](const Reader& at) {
      if (at.field() != point.attributes) return;
      std::string_view key;
      std::string_view value;
      for_each(at.bytes(),
               [&](const Reader& pair) { (pair.field() == 1 ? key : value) = pair.bytes(); });
      Reader any(value);
      if (any.next() && any.field() == 1) {
        value = any.bytes();
      } else {
        JsonWriter json;
        append_value(json, value);
        value = metrics_.texts.emplace_back(json.take());
      }
      point.datum.dimensions.emplace_back(key, value);
    });
    std::sort(point.datum.dimensions.begin(), point.datum.dimensions.end());
  }

  void refuse(const char* code, const std::string& why) {
    metrics_.problems.push_back({code, "metric '" + std::string(name_) + "': " + why});
  }

  OtlpMetrics& metrics_;
  std::string_view name_;
  std::string_view unit_;
};

// ---- Logs ----

// Fields of LogRecord.
constexpr std::uint32_t log_attributes = 6;

std::optional<OtlpProblem> read_log(std::string_view record, system_clock::time_point now,
                                    OtlpLog& log) {
  std::uint64_t time = 0;
  std::uint64_t observed = 0;
  std::uint64_t severity = 0;
  std::string_view severity_text;
  std::string_view body;
  std::string_view trace_id;
  std::string_view span_id;
  for_each(record, [&](const Reader& at) {
    switch (at.field()) {
      case 1:
        time = at.number();
        break;
      case 2:
        severity = at.number();
        break;
      case 3:
        severity_text = at.bytes();
        break;
      case 5:
        body = at.bytes();
        break;
      case 9:
        trace_id = at.bytes();
        break;
      case 10:
        span_id = at.bytes();
        break;
      case 11:
        observed = at.number();
        break;
      default:
        break;
    }
  });
  if (time == 0) time = observed;
  if (time == 0) return OtlpProblem{"NoTime", "a log record has no time"};
  log.time_ms = static_cast<std::int64_t>(time / 1'000'000);
  if (const char* const problem = age_problem(log.time_ms, now)) {
    return OtlpProblem{problem, "a log record of " + std::to_string(log.time_ms) +
                                    " ms is older than 14 days or more than 2 hours ahead"};
  }
  // "Zero length or 16 bytes", and bytes that are all zero are no id (logs.proto).
  if (!trace_id.empty() && (trace_id.size() != 16 || is_zero(trace_id))) {
    return OtlpProblem{"WrongTraceId", "a log record's trace_id is none"};
  }
  if (!span_id.empty() && (span_id.size() != 8 || is_zero(span_id) || trace_id.empty())) {
    return OtlpProblem{"WrongSpanId", "a log record's span_id is none, or has no trace"};
  }
  if (has_bad_keys(record, log_attributes)) {
    return OtlpProblem{"WrongAttributes", "a log record's key is empty or stands twice"};
  }
  JsonWriter json;
  json.begin_object().field("timeUnixNano", time).field("severityNumber", severity);
  json.field("severityText", severity_text).key("body");
  append_value(json, body);
  json.key("attributes");
  append_attributes(json, record, log_attributes);
  if (!trace_id.empty()) json.field("traceId", hex(trace_id));
  if (!span_id.empty()) json.field("spanId", hex(span_id));
  json.end_object();
  log.json = json.take();
  return std::nullopt;
}

// ---- Spans ----

constexpr std::uint32_t span_attributes = 9;
constexpr std::uint32_t span_events = 11;
constexpr std::uint32_t span_links = 13;
constexpr std::uint64_t kind_server = 2;
constexpr std::uint64_t status_error = 2;

struct SpanParts {
  std::string_view trace_id;
  std::string_view span_id;
  std::string_view parent_id;
  std::string_view name;
  std::uint64_t kind = 0;
  std::uint64_t start = 0;
  std::uint64_t end = 0;
  bool failed = false;

  explicit SpanParts(std::string_view span) {
    for_each(span, [this](const Reader& at) {
      switch (at.field()) {
        case 1:
          trace_id = at.bytes();
          break;
        case 2:
          span_id = at.bytes();
          break;
        case 4:
          parent_id = at.bytes();
          break;
        case 5:
          name = at.bytes();
          break;
        case 6:
          kind = at.number();
          break;
        case 7:
          start = at.number();
          break;
        case 8:
          end = at.number();
          break;
        case 15:
          for_each(at.bytes(), [this](const Reader& status) {
            if (status.field() == 3) failed = status.number() == status_error;
          });
          break;
        default:
          break;
      }
    });
  }
};

std::optional<OtlpProblem> check_nested(std::string_view span) {
  std::optional<OtlpProblem> problem;
  for_each(span, [&](const Reader& at) {
    if (at.field() == span_events) {
      std::string_view name;
      std::uint64_t time = 0;
      for_each(at.bytes(), [&](const Reader& event) {
        if (event.field() == 1) time = event.number();
        if (event.field() == 2) name = event.bytes();
      });
      if (name.empty() || time == 0 || has_bad_keys(at.bytes(), 3)) {
        problem = OtlpProblem{"WrongEvent", "an event needs a name, a time and keys that differ"};
      }
    } else if (at.field() == span_links) {
      std::string_view trace_id;
      std::string_view span_id;
      for_each(at.bytes(), [&](const Reader& link) {
        if (link.field() == 1) trace_id = link.bytes();
        if (link.field() == 2) span_id = link.bytes();
      });
      if (trace_id.size() != 16 || span_id.size() != 8 || is_zero(trace_id) ||
          has_bad_keys(at.bytes(), 4)) {
        problem = OtlpProblem{"WrongLink",
                              "a link needs a trace_id of 16 bytes, a span_id of 8 and "
                              "keys that differ"};
      }
    }
  });
  return problem;
}

std::optional<OtlpProblem> read_span(std::string_view bytes, system_clock::time_point now,
                                     OtlpSpan& span) {
  const SpanParts parts(bytes);
  const auto refuse = [&](const char* code, const char* why) {
    return OtlpProblem{code, "span '" + std::string(parts.name) + "': " + why};
  };
  if (parts.trace_id.size() != 16 || is_zero(parts.trace_id)) {
    return refuse("WrongTraceId", "trace_id must be 16 bytes that are not all zero");
  }
  if (parts.span_id.size() != 8 || is_zero(parts.span_id)) {
    return refuse("WrongSpanId", "span_id must be 8 bytes that are not all zero");
  }
  if (!parts.parent_id.empty() && (parts.parent_id.size() != 8 || is_zero(parts.parent_id))) {
    return refuse("WrongParentId", "parent_span_id must be 8 bytes that are not all zero, or none");
  }
  if (parts.name.empty()) return refuse("NoName", "a span needs a name");
  if (parts.start == 0 || parts.end < parts.start) {
    return refuse("WrongTime", "it has no start, or ends before it");
  }
  if (const char* const problem =
          age_problem(static_cast<std::int64_t>(parts.end / 1'000'000), now)) {
    return refuse(problem, "it is older than 14 days or more than 2 hours ahead");
  }
  if (bytes.size() > limits::otlp_span_bytes_max) {
    return refuse("SpanTooLarge", "a span may have 200 000 bytes");
  }
  if (has_bad_keys(bytes, span_attributes)) {
    return refuse("WrongAttributes", "a key is empty or stands twice");
  }
  if (const auto problem = check_nested(bytes)) {
    return OtlpProblem{problem->code,
                       "span '" + std::string(parts.name) + "': " + problem->message};
  }

  const std::string trace_id = hex(parts.trace_id);
  span.trace_id = "1-" + trace_id.substr(0, 8) + "-" + trace_id.substr(8);
  const std::int64_t status = number_attribute(bytes, span_attributes, "http.response.status_code");
  JsonWriter json;
  json.begin_object().field("trace_id", span.trace_id).field("id", hex(parts.span_id));
  if (!parts.parent_id.empty()) json.field("parent_id", hex(parts.parent_id));
  if (parts.kind != kind_server && !parts.parent_id.empty()) json.field("type", "subsegment");
  json.field("name", parts.name);
  json.field("start_time", static_cast<double>(parts.start) / 1e9);
  json.field("end_time", static_cast<double>(parts.end) / 1e9);
  if (parts.failed && (status < 400 || status > 499)) json.field("fault", true);
  if (status >= 400 && status <= 499) json.field("error", true);
  if (status == 429) json.field("throttle", true);
  json.key("attributes");
  append_attributes(json, bytes, span_attributes);
  json.key("events").begin_array();
  for_each(bytes, [&](const Reader& at) {
    if (at.field() != span_events) return;
    json.begin_object();
    for_each(at.bytes(), [&](const Reader& event) {
      if (event.field() == 2) json.field("name", event.bytes());
    });
    json.key("attributes");
    append_attributes(json, at.bytes(), 3);
    json.end_object();
  });
  json.end_array().end_object();
  span.json = json.take();
  return std::nullopt;
}

}  // namespace

Refusal read_otlp_metrics(std::string_view body, OtlpMetrics& metrics) {
  MetricsReader reader(metrics);
  return for_each_item(body, [&](std::string_view service, std::string_view metric) {
    reader.read(service, metric);
  });
}

Refusal read_otlp_logs(std::string_view body, system_clock::time_point now, OtlpLogs& logs) {
  Range range;
  auto refusal = for_each_item(body, [&](std::string_view service, std::string_view record) {
    OtlpLog log{std::string(service), 0, {}};
    if (auto problem = read_log(record, now, log)) {
      logs.problems.push_back(*std::move(problem));
      return;
    }
    range.add(log.time_ms);
    logs.records.push_back(std::move(log));
  });
  return refusal ? refusal : range.refuse_wide();
}

Refusal read_otlp_spans(std::string_view body, system_clock::time_point now, OtlpSpans& spans) {
  Range range;
  auto refusal = for_each_item(body, [&](std::string_view, std::string_view bytes) {
    OtlpSpan span;
    if (auto problem = read_span(bytes, now, span)) {
      spans.problems.push_back(*std::move(problem));
      return;
    }
    range.add(static_cast<std::int64_t>(SpanParts(bytes).end / 1'000'000));
    spans.spans.push_back(std::move(span));
  });
  if (refusal) return refusal;
  if (spans.spans.size() + spans.problems.size() > limits::otlp_spans_max) {
    return ApiError{400, "TooManySpans",
                    "A request may have " + std::to_string(limits::otlp_spans_max) + " spans."};
  }
  return range.refuse_wide();
}

}  // namespace spillway::local
