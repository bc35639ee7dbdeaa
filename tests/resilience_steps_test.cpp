// SPDX-License-Identifier: Apache-2.0
//
// Circuit breaker, bulkhead, deadline and load shedding as steps of a chain: what a client is told, what
// each decision leaves behind, and that a permit is given back however a request ends.
#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <support/child_process.hpp>
#include <support/engine_fixture.hpp>
#include <support/sent.hpp>
#include <support/temporary_file.hpp>

#include <spillway/middleware/chain.hpp>
#include <spillway/middleware/observability.hpp>
#include <spillway/middleware/resilience/breaker_step.hpp>
#include <spillway/middleware/resilience/bulkhead_step.hpp>
#include <spillway/middleware/resilience/deadline_step.hpp>
#include <spillway/middleware/resilience/load_shedding_step.hpp>

namespace spillway::middleware {
namespace {

using namespace std::chrono_literals;
using testing::Json;

/// A step behind the others that refuses.
struct Refusing {
  struct State {};
  Verdict before(State& /*state*/, Exchange& exchange) {
    return refuse ? exchange.refuse(503, "not now", "test: no") : Verdict::proceed;
  }
  bool refuse = true;
};

class StepsTest : public ::testing::Test {
 protected:
  struct Incoming {
    std::vector<HeaderField> fields{};
    std::string_view target = "/orders/17";
    std::span<const HeaderField> list{};

    RequestView view() {
      list = fields;
      RequestView view{.method = "GET", .headers = headers_of(list)};
      view.target(target);
      return view;
    }
  };
  static std::string header(const Exchange& exchange, std::string_view name) {
    for (const HeaderField& field : exchange.headers()) {
      if (field.name == name) return std::string(field.value);
    }
    return "none";
  }

  testing::AwsEnvironment environment;
  testing::TestEngine test{testing::aws_config()};
  const Routes routes{{"GET", "/orders/{id}"}, {"GET", "/pay"}, {"POST", "/pay"}};
  Observability observability{test.engine, routes};
  SteadyTime now{1000s};
};

// ---- BreakerStep ----

class BreakerStepTest : public StepsTest {
 protected:
  static BreakerStepOptions options() {
    BreakerStepOptions options;
    options.breaker.calls_min = 4;
    options.breaker.open_jitter = 0;
    options.breaker.open_time = 2500ms;
    options.breaker.probes = 1;
    return options;
  }
  /// One request through observability and breaker; the status that went out.
  int serve(BreakerStep& step, int status, std::string_view target = "/orders/17",
            std::chrono::nanoseconds took = 1ms) {
    const Chain chain(routes, observability, step);
    Incoming request{{}, target};
    auto exchange = chain.begin(request.view(), now);
    const int sent = exchange.has_reply() ? exchange.reply().status : status;
    if (!exchange.has_reply()) exchange.respond({.status = status});
    retry_after = header(exchange, "Retry-After");
    exchange.finish({.status = sent}, now + took);
    return sent;
  }

  std::string retry_after;
};

TEST_F(BreakerStepTest, WhatFailsTooOftenIsRefusedUntilAProbeSucceeds) {
  BreakerStep step(test.engine, routes, options());
  for (int i = 0; i < 4; ++i) EXPECT_EQ(serve(step, 500), 500);
  EXPECT_EQ(serve(step, 200), 503);
  EXPECT_EQ(retry_after, "3") << "2.499 s, rounded up";
  now += 3s;
  EXPECT_EQ(serve(step, 200), 200);
  EXPECT_EQ(serve(step, 200), 200);

  const testing::Sent all = testing::sent(test);
  EXPECT_EQ(all.sum("CircuitBreakerDecisions|GET /orders/{id}|admitted"), 6);
  EXPECT_EQ(all.sum("CircuitBreakerDecisions|GET /orders/{id}|open"), 1);
  EXPECT_EQ(all.sum("CircuitBreakerChanges|GET /orders/{id}|open"), 1);
  EXPECT_EQ(all.sum("CircuitBreakerChanges|GET /orders/{id}|half_open"), 1);
  EXPECT_EQ(all.sum("CircuitBreakerChanges|GET /orders/{id}|closed"), 1);
  std::vector<Json> changes;
  std::vector<Json> requests;
  for (const Json& log : all.logs)
    (log["message"].string() == "request" ? requests : changes).push_back(log);
  ASSERT_EQ(requests.size(), 7U);
  ASSERT_EQ(changes.size(), 3U) << "logs at changes of the state only";
  EXPECT_EQ(changes[0]["message"].string(), "circuit breaker opened");
  EXPECT_EQ(changes[0]["level"].string(), "WARN");
  EXPECT_EQ(changes[0]["dependency"].string(), "GET /orders/{id}");
  EXPECT_EQ(changes[0]["reason"].string(), "failure_rate");
  EXPECT_EQ(changes[0]["failed"].number(), 4);
  EXPECT_EQ(changes[0]["open_for_ms"].number(), 2500);
  EXPECT_EQ(changes[0]["trace_id"].string(), requests[3]["trace_id"].string())
      << "of the request that was one too many";
  EXPECT_EQ(requests[4]["decision"].string(), "circuit breaker: open");
  EXPECT_EQ(changes[1]["message"].string(), "circuit breaker probes");
  EXPECT_EQ(changes[1]["trace_id"].string(), requests[5]["trace_id"].string());
  EXPECT_EQ(changes[2]["message"].string(), "circuit breaker closed");
}

TEST_F(BreakerStepTest, OnlySoManyProbesAtATime) {
  BreakerStep step(test.engine, routes, options());
  for (int i = 0; i < 4; ++i) serve(step, 500);
  now += 3s;
  const Chain chain(routes, observability, step);
  Incoming request;
  {
    const auto probe = chain.begin(request.view(), now);
    EXPECT_FALSE(probe.has_reply());
    const auto other = chain.begin(request.view(), now);
    EXPECT_EQ(other.reply().status, 503);
    EXPECT_EQ(other.decision, "circuit breaker: probing");
    EXPECT_EQ(header(other, "Retry-After"), "1");
  }  // The probe was cancelled: no result, its permit goes to the next.
  EXPECT_EQ(step.breaker(routes.match("GET", "/orders/1"))->state(), BreakerState::half_open);
  EXPECT_EQ(serve(step, 200), 200);
}

TEST_F(BreakerStepTest, RoutesOfOneDependencyShareABreakerAndOthersHaveNone) {
  BreakerStepOptions by_name = options();
  by_name.dependency = [](const Route& route) {
    return route.path_template == "/pay" ? "payments" : "";
  };
  BreakerStep step(test.engine, routes, by_name);
  EXPECT_EQ(step.breaker(routes.match("GET", "/pay")), step.breaker(routes.match("POST", "/pay")));
  EXPECT_EQ(step.breaker(routes.match("GET", "/orders/1")), nullptr);
  for (int i = 0; i < 4; ++i) serve(step, 500, "/pay");
  EXPECT_EQ(serve(step, 200, "/pay"), 503);
  EXPECT_EQ(serve(step, 500), 500);
  BreakerStep each(test.engine, routes, options());
  EXPECT_NE(each.breaker(routes.match("GET", "/pay")), each.breaker(routes.match("POST", "/pay")));
  EXPECT_EQ(each.breaker(routes.unmatched()), nullptr) << "strangers' paths have no breaker";
}

TEST_F(BreakerStepTest, SlowAnswersCountAndTheClientsMistakesDoNot) {
  BreakerStepOptions slow = options();
  slow.breaker.slow_call = 1000ms;
  BreakerStep step(test.engine, routes, slow);
  for (int i = 0; i < 9; ++i) EXPECT_EQ(serve(step, 404), 404);
  EXPECT_EQ(step.breaker(routes.match("GET", "/orders/1"))->counts().failed, 0U);
  BreakerStep other(test.engine, routes, slow);
  for (int i = 0; i < 4; ++i) serve(other, 200, "/orders/17", 1s);
  EXPECT_EQ(serve(other, 200), 503);
}

TEST_F(BreakerStepTest, RefusalsBehindItCancelledRequestsAndShortDeadlinesAreNoFailures) {
  BreakerStep step(test.engine, routes, options());
  Refusing refusing;
  const Chain chain(routes, step, refusing);
  Incoming request;
  for (int i = 0; i < 9; ++i) chain.begin(request.view(), now).finish({.status = 503}, now);
  refusing.refuse = false;
  for (int i = 0; i < 9; ++i) static_cast<void>(chain.begin(request.view(), now));
  for (int i = 0; i < 9; ++i) {
    auto exchange = chain.begin(request.view(), now);
    exchange.deadline = now + 1ms;
    exchange.deadline_is_callers = true;
    exchange.respond({.status = 504});
    exchange.finish({.status = 504}, now + 2ms);
  }
  CircuitBreaker& breaker = *step.breaker(routes.match("GET", "/orders/1"));
  EXPECT_EQ(breaker.counts().calls, 0U);
  EXPECT_EQ(breaker.state(), BreakerState::closed);
  for (int i = 0; i < 4; ++i) {
    auto exchange = chain.begin(request.view(), now);
    exchange.guard([] { throw std::runtime_error("database"); });
    exchange.finish({.status = exchange.reply().status}, now);
  }
  EXPECT_EQ(breaker.state(), BreakerState::open) << "exceptions are";
}

TEST_F(BreakerStepTest, TheHandlersOwnStatusCountsNotWhatStepsAroundMadeOfIt) {
  BreakerStep step(test.engine, routes, options());
  const Chain chain(routes, step);
  Incoming request;
  for (int i = 0; i < 9; ++i) {
    auto exchange = chain.begin(request.view(), now);
    exchange.respond({.status = 200});
    exchange.finish({.status = 504}, now);
  }
  EXPECT_EQ(step.breaker(routes.match("GET", "/orders/1"))->counts().failed, 0U);
}

TEST_F(BreakerStepTest, TheUsersOwnCallbackHearsToo) {
  BreakerStepOptions heard = options();
  int changes = 0;
  heard.breaker.on_change = [&](const BreakerChange&) { ++changes; };
  BreakerStep step(test.engine, routes, heard);
  for (int i = 0; i < 4; ++i) serve(step, 500);
  EXPECT_EQ(changes, 1);
  heard.breaker.calls_min = 0;
  EXPECT_THROW(BreakerStep(test.engine, routes, heard), std::invalid_argument);
}

// ---- BulkheadStep ----

class BulkheadStepTest : public StepsTest {
 protected:
  static BulkheadStepOptions two_with_one_each() {
    BulkheadStepOptions options;
    options.bulkhead.concurrency_max = 2;
    options.bulkhead.concurrency_per_tenant_max = 1;
    return options;
  }
  static Incoming of(std::string_view tenant) { return {{{"X-Tenant-ID", tenant}}}; }
};

TEST_F(BulkheadStepTest, ATenantThatHasItsShareIsToldSoAndSoIsEverybodyWhenItIsFull) {
  BulkheadStep step(test.engine, two_with_one_each());
  const Chain chain(routes, observability, step);
  {
    Incoming acme = of("acme");
    Incoming other = of("other");
    Incoming third = of("third");
    auto first = chain.begin(acme.view(), now);
    EXPECT_FALSE(first.has_reply());
    auto again = chain.begin(acme.view(), now);
    EXPECT_EQ(again.reply().status, 429);
    EXPECT_EQ(again.decision, "bulkhead: tenant_full");
    EXPECT_EQ(header(again, "Retry-After"), "1");
    again.finish({.status = 429}, now);
    const auto second = chain.begin(other.view(), now);
    EXPECT_FALSE(second.has_reply());
    auto full = chain.begin(third.view(), now);
    EXPECT_EQ(full.reply().status, 503);
    EXPECT_EQ(full.decision, "bulkhead: full");
    full.finish({.status = 503}, now);
    EXPECT_EQ(step.bulkhead().in_flight(), 2U);
    first.finish({.status = 200}, now);
    EXPECT_EQ(step.bulkhead().in_flight(), 1U) << "given back with the response";
    EXPECT_FALSE(chain.begin(acme.view(), now).has_reply());
  }
  EXPECT_EQ(step.bulkhead().in_flight(), 0U) << "and by requests that were cancelled";
  const testing::Sent all = testing::sent(test);
  EXPECT_EQ(all.sum("BulkheadDecisions|admitted"), 3);
  EXPECT_EQ(all.sum("BulkheadDecisions|tenant_full"), 1);
  EXPECT_EQ(all.sum("BulkheadDecisions|full"), 1);
  int told = 0;
  for (const Json& log : all.logs) {
    if (log["message"].string() != "bulkhead refuses requests") continue;
    ++told;
    EXPECT_EQ(log["reason"].string(), "tenant_full");
    EXPECT_EQ(log["tenant"].string(), "acme");
    EXPECT_TRUE(std::any_of(all.segments.begin(), all.segments.end(), [&](const Json& segment) {
      return segment["trace_id"].string() == log["trace_id"].string() && segment.has("throttle");
    }));
  }
  EXPECT_EQ(told, 1) << "when it begins, not at each refusal";
}

TEST_F(BulkheadStepTest, ThatItAdmitsAllAgainIsSaidWhenItLasts) {
  BulkheadStep step(test.engine, two_with_one_each());
  const Chain chain(routes, observability, step);
  Incoming acme = of("acme");
  const auto times = [&](const std::string& message) {
    const testing::Sent all = testing::sent(test);
    return std::count_if(all.logs.begin(), all.logs.end(),
                         [&](const Json& log) { return log["message"].string() == message; });
  };
  {
    const auto first = chain.begin(acme.view(), now);
    static_cast<void>(chain.begin(acme.view(), now));
  }
  now += BulkheadStep::calm_after - 1s;
  static_cast<void>(chain.begin(acme.view(), now));
  EXPECT_EQ(times("bulkhead admits all requests again"), 0);
  now += 1s;
  static_cast<void>(chain.begin(acme.view(), now));
  static_cast<void>(chain.begin(acme.view(), now));
  EXPECT_EQ(times("bulkhead admits all requests again"), 1);
}

TEST_F(BulkheadStepTest, AThreadMayWaitForItsTurn) {
  BulkheadStepOptions options = two_with_one_each();
  options.wait_on_thread = true;
  options.bulkhead.wait_max = 60s;
  BulkheadStep step(test.engine, options);
  const Chain chain(routes, observability, step);
  Incoming acme = of("acme");
  const RequestView view = acme.view();
  auto first = chain.begin(view);
  std::thread second([&] {
    const auto waits = chain.begin(view);
    EXPECT_FALSE(waits.has_reply());
  });
  while (step.bulkhead().waiting() == 0) std::this_thread::yield();
  first.finish({.status = 200});
  second.join();
  EXPECT_EQ(step.bulkhead().in_flight(), 0U);
  EXPECT_EQ(testing::sent(test).sum("BulkheadDecisions|waited"), 1);
}

TEST_F(BulkheadStepTest, WhoseDeadlineIsOverDoesNotWait) {
  BulkheadStepOptions options = two_with_one_each();
  options.wait_on_thread = true;
  options.bulkhead.wait_max = 60s;
  BulkheadStep step(test.engine, options);
  struct Deadline {
    struct State {};
    Verdict before(State& /*state*/, Exchange& exchange) {
      exchange.deadline = exchange.begun;
      return Verdict::proceed;
    }
  } at_once;
  const Chain chain(routes, at_once, step);
  Incoming request;
  const auto first = chain.begin(request.view(), now);
  EXPECT_EQ(chain.begin(request.view(), now).reply().status, 429);
}

// ---- BulkheadStep, waiting without a thread ----

/// An adapter's: counts the calls.
struct Resumes {
  std::atomic<int> calls{0};
  Resumer resumer() {
    return {[](void* object) noexcept { ++static_cast<Resumes*>(object)->calls; }, this};
  }
};

class BulkheadQueueTest : public BulkheadStepTest {
 protected:
  static BulkheadStepOptions one_at_a_time() {
    BulkheadStepOptions options;
    options.bulkhead.concurrency_max = 1;
    options.bulkhead.wait_max = 60s;
    options.wait_in_queue = true;
    return options;
  }
  RequestView waiting(Resumes& resumes) {
    RequestView view = request.view();
    view.resumer = resumes.resumer();
    return view;
  }

  BulkheadQueueTest() { now = std::chrono::steady_clock::now() + 1h; }  // Nobody's time is over.
  Incoming request;
  Resumes second_resumes;
  Resumes third_resumes;
};

TEST_F(BulkheadQueueTest, RequestsGoOnInTheOrderInWhichTheyCame) {
  BulkheadStep step(test.engine, one_at_a_time());
  const Chain chain(routes, observability, step);
  auto first = chain.begin(request.view(), now);
  auto second = chain.begin(waiting(second_resumes), now);
  auto third = chain.begin(waiting(third_resumes), now);
  EXPECT_FALSE(first.is_waiting());
  EXPECT_TRUE(second.is_waiting() && third.is_waiting());
  EXPECT_FALSE(second.has_reply() || second.ended_early());
  EXPECT_EQ(step.bulkhead().waiting(), 2U);
  first.finish({.status = 200}, now);
  EXPECT_EQ(second_resumes.calls, 1);
  EXPECT_EQ(third_resumes.calls, 0);
  second.resume();
  EXPECT_FALSE(second.is_waiting() || second.has_reply());
  second.respond({.status = 200});
  second.finish({.status = 200}, now);
  EXPECT_EQ(third_resumes.calls, 1);
  third.resume();
  EXPECT_FALSE(third.is_waiting() || third.has_reply());
  EXPECT_EQ(step.bulkhead().in_flight(), 1U);
  third.finish({.status = 200}, now);
  EXPECT_EQ(step.bulkhead().in_flight(), 0U);
  const testing::Sent all = testing::sent(test);
  EXPECT_EQ(all.sum("BulkheadDecisions|admitted"), 1);
  EXPECT_EQ(all.sum("BulkheadDecisions|waited"), 2);
}

TEST_F(BulkheadQueueTest, WhoseTimeIsOverIsRefused) {
  BulkheadStepOptions options = one_at_a_time();
  options.bulkhead.wait_max = 1ms;
  BulkheadStep step(test.engine, options);
  const Chain chain(routes, observability, step);
  const auto first = chain.begin(request.view());
  auto second = chain.begin(waiting(second_resumes));
  if (second.is_waiting()) {
    while (second_resumes.calls == 0) std::this_thread::yield();  // The step's own thread tells.
    second.resume();
  }
  EXPECT_FALSE(second.is_waiting());
  EXPECT_EQ(second.reply().status, 503);
  EXPECT_EQ(second.decision, "bulkhead: timed_out");
  EXPECT_TRUE(second.ended_early());
  EXPECT_EQ(header(second, "Retry-After"), "1");
  EXPECT_EQ(step.bulkhead().in_flight(), 1U);
}

TEST_F(BulkheadQueueTest, ARequestThatIsGivenUpLeavesTheQueueAndNoPermitIsLost) {
  BulkheadStep step(test.engine, one_at_a_time());
  const Chain chain(routes, observability, step);
  auto first = chain.begin(request.view(), now);
  {
    auto gone = chain.begin(waiting(second_resumes), now);
    EXPECT_TRUE(gone.is_waiting());
  }
  EXPECT_EQ(step.bulkhead().waiting(), 0U);
  {
    auto told = chain.begin(waiting(third_resumes), now);
    first.finish({.status = 200}, now);
    EXPECT_EQ(third_resumes.calls, 1);
    EXPECT_EQ(step.bulkhead().in_flight(), 1U) << "its own, though it has not looked yet";
  }
  EXPECT_EQ(second_resumes.calls, 0);
  EXPECT_EQ(step.bulkhead().in_flight(), 0U);
  const testing::Sent all = testing::sent(test);
  int cancelled = 0;
  for (const Json& log : all.logs)
    cancelled += log["message"].string() == "request" && log["status"].number() == 499;
  EXPECT_EQ(cancelled, 2);
}

TEST_F(BulkheadQueueTest, APermitThatComesTooLateIsForSomebodyElse) {
  BulkheadStep step(test.engine, one_at_a_time());
  const Chain chain(routes, step);
  const auto granted_after = [&](auto&& change) {
    Resumes resumes;
    auto first = chain.begin(request.view(), now);
    auto second = chain.begin(waiting(resumes), now);
    EXPECT_TRUE(second.is_waiting());
    change(second);
    first.finish({.status = 200}, now);
    EXPECT_EQ(resumes.calls, 1);
    second.resume();
    EXPECT_EQ(second.decision, "bulkhead: timed_out");
    EXPECT_TRUE(second.has_reply() && second.ended_early());
    EXPECT_EQ(step.bulkhead().in_flight(), 0U);
  };
  granted_after([](Exchange& exchange) { exchange.cancel(); });
  granted_after([](Exchange& exchange) { exchange.deadline = SteadyTime{}; });
}

TEST_F(BulkheadQueueTest, WhoEndsWhileWaitingGivesThePlaceBackAtOnce) {
  BulkheadStep step(test.engine, one_at_a_time());
  const Chain chain(routes, step);
  auto first = chain.begin(request.view(), now);
  auto second = chain.begin(waiting(second_resumes), now);
  second.finish({.status = 499}, now);
  EXPECT_EQ(step.bulkhead().waiting(), 0U);
  EXPECT_TRUE(second.ended_early());
  auto third = chain.begin(waiting(third_resumes), now);
  first.finish({.status = 200}, now);
  third.finish({.status = 499}, now);
  EXPECT_EQ(step.bulkhead().in_flight(), 0U) << "granted meanwhile";
  EXPECT_EQ(second_resumes.calls, 0);
}

TEST_F(BulkheadQueueTest, AForkedChildHasNobodyToTellAndRefusesAtOnce) {
  BulkheadStep step(test.engine, one_at_a_time());
  const Chain chain(routes, step);
  const auto first = chain.begin(request.view(), now);
  EXPECT_EQ(testing::exit_status_of_child([&] {
              const auto second = chain.begin(waiting(second_resumes), now);
              return second.is_waiting() || second.decision != "bulkhead: full" ? 1 : 0;
            }),
            0);
}

TEST_F(BulkheadQueueTest, WhoCannotWaitAndWhoFindsTheQueueFullIsRefusedAtOnce) {
  BulkheadStepOptions options = one_at_a_time();
  options.bulkhead.queue_max = 1;
  BulkheadStep step(test.engine, options);
  const Chain chain(routes, step);
  const auto first = chain.begin(request.view(), now);
  const auto plain = chain.begin(request.view(), now);
  EXPECT_EQ(plain.decision, "bulkhead: full");
  const auto second = chain.begin(waiting(second_resumes), now);
  EXPECT_TRUE(second.is_waiting());
  const auto third = chain.begin(waiting(third_resumes), now);
  EXPECT_EQ(third.decision, "bulkhead: queue_full");
  EXPECT_FALSE(third.is_waiting());
}

TEST_F(BulkheadQueueTest, TheStepsBehindComeAfterTheWait) {
  BulkheadStep step(test.engine, one_at_a_time());
  struct Counting {
    struct State {};
    Verdict before(State& /*state*/, Exchange& /*exchange*/) {
      ++begun;
      if (throws) throw std::runtime_error("no");
      return Verdict::proceed;
    }
    void after(State& /*state*/, const Exchange& /*exchange*/,
               const ResponseFacts& /*facts*/) noexcept {
      ++ended;
    }
    bool throws = false;
    int begun = 0;
    int ended = 0;
  } behind;
  const Chain chain(routes, step, behind);
  auto first = chain.begin(request.view(), now);
  auto second = chain.begin(waiting(second_resumes), now);
  EXPECT_EQ(behind.begun, 1);
  first.finish({.status = 200}, now);
  second.resume();
  EXPECT_EQ(behind.begun, 2);
  second.resume();
  EXPECT_EQ(behind.begun, 2) << "nothing waits any more";
  auto third = chain.begin(waiting(third_resumes), now);
  behind.throws = true;
  second.finish({.status = 200}, now);
  third.resume();
  EXPECT_EQ(third.reply().status, 500);
  third.finish({.status = 500}, now);
  EXPECT_EQ(behind.ended, 2);
  EXPECT_EQ(step.bulkhead().in_flight(), 0U);
}

// Requests that come, wait, give up and go on several threads: in the end every permit is back.
TEST_F(BulkheadQueueTest, NoPermitIsLostWhateverMeetsWhat) {
  BulkheadStepOptions options;
  options.bulkhead.concurrency_max = 2;
  options.bulkhead.concurrency_per_tenant_max = 1;
  options.bulkhead.wait_max = 1ms;
  options.wait_in_queue = true;
  BulkheadStep step(test.engine, options);
  const Chain chain(routes, observability, step);
  std::vector<std::thread> threads;
  for (const std::string_view tenant : {"acme", "acme", "other", "third"}) {
    threads.emplace_back([&, tenant] {
      for (int i = 0; i < 2000; ++i) {
        Incoming incoming = of(tenant);
        Resumes resumes;
        RequestView view = incoming.view();
        view.resumer = resumes.resumer();
        auto exchange = chain.begin(view);
        if (exchange.is_waiting() && i % 3 == 0) continue;  // Given up.
        while (exchange.is_waiting()) {
          while (resumes.calls == 0) std::this_thread::yield();
          exchange.resume();
        }
        if (i % 5 == 0) continue;
        exchange.finish({.status = exchange.has_reply() ? exchange.reply().status : 200});
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(step.bulkhead().in_flight(), 0U);
  EXPECT_EQ(step.bulkhead().waiting(), 0U);
}

// ---- DeadlineStep ----

class DeadlineStepTest : public StepsTest {
 protected:
  DeadlineStepTest() { options.clock = clock; }

  const std::shared_ptr<testing::ManualClock> clock = std::make_shared<testing::ManualClock>();
  DeadlineOptions options;
};

TEST_F(DeadlineStepTest, TheServersTimeOutIsByRoute) {
  options.timeout = 5s;
  options.routes = {{"GET /pay", 60s}, {"POST /pay", 0s}};
  DeadlineStep step(test.engine, routes, options);
  const Chain chain(routes, step);
  const auto deadline_of = [&](const Route& route) {
    RequestView view{.method = "GET", .route = &route};
    return chain.begin(view, now).deadline;
  };
  EXPECT_EQ(deadline_of(routes.match("GET", "/orders/1")), now + 5s);
  EXPECT_EQ(deadline_of(routes.unmatched()), now + 5s);
  EXPECT_EQ(deadline_of(routes.match("GET", "/pay")), now + 60s);
  EXPECT_EQ(deadline_of(routes.match("POST", "/pay")), SteadyTime::max());
}

TEST_F(DeadlineStepTest, ACallerMayShortenIt) {
  options.timeout = 5s;
  DeadlineStep step(test.engine, routes, options);
  const Chain chain(routes, step);
  const auto granted = [&](std::string_view text) {
    Incoming request{{{"x-request-timeout", text}}};
    const auto exchange = chain.begin(request.view(), now);
    EXPECT_EQ(exchange.deadline_is_callers, exchange.deadline < now + 5s);
    return exchange.deadline - now;
  };
  EXPECT_EQ(granted("1500m"), 1500ms);
  EXPECT_EQ(granted("1H"), 5s);
  EXPECT_EQ(granted("99999999H"), 5s);
  options.accept = false;
  DeadlineStep deaf(test.engine, routes, options);
  Incoming request{{{"X-Request-Timeout", "1m"}}};
  EXPECT_EQ(Chain(routes, deaf).begin(request.view(), now).deadline, now + 5s);
}

TEST_F(DeadlineStepTest, ATimeOutThatIsNoneIsRefused) {
  DeadlineStep step(test.engine, routes, options);
  const Chain chain(routes, observability, step);
  for (const std::string_view text : {"soon", "5", "-1S", "5 S", "1.5S", "999999999S"}) {
    Incoming request{{{"X-Request-Timeout", text}}};
    auto exchange = chain.begin(request.view(), now);
    EXPECT_EQ(exchange.reply().status, 400) << text;
    EXPECT_NE(Json(exchange.reply().body)["detail"].string().find("1500m"), std::string::npos);
    exchange.finish({.status = 400}, now);
  }
  const testing::Sent all = testing::sent(test);
  EXPECT_EQ(all.sum("DeadlineDecisions|malformed"), 6);
  EXPECT_EQ(all.logs.at(0)["decision"].string(), "deadline: malformed");
}

TEST_F(DeadlineStepTest, WhatCannotBeReadyInTimeIsNotBegun) {
  options.useful_min = 10ms;
  DeadlineStep step(test.engine, routes, options);
  const Chain chain(routes, step);
  const auto status = [&](std::string_view text) {
    Incoming request{{{"X-Request-Timeout", text}}};
    const auto exchange = chain.begin(request.view(), now);
    if (exchange.has_reply()) {
      EXPECT_EQ(header(exchange, "Retry-After"), "1");
    }
    return exchange.reply().status;
  };
  EXPECT_EQ(status("0S"), 503);
  EXPECT_EQ(status("9m"), 503);
  EXPECT_EQ(status("10m"), 0);
  EXPECT_EQ(testing::sent(test).sum("DeadlineDecisions|not_begun"), 2);
}

TEST_F(DeadlineStepTest, WhatIsLateIsAnsweredSo) {
  options.timeout = 1s;
  DeadlineStep step(test.engine, routes, options);
  const Chain chain(routes, observability, step);
  Incoming request;
  const auto serve = [&](std::chrono::nanoseconds took) {
    auto exchange = chain.begin(request.view(), clock->steady());
    EXPECT_FALSE(exchange.should_stop(clock->steady()));
    clock->advance(took);
    exchange.respond({.status = 200});
    const int status = exchange.has_reply() ? exchange.reply().status : 200;
    exchange.finish({.status = status}, clock->steady());
    return status;
  };
  EXPECT_EQ(serve(999ms), 200);
  EXPECT_EQ(serve(1s), 504);
  {
    auto exchange = chain.begin(request.view(), clock->steady());
    clock->advance(2s);
    EXPECT_TRUE(exchange.should_stop(clock->steady()));
    exchange.guard([] { throw HttpError(504, "gave up"); });
    exchange.finish({.status = 504}, clock->steady());
  }
  const testing::Sent all = testing::sent(test);
  EXPECT_EQ(all.sum("DeadlineDecisions|late"), 2);
  EXPECT_EQ(all.logs.at(1)["decision"].string(), "deadline: late");
  EXPECT_EQ(all.logs.at(1)["status"].number(), 504);
}

TEST_F(DeadlineStepTest, ALateAnswerCanBeLeft) {
  options.timeout = 1s;
  options.replace_late = false;
  DeadlineStep step(test.engine, routes, options);
  const Chain chain(routes, step);
  Incoming request;
  auto exchange = chain.begin(request.view(), clock->steady());
  clock->advance(2s);
  exchange.respond({.status = 200});
  EXPECT_FALSE(exchange.has_reply());
  exchange.finish({.status = 200}, clock->steady());
  EXPECT_EQ(testing::sent(test).sum("DeadlineDecisions|late"), 1);
}

TEST_F(DeadlineStepTest, ALambdaEndsBeforeItsInvocation) {
  options.lambda = true;
  const auto wall_ms =
      std::chrono::floor<std::chrono::milliseconds>(clock->wall().time_since_epoch()).count();
  const std::string end = std::to_string(wall_ms + 3000);
  const auto deadline = [&] {
    DeadlineStep step(test.engine, routes, options);
    Incoming request{{{"Lambda-Runtime-Deadline-Ms", end}}};
    return Chain(routes, step).begin(request.view(), now).deadline;
  };
  EXPECT_EQ(deadline(), now + 2800ms);
  options.lambda = false;
  EXPECT_EQ(deadline(), now + 30s) << "a header that anybody can send";
}

TEST_F(DeadlineStepTest, WhatIsLeftGoesDownstream) {
  options.timeout = 1s;
  DeadlineStep step(test.engine, routes, options);
  Incoming request;
  const Chain chain(routes, step);
  const Chain<> none(routes);
  const auto exchange = chain.begin(request.view(), now);
  EXPECT_EQ(parse_timeout(downstream_timeout(exchange, now + 400ms)->view()), 600ms);
  EXPECT_EQ(parse_timeout(downstream_timeout(exchange, now + 400ms, 100ms)->view()), 500ms);
  EXPECT_EQ(parse_timeout(downstream_timeout(exchange, now + 2s, 100ms)->view()), 0ms);
  EXPECT_FALSE(downstream_timeout(none.begin(request.view(), now), now));
}

TEST_F(DeadlineStepTest, OptionsThatCannotWorkAreRefusedTogether) {
  options.timeout = -1ms;
  options.header = "";
  options.routes = {{"GET /nowhere", 1s}};
  try {
    DeadlineStep(test.engine, routes, options);
    FAIL();
  } catch (const std::invalid_argument& error) {
    const std::string what = error.what();
    for (const char* part : {"timeout (ms) = -1", "header is empty", "GET /nowhere"})
      EXPECT_NE(what.find(part), what.npos) << what;
  }
}

// ---- LoadSheddingStep; its limits are in load_shedder_test.cpp ----

TEST_F(StepsTest, WhatLoadSheddingDecidesIsCountedAndSaidWithItsReasonAndTrace) {
  const testing::TemporaryDirectory no_kernel_files;
  LoadSheddingOptions options;
  options.shedder.in_flight_min = options.shedder.in_flight_first = 2;
  options.shedder.in_flight_max = 2;
  options.shedder.root = no_kernel_files.path("");
  options.shedder.threads = false;
  LoadSheddingStep step(test.engine, routes, options);
  const Chain chain(routes, observability, step);
  Incoming request;
  {
    // The third is the first that is refused; the fourth is no news.
    auto first = chain.begin(request.view(), now);
    auto second = chain.begin(request.view(), now);
    for (int i = 0; i < 2; ++i) {
      auto refused = chain.begin(request.view(), now);
      ASSERT_EQ(refused.reply().status, 503);
      refused.finish({.status = 503}, now + 1ms);
    }
    second.finish({.status = 200}, now + 1ms);
    first.finish({.status = 200}, now + 1ms);
  }
  now += LoadSheddingStep::calm_after;
  chain.begin(request.view(), now).finish({.status = 200}, now + 1ms);

  const testing::Sent all = testing::sent(test);
  EXPECT_EQ(all.sum("LoadSheddingDecisions|admitted"), 3);
  EXPECT_EQ(all.sum("LoadSheddingDecisions|in_flight"), 2);
  for (const char* const other : {"queue_delay", "cpu_pressure", "cpu_throttled", "memory"})
    EXPECT_EQ(all.sum(std::string("LoadSheddingDecisions|") + other), 0) << other;
  const Json limits = all.metrics.at("InFlightLimit")["StatisticValues"];
  EXPECT_EQ(limits["Minimum"].number(), 2);
  EXPECT_EQ(limits["Maximum"].number(), 2);
  std::vector<Json> said;
  std::vector<Json> requests;
  for (const Json& log : all.logs)
    (log["message"].string() == "request" ? requests : said).push_back(log);
  ASSERT_EQ(requests.size(), 5U);
  ASSERT_EQ(said.size(), 2U) << "when it begins and when it is over";
  EXPECT_EQ(said[0]["message"].string(), "load shedding begins");
  EXPECT_EQ(said[0]["level"].string(), "WARN");
  EXPECT_EQ(said[0]["reason"].string(), "in_flight");
  EXPECT_EQ(said[0]["priority"].string(), "normal");
  EXPECT_EQ(said[0]["in_flight"].number(), 2);
  EXPECT_EQ(said[0]["limit"].number(), 2);
  for (const std::size_t refused : {0U, 1U}) {  // They end first.
    EXPECT_EQ(requests[refused]["status"].number(), 503);
    EXPECT_EQ(requests[refused]["decision"].string(), "load shedding: in_flight");
  }
  EXPECT_EQ(said[0]["trace_id"].string(), requests[0]["trace_id"].string())
      << "of the request that was one too many";
  EXPECT_EQ(said[1]["message"].string(), "load shedding is over");
  EXPECT_EQ(said[1]["level"].string(), "INFO");
  EXPECT_EQ(said[1]["trace_id"].string(), requests[4]["trace_id"].string());
  // What it decided stands in the trace, too.
  ASSERT_EQ(all.segments.size(), 5U);
  int refusals = 0;
  for (const Json& segment : all.segments) {
    if (!segment["annotations"].has("decision")) continue;
    ++refusals;
    EXPECT_EQ(segment["annotations"]["decision"].string(), "load shedding: in_flight");
    EXPECT_EQ(segment["http"]["response"]["status"].number(), 503);
  }
  EXPECT_EQ(refusals, 2);
}

}  // namespace
}  // namespace spillway::middleware
