// SPDX-License-Identifier: Apache-2.0
//
// Calls of a service client over scripted answers, and over sockets where a connection is what is asked
// about; discovery from a name server of our own and from scripted answers of Cloud Map.
#include <array>
#include <atomic>
#include <future>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <support/engine_fixture.hpp>
#include <support/name_server.hpp>
#include <support/raw_server.hpp>
#include <support/sent.hpp>

#include <spillway/middleware/client/service_client.hpp>
#include <spillway/middleware/resilience/deadline.hpp>
#include <spillway/middleware/signing/verifier.hpp>

namespace spillway::middleware {
namespace {

using namespace std::chrono_literals;
using spillway::testing::NameServer;
using spillway::testing::RawServer;
using transport::HttpOutcome;
using transport::HttpRequest;
using transport::HttpResponse;
using transport::MemoryTransport;

class ServiceClientTest : public ::testing::Test {
 protected:
  ServiceClientTest() {
    options.name = "orders";
    options.discover = static_endpoints({{"http://a"}, {"http://b"}, {"http://c"}});
    options.retry.backoff = 1ms;
    options.threads = false;
    options.http = [this] {
      auto memory = std::make_unique<MemoryTransport>();
      memory->set_answer([this](const HttpRequest& request) {
        asked.push_back(request);
        return answer(request);
      });
      return memory;
    };
  }
  ServiceClient& client() {
    if (!client_) {
      client_.emplace(options);
      client_->refresh();
    }
    return *client_;
  }
  ServiceReply get() { return client().call({.path = "/orders/17"}, 10s); }
  std::map<std::string, int> calls(int count) {
    std::map<std::string, int> result;
    asked.clear();
    for (int i = 0; i < count; ++i) get();
    for (const HttpRequest& request : asked) ++result[request.origin];
    return result;
  }
  std::string header(std::string_view name) const {
    return asked.empty() ? "" : std::string(transport::find_header(asked.back().headers, name));
  }

  ServiceClientOptions options;
  std::function<HttpResponse(const HttpRequest&)> answer = [](const HttpRequest& /*request*/) {
    return MemoryTransport::answered(200);
  };
  std::vector<HttpRequest> asked;

 private:
  std::optional<ServiceClient> client_;
};

using Counts = std::map<std::string, int>;

TEST_F(ServiceClientTest, RoundRobinTakesEachInTurn) {
  EXPECT_EQ(calls(9), (Counts{{"http://a", 3}, {"http://b", 3}, {"http://c", 3}}));
  EXPECT_EQ(asked[0].method, "GET");
  EXPECT_EQ(asked[0].path, "/orders/17");
}

TEST_F(ServiceClientTest, WeightsAreProportions) {
  options.balance = Balance::weighted;
  options.discover = static_endpoints({{.origin = "http://a", .weight = 3},
                                       {.origin = "http://b", .weight = 1},
                                       {.origin = "http://c", .weight = 0}});
  Counts counts = calls(4000);
  EXPECT_NEAR(counts["http://a"], 3000, 200);
  EXPECT_NEAR(counts["http://b"], 1000, 200);
  EXPECT_EQ(counts["http://c"], 0);
}

TEST_F(ServiceClientTest, TheOwnZoneGoesFirstAndOthersServeWhenItDoesNot) {
  options.zone = "eu-west-1a";
  options.breaker.calls_min = 4;
  options.discover = static_endpoints(
      {{.origin = "http://a", .zone = "eu-west-1a"}, {.origin = "http://b", .zone = "eu-west-1b"}});
  EXPECT_EQ(calls(5), (Counts{{"http://a", 5}}));
  answer = [](const HttpRequest& request) {
    return MemoryTransport::answered(request.origin == "http://a" ? 500 : 200);
  };
  calls(20);
  EXPECT_EQ(calls(5), (Counts{{"http://b", 5}})) << "a's breaker is open";
}

TEST_F(ServiceClientTest, WhatFailsIsTriedElsewhere) {
  answer = [this](const HttpRequest& /*request*/) {
    return MemoryTransport::answered(asked.size() == 1 ? 503 : 200);
  };
  const ServiceReply reply = get();
  EXPECT_EQ(reply.outcome, ServiceOutcome::answered);
  EXPECT_EQ(reply.response.status, 200);
  EXPECT_EQ(reply.attempts, 2);
  EXPECT_NE(asked[0].origin, asked[1].origin);
}

TEST_F(ServiceClientTest, AnAnswerThatWouldBeTheSameIsNotAskedForAgain) {
  answer = [](const HttpRequest& /*request*/) { return MemoryTransport::answered(404); };
  const ServiceReply reply = get();
  EXPECT_EQ(reply.response.status, 404);
  EXPECT_EQ(reply.attempts, 1);
}

TEST_F(ServiceClientTest, TheLastAnswerIsTheAnswer) {
  answer = [](const HttpRequest& /*request*/) { return MemoryTransport::answered(503, "busy"); };
  const ServiceReply reply = get();
  EXPECT_EQ(reply.outcome, ServiceOutcome::answered);
  EXPECT_EQ(reply.response.body, "busy");
  EXPECT_EQ(reply.attempts, options.retry.attempts_max);
}

TEST_F(ServiceClientTest, WhatMayHaveBeenDoneIsNotDoneTwice) {
  HttpOutcome outcome = HttpOutcome::lost;
  answer = [&](const HttpRequest& /*request*/) { return MemoryTransport::failed(outcome); };
  const auto attempts = [&](ServiceRequest request) {
    return client().call(request, 10s).attempts;
  };
  EXPECT_EQ(attempts({.method = "POST"}), 1);
  EXPECT_EQ(attempts({.method = "POST", .idempotent = true}), 3);
  EXPECT_EQ(attempts({.method = "POST", .headers = {{"Idempotency-Key", "17"}}}), 3);
  EXPECT_EQ(attempts({.method = "PUT"}), 3);
  outcome = HttpOutcome::not_connected;
  EXPECT_EQ(attempts({.method = "POST"}), 3) << "nobody has seen it";
}

TEST_F(ServiceClientTest, OpenBreakersAreTold) {
  options.breaker.calls_min = 2;
  options.retry.attempts_max = 1;
  answer = [](const HttpRequest& /*request*/) {
    return MemoryTransport::failed(HttpOutcome::not_connected);
  };
  for (int i = 0; i < 6; ++i) EXPECT_EQ(get().outcome, ServiceOutcome::failed);
  asked.clear();
  const ServiceReply reply = get();
  EXPECT_EQ(reply.outcome, ServiceOutcome::breakers_open);
  EXPECT_EQ(reply.attempts, 0);
  EXPECT_TRUE(asked.empty());
}

TEST_F(ServiceClientTest, TraceAndContextGoAlong) {
  const testing::AwsEnvironment environment;
  testing::TestEngine test(testing::aws_config());
  options.engine = &test.engine;
  const Context context({.tenant = "acme", .user = "u-17", .request_id = "r-1"});
  const Scope scope(context);
  const Span handler = test.engine.span("handler");
  client().call({.headers = {{"x-user-id", "other"}}}, 10s);
  EXPECT_EQ(header("X-Tenant-ID"), "acme");
  EXPECT_EQ(header("X-Request-ID"), "r-1");
  EXPECT_EQ(header("X-User-ID"), "other") << "what the caller set stays";
  EXPECT_NE(header("X-Amzn-Trace-Id").find("Sampled=1"), std::string::npos);
  EXPECT_EQ(header("traceparent").size(), 55U);
  const std::string timeout = header("X-Request-Timeout");
  EXPECT_FALSE(timeout.empty());
  EXPECT_EQ(header("traceparent").find(current_trace_headers().traceparent.substr(0, 35)), 0U)
      << "the same trace";
  EXPECT_NE(header("traceparent"), current_trace_headers().traceparent)
      << "below a span of the call";
}

// ---- Every decision is an event with its reason and trace id ----

class ServiceDecisionsTest : public ServiceClientTest {
 protected:
  ServiceDecisionsTest() { options.engine = &test.engine; }
  /// A call within a request that is traced.
  ServiceReply served(const ServiceRequest& request, std::chrono::milliseconds timeout = 10s) {
    client();
    const Span handler = test.engine.span("handler");
    return client().call(request, timeout);
  }
  /// Logs of attempts, calls and breakers, all of the trace.
  std::vector<testing::Json> events(const testing::Sent& all) const {
    for (const testing::Json& log : all.logs)
      EXPECT_EQ(log["trace_id"].string(), all.segments.at(0)["trace_id"].string());
    return all.logs;
  }
  static testing::Json call_of(const testing::Sent& all) {
    return all.segments.at(0)["subsegments"][0];
  }

  const testing::AwsEnvironment environment;
  testing::TestEngine test{testing::aws_config()};
};

TEST_F(ServiceDecisionsTest, ARetryAndItsReason) {
  answer = [this](const HttpRequest& /*request*/) {
    return MemoryTransport::answered(asked.size() == 1 ? 503 : 200);
  };
  EXPECT_EQ(served({}).retry_stopped, std::nullopt);
  const testing::Sent all = testing::sent(test);
  EXPECT_EQ(all.sum("ServiceRetryDecisions|retry|orders"), 1);
  EXPECT_EQ(all.sum("ServiceCalls|answered|orders"), 1);
  const auto logs = events(all);
  ASSERT_EQ(logs.size(), 1U);
  EXPECT_EQ(logs[0]["level"].string(), "INFO");
  EXPECT_EQ(logs[0]["message"].string(), "attempt of a service call failed");
  EXPECT_EQ(logs[0]["service"].string(), "orders");
  EXPECT_EQ(logs[0]["endpoint"].string(), asked[0].origin);
  EXPECT_EQ(logs[0]["attempt"].number(), 1);
  EXPECT_EQ(logs[0]["failure"].string(), "status 503");
  EXPECT_EQ(logs[0]["decision"].string(), "retry");
  EXPECT_TRUE(logs[0].has("wait_ms"));
  EXPECT_EQ(call_of(all)["annotations"]["attempts"].number(), 2);
  EXPECT_FALSE(call_of(all)["annotations"].has("retry_stopped"));
}

TEST_F(ServiceDecisionsTest, WhyThereIsNoOther) {
  struct Row {
    const char* reason;
    std::function<void()> arrange;
    ServiceRequest request;
    int attempts;
  };
  const HttpResponse busy = MemoryTransport::answered(503);
  HttpResponse said = busy;
  answer = [&](const HttpRequest& /*request*/) { return said; };
  options.breaker.calls_min = 1000;
  const RetryOptions usual = options.retry;
  for (const Row& row : std::initializer_list<Row>{
           {"attempts_used", [] {}, {}, 3},
           {"not_idempotent", [] {}, {.method = "POST"}, 1},
           {"not_retryable", [&] { said = MemoryTransport::answered(500); }, {}, 1},
           {"not_retryable",
            [&] { said = MemoryTransport::failed(HttpOutcome::too_large); },
            {},
            1},
           {"budget_empty", [&] { options.retry.budget_max = 1; }, {}, 2},
           {"deadline",
            [&] {
              said = busy;
              said.headers.push_back({"Retry-After", "3600"});
              options.retry.retry_after_max = 3'600s;
            },
            {},
            1}}) {
    SCOPED_TRACE(row.reason);
    said = busy;
    options.retry = usual;
    row.arrange();
    testing::TestEngine own{testing::aws_config()};
    options.engine = &own.engine;
    ServiceClient orders(options);
    orders.refresh();
    ServiceReply reply;
    {
      const Span handler = own.engine.span("handler");
      reply = orders.call(row.request, 10s);
    }
    EXPECT_EQ(reply.attempts, row.attempts);
    ASSERT_TRUE(reply.retry_stopped);
    EXPECT_EQ(to_string(*reply.retry_stopped), row.reason);
    const testing::Sent all = testing::sent(own);
    EXPECT_EQ(all.sum(std::string("ServiceRetryDecisions|") + row.reason + "|orders"), 1);
    EXPECT_EQ(all.sum("ServiceRetryDecisions|retry|orders"), row.attempts - 1);
    EXPECT_EQ(call_of(all)["annotations"]["retry_stopped"].string(), row.reason);
    const auto logs = events(all);
    const std::size_t last = static_cast<std::size_t>(row.attempts) - 1;
    ASSERT_GT(logs.size(), last);
    EXPECT_EQ(logs[last]["decision"].string(), row.reason);
    EXPECT_EQ(logs[last]["level"].string(), "WARN");
  }
}

TEST_F(ServiceDecisionsTest, BreakersThatOpenBetweenAttemptsEndThem) {
  options.breaker.calls_min = 1;
  options.discover = static_endpoints({{"http://a"}});
  answer = [](const HttpRequest& /*request*/) { return MemoryTransport::answered(503); };
  const ServiceReply reply = served({});
  EXPECT_EQ(reply.outcome, ServiceOutcome::answered);
  EXPECT_EQ(reply.retry_stopped, RetryReason::nowhere_to_go);
  const testing::Sent all = testing::sent(test);
  EXPECT_EQ(all.sum("ServiceRetryDecisions|nowhere_to_go|orders"), 1);
  std::vector<std::string> said;
  for (const testing::Json& log : events(all)) said.push_back(log["message"].string());
  EXPECT_EQ(said, (std::vector<std::string>{"endpoint's circuit breaker changed",
                                            "attempt of a service call failed",
                                            "attempt of a service call failed"}));
}

TEST_F(ServiceDecisionsTest, ACallThatIsNotMadeSaysWhy) {
  options.breaker.calls_min = 1;
  options.discover = static_endpoints({{"http://a"}});
  answer = [](const HttpRequest& /*request*/) { return MemoryTransport::answered(500); };
  client().call({}, 10s);  // Outside of the request; opens the breaker.
  EXPECT_TRUE(test.engine.flush(1s));
  test.http.forget_requests();
  EXPECT_EQ(served({}).outcome, ServiceOutcome::breakers_open);
  const testing::Sent all = testing::sent(test);
  EXPECT_EQ(all.sum("ServiceCalls|breakers_open|orders"), 1);
  const auto logs = events(all);
  ASSERT_EQ(logs.size(), 1U);
  EXPECT_EQ(logs[0]["message"].string(), "service call has no answer");
  EXPECT_EQ(logs[0]["level"].string(), "WARN");
  EXPECT_EQ(logs[0]["outcome"].string(), "breakers_open");
  EXPECT_EQ(logs[0]["error"].string(), "the circuit breakers of all endpoints of orders are open");
  EXPECT_EQ(call_of(all)["annotations"]["outcome"].string(), "breakers_open");
}

TEST_F(ServiceClientTest, WithoutAContextNothingIsSaid) {
  get();
  for (const std::string_view name : {"X-Tenant-ID", "X-User-ID", "X-Request-ID", "traceparent"})
    EXPECT_EQ(header(name), "") << name;
}

TEST_F(ServiceClientTest, ASignedCallIsTakenByTheVerifier) {
  const auto keys = std::make_shared<SigningKeys>(
      std::vector<SigningKey>{{.id = "orders", .secret = std::string(32, 'k')}});
  options.signer = std::make_shared<RequestSigner>(keys);
  options.discover = static_endpoints({{"http://orders.internal:8080"}});
  client().call({.method = "POST", .path = "/orders", .query = "a=1", .body = "{}"}, 10s);
  ASSERT_EQ(asked.size(), 1U);
  std::vector<HeaderField> fields;
  for (const auto& one : asked[0].headers) fields.push_back({one.name, one.value});
  const std::span<const HeaderField> list(fields);
  SignatureVerifier verifier(keys);
  const Verified verified =
      verifier.verify({.method = "POST",
                       .path = "/orders",
                       .query = "a=1",
                       .host = "orders.internal:8080",
                       .headers = headers_of(list),
                       .body = asked[0].body,
                       .body_bytes = 2},
                      std::chrono::system_clock::now(), std::chrono::steady_clock::now());
  EXPECT_EQ(to_string(verified.refusal), "none");
}

// A verifier takes no nonce twice: a retry with the first attempt's signature would be refused as replayed.
TEST_F(ServiceClientTest, ARetryIsSignedAnewAndTakenByTheSameVerifier) {
  const auto keys = std::make_shared<SigningKeys>(
      std::vector<SigningKey>{{.id = "orders", .secret = std::string(32, 'k')}});
  options.signer = std::make_shared<RequestSigner>(keys);
  options.discover = static_endpoints({{"http://orders.internal:8080"}});
  SignatureVerifier verifier(keys);
  std::vector<std::string> verified;
  const auto verify = [&](const HttpRequest& request) {
    std::vector<HeaderField> fields;
    for (const auto& one : request.headers) fields.push_back({one.name, one.value});
    const std::span<const HeaderField> list(fields);
    return std::string(
        to_string(verifier
                      .verify({.method = request.method,
                               .path = request.path,
                               .query = request.query,
                               .host = "orders.internal:8080",
                               .headers = headers_of(list),
                               .body = request.body,
                               .body_bytes = static_cast<std::int64_t>(request.body.size())},
                              std::chrono::system_clock::now(), std::chrono::steady_clock::now())
                      .refusal));
  };
  answer = [&](const HttpRequest& request) {
    verified.push_back(verify(request));
    return MemoryTransport::answered(verified.size() == 1 ? 503 : 200);
  };
  const ServiceReply reply =
      client().call({.method = "PUT", .path = "/orders/17", .query = "a=1", .body = "{}"}, 60s);
  EXPECT_EQ(reply.response.status, 200);
  ASSERT_EQ(reply.attempts, 2);
  EXPECT_EQ(verified, (std::vector<std::string>{"none", "none"}));
  const auto nonce = [&](std::size_t attempt) {
    const std::string input(transport::find_header(asked.at(attempt).headers, "Signature-Input"));
    const std::size_t at = input.find(";nonce=\"");
    EXPECT_NE(at, input.npos) << input;
    return input.substr(at + 8, input.find('"', at + 8) - at - 8);
  };
  EXPECT_GE(nonce(0).size(), 16U);
  EXPECT_NE(nonce(0), nonce(1));
  for (const HttpRequest& request : asked) {
    EXPECT_EQ(verify(request), "replayed") << "the very request again";
    int signatures = 0;
    for (const auto& field : request.headers) signatures += field.name == "Signature" ? 1 : 0;
    EXPECT_EQ(signatures, 1) << "none of the attempt before";
  }
}

TEST_F(ServiceClientTest, EveryAttemptSaysWhatIsLeftOfTheCallsTime) {
  options.attempt_timeout = 3'600s;
  answer = [this](const HttpRequest& /*request*/) {
    // So long that it is seen in a text of milliseconds.
    const auto until = std::chrono::steady_clock::now() + 2ms;
    while (std::chrono::steady_clock::now() < until) std::this_thread::yield();
    return MemoryTransport::answered(asked.size() == 1 ? 503 : 200);
  };
  const auto told = [&](std::size_t attempt) {
    std::vector<std::string> values;
    for (const auto& field : asked.at(attempt).headers) {
      if (field.name == timeout_header_name) values.push_back(field.value);
    }
    EXPECT_EQ(values.size(), 1U);
    const auto time = parse_timeout(values.at(0));
    EXPECT_TRUE(time.has_value()) << values[0];
    return time.value_or(-1ns);
  };
  ASSERT_EQ(client().call({}, 600s).attempts, 2);
  EXPECT_GT(told(0), 0ns);
  EXPECT_LE(told(0), 600s) << "of the call, which is shorter than an attempt's";
  EXPECT_GT(told(1), 0ns);
  EXPECT_LT(told(1), told(0)) << "the first attempt took some of it";
  asked.clear();
  ServiceClientOptions brief = options;
  brief.attempt_timeout = 250ms;
  ServiceClient orders(brief);
  orders.refresh();
  ASSERT_EQ(orders.call({}, 600s).attempts, 2);
  for (const std::size_t attempt : {0U, 1U}) {
    EXPECT_EQ(told(attempt), 250ms) << "an attempt's, which is shorter than the call's";
  }
}

TEST_F(ServiceClientTest, ACallThatCannotBeSignedIsNotSent) {
  SigningKey over{.id = "orders", .secret = std::string(32, 'k')};
  over.until = WallTime(1s);
  options.signer =
      std::make_shared<RequestSigner>(std::make_shared<SigningKeys>(std::vector<SigningKey>{over}));
  const ServiceReply reply = get();
  EXPECT_EQ(reply.outcome, ServiceOutcome::refused);
  EXPECT_EQ(reply.error, "no signing key is valid now");
  EXPECT_TRUE(asked.empty());
}

TEST_F(ServiceClientTest, SigV4ForWhatStandsBehindIam) {
  const testing::AwsEnvironment environment;
  options.sigv4_service = "execute-api";
  get();
  EXPECT_NE(header("Authorization").find("/eu-west-1/execute-api/aws4_request"), std::string::npos)
      << header("Authorization");
}

TEST_F(ServiceClientTest, ABodyThatIsTooLargeIsNotSent) {
  options.request_body_bytes_max = 3;
  EXPECT_EQ(client().call({.method = "PUT", .body = "four"}, 10s).outcome, ServiceOutcome::refused);
  EXPECT_EQ(client().call({.method = "PUT", .body = "tri"}, 10s).outcome, ServiceOutcome::answered);
}

TEST_F(ServiceClientTest, WhatIsKnownStaysInUseWhenDiscoveryFails) {
  Discovered next{{{"http://a"}}, {}};
  options.discover = [&](std::chrono::milliseconds) { return next; };
  EXPECT_EQ(calls(2), (Counts{{"http://a", 2}}));
  next = {{}, "the name server is away"};
  EXPECT_EQ(client().refresh(), "the name server is away");
  EXPECT_EQ(calls(2), (Counts{{"http://a", 2}}));
  next = {{{"http://b"}}, {}};
  EXPECT_EQ(client().refresh(), "");
  EXPECT_EQ(calls(2), (Counts{{"http://b", 2}}));
}

TEST_F(ServiceClientTest, ADiscoveryThatFailsAsBeforeIsLoggedOnce) {
  Discovered next{};  // no endpoint, and no error
  options.discover = [&](std::chrono::milliseconds) { return next; };
  const spillway::testing::AwsEnvironment environment;
  spillway::testing::TestEngine test{spillway::testing::aws_config()};
  options.engine = &test.engine;
  ServiceClient own(options);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(own.refresh(), "it has no endpoint");
  next.error = "the name server is away";
  own.refresh();
  std::vector<std::string> said;
  for (const testing::Json& log : testing::sent(test).logs) said.push_back(log["error"].string());
  EXPECT_EQ(said, (std::vector<std::string>{"it has no endpoint", "the name server is away"}));
}

TEST_F(ServiceClientTest, WithoutAnEndpointItSaysWhy) {
  options.discover = [](std::chrono::milliseconds) -> Discovered {
    throw std::runtime_error("no way");
  };
  const ServiceReply reply = get();
  EXPECT_EQ(reply.outcome, ServiceOutcome::no_endpoint);
  EXPECT_EQ(reply.error, "no endpoint of orders is known: no way");
}

TEST_F(ServiceClientTest, AnEndpointThatStaysKeepsItsBreaker) {
  options.breaker.calls_min = 2;
  options.retry.attempts_max = 1;
  options.discover = static_endpoints({{"http://a"}});
  answer = [](const HttpRequest&) { return MemoryTransport::answered(500); };
  for (int i = 0; i < 2; ++i) get();
  client().refresh();
  EXPECT_EQ(get().outcome, ServiceOutcome::breakers_open);
}

TEST_F(ServiceClientTest, OptionsThatCannotWorkAreNamed) {
  options.name.clear();
  options.refresh = 0ms;
  try {
    client();
    FAIL();
  } catch (const std::invalid_argument& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("there is no name"), std::string::npos);
    EXPECT_NE(text.find("refresh (ms) = 0"), std::string::npos) << text;
  }
  EXPECT_THROW(static_endpoints({{"ftp://a"}}), std::invalid_argument);
  EXPECT_THROW(static_endpoints({}), std::invalid_argument);
  EXPECT_THROW(dns_endpoints({.name = "a"}), std::invalid_argument);
}

// ---- Over sockets ----

TEST_F(ServiceClientTest, TheLeastBusyEndpointIsChosen) {
  std::promise<void> release;
  const std::shared_future<void> released = release.get_future().share();
  const auto serve = [&](const std::string& request, const RawServer::Connection& connection) {
    if (request.starts_with("GET /slow")) released.wait();
    connection.send(testing::http_answer(200, "ok"));
    return true;
  };
  RawServer one(serve);
  RawServer two(serve);
  options.http = nullptr;
  options.balance = Balance::least_in_flight;
  options.attempt_timeout = 60s;
  options.discover = static_endpoints({{one.origin()}, {two.origin()}});
  client();
  std::thread slow([&] { client().call({.path = "/slow"}, 60s); });
  while (one.requests().size() + two.requests().size() == 0) std::this_thread::yield();
  const RawServer& busy = one.requests().empty() ? two : one;
  const RawServer& idle = one.requests().empty() ? one : two;
  for (int i = 0; i < 4; ++i) EXPECT_EQ(get().outcome, ServiceOutcome::answered);
  EXPECT_EQ(busy.requests().size(), 1U);
  EXPECT_EQ(idle.requests().size(), 4U);
  release.set_value();
  slow.join();
}

TEST_F(ServiceClientTest, ACallEndsWithItsTime) {
  const RawServer server([](const std::string&, const RawServer::Connection& connection) {
    connection.wait_for_the_end();
    return false;
  });
  options.http = nullptr;
  options.discover = static_endpoints({{server.origin()}});
  EXPECT_EQ(client().call({}, 100ms).outcome, ServiceOutcome::timed_out);
}

TEST_F(ServiceClientTest, TheBulkheadBoundsTheCallsUnderWay) {
  std::promise<void> release;
  const std::shared_future<void> released = release.get_future().share();
  const RawServer server([&](const std::string&, const RawServer::Connection& connection) {
    released.wait();
    connection.send(testing::http_answer(200, "ok"));
    return true;
  });
  options.http = nullptr;
  options.bulkhead.concurrency_max = 1;
  options.bulkhead.queue_max = 0;
  options.attempt_timeout = 60s;
  options.discover = static_endpoints({{server.origin()}});
  client();
  std::thread waits([&] { EXPECT_EQ(client().call({}, 60s).outcome, ServiceOutcome::answered); });
  while (server.requests().empty()) std::this_thread::yield();
  EXPECT_EQ(client().call({}, 60s).outcome, ServiceOutcome::bulkhead_full);
  release.set_value();
  waits.join();
  EXPECT_EQ(client().call({}, 60s).outcome, ServiceOutcome::answered);
}

TEST_F(ServiceClientTest, AHeaderWithALineBreakIsNotSent) {
  const RawServer server([](const std::string&, const RawServer::Connection&) { return false; });
  options.http = nullptr;
  options.discover = static_endpoints({{server.origin()}});
  const ServiceReply reply = client().call({.headers = {{"X-Note", "a\r\nX-Evil: 1"}}}, 10s);
  EXPECT_EQ(reply.outcome, ServiceOutcome::refused);
  EXPECT_TRUE(server.requests().empty());
}

TEST_F(ServiceClientTest, ANameIsConnectedToByItsAddressAndCalledByItsName) {
  const RawServer server([](const std::string&, const RawServer::Connection& connection) {
    connection.send(testing::http_answer(200, "ok"));
    return true;
  });
  const NameServer names([](const std::string& name, std::uint16_t type) -> NameServer::Answer {
    if (name != "orders.test" || type != NameServer::a) return {};
    return {{NameServer::ipv4(127, 0, 0, 1)}};
  });
  options.http = nullptr;
  options.threads = true;  // The first call waits for the first discovery.
  options.discover =
      dns_endpoints({.name = "orders.test", .port = server.port(), .servers = names.address()});
  ServiceClient orders(options);
  const ServiceReply reply = orders.call({.path = "/orders/17"}, 30s);
  EXPECT_EQ(reply.outcome, ServiceOutcome::answered) << reply.error;
  ASSERT_EQ(server.requests().size(), 1U);
  EXPECT_NE(server.requests()[0].find("Host: orders.test:" + std::to_string(server.port())),
            std::string::npos)
      << server.requests()[0];
}

// ---- Discovery ----

TEST(DiscoveryTest, SrvRecordsOfTheBestPriority) {
  const NameServer names([](const std::string&, std::uint16_t) -> NameServer::Answer {
    return {{NameServer::service(10, 5, 8080, "a.test"), NameServer::service(20, 9, 8081, "b.test"),
             NameServer::service(10, 0, 80, "c.test")}};
  });
  const Discovered found =
      srv_endpoints({.name = "_http._tcp.orders.test", .servers = names.address()})(10s);
  Counts weights;
  for (const ServiceEndpoint& one : found.endpoints)
    weights[one.origin] = static_cast<int>(one.weight);
  EXPECT_EQ(weights, (Counts{{"http://a.test:8080", 5}, {"http://c.test", 1}})) << found.error;
}

TEST(DiscoveryTest, CloudMapInstances) {
  const testing::AwsEnvironment environment;
  HttpRequest asked;
  std::string body = R"({"Instances":[
    {"InstanceId":"1","HealthStatus":"HEALTHY","Attributes":{"AWS_INSTANCE_IPV4":"10.0.0.7","AWS_INSTANCE_PORT":"8080","AVAILABILITY_ZONE":"eu-west-1a"}},
    {"InstanceId":"2","Attributes":{"AWS_INSTANCE_IPV6":"2001:db8::1"}},
    {"InstanceId":"3","Attributes":{"AWS_INSTANCE_CNAME":"c.internal","AWS_INSTANCE_PORT":"nonsense"}},
    {"InstanceId":"4","Attributes":{"custom":"x"}}]})";
  int status = 200;
  const Discover discover = cloud_map_endpoints(
      {.namespace_name = "shop", .service = "orders", .port = 9090, .http = [&] {
         auto memory = std::make_unique<MemoryTransport>();
         memory->set_answer([&](const HttpRequest& request) {
           asked = request;
           return MemoryTransport::answered(status, body);
         });
         return memory;
       }});
  const Discovered found = discover(10s);
  EXPECT_EQ(asked.origin, "https://data-servicediscovery.eu-west-1.amazonaws.com");
  EXPECT_EQ(transport::find_header(asked.headers, "X-Amz-Target"),
            "Route53AutoNaming_v20170314.DiscoverInstances");
  EXPECT_NE(asked.body.find(R"("NamespaceName":"shop","ServiceName":"orders")"), std::string::npos);
  EXPECT_EQ(found.endpoints,
            (std::vector<ServiceEndpoint>{{.origin = "http://10.0.0.7:8080", .zone = "eu-west-1a"},
                                          {.origin = "http://[2001:db8::1]:9090"},
                                          {.origin = "http://c.internal:9090"}}));
  body = R"({"Instances":[]})";
  EXPECT_EQ(discover(10s).error, "orders has no instance with an address and a port");
  body = R"({"__type":"NamespaceNotFound","Message":"no"})";
  status = 400;
  EXPECT_NE(discover(10s).error.find("NamespaceNotFound"), std::string::npos);
}

}  // namespace
}  // namespace spillway::middleware
