// SPDX-License-Identifier: Apache-2.0
//
// The observability middleware: what one request leaves behind in logs, metrics and traces, and the
// Beast adapter.
#include <map>

#include <boost/beast/http.hpp>
#include <support/engine_fixture.hpp>
#include <support/gunzip.hpp>

#include <spillway/middleware/beast.hpp>
#include <spillway/middleware/http_server.hpp>

namespace spillway {
namespace {

using namespace std::chrono_literals;
using testing::Json;

class HttpServerTest : public ::testing::Test {
 protected:
  struct Sent {
    std::vector<Json> logs;
    std::vector<Json> segments;
    std::map<std::string, Json> metrics;
  };
  Sent sent() {
    EXPECT_TRUE(test.engine.flush(1s));
    Sent all;
    for (const auto& request : test.http.requests()) {
      const Json body(testing::body_of(request));
      if (body.has("logEvents")) {
        for (std::size_t i = 0; i < body["logEvents"].size(); ++i) {
          all.logs.emplace_back(body["logEvents"][i]["message"].string());
        }
      } else if (body.has("TraceSegmentDocuments")) {
        for (std::size_t i = 0; i < body["TraceSegmentDocuments"].size(); ++i) {
          all.segments.emplace_back(body["TraceSegmentDocuments"][i].string());
        }
      } else {
        for (std::size_t i = 0; i < body["MetricData"].size(); ++i) {
          const Json datum = body["MetricData"][i];
          std::string key = datum["MetricName"].string();
          for (std::size_t d = 0; d < datum["Dimensions"].size(); ++d) {
            const std::string name = datum["Dimensions"][d]["Name"].string();
            if (name != "Service") key += "|" + datum["Dimensions"][d]["Value"].string();
          }
          all.metrics.emplace(key, datum);
        }
      }
    }
    return all;
  }

  testing::AwsEnvironment environment;
  testing::TestEngine test{testing::aws_config()};
  HttpServerObservability http{test.engine};
  HttpServerObservability::Route route = http.route("GET", "/orders/{id}");
};

TEST_F(HttpServerTest, OneRequestIsOneLogOneSegmentAndItsMetrics) {
  {
    auto request = http.begin(route, {.method = "GET",
                                      .target = "/orders/17?token=secret",
                                      .host = "shop.example",
                                      .user_agent = "curl/8",
                                      .peer_ip = "203.0.113.9",
                                      .request_id = "r-1",
                                      .tenant = "acme",
                                      .user = "u-17"});
    SPILLWAY_INFO(test.engine, "inside");
    EXPECT_EQ(request.request_id(), "r-1");
    request.finish(200, 1234);
  }
  const Sent all = sent();
  ASSERT_EQ(all.logs.size(), 2U);
  EXPECT_EQ(all.logs[0]["tenant"].string(), "acme");
  EXPECT_EQ(all.logs[0]["request_id"].string(), "r-1");
  const Json& access = all.logs[1];
  EXPECT_EQ(access["message"].string(), "request");
  EXPECT_EQ(access["method"].string(), "GET");
  EXPECT_EQ(access["route"].string(), "/orders/{id}");
  EXPECT_EQ(access["status"].number(), 200);
  EXPECT_EQ(access["body_bytes"].number(), 1234);
  EXPECT_EQ(access["user"].string(), "u-17");
  ASSERT_EQ(all.segments.size(), 1U);
  const Json& segment = all.segments[0];
  EXPECT_EQ(segment["name"].string(), "orders");
  EXPECT_EQ(segment["annotations"]["operation"].string(), "GET /orders/{id}");
  EXPECT_EQ(segment["http"]["request"]["url"].string(), "http://shop.example/orders/17")
      << "without the query";
  EXPECT_EQ(segment["http"]["request"]["client_ip"].string(), "203.0.113.9");
  EXPECT_EQ(segment["http"]["response"]["status"].number(), 200);
  EXPECT_EQ(segment["user"].string(), "u-17");
  EXPECT_EQ(access["trace_id"].string(), segment["trace_id"].string());
  EXPECT_EQ(all.metrics.at("Requests|GET|/orders/{id}")["Value"].number(), 1);
  EXPECT_EQ(all.metrics.at("Latency|GET|/orders/{id}")["StatisticValues"]["SampleCount"].number(),
            1);
  EXPECT_EQ(all.metrics.at("TenantRequests|acme")["Value"].number(), 1);
  EXPECT_EQ(all.metrics.at("InFlight")["StatisticValues"]["Maximum"].number(), 1);
  EXPECT_EQ(all.metrics.at("InFlight")["StatisticValues"]["Minimum"].number(), 0);
  EXPECT_EQ(all.metrics.size(), 4U);
}

TEST_F(HttpServerTest, StatusesAreCountedAsWhatTheyAre) {
  for (const int status : {200, 301, 404, 429, 500, 503}) {
    auto request = http.begin(route, {.method = "GET", .target = "/orders/1"});
    request.finish(status);
  }
  const Sent all = sent();
  EXPECT_EQ(all.metrics.at("Requests|GET|/orders/{id}")["Value"].number(), 6);
  EXPECT_EQ(all.metrics.at("ClientErrors|GET|/orders/{id}")["Value"].number(), 2);
  EXPECT_EQ(all.metrics.at("Faults|GET|/orders/{id}")["Value"].number(), 2);
}

TEST_F(HttpServerTest, AnExceptionFinishesTheRequestAsAFault) {
  EXPECT_THROW(
      {
        auto request = http.begin(route, {.method = "GET", .target = "/orders/1"});
        throw std::runtime_error("handler");
      },
      std::runtime_error);
  const Sent all = sent();
  EXPECT_EQ(all.logs.at(0)["status"].number(), 500);
  EXPECT_TRUE(all.segments.at(0)["fault"].boolean());
  EXPECT_EQ(all.metrics.at("Faults|GET|/orders/{id}")["Value"].number(), 1);
  EXPECT_EQ(all.metrics.at("InFlight")["StatisticValues"]["Minimum"].number(), 0);
}

TEST_F(HttpServerTest, TheCallersTraceGoesOn) {
  {
    auto request = http.begin(
        route, {.method = "GET",
                .target = "/orders/1",
                .trace_header =
                    "Root=1-6b00e354-0f1e2d3c4b5a69788796a5b4;Parent=1a2b3c4d5e6f7081;Sampled=1"});
    EXPECT_EQ(request.trace_header().substr(0, 40), "Root=1-6b00e354-0f1e2d3c4b5a69788796a5b4");
    request.finish(200);
  }
  const Sent all = sent();
  EXPECT_EQ(all.segments.at(0)["trace_id"].string(), "1-6b00e354-0f1e2d3c4b5a69788796a5b4");
  EXPECT_EQ(all.segments.at(0)["parent_id"].string(), "1a2b3c4d5e6f7081");
}

TEST_F(HttpServerTest, AnUntrustedEdgeBeginsItsOwnTrace) {
  HttpServerObservability edge(test.engine, {.trust_trace_header = false});
  {
    auto request = edge.begin(
        route, {.method = "GET",
                .target = "/orders/1",
                .trace_header =
                    "Root=1-6b00e354-0f1e2d3c4b5a69788796a5b4;Parent=1a2b3c4d5e6f7081;Sampled=0"});
    EXPECT_TRUE(request.span().recording());
    request.finish(200);
  }
  const Sent all = sent();
  const Json segment = all.segments.at(0);
  EXPECT_NE(segment["trace_id"].string(), "1-6b00e354-0f1e2d3c4b5a69788796a5b4");
  EXPECT_FALSE(segment.has("parent_id"));
  EXPECT_EQ(segment["links"][0]["trace_id"].string(), "1-6b00e354-0f1e2d3c4b5a69788796a5b4");
}

TEST_F(HttpServerTest, AnUnusableRequestIdIsReplaced) {
  for (const std::string& id : {std::string(), std::string("a b"), std::string("a\r\nb"),
                                std::string(129, 'x'), std::string("\xc3\xbc")}) {
    auto request = http.begin(route, {.method = "GET", .target = "/", .request_id = id});
    EXPECT_EQ(request.request_id().size(), 32U);
    EXPECT_EQ(request.request_id().find_first_not_of("0123456789abcdef"), std::string_view::npos);
    request.finish(200);
  }
}

TEST_F(HttpServerTest, TheForwardedAddressIsTakenOnlyWhenTrusted) {
  HttpServerObservability behind_proxy(test.engine, {.trust_forwarded_for = true});
  for (HttpServerObservability* const server : {&http, &behind_proxy}) {
    auto request = server->begin(route, {.method = "GET",
                                         .target = "/",
                                         .peer_ip = "10.0.0.1",
                                         .forwarded_for = " 203.0.113.9 , 10.0.0.2"});
    request.finish(200);
  }
  std::map<std::string, bool> addresses;  // and whether they were forwarded
  for (const Json& segment : sent().segments) {
    const Json request = segment["http"]["request"];
    addresses[request["client_ip"].string()] = request.has("x_forwarded_for");
  }
  EXPECT_EQ(addresses, (std::map<std::string, bool>{{"10.0.0.1", false}, {"203.0.113.9", true}}));
}

TEST_F(HttpServerTest, BeastMessagesAreReadAndAnswered) {
  namespace beast_http = boost::beast::http;
  beast_http::request<beast_http::string_body> request{beast_http::verb::get, "/orders/17", 11};
  request.set("Host", "shop.example");
  request.set("x-tenant-id", "acme");
  request.set("X-User-ID", "u-17");
  request.set("X-Request-ID", "r-1");
  request.set("X-Amzn-Trace-Id", "Root=1-6b00e354-0f1e2d3c4b5a69788796a5b4;Sampled=1");
  const auto response = observe(http, route, request, "203.0.113.9", [&] {
    beast_http::response<beast_http::string_body> made{beast_http::status::not_found, 11};
    made.body() = "nothing here";
    made.prepare_payload();
    return made;
  });
  EXPECT_EQ(response["X-Request-ID"], "r-1");
  EXPECT_EQ(response["X-Amzn-Trace-Id"].substr(0, 40), "Root=1-6b00e354-0f1e2d3c4b5a69788796a5b4");
  const Sent all = sent();
  EXPECT_EQ(all.logs.at(0)["status"].number(), 404);
  EXPECT_EQ(all.logs.at(0)["body_bytes"].number(), 12);
  EXPECT_EQ(all.logs.at(0)["tenant"].string(), "acme");
  EXPECT_TRUE(all.segments.at(0)["error"].boolean());
}

TEST_F(HttpServerTest, BeastMessagesMayCarryTraceparentOnceAndTracestateOften) {
  namespace beast_http = boost::beast::http;
  beast_http::request<beast_http::string_body> request{beast_http::verb::get, "/orders/17", 11};
  const std::string traceparent = "00-6b00e3540f1e2d3c4b5a69788796a5b4-1a2b3c4d5e6f7081-01";
  request.set("traceparent", traceparent);
  request.insert("tracestate", "rojo=1");
  request.insert("TraceState", "congo=2, blau=3");
  OutgoingTrace outgoing;
  const auto handle = [&] {
    outgoing = current_trace_headers();
    return beast_http::response<beast_http::string_body>{beast_http::status::ok, 11};
  };
  observe(http, route, request, "203.0.113.9", handle);
  EXPECT_EQ(outgoing.traceparent.substr(0, 36), traceparent.substr(0, 36));
  EXPECT_EQ(outgoing.tracestate, "rojo=1,congo=2,blau=3");
  EXPECT_EQ(sent().segments.at(0)["parent_id"].string(), "1a2b3c4d5e6f7081");

  request.insert("Traceparent", traceparent);
  observe(http, route, request, "203.0.113.9", handle);
  EXPECT_NE(outgoing.traceparent.substr(0, 36), traceparent.substr(0, 36));
  EXPECT_EQ(outgoing.tracestate, "");
  EXPECT_EQ(test.engine.stats().trace_headers_refused, 1U);
}

}  // namespace
}  // namespace spillway
