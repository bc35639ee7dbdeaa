// SPDX-License-Identifier: Apache-2.0
//
// OTLP messages, read back by a parser that shares no code with the encoders. tests/integration
// reads them with OpenTelemetry's own Python package.
#include <cmath>
#include <limits>
#include <random>
#include <string>

#include <gtest/gtest.h>
#include <support/protobuf.hpp>
#include <support/records.hpp>
#include <support/seed.hpp>

#include <spillway/encoders/otlp.hpp>
#include <spillway/encoders/otlp_logs.hpp>
#include <spillway/encoders/otlp_metrics.hpp>
#include <spillway/encoders/otlp_traces.hpp>

namespace {

using namespace spillway::detail;
using namespace spillway::testing;
using spillway::Severity;
using spillway::Unit;
using Attributes = std::map<std::string, std::string>;

constexpr std::uint64_t trace_high = 0x6b00e3540f1e2d3c;
constexpr std::uint64_t trace_low = 0x4b5a69788796a5b4;

std::string id_bytes(std::uint64_t id) {
  std::string bytes;
  for (int shift = 56; shift >= 0; shift -= 8) bytes += static_cast<char>(id >> shift);
  return bytes;
}
const std::string trace_id_bytes = id_bytes(trace_high) + id_bytes(trace_low);

// ---- Requests ----

TEST(OtlpRequest, CarriesItemsUnderTheResourceAndScope) {
  Payload payload = make_payload();
  for (const char* const text : {"one", "two", "three"}) {
    const std::size_t offset = payload.bytes.size();
    protobuf::append_string_field(payload.bytes, otlp_item_field, text);
    payload.end_item(offset, 1);
  }
  payload.items.erase(payload.items.begin() + 1);  // As a split leaves gaps.
  const std::pair<std::string, std::string> attributes[] = {
      {"service.name", "orders"}, {"service.version", ""}, {"team", "caf\xE9"}};
  const std::string resource = encode_otlp_resource(attributes);
  ByteBuffer body;
  append_otlp_request(payload, resource, body);

  const ProtoMessage of_resource = ProtoMessage(body.view()).message(1);
  EXPECT_EQ(attributes_of(of_resource.message(1), 1),
            (Attributes{{"service.name", "s:orders"}, {"team", "s:caf\xEF\xBF\xBD"}}));
  const ProtoMessage of_scope = of_resource.message(2);
  EXPECT_EQ(of_scope.message(1).text(1), "spillway");
  EXPECT_EQ(of_scope.message(1).text(2), "0.1.0");
  ASSERT_EQ(of_scope.count(2), 2U);
  EXPECT_EQ(of_scope.all(2)[0].bytes, "one");
  EXPECT_EQ(of_scope.all(2)[1].bytes, "three");
  std::size_t items = 0;
  for (const PayloadItem& item : payload.items) items += item.bytes;
  EXPECT_LE(body.size(), items + otlp_request_overhead_bytes(resource));
}

TEST(OtlpRequest, WithoutItemsOrResourceIsStillOne) {
  ByteBuffer body;
  append_otlp_request(make_payload(), "", body);
  EXPECT_EQ(ProtoMessage(body.view()).message(1).message(2).count(2), 0U);
}

TEST(OtlpResponse, TellsHowManyWereRefusedAndWhy) {
  using namespace std::string_view_literals;
  const OtlpPartialSuccess some = read_otlp_response("\x0a\x08\x08\x03\x12\x04late"sv);
  EXPECT_EQ(some.rejected, 3);
  EXPECT_EQ(some.message, "late");
  EXPECT_EQ(read_otlp_response("").rejected, 0);
  EXPECT_EQ(read_otlp_response("{}").rejected, 0);
  EXPECT_EQ(read_otlp_response("\x0a\x00"sv).rejected, 0);
  EXPECT_EQ(read_otlp_response("\x0a\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"sv).rejected,
            0);                                                     // -1
  EXPECT_EQ(read_otlp_response("\x0a\x7f\x08\x03"sv).rejected, 0);  // Cut.
  EXPECT_EQ(read_otlp_status("\x08\x03\x12\x05wrong"sv), "wrong");
  EXPECT_EQ(read_otlp_status("<html>"), "");
}

// ---- Logs ----

const ContextTexts nobody{};
const ContextTexts somebody{"acme", "u-17", "r-1", {trace_high, trace_low}};

SiteInfo site_with(std::vector<SiteField> fields, Severity severity = Severity::info) {
  return {severity, "order placed", "src/orders.cpp", 42, std::move(fields)};
}

ProtoMessage encoded(const LogView& log, std::size_t bytes_max = 1'000'000) {
  OtlpLogEncoder encoder;
  ByteBuffer out;
  encoder.append(log, bytes_max, out);
  return otlp_item(out.view());
}

TEST(OtlpLog, CarriesEverythingOfARecord) {
  const SiteInfo site = site_with({{"order_id", ValueType::integer},
                                   {"stock", ValueType::unsigned_integer},
                                   {"total", ValueType::real},
                                   {"paid", ValueType::boolean},
                                   {"currency", ValueType::string}});
  const Packed values = Packed()
                            .number(std::int64_t{-17})
                            .number(std::uint64_t{7})
                            .number(9.5)
                            .boolean(true)
                            .string("EUR");
  const LogView log{&site, 1'795'222'800'123'456'789, 0x1a2b3c4d5e6f7081, &somebody,
                    values.bytes()};
  const ProtoMessage record = encoded(log);
  EXPECT_EQ(record.fixed64(1), 1'795'222'800'123'456'789U);
  EXPECT_EQ(record.fixed64(11), 1'795'222'800'123'456'789U);
  EXPECT_EQ(record.varint(2), 9U);
  EXPECT_EQ(record.text(3), "INFO");
  EXPECT_EQ(record.message(5).text(1), "order placed");
  EXPECT_EQ(record.text(9), trace_id_bytes);
  EXPECT_EQ(record.text(10), id_bytes(0x1a2b3c4d5e6f7081));
  EXPECT_EQ(attributes_of(record, 6), (Attributes{{"order_id", "i:-17"},
                                                  {"stock", "i:7"},
                                                  {"total", "d:9.500000"},
                                                  {"paid", "b:true"},
                                                  {"currency", "s:EUR"},
                                                  {"tenant", "s:acme"},
                                                  {"enduser.id", "s:u-17"},
                                                  {"request_id", "s:r-1"}}));
}

TEST(OtlpLog, SaysWhetherItsTraceIsSampled) {
  const SiteInfo site = site_with({});
  ContextTexts context = somebody;
  EXPECT_FALSE(encoded({&site, 1, 0, &context, {}}).has(8));
  context.trace_flags = trace_flag_sampled;
  EXPECT_EQ(encoded({&site, 1, 0, &context, {}}).fixed32(8), 1U);
  context.trace_id = {};
  EXPECT_FALSE(encoded({&site, 1, 0, &context, {}}).has(8)) << "flags of no trace";
}

TEST(OtlpLog, LeavesOutWhatThereIsNot) {
  const SiteInfo site = site_with({});
  const ProtoMessage record = encoded({&site, -5, 0, &nobody, {}});
  EXPECT_EQ(record.fixed64(1), 0U);  // Before 1970 there is no time.
  for (const int field : {6, 7, 8, 9, 10}) EXPECT_FALSE(record.has(field)) << field;
}

TEST(OtlpLog, SeveritiesHaveOpenTelemetrysNumbers) {
  const std::pair<Severity, std::uint64_t> numbers[] = {
      {Severity::trace, 1}, {Severity::debug, 5},  {Severity::info, 9},
      {Severity::warn, 13}, {Severity::error, 17}, {Severity::fatal, 21}};
  for (const auto& [severity, number] : numbers) {
    const SiteInfo site = site_with({}, severity);
    const ProtoMessage record = encoded({&site, 1, 0, &nobody, {}});
    EXPECT_EQ(record.varint(2), number);
    EXPECT_EQ(record.text(3), to_string(severity));
    const Attributes place = {{"code.file.path", "s:src/orders.cpp"}, {"code.line.number", "i:42"}};
    EXPECT_EQ(attributes_of(record, 6), severity >= Severity::warn ? place : Attributes());
  }
}

TEST(OtlpLog, IntegersPastTheSignedOnesAreText) {
  const SiteInfo site =
      site_with({{"a", ValueType::unsigned_integer}, {"b", ValueType::unsigned_integer}});
  const std::uint64_t last = std::numeric_limits<std::int64_t>::max();
  const Packed values = Packed().number(last).number(last + 1);
  EXPECT_EQ(attributes_of(encoded({&site, 1, 0, &nobody, values.bytes()}), 6),
            (Attributes{{"a", "i:9223372036854775807"}, {"b", "s:9223372036854775808"}}));
}

TEST(OtlpLog, KeysOfARecordDiffer) {
  const auto real = ValueType::boolean;
  const SiteInfo site = site_with({{"tenant", real}, {"a", real}, {"a", real}, {"a_2", real}});
  const Packed values = Packed().boolean(true).boolean(false).boolean(true).boolean(true);
  EXPECT_EQ(attributes_of(encoded({&site, 1, 0, &somebody, values.bytes()}), 6),
            (Attributes{{"field.tenant", "b:true"},
                        {"a", "b:false"},
                        {"a_2", "b:true"},
                        {"a_2_2", "b:true"},
                        {"tenant", "s:acme"},
                        {"enduser.id", "s:u-17"},
                        {"request_id", "s:r-1"}}));
}

TEST(OtlpLog, WhatIsTooLongIsCutAndSaysSo) {
  const SiteInfo site = site_with({{"a", ValueType::string}, {"b", ValueType::string}});
  for (const std::string& text : {std::string(5000, 'x'), std::string(5000, '\xFF')}) {
    const Packed values = Packed().string(text).string("short");
    const LogView log{&site, 1, 0, &somebody, values.bytes()};
    OtlpLogEncoder encoder;
    ByteBuffer whole;
    encoder.append(log, 1'000'000, whole);
    for (const std::size_t room : {std::size_t{1024}, whole.size() - 1, whole.size()}) {
      ByteBuffer out;
      encoder.append(log, room, out);
      EXPECT_LE(out.size(), room);
      Attributes attributes = attributes_of(otlp_item(out.view()), 6);
      EXPECT_EQ(attributes.count("truncated"), room < whole.size() ? 1U : 0U);
      EXPECT_EQ(attributes["b"], "s:short");
      EXPECT_GT(attributes["a"].size(), 100U);
    }
  }
}

// Any record reads back to the same values.
TEST(OtlpLog, RandomRecordsComeBack) {
  const std::uint64_t seed = seed_or(81);
  SCOPED_TRACE(seed_note(seed));
  std::mt19937_64 random(seed);
  for (int round = 0; round < 500; ++round) {
    std::vector<SiteField> fields;
    Packed values;
    Attributes expected;
    for (std::uint64_t n = random() % 17; n > 0; --n) {
      const std::string key = "key" + std::to_string(n) + std::string(random() % 200, 'k');
      // Every length of a varint.
      const std::uint64_t bits = random() >> (random() % 64);
      switch (random() % 4) {
        case 0:
          fields.push_back({key, ValueType::integer});
          values.number(bits);
          expected[key] = "i:" + std::to_string(static_cast<std::int64_t>(bits));
          break;
        case 1:
          fields.push_back({key, ValueType::real});
          values.number(static_cast<double>(bits));
          expected[key] = "d:" + std::to_string(static_cast<double>(bits));
          break;
        case 2:
          fields.push_back({key, ValueType::boolean});
          values.boolean(bits % 2 == 0);
          expected[key] = bits % 2 == 0 ? "b:true" : "b:false";
          break;
        default: {
          std::string text(random() % (round % 10 == 0 ? 40'000 : 300), '\0');
          for (char& c : text) c = static_cast<char>(random() % 128);
          fields.push_back({key, ValueType::string});
          values.string(text);
          expected[key] = "s:" + text;
        }
      }
    }
    const SiteInfo site = site_with(std::move(fields));
    const ProtoMessage record = encoded({&site, 1, random(), &nobody, values.bytes()});
    ASSERT_TRUE(attributes_of(record, 6) == expected) << round;
  }
}

// ---- Metrics ----

ProtoMessage encoded(const MetricPoint& point, std::int64_t end_ms = test_time_ms + 10'000) {
  OtlpMetricEncoder encoder;
  Payload payload = make_payload();
  encoder.encode(point, end_ms, payload);
  EXPECT_EQ(payload.items.size(), 1U);
  EXPECT_EQ(payload.items.front().records, point.count);
  return otlp_item(payload.bytes.view());
}

TEST(OtlpMetric, CounterIsAMonotonicDeltaSum) {
  Points points({{"Route", "/a"}, {"Service", "orders"}});
  points.counter("Requests", 1234.5, 77);
  const ProtoMessage metric = encoded(points.points[0]);
  EXPECT_EQ(metric.text(1), "Requests");
  EXPECT_EQ(metric.text(3), "1");
  const ProtoMessage sum = metric.message(7);
  EXPECT_EQ(sum.varint(2), 1U);  // Delta.
  EXPECT_EQ(sum.varint(3), 1U);  // Monotonic.
  const ProtoMessage point = sum.message(1);
  EXPECT_EQ(point.fixed64(2), static_cast<std::uint64_t>(test_time_ms) * 1'000'000);
  EXPECT_EQ(point.fixed64(3), static_cast<std::uint64_t>(test_time_ms + 10'000) * 1'000'000);
  EXPECT_EQ(point.real(4), 1234.5);
  EXPECT_EQ(attributes_of(point, 7), (Attributes{{"Route", "s:/a"}, {"Service", "s:orders"}}));
}

TEST(OtlpMetric, GaugeIsItsLastValue) {
  Points points;
  points.gauge("Load", 1, 9, 4.25, 30, 6);
  const ProtoMessage metric = encoded(points.points[0]);
  EXPECT_EQ(metric.text(3), "%");
  EXPECT_EQ(metric.message(5).message(1).real(4), 4.25);
}

TEST(OtlpMetric, AnIntervalDoesNotEndBeforeItBegan) {
  Points points;
  points.counter("Requests", 1);
  const ProtoMessage point = encoded(points.points[0], test_time_ms - 5000).message(7).message(1);
  EXPECT_EQ(point.fixed64(2), point.fixed64(3));
}

TEST(OtlpMetric, EveryUnitHasItsName) {
  EXPECT_EQ(ucum_unit(Unit::microseconds), "us");
  EXPECT_EQ(ucum_unit(Unit::terabytes), "TBy");
  EXPECT_EQ(ucum_unit(Unit::bits_per_second), "bit/s");
  EXPECT_EQ(ucum_unit(Unit::count_per_second), "1/s");
  Points points;
  points.counter("Plain", 1, 1, Unit::none);
  EXPECT_FALSE(encoded(points.points[0]).has(3));
  for (std::size_t i = 0; i + 1 < spillway::unit_count; ++i) {
    EXPECT_NE(ucum_unit(static_cast<Unit>(i)), "") << i;
  }
}

TEST(OtlpMetric, ExemplarsCarryTheirTrace) {
  Points points;
  points.histogram("Latency", {{1, 5}, {100, 3}});
  const Exemplar exemplars[] = {
      {100.5, 7'000'000'001, {0x0102030405060708, 0x090a0b0c0d0e0f10}, 0xf1}, {99, -5, {1, 2}, 0}};
  points.points[0].exemplars = exemplars;
  const ProtoMessage point = encoded(points.points[0]).message(10).message(1);
  const auto found = point.messages(11);
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0].fixed64(2), 7'000'000'001U);
  EXPECT_EQ(found[0].real(3), 100.5);
  EXPECT_EQ(found[0].text(4), std::string("\0\0\0\0\0\0\0\xf1", 8));
  EXPECT_EQ(found[0].text(5), std::string("\1\2\3\4\5\6\7\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10"));
  EXPECT_EQ(found[1].fixed64(2), 0U);
  EXPECT_FALSE(found[1].has(4));
  EXPECT_EQ(point.real(13), 100);
}

/// What the buckets of an exponential histogram's data point say.
struct Decoded {
  std::uint64_t count = 0;  // in buckets
  std::size_t buckets = 0;
  double base = 0;
  std::map<double, std::uint64_t> middles;
};
Decoded decode(const ProtoMessage& point) {
  Decoded made;
  made.base = std::exp2(std::exp2(-static_cast<double>(point.sint(6))));
  made.count = point.fixed64(7);
  if (made.count != 0) made.middles[0] = made.count;
  for (const int field : {8, 9}) {
    if (!point.has(field)) continue;
    const ProtoMessage buckets = point.message(field);
    std::int64_t index = buckets.sint(1);
    for (const std::uint64_t count : buckets.packed(2)) {
      const double middle = std::pow(made.base, static_cast<double>(index) + 0.5);
      if (count != 0) made.middles[field == 8 ? middle : -middle] += count;
      made.count += count;
      ++made.buckets;
      ++index;
    }
  }
  return made;
}

TEST(OtlpMetric, HistogramKeepsItsFiguresAndPutsValuesWhereTheyBelong) {
  Points points;
  points.histogram("Latency", {{-1000, 2}, {-1.5, 1}, {0, 4}, {0.001, 3}, {1, 5}, {100, 300}});
  const ProtoMessage metric = encoded(points.points[0]);
  EXPECT_EQ(metric.text(3), "us");
  const ProtoMessage histogram = metric.message(10);
  EXPECT_EQ(histogram.varint(2), 1U);  // Delta.
  const ProtoMessage point = histogram.message(1);
  EXPECT_EQ(point.fixed64(4), 315U);
  EXPECT_EQ(point.real(5), points.points[0].sum);
  EXPECT_EQ(point.real(12), -1000);
  EXPECT_EQ(point.real(13), 100);
  EXPECT_EQ(point.fixed64(7), 4U);
  const Decoded decoded = decode(point);
  EXPECT_EQ(decoded.count, 315U);
  ASSERT_EQ(decoded.middles.size(), 6U);
  auto at = decoded.middles.begin();
  for (const ValueCount& one : points.points[0].values) {
    EXPECT_EQ(at->second, static_cast<std::uint64_t>(one.count)) << one.value;
    EXPECT_NEAR(at->first, one.value, std::fabs(one.value) * (decoded.base - 1));
    ++at;
  }
}

TEST(OtlpMetric, TheScaleIsTheFinestThatTheRangeAllows) {
  const auto scale = [](std::vector<ValueCount> values) {
    Points points;
    points.histogram("H", std::move(values));
    const ProtoMessage point = encoded(points.points[0]).message(10).message(1);
    const Decoded decoded = decode(point);
    EXPECT_EQ(decoded.count, points.points[0].count);
    EXPECT_LE(decoded.buckets, static_cast<std::size_t>(otlp_buckets_max));
    return point.sint(6);
  };
  EXPECT_EQ(scale({{7, 1}}), 8);
  EXPECT_EQ(scale({{1.001, 1}, {65536, 1}}), 8);  // 4096 buckets.
  EXPECT_EQ(scale({{1, 1}, {65536, 1}}), 7);      // One more: 1 is the end of the one below.
  EXPECT_EQ(scale({{1e-3, 1}, {1e6, 1}}), 7);
  EXPECT_EQ(scale({{0x1p-360, 1}, {0x1p360, 1}}), 2);
  EXPECT_EQ(scale({{-0x1p360, 1}, {-0x1p-360, 1}, {0x1p-360, 1}, {0x1p360, 1}}), 1);
}

// Every value lies in the bucket that it is put in, ends included, at every scale.
TEST(OtlpMetric, BucketsHoldTheirValues) {
  EXPECT_EQ(otlp_bucket_of(1), -1);
  EXPECT_EQ(otlp_bucket_of(std::nextafter(1.0, 2)), 0);
  EXPECT_EQ(otlp_bucket_of(2), 255);
  EXPECT_EQ(otlp_bucket_of(std::nextafter(2.0, 0)), 255);
  EXPECT_EQ(otlp_bucket_of(0.5), -257);
  const std::uint64_t seed = seed_or(7);
  SCOPED_TRACE(seed_note(seed));
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<double> exponents(-360, 360);
  for (int i = 0; i < 200'000; ++i) {
    const double value = std::exp2(exponents(random));
    const std::int32_t index = otlp_bucket_of(value);
    for (int scale = otlp_scale_max; scale >= 0; --scale) {
      const std::int32_t at = index >> (otlp_scale_max - scale);
      const double place = std::log2(value) * std::exp2(scale);
      ASSERT_GE(place, at - 1e-9) << value;
      ASSERT_LE(place, at + 1 + 1e-9) << value;
    }
  }
}

// ---- Spans ----

SpanView make_span(std::string_view name, std::uint64_t id, std::uint64_t parent,
                   std::uint64_t segment, std::uint16_t flags = 0) {
  SpanView span{};
  span.name = name;
  span.start_ns = 1'795'222'800'123'456'789;
  span.end_ns = span.start_ns + 1500;
  span.body.span_id = id;
  span.body.parent_id = parent;
  span.body.segment_id = segment;
  span.body.trace_id = {trace_high, trace_low};
  span.body.flags = flags;
  return span;
}

std::vector<ProtoMessage> encoded(const std::vector<SpanView>& spans,
                                  const ContextTexts& context = nobody,
                                  std::size_t bytes_max = 200'000) {
  OtlpSpanEncoder encoder(bytes_max);
  Payload payload = make_payload();
  encoder.encode(spans, context, payload);
  std::vector<ProtoMessage> made;
  for (const std::string& item : items_of(payload)) {
    EXPECT_LE(item.size(), bytes_max);
    made.push_back(otlp_item(item));
  }
  return made;
}

TEST(OtlpSpan, CarriesEverythingOfASpan) {
  SpanView span = make_span("charge-card", 0xAB, 0xCD, 0xEF, span_remote);
  const Packed entries =
      Packed()
          .entry(intern_name("order_id"), EntryClass::annotation, ValueType::integer)
          .number(std::int64_t{-3})
          .entry(intern_name("note"), EntryClass::metadata, ValueType::string)
          .string("text")
          .entry(intern_name("vip"), EntryClass::annotation, ValueType::boolean)
          .number(std::uint64_t{1})
          .entry(intern_name("total"), EntryClass::annotation, ValueType::real)
          .number(2.5);
  span.entries = entries.bytes();
  const ProtoMessage message = encoded({span}, somebody).front();
  EXPECT_EQ(message.text(1), trace_id_bytes);
  EXPECT_EQ(message.text(2), id_bytes(0xAB));
  EXPECT_EQ(message.text(4), id_bytes(0xCD));
  EXPECT_EQ(message.text(5), "charge-card");
  EXPECT_EQ(message.varint(6), 3U);  // CLIENT.
  EXPECT_EQ(message.fixed64(7), 1'795'222'800'123'456'789U);
  EXPECT_EQ(message.fixed64(8), 1'795'222'800'123'458'289U);
  EXPECT_EQ(message.fixed32(16), 0x101U);
  EXPECT_FALSE(message.has(15));
  EXPECT_FALSE(message.has(10));
  EXPECT_FALSE(message.has(3));
  EXPECT_EQ(attributes_of(message, 9), (Attributes{{"order_id", "i:-3"},
                                                   {"note", "s:text"},
                                                   {"vip", "b:true"},
                                                   {"total", "d:2.500000"},
                                                   {"tenant", "s:acme"},
                                                   {"enduser.id", "s:u-17"},
                                                   {"request_id", "s:r-1"}}));
}

TEST(OtlpSpan, LinksAndBlocksHaveTheirPlaces) {
  SpanView span = make_span("charge-card", 1, 0, 1);
  const LinkBody link{{0x1112131415161718, 0x2122232425262728}, 0x3132333435363738};
  const auto number = [](const char* name, EntryClass entry_class) {
    return std::pair(intern_name(name), entry_class);
  };
  Packed entries;
  entries.entry(intern_name("link"), EntryClass::link, ValueType::string)
      .string({reinterpret_cast<const char*>(&link), sizeof link});
  for (const auto& [name, entry_class] :
       {number("key", EntryClass::link_attribute), number("path", EntryClass::frame),
        number("cache", EntryClass::metadata_namespace), number("paths", EntryClass::cause),
        number("type", EntryClass::exception), number("operation", EntryClass::aws),
        number("sanitized_query", EntryClass::sql)}) {
    entries.entry(name, entry_class, ValueType::string).string("x");
  }
  entries.entry(intern_name("precursor"), EntryClass::precursor, ValueType::unsigned_integer)
      .number(std::uint64_t{5});
  span.entries = entries.bytes();
  const ProtoMessage message = encoded({span}).front();
  ASSERT_EQ(message.messages(13).size(), 1U);
  EXPECT_EQ(message.message(13).text(1),
            "\x11\x12\x13\x14\x15\x16\x17\x18\x21\x22\x23\x24\x25\x26\x27\x28");
  EXPECT_EQ(message.message(13).text(2), id_bytes(0x3132333435363738));
  EXPECT_EQ(attributes_of(message.message(13), 4), (Attributes{{"key", "s:x"}}));
  EXPECT_EQ(attributes_of(message, 9),
            (Attributes{{"rpc.method", "s:x"}, {"db.query.text", "s:x"}}));
  EXPECT_FALSE(message.has(11)) << "an exception's type without its beginning is none";
}

void append_link(Packed& entries, std::uint64_t span_id) {
  const LinkBody link{{1, 2}, span_id};
  entries.entry(intern_name("link"), EntryClass::link, ValueType::string)
      .string({reinterpret_cast<const char*>(&link), sizeof link});
}
void append_link_attribute(Packed& entries, const std::string& key, std::string_view value) {
  entries.entry(intern_name(key), EntryClass::link_attribute, ValueType::string).string(value);
}

TEST(OtlpSpan, ALinkKeepsItsOwnAttributes) {
  SpanView span = make_span("s", 1, 0, 1);
  Packed entries;
  append_link_attribute(entries, "of_none", "x");
  append_link(entries, 7);
  append_link_attribute(entries, "queue", "q-1");
  append_link_attribute(entries, "queue", "again");
  append_link(entries, 8);
  append_link_attribute(entries, "queue", "q-2");
  span.entries = entries.bytes();
  const auto links = encoded({span}).front().messages(13);
  ASSERT_EQ(links.size(), 2U);
  EXPECT_EQ(attributes_of(links[0], 4), (Attributes{{"queue", "s:q-1"}}));
  EXPECT_EQ(attributes_of(links[1], 4), (Attributes{{"queue", "s:q-2"}}));
  EXPECT_EQ(links[1].text(2), id_bytes(8));
}

TEST(OtlpSpan, LinksHaveBounds) {
  SpanView span = make_span("s", 1, 0, 1);
  Packed entries;
  for (std::uint64_t i = 0; i < 130; ++i) append_link(entries, i);
  span.entries = entries.bytes();
  const ProtoMessage many = encoded({span}).front();
  EXPECT_EQ(many.count(13), 128U);
  EXPECT_EQ(many.varint(14), 2U);

  Packed long_one;
  append_link(long_one, 1);
  append_link_attribute(long_one, "small", "x");
  append_link_attribute(long_one, "big", std::string(3000, 'x'));
  span.entries = long_one.bytes();
  const ProtoMessage cut = encoded({span}, nobody, 4096).front().message(13);
  EXPECT_EQ(attributes_of(cut, 4), (Attributes{{"small", "s:x"}}));
  EXPECT_EQ(cut.varint(5), 1U);
}

/// The texts of an attribute that is an array; a failure where there is none.
std::vector<std::string> array_of(const ProtoMessage& span, const std::string& key) {
  std::vector<std::string> texts;
  bool found = false;
  for (const ProtoMessage& pair : span.messages(9)) {
    if (pair.text(1) != key) continue;
    EXPECT_FALSE(std::exchange(found, true)) << "twice: " << key;
    for (const ProtoMessage& value : pair.message(2).message(5).messages(1)) {
      texts.push_back(value.text(1));
    }
  }
  EXPECT_TRUE(found) << key;
  return texts;
}

TEST(OtlpSpan, NamesOfTablesAndResourcesAreArrays) {
  SpanView span = make_span("BatchGetItem", 1, 0, 2, span_aws);
  Packed entries;
  for (const auto& [name, value] :
       {std::pair("table_name", "one"), std::pair("table_names", "one"),
        std::pair("resource_names", "r-1"), std::pair("table_names", "two"),
        std::pair("operation", "BatchGetItem")}) {
    entries.entry(intern_name(name), EntryClass::aws, ValueType::string).string(value);
  }
  span.entries = entries.bytes();
  const ProtoMessage message = encoded({span}).front();
  EXPECT_EQ(array_of(message, "aws.dynamodb.table_names"),
            (std::vector<std::string>{"one", "two"}));
  EXPECT_EQ(array_of(message, "aws.resource_names"), (std::vector<std::string>{"r-1"}));
  EXPECT_EQ(message.count(9), 4U) << "with rpc.method and rpc.system";

  // An array that does not fit is left out like any other attribute.
  Packed large;
  large.entry(intern_name("table_names"), EntryClass::aws, ValueType::string)
      .string(std::string(5000, 't'));
  span.entries = large.bytes();
  const ProtoMessage cut = encoded({span}, nobody, 4096).front();
  EXPECT_EQ(attributes_of(cut, 9), (Attributes{{"rpc.system", "s:aws-api"}}));
  EXPECT_EQ(cut.varint(10), 1U);
}

TEST(OtlpSpan, BlocksHaveTheirNamespaces) {
  SpanView span = make_span("SELECT", 1, 0, 2);
  Packed entries;
  for (const char* const name :
       {"connection_string", "database_version", "driver_version", "preparation"}) {
    entries.entry(intern_name(name), EntryClass::sql, ValueType::string).string(name);
  }
  entries.entry(intern_name("traced"), EntryClass::http_request, ValueType::boolean)
      .number(std::uint64_t{1});
  span.entries = entries.bytes();
  EXPECT_EQ(attributes_of(encoded({span}).front(), 9),
            (Attributes{{"db.connection_string", "s:connection_string"},
                        {"db.system.version", "s:database_version"},
                        {"db.driver.version", "s:driver_version"},
                        {"db.preparation", "s:preparation"},
                        {"http.request.traced", "b:true"}}));
}

TEST(OtlpSpan, MetadataOfTwoNamespacesDoesNotMix) {
  SpanView span = make_span("s", 1, 0, 1);
  Packed entries;
  const auto metadata = [&](const char* name_space, std::int64_t value) {
    if (name_space != nullptr) {
      entries.entry(intern_name(name_space), EntryClass::metadata_namespace, ValueType::boolean)
          .number(std::uint64_t{1});
    }
    entries.entry(intern_name("hits"), EntryClass::metadata, ValueType::integer).number(value);
  };
  metadata("cache", 1);
  metadata("index", 2);
  metadata(nullptr, 3);  // A namespace holds for one entry.
  metadata("cache", 4);
  span.entries = entries.bytes();
  const Attributes expected{{"cache.hits", "i:4"}, {"index.hits", "i:2"}, {"hits", "i:3"}};
  EXPECT_EQ(attributes_of(encoded({span}).front(), 9), expected);
}

TEST(OtlpSpan, AnnotationsAreNamedForXray) {
  SpanView span = make_span("s", 1, 0, 1);
  const Packed entries =
      Packed()
          .entry(intern_name("order_id"), EntryClass::annotation, ValueType::integer)
          .number(std::int64_t{1})
          .entry(intern_name("note"), EntryClass::metadata, ValueType::integer)
          .number(std::int64_t{2})
          .entry(intern_name("order_id"), EntryClass::annotation, ValueType::integer)
          .number(std::int64_t{3})
          .entry(intern_name("vip"), EntryClass::annotation, ValueType::integer)
          .number(std::int64_t{4});
  span.entries = entries.bytes();
  OtlpSpanEncoder encoder(200'000, true);
  Payload payload = make_payload();
  encoder.encode(std::vector<SpanView>{span, make_span("t", 2, 0, 2)}, nobody, payload);
  const auto items = items_of(payload);
  EXPECT_EQ(array_of(otlp_item(items.at(0)), "aws.xray.annotations"),
            (std::vector<std::string>{"order_id", "vip"}));
  EXPECT_FALSE(otlp_item(items.at(1)).has(9)) << "a span without annotations names none";
}

// ---- Exceptions ----

/// An exception's entries as Span writes them.
void append_exception(Packed& entries, std::uint64_t id, std::string_view type,
                      std::string_view message, std::uint64_t cause = 0) {
  const auto text = [&](const char* name, std::string_view value) {
    if (value.empty()) return;
    entries.entry(intern_name(name), EntryClass::exception, ValueType::string).string(value);
  };
  entries.entry(intern_name("id"), EntryClass::exception, ValueType::unsigned_integer).number(id);
  text("type", type);
  text("message", message);
  if (cause == 0) return;
  entries.entry(intern_name("cause"), EntryClass::exception, ValueType::unsigned_integer)
      .number(cause);
}
void append_frame(Packed& entries, std::string_view path, std::uint64_t line,
                  std::string_view label) {
  entries.entry(intern_name("path"), EntryClass::frame, ValueType::string).string(path);
  if (line != 0) {
    entries.entry(intern_name("line"), EntryClass::frame, ValueType::unsigned_integer).number(line);
  }
  if (!label.empty()) {
    entries.entry(intern_name("label"), EntryClass::frame, ValueType::string).string(label);
  }
}
ProtoMessage failed_span(const Packed& entries, std::size_t bytes_max = 200'000) {
  SpanView span = make_span("s", 1, 0, 1, span_fault);
  span.entries = entries.bytes();
  return encoded({span}, nobody, bytes_max).front();
}

TEST(OtlpException, IsAnEventWithItsStackAndWhatCausedIt) {
  Packed entries;
  append_exception(entries, 5, "shop::Refused", "order 17", 6);
  append_frame(entries, "pay.cpp", 32, "shop::pay(int)");
  append_frame(entries, "libshop.so", 0, "");
  entries.entry(intern_name("truncated"), EntryClass::exception, ValueType::unsigned_integer)
      .number(std::uint64_t{12});
  append_exception(entries, 6, "std::system_error", "connection reset");
  append_exception(entries, 7, "std::bad_alloc", "");
  const ProtoMessage message = failed_span(entries);
  const auto events = message.messages(11);
  ASSERT_EQ(events.size(), 2U);
  EXPECT_EQ(events[0].text(2), "exception");
  EXPECT_EQ(events[0].fixed64(1), message.fixed64(8)) << "the end of the span";
  EXPECT_EQ(attributes_of(events[0], 3),
            (Attributes{{"exception.type", "s:shop::Refused"},
                        {"exception.message", "s:order 17"},
                        {"exception.stacktrace",
                         "s:shop::Refused: order 17\n"
                         "\tat shop::pay(int) (pay.cpp:32)\n"
                         "\tat ? (libshop.so)\n"
                         "\t... 12 more\n"
                         "Caused by: std::system_error: connection reset"}}));
  EXPECT_EQ(attributes_of(events[1], 3), (Attributes{{"exception.type", "s:std::bad_alloc"}}));
  EXPECT_EQ(message.message(15).varint(3), 2U);
  EXPECT_EQ(message.message(15).text(2), "std::bad_alloc");
  EXPECT_EQ(attributes_of(message, 9), (Attributes{{"error.type", "s:std::bad_alloc"}}));
}

TEST(OtlpException, TheCauseMayBeRecordedFirst) {
  Packed entries;
  append_exception(entries, 6, "inner", "a");
  append_exception(entries, 5, "outer", "b", 6);
  const ProtoMessage message = failed_span(entries);
  ASSERT_EQ(message.count(11), 1U);
  EXPECT_EQ(attributes_of(message.message(11), 3)["exception.stacktrace"],
            "s:outer: b\nCaused by: inner: a");
  EXPECT_EQ(message.message(15).text(2), "outer: b");
}

TEST(OtlpException, CausesInACircleOrElsewhereEnd) {
  Packed circle;
  append_exception(circle, 1, "a", "", 2);
  append_exception(circle, 2, "b", "", 1);
  append_exception(circle, 3, "c", "", 3);
  append_exception(circle, 4, "d", "", 99);  // Of another span.
  const auto events = failed_span(circle).messages(11);
  ASSERT_EQ(events.size(), 4U);
  EXPECT_TRUE(attributes_of(events[0], 3)["exception.stacktrace"].starts_with(
      "s:a\nCaused by: b\nCaused by: a"));
  EXPECT_EQ(attributes_of(events[3], 3), (Attributes{{"exception.type", "s:d"}}));
}

TEST(OtlpException, HasBounds) {
  Packed many;
  for (std::uint64_t id = 1; id <= 130; ++id) append_exception(many, id, "t", "");
  const ProtoMessage message = failed_span(many);
  EXPECT_EQ(message.count(11), 128U);
  EXPECT_EQ(message.varint(12), 2U);

  // A stack that does not fit is left out; then the message's event.
  Packed deep;
  append_exception(deep, 1, "t", "m");
  for (int i = 0; i < 32; ++i) append_frame(deep, std::string(100, 'p'), 1, "f()");
  append_exception(deep, 2, "t", std::string(3000, 'm'));
  const ProtoMessage cut = failed_span(deep, 4096);
  ASSERT_EQ(cut.count(11), 1U);
  EXPECT_EQ(attributes_of(cut.message(11), 3),
            (Attributes{{"exception.type", "s:t"}, {"exception.message", "s:m"}}));
  EXPECT_EQ(cut.varint(12), 1U);
  EXPECT_LE(cut.message(15).text(2).size(), 1024U);
}

TEST(OtlpException, WithoutATypeIsUnknownAndTheNextSpanKnowsNothingOfIt) {
  Packed entries;
  append_exception(entries, 1, "", "only a message");
  SpanView failed = make_span("s", 1, 0, 1, span_fault);
  failed.entries = entries.bytes();
  const auto spans = encoded({failed, make_span("t", 2, 0, 2, span_fault)});
  EXPECT_EQ(
      attributes_of(spans[0].message(11), 3),
      (Attributes{{"exception.type", "s:unknown"}, {"exception.message", "s:only a message"}}));
  EXPECT_EQ(spans[0].message(15).text(2), "only a message");
  EXPECT_EQ(attributes_of(spans[0], 9)["error.type"], "s:fault");
  EXPECT_FALSE(spans[1].has(11));
  EXPECT_FALSE(spans[1].message(15).has(2));
}

TEST(OtlpException, DamagedEntriesLeadNowhere) {
  Packed entries;
  append_exception(entries, 1, "type", "message", 2);
  append_frame(entries, "path", 3, "label");
  append_exception(entries, 2, "type", "message");
  for (std::size_t size = entries.bytes().size(); size-- > 0;) {
    Packed cut = entries;
    cut.cut(size);
    failed_span(cut);
  }
}

TEST(OtlpException, HasTheTimeItWasRecordedAt) {
  const SpanView span = make_span("s", 1, 0, 1, span_fault);
  const auto append_time = [](Packed& entries, std::int64_t time_ns) {
    entries.entry(intern_name("time"), EntryClass::exception, ValueType::integer).number(time_ns);
  };
  Packed entries;
  append_exception(entries, 5, "inside", "");
  append_time(entries, span.start_ns + 700);
  append_exception(entries, 6, "before, by the wall clock", "");
  append_time(entries, span.start_ns - 1);
  append_exception(entries, 7, "behind", "");
  append_time(entries, span.end_ns + 1);
  append_exception(entries, 8, "of a record without it", "");
  const auto events = failed_span(entries).messages(11);
  ASSERT_EQ(events.size(), 4U);
  const auto start = static_cast<std::uint64_t>(span.start_ns);
  const auto end = static_cast<std::uint64_t>(span.end_ns);
  EXPECT_EQ(events[0].fixed64(1), start + 700);
  EXPECT_EQ(events[1].fixed64(1), start);
  EXPECT_EQ(events[2].fixed64(1), end);
  EXPECT_EQ(events[3].fixed64(1), end);
}

TEST(OtlpSpan, AllSpansHaveTheirTracesState) {
  ContextTexts context = somebody;
  context.trace_state = "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE";
  for (const ProtoMessage& span :
       encoded({make_span("root", 1, 0, 1), make_span("child", 2, 1, 1)}, context)) {
    EXPECT_EQ(span.text(3), context.trace_state);
  }
}

TEST(OtlpSpan, KindsAndParents) {
  const auto spans = encoded({make_span("root", 1, 0, 1), make_span("caller's", 2, 9, 2),
                              make_span("inner", 3, 1, 1), make_span("aws", 4, 1, 1, span_aws)});
  ASSERT_EQ(spans.size(), 4U);
  EXPECT_FALSE(spans[0].has(4));
  const std::uint64_t kinds[] = {2, 2, 1, 3};
  const std::uint64_t flags[] = {0x101, 0x301, 0x101, 0x101};  // The second's parent is elsewhere.
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(spans[i].varint(6), kinds[i]) << i;
    EXPECT_EQ(spans[i].fixed32(16), flags[i]) << i;
  }
  EXPECT_EQ(attributes_of(spans[3], 9), (Attributes{{"rpc.system", "s:aws-api"}}));
}

TEST(OtlpSpan, HttpHasTheConventionsNames) {
  SpanView span = make_span("GET /", 1, 0, 1);
  span.body.http_status = 204;
  const auto request = EntryClass::http_request;
  const Packed entries =
      Packed()
          .entry(intern_name("method"), request, ValueType::string)
          .string("GET")
          .entry(intern_name("url"), request, ValueType::string)
          .string("https://shop/orders")
          .entry(intern_name("user_agent"), request, ValueType::string)
          .string("wrk")
          .entry(intern_name("client_ip"), request, ValueType::string)
          .string("10.0.0.1")
          .entry(intern_name("x_forwarded_for"), request, ValueType::boolean)
          .number(std::uint64_t{1})
          .entry(intern_name("content_length"), EntryClass::http_response, ValueType::integer)
          .number(std::int64_t{512})
          .entry(intern_name("method"), EntryClass::annotation, ValueType::string)
          .string("mine");
  span.entries = entries.bytes();
  EXPECT_EQ(attributes_of(encoded({span}).front(), 9),
            (Attributes{{"http.request.method", "s:GET"},
                        {"url.full", "s:https://shop/orders"},
                        {"user_agent.original", "s:wrk"},
                        {"client.address", "s:10.0.0.1"},
                        {"http.request.x_forwarded_for", "b:true"},
                        {"http.response.body.size", "i:512"},
                        {"http.response.status_code", "i:204"},
                        {"method", "s:mine"}}));
}

TEST(OtlpSpan, FailuresAreTheStatus) {
  struct Case {
    bool segment;
    std::uint16_t flags;
    std::uint16_t http_status;
    bool failed;
    const char* error_type;
  };
  for (const Case& one :
       {Case{true, 0, 200, false, ""}, Case{true, span_error, 404, false, ""},
        Case{false, span_error, 404, true, ""}, Case{true, span_fault, 503, true, ""},
        Case{true, span_error, 0, true, "s:error"},
        Case{true, span_error | span_throttle, 0, true, "s:throttle"},
        Case{false, span_fault | span_error, 0, true, "s:fault"}}) {
    SpanView span = make_span("s", 1, 0, one.segment ? 1 : 2, one.flags);
    span.body.http_status = one.http_status;
    const ProtoMessage message = encoded({span}).front();
    EXPECT_EQ(message.has(15), one.failed) << one.flags << " " << one.http_status;
    if (one.failed) {
      EXPECT_EQ(message.message(15).varint(3), 2U);
    }
    EXPECT_EQ(attributes_of(message, 9)["error.type"], one.error_type);
  }
}

TEST(OtlpSpan, OfSeveralValuesForAKeyTheLastOneStands) {
  SpanView span = make_span("s", 1, 0, 1);
  span.body.http_status = 200;
  const Packed entries =
      Packed()
          .entry(intern_name("k"), EntryClass::annotation, ValueType::integer)
          .number(std::int64_t{1})
          .entry(intern_name("k"), EntryClass::metadata, ValueType::string)
          .string("last")
          .entry(intern_name("tenant"), EntryClass::annotation, ValueType::string)
          .string("mine")
          .entry(intern_name("http.response.status_code"), EntryClass::annotation,
                 ValueType::integer)
          .number(std::int64_t{299});
  span.entries = entries.bytes();
  // The second span knows nothing of the first one's keys.
  const auto spans = encoded({span, make_span("t", 2, 0, 2)}, {"acme", "", "", {}});
  EXPECT_EQ(
      attributes_of(spans[0], 9),
      (Attributes{{"k", "s:last"}, {"tenant", "s:mine"}, {"http.response.status_code", "i:299"}}));
  EXPECT_EQ(attributes_of(spans[1], 9), (Attributes{{"tenant", "s:acme"}}));
}

TEST(OtlpSpan, WhatIsTooMuchIsLeftOutAndCounted) {
  SpanView span = make_span("s", 1, 0, 1, span_cut);
  Packed entries;
  for (int i = 0; i < 10; ++i) {
    entries.entry(intern_name("big" + std::to_string(i)), EntryClass::metadata, ValueType::string)
        .string(std::string(1000, 'x'));
  }
  entries.entry(intern_name("small"), EntryClass::annotation, ValueType::boolean)
      .number(std::uint64_t{1});
  span.entries = entries.bytes();
  const ProtoMessage message = encoded({span}, nobody, 4096).front();
  const Attributes attributes = attributes_of(message, 9);
  EXPECT_EQ(attributes.count("small"), 1U);
  EXPECT_EQ(attributes.size() - 1 + message.varint(10), 10U + 1);  // And what was cut before.
  EXPECT_EQ(attributes.size() - 1, 3U);
}

TEST(OtlpSpan, DamagedEntriesLeadNowhere) {
  SpanView span = make_span("s", 1, 0, 1);
  Packed entries;
  entries.entry(intern_name("k"), EntryClass::annotation, ValueType::string).string("a text");
  for (std::size_t size = entries.bytes().size(); size-- > 0;) {
    Packed cut = entries;
    cut.cut(size);
    span.entries = cut.bytes();
    encoded({span});
  }
}

}  // namespace
