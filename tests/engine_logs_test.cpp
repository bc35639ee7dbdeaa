// SPDX-License-Identifier: Apache-2.0
//
// Logs through the whole engine on a stopped clock.
#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <set>
#include <stdexcept>
#include <string_view>
#include <thread>

#include <support/engine_fixture.hpp>
#include <support/gunzip.hpp>

#include <spillway/engine/trace_header.hpp>

namespace spillway {
namespace {

using namespace std::chrono_literals;
using testing::aws_config;
using testing::is_settled;
using testing::Json;

static_assert(!std::is_constructible_v<Field, StaticName, int*> &&
              std::is_constructible_v<Field, StaticName, const char*>);

class EngineLogsTest : public ::testing::Test {
 protected:
  static Config config() {
    Config config = aws_config();
    config.metrics = MetricsTo::none;
    config.traces = TracesTo::none;
    return config;
  }
  // The messages of all PutLogEvents requests so far.
  static std::vector<Json> messages(const testing::TestEngine& test) {
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
  testing::AwsEnvironment environment;
};

enum class Colour : std::uint8_t { red = 3 };

TEST_F(EngineLogsTest, EveryTypeOfFieldArrives) {
  testing::TestEngine test(config());
  const std::string text = "f\xc3\xbcr \"dich\"\n";
  const char* const null = nullptr;
  SPILLWAY_INFO(test.engine, "all types", {"int", -7}, {"unsigned", 18446744073709551615ULL},
                {"double", 0.1}, {"float", 0.5F}, {"yes", true}, {"no", false}, {"text", text},
                {"literal", "abc"}, {"null", null}, {"enum", Colour::red},
                {"char16", std::int16_t{-2}}, {"empty", ""}, {"nan", std::nan("")});
  ASSERT_TRUE(test.engine.flush(1s));
  const Json message = messages(test).at(0);
  EXPECT_EQ(message["level"].string(), "INFO");
  EXPECT_EQ(message["message"].string(), "all types");
  EXPECT_EQ(message["service"].string(), "orders");
  EXPECT_EQ(message["timestamp"].string(), "2026-11-21T01:00:00.000000000Z");
  EXPECT_EQ(message["int"].number(), -7);
  EXPECT_EQ(message["unsigned"].text(), "18446744073709551615");
  EXPECT_EQ(message["double"].number(), 0.1);
  EXPECT_EQ(message["float"].number(), 0.5);
  EXPECT_TRUE(message["yes"].boolean());
  EXPECT_FALSE(message["no"].boolean());
  EXPECT_EQ(message["text"].string(), text);
  EXPECT_EQ(message["literal"].string(), "abc");
  EXPECT_EQ(message["null"].string(), "(null)");
  EXPECT_EQ(message["enum"].number(), 3);
  EXPECT_EQ(message["char16"].number(), -2);
  EXPECT_EQ(message["empty"].string(), "");
  EXPECT_EQ(message["nan"].string(), "NaN");
}

TEST_F(EngineLogsTest, LevelsAreComparedAndChangedAtRunTime) {
  testing::TestEngine test(config());
  int evaluated = 0;
  const auto argument = [&] { return ++evaluated; };
  SPILLWAY_DEBUG(test.engine, "too low", {"n", argument()});
  EXPECT_EQ(evaluated, 0) << "arguments of a disabled level are not evaluated";
  SPILLWAY_ERROR(test.engine, "high enough", {"n", argument()});
  test.engine.set_log_level(Severity::debug);
  SPILLWAY_DEBUG(test.engine, "now enough", {"n", argument()});
  test.engine.set_log_level(Severity::off);
  SPILLWAY_FATAL(test.engine, "nothing passes", {"n", argument()});
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(messages(test).size(), 2U);
  EXPECT_EQ(evaluated, 2);
}

TEST_F(EngineLogsTest, WarningsSayWhereTheyComeFrom) {
  testing::TestEngine test(config());
  SPILLWAY_INFO(test.engine, "fine");
  SPILLWAY_WARN(test.engine, "odd");
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_FALSE(messages(test).at(0).has("source"));
  EXPECT_EQ(messages(test).at(1)["source"].string().find("engine_logs_test.cpp:"), 0U);
}

TEST_F(EngineLogsTest, AThreadDoesNotInheritTheContextOfTheOneBeforeIt) {
  testing::TestEngine test(config());
  std::thread([&] {
    const Context context{{.tenant = "acme", .user = "alice", .request_id = "r-1"}};
    const Scope scope(context);
    SPILLWAY_INFO(test.engine, "with");
  }).join();
  std::thread([&] { SPILLWAY_INFO(test.engine, "without"); }).join();
  EXPECT_EQ(test.engine.stats().lanes, 1U) << "the second thread has the first one's ring";
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(messages(test).at(0)["tenant"].string(), "acme");
  for (const char* key : {"tenant", "user", "request_id"}) {
    EXPECT_FALSE(messages(test).at(1).has(key)) << key;
  }
}

TEST_F(EngineLogsTest, TheContextIsCarriedAndLetGo) {
  testing::TestEngine test(config());
  const Context outer{{.tenant = "acme", .user = "u-17", .request_id = "r-1"}};
  const std::string long_id(300, 'x');
  {
    const Scope scope(outer);
    SPILLWAY_INFO(test.engine, "one");
    {
      const Context inner{{.tenant = "globex", .request_id = long_id}};
      const Scope nested(inner);
      SPILLWAY_INFO(test.engine, "two");
    }
    SPILLWAY_INFO(test.engine, "three");
  }
  SPILLWAY_INFO(test.engine, "four");
  ASSERT_TRUE(test.engine.flush(1s));
  const auto found = messages(test);
  ASSERT_EQ(found.size(), 4U);
  EXPECT_EQ(found[0]["tenant"].string(), "acme");
  EXPECT_EQ(found[0]["user"].string(), "u-17");
  EXPECT_EQ(found[0]["request_id"].string(), "r-1");
  EXPECT_EQ(found[1]["tenant"].string(), "globex");
  EXPECT_FALSE(found[1].has("user"));
  EXPECT_EQ(found[1]["request_id"].string(), long_id);
  EXPECT_EQ(found[2]["tenant"].string(), "acme");
  EXPECT_FALSE(found[3].has("tenant"));
}

TEST_F(EngineLogsTest, AContextCanBeCarriedToAnotherThread) {
  testing::TestEngine test(config());
  const Context context{{.tenant = "acme"}};
  const Scope scope(context);
  std::thread([&test, carried = Context::current()] {
    const Scope there(carried);
    SPILLWAY_INFO(test.engine, "elsewhere");
  }).join();
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(messages(test).at(0)["tenant"].string(), "acme");
}

TEST_F(EngineLogsTest, LogsOfATraceNameItsSpan) {
  Config with_traces = config();
  with_traces.traces = TracesTo::put_trace_segments;
  testing::TestEngine test(with_traces);
  std::string span_id;
  std::string trace_id;
  {
    const Span span = test.engine.span("work");
    trace_id = to_string(span.trace_id());
    SPILLWAY_INFO(test.engine, "inside");
  }
  SPILLWAY_INFO(test.engine, "outside");
  ASSERT_TRUE(test.engine.flush(1s));
  const auto found = messages(test);
  EXPECT_EQ(found.at(0)["trace_id"].string(), trace_id);
  EXPECT_EQ(found.at(0)["span_id"].string().size(), 16U);
  EXPECT_FALSE(found.at(1).has("trace_id"));
  EXPECT_FALSE(found.at(1).has("span_id"));
}

TEST_F(EngineLogsTest, EventsGoOutWhenTheOldestHasWaited) {
  testing::TestEngine test(config());
  SPILLWAY_INFO(test.engine, "one");
  test.advance(1ms);
  test.advance(998ms);
  EXPECT_TRUE(test.http.requests().empty());
  test.advance(2ms);
  test.settle();
  EXPECT_EQ(test.http.requests().size(), 1U);
}

TEST_F(EngineLogsTest, EventsOfABatchAreInOrderOfTime) {
  testing::TestEngine test(config());
  SPILLWAY_INFO(test.engine, "later", {"n", 2});
  test.clock.step_wall(-1h);
  SPILLWAY_INFO(test.engine, "earlier by the clock", {"n", 1});
  ASSERT_TRUE(test.engine.flush(1s));
  const Json body(test.http.requests().at(0).body);
  ASSERT_EQ(body["logEvents"].size(), 2U);
  EXPECT_LT(body["logEvents"][0]["timestamp"].number(), body["logEvents"][1]["timestamp"].number());
}

TEST_F(EngineLogsTest, ABatchSpansNoMoreThanADay) {
  Config patient = config();
  patient.log_interval = 60'000ms;
  testing::TestEngine test(patient);
  SPILLWAY_INFO(test.engine, "now");
  test.engine.step();
  test.clock.step_wall(25h);
  SPILLWAY_INFO(test.engine, "a day and an hour later");
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(test.http.requests().size(), 2U);
  EXPECT_EQ(test.engine.stats().logs.delivered, 2U);
}

TEST_F(EngineLogsTest, EventsTheServiceWouldNotTakeAreDroppedAsExpired) {
  testing::TestEngine test(config());
  SPILLWAY_INFO(test.engine, "will be old");
  test.clock.step_wall(15 * 24h);
  SPILLWAY_INFO(test.engine, "fresh");
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(test.engine.stats().logs.dropped_for(DropCause::expired), 1U);
  EXPECT_EQ(test.engine.stats().logs.delivered, 1U);
  EXPECT_TRUE(is_settled(test.engine.stats().logs));
}

TEST_F(EngineLogsTest, AFullRingDropsAndCountsButKeepsRoomForWarnings) {
  Config small = config();
  small.ring_bytes = 4096;
  testing::TestEngine test(small);
  for (int i = 0; i < 1000; ++i) SPILLWAY_INFO(test.engine, "chatter", {"n", i});
  for (int i = 0; i < 5; ++i) SPILLWAY_ERROR(test.engine, "the error behind it", {"n", i});
  ASSERT_TRUE(test.engine.flush(1s));
  const Stats stats = test.engine.stats();
  EXPECT_EQ(stats.logs.recorded, 1005U);
  EXPECT_GT(stats.logs.dropped_for(DropCause::ring_full), 800U);
  EXPECT_TRUE(is_settled(stats.logs));
  int errors = 0;
  for (const Json& message : messages(test)) errors += message["level"].string() == "ERROR" ? 1 : 0;
  EXPECT_EQ(errors, 5);
}

TEST_F(EngineLogsTest, ARecordThatClosingOvertookIsAccountedFor) {
  testing::TestEngine test(config());
  SPILLWAY_INFO(test.engine, "in time");
  detail::Lane& lane = *detail::current_lane;  // R1, and then nothing for a while.
  EXPECT_TRUE(is_settled(test.engine.shutdown(1s).logs));
  const detail::Ring::Room room = lane.ring.reserve(detail::log_values_at);
  lane.counters.logs_recorded.add();
  lane.ring.commit(room);  // R2.
  const SignalStats logs = test.engine.stats().logs;
  EXPECT_EQ(logs.recorded, 2U);
  EXPECT_EQ(logs.dropped_for(DropCause::closed), 1U);
  EXPECT_TRUE(is_settled(logs));
}

TEST_F(EngineLogsTest, ARecordTooLargeForTheRingTakesTheSlowLane) {
  Config small = config();
  small.ring_bytes = 4096;
  testing::TestEngine test(small);
  const std::string large(100'000, 'x');
  const Context context{{.tenant = "acme"}};
  const Scope scope(context);
  SPILLWAY_INFO(test.engine, "large", {"text", large}, {"n", 1}, {"yes", true});
  ASSERT_TRUE(test.engine.flush(1s));
  const Json message = messages(test).at(0);
  EXPECT_EQ(message["text"].string(), large);
  EXPECT_EQ(message["n"].number(), 1);
  EXPECT_TRUE(message["yes"].boolean());
  EXPECT_EQ(message["tenant"].string(), "acme");
  EXPECT_TRUE(is_settled(test.engine.stats().logs));
}

TEST_F(EngineLogsTest, ALargeRecordKeepsItsPlaceAmongItsNeighbours) {
  Config small = config();
  small.ring_bytes = 4096;
  testing::TestEngine test(small);
  const std::string large(100'000, 'x');
  SPILLWAY_INFO(test.engine, "event", {"n", 0});
  test.clock.advance(1us);
  SPILLWAY_INFO(test.engine, "event", {"n", 1}, {"text", large});
  test.clock.advance(1us);
  SPILLWAY_INFO(test.engine, "event", {"n", 2});
  ASSERT_TRUE(test.engine.flush(1s));
  const std::vector<Json> all = messages(test);
  ASSERT_EQ(all.size(), 3U);
  for (std::size_t i = 0; i < all.size(); ++i) EXPECT_EQ(all[i]["n"].number(), i);
}

TEST_F(EngineLogsTest, LargeRecordsAreBoundedByTheQueue) {
  Config small = config();
  small.queue_bytes_max = 4 << 20;
  testing::TestEngine test(small);
  const std::string large(1 << 20, 'x');
  for (int i = 0; i < 10; ++i) SPILLWAY_INFO(test.engine, "large", {"text", large});
  ASSERT_TRUE(test.engine.flush(1s));
  const Stats stats = test.engine.stats();
  EXPECT_EQ(stats.logs.recorded, 10U);
  EXPECT_GE(stats.logs.dropped_for(DropCause::queue_full), 6U);
  EXPECT_TRUE(is_settled(stats.logs));
}

TEST_F(EngineLogsTest, AnEventLargerThanTheServiceTakesIsCutWithAMark) {
  testing::TestEngine test(config());
  const std::string huge(3 << 20, 'x');
  SPILLWAY_INFO(test.engine, "huge", {"n", 1}, {"text", huge});
  ASSERT_TRUE(test.engine.flush(1s));
  const Json message = messages(test).at(0);
  EXPECT_TRUE(message["truncated"].boolean());
  EXPECT_EQ(message["n"].number(), 1);
  EXPECT_LE(message.text().size(), 1'048'576U - 26);
  EXPECT_EQ(test.engine.stats().logs.delivered, 1U);
}

template <class Value>
void log_value(Engine& engine, const Value& value) {
  SPILLWAY_INFO(engine, "of any type", {"value", value});
}

TEST_F(EngineLogsTest, ASiteInATemplateIsASiteForEachType) {
  testing::TestEngine test(config());
  log_value(test.engine, 1);
  log_value(test.engine, "text");
  log_value(test.engine, 2.5);
  ASSERT_TRUE(test.engine.flush(1s));
  const auto found = messages(test);
  EXPECT_EQ(found.at(0)["value"].number(), 1);
  EXPECT_EQ(found.at(1)["value"].string(), "text");
  EXPECT_EQ(found.at(2)["value"].number(), 2.5);
}

TEST_F(EngineLogsTest, ASiteWhoseFieldChangesItsTypeIsReadAsItWasWritten) {
  testing::TestEngine test(config());
  for (const bool text : {true, false, true}) {
    SPILLWAY_INFO(test.engine, "either", text ? Field("value", "text") : Field("value", 7));
  }
  ASSERT_TRUE(test.engine.flush(1s));
  const auto found = messages(test);
  EXPECT_EQ(found.at(0)["value"].string(), "text");
  EXPECT_EQ(found.at(1)["value"].number(), 7);
  EXPECT_EQ(found.at(2)["value"].string(), "text");
}

// One site, one type, two keys: each record has its own.
TEST_F(EngineLogsTest, ASiteWhoseFieldChangesItsKeyIsReadAsItWasWritten) {
  testing::TestEngine test(config());
  for (const bool found : {true, false, true, false}) {
    SPILLWAY_INFO(test.engine, "looked up", {"n", 1},
                  found ? Field("rows", 7) : Field("error_code", 404));
  }
  ASSERT_TRUE(test.engine.flush(1s));
  const auto found = messages(test);
  ASSERT_EQ(found.size(), 4U);
  for (const std::size_t i : {0U, 2U}) {
    EXPECT_EQ(found[i]["rows"].number(), 7);
    EXPECT_FALSE(found[i].has("error_code"));
    EXPECT_EQ(found[i + 1]["error_code"].number(), 404);
    EXPECT_FALSE(found[i + 1].has("rows"));
  }
}

// What folds to the same number would be taken for another variant.
TEST(FieldsOfACall, FoldByKeysTypesAndOrder) {
  struct One {
    StaticName key;
    detail::ValueType type;
  };
  const auto fold = [](std::initializer_list<One> fields) {
    std::uint64_t folded = 0;
    for (const auto& [key, type] : fields) {
      folded = detail::fold_field(folded, key.hash(), static_cast<std::uint32_t>(type));
    }
    return folded;
  };
  using detail::ValueType;
  const std::set<std::uint64_t> numbers{
      fold({}),
      fold({{"a", ValueType::integer}}),
      fold({{"b", ValueType::integer}}),
      fold({{"a", ValueType::string}}),
      fold({{"a", ValueType::integer}, {"b", ValueType::integer}}),
      fold({{"b", ValueType::integer}, {"a", ValueType::integer}}),
      fold({{"a", ValueType::integer}, {"a", ValueType::integer}}),
      fold({{"ab", ValueType::integer}}),
  };
  EXPECT_EQ(numbers.size(), 8U);
}

TEST_F(EngineLogsTest, TheCoarseClockIsTheFlushersLastRound) {
  Config coarse = config();
  coarse.log_coarse_time = true;
  testing::TestEngine test(coarse);
  test.engine.step();
  test.clock.advance(5ms);
  SPILLWAY_INFO(test.engine, "five milliseconds behind");
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(messages(test).at(0)["timestamp"].string(), "2026-11-21T01:00:00.000000000Z");
}

// ---- Loggers ----

TEST_F(EngineLogsTest, ALoggerSaysItsNameAndItsFields) {
  testing::TestEngine test(config());
  const Logger pool = test.engine.logger("db.pool");
  std::string host = "db-1";
  const Logger one = pool.with({"host", host}, {"port", 5432}, {"tls", true});
  host = "changed";
  SPILLWAY_INFO(pool, "of the pool", {"n", 1});
  SPILLWAY_WARN(one, "of one", {"idle", 2.5}, {"text", "t"});
  SPILLWAY_INFO(one, "without its own");
  SPILLWAY_INFO(test.engine, "of the engine");
  ASSERT_TRUE(test.engine.flush(1s));
  const auto found = messages(test);
  ASSERT_EQ(found.size(), 4U);
  EXPECT_EQ(found[0]["logger"].string(), "db.pool");
  EXPECT_EQ(found[0]["n"].number(), 1);
  EXPECT_FALSE(found[0].has("host"));
  EXPECT_EQ(found[1]["logger"].string(), "db.pool");
  EXPECT_EQ(found[1]["level"].string(), "WARN");
  EXPECT_EQ(found[1]["host"].string(), "db-1");
  EXPECT_EQ(found[1]["port"].number(), 5432);
  EXPECT_TRUE(found[1]["tls"].boolean());
  EXPECT_EQ(found[1]["idle"].number(), 2.5);
  EXPECT_EQ(found[1]["text"].string(), "t");
  EXPECT_TRUE(found[1].has("source"));
  EXPECT_EQ(found[2]["host"].string(), "db-1");
  EXPECT_FALSE(found[3].has("logger"));
}

TEST_F(EngineLogsTest, OneCallSiteServesManyLoggers) {
  testing::TestEngine test(config());
  const Logger a = test.engine.logger("a").with({"n", 1});
  const Logger b = test.engine.logger("b").with({"n", "text"});
  const Logger unnamed = test.engine.logger().with({"who", "me"});
  for (const Logger& logger : {a, b, unnamed, Logger(), a}) SPILLWAY_INFO(logger, "m", {"x", 7});
  ASSERT_TRUE(test.engine.flush(1s));
  const auto found = messages(test);
  ASSERT_EQ(found.size(), 4U) << "what no engine gave out says nothing";
  EXPECT_EQ(found[0]["n"].number(), 1);
  EXPECT_EQ(found[1]["n"].string(), "text");
  EXPECT_EQ(found[2]["who"].string(), "me");
  EXPECT_FALSE(found[2].has("logger"));
  EXPECT_EQ(found[3]["logger"].string(), "a");
  for (const Json& message : found) EXPECT_EQ(message["x"].number(), 7);
}

TEST_F(EngineLogsTest, AChildOfAChildHasTheFieldsOfBoth) {
  testing::TestEngine test(config());
  const Logger child =
      test.engine.logger("http").with({"a", 1}, {"b", 2}).with({"b", "two"}, {"c", 3});
  SPILLWAY_INFO(child, "m", {"c", 4});
  ASSERT_TRUE(test.engine.flush(1s));
  const Json message = messages(test).at(0);
  EXPECT_EQ(message["a"].number(), 1);
  EXPECT_EQ(message["b"].string(), "two");
  EXPECT_EQ(message["c"].number(), 3);
  EXPECT_EQ(message["c_2"].number(), 4) << "a record's own field does not hide the logger's";
}

TEST_F(EngineLogsTest, RecordsOutliveTheirLogger) {
  Config small = config();
  small.ring_bytes = 4096;
  testing::TestEngine test(small);
  const std::string large(100'000, 'x');
  for (int i = 0; i < 3; ++i) {
    const Logger request = test.engine.logger("request").with({"id", "r-" + std::to_string(i)});
    const Context context{{.tenant = "acme"}};
    const Scope scope(context);
    SPILLWAY_INFO(request, "in the ring");
    SPILLWAY_INFO(request, "beside it", {"text", large});
  }
  ASSERT_TRUE(test.engine.flush(1s));
  std::vector<std::string> ids;
  for (const Json& message : messages(test)) ids.push_back(message["id"].string());
  std::sort(ids.begin(), ids.end());
  EXPECT_EQ(ids, (std::vector<std::string>{"r-0", "r-0", "r-1", "r-1", "r-2", "r-2"}));
  EXPECT_TRUE(is_settled(test.engine.stats().logs));
}

TEST_F(EngineLogsTest, ALoggerOutlivesItsEngine) {
  Logger left;
  {
    testing::TestEngine test(config());
    left = test.engine.logger("left").with({"n", 1});
    SPILLWAY_INFO(left, "in time");
    test.engine.shutdown(1s);
    SPILLWAY_INFO(left, "late");
    EXPECT_EQ(test.engine.stats().logs.dropped_for(DropCause::closed), 1U);
  }
  SPILLWAY_INFO(left, "later");
  const Logger child = left.with({"m", 2});
  SPILLWAY_INFO(child, "later still");
}

TEST_F(EngineLogsTest, LoggersHaveTheLevelOfTheNearestNameAboveThem) {
  Config levels = config();
  levels.log_level = Severity::warn;
  levels.log_levels = LogLevels{{"db", Severity::debug}, {"db.pool.idle", Severity::error}};
  testing::TestEngine test(levels);
  const auto level_of = [&](std::string_view name) {
    const Logger logger = test.engine.logger(name);
    int level = 0;
    while (level < 6 && !logger.log_enabled(static_cast<Severity>(level))) ++level;
    return static_cast<Severity>(level);
  };
  EXPECT_EQ(level_of(""), Severity::warn);
  EXPECT_EQ(level_of("http"), Severity::warn);
  EXPECT_EQ(level_of("dbx"), Severity::warn) << "a name, not a prefix of its characters";
  EXPECT_EQ(level_of("db"), Severity::debug);
  EXPECT_EQ(level_of("db.pool"), Severity::debug);
  EXPECT_EQ(level_of("db.pool.idle.x"), Severity::error);

  const Logger pool = test.engine.logger("db.pool").with({"n", 1});
  test.engine.set_log_level("db.pool", Severity::off);
  EXPECT_FALSE(pool.log_enabled(Severity::fatal)) << "a logger that is there follows";
  EXPECT_EQ(level_of("db.pool.idle"), Severity::error);
  test.engine.set_log_level("db.pool", std::nullopt);
  EXPECT_TRUE(pool.log_enabled(Severity::debug));
  test.engine.set_log_level("db", std::nullopt);
  EXPECT_FALSE(pool.log_enabled(Severity::info));
  test.engine.set_log_level(Severity::trace);
  EXPECT_TRUE(pool.log_enabled(Severity::trace));
  EXPECT_TRUE(test.engine.log_enabled(Severity::trace));
  EXPECT_EQ(level_of("db.pool.idle"), Severity::error);
  test.engine.set_log_level("", Severity::fatal);
  EXPECT_FALSE(test.engine.log_enabled(Severity::error)) << "no name is the engine";

  Config nowhere = config();
  nowhere.logs = LogsTo::none;
  testing::TestEngine silent(nowhere);
  const Logger off = silent.engine.logger("x");
  silent.engine.set_log_level("x", Severity::trace);
  silent.engine.set_log_level(Severity::trace);
  EXPECT_FALSE(off.log_enabled(Severity::fatal));
  EXPECT_FALSE(silent.engine.log_enabled(Severity::fatal));
}

TEST_F(EngineLogsTest, WhatALoggerCannotHoldIsLeftOutAndReported) {
  std::string heard;
  Config listening = config();
  listening.on_diagnostic = [&](std::string_view message) { heard.append(message).append("\n"); };
  testing::TestEngine test(listening);
  Logger logger = test.engine.logger("wide");
  const auto add = [&]<std::size_t... I>(std::index_sequence<I...>) {
    static constexpr char keys[50][3] = {{'a', static_cast<char>('A' + I % 50), '\0'}...};
    (static_cast<void>(logger = logger.with({StaticName(keys[I]), static_cast<int>(I)})), ...);
  };
  add(std::make_index_sequence<50>());
  SPILLWAY_INFO(logger, "m", {"own", 1});
  ASSERT_TRUE(test.engine.flush(1s));
  const Json message = messages(test).at(0);
  EXPECT_EQ(message["aA"].number(), 0);
  EXPECT_EQ(message["ap"].number(), 47);
  EXPECT_FALSE(message.has("aq"));
  EXPECT_EQ(message["own"].number(), 1);
  EXPECT_NE(heard.find("'wide': 1 fields are left out"), std::string::npos) << heard;
}

TEST_F(EngineLogsTest, LoggersComeAndGoWhileTheFlusherReads) {
  Config config_of_threads = config();
  config_of_threads.logs = LogsTo::file;
  config_of_threads.logs_file = "/dev/null";
  Engine engine(config_of_threads);
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&engine, thread] {
      const Logger base = engine.logger("worker");
      for (int i = 0; i < 2000; ++i) {
        const Logger request = base.with({"thread", thread}, {"id", std::to_string(i)});
        SPILLWAY_INFO(request, "one", {"i", i});
        SPILLWAY_INFO(request, "two");
        if (i % 100 == 0)
          engine.set_log_level("worker", i % 200 == 0 ? Severity::info : Severity::debug);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const Stats stats = engine.shutdown(10s);
  EXPECT_EQ(stats.logs.recorded, 16'000U);
  EXPECT_TRUE(is_settled(stats.logs));
}

// ---- Arguments and clocks that misbehave ----

struct Throwing {
  operator std::string_view() const { throw std::runtime_error("no text"); }
};

TEST_F(EngineLogsTest, AnArgumentThatThrowsLeavesNothingBehind) {
  Config with_spans = config();
  with_spans.traces = TracesTo::put_trace_segments;
  with_spans.trace_sample_rate = 1.0;
  testing::TestEngine test(with_spans);
  const auto log = [&] {
    SPILLWAY_INFO(test.engine, "never", {"n", 1}, {"text", std::string_view(Throwing())});
  };
  EXPECT_THROW(log(), std::runtime_error);
  {
    Span span = test.engine.span("work");
    EXPECT_THROW(span.annotate("text", std::string_view(Throwing())), std::runtime_error);
    span.annotate("n", 2);
  }
  SPILLWAY_INFO(test.engine, "behind it", {"n", 3});
  ASSERT_TRUE(test.engine.flush(1s));
  const Stats stats = test.engine.stats();
  EXPECT_EQ(stats.logs.recorded, 1U);
  EXPECT_EQ(stats.spans.recorded, 1U);
  EXPECT_TRUE(is_settled(stats.logs));
  EXPECT_TRUE(is_settled(stats.spans));
  ASSERT_EQ(messages(test).size(), 1U);
  EXPECT_EQ(messages(test).at(0)["n"].number(), 3);
}

/// Engines of all signals, whose wall clock does what it likes while time goes on.
class OddClockTest : public EngineLogsTest {
 protected:
  static Config config() {
    Config config = aws_config();
    config.trace_sample_rate = 1.0;
    return config;
  }
  static void record(const testing::TestEngine& test, const Counter& counter) {
    counter.add(1);
    SPILLWAY_INFO(test.engine, "event");
    const Span span = test.engine.span("work");
  }
};

TEST_F(OddClockTest, TheYear2038IsOneLikeAnother) {
  testing::TestEngine test(config());
  const Counter counter = test.engine.counter("Requests");
  constexpr WallTime last_second_of_32_bits{std::chrono::seconds(2'147'483'647)};
  test.clock.step_wall(last_second_of_32_bits - 30s - test.clock.wall());
  test.settle();  // What is open is of 2026.
  for (int i = 0; i < 8; ++i) {
    record(test, counter);
    test.advance(15s);
    test.settle();
  }
  ASSERT_TRUE(test.engine.flush(1s));
  const Stats stats = test.engine.stats();
  for (const SignalStats* const signal : {&stats.metrics, &stats.logs, &stats.spans}) {
    EXPECT_EQ(signal->delivered, 8U);
  }
  double last_ms = 0;
  std::size_t logs = 0;
  for (const auto& request : test.http.requests()) {
    const Json body(testing::body_of(request));
    if (testing::operation_of(request) != "PutLogEvents") continue;
    for (std::size_t i = 0; i < body["logEvents"].size(); ++i, ++logs) {
      const double ms = body["logEvents"][i]["timestamp"].number();
      EXPECT_EQ(ms, 1000.0 * (2'147'483'617 + 15.0 * static_cast<double>(logs)));
      EXPECT_GT(ms, last_ms);
      last_ms = ms;
    }
  }
  EXPECT_EQ(logs, 8U);
}

TEST_F(OddClockTest, AWallClockThatStandsStillHoldsNothingUp) {
  testing::TestEngine test(config());
  const Counter counter = test.engine.counter("Requests");
  record(test, counter);
  for (int i = 0; i < 40; ++i) {
    test.clock.step_wall(-5s);
    test.advance(5s);
  }
  test.settle();
  const Stats stats = test.engine.stats();
  EXPECT_EQ(stats.logs.delivered, 1U);
  EXPECT_EQ(stats.spans.delivered, 1U);
  EXPECT_EQ(stats.metrics.delivered, 1U);
}

}  // namespace
}  // namespace spillway
