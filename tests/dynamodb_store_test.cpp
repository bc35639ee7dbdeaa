// SPDX-License-Identifier: Apache-2.0
//
// The DynamoDB store as its users see it: options, and a table that is not there. Decisions are in
// lease_test.cpp, the writes in dynamodb_table_test.cpp, the real thing in tests/integration.
#include <memory>

#include <support/child_process.hpp>
#include <support/engine_fixture.hpp>

#include <spillway/middleware/rate_limit/dynamodb_store.hpp>

namespace spillway::middleware {
namespace {

using namespace std::chrono_literals;
using spillway::testing::ScopedVariable;

std::vector<std::string> errors_of(const DynamoDbRateStoreOptions& options) {
  try {
    const DynamoDbRateStore store(options);
  } catch (const InvalidDynamoDbRateStore& invalid) {
    for (const std::string& error : invalid.errors())
      EXPECT_NE(std::string(invalid.what()).find("\n  " + error), std::string::npos);
    return invalid.errors();
  }
  return {};
}

class DynamoDbStoreTest : public ::testing::Test {
 protected:
  spillway::testing::AwsEnvironment environment;
  ScopedVariable endpoint{"AWS_ENDPOINT_URL_DYNAMODB", nullptr};
};

TEST_F(DynamoDbStoreTest, EveryErrorOfItsOptionsIsListedAtOnce) {
  ScopedVariable no_region{"AWS_REGION", nullptr};
  ScopedVariable no_default{"AWS_DEFAULT_REGION", nullptr};
  const std::vector<std::string> expected{
      "table is \"a b\", allowed are 3 to 255 letters, digits, '-', '_', '.'",
      "region (from AWS_REGION, AWS_DEFAULT_REGION or the profile) is missing: set it, or "
      "AWS_REGION",
      "endpoint (from options) is \"nowhere\", allowed is a URL such as https://host or "
      "http://127.0.0.1:8000",
      "lease_permits_max is -1, allowed is 0 to 2147483648",
      "lease_time is 99 ms, allowed is 100 ms to 60000 ms",
      "denial_time_max is -1 ms, allowed is 0 ms to 2678400000 ms",
      "wait is 10001 ms, allowed is 0 ms to 10000 ms",
      "request_timeout is 0 ms, allowed is 10 ms to 30000 ms",
      "close_timeout is -1 ms, allowed is 0 ms to 60000 ms",
      "connections is 0, allowed is 1 to 64",
      "keys_max is 0, allowed is 1 to 16777216"};
  EXPECT_EQ(errors_of({.table = "a b",
                       .endpoint = "nowhere",
                       .lease_permits_max = -1,
                       .lease_time = 99ms,
                       .denial_time_max = -1ms,
                       .wait = 10'001ms,
                       .request_timeout = 0ms,
                       .connections = 0,
                       .keys_max = 0,
                       .close_timeout = -1ms}),
            expected);
}

TEST_F(DynamoDbStoreTest, WhereAWrongValueCameFromIsSaid) {
  EXPECT_EQ(errors_of({.table = "limits"}), std::vector<std::string>{});
  EXPECT_EQ(errors_of({.table = "limits", .region = "eu west"}),
            std::vector<std::string>{"region (from options) is \"eu west\", which is no region"});
  ScopedVariable plain{"AWS_ENDPOINT_URL_DYNAMODB", "http://dynamodb.eu-west-1.amazonaws.com"};
  const auto errors = errors_of({.table = "limits"});
  ASSERT_EQ(errors.size(), 1U);
  EXPECT_EQ(errors[0],
            "endpoint (from AWS_ENDPOINT_URL_DYNAMODB, AWS_ENDPOINT_URL or the profile) is "
            "\"http://dynamodb.eu-west-1.amazonaws.com\": AWS is asked by https only");
}

TEST_F(DynamoDbStoreTest, AForkedChildCanLetItGo) {
  auto store = std::make_unique<DynamoDbRateStore>(DynamoDbRateStoreOptions{
      .table = "limits", .endpoint = "http://127.0.0.1:1", .connections = 2});
  EXPECT_EQ(testing::exit_status_of_child([&] {
              store.reset();
              return 17;
            }),
            17);
}

TEST_F(DynamoDbStoreTest, ATableThatCannotBeReachedIsAnsweredAsChosen) {
  for (const bool open : {false, true}) {
    // Port 1 of this machine: nobody is there.
    DynamoDbRateStore store({.table = "limits",
                             .endpoint = "http://127.0.0.1:1",
                             .admit_when_unavailable = open,
                             .wait = 10s,
                             .connections = 1});
    RateKey key("api");
    key.add("tenant", "a");
    const detail::RateRule rule({.permits = 1});
    const RateDecision decision = store.take(key, rule, 1, std::chrono::steady_clock::now());
    EXPECT_EQ(decision.outcome, open ? RateDecision::Outcome::admitted_unavailable
                                     : RateDecision::Outcome::denied_unavailable);
    EXPECT_EQ(decision.receipt, 0);
    const DynamoDbRateStats stats = store.stats();
    EXPECT_GE(stats.failures, 1U);
    EXPECT_EQ(stats.permits_lost, 0U) << "it was not connected";
    EXPECT_EQ(stats.unavailable, 1U);
    EXPECT_EQ(stats.waited, 1U);
    EXPECT_FALSE(stats.last_error.empty());
    EXPECT_EQ(stats.last_error.find("canary"), std::string::npos);
    EXPECT_NE(store.create_table(50ms), std::nullopt);
  }
}

}  // namespace
}  // namespace spillway::middleware
