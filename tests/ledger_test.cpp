// SPDX-License-Identifier: Apache-2.0
//
// The account as it is published: as metrics of the engine's own, as JSON, and as the table that is
// printed at exit. A number that is left out of one of them fails a test.
#include <map>
#include <set>

#include <support/engine_fixture.hpp>
#include <support/gunzip.hpp>
#include <support/temporary_file.hpp>

#include <spillway/engine/self_metrics.hpp>

namespace spillway {
namespace {

using namespace std::chrono_literals;
using testing::aws_config;
using testing::is_settled;
using testing::Json;
using transport::MemoryTransport;

// ---- A made-up account, no two numbers of which are the same ----

struct Numbers {
  std::uint64_t next = 1001;
  std::uint64_t operator()() { return next++; }
};

SignalStats signal_of(Numbers& number, const std::string& destination) {
  SignalStats of;
  of.delivered = number();
  for (std::uint64_t& cause : of.dropped) cause = number();
  of.held_in_rings = number();
  of.held_in_batch = number();
  of.held_in_queue = number();
  of.held_in_spool = number();
  of.recovered = number();
  of.destination = destination;
  of.delivery = {number(), number(), number(), number(), number(), number()};
  of.recorded = of.delivered + of.dropped_total() + of.held() + number();
  return of;
}

Stats made_up() {
  Numbers number;
  Stats stats;
  stats.metrics = signal_of(number, "put-metric-data");
  stats.logs = signal_of(number, "put-log-events");
  stats.spans = signal_of(number, "put-trace-segments");
  return stats;
}

// Every number that a signal's account has, by name.
std::map<std::string, std::int64_t> numbers_of(const SignalStats& of) {
  const auto number = [](std::uint64_t value) { return static_cast<std::int64_t>(value); };
  std::map<std::string, std::int64_t> numbers{
      {"spillway.records.recorded", number(of.recorded)},
      {"spillway.records.delivered", number(of.delivered)},
      {"spillway.records.recovered", number(of.recovered)},
      {"spillway.records.held", number(of.held())},
      {"spillway.records.spooled", number(of.held_in_spool)},
      {"spillway.records.residue", of.residue()},
      {"spillway.exporter.requests", number(of.delivery.requests)},
      {"spillway.exporter.retries", number(of.delivery.retries)},
      {"spillway.exporter.throttles", number(of.delivery.throttles)},
      {"spillway.exporter.failures", number(of.delivery.failures)},
      {"spillway.exporter.bytes", number(of.delivery.bytes)},
      {"spillway.exporter.uncertain_records", number(of.delivery.uncertain_records)}};
  for (std::size_t i = 0; i < drop_cause_count; ++i) {
    const auto cause = static_cast<DropCause>(i);
    numbers["spillway.records.dropped " + std::string(to_string(cause))] =
        number(of.dropped_for(cause));
  }
  return numbers;
}

std::string value_of(const Dimensions& dimensions, std::string_view name) {
  for (const Dimension& one : dimensions) {
    if (one.name == name) return one.value;
  }
  return {};
}

class SelfMetricsTest : public ::testing::Test {
 protected:
  // Points of one call: signal, then metric and cause.
  std::map<std::string, std::map<std::string, std::int64_t>> close() {
    std::map<std::string, std::map<std::string, std::int64_t>> found;
    for (const detail::MetricPoint& point : metrics.close(7)) {
      EXPECT_EQ(point.time_ms, 7);
      EXPECT_EQ(point.records_of_piece(point.count, true), 0U) << "it counts as no measurement";
      const Dimensions& dimensions = point.series->key.dimensions;
      std::string name = point.series->key.name;
      if (const std::string cause = value_of(dimensions, "Cause"); !cause.empty()) {
        name += " " + cause;
      }
      EXPECT_FALSE(value_of(dimensions, "Destination").empty());
      const double value =
          point.series->key.kind == detail::MetricKind::gauge ? point.last : point.sum;
      const bool is_new = found[value_of(dimensions, "Signal")]
                              .try_emplace(name, static_cast<std::int64_t>(value))
                              .second;
      EXPECT_TRUE(is_new) << name;
    }
    return found;
  }

  Stats stats = made_up();
  std::map<std::string, detail::Series> known;
  detail::SelfMetrics metrics{
      {[this] { return stats; },
       [this](detail::MetricKind kind, std::string_view name, Unit unit,
              const Dimensions& dimensions) -> const detail::Series& {
         std::string key(name);
         for (const Dimension& one : dimensions) key += "|" + one.value;
         detail::Series& series = known[key];
         series.key = {kind, unit, Resolution::minute, std::string(name), dimensions};
         return series;
       }}};
};

TEST_F(SelfMetricsTest, EveryNumberOfTheAccountIsReported) {
  const auto found = close();
  ASSERT_EQ(found.size(), 3U);
  EXPECT_EQ(found.at("metrics"), numbers_of(stats.metrics));
  EXPECT_EQ(found.at("logs"), numbers_of(stats.logs));
  EXPECT_EQ(found.at("spans"), numbers_of(stats.spans));
}

TEST_F(SelfMetricsTest, CountsAreOfTheIntervalAndWhatHasNotChangedIsLeftOut) {
  close();
  stats.logs.delivered += 5;
  stats.logs.held_in_queue -= 5;
  const auto found = close();
  const std::map<std::string, std::int64_t> gauges{
      {"spillway.records.held", static_cast<std::int64_t>(stats.logs.held())},
      {"spillway.records.spooled", static_cast<std::int64_t>(stats.logs.held_in_spool)},
      {"spillway.records.residue", stats.logs.residue()}};
  auto expected = gauges;
  expected["spillway.records.delivered"] = 5;
  EXPECT_EQ(found.at("logs"), expected);
  EXPECT_EQ(found.at("spans").size(), gauges.size());
}

TEST_F(SelfMetricsTest, ATotalThatReadsLessForAMomentIsNotReportedTwice) {
  close();
  stats.logs.recorded -= 3;
  EXPECT_EQ(close().at("logs").count("spillway.records.recorded"), 0U);
  stats.logs.recorded += 10;
  EXPECT_EQ(close().at("logs").at("spillway.records.recorded"), 7);
}

TEST_F(SelfMetricsTest, ASignalThatGoesNowhereHasNone) {
  stats.spans.destination.clear();
  const auto found = close();
  EXPECT_EQ(found.count("spans"), 0U);
  EXPECT_EQ(found.at("logs"), numbers_of(stats.logs)) << "and the others keep theirs";
}

TEST_F(SelfMetricsTest, WhatIsRefusedIsLeftOut) {
  close();
  for (auto& [key, series] : known) series.refusal = detail::Refusal::no_room;
  EXPECT_TRUE(close().empty());
}

TEST(StatsTest, TheTableHasEveryNumberOfTheAccount) {
  const Stats stats = made_up();
  const std::string text = stats.to_text();
  for (const SignalStats* const of : {&stats.metrics, &stats.logs, &stats.spans}) {
    for (const auto& [name, value] : numbers_of(*of)) {
      EXPECT_NE(text.find(" " + std::to_string(value)), std::string::npos) << name << "\n" << text;
    }
    for (const std::uint64_t held :
         {of->held_in_rings, of->held_in_batch, of->held_in_queue, of->held_in_spool}) {
      EXPECT_NE(text.find(" " + std::to_string(held)), std::string::npos) << text;
    }
    EXPECT_NE(text.find("  " + of->destination + "\n"), std::string::npos) << text;
  }
}

TEST(StatsTest, WhatThereWasNoneOfTakesNoLineOfTheTable) {
  EXPECT_EQ(
      Stats().to_text(),
      "              recorded    delivered      dropped         held      residue  destination\n"
      "  metrics            0            0            0            0            0  none\n"
      "  logs               0            0            0            0            0  none\n"
      "  spans              0            0            0            0            0  none\n");
}

TEST(StatsTest, JsonHasEveryNumberOfTheAccount) {
  const Stats stats = made_up();
  const Json json(stats.to_json());
  for (const auto& [name, of] :
       {std::pair("metrics", &stats.metrics), std::pair("logs", &stats.logs),
        std::pair("spans", &stats.spans)}) {
    const std::string text = json[name].text();
    for (const auto& [key, value] : numbers_of(*of)) {
      EXPECT_NE(text.find(":" + std::to_string(value)), std::string::npos) << key;
    }
  }
}

// ---- Through the engine ----

class LedgerTest : public ::testing::Test {
 protected:
  static Config config() {
    Config config = aws_config();
    config.self_metrics = true;
    config.attempts_max = 1;
    config.on_diagnostic = [](std::string_view) {};
    return config;
  }
  // All datums of the engine's own metrics that were sent: the sums of counters and the last values of
  // gauges, as "name|Signal|Cause".
  static std::map<std::string, double> own_metrics(const testing::TestEngine& test) {
    std::map<std::string, double> found;
    for (const auto& request : test.http.requests()) {
      if (testing::operation_of(request) != "PutMetricData") continue;
      const Json body(testing::body_of(request));
      for (std::size_t i = 0; i < body["MetricData"].size(); ++i) {
        const Json datum = body["MetricData"][i];
        std::string name = datum["MetricName"].string();
        if (!name.starts_with("spillway.")) continue;
        std::map<std::string, std::string> dimensions;
        for (std::size_t d = 0; d < datum["Dimensions"].size(); ++d) {
          const Json dimension = datum["Dimensions"][d];
          dimensions[dimension["Name"].string()] = dimension["Value"].string();
        }
        EXPECT_EQ(dimensions["Service"], "orders") << "the configured ones too";
        name += "|" + dimensions["Signal"];
        if (dimensions.count("Cause") != 0) name += "|" + dimensions["Cause"];
        const double value =
            datum.has("Value") ? datum["Value"].number() : datum["StatisticValues"]["Sum"].number();
        const bool is_gauge = name.find(".held") != std::string::npos ||
                              name.find(".residue") != std::string::npos ||
                              name.find(".spooled") != std::string::npos;
        found[name] = is_gauge ? value : found[name] + value;
      }
    }
    return found;
  }

  testing::AwsEnvironment environment;
};

TEST_F(LedgerTest, TheEnginesOwnMetricsTellTheSameAsItsAccount) {
  testing::TestEngine test(config());
  test.http.set_answer([](const transport::HttpRequest& request) {
    return testing::operation_of(request) == "PutLogEvents" ? MemoryTransport::answered(503)
                                                            : MemoryTransport::answered(200);
  });
  const Counter requests = test.engine.counter("Requests");
  for (int second = 0; second < 30; ++second) {
    requests.add(1);
    SPILLWAY_INFO(test.engine, "event");
    { const Span span = test.engine.span("work"); }
    test.advance(1s);
    test.settle();
  }
  for (int interval = 0; interval < 10; ++interval) {  // Until all of it is over, and told.
    test.advance(10s);
    test.settle();
  }
  const Stats stats = test.engine.stats();
  auto found = own_metrics(test);
  EXPECT_EQ(found["spillway.records.recorded|metrics"], 30);
  EXPECT_EQ(found["spillway.records.recorded|logs"], 30);
  EXPECT_EQ(found["spillway.records.delivered|spans"], 30);
  EXPECT_EQ(found["spillway.records.delivered|logs"], 0);
  EXPECT_EQ(found["spillway.records.dropped|logs|retries_exhausted"],
            static_cast<double>(stats.logs.dropped_for(DropCause::retries_exhausted)));
  EXPECT_GT(found["spillway.records.dropped|logs|retries_exhausted"], 0);
  EXPECT_EQ(found["spillway.exporter.requests|spans"],
            static_cast<double>(stats.spans.delivery.requests));
  for (const std::string signal : {"metrics", "logs", "spans"}) {
    ASSERT_EQ(found.count("spillway.records.residue|" + signal), 1U);
    EXPECT_EQ(found["spillway.records.residue|" + signal], 0);
  }
}

TEST_F(LedgerTest, TheEnginesOwnMetricsDoNotCountThemselves) {
  testing::TestEngine test(config());
  test.engine.counter("Requests").add(1);
  std::set<std::size_t> sizes;
  for (int interval = 0; interval < 20; ++interval) {
    test.advance(10s);
    test.settle();
    if (interval >= 10) sizes.insert(testing::body_of(test.http.requests().back()).size());
  }
  EXPECT_EQ(test.engine.stats().metrics.recorded, 1U);
  EXPECT_TRUE(is_settled(test.engine.stats().metrics));
  EXPECT_EQ(test.http.requests().size(), 20U) << "one an interval";
  EXPECT_LE(*sizes.rbegin() - *sizes.begin(), 8U) << "an idle engine says the same each time";
}

TEST_F(LedgerTest, OwnMetricsGoOutAsEmfAndOtlpToo) {
  for (const MetricsTo to : {MetricsTo::emf_logs, MetricsTo::otlp}) {
    Config with = config();
    with.metrics = to;
    testing::TestEngine test(with);
    test.advance(10s);
    test.settle();
    ASSERT_FALSE(test.http.requests().empty());
    bool found = false;
    for (const auto& request : test.http.requests()) {
      found |= testing::body_of(request).find("spillway.records.residue") != std::string::npos;
    }
    EXPECT_TRUE(found);
    EXPECT_EQ(test.engine.stats().metrics.recorded, 0U);
  }
}

TEST_F(LedgerTest, ThereAreNoneUnlessTheyAreAskedFor) {
  testing::TestEngine test(aws_config());
  test.engine.counter("Requests").add(1);
  test.advance(10s);
  test.settle();
  EXPECT_TRUE(own_metrics(test).empty());
  EXPECT_EQ(test.engine.stats().series, 1U);
}

TEST_F(LedgerTest, AfterShutdownNothingIsInABatchOrQueue) {
  testing::TestEngine test(config());
  test.http.set_answer([](const auto&) { return MemoryTransport::answered(503); });
  test.engine.counter("Requests").add(1);
  SPILLWAY_INFO(test.engine, "event");
  { const Span span = test.engine.span("work"); }
  const Stats stats = test.engine.shutdown(1s);
  for (const SignalStats* const of : {&stats.metrics, &stats.logs, &stats.spans}) {
    EXPECT_TRUE(is_settled(*of));
    EXPECT_EQ(of->recorded, 1U);
    EXPECT_EQ(of->dropped_total(), 1U);
  }
}

TEST_F(LedgerTest, IsPrintedAtExitWhenAskedFor) {
  const testing::ScopedVariable variable("SPILLWAY_LEDGER_AT_EXIT", "true");
  ::testing::internal::CaptureStderr();
  std::string expected = "spillway: the account of orders\n";
  {
    testing::TestEngine test(aws_config());
    SPILLWAY_INFO(test.engine, "event");
    expected += test.engine.shutdown(1s).to_text();
  }
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), expected) << "once";
  EXPECT_NE(expected.find("put-log-events"), std::string::npos);
}

TEST_F(LedgerTest, IsNotPrintedUnlessAskedFor) {
  ::testing::internal::CaptureStderr();
  { testing::TestEngine test(aws_config()); }
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

}  // namespace
}  // namespace spillway
