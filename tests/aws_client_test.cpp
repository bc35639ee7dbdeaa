// SPDX-License-Identifier: Apache-2.0
//
// Calls to a service that answers as the test says, and one to a server over a socket.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <support/raw_server.hpp>

#include <spillway/transport/aws_client.hpp>
#include <spillway/transport/credential_sources.hpp>
#include <spillway/transport/memory_transport.hpp>

namespace spillway::transport {
namespace {

using namespace std::chrono_literals;
using Time = SignedService::Time;

const Time noon = Time(1'795'262'400s);  // 2026-11-21T12:00:00Z

/// Gives A, and after it was refused B.
class RotatedProvider final : public CredentialsProvider {
 public:
  SourceResult get(bool may_wait) override {
    if (!may_wait) return CredentialsError{"", true};
    return Credentials(std::exchange(asked_, true) ? "AKIDB" : "AKIDA", "a-secret-canary");
  }

 private:
  bool asked_ = false;
};

std::shared_ptr<CredentialsChain> chain_of(std::unique_ptr<CredentialsProvider> source) {
  std::vector<std::unique_ptr<CredentialsProvider>> sources;
  if (source != nullptr) sources.push_back(std::move(source));
  return std::make_shared<CredentialsChain>(std::move(sources),
                                            CredentialsChain::Options{.background = false});
}

class AwsClientTest : public ::testing::Test {
 protected:
  AwsReply call(std::chrono::milliseconds timeout = 60s) {
    return client.call_json("DynamoDB_20120810.UpdateItem", "1.0", "{}", timeout);
  }
  static HttpResponse refused(int status, std::string_view code,
                              std::vector<HttpHeader> headers = {}) {
    return MemoryTransport::answered(
        status, "{\"__type\":\"" + std::string(code) + "\",\"message\":\"no\"}", headers);
  }
  std::string header(std::size_t request, std::string_view name) const {
    return std::string(find_header(memory->requests().at(request).headers, name));
  }

  MemoryTransport* memory = new MemoryTransport;
  Time now = noon;
  AwsClient client{{.service = dynamodb,
                    .region = "eu-west-1",
                    .endpoint = "https://dynamodb.example/prefix/",
                    .credentials = chain_of(std::make_unique<RotatedProvider>()),
                    .http = std::unique_ptr<HttpTransport>(memory),
                    .attempts_max = 4,
                    .now = [this] { return now; },
                    .draw = [] { return 0.0; }}};
};

TEST_F(AwsClientTest, ACallIsSignedForItsServiceAndGoesToItsEndpoint) {
  memory->script(MemoryTransport::answered(200, R"({"Attributes":{}})"));
  const AwsReply reply = call();
  EXPECT_TRUE(reply.ok());
  EXPECT_EQ(reply.response.body, R"({"Attributes":{}})");
  ASSERT_EQ(memory->requests().size(), 1U);
  EXPECT_EQ(memory->requests()[0].origin, "https://dynamodb.example");
  EXPECT_EQ(memory->requests()[0].path, "/prefix/");
  EXPECT_EQ(header(0, "x-amz-target"), "DynamoDB_20120810.UpdateItem");
  EXPECT_EQ(header(0, "content-type"), "application/x-amz-json-1.0");
  EXPECT_NE(header(0, "authorization").find("AKIDA/20261121/eu-west-1/dynamodb/aws4_request"),
            std::string::npos);
}

TEST_F(AwsClientTest, WhatMayPassIsTriedAgainAndWhatWillNotIsNot) {
  memory->script(refused(400, "ProvisionedThroughputExceededException"));
  memory->script(refused(503, ""));
  memory->script(MemoryTransport::failed(HttpOutcome::not_connected));
  EXPECT_TRUE(call().ok());
  EXPECT_EQ(memory->requests().size(), 4U);
  memory->forget_requests();
  memory->script(refused(400, "com.amazonaws.dynamodb#ConditionalCheckFailedException"));
  const AwsReply reply = call();
  EXPECT_EQ(reply.failure, Failure::request);
  EXPECT_EQ(reply.error.code, "ConditionalCheckFailedException");
  EXPECT_EQ(describe(reply), "answered 400 ConditionalCheckFailedException: no");
  EXPECT_EQ(memory->requests().size(), 1U);
}

TEST_F(AwsClientTest, AttemptsEndAndSoDoesTheirBudget) {
  memory->set_answer([](const HttpRequest&) { return refused(500, "InternalServerError"); });
  EXPECT_EQ(call().failure, Failure::transient);
  EXPECT_EQ(memory->requests().size(), 4U);
  for (int i = 0; i < 20; ++i) call();
  // 500 tokens pay for 35 retries at 14.
  EXPECT_EQ(memory->requests().size(), 21U + 35U);
}

TEST_F(AwsClientTest, NoRetryBeginsThatWouldEndPastTheDeadline) {
  memory->set_answer([](const HttpRequest&) {
    return refused(503, "", {{"x-amz-retry-after", "4000"}});
  });
  EXPECT_EQ(call(2s).failure, Failure::transient);
  EXPECT_EQ(memory->requests().size(), 1U);
}

TEST_F(AwsClientTest, ExpiredCredentialsAreFetchedAnewAndTheRequestIsSignedAgainOnce) {
  EXPECT_TRUE(call().ok());
  now += 1min;
  memory->script(refused(400, "ExpiredTokenException"));
  EXPECT_TRUE(call().ok());
  ASSERT_EQ(memory->requests().size(), 3U);
  EXPECT_NE(header(1, "authorization").find("AKIDA/"), std::string::npos);
  EXPECT_NE(header(2, "authorization").find("AKIDB/"), std::string::npos);
  memory->script(refused(400, "ExpiredTokenException"));
  EXPECT_EQ(call().failure, Failure::credentials) << "what was just fetched is not fetched again";
}

TEST_F(AwsClientTest, AClockThatIsWrongIsCorrectedAndTheRequestSignedAgain) {
  const auto tomorrow = [](const HttpRequest& request) {
    const bool late = find_header(request.headers, "x-amz-date").starts_with("20261121");
    HttpResponse response =
        late ? refused(403, "SignatureDoesNotMatch") : MemoryTransport::answered(200);
    response.headers.push_back({"Date", "Sun, 22 Nov 2026 12:00:00 GMT"});
    return response;
  };
  memory->set_answer(tomorrow);
  EXPECT_TRUE(call().ok());
  EXPECT_EQ(memory->requests().size(), 2U);
  EXPECT_TRUE(call().ok());
  EXPECT_EQ(memory->requests().size(), 3U) << "it stays corrected";
}

TEST_F(AwsClientTest, ASignatureThatIsWrongForAnotherReasonIsNotTriedForEver) {
  memory->set_answer([](const HttpRequest&) {
    return refused(403, "SignatureDoesNotMatch", {{"Date", "Sat, 21 Nov 2026 12:00:30 GMT"}});
  });
  EXPECT_EQ(call().failure, Failure::credentials);
  EXPECT_EQ(memory->requests().size(), 1U);
}

TEST_F(AwsClientTest, WithoutCredentialsThereIsNoRequestAndTheErrorSaysWhy) {
  AwsClient none({.service = dynamodb,
                  .region = "eu-west-1",
                  .endpoint = "https://dynamodb.example",
                  .credentials = chain_of(nullptr)});
  const AwsReply reply = none.call_json("T", "1.0", "{}", 1s);
  EXPECT_EQ(reply.failure, Failure::credentials);
  EXPECT_NE(describe(reply).find("no AWS credentials"), std::string::npos);
}

TEST_F(AwsClientTest, StopEndsACallUnderWay) {
  memory->hold();
  client.stop();
  EXPECT_EQ(call().response.error, "stopped");
}

TEST(AwsClientSocketTest, GoesOverASocket) {
  testing::RawServer server(
      [](const std::string&, const testing::RawServer::Connection& connection) {
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
        return true;
      });
  AwsClient client({.service = sns,
                    .region = "eu-west-1",
                    .endpoint = server.origin(),
                    .credentials = chain_of(static_credentials(Credentials("AKID", "secret")))});
  EXPECT_TRUE(client.call_json("T", "1.0", "{}", 30s).ok());
  EXPECT_TRUE(client.call_json("T", "1.0", "{}", 30s).ok());
}

// ---- The clock ----

HttpResponse dated(std::string date) {
  return MemoryTransport::answered(200, "{}", {{"Date", std::move(date)}});
}

TEST(ClockSkewTest, IsLearntFromTrustedDatesThatAreFarOff) {
  ClockSkew skew;
  EXPECT_FALSE(skew.learn(dated("Sat, 21 Nov 2026 12:03:59 GMT"), noon, true));
  EXPECT_EQ(skew.offset(), 0ms) << "under four minutes";
  EXPECT_FALSE(skew.learn(dated("Sat, 21 Nov 2026 12:10:00 GMT"), noon, false));
  EXPECT_EQ(skew.offset(), 0ms) << "anybody may have said it";
  EXPECT_TRUE(skew.learn(dated("Sat, 21 Nov 2026 12:10:00 GMT"), noon, true));
  EXPECT_EQ(skew.corrected(noon), noon + 10min);
  EXPECT_FALSE(skew.learn(dated("Sat, 21 Nov 2026 12:10:02 GMT"), noon, true)) << "no news";
  EXPECT_TRUE(skew.learn(dated("Sat, 21 Nov 2026 12:00:01 GMT"), noon, true));
  EXPECT_EQ(skew.offset(), 0ms) << "the clock was set right";
}

TEST(ClockSkewTest, WhatIsNoDateChangesNothing) {
  ClockSkew skew;
  for (const char* const date :
       {"", "soon", "Thu, 01 Jan 1970 00:00:00 GMT", "Sat, 21 Nov 9999 12:10:00 GMT",
        "Sat, 21 Nov 2026 12:10:00 GMT Sat, 21 Nov 2026 12:10:00 GMT Sat, 21 Nov 2026"}) {
    EXPECT_FALSE(skew.learn(dated(date), noon, true)) << date;
    EXPECT_EQ(skew.offset(), 0ms) << date;
  }
}

}  // namespace
}  // namespace spillway::transport
