// SPDX-License-Identifier: Apache-2.0
//
// Spans through the whole engine on a stopped clock: trees, flags, sampling, and what crosses
// threads.
#include <exception>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

#include <support/engine_fixture.hpp>
#include <support/temporary_file.hpp>

#include <spillway/encoders/limits.hpp>
#include <spillway/engine/trace_header.hpp>

namespace spillway {
namespace {

using namespace std::chrono_literals;
using testing::aws_config;
using testing::is_settled;
using testing::Json;

class EngineTracesTest : public ::testing::Test {
 protected:
  static Config config() {
    Config config = aws_config();
    config.metrics = MetricsTo::none;
    config.logs = LogsTo::none;
    return config;
  }
  static std::vector<Json> documents(const testing::TestEngine& test) {
    std::vector<Json> found;
    for (const auto& request : test.http.requests()) {
      EXPECT_EQ(request.path, "/TraceSegments");
      const Json body(request.body);
      for (std::size_t i = 0; i < body["TraceSegmentDocuments"].size(); ++i) {
        found.emplace_back(body["TraceSegmentDocuments"][i].string());
      }
    }
    return found;
  }
  testing::AwsEnvironment environment;
};

TEST_F(EngineTracesTest, NestedSpansAreASegmentWithItsSubsegments) {
  testing::TestEngine test(config());
  {
    Span root = test.engine.span("orders");
    root.annotate("retries", 2);
    test.clock.advance(10ms);
    {
      Span child = test.engine.span("charge-card");
      child.remote();
      child.annotate("provider", "acme");
      child.annotate("cents", 12.5);
      child.annotate("ok", true);
      child.metadata("note", std::string("hello"));
      child.metadata("missing", static_cast<const char*>(nullptr));
      test.clock.advance(5ms);
      const Span grandchild = test.engine.span("dns");
    }
    const Span sibling = test.engine.span("write");
  }
  ASSERT_TRUE(test.engine.flush(1s));
  const auto found = documents(test);
  ASSERT_EQ(found.size(), 1U);
  const Json& root = found[0];
  EXPECT_EQ(root["name"].string(), "orders");
  EXPECT_EQ(root["trace_id"].string().substr(0, 10), "1-6b00ed10");
  EXPECT_FALSE(root.has("parent_id"));
  EXPECT_FALSE(root.has("type"));
  EXPECT_EQ(root["start_time"].text(), "1795222800.0");
  EXPECT_NEAR(root["end_time"].number(), 1795222800.015, 1e-6);
  EXPECT_EQ(root["annotations"]["retries"].number(), 2);
  ASSERT_EQ(root["subsegments"].size(), 2U);
  const Json child = root["subsegments"][0];
  EXPECT_EQ(child["name"].string(), "charge-card");
  EXPECT_EQ(child["namespace"].string(), "remote");
  EXPECT_EQ(child["annotations"]["provider"].string(), "acme");
  EXPECT_EQ(child["annotations"]["cents"].number(), 12.5);
  EXPECT_TRUE(child["annotations"]["ok"].boolean());
  EXPECT_EQ(child["metadata"]["default"]["note"].string(), "hello");
  EXPECT_EQ(child["metadata"]["default"]["missing"].string(), "(null)");
  EXPECT_EQ(child["subsegments"][0]["name"].string(), "dns");
  EXPECT_EQ(root["subsegments"][1]["name"].string(), "write");
  EXPECT_EQ(test.engine.stats().spans.delivered, 4U);
  EXPECT_TRUE(is_settled(test.engine.stats().spans));
}

TEST_F(EngineTracesTest, AStatusMarksTheSpan) {
  testing::TestEngine test(config());
  for (const int status : {200, 404, 429, 503}) {
    Span span = test.engine.span("request");
    span.http_request({.method = "GET",
                       .url = "http://shop/orders",
                       .user_agent = "curl",
                       .client_ip = "203.0.113.9",
                       .x_forwarded_for = true});
    span.http_response(status, 17);
  }
  ASSERT_TRUE(test.engine.flush(1s));
  std::map<int, Json> by_status;
  for (const Json& document : documents(test)) {
    by_status.emplace(static_cast<int>(document["http"]["response"]["status"].number()), document);
  }
  ASSERT_EQ(by_status.size(), 4U);
  EXPECT_FALSE(by_status.at(200).has("error") || by_status.at(200).has("fault"));
  EXPECT_TRUE(by_status.at(404)["error"].boolean());
  EXPECT_FALSE(by_status.at(404).has("throttle"));
  EXPECT_TRUE(by_status.at(429)["error"].boolean());
  EXPECT_TRUE(by_status.at(429)["throttle"].boolean());
  EXPECT_TRUE(by_status.at(503)["fault"].boolean());
  const Json request = by_status.at(200)["http"]["request"];
  EXPECT_EQ(request["method"].string(), "GET");
  EXPECT_EQ(request["url"].string(), "http://shop/orders");
  EXPECT_TRUE(request["x_forwarded_for"].boolean());
  EXPECT_EQ(by_status.at(200)["http"]["response"]["content_length"].number(), 17);
}

TEST_F(EngineTracesTest, TheSegmentCarriesTheRequestsIdentity) {
  testing::TestEngine test(config());
  const Context context{{.tenant = "acme", .user = "u-17", .request_id = "r-1"}};
  {
    const Scope scope(context);
    const Span root = test.engine.span("orders");
    const Span child = test.engine.span("child");
  }
  ASSERT_TRUE(test.engine.flush(1s));
  const Json root = documents(test).at(0);
  EXPECT_EQ(root["user"].string(), "u-17");
  EXPECT_EQ(root["annotations"]["tenant"].string(), "acme");
  EXPECT_EQ(root["annotations"]["request_id"].string(), "r-1");
  EXPECT_FALSE(root["subsegments"][0].has("user"));
}

TEST_F(EngineTracesTest, AnIncomingHeaderIsTheParent) {
  testing::TestEngine test(config());
  const auto parent = parse_trace_header(
      "Root=1-6b00e354-0f1e2d3c4b5a69788796a5b4;Parent=1a2b3c4d5e6f7081;Sampled=1");
  ASSERT_TRUE(parent);
  const Context context{{.trace = parent}};
  std::string outgoing;
  {
    const Scope scope(context);
    const Span root = test.engine.span("orders");
    const Span call = test.engine.span("call");
    outgoing = current_trace_header();
  }
  ASSERT_TRUE(test.engine.flush(1s));
  const Json root = documents(test).at(0);
  EXPECT_EQ(root["trace_id"].string(), "1-6b00e354-0f1e2d3c4b5a69788796a5b4");
  EXPECT_EQ(root["parent_id"].string(), "1a2b3c4d5e6f7081");
  EXPECT_EQ(outgoing, "Root=1-6b00e354-0f1e2d3c4b5a69788796a5b4;Parent=" +
                          root["subsegments"][0]["id"].string() + ";Sampled=1");
}

TEST_F(EngineTracesTest, AnUntrustedCallersTraceIsALinkAndItsDecisionNothing) {
  Config rare = config();
  rare.trace_sample_rate = 0.0;
  rare.trace_reservoir = 1;
  testing::TestEngine test(rare);
  int sampled = 0;
  for (int i = 0; i < 50; ++i) {
    const Context context{
        {.link = test.engine.trace_of({.xray = "Root=1-6b00e354-0f1e2d3c4b5a69788796a5b4;"
                                               "Parent=1a2b3c4d5e6f7081;Sampled=1;Lineage=x:1"})}};
    const Scope scope(context);
    const Span root = test.engine.span("orders");
    sampled += root.recording() ? 1 : 0;
    EXPECT_NE(to_string(root.trace_id()), "1-6b00e354-0f1e2d3c4b5a69788796a5b4");
    EXPECT_EQ(current_trace_header().find("Lineage"), std::string::npos);
  }
  EXPECT_EQ(sampled, 1) << "a flood of Sampled=1 gets what the reservoir gives";
  ASSERT_TRUE(test.engine.flush(1s));
  const Json root = documents(test).at(0);
  EXPECT_FALSE(root.has("parent_id"));
  ASSERT_EQ(root["links"].size(), 1U);
  EXPECT_EQ(root["links"][0]["trace_id"].string(), "1-6b00e354-0f1e2d3c4b5a69788796a5b4");
  EXPECT_EQ(root["links"][0]["id"].string(), "1a2b3c4d5e6f7081");
}

TEST_F(EngineTracesTest, IllegalTraceHeadersAreCountedAndBeginATrace) {
  testing::TestEngine test(config());
  const std::string good = "Root=1-6b00e354-0f1e2d3c4b5a69788796a5b4;Parent=1a2b3c4d5e6f7081";
  EXPECT_FALSE(test.engine.trace_of({}));
  EXPECT_TRUE(test.engine.trace_of({.xray = good}));
  EXPECT_EQ(test.engine.stats().trace_headers_refused, 0U) << "none is not an illegal one";
  const std::string bad[] = {"Root=1-00000000-000000000000000000000000",
                             "Root=1-6B00E354-0F1E2D3C4B5A69788796A5B4",
                             good + "\r\nX-Evil: 1",
                             good + "\n",
                             good + std::string(1, '\0'),
                             good + ";Key=" + std::string(10'240, 'x')};
  for (const std::string& header : bad) EXPECT_FALSE(test.engine.trace_of({.xray = header}));
  EXPECT_EQ(test.engine.stats().trace_headers_refused, std::size(bad));
  EXPECT_FALSE(test.engine.trace_of(
      {.traceparent = "00-00000000000000000000000000000000-1a2b3c4d5e6f7081-01"}));
  EXPECT_EQ(test.engine.stats().trace_headers_refused, std::size(bad) + 1);
  EXPECT_NE(test.engine.stats().to_json().find("\"trace_headers_refused\":7"), std::string::npos);
}

TEST_F(EngineTracesTest, InLambdaSpansJoinTheInvocationsSegment) {
  const testing::ScopedVariable function("AWS_LAMBDA_FUNCTION_NAME", "resize");
  const testing::ScopedVariable trace(
      "_X_AMZN_TRACE_ID",
      "Root=1-6b00e354-0f1e2d3c4b5a69788796a5b4;Parent=1a2b3c4d5e6f7081;Sampled=1;Lineage=x:1");
  testing::TestEngine test(config());
  std::string outgoing;
  {
    const Span root = test.engine.span("handle");
    const Span child = test.engine.span("fetch");
    outgoing = current_trace_header();
  }
  {
    const testing::ScopedVariable next(
        "_X_AMZN_TRACE_ID",
        "Root=1-6b00e355-0f1e2d3c4b5a69788796a5b4;Parent=2a2b3c4d5e6f7081;Sampled=0");
    const Span unsampled = test.engine.span("handle");
    EXPECT_FALSE(unsampled.recording());
  }
  {
    const testing::ScopedVariable broken("_X_AMZN_TRACE_ID", "Root=broken");
    const Span own = test.engine.span("handle");
    EXPECT_TRUE(own.trace_id());
  }
  ASSERT_TRUE(test.engine.flush(1s));
  const auto found = documents(test);
  ASSERT_EQ(found.size(), 2U);
  const Json joined = found[0].has("parent_id") ? found[0] : found[1];
  EXPECT_EQ(joined["type"].string(), "subsegment") << "the segment is Lambda's to write";
  EXPECT_EQ(joined["name"].string(), "handle");
  EXPECT_EQ(joined["trace_id"].string(), "1-6b00e354-0f1e2d3c4b5a69788796a5b4");
  EXPECT_EQ(joined["parent_id"].string(), "1a2b3c4d5e6f7081");
  ASSERT_EQ(joined["subsegments"].size(), 1U);
  EXPECT_EQ(outgoing, "Root=1-6b00e354-0f1e2d3c4b5a69788796a5b4;Parent=" +
                          joined["subsegments"][0]["id"].string() + ";Sampled=1;Lineage=x:1");
  EXPECT_TRUE(is_settled(test.engine.stats().spans));
}

TEST_F(EngineTracesTest, AContextOfLambdasTraceJoinsItToo) {
  const testing::ScopedVariable trace(
      "_X_AMZN_TRACE_ID",
      "Root=1-6b00e354-0f1e2d3c4b5a69788796a5b4;Parent=1a2b3c4d5e6f7081;Sampled=1");
  testing::TestEngine test(config());
  const Context context{{.request_id = "r-1", .trace = lambda_trace()}};
  {
    const Scope scope(context);
    const Span root = test.engine.span("handle");
  }
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(documents(test).at(0)["type"].string(), "subsegment");
  EXPECT_EQ(documents(test).at(0)["parent_id"].string(), "1a2b3c4d5e6f7081");
}

TEST_F(EngineTracesTest, AnUpstreamNoIsObeyedAndPassedOn) {
  testing::TestEngine test(config());
  const Context context{
      {.trace = parse_trace_header("Root=1-6b00e354-0f1e2d3c4b5a69788796a5b4;Sampled=0")}};
  {
    const Scope scope(context);
    const Span root = test.engine.span("orders");
    EXPECT_FALSE(root.recording());
    EXPECT_EQ(current_trace_header(), "Root=1-6b00e354-0f1e2d3c4b5a69788796a5b4;Sampled=0");
  }
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_TRUE(test.http.requests().empty());
  EXPECT_EQ(test.engine.stats().spans.recorded, 0U);
}

TEST_F(EngineTracesTest, AnUpstreamYesOverrulesTheRate) {
  Config rare = config();
  rare.trace_sample_rate = 0.0;
  rare.trace_reservoir = 0;
  testing::TestEngine test(rare);
  const Context context{
      {.trace = parse_trace_header("Root=1-6b00e354-0f1e2d3c4b5a69788796a5b4;Sampled=1")}};
  {
    const Scope scope(context);
    EXPECT_TRUE(test.engine.span("orders").recording());
  }
  EXPECT_FALSE(test.engine.span("own").recording());
}

TEST_F(EngineTracesTest, WhatIsBelowAnUnsampledSpanIsNotSampledEither) {
  Config rare = config();
  rare.trace_sample_rate = 0.0;
  rare.trace_reservoir = 0;
  testing::TestEngine test(rare);
  {
    Span root = test.engine.span("orders");
    root.annotate("a", 1);
    EXPECT_FALSE(root.recording());
    const std::string header = current_trace_header();
    EXPECT_NE(header.find(";Sampled=0"), std::string::npos) << header;
    const Span child = test.engine.span("child");
    EXPECT_FALSE(child.recording());
    EXPECT_EQ(current_trace_header(), header) << "one trace, one decision";
  }
  EXPECT_EQ(current_trace_header(), "");
}

TEST_F(EngineTracesTest, TheReservoirIsASecondsWorth) {
  Config rare = config();
  rare.trace_sample_rate = 0.0;
  rare.trace_reservoir = 3;
  testing::TestEngine test(rare);
  int sampled = 0;
  for (int i = 0; i < 100; ++i) sampled += test.engine.span("orders").recording() ? 1 : 0;
  EXPECT_EQ(sampled, 3);
  test.clock.advance(1s);
  for (int i = 0; i < 100; ++i) sampled += test.engine.span("orders").recording() ? 1 : 0;
  EXPECT_EQ(sampled, 6);
}

TEST_F(EngineTracesTest, TheRateIsAboutRight) {
  Config half = config();
  half.trace_sample_rate = 0.5;
  half.trace_reservoir = 0;
  testing::TestEngine test(half);
  int sampled = 0;
  for (int i = 0; i < 10'000; ++i) sampled += test.engine.span("orders").recording() ? 1 : 0;
  EXPECT_NEAR(sampled, 5000, 400);  // Eight standard deviations.
  EXPECT_EQ(test.engine.stats().spans.recorded, static_cast<std::uint64_t>(sampled));
}

TEST_F(EngineTracesTest, ASpanOnAnotherThreadIsInTheSameDocument) {
  testing::TestEngine test(config());
  {
    const Span root = test.engine.span("orders");
    std::thread([&test, carried = Context::current()] {
      const Scope scope(carried);
      const Span child = test.engine.span("elsewhere");
    }).join();
  }
  test.engine.step();
  test.engine.step();
  ASSERT_TRUE(test.engine.flush(1s));
  const auto found = documents(test);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0]["subsegments"][0]["name"].string(), "elsewhere");
}

TEST_F(EngineTracesTest, ASpanThatEndsAfterItsSegmentGoesAlone) {
  testing::TestEngine test(config());
  std::optional<Span> late;
  {
    const Span root = test.engine.span("orders");
    late.emplace(test.engine.span("late"));
    late->detach();
  }
  ASSERT_TRUE(test.engine.flush(1s));
  late.reset();
  ASSERT_TRUE(test.engine.flush(1s));
  const auto found = documents(test);
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[1]["type"].string(), "subsegment");
  EXPECT_EQ(found[1]["parent_id"].string(), found[0]["id"].string());
  EXPECT_EQ(found[1]["trace_id"].string(), found[0]["trace_id"].string());
}

TEST_F(EngineTracesTest, ADetachedSpanEndsOnAnotherThread) {
  testing::TestEngine test(config());
  const Context context{{.user = "u-17"}};
  {
    const Scope scope(context);
    auto span = std::make_unique<Span>(test.engine.span("request"));
    span->detach();
    EXPECT_EQ(current_trace_header(), "");
    std::thread([&] { span.reset(); }).join();
  }
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(documents(test).at(0)["user"].string(), "u-17");
  EXPECT_TRUE(is_settled(test.engine.stats().spans));
}

TEST_F(EngineTracesTest, ChildrenOfALongSegmentDoNotWaitForIt) {
  testing::TestEngine test(config());
  const Span root = test.engine.span("job");
  { const Span child = test.engine.span("step"); }
  test.advance(1s);
  EXPECT_TRUE(test.http.requests().empty());
  test.advance(3s);
  test.advance(1s);
  test.settle();
  ASSERT_EQ(documents(test).size(), 1U);
  EXPECT_EQ(documents(test)[0]["name"].string(), "step");
}

TEST_F(EngineTracesTest, ASpanCarriesMoreThanItsBufferHolds) {
  testing::TestEngine test(config());
  const std::string text(200, 't');
  const std::string long_text(5000, 'l');
  {
    Span span = test.engine.span("wide");
    for (int i = 0; i < 20; ++i) span.metadata("text", text);  // The last of one key stands.
    span.metadata("m1", text);
    span.metadata("m2", text);
    span.metadata("m3", long_text);
    span.metadata("m4", text);
    span.annotate("a", 1);
  }
  ASSERT_TRUE(test.engine.flush(1s));
  const Json found = documents(test).at(0);
  EXPECT_EQ(found["metadata"]["default"]["m1"].string(), text);
  EXPECT_EQ(found["metadata"]["default"]["m2"].string(), text);
  EXPECT_EQ(found["metadata"]["default"]["m3"].string(), long_text);
  EXPECT_EQ(found["metadata"]["default"]["m4"].string(), text);
  EXPECT_EQ(found["annotations"]["a"].number(), 1);
  EXPECT_FALSE(found["metadata"].has("spillway")) << "nothing was cut";
}

TEST_F(EngineTracesTest, WhatFindsNoRoomIsMarkedAsCut) {
  Config small = config();
  small.ring_bytes = 4096;
  testing::TestEngine test(small);
  {
    Span span = test.engine.span("wide");
    span.metadata("large", std::string(3000, 'l'));  // More than a record of this ring may be.
  }
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_TRUE(documents(test).at(0)["metadata"]["spillway"]["cut"].boolean());
}

TEST_F(EngineTracesTest, AFullRingDropsAndCountsSpans) {
  Config small = config();
  small.ring_bytes = 4096;
  testing::TestEngine test(small);
  for (int i = 0; i < 200; ++i) const Span span = test.engine.span("many");
  {
    Span failed = test.engine.span("failed");
    failed.fault();
  }
  ASSERT_TRUE(test.engine.flush(1s));
  const Stats stats = test.engine.stats();
  EXPECT_EQ(stats.spans.recorded, 201U);
  EXPECT_GT(stats.spans.dropped_for(DropCause::ring_full), 100U);
  EXPECT_TRUE(is_settled(stats.spans));
  bool fault = false;
  for (const Json& document : documents(test)) fault |= document.has("fault");
  EXPECT_TRUE(fault) << "the last part of the ring is kept for failed spans";
}

TEST_F(EngineTracesTest, SpansThatEndOutOfOrderLeaveNoTraceBehind) {
  testing::TestEngine test(config());
  {
    Span root = test.engine.span("root");
    Span child = test.engine.span("child");
    root.end();
    EXPECT_EQ(current_trace_header(), "") << "the segment is over";
    child.end();
    EXPECT_EQ(current_trace_header(), "");
  }
  std::set<std::string> traces;
  for (int i = 0; i < 2; ++i) {
    Span root = test.engine.span("next");
    Span first = test.engine.span("first");
    Span second = test.engine.span("second");
    first.end();
  }
  ASSERT_TRUE(test.engine.flush(1s));
  for (const Json& document : documents(test)) {
    if (!document.has("type")) traces.insert(document["trace_id"].string());
  }
  EXPECT_EQ(traces.size(), 3U) << "each root began a trace of its own";
  EXPECT_EQ(test.engine.stats().spans.delivered, 8U);
}

TEST_F(EngineTracesTest, EnginesHaveSegmentsOfTheirOwnInATrace) {
  testing::TestEngine outer(config());
  testing::TestEngine inner(config());
  {
    const Span request = outer.engine.span("request");
    {
      const Span library = inner.engine.span("library");
      const Span step = inner.engine.span("step");
    }
    const Span after = outer.engine.span("after");
  }
  ASSERT_TRUE(outer.engine.flush(1s));
  ASSERT_TRUE(inner.engine.flush(1s));
  const Json of_outer = documents(outer).at(0);
  const Json of_inner = documents(inner).at(0);
  EXPECT_EQ(of_outer["subsegments"].size(), 1U);
  EXPECT_EQ(of_outer["subsegments"][0]["name"].string(), "after");
  EXPECT_EQ(of_inner["trace_id"].string(), of_outer["trace_id"].string());
  EXPECT_EQ(of_inner["parent_id"].string(), of_outer["id"].string());
  EXPECT_EQ(of_inner["subsegments"][0]["name"].string(), "step");
}

TEST_F(EngineTracesTest, NamesKnownAtRunTimeAreInternedOnce) {
  testing::TestEngine test(config());
  const SpanName name = test.engine.span_name("GET /orders/{id}");
  { const Span span = test.engine.span(name); }
  { const Span span = test.engine.span(name); }
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(documents(test).size(), 2U);
  EXPECT_EQ(documents(test)[0]["annotations"]["operation"].string(), "GET /orders/{id}");
}

TEST_F(EngineTracesTest, ASegmentIsNamedAfterTheServiceAndAnnotatedWithTheOperation) {
  testing::TestEngine test(config());
  { const Span like_the_service = test.engine.span("orders"); }
  { const Span other = test.engine.span("nightly job"); }
  {
    Span own = test.engine.span("job");
    own.annotate("operation", "reindex");
    const Span child = test.engine.span("step");
  }
  ASSERT_TRUE(test.engine.flush(1s));
  const auto found = documents(test);
  ASSERT_EQ(found.size(), 3U);
  std::multiset<std::string> operations;
  for (const Json& segment : found) {
    EXPECT_EQ(segment["name"].string(), "orders");
    operations.insert(segment.has("annotations") ? segment["annotations"]["operation"].string()
                                                 : "none");
    if (!segment.has("subsegments")) continue;
    EXPECT_EQ(segment["subsegments"][0]["name"].string(), "step");
    EXPECT_FALSE(segment["subsegments"][0].has("annotations"));
  }
  EXPECT_EQ(operations, (std::multiset<std::string>{"nightly job", "none", "reindex"}))
      << "none where the span is named like the service; what the user annotates stands";
}

TEST_F(EngineTracesTest, WithTracesOffASpanIsNothing) {
  Config off = config();
  off.traces = TracesTo::none;
  testing::TestEngine test(off);
  Span span = test.engine.span("orders");
  span.annotate("a", 1);
  EXPECT_FALSE(span.recording());
  EXPECT_EQ(current_trace_header(), "");
}

TEST_F(EngineTracesTest, ALargeTraceGoesInSeveralDocumentsOfLegalSize) {
  testing::TestEngine test(config());
  const std::string text(300, 'x');
  {
    const Span root = test.engine.span("orders");
    for (int i = 0; i < 500; ++i) {
      Span child = test.engine.span("child");
      child.metadata("text", text);
    }
  }
  ASSERT_TRUE(test.engine.flush(1s));
  const auto found = documents(test);
  EXPECT_GT(found.size(), 2U);
  std::size_t spans = 0;
  for (const auto& request : test.http.requests()) {
    const Json body(request.body);
    for (std::size_t i = 0; i < body["TraceSegmentDocuments"].size(); ++i) {
      const std::string document = body["TraceSegmentDocuments"][i].string();
      EXPECT_LE(document.size(), 64'000U);
      for (std::size_t at = document.find("\"id\":"); at != std::string::npos;
           at = document.find("\"id\":", at + 1))
        ++spans;
    }
  }
  EXPECT_EQ(spans, 501U);
  EXPECT_EQ(test.engine.stats().spans.delivered, 501U);
}

// ---- Sampling ----

TEST_F(EngineTracesTest, ALocalRulesFileDecides) {
  const testing::TemporaryDirectory directory;
  Config rules = config();
  rules.sampling_rules_file =
      directory.write("rules.json",
                      R"({"version":2,"default":{"fixed_target":0,"rate":0},"rules":[
          {"host":"*","http_method":"*","url_path":"/orders/*","fixed_target":0,"rate":1}]})");
  testing::TestEngine test(rules);
  { const Span span = test.engine.span("health", {.method = "GET", .path = "/healthz"}); }
  {
    const Span span = test.engine.span("order", {.method = "GET", .path = "/orders/7"});
    EXPECT_TRUE(span.recording());
  }
  ASSERT_TRUE(test.engine.flush(1s));
  const auto found = documents(test);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0]["name"].string(), "orders");
  EXPECT_EQ(found[0]["annotations"]["operation"].string(), "order");
}

TEST_F(EngineTracesTest, AWrongRulesFileIsRefusedAtTheStart) {
  const testing::TemporaryDirectory directory;
  Config rules = config();
  rules.sampling_rules_file =
      directory.write("rules.json", R"({"version":2,"default":{"rate":2}})");
  try {
    const testing::TestEngine test(rules);
    FAIL() << "an engine started with it";
  } catch (const InvalidConfig& invalid) {
    ASSERT_EQ(invalid.errors().size(), 2U);
    EXPECT_EQ(invalid.errors()[0].key, "sampling_rules_file");
    EXPECT_NE(invalid.errors()[0].message.find("default.fixed_target"), std::string::npos);
    EXPECT_NE(invalid.errors()[1].message.find("default.rate"), std::string::npos);
  }
}

TEST_F(EngineTracesTest, ARareOperationIsKeptWhole) {
  Config rare = config();
  rare.trace_sample_rate = 0.0;
  rare.trace_reservoir = 0;
  rare.trace_keep_rare = 5;
  testing::TestEngine test(rare);
  for (int i = 0; i < 3; ++i) {
    const Span root = test.engine.span("nightly-report");
    const Span child = test.engine.span("child");
    EXPECT_EQ(child.recording(), i == 0);
  }
  ASSERT_TRUE(test.engine.flush(1s));
  const auto found = documents(test);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0]["annotations"]["kept"].string(), "rare");
  EXPECT_EQ(found[0]["subsegments"].size(), 1U);
}

TEST_F(EngineTracesTest, AFaultIsKeptAsASegmentAlone) {
  Config rare = config();
  rare.trace_sample_rate = 0.0;
  rare.trace_reservoir = 0;
  rare.trace_keep_rare = 5;
  testing::TestEngine test(rare);
  { const Span first = test.engine.span("orders"); }  // Rare, and kept as such.
  const Context context{{.tenant = "acme"}};
  std::string outgoing;
  for (const int status : {200, 404, 503}) {
    const Scope scope(context);
    Span root = test.engine.span("orders");
    EXPECT_FALSE(root.recording());
    const Span child = test.engine.span("child");
    outgoing = current_trace_header();
    test.clock.advance(20ms);
    root.http_response(status, 17);
  }
  {
    // One that another thread ends, in an object that was moved.
    Span root = test.engine.span("orders");
    root.detach();
    Span moved(std::move(root));
    moved.fault();
    std::thread([&] { moved.end(); }).join();
  }
  ASSERT_TRUE(test.engine.flush(1s));
  auto found = documents(test);
  ASSERT_EQ(found.size(), 3U);
  const Json* kept = nullptr;
  for (const Json& document : found) {
    if (document.has("http")) kept = &document;
  }
  ASSERT_NE(kept, nullptr);
  EXPECT_NE(outgoing.find("Sampled=0"), std::string::npos) << outgoing;
  EXPECT_NE(outgoing.find((*kept)["trace_id"].string()), std::string::npos) << outgoing;
  EXPECT_TRUE((*kept)["fault"].boolean());
  EXPECT_EQ((*kept)["http"]["response"]["status"].number(), 503);
  EXPECT_EQ((*kept)["annotations"]["kept"].string(), "fault");
  EXPECT_EQ((*kept)["annotations"]["tenant"].string(), "acme");
  EXPECT_FALSE((*kept).has("subsegments"));
  EXPECT_NEAR((*kept)["end_time"].number() - (*kept)["start_time"].number(), 0.020, 1e-6);
  EXPECT_FALSE(detail::current_active().trace_id) << "the context is as it was";
  EXPECT_TRUE(is_settled(test.engine.stats().spans));
}

TEST_F(EngineTracesTest, ASpanMayEndAfterItsEngine) {
  Config rare = config();
  rare.trace_sample_rate = 0.0;
  rare.trace_reservoir = 0;
  rare.trace_keep_rare = 1;
  std::optional<testing::TestEngine> test(std::in_place, rare);
  { const Span first = test->engine.span("orders"); }
  auto late = std::unique_ptr<Span>(new Span(test->engine.span("orders")));
  late->fault();
  test.reset();
  late.reset();
}

TEST_F(EngineTracesTest, SpansWithoutTheirSegmentHaveTheirOwnRequestsIdentity) {
  Config otlp = config();
  otlp.traces = TracesTo::otlp;
  otlp.otlp_endpoint = "http://collector:4318";
  testing::TestEngine test(otlp);
  const Context acme{{.tenant = "acme", .user = "user-of-acme"}};
  {
    const Scope scope(acme);
    const Span root = test.engine.span("first");
  }
  ASSERT_TRUE(test.engine.flush(1s));
  test.http.forget_requests();
  const Context globex{{.tenant = "globex"}};
  const Scope scope(globex);
  const Span root = test.engine.span("second");
  { const Span child = test.engine.span("child"); }
  ASSERT_TRUE(test.engine.flush(1s));
  ASSERT_EQ(test.http.requests().size(), 1U);
  const std::string& body = test.http.requests()[0].body;
  EXPECT_EQ(body.find("acme"), std::string::npos) << "the identity of a request before it";
  EXPECT_NE(body.find("globex"), std::string::npos);
}

// ---- Every field ----

TEST_F(EngineTracesTest, ACallToAwsAndOneToADatabase) {
  testing::TestEngine test(config());
  {
    const Span root = test.engine.span("orders");
    {
      Span call = test.engine.span("DynamoDB");
      const std::string_view tables[] = {"orders", "stock"};
      const std::string_view resources[] = {"arn:a"};
      call.aws_call({.operation = "BatchGetItem",
                     .region = "us-east-1",
                     .account_id = "123456789012",
                     .request_id = "R1",
                     .table_name = "orders",
                     .queue_url = "https://sqs/q",
                     .table_names = tables,
                     .resource_names = resources,
                     .retries = 0});
      call.http_request({.method = "POST", .url = "https://dynamodb", .traced = true});
    }
    Span call = test.engine.span("orders@db");
    call.sql({.url = "postgres://db:5432/orders",
              .connection_string = "host=db",
              .sanitized_query = "SELECT * FROM orders WHERE id = ?",
              .database_type = "PostgreSQL",
              .database_version = "15.4",
              .driver_version = "libpq 15",
              .user = "app",
              .preparation = "statement"});
    call.precursor(0x1a2b3c4d5e6f7081);
    call.precursor(1);
  }
  ASSERT_TRUE(test.engine.flush(1s));
  const Json root = documents(test).at(0);
  const Json aws = root["subsegments"][0];
  EXPECT_EQ(aws["namespace"].string(), "aws");
  EXPECT_TRUE(aws["http"]["request"]["traced"].boolean());
  EXPECT_EQ(aws["aws"].text(),
            R"({"operation":"BatchGetItem","region":"us-east-1","account_id":"123456789012",)"
            R"("request_id":"R1","table_name":"orders","queue_url":"https://sqs/q","retries":0,)"
            R"("table_names":["orders","stock"],"resource_names":["arn:a"]})");
  const Json sql = root["subsegments"][1];
  EXPECT_EQ(sql["namespace"].string(), "remote");
  EXPECT_EQ(sql["sql"].text(),
            R"({"url":"postgres://db:5432/orders","connection_string":"host=db",)"
            R"("sanitized_query":"SELECT * FROM orders WHERE id = ?","database_type":"PostgreSQL",)"
            R"("database_version":"15.4","driver_version":"libpq 15","user":"app",)"
            R"("preparation":"statement"})");
  EXPECT_EQ(sql["precursor_ids"].text(), R"(["1a2b3c4d5e6f7081","0000000000000001"])");
}

TEST_F(EngineTracesTest, MetadataHasNamespaces) {
  testing::TestEngine test(config());
  {
    Span root = test.engine.span("orders");
    root.metadata("key", 1);
    root.metadata("cache", "key", 2);
    root.metadata("cache", "AWS.other",
                  std::string(500, 'x'));  // Longer than the span's own buffer.
    root.metadata("cache", "key", 3);
    root.metadata("AWS.reserved", "other", 4);
  }
  ASSERT_TRUE(test.engine.flush(1s));
  const Json metadata = documents(test).at(0)["metadata"];
  EXPECT_EQ(metadata["default"].text(), R"({"key":1,"other":4})");
  EXPECT_EQ(metadata["cache"]["key"].number(), 3);
  EXPECT_EQ(metadata["cache"]["AWS_other"].string().size(), 500U);
}

TEST_F(EngineTracesTest, ALinkHasAttributes) {
  testing::TestEngine test(config());
  {
    Span root = test.engine.span("orders");
    const LinkAttribute attributes[] = {{"queue", "q-1"}, {"message", "m-7"}};
    root.link({0x6b00e3540f1e2d3c, 0x4b5a69788796a5b4}, 7, attributes);
    root.link({0x6b00e3540f1e2d3c, 1}, 0);
  }
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(documents(test).at(0)["links"].text(),
            R"([{"trace_id":"1-6b00e354-0f1e2d3c4b5a69788796a5b4","id":"0000000000000007",)"
            R"("attributes":{"queue":"q-1","message":"m-7"}},)"
            R"({"trace_id":"1-6b00e354-0f1e2d3c0000000000000001"}])");
}

TEST_F(EngineTracesTest, ExceptionsAreTheCauseWithTheirNestedOnes) {
  testing::TestEngine test(config());
  std::uint64_t id = 0;
  {
    Span root = test.engine.span("orders");
    try {
      try {
        throw std::out_of_range("no such key");
      } catch (...) {
        std::throw_with_nested(std::runtime_error("order 7 failed"));
      }
    } catch (const std::exception& caught) {
      const StackFrame stack[] = {{"orders.cpp", 17, "place()"}, {"main.cpp", 0, ""}};
      id = root.record_exception(caught, stack);
    }
    const std::string_view paths[] = {"/lib/a.so", "/lib/b.so"};
    root.cause({.working_directory = "/srv", .paths = paths});
    Span child = test.engine.span("child");
    child.caused_by(id);
  }
  ASSERT_TRUE(test.engine.flush(1s));
  const Json root = documents(test).at(0);
  EXPECT_TRUE(root["fault"].boolean());
  const Json cause = root["cause"];
  EXPECT_EQ(cause["working_directory"].string(), "/srv");
  EXPECT_EQ(cause["paths"].text(), R"(["/lib/a.so","/lib/b.so"])");
  ASSERT_EQ(cause["exceptions"].size(), 2U);
  const Json outer = cause["exceptions"][0];
  const Json inner = cause["exceptions"][1];
  EXPECT_FALSE(outer.has("time")) << "X-Ray has no place for it";
  EXPECT_NE(outer["type"].string().find("std::runtime_error"), std::string::npos);
  EXPECT_EQ(outer["message"].string(), "order 7 failed");
  EXPECT_EQ(outer["cause"].string(), inner["id"].string());
  EXPECT_EQ(outer["stack"].text(),
            R"x([{"path":"orders.cpp","line":17,"label":"place()"},{"path":"main.cpp"}])x");
  EXPECT_EQ(inner["type"].string(), "std::out_of_range");
  EXPECT_EQ(inner["message"].string(), "no such key");
  EXPECT_FALSE(inner.has("cause") || inner.has("stack"));
  EXPECT_EQ(root["subsegments"][0]["cause"].string(), outer["id"].string());
}

TEST_F(EngineTracesTest, ExceptionsHaveBounds) {
  testing::TestEngine test(config());
  {
    Span root = test.engine.span("orders");
    const std::vector<StackFrame> deep(100, StackFrame{"a.cpp", 1, "recurse()"});
    root.record_exception({.type = "Timeout",
                           .message = "too late",
                           .remote = true,
                           .stack = deep,
                           .frames_skipped = 2,
                           .caused_by = 5});
    std::exception_ptr nested = std::make_exception_ptr(std::runtime_error("innermost"));
    for (int i = 0; i < 20; ++i) {
      try {
        try {
          std::rethrow_exception(nested);
        } catch (...) {
          std::throw_with_nested(std::runtime_error("outer"));
        }
      } catch (...) {
        nested = std::current_exception();
      }
    }
    try {
      std::rethrow_exception(nested);
    } catch (const std::exception& caught) {
      root.record_exception(caught);
    }
    try {
      try {
        throw 7;
      } catch (...) {
        std::throw_with_nested(std::runtime_error("of an int"));
      }
    } catch (const std::exception& caught) {
      root.record_exception(caught);
    }
  }
  ASSERT_TRUE(test.engine.flush(1s));
  const Json exceptions = documents(test).at(0)["cause"]["exceptions"];
  ASSERT_EQ(exceptions.size(), 1 + nested_exceptions_max + 2);
  const Json first = exceptions[0];
  EXPECT_TRUE(first["remote"].boolean());
  EXPECT_EQ(first["truncated"].number(), 100 - static_cast<double>(stack_frames_max));
  EXPECT_EQ(first["skipped"].number(), 2);
  EXPECT_EQ(first["cause"].string(), "0000000000000005");
  EXPECT_EQ(first["stack"].size(), stack_frames_max);
  EXPECT_FALSE(exceptions[nested_exceptions_max].has("cause"))
      << "it names nothing that is left out";
  EXPECT_EQ(exceptions[nested_exceptions_max + 2]["type"].string(), "unknown");
}

TEST_F(EngineTracesTest, NothingIsReadForASpanThatIsNotRecorded) {
  Config off = config();
  off.trace_sample_rate = 0.0;
  off.trace_reservoir = 0;
  testing::TestEngine test(off);
  Span root = test.engine.span("orders");
  EXPECT_EQ(root.record_exception({.type = "x"}), 0U);
  EXPECT_EQ(root.record_exception(std::runtime_error("x")), 0U);
  root.sql({});
  root.aws_call({});
  root.metadata("a", "b", 1);
  root.end();
  EXPECT_EQ(test.engine.stats().spans.recorded, 0U);
}

// ---- What the process runs on ----

class PlatformTest : public EngineTracesTest {
 protected:
  static Json segment(const std::string& attributes = {}) {
    const testing::ScopedVariable variable("OTEL_RESOURCE_ATTRIBUTES", attributes.c_str());
    testing::TestEngine test(config());
    { const Span root = test.engine.span("orders"); }
    EXPECT_TRUE(test.engine.flush(1s));
    return documents(test).at(0);
  }
  testing::ScopedVariable no_uri_{"ECS_CONTAINER_METADATA_URI", nullptr};
  testing::ScopedVariable no_uri_v4_{"ECS_CONTAINER_METADATA_URI_V4", nullptr};
  testing::ScopedVariable no_kubernetes_{"KUBERNETES_SERVICE_HOST", nullptr};
  testing::ScopedVariable no_lambda_{"AWS_LAMBDA_FUNCTION_NAME", nullptr};
  testing::ScopedVariable no_environment_{"AWS_EXECUTION_ENV", nullptr};
  testing::ScopedVariable host_{"HOSTNAME", "pod-1"};
};

TEST_F(PlatformTest, NothingIsSaidOfAMachineThatSaysNothing) {
  const Json document = segment();
  EXPECT_FALSE(document.has("origin"));
  EXPECT_EQ(document["aws"].text().find("ecs"), std::string::npos);
}

TEST_F(PlatformTest, EcsSaysItByItsMetadataAddress) {
  const testing::ScopedVariable uri("ECS_CONTAINER_METADATA_URI_V4", "http://169.254.170.2/v4/x");
  EXPECT_EQ(segment()["origin"].string(), "AWS::ECS::Container");
  const testing::ScopedVariable fargate("AWS_EXECUTION_ENV", "AWS_ECS_FARGATE");
  const Json document = segment("aws.ecs.task.arn=arn:t,aws.ecs.cluster.arn=arn:c");
  EXPECT_EQ(document["origin"].string(), "AWS::ECS::Fargate");
  EXPECT_EQ(document["aws"]["ecs"].text(),
            R"({"container":"pod-1","task_arn":"arn:t","cluster_arn":"arn:c",)"
            R"("launch_type":"fargate"})");
}

TEST_F(PlatformTest, EksIsKubernetesWithARoleForThePod) {
  const testing::ScopedVariable kubernetes("KUBERNETES_SERVICE_HOST", "10.0.0.1");
  EXPECT_FALSE(segment().has("origin"));
  const testing::ScopedVariable token("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/secrets/token");
  const Json document = segment("k8s.cluster.name=main,container.id=abc");
  EXPECT_EQ(document["origin"].string(), "AWS::EKS::Container");
  EXPECT_EQ(document["aws"]["eks"].text(),
            R"({"cluster_name":"main","pod":"pod-1","container_id":"abc"})");
}

TEST_F(PlatformTest, AttributesSayWhatNoVariableDoes) {
  const Json ec2 = segment(
      "cloud.platform=aws_ec2,host.id=i-1,host.type=m7.large,host.image.id=ami-1,"
      "cloud.availability_zone=eu-west-1a,cloud.account.id=123456789012,aws.log.group.names=/shop");
  EXPECT_EQ(ec2["origin"].string(), "AWS::EC2::Instance");
  EXPECT_EQ(ec2["aws"]["ec2"].text(),
            R"({"instance_id":"i-1","instance_size":"m7.large","ami_id":"ami-1",)"
            R"("availability_zone":"eu-west-1a"})");
  EXPECT_EQ(ec2["aws"]["account_id"].string(), "123456789012");
  EXPECT_EQ(ec2["aws"]["cloudwatch_logs"].text(), R"([{"log_group":"/shop"}])");
  EXPECT_EQ(segment("cloud.platform=aws_elastic_beanstalk,service.namespace=e")["origin"].string(),
            "AWS::ElasticBeanstalk::Environment");
  EXPECT_EQ(segment("cloud.platform=aws_app_runner")["origin"].string(), "AWS::AppRunner::Service");
}

// ---- Long work ----

class LongWorkTest : public EngineTracesTest {
 protected:
  static Config in_progress(std::chrono::milliseconds after) {
    Config long_work = config();
    long_work.trace_in_progress_after = after;
    return long_work;
  }
};

TEST_F(LongWorkTest, ASegmentThatStaysOpenIsShownInProgressOnce) {
  testing::TestEngine test(in_progress(10s));
  const Context context{{.tenant = "acme", .user = "u-17"}};
  std::optional<Scope> scope(std::in_place, context);
  {
    Span root = test.engine.span("nightly");
    root.annotate("later", 1);
    for (int second = 0; second < 60; ++second) test.advance(1s);
    const auto shown = documents(test);
    ASSERT_EQ(shown.size(), 1U);
    EXPECT_TRUE(shown[0]["in_progress"].boolean());
    EXPECT_FALSE(shown[0].has("end_time"));
    EXPECT_EQ(shown[0]["name"].string(), "orders");
    EXPECT_EQ(shown[0]["annotations"]["operation"].string(), "nightly");
    EXPECT_EQ(shown[0]["annotations"]["tenant"].string(), "acme");
    EXPECT_EQ(shown[0]["user"].string(), "u-17");
    EXPECT_EQ(test.engine.stats().spans.recorded, 0U) << "it counts when it ends";
    EXPECT_TRUE(is_settled(test.engine.stats().spans));
  }
  ASSERT_TRUE(test.engine.flush(1s));
  const auto all = documents(test);
  ASSERT_EQ(all.size(), 2U);
  EXPECT_EQ(all[1]["id"].string(), all[0]["id"].string());
  EXPECT_EQ(all[1]["start_time"].number(), all[0]["start_time"].number());
  EXPECT_FALSE(all[1].has("in_progress"));
  EXPECT_EQ(all[1]["annotations"]["later"].number(), 1);
  EXPECT_EQ(test.engine.stats().spans.delivered, 1U);
  EXPECT_TRUE(is_settled(test.engine.stats().spans));
}

TEST_F(LongWorkTest, ShortSegmentsAreNotShown) {
  testing::TestEngine test(in_progress(10s));
  for (int i = 0; i < 100; ++i) {
    const Span root = test.engine.span("short");
    const Span child = test.engine.span("child");
    test.advance(100ms);
  }
  for (int second = 0; second < 30; ++second) test.advance(1s);
  for (const Json& document : documents(test)) EXPECT_FALSE(document.has("in_progress"));
  EXPECT_EQ(test.engine.stats().spans.delivered, 200U);
  EXPECT_TRUE(is_settled(test.engine.stats().spans));
}

TEST_F(LongWorkTest, AnEndOnAnotherThreadComesFirstOrLast) {
  testing::TestEngine test(in_progress(1s));
  for (int i = 0; i < 10; ++i) {
    Span root = test.engine.span("moves");
    root.detach();
    std::thread([&] { root.end(); }).join();
    test.engine.step();
  }
  for (int second = 0; second < 10; ++second) test.advance(1s);
  const auto found = documents(test);
  EXPECT_EQ(found.size(), 10U);
  for (const Json& document : found) EXPECT_FALSE(document.has("in_progress"));
}

TEST_F(LongWorkTest, NothingIsShownUnlessItIsAskedFor) {
  testing::TestEngine test(config());
  const Span root = test.engine.span("nightly");
  for (int second = 0; second < 60; ++second) test.advance(1s);
  EXPECT_TRUE(test.http.requests().empty());
}

// Ten megabytes of spans under a segment that stays open: they go out as they come, no round has much
// to write, and what waits stays small.
TEST_F(LongWorkTest, TheChildrenOfAnOpenSegmentDoNotGather) {
  testing::TestEngine test(config());
  const std::string note(900, 'x');
  std::size_t children = 0;
  std::uint64_t held_most = 0;
  {
    const Span root = test.engine.span("import");
    for (int round = 0; round < 50; ++round) {
      for (int i = 0; i < 200; ++i, ++children) {
        Span child = test.engine.span("row");
        child.annotate("note", note);
      }
      test.advance(1ms);
      held_most = std::max(held_most, test.engine.stats().spans.held_in_batch);
    }
  }
  ASSERT_TRUE(test.engine.flush(1s));
  const SignalStats stats = test.engine.stats().spans;
  EXPECT_EQ(stats.delivered, children + 1);
  EXPECT_TRUE(is_settled(stats));
  // As many as make detail::TraceAssembler::segment_bytes_max, those of a round, and an open payload.
  EXPECT_LT(held_most, 3000U);
  std::set<std::string> ids;
  std::size_t spans = 0;
  for (const Json& document : documents(test)) {
    EXPECT_LE(document.text().size(), limits::segment_document_bytes_max);
    ++spans;
    EXPECT_TRUE(ids.insert(document["id"].string()).second);
    if (document.has("subsegments")) spans += document["subsegments"].size();
  }
  EXPECT_EQ(spans, children + 1);
}

}  // namespace
}  // namespace spillway
