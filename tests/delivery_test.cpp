// SPDX-License-Identifier: Apache-2.0
//
// What the sender makes of answers: every record of every payload is accounted once, whatever the
// other side does.
#include <sstream>

#include <support/engine_fixture.hpp>
#include <support/gunzip.hpp>
#include <support/temporary_file.hpp>
#include <sys/resource.h>

namespace spillway {
namespace {

using namespace std::chrono_literals;
using testing::aws_config;
using testing::is_settled;
using testing::Json;
using testing::operations;
using transport::HttpOutcome;
using transport::MemoryTransport;

class DeliveryTest : public ::testing::Test {
 protected:
  DeliveryTest() { diagnostics.clear(); }
  static Config config() {
    Config config = aws_config();
    config.attempts_max = 4;
    config.on_diagnostic = [](std::string_view text) { diagnostics.emplace_back(text); };
    return config;
  }
  static void log(testing::TestEngine& test, int n) {
    for (int i = 0; i < n; ++i) SPILLWAY_INFO(test.engine, "event", {"n", i});
  }
  // Lets back-offs pass, one at a time.
  static void wait_out(testing::TestEngine& test) {
    for (int i = 0; i < 20; ++i) test.advance(30s);
  }
  static transport::HttpResponse error(int status, const std::string& code) {
    return MemoryTransport::answered(
        status, R"({"__type":"com.amazonaws#)" + code + R"(","message":"why"})");
  }

  testing::AwsEnvironment environment;
  static inline std::vector<std::string> diagnostics;
};

TEST_F(DeliveryTest, RequestsAreSignedForTheirServiceAndRegion) {
  testing::TestEngine test(config());
  test.engine.counter("Requests").add(1);
  log(test, 1);
  { const Span span = test.engine.span("work"); }
  ASSERT_TRUE(test.engine.flush(1s));
  ASSERT_EQ(test.http.requests().size(), 3U);
  for (const auto& request : test.http.requests()) {
    const std::string authorization(transport::find_header(request.headers, "Authorization"));
    const std::string operation = testing::operation_of(request);
    const std::string service = operation == "PutMetricData"  ? "monitoring"
                                : operation == "PutLogEvents" ? "logs"
                                                              : "xray";
    EXPECT_EQ(request.origin, "https://" + service + ".eu-west-1.amazonaws.com");
    EXPECT_NE(authorization.find("Credential=AKIDEXAMPLE/20261121/eu-west-1/" + service +
                                 "/aws4_request"),
              std::string::npos)
        << authorization;
    EXPECT_EQ(transport::find_header(request.headers, "X-Amz-Date"), "20261121T010000Z");
  }
}

TEST_F(DeliveryTest, TransientFailuresAreRetriedUntilTheyPass) {
  testing::TestEngine test(config());
  log(test, 3);
  test.http.script(error(500, "InternalFailure"));
  test.http.script(MemoryTransport::failed(HttpOutcome::not_connected));
  test.http.script(error(400, "ThrottlingException"));
  EXPECT_FALSE(test.engine.flush(1s)) << "not before the back-off is over";
  EXPECT_EQ(test.engine.stats().logs.held_in_queue, 3U);
  wait_out(test);
  const Stats stats = test.engine.stats();
  EXPECT_EQ(stats.logs.delivered, 3U);
  EXPECT_TRUE(is_settled(stats.logs));
  EXPECT_EQ(stats.delivery.requests, 4U);
  EXPECT_EQ(stats.delivery.retries, 3U);
  EXPECT_EQ(stats.delivery.throttles, 1U);
  EXPECT_EQ(stats.delivery.failures, 1U);
}

TEST_F(DeliveryTest, RetriesEnd) {
  testing::TestEngine test(config());
  log(test, 3);
  test.http.set_answer([](const auto&) { return MemoryTransport::answered(503); });
  test.engine.flush(1s);
  wait_out(test);
  const Stats stats = test.engine.stats();
  EXPECT_EQ(stats.logs.dropped_for(DropCause::retries_exhausted), 3U);
  EXPECT_EQ(stats.delivery.requests, 4U) << "attempts_max";
  EXPECT_TRUE(is_settled(stats.logs));
  ASSERT_FALSE(diagnostics.empty());
  EXPECT_NE(diagnostics[0].find("put-log-events"), std::string::npos);
  EXPECT_NE(diagnostics[0].find("503"), std::string::npos);
}

TEST_F(DeliveryTest, TheServersBackOffIsHonoured) {
  testing::TestEngine test(config());
  log(test, 1);
  test.http.script(MemoryTransport::answered(400, R"({"__type":"ThrottlingException"})",
                                             {{"x-amz-retry-after", "4000"}}));
  test.engine.flush(1s);
  test.advance(3900ms);
  EXPECT_EQ(test.http.requests().size(), 1U);
  test.advance(200ms);
  test.settle();
  EXPECT_EQ(test.http.requests().size(), 2U);
}

TEST_F(DeliveryTest, ALostAnswerIsRetriedAndCountedAsUncertain) {
  testing::TestEngine test(config());
  log(test, 5);
  test.http.script(MemoryTransport::failed(HttpOutcome::lost));
  test.engine.flush(1s);
  wait_out(test);
  const Stats stats = test.engine.stats();
  EXPECT_EQ(stats.logs.delivered, 5U);
  EXPECT_EQ(stats.delivery.uncertain_records, 5U);
}

TEST_F(DeliveryTest, OneDestinationsTroubleIsNotTheOthers) {
  testing::TestEngine test(config());
  test.http.set_answer([](const transport::HttpRequest& request) {
    return testing::operation_of(request) == "PutLogEvents" ? error(400, "ThrottlingException")
                                                            : MemoryTransport::answered(200);
  });
  log(test, 2);
  test.engine.counter("Requests").add(1);
  { const Span span = test.engine.span("work"); }
  test.engine.flush(1s);
  const Stats stats = test.engine.stats();
  EXPECT_EQ(stats.metrics.delivered, 1U);
  EXPECT_EQ(stats.spans.delivered, 1U);
  EXPECT_EQ(stats.logs.held_in_queue, 2U);
}

// ---- Logs ----

TEST_F(DeliveryTest, AMissingStreamIsMadeAndTheBatchSentAgain) {
  testing::TestEngine test(config());
  log(test, 2);
  test.http.script(error(400, "ResourceNotFoundException"));  // PutLogEvents
  test.http.script(MemoryTransport::answered(200, ""));       // CreateLogStream
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(operations(test),
            (std::vector<std::string>{"PutLogEvents", "CreateLogStream", "PutLogEvents"}));
  EXPECT_EQ(test.engine.stats().logs.delivered, 2U);
}

TEST_F(DeliveryTest, AMissingGroupIsMadeToo) {
  testing::TestEngine test(config());
  log(test, 2);
  test.http.script(error(400, "ResourceNotFoundException"));  // PutLogEvents
  test.http.script(error(400, "ResourceNotFoundException"));  // CreateLogStream
  test.http.script(
      error(400, "ResourceAlreadyExistsException"));  // CreateLogGroup: another process was faster
  test.http.script(MemoryTransport::answered(200, ""));  // CreateLogStream
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(operations(test),
            (std::vector<std::string>{"PutLogEvents", "CreateLogStream", "CreateLogGroup",
                                      "CreateLogStream", "PutLogEvents"}));
  const Json group(test.http.requests()[2].body);
  EXPECT_EQ(group["logGroupName"].string(), "/shop/orders");
  const Json stream(test.http.requests()[3].body);
  EXPECT_EQ(stream["logStreamName"].string(), "pod-1");
  EXPECT_EQ(test.engine.stats().logs.delivered, 2U);
}

TEST_F(DeliveryTest, AStreamThatStaysMissingDoesNotLoopForEver) {
  testing::TestEngine test(config());
  log(test, 2);
  test.http.set_answer([](const transport::HttpRequest& request) {
    return testing::operation_of(request) == "PutLogEvents"
               ? error(400, "ResourceNotFoundException")
               : MemoryTransport::answered(200, "");
  });
  test.engine.flush(1s);
  wait_out(test);
  EXPECT_EQ(test.engine.stats().logs.dropped_for(DropCause::retries_exhausted), 2U);
  EXPECT_LT(test.http.requests().size(), 20U);
}

TEST_F(DeliveryTest, AGroupThatExistsAndIsMissingIsAskedForAtMostOncePerAttempt) {
  testing::TestEngine test(config());
  log(test, 2);
  test.http.set_answer([&](const transport::HttpRequest& request) {
    // A loop without a back-off would never let the flush end.
    if (test.http.requests().size() > 100) return MemoryTransport::answered(200, "");
    return testing::operation_of(request) == "CreateLogGroup"
               ? error(400, "ResourceAlreadyExistsException")
               : error(400, "ResourceNotFoundException");
  });
  test.engine.flush(1s);
  EXPECT_EQ(operations(test), (std::vector<std::string>{"PutLogEvents", "CreateLogStream",
                                                        "CreateLogGroup", "CreateLogStream"}))
      << "then a back-off";
  wait_out(test);
  const Stats stats = test.engine.stats();
  EXPECT_EQ(stats.logs.dropped_for(DropCause::retries_exhausted), 2U);
  EXPECT_TRUE(is_settled(stats.logs));
  EXPECT_EQ(test.http.requests().size(), 4U * 4U) << "attempts_max times";
}

TEST_F(DeliveryTest, WithoutPermissionToCreateTheBatchIsUnauthorised) {
  testing::TestEngine test(config());
  log(test, 2);
  test.http.set_answer([](const transport::HttpRequest& request) {
    return testing::operation_of(request) == "PutLogEvents"
               ? error(400, "ResourceNotFoundException")
               : error(400, "AccessDeniedException");
  });
  test.engine.flush(1s);
  wait_out(test);
  EXPECT_EQ(test.engine.stats().logs.dropped_for(DropCause::unauthorised), 2U);
  EXPECT_TRUE(is_settled(test.engine.stats().logs));
}

TEST_F(DeliveryTest, AStreamThatCannotBeMadeIsNotTakenForABadBatch) {
  testing::TestEngine test(config());
  log(test, 8);
  test.http.set_answer([](const transport::HttpRequest& request) {
    return testing::operation_of(request) == "PutLogEvents"
               ? MemoryTransport::answered(400, R"({"__type":"ResourceNotFoundException"})")
               : MemoryTransport::answered(400, R"({"__type":"InvalidParameterException"})");
  });
  test.engine.flush(1s);
  wait_out(test);
  EXPECT_EQ(test.engine.stats().logs.dropped_for(DropCause::rejected), 8U);
  EXPECT_EQ(operations(test), (std::vector<std::string>{"PutLogEvents", "CreateLogStream"}))
      << "without halving it";
}

TEST_F(DeliveryTest, MakingAStreamIsNoAttemptOfTheBatch) {
  testing::TestEngine test(config());  // Four attempts.
  log(test, 1);
  int creations = 0;
  test.http.set_answer([&](const transport::HttpRequest& request) {
    if (testing::operation_of(request) != "PutLogEvents") {
      return MemoryTransport::answered(++creations < 6 ? 503 : 200);
    }
    return creations < 6
               ? MemoryTransport::answered(400, R"({"__type":"ResourceNotFoundException"})")
               : MemoryTransport::answered(200);
  });
  test.engine.flush(1s);
  for (int i = 0; i < 20; ++i) {
    test.advance(30s);
    test.settle();
  }
  EXPECT_EQ(test.engine.stats().logs.delivered, 1U);
  EXPECT_EQ(creations, 6);
}

TEST_F(DeliveryTest, EachKindOfRejectedEventIsAccounted) {
  struct Case {
    const char* info;
    std::uint64_t rejected;
  };
  for (
      const Case& c :
      {Case{R"("tooOldLogEventEndIndex":3)", 3}, Case{R"("expiredLogEventEndIndex":2)", 2},
       Case{R"("tooNewLogEventStartIndex":9)", 1},
       Case{
           R"("tooOldLogEventEndIndex":3,"expiredLogEventEndIndex":5,"tooNewLogEventStartIndex":8)",
           7},
       Case{R"("tooOldLogEventEndIndex":10)", 10}, Case{R"("tooOldLogEventEndIndex":99)", 10},
       Case{R"("tooNewLogEventStartIndex":-5)", 10}, Case{R"("tooOldLogEventEndIndex":"x")", 0}}) {
    testing::TestEngine test(config());
    log(test, 10);
    test.http.script(MemoryTransport::answered(
        200, std::string(R"({"rejectedLogEventsInfo":{)") + c.info + "}}"));
    ASSERT_TRUE(test.engine.flush(1s));
    const Stats stats = test.engine.stats();
    EXPECT_EQ(stats.logs.dropped_for(DropCause::expired), c.rejected) << c.info;
    EXPECT_EQ(stats.logs.delivered, 10 - c.rejected) << c.info;
    EXPECT_TRUE(is_settled(stats.logs)) << c.info;
  }
}

TEST_F(DeliveryTest, ABatchThatWasTakenBeforeIsDone) {
  testing::TestEngine test(config());
  log(test, 2);
  test.http.script(error(400, "DataAlreadyAcceptedException"));
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(test.engine.stats().logs.delivered, 2U);
}

TEST_F(DeliveryTest, BatchesOfOneStreamKeepTheirOrder) {
  testing::TestEngine test(config());
  log(test, 1);
  test.http.script(error(500, "InternalFailure"));
  test.engine.flush(1s);
  SPILLWAY_INFO(test.engine, "second batch");
  test.engine.flush(1s);
  EXPECT_EQ(test.http.requests().size(), 1U) << "the second waits for the first";
  wait_out(test);
  ASSERT_EQ(test.http.requests().size(), 3U);
  EXPECT_EQ(test.http.requests()[1].body, test.http.requests()[0].body);
}

// ---- Metrics: a poison record ----

TEST_F(DeliveryTest, APoisonedDatumIsFoundAndItsNeighboursGoOut) {
  testing::TestEngine test(config());
  for (int i = 0; i < 64; ++i) test.engine.counter("M" + std::to_string(100 + i)).add(1);
  std::size_t most = 0;
  test.http.set_answer([&](const transport::HttpRequest& request) {
    ++most;
    return testing::body_of(request).find("\"M137\"") != std::string::npos
               ? error(400, "InvalidParameterValueException")
               : MemoryTransport::answered(200);
  });
  ASSERT_TRUE(test.engine.flush(1s));
  const Stats stats = test.engine.stats();
  EXPECT_EQ(stats.metrics.dropped_for(DropCause::rejected), 1U);
  EXPECT_EQ(stats.metrics.delivered, 63U);
  EXPECT_TRUE(is_settled(stats.metrics));
  EXPECT_LE(most, 1U + 2U * 6U) << "two requests for each halving of 64";
}

TEST_F(DeliveryTest, WhenAllIsRefusedTheSearchIsGivenUp) {
  testing::TestEngine test(config());
  for (int i = 0; i < 900; ++i) test.engine.counter("M" + std::to_string(i)).add(1);
  test.http.set_answer([](const auto&) { return error(400, "InvalidParameterValueException"); });
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(test.engine.stats().metrics.dropped_for(DropCause::rejected), 900U);
  EXPECT_LE(test.http.requests().size(), 140U);
}

TEST_F(DeliveryTest, ARequestTooLargeIsSentInHalves) {
  testing::TestEngine test(config());
  for (int i = 0; i < 8; ++i) test.engine.counter("M" + std::to_string(i)).add(1);
  test.http.script(MemoryTransport::answered(413, "<html>"));
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(test.http.requests().size(), 3U);
  EXPECT_EQ(test.engine.stats().metrics.delivered, 8U);
}

// ---- Traces ----

TEST_F(DeliveryTest, UnprocessedSegmentsAreAccountedBySpans) {
  testing::TestEngine test(config());
  std::uint64_t refused = 0;
  {
    const Span root = test.engine.span("refused");
    refused = root.span_id();
    const Span child = test.engine.span("child");
  }
  { const Span root = test.engine.span("taken"); }
  char id[17];
  std::snprintf(id, sizeof id, "%016lx", refused);
  test.http.script(
      MemoryTransport::answered(200, std::string(R"({"UnprocessedTraceSegments":[{"Id":")") + id +
                                         R"(","ErrorCode":"InvalidSegment","Message":"m"}]})"));
  ASSERT_TRUE(test.engine.flush(1s));
  const Stats stats = test.engine.stats();
  EXPECT_EQ(stats.spans.dropped_for(DropCause::rejected), 2U);
  EXPECT_EQ(stats.spans.delivered, 1U);
  EXPECT_TRUE(is_settled(stats.spans));
  ASSERT_FALSE(diagnostics.empty());
  EXPECT_NE(diagnostics[0].find("InvalidSegment"), std::string::npos);
}

TEST_F(DeliveryTest, SegmentsThatAreThrottledOneByOneAreSentAgain) {
  testing::TestEngine test(config());
  std::array<std::uint64_t, 3> ids{};
  for (std::uint64_t& id : ids) id = test.engine.span("root").span_id();
  const auto refusal = [](std::uint64_t id, const char* code) {
    std::array<char, 17> hex{};
    std::snprintf(hex.data(), hex.size(), "%016lx", id);
    return std::string(R"({"Id":")") + hex.data() + R"(","ErrorCode":")" + code + R"("})";
  };
  test.http.script(MemoryTransport::answered(200, "{\"UnprocessedTraceSegments\":[" +
                                                      refusal(ids[2], "ThrottledException") + "," +
                                                      refusal(ids[0], "InvalidSegment") + "]}"));
  test.engine.flush(1s);
  EXPECT_EQ(test.engine.stats().spans.delivered, 1U);
  EXPECT_EQ(test.engine.stats().spans.held(), 1U);
  test.advance(30s);
  test.settle();
  const Stats stats = test.engine.stats();
  EXPECT_EQ(stats.spans.delivered, 2U);
  EXPECT_EQ(stats.spans.dropped_for(DropCause::rejected), 1U);
  EXPECT_TRUE(is_settled(stats.spans));
  ASSERT_EQ(test.http.requests().size(), 2U);
  const Json again(test.http.requests()[1].body);
  ASSERT_EQ(again["TraceSegmentDocuments"].size(), 1U);
  const Json segment(again["TraceSegmentDocuments"][0].string());
  EXPECT_EQ(std::stoull(segment["id"].string(), nullptr, 16), ids[2]);
}

TEST_F(DeliveryTest, AnUnprocessedSegmentOfUnknownIdCountsAsOne) {
  testing::TestEngine test(config());
  for (int i = 0; i < 3; ++i) const Span root = test.engine.span("root");
  test.http.script(MemoryTransport::answered(
      200,
      R"({"UnprocessedTraceSegments":[{"Id":null,"ErrorCode":"JSONFormatError"},{"Id":"feedfacefeedface"}]})"));
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(test.engine.stats().spans.dropped_for(DropCause::rejected), 2U);
  EXPECT_EQ(test.engine.stats().spans.delivered, 1U);
}

TEST_F(DeliveryTest, MoreSegmentsThanARequestTakesGoInSeveral) {
  testing::TestEngine test(config());
  for (int i = 0; i < 101; ++i) const Span root = test.engine.span("root");
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(test.http.requests().size(), 3U);
  EXPECT_EQ(test.engine.stats().spans.delivered, 101U);
}

// ---- Local lines ----

/// Files grow no larger than this while it lives.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(std::size_t bytes) {
    getrlimit(RLIMIT_FSIZE, &before_);
    rlimit limited = before_;
    limited.rlim_cur = bytes;
    setrlimit(RLIMIT_FSIZE, &limited);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;
  ~FileSizeLimit() { setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_{};
};

class LocalLinesTest : public DeliveryTest {
 protected:
  Config file_config() const {
    Config local = config();
    local.logs = LogsTo::file;
    local.logs_file = directory.path("log");
    return local;
  }
  static std::vector<std::string> lines_of(const std::string& text) {
    std::vector<std::string> lines;
    std::istringstream stream(text);
    for (std::string line; std::getline(stream, line);) lines.push_back(line);
    return lines;
  }
  testing::TemporaryDirectory directory;
};

TEST_F(LocalLinesTest, WhatWasWrittenWholeIsDeliveredAndATornLineIsEnded) {
  testing::TestEngine test(file_config());
  log(test, 1);
  ASSERT_TRUE(test.engine.flush(1s));
  const std::size_t line = directory.read("log").size();
  {
    const FileSizeLimit limit(line * 3 + line / 2);
    log(test, 5);
    test.engine.flush(1s);
    EXPECT_EQ(test.engine.stats().logs.delivered, 3U) << "before the rest is given up";
    wait_out(test);
  }
  EXPECT_EQ(test.engine.stats().logs.dropped_for(DropCause::retries_exhausted), 3U);
  log(test, 1);
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_EQ(test.engine.stats().logs.delivered, 4U);
  EXPECT_TRUE(is_settled(test.engine.stats().logs));
  const std::vector<std::string> lines = lines_of(directory.read("log"));
  ASSERT_EQ(lines.size(), 5U);
  EXPECT_EQ(lines[3].size(), line / 2) << "torn";
  EXPECT_EQ(Json(lines[4])["n"].number(), 0);
}

TEST_F(LocalLinesTest, ALineThatNobodyOvertookGoesOnWhereItStopped) {
  testing::TestEngine test(file_config());
  {
    const FileSizeLimit limit(100);
    log(test, 3);
    test.engine.flush(1s);
  }
  wait_out(test);
  EXPECT_EQ(test.engine.stats().logs.delivered, 3U);
  const std::vector<std::string> lines = lines_of(directory.read("log"));
  ASSERT_EQ(lines.size(), 3U);
  for (std::size_t i = 0; i < 3; ++i)
    EXPECT_EQ(Json(lines[i])["n"].number(), static_cast<double>(i));
}

TEST_F(LocalLinesTest, ALineThatAnotherOvertookIsWrittenAnew) {
  Config local = config();
  local.logs = LogsTo::json_stdout;
  local.metrics = MetricsTo::emf_stdout;
  testing::TestEngine test(local);
  ::testing::internal::CaptureStdout();
  {
    const FileSizeLimit limit(10);
    log(test, 1);
    test.engine.flush(1s);
  }
  test.engine.counter("Requests").add(1);
  test.engine.flush(1s);  // The log still waits for its back-off to pass.
  wait_out(test);
  const std::vector<std::string> lines = lines_of(::testing::internal::GetCapturedStdout());
  ASSERT_EQ(lines.size(), 3U);
  EXPECT_EQ(lines[0].size(), 10U) << "torn";
  EXPECT_EQ(Json(lines[1])["Requests"].number(), 1);
  EXPECT_EQ(Json(lines[2])["message"].string(), "event");
  EXPECT_TRUE(is_settled(test.engine.stats().logs));
}

// CloudWatch takes an event of 1 MB, and an agent reads the lines for it.
TEST_F(LocalLinesTest, LogsOfAMegabyteGoEverywhereAndLargerOnesAreCut) {
  for (const LogsTo to : {LogsTo::file, LogsTo::json_stdout, LogsTo::console}) {
    Config local = file_config();
    local.logs = to;
    if (to != LogsTo::file) local.logs_file = "";
    std::string text;
    ::testing::internal::CaptureStdout();
    {
      testing::TestEngine test(local);
      for (const std::size_t bytes : {300'000U, 1'000'000U, 3'000'000U}) {
        SPILLWAY_INFO(test.engine, "large", {"text", std::string(bytes, 'x')});
      }
      test.engine.flush(1s);
      EXPECT_EQ(test.engine.stats().logs.delivered, 3U) << static_cast<int>(to);
    }
    text = ::testing::internal::GetCapturedStdout();
    if (to == LogsTo::file) text = directory.read("log");
    const std::vector<std::string> lines = lines_of(text);
    ASSERT_EQ(lines.size(), 3U) << static_cast<int>(to);
    EXPECT_GT(lines[0].size(), 300'000U);
    EXPECT_GT(lines[1].size(), 1'000'000U);
    EXPECT_NE(lines[2].find("truncated"), std::string::npos);
  }
}

// ---- Credentials ----

TEST_F(DeliveryTest, WrongCredentialsAreReadAgainThenReportedWithoutTheSecret) {
  testing::TestEngine test(config());
  log(test, 2);
  test.http.set_answer([](const auto&) { return error(403, "InvalidSignatureException"); });
  test.engine.flush(1s);
  wait_out(test);
  const Stats stats = test.engine.stats();
  EXPECT_EQ(stats.logs.dropped_for(DropCause::unauthorised), 2U);
  EXPECT_EQ(test.http.requests().size(), 3U);
  ASSERT_FALSE(diagnostics.empty());
  EXPECT_NE(diagnostics[0].find("InvalidSignatureException"), std::string::npos);
  for (const std::string& text : diagnostics)
    EXPECT_EQ(text.find("canary-secret"), std::string::npos);
}

TEST_F(DeliveryTest, RenewedCredentialsDeliverWhatWaited) {
  testing::TestEngine test(config());
  log(test, 2);
  test.http.script(error(400, "ExpiredTokenException"));
  test.engine.flush(1s);
  const testing::ScopedVariable renewed("AWS_ACCESS_KEY_ID", "AKIDRENEWED");
  wait_out(test);
  EXPECT_EQ(test.engine.stats().logs.delivered, 2U);
  EXPECT_NE(transport::find_header(test.http.requests().back().headers, "Authorization")
                .find("AKIDRENEWED"),
            std::string_view::npos);
}

TEST_F(DeliveryTest, WithoutCredentialsNothingIsSentAndTheReasonIsSaid) {
  const testing::ScopedVariable no_id("AWS_ACCESS_KEY_ID", nullptr);
  const testing::ScopedVariable no_secret("AWS_SECRET_ACCESS_KEY", nullptr);
  testing::TestEngine test(config());
  log(test, 2);
  test.engine.flush(1s);
  wait_out(test);
  EXPECT_TRUE(test.http.requests().empty());
  EXPECT_EQ(test.engine.stats().logs.dropped_for(DropCause::unauthorised), 2U);
  ASSERT_FALSE(diagnostics.empty());
  EXPECT_NE(diagnostics[0].find("AWS_ACCESS_KEY_ID"), std::string::npos);
}

// ---- Limits and ends ----

TEST_F(DeliveryTest, WhatDoesNotFitTheQueueIsDroppedAndCounted) {
  Config small = config();
  small.queue_bytes_max = 4 << 20;
  testing::TestEngine test(small);
  test.http.hold();  // Nothing is answered.
  const std::string text(10'000, 'x');
  for (int i = 0; i < 1000; ++i) {
    SPILLWAY_INFO(test.engine, "event", {"text", text});
    if (i % 50 == 0) test.engine.flush(1s);
  }
  test.engine.flush(1s);
  const Stats stats = test.engine.stats();
  EXPECT_GT(stats.logs.dropped_for(DropCause::queue_full), 500U);
  EXPECT_GT(stats.logs.held_in_queue, 100U);
  EXPECT_EQ(stats.logs.residue(), 0);
  test.http.release();
  ASSERT_TRUE(test.engine.flush(1s));
  EXPECT_TRUE(is_settled(test.engine.stats().logs));
}

TEST_F(DeliveryTest, ShutdownCountsWhatItCouldNotDeliver) {
  testing::TestEngine test(config());
  log(test, 7);
  test.http.hold();
  const Stats stats = test.engine.shutdown(100ms);
  EXPECT_EQ(stats.logs.dropped_for(DropCause::shutdown_deadline), 7U);
  EXPECT_TRUE(is_settled(stats.logs));
}

TEST_F(DeliveryTest, AfterShutdownRecordsAreCountedAsClosed) {
  testing::TestEngine test(config());
  const Counter requests = test.engine.counter("Requests");
  requests.add(1);
  log(test, 1);
  auto span = std::make_unique<Span>(test.engine.span("open"));
  const Stats final = test.engine.shutdown(1s);
  EXPECT_EQ(final.logs.delivered, 1U);
  EXPECT_EQ(final.metrics.delivered, 1U);
  span.reset();
  requests.add(1);
  log(test, 2);
  const Stats after = test.engine.stats();
  EXPECT_EQ(after.metrics.dropped_for(DropCause::closed), 1U);
  EXPECT_EQ(after.logs.dropped_for(DropCause::closed), 2U);
  EXPECT_EQ(after.spans.dropped_for(DropCause::closed), 1U);
  EXPECT_TRUE(is_settled(after.metrics));
  EXPECT_EQ(test.engine.shutdown(1s).logs.delivered, 1U)
      << "a second shutdown is the first one's account";
}

TEST_F(DeliveryTest, AnswersThatMakeNoSenseAreSurvived) {
  for (const char* const body :
       {"", "null", "[]", "{\"rejectedLogEventsInfo\":null}", "{\"rejectedLogEventsInfo\":[1]}",
        "not json", "{\"UnprocessedTraceSegments\":{}}",
        "{\"UnprocessedTraceSegments\":[1,null,{}]}"}) {
    testing::TestEngine test(config());
    test.http.set_answer([body](const auto&) { return MemoryTransport::answered(200, body); });
    log(test, 1);
    test.engine.counter("Requests").add(1);
    for (int i = 0; i < 4; ++i) const Span span = test.engine.span("work");
    ASSERT_TRUE(test.engine.flush(1s)) << body;
    EXPECT_TRUE(is_settled(test.engine.stats().logs)) << body;
    EXPECT_TRUE(is_settled(test.engine.stats().metrics)) << body;
    EXPECT_TRUE(is_settled(test.engine.stats().spans)) << body;
  }
}

}  // namespace
}  // namespace spillway
