// SPDX-License-Identifier: Apache-2.0
//
// The engine with its threads, under real ones: many producers, thousands of short threads,
// shutdown while all record. Every log event proves itself (producer and sequence), counters are
// compared with what was added, and the account is balanced. Under ThreadSanitizer this is the test
// of the whole.
#include <atomic>
#include <map>
#include <set>
#include <thread>

#include <support/engine_fixture.hpp>
#include <support/gunzip.hpp>

namespace spillway {
namespace {

using namespace std::chrono_literals;
using testing::is_settled;
using testing::Json;

class EngineStressTest : public ::testing::Test {
 protected:
  EngineStressTest() {
    auto memory = std::make_unique<transport::MemoryTransport>();
    transport_ = memory.get();
    Config config = testing::aws_config();
    config.log_interval = 5ms;
    config.trace_interval = 5ms;
    engine = std::make_unique<Engine>(config, Runtime{nullptr, std::move(memory), nullptr, true});
  }

  // What the other side got; after shutdown.
  struct Received {
    double counter = 0;
    double histogram_count = 0;
    double histogram_sum = 0;
    std::map<int, std::vector<int>> logs;  // producer -> sequence numbers, in order of arrival
    std::uint64_t spans = 0;
  };
  Received received() {
    Received all;
    for (const auto& request : transport_->requests()) {
      const Json body(testing::body_of(request));
      const std::string operation = testing::operation_of(request);
      if (operation == "PutMetricData") {
        for (std::size_t i = 0; i < body["MetricData"].size(); ++i) {
          const Json datum = body["MetricData"][i];
          if (datum.has("Value")) {
            all.counter += datum["Value"].number();
          } else {
            all.histogram_count += datum["StatisticValues"]["SampleCount"].number();
            all.histogram_sum += datum["StatisticValues"]["Sum"].number();
          }
        }
      } else if (operation == "PutLogEvents") {
        for (std::size_t i = 0; i < body["logEvents"].size(); ++i) {
          const Json message(body["logEvents"][i]["message"].string());
          all.logs[static_cast<int>(message["producer"].number())].push_back(
              static_cast<int>(message["n"].number()));
        }
      } else {
        for (std::size_t i = 0; i < body["TraceSegmentDocuments"].size(); ++i) {
          const std::string text = body["TraceSegmentDocuments"][i].string();
          for (std::size_t at = text.find("\"id\":"); at != std::string::npos;
               at = text.find("\"id\":", at + 1)) {
            ++all.spans;
          }
        }
      }
    }
    return all;
  }

  void record(int producer, int n) {
    const Context context{{.tenant = "t" + std::to_string(producer % 3)}};
    const Scope scope(context);
    const Span root = engine->span("work");
    requests.add(1);
    latency.record(n % 1000);
    SPILLWAY_INFO(*engine, "event", {"producer", producer}, {"n", n});
    if (n % 3 == 0) {
      Span child = engine->span("child");
      child.annotate("n", n);
    }
  }

  void check(const Stats& stats) {
    EXPECT_TRUE(is_settled(stats.metrics));
    EXPECT_TRUE(is_settled(stats.logs));
    EXPECT_TRUE(is_settled(stats.spans));
    const Received all = received();
    EXPECT_EQ(all.counter + all.histogram_count, static_cast<double>(stats.metrics.delivered));
    std::uint64_t logs = 0;
    for (const auto& [producer, numbers] : all.logs) {
      logs += numbers.size();
      const std::set<int> distinct(numbers.begin(), numbers.end());
      EXPECT_EQ(distinct.size(), numbers.size())
          << "an event of producer " << producer << " came twice";
    }
    EXPECT_EQ(logs, stats.logs.delivered);
    EXPECT_EQ(all.spans, stats.spans.delivered);
  }

  testing::AwsEnvironment environment;
  transport::MemoryTransport* transport_ = nullptr;
  std::unique_ptr<Engine> engine;
  Counter requests;
  Histogram latency;
};

TEST_F(EngineStressTest, EightProducersLoseNothingUncounted) {
  requests = engine->counter("Requests");
  latency = engine->histogram("Latency");
  constexpr int producers = 8;
  constexpr int records = 4000;
  std::vector<std::thread> threads;
  for (int p = 0; p < producers; ++p) {
    threads.emplace_back([this, p] {
      for (int n = 0; n < records; ++n) record(p, n);
    });
  }
  for (std::thread& thread : threads) thread.join();
  const Stats stats = engine->shutdown(30s);
  EXPECT_EQ(stats.metrics.recorded, 2ULL * producers * records);
  EXPECT_EQ(stats.metrics.delivered, 2ULL * producers * records) << "metrics are never lost";
  EXPECT_EQ(stats.logs.recorded, 1ULL * producers * records);
  check(stats);
  const Received all = received();
  EXPECT_EQ(all.counter, producers * records);
  EXPECT_EQ(all.histogram_sum, producers * 4.0 * (999.0 * 1000 / 2));
  for (const auto& [producer, numbers] : all.logs) {
    EXPECT_TRUE(std::is_sorted(numbers.begin(), numbers.end()))
        << "events of one thread keep their order";
  }
}

TEST_F(EngineStressTest, TenThousandShortThreadsShareFewLanes) {
  requests = engine->counter("Requests");
  latency = engine->histogram("Latency");
  constexpr int threads = 10'000;
  constexpr int at_once = 8;
  for (int first = 0; first < threads; first += at_once) {
    std::vector<std::thread> group;
    for (int i = 0; i < at_once; ++i) {
      group.emplace_back([this, producer = first + i] { record(producer, 1); });
    }
    for (std::thread& thread : group) thread.join();
  }
  const Stats stats = engine->shutdown(30s);
  EXPECT_EQ(stats.metrics.delivered, 2ULL * threads);
  EXPECT_LE(stats.lanes, 2U * at_once);
  check(stats);
}

TEST_F(EngineStressTest, ShutdownWhileRecordingCountsEveryCall) {
  requests = engine->counter("Requests");
  latency = engine->histogram("Latency");
  constexpr int producers = 4;
  std::atomic<bool> stop{false};
  std::atomic<int> warm{0};
  std::array<std::uint64_t, producers> calls{};
  std::vector<std::thread> threads;
  for (int p = 0; p < producers; ++p) {
    threads.emplace_back([&, p] {
      for (int n = 0; !stop.load(std::memory_order_relaxed); ++n) {
        record(p, n);
        ++calls[static_cast<std::size_t>(p)];
        if (n == 200) warm.fetch_add(1, std::memory_order_relaxed);
      }
    });
  }
  while (warm.load(std::memory_order_relaxed) != producers) std::this_thread::yield();
  const Stats at_shutdown = engine->shutdown(30s);
  stop.store(true, std::memory_order_relaxed);
  for (std::thread& thread : threads) thread.join();
  const Stats stats = engine->stats();
  std::uint64_t total = 0;
  for (const std::uint64_t count : calls) total += count;
  EXPECT_EQ(stats.metrics.recorded, 2 * total);
  EXPECT_EQ(stats.logs.recorded, total);
  EXPECT_EQ(stats.metrics.delivered, at_shutdown.metrics.delivered)
      << "nothing was taken after shutdown returned";
  EXPECT_EQ(stats.metrics.delivered + stats.metrics.dropped_for(DropCause::closed), 2 * total);
  check(stats);
}

TEST_F(EngineStressTest, FlushFromManyThreadsReturns) {
  requests = engine->counter("Requests");
  latency = engine->histogram("Latency");
  std::vector<std::thread> threads;
  for (int p = 0; p < 4; ++p) {
    threads.emplace_back([this, p] {
      for (int n = 0; n < 50; ++n) {
        record(p, n);
        EXPECT_TRUE(engine->flush(30s));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const Stats stats = engine->stats();
  EXPECT_EQ(stats.logs.delivered, 200U);
  EXPECT_EQ(stats.metrics.delivered, 400U) << "cells are taken whoever is in the middle of a call";
  EXPECT_TRUE(is_settled(stats.logs));
  check(engine->shutdown(30s));
}

}  // namespace
}  // namespace spillway
