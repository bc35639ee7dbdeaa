// SPDX-License-Identifier: Apache-2.0
//
// CloudWatch Logs: PutLogEvents at each limit and one past it, groups and streams, and what is
// kept.
#include "local/limits.hpp"
#include "support/local_gateway.hpp"

namespace spillway::local {
namespace {

using namespace std::chrono_literals;
using std::chrono::days;
using std::chrono::milliseconds;

constexpr const char* invalid_code = "InvalidParameterException";
constexpr const char* type_code = "SerializationException";

std::string event(std::int64_t timestamp_ms, const std::string& message = "x") {
  return R"({"timestamp":)" + std::to_string(timestamp_ms) + R"(,"message":")" + message + R"("})";
}
void append(std::string& list, const std::string& item) {
  if (!list.empty()) list += ',';
  list += item;
}
std::string request_of(const std::string& events, const std::string& group = "/g",
                       const std::string& stream = "s") {
  return R"({"logGroupName":")" + group + R"(","logStreamName":")" + stream + R"(","logEvents":[)" +
         events + "]}";
}

class LocalLogsTest : public LocalGatewayTest {
 protected:
  LocalLogsTest() {
    store_.logs.create_group("/g", 0);
    store_.logs.create_stream(*store_.logs.find_group("/g"), "s", 0);
  }

  Reply put(std::string body) { return call(Service::logs, put_log_events, std::move(body)); }
  Reply logs(const char* operation, std::string body) {
    return call(Service::logs, std::string("Logs_20140328.") + operation, std::move(body));
  }
  std::int64_t ms_from_now(milliseconds offset) { return now_ms() + offset.count(); }
  std::uint64_t stored() {
    std::uint64_t count = 0;
    for (const auto& stream : store_.logs.summaries()) count += stream.event_count;
    return count;
  }
  std::vector<std::string> messages() {
    std::vector<std::string> result;
    for (const LogEvent& e : store_.logs.events("/g", "s", 0, 1'000'000)) {
      result.push_back(e.message);
    }
    return result;
  }
};

TEST_F(LocalLogsTest, EnforcesEachRule) {
  const std::int64_t now = now_ms();
  // One message that fills a batch, and two that do together.
  const std::size_t largest = limits::log_batch_bytes_max - limits::log_event_overhead_bytes;
  const std::size_t half = limits::log_batch_bytes_max / 2 - limits::log_event_overhead_bytes;
  struct Case {
    const char* name;
    std::string body;
    const char* code;  // "" for accepted.
  };
  const std::vector<Case> cases{
      {"one event", request_of(event(now)), ""},
      {"no events", request_of(""), invalid_code},
      {"no logEvents", R"({"logGroupName":"/g","logStreamName":"s"})", invalid_code},
      {"logEvents of another type", R"({"logGroupName":"/g","logStreamName":"s","logEvents":{}})",
       type_code},
      {"10000 events", request_of(list_of(event(now), 10'000)), ""},
      {"10001 events", request_of(list_of(event(now), 10'001)), invalid_code},
      {"full batch", request_of(event(now, repeat("m", largest))), ""},
      {"a byte too many", request_of(event(now, repeat("m", largest + 1))), invalid_code},
      {"full batch of two",
       request_of(event(now, repeat("m", half)) + "," + event(now, repeat("m", half))), ""},
      {"a byte too many of two",
       request_of(event(now, repeat("m", half)) + "," + event(now, repeat("m", half + 1))),
       invalid_code},
      {"bytes count, not characters", request_of(event(now, repeat("\xC3\xA9", largest / 2 + 1))),
       invalid_code},
      {"escapes count as what they mean", request_of(event(now, repeat("\\u0001", largest))), ""},
      {"empty message", request_of(event(now, "")), invalid_code},
      {"no message", request_of(R"({"timestamp":1})"), invalid_code},
      {"no timestamp", request_of(R"({"message":"m"})"), invalid_code},
      {"negative timestamp", request_of(event(-1)), invalid_code},
      {"timestamp with a fraction", request_of(R"({"timestamp":1.5,"message":"m"})"), type_code},
      {"timestamp as text", request_of(R"({"timestamp":"1","message":"m"})"), type_code},
      {"message of another type", request_of(R"({"timestamp":1,"message":{}})"), type_code},
      {"equal times", request_of(event(now) + "," + event(now)), ""},
      {"time going back", request_of(event(now) + "," + event(now - 1)), invalid_code},
      {"24 hours", request_of(event(ms_from_now(-24h)) + "," + event(now)), ""},
      {"a millisecond more", request_of(event(ms_from_now(-24h) - 1) + "," + event(now)),
       invalid_code},
      {"24 hours of valid events only",
       request_of(event(ms_from_now(-days(20))) + "," + event(now) + "," + event(ms_from_now(30h))),
       ""},
      {"group of 512", request_of(event(now), repeat("g", 512)), "ResourceNotFoundException"},
      {"group of 513", request_of(event(now), repeat("g", 513)), invalid_code},
      {"group with a blank", request_of(event(now), "a b"), invalid_code},
      {"empty group", request_of(event(now), ""), invalid_code},
      {"stream of 512", request_of(event(now), "/g", repeat("s", 512)),
       "ResourceNotFoundException"},
      {"stream of 513", request_of(event(now), "/g", repeat("s", 513)), invalid_code},
      {"stream with a colon", request_of(event(now), "/g", "a:b"), invalid_code},
      {"stream with a star", request_of(event(now), "/g", "a*b"), invalid_code},
      {"other group", request_of(event(now), "/other"), "ResourceNotFoundException"},
      {"other stream", request_of(event(now), "/g", "other"), "ResourceNotFoundException"},
      {"lone surrogate", request_of(event(now, "\\ud800")), type_code},
      {"not UTF-8", request_of(event(now, "\xC3")), type_code},
      {"sequence token", R"({"sequenceToken":"wrong",)" + request_of(event(now)).substr(1), ""},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    const std::uint64_t before = stored();
    const Reply reply = put(c.body);
    EXPECT_EQ(code_of(reply), c.code) << reply.body.substr(0, 500);
    EXPECT_EQ(stored() > before, c.code[0] == '\0');
  }
}

TEST_F(LocalLogsTest, NamesRejectedEventsWithTheRightIndices) {
  struct Case {
    const char* name;
    std::vector<milliseconds> offsets;
    int retention_days;
    const char* answer;
    std::size_t taken;
  };
  const std::vector<Case> cases{
      {"none", {-14 * 24h}, 0, "{}", 1},
      {"too old",
       {-14 * 24h - 1ms, -14 * 24h},
       0,
       R"({"rejectedLogEventsInfo":{"tooOldLogEventEndIndex":1}})",
       1},
      {"latest allowed", {0ms, 2h}, 0, "{}", 2},
      {"too new",
       {0ms, 2h, 2h + 1ms, 3h},
       0,
       R"({"rejectedLogEventsInfo":{"tooNewLogEventStartIndex":2}})",
       2},
      {"both",
       {-20 * 24h, -15 * 24h, 0ms, 3h},
       0,
       R"({"rejectedLogEventsInfo":{"tooNewLogEventStartIndex":3,"tooOldLogEventEndIndex":2}})",
       1},
      {"expired",
       {-3 * 24h - 1ms, -3 * 24h},
       3,
       R"({"rejectedLogEventsInfo":{"expiredLogEventEndIndex":1}})",
       1},
      {"too old and expired",
       {-15 * 24h, -4 * 24h, 0ms},
       3,
       R"({"rejectedLogEventsInfo":{"tooOldLogEventEndIndex":1,"expiredLogEventEndIndex":2}})",
       1},
      {"all",
       {-20 * 24h, 3h},
       0,
       R"({"rejectedLogEventsInfo":{"tooNewLogEventStartIndex":1,"tooOldLogEventEndIndex":1}})",
       0},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    LogGroup& group = *store_.logs.find_group("/g");
    group.retention = c.retention_days == 0 ? std::nullopt : std::optional(days(c.retention_days));
    std::string events;
    for (const milliseconds offset : c.offsets) {
      append(events, event(ms_from_now(offset)));
    }
    const std::uint64_t before = stored();
    const Reply reply = put(request_of(events));
    EXPECT_EQ(reply.status, 200);
    EXPECT_EQ(reply.body, c.answer);
    EXPECT_EQ(stored() - before, c.taken);
  }
  EXPECT_EQ(store_.statistics.partial_rejects["too_old"], 5U);
  EXPECT_EQ(store_.statistics.partial_rejects["expired"], 2U);
  EXPECT_EQ(store_.statistics.partial_rejects["too_new"], 4U);
}

TEST_F(LocalLogsTest, KeepsMessagesAsTheyWere) {
  put(request_of(event(now_ms(), R"(a\n\"\\\u0000é\u2028)") + "," + event(now_ms(), "b")));
  const std::string odd("a\n\"\\\0é\xE2\x80\xA8", 10);
  EXPECT_EQ(messages(), (std::vector<std::string>{odd, "b"}));
  const Reply reply = page("GET", "logs", "group=%2Fg&stream=s&from=0&limit=1");
  simdjson::dom::parser parser;
  const simdjson::dom::element root = parser.parse(reply.body);
  EXPECT_EQ(std::string_view(root["page"].at(0)["message"]), odd);
  EXPECT_EQ(std::int64_t(root["page"].at(0)["timestamp"]), now_ms());
  EXPECT_EQ(simdjson::dom::array(root["page"]).size(), 1U);
  EXPECT_EQ(std::int64_t(root["events"]), 2);
  EXPECT_EQ(page("GET", "logs", "group=%2Fg&stream=t").status, 404);
}

TEST_F(LocalLogsTest, ForgetsTheOldestButCountsAll) {
  // The fixture keeps 1000.
  for (int batch = 0; batch < 5; ++batch) {
    std::string events;
    for (int i = 0; i < 400; ++i) {
      append(events, event(now_ms(), std::to_string(batch * 400 + i)));
    }
    put(request_of(events));
  }
  const auto summary = store_.logs.summaries().front();
  EXPECT_EQ(summary.event_count, 2000U);
  const std::vector<std::string> kept = messages();
  EXPECT_LE(kept.size(), 1000U);
  EXPECT_GT(kept.size(), 900U);
  EXPECT_EQ(kept.front(), std::to_string(summary.first_kept));
  EXPECT_EQ(kept.back(), "1999");
  EXPECT_EQ(summary.first_kept + kept.size(), 2000U);
  const auto some = store_.logs.events("/g", "s", 1990, 3);
  ASSERT_EQ(some.size(), 3U);
  EXPECT_EQ(some.front().message, "1990");
}

TEST_F(LocalLogsTest, TakesGzip) {
  transport::HttpRequest request =
      aws_request(Service::logs, put_log_events, gzip(request_of(event(now_ms()))));
  request.headers.push_back({"Content-Encoding", "gzip"});
  sign(request, Service::logs, now_);
  EXPECT_EQ(send(request).status, 200);
  EXPECT_EQ(stored(), 1U);
}

TEST_F(LocalLogsTest, ABadEntityDoesNotHoldEventsBack) {
  const std::string events = request_of(event(now_ms()));
  const Reply reply =
      put(R"({"entity":{"keyAttributes":{"Type":"Service","Name":"o"}},)" + events.substr(1));
  EXPECT_EQ(reply.body, R"({"rejectedEntityInfo":{"errorType":"MissingRequiredFields"}})");
  EXPECT_EQ(stored(), 1U);
}

TEST_F(LocalLogsTest, CreatesGroupsAndStreams) {
  EXPECT_EQ(code_of(logs("CreateLogGroup", R"({"logGroupName":"/new"})")), "");
  EXPECT_EQ(code_of(logs("CreateLogGroup", R"({"logGroupName":"/new"})")),
            "ResourceAlreadyExistsException");
  EXPECT_EQ(code_of(logs("CreateLogGroup", R"({"logGroupName":"aws/new"})")), invalid_code);
  EXPECT_EQ(code_of(logs("CreateLogGroup", R"({"logGroupName":"/x","logGroupClass":"BEST"})")),
            invalid_code);
  EXPECT_EQ(code_of(logs("CreateLogGroup", "{}")), invalid_code);
  const std::string stream = R"({"logGroupName":"/new","logStreamName":"a/b c"})";
  EXPECT_EQ(code_of(logs("CreateLogStream", stream)), "");
  EXPECT_EQ(code_of(logs("CreateLogStream", stream)), "ResourceAlreadyExistsException");
  EXPECT_EQ(code_of(logs("CreateLogStream", R"({"logGroupName":"/no","logStreamName":"a"})")),
            "ResourceNotFoundException");
  EXPECT_EQ(code_of(put(request_of(event(now_ms()), "/new", "a/b c"))), "");
}

TEST_F(LocalLogsTest, SetsRetention) {
  for (const auto& [body, code] :
       {std::pair{R"({"logGroupName":"/g","retentionInDays":3653})", ""},
        {R"({"logGroupName":"/g","retentionInDays":2})", invalid_code},
        {R"({"logGroupName":"/g","retentionInDays":"7"})", invalid_code},
        {R"({"logGroupName":"/g"})", invalid_code},
        {R"({"logGroupName":"/no","retentionInDays":7})", "ResourceNotFoundException"}}) {
    SCOPED_TRACE(body);
    EXPECT_EQ(code_of(logs("PutRetentionPolicy", body)), code);
  }
  EXPECT_NE(logs("DescribeLogGroups", "{}").body.find(R"("retentionInDays":3653)"),
            std::string::npos);
}

TEST_F(LocalLogsTest, ReadsBackThroughTheApi) {
  put(request_of(event(now_ms(), "a") + "," + event(now_ms(), "b")));
  const std::string stream = R"("logGroupName":"/g","logStreamName":"s")";
  const Reply all = logs("GetLogEvents", "{" + stream + "}");
  EXPECT_NE(all.body.find(R"("message":"a")"), std::string::npos);
  const Reply last = logs("GetLogEvents", "{" + stream + R"(,"limit":1})");
  EXPECT_EQ(last.body.find(R"("message":"a")"), std::string::npos);
  EXPECT_NE(last.body.find(R"("message":"b")"), std::string::npos);
  EXPECT_NE(logs("DescribeLogStreams", R"({"logGroupName":"/g"})").body.find(R"("s")"),
            std::string::npos);
}

TEST_F(LocalLogsTest, BoundsGroupsAndStreams) {
  Options options = options_;
  options.log_streams_max = 3;
  Store store(options);
  Gateway gateway(options, store, faults_);
  const auto create = [&](const std::string& name) {
    transport::HttpRequest request = aws_request(Service::logs, "Logs_20140328.CreateLogGroup",
                                                 R"({"logGroupName":")" + name + R"("})");
    sign(request, Service::logs, now_);
    return code_of(gateway.handle(request, workspace_).reply);
  };
  EXPECT_EQ(create("a"), "");
  EXPECT_EQ(create("b"), "");
  EXPECT_EQ(create("c"), "");
  EXPECT_EQ(create("d"), "LimitExceededException");
}

}  // namespace
}  // namespace spillway::local
