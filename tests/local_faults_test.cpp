// SPDX-License-Identifier: Apache-2.0
//
// Faults: how they are described, when they strike, and what a client sees of each.
#include <variant>

#include "support/local_gateway.hpp"

namespace spillway::local {
namespace {

using namespace std::chrono_literals;

Fault fault_of(std::string_view spec) {
  const FaultResult result = parse_fault(spec);
  if (const auto* const error = std::get_if<FaultError>(&result)) ADD_FAILURE() << error->message;
  return std::get<Fault>(result);
}

class LocalFaultsTest : public LocalGatewayTest {
 protected:
  LocalFaultsTest() {
    store_.logs.create_group("/g", 0);
    store_.logs.create_stream(*store_.logs.find_group("/g"), "s", 0);
  }

  Gateway::Outcome put_logs(std::size_t events = 1) {
    const std::string one = R"({"timestamp":)" + std::to_string(now_ms()) + R"(,"message":"m"})";
    transport::HttpRequest request = aws_request(
        Service::logs, put_log_events,
        R"({"logGroupName":"/g","logStreamName":"s","logEvents":[)" + list_of(one, events) + "]}");
    sign(request, Service::logs, now_);
    return gateway_.handle(request, workspace_);
  }
  Reply put_metric() {
    return call(Service::monitoring, put_metric_data,
                R"({"Namespace":"N","MetricData":[{"MetricName":"M","Value":1}]})");
  }
  Reply put_traces(std::size_t documents = 1) {
    const std::string one =
        R"("{\"name\":\"o\",\"id\":\"0f1e2d3c4b5a6978\",\"trace_id\":)"
        R"(\"1-6b00e354-0f1e2d3c4b5a69788796a5b4\",\"start_time\":1,\"end_time\":2}")";
    return call(Service::xray, "/TraceSegments",
                R"({"TraceSegmentDocuments":[)" + list_of(one, documents) + "]}");
  }
  std::uint64_t stored() { return store_.logs.summaries().front().event_count; }
};

TEST_F(LocalFaultsTest, ReadsSpecs) {
  const Fault fault = fault_of(
      "throttle:service=logs,operation=PutLogEvents,count=3,probability=0.5,seed=7,"
      "retry_after_ms=200");
  EXPECT_EQ(fault.kind, FaultKind::throttle);
  EXPECT_EQ(fault.service, "logs");
  EXPECT_EQ(fault.operation, "PutLogEvents");
  EXPECT_EQ(fault.count, 3);
  EXPECT_EQ(fault.probability, 0.5);
  EXPECT_EQ(fault.seed, 7U);
  EXPECT_EQ(fault.retry_after_ms, "200");
  EXPECT_EQ(fault_of("delay:ms=250").delay, 250ms);
  EXPECT_EQ(fault_of("skew:seconds=-1200").skew, -1200s);
  EXPECT_EQ(fault_of("partial_reject:reason=too_new,rejected=2").reason, RejectReason::too_new);
  for (const char* const kind : {"throttle", "error_500", "error_503", "partial_reject",
                                 "lost_response", "refuse", "expired_token"}) {
    EXPECT_EQ(to_string(fault_of(kind).kind), kind);
  }
}

TEST_F(LocalFaultsTest, SaysAllThatIsWrongWithASpec) {
  for (const char* const spec :
       {"", "explode", "throttle:", "throttle:count", "throttle:count=0", "throttle:count=-2",
        "throttle:count=x", "throttle:service=s3", "throttle:probability=0",
        "throttle:probability=1.1", "throttle:probability=nan", "delay", "delay:ms=-1", "skew",
        "throttle:colour=red", "partial_reject:reason=ugly", "throttle:retry_after=a\r\nb: c"}) {
    const bool bad = std::holds_alternative<FaultError>(parse_fault(spec));
    EXPECT_EQ(bad, std::string_view(spec) != "throttle:") << spec;
  }
  const auto both = parse_fault("throttle:count=x,service=s3");
  const std::string message = std::get<FaultError>(both).message;
  EXPECT_NE(message.find("count"), std::string::npos);
  EXPECT_NE(message.find("service"), std::string::npos);
}

TEST_F(LocalFaultsTest, ThrottlesAsEachServiceDoes) {
  faults_.add(fault_of("throttle:retry_after_ms=200,retry_after=1"));
  const Reply logs = put_logs().reply;
  EXPECT_EQ(logs.status, 400);
  EXPECT_EQ(code_of(logs), "ThrottlingException");
  EXPECT_EQ(transport::find_header(logs.headers, "x-amz-retry-after"), "200");
  EXPECT_EQ(transport::find_header(logs.headers, "retry-after"), "1");
  const Reply metric = put_metric();
  EXPECT_EQ(metric.status, 400);
  EXPECT_EQ(transport::find_header(metric.headers, "x-amzn-query-error"), "Throttling;Sender");
  const Reply traces = put_traces();
  EXPECT_EQ(traces.status, 429);
  EXPECT_EQ(code_of(traces), "ThrottledException");
  EXPECT_EQ(stored(), 0U);
}

TEST_F(LocalFaultsTest, FailsAsEachServiceDoes) {
  faults_.add(fault_of("error_500:count=3"));
  faults_.add(fault_of("error_503:count=3"));
  for (const int status : {500, 503}) {
    EXPECT_EQ(put_logs().reply.status, status);
    EXPECT_EQ(put_metric().status, status);
    EXPECT_EQ(put_traces().status, status);
  }
  EXPECT_EQ(put_metric().status, 200);
  faults_.add(fault_of("expired_token"));
  EXPECT_EQ(code_of(put_logs().reply), "ExpiredTokenException");
  EXPECT_EQ(code_of(put_metric()), "ExpiredToken");
  EXPECT_EQ(put_traces().status, 403);
}

TEST_F(LocalFaultsTest, FiltersAndCounts) {
  faults_.add(fault_of("error_500:service=logs,operation=CreateLogGroup"));
  faults_.add(fault_of("throttle:service=logs,count=2"));
  EXPECT_EQ(put_metric().status, 200);
  EXPECT_EQ(code_of(put_logs().reply), "ThrottlingException");
  EXPECT_EQ(code_of(put_logs().reply), "ThrottlingException");
  EXPECT_EQ(code_of(put_logs().reply), "");
  const auto reports = faults_.reports();
  EXPECT_EQ(reports[0].fired, 0U);
  EXPECT_EQ(reports[1].fired, 2U);
  EXPECT_EQ(store_.statistics.errors["ThrottlingException"], 2U);
  EXPECT_EQ(store_.statistics.requests["PutLogEvents"][400], 2U);
  EXPECT_EQ(store_.statistics.requests["PutLogEvents"][200], 1U);
}

TEST_F(LocalFaultsTest, ProbabilityRepeatsWithItsSeed) {
  const auto draw = [](const char* spec) {
    FaultBox box({fault_of(spec)});
    std::string pattern;
    for (int i = 0; i < 1000; ++i) pattern += box.plan("logs", "PutLogEvents").verdict ? '1' : '0';
    return pattern;
  };
  const std::string first = draw("throttle:probability=0.25,seed=7");
  EXPECT_EQ(first, draw("throttle:probability=0.25,seed=7"));
  EXPECT_NE(first, draw("throttle:probability=0.25,seed=8"));
  const auto struck = std::count(first.begin(), first.end(), '1');
  EXPECT_GT(struck, 200);
  EXPECT_LT(struck, 300);
}

TEST_F(LocalFaultsTest, LostResponseStoresAndRefuseDoesNot) {
  faults_.add(fault_of("lost_response:count=1"));
  EXPECT_TRUE(put_logs().reply.hang_up);
  EXPECT_EQ(stored(), 1U);
  faults_.add(fault_of("refuse:count=1"));
  EXPECT_TRUE(put_logs().reply.hang_up);
  EXPECT_EQ(stored(), 1U);
  EXPECT_EQ(store_.statistics.requests["PutLogEvents"][0], 2U);
  EXPECT_EQ(put_logs().reply.status, 200);
}

TEST_F(LocalFaultsTest, RejectsPartOfLogEvents) {
  struct Case {
    const char* spec;
    const char* answer;
    std::size_t taken;
  };
  for (const Case& c :
       {Case{"partial_reject", R"({"tooOldLogEventEndIndex":1})", 3},
        Case{"partial_reject:reason=expired,rejected=2", R"({"expiredLogEventEndIndex":2})", 2},
        Case{"partial_reject:reason=too_new,rejected=1", R"({"tooNewLogEventStartIndex":3})", 3},
        Case{"partial_reject:rejected=99", R"({"tooOldLogEventEndIndex":99})", 0}}) {
    SCOPED_TRACE(c.spec);
    faults_.clear();
    faults_.add(fault_of(c.spec));
    const std::uint64_t before = stored();
    const Reply reply = put_logs(4).reply;
    EXPECT_EQ(reply.status, 200);
    EXPECT_EQ(reply.body, std::string(R"({"rejectedLogEventsInfo":)") + c.answer + "}");
    EXPECT_EQ(stored() - before, c.taken);
  }
  // It waits for an operation that has parts.
  faults_.clear();
  faults_.add(fault_of("partial_reject:count=1"));
  EXPECT_EQ(put_metric().status, 200);
  EXPECT_EQ(faults_.reports().front().fired, 0U);
}

TEST_F(LocalFaultsTest, RejectsPartOfTraces) {
  faults_.add(fault_of("partial_reject:rejected=2,code=ThrottledException"));
  const Reply reply = put_traces(3);
  EXPECT_EQ(reply.status, 200);
  EXPECT_NE(reply.body.find(R"("Id":"0f1e2d3c4b5a6978","ErrorCode":"ThrottledException")"),
            std::string::npos);
  EXPECT_EQ(store_.traces.counts().https_documents, 1U);
  EXPECT_EQ(store_.statistics.partial_rejects["ThrottledException"], 2U);
}

TEST_F(LocalFaultsTest, DelaysAddUpAndComeWithAVerdict) {
  faults_.add(fault_of("delay:ms=250"));
  faults_.add(fault_of("delay:ms=50,count=1"));
  faults_.add(fault_of("throttle:count=1"));
  const Gateway::Outcome first = put_logs();
  EXPECT_EQ(first.delay, 300ms);
  EXPECT_EQ(first.reply.status, 400);
  EXPECT_EQ(put_logs().delay, 250ms);
}

TEST_F(LocalFaultsTest, SkewMovesTheServersClock) {
  faults_.add(fault_of("skew:seconds=901"));
  const Gateway::Outcome outcome = put_logs();
  EXPECT_EQ(outcome.skew, 901s);
  EXPECT_EQ(code_of(outcome.reply), "InvalidSignatureException");
  EXPECT_NE(outcome.reply.body.find("Signature expired"), std::string::npos);
  // A client that has learnt the offset is let in.
  now_ += 901s;
  faults_.clear();
  faults_.add(fault_of("skew:seconds=-901"));
  EXPECT_NE(put_logs().reply.body.find("Signature not yet current"), std::string::npos);
}

TEST_F(LocalFaultsTest, AreManagedOverHttp) {
  EXPECT_EQ(page("POST", "faults", {}, R"({"kind":"throttle","service":"logs","count":1})").body,
            R"({"ids":[1]})");
  EXPECT_EQ(
      page("POST", "faults", {}, R"([{"kind":"delay","ms":5},{"kind":"refuse","probability":0.5}])")
          .body,
      R"({"ids":[2,3]})");
  for (const char* const body :
       {"", "1", "{}", "[1]", R"({"kind":"explode"})", R"([{"kind":"refuse"},{"kind":"delay"}])"}) {
    EXPECT_EQ(page("POST", "faults", {}, body).status, 400) << body;
  }
  put_logs();
  const std::string list = page("GET", "faults").body;
  simdjson::dom::parser parser;
  const simdjson::dom::element root = parser.parse(list);
  ASSERT_EQ(simdjson::dom::array(root["faults"]).size(), 3U);
  EXPECT_EQ(std::string_view(root["faults"].at(0)["kind"]), "throttle");
  EXPECT_EQ(std::int64_t(root["faults"].at(0)["fired"]), 1);
  EXPECT_EQ(page("DELETE", "faults").status, 200);
  EXPECT_TRUE(faults_.reports().empty());
}

TEST_F(LocalFaultsTest, ResetForgetsWhatArrivedAndKeepsFaults) {
  faults_.add(fault_of("throttle:count=1,service=xray"));
  put_logs();
  put_metric();
  put_traces();
  put_traces();
  EXPECT_EQ(page("POST", "reset").status, 200);
  EXPECT_EQ(page("GET", "stats").body.find("PutLogEvents"), std::string::npos);
  EXPECT_TRUE(store_.logs.groups().empty());
  EXPECT_TRUE(store_.metrics.find({}, {}).empty());
  EXPECT_EQ(store_.traces.counts().https_documents, 0U);
  EXPECT_EQ(faults_.reports().size(), 1U);
}

}  // namespace
}  // namespace spillway::local
