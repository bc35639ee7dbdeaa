// SPDX-License-Identifier: Apache-2.0
//
// Health checks on a clock that the test moves, run by step(); and with threads where threads are
// what is asked about.
#include <atomic>
#include <barrier>
#include <csignal>
#include <functional>
#include <future>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <support/child_process.hpp>
#include <support/engine_fixture.hpp>
#include <support/sent.hpp>

#include <spillway/middleware/health/endpoints.hpp>
#include <spillway/middleware/health/monitor.hpp>

namespace spillway::middleware {
namespace {

using namespace std::chrono_literals;
using spillway::testing::Json;

/// A check whose result the test sets.
struct Scripted {
  CheckResult result{};
  int runs = 0;
  Check check() {
    return [this](const CheckRun& /*run*/) {
      ++runs;
      return result;
    };
  }
  void fails() { result = CheckResult::fail("refused"); }
  void passes() { result = {}; }
};

class HealthMonitorTest : public ::testing::Test {
 protected:
  HealthMonitor& monitor() {
    if (!monitor_) {
      monitor_.emplace(HealthOptions{.service_id = "orders",
                                     .release = "2.4.1",
                                     .dependencies = std::move(dependencies),
                                     .clock = clock,
                                     .threads = false});
    }
    return *monitor_;
  }
  void advance(std::chrono::milliseconds by) {
    clock->advance(by);
    monitor().step();
  }
  int status(HealthEndpoint endpoint) {
    return monitor().answer(endpoint, clock->steady())->status;
  }
  Json body(HealthEndpoint endpoint) {
    return Json(monitor().answer(endpoint, clock->steady())->body);
  }
  Json detail(std::string_view check) { return body(HealthEndpoint::detail)["checks"][check][0]; }

  std::shared_ptr<spillway::testing::ManualClock> clock =
      std::make_shared<spillway::testing::ManualClock>();
  Scripted table;
  Scripted prices;
  std::vector<Dependency> dependencies{
      {.name = "table", .check = table.check(), .type = "datastore"},
      {.name = "prices", .check = prices.check(), .required = false}};

 private:
  std::optional<HealthMonitor> monitor_;
};

TEST_F(HealthMonitorTest, BeforeTheFirstResultsItStarts) {
  EXPECT_EQ(monitor().state(), ServiceState::starting);
  EXPECT_EQ(status(HealthEndpoint::live), 200);
  EXPECT_EQ(status(HealthEndpoint::ready), 503);
  EXPECT_EQ(status(HealthEndpoint::health), 200) << "nothing is broken";
  EXPECT_EQ(body(HealthEndpoint::health)["status"].string(), "warn");
  EXPECT_EQ(body(HealthEndpoint::health)["notes"][0].string(), "starting");
  EXPECT_EQ(detail("table:responseTime")["output"].string(), "no result yet");
}

TEST_F(HealthMonitorTest, WhatPassesIsReadyAndDetailsSayWhatWasSeen) {
  prices.result.observed = 12.5;
  prices.result.measure = "utilization";
  prices.result.unit = "percent";
  monitor().step();
  EXPECT_EQ(monitor().state(), ServiceState::up);
  for (const auto endpoint : {HealthEndpoint::live, HealthEndpoint::ready, HealthEndpoint::health,
                              HealthEndpoint::detail}) {
    EXPECT_EQ(status(endpoint), 200);
    EXPECT_EQ(body(endpoint)["status"].string(), "pass");
  }
  EXPECT_EQ(monitor().answer(HealthEndpoint::health, clock->steady())->body, R"({"status":"pass"})")
      << "what anyone may see names nothing";
  const Json all = body(HealthEndpoint::detail);
  EXPECT_EQ(all["serviceId"].string(), "orders");
  EXPECT_EQ(all["releaseId"].string(), "2.4.1");
  const Json first = all["checks"]["table:responseTime"][0];
  EXPECT_EQ(first["componentType"].string(), "datastore");
  EXPECT_EQ(first["status"].string(), "pass");
  EXPECT_EQ(first["observedUnit"].string(), "ms");
  EXPECT_EQ(first["time"].string(), "2026-11-21T01:00:00.000000000Z");
  EXPECT_TRUE(first["required"].boolean());
  const Json second = all["checks"]["prices:utilization"][0];
  EXPECT_EQ(second["observedValue"].number(), 12.5);
  EXPECT_EQ(second["observedUnit"].string(), "percent");
  EXPECT_FALSE(second["required"].boolean());
}

TEST_F(HealthMonitorTest, ARequiredDependencyIsGivenASecondChance) {
  monitor().step();
  table.fails();
  advance(10s);
  EXPECT_EQ(monitor().state(), ServiceState::degraded);
  EXPECT_EQ(status(HealthEndpoint::ready), 200);
  advance(10s);
  EXPECT_EQ(monitor().state(), ServiceState::down);
  EXPECT_EQ(status(HealthEndpoint::ready), 503);
  EXPECT_EQ(status(HealthEndpoint::health), 503);
  EXPECT_EQ(status(HealthEndpoint::live), 200) << "a restart would not mend it";
  EXPECT_EQ(detail("table:responseTime")["output"].string(), "refused");
  table.passes();
  advance(10s);
  EXPECT_EQ(monitor().state(), ServiceState::up);
}

TEST_F(HealthMonitorTest, AnOptionalDependencyOnlyDegrades) {
  monitor().step();
  prices.fails();
  for (int i = 0; i < 5; ++i) advance(10s);
  EXPECT_EQ(monitor().state(), ServiceState::degraded);
  EXPECT_EQ(status(HealthEndpoint::ready), 200);
  EXPECT_EQ(body(HealthEndpoint::ready)["status"].string(), "warn");
  EXPECT_EQ(detail("prices:responseTime")["status"].string(), "fail");
}

TEST_F(HealthMonitorTest, AWarningDegradesAtOnceAndIsNoFailure) {
  monitor().step();
  table.result = CheckResult::warn("slow");
  for (int i = 0; i < 10; ++i) advance(10s);
  EXPECT_EQ(monitor().state(), ServiceState::degraded);
  EXPECT_EQ(detail("table:responseTime")["failures"].number(), 0);
}

TEST_F(HealthMonitorTest, WhatNeverPassedStartsUntilTheGraceIsOver) {
  table.fails();
  monitor().step();
  advance(29'999ms);
  EXPECT_EQ(monitor().state(), ServiceState::starting);
  EXPECT_EQ(status(HealthEndpoint::ready), 503);
  advance(1ms);
  EXPECT_EQ(monitor().state(), ServiceState::down);
  EXPECT_EQ(status(HealthEndpoint::health), 503);
}

TEST_F(HealthMonitorTest, OnceItWorkedTheGraceIsOver) {
  dependencies[0].failures_max = 1;
  monitor().step();
  table.fails();
  advance(10s);
  EXPECT_EQ(monitor().state(), ServiceState::down);
}

HealthMonitor* drained_by_signal = nullptr;

TEST_F(HealthMonitorTest, DrainingIsNotReadyButWellAndMayBeginInASignalHandler) {
  monitor().step();
  drained_by_signal = &monitor();
  struct sigaction drains {};
  struct sigaction before {};
  drains.sa_handler = [](int /*signal*/) { drained_by_signal->begin_draining(); };
  sigaction(SIGTERM, &drains, &before);
  raise(SIGTERM);
  sigaction(SIGTERM, &before, nullptr);
  EXPECT_TRUE(monitor().is_draining());
  EXPECT_EQ(status(HealthEndpoint::ready), 503) << "without another round";
  EXPECT_EQ(status(HealthEndpoint::health), 200);
  EXPECT_EQ(status(HealthEndpoint::live), 200);
  EXPECT_EQ(body(HealthEndpoint::health)["notes"][0].string(), "draining");
  advance(10s);
  EXPECT_EQ(status(HealthEndpoint::ready), 503);
}

TEST_F(HealthMonitorTest, OnlyALivenessCheckAsksForARestart) {
  Scripted queue;
  dependencies.push_back({.name = "queue", .check = queue.check(), .liveness = true});
  monitor().step();
  queue.fails();
  advance(10s);
  EXPECT_EQ(status(HealthEndpoint::live), 200);
  advance(10s);
  EXPECT_EQ(status(HealthEndpoint::live), 503);
  EXPECT_EQ(status(HealthEndpoint::ready), 503);
}

TEST_F(HealthMonitorTest, WhatACheckThrowsIsItsFailure) {
  dependencies[0].check = [](const CheckRun&) -> CheckResult {
    throw std::runtime_error("no\nway");
  };
  dependencies[1].check = [](const CheckRun&) -> CheckResult { throw 7; };
  monitor().step();
  EXPECT_EQ(detail("table:responseTime")["output"].string(), "no\nway");
  EXPECT_EQ(detail("prices:responseTime")["status"].string(), "fail");
}

TEST_F(HealthMonitorTest, OutputIsCutBetweenCharacters) {
  table.result = CheckResult::warn(std::string(check_output_bytes_max - 1, 'x') + "ä");
  monitor().step();
  EXPECT_EQ(detail("table:responseTime")["output"].string(),
            std::string(check_output_bytes_max - 1, 'x'));
}

TEST_F(HealthMonitorTest, TheBreakerAsksLessAndLessOftenAndClosesWithTheFirstPass) {
  dependencies.pop_back();
  table.fails();
  std::vector<int> run_at;
  for (int second = 0; second < 300; ++second) {
    const int before = table.runs;
    monitor().step();
    if (table.runs != before) run_at.push_back(second);
    clock->advance(1s);
  }
  EXPECT_EQ(run_at, (std::vector{0, 10, 20, 30, 50, 90, 150, 210, 270}));
  EXPECT_EQ(detail("table:responseTime")["breaker"].string(), "open");
  table.passes();
  advance(60s);
  EXPECT_EQ(detail("table:responseTime")["breaker"].string(), "closed");
  EXPECT_EQ(monitor().state(), ServiceState::up);
  const int runs = table.runs;
  advance(10s);
  EXPECT_EQ(table.runs, runs + 1) << "as often as before";
}

TEST_F(HealthMonitorTest, ACheckThatTookTooLongFailed) {
  dependencies[0].check = [this](const CheckRun& run) {
    clock->advance(run.timeout());
    return CheckResult{};
  };
  monitor().step();
  EXPECT_EQ(detail("table:responseTime")["output"].string(), "no result within 2000 ms");
}

TEST_F(HealthMonitorTest, RefreshRunsEveryCheckNow) {
  monitor().step();
  monitor().step();
  EXPECT_EQ(table.runs, 1);
  monitor().refresh();
  monitor().step();
  EXPECT_EQ(table.runs, 2);
  EXPECT_EQ(prices.runs, 2);
}

TEST_F(HealthMonitorTest, AMonitorThatStandsStillSaysSo) {
  monitor().step();
  clock->advance(health_stalled_after - 1ns);
  EXPECT_EQ(status(HealthEndpoint::ready), 200);
  clock->advance(1ns);
  EXPECT_EQ(status(HealthEndpoint::ready), 503);
  EXPECT_EQ(status(HealthEndpoint::health), 503);
  EXPECT_EQ(status(HealthEndpoint::live), 200) << "no check judges life";
  monitor().step();
  EXPECT_EQ(status(HealthEndpoint::ready), 200);
}

TEST_F(HealthMonitorTest, WithoutDependenciesItIsUp) {
  dependencies.clear();
  EXPECT_EQ(monitor().state(), ServiceState::up);
  EXPECT_EQ(status(HealthEndpoint::ready), 200);
}

TEST_F(HealthMonitorTest, OptionsThatCannotWorkAreAllNamed) {
  dependencies[0].interval = 0ms;
  dependencies[1].name = "table";
  dependencies.push_back({.name = "", .check = {}});
  try {
    monitor();
    FAIL();
  } catch (const std::invalid_argument& error) {
    const std::string text = error.what();
    for (const std::string_view part :
         {"dependency \"table\": interval (ms) = 0: allowed are 10 to 3.6e+06",
          "dependency \"table\": the name is there twice", "a dependency has no name",
          "dependency \"\": there is no check"})
      EXPECT_NE(text.find(part), std::string::npos) << part << " in " << text;
  }
}

TEST_F(HealthMonitorTest, TransitionsAreLogsAndMetrics) {
  spillway::testing::AwsEnvironment environment;
  spillway::testing::TestEngine test(spillway::testing::aws_config());
  HealthMonitor watched({.dependencies = {{.name = "table", .check = table.check()}},
                         .engine = &test.engine,
                         .clock = clock,
                         .threads = false});
  const auto round = [&] {
    clock->advance(10s);
    watched.step();
  };
  round();
  table.fails();
  round();
  round();
  round();  // Failing still: nothing new.
  test.engine.flush(1s);
  std::string logs;
  for (const auto& request : test.http.requests()) {
    if (spillway::testing::operation_of(request) == "PutLogEvents") logs += request.body;
  }
  const auto count = [&](std::string_view text) {
    int found = 0;
    for (auto at = logs.find(text); at != std::string::npos; at = logs.find(text, at + 1)) ++found;
    return found;
  };
  EXPECT_EQ(count("dependency changed"), 3) << "unknown, pass, warn, fail";
  EXPECT_EQ(count("service changed"), 3) << "starting, up, degraded, down";
  EXPECT_GT(count(R"(\"dependency\":\"table\")"), 0);
  EXPECT_GT(count("refused"), 0);
  const Stats stats = test.engine.stats();
  EXPECT_EQ(stats.metrics.recorded, 4 * 2 + 2 + 9U)
      << "4 checks with state and time, 2 transitions, and the service's state at first and twice "
         "a "
         "round";
}

TEST_F(HealthMonitorTest, WhatChangesIsMeasuredWithItsValues) {
  spillway::testing::AwsEnvironment environment;
  spillway::testing::TestEngine test(spillway::testing::aws_config());
  HealthMonitor watched({.dependencies = std::move(dependencies),
                         .engine = &test.engine,
                         .clock = clock,
                         .threads = false});
  const auto round = [&] {
    test.http.forget_requests();
    watched.step();
    return spillway::testing::sent(test);
  };
  const auto level = [](const spillway::testing::Sent& all, const std::string& gauge) {
    const Json values = all.metrics.at(gauge)["StatisticValues"];
    EXPECT_EQ(values["Minimum"].number(), values["Maximum"].number()) << gauge;
    return values["Maximum"].number();
  };
  struct Step {
    const char* what;
    std::function<void()> arrange;
    double service;
    double table;
    double prices;
    double table_transitions;
    double prices_transitions;
  };
  for (const Step& step : std::initializer_list<Step>{
           {"the first result is no transition", [] {}, 1, 1, 1, 0, 0},
           {"nothing changes", [] {}, 1, 1, 1, 0, 0},
           {"a second chance", [&] { table.fails(); }, 0.5, 0.5, 1, 1, 0},
           {"down", [] {}, 0, 0, 1, 1, 0},
           {"down still", [] {}, 0, 0, 1, 0, 0},
           {"back", [&] { table.passes(); }, 1, 1, 1, 1, 0},
           {"a warning", [&] { prices.result = CheckResult::warn("slow"); }, 0.5, 1, 0.5, 0, 1},
           {"an optional one fails: with a second chance", [&] { prices.fails(); }, 0.5, 1, 0.5, 0,
            0},
           {"an optional one has failed", [] {}, 0.5, 1, 0, 0, 1}}) {
    SCOPED_TRACE(step.what);
    step.arrange();
    clock->advance(10s);
    const spillway::testing::Sent all = round();
    // A round begins with the state of the one before it: what it came to is in a round without checks.
    EXPECT_EQ(level(round(), "ServiceHealthy"), step.service);
    EXPECT_EQ(level(all, "DependencyHealthy|table"), step.table);
    EXPECT_EQ(level(all, "DependencyHealthy|prices"), step.prices);
    EXPECT_EQ(all.sum("HealthTransitions|table"), step.table_transitions);
    EXPECT_EQ(all.sum("HealthTransitions|prices"), step.prices_transitions);
  }
}

// Stale while revalidate. The check itself asks, as a request would that comes while it hangs.
TEST_F(HealthMonitorTest, WhileACheckHangsTheLastResultIsAnsweredUntilItsTimeOut) {
  bool hangs = false;
  int begun = 0;
  std::vector<std::string> seen;
  const auto look = [&] {
    monitor().step();  // Meets the run that is under way, and begins none beside it.
    seen.push_back(std::to_string(status(HealthEndpoint::ready)) + " " +
                   std::string(to_string(monitor().state())) + " " +
                   detail("table:responseTime")["status"].string());
  };
  dependencies.pop_back();
  dependencies[0].timeout = 2000ms;
  dependencies[0].failures_max = 1;
  dependencies[0].check = [&](const CheckRun& /*run*/) {
    ++begun;
    if (!hangs) return CheckResult{};
    look();
    clock->advance(1999ms);
    look();
    clock->advance(1ms);
    look();
    return CheckResult{};
  };
  monitor().step();
  const std::string last_time = detail("table:responseTime")["time"].string();
  hangs = true;
  advance(10s);
  EXPECT_EQ(seen, (std::vector<std::string>{"200 up pass", "200 up pass", "503 down fail"}));
  EXPECT_EQ(begun, 2);
  EXPECT_EQ(detail("table:responseTime")["output"].string(), "no result within 2000 ms")
      << "what comes too late changes nothing";
  EXPECT_NE(detail("table:responseTime")["time"].string(), last_time);
  hangs = false;
  advance(10s);
  EXPECT_EQ(monitor().state(), ServiceState::up);
}

// ---- With threads ----

HealthOptions threaded(std::vector<Dependency> dependencies) {
  return {.dependencies = std::move(dependencies)};
}
void wait_for(const HealthMonitor& monitor, ServiceState state) {
  while (monitor.state() != state) std::this_thread::yield();
}

TEST(HealthThreadsTest, ChecksRunSideBySide) {
  std::barrier all_there(3);
  const Check meets = [&](const CheckRun& /*run*/) {
    all_there.arrive_and_wait();
    return CheckResult{};
  };
  HealthMonitor monitor(threaded({{.name = "a", .check = meets, .interval = 1h, .timeout = 1h},
                                  {.name = "b", .check = meets, .interval = 1h, .timeout = 1h},
                                  {.name = "c", .check = meets, .interval = 1h, .timeout = 1h}}));
  wait_for(monitor, ServiceState::up);
}

TEST(HealthThreadsTest, WhatHangsFailsIsNotBegunAgainAndRecovers) {
  std::atomic<int> under_way{0};
  std::atomic<int> most{0};
  std::atomic<bool> hangs{false};
  std::promise<void> release;
  const std::shared_future<void> released = release.get_future().share();
  const Check check = [&](const CheckRun& /*run*/) {
    most = std::max(most.load(), ++under_way);
    if (hangs) released.wait();
    --under_way;
    return CheckResult{};
  };
  HealthMonitor monitor(
      threaded({{.name = "stuck", .check = check, .interval = 10ms, .timeout = 20ms},
                {.name = "other",
                 .check = [](const CheckRun& /*run*/) { return CheckResult{}; },
                 .interval = 10ms,
                 .timeout = 1h}}));
  wait_for(monitor, ServiceState::up);
  hangs = true;
  wait_for(monitor, ServiceState::down);
  const auto answer = monitor.answer(HealthEndpoint::detail, std::chrono::steady_clock::now());
  const Json detail(answer->body);
  EXPECT_EQ(detail["checks"]["stuck:responseTime"][0]["output"].string(), "no result within 20 ms");
  EXPECT_EQ(detail["checks"]["other:responseTime"][0]["status"].string(), "pass");
  hangs = false;
  release.set_value();
  wait_for(monitor, ServiceState::up);
  EXPECT_EQ(most, 1);
}

TEST(HealthThreadsTest, AnswersMayBeAskedForWhileTheyChange) {
  std::atomic<int> turn{0};
  HealthMonitor monitor(threaded({{.name = "flaps",
                                   .check =
                                       [&](const CheckRun& /*run*/) {
                                         return ++turn % 2 == 0 ? CheckResult{}
                                                                : CheckResult::warn("odd");
                                       },
                                   .interval = 10ms}}));
  std::vector<std::thread> askers;
  for (int i = 0; i < 2; ++i) {
    askers.emplace_back([&] {
      while (turn < 10) {
        const auto answer =
            monitor.answer(HealthEndpoint::detail, std::chrono::steady_clock::now());
        EXPECT_TRUE(answer->body.starts_with("{\"status\":\"")) << answer->body;
      }
    });
  }
  for (std::thread& asker : askers) asker.join();
}

TEST(HealthThreadsTest, AForkedChildCanLetItGo) {
  auto monitor = std::make_unique<HealthMonitor>(
      threaded({{.name = "a", .check = [](const CheckRun& /*run*/) { return CheckResult{}; }}}));
  wait_for(*monitor, ServiceState::up);
  EXPECT_EQ(testing::exit_status_of_child([&] {
              monitor.reset();
              return 17;
            }),
            17);
}

// ---- In a chain ----

class HealthEndpointsTest : public ::testing::Test {
 protected:
  struct Answer {
    int status;
    std::string type;
    std::string body;
  };
  Answer ask(const HealthEndpoints& endpoints, std::string_view path,
             std::string_view method = "GET", std::string_view peer = "203.0.113.9",
             std::vector<HeaderField> fields = {}) {
    const Chain chain(routes, endpoints);
    const std::span<const HeaderField> list(fields);
    auto exchange = chain.begin(
        {.method = method, .path = path, .peer_address = peer, .headers = headers_of(list)});
    const Reply& reply = exchange.reply();
    const Answer answer{reply.status, std::string(reply.content_type), std::string(reply.body)};
    exchange.finish({.status = reply.status});
    return answer;
  }
  const Routes routes{{"GET", "/orders/{id}"}};
  HealthMonitor monitor{{.threads = false}};
};

TEST_F(HealthEndpointsTest, AnswersItsPathsAndNothingElse) {
  const HealthEndpoints endpoints(monitor);
  for (const std::string_view path : {"/live", "/ready", "/health"}) {
    const Answer answer = ask(endpoints, path);
    EXPECT_EQ(answer.status, 200) << path;
    EXPECT_EQ(answer.type, "application/health+json");
    EXPECT_EQ(answer.body, R"({"status":"pass"})");
  }
  EXPECT_EQ(ask(endpoints, "/orders/17").status, 0) << "the handler's";
  EXPECT_EQ(ask(endpoints, "/health/").status, 0);
  EXPECT_EQ(ask(endpoints, "/health", "POST").status, 405);
  EXPECT_EQ(ask(endpoints, "/health", "HEAD").status, 200) << "the adapter sends no body";
}

TEST_F(HealthEndpointsTest, DetailsAreForNobodyUnlessAllowed) {
  EXPECT_EQ(ask(HealthEndpoints(monitor), "/health/detail").status, 403);
  const HealthEndpoints inside(monitor, {.detail_allowed = from_networks({"10.0.0.0/8", "::1"})});
  EXPECT_EQ(ask(inside, "/health/detail", "GET", "10.1.2.3").status, 200);
  EXPECT_EQ(ask(inside, "/health/detail", "GET", "11.1.2.3").status, 403);
  EXPECT_EQ(ask(inside, "/health/detail", "GET", "").status, 403);
  const HealthEndpoints secret(
      monitor, {.detail_allowed = with_secret("X-Health-Secret", "0123456789abcdef")});
  const auto with = [&](std::string_view value) {
    return ask(secret, "/health/detail", "GET", "", {{"x-health-secret", value}}).status;
  };
  EXPECT_EQ(with("0123456789abcdef"), 200);
  EXPECT_EQ(with("0123456789abcdeF"), 403);
  EXPECT_EQ(with(""), 403);
  EXPECT_EQ(ask(secret, "/health/detail").status, 403);
}

TEST_F(HealthEndpointsTest, RefusesWhatCannotWork) {
  EXPECT_THROW(from_networks({"10.0.0.0/99"}), std::invalid_argument);
  EXPECT_THROW(with_secret("X", "short"), std::invalid_argument);
  EXPECT_THROW(HealthEndpoints(monitor, {.live = "live"}), std::invalid_argument);
}

TEST_F(HealthEndpointsTest, AnAnswerOutlivesTheOnesBehindIt) {
  const HealthEndpoints endpoints(monitor);
  const Chain chain(routes, endpoints);
  auto exchange = chain.begin({.method = "GET", .path = "/ready"});
  monitor.begin_draining();
  monitor.step();
  EXPECT_EQ(exchange.reply().body, R"({"status":"pass"})");
  exchange.finish({.status = 200});
}

}  // namespace
}  // namespace spillway::middleware
