// SPDX-License-Identifier: Apache-2.0
//
// Rings that outlive their process: what it had recorded when it was killed is delivered by the next
// one, once, and what is damaged is counted.
//
// The killing test runs 50 times with seeded places, and SPILLWAY_TEST_KILLS times when that is set.
#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <new>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <support/child_process.hpp>
#include <support/engine_fixture.hpp>
#include <support/seed.hpp>
#include <support/temporary_file.hpp>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <spillway/engine/crash_rings.hpp>
#include <spillway/engine/wide_event.hpp>

namespace spillway {
namespace {

using namespace std::chrono_literals;

/// Memory that a child and its parent both see.
template <class T>
class Shared {
 public:
  Shared()
      : at_(new (mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
                      0)) T) {}
  ~Shared() { munmap(at_, sizeof(T)); }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;
  T* operator->() { return at_; }

 private:
  T* at_;
};

class CrashRingsTest : public ::testing::Test {
 protected:
  Config config() const {
    Config config;
    config.metrics = MetricsTo::none;
    config.logs = LogsTo::file;
    config.logs_file = directory.path("log");
    config.crash_dir = directory.path("crash");
    config.on_diagnostic = [](std::string_view) {};
    return config;
  }
  /// A child whose engine moves by hand only: what it recorded stays in its rings.
  template <class Body>
  void in_killed_engine(const Config& given, Body&& body) {
    testing::in_killed_child([&] {
      testing::TestEngine test(given);
      body(test);
      testing::kill_self();
    });
  }
  Stats recover(const Config& given) {
    testing::TestEngine test(given);
    test.settle();
    EXPECT_TRUE(test.engine.flush(1s));
    test.settle();
    return test.engine.shutdown(1s);
  }
  std::vector<testing::Json> lines() const {
    std::vector<testing::Json> all;
    std::istringstream text(directory.read("log"));
    for (std::string line; std::getline(text, line);) all.emplace_back(line);
    return all;
  }
  std::vector<std::string> crash_files() const {
    std::vector<std::string> files;
    for (const auto& entry :
         std::filesystem::recursive_directory_iterator(directory.path("crash"))) {
      if (entry.is_regular_file()) files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
    return files;
  }

  testing::TemporaryDirectory directory;
};

TEST_F(CrashRingsTest, LogsOfAKilledProcessAreDeliveredByTheNextOne) {
  in_killed_engine(config(), [](testing::TestEngine& test) {
    SPILLWAY_WARN(test.engine, "order \"placed\"", {"order_id", 17}, {"total", 2.5}, {"paid", true},
                  {"currency", "EUR"});
    SPILLWAY_INFO(test.engine, "next");
  });
  const Stats stats = recover(config());
  EXPECT_EQ(stats.logs.recovered, 2U);
  EXPECT_EQ(stats.logs.recorded, 2U);
  EXPECT_EQ(stats.logs.delivered, 2U);
  EXPECT_TRUE(testing::is_settled(stats.logs));
  const auto all = lines();
  ASSERT_EQ(all.size(), 2U);
  EXPECT_EQ(all[0]["message"].string(), "order \"placed\"");
  EXPECT_EQ(all[0]["level"].string(), "WARN");
  EXPECT_TRUE(all[0]["recovered"].boolean());
  EXPECT_EQ(all[0]["order_id"].number(), 17);
  EXPECT_EQ(all[0]["total"].number(), 2.5);
  EXPECT_TRUE(all[0]["paid"].boolean());
  EXPECT_EQ(all[0]["currency"].string(), "EUR");
  EXPECT_EQ(all[0]["timestamp"].string(), "2026-11-21T01:00:00.000000000Z");
  EXPECT_EQ(all[1]["message"].string(), "next");
  EXPECT_TRUE(crash_files().empty());
  EXPECT_EQ(recover(config()).logs.recovered, 0U) << "once";
}

TEST_F(CrashRingsTest, TheContextOfARecordIsFoundAlsoWhenItWasReleased) {
  in_killed_engine(config(), [](testing::TestEngine& test) {
    const Context context({.tenant = "acme", .request_id = "r-1"});
    const Scope scope(context);
    SPILLWAY_INFO(test.engine, "delivered");
    test.engine.flush(1s);
    test.settle();
    SPILLWAY_INFO(test.engine, "left");
  });
  const Stats stats = recover(config());
  EXPECT_EQ(stats.logs.recovered, 1U) << "not what was delivered";
  const auto all = lines();
  ASSERT_EQ(all.size(), 2U);
  EXPECT_FALSE(all[0].has("recovered"));
  EXPECT_EQ(all[1]["message"].string(), "left");
  EXPECT_EQ(all[1]["tenant"].string(), "acme");
  EXPECT_EQ(all[1]["request_id"].string(), "r-1");
}

// In a batch, in the queue, or under way: all of it is still in the rings.
TEST_F(CrashRingsTest, WhatTheFlusherHasReadAndNobodyHasTakenIsNotLost) {
  const testing::AwsEnvironment environment;
  Config unreachable = config();
  unreachable.logs = LogsTo::put_log_events;
  unreachable.log_group = "/shop/orders";
  unreachable.log_stream = "pod";
  in_killed_engine(unreachable, [](testing::TestEngine& test) {
    test.http.hold();
    SPILLWAY_INFO(test.engine, "event", {"n", 0});
    test.advance(2s);
    test.advance(2s);
    if (test.http.requests().size() != 1) _exit(1);
    SPILLWAY_INFO(test.engine, "event", {"n", 1});
    test.settle();
    SPILLWAY_INFO(test.engine, "event", {"n", 2});
  });
  const Stats stats = recover(config());
  EXPECT_EQ(stats.logs.recovered, 3U);
  EXPECT_EQ(lines().size(), 3U);
}

TEST_F(CrashRingsTest, SpansOfAKilledProcessAreDeliveredByTheNextOne) {
  const testing::AwsEnvironment environment;
  Config traced = config();
  traced.traces = TracesTo::put_trace_segments;
  traced.trace_sample_rate = 1.0;
  in_killed_engine(traced, [](testing::TestEngine& test) {
    {
      const Span root = test.engine.span("GET /orders");
      Span span = test.engine.span("charge-card");
      span.annotate("provider", "acme");
    }
    test.settle();  // Waits in its segment.
    Span open = test.engine.span("open");
    { const Span child = test.engine.span("done"); }
    testing::kill_self();
  });
  testing::TestEngine test(traced);
  test.settle();
  EXPECT_TRUE(test.engine.flush(1s));
  const Stats stats = test.engine.stats();
  EXPECT_EQ(stats.spans.recovered, 3U);
  EXPECT_EQ(stats.spans.delivered, 3U);
  EXPECT_TRUE(testing::is_settled(stats.spans));
  std::string bodies;
  for (const auto& request : test.http.requests()) bodies += request.body;
  for (const char* const part : {"GET /orders", "charge-card", "done", "acme", "recovered"}) {
    EXPECT_NE(bodies.find(part), std::string::npos) << part;
  }
}

// The sender says what is settled at once: the flusher, which strikes it, comes later or never.
TEST_F(CrashRingsTest, WhatWasDeliveredBehindTheFlushersLastRoundIsNotRecovered) {
  const testing::AwsEnvironment environment;
  Config traced = config();
  traced.traces = TracesTo::put_trace_segments;
  traced.trace_sample_rate = 1.0;
  const auto until_delivered = [](testing::TestEngine& test, SignalStats Stats::*signal) {
    for (int rounds = 0; rounds < 20; ++rounds) {
      test.advance(250ms);
      if ((test.engine.stats().*signal).delivered != 0) testing::kill_self();
    }
  };
  testing::in_killed_child([&] {
    testing::TestEngine test(traced);
    for (int n = 0; n < 3; ++n) SPILLWAY_INFO(test.engine, "event", {"n", n});
    until_delivered(test, &Stats::logs);
  });
  EXPECT_EQ(lines().size(), 3U);
  testing::in_killed_child([&] {
    testing::TestEngine test(traced);
    { const Span span = test.engine.span("work"); }
    until_delivered(test, &Stats::spans);
  });
  testing::TestEngine test(traced);
  test.settle();
  EXPECT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(test.engine.stats().logs.recovered, 0U);
  EXPECT_EQ(test.engine.stats().spans.recovered, 0U);
}

// Payloads that fill up while a ring is being read: what is behind the last delivered one, and
// nothing else, is left.
TEST_F(CrashRingsTest, ARoundThatWasDeliveredInPartIsRecoveredInPart) {
  const testing::AwsEnvironment environment;
  Config to_aws = config();
  to_aws.logs = LogsTo::put_log_events;
  to_aws.log_group = "/shop/orders";
  to_aws.log_stream = "pod";
  to_aws.ring_bytes = 16 << 20;
  constexpr std::uint64_t recorded = 4000;
  Shared<std::atomic<std::uint64_t>> delivered;
  in_killed_engine(to_aws, [&](testing::TestEngine& test) {
    const std::string text(600, 'x');
    for (std::uint64_t n = 0; n < recorded; ++n) {
      SPILLWAY_INFO(test.engine, "event", {"n", n}, {"text", std::string_view(text)});
    }
    test.engine.step();
    delivered->store(test.engine.stats().logs.delivered);
  });
  EXPECT_GT(delivered->load(), 0U);
  EXPECT_LT(delivered->load(), recorded);
  Config to_file = config();
  to_file.ring_bytes = to_aws.ring_bytes;
  const Stats stats = recover(to_file);
  EXPECT_EQ(stats.logs.recovered, recorded - delivered->load());
  const auto all = lines();
  ASSERT_FALSE(all.empty());
  EXPECT_EQ(all.front()["n"].number(), static_cast<double>(delivered->load()));
}

TEST_F(CrashRingsTest, AnEngineThatEndsLeavesNothing) {
  {
    testing::TestEngine test(config());
    SPILLWAY_INFO(test.engine, "event");
    EXPECT_GE(crash_files().size(), 3U);
  }
  EXPECT_TRUE(crash_files().empty());
  EXPECT_EQ(lines().size(), 1U);
}

TEST_F(CrashRingsTest, SeveralDeadProcessesHaveCallSitesOfTheirOwn) {
  // One dies within the other, before that has recorded: both have boxes at the same time, and the
  // number of their call site is the same.
  in_killed_engine(config(), [&](testing::TestEngine& outer) {
    in_killed_engine(config(), [](testing::TestEngine& inner) {
      SPILLWAY_INFO(inner.engine, "of the inner", {"n", 1});
    });
    SPILLWAY_WARN(outer.engine, "of the outer", {"text", "x"});
  });
  EXPECT_EQ(recover(config()).logs.recovered, 2U);
  const auto all = lines();
  ASSERT_EQ(all.size(), 2U);
  EXPECT_EQ(all[0]["message"].string(), "of the outer");
  EXPECT_EQ(all[0]["text"].string(), "x");
  EXPECT_EQ(all[1]["message"].string(), "of the inner");
  EXPECT_EQ(all[1]["n"].number(), 1);
}

TEST_F(CrashRingsTest, ALivingEnginesRingsAreItsOwn) {
  testing::TestEngine first(config());
  SPILLWAY_INFO(first.engine, "event");
  EXPECT_EQ(recover(config()).logs.recovered, 0U);
}

TEST_F(CrashRingsTest, AnotherServicesRingsAreItsOwn) {
  in_killed_engine(config(),
                   [](testing::TestEngine& test) { SPILLWAY_INFO(test.engine, "event"); });
  Config other = config();
  other.service = "unknown_service.0";
  EXPECT_EQ(recover(other).logs.recovered, 0U);
  EXPECT_EQ(recover(config()).logs.recovered, 1U);
}

TEST_F(CrashRingsTest, AForkedChildDoesNotWriteIntoItsParentsRings) {
  testing::TestEngine test(config());
  SPILLWAY_INFO(test.engine, "the parent's");
  EXPECT_EQ(testing::exit_status_of_child([&] {
              for (int i = 0; i < 100; ++i) SPILLWAY_INFO(test.engine, "the child's", {"n", i});
              return 7;
            }),
            7);
  SPILLWAY_INFO(test.engine, "the parent's");
  EXPECT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(test.engine.stats().logs.delivered, 2U);
  EXPECT_EQ(lines().size(), 2U);
}

TEST_F(CrashRingsTest, RingsThatHoldTooMuchKeepLessRatherThanDropping) {
  Config small = config();
  small.ring_bytes = 4096;
  testing::in_killed_child([&] {
    const testing::AwsEnvironment environment;
    Config unreachable = small;
    unreachable.logs = LogsTo::put_log_events;
    unreachable.log_group = "/shop/orders";
    unreachable.log_stream = "pod";
    int warnings = 0;
    unreachable.on_diagnostic = [&](std::string_view text) {
      if (text.find("half full of records that are not delivered yet") != std::string_view::npos)
        ++warnings;
    };
    testing::TestEngine test(unreachable);
    test.http.hold();
    for (int n = 0; n < 1000; ++n) {
      SPILLWAY_INFO(test.engine, "event", {"n", n});
      if (n % 10 == 0) test.engine.step();
    }
    if (test.engine.stats().logs.dropped_total() != 0) _exit(1);
    if (warnings != 1) _exit(2);
    test.advance(150ms);  // The account is written down.
    testing::kill_self();
  });
  const Stats stats = recover(config());
  EXPECT_GE(stats.logs.delivered, 4096U / 2 / 32 - 10) << "half a ring";
  EXPECT_EQ(stats.logs.dropped_for(DropCause::ring_full), 1000 - stats.logs.delivered)
      << "the others were in memory only";
  EXPECT_EQ(stats.logs.recovered, 1000U);
  const auto all = lines();
  ASSERT_FALSE(all.empty());
  EXPECT_EQ(all.back()["n"].number(), 999);
}

// Until they are delivered after all.
TEST_F(CrashRingsTest, WhatWasInMemoryOnlyIsNotCountedOnceItIsDelivered) {
  testing::in_killed_child([&] {
    const testing::AwsEnvironment environment;
    Config late = config();
    late.ring_bytes = 4096;
    late.logs = LogsTo::put_log_events;
    late.log_group = "/shop/orders";
    late.log_stream = "pod";
    testing::TestEngine test(late);
    test.http.hold();
    for (int n = 0; n < 1000; ++n) {
      SPILLWAY_INFO(test.engine, "event", {"n", n});
      if (n % 10 == 0) test.engine.step();
    }
    test.advance(150ms);
    test.http.release();
    for (int i = 0; i < 500 && test.engine.stats().logs.delivered != 1000; ++i) test.advance(1s);
    if (test.engine.stats().logs.delivered != 1000) _exit(1);
    test.advance(150ms);
    testing::kill_self();
  });
  const Stats stats = recover(config());
  EXPECT_EQ(stats.logs.recovered, 0U);
  EXPECT_EQ(stats.logs.dropped_total(), 0U);
}

TEST_F(CrashRingsTest, WithoutTheDirectoryRingsAreInMemory) {
  Config wrong = config();
  wrong.crash_dir = directory.write("file", "");
  std::string said;
  wrong.on_diagnostic = [&](std::string_view text) { said += text; };
  testing::TestEngine test(wrong);
  SPILLWAY_INFO(test.engine, "event");
  EXPECT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(test.engine.stats().logs.delivered, 1U);
  EXPECT_NE(said.find("crash_dir " + wrong.crash_dir.get()), std::string::npos) << said;
}

// ---- Wide events ----

class CrashEventsTest : public CrashRingsTest {
 protected:
  Config config() const {
    Config config = CrashRingsTest::config();
    config.metrics = MetricsTo::emf_file;
    config.metrics_file = directory.path("metrics");
    return config;
  }
  static void record_order(Engine& engine, int n) {
    SPILLWAY_EVENT(engine, EventMetric("Total", 2.5 * n), EventMetric("Items", n),
                   EventDimension("Route", "/orders"), EventProperty("order", n));
  }
  std::vector<testing::Json> documents() const {
    std::vector<testing::Json> all;
    std::istringstream text(directory.read("metrics"));
    for (std::string line; std::getline(text, line);) all.emplace_back(line);
    return all;
  }
};

TEST_F(CrashEventsTest, WideEventsOfAKilledProcessAreDeliveredByTheNextOne) {
  in_killed_engine(config(), [](testing::TestEngine& test) {
    const Context context({.tenant = "acme"});
    const Scope scope(context);
    record_order(test.engine, 1);
    record_order(test.engine, 2);
  });
  const Stats stats = recover(config());
  EXPECT_EQ(stats.metrics.recovered, 4U) << "two measurements each";
  EXPECT_EQ(stats.metrics.delivered, 4U);
  EXPECT_TRUE(testing::is_settled(stats.metrics));
  const auto all = documents();
  ASSERT_EQ(all.size(), 2U);
  for (int n = 1; n <= 2; ++n) {
    const testing::Json& document = all[static_cast<std::size_t>(n) - 1];
    EXPECT_EQ(document["Total"].number(), 2.5 * n);
    EXPECT_EQ(document["Items"].number(), n);
    EXPECT_EQ(document["order"].number(), n);
    EXPECT_EQ(document["Route"].string(), "/orders");
    EXPECT_EQ(document["tenant"].string(), "acme");
    EXPECT_TRUE(document["recovered"].boolean());
  }
  EXPECT_TRUE(crash_files().empty());
  EXPECT_EQ(recover(config()).metrics.recovered, 0U) << "once";
}

TEST_F(CrashEventsTest, TheyAreKeptUntilTheirPayloadIsDelivered) {
  const testing::AwsEnvironment environment;
  Config unreachable = config();
  unreachable.metrics = MetricsTo::emf_logs;
  unreachable.emf_log_group = "/shop/metrics";
  unreachable.emf_log_stream = "pod";
  in_killed_engine(unreachable, [](testing::TestEngine& test) {
    test.http.hold();
    record_order(test.engine, 1);
    test.advance(2s);
    test.advance(2s);
    if (test.http.requests().size() != 1) _exit(1);
    record_order(test.engine, 2);
    test.settle();  // In a payload that is not sealed.
    record_order(test.engine, 3);
  });
  EXPECT_EQ(recover(config()).metrics.recovered, 6U);
  EXPECT_EQ(documents().size(), 3U);
}

TEST_F(CrashEventsTest, DeliveredOnesAreNotRecovered) {
  in_killed_engine(config(), [](testing::TestEngine& test) {
    record_order(test.engine, 1);
    test.engine.flush(1s);
    test.settle();
    record_order(test.engine, 2);
  });
  EXPECT_EQ(recover(config()).metrics.recovered, 2U);
  EXPECT_EQ(documents().size(), 2U);
}

TEST_F(CrashEventsTest, OfMetricsThatGoNowhereTheyAreDroppedByName) {
  in_killed_engine(config(), [](testing::TestEngine& test) { record_order(test.engine, 1); });
  const Stats stats = recover(CrashRingsTest::config());
  EXPECT_EQ(stats.metrics.recovered, 2U);
  EXPECT_EQ(stats.metrics.dropped_for(DropCause::no_destination), 2U);
  EXPECT_TRUE(testing::is_settled(stats.metrics));
  EXPECT_TRUE(crash_files().empty());
}

// ---- Measurements ----

class CrashMetricsTest : public CrashEventsTest {
 protected:
  Config config() const {
    Config config = CrashEventsTest::config();
    config.emf_histogram_object = true;
    return config;
  }
  Config to_cloudwatch() const {
    Config config = this->config();
    config.metrics = MetricsTo::put_metric_data;
    return config;
  }
  /// What the documents say of a metric: its count and sum, a number by itself being one measurement.
  struct Seen {
    std::uint64_t documents = 0;
    double count = 0;
    double sum = 0;
  };
  Seen seen(const std::string& metric, const std::string& dimension = {}) const {
    Seen all;
    for (const testing::Json& document : documents()) {
      if (!document.has(metric) || (!dimension.empty() && !document.has(dimension))) continue;
      ++all.documents;
      const bool is_object = document[metric].text().front() == '{';
      all.count += is_object ? document[metric]["Count"].number() : 1;
      all.sum += is_object ? document[metric]["Sum"].number() : document[metric].number();
    }
    return all;
  }
  testing::AwsEnvironment environment;
};

TEST_F(CrashMetricsTest, SamplesInARingAreDeliveredByTheNextOne) {
  in_killed_engine(config(), [](testing::TestEngine& test) {
    const Histogram latency = test.engine.histogram("Latency", Unit::milliseconds);
    for (int n = 1; n <= 3; ++n) latency.sample(n);
  });
  const Stats stats = recover(config());
  EXPECT_EQ(stats.metrics.recovered, 3U);
  EXPECT_EQ(stats.metrics.delivered, 3U);
  EXPECT_TRUE(testing::is_settled(stats.metrics));
  EXPECT_EQ(seen("Latency").count, 3);
  EXPECT_EQ(seen("Latency").sum, 6);
  EXPECT_TRUE(crash_files().empty());
  EXPECT_EQ(recover(config()).metrics.recovered, 0U) << "once";
}

TEST_F(CrashMetricsTest, WhatCellsHeldAtTheLastLookIsDelivered) {
  in_killed_engine(config(), [](testing::TestEngine& test) {
    test.engine.counter("Requests", Unit::count, {{"Route", "/orders"}}).add(5);
    test.engine.gauge("Depth").set(7);
    const Histogram latency = test.engine.histogram("Latency");
    for (int n = 1; n <= 50; ++n) latency.record(n);
    test.advance(150ms);
    latency.sample(1000);  // Behind it, in the ring.
  });
  const Stats stats = recover(config());
  EXPECT_EQ(stats.metrics.recovered, 53U);
  EXPECT_EQ(stats.metrics.delivered, 53U);
  EXPECT_EQ(seen("Requests", "Route").sum, 5);
  EXPECT_EQ(seen("Depth").sum, 7);
  EXPECT_EQ(seen("Latency").count, 51);
  EXPECT_EQ(seen("Latency").sum, 50 * 51 / 2 + 1000);
  EXPECT_EQ(seen("Latency").documents, 1U);
  // In the interval in which it was recorded.
  EXPECT_EQ(documents().front()["_aws"]["Timestamp"].number(), 1795222800000.0);
}

TEST_F(CrashMetricsTest, SamplesAreNotCountedTwiceHoweverFarTheyWereRead) {
  in_killed_engine(config(), [](testing::TestEngine& test) {
    const Histogram latency = test.engine.histogram("Latency");
    latency.sample(1);
    test.advance(150ms);  // Read, and written down.
    latency.sample(2);
    test.advance(1ms);  // Read.
    latency.sample(4);
  });
  EXPECT_EQ(recover(config()).metrics.recovered, 3U);
  EXPECT_EQ(seen("Latency").sum, 7);
}

TEST_F(CrashMetricsTest, WhatWasDeliveredIsNotRecovered) {
  in_killed_engine(config(), [](testing::TestEngine& test) {
    const Counter requests = test.engine.counter("Requests");
    const Histogram latency = test.engine.histogram("Latency");
    requests.add(1);
    latency.sample(1);
    test.engine.flush(1s);
    test.settle();
    requests.add(2);
    latency.sample(2);
    test.advance(150ms);
  });
  EXPECT_EQ(recover(config()).metrics.recovered, 2U);
  EXPECT_EQ(seen("Requests").sum, 3);
  EXPECT_EQ(seen("Latency").sum, 3);
}

// Its points are in the file with the payload that settles them.
TEST_F(CrashMetricsTest, AnIntervalThatIsOverIsKeptUntilItIsDelivered) {
  in_killed_engine(to_cloudwatch(), [](testing::TestEngine& test) {
    test.http.hold();
    const Counter requests = test.engine.counter("Requests");
    const Histogram latency = test.engine.histogram("Latency");
    for (int n = 1; n <= 300; ++n) latency.record(n);
    requests.add(1);
    test.advance(61s);
    for (int i = 0; i < 5; ++i) test.advance(1s);
    if (test.http.requests().size() != 1) _exit(1);
    requests.add(2);
    test.advance(150ms);
  });
  const Stats stats = recover(config());
  EXPECT_EQ(stats.metrics.recovered, 302U);
  EXPECT_EQ(stats.metrics.delivered, 302U);
  EXPECT_EQ(seen("Requests").sum, 3);
  EXPECT_EQ(seen("Requests").documents, 2U) << "an interval each";
  EXPECT_EQ(seen("Latency").count, 300);
  EXPECT_EQ(seen("Latency").sum, 300 * 301 / 2);
}

TEST_F(CrashMetricsTest, APayloadThatWasAcknowledgedBehindTheLastRoundIsNotRecovered) {
  testing::in_killed_child([&] {
    testing::TestEngine test(to_cloudwatch());
    test.engine.counter("Requests").add(1);
    test.advance(61s);
    for (int i = 0; i < 20; ++i) {
      test.advance(250ms);
      if (test.engine.stats().metrics.delivered != 0) testing::kill_self();
    }
  });
  EXPECT_EQ(recover(config()).metrics.recovered, 0U);
}

TEST_F(CrashMetricsTest, WideEventsThatAreAggregatedAreDeliveredByTheNextOne) {
  in_killed_engine(to_cloudwatch(), [](testing::TestEngine& test) {
    record_order(test.engine, 1);
    test.advance(150ms);
    record_order(test.engine, 2);
    test.advance(1ms);
    record_order(test.engine, 4);
  });
  // As documents now, but for the one that was aggregated already.
  const Stats stats = recover(config());
  EXPECT_EQ(stats.metrics.recovered, 6U);
  EXPECT_EQ(stats.metrics.delivered, 6U);
  EXPECT_EQ(seen("Items", "Route").sum, 7);
  EXPECT_EQ(seen("Items", "recovered").documents, 2U);
}

TEST_F(CrashMetricsTest, TheyAreSummedForTheSetsThatAreWanted) {
  Config summed = config();
  summed.rollups = DimensionSets{{"Service"}};
  in_killed_engine(summed, [](testing::TestEngine& test) {
    for (const char* const route : {"/a", "/b"}) {
      test.engine.counter("Requests", Unit::count, {{"Route", route}}).add(1);
    }
    test.advance(150ms);
  });
  const Stats stats = recover(summed);
  EXPECT_EQ(stats.metrics.recovered, 2U);
  EXPECT_EQ(stats.metrics.delivered, 2U);
  EXPECT_TRUE(testing::is_settled(stats.metrics));
  EXPECT_EQ(seen("Requests").documents, 3U);
  EXPECT_EQ(seen("Requests", "Route").sum, 2);
  EXPECT_EQ(seen("Requests").sum, 4) << "once for each set";
}

TEST_F(CrashMetricsTest, OfMetricsThatGoNowhereTheyAreDropped) {
  in_killed_engine(config(), [](testing::TestEngine& test) {
    test.engine.counter("Requests").add(1);
    test.advance(150ms);
    test.engine.histogram("Latency").sample(1);
  });
  const Stats stats = recover(CrashRingsTest::config());
  EXPECT_EQ(stats.metrics.dropped_for(DropCause::no_destination), 2U);
  EXPECT_TRUE(testing::is_settled(stats.metrics));
}

// Two weeks: CloudWatch would refuse them.
TEST_F(CrashMetricsTest, TooOldOnesAreExpired) {
  in_killed_engine(config(), [](testing::TestEngine& test) {
    test.engine.counter("Requests").add(1);
    test.advance(150ms);
  });
  testing::TestEngine test(config());
  // The first round has not been: it is then.
  test.clock.advance(std::chrono::days(15));
  test.settle();
  EXPECT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(test.engine.stats().metrics.dropped_for(DropCause::expired), 1U);
  EXPECT_TRUE(testing::is_settled(test.engine.stats().metrics));
}

// More than a ring holds, and nobody takes it: it goes from the ring into the file.
TEST_F(CrashMetricsTest, SamplesDoNotFillTheRing) {
  Config small = to_cloudwatch();
  small.ring_bytes = 4096;
  in_killed_engine(small, [](testing::TestEngine& test) {
    test.http.hold();
    const Histogram latency = test.engine.histogram("Latency");
    for (int n = 1; n <= 1000; ++n) {
      latency.sample(1);
      if (n % 20 == 0) test.engine.step();
    }
    if (test.engine.stats().samples_folded != 0) _exit(1);
  });
  EXPECT_EQ(recover(config()).metrics.recovered, 1000U);
  EXPECT_EQ(seen("Latency").sum, 1000);
}

TEST_F(CrashMetricsTest, ADiskWithoutRoomIsSaidAndNothingComesTwice) {
  std::string said;
  Config hears = config();
  hears.on_diagnostic = [&](std::string_view text) { said += text; };
  testing::TestEngine test(hears);
  const Counter requests = test.engine.counter("Requests");
  requests.add(1);
  test.advance(150ms);
  const auto has_file = [&] {
    const auto all = crash_files();
    return std::any_of(all.begin(), all.end(),
                       [](const std::string& path) { return path.ends_with("/metrics"); });
  };
  EXPECT_TRUE(has_file());
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit limit{};
  getrlimit(RLIMIT_FSIZE, &limit);
  const rlim_t unlimited = limit.rlim_cur;
  limit.rlim_cur = 10;
  setrlimit(RLIMIT_FSIZE, &limit);
  requests.add(1);
  test.advance(150ms);
  limit.rlim_cur = unlimited;
  setrlimit(RLIMIT_FSIZE, &limit);
  EXPECT_FALSE(has_file()) << "the old one would say less";
  EXPECT_NE(said.find("cannot write down measurements"), std::string::npos) << said;
  requests.add(1);
  test.advance(150ms);
  EXPECT_TRUE(has_file());
  EXPECT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(seen("Requests").sum, 3);
}

// Bytes of the file at random places: the start succeeds, and the account is balanced.
TEST_F(CrashMetricsTest, ADamagedFileIsSurvived) {
  const std::uint64_t seed = testing::seed_or(20261121);
  SCOPED_TRACE(testing::seed_note(seed));
  std::mt19937_64 random(seed);
  for (int round = 0; round < 40; ++round) {
    in_killed_engine(config(), [](testing::TestEngine& test) {
      const Histogram latency = test.engine.histogram("Latency");
      for (int n = 1; n <= 20; ++n) latency.sample(n);
      test.engine.gauge("Depth").set(3);
      test.advance(61s);
      latency.sample(21);
      test.advance(150ms);
      latency.sample(22);
    });
    for (const std::string& path : crash_files()) {
      if (!path.ends_with("/metrics")) continue;
      std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
      const std::uint64_t size = std::filesystem::file_size(path);
      for (int flips = 0; flips < 3; ++flips) {
        const auto value = static_cast<char>(random());
        file.seekp(static_cast<std::streamoff>(random() % size));
        file.put(value);
      }
      file.close();
      if (round % 5 == 0) std::filesystem::resize_file(path, random() % (size + 1));
    }
    const Stats stats = recover(config());
    EXPECT_TRUE(testing::is_settled(stats.metrics));
    EXPECT_TRUE(crash_files().empty());
  }
}

// ---- The account ----

class CrashLedgerTest : public CrashEventsTest {
 protected:
  static void drop(testing::TestEngine& test, int count) {
    const Counter requests = test.engine.counter("Requests");
    for (int n = 0; n < count; ++n) requests.add(-1.0);
  }
};

TEST_F(CrashLedgerTest, WhatAKilledProcessHadDroppedTheNextOneCounts) {
  Config limited = config();
  limited.log_rate_max = 1;
  in_killed_engine(limited, [](testing::TestEngine& test) {
    drop(test, 3);
    for (int n = 0; n < 5; ++n) SPILLWAY_INFO(test.engine, "event", {"n", n});
    test.advance(150ms);
    test.advance(150ms);
  });
  // And the one after it, when it is killed as well.
  in_killed_engine(config(), [](testing::TestEngine& test) {
    drop(test, 10);
    test.advance(150ms);
    test.advance(150ms);
  });
  Config hears = config();
  std::string said;
  hears.on_diagnostic = [&](std::string_view text) { said += text; };
  const Stats stats = recover(hears);
  EXPECT_EQ(stats.metrics.dropped_for(DropCause::invalid), 13U);
  EXPECT_EQ(stats.logs.dropped_for(DropCause::rate_limited), 4U);
  EXPECT_EQ(stats.metrics.recovered, 13U);
  EXPECT_TRUE(testing::is_settled(stats.metrics));
  EXPECT_TRUE(testing::is_settled(stats.logs));
  EXPECT_NE(said.find("which had dropped 17 more"), std::string::npos) << said;
  EXPECT_EQ(recover(config()).metrics.dropped_total(), 0U) << "once";
}

TEST_F(CrashLedgerTest, WhatWasPublishedIsNotCountedAgain) {
  Config published = config();
  published.self_metrics = true;
  in_killed_engine(published, [](testing::TestEngine& test) {
    drop(test, 3);
    test.advance(61s);  // The metric interval: it is reported.
    test.settle();
    drop(test, 4);
    test.advance(150ms);
    test.advance(150ms);
  });
  const Stats stats = recover(published);
  EXPECT_EQ(stats.metrics.dropped_for(DropCause::invalid), 4U);
  double reported = 0;
  for (const testing::Json& document : documents()) {
    if (!document.has("spillway.records.dropped") || document["Cause"].string() != "invalid") {
      continue;
    }
    reported += document["spillway.records.dropped"].number();
  }
  EXPECT_EQ(reported, 7);
}

TEST_F(CrashLedgerTest, ADamagedFileCountsNothing) {
  for (int byte = 0; byte < 30; ++byte) {
    in_killed_engine(config(), [](testing::TestEngine& test) {
      drop(test, 3);
      test.advance(150ms);
      test.advance(150ms);
    });
    for (const std::string& path : crash_files()) {
      if (!path.ends_with("/ledger")) continue;
      ASSERT_GE(std::filesystem::file_size(path), 30U);
      std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
      file.seekg(byte);
      const int was = file.get();
      file.seekp(byte);
      file.put(static_cast<char>(was ^ 1));
    }
    const Stats stats = recover(config());
    EXPECT_TRUE(testing::is_settled(stats.metrics));
    EXPECT_EQ(stats.metrics.dropped_total(), 0U);
  }
}

// ---- What cannot be delivered now ----

TEST_F(CrashRingsTest, RecordsOfASignalThatGoesNowhereAreDroppedByName) {
  const testing::AwsEnvironment environment;
  Config traced = config();
  traced.traces = TracesTo::put_trace_segments;
  traced.trace_sample_rate = 1.0;
  in_killed_engine(traced, [](testing::TestEngine& test) {
    for (int n = 0; n < 3; ++n) const Span span = test.engine.span("work");
    SPILLWAY_INFO(test.engine, "event");
  });
  Config untraced = config();
  std::string said;
  untraced.on_diagnostic = [&](std::string_view text) { said += text; };
  const Stats stats = recover(untraced);
  EXPECT_EQ(stats.spans.recovered, 3U);
  EXPECT_EQ(stats.spans.dropped_for(DropCause::no_destination), 3U);
  EXPECT_TRUE(testing::is_settled(stats.spans));
  EXPECT_EQ(stats.logs.delivered, 1U);
  EXPECT_NE(said.find("the spans are dropped"), std::string::npos) << said;
  EXPECT_TRUE(crash_files().empty());
}

class RecoveryInAnOutageTest : public CrashRingsTest {
 protected:
  Config to_aws() const {
    Config config = CrashRingsTest::config();
    config.logs = LogsTo::put_log_events;
    config.log_group = "/shop/orders";
    config.log_stream = "pod";
    return config;
  }
  static void cut_off(testing::TestEngine& test) {
    test.http.set_answer([](const transport::HttpRequest&) {
      return transport::MemoryTransport::failed(transport::HttpOutcome::not_connected);
    });
  }
  void leave_logs(int count) {
    in_killed_engine(to_aws(), [&](testing::TestEngine& test) {
      for (int n = 0; n < count; ++n) SPILLWAY_INFO(test.engine, "event", {"n", n});
    });
  }
  testing::AwsEnvironment environment;
};

TEST_F(RecoveryInAnOutageTest, WhatWasNotDeliveredStaysForTheNextOne) {
  leave_logs(3);
  for (int engines = 0; engines < 2; ++engines) {
    testing::TestEngine test(to_aws());
    cut_off(test);
    SPILLWAY_INFO(test.engine, "this one's own");
    for (int i = 0; i < 5; ++i) test.advance(10s);
    const Stats stats = test.engine.shutdown(1s);
    EXPECT_EQ(stats.logs.recovered, 3U);
    EXPECT_EQ(stats.logs.held(), 3U) << "in crash_dir";
    EXPECT_EQ(stats.logs.dropped_for(DropCause::shutdown_deadline), 1U);
    EXPECT_EQ(stats.logs.residue(), 0);
  }
  const Stats stats = recover(to_aws());
  EXPECT_EQ(stats.logs.recovered, 3U);
  EXPECT_EQ(stats.logs.delivered, 3U);
  EXPECT_TRUE(crash_files().empty());
}

// X-Ray is away: what the others have acknowledged is settled all the same.
class OneDestinationAwayTest : public RecoveryInAnOutageTest {
 protected:
  Config traced() const {
    Config config = to_aws();
    config.traces = TracesTo::put_trace_segments;
    config.trace_sample_rate = 1.0;
    return config;
  }
  static void without_traces(testing::TestEngine& test) {
    test.http.set_answer([](const transport::HttpRequest& request) {
      return testing::operation_of(request) == "TraceSegments"
                 ? transport::MemoryTransport::failed(transport::HttpOutcome::not_connected)
                 : transport::MemoryTransport::answered(200, "{}");
    });
  }
  static void record(testing::TestEngine& test) {
    SPILLWAY_INFO(test.engine, "event");
    const Span span = test.engine.span("work");
  }
};

TEST_F(OneDestinationAwayTest, ASignalIsSettledWithoutTheOthers) {
  testing::in_killed_child([&] {
    testing::TestEngine test(traced());
    without_traces(test);
    record(test);
    for (int i = 0; i < 20; ++i) {
      test.advance(250ms);
      // Behind the flusher's last round: nothing is struck yet.
      if (test.engine.stats().logs.delivered != 0) testing::kill_self();
    }
  });
  testing::TestEngine test(traced());
  test.settle();
  EXPECT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(test.engine.stats().logs.recovered, 0U);
  EXPECT_EQ(test.engine.stats().spans.recovered, 1U);
}

TEST_F(OneDestinationAwayTest, WhatARecoveryHasDeliveredTheNextOneDoesNotSendAgain) {
  in_killed_engine(traced(), [](testing::TestEngine& test) { record(test); });
  testing::in_killed_child([&] {
    testing::TestEngine test(traced());
    without_traces(test);
    for (int i = 0; i < 8; ++i) test.advance(1s);
    if (test.engine.stats().logs.delivered == 1) testing::kill_self();
  });
  testing::TestEngine test(traced());
  test.settle();
  EXPECT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(test.engine.stats().logs.recovered, 0U);
  EXPECT_EQ(test.engine.stats().spans.recovered, 1U);
  test.settle();
  EXPECT_EQ(crash_files().size(), 2U) << "of its own";
}

TEST_F(RecoveryInAnOutageTest, ALimitOfAttemptsDoesNotEndThem) {
  leave_logs(3);
  Config limited = to_aws();
  limited.attempts_max = 2;
  testing::TestEngine test(limited);
  cut_off(test);
  for (int i = 0; i < 10; ++i) test.advance(30s);
  EXPECT_EQ(test.engine.stats().logs.dropped_total(), 0U);
  EXPECT_EQ(test.engine.stats().logs.held(), 3U);
}

TEST_F(RecoveryInAnOutageTest, WhatIsInTheSpoolIsNoLongerInCrashDir) {
  leave_logs(3);
  Config spooled = to_aws();
  spooled.spool_dir = directory.path("spool");
  {
    testing::TestEngine test(spooled);
    cut_off(test);
    for (int i = 0; i < 5; ++i) test.advance(10s);
    EXPECT_EQ(test.engine.shutdown(1s).logs.held_in_spool, 3U);
  }
  EXPECT_TRUE(crash_files().empty());
  EXPECT_EQ(recover(spooled).logs.delivered, 3U);
}

TEST_F(RecoveryInAnOutageTest, WhatIsRefusedForGoodIsGone) {
  leave_logs(3);
  testing::TestEngine test(to_aws());
  test.http.set_answer([](const transport::HttpRequest& request) {
    return transport::MemoryTransport::answered(
        testing::operation_of(request) == "PutLogEvents" ? 400 : 200,
        R"({"__type":"InvalidParameterException"})");
  });
  for (int i = 0; i < 5; ++i) test.advance(10s);
  const Stats stats = test.engine.shutdown(1s);
  EXPECT_EQ(stats.logs.dropped_for(DropCause::rejected), 3U);
  EXPECT_TRUE(crash_files().empty());
}

// Many rings and a small budget: they are read no faster than they go out, and none is lost.
TEST_F(RecoveryInAnOutageTest, MoreThanTheBudgetHoldsIsReadAsItGoesOut) {
  constexpr int count = 12'000;
  Config large = to_aws();
  large.ring_bytes = 4 << 20;
  in_killed_engine(large, [&](testing::TestEngine& test) {
    const std::string text(200, 'x');
    for (int n = 0; n < count; ++n) {
      SPILLWAY_INFO(test.engine, "event", {"n", n}, {"text", std::string_view(text)});
    }
  });
  Config small = to_aws();
  small.queue_bytes_max = 4 << 20;
  testing::TestEngine test(small);
  cut_off(test);
  for (int i = 0; i < 5; ++i) test.advance(30s);
  EXPECT_EQ(test.engine.stats().logs.dropped_total(), 0U);
  EXPECT_LT(test.engine.stats().logs.recovered, 12'000U);
  EXPECT_FALSE(test.engine.flush(1s));
  test.http.set_answer({});
  for (int i = 0; i < 100; ++i) test.advance(30s);
  EXPECT_TRUE(test.engine.flush(1s));
  const Stats stats = test.engine.shutdown(1s);
  EXPECT_EQ(stats.logs.recovered, 12'000U);
  EXPECT_EQ(stats.logs.delivered, 12'000U);
  EXPECT_TRUE(crash_files().empty());
}

// ---- What cannot be read ----

TEST_F(CrashRingsTest, WhatAnotherVersionLeftStays) {
  in_killed_engine(config(),
                   [](testing::TestEngine& test) { SPILLWAY_INFO(test.engine, "event"); });
  const auto set_version = [&](char version) {
    for (const std::string& path : crash_files()) {
      if (!path.ends_with("/clock")) continue;
      std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
      file.seekp(offsetof(detail::CrashClock, version));
      file.put(version);
    }
  };
  set_version(77);
  const auto before = crash_files();
  Config hears = config();
  std::string said;
  hears.on_diagnostic = [&](std::string_view text) { said += text; };
  EXPECT_EQ(recover(hears).logs.recovered, 0U);
  EXPECT_NE(said.find("what 1 more processes left stays in crash_dir"), std::string::npos) << said;
  EXPECT_EQ(crash_files(), before);
  set_version(static_cast<char>(detail::CrashClock::current_version));
  EXPECT_EQ(recover(config()).logs.recovered, 1U);
}

TEST_F(CrashRingsTest, ALaneOfAnotherSizeIsCounted) {
  in_killed_engine(config(),
                   [](testing::TestEngine& test) { SPILLWAY_INFO(test.engine, "event"); });
  for (const std::string& path : crash_files()) {
    if (path.find("/lane-") != std::string::npos) std::filesystem::resize_file(path, 5000);
  }
  Config hears = config();
  std::string said;
  hears.on_diagnostic = [&](std::string_view text) { said += text; };
  EXPECT_EQ(recover(hears).logs.recovered, 0U);
  EXPECT_NE(said.find("5000 bytes could not be read"), std::string::npos) << said;
}

class OneRingUnreadableTest : public CrashRingsTest {
 protected:
  // A ring each.
  void leave_two() {
    in_killed_engine(config(), [](testing::TestEngine& test) {
      SPILLWAY_INFO(test.engine, "of the first");
      std::thread([&] { SPILLWAY_INFO(test.engine, "of the second"); }).join();
    });
  }
  std::string lane(const std::string& name) const {
    return directory.path("crash/unknown_service.0/" + name);
  }
};

// Larger than a ring can be: nobody will read it.
TEST_F(OneRingUnreadableTest, TheOthersAreShippedOnceAndItIsPutAside) {
  leave_two();
  std::filesystem::resize_file(lane("lane-0"), 300U << 20);
  Config hears = config();
  std::string said;
  hears.on_diagnostic = [&](std::string_view text) { said += text; };
  EXPECT_EQ(recover(hears).logs.recovered, 1U);
  EXPECT_NE(said.find("1 rings that the disk does not give back are put aside"), std::string::npos)
      << said;
  EXPECT_TRUE(std::filesystem::exists(lane("bad-lane-0")));
  said.clear();
  EXPECT_EQ(recover(hears).logs.recovered, 0U) << "shipped before";
  EXPECT_EQ(said, "") << "counted once";
  const auto all = lines();
  ASSERT_EQ(all.size(), 1U);
  EXPECT_EQ(all[0]["message"].string(), "of the second");
}

// Refused for what may pass: here, a second name.
TEST_F(OneRingUnreadableTest, ItComesLaterAndTheOthersDoNotComeAgain) {
  leave_two();
  std::filesystem::create_hard_link(lane("lane-0"), directory.path("held"));
  EXPECT_EQ(recover(config()).logs.recovered, 1U);
  EXPECT_EQ(recover(config()).logs.recovered, 0U);
  std::filesystem::remove(directory.path("held"));
  EXPECT_EQ(recover(config()).logs.recovered, 1U);
  const auto all = lines();
  ASSERT_EQ(all.size(), 2U);
  EXPECT_EQ(all[0]["message"].string(), "of the second");
  EXPECT_EQ(all[1]["message"].string(), "of the first");
  EXPECT_TRUE(crash_files().empty());
}

// A disk that gets full within a name, and has room again.
TEST_F(CrashRingsTest, APartOfANameCostsThatNameOnly) {
  in_killed_engine(config(), [&](testing::TestEngine& test) {
    SPILLWAY_INFO(test.engine, "before");
    std::signal(SIGXFSZ, SIG_IGN);
    rlimit limit{};
    getrlimit(RLIMIT_FSIZE, &limit);
    const rlim_t unlimited = limit.rlim_cur;
    for (const std::string& path : crash_files()) {
      if (path.ends_with("/names")) limit.rlim_cur = std::filesystem::file_size(path) + 10;
    }
    setrlimit(RLIMIT_FSIZE, &limit);
    SPILLWAY_INFO(test.engine, "in part", {"n", 1});
    limit.rlim_cur = unlimited;
    setrlimit(RLIMIT_FSIZE, &limit);
    SPILLWAY_INFO(test.engine, "behind", {"n", 2});
  });
  EXPECT_EQ(recover(config()).logs.recovered, 3U);
  const auto all = lines();
  ASSERT_EQ(all.size(), 3U);
  EXPECT_EQ(all[0]["message"].string(), "before");
  EXPECT_EQ(all[2]["message"].string(), "behind");
  EXPECT_EQ(all[2]["n"].number(), 2);
}

// Bytes of the files at random places: the start succeeds, and the account is balanced.
TEST_F(CrashRingsTest, DamageIsSurvived) {
  const std::uint64_t seed = testing::seed_or(20261121);
  SCOPED_TRACE(testing::seed_note(seed));
  std::mt19937_64 random(seed);
  for (int round = 0; round < 60; ++round) {
    in_killed_engine(config(), [](testing::TestEngine& test) {
      const Context context({.tenant = "acme"});
      const Scope scope(context);
      for (int n = 0; n < 20; ++n) {
        SPILLWAY_INFO(test.engine, "event", {"n", n}, {"text", "some text"});
      }
    });
    for (const std::string& path : crash_files()) {
      std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
      const std::uint64_t size = std::filesystem::file_size(path);
      // Where something is: the head of the lane, and the beginning of the ring behind it.
      const std::uint64_t within = std::min<std::uint64_t>(size, round % 2 == 0 ? 5000 : 300);
      for (int flips = 0; flips < 4; ++flips) {
        const std::uint64_t at = random() % within;
        const auto value = static_cast<char>(random());
        // What seems to be another version's stays: its own test.
        if (path.ends_with("/clock") && at / 4 == offsetof(detail::CrashClock, version) / 4) {
          continue;
        }
        file.seekp(static_cast<std::streamoff>(at));
        file.put(value);
      }
      if (round % 7 == 0) {
        file.close();
        std::filesystem::resize_file(path, random() % (size + 1));
      }
    }
    const Stats stats = recover(config());
    EXPECT_LE(stats.logs.recovered, 20U + 4096);
    EXPECT_TRUE(testing::is_settled(stats.logs));
    EXPECT_TRUE(crash_files().empty());
  }
}

#if !defined(SPILLWAY_THREAD_SANITIZER)

/// What a child has recorded, thread by thread.
struct Progress {
  std::atomic<int> committed[2];
};

// Threads that record, a flusher and a sender that work, and SIGKILL at any moment.
TEST_F(CrashRingsTest, NothingThatWasCommittedIsLostToSigkill) {
  const char* const wanted = std::getenv("SPILLWAY_TEST_KILLS");
  const int kills = wanted == nullptr ? 50 : std::atoi(wanted);
  const std::uint64_t seed = testing::seed_or(4711);
  SCOPED_TRACE(testing::seed_note(seed));
  std::mt19937_64 random(seed);
  std::uint64_t recovered = 0;
  std::uint64_t twice = 0;
  for (int round = 0; round < kills; ++round) {
    std::filesystem::remove(directory.path("log"));
    Shared<Progress> progress;
    const int kill_at = static_cast<int>(random() % 3000);
    const pid_t child = fork();
    if (child == 0) {
      alarm(60);
      Engine engine(config());
      const auto record = [&](int thread) {
        for (int n = 0;; ++n) {
          SPILLWAY_INFO(engine, "event", {"thread", thread}, {"n", n});
          progress->committed[thread].store(n + 1, std::memory_order_release);
          // Not faster than they are delivered, so that no ring is half full.
          while (n % 64 == 63 && engine.stats().logs.held() > 2000) std::this_thread::yield();
        }
      };
      std::thread other(record, 1);
      record(0);
    }
    while (progress->committed[0].load(std::memory_order_acquire) <= kill_at) {
      std::this_thread::yield();
    }
    kill(child, SIGKILL);
    testing::wait_for_child(child);
    const Stats stats = recover(config());
    EXPECT_TRUE(testing::is_settled(stats.logs));
    recovered += stats.logs.recovered;
    std::map<std::pair<int, int>, int> times;
    std::istringstream text(directory.read("log"));
    for (std::string line; std::getline(text, line);) {
      simdjson::dom::parser parser;
      simdjson::dom::element event;
      std::int64_t thread = 0;
      std::int64_t n = 0;
      // The process may have died within a line.
      if (parser.parse(line).get(event) != simdjson::SUCCESS ||
          event["thread"].get(thread) != simdjson::SUCCESS ||
          event["n"].get(n) != simdjson::SUCCESS) {
        continue;
      }
      ++times[{static_cast<int>(thread), static_cast<int>(n)}];
    }
    for (int thread = 0; thread < 2; ++thread) {
      const int committed = progress->committed[thread].load();
      for (int n = 0; n < committed; ++n) {
        const auto found = times.find({thread, n});
        ASSERT_NE(found, times.end()) << "thread " << thread << ", record " << n << " of "
                                      << committed << ", round " << round;
        ASSERT_LE(found->second, 2);
        if (found->second == 2) ++twice;
      }
    }
  }
  RecordProperty("recovered", std::to_string(recovered));
  RecordProperty("twice", std::to_string(twice));
  EXPECT_GT(recovered, 0U);
}

// Samples are whole in the ring or in the file, never in both and never in neither.
TEST_F(CrashMetricsTest, NoSampleIsLostToSigkillOrCountedTwice) {
  const std::uint64_t seed = testing::seed_or(4712);
  SCOPED_TRACE(testing::seed_note(seed));
  std::mt19937_64 random(seed);
  for (int round = 0; round < 10; ++round) {
    std::filesystem::remove(directory.path("metrics"));
    Shared<std::atomic<int>> committed;
    const int kill_at = static_cast<int>(random() % 20'000);
    const pid_t child = fork();
    if (child == 0) {
      alarm(60);
      Config small = config();
      small.ring_bytes = 1 << 16;
      small.metric_interval = 1h;
      Engine engine(small);
      const Histogram latency = engine.histogram("Latency");
      for (int n = 0;; ++n) {
        latency.sample(1);
        committed->store(n + 1, std::memory_order_release);
        // Not faster than they are read, so that none is folded into a cell.
        while (n % 64 == 63 && engine.stats().metrics.held_in_rings > 500) {
          std::this_thread::yield();
        }
      }
    }
    while (committed->load(std::memory_order_acquire) <= kill_at) std::this_thread::yield();
    kill(child, SIGKILL);
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    Engine next(config());  // By the same clock.
    const Stats stats = next.shutdown(10s);
    EXPECT_TRUE(testing::is_settled(stats.metrics));
    const auto all = static_cast<std::uint64_t>(committed->load());
    // The last one may have been on its way to be said.
    const auto delivered = static_cast<std::uint64_t>(seen("Latency").count);
    ASSERT_GE(delivered, all) << "round " << round;
    ASSERT_LE(delivered, all + 1) << "round " << round;
  }
}

#endif

}  // namespace
}  // namespace spillway
