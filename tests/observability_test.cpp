// SPDX-License-Identifier: Apache-2.0
//
// The observability step: what one request leaves behind in logs, metrics and traces, however it
// ends, and the Beast adapter around it.
#include <array>
#include <map>

#include <boost/beast/http.hpp>
#include <support/engine_fixture.hpp>
#include <support/sent.hpp>

#include <spillway/middleware/beast.hpp>
#include <spillway/middleware/error_body.hpp>
#include <spillway/middleware/observability.hpp>
#include <spillway/middleware/request_id.hpp>

namespace spillway::middleware {
namespace {

using namespace std::chrono_literals;
using testing::Json;

class ObservabilityTest : public ::testing::Test {
 protected:
  testing::Sent sent() { return testing::sent(test); }

  /// A request as an adapter hands it over.
  struct Incoming {
    std::vector<HeaderField> fields{};
    std::string_view method = "GET";
    std::string_view target = "/orders/17?token=secret";
    std::string_view body{};
    std::span<const HeaderField> list{};

    RequestView view() {
      list = fields;
      RequestView view{.method = method,
                       .host = "shop.example",
                       .peer_address = "203.0.113.9",
                       .headers = headers_of(list),
                       .body = body};
      view.target(target);
      return view;
    }
  };
  static Incoming incoming() {
    return {{{"User-Agent", "curl/8"},
             {"x-request-id", "r-1"},
             {"X-Tenant-ID", "acme"},
             {"x-user-id", "u-17"}}};
  }
  /// Serves one request with a status, on its own observability.
  void serve(const ObservabilityOptions& options, int status, Incoming request = incoming(),
             std::chrono::microseconds took = 250us) {
    Observability step(test.engine, routes, options);
    const Chain one(routes, request_id, step);
    const SteadyTime now{1s};
    auto exchange = one.begin(request.view(), now);
    exchange.respond({.status = status});
    exchange.finish({.status = status, .body_bytes = 12}, now + took);
  }

  testing::AwsEnvironment environment;
  testing::TestEngine test{testing::aws_config()};
  const Routes routes{{"GET", "/orders/{id}"}, {"POST", "/rpc"}};
  RequestId request_id;
  Observability observability{test.engine, routes};
  const Chain<RequestId, Observability> chain{routes, request_id, observability};
};

TEST_F(ObservabilityTest, OneRequestIsOneLogOneSegmentAndItsMetrics) {
  Incoming request = incoming();
  {
    auto exchange = chain.begin(request.view());
    ASSERT_FALSE(exchange.has_reply());
    {
      const auto current = exchange.enter();
      SPILLWAY_INFO(test.engine, "inside");
    }
    EXPECT_EQ(exchange.request_id, "r-1");
    EXPECT_EQ(exchange.tenant, "acme");
    exchange.respond({.status = 200});
    exchange.finish({.status = 200, .body_bytes = 1234});
  }
  const testing::Sent all = sent();
  ASSERT_EQ(all.logs.size(), 2U);
  EXPECT_EQ(all.logs[0]["tenant"].string(), "acme");
  EXPECT_EQ(all.logs[0]["request_id"].string(), "r-1");
  const Json& access = all.logs[1];
  EXPECT_EQ(access["message"].string(), "request");
  EXPECT_EQ(access["level"].string(), "INFO");
  EXPECT_EQ(access["method"].string(), "GET");
  EXPECT_EQ(access["route"].string(), "/orders/{id}");
  EXPECT_EQ(access["path"].string(), "/orders/17") << "without the query";
  EXPECT_EQ(access["client"].string(), "203.0.113.9");
  EXPECT_EQ(access["status"].number(), 200);
  EXPECT_EQ(access["body_bytes"].number(), 1234);
  EXPECT_EQ(access["user"].string(), "u-17");
  EXPECT_FALSE(access.has("exception"));
  ASSERT_EQ(all.segments.size(), 1U);
  const Json& segment = all.segments[0];
  EXPECT_EQ(segment["name"].string(), "orders");
  EXPECT_EQ(segment["annotations"]["operation"].string(), "GET /orders/{id}");
  EXPECT_EQ(segment["http"]["request"]["url"].string(), "http://shop.example/orders/17")
      << "without the query";
  EXPECT_EQ(segment["http"]["request"]["client_ip"].string(), "203.0.113.9");
  EXPECT_EQ(segment["http"]["request"]["user_agent"].string(), "curl/8");
  EXPECT_EQ(segment["http"]["response"]["status"].number(), 200);
  EXPECT_EQ(segment["user"].string(), "u-17");
  EXPECT_EQ(access["trace_id"].string(), segment["trace_id"].string());
  EXPECT_EQ(all.logs[0]["trace_id"].string(), segment["trace_id"].string());
  EXPECT_EQ(all.metrics.at("Requests|GET|/orders/{id}")["Value"].number(), 1);
  EXPECT_EQ(all.metrics.at("Latency|GET|/orders/{id}")["StatisticValues"]["SampleCount"].number(),
            1);
  EXPECT_EQ(all.metrics.at("TenantRequests|acme")["Value"].number(), 1);
  EXPECT_EQ(all.metrics.at("InFlight")["StatisticValues"]["Maximum"].number(), 1);
  EXPECT_EQ(all.metrics.at("InFlight")["StatisticValues"]["Minimum"].number(), 0);
  EXPECT_EQ(all.metrics.size(), 4U);
}

TEST_F(ObservabilityTest, StatusesAreCountedAsWhatTheyAre) {
  for (const int status : {200, 301, 404, 429, 500, 503}) {
    chain.begin(incoming().view()).finish({.status = status});
  }
  const testing::Sent all = sent();
  EXPECT_EQ(all.metrics.at("Requests|GET|/orders/{id}")["Value"].number(), 6);
  EXPECT_EQ(all.metrics.at("ClientErrors|GET|/orders/{id}")["Value"].number(), 2);
  EXPECT_EQ(all.metrics.at("Throttles|GET|/orders/{id}")["Value"].number(), 1);
  EXPECT_EQ(all.metrics.at("Faults|GET|/orders/{id}")["Value"].number(), 2);
  std::vector<std::string> levels;
  for (const Json& log : all.logs) levels.push_back(log["level"].string());
  EXPECT_EQ(levels, (std::vector<std::string>{"INFO", "INFO", "WARN", "WARN", "ERROR", "ERROR"}));
  int errors = 0;
  int throttles = 0;
  int faults = 0;
  for (const Json& segment : all.segments) {
    errors += segment.has("error");
    throttles += segment.has("throttle");
    faults += segment.has("fault");
  }
  EXPECT_EQ(errors, 2);
  EXPECT_EQ(throttles, 1);
  EXPECT_EQ(faults, 2);
}

TEST_F(ObservabilityTest, APathThatNoTemplateFitsIsNoMetric) {
  for (const std::string_view target : {"/etc/passwd", "/orders/1/2", "/%ff"}) {
    Incoming request = incoming();
    request.target = target;
    chain.begin(request.view()).finish({.status = 404});
  }
  const testing::Sent all = sent();
  EXPECT_EQ(all.metrics.at("Requests|*|(unmatched)")["Value"].number(), 3);
  EXPECT_EQ(all.segments.at(0)["annotations"]["operation"].string(), "(unmatched)");
  EXPECT_EQ(all.logs.at(0)["route"].string(), "(unmatched)");
}

TEST_F(ObservabilityTest, AnExceptionFinishesTheRequestAsAFault) {
  EXPECT_THROW(
      {
        auto exchange = chain.begin(incoming().view());
        throw std::runtime_error("handler");
      },
      std::runtime_error);
  const testing::Sent all = sent();
  EXPECT_EQ(all.logs.at(0)["status"].number(), 500);
  EXPECT_EQ(all.logs.at(0)["ending"].string(), "failed");
  EXPECT_TRUE(all.segments.at(0)["fault"].boolean());
  EXPECT_EQ(all.metrics.at("Faults|GET|/orders/{id}")["Value"].number(), 1);
  EXPECT_EQ(all.metrics.at("InFlight")["StatisticValues"]["Minimum"].number(), 0);
}

TEST_F(ObservabilityTest, AnExceptionThatWasAnsweredIsToldOfWithItsType) {
  {
    auto exchange = chain.begin(incoming().view());
    exchange.fail(std::make_exception_ptr(std::out_of_range("account 4711")));
    exchange.finish({.status = 500});
  }
  const testing::Sent all = sent();
  EXPECT_EQ(all.logs.at(0)["level"].string(), "ERROR");
  EXPECT_EQ(all.logs.at(0)["ending"].string(), "sent");
  EXPECT_EQ(all.logs.at(0)["exception"].string(), "std::out_of_range");
  EXPECT_EQ(all.logs.at(0)["exception_message"].string(), "account 4711");
  EXPECT_TRUE(all.segments.at(0)["fault"].boolean());
}

TEST_F(ObservabilityTest, ACancelledRequestIsTheClientsError) {
  { const auto exchange = chain.begin(incoming().view()); }
  const testing::Sent all = sent();
  EXPECT_EQ(all.logs.at(0)["status"].number(), 499);
  EXPECT_EQ(all.logs.at(0)["ending"].string(), "cancelled");
  EXPECT_TRUE(all.segments.at(0)["error"].boolean());
  EXPECT_FALSE(all.segments.at(0).has("fault"));
  EXPECT_EQ(all.metrics.at("ClientErrors|GET|/orders/{id}")["Value"].number(), 1);
  EXPECT_EQ(all.metrics.at("InFlight")["StatisticValues"]["Minimum"].number(), 0);
}

TEST_F(ObservabilityTest, AConnectionThatBreaksUnderTheResponseIsAnError) {
  chain.begin(incoming().view()).finish({.status = 200, .ending = Ending::broken});
  const testing::Sent all = sent();
  EXPECT_EQ(all.logs.at(0)["level"].string(), "ERROR");
  EXPECT_EQ(all.logs.at(0)["status"].number(), 200);
  EXPECT_EQ(all.logs.at(0)["ending"].string(), "broken");
  EXPECT_TRUE(all.segments.at(0)["error"].boolean());
}

// A step behind that refuses is observed like a handler's answer.
struct Refusing {
  struct State {};
  Verdict before(State& /*state*/, Exchange& exchange) {
    return exchange.refuse(429, "slowly", "test: too fast");
  }
};
TEST_F(ObservabilityTest, ARefusalIsObserved) {
  Refusing refusing;
  const Chain with(routes, request_id, observability, refusing);
  {
    auto exchange = with.begin(incoming().view());
    ASSERT_TRUE(exchange.has_reply());
    exchange.finish({.status = exchange.reply().status});
  }
  const testing::Sent all = sent();
  EXPECT_EQ(all.metrics.at("Throttles|GET|/orders/{id}")["Value"].number(), 1);
  EXPECT_TRUE(all.segments.at(0)["throttle"].boolean());
  EXPECT_EQ(all.segments.at(0)["annotations"]["decision"].string(), "test: too fast");
  EXPECT_EQ(all.logs.at(0)["decision"].string(), "test: too fast");
  EXPECT_EQ(all.logs.at(0)["trace_id"].string(), all.segments.at(0)["trace_id"].string());
}

TEST_F(ObservabilityTest, ARequestMayMoveBetweenThreads) {
  auto exchange = chain.begin(incoming().view());
  std::thread([&] {
    {
      const auto current = exchange.enter();
      const Span child = test.engine.span("charge-card");
      SPILLWAY_INFO(test.engine, "elsewhere");
    }
    EXPECT_TRUE(current_trace_header().empty()) << "the thread is its own again";
    exchange.finish({.status = 200});
  }).join();
  EXPECT_TRUE(current_trace_header().empty());
  const testing::Sent all = sent();
  ASSERT_EQ(all.segments.size(), 1U);
  EXPECT_EQ(all.segments[0]["subsegments"][0]["name"].string(), "charge-card");
  EXPECT_EQ(all.logs.at(0)["trace_id"].string(), all.segments[0]["trace_id"].string());
}

TEST_F(ObservabilityTest, RequestsInterleaveOnOneThread) {
  auto first = chain.begin(incoming().view());
  Incoming other = incoming();
  other.fields[1].value = "r-2";
  auto second = chain.begin(other.view());
  for (auto* const exchange : {&first, &second, &first}) {
    const auto current = exchange->enter();
    SPILLWAY_INFO(test.engine, "inside");
  }
  first.finish({.status = 200});
  second.finish({.status = 200});
  const testing::Sent all = sent();
  std::vector<std::string> ids;
  for (const Json& log : all.logs) ids.push_back(log["request_id"].string());
  EXPECT_EQ(ids, (std::vector<std::string>{"r-1", "r-2", "r-1", "r-1", "r-2"}));
  ASSERT_EQ(all.segments.size(), 2U);
  EXPECT_NE(all.segments[0]["trace_id"].string(), all.segments[1]["trace_id"].string());
}

TEST_F(ObservabilityTest, TheCallersTraceGoesOn) {
  Incoming request = incoming();
  request.fields.push_back(
      {"x-amzn-trace-id",
       "Root=1-6b00e354-0f1e2d3c4b5a69788796a5b4;Parent=1a2b3c4d5e6f7081;Sampled=1"});
  {
    auto exchange = chain.begin(request.view());
    EXPECT_EQ(exchange.headers().back().value,
              "Root=1-6b00e354-0f1e2d3c4b5a69788796a5b4;Sampled=1");
    const auto current = exchange.enter();
    EXPECT_EQ(current_trace_header().substr(0, 40), "Root=1-6b00e354-0f1e2d3c4b5a69788796a5b4");
    exchange.finish({.status = 200});
  }
  const testing::Sent all = sent();
  EXPECT_EQ(all.segments.at(0)["trace_id"].string(), "1-6b00e354-0f1e2d3c4b5a69788796a5b4");
  EXPECT_EQ(all.segments.at(0)["parent_id"].string(), "1a2b3c4d5e6f7081");
}

TEST_F(ObservabilityTest, AnUntrustedEdgeBeginsItsOwnTrace) {
  Incoming request = incoming();
  request.fields.push_back(
      {"X-Amzn-Trace-Id",
       "Root=1-6b00e354-0f1e2d3c4b5a69788796a5b4;Parent=1a2b3c4d5e6f7081;Sampled=0"});
  ObservabilityOptions options;
  options.trust_trace_header = false;
  serve(options, 200, request);
  const testing::Sent all = sent();
  const Json segment = all.segments.at(0);
  EXPECT_NE(segment["trace_id"].string(), "1-6b00e354-0f1e2d3c4b5a69788796a5b4");
  EXPECT_FALSE(segment.has("parent_id"));
  EXPECT_EQ(segment["links"][0]["trace_id"].string(), "1-6b00e354-0f1e2d3c4b5a69788796a5b4");
}

TEST_F(ObservabilityTest, AnUnsampledRequestIsLoggedAndMeasured) {
  Incoming request = incoming();
  request.fields.push_back(
      {"X-Amzn-Trace-Id", "Root=1-6b00e354-0f1e2d3c4b5a69788796a5b4;Sampled=0"});
  {
    auto exchange = chain.begin(request.view());
    const auto current = exchange.enter();
    const Span child = test.engine.span("charge-card");
    EXPECT_FALSE(child.recording());
    exchange.finish({.status = 200});
  }
  const testing::Sent all = sent();
  EXPECT_TRUE(all.segments.empty());
  EXPECT_EQ(all.logs.at(0)["request_id"].string(), "r-1");
  EXPECT_EQ(all.metrics.at("Requests|GET|/orders/{id}")["Value"].number(), 1);
}

TEST_F(ObservabilityTest, PresetsDoOneThing) {
  serve(ObservabilityOptions::metrics_only(), 500);
  testing::Sent all = sent();
  EXPECT_TRUE(all.logs.empty());
  EXPECT_TRUE(all.segments.empty());
  EXPECT_EQ(all.metrics.at("Faults|GET|/orders/{id}")["Value"].number(), 1);
}
TEST_F(ObservabilityTest, LoggingOnlyLogs) {
  serve(ObservabilityOptions::logging_only(), 500);
  const testing::Sent all = sent();
  EXPECT_EQ(all.logs.size(), 1U);
  EXPECT_EQ(all.logs.at(0)["tenant"].string(), "acme");
  EXPECT_TRUE(all.segments.empty());
  EXPECT_TRUE(all.metrics.empty());
}
TEST_F(ObservabilityTest, TracingOnlyTraces) {
  serve(ObservabilityOptions::tracing_only(), 500);
  const testing::Sent all = sent();
  EXPECT_TRUE(all.logs.empty());
  EXPECT_TRUE(all.segments.at(0)["fault"].boolean());
  EXPECT_TRUE(all.metrics.empty());
}

TEST_F(ObservabilityTest, TagsAreDimensions) {
  ObservabilityOptions options;
  options.tags = {{"Cell", "7"}};
  serve(options, 200);
  const testing::Sent all = sent();
  EXPECT_EQ(all.metrics.count("Requests|7|GET|/orders/{id}"), 1U);
  EXPECT_EQ(all.metrics.count("InFlight|7"), 1U);
}

TEST_F(ObservabilityTest, OperationsNameSegmentsAndHaveABound) {
  ObservabilityOptions options;
  options.operation = from_header("X-Amz-Target");
  options.operations_max = 2;
  Observability step(test.engine, routes, options);
  const Chain one(routes, step);
  for (const std::string_view operation : {"Put", "Get", "Put", "Scan", "", "Scan"}) {
    Incoming request{{{"X-Amz-Target", operation}}, "POST", "/rpc"};
    one.begin(request.view()).finish({.status = 200});
  }
  const testing::Sent all = sent();
  EXPECT_EQ(all.metrics.at("Requests|POST|Put|/rpc")["Value"].number(), 2);
  EXPECT_EQ(all.metrics.at("Requests|POST|Get|/rpc")["Value"].number(), 1);
  EXPECT_EQ(all.metrics.at("Requests|POST|/rpc")["Value"].number(), 3) << "past the bound, or none";
  std::map<std::string, int> names;
  for (const Json& segment : all.segments) ++names[segment["annotations"]["operation"].string()];
  EXPECT_EQ(names, (std::map<std::string, int>{{"Put", 2}, {"Get", 1}, {"POST /rpc", 3}}));
  EXPECT_EQ(all.logs.at(0)["operation"].string(), "Put");
}

TEST_F(ObservabilityTest, ExtractorsMayComputeAndMayThrow) {
  ObservabilityOptions options;
  options.tenant = [](Exchange& exchange) {
    return exchange.keep("t-" + std::string(exchange.request.header("X-Tenant-ID")))
        .value_or(std::string_view{});
  };
  options.user = [](Exchange&) -> std::string_view { throw std::runtime_error("no user"); };
  serve(options, 200);
  const testing::Sent all = sent();
  EXPECT_EQ(all.logs.at(0)["tenant"].string(), "t-acme");
  EXPECT_FALSE(all.logs.at(0).has("user"));
  EXPECT_EQ(all.logs.at(0)["status"].number(), 200);
}

TEST_F(ObservabilityTest, SlowRequestsAreWarnings) {
  ObservabilityOptions options;
  options.slow_request = 1ms;
  serve(options, 200, incoming(), 999us);
  serve(options, 200, incoming(), 1ms);
  const testing::Sent all = sent();
  EXPECT_EQ(all.logs.at(0)["level"].string(), "INFO");
  EXPECT_EQ(all.logs.at(1)["level"].string(), "WARN");
  EXPECT_TRUE(all.logs.at(1)["slow"].boolean());
  EXPECT_EQ(all.logs.at(1)["duration_us"].number(), 1000);
  EXPECT_EQ(all.metrics.at("SlowRequests|GET|/orders/{id}")["Value"].number(), 1);
}

TEST_F(ObservabilityTest, TheSampleRateSparesWhatIsRemarkable) {
  ObservabilityOptions options;
  options.log_sample_rate = 0;
  options.slow_request = 1ms;
  serve(options, 200);
  serve(options, 404);
  serve(options, 500);
  serve(options, 200, incoming(), 2ms);
  const testing::Sent all = sent();
  EXPECT_EQ(all.logs.size(), 3U);
  EXPECT_EQ(all.metrics.at("Requests|GET|/orders/{id}")["Value"].number(), 4);
}

TEST_F(ObservabilityTest, HalfOfTheRequestsIsAboutHalf) {
  ObservabilityOptions options = ObservabilityOptions::logging_only();
  options.log_sample_rate = 0.5;
  Observability step(test.engine, routes, options);
  const Chain one(routes, step);
  for (int i = 0; i < 400; ++i) one.begin(incoming().view()).finish({.status = 200});
  const std::size_t logged = sent().logs.size();
  EXPECT_GT(logged, 120U);  // Eight standard deviations.
  EXPECT_LT(logged, 280U);
}

TEST_F(ObservabilityTest, BodiesAreLoggedOnRequestUpToALimit) {
  ObservabilityOptions options;
  options.log_body_bytes_max = 8;
  Observability step(test.engine, routes, options);
  const Chain one(routes, step);
  Incoming request = incoming();
  request.body = "{\"a\":\"0123456789\"}";
  one.begin(request.view()).finish({.status = 200, .body = "short"});
  chain.begin(request.view()).finish({.status = 200, .body = "short"});
  const testing::Sent all = sent();
  EXPECT_EQ(all.logs.at(0)["request_body"].string(), "{\"a\":\"01");
  EXPECT_EQ(all.logs.at(0)["response_body"].string(), "short");
  EXPECT_FALSE(all.logs.at(1).has("request_body"));
}

TEST_F(ObservabilityTest, SecretsInBodiesAreTakenOutAlsoWhereABodyIsCut) {
  ObservabilityOptions options;
  Incoming request = incoming();
  request.body = R"({"user":"jane@example.com","password":"hunter2 and more"})";
  for (const std::size_t bytes_max : {100U, 48U, 44U, 20U}) {
    options.log_body_bytes_max = bytes_max;
    serve(options, 200, request);
  }
  const testing::Sent all = sent();
  ASSERT_EQ(all.logs.size(), 4U);
  for (const Json& log : all.logs) {
    const std::string body = log["request_body"].string();
    EXPECT_TRUE(body.starts_with(R"({"user":")")) << body;
    EXPECT_EQ(body.find("hun"), body.npos) << body;
  }
  EXPECT_EQ(all.logs[0]["request_body"].string(),
            R"({"user":"[redacted]","password":"[redacted]"})");
}

TEST_F(ObservabilityTest, SecretsInResponseBodiesAreTakenOutTooAndNothingOfThemIsSent) {
  const std::string body =
      R"({"order":17,"user":"jane@example.com","password":"hunter2 and more"})";
  ObservabilityOptions options;
  Incoming request = incoming();
  for (const std::size_t bytes_max : {100U, 59U, 55U, 27U}) {
    options.log_body_bytes_max = bytes_max;
    Observability step(test.engine, routes, options);
    const Chain one(routes, request_id, step);
    one.begin(request.view())
        .finish({.status = 200, .body = body, .content_type = "application/json"});
  }
  const testing::Sent all = sent();
  ASSERT_EQ(all.logs.size(), 4U);
  for (const Json& log : all.logs) {
    const std::string logged = log["response_body"].string();
    EXPECT_TRUE(logged.starts_with(R"({"order":17,"user":")")) << logged;
    for (const std::string_view secret : {"jane@", "hun"})
      EXPECT_EQ(logged.find(secret), logged.npos) << logged;
  }
  EXPECT_EQ(all.logs[0]["response_body"].string(),
            R"({"order":17,"user":"[redacted]","password":"[redacted]"})");
  for (const auto& sent_out : test.http.requests()) {
    const std::string text = testing::body_of(sent_out);
    EXPECT_EQ(text.find("hunter2"), text.npos) << text;
    EXPECT_EQ(text.find("jane@"), text.npos) << text;
  }
}

TEST_F(ObservabilityTest, AnAddressOrACardThatTheLimitCutsIsLeftOutAsAWhole) {
  const std::string before = "Card: ";
  const std::string card = "4111 1111 1111 1111";
  const std::string between = ", mail: ";
  const std::string mail = "jane@example.com";
  const std::string body = before + card + between + mail + ", order: 0123456789";
  const std::size_t mail_at = before.size() + card.size() + between.size();
  const auto logged = [&](std::size_t bytes_max) {
    ObservabilityOptions options;
    options.log_body_bytes_max = bytes_max;
    Observability step(test.engine, routes, options);
    const Chain one(routes, request_id, step);
    Incoming request = incoming();
    test.http.forget_requests();
    one.begin(request.view()).finish({.status = 200, .body = body, .content_type = "text/plain"});
    return sent().logs.at(0)["response_body"].string();
  };
  for (std::size_t of_card = 1; of_card < card.size(); ++of_card) {
    const std::string text = logged(before.size() + of_card);
    EXPECT_TRUE(text == before || text == "Card:") << text;
  }
  for (std::size_t of_mail = 1; of_mail < mail.size(); ++of_mail) {
    const std::string text = logged(mail_at + of_mail);
    EXPECT_EQ(text.find("jane"), text.npos) << text;
    EXPECT_TRUE(text.ends_with(between)) << text;
  }
  EXPECT_TRUE(logged(body.size() - 5).ends_with("order: 01234")) << "neither of the two";
}

TEST_F(ObservabilityTest, BodiesThatAreNoTextAreNotLoggedAndCharactersAreNotCut) {
  ObservabilityOptions options;
  options.log_body_bytes_max = 4;
  Observability step(test.engine, routes, options);
  const Chain one(routes, step);
  Incoming request = incoming();
  request.fields.push_back({"content-type", "image/png"});
  request.body = "\x89PNG";
  one.begin(request.view())
      .finish({.status = 200,
               .body = "abc\xc3\xbc",
               .content_type = "Application/Problem+JSON; charset=utf-8"});
  const testing::Sent all = sent();
  EXPECT_EQ(all.logs.at(0)["request_body"].string(), "");
  EXPECT_EQ(all.logs.at(0)["response_body"].string(), "abc");
}

TEST_F(ObservabilityTest, OptionsThatCannotBeAreRefused) {
  const auto refused = [&](auto change) {
    ObservabilityOptions options;
    change(options);
    EXPECT_THROW(Observability(test.engine, routes, options), std::invalid_argument);
  };
  refused([](auto& options) { options.log_sample_rate = 1.01; });
  refused([](auto& options) { options.log_sample_rate = std::nan(""); });
  refused([](auto& options) { options.slow_request = -1us; });
  refused([](auto& options) { options.operations_max = 100'001; });
  refused([](auto& options) { options.log_body_bytes_max = 65'537; });
}

TEST_F(ObservabilityTest, AHeaderForRequestIdsHasAName) {
  for (const char* const name : {"", "X Request", "X-Request-ID:", "X-\xc3\xbc", "a\r\nb"})
    EXPECT_THROW(RequestId({.header = name}), std::invalid_argument) << name;
  EXPECT_NO_THROW(RequestId({.header = "x-amzn-requestid"}));
}

TEST_F(ObservabilityTest, AnUnusableRequestIdIsReplaced) {
  for (const std::string& id :
       {std::string(), std::string("a b"), std::string("a\r\nb"), std::string(129, 'x'),
        std::string("\xc3\xbc"), std::string("a,b"), std::string("\"")}) {
    Incoming request{{{"X-Request-ID", id}}};
    auto exchange = chain.begin(request.view());
    EXPECT_EQ(exchange.request_id.size(), 32U);
    EXPECT_EQ(exchange.request_id.find_first_not_of("0123456789abcdef"), std::string_view::npos);
    EXPECT_EQ(exchange.headers().front().name, "X-Request-ID");
    EXPECT_EQ(exchange.headers().front().value, exchange.request_id);
    exchange.finish({.status = 200});
  }
}

TEST_F(ObservabilityTest, RequestIdsAreMadeAtAnEdgeAndDiffer) {
  RequestId edge({.accept = false, .respond = false});
  const Chain one(routes, edge);
  Incoming request = incoming();
  const auto first = one.begin(request.view());
  const auto second = one.begin(request.view());
  EXPECT_EQ(first.request_id.size(), 32U);
  EXPECT_NE(first.request_id, second.request_id);
  EXPECT_TRUE(first.headers().empty());
  EXPECT_TRUE(is_request_id(std::string(128, 'x')));
}

namespace beast_http = boost::beast::http;
using BeastRequest = beast_http::request<beast_http::string_body>;
using BeastResponse = beast_http::response<beast_http::string_body>;

BeastRequest beast_request() {
  BeastRequest request{beast_http::verb::get, "/orders/17?page=2", 11};
  request.set("Host", "shop.example");
  request.set("x-tenant-id", "acme");
  request.set("X-User-ID", "u-17");
  request.set("X-Request-ID", "r-1");
  request.set("X-Amzn-Trace-Id", "Root=1-6b00e354-0f1e2d3c4b5a69788796a5b4;Sampled=1");
  return request;
}

TEST_F(ObservabilityTest, BeastMessagesAreReadAndAnswered) {
  const BeastRequest request = beast_request();
  auto exchange = chain.begin(beast_view(request, "203.0.113.9"));
  const BeastResponse response = beast_answer(exchange, request, [&] {
    BeastResponse made{beast_http::status::not_found, 11};
    made.body() = "nothing here";
    made.prepare_payload();
    return made;
  });
  EXPECT_EQ(response["X-Request-ID"], "r-1");
  EXPECT_EQ(response["X-Amzn-Trace-Id"].substr(0, 40), "Root=1-6b00e354-0f1e2d3c4b5a69788796a5b4");
  beast_finish(exchange, response, boost::system::error_code());
  const testing::Sent all = sent();
  EXPECT_EQ(all.logs.at(0)["status"].number(), 404);
  EXPECT_EQ(all.logs.at(0)["body_bytes"].number(), 12);
  EXPECT_EQ(all.logs.at(0)["tenant"].string(), "acme");
  EXPECT_EQ(all.segments.at(0)["http"]["request"]["url"].string(), "http://shop.example/orders/17");
  EXPECT_TRUE(all.segments.at(0)["error"].boolean());
}

TEST_F(ObservabilityTest, ABeastHandlerThatThrowsIsAnsweredAndABrokenConnectionToldOf) {
  const BeastRequest request = beast_request();
  auto exchange = chain.begin(beast_view(request, "203.0.113.9"));
  const BeastResponse response =
      beast_answer(exchange, request, []() -> BeastResponse { throw std::runtime_error("x"); });
  EXPECT_EQ(response.result_int(), 500U);
  EXPECT_EQ(response["Content-Type"], "application/problem+json");
  EXPECT_EQ(response["Content-Length"], std::to_string(response.body().size()));
  EXPECT_EQ(response["X-Request-ID"], "r-1");
  EXPECT_EQ(Json(response.body())["request_id"].string(), "r-1");
  beast_finish(exchange, response,
               boost::system::error_code(boost::system::errc::broken_pipe,
                                         boost::system::generic_category()));
  const testing::Sent all = sent();
  EXPECT_EQ(all.logs.at(0)["ending"].string(), "broken");
  EXPECT_EQ(all.logs.at(0)["exception"].string(), "std::runtime_error");
}

TEST_F(ObservabilityTest, ABodyThatIsReplacedTakesItsOwnFieldsWithIt) {
  ErrorBody error_body(ErrorBodies::all);
  const Chain with(routes, request_id, error_body);
  const BeastRequest request = beast_request();
  auto exchange = with.begin(beast_view(request, "203.0.113.9"));
  const BeastResponse response = beast_answer(exchange, request, [] {
    BeastResponse made{beast_http::status::bad_gateway, 11};
    made.set("Content-Encoding", "gzip");
    made.set("ETag", "\"1\"");
    made.set("Allow", "GET");
    made.body() = "not plain text";
    made.prepare_payload();
    return made;
  });
  EXPECT_EQ(response["Content-Type"], "application/problem+json");
  EXPECT_EQ(response["Allow"], "GET");
  EXPECT_EQ(response.count("Content-Encoding"), 0U);
  EXPECT_EQ(response.count("ETag"), 0U);
  EXPECT_EQ(response["Content-Length"], std::to_string(response.body().size()));
  beast_finish(exchange, response, boost::system::error_code());
}

// A body behind an answer to HEAD would be read as the next response.
TEST_F(ObservabilityTest, AReplyToHeadHasALengthAndNoBody) {
  BeastRequest request = beast_request();
  request.method(beast_http::verb::head);
  Refusing refusing;
  const Chain with(routes, request_id, refusing);
  auto exchange = with.begin(beast_view(request, "203.0.113.9"));
  const BeastResponse response = beast_answer(exchange, request, [] { return BeastResponse(); });
  EXPECT_EQ(response.result_int(), 429U);
  EXPECT_EQ(response.body(), "");
  EXPECT_EQ(response["Content-Length"], std::to_string(exchange.reply().body.size()));
  beast_finish(exchange, response, boost::system::error_code());
}

TEST_F(ObservabilityTest, MessagesMayCarryTraceparentOnceAndTracestateOften) {
  BeastRequest request;
  const std::string traceparent = "00-6b00e3540f1e2d3c4b5a69788796a5b4-1a2b3c4d5e6f7081-01";
  request.set("traceparent", traceparent);
  request.insert("tracestate", "rojo=1");
  request.insert("TraceState", "congo=2, blau=3");
  const auto outgoing = [&] {
    auto exchange = chain.begin(beast_view(request, "203.0.113.9"));
    const auto current = exchange.enter();
    exchange.finish({.status = 200});
    return current_trace_headers();
  };
  const OutgoingTrace once = outgoing();
  EXPECT_EQ(once.traceparent.substr(0, 36), traceparent.substr(0, 36));
  EXPECT_EQ(once.tracestate, "rojo=1,congo=2,blau=3");
  EXPECT_EQ(sent().segments.at(0)["parent_id"].string(), "1a2b3c4d5e6f7081");

  request.insert("Traceparent", traceparent);
  const OutgoingTrace twice = outgoing();
  EXPECT_NE(twice.traceparent.substr(0, 36), traceparent.substr(0, 36));
  EXPECT_EQ(twice.tracestate, "");
  EXPECT_EQ(test.engine.stats().trace_headers_refused, 1U);
}

// The exchange's room is for the answer: a client cannot use it up by its headers.
TEST_F(ObservabilityTest, LongTraceHeadersLeaveRoomForTheAnswer) {
  Refusing refusing;
  const Chain with(routes, request_id, observability, refusing);
  const std::string state = "rojo=" + std::string(900, 'x');
  const std::string parent(900, '0');
  Incoming request = incoming();
  for (int i = 0; i < 2; ++i) {
    request.fields.push_back({"tracestate", state});
    request.fields.push_back({"traceparent", parent});
  }
  auto exchange = with.begin(request.view());
  exchange.add_header("X-More", "of a step behind it");
  EXPECT_NE(exchange.reply().body.find("slowly"), std::string_view::npos) << exchange.reply().body;
  EXPECT_EQ(exchange.headers().size(), 3U) << "the request's id, its trace, and one more";
  exchange.finish({.status = 429});
}

TEST_F(ObservabilityTest, RepeatedBeastFieldsAreReachedOneByOne) {
  BeastRequest request;
  request.insert("X-Forwarded-For", "");
  request.insert("Via", "a");
  request.insert("x-forwarded-for", "10.0.0.1");
  const Headers headers = beast_headers(request);
  EXPECT_TRUE(headers.contains("X-FORWARDED-FOR"));
  EXPECT_EQ(headers.find("X-Forwarded-For", 0), "");
  EXPECT_EQ(headers.find("X-Forwarded-For", 1), "10.0.0.1");
  EXPECT_EQ(headers.find("X-Forwarded-For", 2).data(), nullptr);
  EXPECT_FALSE(headers.contains("X-Forwarded"));
}

}  // namespace
}  // namespace spillway::middleware
