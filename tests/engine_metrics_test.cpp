// SPDX-License-Identifier: Apache-2.0
//
// Metrics through the whole engine on a stopped clock: from add(), set() and record() to the bytes
// of the requests.
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <thread>

#include <support/engine_fixture.hpp>
#include <support/gunzip.hpp>

#include <spillway/encoders/limits.hpp>
#include <spillway/engine/services.hpp>

namespace spillway {
namespace {

using namespace std::chrono_literals;
using testing::aws_config;
using testing::is_settled;
using testing::Json;

class EngineMetricsTest : public ::testing::Test {
 protected:
  static Config config() {
    Config config = aws_config();
    config.logs = LogsTo::none;
    config.traces = TracesTo::none;
    config.on_diagnostic = [](std::string_view text) { diagnostics.emplace_back(text); };
    return config;
  }
  EngineMetricsTest() { diagnostics.clear(); }

  // The datums of all PutMetricData requests so far, by name and dimension values.
  std::map<std::string, std::vector<Json>> datums(const testing::TestEngine& test) {
    std::map<std::string, std::vector<Json>> found;
    for (const auto& request : test.http.requests()) {
      EXPECT_EQ(testing::operation_of(request), "PutMetricData");
      const Json body(testing::body_of(request));
      EXPECT_EQ(body["Namespace"].string(), "Shop");
      for (std::size_t i = 0; i < body["MetricData"].size(); ++i) {
        const Json datum = body["MetricData"][i];
        std::string name = datum["MetricName"].string();
        for (std::size_t d = 0; d < datum["Dimensions"].size(); ++d) {
          name += "|" + datum["Dimensions"][d]["Name"].string() + "=" +
                  datum["Dimensions"][d]["Value"].string();
        }
        found[name].push_back(datum);
      }
    }
    return found;
  }

  testing::AwsEnvironment environment;
  static inline std::vector<std::string> diagnostics;
};

TEST_F(EngineMetricsTest, NothingIsSentBeforeTheIntervalEnds) {
  testing::TestEngine test(config());
  test.engine.counter("Requests").add(1);
  test.advance(9s);
  EXPECT_TRUE(test.http.requests().empty());
  test.advance(1s);
  test.settle();
  ASSERT_EQ(test.http.requests().size(), 1U);
  EXPECT_TRUE(is_settled(test.engine.stats().metrics));
  EXPECT_EQ(test.engine.stats().metrics.delivered, 1U);
}

TEST_F(EngineMetricsTest, EachKindArrivesAsItsDatum) {
  testing::TestEngine test(config());
  const Counter requests = test.engine.counter("Requests");
  const Gauge depth = test.engine.gauge("Depth", Unit::count);
  const Histogram latency =
      test.engine.histogram("Latency", Unit::microseconds, {{"Route", "/orders"}});
  for (int i = 1; i <= 10; ++i) {
    requests.add(i);
    depth.set(10 - i);
    latency.record(i * 100);
  }
  ASSERT_TRUE(test.engine.flush(1s));
  auto found = datums(test);
  ASSERT_EQ(found.size(), 3U);
  const Json counter = found["Requests|Service=orders"].at(0);
  EXPECT_EQ(counter["Value"].number(), 55);
  EXPECT_EQ(counter["Unit"].string(), "Count");
  EXPECT_EQ(counter["StorageResolution"].number(), 60);
  EXPECT_EQ(counter["Timestamp"].number(), 1795222800);
  const Json gauge = found["Depth|Service=orders"].at(0)["StatisticValues"];
  EXPECT_EQ(gauge["SampleCount"].number(), 10);
  EXPECT_EQ(gauge["Sum"].number(), 45);
  EXPECT_EQ(gauge["Minimum"].number(), 0);
  EXPECT_EQ(gauge["Maximum"].number(), 9);
  const Json histogram = found["Latency|Route=/orders|Service=orders"].at(0);
  EXPECT_EQ(histogram["StatisticValues"]["SampleCount"].number(), 10);
  EXPECT_EQ(histogram["StatisticValues"]["Sum"].number(), 5500);
  EXPECT_EQ(histogram["StatisticValues"]["Minimum"].number(), 100);
  EXPECT_EQ(histogram["StatisticValues"]["Maximum"].number(), 1000);
  EXPECT_EQ(histogram["Values"].size(), histogram["Counts"].size());
  EXPECT_TRUE(is_settled(test.engine.stats().metrics));
}

TEST_F(EngineMetricsTest, AnIntervalReportsOnlyWhatWasRecordedInIt) {
  testing::TestEngine test(config());
  const Counter requests = test.engine.counter("Requests");
  requests.add(5);
  ASSERT_TRUE(test.engine.flush(1s));
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(test.http.requests().size(), 1U) << "an idle interval sends nothing";
  requests.add(2);
  ASSERT_TRUE(test.engine.flush(1s));
  auto found = datums(test)["Requests|Service=orders"];
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0]["Value"].number(), 5);
  EXPECT_EQ(found[1]["Value"].number(), 2);
}

TEST_F(EngineMetricsTest, HighResolutionKeepsItsSeconds) {
  testing::TestEngine test(config());
  const Histogram latency =
      test.engine.histogram("Latency", Unit::milliseconds, {}, Resolution::second);
  latency.record(1);
  test.advance(1s);
  latency.record(2);
  test.advance(1s);
  test.settle();
  auto found = datums(test)["Latency|Service=orders"];
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0]["StorageResolution"].number(), 1);
  EXPECT_EQ(found[1]["Timestamp"].number() - found[0]["Timestamp"].number(), 1);
}

TEST_F(EngineMetricsTest, ThreadsAddUp) {
  testing::TestEngine test(config());
  const Counter requests = test.engine.counter("Requests");
  const Histogram latency = test.engine.histogram("Latency");
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 1000; ++i) {
        requests.add(1);
        latency.record(t * 1000 + i);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_TRUE(test.engine.flush(1s));
  auto found = datums(test);
  EXPECT_EQ(found["Requests|Service=orders"].at(0)["Value"].number(), 4000);
  double count = 0;
  double sum = 0;
  for (const Json& datum : found["Latency|Service=orders"]) {
    count += datum["StatisticValues"]["SampleCount"].number();
    sum += datum["StatisticValues"]["Sum"].number();
  }
  EXPECT_EQ(count, 4000);
  EXPECT_EQ(sum, 3999.0 * 4000 / 2);
  EXPECT_EQ(test.engine.stats().metrics.delivered, 8000U);
}

TEST_F(EngineMetricsTest, BadMeasurementsAreCountedAndTheirNeighboursGoOut) {
  testing::TestEngine test(config());
  const Counter requests = test.engine.counter("Requests");
  const Gauge depth = test.engine.gauge("Depth");
  const Histogram latency = test.engine.histogram("Latency");
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  requests.add(-1);
  requests.add(-0.5);
  requests.add(nan);
  requests.add(infinity);
  for (const double bad : {nan, infinity, -infinity, 0x1p361, -0x1p361}) {
    depth.set(bad);
    latency.record(bad);
    latency.sample(bad);
  }
  requests.add(2);
  depth.set(3);
  latency.record(4);
  ASSERT_TRUE(test.engine.flush(1s));
  const Stats stats = test.engine.stats();
  EXPECT_EQ(stats.metrics.dropped_for(DropCause::invalid), 4U + 15U);
  EXPECT_EQ(stats.metrics.delivered, 3U);
  EXPECT_TRUE(is_settled(stats.metrics));
  auto found = datums(test);
  EXPECT_EQ(found["Requests|Service=orders"].at(0)["Value"].number(), 2);
  EXPECT_EQ(found["Depth|Service=orders"].at(0)["StatisticValues"]["Sum"].number(), 3);
  EXPECT_EQ(found["Latency|Service=orders"].at(0)["StatisticValues"]["Sum"].number(), 4);
}

TEST_F(EngineMetricsTest, WhatIsTooSmallForTheServiceIsZero) {
  testing::TestEngine test(config());
  constexpr double least = 8.515920e-109;
  const Gauge gauge = test.engine.gauge("Gauge");
  const Histogram histogram = test.engine.histogram("Histogram");
  const Counter counter = test.engine.counter("Counter");
  for (const double value : {1e-310, -1e-310, std::nextafter(least, 0), least}) {
    gauge.set(value);
    histogram.record(value);
  }
  counter.add(1e-200);
  histogram.record(5);
  ASSERT_TRUE(test.engine.flush(1s));
  auto found = datums(test);
  for (const char* const name :
       {"Gauge|Service=orders", "Histogram|Service=orders", "Counter|Service=orders"}) {
    ASSERT_EQ(found[name].size(), 1U) << name;
  }
  const Json gauges = found["Gauge|Service=orders"].at(0)["StatisticValues"];
  EXPECT_EQ(gauges["SampleCount"].number(), 4);
  EXPECT_EQ(gauges["Minimum"].number(), 0);
  EXPECT_EQ(gauges["Maximum"].number(), least);
  EXPECT_EQ(found["Counter|Service=orders"].at(0)["Value"].number(), 0);
  const Json values = found["Histogram|Service=orders"].at(0);
  double counts = 0;
  for (std::size_t i = 0; i < values["Counts"].size(); ++i) counts += values["Counts"][i].number();
  EXPECT_EQ(counts, 5);
  EXPECT_TRUE(is_settled(test.engine.stats().metrics));
}

TEST_F(EngineMetricsTest, AsLongAsItTakesIsATime) {
  testing::TestEngine test(config());
  test.engine.counter("Requests").add(1);
  EXPECT_TRUE(test.engine.flush(std::chrono::milliseconds::max()));
  test.engine.counter("Requests").add(1);
  EXPECT_EQ(test.engine.shutdown(std::chrono::milliseconds::max()).metrics.delivered, 2U);
}

TEST_F(EngineMetricsTest, ACounterTakesEveryAmount) {
  testing::TestEngine test(config());
  const Counter bytes = test.engine.counter("Bytes", Unit::bytes);
  const auto by_tenant = test.engine.per(bytes, ContextField::tenant, "TenantID");
  const Context context{{.tenant = "acme"}};
  const Scope scope(context);
  for (int i = 0; i < 3; ++i) {
    bytes.add(~0ULL);  // 2^64 less 1: three of them wrapped where sums were integers.
    bytes.add(0);
    bytes.add(0.5);
    by_tenant.add(~0ULL);
    by_tenant.add(0);
    by_tenant.add(0.5);
  }
  bytes.add(true ? 7LL : 0LL);
  ASSERT_TRUE(test.engine.flush(1s));
  auto found = datums(test);
  EXPECT_EQ(found["Bytes|Service=orders"].at(0)["Value"].number(), 3 * 0x1p64);
  EXPECT_EQ(found["Bytes|Service=orders|TenantID=acme"].at(0)["Value"].number(), 3 * 0x1p64);
  EXPECT_EQ(test.engine.stats().metrics.delivered, 19U);
}

TEST_F(EngineMetricsTest, AnIllegalSeriesIsRefusedWithAReasonAndSinksNothing) {
  testing::TestEngine test(config());
  const Counter good = test.engine.counter("Good");
  const Counter empty_value = test.engine.counter("Bad", Unit::count, {{"Route", ""}});
  const Histogram empty_name = test.engine.histogram("");
  const Gauge control = test.engine.gauge("Bad", Unit::none, {{"Route", "a\nb"}});
  const Counter same_twice = test.engine.counter("Bad", Unit::count, {{"Service", "x"}});
  const Counter like_dimension = test.engine.counter("Service");
  Dimensions many;
  for (int i = 0; i < 30; ++i) many.push_back({"D" + std::to_string(i), "v"});
  const Counter too_many = test.engine.counter("Bad", Unit::count, many);
  good.add(1);
  empty_value.add(1);
  empty_name.record(1);
  control.set(1);
  same_twice.add(1);
  like_dimension.add(1);
  too_many.add(1);
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(datums(test).size(), 1U);
  const Stats stats = test.engine.stats();
  EXPECT_EQ(stats.metrics.dropped_for(DropCause::invalid), 6U);
  EXPECT_EQ(stats.metrics.delivered, 1U);
  EXPECT_TRUE(is_settled(stats.metrics));
  ASSERT_FALSE(diagnostics.empty());
  EXPECT_NE(diagnostics[0].find("'Route' is empty"), std::string::npos) << diagnostics[0];
}

TEST_F(EngineMetricsTest, WhatIsWrongWithATenantIsNotSaidOnTheRequestsThread) {
  Config config = EngineMetricsTest::config();
  testing::TestEngine* engine = nullptr;
  config.on_diagnostic = [&](std::string_view text) {
    diagnostics.emplace_back(text);
    engine->engine.counter("Diagnostics").add(1);  // No operation is under way.
  };
  testing::TestEngine test(config);
  engine = &test;
  const auto requests =
      test.engine.per(test.engine.counter("Requests"), ContextField::tenant, "TenantID");
  const Context context{{.tenant = "Müller"}};
  {
    const Scope scope(context);
    requests.add(1);
    requests.add(1);
  }
  EXPECT_TRUE(diagnostics.empty());
  test.engine.step();
  ASSERT_EQ(diagnostics.size(), 1U);
  EXPECT_NE(diagnostics[0].find("Requests"), std::string::npos) << diagnostics[0];
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(diagnostics.size(), 1U);
  const Stats stats = test.engine.stats();
  EXPECT_EQ(stats.metrics.delivered, 1U) << "the one of the callback";
  EXPECT_EQ(stats.metrics.dropped_for(DropCause::invalid), 2U);
  EXPECT_TRUE(is_settled(stats.metrics));
}

TEST_F(EngineMetricsTest, ThirtyDimensionsWithTheConfiguredOnesAreTaken) {
  testing::TestEngine test(config());
  Dimensions many;
  for (int i = 0; i < 29; ++i) many.push_back({"D" + std::to_string(i), "v"});
  test.engine.counter("Good", Unit::count, many).add(1);
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(test.engine.stats().metrics.delivered, 1U);
}

TEST_F(EngineMetricsTest, TheSameWordsGiveTheSameSeries) {
  testing::TestEngine test(config());
  const Counter first = test.engine.counter("Requests", Unit::count, {{"A", "1"}, {"B", "2"}});
  const Counter second = test.engine.counter("Requests", Unit::count, {{"B", "2"}, {"A", "1"}});
  first.add(1);
  second.add(1);
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(datums(test).begin()->second.at(0)["Value"].number(), 2);
  EXPECT_EQ(test.engine.stats().series, 1U);
}

TEST_F(EngineMetricsTest, WithAddsDimensions) {
  testing::TestEngine test(config());
  const Counter requests = test.engine.counter("Requests");
  test.engine.with(requests, {{"TenantID", "acme"}}).add(3);
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(datums(test)["Requests|Service=orders|TenantID=acme"].at(0)["Value"].number(), 3);
}

TEST_F(EngineMetricsTest, TheContextChoosesTheSeries) {
  testing::TestEngine test(config());
  const auto requests =
      test.engine.per(test.engine.counter("Requests"), ContextField::tenant, "TenantID");
  const auto latency =
      test.engine.per(test.engine.histogram("Latency"), ContextField::user, "User");
  requests.add(1);
  for (const char* const tenant : {"acme", "globex", "acme"}) {
    const Context context{{.tenant = tenant, .user = "u-1"}};
    const Scope scope(context);
    requests.add(10);
    latency.record(5);
  }
  ASSERT_TRUE(test.engine.flush(1s));
  auto found = datums(test);
  EXPECT_EQ(found["Requests|Service=orders"].at(0)["Value"].number(), 1);
  EXPECT_EQ(found["Requests|Service=orders|TenantID=acme"].at(0)["Value"].number(), 20);
  EXPECT_EQ(found["Requests|Service=orders|TenantID=globex"].at(0)["Value"].number(), 10);
  EXPECT_EQ(
      found["Latency|Service=orders|User=u-1"].at(0)["StatisticValues"]["SampleCount"].number(), 3);
}

TEST_F(EngineMetricsTest, AnIllegalTenantIsRefusedForItselfOnly) {
  testing::TestEngine test(config());
  const auto requests =
      test.engine.per(test.engine.counter("Requests"), ContextField::tenant, "TenantID");
  for (const char* const tenant : {"acme", "\x01"}) {
    const Context context{{.tenant = tenant}};
    const Scope scope(context);
    requests.add(1);
  }
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(datums(test).size(), 1U);
  EXPECT_EQ(test.engine.stats().metrics.dropped_for(DropCause::invalid), 1U);
}

TEST_F(EngineMetricsTest, ManyTenantsThroughTheCacheKeepTheirCounts) {
  testing::TestEngine test(config());
  const auto requests =
      test.engine.per(test.engine.counter("Requests"), ContextField::tenant, "TenantID");
  constexpr int tenants = 6000;  // More than a thread's cache has places for.
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < tenants; ++i) {
      const Context context{{.tenant = "tenant-" + std::to_string(i)}};
      const Scope scope(context);
      requests.add(1);
    }
  }
  ASSERT_TRUE(test.engine.flush(1s));
  auto found = datums(test);
  ASSERT_EQ(found.size(), static_cast<std::size_t>(tenants));
  for (const auto& [name, all] : found) {
    ASSERT_EQ(all.size(), 1U);
    ASSERT_EQ(all[0]["Value"].number(), 3) << name;
  }
}

TEST_F(EngineMetricsTest, MetricsAreNotLostWhenTheRingIsFull) {
  Config small = config();
  small.ring_bytes = 4096;
  testing::TestEngine test(small);
  const Counter requests = test.engine.counter("Requests");
  const Histogram latency = test.engine.histogram("Latency");
  for (int i = 0; i < 10'000; ++i) {
    requests.add(1);
    latency.sample(i % 100);  // Through the ring, which holds some 150 of them.
  }
  const Stats before = test.engine.stats();
  EXPECT_GT(before.samples_folded, 9'000U);
  ASSERT_TRUE(test.engine.flush(1s));
  const Stats stats = test.engine.stats();
  EXPECT_EQ(stats.metrics.recorded, 20'000U);
  EXPECT_EQ(stats.metrics.delivered, 20'000U);
  EXPECT_TRUE(is_settled(stats.metrics));
  auto found = datums(test);
  double count = 0;
  double sum = 0;
  for (const Json& datum : found["Latency|Service=orders"]) {
    count += datum["StatisticValues"]["SampleCount"].number();
    sum += datum["StatisticValues"]["Sum"].number();
  }
  EXPECT_EQ(count, 10'000);
  EXPECT_EQ(sum, 49.5 * 10'000);
}

TEST_F(EngineMetricsTest, MoreDatumsThanARequestTakesGoInSeveral) {
  Config many = config();
  testing::TestEngine test(many);
  for (int i = 0; i < 2500; ++i) {
    test.engine.counter("M" + std::to_string(i)).add(1);
  }
  ASSERT_TRUE(test.engine.flush(1s));
  ASSERT_EQ(test.http.requests().size(), 3U);
  EXPECT_EQ(datums(test).size(), 2500U);
  EXPECT_EQ(test.engine.stats().metrics.delivered, 2500U);
}

TEST_F(EngineMetricsTest, EmfDocumentsGroupBySetAndCarryTheValues) {
  Config emf = config();
  emf.metrics = MetricsTo::emf_logs;
  emf.emf_log_group = "/shop/metrics";
  testing::TestEngine test(emf);
  test.engine.counter("Requests").add(7);
  test.engine.histogram("Latency", Unit::milliseconds).record(12.5);
  test.engine.gauge("Depth", Unit::none, {{"Queue", "q"}}).set(3);
  ASSERT_TRUE(test.engine.flush(1s));
  ASSERT_EQ(testing::operations(test), (std::vector<std::string>{"PutLogEvents"}));
  const Json body(test.http.requests()[0].body);
  EXPECT_EQ(body["logGroupName"].string(), "/shop/metrics");
  ASSERT_EQ(body["logEvents"].size(), 2U);
  const Json with_queue(body["logEvents"][0]["message"].string());
  EXPECT_EQ(with_queue["Depth"].number(), 3);
  EXPECT_EQ(with_queue["Queue"].string(), "q");
  const Json document(body["logEvents"][1]["message"].string());
  const Json directive = document["_aws"]["CloudWatchMetrics"][0];
  EXPECT_EQ(directive["Namespace"].string(), "Shop");
  EXPECT_EQ(directive["Metrics"].size(), 2U);
  EXPECT_EQ(document["Requests"].number(), 7);
  EXPECT_EQ(document["Latency"].number(), 12.5);
  EXPECT_EQ(document["Service"].string(), "orders");
  EXPECT_EQ(test.engine.stats().metrics.delivered, 3U);
}

TEST_F(EngineMetricsTest, IntervalsEndWithTheSecondsOfTheWallClock) {
  testing::TestEngine test(config());
  test.advance(3700ms);
  const Counter requests = test.engine.counter("Requests");
  const Counter fine = test.engine.counter("Fine", Unit::count, {}, Resolution::second);
  requests.add(1);
  fine.add(1);
  test.advance(200ms);
  test.settle();
  EXPECT_TRUE(test.http.requests().empty()) << "the second is not over";
  test.advance(100ms);
  test.settle();
  ASSERT_EQ(datums(test).size(), 1U) << "the first second, which began in the middle";
  test.advance(5990ms);
  EXPECT_EQ(datums(test).size(), 1U);
  test.advance(10ms);
  test.settle();
  requests.add(2);
  test.advance(25s);  // The flusher was not let run.
  test.settle();
  requests.add(3);
  test.advance(5s);
  test.settle();
  auto found = datums(test)["Requests|Service=orders"];
  ASSERT_EQ(found.size(), 3U);
  const double begin = 1795222800;
  EXPECT_EQ(found[0]["Timestamp"].number(), begin);
  EXPECT_EQ(found[1]["Timestamp"].number(), begin + 10);
  EXPECT_EQ(found[2]["Timestamp"].number(), begin + 30);
  EXPECT_EQ(datums(test)["Fine|Service=orders"].at(0)["Timestamp"].number(), begin + 3);
}

TEST_F(EngineMetricsTest, WhatTheServiceWouldNotTakeForItsTimeIsDroppedBeforeItIsSent) {
  struct Step {
    std::chrono::seconds by;
    bool expired;
  };
  // The interval began at the wall clock's old time, before it was set.
  const std::chrono::seconds past(limits::metric_past_seconds_max);
  const std::chrono::seconds future(limits::metric_future_seconds_max);
  for (const Step& step :
       {Step{past, false}, Step{past + 1s, true}, Step{-future, false}, Step{-future - 1s, true}}) {
    testing::TestEngine test(config());
    const Counter requests = test.engine.counter("Requests");
    requests.add(1);
    requests.add(1);
    test.clock.step_wall(step.by);
    test.settle();
    EXPECT_EQ(test.engine.stats().metrics.dropped_for(DropCause::expired), step.expired ? 2U : 0U);
    requests.add(1);
    test.advance(10s);
    test.settle();
    EXPECT_EQ(test.engine.stats().metrics.delivered, step.expired ? 1U : 3U);
    EXPECT_TRUE(is_settled(test.engine.stats().metrics));
  }
}

TEST_F(EngineMetricsTest, OneRecordFeedsSeveralSetsAndIsCountedOnce) {
  Config sets = config();
  sets.rollups = DimensionSets{{"Service"}, {"Service", "Route"}, {"Nowhere"}};
  testing::TestEngine test(sets);
  for (int tenant = 0; tenant < 3; ++tenant) {
    const Dimensions dimensions{{"Route", tenant == 2 ? "/b" : "/a"},
                                {"TenantID", std::to_string(tenant)}};
    test.engine.counter("Requests", Unit::count, dimensions).add(10 + tenant);
    const Histogram latency = test.engine.histogram("Latency", Unit::milliseconds, dimensions);
    for (int i = 1; i <= 100; ++i) latency.record(i * (tenant + 1));
    test.engine.gauge("Depth", Unit::count, dimensions).set(tenant);
  }
  test.engine.counter("Requests").add(1000);  // Of the set itself.
  ASSERT_TRUE(test.engine.flush(1s));
  auto found = datums(test);
  EXPECT_EQ(found["Requests|Service=orders"].at(0)["Value"].number(), 1033);
  EXPECT_EQ(found["Requests|Route=/a|Service=orders"].at(0)["Value"].number(), 21);
  EXPECT_EQ(found["Requests|Route=/b|Service=orders"].at(0)["Value"].number(), 12);
  EXPECT_EQ(found["Requests|Route=/b|Service=orders|TenantID=2"].at(0)["Value"].number(), 12);
  EXPECT_EQ(found["Depth|Service=orders"].at(0)["StatisticValues"]["Maximum"].number(), 2);
  double count = 0;
  double sum = 0;
  double weighted = 0;
  for (const Json& datum : found["Latency|Service=orders"]) {
    count += datum["StatisticValues"]["SampleCount"].number();
    sum += datum["StatisticValues"]["Sum"].number();
    for (std::size_t i = 0; i < datum["Values"].size(); ++i) {
      weighted += datum["Values"][i].number() * datum["Counts"][i].number();
    }
  }
  EXPECT_EQ(count, 300);
  EXPECT_EQ(sum, 5050 * 6);
  EXPECT_EQ(weighted, 5050 * 6);
  EXPECT_EQ(found["Latency|Route=/a|Service=orders"].at(0)["StatisticValues"]["Maximum"].number(),
            200);
  const SignalStats stats = test.engine.stats().metrics;
  EXPECT_EQ(stats.recorded, 3U + 300U + 3U + 1U);
  EXPECT_EQ(stats.delivered, stats.recorded);
  EXPECT_TRUE(is_settled(stats));
  // The next interval begins from nothing.
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(datums(test)["Requests|Service=orders"].size(), 1U);
}

TEST_F(EngineMetricsTest, AMetricIsReportedByTheSetsThatItDeclares) {
  for (const MetricsTo to : {MetricsTo::put_metric_data, MetricsTo::emf_logs, MetricsTo::otlp}) {
    Config declared = config();
    declared.metrics = to;
    declared.histogram_error = 0.1;
    testing::TestEngine test(declared);
    test.engine.report_by("Latency", {{"Route", "Service"}, {"TenantID"}});
    const Histogram other = test.engine.histogram("Latency", Unit::none, {{"Queue", "q"}});
    other.record(1);
    for (int tenant = 0; tenant < 2; ++tenant) {
      const Histogram latency = test.engine.histogram(
          "Latency", Unit::milliseconds, {{"Route", "/a"}, {"TenantID", std::to_string(tenant)}});
      for (int i = 1; i <= 1000; ++i) latency.record(i * 1.5);
    }
    ASSERT_TRUE(test.engine.flush(1s));
    const SignalStats stats = test.engine.stats().metrics;
    EXPECT_EQ(stats.recorded, 2001U);
    EXPECT_EQ(stats.delivered, 2001U);
    EXPECT_TRUE(is_settled(stats));
    if (to != MetricsTo::put_metric_data) continue;
    auto found = datums(test);
    EXPECT_EQ(found.size(), 4U);
    EXPECT_EQ(found.count("Latency|Queue=q|Service=orders"), 1U)
        << "a series that no set is made of is reported as it is";
    EXPECT_EQ(found["Latency|Route=/a|Service=orders"].at(0)["StatisticValues"]["Sum"].number(),
              2 * 1.5 * 500'500);
    EXPECT_EQ(found["Latency|TenantID=1"].at(0)["StatisticValues"]["SampleCount"].number(), 1000);
    EXPECT_LT(found["Latency|TenantID=1"].at(0)["Values"].size(), 150U) << "10 % apart";
  }
}

TEST_F(EngineMetricsTest, SetsDeclaredLaterHoldFromThenOn) {
  testing::TestEngine test(config());
  const Counter requests = test.engine.counter("Requests", Unit::count, {{"Route", "/a"}});
  requests.add(1);
  ASSERT_TRUE(test.engine.flush(1s));
  test.engine.report_by("Requests", {{"Service"}});
  requests.add(1);
  ASSERT_TRUE(test.engine.flush(1s));
  auto found = datums(test);
  EXPECT_EQ(found["Requests|Route=/a|Service=orders"].size(), 1U);
  EXPECT_EQ(found["Requests|Service=orders"].size(), 1U);
  EXPECT_EQ(test.engine.stats().metrics.delivered, 2U);
}

TEST_F(EngineMetricsTest, AnExplodingDimensionIsFoldedNamedAndLosesNothing) {
  Config small = config();
  small.series_per_metric_max = 50;
  small.rollups = DimensionSets{{"Service"}};
  testing::TestEngine test(small);
  const auto tenant_of = [](int i) { return "tenant-" + std::to_string(i); };
  for (int i = 0; i < 500; ++i) {
    const Counter requests = test.engine.counter(
        "Requests", Unit::count, {{"Route", i % 2 == 0 ? "/a" : "/b"}, {"TenantID", tenant_of(i)}});
    requests.add(1);
    if (i == 7) {
      for (int more = 0; more < 99; ++more) requests.add(1);
    }
  }
  test.engine.counter("Quiet").add(1);
  ASSERT_TRUE(test.engine.flush(1s));
  auto found = datums(test);
  EXPECT_EQ(found["Requests|Route=/a|Service=orders|TenantID=__other__"].at(0)["Value"].number(),
            225);
  EXPECT_EQ(found["Requests|Route=/b|Service=orders|TenantID=__other__"].at(0)["Value"].number(),
            225);
  EXPECT_EQ(found["Requests|Service=orders"].at(0)["Value"].number(), 599);
  const Stats stats = test.engine.stats();
  EXPECT_EQ(stats.metrics.delivered, 600U);
  EXPECT_TRUE(is_settled(stats.metrics));
  ASSERT_EQ(stats.folded_metrics.size(), 1U);
  const FoldedMetric& folded = stats.folded_metrics[0];
  EXPECT_EQ(folded.metric, "Requests");
  EXPECT_EQ(folded.dimension, "TenantID");
  EXPECT_EQ(folded.dimension_values, 50U);
  EXPECT_EQ(folded.measurements, 450U);
  ASSERT_EQ(folded.top_values.size(), 5U);
  EXPECT_EQ(folded.top_values[0], (std::pair<std::string, std::uint64_t>("tenant-7", 100)));
  const Json json(stats.to_json());
  EXPECT_EQ(json["folded_metrics"][0]["top_values"]["tenant-7"].number(), 100);
  EXPECT_EQ(json["folded_metrics"][0]["measurements"].number(), 450);
  ASSERT_TRUE(test.engine.flush(1s));
  ASSERT_EQ(diagnostics.size(), 1U) << "said once";
  EXPECT_NE(diagnostics[0].find("TenantID"), std::string::npos);
  EXPECT_NE(diagnostics[0].find("'tenant-7' (100)"), std::string::npos);
}

TEST_F(EngineMetricsTest, SlowValuesOfSampledTracesAreExemplars) {
  Config emf = config();
  emf.metrics = MetricsTo::emf_logs;
  emf.emf_log_group = "/shop/metrics";
  emf.traces = TracesTo::put_trace_segments;
  emf.rollups = DimensionSets{{"Service"}};
  testing::TestEngine test(emf);
  const Histogram latency = test.engine.histogram("Latency", Unit::milliseconds, {{"Route", "/a"}});
  latency.record(10);  // In no trace.
  std::string slowest;
  for (const double value : {5.0, 20.0, 15.0, 40.0, 30.0}) {
    const Span span = test.engine.span("request");
    latency.record(value);
    if (value == 40.0) slowest = to_string(span.trace_id());
  }
  {
    const Context unsampled{
        {.trace = TraceParent{.trace_id = {7, 8}, .parent_id = 9, .sampled = Sampled::no}}};
    const Scope scope(unsampled);
    latency.record(100);
  }
  ASSERT_TRUE(test.engine.flush(1s));
  std::size_t documents = 0;
  for (const auto& request : test.http.requests()) {
    if (testing::operation_of(request) != "PutLogEvents") continue;
    const Json body(request.body);
    for (std::size_t i = 0; i < body["logEvents"].size(); ++i, ++documents) {
      const Json document(body["logEvents"][i]["message"].string());
      const Json exemplars = document["exemplars"]["Latency"];
      ASSERT_EQ(exemplars.size(), 2U) << "of the series and of its sum";
      EXPECT_EQ(exemplars[std::size_t{0}]["value"].number(), 40);
      EXPECT_EQ(exemplars[std::size_t{0}]["trace_id"].string(), slowest);
      EXPECT_EQ(exemplars[std::size_t{0}]["span_id"].string().size(), 16U);
      EXPECT_EQ(exemplars[1]["value"].number(), 20);
    }
  }
  EXPECT_EQ(documents, 2U);
}

TEST_F(EngineMetricsTest, MetricsThatGoNowhereAreAccountedAllTheSame) {
  Config nowhere = config();
  nowhere.metrics = MetricsTo::none;
  testing::TestEngine test(nowhere);
  test.engine.counter("Requests").add(7);
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_TRUE(test.http.requests().empty());
  EXPECT_TRUE(is_settled(test.engine.stats().metrics));
}

TEST_F(EngineMetricsTest, AHandleOutlivesItsEngine) {
  Counter requests;
  requests.add(1);  // Of no engine.
  {
    testing::TestEngine test(config());
    requests = test.engine.counter("Requests");
    requests.add(1);
  }
  requests.add(1);
}

TEST_F(EngineMetricsTest, WhatAnUnfinishedCallHoldsAtShutdownIsCounted) {
  auto test = std::make_unique<testing::TestEngine>(config());
  const Counter requests = test->engine.counter("Requests");
  const Histogram latency = test->engine.histogram("Latency");
  for (int i = 0; i < 1000; ++i) {
    requests.add(1);
    latency.record(i);
  }
  detail::Lane* const stuck = detail::enter(requests.ref().engine_id);
  ASSERT_NE(stuck, nullptr);
  EXPECT_FALSE(test->engine.flush(1s)) << "not everything is delivered";
  const Stats stats = test->engine.shutdown(0ms);
  EXPECT_EQ(stats.metrics.recorded, 2000U);
  EXPECT_EQ(stats.metrics.dropped_for(DropCause::shutdown_deadline), 1000U);
  EXPECT_EQ(stats.metrics.delivered, 1000U) << "counters are read beside their producer";
  EXPECT_TRUE(is_settled(stats.metrics));
  test.reset();
  // What the call needs of the engine is still there.
  EXPECT_FALSE(stuck->services().with_dimension(requests.ref(), "TenantID", "acme").engine_id ==
               detail::no_engine_id);
  stuck->leave();
}

}  // namespace
}  // namespace spillway
