// SPDX-License-Identifier: Apache-2.0
//
// The usual first steps of a chain: whose request it is, which pages may ask, and what errors look
// like.
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <boost/beast/http.hpp>
#include <gtest/gtest.h>
#include <support/json.hpp>

#include <spillway/middleware/beast.hpp>
#include <spillway/middleware/client_address.hpp>
#include <spillway/middleware/cors.hpp>
#include <spillway/middleware/error_body.hpp>

namespace spillway::middleware {
namespace {

using testing::Json;
using namespace std::chrono_literals;

const Routes& routes() {
  static const Routes table{{"GET", "/orders/{id}"}};
  return table;
}

/// A request with these headers.
struct Incoming {
  std::vector<HeaderField> fields{};
  std::string_view method = "GET";
  std::string_view peer = "10.0.0.1";
  std::span<const HeaderField> list{};

  RequestView view() {
    list = fields;
    RequestView view{.method = method, .peer_address = peer, .headers = headers_of(list)};
    view.target("/orders/17");
    return view;
  }
};

std::string what_of(auto make) {
  try {
    make();
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "nothing was thrown";
}

// ---- ClientAddress ----

std::string client(const ClientAddressOptions& options, Incoming request) {
  const ClientAddress step(options);
  const Chain<const ClientAddress> chain(routes(), step);
  const auto exchange = chain.begin(request.view());
  return std::string(exchange.client_address);
}

TEST(ClientAddressTest, TrustedProxiesSayWhoseRequestItIs) {
  const ClientAddressOptions options{.trusted_proxies = {"10.0.0.0/8", "fd00::/8"}};
  EXPECT_EQ(client(options, {{{"x-forwarded-for", "198.51.100.4"}}}), "198.51.100.4");
  EXPECT_EQ(client(options, {{{"X-Forwarded-For", "6.6.6.6, \"[2001:DB8::5]:99\", 10.2.2.2"}}}),
            "2001:db8::5")
      << "in its one form";
  EXPECT_EQ(client(options, {{{"X-Forwarded-For", "198.51.100.4"}}, "GET", "203.0.113.9"}),
            "203.0.113.9")
      << "a stranger says what it likes";
  EXPECT_EQ(client(options, {}), "10.0.0.1");
  EXPECT_EQ(client(options, {{{"X-Forwarded-For", "unknown"}}}), "10.0.0.1");
  EXPECT_EQ(client({}, {{{"X-Forwarded-For", "198.51.100.4"}}}), "10.0.0.1") << "nobody is trusted";
}

TEST(ClientAddressTest, SeveralFieldsAreOneList) {
  const ClientAddressOptions options{.trusted_proxies = {"10.0.0.0/8"}};
  EXPECT_EQ(client(options, {{{"X-Forwarded-For", "6.6.6.6"},
                              {"Host", "shop"},
                              {"X-Forwarded-For", "198.51.100.4"}}}),
            "198.51.100.4");
  Incoming many;
  for (std::size_t i = 0; i <= forwarded_fields_max; ++i)
    many.fields.push_back({"X-Forwarded-For", "6.6.6.6"});
  EXPECT_EQ(client(options, many), "10.0.0.1") << "the proxy's own field was not come to";
}

TEST(ClientAddressTest, AnotherHeaderCanBeItsSource) {
  EXPECT_EQ(client({.trusted_proxies = {"10.0.0.1"}, .header = "CF-Connecting-IP"},
                   {{{"X-Forwarded-For", "6.6.6.6"}, {"cf-connecting-ip", "198.51.100.4"}}}),
            "198.51.100.4");
}

TEST(ClientAddressTest, WhatIsNoNetworkIsNamed) {
  const std::string what = what_of([] {
    ClientAddress({.trusted_proxies = {"10.0.0.0/8", "10.0.0.0/33", "lan"}, .header = ""});
  });
  EXPECT_NE(what.find("\"10.0.0.0/33\""), what.npos) << what;
  EXPECT_NE(what.find("\"lan\""), what.npos);
  EXPECT_NE(what.find("header is empty"), what.npos);
  EXPECT_EQ(what.find("/8\""), what.npos);
}

// ---- Cors ----

struct CorsAnswer {
  int status = 0;  // 0: the handler's
  std::string decision;
  std::map<std::string, std::string> headers;
};

CorsAnswer ask(const CorsOptions& options, Incoming request) {
  const Cors step(options);
  const Chain<const Cors> chain(routes(), step);
  const auto exchange = chain.begin(request.view());
  CorsAnswer answer{exchange.reply().status, std::string(exchange.decision), {}};
  for (const HeaderField& field : exchange.headers())
    answer.headers.emplace(field.name, field.value);
  return answer;
}

Incoming page(std::string_view origin) { return {{{"Origin", origin}}}; }
Incoming preflight(std::string_view origin, std::string_view method,
                   std::string_view headers = {}) {
  Incoming request{{{"origin", origin}, {"access-control-request-method", method}}, "OPTIONS"};
  if (!headers.empty()) request.fields.push_back({"Access-Control-Request-Headers", headers});
  return request;
}

const CorsOptions shop{.origins = {"https://shop.example", "https://*.shop.example"},
                       .methods = {"GET", "PUT"},
                       .headers = {"Authorization", "Content-Type"},
                       .expose = {"X-Request-ID"}};

TEST(CorsTest, AnAllowedPageMayReadTheAnswer) {
  const CorsAnswer answer = ask(shop, page("https://shop.example"));
  EXPECT_EQ(answer.status, 0);
  EXPECT_EQ(answer.headers, (std::map<std::string, std::string>{
                                {"Vary", "Origin"},
                                {"Access-Control-Allow-Origin", "https://shop.example"},
                                {"Access-Control-Expose-Headers", "X-Request-ID"}}));
}

TEST(CorsTest, OthersGetTheAnswerWithoutLeaveToReadIt) {
  using OnlyVary = std::map<std::string, std::string>;
  for (const std::string_view origin :
       {"https://evil.example", "http://shop.example", "https://shop.example.evil",
        "https://shop.example:8443", "https://evilshop.example", "https://.shop.example",
        "https://a@b.shop.example", "https://evil/.shop.example", "https://x?.shop.example", "null",
        "https://SHOP.example"}) {
    const CorsAnswer answer = ask(shop, page(origin));
    EXPECT_EQ(answer.status, 0);
    EXPECT_EQ(answer.headers, (OnlyVary{{"Vary", "Origin"}})) << origin;
  }
  EXPECT_EQ(ask(shop, {}).headers, (OnlyVary{{"Vary", "Origin"}})) << "caches must tell them apart";
}

TEST(CorsTest, AStarStandsForTheLabelsOfAHost) {
  for (const std::string_view origin : {"https://a.shop.example", "https://a-1.b.shop.example"})
    EXPECT_EQ(ask(shop, page(origin)).headers.at("Access-Control-Allow-Origin"), origin);
}

TEST(CorsTest, APreflightIsAnsweredWithoutTheHandler) {
  const CorsAnswer answer =
      ask(shop, preflight("https://shop.example", "PUT", "content-type,, AUTHORIZATION "));
  EXPECT_EQ(answer.status, 204);
  EXPECT_EQ(answer.headers,
            (std::map<std::string, std::string>{
                {"Vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"},
                {"Access-Control-Allow-Origin", "https://shop.example"},
                {"Access-Control-Allow-Methods", "GET, PUT"},
                {"Access-Control-Allow-Headers", "Authorization, Content-Type"},
                {"Access-Control-Max-Age", "600"}}));
}

TEST(CorsTest, APreflightThatIsNotAllowedSaysWhy) {
  const auto refused = [](Incoming request, std::string_view why) {
    const CorsAnswer answer = ask(shop, std::move(request));
    EXPECT_EQ(answer.status, 403) << why;
    EXPECT_EQ(answer.decision, why);
    EXPECT_EQ(answer.headers.count("Access-Control-Allow-Origin"), 0U);
    EXPECT_EQ(answer.headers.count("Vary"), 1U);
  };
  refused(preflight("https://evil.example", "GET"), "cors: origin");
  refused(preflight("https://shop.example", "DELETE"), "cors: method");
  refused(preflight("https://shop.example", "put"), "cors: method");
  refused(preflight("https://shop.example", "PUT", "Content-Type, X-Other"), "cors: headers");
  EXPECT_EQ(ask(shop, preflight("https://shop.example", "POST")).status, 204)
      << "needs no leave (a safelisted method)";
}

TEST(CorsTest, OptionsThatAreNoPreflightAreTheHandlers) {
  EXPECT_EQ(ask(shop, {{{"Origin", "https://shop.example"}}, "OPTIONS"}).status, 0);
  EXPECT_EQ(ask(shop, {{{"Access-Control-Request-Method", "PUT"}}, "OPTIONS"}).status, 0);
}

TEST(CorsTest, EveryOriginIsAStarAndCachesNeedNotVary) {
  const CorsOptions open{.origins = {"*"}, .methods = {"*"}, .headers = {"*"}};
  EXPECT_EQ(ask(open, page("https://any.example")).headers,
            (std::map<std::string, std::string>{{"Access-Control-Allow-Origin", "*"}}));
  const CorsAnswer answer = ask(open, preflight("null", "PATCH", "x-any"));
  EXPECT_EQ(answer.status, 204);
  EXPECT_EQ(answer.headers.at("Access-Control-Allow-Headers"), "*");
}

TEST(CorsTest, CredentialsAreAllowedByName) {
  CorsOptions options = shop;
  options.credentials = true;
  EXPECT_EQ(
      ask(options, page("https://shop.example")).headers.at("Access-Control-Allow-Credentials"),
      "true");
  EXPECT_EQ(
      ask(options, page("https://evil.example")).headers.count("Access-Control-Allow-Credentials"),
      0U);
}

TEST(CorsTest, OptionsThatCannotWorkAreRefusedTogether) {
  const std::string what = what_of([] {
    Cors({.origins = {"https://shop.example/", "shop.example", "https://Shop.example", "*"},
          .methods = {"GET PUT"},
          .headers = {"X-Ok", "X:No", "*"},
          .credentials = true,
          .max_age = -1s});
  });
  for (const std::string_view part :
       {"\"https://shop.example/\"", "\"shop.example\"", "\"https://Shop.example\"",
        "origins: \"*\"", "\"GET PUT\"", "\"X:No\"", "headers: \"*\"", "max_age"})
    EXPECT_NE(what.find(part), what.npos) << part << " in " << what;
  EXPECT_EQ(what.find("X-Ok"), what.npos);
  EXPECT_NE(what_of([] { Cors({.origins = {"*"}, .credentials = true}); }).find("credentials"),
            std::string::npos);
  EXPECT_NE(what_of([] { Cors(CorsOptions{}); }).find("origins is empty"), std::string::npos);
}

// ---- ErrorBody ----

namespace beast_http = boost::beast::http;
using BeastRequest = beast_http::request<beast_http::string_body>;
using BeastResponse = beast_http::response<beast_http::string_body>;

BeastResponse answered(ErrorBodies replaced, beast_http::status status, const std::string& body,
                       const std::string& type = "text/plain",
                       beast_http::verb method = beast_http::verb::get) {
  const ErrorBody step(replaced);
  const Chain<const ErrorBody> chain(routes(), step);
  const BeastRequest request{method, "/orders/17", 11};
  auto exchange = chain.begin(beast_view(request, "10.0.0.1"));
  exchange.request_id = "r-1";
  BeastResponse response = beast_answer(exchange, request, [&] {
    BeastResponse made{status, 11};
    made.set("WWW-Authenticate", "Basic");
    if (!body.empty()) made.set("Content-Type", type);
    made.body() = body;
    made.prepare_payload();
    return made;
  });
  beast_finish(exchange, response, boost::system::error_code());
  return response;
}

TEST(ErrorBodyTest, AnErrorWithoutABodyGetsAProblemAndKeepsItsHeaders) {
  const BeastResponse response = answered(ErrorBodies::empty, beast_http::status::unauthorized, "");
  EXPECT_EQ(response.result_int(), 401U);
  EXPECT_EQ(response["Content-Type"], "application/problem+json");
  EXPECT_EQ(response["WWW-Authenticate"], "Basic");
  EXPECT_EQ(response["Content-Length"], std::to_string(response.body().size()));
  const Json problem(response.body());
  EXPECT_EQ(problem["status"].number(), 401);
  EXPECT_EQ(problem["title"].string(), "Unauthorized");
  EXPECT_EQ(problem["request_id"].string(), "r-1");
}

TEST(ErrorBodyTest, OtherBodiesAreReplacedOnRequest) {
  using beast_http::status;
  EXPECT_EQ(answered(ErrorBodies::empty, status::bad_gateway, "stack").body(), "stack");
  EXPECT_EQ(answered(ErrorBodies::server_errors, status::not_found, "no order").body(), "no order");
  EXPECT_EQ(answered(ErrorBodies::server_errors, status::bad_gateway, "stack").body().find("stack"),
            std::string::npos);
  EXPECT_EQ(
      Json(answered(ErrorBodies::all, status::not_found, "no order").body())["status"].number(),
      404);
  EXPECT_EQ(answered(ErrorBodies::all, status::ok, "").body(), "");
}

TEST(ErrorBodyTest, AProblemDocumentStays) {
  const std::string own = R"({"type":"https://shop.example/sold-out"})";
  EXPECT_EQ(answered(ErrorBodies::all, beast_http::status::conflict, own,
                     "Application/Problem+JSON; charset=utf-8")
                .body(),
            own);
}

TEST(ErrorBodyTest, AnAnswerToHeadStays) {
  EXPECT_EQ(answered(ErrorBodies::empty, beast_http::status::not_found, "", "",
                     beast_http::verb::head)["Content-Type"],
            "");
}

}  // namespace
}  // namespace spillway::middleware
