// SPDX-License-Identifier: Apache-2.0
//
// The receiver through its sockets: HTTP as it comes over a wire, datagrams, starting and stopping.
#include <memory>
#include <system_error>
#include <thread>

#include "local/limits.hpp"
#include "local/receiver.hpp"
#include "support/local_gateway.hpp"
#include "support/raw_client.hpp"

namespace spillway::local {
namespace {

using namespace std::chrono_literals;
using transport::HttpRequest;

constexpr std::string_view document =
    R"({"name":"o","id":"0f1e2d3c4b5a6978","trace_id":"1-6b00e354-0f1e2d3c4b5a69788796a5b4",)"
    R"("start_time":1,"end_time":2})";

bool has_status(const std::string& response, int status) {
  return response.starts_with("HTTP/1.1 " + std::to_string(status) + " ");
}

class LocalReceiverTest : public testing::Test {
 protected:
  using time_point = std::chrono::system_clock::time_point;

  explicit LocalReceiverTest() { start({}); }
  void start(Options options) {
    options.credentials = {test_credentials()};
    options.clock = [this] { return now_; };
    receiver_.reset();
    receiver_ = std::make_unique<Receiver>(options);
  }
  HttpRequest signed_request(Service service, std::string_view selector, std::string body) {
    HttpRequest request = aws_request(service, selector, std::move(body));
    request.origin = receiver_->endpoint();
    sign(request, service, now_);
    return request;
  }
  std::string log_body(std::size_t events = 1) {
    const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now_.time_since_epoch());
    return R"({"logGroupName":"/g","logStreamName":"s","logEvents":[)" +
           list_of(R"({"timestamp":)" + std::to_string(ms.count()) + R"(,"message":"hello"})",
                   events) +
           "]}";
  }
  void send_datagram(std::string_view bytes) {
    const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    const sockaddr_in address = loopback(receiver_->udp_port());
    EXPECT_EQ(sendto(fd, bytes.data(), bytes.size(), 0, reinterpret_cast<const sockaddr*>(&address),
                     sizeof address),
              static_cast<ssize_t>(bytes.size()));
    close(fd);
  }

  time_point now_ = std::chrono::sys_days(std::chrono::year(2026) / 11 / 21) + 8h;
  std::unique_ptr<Receiver> receiver_;
};

TEST_F(LocalReceiverTest, TakesSignedRequestsOneAfterTheOther) {
  receiver_->create_log_stream("/g", "s");
  RawClient client(receiver_->http_port());
  for (int i = 0; i < 3; ++i) {
    const std::string response =
        client.exchange(wire_form(signed_request(Service::logs, put_log_events, log_body(2))));
    EXPECT_TRUE(has_status(response, 200)) << response;
    EXPECT_NE(response.find("Date: Sat, 21 Nov 2026 08:00:00 GMT"), std::string::npos);
    EXPECT_NE(response.find("x-amzn-RequestId: "), std::string::npos);
  }
  const auto events = receiver_->log_events("/g", "s");
  ASSERT_EQ(events.size(), 6U);
  EXPECT_EQ(events.front().message, "hello");
  EXPECT_EQ(receiver_->log_streams().front().event_count, 6U);
  EXPECT_EQ(receiver_->statistics().requests.at("PutLogEvents").at(200), 3U);
  EXPECT_EQ(receiver_->statistics().connections, 1U);
}

TEST_F(LocalReceiverTest, TakesChunkedBodies) {
  const std::string body = R"({"Namespace":"N","MetricData":[{"MetricName":"M","Value":2}]})";
  HttpRequest request = signed_request(Service::monitoring, put_metric_data, body);
  request.body.clear();
  std::string bytes = wire_form(request);
  bytes.replace(bytes.find("Content-Length: 0"), 17, "Transfer-Encoding: chunked");
  RawClient client(receiver_->http_port());
  const std::string response =
      client.exchange(bytes + "1\r\n{\r\n3c\r\n" + body.substr(1) + "\r\n0\r\n\r\n");
  EXPECT_TRUE(has_status(response, 200)) << response;
  EXPECT_EQ(receiver_->metrics("N", "M").front().sum, 2);
}

TEST_F(LocalReceiverTest, RefusesALargeBodyBeforeItComes) {
  HttpRequest request = signed_request(Service::monitoring, put_metric_data, {});
  std::string bytes = wire_form(request);
  bytes.replace(bytes.find("Content-Length: 0"), 17, "Content-Length: 1048577");
  EXPECT_TRUE(has_status(RawClient(receiver_->http_port()).exchange(bytes), 413));

  bytes = wire_form(request);
  bytes.replace(bytes.find("Content-Length: 0"), 17, "Transfer-Encoding: chunked");
  RawClient chunked(receiver_->http_port());
  chunked.send(bytes);
  const std::string chunk = "10000\r\n" + std::string(65536, ' ') + "\r\n";
  for (int i = 0; i < 16; ++i) ASSERT_TRUE(chunked.send(chunk));
  EXPECT_TRUE(has_status(chunked.exchange("1\r\n \r\n"), 413));
}

TEST_F(LocalReceiverTest, ContinuesWhereAClientWaitsForIt) {
  HttpRequest request = signed_request(Service::xray, "/TelemetryRecords", "{}");
  request.headers.push_back({"Expect", "100-continue"});
  std::string bytes = wire_form(request);
  RawClient client(receiver_->http_port());
  client.send(bytes.substr(0, bytes.size() - 2));
  EXPECT_TRUE(has_status(client.read_until("\r\n\r\n"), 100));
  EXPECT_TRUE(has_status(client.exchange("{}"), 200));
}

TEST_F(LocalReceiverTest, BoundsUrlsAndHeaders) {
  const auto get = [&](const std::string& target, const std::string& headers) {
    return RawClient(receiver_->http_port())
        .exchange("GET " + target + " HTTP/1.1\r\nHost: localhost\r\n" + headers + "\r\n");
  };
  const std::string page = "/_spillway/stats?";
  EXPECT_TRUE(has_status(get(page + repeat("a", limits::url_bytes_max - page.size()), ""), 200));
  EXPECT_TRUE(has_status(get(page + repeat("a", limits::url_bytes_max), ""), 414));
  EXPECT_TRUE(has_status(get(page, "X: " + repeat("a", limits::header_bytes_max) + "\r\n"), 431));
  EXPECT_TRUE(has_status(RawClient(receiver_->http_port()).exchange("no HTTP\r\n\r\n"), 400));
}

TEST_F(LocalReceiverTest, HasNoAnswerForOtherHostsAndNoCors) {
  RawClient client(receiver_->http_port());
  EXPECT_TRUE(has_status(
      client.exchange("GET /_spillway/stats HTTP/1.1\r\nHost: evil.example\r\n\r\n"), 403));
  const std::string answer =
      RawClient(receiver_->http_port())
          .exchange("GET /_spillway/stats HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_TRUE(has_status(answer, 200));
  EXPECT_EQ(answer.find("Access-Control"), std::string::npos);
}

TEST_F(LocalReceiverTest, HangsUpWhenTold) {
  receiver_->create_log_stream("/g", "s");
  const std::string bytes = wire_form(signed_request(Service::logs, put_log_events, log_body()));
  receiver_->add_fault({.kind = FaultKind::lost_response, .count = 1});
  EXPECT_EQ(RawClient(receiver_->http_port()).exchange(bytes), "");
  EXPECT_EQ(receiver_->log_streams().front().event_count, 1U);
  receiver_->add_fault({.kind = FaultKind::refuse, .count = 1});
  EXPECT_EQ(RawClient(receiver_->http_port()).exchange(bytes), "");
  EXPECT_EQ(receiver_->log_streams().front().event_count, 1U);
  EXPECT_EQ(receiver_->faults().back().fired, 1U);
}

TEST_F(LocalReceiverTest, DelaysAndSkewsItsAnswers) {
  receiver_->add_fault({.kind = FaultKind::delay, .delay = 20ms});
  receiver_->add_fault({.kind = FaultKind::skew, .skew = 60s});
  const auto before = std::chrono::steady_clock::now();
  const std::string response =
      RawClient(receiver_->http_port())
          .exchange(wire_form(signed_request(Service::xray, "/TelemetryRecords", "{}")));
  EXPECT_GE(std::chrono::steady_clock::now() - before, 20ms);
  EXPECT_TRUE(has_status(response, 200));
  EXPECT_NE(response.find("Date: Sat, 21 Nov 2026 08:01:00 GMT"), std::string::npos);
}

TEST_F(LocalReceiverTest, StopsAtOnceWhateverGoesOn) {
  receiver_->add_fault({.kind = FaultKind::delay, .delay = 1h});
  RawClient idle(receiver_->http_port());
  RawClient half(receiver_->http_port());
  half.send("POST / HTTP/1.1\r\nHost: ");
  RawClient waiting(receiver_->http_port());
  waiting.send(wire_form(signed_request(Service::xray, "/TelemetryRecords", "{}")));
  RawClient marker(receiver_->http_port());
  marker.exchange("GET /_spillway/stats HTTP/1.1\r\nHost: localhost\r\n\r\n");
  const auto before = std::chrono::steady_clock::now();
  receiver_.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - before, 5s);
  EXPECT_EQ(idle.read_response(), "");
  EXPECT_EQ(waiting.read_response(), "");
}

TEST_F(LocalReceiverTest, CapsConnections) {
  start({.connections_max = 2});
  const std::string get = "GET /_spillway/stats HTTP/1.1\r\nHost: localhost\r\n\r\n";
  RawClient first(receiver_->http_port());
  RawClient second(receiver_->http_port());
  EXPECT_TRUE(has_status(first.exchange(get), 200));
  EXPECT_TRUE(has_status(second.exchange(get), 200));
  EXPECT_TRUE(has_status(RawClient(receiver_->http_port()).read_response(), 503));
  EXPECT_EQ(receiver_->statistics().connections_refused, 1U);
}

TEST_F(LocalReceiverTest, TakesManyClientsAtOnce) {
  receiver_->create_log_stream("/g", "s");
  const std::string bytes = wire_form(signed_request(Service::logs, put_log_events, log_body(10)));
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      RawClient client(receiver_->http_port());
      for (int i = 0; i < 25; ++i) EXPECT_TRUE(has_status(client.exchange(bytes), 200));
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(receiver_->log_streams().front().event_count, 1000U);
}

// ---- Datagrams ----

TEST_F(LocalReceiverTest, TakesDatagramsOfTheDaemonsForm) {
  const std::string text(document);
  const std::vector<std::string> good{
      R"({"format":"json","version":1})"
      "\n" +
          text,
      R"({"format": "JSON", "version": 1})"
      "\n" +
          text,
      R"({"version":1,"format":"json","more":true})"
      "\n" +
          text + "\n",
  };
  const std::vector<std::string> malformed{
      "",
      text,
      R"({"format":"json","version":1})",
      R"({"format":"json","version":1})"
      "\n",
      R"({"format":"xml","version":1})"
      "\n" +
          text,
      R"({"format":"json","version":2})"
      "\n" +
          text,
      R"({"format":"json","version":"1"})"
      "\n" +
          text,
      "\n" + text,
      "not json\n" + text,
  };
  for (const std::string& datagram : good) send_datagram(datagram);
  for (const std::string& datagram : malformed) send_datagram(datagram);
  send_datagram(R"({"format":"json","version":1})"
                "\n{\"id\":1}");
  ASSERT_TRUE(receiver_->wait_for_datagrams(good.size() + malformed.size() + 1));
  const Statistics statistics = receiver_->statistics();
  EXPECT_EQ(receiver_->trace_counts().udp_documents, good.size());
  EXPECT_EQ(receiver_->trace_counts().udp_segments, good.size());
  EXPECT_EQ(statistics.datagrams_malformed, malformed.size());
  EXPECT_EQ(statistics.partial_rejects.at("InvalidId"), 1U);
  EXPECT_EQ(statistics.datagrams_lost, 0U);
  EXPECT_TRUE(receiver_->segments().front().over_udp);
}

TEST_F(LocalReceiverTest, TakesTheLargestDatagram) {
  const std::string header = R"({"format":"json","version":1})"
                             "\n";
  std::string text(document);
  text.insert(1, R"("user":")" + repeat("u", 65507 - header.size() - text.size() - 10) + R"(",)");
  ASSERT_EQ(header.size() + text.size(), 65507U);
  send_datagram(header + text);
  ASSERT_TRUE(receiver_->wait_for_datagrams(1));
  EXPECT_EQ(receiver_->trace_counts().udp_documents, 1U);
}

TEST_F(LocalReceiverTest, CountsEveryDatagramOfABurst) {
  const std::string datagram = R"({"format":"json","version":1})"
                               "\n" +
                               std::string(document);
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  const sockaddr_in address = loopback(receiver_->udp_port());
  ASSERT_EQ(connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  constexpr std::uint64_t count = 2000;
  for (std::uint64_t i = 0; i < count; ++i) {
    ASSERT_EQ(::send(fd, datagram.data(), datagram.size(), 0),
              static_cast<ssize_t>(datagram.size()));
    // A window that the smallest default receive buffer holds.
    if (i % 100 == 99) {
      ASSERT_TRUE(receiver_->wait_for_datagrams(i + 1));
    }
  }
  close(fd);
  EXPECT_EQ(receiver_->trace_counts().udp_documents, count);
}

// ---- Starting ----

TEST_F(LocalReceiverTest, RefusesAnAddressThatIsNotLoopback) {
  for (const char* const host : {"0.0.0.0", "192.168.0.1", "::", "example.com", ""}) {
    EXPECT_THROW(Receiver({.host = host}), std::invalid_argument) << host;
  }
  EXPECT_THROW(Receiver({.http_port = receiver_->http_port()}), std::system_error);
  EXPECT_EQ(receiver_->endpoint(), "http://127.0.0.1:" + std::to_string(receiver_->http_port()));
}

TEST_F(LocalReceiverTest, ResetsAndStartsWithFaults) {
  start({.faults = {{.kind = FaultKind::throttle, .count = 1}}});
  const std::string bytes = wire_form(signed_request(Service::xray, "/TelemetryRecords", "{}"));
  EXPECT_TRUE(has_status(RawClient(receiver_->http_port()).exchange(bytes), 429));
  EXPECT_TRUE(has_status(RawClient(receiver_->http_port()).exchange(bytes), 200));
  EXPECT_NE(receiver_->stats_json().find("PutTelemetryRecords"), std::string::npos);
  receiver_->reset();
  EXPECT_TRUE(receiver_->statistics().requests.empty());
}

}  // namespace
}  // namespace spillway::local
