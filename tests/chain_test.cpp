// SPDX-License-Identifier: Apache-2.0
//
// A chain of steps: which phases run, in which order, and what an end of every kind means to them.
#include <array>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <support/json.hpp>

#include <spillway/middleware/chain.hpp>

namespace spillway::middleware {
namespace {

using testing::Json;

// Writes down what is called with what.
struct Recorder {
  struct State {
    int begun = 0;
  };
  explicit Recorder(std::string its_name, std::vector<std::string>& to) : name(its_name), log(to) {}

  Verdict before(State& state, Exchange& exchange) {
    log.push_back(name + ".before");
    state.begun = 7;
    if (throws) throw std::runtime_error("step " + name);
    return refuse_with != 0 ? exchange.refuse(refuse_with, "no more") : Verdict::proceed;
  }
  void respond(State& state, Exchange& exchange, const ResponseFacts& facts) {
    EXPECT_EQ(state.begun, 7);
    log.push_back(name + ".respond " + std::to_string(facts.status));
    if (replaces && facts.status >= 400) exchange.refuse(facts.status, "replaced");
  }
  void after(State& state, const Exchange& /*exchange*/, const ResponseFacts& facts) noexcept {
    EXPECT_EQ(state.begun, 7);
    log.push_back(name + ".after " + std::to_string(facts.status));
    ending = facts.ending;
  }

  std::string name;
  std::vector<std::string>& log;
  int refuse_with = 0;
  bool throws = false;
  bool replaces = false;
  Ending ending = Ending::sent;
};

// Steps with one phase each.
struct OnlyBefore {
  struct State {};
  Verdict before(State& /*state*/, Exchange& exchange) {
    exchange.tenant = "acme";
    return Verdict::proceed;
  }
};
struct OnlyAfter {
  struct State {};
  void after(State& /*state*/, const Exchange& exchange, const ResponseFacts& /*facts*/) noexcept {
    tenant = exchange.tenant;
  }
  std::string tenant;
};

// Mistakes that the compiler finds.
struct NoPhase {
  struct State {};
};
struct AfterMayThrow {
  struct State {};
  void after(State&, const Exchange&, const ResponseFacts&);
};
struct BeforeOfAnotherShape {
  struct State {};
  Verdict before(State&, Exchange&, int);
  void after(State&, const Exchange&, const ResponseFacts&) noexcept;
};
static_assert(ChainStep<Recorder> && ChainStep<OnlyBefore> && ChainStep<OnlyAfter>);
static_assert(!ChainStep<NoPhase> && !ChainStep<AfterMayThrow> && !ChainStep<BeforeOfAnotherShape>);

class ChainTest : public ::testing::Test {
 protected:
  static RequestView view(std::string_view target = "/orders/17?page=2") {
    RequestView request{.method = "GET"};
    request.target(target);
    return request;
  }
  using Log = std::vector<std::string>;

  Log log;
  Recorder a{"a", log};
  Recorder b{"b", log};
  Recorder c{"c", log};
  const Routes routes{{"GET", "/orders/{id}"}};
  const Chain<Recorder, Recorder, Recorder> chain{routes, a, b, c};
};

TEST_F(ChainTest, PhasesRunInOrderAndBack) {
  auto exchange = chain.begin(view());
  EXPECT_FALSE(exchange.has_reply());
  exchange.respond({.status = 201});
  exchange.finish({.status = 201, .body_bytes = 4});
  exchange.finish({.status = 500});
  EXPECT_EQ(log, (Log{"a.before", "b.before", "c.before", "c.respond 201", "b.respond 201",
                      "a.respond 201", "c.after 201", "b.after 201", "a.after 201"}));
}

TEST_F(ChainTest, ASessionKeepsOneExchangeAtATime) {
  std::optional<Chain<Recorder, Recorder, Recorder>::Exchange> place;
  chain.begin(place, view()).finish({.status = 200});
  EXPECT_EQ(log.back(), "a.after 200");
  chain.begin(place, view());
  EXPECT_EQ(log.back(), "c.before");
  chain.begin(place, view());
  EXPECT_EQ(log[log.size() - 4], "a.after 499") << "the one before had no end";
}

TEST_F(ChainTest, TheRouteIsKnownToEveryStep) {
  EXPECT_EQ(chain.begin(view()).route.name, "GET /orders/{id}");
  EXPECT_EQ(chain.begin(view("/etc/passwd")).route.name, "(unmatched)");
  RequestView routed = view("/elsewhere");
  routed.route = &routes.all()[1];
  EXPECT_EQ(chain.begin(routed).route.name, "GET /orders/{id}");
  const Routes larger{{"GET", "/a"}, {"GET", "/b"}};
  routed.route = &larger.all()[2];
  EXPECT_EQ(chain.begin(routed).route.name, "(unmatched)") << "a step's table ends before it";
}

TEST_F(ChainTest, AReplyEndsTheWayInForTheStepsBehind) {
  b.refuse_with = 429;
  {
    auto exchange = chain.begin(view());
    ASSERT_TRUE(exchange.has_reply());
    EXPECT_EQ(exchange.reply().status, 429);
    exchange.finish({.status = 429});
  }
  EXPECT_EQ(log, (Log{"a.before", "b.before", "a.after 429"}));
}

TEST_F(ChainTest, AnExceptionOfAStepIsAReply) {
  b.throws = true;
  {
    auto exchange = chain.begin(view());
    ASSERT_TRUE(exchange.has_reply());
    EXPECT_EQ(exchange.reply().status, 500);
    EXPECT_EQ(exchange.exception().type, "std::runtime_error");
    EXPECT_EQ(exchange.exception().message, "step b");
    exchange.finish({.status = 500});
  }
  EXPECT_EQ(log, (Log{"a.before", "b.before", "a.after 500"}));
}

TEST_F(ChainTest, AnExceptionOfTheHandlerTellsTheClientNothing) {
  auto exchange = chain.begin(view());
  exchange.request_id = "r-1";
  try {
    throw std::out_of_range("account 4711 of \"acme\"");
  } catch (...) {
    exchange.fail(std::current_exception());
  }
  const Json body(exchange.reply().body);
  EXPECT_EQ(exchange.reply().content_type, "application/problem+json");
  EXPECT_EQ(body["type"].string(), "about:blank");
  EXPECT_EQ(body["title"].string(), "Internal Server Error");
  EXPECT_EQ(body["status"].number(), 500);
  EXPECT_EQ(body["request_id"].string(), "r-1");
  EXPECT_FALSE(body.has("detail"));
  EXPECT_EQ(exchange.exception().type, "std::out_of_range");
  EXPECT_EQ(exchange.exception().message, "account 4711 of \"acme\"");
  exchange.finish({.status = 500});
}

TEST_F(ChainTest, WhatIsNoStandardExceptionHasATypeAllTheSame) {
  const auto type_of = [&](const std::exception_ptr& exception) {
    auto exchange = chain.begin(view());
    exchange.fail(exception);
    return std::string(exchange.exception().type);
  };
  EXPECT_EQ(type_of(std::make_exception_ptr(5)), "int");
  EXPECT_EQ(type_of(nullptr), "unknown");
}

TEST_F(ChainTest, AGuardAnswersForAHandlerThatThrows) {
  auto exchange = chain.begin(view());
  int ran = 0;
  EXPECT_TRUE(exchange.guard([&] { ++ran; }));
  EXPECT_FALSE(exchange.has_reply());
  EXPECT_FALSE(exchange.guard([&] {
    ++ran;
    throw std::logic_error("no");
  }));
  EXPECT_EQ(ran, 2);
  EXPECT_EQ(exchange.reply().status, 500);
  EXPECT_EQ(exchange.exception().type, "std::logic_error");
}

TEST_F(ChainTest, AnHttpErrorSaysWhatTheClientIsTold) {
  const auto thrown = [&](const HttpError& error, auto look) {
    auto exchange = chain.begin(view());
    exchange.guard([&] { throw error; });
    look(exchange);
    exchange.finish({.status = exchange.reply().status});
  };
  thrown(HttpError(404, "no such order"), [](const Exchange& exchange) {
    EXPECT_EQ(exchange.reply().status, 404);
    EXPECT_EQ(Json(exchange.reply().body)["detail"].string(), "no such order");
    EXPECT_EQ(exchange.exception().type, "") << "an answer, no fault";
  });
  thrown(HttpError(503, "the shop is closed"), [](const Exchange& exchange) {
    EXPECT_EQ(exchange.reply().status, 503);
    EXPECT_EQ(Json(exchange.reply().body)["detail"].string(), "the shop is closed");
    EXPECT_EQ(exchange.exception().type, "spillway::middleware::HttpError");
    EXPECT_EQ(exchange.exception().message, "the shop is closed");
  });
  for (const int status : {399, 600, 0, -1, 200}) EXPECT_EQ(HttpError(status).status(), 500);
}

TEST_F(ChainTest, WhoeverAnswersEarlyIsTold) {
  b.refuse_with = 429;
  EXPECT_TRUE(chain.begin(view()).ended_early());
  b.refuse_with = 0;
  b.throws = true;
  EXPECT_TRUE(chain.begin(view()).ended_early());
  b.throws = false;
  auto exchange = chain.begin(view());
  exchange.guard([] { throw 1; });
  EXPECT_FALSE(exchange.ended_early()) << "the handler ran";
}

struct Waits {
  struct State {};
  Verdict before(State& /*state*/, Exchange& /*exchange*/) { return verdict; }
  Verdict verdict = Verdict::wait;
};
/// Counts who stands in its line.
struct Queues {
  struct State {
    State() = default;
    State(const State&) = delete;
    State& operator=(const State&) = delete;
    ~State() {
      if (line != nullptr) --*line;
    }
    int* line = nullptr;
  };
  Verdict before(State& state, Exchange& /*exchange*/) {
    state.line = &line;
    ++line;
    return Verdict::wait;
  }
  Verdict resumed(State& /*state*/, Exchange& /*exchange*/) { return Verdict::proceed; }
  int line = 0;
};

TEST_F(ChainTest, AWaitThatCannotEndIsNoWayPastTheStepsBehind) {
  RequestView request = view();
  Waits waits;
  Queues queues;
  const Chain of_one_that_never_goes_on(routes, waits, a);
  const Chain of_one_that_does(routes, queues, a);
  const auto is_refused = [](const auto& exchange) {
    return !exchange.is_waiting() && exchange.ended_early() && exchange.has_reply() &&
           exchange.reply().status == 500;
  };
  EXPECT_TRUE(is_refused(of_one_that_never_goes_on.begin(request)));
  EXPECT_TRUE(is_refused(of_one_that_does.begin(request))) << "no resumer";
  request.resumer.call = [](void* /*object*/) noexcept {};
  EXPECT_TRUE(is_refused(of_one_that_never_goes_on.begin(request)));
  EXPECT_TRUE(of_one_that_does.begin(request).is_waiting());
  waits.verdict = Verdict::reply;
  EXPECT_TRUE(is_refused(of_one_that_never_goes_on.begin(request))) << "a reply that is none";
  EXPECT_TRUE(log.empty());
}

TEST_F(ChainTest, ARequestThatEndsWhileItWaitsLeavesTheQueue) {
  RequestView request = view();
  request.resumer.call = [](void* /*object*/) noexcept {};
  Queues queues;
  const Chain waiting(routes, a, queues, b);
  {
    auto exchange = waiting.begin(request);
    EXPECT_EQ(queues.line, 1);
    exchange.finish({.status = 499});
    EXPECT_EQ(queues.line, 0);
    EXPECT_TRUE(exchange.ended_early());
    exchange.resume();
  }
  EXPECT_EQ(log, (Log{"a.before", "a.after 499"}));
  auto exchange = waiting.begin(request);
  exchange.stop_waiting();
  EXPECT_EQ(queues.line, 0);
  EXPECT_FALSE(exchange.is_waiting());
  EXPECT_TRUE(exchange.ended_early());
  EXPECT_EQ(exchange.reply().status, 503);
  exchange.resume();
  EXPECT_EQ(log.back(), "a.before") << "nothing is resumed";
}

TEST_F(ChainTest, AHandlerSeesThatNobodyWaitsAnyMore) {
  const SteadyTime now{std::chrono::seconds(100)};
  auto exchange = chain.begin(view(), now);
  EXPECT_FALSE(exchange.should_stop(now));
  exchange.deadline = now + std::chrono::seconds(1);
  EXPECT_FALSE(exchange.should_stop(now));
  EXPECT_TRUE(exchange.should_stop(now + std::chrono::seconds(1)));
  std::thread([&] { exchange.cancel(); }).join();
  EXPECT_TRUE(exchange.cancelled());
  EXPECT_TRUE(exchange.should_stop(now));
}

TEST_F(ChainTest, AnExchangeLeftAloneWasCancelled) {
  { const auto exchange = chain.begin(view()); }
  EXPECT_EQ(log,
            (Log{"a.before", "b.before", "c.before", "c.after 499", "b.after 499", "a.after 499"}));
  EXPECT_EQ(a.ending, Ending::cancelled);
}

TEST_F(ChainTest, AnExchangeThatAnExceptionPassesHasFailed) {
  EXPECT_THROW(
      {
        const auto exchange = chain.begin(view());
        throw std::runtime_error("handler");
      },
      std::runtime_error);
  EXPECT_EQ(log.back(), "a.after 500");
  EXPECT_EQ(a.ending, Ending::failed);
}

TEST_F(ChainTest, WhatAHandlerThrowsBecauseTheClientWentIsNoFailure) {
  {
    auto exchange = chain.begin(view());
    exchange.cancel();
    exchange.guard([] { throw std::runtime_error("stopped"); });
  }
  EXPECT_EQ(log.back(), "a.after 499");
  EXPECT_EQ(a.ending, Ending::cancelled);
}

// A request that is served whole while an exception unwinds, from a destructor, is not that one's.
TEST_F(ChainTest, AnExceptionFromBeforeTheExchangeIsNotItsOwn) {
  struct Serves {
    ~Serves() { const auto exchange = chain.begin(view()); }
    const Chain<Recorder, Recorder, Recorder>& chain;
  };
  EXPECT_THROW(
      {
        const Serves serves{chain};
        throw std::runtime_error("elsewhere");
      },
      std::runtime_error);
  EXPECT_EQ(log.back(), "a.after 499");
}

TEST_F(ChainTest, AStepMayReplaceAResponseThatIsNotSentYet) {
  b.replaces = true;
  auto exchange = chain.begin(view());
  exchange.respond({.status = 404, .body_bytes = 0});
  ASSERT_TRUE(exchange.has_reply());
  EXPECT_EQ(exchange.reply().status, 404);
  EXPECT_EQ(Json(exchange.reply().body)["detail"].string(), "replaced");
}

TEST_F(ChainTest, StepsShareWhatTheyLearn) {
  OnlyBefore first;
  OnlyAfter last;
  const Chain both(routes, last, first);
  both.begin(view()).finish({.status = 200});
  EXPECT_EQ(last.tenant, "acme");
}

TEST_F(ChainTest, AChainWithoutStepsRoutes) {
  const Chain<> none(routes);
  auto exchange = none.begin(view());
  EXPECT_EQ(exchange.route.number, 1U);
  exchange.respond({});
  exchange.finish({});
}

TEST_F(ChainTest, HeadersAreCopiedAndCannotSplitTheResponse) {
  auto exchange = chain.begin(view());
  {
    std::string value = "17";
    EXPECT_TRUE(exchange.add_header("X-RateLimit-Limit", value));
    value = "xx";
  }
  using namespace std::string_view_literals;
  for (const std::string_view bad : {"a\r\nSet-Cookie: b"sv, "a\nb"sv, "a\0b"sv, "\x7f"sv})
    EXPECT_FALSE(exchange.add_header("X", bad));
  EXPECT_TRUE(exchange.add_header("Y", ""));
  EXPECT_TRUE(exchange.add_header("Z", "tab\tand \xc3\xbc"));
  ASSERT_EQ(exchange.headers().size(), 3U);
  EXPECT_EQ(exchange.headers()[0].value, "17");
}

TEST_F(ChainTest, NoControlCharacterIsOverlookedWhereverItStands) {
  for (std::size_t size = 1; size <= 26; ++size) {
    for (std::size_t at = 0; at < size; ++at) {
      for (int byte = 0; byte < 256; ++byte) {
        std::string value(size, 'a');
        value[at] = static_cast<char>(byte);
        if (size > 1) value[(at + 1) % size] = '\t';
        auto exchange = chain.begin(view());
        EXPECT_EQ(exchange.add_header("X", value), (byte >= 0x20 && byte != 0x7F) || byte == '\t')
            << byte << " at " << at << " of " << size;
      }
    }
  }
}

TEST_F(ChainTest, TheArenaHasAnEnd) {
  auto exchange = chain.begin(view());
  EXPECT_FALSE(exchange.keep(std::string(exchange_text_bytes_max + 1, 'x')));
  EXPECT_TRUE(exchange.keep(std::string(exchange_text_bytes_max - 1, 'x')));
  EXPECT_FALSE(exchange.add_header("X", "ab"));
  EXPECT_TRUE(exchange.add_header("X", "a"));
  EXPECT_TRUE(exchange.headers()[0].value == "a");
  EXPECT_EQ(exchange.refuse(503, "busy"), Verdict::reply);
  EXPECT_EQ(exchange.reply().status, 503) << "the status stands, without a body";
  EXPECT_TRUE(exchange.reply().body.empty());
  exchange.fail(std::make_exception_ptr(std::runtime_error("late")));
  EXPECT_EQ(exchange.exception().type, "unknown");
}

TEST_F(ChainTest, HeadersHaveABound) {
  auto exchange = chain.begin(view());
  for (std::size_t i = 0; i < response_headers_max; ++i) EXPECT_TRUE(exchange.add_header("X", "1"));
  EXPECT_FALSE(exchange.add_header("X", "1"));
  EXPECT_EQ(exchange.headers().size(), response_headers_max);
}

TEST_F(ChainTest, TheLongestProblemFits) {
  auto exchange = chain.begin(view());
  const std::string id(128, '"');
  exchange.request_id = id;
  exchange.refuse(400, std::string(5000, 'x'));
  EXPECT_EQ(Json(exchange.reply().body)["detail"].string(), std::string(512, 'x'));
  EXPECT_EQ(Json(exchange.reply().body)["request_id"].string(), id);
  auto hostile = chain.begin(view());
  hostile.request_id = id;
  hostile.refuse(400, std::string(512, '\x01'));
  EXPECT_EQ(Json(hostile.reply().body)["status"].number(), 400) << "without the detail";
}

TEST_F(ChainTest, TheDeadlineIsATimeThatCanBePassed) {
  const SteadyTime now{std::chrono::seconds(100)};
  auto exchange = chain.begin(view(), now);
  EXPECT_EQ(exchange.begun, now);
  EXPECT_EQ(exchange.remaining(now), std::chrono::nanoseconds::max());
  exchange.deadline = now + std::chrono::seconds(2);
  EXPECT_EQ(exchange.remaining(now), std::chrono::seconds(2));
  EXPECT_EQ(exchange.remaining(now + std::chrono::seconds(3)), std::chrono::seconds(0));
}

TEST(RequestViewTest, TargetsOfEveryFormHaveAPath) {
  struct Case {
    std::string_view target, path, query;
  };
  for (const Case& one : {Case{"/a/b?x=1&y=?", "/a/b", "x=1&y=?"},
                          {"/", "/", ""},
                          {"/a?", "/a", ""},
                          {"http://h:80/a?q", "/a", "q"},
                          {"http://h", "/", ""},
                          {"http://h?q", "/", "q"},
                          {"http://h#f", "/", ""},
                          {"*", "*", ""},
                          {"", "", ""},
                          {"/a#f?x", "/a", ""},
                          {"/go?to=http://x/y", "/go", "to=http://x/y"}}) {
    RequestView request;
    request.target(one.target);
    EXPECT_EQ(request.path, one.path) << one.target;
    EXPECT_EQ(request.query, one.query) << one.target;
  }
}

TEST(HeadersTest, NamesAreComparedWithoutCaseAndRepeatedFieldsAreReached) {
  const std::array<HeaderField, 3> fields{
      {{"x-forwarded-for", ""}, {"Host", "shop"}, {"X-FORWARDED-FOR", "10.0.0.1"}}};
  const std::span<const HeaderField> list(fields);
  const Headers headers = headers_of(list);
  EXPECT_EQ(headers.find("HOST"), "shop");
  EXPECT_TRUE(headers.contains("X-Forwarded-For"));
  EXPECT_EQ(headers.find("X-Forwarded-For", 1), "10.0.0.1");
  EXPECT_EQ(headers.find("X-Forwarded-For", 2).data(), nullptr);
  EXPECT_FALSE(headers.contains("X-Forwarded"));
  EXPECT_FALSE(Headers().contains("Host"));
}

}  // namespace
}  // namespace spillway::middleware
