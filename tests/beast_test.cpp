// SPDX-License-Identifier: Apache-2.0
//
// What beast_buffers() sends is what Beast would send of a response that has the steps' headers.
#include <sstream>
#include <string>
#include <string_view>
#include <utility>

#include <boost/asio/buffer.hpp>
#include <boost/beast/http.hpp>
#include <gtest/gtest.h>

#include <spillway/middleware/beast.hpp>

namespace spillway::middleware {
namespace {

namespace http = boost::beast::http;
using Buffer = boost::asio::const_buffer;
using Request = http::request<http::string_body>;
using Response = http::response<http::string_body>;

/// Adds headers, refuses what is asked for at /refused, replies to /304, and lets /waits wait.
struct Step {
  struct State {};
  Verdict before(State& /*state*/, Exchange& exchange) const {
    exchange.add_header("X-Request-ID", "r-1");
    exchange.add_header("RateLimit", "\"tenant\";r=9;t=1");
    if (exchange.request.path == "/waits") return Verdict::wait;
    if (exchange.request.path == "/304") return exchange.reply(304, "text/plain", "as it was");
    return exchange.request.path == "/refused" ? exchange.refuse(429, "too many")
                                               : Verdict::proceed;
  }
  Verdict resumed(State& /*state*/, Exchange& /*exchange*/) const { return Verdict::proceed; }
};

class BeastTest : public ::testing::Test {
 protected:
  static std::string text_of(const std::array<Buffer, 2>& buffers) {
    std::string text;
    for (const Buffer& one : buffers) text.append(static_cast<const char*>(one.data()), one.size());
    return text;
  }
  /// The response to one request by way of beast_buffers(), and as Beast prints it.
  template <class Handle>
  void serve(const Request& request, Handle handle) {
    {
      auto exchange = chain.begin(beast_view(request, "10.0.0.1"));
      const Response response = beast_handle(exchange, request, handle);
      ours = text_of(beast_buffers<Buffer>(exchange, response, head));
      beast_finish(exchange, response, boost::system::error_code());
    }
    auto exchange = chain.begin(beast_view(request, "10.0.0.1"));
    const Response response = beast_answer(exchange, request, handle);
    std::ostringstream out;
    out << response;
    beasts = out.str();
    beast_finish(exchange, response, boost::system::error_code());
  }
  static Response made(http::status status, const std::string& body, unsigned version = 11) {
    Response response{status, version};
    response.set(http::field::content_type, "application/json");
    response.insert("Set-Cookie", "a=1");
    response.insert("Set-Cookie", "b=2");
    response.body() = body;
    response.prepare_payload();
    return response;
  }

  const Step step{};
  const Routes routes{{"GET", "/orders/{id}"}};
  const Chain<const Step> chain{routes, step};
  const Request get{http::verb::get, "/orders/17", 11};
  std::string head;
  std::string ours;
  std::string beasts;
};

TEST_F(BeastTest, AResponseWithTheStepsHeaders) {
  serve(get, [] { return made(http::status::ok, R"({"order":17})"); });
  EXPECT_EQ(ours, beasts);
  EXPECT_EQ(ours,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nSet-Cookie: a=1\r\n"
            "Set-Cookie: b=2\r\nContent-Length: 12\r\nX-Request-ID: r-1\r\n"
            "RateLimit: \"tenant\";r=9;t=1\r\n\r\n{\"order\":17}");
}

TEST_F(BeastTest, AnOldClientAnOwnReasonAndNoBody) {
  serve(get, [] {
    Response response = made(http::status::no_content, "", 10);
    response.reason("Nothing Here");
    response.keep_alive(true);
    return response;
  });
  EXPECT_EQ(ours, beasts);
  EXPECT_TRUE(ours.starts_with("HTTP/1.0 204 Nothing Here\r\n")) << ours;
}

TEST_F(BeastTest, ARefusalAndAnException) {
  serve(Request{http::verb::get, "/refused", 11}, [] { return Response(); });
  EXPECT_EQ(ours, beasts);
  EXPECT_TRUE(ours.starts_with("HTTP/1.1 429 Too Many Requests\r\n")) << ours;
  serve(Request{http::verb::head, "/orders/17", 11},
        []() -> Response { throw HttpError(404, "no such order"); });
  EXPECT_EQ(ours, beasts);
  EXPECT_TRUE(ours.ends_with("\r\n\r\n")) << "an answer to HEAD has no body: " << ours;
}

TEST_F(BeastTest, SomeAnswersEndWithTheirHead) {
  const Request to_head{http::verb::head, "/orders/17", 11};
  for (const bool chunked : {false, true}) {
    for (const auto& [request, status] :
         {std::pair(&to_head, http::status::ok), std::pair(&get, http::status::processing),
          std::pair(&get, http::status::no_content), std::pair(&get, http::status::not_modified)}) {
      const Request& asked = *request;
      const http::status answered = status;
      serve(asked, [&] {
        Response response = made(http::status::ok, R"({"order":17})");
        response.chunked(chunked);
        response.result(answered);
        return response;
      });
      EXPECT_EQ(ours.find("\r\n\r\n"), ours.size() - 4) << ours;
    }
  }
  for (const http::verb method : {http::verb::get, http::verb::head}) {
    serve(Request{method, "/304", 11}, [] { return Response(); });
    EXPECT_EQ(ours, beasts);
    EXPECT_EQ(ours,
              "HTTP/1.1 304 Not Modified\r\nX-Request-ID: r-1\r\n"
              "RateLimit: \"tenant\";r=9;t=1\r\n\r\n");
  }
}

TEST_F(BeastTest, WhoWaitsStillIsRefusedNotHandled) {
  const Request request{http::verb::get, "/waits", 11};
  RequestView view = beast_view(request, "10.0.0.1");
  view.resumer.call = [](void* /*object*/) noexcept {};
  auto exchange = chain.begin(view);
  ASSERT_TRUE(exchange.is_waiting());
  bool handled = false;
  const Response response = beast_answer(exchange, request, [&] {
    handled = true;
    return made(http::status::ok, "{}");
  });
  EXPECT_FALSE(handled || exchange.is_waiting());
  EXPECT_EQ(response.result_int(), 503U);
}

TEST_F(BeastTest, ABodyInChunksIsReadBack) {
  for (const std::string& body : {std::string(), std::string(70'000, 'x')}) {
    serve(get, [&] {
      Response response = made(http::status::ok, body);
      response.chunked(true);
      return response;
    });
    http::response_parser<http::string_body> parser;
    parser.eager(true);
    boost::system::error_code error;
    std::string_view left = ours;
    while (!parser.is_done() && !error && !left.empty())
      left.remove_prefix(parser.put(boost::asio::buffer(left.data(), left.size()), error));
    EXPECT_FALSE(error) << error.message();
    EXPECT_TRUE(parser.is_done());
    EXPECT_TRUE(left.empty());
    EXPECT_EQ(parser.get().body(), body);
    EXPECT_EQ(parser.get()["RateLimit"], "\"tenant\";r=9;t=1");
  }
}

TEST_F(BeastTest, TheHeadsMemoryIsUsedAgain) {
  const auto handle = [] { return made(http::status::ok, "{}"); };
  serve(get, handle);
  const char* const at = head.data();
  const std::size_t capacity = head.capacity();
  for (int i = 0; i < 10; ++i) serve(get, handle);
  EXPECT_EQ(head.data(), at);
  EXPECT_EQ(head.capacity(), capacity);
}

}  // namespace
}  // namespace spillway::middleware
