// SPDX-License-Identifier: Apache-2.0
//
// Wide events through the whole engine, and the documents held against the specification of EMF.
#include <cmath>
#include <limits>
#include <thread>
#include <utility>

#include <support/engine_fixture.hpp>
#include <support/gunzip.hpp>
#include <support/records.hpp>

#include <spillway/engine/event_series.hpp>

namespace spillway {
namespace {

using namespace std::chrono_literals;
using testing::is_settled;
using testing::Json;
using testing::TestEngine;

// What is a dimension is said to be one: nothing else becomes it, and no part is another.
static_assert(!std::is_convertible_v<EventProperty, EventDimension> &&
              !std::is_constructible_v<EventDimension, StaticName, int> &&
              !std::is_constructible_v<EventMetric, MetricName, const char*> &&
              !std::is_copy_constructible_v<EventProperty>);

class WideEventTest : public ::testing::Test {
 protected:
  static Config config(MetricsTo to = MetricsTo::emf_logs) {
    Config config = testing::aws_config();
    config.metrics = to;
    config.logs = LogsTo::none;
    config.traces = TracesTo::none;
    return config;
  }
  // The messages of all PutLogEvents requests so far.
  static std::vector<Json> documents(const TestEngine& test) {
    std::vector<Json> found;
    for (const auto& request : test.http.requests()) {
      if (testing::operation_of(request) != "PutLogEvents") continue;
      const Json body(request.body);
      for (std::size_t i = 0; i < body["logEvents"].size(); ++i) {
        found.emplace_back(body["logEvents"][i]["message"].string());
      }
    }
    return found;
  }
  static Json directive(const Json& document, std::size_t which = 0) {
    return document["_aws"]["CloudWatchMetrics"][which];
  }
  testing::AwsEnvironment environment_;
};

TEST_F(WideEventTest, AnEventIsADocumentOfItsMetricsDimensionsAndProperties) {
  TestEngine test(config());
  const std::string route = "/orders";
  const Context context{{.tenant = "acme", .request_id = "r-1"}};
  const Scope scope(context);
  SPILLWAY_EVENT(test.engine, EventMetric{{"Latency", Unit::milliseconds}, 12.5},
                 EventProperty{"order_id", 4711}, EventDimension{"Route", route},
                 EventMetric{{"Items", Unit::count, Resolution::second}, 3},
                 EventProperty{"http.method", "POST"}, EventProperty{"paid", true},
                 EventProperty{"http.status", 201}, EventProperty{"level", "info"});
  ASSERT_TRUE(test.engine.flush(1s));
  const auto found = documents(test);
  ASSERT_EQ(found.size(), 1U);
  const Json& document = found[0];
  EXPECT_EQ(document["_aws"]["Timestamp"].number(), 1795222800000);
  EXPECT_EQ(document["_aws"]["CloudWatchMetrics"].size(), 1U);
  EXPECT_EQ(directive(document).text(),
            R"({"Namespace":"Shop","Dimensions":[["Route","Service"]],"Metrics":[)"
            R"({"Name":"Latency","Unit":"Milliseconds"},)"
            R"({"Name":"Items","Unit":"Count","StorageResolution":1}]})");
  EXPECT_EQ(document["Service"].string(), "orders");
  EXPECT_EQ(document["Route"].string(), "/orders");
  EXPECT_EQ(document["Latency"].number(), 12.5);
  EXPECT_EQ(document["Items"].number(), 3);
  EXPECT_EQ(document["order_id"].number(), 4711);
  EXPECT_EQ(document["http"]["method"].string(), "POST");
  EXPECT_EQ(document["http"]["status"].number(), 201);
  EXPECT_TRUE(document["paid"].boolean());
  EXPECT_EQ(document["level"].string(), "info");
  EXPECT_EQ(document["tenant"].string(), "acme");
  EXPECT_EQ(document["request_id"].string(), "r-1");
  EXPECT_EQ(document.size(), 11U);
  const Stats stats = test.engine.stats();
  EXPECT_EQ(stats.metrics.recorded, 2U) << "an event is as many records as it has metrics";
  EXPECT_EQ(stats.metrics.delivered, 2U);
  EXPECT_TRUE(is_settled(stats.metrics));
}

// What one call site may choose at run time: each record has its own keys, units and resolutions.
TEST_F(WideEventTest, AnEventWhosePartsAreChosenIsReadAsItWasWritten) {
  TestEngine test(config());
  for (const bool first : {true, false, true, false}) {
    SPILLWAY_EVENT(test.engine,
                   first ? EventMetric{{"Latency", Unit::milliseconds}, 1}
                         : EventMetric{{"Latency", Unit::seconds, Resolution::second}, 2},
                   first ? EventProperty{"order_id", 3} : EventProperty{"basket_id", 4});
  }
  ASSERT_TRUE(test.engine.flush(1s));
  const auto found = documents(test);
  ASSERT_EQ(found.size(), 4U);
  for (const std::size_t i : {0U, 2U}) {
    EXPECT_EQ(directive(found[i])["Metrics"].text(),
              R"([{"Name":"Latency","Unit":"Milliseconds"}])");
    EXPECT_EQ(found[i]["order_id"].number(), 3);
    EXPECT_EQ(directive(found[i + 1])["Metrics"].text(),
              R"([{"Name":"Latency","Unit":"Seconds","StorageResolution":1}])");
    EXPECT_EQ(found[i + 1]["basket_id"].number(), 4);
    EXPECT_FALSE(found[i + 1].has("order_id"));
  }
}

TEST_F(WideEventTest, AnEventKnowsItsTraceAndTheOneAfterItDoesNot) {
  Config traced = config();
  traced.traces = TracesTo::put_trace_segments;
  TestEngine test(traced);
  {
    const Span span = test.engine.span("work");
    SPILLWAY_EVENT(test.engine, EventMetric{"N", 1});
  }
  SPILLWAY_EVENT(test.engine, EventMetric{"N", 2});
  ASSERT_TRUE(test.engine.flush(1s));
  const auto found = documents(test);
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0]["trace_id"].string().substr(0, 2), "1-");
  EXPECT_EQ(found[0]["span_id"].string().size(), 16U);
  EXPECT_FALSE(found[1].has("trace_id"));
  EXPECT_FALSE(found[1].has("span_id"));
}

TEST_F(WideEventTest, NamesOfMetricsAndDimensionsStandAndPropertiesMakeRoom) {
  TestEngine test(config());
  const Context context{{.tenant = "of the context", .user = "u"}};
  const Scope scope(context);
  SPILLWAY_EVENT(test.engine, EventProperty{"Latency", "a"}, EventProperty{"Service", "b"},
                 EventProperty{"tenant.name", "c"}, EventProperty{"_aws", "d"},
                 EventProperty{"user", "e"}, EventDimension{"tenant", "acme"},
                 EventMetric{"Latency", 1}, EventMetric{"a.b", 2}, EventProperty{"a.b", "f"});
  ASSERT_TRUE(test.engine.flush(1s));
  const Json document = documents(test).at(0);
  EXPECT_EQ(directive(document)["Dimensions"].text(), R"([["Service","tenant"]])");
  EXPECT_EQ(document["tenant"].string(), "acme");
  EXPECT_EQ(document["Latency"].number(), 1);
  EXPECT_EQ(document["Latency_2"].string(), "a");
  EXPECT_EQ(document["Service"].string(), "orders");
  EXPECT_EQ(document["field.Service"].string(), "b");
  EXPECT_EQ(document["field.tenant"]["name"].string(), "c");
  EXPECT_EQ(document["field._aws"].string(), "d");
  EXPECT_EQ(document["user"].string(), "u");
  EXPECT_EQ(document["field.user"].string(), "e");
  EXPECT_EQ(document["a.b"].number(), 2);
  EXPECT_EQ(document["a"]["b"].string(), "f");
}

TEST_F(WideEventTest, ADimensionOfTheEventTakesThePlaceOfTheConfiguredOne) {
  TestEngine test(config());
  SPILLWAY_EVENT(test.engine, EventMetric{"N", 1}, EventDimension{"Service", "billing"});
  ASSERT_TRUE(test.engine.flush(1s));
  const Json document = documents(test).at(0);
  EXPECT_EQ(document["Service"].string(), "billing");
  EXPECT_EQ(document.size(), 3U);
}

TEST_F(WideEventTest, MetricsWithOtherSetsOfDimensionsHaveDirectivesOfTheirOwn) {
  Config rolled_up = config();
  rolled_up.rollups = DimensionSets{{"Service"}};
  TestEngine test(rolled_up);
  const auto record = [&] {
    SPILLWAY_EVENT(test.engine, EventMetric{"A", 1}, EventMetric{"B", 2}, EventMetric{"C", 3},
                   EventDimension{"Route", "/r"}, EventDimension{"TenantID", "acme"});
  };
  record();
  ASSERT_TRUE(test.engine.flush(1s));
  test.engine.report_by("B", {{"Route"}, {"TenantID", "Service"}, {"Missing"}});
  record();
  ASSERT_TRUE(test.engine.flush(1s));
  const auto found = documents(test);
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0]["_aws"]["CloudWatchMetrics"].size(), 1U);
  EXPECT_EQ(directive(found[0])["Dimensions"].text(),
            R"([["Route","Service","TenantID"],["Service"]])");
  EXPECT_EQ(found[1]["_aws"]["CloudWatchMetrics"].size(), 2U);
  EXPECT_EQ(directive(found[1], 0)["Metrics"].text(),
            R"([{"Name":"A","Unit":"None"},{"Name":"C","Unit":"None"}])");
  EXPECT_EQ(directive(found[1], 1)["Metrics"].text(), R"([{"Name":"B","Unit":"None"}])");
  EXPECT_EQ(directive(found[1], 1)["Dimensions"].text(), R"([["Route"],["Service","TenantID"]])");
}

TEST_F(WideEventTest, WhatIsNoMeasurementIsAPropertyAndCounted) {
  TestEngine test(config());
  for (const double value : {1.0, std::nan(""), std::numeric_limits<double>::infinity(), 2.0}) {
    SPILLWAY_EVENT(test.engine, EventMetric{"Latency", value}, EventMetric{"Items", 3});
  }
  SPILLWAY_EVENT(test.engine, EventMetric{"Only", std::nan("")}, EventProperty{"p", 1});
  ASSERT_TRUE(test.engine.flush(1s));
  const auto found = documents(test);
  ASSERT_EQ(found.size(), 4U);
  EXPECT_EQ(directive(found[0])["Metrics"].size(), 2U);
  EXPECT_EQ(directive(found[1])["Metrics"].text(), R"([{"Name":"Items","Unit":"None"}])");
  EXPECT_EQ(found[1]["Latency"].string(), "NaN");
  EXPECT_EQ(found[2]["Latency"].string(), "Infinity");
  EXPECT_EQ(found[3]["Latency"].number(), 2);
  const Stats stats = test.engine.stats();
  EXPECT_EQ(stats.metrics.recorded, 9U);
  EXPECT_EQ(stats.metrics.dropped_for(DropCause::invalid), 3U);
  EXPECT_TRUE(is_settled(stats.metrics));
}

TEST_F(WideEventTest, WhatCloudWatchWouldNotTakeIsRefusedAndSaid) {
  std::string heard;
  Config listening = config();
  listening.on_diagnostic = [&](std::string_view message) { heard.append(message).append("\n"); };
  TestEngine test(listening);
  const std::string huge(1025, 'x');
  for (const std::string& value :
       {std::string(), std::string("f\xc3\xbcr"), huge, std::string("  "), std::string("good")}) {
    SPILLWAY_EVENT(test.engine, EventMetric{"N", 1}, EventDimension{"Route", value});
  }
  SPILLWAY_EVENT(test.engine, EventMetric{"_aws", 1});
  SPILLWAY_EVENT(test.engine, EventMetric{"Same", 1}, EventDimension{"Same", "x"});
  SPILLWAY_EVENT(test.engine, EventMetric{"Twice", 1}, EventMetric{"Twice", 2});
  SPILLWAY_EVENT(test.engine, EventMetric{"N", 1}, EventDimension{":colon", "x"});
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(documents(test).size(), 1U);
  const Stats stats = test.engine.stats();
  EXPECT_EQ(stats.metrics.recorded, 10U);
  EXPECT_EQ(stats.metrics.dropped_for(DropCause::invalid), 9U);
  EXPECT_TRUE(is_settled(stats.metrics));
  EXPECT_NE(heard.find("the value of dimension 'Route' is empty"), std::string::npos) << heard;
  EXPECT_NE(heard.find("wide_event_test.cpp:"), std::string::npos);
}

template <std::size_t... I>
void record_wide(Engine& engine, std::index_sequence<I...> /*parts*/) {
  static constexpr char keys[sizeof...(I)][3] = {{'k', static_cast<char>('0' + I), '\0'}...};
  SPILLWAY_EVENT(engine, EventMetric{"N", 1}, EventDimension{StaticName(keys[I]), "v"}...);
}
template <std::size_t... I>
void record_widest(Engine& engine, std::index_sequence<I...> /*parts*/) {
  static constexpr char keys[sizeof...(I)][3] = {{'k', static_cast<char>('0' + I), '\0'}...};
  SPILLWAY_EVENT(engine, EventMetric{"N", 1}, EventProperty{StaticName(keys[I]), I}...);
}

TEST_F(WideEventTest, ThirtyDimensionsAndSixtyFourParts) {
  TestEngine test(config());
  record_wide(test.engine, std::make_index_sequence<29>());  // And Service.
  record_wide(test.engine, std::make_index_sequence<30>());
  record_widest(test.engine, std::make_index_sequence<63>());
  ASSERT_TRUE(test.engine.flush(1s));
  const auto found = documents(test);
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(directive(found[0])["Dimensions"][std::size_t{0}].size(), 30U);
  EXPECT_EQ(found[1]["kn"].number(), 62);
  EXPECT_EQ(test.engine.stats().metrics.dropped_for(DropCause::invalid), 1U);
}

TEST_F(WideEventTest, PropertiesAreRedactedAndMetricsAreNot) {
  TestEngine test(config());
  SPILLWAY_EVENT(test.engine, EventMetric{"PasswordResets", 1}, EventProperty{"password", "x"},
                 EventProperty{"pin", 1234}, EventProperty{"mail", "jane@shop.com"},
                 EventDimension{"Customer", "jane@shop.com"});
  ASSERT_TRUE(test.engine.flush(1s));
  const Json document = documents(test).at(0);
  EXPECT_EQ(document["PasswordResets"].number(), 1);
  for (const char* const key : {"password", "pin", "mail", "Customer"}) {
    EXPECT_EQ(document[key].string(), "[redacted]") << key;
  }
}

TEST_F(WideEventTest, ADocumentFitsALogEvent) {
  TestEngine test(config());
  const std::string text(200'000, '"');
  SPILLWAY_EVENT(test.engine, EventMetric{"N", 1}, EventProperty{"a", text},
                 EventDimension{"Route", std::string(1024, 'r')});
  ASSERT_TRUE(test.engine.flush(1s));
  const Json whole = documents(test).at(0);
  EXPECT_EQ(whole["a"].string(), text);
  EXPECT_FALSE(whole.has("truncated"));

  Config large_ring = config();
  large_ring.ring_bytes = 16 << 20;
  TestEngine large(large_ring);
  const std::string megabytes(3'000'000, 'x');
  SPILLWAY_EVENT(large.engine, EventMetric{"N", 1}, EventProperty{"a", megabytes},
                 EventDimension{"Route", std::string(1024, 'r')});
  ASSERT_TRUE(large.engine.flush(1s));
  const Json cut = documents(large).at(0);
  EXPECT_LE(cut.text().size(), 1'000'000U);
  EXPECT_TRUE(cut["truncated"].boolean());
  EXPECT_EQ(cut["Route"].string().size(), 1024U);
  EXPECT_EQ(cut["N"].number(), 1);
  EXPECT_GT(cut["a"].string().size(), 400'000U);
}

TEST_F(WideEventTest, AFullRingAndALargeEventAreCounted) {
  Config small = config();
  small.ring_bytes = 4096;
  TestEngine test(small);
  for (int i = 0; i < 200; ++i) {
    SPILLWAY_EVENT(test.engine, EventMetric{"A", i}, EventMetric{"B", i});
  }
  SPILLWAY_EVENT(test.engine, EventMetric{"A", 1}, EventProperty{"text", std::string(5000, 'x')});
  const Stats before = test.engine.stats();
  EXPECT_EQ(before.metrics.recorded, 401U);
  ASSERT_TRUE(test.engine.flush(1s));
  const Stats stats = test.engine.stats();
  EXPECT_EQ(stats.metrics.recorded, 401U);
  EXPECT_GT(stats.metrics.dropped_for(DropCause::ring_full), 0U);
  EXPECT_EQ(stats.metrics.dropped_for(DropCause::too_large), 1U);
  EXPECT_EQ(stats.metrics.delivered, 2 * documents(test).size());
  EXPECT_TRUE(is_settled(stats.metrics));
}

TEST_F(WideEventTest, WhereMetricsAreAggregatedTheyAreHistogramsOfTheirDimensions) {
  TestEngine test(config(MetricsTo::put_metric_data));
  for (const int value : {1, 2, 6}) {
    SPILLWAY_EVENT(test.engine, EventMetric{{"Latency", Unit::milliseconds}, value},
                   EventMetric{"Broken", std::nan("")}, EventDimension{"Route", "/r"},
                   EventProperty{"order_id", value});
  }
  ASSERT_TRUE(test.engine.flush(1s));
  const Json body(testing::body_of(test.http.requests().at(0)));
  ASSERT_EQ(body["MetricData"].size(), 1U);
  const Json datum = body["MetricData"][std::size_t{0}];
  EXPECT_EQ(datum["MetricName"].string(), "Latency");
  EXPECT_EQ(datum["Unit"].string(), "Milliseconds");
  EXPECT_EQ(datum["Dimensions"].size(), 2U);
  EXPECT_EQ(datum["StatisticValues"]["SampleCount"].number(), 3);
  EXPECT_EQ(datum["StatisticValues"]["Sum"].number(), 9);
  const Stats stats = test.engine.stats();
  EXPECT_EQ(stats.metrics.recorded, 6U);
  EXPECT_EQ(stats.metrics.dropped_for(DropCause::invalid), 3U);
  EXPECT_TRUE(is_settled(stats.metrics));
}

TEST_F(WideEventTest, ValuesTooSmallForCloudWatchAreZeroEverywhere) {
  // The smallest that a reference ever named (buffers/bucket.hpp), and a little less.
  constexpr double smallest = 8.515920e-109;
  const double less = std::nextafter(smallest, 0);
  const auto record = [&](TestEngine& test) {
    SPILLWAY_EVENT(test.engine, EventProperty{"tiny", less}, EventMetric{"Kept", smallest},
                   EventMetric{"Tiny", less}, EventDimension{"Route", "/r"},
                   EventMetric{"Negative", -less}, EventMetric{"Denormal", 5e-324},
                   EventMetric{"Zero", 0}, EventProperty{"text", "behind"});
    ASSERT_TRUE(test.engine.flush(1s));
  };
  TestEngine emf(config());
  record(emf);
  const Json document = documents(emf).at(0);
  EXPECT_EQ(document["Kept"].number(), smallest);
  for (const char* const name : {"Tiny", "Negative", "Denormal", "Zero"}) {
    EXPECT_EQ(document[name].number(), 0) << name;
  }
  EXPECT_EQ(document["tiny"].number(), less) << "a property says what it was";
  EXPECT_EQ(document["Route"].string(), "/r");
  EXPECT_EQ(document["text"].string(), "behind");

  TestEngine api(config(MetricsTo::put_metric_data));
  record(api);
  const Json body(testing::body_of(api.http.requests().at(0)));
  ASSERT_EQ(body["MetricData"].size(), 5U);
  for (std::size_t i = 0; i < 5; ++i) {
    const Json datum = body["MetricData"][i];
    EXPECT_EQ(datum["StatisticValues"]["Sum"].number(),
              datum["MetricName"].string() == "Kept" ? smallest : 0);
  }
}

// More dimension values than are known at once, twice over: what was forgotten is found again.
TEST_F(WideEventTest, SeriesOfEventsAreTheSameWhoseDimensionsAre) {
  int interned = 0;
  detail::EventSeries all({{"Service", "orders"}}, [&](const detail::SeriesKey& key) {
    EXPECT_EQ(key.dimensions.size(), 2U);
    ++interned;
    return static_cast<std::uint32_t>(std::stoul(key.dimensions[1].value)) * 2 +
           (key.name == "Second" ? 1U : 0U);
  });
  using detail::FieldRole;
  using detail::ValueType;
  const detail::SiteInfo site{Severity::info,
                              "",
                              "a.cpp",
                              1,
                              {{"First", ValueType::real, FieldRole::metric, Unit::none},
                               {"note", ValueType::string},
                               {"Route", ValueType::string, FieldRole::dimension},
                               {"Second", ValueType::real, FieldRole::metric, Unit::none}}};
  const detail::ContextTexts nobody;
  constexpr std::uint32_t routes = detail::EventSeries::known_max + 10;
  for (int round = 0; round < 2; ++round) {
    for (std::uint32_t route = 0; route < routes; ++route) {
      for (const char* const note : {"a", "another"}) {
        const testing::Packed values =
            testing::Packed().number(1.0).string(note).string(std::to_string(route)).number(2.0);
        const auto series = all.of({&site, 1, 0, &nobody, values.bytes()});
        ASSERT_EQ(series.size(), 2U);
        ASSERT_EQ(series[0], route * 2);
        ASSERT_EQ(series[1], route * 2 + 1);
      }
    }
  }
  EXPECT_GE(interned, 4 * static_cast<int>(routes) - 40);
  EXPECT_LE(interned, 4 * static_cast<int>(routes)) << "once for each, whatever its properties are";
}

TEST_F(WideEventTest, WithMetricsOffNothingIsEvaluated) {
  TestEngine test(config(MetricsTo::none));
  int evaluated = 0;
  SPILLWAY_EVENT(test.engine, EventMetric{"N", ++evaluated});
  EXPECT_EQ(evaluated, 0);
  EXPECT_EQ(test.engine.stats().metrics.recorded, 0U);
}

TEST_F(WideEventTest, EventsOfOldTimesAreDroppedAsExpired) {
  TestEngine test(config());
  SPILLWAY_EVENT(test.engine, EventMetric{"A", 1}, EventMetric{"B", 1});
  test.clock.step_wall(15 * 24h);
  SPILLWAY_EVENT(test.engine, EventMetric{"A", 1});
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(test.engine.stats().metrics.dropped_for(DropCause::expired), 2U);
  EXPECT_EQ(documents(test).size(), 1U);
}

TEST_F(WideEventTest, ManyThreadsAreAccountedFor) {
  Config to_file = config(MetricsTo::emf_file);
  to_file.metrics_file = "/dev/null";
  Engine engine(to_file);
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&engine, thread] {
      for (int i = 0; i < 5000; ++i) {
        SPILLWAY_EVENT(engine, EventMetric{"A", i}, EventMetric{"B", thread},
                       EventProperty{"i", std::to_string(i)}, EventDimension{"Route", "/r"});
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const Stats stats = engine.shutdown(10s);
  EXPECT_EQ(stats.metrics.recorded, 40'000U);
  EXPECT_TRUE(is_settled(stats.metrics));
}

}  // namespace
}  // namespace spillway
