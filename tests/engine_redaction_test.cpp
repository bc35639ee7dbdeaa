// SPDX-License-Identifier: Apache-2.0
//
// The redaction policy through the whole engine: whatever a secret was recorded in, no request and no
// line holds it.
#include <support/engine_fixture.hpp>

namespace spillway {
namespace {

using namespace std::chrono_literals;
using testing::Json;

class EngineRedactionTest : public ::testing::Test {
 protected:
  static Config config() {
    Config config = testing::aws_config();
    config.metrics = MetricsTo::none;
    return config;
  }
  static std::string all_bodies(const testing::TestEngine& test) {
    std::string all;
    for (const auto& request : test.http.requests()) all += request.path + request.body;
    return all;
  }
  static Json message(const testing::TestEngine& test, std::size_t index) {
    for (const auto& request : test.http.requests()) {
      if (testing::operation_of(request) != "PutLogEvents") continue;
      return Json(Json(request.body)["logEvents"][index]["message"].string());
    }
    ADD_FAILURE() << "no PutLogEvents";
    return Json("{}");
  }
  static Json segment(const testing::TestEngine& test) {
    for (const auto& request : test.http.requests()) {
      if (testing::operation_of(request) != "TraceSegments") continue;
      return Json(Json(request.body)["TraceSegmentDocuments"][0].string());
    }
    ADD_FAILURE() << "no segment";
    return Json("{}");
  }
  testing::AwsEnvironment environment;
};

TEST_F(EngineRedactionTest, FieldsOfLogs) {
  testing::TestEngine test(config());
  SPILLWAY_INFO(test.engine, "paid", {"before", 1}, {"card", "4111 1111 1111 1111"}, {"pin", 1234},
                {"ok", true}, {"cvv", 0.5}, {"mail", "canary@shop.com"}, {"is_secret", false},
                {"password", ""}, {"after", 2.5});
  SPILLWAY_INFO(test.engine, "nothing to hide", {"n", 7}, {"text", "plain"});
  ASSERT_TRUE(test.engine.flush(1s));
  const Json paid = message(test, 0);
  EXPECT_EQ(paid["before"].number(), 1);
  EXPECT_TRUE(paid["ok"].boolean());
  EXPECT_EQ(paid["after"].number(), 2.5);
  for (const std::string_view key : {"card", "pin", "cvv", "mail", "is_secret", "password"}) {
    EXPECT_EQ(paid[key].string(), "[redacted]") << key;
  }
  EXPECT_EQ(message(test, 1)["n"].number(), 7);
  EXPECT_EQ(message(test, 1)["text"].string(), "plain");
}

TEST_F(EngineRedactionTest, ARecordTooLargeForTheRing) {
  testing::TestEngine test(config());
  const Context context{{.user = "canary@shop.com"}};
  const Scope scope(context);
  SPILLWAY_INFO(test.engine, "large", {"body", std::string(600'000, 'x') + R"( "token":"canary" )"},
                {"n", 3});
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(message(test, 0)["n"].number(), 3);
  EXPECT_EQ(message(test, 0)["user"].string(), "[redacted]");
  EXPECT_EQ(all_bodies(test).find("canary"), std::string::npos);
}

TEST_F(EngineRedactionTest, SpansAndWhoTheyAreFor) {
  testing::TestEngine test(config());
  const Context context{{.tenant = "acme", .user = "canary@shop.com", .request_id = "r-1"}};
  const Scope scope(context);
  {
    Span span = test.engine.span("request");
    span.http_request({.method = "GET",
                       .url = "https://canary:canary@shop.com/pay?token=canary&page=2",
                       .user_agent = "Bearer canary",
                       .client_ip = "203.0.113.9"});
    span.annotate("retries", 2);
    span.annotate("pin", 1234);
    span.annotate("note", "mail to canary@shop.com");
    span.metadata("api_key", "canary");
    span.metadata("request.headers.authorization", "canary");
    for (int i = 0; i < 20; ++i) span.metadata("body", R"({"password":"canary"})");  // In parts.
    SPILLWAY_WARN(test.engine, "under it");
  }
  ASSERT_TRUE(test.engine.flush(1s));
  const Json found = segment(test);
  EXPECT_EQ(found["http"]["request"]["url"].string(),
            "https://[redacted]@shop.com/pay?token=[redacted]&page=2");
  EXPECT_EQ(found["http"]["request"]["method"].string(), "GET");
  EXPECT_EQ(found["annotations"]["retries"].number(), 2);
  EXPECT_EQ(found["annotations"]["pin"].string(), "[redacted]");
  EXPECT_EQ(found["annotations"]["note"].string(), "mail to [redacted]");
  EXPECT_EQ(found["metadata"]["default"]["body"].string(), R"({"password":"[redacted]"})");
  EXPECT_EQ(found["user"].string(), "[redacted]");
  EXPECT_EQ(message(test, 0)["user"].string(), "[redacted]");
  EXPECT_EQ(message(test, 0)["tenant"].string(), "acme");
  EXPECT_EQ(all_bodies(test).find("canary"), std::string::npos);
}

TEST_F(EngineRedactionTest, ThePolicyIsASetting) {
  Config config = EngineRedactionTest::config();
  config.redact = "none";
  config.redact_keys = "order_id";
  testing::TestEngine test(config);
  SPILLWAY_INFO(test.engine, "other", {"mail", "jane@shop.com"}, {"password", "x"},
                {"order_id", 17});
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(message(test, 0)["mail"].string(), "jane@shop.com");
  EXPECT_EQ(message(test, 0)["password"].string(), "x");
  EXPECT_EQ(message(test, 0)["order_id"].string(), "[redacted]");

  config.redact = "cards,phones";
  config.redact_keys = "a,,b";
  try {
    const testing::TestEngine refused(config);
    ADD_FAILURE() << "the engine started";
  } catch (const InvalidConfig& invalid) {
    ASSERT_EQ(invalid.errors().size(), 2U);
    EXPECT_EQ(invalid.errors()[0].key, "redact");
    EXPECT_EQ(invalid.errors()[1].key, "redact_keys");
  }
}

TEST_F(EngineRedactionTest, WhatALoggerHasInCommonIsRedactedToo) {
  testing::TestEngine test(config());
  const Logger logger =
      test.engine.logger("db").with({"password", "hunter2"}, {"mail", "jane@shop.com"}, {"n", 1});
  SPILLWAY_INFO(logger, "connected", {"pin", 1234}, {"text", "by bob@shop.com"});
  ASSERT_TRUE(test.engine.flush(1s));
  const Json found = message(test, 0);
  EXPECT_EQ(found["password"].string(), "[redacted]");
  EXPECT_EQ(found["mail"].string(), "[redacted]");
  EXPECT_EQ(found["pin"].string(), "[redacted]");
  EXPECT_EQ(found["text"].string(), "by [redacted]");
  EXPECT_EQ(found["n"].number(), 1);
}

TEST_F(EngineRedactionTest, ANameOfAPathThatIsSecretHidesWhatIsBelowIt) {
  testing::TestEngine test(config());
  SPILLWAY_INFO(test.engine, "m", {"auth.pin", 1234}, {"authorization.scheme", "Basic"},
                {"login.password.old", "x"}, {"a.b.cvv", 7}, {"spin.n", 1}, {"pin_count.n", 2});
  ASSERT_TRUE(test.engine.flush(1s));
  const Json found = message(test, 0);
  EXPECT_EQ(found["auth"]["pin"].string(), "[redacted]");
  EXPECT_EQ(found["authorization"]["scheme"].string(), "[redacted]");
  EXPECT_EQ(found["login"]["password"]["old"].string(), "[redacted]");
  EXPECT_EQ(found["a"]["b"]["cvv"].string(), "[redacted]");
  EXPECT_EQ(found["spin"]["n"].number(), 1);
  EXPECT_EQ(found["pin_count"]["n"].number(), 2);
}

}  // namespace
}  // namespace spillway
