// SPDX-License-Identifier: Apache-2.0
//
// PutLogEvents: the request's text, and batches by the service's limits as an engine makes them.
#include <string>

#include <support/engine_fixture.hpp>
#include <support/golden.hpp>
#include <support/records.hpp>

#include <spillway/encoders/limits.hpp>
#include <spillway/encoders/put_log_events.hpp>
#include <spillway/engine/batcher.hpp>

namespace spillway {
namespace {

using namespace std::chrono_literals;
using detail::Payload;
using testing::is_settled;
using testing::Json;

void add_event(Payload& payload, std::int64_t time_ms, std::string_view message) {
  const std::size_t offset = payload.bytes.size();
  payload.bytes.append(message);
  payload.end_item(offset, 1, time_ms);
}

TEST(PutLogEventsTest, EventsAreMessagesWithTheirTime) {
  Payload payload = testing::make_payload();
  add_event(payload, testing::test_time_ms, R"({"message":"order \"placed\""})");
  add_event(payload, testing::test_time_ms + 1, "plain\ntext");
  detail::ByteBuffer out;
  detail::append_put_log_events(payload, "/shop/orders", "host\"1/\x07", out);
  testing::expect_golden("put_log_events.json", out.view());
  const Json body(out.view());
  EXPECT_EQ(body["logGroupName"].string(), "/shop/orders");
  EXPECT_EQ(body["logStreamName"].string(), "host\"1/\x07");
  ASSERT_EQ(body["logEvents"].size(), 2U);
  EXPECT_EQ(body["logEvents"][std::size_t{0}]["timestamp"].number(),
            static_cast<double>(testing::test_time_ms));
  EXPECT_EQ(body["logEvents"][std::size_t{0}]["message"].string(),
            R"({"message":"order \"placed\""})");
  EXPECT_EQ(body["logEvents"][1]["message"].string(), "plain\ntext");
}

TEST(PutLogEventsTest, EventsAreSortedByTimeAndEqualTimesKeepTheirOrder) {
  Payload payload = testing::make_payload();
  const std::int64_t times[] = {5, 3, 5, 1, 3, 5, 0};
  for (std::size_t i = 0; i < std::size(times); ++i) {
    add_event(payload, times[i], std::string(1, static_cast<char>('a' + i)));
  }
  detail::sort_log_events(payload);
  std::string order;
  for (const std::string& item : testing::items_of(payload)) order += item;
  EXPECT_EQ(order, "gdbeacf");
}

class PutLogEventsBatchTest : public ::testing::Test {
 protected:
  static Config config() {
    Config config = testing::aws_config();
    config.metrics = MetricsTo::none;
    config.traces = TracesTo::none;
    config.log_interval = 60'000ms;
    config.on_diagnostic = [](std::string_view) {};
    return config;
  }

  struct Batch {
    std::size_t events;
    std::size_t bytes;
    std::int64_t first_ms;
    std::int64_t last_ms;
  };
  // The requests as the service measures them; fails the test where they break its rules.
  static std::vector<Batch> batches(const testing::TestEngine& test) {
    std::vector<Batch> found;
    for (const auto& request : test.http.requests()) {
      const Json events = Json(request.body)["logEvents"];
      Batch batch{events.size(), 0, 0, 0};
      for (std::size_t i = 0; i < events.size(); ++i) {
        const std::size_t bytes = events[i]["message"].string().size();
        EXPECT_GE(bytes, 1U);
        batch.bytes += bytes + 26;
        const auto time = static_cast<std::int64_t>(events[i]["timestamp"].number());
        if (i == 0) batch.first_ms = time;
        EXPECT_GE(time, batch.last_ms) << "in the order of their times";
        batch.last_ms = time;
      }
      EXPECT_GE(batch.events, 1U);
      EXPECT_LE(batch.events, 10'000U);
      EXPECT_LE(batch.bytes, 1'048'576U);
      EXPECT_LE(batch.last_ms - batch.first_ms, 24 * 3600 * 1000);
      found.push_back(batch);
    }
    return found;
  }

  testing::AwsEnvironment environment_;
};

// Payloads as the batcher makes them by the exporter's limits, of events with these sizes.
std::vector<std::size_t> batch_sizes(const std::vector<std::size_t>& event_bytes) {
  const testing::AwsEnvironment environment;
  Config config = testing::aws_config();
  config.logs_endpoint = "http://127.0.0.1:1";
  config.region = "eu-west-1";
  const auto exporter =
      detail::make_logs_exporter(config, std::make_shared<detail::ExporterShared>());
  detail::Outbox outbox(64U << 20);
  detail::Ledger ledger;
  detail::Batcher batcher(*exporter, outbox, ledger);
  const SteadyTime now{};
  for (const std::size_t bytes : event_bytes) {
    add_event(batcher.open(), testing::test_time_ms, std::string(bytes, 'x'));
    batcher.appended(now);
  }
  batcher.seal();
  std::vector<std::size_t> sizes;
  while (const auto payload = outbox.receive()) sizes.push_back(payload->items.size());
  return sizes;
}

TEST(PutLogEventsLimitsTest, TenThousandEventsABatch) {
  EXPECT_EQ(batch_sizes(std::vector<std::size_t>(10'000, 1)), (std::vector<std::size_t>{10'000}));
  EXPECT_EQ(batch_sizes(std::vector<std::size_t>(20'001, 1)),
            (std::vector<std::size_t>{10'000, 10'000, 1}));
}

TEST(PutLogEventsLimitsTest, TwentySixBytesAreCountedOnTopOfEach) {
  // 1024 events of 998 bytes are 1 048 576 with what is counted on top.
  EXPECT_EQ(batch_sizes(std::vector<std::size_t>(1024, 998)), (std::vector<std::size_t>{1024}));
  EXPECT_EQ(batch_sizes(std::vector<std::size_t>(1025, 998)), (std::vector<std::size_t>{1024, 1}));
  std::vector<std::size_t> one_more(1024, 998);
  one_more.back() = 999;
  EXPECT_EQ(batch_sizes(one_more), (std::vector<std::size_t>{1023, 1}));
}

TEST(PutLogEventsLimitsTest, AnEventMayFillABatchButNotMore) {
  EXPECT_EQ(batch_sizes({5, 1'048'550, 7}), (std::vector<std::size_t>{1, 1, 1}));
  EXPECT_EQ(batch_sizes({5, 1'048'551, 7}), (std::vector<std::size_t>{2}))
      << "what no batch can hold does not take its neighbours down";
}

TEST_F(PutLogEventsBatchTest, ABatchIsFullBeforeTheNextBegins) {
  testing::TestEngine test(config());
  const std::string text(9000, 'x');
  for (int i = 0; i < 300; ++i) {
    SPILLWAY_INFO(test.engine, "m", {"text", text});
    if (i % 50 == 0) test.engine.step();
  }
  test.engine.flush(1s);
  const auto found = batches(test);
  ASSERT_GE(found.size(), 3U);
  std::size_t total = 0;
  std::size_t event = 0;
  for (const Batch& batch : found) {
    total += batch.events;
    event = batch.bytes / batch.events;
  }
  for (std::size_t i = 0; i + 1 < found.size(); ++i) {
    EXPECT_GT(found[i].bytes + event, 1'048'576U) << "no room for one more";
  }
  EXPECT_EQ(total, 300U);
  EXPECT_TRUE(is_settled(test.engine.stats().logs));
}

TEST_F(PutLogEventsBatchTest, AnEventMayFillABatchAlone) {
  testing::TestEngine test(config());
  SPILLWAY_INFO(test.engine, "before");
  test.engine.step();
  const std::string huge(2 << 20, 'x');
  SPILLWAY_INFO(test.engine, "huge", {"text", huge});
  test.engine.step();
  SPILLWAY_INFO(test.engine, "behind");
  test.engine.flush(1s);
  batches(test);
  EXPECT_EQ(test.engine.stats().logs.delivered, 3U);
}

TEST_F(PutLogEventsBatchTest, ADayABatchToTheMillisecond) {
  for (const bool too_much : {false, true}) {
    testing::TestEngine test(config());
    SPILLWAY_INFO(test.engine, "first");
    test.engine.step();
    test.clock.step_wall(24h + (too_much ? 1ms : 0ms));
    SPILLWAY_INFO(test.engine, "a day later");
    test.engine.flush(1s);
    EXPECT_EQ(batches(test).size(), too_much ? 2U : 1U);
    EXPECT_EQ(test.engine.stats().logs.delivered, 2U);
  }
}

TEST_F(PutLogEventsBatchTest, TooOldAndTooNewAreRefusedToTheMillisecond) {
  struct Case {
    std::chrono::milliseconds step;
    bool taken;
  };
  for (const Case& c : {Case{14 * 24h, true}, Case{14 * 24h + 1ms, false}, Case{-2h, true},
                        Case{-2h - 1ms, false}}) {
    testing::TestEngine test(config());
    SPILLWAY_INFO(test.engine, "m");
    test.clock.step_wall(c.step);
    SPILLWAY_INFO(test.engine, "its neighbour");
    test.engine.flush(1s);
    const Stats stats = test.engine.stats();
    EXPECT_EQ(stats.logs.dropped_for(DropCause::expired), c.taken ? 0U : 1U) << c.step.count();
    EXPECT_EQ(stats.logs.delivered, c.taken ? 2U : 1U);
    EXPECT_TRUE(is_settled(stats.logs));
  }
}

TEST_F(PutLogEventsBatchTest, ATimeBeforeTheEpochIsRefused) {
  testing::TestEngine test(config());
  test.clock.step_wall(std::chrono::seconds(-1'795'222'800 - 10));
  SPILLWAY_INFO(test.engine, "m");
  test.engine.flush(1s);
  EXPECT_EQ(test.engine.stats().logs.dropped_for(DropCause::expired), 1U);
  EXPECT_TRUE(test.http.requests().empty());
}

}  // namespace
}  // namespace spillway
