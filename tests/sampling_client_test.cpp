// SPDX-License-Identifier: Apache-2.0
//
// X-Ray's sampling rules and targets on a clock that stands still: what is asked for when, what is
// reported, what the answers change, and what happens without answers.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <support/engine_fixture.hpp>
#include <support/json.hpp>
#include <support/raw_server.hpp>

#include <spillway/engine/sampling_client.hpp>
#include <spillway/engine/testing.hpp>
#include <spillway/transport/credential_sources.hpp>
#include <spillway/transport/memory_transport.hpp>

namespace spillway::detail {
namespace {

using namespace std::chrono_literals;
using testing::Json;
using testing::ManualClock;
using transport::HttpOutcome;
using transport::HttpRequest;
using transport::HttpResponse;
using transport::MemoryTransport;

constexpr double never_drawn = 0.999999;

std::string rule_record(std::string_view name, int priority, double rate, int reservoir,
                        std::string_view more = {}) {
  return R"({"SamplingRule":{"RuleName":")" + std::string(name) +
         R"(","ResourceARN":"*","ServiceName":"*","ServiceType":"*","Host":"*","HTTPMethod":"*",)"
         R"("URLPath":"*","Version":1,"Attributes":{},"Priority":)" +
         std::to_string(priority) + ",\"FixedRate\":" + std::to_string(rate) +
         ",\"ReservoirSize\":" + std::to_string(reservoir) + std::string(more) + "}}";
}

std::string rules_body(const std::vector<std::string>& records, std::string_view token = {}) {
  std::string body = "{\"SamplingRuleRecords\":[";
  for (const std::string& record : records) body += (body.ends_with('[') ? "" : ",") + record;
  body += "],\"NextToken\":" + (token.empty() ? "null" : "\"" + std::string(token) + "\"") + "}";
  return body;
}

std::string targets_body(std::string_view documents, std::string_view more = {}) {
  return "{\"SamplingTargetDocuments\":[" + std::string(documents) + "]" + std::string(more) + "}";
}

class SamplingClientTest : public ::testing::Test {
 protected:
  SamplingClientTest() { clock->advance(5s); }

  std::unique_ptr<transport::HttpTransport> answering() {
    auto http = std::make_unique<MemoryTransport>();
    memory = http.get();
    memory->set_answer([this](const HttpRequest& request) {
      return MemoryTransport::answered(200, request.path == "/GetSamplingRules" ? rules : targets);
    });
    return http;
  }
  std::uint32_t second() const {
    return static_cast<std::uint32_t>(
        std::chrono::floor<std::chrono::seconds>(clock->wall()).time_since_epoch().count());
  }
  std::size_t asked(std::string_view path) const {
    std::size_t count = 0;
    for (const HttpRequest& request : memory->requests()) count += request.path == path ? 1U : 0U;
    return count;
  }
  bool decide(double draw = never_drawn) { return sampler.decide({}, 1, second(), draw).sampled; }
  void advance(std::chrono::seconds by) {
    clock->advance(by);
    client.run_once();
  }
  Json last_statistics() const {
    const Json body(memory->requests().back().body);
    return body["SamplingStatisticsDocuments"][0];
  }

  std::string rules = rules_body({rule_record("orders", 100, 0.1, 5)});
  std::string targets = targets_body("");
  std::vector<std::string> said;
  std::shared_ptr<ManualClock> clock = std::make_shared<ManualClock>();
  MemoryTransport* memory = nullptr;
  Sampler sampler{{.service_name = "orders", .local_rules = {SamplingRule{}}}};
  SamplingClient client{{.sampler = sampler,
                         .clock = clock,
                         .service_name = "orders",
                         .proxy_origin = "http://127.0.0.1:2000",
                         .http = answering(),
                         .random = [] { return 0.5; },
                         .diagnostic = [this](std::string_view text) { said.emplace_back(text); }}};
};

TEST_F(SamplingClientTest, RulesAreFetchedAtOnceAndThenEveryFiveMinutes) {
  client.run_once();
  ASSERT_EQ(asked("/GetSamplingRules"), 1U);
  const HttpRequest& request = memory->requests()[0];
  EXPECT_EQ(request.method, "POST");
  EXPECT_EQ(request.origin, "http://127.0.0.1:2000");
  EXPECT_EQ(request.body, "{}");
  EXPECT_EQ(transport::find_header(request.headers, "Content-Type"), "application/json");
  EXPECT_EQ(transport::find_header(request.headers, "Authorization"), "");
  EXPECT_NE(sampler.find("orders"), nullptr);
  advance(302s);
  EXPECT_EQ(asked("/GetSamplingRules"), 1U);
  advance(1s);
  EXPECT_EQ(asked("/GetSamplingRules"), 2U);
}

TEST_F(SamplingClientTest, RulesComeInPages) {
  memory->script(
      MemoryTransport::answered(200, rules_body({rule_record("b", 2, 0, 0)}, "to\\\"ken")));
  memory->script(MemoryTransport::answered(200, rules_body({rule_record("a", 1, 1, 0)})));
  client.run_once();
  ASSERT_EQ(memory->requests().size(), 2U);
  EXPECT_EQ(memory->requests()[1].body, R"({"NextToken":"to\"ken"})");
  EXPECT_EQ(sampler.decide({}, 1, second(), 0.5).rule->name, "a");
  EXPECT_NE(sampler.find("b"), nullptr);
}

TEST_F(SamplingClientTest, PagesWithoutEndAreGivenUp) {
  rules = rules_body({rule_record("a", 1, 1, 0)}, "again");
  client.run_once();
  EXPECT_EQ(memory->requests().size(), std::size_t{SamplingClient::rules_pages_max});
  EXPECT_EQ(sampler.find("a"), nullptr);
  EXPECT_EQ(said, std::vector<std::string>{"sampling rules cannot be fetched: they do not end"});
}

TEST_F(SamplingClientTest, RulesThatAClientCannotApplyAreLeftOut) {
  rules = rules_body({
      rule_record("attributes", 1, 1, 0, R"(,"Attributes":{"a":"b"})"),
      R"({"SamplingRule":{"RuleName":"arn","ResourceARN":"arn:x","Version":1,"FixedRate":1,)"
      R"("ReservoirSize":0,"Priority":1}})",
      R"({"SamplingRule":{"RuleName":"version","Version":2,"FixedRate":1,"ReservoirSize":0}})",
      R"({"SamplingRule":{"RuleName":"rate","Version":1,"FixedRate":1.5,"ReservoirSize":0}})",
      R"({"SamplingRule":{"Version":1,"FixedRate":1,"ReservoirSize":0}})",
      "{}",
      "5",
      rule_record("Default", 10'000, 1, 0),
  });
  client.run_once();
  // The first "Attributes" of a record counts: the one without any.
  for (const char* const name : {"arn", "version", "rate", ""}) {
    EXPECT_EQ(sampler.find(name), nullptr) << name;
  }
  EXPECT_NE(sampler.find("Default"), nullptr);
}

TEST_F(SamplingClientTest, StatisticsCountAsInTheWorkedExample) {
  client.run_once();
  for (int i = 0; i < 10; ++i) {
    for (int request = 0; request < 11; ++request) decide(request == 5 ? 0.05 : never_drawn);
    clock->advance(1s);
  }
  client.run_once();
  ASSERT_EQ(asked("/SamplingTargets"), 1U);
  const Json document = last_statistics();
  EXPECT_EQ(document["RuleName"].string(), "orders");
  EXPECT_EQ(document["RequestCount"].number(), 110);
  EXPECT_EQ(document["SampledCount"].number(), 20);
  EXPECT_EQ(document["BorrowCount"].number(), 10);
  EXPECT_EQ(document["Timestamp"].number(), second());
  EXPECT_EQ(document["ClientID"].string().size(), 24U);
  EXPECT_EQ(document["ClientID"].string().find_first_not_of("0123456789abcdef"), std::string::npos);
  EXPECT_EQ(memory->requests().back().body.find("Boost"), std::string::npos);
  const std::string id = document["ClientID"].string();
  decide();
  advance(11s);
  EXPECT_EQ(last_statistics()["RequestCount"].number(), 1);
  EXPECT_EQ(last_statistics()["ClientID"].string(), id);
}

TEST_F(SamplingClientTest, NothingIsReportedOfRulesThatNobodyAsked) {
  client.run_once();
  advance(10s);
  advance(11s);
  EXPECT_EQ(asked("/SamplingTargets"), 0U);
}

TEST_F(SamplingClientTest, TargetsAreApplied) {
  client.run_once();
  decide();
  targets = targets_body(R"({"RuleName":"orders","FixedRate":0.75,"ReservoirQuota":2,)"
                         R"("ReservoirQuotaTTL":)" +
                         std::to_string(second() + 12) + R"(.5,"Interval":20})");
  advance(10s);
  EXPECT_TRUE(decide());
  EXPECT_TRUE(decide());
  EXPECT_FALSE(decide());
  EXPECT_TRUE(decide(0.7));
  clock->advance(2s);
  EXPECT_TRUE(decide() && decide()) << "the last second of the quota";
  clock->advance(1s);
  EXPECT_TRUE(decide()) << "borrowed";
  EXPECT_FALSE(decide());
  // The next report comes after the interval.
  advance(10s);
  EXPECT_EQ(asked("/SamplingTargets"), 1U);
  advance(11s);
  EXPECT_EQ(asked("/SamplingTargets"), 2U);
}

TEST_F(SamplingClientTest, WhatATargetDoesNotSayStays) {
  client.run_once();
  decide();
  targets = targets_body(R"({"RuleName":"orders","FixedRate":0.5,"ReservoirQuota":1,)"
                         R"("ReservoirQuotaTTL":)" +
                         std::to_string(second() + 1000) + R"(,"Interval":10})");
  advance(10s);
  decide();
  targets = targets_body(R"({"RuleName":"orders","FixedRate":0,"ReservoirQuota":null}, 7,)"
                         R"({"RuleName":"nobody","FixedRate":1})");
  advance(11s);
  EXPECT_TRUE(decide()) << "of the quota";
  EXPECT_FALSE(decide(0)) << "the rate is the new one";
  targets = targets_body(R"({"RuleName":"orders","FixedRate":7,"ReservoirQuotaTTL":-1})");
  advance(11s);
  EXPECT_FALSE(decide(0.9) && decide(0.9)) << "values out of range are none";
}

TEST_F(SamplingClientTest, AChangeOfTheRulesIsFetchedAtOnce) {
  client.run_once();
  decide();
  targets = targets_body("", ",\"LastRuleModification\":" + std::to_string(second() - 1));
  advance(10s);
  EXPECT_EQ(client.run_once(), clock->steady() + 10s + 50ms) << "no change since they were fetched";
  EXPECT_EQ(asked("/GetSamplingRules"), 1U);
  decide();
  targets = targets_body("", ",\"LastRuleModification\":" + std::to_string(second() + 1) + ".5");
  advance(11s);
  rules = rules_body({rule_record("new", 1, 1, 0)});
  client.run_once();
  EXPECT_EQ(asked("/GetSamplingRules"), 2U);
  EXPECT_EQ(sampler.decide({}, 1, second(), 0.5).rule->name, "new");
}

TEST_F(SamplingClientTest, CountsThatCouldNotBeReportedAreKept) {
  client.run_once();
  decide();
  memory->script(MemoryTransport::failed(HttpOutcome::not_connected));
  advance(10s);
  decide();
  memory->script(MemoryTransport::answered(500, "{}"));
  advance(11s);
  decide();
  memory->script(MemoryTransport::answered(200, "no JSON"));
  advance(11s);
  EXPECT_EQ(said.size(), 3U);
  decide();
  advance(11s);
  EXPECT_EQ(last_statistics()["RequestCount"].number(), 4);
}

TEST_F(SamplingClientTest, StatisticsThatXRayRefuses) {
  client.run_once();
  decide();
  targets = targets_body(
      "", R"(,"UnprocessedStatistics":[{"RuleName":"orders","ErrorCode":"500","Message":"busy"}])");
  advance(10s);
  decide();
  targets = targets_body("");
  advance(11s);
  EXPECT_EQ(last_statistics()["RequestCount"].number(), 2) << "its own failure";
  EXPECT_EQ(asked("/GetSamplingRules"), 1U);
  decide();
  targets = targets_body(
      "", R"(,"UnprocessedStatistics":[{"RuleName":"orders","ErrorCode":"400","Message":"gone"}])");
  advance(11s);
  client.run_once();
  EXPECT_EQ(asked("/GetSamplingRules"), 2U) << "the rules are not what it has";
  ASSERT_EQ(said.size(), 2U);
  EXPECT_EQ(said[1], "X-Ray refused the statistics of sampling rule 'orders': 400 gone");
}

TEST_F(SamplingClientTest, WhatXRayRefusesOfABoostIsNotCountedTwice) {
  client.run_once();
  decide();
  const std::string refusal = R"([{"RuleName":"orders","ErrorCode":"500","Message":"busy"}])";
  targets = targets_body("", ",\"UnprocessedBoostStatistics\":" + refusal);
  advance(10s);
  decide();
  targets = targets_body(
      "", ",\"UnprocessedStatistics\":" + refusal + ",\"UnprocessedBoostStatistics\":" + refusal);
  advance(11s);
  EXPECT_EQ(last_statistics()["RequestCount"].number(), 1) << "the first had been taken";
  decide();
  targets = targets_body("");
  advance(11s);
  EXPECT_EQ(last_statistics()["RequestCount"].number(), 2) << "the second once, and the third";
}

TEST_F(SamplingClientTest, AtMost25RulesACall) {
  std::vector<std::string> records;
  for (int i = 0; i < 60; ++i) {
    records.push_back(rule_record("rule-" + std::to_string(i), 1, 0, 0,
                                  ",\"SamplingRateBoost\":{\"MaxRate\":1}"));
    records.back().replace(records.back().find("\"URLPath\":\"*\""), 13,
                           "\"URLPath\":\"/" + std::to_string(i) + "\"");
  }
  rules = rules_body(records);
  client.run_once();
  for (int i = 0; i < 60; ++i) {
    sampler.decide({.path = "/" + std::to_string(i)}, 1, second(), never_drawn);
  }
  advance(10s);
  std::vector<std::size_t> sizes;
  for (const HttpRequest& request : memory->requests()) {
    if (request.path != "/SamplingTargets") continue;
    const Json body(request.body);
    sizes.push_back(body["SamplingStatisticsDocuments"].size());
    EXPECT_EQ(body["SamplingBoostStatisticsDocuments"].size(), sizes.back());
  }
  EXPECT_EQ(sizes, (std::vector<std::size_t>{25, 25, 10}));
}

TEST_F(SamplingClientTest, ABoostFollowsFailures) {
  rules = rules_body({rule_record(
      "orders", 1, 0, 1, R"(,"SamplingRateBoost":{"MaxRate":0.5,"CooldownWindowMinutes":5})")});
  client.run_once();
  for (const bool failed : {true, false, true}) {
    const SamplingDecision decision = sampler.decide({}, 1, second(), never_drawn);
    sampler.ended(decision, failed, second());
  }
  targets = targets_body(R"({"RuleName":"orders","FixedRate":0,"SamplingBoost":{"BoostRate":0.5,)"
                         R"("BoostRateTTL":)" +
                         std::to_string(second() + 60) + "}}");
  advance(10s);
  const Json body(memory->requests().back().body);
  const Json document = body["SamplingBoostStatisticsDocuments"][0];
  EXPECT_EQ(document["RuleName"].string(), "orders");
  EXPECT_EQ(document["ServiceName"].string(), "orders");
  EXPECT_EQ(document["TotalCount"].number(), 3);
  EXPECT_EQ(document["AnomalyCount"].number(), 2);
  EXPECT_EQ(document["SampledAnomalyCount"].number(), 1);
  EXPECT_TRUE(decide());
  EXPECT_TRUE(decide(0.4));
  EXPECT_FALSE(decide(0.6));
  clock->advance(51s);
  EXPECT_TRUE(decide());
  EXPECT_FALSE(decide(0.4)) << "it is over";
}

TEST_F(SamplingClientTest, WithoutAnswersItAsksLessAndLess) {
  memory->set_answer(
      [](const HttpRequest&) { return MemoryTransport::failed(HttpOutcome::not_connected); });
  client.run_once();
  std::vector<int> at;
  for (int second = 1; second <= 1000; ++second) {
    const std::size_t before = memory->requests().size();
    advance(1s);
    if (memory->requests().size() != before) at.push_back(second);
  }
  EXPECT_EQ(at, (std::vector<int>{10, 30, 70, 150, 310, 610, 910}));
  EXPECT_FALSE(decide()) << "the local rules hold";
  memory->set_answer([this](const HttpRequest&) { return MemoryTransport::answered(200, rules); });
  advance(300s);
  EXPECT_EQ(sampler.decide({}, 1, second(), 0.5).rule->name, "orders");
}

TEST_F(SamplingClientTest, RulesThatAreAnHourOldHoldNoMore) {
  client.run_once();
  memory->set_answer([](const HttpRequest&) { return MemoryTransport::answered(500, "{}"); });
  for (int i = 0; i < 360; ++i) advance(10s);
  EXPECT_EQ(sampler.decide({}, 1, second(), 0.5).rule->name, "orders");
  advance(1s);
  EXPECT_EQ(sampler.decide({}, 1, second(), 0.5).rule->name, "");
  EXPECT_NE(said.back().find("renewed for an hour"), std::string::npos);
}

TEST_F(SamplingClientTest, DirectCallsAreSigned) {
  const testing::AwsEnvironment environment;
  auto http = std::make_unique<MemoryTransport>();
  MemoryTransport* const direct = http.get();
  direct->set_answer([this](const HttpRequest&) { return MemoryTransport::answered(200, rules); });
  SamplingClient signing({.sampler = sampler,
                          .clock = clock,
                          .service_name = "orders",
                          .region = "eu-west-1",
                          .endpoint = "https://xray.eu-west-1.amazonaws.com",
                          .credentials = transport::default_credentials_chain(
                              {.background = false, .draw = {}}, nullptr, "eu-west-1"),
                          .http = std::move(http),
                          .random = [] { return 0.5; }});
  signing.run_once();
  ASSERT_EQ(direct->requests().size(), 1U);
  const HttpRequest& request = direct->requests()[0];
  EXPECT_EQ(request.origin, "https://xray.eu-west-1.amazonaws.com");
  EXPECT_EQ(request.path, "/GetSamplingRules");
  EXPECT_NE(transport::find_header(request.headers, "Authorization").find("/eu-west-1/xray/"),
            std::string_view::npos);
}

TEST_F(SamplingClientTest, AThreadOfItsOwnEndsWhenItIsToldTo) {
  client.start();
  EXPECT_TRUE(client.stop(10s));
  EXPECT_LE(asked("/GetSamplingRules"), 1U);
}

// ---- With an engine ----

TEST(SamplingEngineTest, TheRuleGoesWithTheSegment) {
  const testing::AwsEnvironment environment;
  Config config = testing::aws_config();
  config.metrics = MetricsTo::none;
  config.logs = LogsTo::none;
  config.trace_sample_rate = 0.0;
  config.trace_reservoir = 0;
  config.sampling = SamplingFrom::xray_api;
  auto clock = std::make_shared<ManualClock>();
  auto http = std::make_unique<MemoryTransport>();
  auto rules = std::make_unique<MemoryTransport>();
  MemoryTransport* const sent = http.get();
  rules->script(MemoryTransport::answered(200, rules_body({rule_record("all of it", 1, 1, 0)})));
  Engine engine(config, {.clock = clock,
                         .http = std::move(http),
                         .random = [] { return 0.5; },
                         .threads = false,
                         .sampling_http = std::move(rules)});
  { const Span before = engine.span("before"); }
  engine.step();
  { const Span after = engine.span("after", {.host = "shop", .method = "GET", .path = "/"}); }
  ASSERT_TRUE(engine.flush(1s));
  ASSERT_EQ(sent->requests().size(), 1U);
  const Json body(sent->requests()[0].body);
  ASSERT_EQ(body["TraceSegmentDocuments"].size(), 1U);
  const Json document(body["TraceSegmentDocuments"][0].string());
  EXPECT_EQ(document["annotations"]["operation"].string(), "after");
  EXPECT_EQ(document["aws"]["xray"]["sampling_rule_name"].string(), "all of it");
}

TEST(SamplingEngineTest, ADaemonThatDoesNotAnswerDoesNotHoldTheEngineUp) {
  const testing::AwsEnvironment environment;
  testing::RawServer silent([](const std::string&, const auto& connection) {
    connection.wait_for_the_end();
    return false;
  });
  Config config;
  config.metrics = MetricsTo::none;
  config.logs = LogsTo::none;
  config.traces = TracesTo::xray_daemon;
  config.sampling = SamplingFrom::xray_daemon;
  config.xray_daemon_address = "127.0.0.1:" + std::to_string(silent.port());
  config.on_diagnostic = [](std::string_view) {};
  Engine engine(config);
  { const Span span = engine.span("orders"); }
  EXPECT_TRUE(testing::is_settled(engine.shutdown(500ms).spans));
}

}  // namespace
}  // namespace spillway::detail
