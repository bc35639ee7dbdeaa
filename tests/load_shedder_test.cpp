// SPDX-License-Identifier: Apache-2.0
//
// Load shedding under scripted time, latencies, queue delays and kernel files; then as a step.
#include <deque>
#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>
#include <type_traits>

#include <gtest/gtest.h>
#include <support/engine_fixture.hpp>
#include <support/temporary_file.hpp>

#include <spillway/middleware/chain.hpp>
#include <spillway/middleware/resilience/load_shedding_step.hpp>

namespace spillway::middleware {
namespace {

using namespace std::chrono_literals;
using std::chrono::nanoseconds;

class LoadShedderTest : public ::testing::Test {
 protected:
  LoadShedderTest() {
    options.root = directory.path("");
    options.clock = clock;
    options.threads = false;
  }
  SteadyTime now() const { return clock->steady(); }
  void write(const std::string& file, std::string_view text) {
    const std::filesystem::path path = directory.path(file);
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }
  /// So many requests at a time, each of `took`, for some windows.
  void serve(LoadShedder& shedder, std::uint32_t at_once, nanoseconds took, int windows) {
    for (int i = 0; i < windows; ++i) {
      std::uint32_t begun = 0;
      while (begun < at_once && shedder.try_begin(Priority::normal, now()) == ShedReason::none)
        ++begun;
      clock->advance(101ms);
      for (std::uint32_t j = 0; j < begun; ++j) shedder.end(took, now());
    }
  }
  int admitted(LoadShedder& shedder, Priority priority, int of = 1000) {
    int count = 0;
    for (int i = 0; i < of; ++i) {
      if (shedder.try_begin(priority, now()) != ShedReason::none) continue;
      shedder.end({}, now());
      ++count;
    }
    return count;
  }

  const std::shared_ptr<spillway::testing::ManualClock> clock =
      std::make_shared<spillway::testing::ManualClock>();
  const spillway::testing::TemporaryDirectory directory;
  LoadShedderOptions options;
};

TEST_F(LoadShedderTest, PrioritiesHaveTheirPartOfTheLimit) {
  LoadShedder shedder(options);
  const auto fill = [&](Priority priority) {
    int count = 0;
    while (shedder.try_begin(priority, now()) == ShedReason::none) ++count;
    return count;
  };
  EXPECT_EQ(fill(Priority::sheddable), 75);
  EXPECT_EQ(fill(Priority::normal), 25);
  EXPECT_EQ(fill(Priority::critical), 25);
  EXPECT_EQ(shedder.try_begin(Priority::critical, now()), ShedReason::in_flight);
  EXPECT_EQ(shedder.in_flight(), 125U) << "who was refused is not counted";
  for (int i = 0; i < 125; ++i) shedder.end({}, now());
  EXPECT_EQ(shedder.in_flight(), 0U);
}

TEST_F(LoadShedderTest, TheLimitFollowsTheLatency) {
  LoadShedder shedder(options);
  serve(shedder, 100, 10ms, 20);
  const std::uint32_t well = shedder.limit();
  EXPECT_GT(well, 100U) << "it is used, and latencies are as before";
  serve(shedder, 1000, 100ms, 20);
  EXPECT_LT(shedder.limit(), well / 2) << "ten times as slow";
  EXPECT_GE(shedder.limit(), options.in_flight_min);
  serve(shedder, 1000, 10ms, 200);
  EXPECT_GT(shedder.limit(), well) << "and it recovers";
  serve(shedder, 5000, 10ms, 2000);
  EXPECT_EQ(shedder.limit(), options.in_flight_max);
}

TEST_F(LoadShedderTest, ALimitThatIsNotUsedStaysAndShortWindowsSayNothing) {
  LoadShedder shedder(options);
  serve(shedder, 20, 10ms, 50);
  EXPECT_EQ(shedder.limit(), 100U);
  serve(shedder, 5, 10s, 1);
  EXPECT_EQ(shedder.limit(), 100U) << "five requests are no window";
}

TEST_F(LoadShedderTest, ABurstIsNoOverload) {
  LoadShedder shedder(options);
  for (int i = 0; i < 100; ++i) {
    shedder.observe_queue_delay(i % 10 == 0 ? 1ms : 80ms, now());
    EXPECT_EQ(shedder.try_begin(Priority::sheddable, now()), ShedReason::none);
    shedder.end({}, now());
    clock->advance(10ms);
  }
}

TEST_F(LoadShedderTest, AStandingQueueIsShedMoreAndMore) {
  LoadShedder shedder(options);
  int refused_first = 0;
  int refused_last = 0;
  for (int i = 0; i < 1000; ++i) {
    shedder.observe_queue_delay(20ms, now());
    clock->advance(1ms);
    if (i < 110) continue;
    if (i == 110) {
      EXPECT_EQ(shedder.try_begin(Priority::sheddable, now()), ShedReason::queue_delay);
      EXPECT_EQ(shedder.try_begin(Priority::critical, now()), ShedReason::none);
    }
    const ShedReason reason = shedder.try_begin(Priority::normal, now());
    if (reason == ShedReason::none) shedder.end({}, now());
    if (reason == ShedReason::queue_delay) ++(i < 400 ? refused_first : refused_last);
  }
  // After n drops the wait to the next one is 100 ms / sqrt(n).
  EXPECT_EQ(refused_first, 5);
  EXPECT_GT(refused_last, 2 * refused_first);
  for (int i = 0; i < 210; ++i) {
    shedder.observe_queue_delay(1ms, now());
    clock->advance(1ms);
  }
  EXPECT_EQ(shedder.try_begin(Priority::sheddable, now()), ShedReason::none) << "it has gone";
}

TEST_F(LoadShedderTest, ADelayThatNobodyRepeatsIsForgotten) {
  LoadShedder shedder(options);
  for (int i = 0; i < 210; ++i) {
    shedder.observe_queue_delay(20ms, now());
    clock->advance(1ms);
  }
  EXPECT_EQ(shedder.try_begin(Priority::sheddable, now()), ShedReason::queue_delay);
  clock->advance(1s);
  EXPECT_EQ(shedder.try_begin(Priority::sheddable, now()), ShedReason::none);
}

TEST_F(LoadShedderTest, MemoryShedsTheSheddableFirstThenAGrowingShare) {
  LoadShedder shedder(options);
  write("proc/self/cgroup", "0::/\n");
  write("sys/fs/cgroup/memory.max", "1000\n");
  const auto with = [&](int used) {
    write("sys/fs/cgroup/memory.current", std::to_string(used) + "\n");
    shedder.sample();
  };
  with(870);
  EXPECT_EQ(admitted(shedder, Priority::sheddable), 1000);
  with(890);
  EXPECT_EQ(shedder.try_begin(Priority::sheddable, now()), ShedReason::memory);
  EXPECT_EQ(admitted(shedder, Priority::normal), 1000);
  with(955);
  EXPECT_NEAR(admitted(shedder, Priority::normal, 10'000), 5000, 500) << "half way to 980";
  with(990);
  EXPECT_EQ(admitted(shedder, Priority::normal), 0);
  EXPECT_EQ(admitted(shedder, Priority::critical), 1000);
  with(500);
  EXPECT_EQ(admitted(shedder, Priority::sheddable), 1000);
}

TEST_F(LoadShedderTest, CpuIsJudgedByWhatHappenedBetweenTwoSamples) {
  LoadShedder shedder(options);
  write("proc/self/cgroup", "0::/\n");
  const auto cpu = [&](int periods, int throttled) {
    write("sys/fs/cgroup/cpu.stat", "nr_periods " + std::to_string(periods) + "\nnr_throttled " +
                                        std::to_string(throttled) + "\n");
    clock->advance(1s);
    shedder.sample();
    const ShedReason reason = shedder.try_begin(Priority::sheddable, now());
    if (reason == ShedReason::none) shedder.end({}, now());
    return reason;
  };
  EXPECT_EQ(cpu(1000, 900), ShedReason::none) << "before the service began";
  EXPECT_EQ(cpu(1010, 901), ShedReason::none);
  EXPECT_EQ(cpu(1020, 904), ShedReason::cpu_throttled);
  EXPECT_EQ(cpu(1020, 904), ShedReason::none) << "no quota period has ended";
}

TEST_F(LoadShedderTest, CpuPressureIsTheShareOfTheTime) {
  LoadShedder shedder(options);
  const auto waited = [&](std::chrono::microseconds total) {
    write("proc/pressure/cpu",
          "some avg10=0.00 avg60=0.00 avg300=0.00 total=" + std::to_string(total.count()) + "\n");
    clock->advance(1s);
    shedder.sample();
  };
  waited(500s);
  EXPECT_EQ(shedder.try_begin(Priority::sheddable, now()), ShedReason::none);
  waited(500s + 590ms);
  EXPECT_EQ(shedder.try_begin(Priority::sheddable, now()), ShedReason::none);
  waited(500s + 590ms + 650ms);
  EXPECT_EQ(shedder.try_begin(Priority::sheddable, now()), ShedReason::cpu_pressure);
  EXPECT_EQ(admitted(shedder, Priority::normal), 1000);
  waited(500s + 590ms + 650ms + 1s);
  EXPECT_EQ(admitted(shedder, Priority::normal), 0);
}

TEST_F(LoadShedderTest, WithoutFilesOfTheKernelNothingIsShedByThem) {
  LoadShedder shedder(options);
  shedder.sample();
  shedder.sample();
  EXPECT_EQ(admitted(shedder, Priority::sheddable), 1000);
}

TEST_F(LoadShedderTest, OptionsThatCannotWorkAreAllNamed) {
  options.in_flight_first = 5000;
  options.memory = {0.9, 0.8, 0.7};
  try {
    const LoadShedder shedder(options);
    FAIL();
  } catch (const std::invalid_argument& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("in_flight_first = 5000: allowed are 20 to 2000"), std::string::npos)
        << text;
    EXPECT_NE(text.find("memory.sheddable = 0.9"), std::string::npos) << text;
  }
}

TEST(LoadShedderThreadsTest, WhatBeganEnds) {
  LoadShedder shedder({.in_flight_first = 20, .in_flight_max = 40, .sample_interval = 10ms});
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      const auto priority = static_cast<Priority>(t % 3);
      for (int i = 0; i < 20'000; ++i) {
        const auto now = std::chrono::steady_clock::now();
        shedder.observe_queue_delay(nanoseconds(i), now);
        if (shedder.try_begin(priority, now) != ShedReason::none) continue;
        EXPECT_LE(shedder.in_flight(), 60U);
        shedder.end(nanoseconds(1000 + i % 7), now);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(shedder.in_flight(), 0U);
}

// ---- In a chain ----

class LoadSheddingStepTest : public LoadShedderTest {
 protected:
  LoadSheddingStepTest() {
    options.in_flight_min = options.in_flight_first = options.in_flight_max = 1;
    options.sheddable_part = 0;
  }
  spillway::testing::AwsEnvironment environment;
  spillway::testing::TestEngine test{spillway::testing::aws_config()};
  const Routes routes{{"GET", "/orders/{id}"}, {"GET", "/checkout"}, {"GET", "/report"}};
  LoadSheddingOptions step_options() const {
    return {.shedder = options,
            .priority_of =
                [](const Route& route) {
                  return route.path_template == "/checkout" ? Priority::critical
                         : route.path_template == "/report" ? Priority::sheddable
                                                            : Priority::normal;
                },
            .may_raise = from_networks({"10.0.0.0/8"}),
            .arrived = {}};
  }
  /// The priority that a request ends up with.
  static Priority priority(const Chain<LoadSheddingStep>& chain, std::string_view path,
                           std::string_view asked, std::string_view peer = "203.0.113.9") {
    const std::array<HeaderField, 1> fields{{{"x-request-priority", asked}}};
    const std::span<const HeaderField> list(fields);
    const auto exchange = chain.begin(
        {.method = "GET", .path = path, .peer_address = peer, .headers = headers_of(list)});
    return exchange.priority;
  }
};

TEST_F(LoadSheddingStepTest, WhatIsTooMuchIs503WithRetryAfterAndItsReason) {
  LoadSheddingStep step(test.engine, routes, step_options());
  const Chain chain(routes, step);
  auto first = chain.begin({.method = "GET", .path = "/orders/17"});
  EXPECT_FALSE(first.has_reply());
  auto second = chain.begin({.method = "GET", .path = "/orders/18"});
  EXPECT_EQ(second.reply().status, 503);
  EXPECT_EQ(second.decision, "load shedding: in_flight");
  ASSERT_EQ(second.headers().size(), 1U);
  EXPECT_EQ(second.headers()[0].name, "Retry-After");
  EXPECT_EQ(second.headers()[0].value, "1");
  second.finish({.status = 503});
  EXPECT_EQ(step.shedder().in_flight(), 1U);
  first.finish({.status = 200});
  EXPECT_EQ(step.shedder().in_flight(), 0U);
  auto third = chain.begin({.method = "GET", .path = "/orders/19"});
  EXPECT_FALSE(third.has_reply());
}

TEST_F(LoadSheddingStepTest, ARequestThatEndsWithoutAResponseGivesItsPlaceBack) {
  LoadSheddingStep step(test.engine, routes, step_options());
  const Chain chain(routes, step);
  { const auto cancelled = chain.begin({.method = "GET", .path = "/orders/17"}); }
  EXPECT_EQ(step.shedder().in_flight(), 0U);
}

/// A deadline that the handler misses: its answer is replaced, as DeadlineStep does.
struct Late {
  struct State {};
  void respond(State& /*state*/, Exchange& exchange,
               const ResponseFacts& /*facts*/) const noexcept {
    exchange.refuse(504);
  }
};

// They are the slowest of all: a limit that does not see them admits more the slower the service is.
TEST_F(LoadSheddingStepTest, RequestsThatMissTheirDeadlineLowerTheLimit) {
  options.in_flight_min = 1;
  options.in_flight_first = 100;
  options.in_flight_max = 10'000;
  const Routes one_route{{"GET", "/orders/{id}"}};
  LoadSheddingStep step(test.engine, one_route, {.shedder = options});
  const Late late{};
  const Chain in_time(one_route, step);
  const Chain too_late(one_route, step, late);
  // Some windows of 200 requests at a time.
  const auto serve_by = [&](const auto& chain, nanoseconds took) {
    using Exchange = typename std::decay_t<decltype(chain)>::Exchange;
    for (int window = 0; window < 20; ++window) {
      std::deque<std::optional<Exchange>> exchanges(200);
      for (auto& one : exchanges) chain.begin(one, {.method = "GET", .path = "/orders/17"}, now());
      clock->advance(took);
      for (auto& one : exchanges) {
        if (!one->ended_early()) one->respond({.status = 200});
        one->finish({.status = one->has_reply() ? one->reply().status : 200}, now());
      }
    }
  };
  serve_by(in_time, 101ms);
  const std::uint32_t well = step.shedder().limit();
  EXPECT_GE(well, 100U);
  serve_by(too_late, 1010ms);
  EXPECT_LT(step.shedder().limit(), well / 2);
}

TEST_F(LoadSheddingStepTest, AClientMayAskForLessButNotForMore) {
  LoadSheddingStep step(test.engine, routes, step_options());
  const Chain<LoadSheddingStep> chain(routes, step);
  EXPECT_EQ(priority(chain, "/orders/17", "critical"), Priority::normal);
  EXPECT_EQ(priority(chain, "/orders/17", "sheddable"), Priority::sheddable);
  EXPECT_EQ(priority(chain, "/checkout", "normal"), Priority::normal);
  EXPECT_EQ(priority(chain, "/report", "normal"), Priority::sheddable);
  EXPECT_EQ(priority(chain, "/orders/17", "CRITICAL "), Priority::normal);
  EXPECT_EQ(priority(chain, "/orders/17", ""), Priority::normal);
  EXPECT_EQ(priority(chain, "/orders/17", "critical", "10.1.2.3"), Priority::critical)
      << "one of ours";
  EXPECT_EQ(priority(chain, "/nowhere", "critical"), Priority::normal);
}

TEST_F(LoadSheddingStepTest, ItSaysOnceThatItBeginsAndThatItIsOver) {
  LoadSheddingStep step(test.engine, routes, step_options());
  const Chain chain(routes, step);
  const auto at = [&](SteadyTime time) {
    auto exchange = chain.begin({.method = "GET", .path = "/orders/17"}, time);
    exchange.finish({.status = 200}, time);
  };
  const SteadyTime begin = now();
  {
    const auto holds = chain.begin({.method = "GET", .path = "/orders/1"}, begin);
    at(begin + 1s);
    at(begin + 2s);
  }
  at(begin + 11s);
  at(begin + 12s);
  at(begin + 13s);
  test.engine.flush(1s);
  std::string logs;
  for (const auto& request : test.http.requests()) {
    if (spillway::testing::operation_of(request) == "PutLogEvents") logs += request.body;
  }
  const auto count = [&](std::string_view text) {
    int found = 0;
    for (auto found_at = logs.find(text); found_at != std::string::npos;
         found_at = logs.find(text, found_at + 1))
      ++found;
    return found;
  };
  EXPECT_EQ(count("load shedding begins"), 1);
  EXPECT_EQ(count("load shedding is over"), 1);
}

TEST_F(LoadSheddingStepTest, TheTimeSinceTheArrivalIsAQueueDelay) {
  options.in_flight_first = options.in_flight_max = 1000;
  LoadSheddingOptions with = step_options();
  with.arrived = [](const Exchange& exchange) { return exchange.begun - 50ms; };
  LoadSheddingStep step(test.engine, routes, with);
  const Chain chain(routes, step);
  SteadyTime time = now();
  std::string_view decision;
  for (int i = 0; i < 300; ++i) {
    auto exchange = chain.begin({.method = "GET", .path = "/orders/17"}, time += 1ms);
    if (exchange.has_reply()) decision = exchange.decision;
    exchange.finish({.status = 200}, time);
  }
  EXPECT_EQ(decision, "load shedding: queue_delay");
}

}  // namespace
}  // namespace spillway::middleware
