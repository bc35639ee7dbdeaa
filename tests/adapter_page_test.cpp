// SPDX-License-Identifier: Apache-2.0
//
// The adapter that middleware/README.md shows, word for word, and what it does.
#include <deque>
#include <fstream>
#include <functional>
#include <map>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <spillway/middleware/chain.hpp>
#include <spillway/middleware/error_body.hpp>
#include <spillway/middleware/httplib.hpp>
#include <spillway/transport/text.hpp>

// A framework as there may be one.
namespace wire {

using Fields = std::vector<std::pair<std::string, std::string>>;
struct Request {
  std::string method;
  std::string target;
  Fields headers;
  std::string body;
};
struct Response {
  int status = 200;
  Fields headers{};
  std::string body{};

  void set(std::string_view name, std::string_view value) { headers.emplace_back(name, value); }
  void erase(std::string_view name) {
    std::erase_if(headers, [&](const auto& field) { return field.first == name; });
  }
};
using Handler = std::function<Response(const Request&)>;

/// One that has one request to read, and perhaps a client that is gone.
struct Connection {
  Request request;
  bool open = true;
  std::optional<Response> written{};

  static std::string_view peer_ip() { return "203.0.113.9"; }
  Request read() { return request; }
  bool write(const Response& response) {
    if (open) written = response;
    return open;
  }
};

}  // namespace wire

namespace spillway::middleware {
namespace {

// The page begins.
std::string_view find(const void* message, std::string_view name, std::size_t nth) {
  for (const auto& [key, value] : static_cast<const wire::Request*>(message)->headers) {
    if (transport::equal_without_case(key, name) && nth-- == 0) return value;
  }
  return {};  // Its data() is null: there is none.
}

template <class Chain>
void serve(const Chain& chain, wire::Connection& connection, const wire::Handler& handle) {
  const wire::Request request = connection.read();
  RequestView view{.method = request.method,
                   .peer_address = connection.peer_ip(),
                   .headers = {&request, find},
                   .body = request.body,
                   .body_bytes = static_cast<std::int64_t>(request.body.size())};
  view.target(request.target);
  view.host = view.header("Host");
  wire::Response response;
  auto exchange = chain.begin(view);  // A step may reply.
  if (!exchange.has_reply()) {
    exchange.guard([&] {  // What is thrown becomes the reply.
      response = handle(request);
      exchange.respond({.status = response.status,
                        .body_bytes = static_cast<std::int64_t>(response.body.size()),
                        .body = response.body});
    });
  }
  if (exchange.has_reply()) {
    const Reply& reply = exchange.reply();
    if (!reply.body_only) response = {.status = reply.status};
    for (const std::string_view name : body_header_names) response.erase(name);
    if (!reply.content_type.empty()) response.set("Content-Type", reply.content_type);
    response.body = reply.body;
  }
  for (const HeaderField& field : exchange.headers()) response.set(field.name, field.value);
  const bool sent = connection.write(response);
  exchange.finish({.status = response.status,
                   .body_bytes = static_cast<std::int64_t>(response.body.size()),
                   .ending = sent ? Ending::sent : Ending::broken});
}
// The page ends.

/// A step that keeps what it saw, and refuses POST.
struct Watch {
  struct State {};
  Verdict before(State& /*state*/, Exchange& exchange) {
    seen = exchange.request.host;
    exchange.add_header("X-Watched", "yes");
    return exchange.request.method == "POST" ? exchange.refuse(405) : Verdict::proceed;
  }
  void after(State& /*state*/, const Exchange& /*exchange*/, const ResponseFacts& facts) noexcept {
    last = facts;
  }
  std::string seen;
  ResponseFacts last;
};

class AdapterPageTest : public ::testing::Test {
 protected:
  wire::Response answer(wire::Request request, const wire::Handler& handle) {
    request.headers = {{"HOST", "shop.example"}};
    wire::Connection connection{std::move(request)};
    serve(chain, connection, handle);
    return connection.written.value_or(wire::Response{});
  }

  const Routes routes{{"GET", "/orders/{id}"}};
  Watch watch;
  ErrorBody error_body;
  const Chain<Watch, ErrorBody> chain{routes, watch, error_body};
};

TEST_F(AdapterPageTest, TheHandlersAnswerGoesOutWithTheStepsHeaders) {
  const wire::Response response =
      answer({"GET", "/orders/17?x=1", {}, {}}, [](const wire::Request&) {
        return wire::Response{201, {{"Location", "/orders/17"}}, "made"};
      });
  EXPECT_EQ(response.status, 201);
  EXPECT_EQ(response.body, "made");
  EXPECT_EQ(response.headers, (wire::Fields{{"Location", "/orders/17"}, {"X-Watched", "yes"}}));
  EXPECT_EQ(watch.seen, "shop.example");
  EXPECT_EQ(watch.last.body_bytes, 4);
}

TEST_F(AdapterPageTest, RefusalsExceptionsAndErrorBodiesTakeItsPlace) {
  const auto never = [](const wire::Request&) -> wire::Response {
    ADD_FAILURE();
    return {};
  };
  EXPECT_EQ(answer({"POST", "/orders", {}, {}}, never).status, 405);
  const wire::Response thrown =
      answer({"GET", "/", {}, {}},
             [](const wire::Request&) -> wire::Response { throw std::runtime_error("database"); });
  EXPECT_EQ(thrown.status, 500);
  EXPECT_EQ(thrown.body.find("database"), std::string::npos);
  const wire::Response bare = answer({"GET", "/", {}, {}}, [](const wire::Request&) {
    return wire::Response{
        401, {{"Content-Type", "text/html"}, {"WWW-Authenticate", "Basic"}, {"ETag", "\"1\""}}, {}};
  });
  EXPECT_EQ(bare.status, 401);
  EXPECT_EQ(bare.headers, (wire::Fields{{"WWW-Authenticate", "Basic"},
                                        {"Content-Type", "application/problem+json"},
                                        {"X-Watched", "yes"}}))
      << "what was said of the old body is not said of the new one";
}

TEST_F(AdapterPageTest, AClientThatIsGoneIsToldOf) {
  wire::Connection connection{{"GET", "/", {}, {}}, false};
  serve(chain, connection, [](const wire::Request&) { return wire::Response{}; });
  EXPECT_EQ(watch.last.ending, Ending::broken);
}

TEST(AdapterPage, TheReadmeShowsTheseLines) {
  const auto text_of = [](const char* path) {
    std::stringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  };
  const std::string own = text_of(SPILLWAY_ADAPTER_PAGE_TEST);
  const std::string begin = "// The page begins.\n";
  const auto from = own.find(begin) + begin.size();
  std::istringstream lines(own.substr(from, own.find("// The page ends.", from) - from));
  std::string shown;
  int count = 0;
  for (std::string line; std::getline(lines, line); ++count)
    shown += line.empty() ? "\n" : "    " + line + "\n";
  EXPECT_GT(count, 30);
  EXPECT_NE(text_of(SPILLWAY_MIDDLEWARE_README).find(shown), std::string::npos)
      << "middleware/README.md shows something else than:\n"
      << shown;
}

// ---- httplib's ----

TEST(HttplibTest, ABodyMayComeWhereNothingSaysHowLongItIs) {
  struct Request {
    std::string method;
    std::multimap<std::string, std::string> headers;
  };
  EXPECT_FALSE(httplib_has_body(Request{"GET", {}}));
  EXPECT_TRUE(httplib_has_body(Request{"GET", {{"content-length", "3"}}}));
  EXPECT_TRUE(httplib_has_body(Request{"GET", {{"transfer-encoding", "chunked"}}}));
  EXPECT_FALSE(httplib_has_body(Request{"POST", {{"Content-Length", "0"}}}));
  EXPECT_TRUE(httplib_has_body(Request{"POST", {}})) << "up to the end of the connection";
}

}  // namespace
}  // namespace spillway::middleware
