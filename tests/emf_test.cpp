// SPDX-License-Identifier: Apache-2.0
//
// EMF documents from points to bytes. Every document is read back and held against the
// specification by the same reader.
#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include <support/golden.hpp>
#include <support/json.hpp>
#include <support/records.hpp>

#include <spillway/encoders/emf.hpp>
#include <spillway/encoders/json.hpp>
#include <spillway/encoders/limits.hpp>

namespace spillway {
namespace {

using detail::ByteBuffer;
using detail::EmfOptions;
using detail::Payload;
using testing::Json;
using testing::Points;

Payload documents_of(const Points& points, bool histogram_object = false) {
  Payload payload = testing::make_payload();
  detail::encode_emf(points.points, EmfOptions{"Shop", histogram_object}, payload);
  return payload;
}

/// What an extraction of the documents finds of each metric.
struct Extracted {
  double count = 0;
  double sum = 0;
  double minimum = 0;
  double maximum = 0;
  void add(double value, double times) {
    minimum = count == 0 ? value : std::min(minimum, value);
    maximum = count == 0 ? value : std::max(maximum, value);
    count += times;
    sum += value * times;
  }
};

// Reads documents as the specification says, and fails the test where they break it.
std::map<std::string, Extracted> extract(const Payload& payload) {
  std::map<std::string, Extracted> found;
  for (const detail::PayloadItem& item : payload.items) {
    EXPECT_LE(item.bytes, 1'000'000U);
    EXPECT_EQ(item.time_ms, testing::test_time_ms);
    const std::string text(payload.item(item));
    EXPECT_EQ(text.find('\n'), std::string::npos);
    const Json document(text);
    EXPECT_EQ(document["_aws"]["Timestamp"].number(), static_cast<double>(testing::test_time_ms));
    const Json directive = document["_aws"]["CloudWatchMetrics"][std::size_t{0}];
    EXPECT_EQ(directive["Namespace"].string(), "Shop");
    EXPECT_EQ(directive["Dimensions"].size(), 1U);
    const Json keys = directive["Dimensions"][std::size_t{0}];
    EXPECT_LE(keys.size(), 30U);
    for (std::size_t i = 0; i < keys.size(); ++i) {
      EXPECT_LE(document[keys[i].string()].string().size(), 1024U);
    }
    const Json metrics = directive["Metrics"];
    EXPECT_GE(metrics.size(), 1U);
    EXPECT_LE(metrics.size(), 100U);
    std::set<std::string> names;
    for (std::size_t i = 0; i < metrics.size(); ++i) {
      const std::string name = metrics[i]["Name"].string();
      EXPECT_TRUE(names.insert(name).second) << name << " stands twice in a document";
      const Json target = document[name];
      Extracted& all = found[name + "/" + metrics[i]["Unit"].string()];
      const double before = all.count;
      if (target.has("Values")) {
        EXPECT_LE(target["Values"].size(), 100U);
        EXPECT_EQ(target["Values"].size(), target["Counts"].size());
        Extracted piece;
        for (std::size_t v = 0; v < target["Values"].size(); ++v) {
          piece.add(target["Values"][v].number(), target["Counts"][v].number());
          all.add(target["Values"][v].number(), target["Counts"][v].number());
        }
        EXPECT_EQ(target["Count"].number(), piece.count);
        EXPECT_EQ(target["Min"].number(), piece.minimum);
        EXPECT_EQ(target["Max"].number(), piece.maximum);
        EXPECT_EQ(target["Sum"].number(), piece.sum);
      } else if (target.has("Count")) {
        all.add(target["Min"].number(), 1);
        all.add(target["Max"].number(), 1);
        all.count = before + target["Count"].number();
        all.sum = target["Sum"].number();
      } else if (target.text().front() == '[') {
        EXPECT_GE(target.size(), 2U) << "a single one is a number";
        EXPECT_LE(target.size(), 100U);
        for (std::size_t v = 0; v < target.size(); ++v) all.add(target[v].number(), 1);
      } else {
        all.add(target.number(), 1);
      }
    }
    // Members: _aws, the dimensions, the metrics, and nothing else.
    EXPECT_EQ(document.size(), 1 + keys.size() + metrics.size());
  }
  return found;
}

// Two threads that record without a pause make 3 000 million measurements in ten seconds.
TEST(EmfTest, WhatAHistogramTakesDoesNotGrowWithItsMeasurements) {
  constexpr double most = limits::emf_array_measurements_max;
  for (const double extra : {0.0, 1.0, 3e9}) {
    Points points(Dimensions{{"Service", "orders"}});
    points.histogram("Latency", {{1.5, most - 1}, {12.25, 1 + extra}});
    const Payload payload = documents_of(points);
    auto found = extract(payload);
    EXPECT_EQ(payload.items.size(), extra == 0 ? 100U : 1U);
    EXPECT_EQ(found["Latency/Microseconds"].count, most + extra);
    EXPECT_EQ(found["Latency/Microseconds"].sum, 1.5 * (most - 1) + 12.25 * (1 + extra));
    EXPECT_EQ(payload.records(), static_cast<std::uint64_t>(most + extra));
  }
}

TEST(EmfTest, AggregatedMetricsAreOneDocument) {
  Points points(Dimensions{{"Route", "/v1/orders"}, {"Service", "orders"}});
  points.counter("Requests", 17, 5);
  points.gauge("Load", 0.25, 0.75, 0.5, 1.5, 3);
  points.histogram("Latency", {{1.5, 2}, {12.25, 1}});
  points.histogram("Once", {{873, 1}}, Unit::milliseconds, Resolution::second);
  for (const bool object : {false, true}) {
    const Payload payload = documents_of(points, object);
    const std::string text = std::string(payload.bytes.view()) + "\n";
    testing::expect_golden(object ? "emf_object.json" : "emf.json", text);
    auto found = extract(payload);
    EXPECT_EQ(found["Requests/Count"].sum, 17);
    EXPECT_EQ(found["Latency/Microseconds"].count, 3);
    EXPECT_EQ(found["Latency/Microseconds"].sum, 15.25);
    EXPECT_EQ(found["Load/Percent"].minimum, 0.25);
    EXPECT_EQ(found["Load/Percent"].maximum, 0.75);
    EXPECT_EQ(found["Once/Milliseconds"].sum, 873);
    ASSERT_EQ(payload.items.size(), 1U);
    EXPECT_EQ(payload.items[0].records, 5U + 3 + 3 + 1);
    const Json document(payload.item(payload.items[0]));
    const Json once =
        document["_aws"]["CloudWatchMetrics"][std::size_t{0}]["Metrics"][std::size_t{3}];
    EXPECT_EQ(once["StorageResolution"].number(), 1);
    EXPECT_EQ(document["Once"].number(), 873);
  }
}

TEST(EmfTest, WithoutDimensionsTheSetIsEmpty) {
  Points points;
  points.counter("Up", 1);
  const Payload payload = documents_of(points);
  const Json document(payload.item(payload.items[0]));
  const Json directive = document["_aws"]["CloudWatchMetrics"][std::size_t{0}];
  EXPECT_EQ(directive["Dimensions"].text(), "[[]]");
  extract(payload);
}

TEST(EmfTest, AGaugeIsTheShortestArrayWithItsExtremesAndItsMean) {
  struct Case {
    std::uint64_t count;
    double minimum, maximum, sum;
    const char* text;
  };
  for (const Case& c : {Case{9, 1, 1, 9, "1"}, Case{2, 1, 3, 4, "[1,3]"},
                        Case{9, 1, 3, 18, "[1,3]"}, Case{3, 1, 4, 7, "[1,4,2]"},
                        Case{4, -1, 7, 20, "[-1,7,7,7]"}, Case{4, -7, 1, -20, "[-7,1,-7,-7]"},
                        Case{100, 0, 100, 100, nullptr}, Case{1000, 2, 4, 2021, nullptr}}) {
    Points points;
    points.gauge("Depth", c.minimum, c.maximum, c.maximum, c.sum, c.count);
    const Payload payload = documents_of(points);
    const Json document(payload.item(payload.items[0]));
    if (c.text != nullptr) {
      EXPECT_EQ(document["Depth"].text(), c.text);
    }
    const Extracted found = extract(payload)["Depth/Percent"];
    EXPECT_EQ(found.minimum, c.minimum);
    EXPECT_EQ(found.maximum, c.maximum);
    EXPECT_NEAR(found.sum / found.count, c.sum / static_cast<double>(c.count), 1e-12);
    EXPECT_EQ(payload.records(), c.count);
  }
}

// A level that is mostly one thing and rarely another, and sums that rounding has moved out of the
// extremes.
TEST(EmfTest, AGaugeWhoseMeanFitsNoArrayIsAnObject) {
  Points points;
  points.gauge("Depth", 0, 1e6, 0, 2e6, 1000);
  points.gauge("Rounded", 1, std::nextafter(1.0, 2.0), 1, 10, 10);
  const Payload payload = documents_of(points);
  const Json document(payload.item(payload.items[0]));
  EXPECT_EQ(document["Depth"].text(), R"({"Max":1000000.0,"Min":0,"Count":1000,"Sum":2000000.0})");
  EXPECT_EQ(document["Rounded"]["Count"].number(), 10);
  EXPECT_EQ(document["Rounded"]["Sum"].number(), 10);
}

TEST(EmfTest, AHundredMetricsADocument) {
  for (const std::size_t count : {1U, 99U, 100U, 101U, 200U, 201U}) {
    Points points(Dimensions{{"Service", "orders"}});
    for (std::size_t i = 0; i < count; ++i) points.counter("M" + std::to_string(i), 1, 2);
    const Payload payload = documents_of(points);
    EXPECT_EQ(payload.items.size(), (count + 99) / 100);
    EXPECT_EQ(extract(payload).size(), count);
    EXPECT_EQ(payload.records(), 2 * count);
  }
}

TEST(EmfTest, AHundredValuesAMetric) {
  for (const std::size_t count : {1U, 2U, 99U, 100U, 101U, 200U, 201U, 1000U}) {
    for (const double each : {1.0, 3.0}) {
      for (const bool object : {false, true}) {
        Points points(Dimensions{{"Service", "orders"}});
        points.histogram("Latency", testing::rising_values(count, each));
        points.counter("Requests", 1);
        const Payload payload = documents_of(points, object);
        const double numbers = static_cast<double>(count) * (object ? 1 : each);
        EXPECT_EQ(payload.items.size(), static_cast<std::size_t>(std::ceil(numbers / 100)));
        auto found = extract(payload);
        const Extracted& latency = found["Latency/Microseconds"];
        EXPECT_EQ(latency.count, static_cast<double>(points.points[0].count));
        EXPECT_EQ(latency.sum, points.points[0].sum);
        EXPECT_EQ(latency.minimum, 1);
        EXPECT_EQ(latency.maximum, static_cast<double>(count));
        EXPECT_EQ(found["Requests/Count"].count, 1) << "in the first document only";
        EXPECT_EQ(payload.records(), points.points[0].count + 1);
      }
    }
  }
}

TEST(EmfTest, AValueRecordedManyTimesIsSpreadOverDocumentsOrCounted) {
  Points points;
  points.histogram("Latency", {{5, 5'000}, {7, 1}});
  const Payload spread = documents_of(points);
  EXPECT_EQ(spread.items.size(), 51U);
  EXPECT_EQ(spread.records(), 5'001U);
  const Payload counted = documents_of(points, true);
  EXPECT_EQ(counted.items.size(), 1U);
  EXPECT_EQ(counted.records(), 5'001U);
}

TEST(EmfTest, ANameStandsOnceInADocumentWhateverItsUnits) {
  Points points;
  points.counter("Size", 1, 1, Unit::bytes);
  points.counter("Size", 2, 1, Unit::bits);
  points.counter("Other", 3);
  points.counter("Size", 4, 1, Unit::bytes, Resolution::second);
  const Payload payload = documents_of(points);
  EXPECT_EQ(payload.items.size(), 3U);
  auto found = extract(payload);
  EXPECT_EQ(found["Size/Bytes"].sum, 5);
  EXPECT_EQ(found["Size/Bits"].sum, 2);
  EXPECT_EQ(found["Other/Count"].sum, 3);
}

TEST(EmfTest, ADocumentIsNoLargerThanItMayBe) {
  Points points(Dimensions{{"Service", "orders"}});
  for (int i = 0; i < 100; ++i)
    points.histogram("M" + std::to_string(i), testing::rising_values(150));
  points.gauge("Load", 1, 3, 2, 6, 3);
  for (const std::size_t bytes_max : {2'000'000U, 20'000U, 5'000U, 700U, 1U}) {
    Payload payload = testing::make_payload();
    EmfOptions options{"Shop"};
    options.document_bytes_max = bytes_max;
    options.log_group = "/shop/metrics";
    detail::encode_emf(points.points, options, payload);
    std::size_t largest = 0;
    for (const detail::PayloadItem& item : payload.items) {
      largest = std::max<std::size_t>(largest, item.bytes);
      EXPECT_EQ(Json(payload.item(item))["_aws"]["LogGroupName"].string(), "/shop/metrics");
    }
    // A single metric is not cut.
    EXPECT_LE(largest, std::max<std::size_t>(bytes_max, 700));
    EXPECT_EQ(payload.records(), 100U * 150 + 3);
    auto found = extract(payload);
    EXPECT_EQ(found.size(), 101U);
    EXPECT_EQ(found["M7/Microseconds"].count, 150);
    EXPECT_EQ(found["M7/Microseconds"].sum, 150 * 151 / 2);
    EXPECT_EQ(found["Load/Percent"].maximum, 3);
  }
}

TEST(EmfTest, NamesAndValuesAreEscaped) {
  Points points(Dimensions{{"a\"b", "c\\d"}});
  points.counter("x\"y\\z", 1);
  auto found = extract(documents_of(points));
  EXPECT_EQ(found["x\"y\\z/Count"].count, 1);
}

// A series that is known to need no escape, of texts of every length that is copied its own way, and the
// same one looked through.
TEST(EmfTest, PlainTextsAreTheSameDocument) {
  for (std::size_t size = 1; size <= 70; ++size) {
    const std::string text(size, 'v');
    Points points(Dimensions{{"n" + text.substr(1), text}, {"other", "x"}});
    points.counter(text, 1);
    points.histogram("Latency", testing::rising_values(3));
    const Payload plain = documents_of(points);
    for (detail::MetricPoint& point : points.points) {
      ASSERT_TRUE(point.series->has_plain_texts);
      const_cast<detail::Series*>(point.series)->has_plain_texts = false;  // NOLINT: made by hand
    }
    EXPECT_EQ(plain.bytes.view(), documents_of(points).bytes.view()) << size;
    extract(plain);
  }
}

TEST(EmfTest, PlainIsWhatNeedsNoEscape) {
  for (int code = 0; code < 256; ++code) {
    const std::string text{'a', static_cast<char>(code), 'b'};
    ByteBuffer escaped;
    detail::append_json_string(escaped, text);
    // Letters beyond ASCII need none, but have to be looked at.
    EXPECT_EQ(detail::is_plain(text), code < 0x80 && escaped.view() == '"' + text + '"') << code;
    for (const bool in_name : {true, false}) {
      detail::SeriesKey key;
      key.name = "name";
      key.dimensions = {{"n", "v"}, in_name ? Dimension{text, "v"} : Dimension{"n", text}};
      EXPECT_EQ(detail::is_plain(key), detail::is_plain(text));
      key.dimensions.clear();
      key.name = text;
      EXPECT_EQ(detail::is_plain(key), detail::is_plain(text));
    }
  }
}

TEST(EmfTest, ExemplarsAreAPropertyOfTheFirstDocument) {
  const detail::Exemplar exemplars[] = {
      {873.5, 1, {0x6b00e3540f1e2d3c, 0x4b5a69788796a5b4}, 0x1a2b}, {12, 2, {1, 2}, 0}};
  Points points(Dimensions{{"Service", "orders"}});
  points.counter("Requests", 17, 5);
  points.histogram("Latency", testing::rising_values(150));
  points.histogram("Lat\"ency", {{12, 1}});
  points.points[1].exemplars = exemplars;
  points.points[2].exemplars = std::span(exemplars).subspan(1);
  Payload payload = documents_of(points, false);
  ASSERT_EQ(payload.items.size(), 2U);
  const Json document(payload.item(payload.items[0]));
  const Json found = document["exemplars"];
  EXPECT_EQ(found.size(), 2U);
  ASSERT_EQ(found["Latency"].size(), 2U);
  EXPECT_EQ(found["Latency"][std::size_t{0}]["value"].number(), 873.5);
  EXPECT_EQ(found["Latency"][std::size_t{0}]["trace_id"].string(),
            "1-6b00e354-0f1e2d3c4b5a69788796a5b4");
  EXPECT_EQ(found["Latency"][std::size_t{0}]["span_id"].string(), "0000000000001a2b");
  EXPECT_FALSE(found["Latency"][1].has("span_id"));
  EXPECT_EQ(found["Lat\"ency"][std::size_t{0}]["value"].number(), 12);
  EXPECT_FALSE(Json(payload.item(payload.items[1])).has("exemplars")) << "said once";
  for (std::size_t i = 0;
       i < document["_aws"]["CloudWatchMetrics"][std::size_t{0}]["Metrics"].size(); ++i) {
    EXPECT_NE(document["_aws"]["CloudWatchMetrics"][std::size_t{0}]["Metrics"][i]["Name"].string(),
              "exemplars");
  }
  // A metric or dimension of that name has the place.
  points.counter("exemplars", 3);
  payload = documents_of(points, false);
  EXPECT_EQ(Json(payload.item(payload.items[0]))["exemplars"].number(), 3);
}

TEST(EmfTest, TheLargestDocumentIsBelowItsBoundAndAMegabyte) {
  Dimensions dimensions;
  for (std::size_t i = 0; i < limits::dimensions_max; ++i) {
    const std::string number = std::to_string(i);
    dimensions.push_back({std::string(250 - number.size(), '"') + number, std::string(1024, '\\')});
  }
  Points points(dimensions);
  for (int i = 0; i < 150; ++i) {
    const std::string number = std::to_string(i);
    std::vector<detail::ValueCount> values;
    for (int v = 0; v < 120; ++v) {
      values.push_back(
          {-1.2345678901234567e-101 + v * 1.2345678901234567e-106, 1.0 + 9'007'199'254'740'000});
    }
    points.histogram(std::string(255 - number.size(), '"') + number, values,
                     Unit::kilobytes_per_second, Resolution::second);
  }
  Payload payload = testing::make_payload();
  detail::encode_emf(points.points, EmfOptions{std::string(255, '"'), true}, payload);
  EXPECT_LE(detail::emf_document_bytes_max(points.points), 1'000'000U);
  std::size_t largest = 0;
  for (const detail::PayloadItem& item : payload.items) {
    largest = std::max<std::size_t>(largest, item.bytes);
  }
  EXPECT_LE(largest, detail::emf_document_bytes_max(points.points));
  EXPECT_GT(largest, 500'000U) << "the case is an extreme one";
}

}  // namespace
}  // namespace spillway
