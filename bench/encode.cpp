// SPDX-License-Identifier: Apache-2.0
//
// Question: how many records a second does one core turn into what goes over the wire, and how many
// bytes is that? Document by document beside rapidjson, nlohmann-json and snprintf making the same
// text, the copying of it piece by piece (`floor`) and in one go (`memcpy`); then whole requests with
// compression and signature; then the aggregator, and the flusher from a full ring to signed
// requests. Last, how far percentiles of real latencies are from the true ones. Subjects take turns,
// round by round. Prints JSON rows.
//
//   encode [--quick | --smoke] [--case NAME[/SUBJECT]]
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <string_view>
#include <vector>

#include <fcntl.h>
#include <simdjson.h>
#include <unistd.h>

#include "options.hpp"
#include "rows.hpp"
#include "subjects.hpp"
#include <spillway/encoders/emf.hpp>
#include <spillway/encoders/log_event.hpp>
#include <spillway/encoders/otlp.hpp>
#include <spillway/encoders/otlp_logs.hpp>
#include <spillway/encoders/otlp_metrics.hpp>
#include <spillway/encoders/otlp_traces.hpp>
#include <spillway/encoders/put_log_events.hpp>
#include <spillway/encoders/put_metric_data.hpp>
#include <spillway/encoders/wide_event.hpp>
#include <spillway/encoders/xray.hpp>
#include <spillway/engine/distribution.hpp>
#include <spillway/transport/gzip.hpp>
#include <spillway/transport/sigv4.hpp>

#if defined(SPILLWAY_BENCH_NLOHMANN)
#include <nlohmann/json.hpp>
#endif
#if defined(SPILLWAY_BENCH_RAPIDJSON)
#include <rapidjson/stringbuffer.h>
#include <rapidjson/writer.h>
#endif

namespace {

using namespace spillway::detail;
using spillway::MetricsTo;

constexpr std::int64_t time_ms = 1795222800123;
constexpr std::int64_t time_ns = time_ms * 1'000'000 + 456'789;

/// What one pass of a case handled.
struct Work {
  std::uint64_t records = 0;
  std::uint64_t bytes = 0;
  double ns = 0;  ///< measured by the pass itself; 0: the whole pass counts
};

struct Case {
  std::string name;
  std::string subject;
  std::function<Work()> pass;
};

Payload make_payload() { return Payload(std::pmr::get_default_resource()); }

// ---- The records, one of each ----

SeriesKey key_of(MetricKind kind, spillway::Unit unit, std::string name, std::string route) {
  return {kind,
          unit,
          spillway::Resolution::minute,
          std::move(name),
          {{"Route", std::move(route)}, {"Service", "orders"}, {"Stage", "prod"}}};
}

struct Inputs {
  SeriesTable table{BankLayout{.cell_bytes = 1U << 20, .series_max = 4000}, 2000};
  const Series& requests =
      table.intern(key_of(MetricKind::counter, spillway::Unit::count, "Requests", "/v1/orders"));
  const Series& latency = table.intern(
      key_of(MetricKind::histogram, spillway::Unit::microseconds, "Latency", "/v1/orders"));
  std::vector<ValueCount> values = [] {
    std::vector<ValueCount> made;
    for (int i = 0; i < 20; ++i) made.push_back({120.5 * std::pow(1.3, i), 1.0 + i % 3});
    return made;
  }();
  MetricPoint counter{&requests, time_ms, 1234, 1234, 1, 1, 0, {}};
  MetricPoint histogram = [this] {
    MetricPoint point{&latency, time_ms, 0, 0, values.front().value, values.back().value,
                      0,        values};
    for (const ValueCount& one : values) {
      point.count += static_cast<std::uint64_t>(one.count);
      point.sum += one.value * one.count;
    }
    return point;
  }();

  SiteInfo site{spillway::Severity::info,
                "order placed",
                "orders.cpp",
                42,
                {{"order_id", ValueType::integer},
                 {"total", ValueType::real},
                 {"currency", ValueType::string}}};
  std::vector<std::byte> values_of_log = [] {
    std::vector<std::byte> bytes(8 + 8 + 4 + 9);
    const std::int64_t id = 173'204;
    const double total = 873.25;
    const std::uint32_t size = 9;
    std::memcpy(&bytes[0], &id, 8);
    std::memcpy(&bytes[8], &total, 8);
    std::memcpy(&bytes[16], &size, 4);
    std::memcpy(&bytes[20], "nine char", 9);
    return bytes;
  }();
  ContextTexts context{"acme", "u-17", "r-1", {0x6b00e3540f1e2d3c, 0x4b5a69788796a5b4}};
  LogView log{&site, time_ns, 0x1a2b3c4d5e6f7081, &context, values_of_log};
  ContextTexts nobody;
  LogView bare_log{&site, time_ns, 0, &nobody, values_of_log};

  // A request: a metric by route, and what it was about.
  SiteInfo event_site{
      spillway::Severity::info,
      "",
      "orders.cpp",
      50,
      {{"Latency", ValueType::real, FieldRole::metric, spillway::Unit::milliseconds},
       {"Route", ValueType::string, FieldRole::dimension},
       {"order_id", ValueType::integer}}};
  std::vector<std::byte> values_of_event = [] {
    std::vector<std::byte> bytes(8 + 4 + 10 + 8);
    const double took_ms = 17.25;
    const std::uint32_t size = 10;
    const std::int64_t id = 173'204;
    std::memcpy(&bytes[0], &took_ms, 8);
    std::memcpy(&bytes[8], &size, 4);
    std::memcpy(&bytes[12], "/v1/orders", 10);
    std::memcpy(&bytes[22], &id, 8);
    return bytes;
  }();
  LogView event{&event_site, time_ns, 0, &nobody, values_of_event};

  // What a service reports of one route: ten metrics of one dimension set.
  std::vector<MetricPoint> ten_counters = [this] {
    std::vector<MetricPoint> made;
    for (int i = 0; i < 10; ++i) {
      const Series& series = table.intern(key_of(MetricKind::counter, spillway::Unit::count,
                                                 "Requests" + std::to_string(i), "/v1/orders"));
      made.push_back({&series, time_ms, 1234, 1234, 1, 1, 0, {}});
    }
    return made;
  }();
  // One metric by a thousand routes, whose texts are in no cache of the first level.
  std::vector<MetricPoint> thousand_counters = [this] {
    std::vector<MetricPoint> made;
    for (int i = 0; i < 1000; ++i) {
      const Series& series = table.intern(key_of(MetricKind::counter, spillway::Unit::count,
                                                 "Requests", "/v1/orders/" + std::to_string(i)));
      made.push_back({&series, time_ms, 1234, 1234, 1, 1, 0, {}});
    }
    return made;
  }();

  // A segment and a subsegment with three annotations below it.
  std::vector<std::byte> entries = [] {
    std::vector<std::byte> bytes;
    const auto append = [&bytes](const auto& value) {
      const auto* const at = reinterpret_cast<const std::byte*>(&value);
      bytes.insert(bytes.end(), at, at + sizeof value);
    };
    append(EntryHeader::pack(intern_name("order_id"), EntryClass::annotation, ValueType::integer));
    append(std::int64_t{173'204});
    append(EntryHeader::pack(intern_name("total"), EntryClass::annotation, ValueType::real));
    append(873.25);
    append(EntryHeader::pack(intern_name("currency"), EntryClass::annotation, ValueType::string));
    append(std::uint32_t{9});
    for (const char c : std::string_view("nine char")) append(c);
    return bytes;
  }();
  std::vector<SpanView> spans = [this] {
    const spillway::TraceId trace{0x6b00e3540f1e2d3c, 0x4b5a69788796a5b4};
    SpanBody root{0, 1, 0, 1, trace, 0, 0, 0};
    SpanBody child{0, 2, 1, 1, trace, 0, 0, static_cast<std::uint32_t>(entries.size())};
    return std::vector<SpanView>{
        {"GET /v1/orders", time_ns, time_ns + 2'000'000, root, {}},
        {"charge-card", time_ns + 1000, time_ns + 1'500'000, child, entries}};
  }();
};

const Inputs& inputs() {
  static const Inputs made;
  return made;
}

// ---- One document after the other ----

constexpr std::size_t batch_bytes = 200'000;

/// Encodes into a payload that is emptied when it is as full as a request.
template <class Encode>
std::function<Work()> documents(Encode encode, std::uint64_t records_each = 1) {
  return [encode, records_each, payload = std::make_shared<Payload>(make_payload())] {
    payload->clear();
    Work work;
    while (payload->bytes.size() < batch_bytes) {
      encode(*payload);
      work.records += records_each;
    }
    work.bytes = payload->bytes.size();
    return work;
  };
}

void our_emf(const MetricPoint& point, Payload& payload) {
  encode_emf({&point, 1}, EmfOptions{"Shop", false}, payload);
}
void our_log(Payload& payload) {
  static LogEncoder encoder("orders");
  const std::size_t offset = payload.bytes.size();
  encoder.append_json(inputs().log, 100'000, payload.bytes);
  payload.end_item(offset, 1, time_ms);
}
void our_wide_event(Payload& payload) {
  static WideEventEncoder encoder({"Shop"}, {{"Service", "orders"}},
                                  [](const std::string&, const std::vector<std::string>& names) {
                                    return spillway::DimensionSets{names};
                                  });
  const std::size_t offset = payload.bytes.size();
  if (encoder.append(inputs().event, payload.bytes) == 0) std::abort();
  payload.end_item(offset, 1, time_ms);
}
void our_bare_log(Payload& payload) {
  static LogEncoder encoder("orders");
  const std::size_t offset = payload.bytes.size();
  encoder.append_json(inputs().bare_log, 100'000, payload.bytes);
  payload.end_item(offset, 1, time_ms);
}
void our_otlp_log(Payload& payload) {
  static OtlpLogEncoder encoder;
  const std::size_t offset = payload.bytes.size();
  encoder.append(inputs().log, 100'000, payload.bytes);
  payload.end_item(offset, 1, time_ms);
}
void our_otlp_metric(const MetricPoint& point, Payload& payload) {
  static OtlpMetricEncoder encoder;
  encoder.encode(point, time_ms + 10'000, payload);
}
void our_otlp_spans(Payload& payload) {
  static OtlpSpanEncoder encoder(200'000);
  encoder.encode(inputs().spans, inputs().context, payload);
}
void our_segment(Payload& payload) {
  static XrayEncoder encoder({"orders", "1.0", 64'000});
  encoder.encode(inputs().spans, inputs().context, payload);
}

/// What it costs to have these bytes at all: they are copied from where they stand.
template <class Encode>
std::function<Work()> copies(Encode encode, std::uint64_t records_each = 1) {
  Payload once = make_payload();
  encode(once);
  return documents(
      [text = std::string(once.bytes.view())](Payload& payload) { payload.bytes.append(text); },
      records_each);
}

/// As many bytes as documents() makes, copied by one call.
template <class Encode>
std::function<Work()> memcpy_of(Encode encode, std::uint64_t records_each = 1) {
  Payload batch = make_payload();
  std::uint64_t records = 0;
  for (; batch.bytes.size() < batch_bytes; records += records_each) encode(batch);
  return [from = std::string(batch.bytes.view()), to = std::string(batch.bytes.size(), ' '),
          records]() mutable {
    std::memcpy(to.data(), from.data(), from.size());
    bench::opaque(to);
    return Work{records, from.size()};
  };
}

/// When the segment and its subsegment begin and end, in seconds as X-Ray has them.
constexpr double segment_times[] = {1795222800.123457, 1795222800.125457, 1795222800.123458,
                                    1795222800.124957};

#if defined(SPILLWAY_BENCH_RAPIDJSON)
void rapidjson_log(Payload& payload) {
  static rapidjson::StringBuffer text;
  text.Clear();
  rapidjson::Writer<rapidjson::StringBuffer> writer(text);
  const auto member = [&](std::string_view key, std::string_view value) {
    writer.Key(key.data(), static_cast<rapidjson::SizeType>(key.size()));
    writer.String(value.data(), static_cast<rapidjson::SizeType>(value.size()));
  };
  writer.StartObject();
  member("timestamp", "2026-11-21T01:00:00.123456789Z");
  member("level", "INFO");
  member("message", inputs().site.message);
  member("service", "orders");
  member("tenant", inputs().context.tenant);
  member("user", inputs().context.user);
  member("request_id", inputs().context.request_id);
  member("trace_id", "1-6b00e354-0f1e2d3c4b5a69788796a5b4");
  member("span_id", "1a2b3c4d5e6f7081");
  writer.Key("order_id");
  writer.Int64(173'204);
  writer.Key("total");
  writer.Double(873.25);
  member("currency", "nine char");
  writer.EndObject();
  payload.bytes.append({text.GetString(), text.GetSize()});
}
void rapidjson_emf(Payload& payload) {
  static rapidjson::StringBuffer text;
  text.Clear();
  rapidjson::Writer<rapidjson::StringBuffer> writer(text);
  const MetricPoint& point = inputs().counter;
  const SeriesKey& key = point.series->key;
  const auto string = [&](std::string_view value) {
    writer.String(value.data(), static_cast<rapidjson::SizeType>(value.size()));
  };
  writer.StartObject();
  writer.Key("_aws");
  writer.StartObject();
  writer.Key("Timestamp");
  writer.Int64(point.time_ms);
  writer.Key("CloudWatchMetrics");
  writer.StartArray();
  writer.StartObject();
  writer.Key("Namespace");
  string("Shop");
  writer.Key("Dimensions");
  writer.StartArray();
  writer.StartArray();
  for (const spillway::Dimension& one : key.dimensions) string(one.name);
  writer.EndArray();
  writer.EndArray();
  writer.Key("Metrics");
  writer.StartArray();
  writer.StartObject();
  writer.Key("Name");
  string(key.name);
  writer.Key("Unit");
  string(spillway::to_string(key.unit));
  writer.EndObject();
  writer.EndArray();
  writer.EndObject();
  writer.EndArray();
  writer.EndObject();
  for (const spillway::Dimension& one : key.dimensions) {
    string(one.name);
    string(one.value);
  }
  string(key.name);
  writer.Double(point.sum);
  writer.EndObject();
  payload.bytes.append({text.GetString(), text.GetSize()});
}

void write(rapidjson::Writer<rapidjson::StringBuffer>& writer, std::string_view text) {
  writer.String(text.data(), static_cast<rapidjson::SizeType>(text.size()));
}
void rapidjson_datum(Payload& payload) {
  static rapidjson::StringBuffer text;
  text.Clear();
  rapidjson::Writer<rapidjson::StringBuffer> writer(text);
  const MetricPoint& point = inputs().counter;
  const SeriesKey& key = point.series->key;
  writer.StartObject();
  writer.Key("MetricName");
  write(writer, key.name);
  writer.Key("Unit");
  write(writer, spillway::to_string(key.unit));
  writer.Key("Timestamp");
  writer.Int64(point.time_ms / 1000);
  writer.Key("StorageResolution");
  writer.Int(60);
  writer.Key("Dimensions");
  writer.StartArray();
  for (const spillway::Dimension& one : key.dimensions) {
    writer.StartObject();
    writer.Key("Name");
    write(writer, one.name);
    writer.Key("Value");
    write(writer, one.value);
    writer.EndObject();
  }
  writer.EndArray();
  writer.Key("Value");
  writer.Double(point.sum);
  writer.EndObject();
  payload.bytes.append({text.GetString(), text.GetSize()});
}
// The ids as texts that stand ready: the peer is spared their formatting.
void rapidjson_segment(Payload& payload) {
  static rapidjson::StringBuffer text;
  text.Clear();
  rapidjson::Writer<rapidjson::StringBuffer> writer(text);
  const auto member = [&](const char* key, std::string_view value) {
    writer.Key(key);
    write(writer, value);
  };
  const auto head = [&](std::string_view name, std::string_view id, double start, double end) {
    writer.StartObject();
    member("name", name);
    member("id", id);
    writer.Key("start_time");
    writer.Double(start);
    writer.Key("end_time");
    writer.Double(end);
  };
  const std::vector<SpanView>& spans = inputs().spans;
  head("orders", "0000000000000001", segment_times[0], segment_times[1]);
  writer.Key("service");
  writer.StartObject();
  member("version", "1.0");
  member("runtime", "C++");
  writer.EndObject();
  member("user", inputs().context.user);
  writer.Key("aws");
  writer.StartObject();
  writer.Key("xray");
  writer.StartObject();
  member("sdk", "spillway for C++");
  member("sdk_version", "0.1.0");
  writer.EndObject();
  writer.EndObject();
  writer.Key("annotations");
  writer.StartObject();
  member("operation", spans[0].name);
  member("tenant", inputs().context.tenant);
  member("request_id", inputs().context.request_id);
  writer.EndObject();
  member("trace_id", "1-6b00e354-0f1e2d3c4b5a69788796a5b4");
  writer.Key("subsegments");
  writer.StartArray();
  head(spans[1].name, "0000000000000002", segment_times[2], segment_times[3]);
  writer.Key("annotations");
  writer.StartObject();
  writer.Key("order_id");
  writer.Int64(173'204);
  writer.Key("total");
  writer.Double(873.25);
  member("currency", "nine char");
  writer.EndObject();
  writer.EndObject();
  writer.EndArray();
  writer.EndObject();
  payload.bytes.append({text.GetString(), text.GetSize()});
}
#endif

void printed_emf(Payload& payload) {
  char* const at = payload.bytes.reserve(1000);
  const MetricPoint& point = inputs().counter;
  const int size = std::snprintf(at, 1000,
                                 "{\"_aws\":{\"Timestamp\":%lld,\"CloudWatchMetrics\":[{"
                                 "\"Namespace\":\"%s\",\"Dimensions\":[[\""
                                 "%s\",\"%s\",\"%s\"]],\"Metrics\":[{\"Name\":\"%s\",\"Unit\":\"%"
                                 "s\"}]}]},\"%s\":\"%s\",\"%s\":"
                                 "\"%s\",\"%s\":\"%s\",\"%s\":%.15g}",
                                 static_cast<long long>(point.time_ms), "Shop", "Route", "Service",
                                 "Stage", "Requests", "Count", "Route", "/v1/orders", "Service",
                                 "orders", "Stage", "prod", "Requests", point.sum);
  payload.bytes.advance_to(at + size);
}

#if defined(SPILLWAY_BENCH_NLOHMANN)
void append(const nlohmann::ordered_json& document, Payload& payload) {
  payload.bytes.append(document.dump());
}
void nlohmann_emf(const MetricPoint& point, Payload& payload) {
  using Json = nlohmann::ordered_json;
  const SeriesKey& key = point.series->key;
  Json metric;
  metric["Name"] = key.name;
  metric["Unit"] = spillway::to_string(key.unit);
  Json directive;
  directive["Namespace"] = "Shop";
  Json document;
  document["_aws"]["Timestamp"] = point.time_ms;
  Json& names = directive["Dimensions"].emplace_back();
  for (const spillway::Dimension& one : key.dimensions) names.push_back(one.name);
  directive["Metrics"].push_back(std::move(metric));
  document["_aws"]["CloudWatchMetrics"].push_back(std::move(directive));
  for (const spillway::Dimension& one : key.dimensions) document[one.name] = one.value;
  Json& value = document[key.name];
  if (point.values.empty()) value = point.sum;
  for (const ValueCount& one : point.values) {
    for (int i = 0; i < static_cast<int>(one.count); ++i) value.push_back(one.value);
  }
  append(document, payload);
}
void nlohmann_datum(Payload& payload) {
  using Json = nlohmann::ordered_json;
  const MetricPoint& point = inputs().counter;
  const SeriesKey& key = point.series->key;
  Json document;
  document["MetricName"] = key.name;
  document["Unit"] = spillway::to_string(key.unit);
  document["Timestamp"] = point.time_ms / 1000;
  document["StorageResolution"] = 60;
  Json& dimensions = document["Dimensions"];
  for (const spillway::Dimension& one : key.dimensions) {
    Json& dimension = dimensions.emplace_back();
    dimension["Name"] = one.name;
    dimension["Value"] = one.value;
  }
  document["Value"] = point.sum;
  append(document, payload);
}
void nlohmann_segment(Payload& payload) {
  using Json = nlohmann::ordered_json;
  const std::vector<SpanView>& spans = inputs().spans;
  Json segment;
  segment["name"] = "orders";
  segment["id"] = "0000000000000001";
  segment["start_time"] = segment_times[0];
  segment["end_time"] = segment_times[1];
  segment["service"]["version"] = "1.0";
  segment["service"]["runtime"] = "C++";
  segment["user"] = inputs().context.user;
  Json& sdk = segment["aws"]["xray"];
  sdk["sdk"] = "spillway for C++";
  sdk["sdk_version"] = "0.1.0";
  Json& annotations = segment["annotations"];
  annotations["operation"] = spans[0].name;
  annotations["tenant"] = inputs().context.tenant;
  annotations["request_id"] = inputs().context.request_id;
  segment["trace_id"] = "1-6b00e354-0f1e2d3c4b5a69788796a5b4";
  Json& below = segment["subsegments"].emplace_back();
  below["name"] = spans[1].name;
  below["id"] = "0000000000000002";
  below["start_time"] = segment_times[2];
  below["end_time"] = segment_times[3];
  below["annotations"]["order_id"] = 173'204;
  below["annotations"]["total"] = 873.25;
  below["annotations"]["currency"] = "nine char";
  append(segment, payload);
}
void nlohmann_log(Payload& payload) {
  nlohmann::ordered_json document;
  document["timestamp"] = "2026-11-21T01:00:00.123456789Z";
  document["level"] = "INFO";
  document["message"] = inputs().site.message;
  document["service"] = "orders";
  document["tenant"] = inputs().context.tenant;
  document["user"] = inputs().context.user;
  document["request_id"] = inputs().context.request_id;
  document["trace_id"] = "1-6b00e354-0f1e2d3c4b5a69788796a5b4";
  document["span_id"] = "1a2b3c4d5e6f7081";
  document["order_id"] = 173'204;
  document["total"] = 873.25;
  document["currency"] = "nine char";
  append(document, payload);
}

/// Both make the same document, or the comparison says nothing.
template <class One, class Other>
void must_agree(const char* what, One one, Other other) {
  Payload a = make_payload();
  Payload b = make_payload();
  one(a);
  other(b);
  auto left = nlohmann::json::parse(a.bytes.view());
  auto right = nlohmann::json::parse(b.bytes.view());
  left.erase("timestamp");  // The peer is spared the formatting of the time.
  right.erase("timestamp");
  left.erase("source");
  if (left == right) return;
  std::fprintf(stderr, "%s: the documents differ:\n%s\n%s\n", what, left.dump().c_str(),
               right.dump().c_str());
  std::exit(1);
}
#endif

// ---- Whole requests ----

void sign(std::string_view body, std::string_view service) {
  static std::map<std::string, spillway::transport::Sigv4Signer, std::less<>> signers;
  auto found = signers.find(service);
  if (found == signers.end()) {
    found =
        signers
            .emplace(service, spillway::transport::Sigv4Signer("eu-west-1", std::string(service)))
            .first;
  }
  spillway::transport::HttpRequest request;
  request.origin = "https://" + std::string(service) + ".eu-west-1.amazonaws.com";
  request.headers = {{"Content-Type", "application/x-amz-json-1.1"},
                     {"X-Amz-Target", "Logs_20140328.PutLogEvents"}};
  request.body = body;
  static const spillway::transport::Credentials credentials("AKIDEXAMPLE", "secret");
  found->second.sign(request, credentials, std::chrono::system_clock::now());
}

/// A request: items of a payload, and what its exporter makes of them.
struct Request {
  std::string name;
  std::string_view service;  ///< that it is signed for
  std::uint64_t records_each;
  std::shared_ptr<const Payload> payload;
  std::function<void(const Payload&, ByteBuffer&)> append;

  Work work(std::size_t bytes) const { return {payload->items.size() * records_each, bytes}; }
  std::string body() const {
    ByteBuffer text;
    append(*payload, text);
    return std::string(text.view());
  }
  Work make(bool compressed, bool with_signature) const {
    static ByteBuffer text;
    text.clear();
    append(*payload, text);
    std::string packed;
    if (compressed) packed = *spillway::transport::gzip(text.view());
    if (with_signature) sign(compressed ? std::string_view(packed) : text.view(), service);
    return work(text.size());
  }
};

template <class Encode>
std::shared_ptr<const Payload> payload_of(Encode encode, std::size_t count) {
  Payload made = make_payload();
  while (made.items.size() < count) encode(made);
  return std::make_shared<const Payload>(std::move(made));
}

/// The body as it is, signed, compressed, and both; beside it the copying of the same bytes, and the
/// hash and the compression alone.
void add_request(std::vector<Case>& cases, const Request& request) {
  for (const bool compressed : {false, true}) {
    for (const bool with_signature : {false, true}) {
      cases.push_back(
          {request.name + (compressed ? "_gzip" : "") + (with_signature ? "_signed" : ""),
           "spillway", [request, compressed, with_signature] {
             return request.make(compressed, with_signature);
           }});
    }
  }
  const std::string body = request.body();
  cases.push_back({request.name, "memcpy", [request, body, to = std::string(body)]() mutable {
                     std::memcpy(to.data(), body.data(), body.size());
                     bench::opaque(to);
                     return request.work(body.size());
                   }});
  cases.push_back({request.name + "_signed", "sha-256 alone", [request, body] {
                     auto digest = spillway::transport::sha256(body);
                     bench::opaque(digest);
                     return request.work(body.size());
                   }});
  cases.push_back({request.name + "_gzip", "gzip alone", [request, body] {
                     auto packed = spillway::transport::gzip(body);
                     bench::opaque(packed);
                     return request.work(body.size());
                   }});
}

/// Of each format, as many items as go into a request of its service.
std::vector<Request> all_requests() {
  const auto put_log_events = [](const Payload& payload, ByteBuffer& out) {
    append_put_log_events(payload, "/shop/orders", "pod-1", out);
  };
  const auto put_metric_data = [](DatumFormat format) {
    return [format](const Payload& payload, ByteBuffer& out) {
      append_put_metric_data(payload, format, "Shop", {}, out);
    };
  };
  const auto datums = [](DatumFormat format) {
    return payload_of([format](Payload& to) { encode_metric_datums(inputs().counter, format, to); },
                      1000);
  };
  const auto otlp = [](const Payload& payload, ByteBuffer& out) {
    static const std::string resource = encode_otlp_resource(
        std::vector<std::pair<std::string, std::string>>{{"service.name", "orders"}});
    append_otlp_request(payload, resource, out);
  };
  const auto emf = payload_of([](Payload& to) { our_emf(inputs().counter, to); }, 3000);
  return {{"put_log_events", "logs", 1, payload_of(our_log, 4000), put_log_events},
          {"emf_request", "logs", 1, emf, put_log_events},
          {"put_metric_data", "monitoring", 1, datums(DatumFormat::json),
           put_metric_data(DatumFormat::json)},
          {"put_metric_data_cbor", "monitoring", 1, datums(DatumFormat::cbor),
           put_metric_data(DatumFormat::cbor)},
          {"xray_request", "xray", 2, payload_of(our_segment, 50), append_put_trace_segments},
          {"otlp_metric_request", "monitoring", 1,
           payload_of([](Payload& to) { our_otlp_metric(inputs().counter, to); }, 4000), otlp},
          {"otlp_log_request", "logs", 1, payload_of(our_otlp_log, 4000), otlp},
          {"otlp_span_request", "xray", 1, payload_of(our_otlp_spans, 4000), otlp}};
}

Work minified_log_body(const Request& logs) {
  static const std::string body = logs.body();
  static std::string out(body.size() + simdjson::SIMDJSON_PADDING, ' ');
  std::size_t size = 0;
  if (simdjson::minify(body.data(), body.size(), out.data(), size) != simdjson::SUCCESS)
    std::abort();
  return logs.work(body.size());
}

// ---- The flusher, from a ring that a producer filled ----

/// An engine without threads whose every round is measured: `record()` fills it, and what it takes
/// until the records are settled is the pass.
template <class Record>
std::function<Work()> pipeline(spillway::Config config, Record record) {
  config.service = "orders";
  config.trace_sample_rate = 1.0;
  config.region = "eu-west-1";
  config.on_diagnostic = [](std::string_view) {};
  auto engine = std::make_shared<spillway::Engine>(config, bench::agreeing(false));
  return [engine, record] {
    const spillway::DeliveryStats before = engine->stats().delivery;
    Work work;
    work.records = record(*engine);
    const std::uint64_t began = bench::fenced_ticks();
    engine->flush(std::chrono::seconds(30));
    work.ns = static_cast<double>(bench::fenced_ticks() - began) * bench::ns_per_tick();
    work.bytes = engine->stats().delivery.bytes - before.bytes;
    return work;
  };
}

std::uint64_t record_logs(spillway::Engine& engine) {
  for (int i = 0; i < 10'000; ++i) {
    SPILLWAY_INFO(engine, "order placed", {"order_id", i}, {"total", i * 0.25},
                  {"currency", "nine char"});
  }
  return 10'000;
}
std::uint64_t record_events(spillway::Engine& engine) {
  for (int i = 0; i < 5000; ++i) {
    SPILLWAY_EVENT(
        engine, spillway::EventMetric{{"Latency", spillway::Unit::milliseconds}, i * 0.25},
        spillway::EventDimension{"Route", "/v1/orders"}, spillway::EventProperty{"order_id", i});
  }
  return 5000;
}
std::uint64_t record_spans(spillway::Engine& engine) {
  for (int i = 0; i < 1000; ++i) {
    const spillway::Span root = engine.span("GET /v1/orders");
    auto span = engine.span("charge-card");
    span.annotate("order_id", i);
    span.annotate("total", i * 0.25);
    span.annotate("currency", "nine char");
  }
  return 2000;
}
std::uint64_t record_samples(spillway::Engine& engine) {
  const auto latency = engine.histogram("Latency", spillway::Unit::microseconds);
  for (int i = 0; i < 20'000; ++i) latency.sample(100 + i % 1000);
  return 20'000;
}
std::uint64_t record_series(spillway::Engine& engine) {
  static std::map<spillway::Engine*, std::vector<spillway::Histogram>> made;
  std::vector<spillway::Histogram>& handles = made[&engine];
  for (auto i = static_cast<int>(handles.size()); i < 1000; ++i) {
    handles.push_back(engine.histogram("Latency", spillway::Unit::microseconds,
                                       {{"Route", "/v1/orders/" + std::to_string(i)}}));
  }
  for (int i = 0; i < 10; ++i) {
    for (const spillway::Histogram& one : handles) one.record(100 + i);
  }
  return handles.size();  // What is encoded: a point of each.
}

/// From the recording call to the closed interval: what a thread and the flusher do for a measurement.
std::uint64_t record_measurements(spillway::Engine& engine) {
  static std::map<spillway::Engine*, std::vector<std::pair<spillway::Counter, spillway::Histogram>>>
      made;
  auto& handles = made[&engine];
  for (auto i = static_cast<int>(handles.size()); i < 100; ++i) {
    const spillway::Dimensions dimensions{{"Route", std::to_string(i)}};
    handles.emplace_back(engine.counter("Requests", spillway::Unit::count, dimensions),
                         engine.histogram("Latency", spillway::Unit::microseconds, dimensions));
  }
  for (int round = 0; round < 5000; ++round) {
    for (const auto& [requests, latency] : handles) {
      requests.add(1);
      latency.record(100 + (round & 255));
    }
  }
  return 2 * 5000 * handles.size();
}
std::function<Work()> aggregation() {
  spillway::Config config;
  config.service = "orders";
  config.metrics = MetricsTo::none;
  config.logs = spillway::LogsTo::none;
  auto engine = std::make_shared<spillway::Engine>(config, bench::agreeing(false));
  return [engine] {
    Work work;
    work.records = record_measurements(*engine);
    engine->flush(std::chrono::seconds(30));
    return work;
  };
}

std::vector<Case> all_cases() {
  const auto emf_counter = [](Payload& payload) { our_emf(inputs().counter, payload); };
  const auto emf_histogram = [](Payload& payload) { our_emf(inputs().histogram, payload); };
  const auto datum = [](Payload& payload) {
    encode_metric_datums(inputs().counter, DatumFormat::json, payload);
  };
  const auto histogram_datum = [](Payload& payload) {
    encode_metric_datums(inputs().histogram, DatumFormat::json, payload);
  };
  const auto cbor_datum = [](Payload& payload) {
    encode_metric_datums(inputs().counter, DatumFormat::cbor, payload);
  };
  const auto ten = [](Payload& payload) {
    encode_emf(inputs().ten_counters, EmfOptions{"Shop", false}, payload);
  };
  const auto thousand = [](Payload& payload) {
    for (const MetricPoint& point : inputs().thousand_counters) our_emf(point, payload);
  };
  const auto otlp_counter = [](Payload& payload) { our_otlp_metric(inputs().counter, payload); };
  const auto otlp_histogram = [](Payload& payload) {
    our_otlp_metric(inputs().histogram, payload);
  };
  std::vector<Case> cases;
  const auto encoder = [&](const char* name, auto encode, std::uint64_t records_each = 1) {
    cases.push_back({name, "spillway", documents(encode, records_each)});
    cases.push_back({name, "floor", copies(encode, records_each)});
    cases.push_back({name, "memcpy", memcpy_of(encode, records_each)});
  };
  encoder("emf_counter", emf_counter);
  encoder("emf_10_counters", ten, 10);
  encoder("emf_1000_counters", thousand, 1000);
  encoder("emf_histogram", emf_histogram);
  encoder("emf_wide_event", our_wide_event);
  encoder("put_metric_data_counter", datum);
  encoder("put_metric_data_counter_cbor", cbor_datum);
  encoder("put_metric_data_histogram", histogram_datum);
  encoder("put_log_events_event", our_bare_log);
  encoder("put_log_events_event_context", our_log);
  encoder("xray_2_spans", our_segment, 2);
  encoder("otlp_counter", otlp_counter);
  encoder("otlp_histogram", otlp_histogram);
  encoder("otlp_log", our_otlp_log);
  encoder("otlp_2_spans", our_otlp_spans, 2);
  cases.push_back({"emf_counter", "snprintf", documents(printed_emf)});
  const std::vector<Request> requests = all_requests();
  for (const Request& request : requests) add_request(cases, request);
  cases.push_back({"put_log_events", "simdjson minify",
                   [logs = requests.front()] { return minified_log_body(logs); }});
  cases.push_back({"aggregate_measurements", "spillway", aggregation()});
#if defined(SPILLWAY_BENCH_NLOHMANN)
  const auto nlohmann_counter = [](Payload& payload) { nlohmann_emf(inputs().counter, payload); };
  const auto nlohmann_histogram = [](Payload& payload) {
    nlohmann_emf(inputs().histogram, payload);
  };
  must_agree("emf_counter", emf_counter, nlohmann_counter);
  must_agree("emf_counter by snprintf", emf_counter, printed_emf);
  must_agree("emf_histogram", emf_histogram, nlohmann_histogram);
  must_agree("put_log_events_event_context", our_log, nlohmann_log);
  cases.push_back({"emf_counter", "nlohmann-json", documents(nlohmann_counter)});
  cases.push_back({"emf_histogram", "nlohmann-json", documents(nlohmann_histogram)});
  must_agree("put_metric_data_counter", datum, nlohmann_datum);
  must_agree("xray_2_spans", our_segment, nlohmann_segment);
  cases.push_back({"put_log_events_event_context", "nlohmann-json", documents(nlohmann_log)});
  cases.push_back({"put_metric_data_counter", "nlohmann-json", documents(nlohmann_datum)});
  cases.push_back({"xray_2_spans", "nlohmann-json", documents(nlohmann_segment, 2)});
#endif
#if defined(SPILLWAY_BENCH_RAPIDJSON)
#if defined(SPILLWAY_BENCH_NLOHMANN)
  must_agree("log by rapidjson", our_log, rapidjson_log);
  must_agree("emf_counter by rapidjson", emf_counter, rapidjson_emf);
  must_agree("put_metric_data_counter by rapidjson", datum, rapidjson_datum);
  must_agree("xray_2_spans by rapidjson", our_segment, rapidjson_segment);
#endif
  cases.push_back({"emf_counter", "rapidjson", documents(rapidjson_emf)});
  cases.push_back({"put_log_events_event_context", "rapidjson", documents(rapidjson_log)});
  cases.push_back({"put_metric_data_counter", "rapidjson", documents(rapidjson_datum)});
  cases.push_back({"xray_2_spans", "rapidjson", documents(rapidjson_segment, 2)});
#endif
  const auto to_file = [] {
    spillway::Config config;
    config.metrics = MetricsTo::emf_file;
    config.metrics_file = "/dev/null";
    config.logs = spillway::LogsTo::file;
    config.logs_file = "/dev/null";
    return config;
  };
  const auto to_aws = [] {
    spillway::Config config;
    config.metrics = MetricsTo::put_metric_data;
    config.logs = spillway::LogsTo::put_log_events;
    config.traces = spillway::TracesTo::put_trace_segments;
    return config;
  };
  cases.push_back({"put_log_events_from_ring", "to a file", pipeline(to_file(), record_logs)});
  cases.push_back({"put_log_events_from_ring", "to PutLogEvents", pipeline(to_aws(), record_logs)});
  cases.push_back({"emf_wide_events_from_ring", "to a file", pipeline(to_file(), record_events)});
  cases.push_back({"aggregate_wide_events", "to PutMetricData", pipeline(to_aws(), record_events)});
  cases.push_back({"xray_from_ring", "to PutTraceSegments", pipeline(to_aws(), record_spans)});
  cases.push_back({"aggregate_samples", "to a file", pipeline(to_file(), record_samples)});
  cases.push_back({"aggregate_1000_series", "to a file", pipeline(to_file(), record_series)});
  cases.push_back({"aggregate_1000_series", "to PutMetricData", pipeline(to_aws(), record_series)});
  return cases;
}

// ---- The error of percentiles ----

// Times of reads of a page from /dev/zero, as they come on this machine: a narrow body with a long
// tail of interruptions.
std::vector<double> real_latencies(std::size_t count) {
  std::vector<double> ns;
  ns.reserve(count);
  std::array<char, 4096> page{};
  const int file = open("/dev/zero", O_RDONLY | O_CLOEXEC);
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint64_t began = bench::fenced_ticks();
    if (read(file, page.data(), page.size()) < 0) std::abort();
    ns.push_back(static_cast<double>(bench::fenced_ticks() - began) * bench::ns_per_tick());
  }
  close(file);
  return ns;
}

/// The largest relative error, in percent, of p1 to p99.9 as a reader of the Values and Counts that are
/// sent takes them, against the measurements themselves.
double percentile_error_percent(std::vector<double> measured) {
  Distribution all;
  std::map<std::uint32_t, std::uint64_t> buckets;
  for (const double one : measured) {
    ++buckets[bucket_of(one)];
    all.sum += one;
  }
  std::sort(measured.begin(), measured.end());
  all.count = measured.size();
  all.minimum = measured.front();
  all.maximum = measured.back();
  all.buckets.assign(buckets.begin(), buckets.end());
  std::vector<ValueCount> points;
  append_points(all, points);
  double worst = 0;
  for (int permille = 10; permille <= 999; ++permille) {
    const auto rank =
        static_cast<std::size_t>(static_cast<double>(measured.size() - 1) * permille / 1000);
    double below = 0;
    for (const ValueCount& point : points) {
      below += point.count;
      if (below > static_cast<double>(rank)) {
        worst = std::max(worst, std::abs(point.value - measured[rank]) / measured[rank] * 100);
        break;
      }
    }
  }
  return worst;
}

}  // namespace

int main(int argc, char** argv) {
  const bench::Options options(argc, argv);
  bench::use_any_credentials();
  std::vector<Case> cases = all_cases();
  std::erase_if(cases, [&](const Case& one) {
    return !options.wants(one.name) && !options.wants(one.name + "/" + one.subject);
  });

  const double round_ns = 200e6 * options.effort;
  const int rounds = options.times(5);
  std::vector<std::vector<double>> ns(cases.size());
  std::vector<Work> sums(cases.size());
  for (int round = 0; round < rounds; ++round) {
    for (std::size_t i = 0; i < cases.size(); ++i) {
      for (double spent = 0; spent < round_ns;) {
        const std::uint64_t began = bench::fenced_ticks();
        Work work = cases[i].pass();
        const double took =
            static_cast<double>(bench::fenced_ticks() - began) * bench::ns_per_tick();
        if (work.ns == 0) work.ns = took;
        spent += took;
        ns[i].push_back(work.ns / static_cast<double>(work.records));
        sums[i].records += work.records;
        sums[i].bytes += work.bytes;
      }
    }
  }
  for (std::size_t i = 0; i < cases.size(); ++i) {
    bench::Row row{"encode", cases[i].name, cases[i].subject};
    row.ns = bench::summarise(ns[i]);
    row.per_second = 1e9 / row.ns.p50;
    if (sums[i].bytes != 0) {
      row.bytes_per_second = row.per_second * static_cast<double>(sums[i].bytes) /
                             static_cast<double>(sums[i].records);
    }
    bench::print(row);
  }
  if (options.wants("aggregate_percentile_error")) {
    bench::Row row{"encode", "aggregate_percentile_error"};
    row.error_percent = percentile_error_percent(
        real_latencies(static_cast<std::size_t>(options.times(1'000'000))));
    bench::print(row);
  }
}
