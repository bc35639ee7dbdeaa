// SPDX-License-Identifier: Apache-2.0
//
// Everything that we write, read back by an independent parser.
#include <algorithm>
#include <cmath>
#include <deque>
#include <memory_resource>
#include <set>
#include <vector>

#include <support/cbor.hpp>

#include "records.hpp"
#include "target.hpp"
#include <spillway/buffers/batch.hpp>
#include <spillway/buffers/payload.hpp>
#include <spillway/encoders/cbor.hpp>
#include <spillway/encoders/emf.hpp>
#include <spillway/encoders/json.hpp>
#include <spillway/encoders/limits.hpp>
#include <spillway/encoders/log_event.hpp>
#include <spillway/encoders/put_log_events.hpp>
#include <spillway/encoders/put_metric_data.hpp>
#include <spillway/encoders/wide_event.hpp>
#include <spillway/encoders/xray.hpp>

namespace spillway::fuzz {
namespace {

using namespace detail;

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

SPILLWAY_FUZZ_TARGET(log_event) {
  Input input(bytes);
  const Log made(input);
  const LogView log = made.view();
  LogEncoder encoder("fuzz");
  ByteBuffer out;
  encoder.append_json(log, made.bytes_max, out);
  require(is_one_line(out.view()), "a log event is one line");
  const Parsed parsed(out.view());
  simdjson::dom::object object;
  require(parsed.root.get(object) == simdjson::SUCCESS, "a log event is an object");
  for (const auto& [key, value] : object) {
    require(key != "_aws", "no field makes an EMF document of a log event");
  }
  out.clear();
  encoder.append_console(log, made.bytes_max, out);
  require(is_one_line(out.view()) && simdjson::validate_utf8(out.view().data(), out.view().size()),
          "a console line is one line of UTF-8");
}

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

std::string put_metric_data(const Points& made, DatumFormat format) {
  Payload payload = make_payload();
  for (const MetricPoint& point : made.points) {
    const std::size_t items = payload.items.size();
    encode_metric_datums(point, format, payload);
    for (std::size_t i = items; i < payload.items.size(); ++i) {
      require(payload.items[i].bytes <= metric_datum_bytes_max(point),
              "a datum is no larger than was said");
    }
  }
  require(payload.records() == made.measurements, "every measurement is in a datum");
  ByteBuffer body;
  append_put_metric_data(payload, format, "Fuzz", {}, body);
  return format == DatumFormat::json ? std::string(body.view())
                                     : testing::CborAsJson::of(body.view());
}

/// The same values, whatever the order of members. JSON has milliseconds, CBOR whole seconds.
bool is_same(simdjson::dom::element a, simdjson::dom::element b) {
  simdjson::dom::array list;
  if (a.get(list) == simdjson::SUCCESS) {
    simdjson::dom::array other;
    if (b.get(other) != simdjson::SUCCESS || list.size() != other.size()) return false;
    for (auto i = list.begin(), j = other.begin(); i != list.end(); ++i, ++j) {
      if (!is_same(*i, *j)) return false;
    }
    return true;
  }
  simdjson::dom::object members;
  if (a.get(members) == simdjson::SUCCESS) {
    simdjson::dom::object others;
    if (b.get(others) != simdjson::SUCCESS || members.size() != others.size()) return false;
    return std::all_of(members.begin(), members.end(), [&](const auto& member) {
      simdjson::dom::element other;
      return others[member.key].get(other) == simdjson::SUCCESS && is_same(member.value, other);
    });
  }
  double number = 0;
  double other = 0;
  if (a.get(number) == simdjson::SUCCESS)
    return b.get(other) == simdjson::SUCCESS && number == other;
  std::string_view text;
  std::string_view other_text;
  if (a.get(text) == simdjson::SUCCESS)
    return b.get(other_text) == simdjson::SUCCESS && text == other_text;
  return simdjson::minify(a) == simdjson::minify(b);
}

SPILLWAY_FUZZ_TARGET(put_metric_data) {
  Input input(bytes);
  const Points made(input);
  const std::string json = put_metric_data(made, DatumFormat::json);
  const Parsed parsed(json);
  simdjson::dom::array data;
  require(parsed.root["MetricData"].get(data) == simdjson::SUCCESS, "there are data");
  for (const simdjson::dom::element datum : data) {
    simdjson::dom::array values;
    simdjson::dom::array counts;
    if (datum["Values"].get(values) != simdjson::SUCCESS) continue;
    require(datum["Counts"].get(counts) == simdjson::SUCCESS && counts.size() == values.size() &&
                values.size() <= limits::values_per_datum_max,
            "at most 150 values, a count each");
  }
  require(is_same(parsed.root, Parsed(put_metric_data(made, DatumFormat::cbor)).root),
          "JSON and CBOR say the same");
}

SPILLWAY_FUZZ_TARGET(cbor) {
  Input input(bytes);
  const auto whole = input.take<std::uint64_t>() >> input.up_to(63);
  const auto real = input.take<double>();
  const std::string text = input.text(300);
  ByteBuffer out;
  cbor::append_head(out, cbor::Major::array, 4);
  cbor::append_head(out, cbor::Major::unsigned_number, whole);
  out.advance_to(
      cbor::write_double(out.reserve(cbor::head_bytes_max), std::isnan(real) ? 0 : real));
  cbor::append_text(out, text);
  cbor::append_bool(out, input.flag());
  ByteBuffer expected;
  append_json_string(expected, text);
  const std::string json = testing::CborAsJson::of(out.view());
  const Parsed parsed(json);
  std::uint64_t read = 0;
  require(parsed.root.at(0).get(read) == simdjson::SUCCESS && read == whole,
          "a number reads back the same");
  if (double number = 0; std::isfinite(real)) {
    require(parsed.root.at(1).get(number) == simdjson::SUCCESS && number == real,
            "a double reads back the same");
  }
  require(simdjson::minify(parsed.root.at(2)) == simdjson::minify(Parsed(expected.view()).root),
          "a text is what JSON makes of it");
}

SPILLWAY_FUZZ_TARGET(wide_event) {
  Input input(bytes);
  const std::size_t bytes_max = 4096 + input.take<std::uint16_t>();
  Dimensions dimensions;
  for (std::size_t left = input.up_to(3); left > 0; --left)
    dimensions.push_back({input.text(), input.text()});
  if (limits::dimensions_error(dimensions)) dimensions.clear();
  const std::size_t roles = input.take<std::uint16_t>();
  Log made(input);
  std::uint64_t metrics = 0;
  for (std::size_t i = 0; i < made.site.fields.size(); ++i) {
    SiteField& field = made.site.fields[i];
    if (field.type == ValueType::real && (roles >> i & 1U) != 0) {
      field.role = FieldRole::metric;
      ++metrics;
    } else if (field.type == ValueType::string && (roles >> i & 1U) != 0) {
      field.role = FieldRole::dimension;
    }
  }
  if (metrics == 0) return;  // No event is without one.
  const auto sets_of = [](const std::string&, const std::vector<std::string>& names) {
    return DimensionSets{names};
  };
  WideEventEncoder encoder({.metric_namespace = "Fuzz", .document_bytes_max = bytes_max},
                           dimensions, sets_of);
  ByteBuffer out;
  const std::uint64_t written = encoder.append(made.view(), out);
  require(written <= metrics, "no more metrics than there are");
  if (written == 0) {
    require(out.view().empty(), "an event that cannot be sent leaves nothing");
    return;
  }
  require(is_one_line(out.view()), "a document is one line");
  const Parsed parsed(out.view());
  simdjson::dom::object object;
  require(parsed.root.get(object) == simdjson::SUCCESS, "a document is an object");
  std::set<std::string_view> members;
  for (const auto& [key, value] : object) require(members.insert(key).second, "no member twice");
  simdjson::dom::array directives;
  require(parsed.root["_aws"]["CloudWatchMetrics"].get(directives) == simdjson::SUCCESS,
          "a document is EMF");
  std::set<std::string_view> names;
  for (const simdjson::dom::element directive : directives) {
    for (const simdjson::dom::element metric : simdjson::dom::array(directive["Metrics"])) {
      const std::string_view name = metric["Name"].get_string().value();
      require(parsed.root[name].is_number(), "a metric has its value");
      names.insert(name);
    }
    for (const simdjson::dom::element set : simdjson::dom::array(directive["Dimensions"])) {
      for (const simdjson::dom::element name : simdjson::dom::array(set)) {
        require(parsed.root[name.get_string().value()].is_string(), "a dimension has its value");
      }
    }
  }
  require(names.size() == written, "as many metrics as were said");
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
  const std::uint64_t segment_id = 1 + input.up_to(20);
  const XrayOptions options{input.flag() ? "" : input.text(), input.text(),
                            std::size_t{2000} + input.take<std::uint16_t>() % 62'000};
  const std::vector<SpanView> spans = take_spans(input, texts, segment_id);
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
