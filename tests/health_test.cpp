// SPDX-License-Identifier: Apache-2.0
//
// Health as deliveries tell it: scripted answers, a clock that the test moves.
#include <string>

#include <gtest/gtest.h>
#include <support/engine_fixture.hpp>

#include <spillway/engine/testing.hpp>

namespace spillway {
namespace {

using namespace std::chrono_literals;
using transport::HttpOutcome;
using transport::MemoryTransport;

class HealthTest : public ::testing::Test {
 protected:
  static Config config() {
    Config config = testing::aws_config();
    config.metrics = MetricsTo::none;
    config.traces = TracesTo::none;
    config.on_diagnostic = [](std::string_view) {};
    return config;
  }
  void log() { SPILLWAY_INFO(test.engine, "event"); }
  DestinationHealth logs() const { return test.engine.health().destinations.at(0); }
  void break_down() {
    test.http.set_answer([](const auto&) { return MemoryTransport::failed(HttpOutcome::lost); });
  }
  void recover() { test.http.set_answer(nullptr); }

  testing::AwsEnvironment environment;
  testing::TestEngine test{config()};
};

TEST_F(HealthTest, NothingRecordedIsHealthy) {
  const Health health = test.engine.health();
  EXPECT_EQ(health.state, HealthState::healthy);
  ASSERT_EQ(health.destinations.size(), 1U) << "what goes nowhere has no health";
  EXPECT_EQ(health.destinations[0].name, "put-log-events");
  EXPECT_LT(health.destinations[0].since_success, 0ms);
}

TEST_F(HealthTest, WhatArrivesIsHealthyAndSaysSinceWhen) {
  log();
  test.engine.flush(1s);
  test.advance(7s);
  EXPECT_EQ(logs().state, HealthState::healthy);
  EXPECT_EQ(logs().since_success, 7s);
  EXPECT_EQ(logs().oldest_held, 0ms);
}

// No request was ever answered: every count of answers and errors of a service reads zero.
TEST_F(HealthTest, ABlackHoleIsDegradedAtOnceAndFailingAfterAMinute) {
  break_down();
  log();
  test.engine.flush(1s);
  EXPECT_EQ(logs().state, HealthState::degraded);
  EXPECT_NE(logs().reason.find("scripted failure"), std::string::npos) << logs().reason;
  while (logs().state != HealthState::failing) {
    ASSERT_LT(test.clock.steady().time_since_epoch(), 200s);
    log();
    test.advance(1s);
  }
  EXPECT_EQ(test.engine.stats().logs.delivered, 0U);
  recover();
  for (int i = 0; i < 30; ++i) test.advance(1s);
  log();
  test.engine.flush(1s);
  EXPECT_NE(logs().state, HealthState::failing);
  test.advance(61s);
  EXPECT_EQ(logs().state, HealthState::healthy);
}

TEST_F(HealthTest, ADestinationThatNeverAnswersIsSeenByTheAgeOfWhatWaits) {
  test.http.hold();
  log();
  test.engine.flush(1s);
  EXPECT_EQ(logs().state, HealthState::healthy);
  test.advance(29s);
  EXPECT_EQ(logs().state, HealthState::healthy);
  EXPECT_EQ(logs().oldest_held, 29s);
  test.advance(1s);
  EXPECT_EQ(logs().state, HealthState::degraded);
  test.http.release();
  test.settle();
  EXPECT_EQ(logs().state, HealthState::healthy);
}

TEST_F(HealthTest, WhatIsRefusedAsAWholeIsFailingThoughNothingWaits) {
  test.http.set_answer([](const auto&) {
    return MemoryTransport::answered(400, R"({"__type":"InvalidParameterException"})");
  });
  log();
  test.engine.flush(1s);
  EXPECT_EQ(logs().state, HealthState::failing);
  EXPECT_EQ(logs().lost_since_success, 1U);
  EXPECT_EQ(logs().oldest_held, 0ms);
}

TEST_F(HealthTest, SomeThatAreRefusedMakeItDegradedForAMinute) {
  test.http.script(
      MemoryTransport::answered(200, R"({"rejectedLogEventsInfo":{"tooOldLogEventEndIndex":1}})"));
  log();
  log();
  test.engine.flush(1s);
  EXPECT_EQ(logs().state, HealthState::degraded) << "one arrived";
  test.advance(59s);
  EXPECT_EQ(logs().state, HealthState::degraded);
  test.advance(1s);
  EXPECT_EQ(logs().state, HealthState::healthy);
}

TEST_F(HealthTest, TheWorstDestinationIsTheEnginesState) {
  Config both = config();
  both.metrics = MetricsTo::put_metric_data;
  testing::TestEngine two(both);
  two.http.set_answer([](const transport::HttpRequest& request) {
    return testing::operation_of(request) == "PutMetricData" ? MemoryTransport::answered(500)
                                                             : MemoryTransport::answered(200);
  });
  two.engine.counter("Requests").add(1);
  SPILLWAY_INFO(two.engine, "event");
  two.engine.flush(1s);
  const Health health = two.engine.health();
  EXPECT_EQ(health.state, HealthState::degraded);
  EXPECT_EQ(health.destinations.at(0).state, HealthState::degraded);
  EXPECT_EQ(health.destinations.at(1).state, HealthState::healthy);
  const testing::Json json(health.to_json());
  EXPECT_EQ(json["state"].string(), "degraded");
  EXPECT_EQ(json["destinations"][0]["name"].string(), "put-metric-data");
  EXPECT_EQ(json["destinations"][1]["state"].string(), "healthy");
  const Stats stats = two.engine.stats();
  EXPECT_EQ(stats.metrics.delivery.requests, 1U) << "each destination has its own account";
  EXPECT_EQ(stats.logs.delivery.requests, 1U);
  EXPECT_EQ(stats.delivery.requests, 2U);
  EXPECT_EQ(stats.logs.destination, "put-log-events");
}

TEST_F(HealthTest, AfterShutdownItIsFailing) {
  test.engine.shutdown(1s);
  EXPECT_EQ(test.engine.health().state, HealthState::failing);
  EXPECT_NE(test.engine.health().reason.find("shut down"), std::string::npos);
}

TEST_F(HealthTest, AnEngineWithThreadsBeats) {
  Config local;
  local.metrics = MetricsTo::none;
  local.logs = LogsTo::none;
  Engine engine(local);
  EXPECT_EQ(engine.health().state, HealthState::healthy);
  engine.flush(10s);
  EXPECT_EQ(engine.health().state, HealthState::healthy);
}

}  // namespace
}  // namespace spillway
