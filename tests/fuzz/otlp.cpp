// SPDX-License-Identifier: Apache-2.0
//
// OTLP requests, read back by a parser of Protocol Buffers that knows the messages by the field lists of
// opentelemetry-proto 1.x and shares no code with the encoders: a field that is none, of another type, a string that is
// no UTF-8, an id of another length, or a key twice ends the process.
#include <deque>
#include <map>
#include <set>
#include <vector>

#include "records.hpp"
#include "target.hpp"
#include <spillway/encoders/otlp.hpp>
#include <spillway/encoders/otlp_logs.hpp>
#include <spillway/encoders/otlp_metrics.hpp>
#include <spillway/encoders/otlp_traces.hpp>

namespace spillway::fuzz {
namespace {

using namespace detail;

// ---- Messages as their descriptions say ----

struct Field;
/// By number.
using Message = std::map<std::uint32_t, Field>;

struct Field {
  enum Kind : std::uint8_t { varint, fixed64, fixed32, string, id8, id16, packed, message } kind;
  const Message* nested = nullptr;
  bool repeated = false;
};

Field one(const Message& nested) { return {Field::message, &nested, false}; }
Field many(const Message& nested) { return {Field::message, &nested, true}; }

struct Otlp {
  Message any_value{{1, {Field::string}},  {2, {Field::varint}},  {3, {Field::varint}},
                    {4, {Field::fixed64}}, {5, one(array_value)}, {6, one(key_values)}};
  Message array_value{{1, many(any_value)}};
  Message key_values{{1, many(key_value)}};
  Message key_value{{1, {Field::string}}, {2, one(any_value)}};
  Message resource{{1, many(key_value)}, {2, {Field::varint}}};
  Message scope{
      {1, {Field::string}}, {2, {Field::string}}, {3, many(key_value)}, {4, {Field::varint}}};

  Message log_record{{1, {Field::fixed64}},  {2, {Field::varint}}, {3, {Field::string}},
                     {5, one(any_value)},    {6, many(key_value)}, {7, {Field::varint}},
                     {8, {Field::fixed32}},  {9, {Field::id16}},   {10, {Field::id8}},
                     {11, {Field::fixed64}}, {12, {Field::string}}};

  Message exemplar{{2, {Field::fixed64}}, {3, {Field::fixed64}}, {4, {Field::id8}},
                   {5, {Field::id16}},    {6, {Field::fixed64}}, {7, many(key_value)}};
  Message number_point{{2, {Field::fixed64}}, {3, {Field::fixed64}}, {4, {Field::fixed64}},
                       {5, many(exemplar)},   {6, {Field::fixed64}}, {7, many(key_value)},
                       {8, {Field::varint}}};
  Message buckets{{1, {Field::varint}}, {2, {Field::packed}}};
  Message exponential_point{{1, many(key_value)},   {2, {Field::fixed64}}, {3, {Field::fixed64}},
                            {4, {Field::fixed64}},  {5, {Field::fixed64}}, {6, {Field::varint}},
                            {7, {Field::fixed64}},  {8, one(buckets)},     {9, one(buckets)},
                            {10, {Field::varint}},  {11, many(exemplar)},  {12, {Field::fixed64}},
                            {13, {Field::fixed64}}, {14, {Field::fixed64}}};
  Message gauge{{1, many(number_point)}};
  Message sum{{1, many(number_point)}, {2, {Field::varint}}, {3, {Field::varint}}};
  Message exponential{{1, many(exponential_point)}, {2, {Field::varint}}};
  Message metric{{1, {Field::string}}, {2, {Field::string}}, {3, {Field::string}},
                 {5, one(gauge)},      {7, one(sum)},        {10, one(exponential)}};

  Message event{
      {1, {Field::fixed64}}, {2, {Field::string}}, {3, many(key_value)}, {4, {Field::varint}}};
  Message link{{1, {Field::id16}},   {2, {Field::id8}},    {3, {Field::string}},
               {4, many(key_value)}, {5, {Field::varint}}, {6, {Field::fixed32}}};
  Message status{{2, {Field::string}}, {3, {Field::varint}}};
  Message span{
      {1, {Field::id16}},   {2, {Field::id8}},     {3, {Field::string}},  {4, {Field::id8}},
      {5, {Field::string}}, {6, {Field::varint}},  {7, {Field::fixed64}}, {8, {Field::fixed64}},
      {9, many(key_value)}, {10, {Field::varint}}, {11, many(event)},     {12, {Field::varint}},
      {13, many(link)},     {14, {Field::varint}}, {15, one(status)},     {16, {Field::fixed32}}};

  /// Export*ServiceRequest.
  struct Request {
    explicit Request(const Otlp& all, const Message& item)
        : scope_items{{1, one(all.scope)}, {2, many(item)}, {3, {Field::string}}},
          resource_items{{1, one(all.resource)}, {2, many(scope_items)}, {3, {Field::string}}},
          request{{1, many(resource_items)}} {}
    Request(const Request&) = delete;
    Request& operator=(const Request&) = delete;
    Message scope_items;
    Message resource_items;
    Message request;
  };
  Request logs{*this, log_record};
  Request metrics{*this, metric};
  Request spans{*this, span};
};

const Otlp& otlp() {
  static const Otlp all;
  return all;
}

std::uint64_t take_varint(std::string_view& rest) {
  std::uint64_t value = 0;
  for (unsigned shift = 0; shift < 70; shift += 7) {
    require(!rest.empty(), "a varint ends");
    const auto byte = static_cast<unsigned char>(rest.front());
    rest.remove_prefix(1);
    if (shift < 64) value |= std::uint64_t{byte & 0x7FU} << shift;
    if (byte < 0x80) return value;
  }
  require(false, "a varint has at most ten bytes");
  return 0;
}

std::string_view take_bytes(std::string_view& rest, std::uint64_t bytes) {
  require(bytes <= rest.size(), "a field is inside of its message");
  const std::string_view taken = rest.substr(0, bytes);
  rest.remove_prefix(bytes);
  return taken;
}

struct Value {
  std::uint64_t number = 0;
  std::string_view bytes{};
};
/// The values of one message, by field.
using Values = std::multimap<std::uint32_t, Value>;

/// Reads a message and all below it.
Values read(std::string_view bytes, const Message& message) {
  Values values;
  std::set<std::string_view> keys;
  while (!bytes.empty()) {
    const std::uint64_t tag = take_varint(bytes);
    const auto number = static_cast<std::uint32_t>(tag >> 3);
    const auto known = message.find(number);
    require(known != message.end(), "a field is one of its message");
    const Field& field = known->second;
    Value value;
    const auto expect = [&](unsigned wire_type) {
      require((tag & 7U) == wire_type, "a field has its wire type");
    };
    const auto little_endian = [&](std::size_t count) {
      for (const char byte : take_bytes(bytes, count)) {
        value.number = value.number >> 8 | std::uint64_t{static_cast<unsigned char>(byte)} << 56;
      }
      value.number >>= 8 * (8 - count);
    };
    switch (field.kind) {
      case Field::varint:
        expect(0);
        value.number = take_varint(bytes);
        break;
      case Field::fixed64:
        expect(1);
        little_endian(8);
        break;
      case Field::fixed32:
        expect(5);
        little_endian(4);
        break;
      default:
        expect(2);
        value.bytes = take_bytes(bytes, take_varint(bytes));
        break;
    }
    if (field.kind == Field::string) {
      require(simdjson::validate_utf8(value.bytes.data(), value.bytes.size()), "a string is UTF-8");
    }
    if (field.kind == Field::id8) {
      require(value.bytes.size() == 8 || value.bytes.empty(), "a span id has 8 bytes");
    }
    if (field.kind == Field::id16) {
      require(value.bytes.size() == 16 || value.bytes.empty(), "a trace id has 16 bytes");
    }
    if (field.nested != nullptr) {
      const Values nested = read(value.bytes, *field.nested);
      if (field.nested == &otlp().key_value && &message != &otlp().key_values) {
        const auto key = nested.find(1);
        require(key != nested.end() && keys.insert(key->second.bytes).second,
                "an attribute has a key of its own");
      }
    }
    require(field.repeated || !values.contains(number), "what is one is there once");
    values.emplace(number, value);
  }
  return values;
}

std::uint64_t sum_of_buckets(const Values& point, std::uint32_t field) {
  const auto found = point.find(field);
  if (found == point.end()) return 0;
  const Values buckets = read(found->second.bytes, otlp().buckets);
  const auto packed = buckets.find(2);
  if (packed == buckets.end()) return 0;
  std::uint64_t sum = 0;
  std::size_t count = 0;
  for (std::string_view rest = packed->second.bytes; !rest.empty(); ++count)
    sum += take_varint(rest);
  require(static_cast<std::int64_t>(count) <= otlp_buckets_max, "buckets are bounded");
  return sum;
}

/// The request that carries a payload, and as many items as that has.
void require_request(const Payload& payload, const Otlp::Request& messages) {
  const std::pair<std::string, std::string> attributes[] = {{"service.name", "fuzz"}};
  ByteBuffer body;
  append_otlp_request(payload, encode_otlp_resource(attributes), body);
  const Values request = read(body.view(), messages.request);
  require(request.size() == 1, "one resource");
  const Values of_resource = read(request.begin()->second.bytes, messages.resource_items);
  require(of_resource.count(2) == 1, "one scope");
  const Values of_scope = read(of_resource.find(2)->second.bytes, messages.scope_items);
  require(of_scope.count(2) == payload.items.size(), "every item is in the request");
}

// ---- Targets ----

SPILLWAY_FUZZ_TARGET(otlp_log) {
  Input input(bytes);
  const Log made(input);
  OtlpLogEncoder encoder;
  Payload payload = make_payload();
  for (int i = 0; i < 2; ++i) {  // The second one from what the encoder has kept.
    const std::size_t offset = payload.bytes.size();
    encoder.append(made.view(), made.bytes_max, payload.bytes);
    payload.end_item(offset, 1);
  }
  require(payload.item(payload.items[0]) == payload.item(payload.items[1]),
          "the same record is the same item");
  require_request(payload, otlp().logs);
}

SPILLWAY_FUZZ_TARGET(otlp_metric) {
  Input input(bytes);
  const Points made(input);
  OtlpMetricEncoder encoder;
  Payload payload = make_payload();
  for (const MetricPoint& point : made.points)
    encoder.encode(point, point.time_ms + 60'000, payload);
  require(payload.records() == made.measurements, "every measurement is in a point");
  require_request(payload, otlp().metrics);
  for (std::size_t i = 0; i < payload.items.size(); ++i) {
    std::string_view item = payload.item(payload.items[i]);
    take_varint(item);
    const Values metric = read(take_bytes(item, take_varint(item)), otlp().metric);
    const auto exponential = metric.find(10);
    if (exponential == metric.end()) continue;
    const Values data = read(exponential->second.bytes, otlp().exponential);
    const Values point = read(data.find(1)->second.bytes, otlp().exponential_point);
    const auto zeros = point.find(7);
    require(point.find(4)->second.number == (zeros == point.end() ? 0 : zeros->second.number) +
                                                sum_of_buckets(point, 8) + sum_of_buckets(point, 9),
            "buckets add up to the count");
  }
}

SPILLWAY_FUZZ_TARGET(otlp_span) {
  Input input(bytes);
  std::deque<std::string> texts;
  const ContextTexts context = take_context(input, texts);
  const std::size_t bytes_max = 4096 + input.take<std::uint16_t>();
  const bool names_annotations = input.flag();
  const std::vector<SpanView> spans = take_spans(input, texts, 1);
  OtlpSpanEncoder encoder(bytes_max, names_annotations);
  Payload payload = make_payload();
  encoder.encode(spans, context, payload);
  require(payload.items.size() == spans.size(), "every span is an item");
  for (const PayloadItem& item : payload.items) {
    require(item.bytes <= bytes_max, "a span is no larger than it may be");
  }
  require_request(payload, otlp().spans);
}

}  // namespace
}  // namespace spillway::fuzz
