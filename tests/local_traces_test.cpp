// SPDX-License-Identifier: Apache-2.0
//
// PutTraceSegments: each rule of a segment document, and what is kept of the documents.
#include "local/limits.hpp"
#include "support/local_gateway.hpp"

namespace spillway::local {
namespace {

constexpr const char* trace_id = "1-6b00e354-0f1e2d3c4b5a69788796a5b4";

// A segment's fields without its braces; `more` may give a field again, and the last one counts
// for nobody: so fields are replaced by name.
std::string segment(const std::string& field = {}, const std::string& value = {}) {
  std::vector<std::pair<std::string, std::string>> fields{
      {"name", R"("orders")"},
      {"id", R"("0f1e2d3c4b5a6978")"},
      {"trace_id", "\"" + std::string(trace_id) + "\""},
      {"start_time", "1795220308.12"},
      {"end_time", "1795220308.13"}};
  bool replaced = false;
  for (auto& [name, text] : fields) {
    if (name != field) continue;
    text = value;
    replaced = true;
  }
  if (!replaced && !field.empty()) fields.emplace_back(field, value);
  std::string json;
  for (const auto& [name, text] : fields) {
    if (!text.empty()) json += (json.empty() ? "" : ",") + ("\"" + name + "\":" + text);
  }
  return "{" + json + "}";
}

std::string request_of(const std::vector<std::string>& documents) {
  JsonWriter json;
  json.begin_object().key("TraceSegmentDocuments").begin_array();
  for (const std::string& document : documents) json.value(document);
  json.end_array().end_object();
  return json.take();
}

class LocalTracesTest : public LocalGatewayTest {
 protected:
  Reply put(const std::vector<std::string>& documents) {
    return call(Service::xray, "/TraceSegments", request_of(documents));
  }
  // "Id:ErrorCode" of what was not processed.
  std::vector<std::string> unprocessed(const std::vector<std::string>& documents) {
    const Reply reply = put(documents);
    EXPECT_EQ(reply.status, 200) << reply.body;
    std::vector<std::string> result;
    simdjson::dom::parser parser;
    const simdjson::dom::element root = parser.parse(reply.body);
    for (const simdjson::dom::element entry : root["UnprocessedTraceSegments"]) {
      const std::string id =
          entry["Id"].is_null() ? "null" : std::string(std::string_view(entry["Id"]));
      result.push_back(id + ":" + std::string(std::string_view(entry["ErrorCode"])));
    }
    return result;
  }
};

TEST_F(LocalTracesTest, EnforcesEachRule) {
  struct Case {
    std::string field;
    std::string value;  // "" leaves the field out.
    const char* code;   // "" for taken.
  };
  const std::string sub = R"({"name":"d","id":"1f1e2d3c4b5a6978","start_time":1,"end_time":2)";
  const std::vector<Case> cases{
      {"", "", ""},
      {"name", "", "MissingName"},
      {"name", R"("")", "InvalidName"},
      {"name", "1", "InvalidName"},
      {"name", "\"" + repeat("n", 200) + "\"", ""},
      {"name", "\"" + repeat("n", 201) + "\"", "InvalidName"},
      {"name", "\"" + repeat("é", 200) + "\"", ""},
      {"name", "\"" + repeat("é", 201) + "\"", "InvalidName"},
      {"name", R"("aZ09 _.:/%&#=+\\-@")", ""},
      {"name", R"("what?")", "InvalidName"},
      {"name", R"("a*b")", "InvalidName"},
      {"name", R"("tab\t")", "InvalidName"},
      {"name", R"("c1 \u0085")", "InvalidName"},
      {"id", "", "MissingId"},
      {"id", R"("0f1e2d3c4b5a697")", "InvalidId"},
      {"id", R"("0f1e2d3c4b5a69788")", "InvalidId"},
      {"id", R"("0F1E2D3C4B5A6978")", "InvalidId"},
      {"id", R"("0f1e2d3c4b5a697g")", "InvalidId"},
      {"trace_id", "", "MissingTraceId"},
      {"trace_id", R"("6b00e3540f1e2d3c4b5a69788796a5b4")", "InvalidTraceId"},
      {"trace_id", R"("2-6b00e354-0f1e2d3c4b5a69788796a5b4")", "InvalidTraceId"},
      {"trace_id", R"("1-6b00e354-0f1e2d3c4b5a69788796a5b")", "InvalidTraceId"},
      {"trace_id", R"("1-6b00e354-0f1e2d3c4b5a69788796a5b44")", "InvalidTraceId"},
      {"trace_id", R"("1-6b00e35-40f1e2d3c4b5a69788796a5b4")", "InvalidTraceId"},
      {"start_time", "", "MissingStartTime"},
      {"start_time", R"("1795220308")", "InvalidStartTime"},
      {"start_time", "0", "InvalidStartTime"},
      {"start_time", "1795220308120", "InvalidStartTime"},
      {"start_time", "1795220308", ""},
      {"end_time", "", "MissingEndTime"},
      {"end_time", "1795220308.11", "InvalidEndTime"},
      {"end_time", "1795220308.12", ""},
      {"end_time", "null", "InvalidEndTime"},
      {"in_progress", "true", "InvalidEndTime"},
      {"in_progress", "false", ""},
      {"in_progress", "1", "InvalidInProgress"},
      {"parent_id", R"("1a2b3c4d5e6f7081")", ""},
      {"parent_id", R"("1a2b")", "InvalidParentId"},
      {"type", R"("subsegment")", "MissingParentId"},
      {"type", R"("segment")", "InvalidType"},
      {"annotations", R"({"a_1":"s","B.c":1.5,"d":true})", ""},
      {"annotations", R"({"a-b":1})", "InvalidAnnotations"},
      {"annotations", R"({"":1})", "InvalidAnnotations"},
      {"annotations", R"({"a":null})", "InvalidAnnotations"},
      {"annotations", R"({"a":[1]})", "InvalidAnnotations"},
      {"annotations", R"([])", "InvalidAnnotations"},
      {"metadata", R"({"default":{"a":[1,null]}})", ""},
      {"metadata", R"("text")", "InvalidMetadata"},
      {"error", "true", ""},
      {"error", "1", "InvalidError"},
      {"throttle", R"("yes")", "InvalidThrottle"},
      {"fault", "null", "InvalidFault"},
      {"namespace", R"("remote")", ""},
      {"namespace", R"("Remote")", "InvalidNamespace"},
      {"cause", R"("0f1e2d3c4b5a6978")", ""},
      {"cause", R"({"exceptions":[]})", ""},
      {"cause", R"("boom")", "InvalidCause"},
      {"http", R"({"response":{"status":200}})", ""},
      {"http", R"({"response":{"status":"200"}})", "InvalidHttp"},
      {"precursor_ids", R"(["0f1e2d3c4b5a6978"])", ""},
      {"precursor_ids", R"(["x"])", "InvalidPrecursorIds"},
      {"subsegments", "[]", ""},
      {"subsegments", "[" + sub + "}]", ""},
      {"subsegments", "[1]", "InvalidSubsegments"},
      {"subsegments", "{}", "InvalidSubsegments"},
      {"subsegments", R"([{"name":"d","id":"1f1e2d3c4b5a6978","start_time":1}])", "MissingEndTime"},
      {"subsegments", R"([{"name":"d","id":"1f1e2d3c4b5a6978","start_time":1,"in_progress":true}])",
       ""},
      {"subsegments", "[" + sub + R"(,"subsegments":[)" + sub + R"(,"error":1}]}])",
       "InvalidError"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.field + " = " + c.value.substr(0, 100));
    store_.clear();
    const auto problems = unprocessed({segment(c.field, c.value)});
    if (c.code[0] == '\0') {
      EXPECT_TRUE(problems.empty()) << problems.front();
      EXPECT_EQ(store_.traces.counts().https_documents, 1U);
      continue;
    }
    ASSERT_EQ(problems.size(), 1U);
    EXPECT_EQ(problems.front().substr(problems.front().find(':') + 1), c.code);
    EXPECT_EQ(store_.traces.counts().https_documents, 0U);
  }
}

TEST_F(LocalTracesTest, TakesTheGoodAndNamesTheBad) {
  EXPECT_EQ(unprocessed({segment(), "{", segment("name", R"("?")"), "[]", "1", segment()}),
            (std::vector<std::string>{"null:ParseError", "0f1e2d3c4b5a6978:InvalidName",
                                      "null:MissingId", "null:ParseError"}));
  EXPECT_EQ(store_.traces.counts().https_documents, 2U);
  EXPECT_EQ(store_.statistics.partial_rejects["ParseError"], 2U);
}

TEST_F(LocalTracesTest, BoundsDocuments) {
  const std::string frame = segment("user", R"("")");
  const auto sized = [&](std::size_t bytes) {
    return segment("user", "\"" + repeat("u", bytes - frame.size()) + "\"");
  };
  EXPECT_TRUE(unprocessed({sized(limits::trace_document_bytes_max)}).empty());
  EXPECT_EQ(unprocessed({sized(limits::trace_document_bytes_max + 1)}),
            std::vector<std::string>{"null:SegmentTooLarge"});

  EXPECT_TRUE(unprocessed(std::vector<std::string>(50, segment())).empty());
  EXPECT_EQ(unprocessed(std::vector<std::string>(51, segment())),
            std::vector<std::string>{"0f1e2d3c4b5a6978:TooManyDocuments"});
}

TEST_F(LocalTracesTest, RefusesOtherShapes) {
  for (const char* const body :
       {"{}", R"({"TraceSegmentDocuments":"x"})", R"({"TraceSegmentDocuments":[{}]})", "[", "[]"}) {
    SCOPED_TRACE(body);
    EXPECT_EQ(code_of(call(Service::xray, "/TraceSegments", body)), "InvalidRequestException");
  }
}

TEST_F(LocalTracesTest, TakesSubsegmentsSentAlone) {
  const std::string alone = segment("type", R"("subsegment","parent_id":"1a2b3c4d5e6f7081")");
  EXPECT_TRUE(unprocessed({alone, "[" + alone + "," + alone + "]"}).empty());
  const auto segments = store_.traces.segments({});
  ASSERT_EQ(segments.size(), 3U);
  EXPECT_TRUE(segments[0].is_subsegment);
  EXPECT_EQ(segments[0].parent_id, "1a2b3c4d5e6f7081");
}

TEST_F(LocalTracesTest, ListsSegmentsAndSubsegments) {
  const std::string inner =
      R"({"name":"inner","id":"2f1e2d3c4b5a6978","start_time":1,"end_time":2,"fault":true})";
  const std::string outer =
      R"({"name":"outer","id":"1f1e2d3c4b5a6978","start_time":1,"in_progress":true,"subsegments":[)" +
      inner + "]}";
  unprocessed({segment("subsegments", "[" + outer + "]")});
  EXPECT_EQ(store_.traces.counts().https_segments, 3U);
  const auto segments = store_.traces.segments(trace_id);
  ASSERT_EQ(segments.size(), 3U);
  EXPECT_EQ(segments[0].name, "orders");
  EXPECT_FALSE(segments[0].is_subsegment);
  EXPECT_TRUE(segments[1].is_subsegment);
  EXPECT_TRUE(segments[1].in_progress);
  EXPECT_EQ(segments[2].parent_id, "1f1e2d3c4b5a6978");
  EXPECT_EQ(segments[2].trace_id, trace_id);
  EXPECT_TRUE(segments[2].fault);
  EXPECT_TRUE(store_.traces.segments("1-00000000-000000000000000000000000").empty());

  const Reply reply = page("GET", "traces", std::string("trace_id=") + trace_id);
  simdjson::dom::parser parser;
  const simdjson::dom::element root = parser.parse(reply.body);
  EXPECT_EQ(std::int64_t(root["segments"]["https"]), 3);
  EXPECT_EQ(std::string_view(root["page"].at(0)["document"]["name"]), "orders");
}

TEST_F(LocalTracesTest, ForgetsTheOldestButCountsAll) {
  TraceStore store(2, 1'000'000);
  DocumentReport report;
  report.segment_count = 3;
  for (int i = 0; i < 5; ++i)
    store.add(segment(), report, i % 2 == 0 ? TraceRoute::udp : TraceRoute::https);
  EXPECT_EQ(store.segments({}).size(), 2U);
  EXPECT_EQ(store.counts().udp_documents, 3U);
  EXPECT_EQ(store.counts().https_segments, 6U);
}

TEST_F(LocalTracesTest, NestsAsDeepAsTheParserAllows) {
  std::string open;
  std::string close;
  for (int i = 0; i < 600; ++i) {
    open += R"({"name":"d","id":"1f1e2d3c4b5a6978","start_time":1,"end_time":2,"subsegments":[)";
    close += "]}";
  }
  // simdjson's 1024 levels are 512 of subsegments.
  EXPECT_EQ(unprocessed({open + close}), std::vector<std::string>{"null:ParseError"});
}

TEST_F(LocalTracesTest, AnswersTheOtherCallsOfTheDaemon) {
  EXPECT_EQ(call(Service::xray, "/TelemetryRecords", R"({"TelemetryRecords":[]})").body, "{}");
  EXPECT_EQ(call(Service::xray, "/GetSamplingRules", "").status, 200);
  EXPECT_NE(call(Service::xray, "/SamplingTargets", R"({"SamplingStatisticsDocuments":[]})")
                .body.find("SamplingTargetDocuments"),
            std::string::npos);
}

}  // namespace
}  // namespace spillway::local
