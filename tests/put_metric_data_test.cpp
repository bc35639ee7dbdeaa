// SPDX-License-Identifier: Apache-2.0
//
// PutMetricData from points to bytes, its limits, and what the limits refuse before it is recorded.
#include <cmath>
#include <limits>
#include <set>

#include <support/cbor.hpp>
#include <support/engine_fixture.hpp>
#include <support/golden.hpp>
#include <support/gunzip.hpp>
#include <support/records.hpp>

#include <spillway/encoders/limits.hpp>
#include <spillway/encoders/put_metric_data.hpp>

namespace spillway {
namespace {

using detail::DatumFormat;
using detail::Payload;
using testing::is_settled;
using testing::Json;
using testing::Points;

Payload datums_of(const Points& points, DatumFormat format = DatumFormat::json) {
  Payload payload = testing::make_payload();
  for (const detail::MetricPoint& point : points.points) {
    detail::encode_metric_datums(point, format, payload);
  }
  return payload;
}

std::string body_of(const Payload& payload, std::string_view metric_namespace = "Shop",
                    const detail::MetricEntity& entity = {},
                    DatumFormat format = DatumFormat::json) {
  detail::ByteBuffer out;
  detail::append_put_metric_data(payload, format, metric_namespace, entity, out);
  return std::string(out.view());
}

TEST(PutMetricDataTest, EachKindIsItsDatum) {
  Points points(Dimensions{{"Route", "/v1/orders"}, {"Stage", "prod"}});
  points.counter("Requests", 17, 5);
  points.gauge("Load", 0.25, 0.75, 0.5, 1.5, 3);
  points.histogram("Latency", {{1.5, 40}, {12.25, 7}, {204, 1}});
  Points bare;
  bare.counter("Up", 1, 1, Unit::none, Resolution::second);
  Payload payload = datums_of(points);
  detail::encode_metric_datums(bare.points[0], DatumFormat::json, payload);
  const std::string body = body_of(payload);
  testing::expect_golden("put_metric_data.json", body);

  const Json request(body);
  EXPECT_EQ(request["Namespace"].string(), "Shop");
  ASSERT_EQ(request["MetricData"].size(), 4U);
  const Json counter = request["MetricData"][std::size_t{0}];
  EXPECT_EQ(counter["MetricName"].string(), "Requests");
  EXPECT_EQ(counter["Value"].number(), 17);
  EXPECT_EQ(counter["Unit"].string(), "Count");
  EXPECT_EQ(counter["StorageResolution"].number(), 60);
  EXPECT_EQ(counter["Timestamp"].number(), 1'795'222'800);
  EXPECT_EQ(counter["Dimensions"][1]["Value"].string(), "prod");
  EXPECT_FALSE(counter.has("Values") || counter.has("StatisticValues"));
  const Json gauge = request["MetricData"][1];
  EXPECT_FALSE(gauge.has("Value"));
  EXPECT_EQ(gauge["StatisticValues"]["SampleCount"].number(), 3);
  EXPECT_EQ(gauge["StatisticValues"]["Minimum"].number(), 0.25);
  const Json histogram = request["MetricData"][2];
  EXPECT_FALSE(histogram.has("Value"));
  EXPECT_EQ(histogram["Values"].size(), 3U);
  EXPECT_EQ(histogram["Counts"][std::size_t{0}].number(), 40);
  EXPECT_EQ(histogram["StatisticValues"]["Sum"].number(), 40 * 1.5 + 7 * 12.25 + 204);
  const Json up = request["MetricData"][3];
  EXPECT_EQ(up["StorageResolution"].number(), 1);
  EXPECT_FALSE(up.has("Dimensions")) << "an empty list is not a legal one";

  ASSERT_EQ(payload.items.size(), 4U);
  EXPECT_EQ(payload.items[0].records, 5U);
  EXPECT_EQ(payload.items[1].records, 3U);
  EXPECT_EQ(payload.items[2].records, 48U);
}

TEST(PutMetricDataTest, EveryUnitIsOneOfTheServicesWords) {
  const std::set<std::string> words{"Seconds",
                                    "Microseconds",
                                    "Milliseconds",
                                    "Bytes",
                                    "Kilobytes",
                                    "Megabytes",
                                    "Gigabytes",
                                    "Terabytes",
                                    "Bits",
                                    "Kilobits",
                                    "Megabits",
                                    "Gigabits",
                                    "Terabits",
                                    "Percent",
                                    "Count",
                                    "Bytes/Second",
                                    "Kilobytes/Second",
                                    "Megabytes/Second",
                                    "Gigabytes/Second",
                                    "Terabytes/Second",
                                    "Bits/Second",
                                    "Kilobits/Second",
                                    "Megabits/Second",
                                    "Gigabits/Second",
                                    "Terabits/Second",
                                    "Count/Second",
                                    "None"};
  ASSERT_EQ(words.size(), unit_count);
  std::set<std::string> written;
  for (std::size_t i = 0; i < unit_count; ++i) {
    Points points;
    points.counter("M", 1, 1, static_cast<Unit>(i));
    written.insert(Json(testing::items_of(datums_of(points))[0])["Unit"].string());
  }
  EXPECT_EQ(written, words);
}

TEST(PutMetricDataTest, MoreThan150ValuesAreSeveralDatums) {
  struct Case {
    std::size_t values;
    std::vector<std::size_t> pieces;
  };
  for (const Case& c : {Case{1, {1}}, Case{149, {149}}, Case{150, {150}}, Case{151, {150, 1}},
                        Case{300, {150, 150}}, Case{301, {150, 150, 1}}}) {
    Points points;
    points.histogram("Latency", testing::rising_values(c.values, 3));
    const Payload payload = datums_of(points);
    ASSERT_EQ(payload.items.size(), c.pieces.size()) << c.values;
    double sum = 0;
    double count = 0;
    double next = 1;
    for (std::size_t i = 0; i < c.pieces.size(); ++i) {
      const Json datum(payload.item(payload.items[i]));
      ASSERT_EQ(datum["Values"].size(), c.pieces[i]);
      ASSERT_EQ(datum["Counts"].size(), c.pieces[i]);
      const Json statistics = datum["StatisticValues"];
      EXPECT_EQ(statistics["Minimum"].number(), next) << "each piece has extremes of its own";
      next += static_cast<double>(c.pieces[i]);
      EXPECT_EQ(statistics["Maximum"].number(), next - 1);
      EXPECT_EQ(payload.items[i].records, 3 * c.pieces[i]);
      sum += statistics["Sum"].number();
      count += statistics["SampleCount"].number();
    }
    EXPECT_EQ(sum, points.points[0].sum);
    EXPECT_EQ(payload.records(), points.points[0].count);
    EXPECT_EQ(count, static_cast<double>(points.points[0].count));
  }
}

TEST(PutMetricDataTest, TheExactSumIsSentEvenWhereTheValuesGiveAnother) {
  Points points;
  points.histogram("Latency", testing::rising_values(200));
  points.points[0].sum += 0.25;  // As a sum that more digits were added up to.
  const Payload payload = datums_of(points);
  double sum = 0;
  for (const std::string& item : testing::items_of(payload)) {
    sum += Json(item)["StatisticValues"]["Sum"].number();
  }
  EXPECT_EQ(sum, points.points[0].sum);
}

TEST(PutMetricDataTest, ExtremeNumbersReadBackAsTheyWere) {
  const double huge = 0x1p360;
  Points points;
  points.counter("Huge", huge);
  points.counter("Least", -huge);
  points.counter("Tiny", 0x1p-360);
  points.counter("Third", 1.0 / 3);
  points.histogram("Latency", {{-huge, 1}, {0, 1e15}, {huge, 1}});
  const Payload payload = datums_of(points);
  const Json body(body_of(payload));
  const Json data = body["MetricData"];
  EXPECT_EQ(data[std::size_t{0}]["Value"].number(), huge);
  EXPECT_EQ(data[1]["Value"].number(), -huge);
  EXPECT_EQ(data[2]["Value"].number(), 0x1p-360);
  EXPECT_EQ(data[3]["Value"].number(), 1.0 / 3);
  EXPECT_EQ(data[4]["Values"][std::size_t{0}].number(), -huge);
  EXPECT_EQ(data[4]["Counts"][1].number(), 1e15);
  EXPECT_EQ(payload.records(), 4 + 1'000'000'000'000'002U);
}

TEST(PutMetricDataTest, NoDatumIsLargerThanItsBound) {
  Dimensions dimensions;
  for (std::size_t i = 0; i < limits::dimensions_max; ++i) {
    const std::string number = std::to_string(i);
    // Quotes and backslashes take two bytes each.
    dimensions.push_back({std::string(250 - number.size(), '"') + number, std::string(1024, '\\')});
  }
  ASSERT_EQ(limits::dimensions_error(dimensions), std::nullopt);
  Points points(dimensions);
  const std::string name(255, '"');
  points.counter(name, -2.2250738585072014e-308, 1, Unit::kilobytes_per_second);
  points.gauge(name, -1.2345678901234567e-101, 1.2345678901234567e-101, 1, 1.2345678901234567e-101,
               ~std::uint64_t{0});
  std::vector<detail::ValueCount> values;
  for (int i = 0; i < 400; ++i) {
    values.push_back({-1.2345678901234567e-101 + i * 1.2345678901234567e-106, 1234567890123456});
  }
  points.histogram(name, values);
  for (const detail::MetricPoint& point : points.points) {
    for (const DatumFormat format : {DatumFormat::json, DatumFormat::cbor}) {
      Payload payload = testing::make_payload();
      detail::encode_metric_datums(point, format, payload);
      for (const detail::PayloadItem& item : payload.items) {
        EXPECT_LE(item.bytes, detail::metric_datum_bytes_max(point));
      }
    }
  }
}

TEST(PutMetricDataTest, TheNamespaceIsEscaped) {
  Points points;
  points.counter("Up", 1);
  EXPECT_EQ(Json(body_of(datums_of(points), "a\"b\\c"))["Namespace"].string(), "a\"b\\c");
}

TEST(PutMetricDataTest, CborSaysWhatJsonSays) {
  std::vector<Dimensions> sets{{}, {{"Route", "/a"}}};
  Dimensions many;
  for (int i = 0; i < 30; ++i) {
    many.push_back(
        {"D" + std::to_string(i), std::string(static_cast<std::size_t>(i) * 30 + 1, 'v')});
  }
  sets.push_back(many);
  for (const Dimensions& dimensions : sets) {
    Points points(dimensions);
    points.counter("Requests", 17, 5);
    points.counter("Third", 1.0 / 3);
    points.counter("Huge", 0x1p360);
    points.counter("Tiny", -0x1p-360);
    points.gauge("Load", 0.1, 0.75, 0.5, 1.5, 3);
    points.histogram("Latency", testing::rising_values(301, 3));
    points.histogram("Signs", {{-1.25, 1}, {0, 70'000}, {1e-9, 1e15}}, Unit::none,
                     Resolution::second);
    const Payload json = datums_of(points);
    const Payload cbor = datums_of(points, DatumFormat::cbor);
    ASSERT_EQ(json.items.size(), cbor.items.size());
    for (std::size_t i = 0; i < json.items.size(); ++i) {
      EXPECT_EQ(json.items[i].records, cbor.items[i].records);
    }
    for (const detail::MetricEntity& entity :
         {detail::MetricEntity{},
          detail::MetricEntity{{{"Type", "Service"}, {"Name", "or\"ders"}}, {}},
          detail::MetricEntity{{{"Type", "Service"}, {"Name", "orders"}}, {{"K8s.Pod", "p"}}}}) {
      EXPECT_EQ(testing::CborAsJson::of(body_of(cbor, "Shop", entity, DatumFormat::cbor)),
                body_of(json, "Shop", entity));
    }
  }
}

TEST(PutMetricDataTest, AnEntityStandsWithTheDatumsThatItIsOf) {
  Points points;
  points.counter("Up", 1);
  points.counter("Down", 2);
  const Json body(body_of(datums_of(points), "Shop",
                          {{{"Type", "Service"}, {"Name", "orders"}, {"Environment", "prod"}},
                           {{"AWS.ServiceNameSource", "UserConfiguration"}}}));
  EXPECT_FALSE(body["StrictEntityValidation"].boolean());
  EXPECT_FALSE(body.has("MetricData"));
  ASSERT_EQ(body["EntityMetricData"].size(), 1U);
  const Json part = body["EntityMetricData"][0];
  EXPECT_EQ(part["Entity"]["KeyAttributes"]["Environment"].string(), "prod");
  EXPECT_EQ(part["Entity"]["Attributes"]["AWS.ServiceNameSource"].string(), "UserConfiguration");
  ASSERT_EQ(part["MetricData"].size(), 2U);
  EXPECT_EQ(part["MetricData"][1]["MetricName"].string(), "Down");
}

// ---- What may not be sent ----

TEST(MetricLimitsTest, NamesHaveTheirLengths) {
  EXPECT_FALSE(limits::metric_name_error("x"));
  EXPECT_FALSE(limits::metric_name_error(std::string(255, 'x')));
  EXPECT_TRUE(limits::metric_name_error(std::string(256, 'x')));
  EXPECT_FALSE(limits::namespace_error(std::string(255, 'x')));
  EXPECT_TRUE(limits::namespace_error(std::string(256, 'x')));
  for (const char* const bad : {"", " ", "   ", "a\nb", "a\x7f", "caf\xc3\xa9", "\t"}) {
    EXPECT_TRUE(limits::metric_name_error(bad)) << bad;
    EXPECT_TRUE(limits::namespace_error(bad)) << bad;
  }
  EXPECT_TRUE(limits::namespace_error(":Shop"));
  EXPECT_TRUE(limits::namespace_error("AWS/EC2"));
  EXPECT_FALSE(limits::namespace_error("AWSome"));
  EXPECT_FALSE(limits::namespace_error("Shop:Api"));
}

TEST(MetricLimitsTest, DimensionsHaveTheirNumbersAndLengths) {
  const auto error = [](std::string name, std::string value) {
    return limits::dimensions_error({{std::move(name), std::move(value)}}).has_value();
  };
  EXPECT_FALSE(error("Route", "/"));
  EXPECT_FALSE(error(std::string(250, 'n'), std::string(1024, 'v')));
  EXPECT_TRUE(error(std::string(251, 'n'), "v"));
  EXPECT_TRUE(error("n", std::string(1025, 'v')));
  EXPECT_TRUE(error("", "v"));
  EXPECT_TRUE(error("n", ""));
  EXPECT_TRUE(error("n", "  "));
  EXPECT_TRUE(error(":n", "v"));
  EXPECT_FALSE(error("n", ":v"));
  EXPECT_TRUE(error("n", "\xc3\xa9"));
  Dimensions dimensions;
  for (int i = 0; i < 30; ++i) dimensions.push_back({"D" + std::to_string(i), "v"});
  EXPECT_FALSE(limits::dimensions_error(dimensions));
  dimensions.push_back({"D30", "v"});
  EXPECT_TRUE(limits::dimensions_error(dimensions));
  EXPECT_TRUE(limits::dimensions_error({{"Same", "a"}, {"Same", "b"}}));
}

class MetricRequestTest : public ::testing::Test {
 protected:
  static Config config() {
    Config config = testing::aws_config();
    config.logs = LogsTo::none;
    config.traces = TracesTo::none;
    config.on_diagnostic = [](std::string_view) {};
    return config;
  }
  testing::AwsEnvironment environment_;
};

TEST_F(MetricRequestTest, WhatIsIllegalIsCountedForItselfAndItsNeighboursGo) {
  testing::TestEngine test(config());
  const Histogram latency = test.engine.histogram("Latency");
  const Gauge depth = test.engine.gauge("Depth");
  const double inf = std::numeric_limits<double>::infinity();
  const double bad[] = {std::nan(""), inf, -inf, 0x1.1p360, -0x1.1p360};
  for (const double value : bad) {
    latency.record(value);
    depth.set(value);
  }
  latency.record(5);
  depth.set(5);
  test.engine.counter("Requests", Unit::count, {{"Route", ""}}).add(1);
  test.engine.counter("").add(1);
  test.engine.counter("Requests").add(1);
  ASSERT_TRUE(test.engine.flush(std::chrono::seconds(1)));
  const Stats stats = test.engine.stats();
  EXPECT_EQ(stats.metrics.dropped_for(DropCause::invalid), 2 * std::size(bad) + 2);
  EXPECT_EQ(stats.metrics.delivered, 3U);
  EXPECT_TRUE(is_settled(stats.metrics));
}

TEST_F(MetricRequestTest, ARequestHoldsAThousandDatums) {
  for (const std::size_t count : {1000U, 1001U}) {
    Config wide = config();
    testing::TestEngine test(wide);
    for (std::size_t i = 0; i < count; ++i) {
      test.engine.counter("M" + std::to_string(i)).add(1);
    }
    ASSERT_TRUE(test.engine.flush(std::chrono::seconds(1)));
    ASSERT_EQ(test.http.requests().size(), count == 1000 ? 1U : 2U);
    EXPECT_EQ(Json(testing::body_of(test.http.requests()[0]))["MetricData"].size(), 1000U);
    EXPECT_EQ(test.engine.stats().metrics.delivered, count);
  }
}

TEST_F(MetricRequestTest, ARequestStaysBelowAMegabyteBeforeItIsCompressed) {
  testing::TestEngine test(config());
  for (int i = 0; i < 900; ++i) {
    test.engine
        .counter("M" + std::to_string(i), Unit::count,
                 {{"A", std::string(1000, 'a')}, {"B", std::string(1000, 'b')}})
        .add(1);
  }
  ASSERT_TRUE(test.engine.flush(std::chrono::seconds(1)));
  ASSERT_GE(test.http.requests().size(), 2U);
  for (const auto& request : test.http.requests()) {
    const std::size_t bytes = testing::body_of(request).size();
    EXPECT_LE(bytes, limits::put_metric_data_bytes_max);
    EXPECT_LT(request.body.size(), bytes) << "compressed";
  }
  EXPECT_EQ(test.engine.stats().metrics.delivered, 900U);
}

TEST_F(MetricRequestTest, CborIsPostedAsSmithyWantsItAndItsErrorsAreRead) {
  Config cbor = config();
  cbor.metric_data_format = MetricDataFormat::cbor;
  std::vector<std::string> diagnostics;
  cbor.on_diagnostic = [&](std::string_view text) { diagnostics.emplace_back(text); };
  testing::TestEngine test(cbor);
  // The service refuses what has a datum named Bad.
  test.http.set_answer([](const transport::HttpRequest& request) {
    const bool is_bad = testing::body_of(request).find("Bad") != std::string::npos;
    return transport::MemoryTransport::answered(
        is_bad ? 400 : 200,
        is_bad ? "\xa2\x66__type\x78\x1eInvalidParameterValueException\x67message\x63no!" : "\xa0",
        {{"smithy-protocol", "rpc-v2-cbor"}});
  });
  for (const char* const name : {"A", "B", "Bad", "D", "E"}) test.engine.counter(name).add(1);
  ASSERT_TRUE(test.engine.flush(std::chrono::seconds(1)));
  for (const auto& request : test.http.requests()) {
    EXPECT_EQ(request.path, "/service/GraniteServiceVersion20100801/operation/PutMetricData");
    EXPECT_EQ(find_header(request.headers, "smithy-protocol"), "rpc-v2-cbor");
    EXPECT_EQ(find_header(request.headers, "Content-Type"), "application/cbor");
    EXPECT_EQ(find_header(request.headers, "Accept"), "application/cbor");
    EXPECT_EQ(find_header(request.headers, "X-Amz-Target"), "");
    EXPECT_NE(find_header(request.headers, "Authorization"), "");
  }
  EXPECT_GT(test.http.requests().size(), 2U) << "found by halves";
  const SignalStats stats = test.engine.stats().metrics;
  EXPECT_EQ(stats.destination, "put-metric-data-cbor") << "the name that a spool's files carry";
  EXPECT_EQ(stats.delivered, 4U);
  EXPECT_EQ(stats.dropped_for(DropCause::rejected), 1U);
  EXPECT_TRUE(is_settled(stats));
  ASSERT_FALSE(diagnostics.empty());
  EXPECT_NE(diagnostics[0].find("InvalidParameterValueException"), std::string::npos);
  EXPECT_NE(diagnostics[0].find("no!"), std::string::npos);
}

TEST_F(MetricRequestTest, AnEntityThatIsNotTakenIsSaidAndCostsNothing) {
  for (const bool wanted : {true, false}) {
    Config entity = config();
    entity.metric_entity = wanted;
    entity.metric_entity_attributes = Dimensions{{"Team", "checkout"}};
    std::vector<std::string> diagnostics;
    entity.on_diagnostic = [&](std::string_view text) { diagnostics.emplace_back(text); };
    testing::TestEngine test(entity);
    test.http.set_answer([](const transport::HttpRequest&) {
      return transport::MemoryTransport::answered(
          200, "{}", {{"X-Amzn-Failure-Message", "InvalidAttributes"}});
    });
    test.engine.counter("Up").add(1);
    ASSERT_TRUE(test.engine.flush(std::chrono::seconds(1)));
    EXPECT_EQ(test.engine.stats().metrics.delivered, 1U);
    const Json body(testing::body_of(test.http.requests()[0]));
    EXPECT_EQ(body.has("EntityMetricData"), wanted);
    EXPECT_EQ(diagnostics.size(), wanted ? 1U : 0U);
    if (!wanted) continue;
    EXPECT_NE(diagnostics[0].find("InvalidAttributes"), std::string::npos);
    const Json known = body["EntityMetricData"][0]["Entity"]["KeyAttributes"];
    EXPECT_EQ(known["Type"].string(), "Service");
    EXPECT_EQ(known["Name"].string(), "orders");
    EXPECT_EQ(known["Environment"].string(), "generic:default");
  }
}

}  // namespace
}  // namespace spillway
