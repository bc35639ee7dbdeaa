// SPDX-License-Identifier: Apache-2.0
//
// Requests over libcurl to a server that misbehaves as told. Where something has to time out, the
// limit is small and the answer never comes; nothing here measures time.
#include <functional>
#include <map>
#include <string>
#include <thread>

#include <gtest/gtest.h>
#include <support/environment.hpp>
#include <support/raw_server.hpp>

#include <spillway/transport/curl_transport.hpp>

namespace spillway::transport {
namespace {

using namespace std::chrono_literals;
using testing::http_answer;
using testing::RawServer;
using testing::ScopedVariable;

class CurlTransportTest : public ::testing::Test {
 protected:
  static constexpr std::chrono::milliseconds long_timeout = 60s;
  // poll() that does not return before is one that does not return: the test's own limit ends it.
  static constexpr std::chrono::milliseconds for_ever = 24h;

  static HttpRequest post(const std::string& origin, std::string body = "{}") {
    HttpRequest request;
    request.origin = origin;
    request.body = std::move(body);
    return request;
  }
  /// Polls until so many exchanges have ended.
  std::map<std::uint64_t, HttpResponse> finish(std::size_t count) {
    std::map<std::uint64_t, HttpResponse> ended;
    while (ended.size() < count) {
      for (HttpCompletion& completion : transport_.poll(for_ever)) {
        EXPECT_TRUE(ended.emplace(completion.id, std::move(completion.response)).second)
            << completion.id << " ended twice";
      }
    }
    return ended;
  }
  HttpResponse exchange(HttpRequest request, std::chrono::milliseconds timeout = long_timeout) {
    transport_.start(7, std::move(request), timeout);
    return std::move(finish(1).at(7));
  }
  static RawServer::Handler always(std::string answer) {
    return
        [answer = std::move(answer)](const std::string&, const RawServer::Connection& connection) {
          connection.send(answer);
          return true;
        };
  }
  static RawServer::Handler broken_off(std::string answer) {
    return
        [answer = std::move(answer)](const std::string&, const RawServer::Connection& connection) {
          connection.send(answer);
          return false;
        };
  }

  ScopedVariable http_proxy_{"http_proxy", nullptr};
  ScopedVariable all_proxy_{"ALL_PROXY", nullptr};
  ScopedVariable all_proxy_lower_{"all_proxy", nullptr};
  CurlTransport transport_;
};

// ---- What is sent and what comes back ----

TEST_F(CurlTransportTest, ARequestGoesAsItIsAndTheAnswerComesBack) {
  RawServer server(always(http_answer(200, "{\"a\":1}", "X-One: 1\r\nx-two:  b c \r\nEmpty:\r\n")));
  HttpRequest request = post(server.origin(), std::string("bo\0dy", 5));
  request.path = "/a/../b%20c*";
  request.query = "q=%2A&r";
  request.headers = {{"Content-Type", "application/x-amz-json-1.0"}, {"X-Empty", ""}};
  const HttpResponse response = exchange(request);
  EXPECT_EQ(response.outcome, HttpOutcome::answered);
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.body, "{\"a\":1}");
  EXPECT_EQ(response.error, "");
  EXPECT_EQ(find_header(response.headers, "x-one"), "1");
  EXPECT_EQ(find_header(response.headers, "X-TWO"), "b c");
  EXPECT_EQ(find_header(response.headers, "empty"), "");

  const std::string sent = server.requests().at(0);
  EXPECT_TRUE(sent.starts_with("POST /a/../b%20c*?q=%2A&r HTTP/1.1\r\n")) << "nothing is changed";
  EXPECT_NE(sent.find("\r\nContent-Type: application/x-amz-json-1.0\r\n"), std::string::npos);
  EXPECT_NE(sent.find("\r\nX-Empty:"), std::string::npos);
  EXPECT_NE(sent.find("\r\nContent-Length: 5\r\n"), std::string::npos);
  EXPECT_EQ(sent.find("Expect"), std::string::npos);
  EXPECT_TRUE(sent.ends_with(std::string("\r\n\r\nbo\0dy", 9)));
}

TEST_F(CurlTransportTest, ALargeBodyGoesWithoutWaitingForLeave) {
  RawServer server(always(http_answer(200, "{}")));
  const std::string body(3 << 20, 'x');
  EXPECT_EQ(exchange(post(server.origin(), body)).status, 200);
  EXPECT_EQ(server.requests().at(0).find("Expect"), std::string::npos);
  EXPECT_TRUE(server.requests().at(0).ends_with(body));
}

TEST_F(CurlTransportTest, EveryStatusIsAnAnswer) {
  for (const int status : {200, 204, 400, 403, 404, 413, 429, 500, 503}) {
    const bool body = status != 204;
    RawServer server(always(body ? http_answer(status, "text") : "HTTP/1.1 204 No\r\n\r\n"));
    const HttpResponse response = exchange(post(server.origin()));
    EXPECT_EQ(response.outcome, HttpOutcome::answered) << status;
    EXPECT_EQ(response.status, status);
    EXPECT_EQ(response.body, body ? "text" : "");
  }
}

TEST_F(CurlTransportTest, ARedirectIsNotFollowed) {
  RawServer other(always(http_answer(200, "stolen")));
  RawServer server(always(http_answer(307, "", "Location: " + other.origin() + "/\r\n")));
  const HttpResponse response = exchange(post(server.origin()));
  EXPECT_EQ(response.outcome, HttpOutcome::answered);
  EXPECT_EQ(response.status, 307);
  EXPECT_TRUE(other.requests().empty());
}

TEST_F(CurlTransportTest, HeadersOfAnInterimAnswerAreNotTheAnswers) {
  RawServer server(always("HTTP/1.1 100 Continue\r\nX-Early: 1\r\n\r\n" +
                          http_answer(200, "", "X-Late: 2\r\n")));
  const HttpResponse response = exchange(post(server.origin()));
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(find_header(response.headers, "X-Early"), "");
  EXPECT_EQ(find_header(response.headers, "X-Late"), "2");
}

TEST_F(CurlTransportTest, AnAnswerInPiecesIsPutTogether) {
  RawServer server([](const std::string&, const RawServer::Connection& connection) {
    connection.send("HTTP/1.1 200 OK\r\nTransfer-Enc");
    connection.send("oding: chunked\r\n\r\n3\r\nabc\r\n");
    connection.send("2\r\nde\r\n0\r\n\r\n");
    return true;
  });
  EXPECT_EQ(exchange(post(server.origin())).body, "abcde");
}

TEST_F(CurlTransportTest, ConnectionsAreKeptForTheNextRequest) {
  RawServer server(always(http_answer(200, "{}")));
  for (int i = 0; i < 5; ++i) EXPECT_EQ(exchange(post(server.origin())).status, 200);
  EXPECT_EQ(server.requests().size(), 5U);
  EXPECT_EQ(server.connections(), 1U);
}

TEST_F(CurlTransportTest, AKeptConnectionThatWasClosedMeanwhileIsMadeAnew) {
  RawServer server(broken_off(http_answer(200, "{}")));
  for (int i = 0; i < 3; ++i) {
    const HttpResponse response = exchange(post(server.origin()));
    EXPECT_EQ(response.outcome, HttpOutcome::answered) << response.error;
    server.wait_until_closed();
  }
  EXPECT_EQ(server.requests().size(), 3U);
}

// ---- Answers that break off ----

TEST_F(CurlTransportTest, AnAnswerThatBreaksOffIsLost) {
  for (const char* const answer :
       {"", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "not HTTP at all"}) {
    RawServer server(broken_off(answer));
    const HttpResponse response = exchange(post(server.origin()));
    EXPECT_EQ(response.outcome, HttpOutcome::lost) << answer;
    EXPECT_NE(response.error, "") << answer;
    EXPECT_EQ(server.requests().size(), 1U) << "it is not sent again behind our back";
  }
}

// libcurl sends a request again by itself when a connection that served before breaks without a
// byte of an answer. Who counts what was taken has to know of it.
TEST_F(CurlTransportTest, AnAnswerThatIsLostOnAKeptConnectionIsLostToo) {
  for (const std::size_t bytes : {std::size_t{2}, std::size_t{500'000}}) {
    RawServer server([&](const std::string&, const RawServer::Connection& connection) {
      if (server.requests().size() > 1) return false;
      connection.send(http_answer(200, "{}"));
      return true;
    });
    EXPECT_EQ(exchange(post(server.origin())).outcome, HttpOutcome::answered);
    HttpRequest second = post(server.origin());
    second.body.assign(bytes, 'x');
    const HttpResponse response = exchange(std::move(second));
    EXPECT_EQ(response.outcome, HttpOutcome::lost);
    EXPECT_NE(response.error, "");
    EXPECT_EQ(server.requests().size(), 2U) << "it is not sent again behind our back";
  }
}

TEST_F(CurlTransportTest, AResetIsLost) {
  RawServer server([](const std::string&, const RawServer::Connection& connection) {
    connection.reset();
    return false;
  });
  EXPECT_EQ(exchange(post(server.origin())).outcome, HttpOutcome::lost);
}

TEST_F(CurlTransportTest, AnAnswerThatNeverComesIsLostWhenTimeIsUp) {
  for (const char* const begun : {"", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"}) {
    RawServer server([begun](const std::string&, const RawServer::Connection& connection) {
      connection.send(begun);
      connection.wait_for_the_end();
      return false;
    });
    const HttpResponse response = exchange(post(server.origin()), 50ms);
    EXPECT_EQ(response.outcome, HttpOutcome::lost) << begun;
    EXPECT_NE(response.error, "");
  }
}

TEST_F(CurlTransportTest, ATimeoutOfNothingIsNotOneOfForEver) {
  RawServer server([](const std::string&, const RawServer::Connection& connection) {
    connection.wait_for_the_end();
    return false;
  });
  EXPECT_NE(exchange(post(server.origin()), 0ms).outcome, HttpOutcome::answered);
}

TEST_F(CurlTransportTest, TooLongAnAnswerIsNotRead) {
  const std::string largest(response_bytes_max, 'x');
  RawServer fits(always(http_answer(200, largest)));
  EXPECT_EQ(exchange(post(fits.origin())).outcome, HttpOutcome::answered);
  RawServer body(always(http_answer(200, largest + "x")));
  EXPECT_EQ(exchange(post(body.origin())).outcome, HttpOutcome::too_large);
  RawServer endless([](const std::string&, const RawServer::Connection& connection) {
    connection.send("HTTP/1.1 200 OK\r\n\r\n" + std::string(4 << 20, 'x'));
    return false;
  });
  EXPECT_EQ(exchange(post(endless.origin())).outcome, HttpOutcome::too_large);
  std::string many;
  for (int i = 0; i < 1000; ++i)
    many += "X-" + std::to_string(i) + ": " + std::string(80, 'v') + "\r\n";
  RawServer headers(always(http_answer(200, "", many)));
  EXPECT_EQ(exchange(post(headers.origin())).outcome, HttpOutcome::too_large);
}

// ---- Requests that never arrive ----

TEST_F(CurlTransportTest, ARefusedConnectionIsNotConnected) {
  std::string origin;
  {
    const RawServer gone(always(""));
    origin = gone.origin();
  }
  const HttpResponse response = exchange(post(origin));
  EXPECT_EQ(response.outcome, HttpOutcome::not_connected);
  EXPECT_EQ(response.status, 0);
  EXPECT_NE(response.error, "");
}

TEST_F(CurlTransportTest, AHandshakeThatDoesNotEndIsNotConnected) {
  RawServer server(always(http_answer(200, "{}")));
  const std::string port = std::to_string(server.port());
  EXPECT_EQ(exchange(post("https://127.0.0.1:" + port), 100ms).outcome, HttpOutcome::not_connected);
}

TEST_F(CurlTransportTest, WhatCannotBeSentIsRefusedAtOnce) {
  for (const char* const origin :
       {"", "ftp://127.0.0.1", "file:///etc/passwd", "http://", "http://host:99999", "no scheme"}) {
    const HttpResponse response = exchange(post(origin));
    EXPECT_EQ(response.outcome, HttpOutcome::refused_locally) << origin;
    EXPECT_NE(response.error, "") << origin;
  }
}

TEST_F(CurlTransportTest, ALineBreakInARequestIsRefused) {
  RawServer server(always(http_answer(200, "{}")));
  const std::string breaks[] = {"\r", "\n", "\r\nX-Evil: 1", std::string(1, '\0')};
  for (const std::string& text : breaks) {
    const std::function<void(HttpRequest&)> places[] = {
        [&](HttpRequest& request) { request.method += text; },
        [&](HttpRequest& request) { request.path += text; },
        [&](HttpRequest& request) { request.query += text; },
        [&](HttpRequest& request) {
          request.headers = {{"X-A" + text, "v"}};
        },
        [&](HttpRequest& request) {
          request.headers = {{"X-A", "v" + text}};
        },
        [&](HttpRequest& request) { request.origin += text; },
    };
    for (const auto& spoil : places) {
      HttpRequest request = post(server.origin());
      spoil(request);
      EXPECT_EQ(exchange(request).outcome, HttpOutcome::refused_locally);
    }
  }
  HttpRequest nameless = post(server.origin());
  nameless.headers = {{"", "v"}};
  EXPECT_EQ(exchange(nameless).outcome, HttpOutcome::refused_locally);
  EXPECT_TRUE(server.requests().empty());
}

// ---- Many at a time ----

TEST_F(CurlTransportTest, ManyAreUnderWayAtOnce) {
  constexpr std::size_t count = 24;
  // Each answer waits until every request is there.
  RawServer server([](const std::string& request, const RawServer::Connection& connection) {
    connection.wait_for_requests(count);
    connection.send(http_answer(200, request.substr(request.find("\r\n\r\n") + 4)));
    return true;
  });
  for (std::uint64_t id = 0; id < count; ++id) {
    transport_.start(id, post(server.origin(), "body " + std::to_string(id)), long_timeout);
  }
  for (const auto& [id, response] : finish(count)) {
    EXPECT_EQ(response.status, 200);
    EXPECT_EQ(response.body, "body " + std::to_string(id)) << "each has its own answer";
  }
}

TEST_F(CurlTransportTest, OneThatHangsHoldsNoOtherUp) {
  RawServer slow([](const std::string&, const RawServer::Connection& connection) {
    connection.wait_for_the_end();
    return false;
  });
  RawServer quick(always(http_answer(200, "{}")));
  transport_.start(1, post(slow.origin()), long_timeout);
  for (std::uint64_t id = 2; id < 12; ++id) {
    transport_.start(id, post(quick.origin()), long_timeout);
    const auto ended = finish(1);
    EXPECT_EQ(ended.begin()->first, id);
    EXPECT_EQ(ended.begin()->second.status, 200);
  }
}

TEST_F(CurlTransportTest, WhatIsCancelledIsNotReported) {
  RawServer server([](const std::string&, const RawServer::Connection& connection) {
    connection.wait_for_the_end();
    return false;
  });
  for (std::uint64_t id = 0; id < 5; ++id)
    transport_.start(id, post(server.origin()), long_timeout);
  transport_.start(5, post("no url"), long_timeout);
  transport_.poll(0ms);
  transport_.cancel_all();
  transport_.wake();
  EXPECT_TRUE(transport_.poll(for_ever).empty());
  RawServer other(always(http_answer(200, "{}")));
  EXPECT_EQ(exchange(post(other.origin())).status, 200) << "the transport can be used on";
}

TEST_F(CurlTransportTest, ItCanGoWhileRequestsAreUnderWay) {
  RawServer server([](const std::string&, const RawServer::Connection& connection) {
    connection.wait_for_the_end();
    return false;
  });
  {
    CurlTransport other;
    other.start(1, post(server.origin()), long_timeout);
    other.poll(0ms);
  }
  EXPECT_LE(server.requests().size(), 1U);
}

TEST_F(CurlTransportTest, AWakeEndsAPollThatWaits) {
  std::thread other([&] { transport_.wake(); });
  EXPECT_TRUE(transport_.poll(for_ever).empty());
  other.join();
  transport_.wake();
  EXPECT_TRUE(transport_.poll(for_ever).empty()) << "one that came before counts";
}

}  // namespace
}  // namespace spillway::transport
