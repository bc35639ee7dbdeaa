// SPDX-License-Identifier: Apache-2.0
//
// An engine with a spool: outages, the end of the process in the middle of them, and the account.
#include <algorithm>
#include <array>
#include <cstdio>
#include <map>

#include <support/engine_fixture.hpp>
#include <support/gunzip.hpp>
#include <support/memory_disk.hpp>
#include <support/temporary_file.hpp>

namespace spillway {
namespace {

using namespace std::chrono_literals;
using testing::aws_config;
using testing::is_settled;
using testing::Json;
using testing::MemoryDisk;
using testing::TestEngine;
using transport::HttpOutcome;
using transport::HttpRequest;
using transport::MemoryTransport;

/// The other side: takes events when it is up, and remembers their numbers.
class Service {
 public:
  bool up = true;
  bool partly = false;  ///< refuses requests of more than one event
  std::vector<int> taken;

  void serve(TestEngine& engine) {
    engine.http.set_answer([this](const HttpRequest& request) {
      if (!up) return MemoryTransport::failed(HttpOutcome::not_connected);
      if (testing::operation_of(request) != "PutLogEvents") return MemoryTransport::answered(200);
      const Json events = Json(request.body)["logEvents"];
      if (partly && events.size() > 1) return MemoryTransport::answered(413);
      for (std::size_t i = 0; i < events.size(); ++i) {
        taken.push_back(static_cast<int>(Json(events[i]["message"].string())["n"].number()));
      }
      return MemoryTransport::answered(200);
    });
  }
};

class SpoolDeliveryTest : public ::testing::Test {
 protected:
  Config config() {
    Config config = aws_config();
    config.metrics = MetricsTo::none;
    config.traces = TracesTo::none;
    config.attempts_max = 4;
    config.spool_dir = "/spool";
    config.on_diagnostic = [this](std::string_view text) { diagnostics.emplace_back(text); };
    return config;
  }
  std::unique_ptr<TestEngine> start() {
    auto engine = std::make_unique<TestEngine>(config(), disk);
    service.serve(*engine);
    return engine;
  }
  /// A payload of its own for each event.
  static void log(TestEngine& test, int first, int count) {
    for (int n = first; n < first + count; ++n) {
      SPILLWAY_INFO(test.engine, "event", {"n", n});
      test.advance(1s);
      test.advance(1s);
    }
  }
  static void wait_out(TestEngine& test) {
    for (int i = 0; i < 40; ++i) test.advance(30s);
  }
  static std::vector<int> up_to(int count) {
    std::vector<int> numbers(static_cast<std::size_t>(count));
    for (int n = 0; n < count; ++n) numbers[static_cast<std::size_t>(n)] = n;
    return numbers;
  }

  testing::AwsEnvironment environment;
  std::shared_ptr<MemoryDisk> disk = std::make_shared<MemoryDisk>();
  Service service;
  std::vector<std::string> diagnostics;
};

TEST_F(SpoolDeliveryTest, NothingTouchesTheDiskWhileTheDestinationTakesEverything) {
  auto test = start();
  log(*test, 0, 3);
  EXPECT_TRUE(disk->files().empty());
  EXPECT_EQ(service.taken, up_to(3));
}

TEST_F(SpoolDeliveryTest, AnOutageGoesToDiskAndOutInOrderAfterwards) {
  auto test = start();
  service.up = false;
  log(*test, 0, 20);
  Stats stats = test->engine.stats();
  EXPECT_EQ(stats.logs.held_in_spool, 20U);
  EXPECT_EQ(stats.logs.held_in_queue, 0U);
  EXPECT_EQ(stats.logs.residue(), 0);
  EXPECT_EQ(disk->files().size(), 20U);
  wait_out(*test);
  EXPECT_EQ(test->engine.stats().logs.held_in_spool, 20U) << "however long it lasts";
  service.up = true;
  log(*test, 20, 3);
  wait_out(*test);
  EXPECT_EQ(service.taken, up_to(23));
  stats = test->engine.stats();
  EXPECT_EQ(stats.logs.delivered, 23U);
  EXPECT_TRUE(is_settled(stats.logs));
  EXPECT_TRUE(disk->files().empty());
}

TEST_F(SpoolDeliveryTest, AFlushIsDoneWhenWhatIsLeftIsOnDisk) {
  auto test = start();
  service.up = false;
  log(*test, 0, 3);
  SPILLWAY_INFO(test->engine, "event", {"n", 3});
  EXPECT_TRUE(test->engine.flush(1s));
  EXPECT_EQ(test->engine.stats().logs.held_in_spool, 4U);
}

TEST_F(SpoolDeliveryTest, TheNextProcessSendsWhatThisOneCouldNot) {
  auto test = start();
  service.up = false;
  log(*test, 0, 5);
  SPILLWAY_INFO(test->engine, "event", {"n", 5});
  const Stats last = test->engine.shutdown(1s);
  EXPECT_EQ(last.logs.held_in_spool, 6U) << "with what had not been tried yet";
  EXPECT_EQ(last.logs.dropped_total(), 0U);
  EXPECT_EQ(last.logs.residue(), 0);
  test.reset();

  service.up = true;
  test = start();
  log(*test, 6, 1);
  wait_out(*test);
  EXPECT_EQ(service.taken, up_to(7));
  const Stats stats = test->engine.stats();
  EXPECT_EQ(stats.logs.recovered, 6U);
  EXPECT_EQ(stats.logs.recorded, 7U);
  EXPECT_EQ(stats.logs.delivered, 7U);
  EXPECT_TRUE(is_settled(stats.logs));
}

TEST_F(SpoolDeliveryTest, WhatIsInRingsIsHeldBesideWhatWasRecovered) {
  auto test = start();
  service.up = false;
  log(*test, 0, 5);
  test.reset();
  test = start();
  test->advance(1s);
  for (int n = 5; n < 8; ++n) SPILLWAY_INFO(test->engine, "event", {"n", n});
  const Stats stats = test->engine.stats();
  EXPECT_EQ(stats.logs.recovered, 5U);
  EXPECT_EQ(stats.logs.held_in_rings, 3U);
  EXPECT_EQ(stats.logs.recorded, 8U);
}

TEST_F(SpoolDeliveryTest, AShutdownStoresWhatIsUnderWayAndSaysThatItIsUncertain) {
  auto test = start();
  test->http.hold();
  SPILLWAY_INFO(test->engine, "event", {"n", 0});
  const Stats last = test->engine.shutdown(1s);
  EXPECT_EQ(last.logs.held_in_spool, 1U);
  EXPECT_EQ(last.logs.delivery.uncertain_records, 1U);
  EXPECT_EQ(last.logs.residue(), 0);
}

// A machine under load may need 10 ms for each sync: with them between the writes, most of what waits would
// not be on disk in time.
TEST_F(SpoolDeliveryTest, AShutdownWritesEverythingBeforeItWaitsForTheDisk) {
  Config wide = config();
  wide.attempts_max = 0;
  TestEngine test(wide, disk);
  service.serve(test);
  test.http.hold();
  log(test, 0, 20);
  std::size_t files_at_first_sync = 0;
  disk->on_sync = [&] {
    if (files_at_first_sync == 0) files_at_first_sync = disk->files().size();
    test.clock.advance(10ms);
  };
  const Stats stats = test.engine.shutdown(50ms);
  disk->on_sync = nullptr;
  EXPECT_EQ(files_at_first_sync, disk->files().size());
  EXPECT_EQ(stats.logs.held_in_spool, 20U);
  EXPECT_EQ(stats.logs.residue(), 0);
}

TEST_F(SpoolDeliveryTest, WhatADiskRefusesToKeepAtTheEndIsLate) {
  auto test = start();
  service.up = false;
  SPILLWAY_INFO(test->engine, "event", {"n", 0});
  disk->on_sync = [&] { disk->set_broken(EIO); };
  const Stats stats = test->engine.shutdown(1s);
  EXPECT_EQ(stats.logs.dropped_for(DropCause::shutdown_deadline), 1U);
  EXPECT_TRUE(is_settled(stats.logs));
}

TEST_F(SpoolDeliveryTest, WhatIsStoredAtTheEndOutlivesALossOfPower) {
  auto test = start();
  service.up = false;
  SPILLWAY_INFO(test->engine, "event", {"n", 0});
  EXPECT_EQ(test->engine.shutdown(1s).logs.held_in_spool, 1U);
  test.reset();
  disk->restart(true);
  service.up = true;
  test = start();
  wait_out(*test);
  EXPECT_EQ(service.taken, up_to(1));
}

TEST_F(SpoolDeliveryTest, APayloadThatIsRefusedAsAWholeIsSplitAndItsProgressIsKept) {
  auto test = start();
  service.up = false;
  log(*test, 0, 2);  // Down.
  for (int n = 2; n < 10; ++n) SPILLWAY_INFO(test->engine, "event", {"n", n});
  test->advance(1s);
  test->advance(1s);
  EXPECT_EQ(disk->files().size(), 3U);
  service.up = true;
  service.partly = true;
  for (int i = 0; i < 40 && service.taken.size() < 5; ++i) test->advance(1s);
  ASSERT_GE(service.taken.size(), 5U);
  wait_out(*test);
  EXPECT_EQ(service.taken, up_to(10));
  EXPECT_TRUE(is_settled(test->engine.stats().logs));
  EXPECT_TRUE(disk->files().empty());
}

// A file counts the items that are done from its beginning: also those that a later part of it is rid of
// one by one.
TEST_F(SpoolDeliveryTest, SegmentsThatAreThrottledOneByOneLeaveTheirFileRight) {
  Config traced = config();
  traced.logs = LogsTo::none;
  traced.traces = TracesTo::put_trace_segments;
  traced.trace_sample_rate = 1.0;
  auto first = std::make_unique<TestEngine>(traced, disk);
  first->http.set_answer(
      [](const HttpRequest&) { return MemoryTransport::failed(HttpOutcome::not_connected); });
  std::vector<std::uint64_t> roots;
  for (int children = 0; children < 4; ++children) {
    const Span root = first->engine.span("root");
    roots.push_back(root.span_id());
    for (int i = 0; i < children; ++i) const Span child = first->engine.span("child");
  }
  first->advance(5s);
  wait_out(*first);
  ASSERT_EQ(first->engine.stats().spans.held_in_spool, 10U);
  // 413, half of it with one throttled, that one, and then no more.
  std::vector<std::size_t> sizes;
  first->http.set_answer([&](const HttpRequest& request) {
    const std::size_t size = Json(request.body)["TraceSegmentDocuments"].size();
    sizes.push_back(size);
    if (size == 4) return MemoryTransport::answered(413);
    if (sizes.size() > 3) return MemoryTransport::failed(HttpOutcome::not_connected);
    if (size == 1) return MemoryTransport::answered(200);
    std::array<char, 17> id{};
    std::snprintf(id.data(), id.size(), "%016lx", roots[1]);
    return MemoryTransport::answered(200, std::string(R"({"UnprocessedTraceSegments":[{"Id":")") +
                                              id.data() +
                                              R"(","ErrorCode":"ThrottledException"}]})");
  });
  for (int i = 0; i < 40 && sizes.size() < 3; ++i) first->advance(1s);
  for (int i = 0; i < 3; ++i) first->advance(1s);
  EXPECT_EQ(first->engine.stats().spans.delivered, 3U);
  EXPECT_EQ(first->engine.stats().spans.held_in_spool, 7U);
  first.reset();
  TestEngine second(traced, disk);
  for (int i = 0; i < 3; ++i) second.advance(30s);
  const Stats stats = second.engine.stats();
  EXPECT_EQ(stats.spans.recovered, 7U);
  EXPECT_EQ(stats.spans.delivered, 7U);
  EXPECT_TRUE(is_settled(stats.spans));
}

TEST_F(SpoolDeliveryTest, MetricsAndSpansGoThroughItToo) {
  Config all = config();
  all.metrics = MetricsTo::put_metric_data;
  all.traces = TracesTo::put_trace_segments;
  auto test = std::make_unique<TestEngine>(all, disk);
  service.serve(*test);
  service.up = false;
  const Counter requests = test->engine.counter("Requests");
  for (int i = 0; i < 10; ++i) {
    requests.add(1);
    { const Span span = test->engine.span("work"); }
    test->advance(10s);
  }
  wait_out(*test);
  Stats stats = test->engine.stats();
  EXPECT_EQ(stats.metrics.held_in_spool, 10U);
  EXPECT_EQ(stats.spans.held_in_spool, 10U);
  service.up = true;
  wait_out(*test);
  stats = test->engine.stats();
  EXPECT_EQ(stats.metrics.delivered, 10U);
  EXPECT_EQ(stats.spans.delivered, 10U);
  EXPECT_TRUE(is_settled(stats.metrics));
  EXPECT_TRUE(is_settled(stats.spans));
}

TEST_F(SpoolDeliveryTest, MemoryThatFillsUpGoesToDiskThoughTheDestinationIsUp) {
  Config small = config();
  small.queue_bytes_max = 4 << 20;
  TestEngine test(small, disk);
  test.http.hold();
  const std::string kilobyte(1000, 'x');
  for (int i = 0; i < 8000; ++i) {
    SPILLWAY_INFO(test.engine, "event", {"n", i}, {"text", std::string_view(kilobyte)});
    if (i % 500 == 499) test.advance(1s);
  }
  const Stats stats = test.engine.stats();
  EXPECT_EQ(stats.logs.dropped_total(), 0U);
  EXPECT_GT(stats.logs.held_in_spool, 0U);
  EXPECT_EQ(stats.logs.residue(), 0);
}

TEST_F(SpoolDeliveryTest, WithAFullDiskRetriesEndAsWithoutASpool) {
  disk->set_full(true);
  auto test = start();
  service.up = false;
  log(*test, 0, 1);
  wait_out(*test);
  EXPECT_EQ(test->engine.stats().logs.dropped_for(DropCause::retries_exhausted), 1U);
  EXPECT_FALSE(diagnostics.empty());
  disk->set_full(false);
  log(*test, 1, 1);
  wait_out(*test);
  EXPECT_EQ(test->engine.stats().logs.held_in_spool, 1U);
  EXPECT_EQ(test->engine.stats().logs.residue(), 0);
}

TEST_F(SpoolDeliveryTest, LocalDestinationsDoNotUseIt) {
  Config local = config();
  local.logs = LogsTo::file;
  const testing::TemporaryDirectory directory;
  local.logs_file = directory.path("log");
  TestEngine test(local, disk);
  SPILLWAY_INFO(test.engine, "event", {"n", 0});
  EXPECT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(disk->calls(), 0U);
}

// An outage, its end, and a death at every call on the disk in turn. Everything that was on disk
// arrives, in order; twice only what was in the request whose answer the dead process had not written
// down.
TEST_F(SpoolDeliveryTest, DeathAtAnyCallRepeatsOneRequestAtMost) {
  const auto live = [&](TestEngine& test) {
    service.up = false;
    log(test, 0, 4);
    service.up = true;
    wait_out(test);
    service.up = false;
    log(test, 4, 3);
    test.engine.shutdown(1s);
  };
  live(*start());
  const std::uint64_t calls = disk->calls();
  ASSERT_GT(calls, 40U);
  for (std::uint64_t call = 1; call <= calls; ++call) {
    SCOPED_TRACE("call " + std::to_string(call));
    disk = std::make_shared<MemoryDisk>();
    service.taken.clear();
    std::vector<int> taken_alive;
    disk->on_crash = [&] { taken_alive = service.taken; };
    disk->set_fault(call, MemoryDisk::Fault::crash);
    live(*start());
    ASSERT_TRUE(disk->crashed());
    disk->restart(false);
    std::uint64_t torn = 0;
    service.taken = taken_alive;
    service.up = true;
    {
      auto next = start();
      wait_out(*next);
      const Stats stats = next->engine.stats();
      EXPECT_TRUE(is_settled(stats.logs));
      torn = stats.logs.dropped_for(DropCause::spool_damaged);
      EXPECT_EQ(stats.logs.recovered, stats.logs.delivered + torn);
    }
    EXPECT_LE(torn, 1U) << "the one that was being written";
    EXPECT_TRUE(std::is_sorted(service.taken.begin(), service.taken.end()));
    std::map<int, int> times;
    for (const int n : service.taken) ++times[n];
    int repeated = 0;
    for (const auto& [n, count] : times) {
      EXPECT_LE(count, 2);
      repeated += count - 1;
    }
    EXPECT_LE(repeated, 1);
    for (const auto& [path, bytes] : disk->files()) {
      EXPECT_NE(path.find("/bad-"), std::string::npos) << path;
      EXPECT_EQ(torn, 1U) << "set aside is only what was torn";
    }
  }
}

}  // namespace
}  // namespace spillway
