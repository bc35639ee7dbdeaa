// SPDX-License-Identifier: Apache-2.0
//
// An engine whose signals go out as OTLP: where to, with which headers, signed or not, and what
// each answer does to the account.
#include <algorithm>
#include <map>
#include <string>

#include <support/engine_fixture.hpp>
#include <support/gunzip.hpp>
#include <support/protobuf.hpp>

namespace spillway {
namespace {

using namespace std::chrono_literals;
using namespace std::string_literals;
using testing::AwsEnvironment;
using testing::body_of;
using testing::is_settled;
using testing::ProtoMessage;
using testing::ScopedVariable;
using testing::TestEngine;
using transport::find_header;
using transport::HttpRequest;
using transport::MemoryTransport;

Config otlp_config() {
  Config config;
  config.service = "orders";
  config.metrics = MetricsTo::otlp;
  config.logs = LogsTo::otlp;
  config.traces = TracesTo::otlp;
  config.trace_sample_rate = 1.0;
  config.on_diagnostic = [](std::string_view) {};
  return config;
}

/// What the scope of a request holds.
std::vector<ProtoMessage> items(const HttpRequest& request) {
  return ProtoMessage(body_of(request)).message(1).message(2).messages(2);
}

void record_logs(TestEngine& test, int count) {
  for (int i = 0; i < count; ++i) SPILLWAY_INFO(test.engine, "order placed", {"n", i});
}

/// The requests of each path.
std::map<std::string, std::vector<HttpRequest>> by_path(const TestEngine& test) {
  std::map<std::string, std::vector<HttpRequest>> made;
  for (const HttpRequest& request : test.http.requests()) made[request.path].push_back(request);
  return made;
}

TEST(OtlpDelivery, AllThreeSignalsGoToACollector) {
  Config config = otlp_config();
  config.service_version = "1.2";
  config.environment = "prod";
  config.resource_attributes = Dimensions{{"team", "shop"}, {"service.name", "not this"}};
  TestEngine test(config);
  const Histogram latency = test.engine.histogram("Latency", Unit::milliseconds);
  latency.record(5);
  latency.record(7);
  test.engine.counter("Requests").add(3);
  test.engine.gauge("Depth").set(4);
  {
    const Context context({.tenant = "acme"});
    const Scope scope(context);
    Span root = test.engine.span("GET /orders");
    Span child = test.engine.span("charge-card");
    child.annotate("provider", "acme");
    record_logs(test, 2);
  }
  test.clock.advance(3s);
  EXPECT_TRUE(test.engine.flush(1s));

  auto requests = by_path(test);
  ASSERT_EQ(requests.size(), 3U);
  for (const auto& [path, of_path] : requests) {
    ASSERT_EQ(of_path.size(), 1U);
    const HttpRequest& request = of_path.front();
    EXPECT_EQ(request.origin, "http://localhost:4318");
    EXPECT_EQ(request.method, "POST");
    EXPECT_EQ(find_header(request.headers, "Content-Type"), "application/x-protobuf");
    EXPECT_EQ(find_header(request.headers, "Authorization"), "");
    EXPECT_EQ(find_header(request.headers, "x-aws-log-group"), "");
    auto resource = testing::attributes_of(ProtoMessage(request.body).message(1).message(1), 1);
    EXPECT_EQ(resource["service.name"], "s:orders");
    EXPECT_EQ(resource["service.version"], "s:1.2");
    EXPECT_EQ(resource["deployment.environment.name"], "s:prod");
    EXPECT_EQ(resource["telemetry.sdk.name"], "s:spillway");
    EXPECT_EQ(resource["team"], "s:shop");
    EXPECT_NE(resource["host.name"], "");
  }
  const auto logs = items(requests["/v1/logs"].front());
  ASSERT_EQ(logs.size(), 2U);
  const auto spans = items(requests["/v1/traces"].front());
  ASSERT_EQ(spans.size(), 2U);
  for (const ProtoMessage& log : logs) {
    EXPECT_EQ(log.text(9), spans[0].text(1));  // One trace.
    EXPECT_EQ(testing::attributes_of(log, 6)["tenant"], "s:acme");
  }
  for (const ProtoMessage& span : spans) {
    EXPECT_EQ(testing::attributes_of(span, 9)["tenant"], "s:acme");
  }
  const auto metrics = items(requests["/v1/metrics"].front());
  ASSERT_EQ(metrics.size(), 3U);
  for (const ProtoMessage& metric : metrics) {
    if (metric.text(1) == "Latency") {
      const ProtoMessage point = metric.message(10).message(1);
      EXPECT_EQ(point.fixed64(4), 2U);
      EXPECT_EQ(point.real(5), 12);
      EXPECT_EQ(point.fixed64(3) - point.fixed64(2), 3'000'000'000U);
    }
  }
  const Stats stats = test.engine.stats();
  EXPECT_EQ(stats.metrics.delivered, 4U);
  EXPECT_EQ(stats.logs.delivered, 2U);
  EXPECT_EQ(stats.spans.delivered, 2U);
  for (const SignalStats* const signal : {&stats.metrics, &stats.logs, &stats.spans}) {
    EXPECT_TRUE(is_settled(*signal));
  }
}

TEST(OtlpDelivery, LargeBodiesAreCompressedUnlessTold) {
  for (const Compression compression : {Compression::gzip, Compression::none}) {
    Config config = otlp_config();
    config.otlp_compression = compression;
    TestEngine test(config);
    record_logs(test, 1000);
    test.engine.flush(1s);
    const HttpRequest& request = test.http.requests().front();
    EXPECT_EQ(find_header(request.headers, "Content-Encoding"),
              compression == Compression::gzip ? "gzip" : "");
    EXPECT_EQ(items(request).size(), 1000U);
  }
}

TEST(OtlpDelivery, ThePayloadKeepsTheLimits) {
  TestEngine test(otlp_config());
  const std::string text(20'000, 'x');
  for (int i = 0; i < 200; ++i) {
    SPILLWAY_INFO(test.engine, "large", {"text", text});
    test.engine.step();
  }
  test.engine.flush(1s);
  std::size_t logs = 0;
  EXPECT_GE(test.http.requests().size(), 4U);
  for (const HttpRequest& request : test.http.requests()) {
    const std::string body = body_of(request);
    EXPECT_LE(body.size(), 1'000'000U);
    logs += items(request).size();
  }
  EXPECT_EQ(logs, 200U);
}

TEST(OtlpDelivery, TheCallersTraceStateAndDecisionGoWithSpansAndLogs) {
  TestEngine test(otlp_config());
  for (const bool sampled : {true, false}) {
    const auto parent =
        parse_traceparent(std::string("00-6b00e3540f1e2d3c4b5a69788796a5b4-1a2b3c4d5e6f7081-0") +
                              (sampled ? "1" : "0"),
                          "rojo=1,congo=2");
    ASSERT_TRUE(parent);
    const Context context({.trace = *parent});
    const Scope scope(context);
    const Span root = test.engine.span("GET /orders");
    const Span child = test.engine.span("charge-card");
    record_logs(test, 1);
  }
  test.clock.advance(3s);
  EXPECT_TRUE(test.engine.flush(1s));
  auto requests = by_path(test);
  const auto logs = items(requests["/v1/logs"].at(0));
  ASSERT_EQ(logs.size(), 2U);
  EXPECT_EQ(logs[0].fixed32(8), 1U);
  EXPECT_FALSE(logs[1].has(8));
  EXPECT_EQ(logs[0].text(9), logs[1].text(9));
  const auto spans = items(requests["/v1/traces"].at(0));
  ASSERT_EQ(spans.size(), 2U);
  for (const ProtoMessage& span : spans) EXPECT_EQ(span.text(3), "rojo=1,congo=2");
}

TEST(OtlpDelivery, LogsBehindADecisionOfOurOwnHaveIt) {
  TestEngine test(otlp_config());
  TraceParent undecided;
  undecided.trace_id = {0x6b00e3540f1e2d3c, 0x4b5a69788796a5b4};
  undecided.parent_id = 7;
  const Context context({.trace = undecided});
  const Scope scope(context);
  record_logs(test, 1);
  {
    const Span root = test.engine.span("GET /orders");
    record_logs(test, 1);
  }
  test.engine.flush(1s);
  const auto logs = items(by_path(test)["/v1/logs"].at(0));
  ASSERT_EQ(logs.size(), 2U);
  EXPECT_FALSE(logs[0].has(8)) << "nobody had decided yet";
  EXPECT_EQ(logs[1].fixed32(8), 1U);
}

TEST(OtlpDelivery, ATraceStateWithASecretInItIsLeftOut) {
  TestEngine test(otlp_config());
  const auto parent = parse_traceparent("00-6b00e3540f1e2d3c4b5a69788796a5b4-1a2b3c4d5e6f7081-01",
                                        "rojo=joe@example.com");
  ASSERT_TRUE(parent);
  const Context context({.trace = *parent});
  const Scope scope(context);
  test.engine.span("GET /orders").end();
  test.engine.flush(1s);
  const auto spans = items(by_path(test)["/v1/traces"].at(0));
  ASSERT_EQ(spans.size(), 1U);
  EXPECT_FALSE(spans[0].has(3));
}

TEST(OtlpDelivery, AnExceptionsEventHasItsTime) {
  TestEngine test(otlp_config());
  Span span = test.engine.span("charge-card");
  test.clock.advance(40ms);
  span.record_exception(std::runtime_error("refused"));
  test.clock.advance(60ms);
  span.end();
  test.engine.flush(1s);
  const ProtoMessage sent = items(by_path(test)["/v1/traces"].at(0)).at(0);
  EXPECT_EQ(sent.fixed64(8) - sent.fixed64(7), 100'000'000U);
  EXPECT_EQ(sent.message(11).fixed64(1) - sent.fixed64(7), 40'000'000U);
}

// Whether the one request with spans lists the annotations' keys.
bool names_annotations(const TestEngine& test) {
  const auto spans = items(by_path(test)["/v1/traces"].at(0));
  const auto attributes = spans.at(0).messages(9);
  return std::any_of(attributes.begin(), attributes.end(), [](const ProtoMessage& attribute) {
    return attribute.text(1) == "aws.xray.annotations";
  });
}

TEST(OtlpDelivery, AnnotationsAreAttributesToACollector) {
  TestEngine test(otlp_config());
  test.engine.span("s").annotate("provider", "acme");
  test.engine.flush(1s);
  EXPECT_FALSE(names_annotations(test));
}

TEST(OtlpDelivery, ToAwsRequestsAreSigned) {
  const AwsEnvironment environment;
  Config config = otlp_config();
  config.otlp_endpoint = "aws";
  config.log_group = "/shop";
  config.log_stream = "pod-1";
  TestEngine test(config);
  test.engine.counter("Requests").add(1);
  record_logs(test, 1);
  test.engine.span("s").annotate("provider", "acme");
  test.engine.flush(1s);
  ASSERT_EQ(test.http.requests().size(), 3U);
  EXPECT_TRUE(names_annotations(test)) << "for X-Ray to index";
  for (const HttpRequest& request : test.http.requests()) {
    const std::string service = request.path == "/v1/metrics" ? "monitoring"
                                : request.path == "/v1/logs"  ? "logs"
                                                              : "xray";
    EXPECT_EQ(request.origin, "https://" + service + ".eu-west-1.amazonaws.com");
    const std::string authorization(find_header(request.headers, "Authorization"));
    EXPECT_NE(authorization.find("/eu-west-1/" + service + "/aws4_request"), std::string::npos)
        << authorization;
    EXPECT_EQ(find_header(request.headers, "x-aws-log-group"), service == "logs" ? "/shop" : "");
    EXPECT_EQ(find_header(request.headers, "x-aws-log-stream"), service == "logs" ? "pod-1" : "");
  }
}

TEST(OtlpDelivery, ATokenTakesThePlaceOfTheSignature) {
  const AwsEnvironment environment;
  Config config = otlp_config();
  config.otlp_logs_endpoint = "https://logs.eu-central-1.amazonaws.com/v1/logs";
  config.otlp_headers = HttpHeaders{{"authorization", "Bearer common"}, {"X-Scope", "shop"}};
  config.otlp_logs_headers = HttpHeaders{{"Authorization", "Bearer ACWL"}};
  TestEngine test(config);
  record_logs(test, 1);
  test.engine.flush(1s);
  const HttpRequest& request = test.http.requests().front();
  EXPECT_EQ(find_header(request.headers, "Authorization"), "Bearer ACWL");
  EXPECT_EQ(find_header(request.headers, "X-Scope"), "shop");
  EXPECT_EQ(find_header(request.headers, "X-Amz-Date"), "");
  EXPECT_EQ(find_header(request.headers, "x-aws-log-group"), "/spillway/orders");
}

TEST(OtlpDelivery, WhatTheBodyIsStandsOnce) {
  Config config = otlp_config();
  config.otlp_headers = HttpHeaders{{"content-type", "application/json"}, {"X-Scope", "shop"}};
  config.otlp_logs_headers = HttpHeaders{{"Content-Encoding", "zstd"}};
  TestEngine test(config);
  record_logs(test, 1);
  test.engine.flush(1s);
  const HttpRequest& request = test.http.requests().front();
  ASSERT_EQ(request.headers.size(), 2U);
  EXPECT_EQ(find_header(request.headers, "X-Scope"), "shop");
  EXPECT_EQ(find_header(request.headers, "Content-Type"), "application/x-protobuf");
}

TEST(OtlpDelivery, OtherHostsAreSignedWhenAskedFor) {
  const AwsEnvironment environment;
  Config config = otlp_config();
  config.otlp_endpoint = "https://vpce-1.xray.eu-west-1.vpce.amazonaws.com/proxy/";
  config.otlp_sign = true;
  TestEngine test(config);
  test.engine.span("s").end();
  test.engine.flush(1s);
  const HttpRequest& request = test.http.requests().front();
  EXPECT_EQ(request.path, "/proxy/v1/traces");
  EXPECT_NE(find_header(request.headers, "Authorization").find("/eu-west-1/xray/"),
            std::string::npos);
}

// ---- Answers ----

/// Answers the first request so, and returns what became of ten logs within a minute.
struct Result {
  SignalStats logs;
  std::size_t requests;
  std::string diagnostics;
};
Result answered(transport::HttpResponse response, bool always = false) {
  Config config = otlp_config();
  std::string diagnostics;
  config.on_diagnostic = [&](std::string_view text) { diagnostics.append(text).append("\n"); };
  config.attempts_max = 3;
  TestEngine test(config);
  if (always) {
    test.http.set_answer([=](const HttpRequest&) { return response; });
  } else {
    test.http.script(response);
  }
  record_logs(test, 10);
  test.advance(2s);
  for (int i = 0; i < 60; ++i) test.advance(1s);
  const Result result{test.engine.stats().logs, test.http.requests().size(), diagnostics};
  EXPECT_TRUE(is_settled(result.logs));
  return result;
}

TEST(OtlpAnswer, PartialSuccessIsCountedPerRecord) {
  const Result result = answered(MemoryTransport::answered(
      200, "\x0a\x08\x08\x03\x12\x04late"s, {{"Content-Type", "application/x-protobuf"}}));
  EXPECT_EQ(result.requests, 1U);
  EXPECT_EQ(result.logs.delivered, 7U);
  EXPECT_EQ(result.logs.dropped_for(DropCause::rejected), 3U);
  EXPECT_NE(result.diagnostics.find("refused 3 of 10: late"), std::string::npos);
}

TEST(OtlpAnswer, PartialSuccessInJson) {
  for (const char* const number : {"4", "\"4\""}) {
    const Result result = answered(MemoryTransport::answered(
        200,
        "{\"partialSuccess\":{\"rejectedLogRecords\":"s + number + ",\"errorMessage\":\"old\"}}",
        {{"Content-Type", "application/json"}}));
    EXPECT_EQ(result.logs.delivered, 6U);
    EXPECT_NE(result.diagnostics.find("refused 4 of 10: old"), std::string::npos);
  }
}

TEST(OtlpAnswer, MoreRejectedThanSentIsAll) {
  const Result result = answered(MemoryTransport::answered(
      200, "\x0a\x03\x08\xe8\x07"s, {{"Content-Type", "application/x-protobuf"}}));
  EXPECT_EQ(result.logs.dropped_for(DropCause::rejected), 10U);
}

TEST(OtlpAnswer, RejectedPointsCountAsTheirShareOfTheMeasurements) {
  TestEngine test(otlp_config());
  test.http.script(MemoryTransport::answered(200, "\x0a\x02\x08\x01"s));
  test.engine.counter("A").add(1);
  const Histogram histogram = test.engine.histogram("B");
  for (int i = 0; i < 9; ++i) histogram.record(i);
  test.engine.flush(1s);
  const SignalStats stats = test.engine.stats().metrics;
  EXPECT_EQ(stats.delivered, 5U);
  EXPECT_EQ(stats.dropped_for(DropCause::rejected), 5U);
}

TEST(OtlpAnswer, FourStatusesAreTriedAgainAndNoOther) {
  for (const int status : {429, 502, 503, 504}) {
    const Result result = answered(MemoryTransport::answered(status, ""));
    EXPECT_EQ(result.requests, 2U) << status;
    EXPECT_EQ(result.logs.delivered, 10U) << status;
  }
  for (const int status : {301, 401, 403, 404, 408, 500, 501, 505}) {
    const Result result = answered(MemoryTransport::answered(status, ""));
    EXPECT_EQ(result.requests, 1U) << status;
    EXPECT_EQ(result.logs.dropped_for(status == 401 || status == 403 ? DropCause::unauthorised
                                                                     : DropCause::rejected),
              10U)
        << status;
  }
  const Result gone = answered(MemoryTransport::answered(503, ""), true);
  EXPECT_EQ(gone.requests, 3U);
  EXPECT_EQ(gone.logs.dropped_for(DropCause::retries_exhausted), 10U);
}

TEST(OtlpAnswer, NoAnswerIsTriedAgain) {
  const Result result = answered(MemoryTransport::failed(transport::HttpOutcome::not_connected));
  EXPECT_EQ(result.requests, 2U);
  EXPECT_EQ(result.logs.delivered, 10U);
}

TEST(OtlpAnswer, RetryAfterIsHeeded) {
  Config config = otlp_config();
  TestEngine test(config);
  test.http.script(MemoryTransport::answered(429, "", {{"Retry-After", "20"}}));
  record_logs(test, 1);
  test.advance(2s);
  for (int i = 0; i < 19; ++i) test.advance(1s);
  EXPECT_EQ(test.http.requests().size(), 1U);
  for (int i = 0; i < 5; ++i) test.advance(1s);
  EXPECT_EQ(test.http.requests().size(), 2U);
}

TEST(OtlpAnswer, RetryAfterIsHeededForFiveMinutesAtMost) {
  TestEngine test(otlp_config());
  test.http.script(MemoryTransport::answered(503, "", {{"Retry-After", "3000"}}));
  record_logs(test, 1);
  test.advance(2s);
  for (int i = 0; i < 299; ++i) test.advance(1s);
  EXPECT_EQ(test.http.requests().size(), 1U);
  for (int i = 0; i < 5; ++i) test.advance(1s);
  EXPECT_EQ(test.http.requests().size(), 2U);
  EXPECT_EQ(test.engine.stats().logs.delivered, 1U);
}

TEST(OtlpAnswer, ABadRecordIsFoundByHalves) {
  TestEngine test(otlp_config());
  test.http.set_answer([](const HttpRequest& request) {
    for (const ProtoMessage& log : items(request)) {
      if (testing::attributes_of(log, 6)["n"] == "i:3") {
        return MemoryTransport::answered(400,
                                         "\x12\x03"
                                         "bad",
                                         {{"Content-Type", "application/x-protobuf"}});
      }
    }
    return MemoryTransport::answered(200, "");
  });
  record_logs(test, 16);
  test.engine.flush(1s);
  const SignalStats stats = test.engine.stats().logs;
  EXPECT_EQ(stats.delivered, 15U);
  EXPECT_EQ(stats.dropped_for(DropCause::rejected), 1U);
  EXPECT_EQ(test.http.requests().size(), 9U);
}

TEST(OtlpAnswer, TooLargeIsSplit) {
  TestEngine test(otlp_config());
  test.http.set_answer([](const HttpRequest& request) {
    return MemoryTransport::answered(items(request).size() > 4 ? 413 : 200, "");
  });
  record_logs(test, 16);
  test.engine.flush(1s);
  EXPECT_EQ(test.engine.stats().logs.delivered, 16U);
}

TEST(OtlpAnswer, AwssOwnErrorsAreReadAsSuch) {
  const AwsEnvironment environment;
  Config config = otlp_config();
  config.otlp_endpoint = "aws";
  TestEngine test(config);
  test.http.script(MemoryTransport::answered(500, "{\"__type\":\"InternalFailure\"}"));
  test.http.script(MemoryTransport::answered(400, "{\"__type\":\"ThrottlingException\"}"));
  test.http.script(MemoryTransport::answered(403, "{\"__type\":\"ExpiredTokenException\"}"));
  record_logs(test, 3);
  test.advance(2s);
  for (int i = 0; i < 60; ++i) test.advance(1s);
  EXPECT_EQ(test.http.requests().size(), 4U);
  EXPECT_EQ(test.engine.stats().logs.delivered, 3U);
}

// ---- Settings ----

class OtlpSettings : public ::testing::Test {
 protected:
  static Config resolved(const Config& config) {
    std::vector<ConfigError> errors;
    Config made = resolve(config, errors);
    EXPECT_TRUE(errors.empty()) << errors.front().key << ": " << errors.front().message;
    return made;
  }
  static std::string errors_of(const Config& config) {
    std::vector<ConfigError> errors;
    const Config made = resolve(config, errors);
    for (ConfigError& error : validate(made)) errors.push_back(std::move(error));
    return errors.empty() ? "" : InvalidConfig(errors).what();
  }
};

TEST_F(OtlpSettings, OpenTelemetrysVariablesAreHonoured) {
  const ScopedVariable base("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/otlp/");
  const ScopedVariable traces("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://traces:1234/exact");
  const ScopedVariable headers("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b, x-two = 2");
  const ScopedVariable compression("OTEL_EXPORTER_OTLP_COMPRESSION", "none");
  const ScopedVariable attributes(
      "OTEL_RESOURCE_ATTRIBUTES",
      "service.name=cart,service.version=7,deployment.environment=test,note=a%2Cb");
  Config config = otlp_config();
  config.service = Setting<std::string>("", Origin::fallback);
  const Config made = resolved(config);
  EXPECT_EQ(made.otlp_metrics_endpoint.get(), "http://collector:4318/otlp/v1/metrics");
  EXPECT_EQ(made.otlp_logs_endpoint.get(), "http://collector:4318/otlp/v1/logs");
  EXPECT_EQ(made.otlp_traces_endpoint.get(), "https://traces:1234/exact");
  ASSERT_EQ(made.otlp_headers.get().size(), 2U);
  EXPECT_EQ(made.otlp_headers.get()[0].name, "api-key");
  EXPECT_EQ(made.otlp_headers.get()[0].value, "a b");
  EXPECT_EQ(made.otlp_headers.get()[1].value, "2");
  EXPECT_EQ(made.otlp_compression.get(), Compression::none);
  EXPECT_EQ(made.service.get(), "cart");
  EXPECT_EQ(made.service_version.get(), "7");
  EXPECT_EQ(made.environment.get(), "test");
  EXPECT_EQ(made.resource_attributes.get().back().value, "a,b");

  const ScopedVariable own("SPILLWAY_OTLP_ENDPOINT", "http://mine");
  EXPECT_EQ(resolved(config).otlp_traces_endpoint.get(), "http://mine/v1/traces");
}

TEST_F(OtlpSettings, ValuesOfHeadersAreNeverShown) {
  Config config = otlp_config();
  config.otlp_headers = HttpHeaders{{"Authorization", "canary"}};
  EXPECT_EQ(describe(resolved(config)).find("canary"), std::string::npos);
  EXPECT_NE(describe(resolved(config)).find("Authorization=***"), std::string::npos);
  config.otlp_headers = HttpHeaders{{"Authorization", "canary\r\nX: y"}};
  const std::string errors = errors_of(config);
  EXPECT_NE(errors.find("otlp_headers"), std::string::npos) << errors;
  EXPECT_EQ(errors.find("canary"), std::string::npos);
  for (const char* const variable : {"SPILLWAY_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_LOGS_HEADERS"}) {
    const ScopedVariable malformed(variable, "canary");
    const std::string text = errors_of(otlp_config());
    EXPECT_NE(text.find("percent-encoded"), std::string::npos) << variable;
    EXPECT_EQ(text.find("canary"), std::string::npos) << variable;
  }
}

TEST_F(OtlpSettings, WhatCannotWorkIsSaidAtOnce) {
  EXPECT_EQ(errors_of(otlp_config()), "");
  const ScopedVariable region("AWS_REGION", nullptr);
  const ScopedVariable default_region("AWS_DEFAULT_REGION", nullptr);
  const ScopedVariable file("AWS_CONFIG_FILE", "/nonexistent");
  const auto has = [](const std::string& text, std::string_view part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  Config config = otlp_config();
  config.otlp_endpoint = "aws";
  has(errors_of(config), "because otlp_endpoint = aws");
  config = otlp_config();
  config.otlp_sign = true;
  has(errors_of(config), "because otlp_sign = true");
  config = otlp_config();
  config.otlp_traces_endpoint = "collector:4318";
  has(errors_of(config), "otlp_traces_endpoint");
  config = otlp_config();
  config.otlp_logs_endpoint = "http://logs.eu-west-1.amazonaws.com/v1/logs";
  has(errors_of(config), "must be https");
  config = otlp_config();
  config.resource_attributes = Dimensions{{"a", std::string(12'000, 'x')}};
  has(errors_of(config), "at most 12000 bytes");
  const ScopedVariable malformed("OTEL_RESOURCE_ATTRIBUTES", "a=%zz");
  has(errors_of(otlp_config()), "OTEL_RESOURCE_ATTRIBUTES");
  // Its service's name is everybody's.
  has(errors_of(Config{}), "OTEL_RESOURCE_ATTRIBUTES");
}

}  // namespace
}  // namespace spillway
