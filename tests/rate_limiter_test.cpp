// SPDX-License-Identifier: Apache-2.0
//
// The rate limiter as a step of a chain: whom it counts, what the client is told, what is recorded.
#include <algorithm>
#include <map>

#include <support/engine_fixture.hpp>
#include <support/fake_dynamodb.hpp>
#include <support/gunzip.hpp>

#include <spillway/middleware/chain.hpp>
#include <spillway/middleware/client_address.hpp>
#include <spillway/middleware/rate_limit/dynamodb_table.hpp>
#include <spillway/middleware/rate_limit/lease_keeper.hpp>
#include <spillway/middleware/rate_limit/local_store.hpp>
#include <spillway/middleware/rate_limit/rate_limiter.hpp>
#include <spillway/transport/credential_sources.hpp>

namespace spillway::middleware {
namespace {

using namespace std::chrono_literals;
using spillway::testing::Json;

// The step that finds out who asks, in front of the limiter.
struct Identity {
  struct State {};
  Verdict before(State& /*state*/, Exchange& exchange) {
    exchange.tenant = exchange.request.header("X-Tenant-ID");
    exchange.user = exchange.request.header("X-User-ID");
    return Verdict::proceed;
  }
};

struct Answer {
  int status = 0;
  std::map<std::string, std::string> headers{};
  std::string content_type{};
  std::string body{};
  std::string decision{};
};

class RateLimiterTest : public ::testing::Test {
 protected:
  struct Request {
    std::vector<HeaderField> headers{};
    std::string_view peer = "203.0.113.9";
    std::string_view method = "GET";
    std::string_view path = "/orders/1";
    int status = 200;
    Ending ending = Ending::sent;
  };

  void limit(std::vector<RatePolicy> policies) { limit_with({.policies = std::move(policies)}); }
  void limit_with(const RateLimiterOptions& options) {
    limiter.emplace(test.engine, store, options);
  }

  Answer ask(const Request& request) {
    Chain chain(routes, *client_address, identity, *limiter);
    const std::span<const HeaderField> list(request.headers);
    auto exchange = chain.begin({.method = request.method,
                                 .path = request.path,
                                 .peer_address = request.peer,
                                 .headers = headers_of(list)},
                                now);
    Answer answer{.status = request.status};
    if (exchange.has_reply()) {
      answer = {exchange.reply().status,
                {},
                std::string(exchange.reply().content_type),
                std::string(exchange.reply().body)};
    }
    answer.decision = exchange.decision;
    for (const HeaderField& field : exchange.headers())
      answer.headers[std::string(field.name)] = std::string(field.value);
    exchange.finish({.status = answer.status, .ending = request.ending});
    return answer;
  }
  int status_for(std::string_view tenant, std::string_view user = {}) {
    return ask({.headers = {{"x-tenant-id", tenant}, {"x-user-id", user}}}).status;
  }
  int status_from(std::string_view peer) { return ask({.peer = peer}).status; }

  spillway::testing::AwsEnvironment environment;
  spillway::testing::TestEngine test{spillway::testing::aws_config()};
  Routes routes{{"GET", "/orders/{id}"}, {"POST", "/orders"}, {"GET", "/other"}};
  std::optional<ClientAddress> client_address{std::in_place, ClientAddressOptions{}};
  Identity identity;
  LocalRateStore store;
  std::optional<RateLimiter> limiter;
  SteadyTime now{1'000s};
};

RatePolicy policy(std::string name, std::int64_t permits, std::chrono::nanoseconds window,
                  std::vector<RateKeyPart> by) {
  return {.name = std::move(name),
          .limit = {.permits = permits, .window = window, .algorithm = RateAlgorithm::fixed_window},
          .by = std::move(by)};
}

const RateKeyPart by_tenant{RateKeySource::tenant};
const RateKeyPart by_user{RateKeySource::user};
const RateKeyPart by_client{RateKeySource::client_address};

TEST_F(RateLimiterTest, TellsTheClientWhereItStands) {
  limit({policy("tenant", 2, 60s, {by_tenant})});
  now += 30s + 1ns;
  const Answer first = ask({});
  EXPECT_EQ(first.status, 200);
  EXPECT_EQ(first.headers.at("X-RateLimit-Limit"), "2");
  EXPECT_EQ(first.headers.at("X-RateLimit-Remaining"), "1");
  EXPECT_EQ(first.headers.at("X-RateLimit-Reset"), "50") << "rounded up";
  EXPECT_EQ(first.headers.at("RateLimit-Policy"), R"("tenant";q=2;w=60)");
  EXPECT_EQ(first.headers.at("RateLimit"), R"("tenant";r=1;t=50)");
  EXPECT_FALSE(first.headers.contains("Retry-After"));
  ask({});
  const Answer denied = ask({});
  EXPECT_EQ(denied.status, 429);
  EXPECT_EQ(first.decision, "");
  EXPECT_EQ(denied.decision, "rate_limit: tenant") << "the policy that denied";
  EXPECT_EQ(denied.headers.at("Retry-After"), "50");
  EXPECT_EQ(denied.headers.at("X-RateLimit-Remaining"), "0");
  EXPECT_EQ(denied.content_type, "application/problem+json");
  const Json problem(denied.body);
  EXPECT_EQ(problem["status"].number(), 429);
  EXPECT_EQ(problem["title"].string(), "Too Many Requests");
  EXPECT_EQ(problem["detail"].string(),
            "the limit \"tenant\" of 2 requests in 60 s is reached; try again in 50 s");
}

TEST_F(RateLimiterTest, RetryAfterIsAtLeastASecond) {
  limit({policy("fast", 1, 1500ms, {by_client})});
  now = SteadyTime(1'500s + 1'499ms);
  EXPECT_EQ(ask({}).headers.at("RateLimit-Policy"), R"("fast";q=1)") << "no whole seconds";
  const Answer denied = ask({});
  EXPECT_EQ(denied.status, 429);
  EXPECT_EQ(denied.headers.at("Retry-After"), "1");
  now += 1ms;
  EXPECT_EQ(ask({}).status, 200);
}

TEST_F(RateLimiterTest, ARequestFitsUnderEveryPolicyOrTakesNothing) {
  limit({policy("user", 3, 1s, {by_tenant, by_user}), policy("tenant", 4, 1s, {by_tenant})});
  EXPECT_EQ(status_for("acme", "a"), 200);
  EXPECT_EQ(status_for("acme", "a"), 200);
  EXPECT_EQ(status_for("acme", "b"), 200);
  EXPECT_EQ(status_for("acme", "b"), 200);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(status_for("acme", "a"), 429) << "the tenant's limit";
  now += 1s;
  const Answer both = ask({.headers = {{"X-Tenant-ID", "acme"}, {"X-User-ID", "a"}}});
  EXPECT_EQ(both.headers.at("RateLimit"), R"("user";r=2;t=1, "tenant";r=3;t=1)");
  EXPECT_EQ(both.headers.at("X-RateLimit-Limit"), "3") << "of the policy that has least left";
  EXPECT_EQ(status_for("acme", "a"), 200);
  EXPECT_EQ(status_for("acme", "a"), 200) << "the denied ones took nothing of the user's";
  EXPECT_EQ(status_for("acme", "a"), 429);
  EXPECT_EQ(status_for("other", "a"), 200) << "a user of another tenant is another user";
}

TEST_F(RateLimiterTest, SomeTenantsAndUsersHaveLimitsOfTheirOwn) {
  RatePolicy one = policy("api", 1, 1s, {by_tenant, by_user});
  one.tenants = {{"big", {.permits = 2, .window = 1s, .algorithm = RateAlgorithm::fixed_window}}};
  one.users = {{"root", {.permits = 3, .window = 1s, .algorithm = RateAlgorithm::fixed_window}}};
  limit({one});
  const auto admitted = [&](std::string_view tenant, std::string_view user) {
    int count = 0;
    for (int i = 0; i < 6; ++i) count += status_for(tenant, user) == 200 ? 1 : 0;
    return count;
  };
  EXPECT_EQ(admitted("small", "u"), 1);
  EXPECT_EQ(admitted("big", "u"), 2);
  EXPECT_EQ(admitted("big", "root"), 3);
  EXPECT_EQ(admitted("", ""), 1) << "who names nothing is counted together";
}

TEST_F(RateLimiterTest, ClientsAreToldApartByTheirNetwork) {
  limit({policy("client", 1, 1s, {by_client})});
  EXPECT_EQ(status_from("203.0.113.9"), 200);
  EXPECT_EQ(status_from("::ffff:203.0.113.9"), 429) << "the same address";
  EXPECT_EQ(status_from("203.0.113.10"), 200);
  EXPECT_EQ(status_from("2001:db8:0:1::1"), 200);
  EXPECT_EQ(status_from("2001:db8:0:1:ffff::2"), 429) << "the same /64";
  EXPECT_EQ(status_from("2001:db8:0:2::1"), 200);
  EXPECT_EQ(status_from("no address"), 200);
  EXPECT_EQ(status_from(""), 429) << "those without an address are counted together";
}

TEST_F(RateLimiterTest, ForwardedForCountsOnlyBehindTrustedProxies) {
  limit({policy("client", 1, 1s, {by_client})});
  client_address.emplace(ClientAddressOptions{.trusted_proxies = {"10.0.0.0/8"}});
  const auto via = [&](std::string_view peer, std::vector<HeaderField> headers) {
    return ask({.headers = std::move(headers), .peer = peer}).status;
  };
  EXPECT_EQ(via("10.0.0.1", {{"X-Forwarded-For", "6.6.6.6, 198.51.100.4"}}), 200);
  EXPECT_EQ(via("10.0.0.2", {{"X-Forwarded-For", "7.7.7.7, 198.51.100.4"}}), 429);
  EXPECT_EQ(via("10.0.0.2", {{"x-forwarded-for", "198.51.100.5"},
                             {"X-Forwarded-For", "198.51.100.4, 10.0.0.9"}}),
            429);
  EXPECT_EQ(via("203.0.113.9", {{"X-Forwarded-For", "1.1.1.1"}}), 200);
  EXPECT_EQ(via("203.0.113.9", {{"X-Forwarded-For", "2.2.2.2"}}), 429)
      << "a stranger's header means nothing";
  // A client that puts many fields in front of the proxy's cannot choose whom it is counted as.
  for (const std::string_view forged : {"8.8.8.1", "8.8.8.2"}) {
    std::vector<HeaderField> fields(40, {"X-Forwarded-For", forged});
    fields.push_back({"X-Forwarded-For", "198.51.100.4"});
    EXPECT_EQ(via("10.0.0.7", fields), forged == "8.8.8.1" ? 200 : 429) << "counted as the proxy";
  }
}

TEST_F(RateLimiterTest, EveryFormOfAnAddressBehindAProxyIsOneClient) {
  limit({policy("client", 1, 1s, {by_client})});
  client_address.emplace(ClientAddressOptions{.trusted_proxies = {"10.0.0.0/8", "fd00::/8"}});
  const auto via = [&](std::string_view peer, std::string_view forwarded) {
    return ask({.headers = {{"X-Forwarded-For", forwarded}}, .peer = peer}).status;
  };
  EXPECT_EQ(via("10.0.0.1", "198.51.100.4"), 200);
  for (const char* const form :
       {"198.51.100.4:4711", "::ffff:198.51.100.4", "[::ffff:198.51.100.4]:80", " 198.51.100.4 ,",
        "\"198.51.100.4\"", "1.1.1.1, 198.51.100.4, 10.9.9.9", ", ,198.51.100.4"}) {
    EXPECT_EQ(via("10.0.0.1", form), 429) << form;
  }
  EXPECT_EQ(via("::ffff:10.0.0.1", "198.51.100.4"), 429) << "the proxy's own forms";
  EXPECT_EQ(via("[fd00::1]:4711", "198.51.100.4"), 429);
  EXPECT_EQ(via("10.0.0.1", "2001:db8::1"), 200);
  EXPECT_EQ(via("10.0.0.1", "[2001:DB8:0:0::2]:443"), 429) << "of the same /64";
  // What is no address, and nothing at all: the proxy itself is counted.
  EXPECT_EQ(via("10.0.0.7", ""), 200);
  for (const char* const form : {",", "unknown", "198.51.100.9, unknown", "1.2.3", "0x7f.1"})
    EXPECT_EQ(via("10.0.0.7", form), 429) << form;
}

TEST_F(RateLimiterTest, TenantsWithSeparatorsInTheirNamesAreTenantsOfTheirOwn) {
  limit({policy("api", 1, 1s, {by_tenant, by_user})});
  const std::pair<std::string, std::string> who[] = {{"a", "b"},
                                                     {"a|user=b", ""},
                                                     {"", "a|user=b"},
                                                     {"a%7Cuser%3Db", ""},
                                                     {"a|user", "b"},
                                                     {"ab", ""},
                                                     {"", "ab"},
                                                     {"a", ""},
                                                     {"", "a"},
                                                     {"api|tenant=a", ""},
                                                     {std::string("a\0", 2), "b"},
                                                     {"A", "b"}};
  for (const auto& [tenant, user] : who) EXPECT_EQ(status_for(tenant, user), 200) << tenant;
  for (const auto& [tenant, user] : who) EXPECT_EQ(status_for(tenant, user), 429) << tenant;
}

TEST_F(RateLimiterTest, RoutesMethodsAndHeadersAreKeysToo) {
  limit({policy("call", 1, 1s,
                {{RateKeySource::route},
                 {RateKeySource::method},
                 {RateKeySource::header, "X-Api-Key", true}})});
  EXPECT_EQ(ask({.path = "/orders/1"}).status, 200);
  EXPECT_EQ(ask({.path = "/orders/2"}).status, 429) << "the same template";
  EXPECT_EQ(ask({.path = "/other"}).status, 200);
  EXPECT_EQ(ask({.method = "POST", .path = "/orders"}).status, 200);
  EXPECT_EQ(ask({.headers = {{"x-api-key", "one"}}}).status, 200);
  EXPECT_EQ(ask({.headers = {{"X-API-KEY", "two"}}}).status, 200);
  EXPECT_EQ(ask({.headers = {{"X-Api-Key", "one"}}}).status, 429);
}

TEST_F(RateLimiterTest, SuccessesDoNotCountWhenTheyAreExcluded) {
  limit_with({.policies = {policy("login", 2, 60s, {by_client})}, .exclude_successful = true});
  for (int i = 0; i < 10; ++i) EXPECT_EQ(ask({}).status, 200);
  EXPECT_EQ(ask({.status = 401}).status, 401);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(ask({}).status, 200);
  EXPECT_EQ(ask({.ending = Ending::broken}).status, 200) << "who breaks off is counted";
  EXPECT_EQ(ask({}).status, 429);
}

TEST_F(RateLimiterTest, HeadersCanBeLeftOutButNotWhenDenied) {
  limit_with({.policies = {policy("api", 1, 1s, {by_client})}, .headers = false});
  EXPECT_TRUE(ask({}).headers.empty());
  EXPECT_EQ(ask({}).headers.at("Retry-After"), "1");
}

TEST_F(RateLimiterTest, EveryErrorOfItsOptionsIsListedAtOnce) {
  RatePolicy wrong = policy("a b", 0, 1s, {});
  RatePolicy twice = policy("x", 1, 1s, {by_client, {RateKeySource::header}});
  twice.users = {{"u", {.permits = -1}}, {"u", {.permits = 1}}};
  RatePolicy global = policy("x", 1, 1s, {});
  global.global = true;
  try {
    limit_with({.policies = {wrong, twice, global}, .ipv6_prefix = 0});
    FAIL() << "it took them";
  } catch (const InvalidRateLimiter& invalid) {
    const std::vector<std::string> expected{
        "ipv6_prefix is 0, allowed is 1 to 128",
        "policies[0]: name is \"a b\", allowed are 1 to 64 letters, digits, '-', '_', '.'",
        "policies[0]: has no key (by); say what it counts by, or global",
        "policies[0]: permits is 0, allowed is 1 to 2147483648",
        "policies[1]: by: a header, and nothing else, has a name",
        "policies[1]: users has limits, but the policy does not count by it",
        "policies[1].users[u]: permits is -1, allowed is 1 to 2147483648",
        "policies[1]: users has \"u\" twice",
        "policies[2]: name \"x\" is taken by policies[1]"};
    EXPECT_EQ(invalid.errors(), expected);
    EXPECT_NE(std::string(invalid.what()).find("\n  policies[0]: permits is 0"), std::string::npos);
  }
  EXPECT_THROW(limit_with(RateLimiterOptions{}), InvalidRateLimiter);
}

// A store that does not answer.
class DeadStore final : public RateStore {
 public:
  explicit DeadStore(RateDecision::Outcome outcome) : outcome_(outcome) {}
  RateDecision take(const RateKey& /*key*/, const detail::RateRule& rule, std::int64_t /*permits*/,
                    SteadyTime /*now*/) noexcept override {
    return {outcome_, rule.capacity, 0, 0, 0, 0};
  }
  void give_back(const RateKey& /*key*/, const detail::RateRule& /*rule*/, std::int64_t /*permits*/,
                 std::int64_t receipt, SteadyTime /*now*/) noexcept override {
    EXPECT_EQ(receipt, 0);
  }

 private:
  const RateDecision::Outcome outcome_;
};

TEST_F(RateLimiterTest, AStoreThatFailsClosedIsA503AndOneThatFailsOpenLetsPass) {
  DeadStore closed(RateDecision::Outcome::denied_unavailable);
  limiter.emplace(test.engine, closed,
                  RateLimiterOptions{.policies = {policy("api", 1, 1s, {by_client})}});
  const Answer answer = ask({});
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(answer.headers.at("Retry-After"), "1");
  EXPECT_EQ(answer.decision, "rate_limit: store_unavailable");
  DeadStore open(RateDecision::Outcome::admitted_unavailable);
  limiter.emplace(test.engine, open,
                  RateLimiterOptions{.policies = {policy("api", 1, 1s, {by_client})},
                                     .exclude_successful = true});
  EXPECT_EQ(ask({}).status, 200);
}

// The DynamoDB store on a fake table, with a worker that the test steps.
class SteppedDynamoDbStore final : public RateStore {
 public:
  explicit SteppedDynamoDbStore(std::string secret_key) : keeper_(parts(std::move(secret_key))) {}

  RateDecision take(const RateKey& key, const detail::RateRule& rule, std::int64_t permits,
                    SteadyTime now) noexcept override {
    const RateDecision decision = keeper_.take(key, rule, permits, now);
    while (keeper_.step()) {
    }
    return decision.outcome == RateDecision::Outcome::denied_unavailable
               ? keeper_.take(key, rule, permits, now)
               : decision;
  }
  void give_back(const RateKey& key, const detail::RateRule& rule, std::int64_t permits,
                 std::int64_t receipt, SteadyTime now) noexcept override {
    keeper_.give_back(key, rule, permits, receipt, now);
    while (keeper_.step()) {
    }
  }

  spillway::testing::FakeDynamoDb dynamodb{};
  std::vector<transport::HttpRequest> asked{};

 private:
  detail::LeaseKeeper::Parts parts(std::string secret_key) {
    dynamodb.before = [this](const transport::HttpRequest& request) {
      asked.push_back(request);
      return std::optional<transport::HttpResponse>();
    };
    std::vector<std::unique_ptr<transport::CredentialsProvider>> sources;
    sources.push_back(transport::static_credentials({"AKIDEXAMPLE", "signing-secret"}));
    detail::LeaseKeeper::Parts made{
        .secret_key = std::move(secret_key), .threads = false, .steady_ns = [] {
          return std::chrono::nanoseconds(1'000s).count();
        }};
    made.tables.push_back(std::make_unique<detail::DynamoDbTable>(detail::DynamoDbTable::Parts{
        .table = "limits",
        .region = "eu-west-1",
        .endpoint = "https://dynamodb.example",
        .credentials = std::make_shared<transport::CredentialsChain>(
            std::move(sources), transport::CredentialsChain::Options{.background = false}),
        .http = dynamodb.transport(),
        .now = [] { return transport::SignedService::Time(1'795'262'400s); },
        .pause = [](std::chrono::milliseconds) {}}));
    return made;
  }

  detail::LeaseKeeper keeper_;
};

TEST_F(RateLimiterTest, ASecretPartOfAKeyNeverReachesTheSharedTableNorTheTelemetryInClear) {
  constexpr std::string_view canary = "sk-canary-7f3a";
  const auto items_with = [&](std::string secret_key) {
    SteppedDynamoDbStore shared(std::move(secret_key));
    limiter.emplace(
        test.engine, shared,
        RateLimiterOptions{
            .policies = {policy("api", 2, 60s,
                                {by_tenant, {RateKeySource::header, "X-Api-Key", true}})},
            .exclude_successful = true});
    const auto status = [&](std::string_view secret, int answered) {
      return ask({.headers = {{"X-Tenant-ID", "acme"}, {"X-Api-Key", secret}}, .status = answered})
          .status;
    };
    EXPECT_EQ(status(canary, 401), 401);
    EXPECT_EQ(status(canary, 200), 200);  // Goes back.
    EXPECT_EQ(status(canary, 401), 401);
    EXPECT_EQ(status(canary, 200), 429) << "it is counted in the shared table";
    EXPECT_EQ(status("another", 200), 200) << "and by the secret";
    limiter.reset();
    EXPECT_GE(shared.asked.size(), 2U);
    for (const transport::HttpRequest& request : shared.asked) {
      std::string all = request.path + request.query + request.body;
      for (const auto& field : request.headers) all += field.name + field.value;
      EXPECT_EQ(all.find(canary), all.npos) << all;
      EXPECT_NE(all.find("tenant=acme"), all.npos) << "what is no secret is in clear: " << all;
    }
    std::vector<std::string> ids;
    for (const auto& [id, item] : shared.dynamodb.items) ids.push_back(id);
    return ids;
  };
  const std::vector<std::string> hashed = items_with("");
  const std::vector<std::string> keyed = items_with("a key of the service's own");
  EXPECT_EQ(hashed.size(), 2U) << "an item for each secret";
  EXPECT_EQ(keyed.size(), 2U);
  for (const std::string& id : keyed)
    EXPECT_EQ(std::count(hashed.begin(), hashed.end(), id), 0)
        << "whoever reads it cannot guess: " << id;
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_FALSE(test.http.requests().empty());
  for (const auto& request : test.http.requests()) {
    const std::string text = spillway::testing::body_of(request);
    EXPECT_EQ(text.find(canary), text.npos) << text;
  }
}

TEST_F(RateLimiterTest, DecisionsAreMetricsByPolicyAndOutcome) {
  test.engine.set_log_level(Severity::debug);
  limit({policy("api", 1, 60s, {by_client})});
  for (int i = 0; i < 3; ++i) ask({});
  ASSERT_TRUE(test.engine.flush(1s));
  std::map<std::string, double> sums;
  int denials = 0;
  for (const auto& request : test.http.requests()) {
    const Json body(spillway::testing::body_of(request));
    if (body.has("logEvents")) {
      for (std::size_t i = 0; i < body["logEvents"].size(); ++i) {
        const Json log(body["logEvents"][i]["message"].string());
        EXPECT_EQ(log["policy"].string(), "api");
        EXPECT_EQ(log["route"].string(), "/orders/{id}");
        ++denials;
      }
    } else if (body.has("MetricData")) {
      for (std::size_t i = 0; i < body["MetricData"].size(); ++i) {
        const Json datum = body["MetricData"][i];
        for (std::size_t d = 0; d < datum["Dimensions"].size(); ++d) {
          if (datum["Dimensions"][d]["Name"].string() == "Outcome" && datum.has("StatisticValues"))
            sums[datum["Dimensions"][d]["Value"].string()] +=
                datum["StatisticValues"]["Sum"].number();
          else if (datum["Dimensions"][d]["Name"].string() == "Outcome")
            sums[datum["Dimensions"][d]["Value"].string()] += datum["Value"].number();
        }
      }
    }
  }
  EXPECT_EQ(sums["admitted"], 1);
  EXPECT_EQ(sums["denied"], 2);
  EXPECT_EQ(denials, 2);
}

}  // namespace
}  // namespace spillway::middleware
