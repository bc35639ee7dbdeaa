// SPDX-License-Identifier: Apache-2.0
//
// Alerts of errors: which are sent, what they say, and what happens when they cannot be.
#include <algorithm>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include <support/child_process.hpp>
#include <support/engine_fixture.hpp>
#include <support/sent.hpp>

#include <spillway/middleware/chain.hpp>
#include <spillway/middleware/observability.hpp>
#include <spillway/middleware/sns_alerts.hpp>
#include <spillway/transport/url.hpp>

namespace spillway::middleware {
namespace {

using namespace std::chrono_literals;
using testing::Json;

class SnsAlertsTest : public ::testing::Test {
 protected:
  SnsAlerts& alerts() {
    if (alerts_ == nullptr) {
      auto http = std::make_unique<transport::MemoryTransport>();
      memory = http.get();
      memory->set_answer([](const transport::HttpRequest&) {
        return transport::MemoryTransport::answered(200, "<PublishResponse/>");
      });
      alerts_ = std::make_unique<SnsAlerts>(test.engine, options,
                                            SnsAlertsRuntime{std::move(http), false});
    }
    return *alerts_;
  }
  /// A request that ended with this status.
  void serve(int status, std::string_view path = "/orders/17") {
    const Chain chain(routes, observability, alerts());
    auto exchange = chain.begin({.method = "GET", .path = path}, now);
    exchange.request_id = "r-1";
    exchange.finish({.status = status}, now);
  }
  template <class Thrown>
  void serve_throwing(const Thrown& thrown) {
    const Chain chain(routes, observability, alerts());
    auto exchange = chain.begin({.method = "GET", .path = "/orders/17"}, now);
    exchange.guard([&] { throw thrown; });
    exchange.finish({.status = exchange.reply().status}, now);
  }
  /// Sends what waits; how many alerts went out so far.
  std::size_t send() {
    while (alerts().step()) continue;
    return memory->requests().size();
  }
  std::string field(std::size_t request, std::string_view name) const {
    const std::string& body = memory->requests().at(request).body;
    const std::string key = "&" + std::string(name) + "=";
    const auto at = body.find(key);
    if (at == body.npos) return "none";
    const auto begin = at + key.size();
    std::string value = body.substr(begin, body.find('&', begin) - begin);
    std::replace(value.begin(), value.end(), '+', ' ');
    return transport::percent_decode(value).value();
  }
  double outcome(const std::string& name) { return testing::sent(test).sum("Alerts|" + name); }

  testing::AwsEnvironment environment;
  testing::TestEngine test{testing::aws_config()};
  const Routes routes{{"GET", "/orders/{id}"}, {"GET", "/pay"}};
  Observability observability{test.engine, routes};
  SnsAlertsOptions options{.topic_arn = "arn:aws:sns:eu-central-1:123456789012:errors",
                           .service = "orders"};
  SteadyTime now{1000s};
  transport::MemoryTransport* memory = nullptr;

 private:
  std::unique_ptr<SnsAlerts> alerts_;
};

TEST_F(SnsAlertsTest, AnErrorIsToldOfWithWhereItCameFrom) {
  serve_throwing(std::runtime_error("the database is gone"));
  ASSERT_EQ(send(), 1U);
  const transport::HttpRequest& request = memory->requests()[0];
  EXPECT_EQ(request.origin, "https://sns.eu-central-1.amazonaws.com") << "the topic's region";
  EXPECT_TRUE(request.body.starts_with("Action=Publish&Version=2010-03-31&"));
  EXPECT_NE(transport::find_header(request.headers, "Authorization").find("/eu-central-1/sns/"),
            std::string_view::npos);
  EXPECT_EQ(field(0, "TopicArn"), options.topic_arn);
  EXPECT_EQ(field(0, "Subject"), "orders: 500 GET /orders/{id}");
  const std::string message = field(0, "Message");
  for (const char* const line :
       {"Service: orders\n", "Error: 500 GET /orders/{id}\n", "Exception: std::runtime_error\n",
        "Message: the database is gone\n", "Times: 1\n", "Trace: 1-"})
    EXPECT_NE(message.find(line), message.npos) << line << " in " << message;
  EXPECT_EQ(field(0, "MessageAttributes.entry.1.Value.StringValue").size(), 16U);
  EXPECT_EQ(field(0, "MessageGroupId"), "none");
  EXPECT_EQ(outcome("sent"), 1);
}

TEST_F(SnsAlertsTest, WhatIsNoErrorIsNot) {
  for (const int status : {200, 302, 404, 429, 499}) serve(status);
  serve_throwing(HttpError(409, "sold out"));
  EXPECT_EQ(send(), 0U);
}

TEST_F(SnsAlertsTest, TheSameErrorIsToldOfOnceInAWhileWithHowOftenItCame) {
  for (int i = 0; i < 5; ++i) serve(503);
  EXPECT_EQ(send(), 1U);
  now += options.repeat_after - 1s;
  serve(503);
  EXPECT_EQ(send(), 1U);
  now += 1s;
  serve(503);
  ASSERT_EQ(send(), 2U);
  EXPECT_NE(field(1, "Message").find("Times: 6 since the last alert\n"), std::string::npos)
      << field(1, "Message");
}

TEST_F(SnsAlertsTest, RouteStatusAndExceptionMakeAKind) {
  serve(503);
  serve(500);
  serve(503, "/pay");
  serve_throwing(std::runtime_error("a"));
  serve_throwing(std::runtime_error("b"));
  serve_throwing(std::out_of_range("a"));
  serve(503, "/orders/18");
  ASSERT_EQ(send(), 5U);
  std::vector<std::string> fingerprints;
  for (std::size_t i = 0; i < 5; ++i)
    fingerprints.push_back(field(i, "MessageAttributes.entry.1.Value.StringValue"));
  std::sort(fingerprints.begin(), fingerprints.end());
  EXPECT_EQ(std::unique(fingerprints.begin(), fingerprints.end()), fingerprints.end());
}

TEST_F(SnsAlertsTest, AFloodOfKindsIsCappedAndSaid) {
  options.alerts_max = 3;
  for (int status = 500; status < 510; ++status) serve(status);
  EXPECT_EQ(send(), 3U);
  now += options.interval;
  serve(510);
  ASSERT_EQ(send(), 4U);
  EXPECT_NE(field(3, "Message").find("Alerts kept back since the last: 7\n"), std::string::npos);
  EXPECT_EQ(outcome("suppressed"), 7);
}

TEST_F(SnsAlertsTest, TheQueueHasABound) {
  options.queue_max = 2;
  for (int status = 500; status < 505; ++status) serve(status);
  EXPECT_EQ(send(), 2U);
  EXPECT_EQ(outcome("dropped"), 3);
}

TEST_F(SnsAlertsTest, AKindThatWasKeptBackComesWithTheNextInterval) {
  options.alerts_max = 1;
  serve(500);
  for (int second = 1; second < 60; ++second) {
    now += 1s;
    serve(501);
  }
  EXPECT_EQ(send(), 1U);
  now += 1s;  // 60 s after the first
  serve(501);
  ASSERT_EQ(send(), 2U);
  EXPECT_NE(field(1, "Subject").find("501"), std::string::npos);
  EXPECT_NE(field(1, "Message").find("Times: 60 since"), std::string::npos) << field(1, "Message");
  EXPECT_EQ(outcome("suppressed"), 1) << "it is tried once in each interval";
}

TEST_F(SnsAlertsTest, AKindThatFoundNoPlaceInTheQueueComesLaterWithHowOften) {
  options.queue_max = 1;
  serve(500);
  serve(501);
  EXPECT_EQ(send(), 1U);
  now += options.interval;
  serve(501);
  ASSERT_EQ(send(), 2U);
  EXPECT_NE(field(1, "Message").find("Times: 2 since"), std::string::npos) << field(1, "Message");
}

TEST_F(SnsAlertsTest, WithoutMemoryAnAlertIsDroppedAndCounted) {
  serve(500);
  memory->set_answer(
      [](const transport::HttpRequest&) -> transport::HttpResponse { throw std::bad_alloc(); });
  EXPECT_TRUE(alerts().step());
  EXPECT_EQ(outcome("dropped"), 1);
}

TEST_F(SnsAlertsTest, AForkedChildCanLetItGo) {
  auto threaded = std::make_unique<SnsAlerts>(
      test.engine, options,
      SnsAlertsRuntime{.http = std::make_unique<transport::MemoryTransport>()});
  EXPECT_EQ(testing::exit_status_of_child([&] {
              threaded.reset();
              return 17;
            }),
            17);
}

TEST_F(SnsAlertsTest, SecretsAreTakenOut) {
  serve_throwing(
      std::runtime_error("login of jane@example.com with password=hunter2 and card "
                         "4111 1111 1111 1111"));
  ASSERT_EQ(send(), 1U);
  const std::string message = field(0, "Message");
  for (const char* const secret : {"jane@", "hunter2", "4111"})
    EXPECT_EQ(message.find(secret), message.npos) << message;
  EXPECT_NE(message.find("[redacted]"), message.npos);
}

TEST_F(SnsAlertsTest, ASubjectIsWhatSnsTakes) {
  options.service =
      "b\xc3\xbc"
      "cher\n" +
      std::string(200, 'x');
  serve(500);
  ASSERT_EQ(send(), 1U);
  const std::string subject = field(0, "Subject");
  EXPECT_EQ(subject.size(), 99U);
  EXPECT_TRUE(subject.starts_with("b??cher?xxx")) << subject;
}

TEST_F(SnsAlertsTest, AFifoTopicGetsGroupAndDeduplication) {
  options.topic_arn += ".fifo";
  serve(500);
  ASSERT_EQ(send(), 1U);
  EXPECT_EQ(field(0, "MessageGroupId").size(), 16U);
  EXPECT_EQ(field(0, "MessageDeduplicationId").size(), 16U);
}

TEST_F(SnsAlertsTest, WhatSnsDoesNotTakeIsCountedAndLoggedOnce) {
  alerts();
  memory->set_answer([](const transport::HttpRequest&) {
    return transport::MemoryTransport::answered(
        404,
        "<ErrorResponse><Error><Code>NotFound</Code><Message>Topic does not exist</Message>"
        "</Error></ErrorResponse>");
  });
  serve(500);
  serve(501);
  EXPECT_EQ(send(), 2U);
  const testing::Sent all = testing::sent(test);
  EXPECT_EQ(all.sum("Alerts|failed"), 2);
  std::vector<Json> said;
  for (const Json& log : all.logs) {
    if (log["message"].string() == "alerts cannot be sent") said.push_back(log);
  }
  ASSERT_EQ(said.size(), 1U);
  EXPECT_NE(said[0]["reason"].string().find("NotFound"), std::string::npos);
  EXPECT_EQ(said[0]["topic"].string(), options.topic_arn);
}

TEST_F(SnsAlertsTest, ItsThreadSendsAndItsEndSendsTheRest) {
  auto http = std::make_unique<transport::MemoryTransport>();
  std::atomic<int> published{0};
  http->set_answer([&](const transport::HttpRequest&) {
    ++published;
    return transport::MemoryTransport::answered(200, "<PublishResponse/>");
  });
  {
    SnsAlerts threaded(test.engine, options, {.http = std::move(http)});
    const Chain chain(routes, threaded);
    for (int status = 500; status < 508; ++status)
      chain.begin({.method = "GET", .path = "/pay"}, now).finish({.status = status}, now);
  }
  EXPECT_EQ(published, 8);
}

TEST_F(SnsAlertsTest, OptionsThatCannotWorkAreRefusedTogether) {
  options = {.topic_arn = "errors", .service = "", .status_min = 200};
  options.endpoint = "http://sns.eu-west-1.amazonaws.com";
  options.redact = "everything";
  try {
    alerts();
    FAIL();
  } catch (const std::invalid_argument& error) {
    const std::string what = error.what();
    for (const char* const part :
         {"topic_arn \"errors\"", "service is empty", "status_min = 200", "https only", "redact"})
      EXPECT_NE(what.find(part), what.npos) << part << " in " << what;
  }
}

}  // namespace
}  // namespace spillway::middleware
