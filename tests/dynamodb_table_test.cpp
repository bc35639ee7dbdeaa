// SPDX-License-Identifier: Apache-2.0
//
// Limits in a DynamoDB table: the forms of UpdateItem against the arithmetic of one process, with
// other processes, lost answers and odd items in between. The table is a fake that carries the
// expressions out; tests/integration has DynamoDB Local.
#include <random>

#include <gtest/gtest.h>
#include <support/fake_dynamodb.hpp>
#include <support/seed.hpp>

#include <spillway/middleware/rate_limit/dynamodb_table.hpp>
#include <spillway/transport/credential_sources.hpp>

namespace spillway::detail {
namespace {

using namespace std::chrono_literals;
using middleware::RateAlgorithm;
using middleware::RateLimit;
using spillway::testing::FakeDynamoDb;
using spillway::testing::Json;
using transport::HttpOutcome;
using transport::HttpRequest;
using transport::MemoryTransport;
using Outcome = SharedTake::Outcome;

constexpr std::int64_t second = 1'000'000'000;
constexpr std::int64_t noon = 1'795'262'400 * second;  // 2026-11-21T12:00:00Z
constexpr RateAlgorithm algorithms[] = {RateAlgorithm::token_bucket, RateAlgorithm::sliding_window,
                                        RateAlgorithm::fixed_window};

std::shared_ptr<transport::CredentialsChain> keys() {
  std::vector<std::unique_ptr<transport::CredentialsProvider>> sources;
  sources.push_back(transport::static_credentials({"AKIDEXAMPLE", "canary-secret"}));
  return std::make_shared<transport::CredentialsChain>(
      std::move(sources), transport::CredentialsChain::Options{.background = false});
}

DynamoDbTable::Parts parts(std::unique_ptr<transport::HttpTransport> http) {
  return {.table = "limits",
          .region = "eu-west-1",
          .endpoint = "https://dynamodb.example",
          .credentials = keys(),
          .http = std::move(http),
          .now = [] { return transport::SignedService::Time(std::chrono::seconds(noon / second)); },
          .pause = [](std::chrono::milliseconds) {}};
}

RateLimit limit_of(RateAlgorithm algorithm, std::int64_t permits,
                   std::chrono::nanoseconds window = 1s) {
  return {.permits = permits, .window = window, .algorithm = algorithm};
}

class DynamoDbTableTest : public ::testing::Test {
 protected:
  SharedTake take(const RateRule& rule, std::int64_t now, std::int64_t least = 1,
                  std::int64_t want = 0, const RateState& guess = {}, std::int64_t share = 1) {
    return table.take({.key = "api",
                       .rule = rule,
                       .least = least,
                       .want = std::max(least, want),
                       .share = share,
                       .now_ns = now},
                      guess);
  }
  FakeDynamoDb dynamodb;
  DynamoDbTable table{parts(dynamodb.transport())};
};

TEST_F(DynamoDbTableTest, ATakeIsOneConditionalUpdate) {
  auto* const memory = new MemoryTransport;
  memory->script(MemoryTransport::answered(200, R"({"Attributes":{"taken":{"N":"7"}}})"));
  DynamoDbTable asked(parts(std::unique_ptr<transport::HttpTransport>(memory)));
  const RateRule rule(limit_of(RateAlgorithm::fixed_window, 10, 60s));
  const SharedTake taken = asked.take(
      {.key = "api|tenant=a%22", .rule = rule, .least = 1, .want = 5, .share = 1, .now_ns = noon},
      {});
  EXPECT_EQ(taken.outcome, Outcome::taken);
  EXPECT_EQ(taken.permits, 5);
  EXPECT_EQ(taken.left, 3) << "by the table's word: others took two";
  EXPECT_EQ(taken.writes, 1);
  const HttpRequest& request = memory->requests().at(0);
  EXPECT_EQ(transport::find_header(request.headers, "X-Amz-Target"),
            "DynamoDB_20120810.UpdateItem");
  EXPECT_EQ(
      request.body,
      R"({"TableName":"limits","Key":{"id":{"S":"fixed_window/60000ms/api|tenant=a%22/29921041"}},)"
      R"("ConditionExpression":"attribute_not_exists(taken) OR taken <= :room",)"
      R"("UpdateExpression":"SET expires_at = :expires ADD taken :permits",)"
      R"("ExpressionAttributeValues":{":room":{"N":"5"},":permits":{"N":"5"},)"
      R"(":expires":{"N":"1795266061"}},"ReturnValues":"UPDATED_NEW",)"
      R"("ReturnValuesOnConditionCheckFailure":"ALL_OLD"})");
}

// One process's arithmetic and the table's agree, whatever is guessed.
TEST_F(DynamoDbTableTest, EveryDecisionIsThatOfOneProcess) {
  const std::uint64_t seed = spillway::testing::seed_or(41);
  SCOPED_TRACE(spillway::testing::seed_note(seed));
  std::mt19937_64 random(seed);
  const auto draw = [&](std::int64_t from, std::int64_t to) {
    return std::uniform_int_distribution<std::int64_t>(from, to)(random);
  };
  int taken = 0;
  int denied = 0;
  for (int round = 0; round < 60; ++round) {
    dynamodb.items.clear();
    RateLimit limit =
        limit_of(algorithms[round % 3], draw(1, 30), std::chrono::milliseconds(draw(1, 3'000)));
    if (limit.algorithm == RateAlgorithm::token_bucket) limit.burst = draw(0, 40);
    const RateRule rule(limit);
    RateState model;
    std::vector<RateState> guesses{{}};
    std::int64_t now = noon + draw(0, second);
    for (int step = 0; step < 150; ++step) {
      now += draw(0, 3) == 0 ? draw(0, rule.window_ns) : draw(0, rule.window_ns / 20);
      const std::int64_t least = draw(0, 4) == 0 ? draw(1, rule.capacity + 1) : 1;
      const std::int64_t want = std::max(least, draw(1, rule.capacity));
      const RateState guess =
          guesses[static_cast<std::size_t>(draw(0, static_cast<std::int64_t>(guesses.size()) - 1))];
      const SharedTake result = take(rule, now, least, want, guess);
      RateState probe = model;
      const auto decision = detail::take(probe, rule, least, now);
      ASSERT_EQ(result.outcome, decision.admitted() ? Outcome::taken : Outcome::denied)
          << "round " << round << ", step " << step << ", " << result.error;
      if (!decision.admitted()) {
        ++denied;
        if (least > rule.capacity) continue;  // Which asks nobody.
        ASSERT_EQ(result.retry_after_ns, decision.retry_after_ns);
        ASSERT_EQ(result.left, decision.remaining);
        continue;
      }
      ++taken;
      ASSERT_GE(result.permits, least);
      ASSERT_LE(result.permits, want);
      ASSERT_LE(result.writes, 3);
      const auto all = detail::take(model, rule, result.permits, now);
      ASSERT_TRUE(all.admitted()) << "round " << round << ", step " << step;
      ASSERT_EQ(result.left, all.remaining);
      ASSERT_EQ(result.permits, std::min(want, least + decision.remaining));
      guesses.push_back(result.state);
    }
  }
  EXPECT_GT(taken, 1'000);
  EXPECT_GT(denied, 500);
}

// Two processes that know nothing of each other, one with old guesses.
TEST_F(DynamoDbTableTest, ProcessesTogetherTakeTheLimitAndNoMore) {
  DynamoDbTable other(parts(dynamodb.transport()));
  for (const RateAlgorithm algorithm : algorithms) {
    SCOPED_TRACE(to_string(algorithm));
    const RateRule rule(limit_of(algorithm, 1'000, 60s));
    RateState guesses[2] = {};
    std::int64_t total = 0;
    int denials = 0;
    for (int i = 0; denials < 2; ++i) {
      const SharedWish wish{
          .key = "k", .rule = rule, .least = 1, .want = 64, .share = 4, .now_ns = noon};
      const SharedTake one = (i % 2 == 0 ? table : other).take(wish, guesses[i % 2]);
      if (one.outcome == Outcome::denied) {
        ++denials;
        continue;
      }
      ASSERT_EQ(one.outcome, Outcome::taken);
      ASSERT_LE(one.permits, 64);
      guesses[i % 2] = one.state;
      total += one.permits;
    }
    EXPECT_EQ(total, 1'000);
  }
}

TEST_F(DynamoDbTableTest, NobodyTakesMoreThanAShareOfWhatIsLeft) {
  const RateRule rule(limit_of(RateAlgorithm::fixed_window, 100, 60s));
  EXPECT_EQ(take(rule, noon, 1, 90, {}, 4).permits, 25);
  EXPECT_EQ(take(rule, noon, 1, 90, {}, 4).permits, 25) << "what was left was not known";
  const SharedTake third =
      take(rule, noon, 1, 90, {.fresh_at = noon + 60 * second, .current = 50}, 4);
  EXPECT_EQ(third.permits, 13) << "a quarter of 50, rounded up";
  EXPECT_EQ(take(rule, noon, 30, 30, third.state, 4).permits, 30) << "what is needed, whole";
}

TEST_F(DynamoDbTableTest, AWriteWhoseAnswerIsLostCountsAsTakenAndIsNotSentAgain) {
  for (const RateAlgorithm algorithm : algorithms) {
    SCOPED_TRACE(to_string(algorithm));
    dynamodb.items.clear();
    const RateRule rule(limit_of(algorithm, 10, 60s));
    dynamodb.answers_to_lose = 1;
    const int before = dynamodb.writes;
    const SharedTake lost = take(rule, noon, 1, 4);
    EXPECT_EQ(lost.outcome, Outcome::lost);
    EXPECT_EQ(lost.permits, 4);
    EXPECT_EQ(dynamodb.writes - before, 1);
    EXPECT_FALSE(lost.error.empty());
    EXPECT_EQ(take(rule, noon, 1, 10).permits, 6);
    EXPECT_EQ(take(rule, noon).outcome, Outcome::denied);
  }
}

TEST_F(DynamoDbTableTest, WhatIsGivenBackCanBeTakenAgainWhileItCounts) {
  for (const RateAlgorithm algorithm : algorithms) {
    SCOPED_TRACE(to_string(algorithm));
    dynamodb.items.clear();
    const RateRule rule(limit_of(algorithm, 4, 1s));
    const SharedTake all = take(rule, noon, 4);
    ASSERT_EQ(all.outcome, Outcome::taken);
    ASSERT_EQ(take(rule, noon).outcome, Outcome::denied);
    EXPECT_TRUE(table.give_back("api", rule, 3, all.state.fresh_at, noon));
    EXPECT_EQ(take(rule, noon, 1, 9).permits, 3);
    // Later than it counts, giving back makes no room.
    const std::int64_t later = noon + 10 * second;
    const SharedTake fresh = take(rule, later, 4);
    ASSERT_EQ(fresh.permits, 4);
    EXPECT_TRUE(table.give_back("api", rule, 1, all.state.fresh_at, later));
    EXPECT_EQ(take(rule, later).outcome, Outcome::denied);
    // Nor does giving back what was never taken.
    dynamodb.items.clear();
    EXPECT_TRUE(table.give_back("api", rule, 4, noon + second, noon));
    EXPECT_EQ(take(rule, noon, 1, 9).permits, 4);
  }
}

TEST_F(DynamoDbTableTest, ASlidingWindowTakesBackWhatTheLastWindowTook) {
  const RateRule rule(limit_of(RateAlgorithm::sliding_window, 2, 1s));
  const SharedTake first = take(rule, noon, 2);
  ASSERT_EQ(take(rule, noon + second).outcome, Outcome::denied);
  ASSERT_EQ(take(rule, noon + second + second / 2).permits, 1) << "the window has moved on";
  EXPECT_TRUE(table.give_back("api", rule, 2, first.state.fresh_at, noon + second + second / 2));
  EXPECT_EQ(take(rule, noon + second + second / 2).permits, 1);
}

TEST_F(DynamoDbTableTest, WhoLosesEveryRaceGivesUp) {
  const RateRule rule(limit_of(RateAlgorithm::token_bucket, 1'000, 1s));
  // Each time somebody turns the bucket from full to used and back before us.
  dynamodb.before = [&](const HttpRequest& request) -> std::optional<transport::HttpResponse> {
    const bool in_use =
        Json(request.body)["ConditionExpression"].string().starts_with("fresh_at >=");
    dynamodb.items["token_bucket/1000ms/api"]["fresh_at"] = in_use ? noon - 1 : noon + 1;
    return std::nullopt;
  };
  const SharedTake result = take(rule, noon);
  EXPECT_EQ(result.outcome, Outcome::throttled);
  EXPECT_EQ(result.writes, writes_per_take_max);
  EXPECT_EQ(result.permits, 0);
}

TEST_F(DynamoDbTableTest, AStateThatNoClockCanHaveMadeBeginsAnew) {
  for (const RateAlgorithm algorithm :
       {RateAlgorithm::token_bucket, RateAlgorithm::sliding_window}) {
    SCOPED_TRACE(to_string(algorithm));
    const RateRule rule(limit_of(algorithm, 4, 1s));
    const std::string id = std::string(to_string(algorithm)) + "/1000ms/api";
    dynamodb.items[id] = {{"fresh_at", noon + 3'600 * second}, {"taken", 4}, {"taken_before", 0}};
    EXPECT_EQ(take(rule, noon).outcome, Outcome::taken) << "an hour ahead would deny for an hour";
    EXPECT_LE(dynamodb.items[id]["fresh_at"], noon + 2 * second);
    std::int64_t more = 0;
    while (take(rule, noon).outcome == Outcome::taken) ++more;
    EXPECT_LE(more, 3);
  }
}

TEST_F(DynamoDbTableTest, OddItemsAndAnswersAreNoAdmission) {
  const RateRule rule(limit_of(RateAlgorithm::token_bucket, 4, 1s));
  const auto answer_with = [&](int status, std::string body) {
    dynamodb.before = [status, body](const HttpRequest&) {
      return std::optional(MemoryTransport::answered(status, body));
    };
  };
  const std::string refused = R"({"__type":"x#ConditionalCheckFailedException")";
  for (const char* const item :
       {R"(,"Item":{"fresh_at":{"S":"x"}}})", R"(,"Item":{"fresh_at":{"N":"1e99"}}})",
        R"(,"Item":{"fresh_at":{"N":"-5"}}})", R"(,"Item":7})", "}",
        R"(,"Item":{"fresh_at":{"N":"99999999999999999999999999"}}})"}) {
    answer_with(400, refused + item);
    const SharedTake result = take(rule, noon);
    EXPECT_EQ(result.outcome, Outcome::throttled) << item;
    EXPECT_LE(result.writes, writes_per_take_max);
  }
  answer_with(400, R"({"__type":"x#ResourceNotFoundException","message":"no table"})");
  EXPECT_EQ(take(rule, noon).outcome, Outcome::unavailable);
  EXPECT_NE(take(rule, noon).error.find("ResourceNotFoundException"), std::string::npos);
  answer_with(400, R"({"__type":"x#ProvisionedThroughputExceededException","message":"slow"})");
  EXPECT_EQ(take(rule, noon).outcome, Outcome::throttled);
  answer_with(500, "oops");
  EXPECT_EQ(take(rule, noon).outcome, Outcome::lost) << "it may have been carried out";
  answer_with(200, "no json");
  EXPECT_EQ(take(rule, noon, 1, 3).permits, 3) << "it was carried out";
  dynamodb.before = [](const HttpRequest&) {
    return std::optional(MemoryTransport::failed(HttpOutcome::not_connected));
  };
  EXPECT_EQ(take(rule, noon).outcome, Outcome::unavailable);
  EXPECT_FALSE(table.give_back("api", rule, 1, noon + second, noon));
}

TEST_F(DynamoDbTableTest, MoreThanTheLimitIsDeniedForGood) {
  for (const RateAlgorithm algorithm : algorithms) {
    const RateRule rule(limit_of(algorithm, 4, 1s));
    EXPECT_EQ(take(rule, noon, 5).outcome, Outcome::denied) << to_string(algorithm);
  }
  EXPECT_EQ(dynamodb.writes, 0);
}

// ---- Making the table ----

/// Answers as another transport does, and keeps how long each request may take.
class TimedTransport final : public transport::HttpTransport {
 public:
  explicit TimedTransport(std::vector<std::chrono::milliseconds>& timeouts) : timeouts_(timeouts) {}
  void start(std::uint64_t id, HttpRequest request, std::chrono::milliseconds timeout) override {
    timeouts_.push_back(timeout);
    memory_.start(id, std::move(request), timeout);
  }
  std::vector<transport::HttpCompletion> poll(std::chrono::milliseconds wait) override {
    return memory_.poll(wait);
  }
  void wake() noexcept override { memory_.wake(); }
  void cancel_all() noexcept override { memory_.cancel_all(); }

  MemoryTransport memory_;

 private:
  std::vector<std::chrono::milliseconds>& timeouts_;
};

TEST(DynamoDbCreateTimeTest, NoRequestIsGivenMoreTimeThanIsLeft) {
  std::vector<std::chrono::milliseconds> timeouts;
  auto http = std::make_unique<TimedTransport>(timeouts);
  http->memory_.set_answer([](const HttpRequest&) {
    return MemoryTransport::answered(400,
                                     R"({"__type":"x#ResourceNotFoundException","message":"no"})");
  });
  DynamoDbTable::Parts made = parts(std::move(http));
  made.timeout = 30s;
  DynamoDbTable table(std::move(made));
  const std::string why = table.create(1s).value_or("");
  EXPECT_NE(why.find("CreateTable"), std::string::npos) << why;
  EXPECT_GE(timeouts.size(), 2U);
  for (const auto timeout : timeouts) EXPECT_LE(timeout, 1s);
}

class DynamoDbCreateTest : public ::testing::Test {
 protected:
  static std::string described(std::string_view status, std::string_view key = "id",
                               std::string_view type = "S") {
    return R"({"Table":{"TableStatus":")" + std::string(status) +
           R"(","KeySchema":[{"AttributeName":")" + std::string(key) +
           R"(","KeyType":"HASH"}],"AttributeDefinitions":[{"AttributeName":")" + std::string(key) +
           R"(","AttributeType":")" + std::string(type) + R"("}]}})";
  }
  void answers(int status, std::string body) {
    memory->script(MemoryTransport::answered(status, std::move(body)));
  }
  void refuses(std::string_view code) {
    answers(400, R"({"__type":"x#)" + std::string(code) + R"(","message":"no"})");
  }
  std::vector<std::string> operations() const {
    std::vector<std::string> names;
    for (const HttpRequest& request : memory->requests())
      names.emplace_back(transport::find_header(request.headers, "X-Amz-Target").substr(18));
    return names;
  }
  std::string create() { return table.create(1s).value_or(""); }

  MemoryTransport* memory = new MemoryTransport;
  DynamoDbTable table{parts(std::unique_ptr<transport::HttpTransport>(memory))};
};

TEST_F(DynamoDbCreateTest, ATableThatIsNotThereIsMadeAndWaitedFor) {
  refuses("ResourceNotFoundException");
  answers(200, "{}");
  refuses("ResourceNotFoundException");
  answers(200, described("CREATING"));
  answers(200, described("ACTIVE"));
  EXPECT_EQ(create(), "");
  const std::vector<std::string> expected{"DescribeTable", "CreateTable",   "DescribeTable",
                                          "DescribeTable", "DescribeTable", "UpdateTimeToLive"};
  EXPECT_EQ(operations(), expected);
  const Json made(memory->requests()[1].body);
  EXPECT_EQ(made["BillingMode"].string(), "PAY_PER_REQUEST");
  EXPECT_EQ(made["KeySchema"][0]["AttributeName"].string(), "id");
  EXPECT_EQ(Json(memory->requests()[5].body)["TimeToLiveSpecification"]["AttributeName"].string(),
            "expires_at");
}

TEST_F(DynamoDbCreateTest, AnotherProcessMayBeFirst) {
  refuses("ResourceNotFoundException");
  refuses("ResourceInUseException");
  answers(200, described("ACTIVE"));
  refuses("ValidationException");  // TTL is on.
  EXPECT_EQ(create(), "");
}

TEST_F(DynamoDbCreateTest, WhatIsWrongIsSaid) {
  answers(200, described("ACTIVE", "pk"));
  EXPECT_EQ(create(),
            "DynamoDB table \"limits\": its key is not \"id\", a string, alone; name a "
            "table of our own");
  answers(200, described("ACTIVE", "id", "N"));
  EXPECT_NE(create(), "");
  refuses("AccessDeniedException");
  EXPECT_NE(create().find("AccessDeniedException"), std::string::npos);
  answers(200, "{}");
  EXPECT_NE(create().find("cannot be read"), std::string::npos);
  for (int i = 0; i < 4; ++i) answers(200, described("CREATING"));
  EXPECT_NE(create().find("not ACTIVE within 1000 ms"), std::string::npos);
}

}  // namespace
}  // namespace spillway::detail
