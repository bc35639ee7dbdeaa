// SPDX-License-Identifier: Apache-2.0
//
// OTLP at the local receiver: what is no request of it is refused with the place and the reason,
// what is wrong in one record costs that record alone, and each limit holds to the byte. Bodies are
// put together here, apart from the library's encoders.
#include <bit>
#include <cmath>
#include <map>
#include <random>

#include <support/protobuf.hpp>
#include <support/seed.hpp>

#include "local/limits.hpp"
#include "local/otlp_schema.hpp"
#include "support/local_gateway.hpp"

namespace spillway::local {
namespace {

using spillway::testing::ProtoMessage;
using transport::HttpRequest;

// ---- Bodies ----

std::string varint(std::uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes + static_cast<char>(value);
}
std::string number(std::uint32_t field, std::uint64_t value) {
  return varint(field << 3) + varint(value);
}
std::string fixed64(std::uint32_t field, std::uint64_t value) {
  std::string bytes = varint(field << 3 | 1);
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(value >> (8 * i));
  return bytes;
}
std::string real(std::uint32_t field, double value) {
  return fixed64(field, std::bit_cast<std::uint64_t>(value));
}
std::string nested(std::uint32_t field, const std::string& bytes) {
  return varint(field << 3 | 2) + varint(bytes.size()) + bytes;
}
std::string attribute(std::uint32_t field, const std::string& key, const std::string& text) {
  return nested(field, nested(1, key) + nested(2, nested(1, text)));
}
// A request with one resource, one scope and these items, which stand in field 2 each.
std::string request_of(const std::string& items,
                       const std::string& resource = attribute(1, "service.name", "orders")) {
  return nested(1, nested(1, resource) + nested(2, nested(1, nested(1, "test")) + items));
}

const std::string trace_id = "0123456789abcdef";
const std::string span_id = "01234567";

class LocalOtlpTest : public LocalGatewayTest {
 protected:
  std::uint64_t now_ns() const { return static_cast<std::uint64_t>(now_ms()) * 1'000'000; }

  HttpRequest request(const std::string& path, std::string body) const {
    HttpRequest made;
    made.origin = "http://127.0.0.1:4566";
    made.path = path;
    made.body = std::move(body);
    made.headers = {{"Host", "127.0.0.1:4566"}, {"Content-Type", "application/x-protobuf"}};
    return made;
  }
  Reply post(const std::string& path, std::string body) {
    return send(request(path, std::move(body)));
  }
  // The message of an error; the empty text of a success.
  static std::string message_of(const Reply& reply) {
    if (reply.status == 200) return {};
    EXPECT_EQ(reply.content_type, "application/x-protobuf");
    return ProtoMessage(reply.body).text(2);
  }
  // "rejected: message" of a partial success.
  static std::string partial_of(const Reply& reply) {
    EXPECT_EQ(reply.status, 200) << message_of(reply);
    if (reply.status != 200 || reply.body.empty()) return {};
    const ProtoMessage partial = ProtoMessage(reply.body).message(1);
    return std::to_string(partial.varint(1)) + ": " + partial.text(2);
  }

  std::string log(const std::string& more = {}) const {
    return nested(2, fixed64(1, now_ns()) + number(2, 9) + nested(5, nested(1, "placed")) + more);
  }
  std::string span(const std::string& more = {}) const {
    return nested(2, nested(1, trace_id) + nested(2, span_id) + nested(5, "GET") + number(6, 2) +
                         fixed64(7, now_ns() - 1000) + fixed64(8, now_ns()) + more);
  }
  // A delta sum of one point.
  std::string sum(double value, const std::string& more = {}) const {
    const std::string point = fixed64(2, now_ns() - 1) + fixed64(3, now_ns()) + real(4, value);
    return nested(2, nested(1, "Requests") + nested(3, "1") +
                         nested(7, nested(1, point + more) + number(2, 1) + number(3, 1)));
  }
  std::string exponential(const std::string& more, std::uint64_t count = 4) const {
    const std::string point = fixed64(2, now_ns() - 1) + fixed64(3, now_ns()) + fixed64(4, count) +
                              real(5, 10) + real(12, 0) + real(13, 8);
    return nested(2, nested(1, "Latency") + nested(3, "ms") +
                         nested(10, nested(1, point + more) + number(2, 1)));
  }
};

// ---- What is taken ----

TEST_F(LocalOtlpTest, PointsAddUp) {
  const std::string tenant = attribute(7, "Tenant", "acme");
  for (const double value : {2.0, 3.0}) {
    EXPECT_EQ(partial_of(post("/v1/metrics", request_of(sum(value, tenant)))), "");
  }
  // Scale 0: buckets (1,2] and (2,4] (4,8]; one value is 0.
  const std::string buckets =
      number(6, 0) + fixed64(7, 1) +
      nested(8, number(1, 0) + nested(2, varint(1) + varint(0) + varint(2)));
  EXPECT_EQ(partial_of(post("/v1/metrics", request_of(exponential(buckets)))), "");

  const auto series = store_.metrics.find({}, {});
  ASSERT_EQ(series.size(), 2U);
  EXPECT_EQ(series[0].name, "Latency");
  EXPECT_EQ(series[0].metric_namespace, "orders");
  EXPECT_EQ(series[0].unit, "ms");
  EXPECT_EQ(series[0].sample_count, 4);
  EXPECT_EQ(series[0].sum, 10);
  EXPECT_EQ(series[0].maximum, 8);
  const std::vector<std::pair<double, double>> values{
      {0, 1}, {std::exp2(0.5), 1}, {std::exp2(2.5), 2}};
  EXPECT_EQ(series[0].values, values);
  EXPECT_EQ(series[1].name, "Requests");
  EXPECT_EQ(series[1].sum, 5);
  EXPECT_EQ(series[1].sample_count, 2);
  const std::vector<std::pair<std::string, std::string>> dimensions{{"Tenant", "acme"}};
  EXPECT_EQ(series[1].dimensions, dimensions);
}

TEST_F(LocalOtlpTest, LogsAndSpansCanBeReadBack) {
  const std::string fields = attribute(6, "n", "7") + nested(9, trace_id) + nested(10, span_id);
  EXPECT_EQ(partial_of(post("/v1/logs", request_of(log(fields)))), "");
  const auto events = store_.logs.events("otlp", "orders", 0, 10);
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].timestamp_ms, now_ms());
  EXPECT_EQ(events[0].message,
            R"({"timeUnixNano":)" + std::to_string(now_ns()) +
                R"(,"severityNumber":9,"severityText":"","body":"placed","attributes":{"n":"7"},)"
                R"("traceId":"30313233343536373839616263646566","spanId":"3031323334353637"})");

  const std::string error =
      nested(15, number(3, 2)) +
      nested(9, nested(1, "http.response.status_code") + nested(2, number(3, 429))) +
      nested(4, "abcdefgh");
  EXPECT_EQ(partial_of(post("/v1/traces", request_of(span() + span(error)))), "");
  const auto segments = store_.traces.segments("1-30313233-343536373839616263646566");
  ASSERT_EQ(segments.size(), 2U);
  EXPECT_EQ(segments[0].id, "3031323334353637");
  EXPECT_FALSE(segments[0].fault || segments[0].error);
  EXPECT_TRUE(segments[1].error && segments[1].throttle);
  EXPECT_FALSE(segments[1].fault);
  EXPECT_EQ(segments[1].parent_id, "6162636465666768");
  EXPECT_EQ(store_.traces.counts().otlp_spans, 2U);
  EXPECT_NE(page("GET", "traces").body.find(R"("otlp":2)"), std::string::npos);
}

TEST_F(LocalOtlpTest, AnEmptyRequestIsTaken) {
  for (const char* const path : {"/v1/metrics", "/v1/logs", "/v1/traces"}) {
    EXPECT_EQ(post(path, "").status, 200) << path;
    EXPECT_EQ(post(path, request_of("")).status, 200) << path;
  }
}

// ---- What is no message ----

TEST_F(LocalOtlpTest, SaysWhereABodyIsWrong) {
  struct Case {
    std::string path;
    std::string item;
    std::string message;
  };
  const std::string log_at = "resource_logs[0].scope_logs[0].log_records[0]";
  const std::string span_at = "resource_spans[0].scope_spans[0].spans[0]";
  std::string deep = nested(1, "x");
  for (int i = 0; i < 60; ++i) deep = nested(5, nested(1, deep));
  const std::vector<Case> cases{
      {"/v1/logs", nested(2, number(1, 5)),
       log_at + ".time_unix_nano: is a varint, must be 64 bits"},
      {"/v1/logs", nested(2, number(99, 5)), log_at + ": field 99 is none of LogRecord's"},
      {"/v1/logs", log(number(2, 9)), log_at + ".severity_number: stands twice"},
      {"/v1/logs", nested(2, number(2, 25)), log_at + ".severity_number: 25 is out of range"},
      {"/v1/logs", nested(2, nested(3, "\xff")), log_at + ".severity_text: is not UTF-8"},
      {"/v1/logs", nested(2, nested(5, nested(1, "a") + number(3, 1))),
       log_at + ".body.int_value: is a second value where one of them may stand"},
      {"/v1/logs", nested(2, nested(5, deep)), "is nested too deep"},
      {"/v1/logs", nested(2, nested(6, nested(1, "k") + nested(2, number(2, 2)))),
       log_at + ".attributes[0].value.bool_value: 2 is out of range"},
      {"/v1/logs",
       log() + nested(2,
                      "\x0a\x05"
                      "abc"),
       "log_records[1]: is cut short, or no message"},
      {"/v1/traces", nested(2, number(6, 6)), span_at + ".kind: 6 is out of range"},
      {"/v1/traces", nested(2, number(10, 1ULL << 32)),
       span_at + ".dropped_attributes_count: 4294967296 is out of range"},
      {"/v1/traces", nested(2, number(16, 1)), span_at + ".flags: is a varint, must be 32 bits"},
      {"/v1/metrics", exponential(nested(8, nested(2, "\x80"))), "bucket_counts[0]: is cut short"},
      {"/v1/metrics", exponential(nested(8, nested(2, std::string(10, '\x80') + "\x01"))),
       "bucket_counts[0]: has a varint that is too long"},
  };
  for (const Case& one : cases) {
    const Reply reply = post(one.path, request_of(one.item));
    EXPECT_EQ(reply.status, 400) << one.message;
    EXPECT_NE(message_of(reply).find(one.message), std::string::npos)
        << one.message << "\nbut: " << message_of(reply);
  }
  EXPECT_EQ(store_.statistics.errors["InvalidProtobuf"], cases.size());
  EXPECT_EQ(store_.logs.groups().size(), 0U) << "a refused request leaves nothing";
}

TEST_F(LocalOtlpTest, EveryCutOfABodyIsRefusedOrLeavesOutWhatWasCut) {
  const std::string body = request_of(span(attribute(9, "k", "v") + nested(15, number(3, 1))));
  for (std::size_t bytes = 1; bytes < body.size(); ++bytes) {
    EXPECT_EQ(post("/v1/traces", body.substr(0, bytes)).status, 400) << bytes;
  }
}

// Bytes that are changed, cut out or put in anywhere: the receiver takes it or says what is wrong, and
// what is left of a record is never read past its end (the sanitizers' part).
TEST_F(LocalOtlpTest, AnyDamageIsAnswered) {
  const std::uint64_t seed = spillway::testing::seed_or(1);
  SCOPED_TRACE(spillway::testing::seed_note(seed));
  std::mt19937_64 random(seed);
  const std::string event = nested(11, fixed64(1, 5) + nested(2, "e") + attribute(3, "k", "v"));
  const std::string link = nested(13, nested(1, trace_id) + nested(2, span_id));
  const std::string buckets =
      number(6, 0) + fixed64(7, 1) +
      nested(8, number(1, 0) + nested(2, varint(1) + varint(0) + varint(2)));
  const std::pair<const char*, std::string> bodies[] = {
      {"/v1/metrics", request_of(sum(1, attribute(7, "k", "v")) + exponential(buckets))},
      {"/v1/logs", request_of(log(attribute(6, "k", "v") + nested(9, trace_id)) + log())},
      {"/v1/traces", request_of(span(attribute(9, "k", "v") + event + link) + span())}};
  std::map<int, int> answers;
  for (int i = 0; i < 3000; ++i) {
    const auto& [path, good] = bodies[random() % std::size(bodies)];
    std::string body = good;
    for (std::uint64_t changes = 1 + random() % 3; changes > 0; --changes) {
      const std::size_t at = random() % body.size();
      switch (random() % 3) {
        case 0:
          body[at] = static_cast<char>(random());
          break;
        case 1:
          body.erase(at, random() % 8);
          break;
        default:
          body.insert(at, 1, static_cast<char>(random()));
      }
      if (body.empty()) body = good;
    }
    ++answers[post(path, body).status];
  }
  EXPECT_EQ(answers[200] + answers[400], 3000);
  EXPECT_GT(answers[200], 100);
  EXPECT_GT(answers[400], 1000);
}

// ---- What is wrong with one record ----

TEST_F(LocalOtlpTest, RefusesARecordAloneAndSaysWhy) {
  struct Case {
    std::string path;
    std::string item;
    std::string code;
  };
  const std::string times = fixed64(7, now_ns() - 1) + fixed64(8, now_ns());
  const auto bare_span = [&](const std::string& trace, const std::string& id,
                             const std::string& more) {
    return nested(2, nested(1, trace) + nested(2, id) + more);
  };
  const std::string good = nested(5, "GET") + times;
  const std::string zeros(16, '\0');
  const std::uint64_t day_ns = 24ULL * 3600 * 1'000'000'000;
  const std::vector<Case> cases{
      {"/v1/traces", bare_span("", span_id, good), "WrongTraceId"},
      {"/v1/traces", bare_span(zeros, span_id, good), "WrongTraceId"},
      {"/v1/traces", bare_span(trace_id + "x", span_id, good), "WrongTraceId"},
      {"/v1/traces", bare_span(trace_id, zeros.substr(8), good), "WrongSpanId"},
      {"/v1/traces", bare_span(trace_id, span_id, times), "NoName"},
      {"/v1/traces", span(nested(4, "short")), "WrongParentId"},
      {"/v1/traces", bare_span(trace_id, span_id, nested(5, "n") + fixed64(7, 2) + fixed64(8, 1)),
       "WrongTime"},
      {"/v1/traces", bare_span(trace_id, span_id, nested(5, "n") + fixed64(7, 1) + fixed64(8, 2)),
       "TooOld"},
      {"/v1/traces", span(attribute(9, "k", "1") + attribute(9, "k", "2")), "WrongAttributes"},
      {"/v1/traces", span(nested(11, fixed64(1, 5))), "WrongEvent"},
      {"/v1/traces", span(nested(13, nested(1, trace_id))), "WrongLink"},
      {"/v1/logs", nested(2, nested(5, nested(1, "x"))), "NoTime"},
      {"/v1/logs", nested(2, fixed64(1, now_ns() + day_ns)), "TooNew"},
      {"/v1/logs", nested(2, fixed64(1, now_ns() - 15 * day_ns)), "TooOld"},
      {"/v1/logs", log(nested(9, "short")), "WrongTraceId"},
      {"/v1/logs", log(nested(10, span_id)), "WrongSpanId"},
      {"/v1/logs", log(attribute(6, "", "1")), "WrongAttributes"},
      {"/v1/metrics",
       nested(2, nested(1, "m") + nested(7, nested(1, fixed64(3, 1) + real(4, 1)) + number(2, 2))),
       "NotDelta"},
      {"/v1/metrics", nested(2, nested(1, "m") + nested(5, nested(1, real(4, 1)))), "NoTime"},
      {"/v1/metrics", nested(2, nested(1, "m") + nested(5, nested(1, fixed64(3, 1)))), "NoValue"},
      {"/v1/metrics", nested(2, nested(5, nested(1, fixed64(3, 1) + real(4, 1)))), "NoName"},
      {"/v1/metrics", exponential(fixed64(7, 3)), "WrongCount"},
      {"/v1/metrics", nested(2, nested(1, "m") + nested(11, nested(1, fixed64(3, 1)))),
       "UnsupportedMetric"},
      {"/v1/metrics",
       nested(2, nested(1, "m") + nested(9, nested(1, fixed64(3, 1) + fixed64(4, 2) +
                                                          nested(6, std::string(16, '\1')) +
                                                          nested(7, std::string(16, '\1'))) +
                                                number(2, 1))),
       "Wrong"},
  };
  for (const Case& one : cases) {
    const std::string good_item = one.path == "/v1/traces" ? span()
                                  : one.path == "/v1/logs" ? log()
                                                           : sum(1);
    const std::string said = partial_of(post(one.path, request_of(one.item + good_item)));
    EXPECT_TRUE(said.starts_with("1: " + one.code)) << one.code << "\nbut: " << said;
  }
  EXPECT_EQ(store_.statistics.partial_rejects["WrongTraceId"], 4U);
  EXPECT_EQ(store_.traces.counts().otlp_spans, 11U) << "the good ones beside them";
  EXPECT_EQ(store_.logs.events("otlp", "orders", 0, 100).size(), 6U);
}

TEST_F(LocalOtlpTest, HoldsEachLimitToTheUnit) {
  const auto labels = [](std::size_t count) {
    std::string made;
    for (std::size_t i = 0; i < count; ++i) made += attribute(7, "k" + std::to_string(i), "v");
    return made;
  };
  EXPECT_EQ(partial_of(post("/v1/metrics", request_of(sum(1, labels(150))))), "");
  EXPECT_TRUE(partial_of(post("/v1/metrics", request_of(sum(1, labels(151)))))
                  .starts_with("1: TooManyLabels"));

  // A span of so many bytes: the padding's own head is 5 bytes once it is long.
  const auto span_of = [this](std::size_t bytes) {
    const std::string bare = span(attribute(9, "k", std::string(190'000, 'x')));
    const std::size_t have = bare.size() - 4;  // Field 2's tag and length of three bytes.
    return span(attribute(9, "k", std::string(190'000 + bytes - have, 'x')));
  };
  EXPECT_EQ(partial_of(post("/v1/traces", request_of(span_of(200'000)))), "");
  EXPECT_TRUE(
      partial_of(post("/v1/traces", request_of(span_of(200'001)))).starts_with("1: SpanTooLarge"));

  EXPECT_EQ(partial_of(post("/v1/traces", request_of(repeat(span(), 10'000)))), "");
  EXPECT_NE(message_of(post("/v1/traces", request_of(repeat(span(), 10'001)))).find("10000 spans"),
            std::string::npos);

  const auto resource_of = [](std::size_t bytes) {
    const std::size_t head = attribute(1, "k", std::string(16'000, 'x')).size() - 16'000;
    return attribute(1, "k", std::string(bytes - head, 'x'));
  };
  constexpr std::size_t scope = 6;  // { 1: "test" }
  EXPECT_EQ(post("/v1/logs", request_of(log(), resource_of(16'384 - scope))).status, 200);
  EXPECT_EQ(post("/v1/logs", request_of(log(), resource_of(16'385 - scope))).status, 400);

  const auto log_body = [this](std::size_t bytes) {
    const std::size_t have = request_of(log(nested(3, std::string(900'000, 'x')))).size();
    return request_of(log(nested(3, std::string(900'000 + bytes - have, 'x'))));
  };
  EXPECT_EQ(post("/v1/logs", log_body(1 << 20)).status, 200);
  EXPECT_EQ(post("/v1/logs", log_body((1 << 20) + 1)).status, 413);
  HttpRequest packed = request("/v1/logs", gzip(log_body((1 << 20) + 1)));
  packed.headers.push_back({"Content-Encoding", "gzip"});
  EXPECT_EQ(send(packed).status, 413) << "it counts uncompressed";

  const auto day_ns = 24ULL * 3600 * 1'000'000'000;
  const auto logs_apart = [&](std::uint64_t ns) {
    return request_of(log() + nested(2, fixed64(1, now_ns() - ns)));
  };
  EXPECT_EQ(post("/v1/logs", logs_apart(day_ns)).status, 200);
  EXPECT_EQ(post("/v1/logs", logs_apart(day_ns + 1'000'000)).status, 400);
  const std::string oldest = nested(2, fixed64(1, now_ns() - 14 * day_ns));
  const std::string older = nested(2, fixed64(1, now_ns() - 14 * day_ns - 1'000'000));
  EXPECT_EQ(partial_of(post("/v1/logs", request_of(oldest))), "");
  EXPECT_TRUE(partial_of(post("/v1/logs", request_of(older))).starts_with("1: TooOld"));
}

// ---- The request around it ----

TEST_F(LocalOtlpTest, TakesProtobufAloneAndGzip) {
  HttpRequest json = request("/v1/logs", "{}");
  json.headers[1].value = "application/json";
  EXPECT_EQ(send(json).status, 415);
  EXPECT_NE(message_of(send(json)).find("application/x-protobuf"), std::string::npos);
  HttpRequest get = request("/v1/logs", "");
  get.method = "GET";
  EXPECT_EQ(send(get).status, 405);
  HttpRequest packed = request("/v1/logs", gzip(request_of(log())));
  packed.headers.push_back({"Content-Encoding", "gzip"});
  EXPECT_EQ(send(packed).status, 200);
  packed.body.pop_back();
  EXPECT_EQ(send(packed).status, 400);
}

TEST_F(LocalOtlpTest, ASignatureThatIsThereMustBeRight) {
  HttpRequest traces = request("/v1/traces", request_of(span()));
  traces.headers.erase(traces.headers.begin());
  HttpRequest other = traces;
  sign(traces, Service::xray, now_);
  EXPECT_EQ(send(traces).status, 200);
  traces.body += nested(1, "");
  EXPECT_EQ(send(traces).status, 403);
  sign(other, Service::logs, now_);
  EXPECT_EQ(send(other).status, 403) << "the scope is X-Ray's";

  // What is signed goes to CloudWatch Logs, which wants a stream that is there.
  HttpRequest logs = request("/v1/logs", request_of(log()));
  logs.headers.erase(logs.headers.begin());
  HttpRequest named = logs;
  sign(logs, Service::logs, now_);
  EXPECT_NE(message_of(send(logs)).find("MissingLogStream"), std::string::npos);
  named.headers.push_back({"x-aws-log-group", "/shop"});
  named.headers.push_back({"x-aws-log-stream", "pod"});
  sign(named, Service::logs, now_);
  EXPECT_NE(message_of(send(named)).find("ResourceNotFoundException"), std::string::npos);
  store_.logs.create_group("/shop", now_ms());
  store_.logs.create_stream(*store_.logs.find_group("/shop"), "pod", now_ms());
  EXPECT_EQ(send(named).status, 200);
  EXPECT_EQ(store_.logs.events("/shop", "pod", 0, 10).size(), 1U);
}

TEST_F(LocalOtlpTest, CollectorsStreamsAreBounded) {
  for (std::size_t i = 0; i < store_.log_streams_max; ++i) {
    store_.logs.create_group("otlp", now_ms());
    store_.logs.create_stream(*store_.logs.find_group("otlp"), std::to_string(i), now_ms());
  }
  EXPECT_TRUE(partial_of(post("/v1/logs", request_of(log()))).starts_with("1: TooManyStreams"));
}

TEST_F(LocalOtlpTest, FaultsTakeTheFormOfOtlp) {
  faults_.add(std::get<Fault>(parse_fault("throttle:operation=ExportLogs,count=1,retry_after=3")));
  faults_.add(std::get<Fault>(parse_fault("expired_token:service=xray,count=1")));
  const Reply throttled = post("/v1/logs", request_of(log()));
  EXPECT_EQ(throttled.status, 429);
  EXPECT_EQ(ProtoMessage(throttled.body).varint(1), 8U) << "RESOURCE_EXHAUSTED";
  EXPECT_EQ(transport::find_header(throttled.headers, "Retry-After"), "3");
  EXPECT_EQ(post("/v1/traces", request_of(span())).status, 403);
  EXPECT_EQ(post("/v1/traces", request_of(span())).status, 200);
}

}  // namespace
}  // namespace spillway::local
