// SPDX-License-Identifier: Apache-2.0
//
// What is held back of logs, through the whole engine: beyond a call site's rate, and below the level
// of requests that nobody will look at. Each record is accounted for.
#include <set>
#include <string>
#include <thread>

#include <support/engine_fixture.hpp>

namespace spillway {
namespace {

using namespace std::chrono_literals;
using testing::is_settled;
using testing::Json;
using testing::TestEngine;

class EngineDebugLogsTest : public ::testing::Test {
 protected:
  static Config config() {
    Config config = testing::aws_config();
    config.metrics = MetricsTo::none;
    config.traces = TracesTo::none;
    return config;
  }
  static Config retaining() {
    Config retaining = config();
    retaining.log_retain_level = Severity::debug;
    return retaining;
  }
  static std::vector<Json> messages(const TestEngine& test) {
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
  static std::multiset<std::string> texts(const TestEngine& test) {
    std::multiset<std::string> found;
    for (const Json& message : messages(test)) found.insert(message["message"].string());
    return found;
  }
  testing::AwsEnvironment environment_;
};

using Texts = std::multiset<std::string>;

// ---- Rate ----

TEST_F(EngineDebugLogsTest, ACallSiteBeyondItsRateIsHeldBackAndSaid) {
  Config limited = config();
  limited.log_rate_max = 3;
  TestEngine test(limited);
  const auto chatter = [&](int n) {
    for (int i = 0; i < n; ++i) SPILLWAY_WARN(test.engine, "chatter", {"i", i});
  };
  chatter(10);
  SPILLWAY_INFO(test.engine, "once");
  test.engine.step();
  test.advance(1s);
  chatter(2);
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(texts(test), (Texts{"chatter", "chatter", "chatter", "chatter", "chatter", "once",
                                "log records were held back"}));
  for (const Json& message : messages(test)) {
    if (message["message"].string() != "log records were held back") continue;
    EXPECT_EQ(message["held_back"].number(), 7);
    EXPECT_EQ(message["of_message"].string(), "chatter");
    EXPECT_EQ(message["call_site"].string().find("engine_debug_logs_test.cpp:"), 0U);
    EXPECT_EQ(message["level"].string(), "WARN");
    EXPECT_EQ(message["timestamp"].string(), "2026-11-21T01:00:01.000000000Z");
  }
  const Stats stats = test.engine.stats();
  EXPECT_EQ(stats.logs.recorded, 13U) << "what we say is nobody's record";
  EXPECT_EQ(stats.logs.dropped_for(DropCause::rate_limited), 7U);
  EXPECT_EQ(stats.logs.delivered, 6U);
  EXPECT_TRUE(is_settled(stats.logs));
}

TEST_F(EngineDebugLogsTest, AFlushSaysWhatWasHeldBackSoFar) {
  Config limited = config();
  limited.log_rate_max = 1;
  TestEngine test(limited);
  for (int round = 1; round <= 2; ++round) {
    for (int i = 0; i < 3; ++i) SPILLWAY_INFO(test.engine, "chatter");
    ASSERT_TRUE(test.engine.flush(1s));
  }
  double held_back = 0;
  for (const Json& message : messages(test)) {
    if (message.has("held_back")) held_back += message["held_back"].number();
  }
  EXPECT_EQ(held_back, 5);
  EXPECT_TRUE(is_settled(test.engine.stats().logs));
}

// ---- Retention ----

void work(Engine& engine, std::string_view id, bool failing) {
  const Context context{{.tenant = "acme", .request_id = id}};
  const Scope scope(context);
  SPILLWAY_DEBUG(engine, "debug", {"id", id});
  SPILLWAY_INFO(engine, "info", {"id", id});
  if (failing) SPILLWAY_ERROR(engine, "error", {"id", id});
  SPILLWAY_DEBUG(engine, "debug after", {"id", id});
}

TEST_F(EngineDebugLogsTest, DebugRecordsGoOutIfTheirRequestFails) {
  TestEngine test(retaining());
  work(test.engine, "good", false);
  work(test.engine, "bad", true);
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(texts(test), (Texts{"info", "info", "error", "debug", "debug after"}));
  for (const Json& message : messages(test)) {
    if (message["level"].string() != "DEBUG") continue;
    EXPECT_EQ(message["id"].string(), "bad");
    EXPECT_EQ(message["request_id"].string(), "bad");
    EXPECT_EQ(message["tenant"].string(), "acme");
  }
  EXPECT_EQ(test.engine.stats().logs.held(), 2U) << "of a request that has not ended";
  const Stats last = test.engine.shutdown(1s);
  EXPECT_EQ(last.logs.recorded, 7U);
  EXPECT_EQ(last.logs.dropped_for(DropCause::not_retained), 2U);
  EXPECT_EQ(last.logs.delivered, 5U);
  EXPECT_TRUE(is_settled(last.logs));
}

TEST_F(EngineDebugLogsTest, TheRateHoldsForWhatWasKeptToo) {
  Config limited = retaining();
  limited.log_rate_max = 3;
  TestEngine test(limited);
  {
    const Context context{{.request_id = "bad"}};
    const Scope scope(context);
    for (int i = 0; i < 100; ++i) SPILLWAY_DEBUG(test.engine, "debug", {"i", i});
    test.engine.end_request(true, 1ms);
  }
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(texts(test), (Texts{"debug", "debug", "debug", "log records were held back"}));
  EXPECT_EQ(test.engine.stats().logs.dropped_for(DropCause::rate_limited), 97U);
  EXPECT_TRUE(is_settled(test.engine.stats().logs));
}

TEST_F(EngineDebugLogsTest, TheEndOfARequestDecides) {
  TestEngine test(retaining());
  struct Case {
    const char* id;
    bool failed;
    std::chrono::nanoseconds took;
    bool kept;
  };
  for (const Case& one : {Case{"fast", false, 999ms, false}, Case{"slow", false, 1s, true},
                          Case{"failed", true, 1ms, true}, Case{"fine", false, 0ms, false}}) {
    const Context context{{.request_id = one.id}};
    const Scope scope(context);
    SPILLWAY_DEBUG(test.engine, "debug", {"kept", one.kept});
    test.engine.end_request(one.failed, one.took);
  }
  ASSERT_TRUE(test.engine.flush(1s));
  const auto found = messages(test);
  ASSERT_EQ(found.size(), 2U);
  for (const Json& message : found) EXPECT_TRUE(message["kept"].boolean());
  EXPECT_EQ(test.engine.stats().logs.dropped_for(DropCause::not_retained), 2U);
  EXPECT_TRUE(is_settled(test.engine.stats().logs));
}

TEST_F(EngineDebugLogsTest, ASampledRequestIsKept) {
  for (const double rate : {1.0, 0.0}) {
    Config traced = retaining();
    traced.traces = TracesTo::put_trace_segments;
    traced.trace_sample_rate = rate;
    traced.trace_reservoir = 0;
    TestEngine test(traced);
    const Context context{{.request_id = "r-1"}};
    const Scope scope(context);
    {
      const Span span = test.engine.span("work");
      SPILLWAY_DEBUG(test.engine, "debug");
      const Span inner = test.engine.span("inner");
    }
    test.engine.end_request(false, 1ms);
    ASSERT_TRUE(test.engine.flush(1s));
    EXPECT_EQ(texts(test).count("debug"), rate > 0 ? 1U : 0U);
    EXPECT_TRUE(is_settled(test.engine.stats().logs));
  }
}

TEST_F(EngineDebugLogsTest, LevelsOfLoggersSayWhatIsBelow) {
  Config levels = retaining();
  levels.log_levels = LogLevels{{"chatty", Severity::debug}, {"quiet", Severity::error}};
  TestEngine test(levels);
  const Logger chatty = test.engine.logger("chatty").with({"n", 1});
  const Logger quiet = test.engine.logger("quiet").with({"n", 2});
  EXPECT_TRUE(quiet.log_enabled(Severity::debug));
  EXPECT_FALSE(quiet.log_enabled(Severity::trace));
  const Context context{{.request_id = "r-1"}};
  const Scope scope(context);
  SPILLWAY_DEBUG(chatty, "as its level says");
  SPILLWAY_INFO(quiet, "kept");
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(texts(test), (Texts{"as its level says"}));
  SPILLWAY_ERROR(quiet, "failed");
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(texts(test), (Texts{"as its level says", "kept", "failed"}));
  for (const Json& message : messages(test)) EXPECT_TRUE(message.has("n"));
}

TEST_F(EngineDebugLogsTest, OffIsOff) {
  TestEngine test(retaining());
  const Logger logger = test.engine.logger("x");
  test.engine.set_log_level(Severity::off);
  EXPECT_FALSE(test.engine.log_enabled(Severity::fatal));
  EXPECT_FALSE(logger.log_enabled(Severity::fatal));
  test.engine.set_log_level(Severity::warn);
  EXPECT_TRUE(logger.log_enabled(Severity::debug));
}

TEST_F(EngineDebugLogsTest, WhatBelongsToNoRequestIsDropped) {
  TestEngine test(retaining());
  SPILLWAY_DEBUG(test.engine, "of nobody");
  SPILLWAY_TRACE(test.engine, "not made");
  SPILLWAY_ERROR(test.engine, "error");
  test.engine.end_request(true, 1s);
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(texts(test), (Texts{"error"}));
  EXPECT_EQ(test.engine.stats().logs.dropped_for(DropCause::not_retained), 1U);
  EXPECT_TRUE(is_settled(test.engine.stats().logs));
}

TEST_F(EngineDebugLogsTest, SecretsAreNotKeptEither) {
  TestEngine test(retaining());
  const Context context{{.request_id = "r-1"}};
  const Scope scope(context);
  SPILLWAY_DEBUG(test.engine, "debug", {"password", "hunter2"}, {"mail", "jane@shop.com"});
  test.engine.step();
  test.engine.end_request(true, 1ms);
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(messages(test).at(0)["password"].string(), "[redacted]");
  EXPECT_EQ(messages(test).at(0)["mail"].string(), "[redacted]");
}

TEST_F(EngineDebugLogsTest, ARequestThatNeverEndsIsLetGo) {
  TestEngine test(retaining());
  work(test.engine, "lost", false);
  test.engine.step();
  EXPECT_EQ(test.engine.stats().logs.dropped_for(DropCause::not_retained), 0U);
  test.advance(61s);
  EXPECT_EQ(test.engine.stats().logs.dropped_for(DropCause::not_retained), 2U);
}

TEST_F(EngineDebugLogsTest, WithoutRetentionDebugIsNotMade) {
  TestEngine test(config());
  EXPECT_FALSE(test.engine.log_enabled(Severity::debug));
  test.engine.end_request(true, 1s);
  EXPECT_EQ(test.engine.stats().logs.recorded, 0U);
}

TEST_F(EngineDebugLogsTest, RequestsOfManyThreadsAreAccountedFor) {
  Config to_file = retaining();
  to_file.logs = LogsTo::file;
  to_file.logs_file = "/dev/null";
  to_file.log_rate_max = 100;
  Engine engine(to_file);
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&engine, thread] {
      for (int i = 0; i < 1000; ++i) {
        const std::string id = std::to_string(thread) + "-" + std::to_string(i);
        const Context context{{.request_id = id}};
        const Scope scope(context);
        SPILLWAY_DEBUG(engine, "debug", {"id", id});
        SPILLWAY_INFO(engine, "info");
        engine.end_request(i % 10 == 0, 1ms);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const Stats stats = engine.shutdown(10s);
  EXPECT_EQ(stats.logs.recorded, 8000U);
  EXPECT_GT(stats.logs.dropped_for(DropCause::not_retained), 0U);
  EXPECT_TRUE(is_settled(stats.logs));
}

}  // namespace
}  // namespace spillway
