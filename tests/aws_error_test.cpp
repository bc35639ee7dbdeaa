// SPDX-License-Identifier: Apache-2.0
#include <string>

#include <gtest/gtest.h>

#include <spillway/transport/aws_error.hpp>

namespace spillway::transport {
namespace {

using std::chrono::milliseconds;

HttpResponse answer(int status, std::string body = {}, std::vector<HttpHeader> headers = {}) {
  return {HttpOutcome::answered, status, std::move(headers), std::move(body), {}};
}
Failure failure_of(const HttpResponse& response) {
  return classify(response, parse_aws_error(response));
}

TEST(AwsErrorTest, TheCodeIsFoundWhereverServicesPutIt) {
  struct Case {
    const char* header;
    const char* body;
    const char* code;
  };
  for (const Case& c : {
           Case{"", R"({"__type":"ThrottlingException"})", "ThrottlingException"},
           Case{"", R"({"__type":"com.amazonaws.logs#ThrottlingException"})",
                "ThrottlingException"},
           Case{"", R"({"__type":"a#Foo:http://internal.amazon.com/coral/"})", "Foo"},
           Case{"", R"({"code":"Foo"})", "Foo"},
           Case{"", R"({"__type":"Foo","code":"Bar"})", "Foo"},
           Case{"Foo:http://internal", R"({"__type":"Bar"})", "Foo"},
           Case{" a#Foo ", "", "Foo"},
           Case{"", "<ErrorResponse><Error><Code>Foo</Code></Error></ErrorResponse>", "Foo"},
           Case{"", "  \n<Error><Code>Foo</Code>", "Foo"},
           Case{"", "<Error><Code>Foo", "Foo"},
           Case{"", R"({"__type":5})", ""},
           Case{"", R"(["__type"])", ""},
           Case{"", "\"__type\"", ""},
           Case{"", "not json", ""},
           Case{"", "{", ""},
           Case{"", "", ""},
       }) {
    std::vector<HttpHeader> headers;
    if (*c.header != '\0') headers.push_back({"X-Amzn-ErrorType", c.header});
    EXPECT_EQ(parse_aws_error(answer(400, c.body, headers)).code, c.code) << c.body;
  }
}

TEST(AwsErrorTest, CborIsReadAsFarAsItGoes) {
  const auto parsed = [](const std::string& body) {
    return parse_aws_error(answer(400, body, {{"smithy-protocol", "rpc-v2-cbor"}}));
  };
  const std::string type = "\x66__type";
  EXPECT_EQ(parsed("\xa1" + type +
                   "\x63"
                   "Foo")
                .code,
            "Foo");
  EXPECT_EQ(parsed("\xa1" + type +
                   "\x65"
                   "a#Foo")
                .code,
            "Foo");
  EXPECT_EQ(parsed("\xa1" + type + "\x78\x1e" + std::string(30, 'F') + "more").code,
            std::string(30, 'F'));
  EXPECT_EQ(parsed("\xa1\x67message\x79\x01\x04" + std::string(260, 'm')).message,
            std::string(260, 'm'));
  // Cut, or no text.
  for (const std::string& rest : {std::string(), std::string("\x78"), std::string("\x79\x01"),
                                  std::string("\x19\x01\x02"), std::string("\x7f")}) {
    EXPECT_EQ(parsed("\xa1" + type + rest).code, "") << rest.size();
  }
  EXPECT_EQ(parsed("\xa1" + type +
                   "\x78\x1e"
                   "Foo")
                .code,
            "Foo");
}

TEST(AwsErrorTest, TheMessageIsFoundAndBounded) {
  EXPECT_EQ(parse_aws_error(answer(400, R"({"message":"a"})")).message, "a");
  EXPECT_EQ(parse_aws_error(answer(400, R"({"Message":"b"})")).message, "b");
  EXPECT_EQ(parse_aws_error(answer(400, "<Error><Message>c</Message></Error>")).message, "c");
  EXPECT_EQ(parse_aws_error(answer(400, R"({"message":null,"Message":"d"})")).message, "d");
  const std::string text = "{\"message\":\"" + std::string(10'000, 'x') + "\"}";
  EXPECT_EQ(parse_aws_error(answer(400, text)).message, std::string(500, 'x'));
}

TEST(AwsErrorTest, EveryAnswerHasItsKind) {
  struct Case {
    int status;
    const char* code;
    Failure failure;
  };
  for (const Case& c : {
           Case{200, "", Failure::none},
           Case{204, "", Failure::none},
           Case{299, "Throttling", Failure::none},
           Case{301, "", Failure::request},
           Case{400, "", Failure::request},
           Case{400, "InvalidParameterException", Failure::request},
           Case{400, "ThrottlingException", Failure::throttled},
           Case{429, "", Failure::throttled},
           Case{429, "ThrottledException", Failure::throttled},
           Case{503, "SlowDown", Failure::throttled},
           Case{503, "ServiceUnavailable", Failure::transient},
           Case{500, "", Failure::transient},
           Case{502, "", Failure::transient},
           Case{504, "", Failure::transient},
           Case{400, "RequestTimeout", Failure::transient},
           Case{401, "", Failure::credentials},
           Case{403, "", Failure::credentials},
           Case{400, "ExpiredTokenException", Failure::credentials},
           Case{400, "UnrecognizedClientException", Failure::credentials},
           Case{403, "RequestTimeTooSkewed", Failure::credentials},
           Case{403, "ThrottlingException", Failure::throttled},
           Case{413, "", Failure::too_large},
           Case{404, "", Failure::request},
       }) {
    const std::string body = *c.code == '\0' ? "" : std::string("{\"__type\":\"") + c.code + "\"}";
    EXPECT_EQ(failure_of(answer(c.status, body)), c.failure) << c.status << " " << c.code;
  }
}

TEST(AwsErrorTest, WithoutAnAnswerItIsTheConnectionUnlessWeRefused) {
  for (const HttpOutcome outcome :
       {HttpOutcome::not_connected, HttpOutcome::lost, HttpOutcome::too_large}) {
    // A status may have come before the connection broke.
    EXPECT_EQ(classify({outcome, 200, {}, {}, {}}, {}), Failure::transient);
  }
  EXPECT_EQ(classify({HttpOutcome::refused_locally, 0, {}, {}, {}}, {}), Failure::request);
}

TEST(RetryAfterTest, WhatTheServerAsksForWithinReason) {
  const auto asked = [](const char* name, const char* value) {
    return retry_after(answer(503, "", {{name, value}}));
  };
  EXPECT_EQ(asked("x-amz-retry-after", "1500"), milliseconds(1500));
  EXPECT_EQ(asked("X-Amz-Retry-After", " 0 "), milliseconds(0));
  EXPECT_EQ(asked("Retry-After", "3"), milliseconds(3000));
  EXPECT_EQ(asked("Retry-After", "3600"), milliseconds(3'600'000));
  for (const char* const bad :
       {"-1", "", "x", "1.5", "+3", "-9223372036854775808", "Wed, 21 Oct 2026 07:28:00 GMT"}) {
    EXPECT_EQ(asked("Retry-After", bad), std::nullopt) << bad;
  }
  for (const char* const huge : {"3601", "9223372036854775807", "99999999999999999999"}) {
    EXPECT_EQ(asked("Retry-After", huge), milliseconds(3'600'000)) << huge;
  }
  EXPECT_EQ(asked("x-amz-retry-after", "3600001"), milliseconds(3'600'000));
  EXPECT_EQ(retry_after(answer(503)), std::nullopt);
  EXPECT_EQ(retry_after(answer(503, "", {{"x-amz-retry-after", "x"}, {"Retry-After", "2"}})),
            milliseconds(2000));
  EXPECT_EQ(retry_after(answer(503, "", {{"x-amz-retry-after", "70"}, {"Retry-After", "2"}})),
            milliseconds(70));
}

}  // namespace
}  // namespace spillway::transport
