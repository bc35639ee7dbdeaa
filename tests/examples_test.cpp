// SPDX-License-Identifier: Apache-2.0
//
// The examples of tools/examples as programs of their own, each under load and delivering to the local
// receiver: what was asked, recorded, delivered and received is the same number, and the answers are
// what the steps of the chain make of them.
#include <atomic>
#include <charconv>
#include <deque>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <support/json.hpp>
#include <support/program.hpp>
#include <support/raw_client.hpp>

#include "local/receiver.hpp"

namespace spillway {
namespace {

using namespace std::chrono_literals;
using testing::Json;

constexpr int connections = 3;
constexpr int requests_each = 200;

struct Example {
  const char* name;
  std::string path;
  std::vector<std::string> arguments;
};
void PrintTo(const Example& example, std::ostream* out) { *out << example.name; }

/// An example, its receiver, and the account between them.
class ExamplesTest : public ::testing::TestWithParam<Example> {
 protected:
  ExamplesTest() {
    const std::string line = program.read_line();
    constexpr std::string_view greeting = "listening on 127.0.0.1:";
    EXPECT_TRUE(line.starts_with(greeting)) << line;
    if (!line.starts_with(greeting)) return;
    std::from_chars(line.data() + greeting.size(), line.data() + line.size(), port);
  }

  std::vector<std::string> environment() const {
    return {"AWS_ENDPOINT_URL=" + receiver.endpoint(),
            "AWS_ACCESS_KEY_ID=local",
            "AWS_SECRET_ACCESS_KEY=local-secret",
            "AWS_REGION=eu-west-1",
            "AWS_CONFIG_FILE=/nonexistent",
            "AWS_SHARED_CREDENTIALS_FILE=/nonexistent",
            "SPILLWAY_METRICS=put-metric-data",
            "SPILLWAY_LOGS=put-log-events",
            "SPILLWAY_LOG_GROUP=/examples",
            "SPILLWAY_LOG_STREAM=one",
            "SPILLWAY_TRACES=put-trace-segments",
            "SPILLWAY_TRACE_SAMPLE_RATE=1"};
  }

  /// Ends the example; its account must be balanced, with nothing dropped.
  void stop() {
    program.signal(SIGTERM);
    const Json account(program.read_line());
    EXPECT_EQ(program.finish(), 0);
    for (const char* const signal : {"metrics", "logs", "spans"}) {
      EXPECT_GT(account[signal]["recorded"].number(), 0) << signal;
      EXPECT_EQ(account[signal]["delivered"].number(), account[signal]["recorded"].number())
          << signal << ": " << account.text();
    }
  }

  /// Sums of a metric by the values of its dimension Route.
  std::map<std::string, double> by_route(std::string_view name) const {
    std::map<std::string, double> sums;
    for (const local::MetricStatistics& series : receiver.metrics("Shop", name)) {
      for (const auto& [dimension, value] : series.dimensions) {
        if (dimension == "Route") sums[value] += series.sum;
      }
    }
    return sums;
  }
  /// The access log by status.
  std::map<int, int> statuses() const {
    std::map<int, int> counts;
    for (const local::LogEvent& event : receiver.log_events("/examples", "one")) {
      const Json log(event.message);
      if (log["message"].string() == "request") ++counts[static_cast<int>(log["status"].number())];
    }
    return counts;
  }
  int segments() const {
    int count = 0;
    for (const local::Segment& one : receiver.segments()) count += one.is_subsegment ? 0 : 1;
    return count;
  }

  local::Receiver receiver{local::Options{}};
  testing::Program program{GetParam().path, GetParam().arguments, environment()};
  std::uint16_t port = 0;
};

int status_of(const std::string& response) {
  int status = 0;
  if (response.size() > 12) std::from_chars(response.data() + 9, response.data() + 12, status);
  return status;
}

TEST_P(ExamplesTest, WhatWasAskedIsRecordedDeliveredAndReceived) {
  ASSERT_NE(port, 0);
  std::vector<std::thread> clients;
  std::vector<std::map<int, int>> answered(connections);
  for (int c = 0; c < connections; ++c) {
    clients.emplace_back([this, &counts = answered[static_cast<std::size_t>(c)]] {
      RawClient client(port);
      const std::string headers =
          " HTTP/1.1\r\nHost: shop\r\nX-Tenant-ID: acme\r\nX-Forwarded-For: 198.51.100.4\r\n";
      for (int i = 0; i < requests_each; ++i) {
        std::string request;
        switch (i % 10) {
          case 0:
            request = "GET /orders/throw" + headers + "\r\n";
            break;
          case 1:
            request = "GET /orders/x" + headers + "\r\n";
            break;
          case 2:
            request = "POST /orders" + headers + "Content-Length: 0\r\n\r\n";
            break;
          case 3:
            request = "POST /orders" + headers + "Content-Length: 2\r\n\r\n{}";
            break;
          case 4:
            request = "GET /nowhere" + headers + "\r\n";
            break;
          default:
            request = "GET /orders/" + std::to_string(i) + headers + "\r\n";
        }
        ++counts[status_of(client.exchange(request))];
      }
    });
  }
  for (std::thread& client : clients) client.join();
  std::map<int, int> total;
  for (const auto& counts : answered) {
    for (const auto& [status, count] : counts) total[status] += count;
  }
  constexpr int tenth = connections * requests_each / 10;
  EXPECT_EQ(total,
            (std::map<int, int>{
                {200, 5 * tenth}, {201, tenth}, {404, 2 * tenth}, {422, tenth}, {500, tenth}}));
  stop();

  EXPECT_EQ(statuses(), total) << "what the access log says, and what the clients got";
  EXPECT_EQ(segments(), 10 * tenth);
  EXPECT_EQ(by_route("Requests"),
            (std::map<std::string, double>{
                {"/orders/{id}", 7 * tenth}, {"/orders", 2 * tenth}, {"(unmatched)", tenth}}));
  EXPECT_EQ(by_route("Faults"), (std::map<std::string, double>{{"/orders/{id}", tenth}}));
  EXPECT_EQ(receiver.log_streams().at(0).event_count, static_cast<std::uint64_t>(15 * tenth))
      << "an access log for each, and the handler's own for those that were found";
}

TEST_P(ExamplesTest, AnswersHaveTheHeadersAndBodiesOfTheSteps) {
  ASSERT_NE(port, 0);
  RawClient client(port);
  const auto get = [&](const std::string& path, const std::string& more = {}) {
    return client.exchange("GET " + path + " HTTP/1.1\r\nHost: shop\r\nX-Request-ID: r-1\r\n" +
                           "X-Forwarded-For: 198.51.100.4\r\n" + more + "\r\n");
  };
  const std::string found = get("/orders/17");
  EXPECT_EQ(status_of(found), 200);
  EXPECT_NE(found.find("X-Request-ID: r-1\r\n"), found.npos) << found;
  EXPECT_NE(found.find("X-Amzn-Trace-Id: Root="), found.npos);
  EXPECT_TRUE(found.ends_with("{\"order\":17}"));
  const std::string thrown = get("/orders/throw");
  EXPECT_NE(thrown.find("application/problem+json"), thrown.npos) << thrown;
  EXPECT_EQ(thrown.find("database"), thrown.npos) << "not the client's to know";
  EXPECT_NE(get("/orders/x").find("there is no such order"), std::string::npos);
  const std::string nowhere = get("/nowhere");
  EXPECT_EQ(status_of(nowhere), 404);
  EXPECT_NE(nowhere.find("application/problem+json"), nowhere.npos) << nowhere;
  const std::string late = get("/orders/17", "X-Request-Timeout: 0m\r\n");
  EXPECT_EQ(status_of(late), 503);
  EXPECT_NE(late.find("Retry-After: 1\r\n"), late.npos) << late;
  const std::string page = get("/orders/17", "Origin: https://a.shop.example\r\n");
  EXPECT_NE(page.find("Access-Control-Allow-Origin: https://a.shop.example\r\n"), page.npos)
      << page;
  EXPECT_EQ(status_of(client.exchange("OPTIONS /orders HTTP/1.1\r\nHost: shop\r\n"
                                      "Origin: https://a.shop.example\r\n"
                                      "Access-Control-Request-Method: POST\r\n\r\n")),
            204);
  EXPECT_EQ(status_of(get("/orders/18")), 200) << "the connection is still good";
  stop();
  const auto logs = receiver.log_events("/examples", "one");
  int of_client = 0;
  for (const local::LogEvent& event : logs)
    of_client += event.message.find("\"client\":\"198.51.100.4\"") != std::string::npos;
  EXPECT_EQ(of_client, 7);
}

// A sanitizer asks by a pipe whether memory can be read, and takes it for unreadable where there is no
// descriptor for one.
#if defined(SPILLWAY_EXAMPLE_BEAST) && !defined(SPILLWAY_SANITIZED)
// With fewer descriptors than clients: who came too late is served when others have gone.
class CrowdedExampleTest : public ExamplesTest {
 protected:
  /// The example's next line of this kind; empty when it has ended without one.
  std::string line_that_begins_with(std::string_view begin) {
    std::string line = program.read_line();
    while (!line.empty() && !line.starts_with(begin)) line = program.read_line();
    return line;
  }
};

TEST_P(CrowdedExampleTest, TooManyConnectionsAreNotTheEndOfAccepting) {
  ASSERT_NE(port, 0);
  {
    std::deque<RawClient> crowd;
    for (int i = 0; i < 100; ++i) crowd.emplace_back(port);
    EXPECT_EQ(line_that_begins_with("accept: "), "accept: Too many open files");
  }
  RawClient client(port);
  EXPECT_EQ(status_of(client.exchange("GET /orders/17 HTTP/1.1\r\nHost: shop\r\n\r\n")), 200);
  program.signal(SIGTERM);
  EXPECT_NE(line_that_begins_with("{"), "") << "the account";
  EXPECT_EQ(program.finish(), 0);
}
std::vector<Example> crowded_examples() {
  const auto with_few = [](const char* way) {
    return Example{way, "/usr/bin/prlimit", {"--nofile=80", SPILLWAY_EXAMPLE_BEAST, way}};
  };
  return {
    with_few("sync"), with_few("callbacks"),
#if !defined(__clang__)
        with_few("coroutines"),
#endif
  };
}
INSTANTIATE_TEST_SUITE_P(All, CrowdedExampleTest, ::testing::ValuesIn(crowded_examples()),
                         [](const auto& one) { return std::string(one.param.name); });
#endif

#if defined(SPILLWAY_EXAMPLE_BEAST) && !defined(__clang__)
// The handler of the coroutines waits, and sees that nobody else does.
class CoroutineExampleTest : public ExamplesTest {};

TEST_P(CoroutineExampleTest, AClientThatGoesAwayEndsItsRequest) {
  ASSERT_NE(port, 0);
  {
    RawClient gone(port);
    gone.send("GET /slow HTTP/1.1\r\nHost: shop\r\n\r\n");
  }
  RawClient client(port);
  const std::string late =
      client.exchange("GET /slow HTTP/1.1\r\nHost: shop\r\nX-Request-Timeout: 20m\r\n\r\n");
  EXPECT_EQ(status_of(late), 504);
  stop();
  const std::map<int, int> expected{{499, 1}, {504, 1}};
  EXPECT_EQ(statuses(), expected);
}
INSTANTIATE_TEST_SUITE_P(All, CoroutineExampleTest,
                         ::testing::Values(Example{
                             "beast", SPILLWAY_EXAMPLE_BEAST, {"coroutines"}}),
                         [](const auto& one) { return std::string(one.param.name); });
#endif

#if defined(SPILLWAY_EXAMPLE_BEAST)
// One request at a time is handled, and the others wait without a thread of the server.
class QueueExampleTest : public ExamplesTest {};

TEST_P(QueueExampleTest, RequestsWaitForTheirTurnAndAllAreAnswered) {
  ASSERT_NE(port, 0);
  std::vector<std::thread> clients;
  std::atomic<int> good{0};
  std::atomic<bool> done{false};
  constexpr int waiting_connections = 3;
  constexpr int orders_each = 100;
  for (int c = 0; c < waiting_connections; ++c) {
    clients.emplace_back([&] {
      RawClient client(port);
      for (int i = 0; i < orders_each; ++i)
        good += status_of(client.exchange("GET /orders/17 HTTP/1.1\r\nHost: shop\r\n\r\n")) == 200;
    });
  }
  std::thread holder([&] {  // Of the coroutines: has the permit for 20 ms and waits meanwhile.
    RawClient client(port);
    while (!done)
      client.exchange("GET /slow HTTP/1.1\r\nHost: shop\r\nX-Request-Timeout: 20m\r\n\r\n");
  });
  for (std::thread& client : clients) client.join();
  done = true;
  holder.join();
  EXPECT_EQ(good, waiting_connections * orders_each);
  stop();
  double waited = 0;
  for (const local::MetricStatistics& series : receiver.metrics("Shop", "BulkheadDecisions")) {
    for (const auto& [dimension, value] : series.dimensions) {
      if (dimension == "Outcome" && value == "waited") waited += series.sum;
    }
  }
  if (std::string_view(GetParam().name) == "coroutines") {
    EXPECT_GT(waited, 0);
  }
}
std::vector<Example> queue_examples() {
  const auto one_at_a_time = [](const char* way) {
    return Example{way, "/usr/bin/env", {"SHOP_CONCURRENCY=1", SPILLWAY_EXAMPLE_BEAST, way}};
  };
  return {
    one_at_a_time("callbacks"),
#if !defined(__clang__)
        one_at_a_time("coroutines"),
#endif
  };
}
INSTANTIATE_TEST_SUITE_P(All, QueueExampleTest, ::testing::ValuesIn(queue_examples()),
                         [](const auto& one) { return std::string(one.param.name); });
#endif

#if defined(SPILLWAY_EXAMPLE_HTTPLIB)
class HttplibExampleTest : public ExamplesTest {};

// A step answers on the header; what follows it is a body, whatever it looks like.
TEST_P(HttplibExampleTest, ABodyThatStaysUnreadIsNotTheNextRequest) {
  ASSERT_NE(port, 0);
  const std::string body = "GET /orders/17 HTTP/1.1\r\nHost: shop\r\n\r\n";
  RawClient client(port);
  const std::string refused = client.exchange(
      "POST /orders HTTP/1.1\r\nHost: shop\r\nX-Request-Timeout: 0m\r\n"
      "Content-Length: " +
      std::to_string(body.size()) + "\r\n\r\n");
  EXPECT_EQ(status_of(refused), 503);
  EXPECT_NE(refused.find("Connection: close\r\n"), refused.npos) << refused;
  EXPECT_TRUE(refused.ends_with("}")) << refused;
  client.send(body);
  EXPECT_EQ(client.read_response(), "");

  RawClient other(port);
  EXPECT_EQ(status_of(other.exchange("POST /orders HTTP/1.1\r\nHost: shop\r\n"
                                     "Content-Length: 2\r\n\r\n{}")),
            201);
  EXPECT_EQ(status_of(other.exchange("GET /orders/17 HTTP/1.1\r\nHost: shop\r\n\r\n")), 200)
      << "a body that was read ends nothing";
  stop();
  const std::map<int, int> expected{{200, 1}, {201, 1}, {503, 1}};
  EXPECT_EQ(statuses(), expected);
  for (const local::LogEvent& event : receiver.log_events("/examples", "one"))
    EXPECT_EQ(event.message.find("broken"), event.message.npos) << event.message;
}
INSTANTIATE_TEST_SUITE_P(All, HttplibExampleTest,
                         ::testing::Values(Example{"httplib", SPILLWAY_EXAMPLE_HTTPLIB, {}}),
                         [](const auto& one) { return std::string(one.param.name); });
#endif

#if defined(SPILLWAY_EXAMPLE_GRPC)
// Server and client are two services: each with its account, joined by their traces.
class GrpcExampleTest : public ExamplesTest {};

TEST_P(GrpcExampleTest, BothSidesOfACallAreRecordedDeliveredAndReceived) {
  ASSERT_NE(port, 0);
  constexpr int calls = 200;
  testing::Program client(GetParam().path, {"client", std::to_string(port), std::to_string(calls)},
                          environment());
  EXPECT_EQ(client.read_line(), "0=140 2=20 3=20 5=20 ")
      << "OK, UNKNOWN (it threw), INVALID_ARGUMENT (a step refused), NOT_FOUND";
  const Json account(client.read_line());
  EXPECT_EQ(client.finish(), 0);
  EXPECT_EQ(account["spans"]["delivered"].number(), 2 * calls);
  EXPECT_EQ(account["metrics"]["delivered"].number(), account["metrics"]["recorded"].number());
  stop();

  const std::map<int, int> expected{{200, 140}, {400, 20}, {404, 20}, {500, 20}};
  EXPECT_EQ(statuses(), expected);
  EXPECT_EQ(by_route("Requests"), (std::map<std::string, double>{{"/shop.Orders/Get", calls}}));
  EXPECT_EQ(by_route("Faults"), (std::map<std::string, double>{{"/shop.Orders/Get", 20}}));
  double client_calls = 0;
  double client_errors = 0;
  for (const auto& series : receiver.metrics("Till", "RpcCalls")) client_calls += series.sum;
  for (const auto& series : receiver.metrics("Till", "RpcErrors")) client_errors += series.sum;
  EXPECT_EQ(client_calls, calls);
  EXPECT_EQ(client_errors, 60);
  EXPECT_EQ(segments(), 2 * calls);
  // A server's segment is the child of the client's subsegment.
  std::map<std::string, std::string> subsegments;  // id, trace id
  for (const local::Segment& one : receiver.segments()) {
    if (one.is_subsegment && one.name == "/shop.Orders/Get") subsegments[one.id] = one.trace_id;
  }
  EXPECT_EQ(subsegments.size(), static_cast<std::size_t>(calls));
  int joined = 0;
  for (const local::Segment& one : receiver.segments()) {
    const auto parent = subsegments.find(one.parent_id);
    joined += !one.is_subsegment && parent != subsegments.end() && parent->second == one.trace_id;
  }
  EXPECT_EQ(joined, calls);
  for (const local::LogEvent& event : receiver.log_events("/examples", "one"))
    EXPECT_EQ(Json(event.message)["tenant"].string(), "acme") << event.message;
}
INSTANTIATE_TEST_SUITE_P(All, GrpcExampleTest,
                         ::testing::Values(Example{"grpc", SPILLWAY_EXAMPLE_GRPC, {"server"}}),
                         [](const auto& one) { return std::string(one.param.name); });
#endif

std::vector<Example> examples() {
  return {
#if defined(SPILLWAY_EXAMPLE_BEAST)
    {"beast_sync", SPILLWAY_EXAMPLE_BEAST, {"sync"}},
        {"beast_callbacks", SPILLWAY_EXAMPLE_BEAST, {"callbacks"}},
#if !defined(__clang__)  // This Boost finds coroutines in g++ only.
        {"beast_coroutines", SPILLWAY_EXAMPLE_BEAST, {"coroutines"}},
#endif
#endif
#if defined(SPILLWAY_EXAMPLE_HTTPLIB)
        {"httplib", SPILLWAY_EXAMPLE_HTTPLIB, {}},
#endif
  };
}
INSTANTIATE_TEST_SUITE_P(All, ExamplesTest, ::testing::ValuesIn(examples()),
                         [](const auto& one) { return std::string(one.param.name); });

}  // namespace
}  // namespace spillway
