// SPDX-License-Identifier: Apache-2.0
//
// Who is let in. Requests are signed by the library's own signer, whose signatures match AWS's
// published vectors; here each part of a request is changed after signing.
#include <functional>

#include "local/signature.hpp"
#include "support/environment.hpp"
#include "support/local_gateway.hpp"
#include <spillway/middleware/client/service_client.hpp>
#include <spillway/transport/memory_transport.hpp>
#include <spillway/transport/text.hpp>

namespace spillway::local {
namespace {

using transport::HttpRequest;

constexpr std::string_view good_body =
    R"({"Namespace":"Shop","MetricData":[{"MetricName":"Orders","Value":1}]})";

std::string& header(HttpRequest& request, std::string_view name) {
  for (auto& candidate : request.headers) {
    if (transport::lower(candidate.name) == name) return candidate.value;
  }
  request.headers.push_back({std::string(name), ""});
  return request.headers.back().value;
}

void replace(std::string& text, std::string_view from, std::string_view to) {
  text.replace(text.find(from), from.size(), to);
}

class LocalSignatureTest : public LocalGatewayTest {
 protected:
  HttpRequest signed_request() {
    HttpRequest request = aws_request(Service::monitoring, put_metric_data, std::string(good_body));
    sign(request, Service::monitoring, now_);
    return request;
  }
};

TEST_F(LocalSignatureTest, TakesARightSignature) {
  const Reply reply = send(signed_request());
  EXPECT_EQ(reply.status, 200) << reply.body;
  EXPECT_EQ(store_.metrics.find("Shop", "Orders").size(), 1U);
}

TEST_F(LocalSignatureTest, RefusesEveryChange) {
  struct Change {
    const char* name;
    std::function<void(HttpRequest&)> make;
    const char* code;
    int status;
  };
  const std::vector<Change> changes{
      {"body", [](auto& r) { r.body.back() = ' '; }, "SignatureDoesNotMatch", 403},
      {"query", [](auto& r) { r.query = "a=b"; }, "SignatureDoesNotMatch", 403},
      {"host", [](auto& r) { header(r, "host") = "localhost:4566"; }, "SignatureDoesNotMatch", 403},
      {"content type", [](auto& r) { header(r, "content-type") += "; charset=utf-8"; },
       "SignatureDoesNotMatch", 403},
      {"date within the window",
       [](auto& r) { replace(header(r, "x-amz-date"), "T080000Z", "T080001Z"); },
       "SignatureDoesNotMatch", 403},
      {"last digit of the signature",
       [](auto& r) {
         char& last = header(r, "authorization").back();
         last = last == '0' ? '1' : '0';
       },
       "SignatureDoesNotMatch", 403},
      {"signature cut short", [](auto& r) { header(r, "authorization").pop_back(); },
       "SignatureDoesNotMatch", 403},
      {"region", [](auto& r) { replace(header(r, "authorization"), "eu-west-1", "eu-west-2"); },
       "SignatureDoesNotMatch", 403},
      {"order of the signed headers",
       [](auto& r) {
         replace(header(r, "authorization"), "content-type;host", "host;content-type");
       },
       "SignatureDoesNotMatch", 403},
      {"host not signed",
       [](auto& r) { replace(header(r, "authorization"), "content-type;host;", "content-type;"); },
       "SignatureDoesNotMatch", 403},
      {"an X-Amz header that is not signed", [](auto& r) { header(r, "x-amz-extra") = "1"; },
       "SignatureDoesNotMatch", 403},
      {"scope of another service",
       [](auto& r) { replace(header(r, "authorization"), "/monitoring/", "/logs/"); },
       "SignatureDoesNotMatch", 403},
      {"scope of another day",
       [](auto& r) { replace(header(r, "authorization"), "/20261121/", "/20261120/"); },
       "SignatureDoesNotMatch", 403},
      {"terminator",
       [](auto& r) { replace(header(r, "authorization"), "aws4_request", "aws5_request"); },
       "SignatureDoesNotMatch", 403},
      {"key", [](auto& r) { replace(header(r, "authorization"), "AKIDLOCAL", "AKIDOTHER"); },
       "InvalidClientTokenId", 403},
      {"no authorization", [](auto& r) { header(r, "authorization").clear(); },
       "MissingAuthenticationToken", 403},
      {"another scheme", [](auto& r) { header(r, "authorization") = "Bearer abc"; },
       "MissingAuthenticationToken", 403},
      {"another algorithm",
       [](auto& r) { replace(header(r, "authorization"), "HMAC-SHA256", "HMAC-SHA999"); },
       "IncompleteSignature", 400},
      {"no signature", [](auto& r) { replace(header(r, "authorization"), "Signature=", "Sig="); },
       "IncompleteSignature", 400},
      {"credential of four parts",
       [](auto& r) { replace(header(r, "authorization"), "/aws4_request", ""); },
       "IncompleteSignature", 400},
      {"date that is none", [](auto& r) { header(r, "x-amz-date") = "20261321T080000Z"; },
       "IncompleteSignature", 400},
      {"no date", [](auto& r) { header(r, "x-amz-date").clear(); }, "IncompleteSignature", 400},
  };
  for (const Change& change : changes) {
    SCOPED_TRACE(change.name);
    HttpRequest request = signed_request();
    change.make(request);
    const Reply reply = send(request);
    EXPECT_EQ(code_of(reply), change.code) << reply.body;
    EXPECT_EQ(reply.status, change.status);
    EXPECT_EQ(reply.body.find("a-secret-canary"), std::string::npos);
  }
  EXPECT_TRUE(store_.metrics.find({}, {}).empty());
}

TEST_F(LocalSignatureTest, TakesFifteenMinutesOfSkewAndNoMore) {
  using std::chrono::seconds;
  for (const auto& [offset, taken] : {std::pair{seconds(-900), true},
                                      {seconds(900), true},
                                      {seconds(-901), false},
                                      {seconds(901), false}}) {
    SCOPED_TRACE(offset.count());
    HttpRequest request = aws_request(Service::monitoring, put_metric_data, std::string(good_body));
    sign(request, Service::monitoring, now_ + offset);
    EXPECT_EQ(code_of(send(request)), taken ? "" : "RequestExpired");
  }
}

TEST_F(LocalSignatureTest, SpeaksEachServicesProtocol) {
  const transport::Credentials wrong("AKIDLOCAL", "another");
  HttpRequest logs = aws_request(Service::logs, put_log_events, "{}");
  sign(logs, Service::logs, now_, wrong);
  Reply reply = send(logs);
  EXPECT_EQ(reply.status, 400);
  EXPECT_EQ(code_of(reply), "InvalidSignatureException");
  EXPECT_EQ(reply.content_type, "application/x-amz-json-1.1");

  HttpRequest xray = aws_request(Service::xray, "/TraceSegments", "{}");
  sign(xray, Service::xray, now_, wrong);
  reply = send(xray);
  EXPECT_EQ(reply.status, 403);
  EXPECT_EQ(code_of(reply), "InvalidSignatureException");

  HttpRequest metrics = signed_request();
  metrics.body += " ";
  reply = send(metrics);
  EXPECT_EQ(transport::find_header(reply.headers, "x-amzn-query-error"),
            "SignatureDoesNotMatch;Sender");
}

TEST_F(LocalSignatureTest, WantsTheTokenOfATemporaryKey) {
  const SignatureVerifier verifier({{"ASIA", "secret", "token"}});
  HttpRequest request = aws_request(Service::logs, put_log_events, "{}");
  sign(request, Service::logs, now_, {"ASIA", "secret", "token"});
  EXPECT_FALSE(verifier.refuse(request, Service::logs, Protocol::logs, now_));
  for (const char* const token : {"", "tokem"}) {
    HttpRequest other = aws_request(Service::logs, put_log_events, "{}");
    sign(other, Service::logs, now_, {"ASIA", "secret", token});
    const Refusal refusal = verifier.refuse(other, Service::logs, Protocol::logs, now_);
    ASSERT_TRUE(refusal);
    EXPECT_EQ(refusal->code, "UnrecognizedClientException");
  }
}

TEST_F(LocalSignatureTest, ContentSha256MustBeTheBodys) {
  for (const bool right : {true, false}) {
    HttpRequest request = aws_request(Service::monitoring, put_metric_data, std::string(good_body));
    request.headers.push_back(
        {"X-Amz-Content-Sha256",
         right ? transport::hex(transport::sha256(request.body)) : "UNSIGNED-PAYLOAD"});
    sign(request, Service::monitoring, now_);
    EXPECT_EQ(code_of(send(request)), right ? "" : "SignatureDoesNotMatch");
  }
}

TEST_F(LocalSignatureTest, CanBeSwitchedOff) {
  Options options = options_;
  options.check_signatures = false;
  Gateway open(options, store_, faults_);
  HttpRequest request = aws_request(Service::monitoring, put_metric_data, std::string(good_body));
  request.headers.push_back({"Host", "127.0.0.1:4566"});
  EXPECT_EQ(open.handle(request, workspace_).reply.status, 200);
}

// ---- Before the signature: who may speak at all ----

TEST_F(LocalSignatureTest, TakesOnlyLocalHosts) {
  for (const auto& [host, taken] : {std::pair{"127.0.0.1", true},
                                    {"127.0.0.1:1", true},
                                    {"localhost:4566", true},
                                    {"LocalHost", true},
                                    {"[::1]:80", true},
                                    {"[::1]", true},
                                    {"", false},
                                    {"evil.example", false},
                                    {"127.0.0.1.evil.example", false},
                                    {"127.0.0.1:80:80", false},
                                    {"127.0.0.1:", false},
                                    {"0x7f.1", false},
                                    {"localhost@evil", false},
                                    {"::1", false}}) {
    SCOPED_TRACE(host);
    HttpRequest request;
    request.method = "GET";
    request.path = "/_spillway/stats";
    request.headers = {{"Host", host}};
    EXPECT_EQ(send(request).status, taken ? 200 : 403);
  }
}

TEST_F(LocalSignatureTest, RefusesBrowsersAndOtherMethods) {
  HttpRequest request;
  request.path = "/_spillway/reset";
  request.headers = {{"Host", "localhost"}, {"Origin", "http://localhost"}};
  EXPECT_EQ(send(request).status, 403);

  EXPECT_EQ(page("GET", "reset").status, 405);
  EXPECT_EQ(page("GET", "nothing").status, 404);
  HttpRequest get = signed_request();
  get.method = "GET";
  EXPECT_EQ(send(get).status, 405);
}

TEST_F(LocalSignatureTest, NamesWhatItDoesNotSpeak) {
  HttpRequest query = aws_request(Service::monitoring, "", "Action=PutMetricData");
  query.headers = {{"Host", "localhost"},
                   {"Content-Type", "application/x-www-form-urlencoded; charset=utf-8"}};
  EXPECT_NE(send(query).body.find("Query protocol"), std::string::npos);
  HttpRequest cbor = query;
  cbor.path = "/service/GraniteServiceVersion20100801/operation/PutMetricData";
  EXPECT_NE(send(cbor).body.find("CBOR"), std::string::npos);

  const Reply reply = call(Service::logs, "Logs_20140328.DeleteLogGroup", "{}");
  EXPECT_EQ(code_of(reply), "UnknownOperationException");
  EXPECT_EQ(call(Service::logs, put_metric_data, "{}").status, 403);  // The wrong service's scope.

  HttpRequest wrong_type = aws_request(Service::logs, put_log_events, "{}");
  wrong_type.headers.front().value = "application/x-amz-json-1.0";
  sign(wrong_type, Service::logs, now_);
  EXPECT_EQ(code_of(send(wrong_type)), "UnknownOperationException");
}

// ---- What the service client signs for services behind IAM ----

TEST(ServiceClientSignatureTest, EveryAttemptIsTakenByTheVerifyingSide) {
  const testing::ScopedVariable id("AWS_ACCESS_KEY_ID", "AKIDLOCAL");
  const testing::ScopedVariable secret("AWS_SECRET_ACCESS_KEY", "a-secret-canary");
  const testing::ScopedVariable token("AWS_SESSION_TOKEN", nullptr);
  std::vector<HttpRequest> asked;
  middleware::ServiceClientOptions options;
  options.name = "orders";
  options.discover = middleware::static_endpoints({{"http://orders.internal:8080"}});
  options.retry.backoff = std::chrono::milliseconds(1);
  options.threads = false;
  options.sigv4_region = "eu-west-1";
  // The verifying side knows services of its own only; the form is the same for each.
  options.sigv4_service = to_string(Service::monitoring);
  options.http = [&] {
    auto memory = std::make_unique<transport::MemoryTransport>();
    memory->set_answer([&](const HttpRequest& request) {
      asked.push_back(request);
      return transport::MemoryTransport::answered(asked.size() == 1 ? 503 : 200);
    });
    return memory;
  };
  middleware::ServiceClient client(options);
  client.refresh();
  const auto reply = client.call({.method = "PUT",
                                  .path = "/orders/17",
                                  .query = "b=2&a=1",
                                  .headers = {{"Content-Type", "application/json"}},
                                  .body = "{}"},
                                 std::chrono::seconds(60));
  ASSERT_EQ(reply.attempts, 2) << reply.error;
  const SignatureVerifier verifier({test_credentials()});
  const auto refusal = [&](const HttpRequest& request) {
    return verifier.refuse(request, Service::monitoring, Protocol::monitoring,
                           std::chrono::system_clock::now());
  };
  for (const HttpRequest& request : asked) {
    HttpRequest received = request;
    // The transport's, from the origin, when it is not there.
    if (transport::find_header(received.headers, "Host").empty())
      received.headers.push_back({"Host", "orders.internal:8080"});
    const Refusal none = refusal(received);
    EXPECT_FALSE(none) << none->message;
    for (const auto& change : std::initializer_list<std::function<void(HttpRequest&)>>{
             [](HttpRequest& r) { r.body = "[]"; }, [](HttpRequest& r) { r.path = "/orders/18"; },
             [](HttpRequest& r) { r.query = "b=2&a=3"; }, [](HttpRequest& r) { r.method = "POST"; },
             [](HttpRequest& r) { header(r, "host") = "others.internal:8080"; }}) {
      HttpRequest changed = received;
      change(changed);
      EXPECT_TRUE(refusal(changed)) << "something was changed";
    }
  }
}

}  // namespace
}  // namespace spillway::local
