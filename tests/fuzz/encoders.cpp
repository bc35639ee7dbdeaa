// SPDX-License-Identifier: Apache-2.0
//
// Everything that we write, read back by an independent parser.
#include <algorithm>
#include <cmath>
#include <deque>
#include <memory_resource>
#include <set>
#include <vector>

#include "target.hpp"
#include <spillway/buffers/batch.hpp>
#include <spillway/buffers/payload.hpp>
#include <spillway/encoders/emf.hpp>
#include <spillway/encoders/json.hpp>
#include <spillway/encoders/limits.hpp>
#include <spillway/encoders/log_event.hpp>
#include <spillway/encoders/put_log_events.hpp>
#include <spillway/encoders/put_metric_data.hpp>
#include <spillway/encoders/xray.hpp>

namespace spillway::fuzz {
namespace {

using namespace detail;

Payload make_payload() { return Payload(std::pmr::get_default_resource()); }

bool is_one_line(std::string_view text) {
  return std::none_of(text.begin(), text.end(),
                      [](char c) { return static_cast<unsigned char>(c) < 0x20; });
}

SPILLWAY_FUZZ_TARGET(json_string) {
  ByteBuffer out;
  append_json_string(out, bytes);
  require(is_one_line(out.view()), "no control character stays");
  const Parsed parsed(out.view());
  std::string_view read;
  require(parsed.root.get(read) == simdjson::SUCCESS, "a string is a string");
  if (simdjson::validate_utf8(bytes.data(), bytes.size())) {
    require(read == bytes, "a string reads back the same");
  }
  for (const std::size_t most : {std::size_t{0}, std::size_t{1}, bytes.size() / 2, bytes.size()}) {
    const std::string_view cut = cut_utf8(bytes, most);
    require(cut.size() <= most && bytes.starts_with(cut), "a cut is a beginning");
    if (simdjson::validate_utf8(bytes.data(), bytes.size())) {
      require(simdjson::validate_utf8(cut.data(), cut.size()), "no character is split");
    }
  }
}

SPILLWAY_FUZZ_TARGET(json_number) {
  Input input(bytes);
  const auto real = input.take<double>();
  const auto whole = input.take<std::int64_t>();
  ByteBuffer out;
  append_number(out, real);
  const Parsed parsed(out.view());
  if (std::isfinite(real)) {
    double read = 0;
    require(parsed.root.get(read) == simdjson::SUCCESS && read == real,
            "a double reads back the same");
  } else {
    require(parsed.root.is_string(), "what JSON has no number for is a string");
  }
  out.clear();
  append_number(out, whole);
  std::int64_t read = 0;
  require(Parsed(out.view()).root.get(read) == simdjson::SUCCESS && read == whole,
          "an integer reads back the same");
  out.clear();
  append_iso8601(out, whole);
  out.advance_to(write_epoch_seconds(out.reserve(number_bytes_max), whole));
}

ContextTexts take_context(Input& input, std::deque<std::string>& texts) {
  ContextTexts context;
  for (std::string_view* text : {&context.tenant, &context.user, &context.request_id}) {
    texts.push_back(input.text());
    *text = texts.back();
  }
  context.trace_id = input.take<TraceId>();
  return context;
}

constexpr ValueType value_types[] = {ValueType::integer, ValueType::unsigned_integer,
                                     ValueType::real, ValueType::boolean, ValueType::string};

SPILLWAY_FUZZ_TARGET(log_event) {
  Input input(bytes);
  SiteInfo site{static_cast<Severity>(input.up_to(5)),
                input.text(),
                input.text(),
                input.take<std::uint32_t>(),
                {}};
  const std::size_t fields = input.up_to(16);
  for (std::size_t i = 0; i < fields; ++i) {
    site.fields.push_back({input.text(), value_types[input.up_to(4)]});
  }
  std::deque<std::string> texts;
  const ContextTexts context = take_context(input, texts);
  const auto time_ns = input.take<std::int64_t>();
  const auto span_id = input.take<std::uint64_t>();
  const std::size_t bytes_max = 1024 + input.take<std::uint16_t>();
  const std::string_view values = input.rest();
  const LogView log{&site, time_ns, span_id, &context,
                    std::as_bytes(std::span(values.data(), values.size()))};
  LogEncoder encoder("fuzz");
  ByteBuffer out;
  encoder.append_json(log, bytes_max, out);
  require(is_one_line(out.view()), "a log event is one line");
  const Parsed parsed(out.view());
  simdjson::dom::object object;
  require(parsed.root.get(object) == simdjson::SUCCESS, "a log event is an object");
  for (const auto& [key, value] : object) {
    require(key != "_aws", "no field makes an EMF document of a log event");
  }
  out.clear();
  encoder.append_console(log, bytes_max, out);
  require(is_one_line(out.view()) && simdjson::validate_utf8(out.view().data(), out.view().size()),
          "a console line is one line of UTF-8");
}

/// Points of one dimension set, such as the engine lets through.
struct Points {
  explicit Points(Input& input) {
    const std::size_t dimension_count = input.up_to(5);
    for (std::size_t i = 0; i < dimension_count; ++i) {
      dimensions.push_back({input.text(), input.text(8)});
    }
    if (limits::dimensions_error(dimensions)) dimensions.clear();
    const std::size_t point_count = 1 + input.up_to(20);
    for (std::size_t i = 0; i < point_count; ++i) add(input);
  }

  void add(Input& input) {
    const auto kind = static_cast<MetricKind>(input.up_to(2));
    std::string name = input.text();
    if (limits::metric_name_error(name)) name = "m" + std::to_string(input.up_to(3));
    series.push_back(
        {.key = {kind, static_cast<Unit>(input.up_to(26)),
                 input.flag() ? Resolution::second : Resolution::minute, name, dimensions}});
    series.back().has_plain_texts = is_plain(series.back().key);
    MetricPoint point{
        &series.back(), input.take<std::int32_t>() * std::int64_t{1000}, 0, 0, 0, 0, 0, {}};
    std::vector<double> drawn;
    const std::size_t count = 1 + input.up_to(255);
    for (std::size_t i = 0; i < count; ++i) {
      const double value = input.flag() ? static_cast<double>(input.take<float>())
                                        : static_cast<double>(input.take<std::int8_t>());
      drawn.push_back(std::isfinite(value) ? value : 0);
    }
    std::sort(drawn.begin(), drawn.end());
    values.emplace_back();
    for (const double value : drawn) {
      const double times = 1 + static_cast<double>(input.up_to(200));
      if (!values.back().empty() && values.back().back().value == value) {
        values.back().back().count += times;
      } else {
        values.back().push_back({value, times});
      }
      point.count += static_cast<std::uint64_t>(times);
      point.sum += value * times;
    }
    point.minimum = drawn.front();
    point.maximum = drawn.back();
    point.last = drawn[drawn.size() / 2];
    if (kind == MetricKind::histogram) point.values = values.back();
    points.push_back(point);
    measurements += point.count;
  }

  Dimensions dimensions;
  std::deque<Series> series;
  std::deque<std::vector<ValueCount>> values;
  std::vector<MetricPoint> points;
  std::uint64_t measurements = 0;
};

SPILLWAY_FUZZ_TARGET(emf) {
  Input input(bytes);
  EmfOptions options{"Fuzz", input.flag()};
  const Points made(input);
  Payload payload = make_payload();
  encode_emf(made.points, options, payload);
  require(payload.records() == made.measurements, "every measurement is in a document");
  const std::size_t most = emf_document_bytes_max(made.points);
  for (const PayloadItem& item : payload.items) {
    require(item.bytes <= most, "a document is no larger than was said");
    const Parsed parsed(payload.item(item));
    simdjson::dom::array directives;
    require(parsed.root["_aws"]["CloudWatchMetrics"].get(directives) == simdjson::SUCCESS,
            "a document is EMF");
    for (const simdjson::dom::element directive : directives) {
      simdjson::dom::array metrics;
      require(directive["Metrics"].get(metrics) == simdjson::SUCCESS &&
                  metrics.size() <= limits::emf_metrics_per_document_max,
              "at most 100 metrics");
      std::set<std::string_view> names;
      for (const simdjson::dom::element metric : metrics) {
        std::string_view name;
        require(metric["Name"].get(name) == simdjson::SUCCESS && names.insert(name).second,
                "no metric twice in a document");
        simdjson::dom::element value;
        require(parsed.root[name].get(value) == simdjson::SUCCESS, "a metric has its value");
        simdjson::dom::array list;
        require(value.is_number() || value.is_object() ||
                    (value.get(list) == simdjson::SUCCESS &&
                     list.size() <= limits::emf_values_per_metric_max),
                "a value is a number, an object or at most 100 numbers");
      }
    }
  }
}

SPILLWAY_FUZZ_TARGET(put_metric_data) {
  Input input(bytes);
  const Points made(input);
  Payload payload = make_payload();
  for (const MetricPoint& point : made.points) {
    const std::size_t items = payload.items.size();
    encode_metric_datums(point, DatumFormat::json, payload);
    for (std::size_t i = items; i < payload.items.size(); ++i) {
      require(payload.items[i].bytes <= metric_datum_bytes_max(point),
              "a datum is no larger than was said");
    }
  }
  require(payload.records() == made.measurements, "every measurement is in a datum");
  ByteBuffer body;
  append_put_metric_data(payload, DatumFormat::json, "Fuzz", {}, body);
  const Parsed parsed(body.view());
  simdjson::dom::array data;
  require(parsed.root["MetricData"].get(data) == simdjson::SUCCESS &&
              data.size() == payload.items.size(),
          "a datum an item");
  for (const simdjson::dom::element datum : data) {
    simdjson::dom::array values;
    simdjson::dom::array counts;
    if (datum["Values"].get(values) != simdjson::SUCCESS) continue;
    require(datum["Counts"].get(counts) == simdjson::SUCCESS && counts.size() == values.size() &&
                values.size() <= limits::values_per_datum_max,
            "at most 150 values, a count each");
  }
}

SPILLWAY_FUZZ_TARGET(put_log_events) {
  Input input(bytes);
  Payload payload = make_payload();
  std::vector<std::string> messages;
  while (!input.empty() && messages.size() < 100) {
    const auto time_ms = input.take<std::int32_t>();
    const auto ticks = input.take<std::uint8_t>();
    const std::size_t offset = payload.bytes.size();
    messages.push_back(input.text());
    const std::string& message = messages.back();
    if (!simdjson::validate_utf8(message.data(), message.size())) {
      messages.pop_back();
      continue;
    }
    payload.bytes.append(message);
    payload.end_item(offset, 1, time_ms, ticks);
  }
  if (messages.empty()) return;  // No payload is without an item.
  sort_log_events(payload);
  ByteBuffer body;
  append_put_log_events(payload, "/fuzz", "one", body);
  const Parsed parsed(body.view());
  simdjson::dom::array events;
  require(
      parsed.root["logEvents"].get(events) == simdjson::SUCCESS && events.size() == messages.size(),
      "every event is in the body");
  std::vector<std::string> read;
  std::int64_t before = std::numeric_limits<std::int64_t>::min();
  for (const simdjson::dom::element event : events) {
    std::int64_t time = 0;
    std::string_view message;
    require(event["timestamp"].get(time) == simdjson::SUCCESS && time >= before,
            "events are in the order of their times");
    require(event["message"].get(message) == simdjson::SUCCESS, "an event has a message");
    before = time;
    read.emplace_back(message);
  }
  std::sort(read.begin(), read.end());
  std::sort(messages.begin(), messages.end());
  require(read == messages, "messages read back the same");
}

SPILLWAY_FUZZ_TARGET(xray) {
  Input input(bytes);
  std::deque<std::string> texts;
  const ContextTexts context = take_context(input, texts);
  // Few ids, so that spans find parents, brothers of the same id, and circles.
  const auto id = [&] { return static_cast<std::uint64_t>(input.up_to(20)); };
  const std::uint64_t segment_id = 1 + id();
  const XrayOptions options{input.flag() ? "" : input.text(), input.text(),
                            std::size_t{2000} + input.take<std::uint16_t>() % 62'000};
  std::vector<SpanView> spans;
  std::set<std::uint64_t> ids;
  while (!input.empty() && spans.size() < 150) {
    SpanView span{};
    texts.push_back(input.text());
    span.name = texts.back();
    span.start_ns = input.take<std::int64_t>();
    span.end_ns = input.take<std::int64_t>();
    span.body.span_id = ids.size() < 20 ? 1 + id() : 100 + spans.size();
    if (!ids.insert(span.body.span_id).second) span.body.span_id = 1000 + spans.size();
    span.body.parent_id = input.flag() ? 1 + id() : 100 + id();
    span.body.segment_id = segment_id;
    span.body.trace_id = input.take<TraceId>();
    // One in progress is not counted: engine_traces_test has those.
    span.body.flags = static_cast<std::uint16_t>(input.take<std::uint16_t>() & ~span_in_progress);
    span.body.http_status = input.take<std::uint16_t>();
    texts.push_back(input.text(4));
    span.entries = std::as_bytes(std::span(texts.back().data(), texts.back().size()));
    span.body.entry_bytes = static_cast<std::uint32_t>(texts.back().size());
    spans.push_back(span);
  }
  if (spans.empty()) return;
  Payload payload = make_payload();
  const TraceEncoded encoded = XrayEncoder(options).encode(spans, context, payload);
  require(payload.records() + encoded.spans_too_large == spans.size(),
          "every span is in a document or counted");
  for (const PayloadItem& item : payload.items) {
    require(item.bytes <= options.document_bytes_max, "a document is within its limit");
    const Parsed parsed(payload.item(item));
    for (const char* const member : {"id", "trace_id", "name"}) {
      require(parsed.root[member].is_string(), "a document has id, trace and name");
    }
    double start = 0;
    require(parsed.root["start_time"].get(start) == simdjson::SUCCESS && start >= 0,
            "a document has its start");
  }
  ByteBuffer body;
  append_put_trace_segments(payload, body);
  simdjson::dom::array documents;
  const Parsed parsed(body.view());
  require(parsed.root["TraceSegmentDocuments"].get(documents) == simdjson::SUCCESS &&
              documents.size() == payload.items.size(),
          "every document is in the body");
}

}  // namespace
}  // namespace spillway::fuzz
