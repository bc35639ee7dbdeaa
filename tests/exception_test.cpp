// SPDX-License-Identifier: Apache-2.0
//
// Exceptions as fields of a log.
#include <stdexcept>
#include <string>

#include <support/engine_fixture.hpp>

#include <spillway/engine/exception.hpp>

namespace shop {

struct CardRefused : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Throws `depth` exceptions, each nested in the next.
[[noreturn]] void fail(int depth) {
  if (depth == 1) throw CardRefused("card 1");
  try {
    fail(depth - 1);
  } catch (...) {
    std::throw_with_nested(std::runtime_error("level " + std::to_string(depth)));
  }
}

}  // namespace shop

namespace spillway {
namespace {

using namespace std::chrono_literals;
using testing::Json;

class ExceptionTest : public ::testing::Test {
 protected:
  static Config config() {
    Config config = testing::aws_config();
    config.metrics = MetricsTo::none;
    config.traces = TracesTo::none;
    return config;
  }
  Json message(std::size_t index = 0) {
    EXPECT_TRUE(test_.engine.flush(1s));
    for (const auto& request : test_.http.requests()) {
      if (testing::operation_of(request) != "PutLogEvents") continue;
      return Json(Json(request.body)["logEvents"][index]["message"].string());
    }
    ADD_FAILURE() << "no PutLogEvents";
    return Json("{}");
  }
  testing::AwsEnvironment environment_;
  testing::TestEngine test_{config()};
};

TEST_F(ExceptionTest, TypeMessageAndStackAreFields) {
  try {
    shop::fail(1);
  } catch (const std::exception& error) {
    SPILLWAY_EXCEPTION(test_.engine, error, "charge failed", {"order_id", 17}, {"retry", false});
  }
  const Json found = message();
  EXPECT_EQ(found["level"].string(), "ERROR");
  EXPECT_EQ(found["message"].string(), "charge failed");
  EXPECT_EQ(found["exception"]["type"].string(), "shop::CardRefused");
  EXPECT_EQ(found["exception"]["message"].string(), "card 1");
  EXPECT_FALSE(found["exception"].has("cause"));
  EXPECT_NE(found["exception"]["stacktrace"].string().find("exception_test"), std::string::npos);
  EXPECT_EQ(found["order_id"].number(), 17);
  EXPECT_FALSE(found["retry"].boolean());
  EXPECT_EQ(found["source"].string().find("exception_test.cpp:"), 0U);
}

TEST_F(ExceptionTest, WhatIsNestedIsNested) {
  for (int depth = 1; depth <= 6; ++depth) {
    try {
      shop::fail(depth);
    } catch (const std::exception& error) {
      const ExceptionInfo info(error);
      ASSERT_EQ(info.depth(), static_cast<std::size_t>(std::min(depth, 4)));
      for (std::size_t i = 0; i < info.depth(); ++i) {
        const bool innermost = i + 1 == static_cast<std::size_t>(depth);
        EXPECT_EQ(info.message(i).find(innermost ? "card 1" : "level "), 0U) << info.message(i);
        if (innermost) {
          EXPECT_EQ(info.type(i), "shop::CardRefused");
        }
      }
      SPILLWAY_EXCEPTION(test_.engine, error, "failed");
    }
  }
  EXPECT_EQ(message(0)["exception"]["message"].string(), "card 1");
  const Json two = message(1)["exception"];
  EXPECT_EQ(two["message"].string(), "level 2");
  EXPECT_EQ(two["cause"]["type"].string(), "shop::CardRefused");
  EXPECT_FALSE(two["cause"].has("cause"));
  const Json six = message(5)["exception"]["cause"]["cause"]["cause"];
  EXPECT_EQ(six["message"].string(),
            "level 3; caused by std::_Nested_exception<std::runtime_error>: level 2; caused by "
            "shop::CardRefused: card 1");
}

TEST_F(ExceptionTest, WhatIsNoStdExceptionHasItsType) {
  const Logger logger = test_.engine.logger("db");
  try {
    throw 17;
  } catch (...) {
    SPILLWAY_EXCEPTION(logger, std::current_exception(), "odd");
  }
  SPILLWAY_EXCEPTION(logger, std::exception_ptr(), "none");
  try {
    try {
      throw shop::CardRefused("inner");
    } catch (...) {
      std::throw_with_nested(std::runtime_error("outer"));
    }
  } catch (...) {
    SPILLWAY_EXCEPTION(logger, std::current_exception(), "known all the same");
  }
  EXPECT_EQ(message(0)["exception"]["type"].string(), "int");
  EXPECT_EQ(message(0)["exception"]["message"].string(), "");
  EXPECT_EQ(message(0)["logger"].string(), "db");
  EXPECT_EQ(message(1)["exception"]["type"].string(), "");
  EXPECT_EQ(message(2)["exception"]["cause"]["type"].string(), "shop::CardRefused");
}

TEST_F(ExceptionTest, SecretsInMessagesAreRedacted) {
  SPILLWAY_EXCEPTION(test_.engine, std::runtime_error("no user jane@shop.com"), "failed");
  EXPECT_EQ(message()["exception"]["message"].string(), "no user [redacted]");
}

TEST_F(ExceptionTest, BelowTheLevelNothingIsEvaluated) {
  test_.engine.set_log_level(Severity::fatal);
  int evaluated = 0;
  const auto error = [&] {
    ++evaluated;
    return std::runtime_error("x");
  };
  SPILLWAY_EXCEPTION(test_.engine, error(), "failed");
  EXPECT_EQ(evaluated, 0);
}

}  // namespace
}  // namespace spillway
