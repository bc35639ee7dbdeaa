// SPDX-License-Identifier: Apache-2.0
//
// Signature Version 4 against the signatures that AWS publishes (its test suite "aws4_testsuite", the
// example of the IAM user guide), and what the suite does not have.
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <spillway/transport/sigv4.hpp>

namespace spillway::transport {
namespace {

using namespace std::chrono_literals;

// 2015-08-30T12:36:00Z, the suite's time.
constexpr auto suite_time = std::chrono::sys_days(std::chrono::year(2015) / 8 / 30) + 12h + 36min;
const Credentials suite_credentials{"AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"};

struct Vector {
  const char* name;
  const char* method;
  const char* path;
  const char* query;
  std::vector<HttpHeader> headers;
  const char* body;
  const char* signature;
};

HttpRequest request_of(const Vector& vector) {
  HttpRequest request;
  request.method = vector.method;
  request.origin = "https://example.amazonaws.com";
  request.path = vector.path;
  request.query = vector.query;
  request.headers = vector.headers;
  request.body = vector.body;
  return request;
}

std::string authorization_of(const HttpRequest& request) {
  return std::string(find_header(request.headers, "Authorization"));
}
std::string signature_of(const HttpRequest& request) {
  const std::string text = authorization_of(request);
  const std::size_t at = text.find("Signature=");
  return at == std::string::npos ? std::string() : text.substr(at + 10);
}

constexpr const char* vanilla = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";

const std::vector<Vector>& suite() {
  static const std::vector<Vector> vectors{
      {"get-vanilla", "GET", "/", "", {}, "", vanilla},
      {"get-slash", "GET", "//", "", {}, "", vanilla},
      {"get-slash-dot-slash", "GET", "/./", "", {}, "", vanilla},
      {"get-relative", "GET", "/example/..", "", {}, "", vanilla},
      {"get-relative-relative", "GET", "/example1/example2/../..", "", {}, "", vanilla},
      {"get-slashes",
       "GET",
       "//example//",
       "",
       {},
       "",
       "9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84"},
      {"get-slash-pointless-dot",
       "GET",
       "/./example",
       "",
       {},
       "",
       "ef75d96142cf21edca26f06005da7988e4f8dc83a165a80865db7089db637ec5"},
      {"get-space",
       "GET",
       "/example space/",
       "",
       {},
       "",
       "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741"},
      {"get-utf8",
       "GET",
       "/\xe1\x88\xb4",
       "",
       {},
       "",
       "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"},
      {"get-unreserved",
       "GET",
       "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
       "",
       {},
       "",
       "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f"},
      {"get-vanilla-query-order-key-case",
       "GET",
       "/",
       "Param2=value2&Param1=value1",
       {},
       "",
       "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"},
      {"get-vanilla-query-order-key",
       "GET",
       "/",
       "Param1=value2&Param1=Value1",
       {},
       "",
       "eedbc4e291e521cf13422ffca22be7d2eb8146eecf653089df300a15b2382bd1"},
      {"get-vanilla-query-order-value",
       "GET",
       "/",
       "Param1=value2&Param1=value1",
       {},
       "",
       "5772eed61e12b33fae39ee5e7012498b51d56abc0abb7c60486157bd471c4694"},
      {"get-vanilla-empty-query-key",
       "GET",
       "/",
       "Param1=value1",
       {},
       "",
       "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb"},
      {"get-vanilla-query-unreserved",
       "GET",
       "/",
       "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz="
       "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
       {},
       "",
       "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197"},
      {"get-vanilla-utf8-query",
       "GET",
       "/",
       "\xe1\x88\xb4=bar",
       {},
       "",
       "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04"},
      {"get-header-key-duplicate",
       "GET",
       "/",
       "",
       {{"My-Header1", "value2"}, {"My-Header1", "value2"}, {"My-Header1", "value1"}},
       "",
       "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea"},
      {"get-header-value-order",
       "GET",
       "/",
       "",
       {{"My-Header1", "value4"},
        {"My-Header1", "value1"},
        {"My-Header1", "value3"},
        {"My-Header1", "value2"}},
       "",
       "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01"},
      {"get-header-value-trim",
       "GET",
       "/",
       "",
       {{"My-Header1", " value1"}, {"My-Header2", " \"a   b   c\""}},
       "",
       "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736"},
      {"get-header-value-multiline",
       "GET",
       "/",
       "",
       {{"My-Header1", "value1\n  value2\n     value3"}},
       "",
       "cfd34249e4b1c8d6b91ef74165d41a32e5fab3306300901bb65a51a73575eefd"},
      {"post-vanilla",
       "POST",
       "/",
       "",
       {},
       "",
       "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"},
      {"post-vanilla-query",
       "POST",
       "/",
       "Param1=value1",
       {},
       "",
       "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11"},
      {"post-header-key-sort",
       "POST",
       "/",
       "",
       {{"My-Header1", "value1"}},
       "",
       "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c"},
      {"post-header-value-case",
       "POST",
       "/",
       "",
       {{"My-Header1", "VALUE1"}},
       "",
       "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d"},
      {"post-x-www-form-urlencoded",
       "POST",
       "/",
       "",
       {{"Content-Type", "application/x-www-form-urlencoded"}},
       "Param1=value1",
       "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"},
      {"post-x-www-form-urlencoded-parameters",
       "POST",
       "/",
       "",
       {{"Content-Type", "application/x-www-form-urlencoded; charset=utf8"}},
       "Param1=value1",
       "1a72ec8f64bd914b0e42e42607c7fbce7fb2c7465f63e3092b3b0d39fa77a6fe"},
  };
  return vectors;
}

TEST(Sigv4SuiteTest, EveryVectorHasItsSignature) {
  Sigv4Signer signer("us-east-1", "service");
  for (const Vector& vector : suite()) {
    HttpRequest request = request_of(vector);
    signer.sign(request, suite_credentials, suite_time);
    EXPECT_EQ(signature_of(request), vector.signature) << vector.name;
    EXPECT_EQ(find_header(request.headers, "Host"), "example.amazonaws.com");
    EXPECT_EQ(find_header(request.headers, "X-Amz-Date"), "20150830T123600Z");
  }
}

TEST(Sigv4SuiteTest, ASessionTokenIsSigned) {
  // post-sts-header-before
  HttpRequest request = request_of(suite().front());
  request.method = "POST";
  Credentials temporary = suite_credentials;
  temporary.session_token =
      "AQoDYXdzEPT//////////"
      "wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPf"
      "IeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/"
      "kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7W"
      "Z0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+"
      "scqKmlzm8F"
      "DrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";
  Sigv4Signer("us-east-1", "service").sign(request, temporary, suite_time);
  EXPECT_EQ(signature_of(request),
            "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead");
  EXPECT_NE(authorization_of(request).find("SignedHeaders=host;x-amz-date;x-amz-security-token"),
            std::string::npos);
}

TEST(Sigv4Test, TheUserGuidesExampleStepByStep) {
  const SigningScope scope{"20150830", "us-east-1", "iam"};
  const std::vector<HttpHeader> headers{
      {"Content-Type", "application/x-www-form-urlencoded; charset=utf-8"},
      {"Host", "iam.amazonaws.com"},
      {"X-Amz-Date", "20150830T123600Z"}};
  const std::string canonical = canonical_request("GET", "/", "Action=ListUsers&Version=2010-05-08",
                                                  headers, hex(sha256("")));
  EXPECT_EQ(canonical,
            "GET\n/\nAction=ListUsers&Version=2010-05-08\n"
            "content-type:application/x-www-form-urlencoded; charset=utf-8\n"
            "host:iam.amazonaws.com\nx-amz-date:20150830T123600Z\n\n"
            "content-type;host;x-amz-date\n"
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  const std::string text = string_to_sign("20150830T123600Z", scope, canonical);
  EXPECT_EQ(text,
            "AWS4-HMAC-SHA256\n20150830T123600Z\n20150830/us-east-1/iam/aws4_request\n"
            "f536975d06c0309214f805bb90ccff089219ecd68b2577efef23edd43b7e1a59");
  const Sha256 key = derive_signing_key(suite_credentials.secret_access_key, scope);
  EXPECT_EQ(hex(key), "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9");
  EXPECT_EQ(hex(hmac_sha256(key, text)),
            "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7");
}

TEST(Sigv4Test, PutMetricDataAsBotocoreSignsIt) {
  HttpRequest request;
  request.origin = "https://monitoring.us-east-1.amazonaws.com";
  request.headers = {{"Content-Type", "application/x-amz-json-1.0"},
                     {"X-Amz-Target", "GraniteServiceVersion20100801.PutMetricData"}};
  request.body = R"({"Namespace":"Demo","MetricData":[{"MetricName":"Up","Value":1}]})";
  Credentials temporary = suite_credentials;
  temporary.session_token = "TOKENEXAMPLE";
  Sigv4Signer("us-east-1", "monitoring").sign(request, temporary, suite_time);
  EXPECT_EQ(authorization_of(request),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/monitoring/aws4_request, "
            "SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amz-target, "
            "Signature=748f275800728755eb65408d78689a9802a4511aac0a247738b6e9dbdefbadd5");
}

// ---- Canonical forms ----

std::string canonical_query_of(std::string_view query) {
  const std::string canonical = canonical_request("GET", "/", query, {}, "");
  const std::size_t begin = canonical.find('\n', 4) + 1;
  return canonical.substr(begin, canonical.find('\n', begin) - begin);
}

TEST(Sigv4Test, QueriesAreEncodedOneWayHoweverTheyAreSpelt) {
  struct Case {
    const char* query;
    const char* canonical;
  };
  for (const Case& c : {
           Case{"", ""},
           Case{"a", "a="},
           Case{"a=", "a="},
           Case{"=a", "=a"},
           Case{"a=b=c", "a=b%3Dc"},
           Case{"b&a", "a=&b="},
           Case{"&&a=1&", "a=1"},
           Case{"a=*", "a=%2A"},
           Case{"a=%2a", "a=%2A"},
           Case{"a=%20b", "a=%20b"},
           Case{"a=%7E", "a=~"},
           Case{"a=/", "a=%2F"},
           Case{"a=1+1", "a=1%2B1"},
           Case{"a=%", "a=%25"},
           Case{"a=%zz", "a=%25zz"},
           Case{"a=%4", "a=%254"},
           Case{"a-b=1&a=2", "a=2&a-b=1"},
           Case{"a=b&a=B", "a=B&a=b"},
       }) {
    EXPECT_EQ(canonical_query_of(c.query), c.canonical) << c.query;
  }
}

TEST(Sigv4Test, PathsAreNormalisedAndEncodedOnceMore) {
  struct Case {
    const char* path;
    const char* canonical;
  };
  for (const Case& c : {
           Case{"/", "/"},
           Case{"", "/"},
           Case{"/a/b/", "/a/b/"},
           Case{"/a/./b", "/a/b"},
           Case{"/a/../b", "/b"},
           Case{"/../../a", "/a"},
           Case{"/a/b/..", "/a"},
           Case{"/a/b/.", "/a/b"},
           Case{"//a///b", "/a/b"},
           Case{"/a%20b", "/a%2520b"},
           Case{"/a*b", "/a%2Ab"},
           Case{"/...", "/..."},
       }) {
    const std::string canonical = canonical_request("GET", c.path, "", {}, "");
    EXPECT_EQ(canonical.substr(4, canonical.find('\n', 4) - 4), c.canonical) << c.path;
  }
}

TEST(Sigv4Test, HeaderValuesAreTrimmedAndFolded) {
  const auto canonical_of = [](std::string value) {
    const std::vector<HttpHeader> headers{{"H", std::move(value)}};
    const std::string canonical = canonical_request("GET", "/", "", headers, "");
    const std::size_t begin = canonical.find("h:") + 2;
    return canonical.substr(begin, canonical.find('\n', begin) - begin);
  };
  EXPECT_EQ(canonical_of(""), "");
  EXPECT_EQ(canonical_of("  \t "), "");
  EXPECT_EQ(canonical_of(" a \t\r\n b  c "), "a b c");
  EXPECT_EQ(canonical_of("\"a   b\""), "\"a b\"");
}

TEST(Sigv4Test, HeadersThatAreRewrittenOnTheWayAreNotSigned) {
  for (const char* const name : {"authorization", "Connection", "expect", "keep-alive",
                                 "Proxy-Authenticate", "proxy-authorization", "TE", "trailer",
                                 "transfer-encoding", "upgrade", "User-Agent", "X-Amzn-Trace-Id"}) {
    EXPECT_FALSE(is_signable(name)) << name;
  }
  EXPECT_TRUE(is_signable("Host"));
  EXPECT_TRUE(is_signable("X-Amz-Target"));
  HttpRequest plain = request_of(suite().front());
  plain.headers = {{"User-Agent", "x"}, {"X-Amzn-Trace-Id", "Root=1"}, {"Connection", "close"}};
  Sigv4Signer("us-east-1", "service").sign(plain, suite_credentials, suite_time);
  EXPECT_EQ(signature_of(plain), vanilla);
  EXPECT_EQ(find_header(plain.headers, "User-Agent"), "x") << "they are sent all the same";
}

TEST(Sigv4Test, ABodyHashThatStandsInAHeaderIsTheOneThatIsSigned) {
  HttpRequest request = request_of(suite().front());
  request.headers = {{"X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD"}};
  HttpRequest other = request;
  other.body = "another";
  Sigv4Signer signer("us-east-1", "service");
  signer.sign(request, suite_credentials, suite_time);
  signer.sign(other, suite_credentials, suite_time);
  EXPECT_EQ(signature_of(request), signature_of(other));
}

// ---- Signing again ----

TEST(Sigv4Test, SigningAgainReplacesWhatWasSigned) {
  Sigv4Signer signer("us-east-1", "service");
  HttpRequest request = request_of(suite().front());
  Credentials temporary = suite_credentials;
  temporary.session_token = "token";
  signer.sign(request, temporary, suite_time - 24h);
  signer.sign(request, temporary, suite_time);
  EXPECT_EQ(request.headers.size(), 4U);
  // The next credentials may have no token: the old one would be signed with the new key.
  signer.sign(request, suite_credentials, suite_time);
  EXPECT_EQ(signature_of(request), vanilla);
  EXPECT_EQ(request.headers.size(), 3U);
}

TEST(Sigv4Test, TheDerivedKeyIsNotKeptPastItsDayOrItsSecret) {
  Sigv4Signer one("us-east-1", "service");
  const auto signed_by = [&](Sigv4Signer signer, const Credentials& credentials, auto time) {
    HttpRequest request = request_of(suite().front());
    signer.sign(request, credentials, time);
    return signature_of(request);
  };
  const auto sign = [&](const Credentials& credentials, auto time) {
    HttpRequest request = request_of(suite().front());
    one.sign(request, credentials, time);
    EXPECT_EQ(signature_of(request),
              signed_by(Sigv4Signer("us-east-1", "service"), credentials, time));
    return signature_of(request);
  };
  const Credentials rotated{"AKIDEXAMPLE", "another-secret"};
  EXPECT_EQ(sign(suite_credentials, suite_time), vanilla);
  EXPECT_NE(sign(suite_credentials, suite_time + 24h), vanilla);
  EXPECT_EQ(sign(suite_credentials, suite_time), vanilla);
  EXPECT_NE(sign(rotated, suite_time), vanilla);
  EXPECT_EQ(sign(suite_credentials, suite_time), vanilla);
}

TEST(Sigv4Test, ThePortIsPartOfTheHostUnlessItIsTheSchemesOwn) {
  Sigv4Signer signer("us-east-1", "service");
  const auto host_of = [&](std::string origin) {
    HttpRequest request = request_of(suite().front());
    request.origin = std::move(origin);
    signer.sign(request, suite_credentials, suite_time);
    return std::string(find_header(request.headers, "Host"));
  };
  EXPECT_EQ(host_of("http://127.0.0.1:4566"), "127.0.0.1:4566");
  EXPECT_EQ(host_of("https://Example.com:443"), "example.com");
  EXPECT_EQ(host_of("http://example.com:80"), "example.com");
  EXPECT_EQ(host_of("http://example.com:443"), "example.com:443");
  EXPECT_EQ(host_of("http://[::1]:4566"), "[::1]:4566");
}

TEST(Sigv4Test, DatesHaveTheirZeroes) {
  EXPECT_EQ(amz_date(std::chrono::system_clock::from_time_t(0)), "19700101T000000Z");
  EXPECT_EQ(amz_date(std::chrono::sys_days(std::chrono::year(2038) / 1 / 19) + 3h + 14min + 8s),
            "20380119T031408Z");
}

TEST(Sha256Test, KnownDigests) {
  EXPECT_EQ(hex(sha256("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  // RFC 4231, test case 2.
  const std::string key = "Jefe";
  const std::span bytes(reinterpret_cast<const std::uint8_t*>(key.data()), key.size());
  EXPECT_EQ(hex(hmac_sha256(bytes, "what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

TEST(Sha256Test, EqualityInConstantTimeIsEquality) {
  EXPECT_TRUE(equal_in_constant_time("", ""));
  EXPECT_TRUE(equal_in_constant_time("abc", "abc"));
  EXPECT_FALSE(equal_in_constant_time("abc", "abd"));
  EXPECT_FALSE(equal_in_constant_time("abc", "abcd"));
}

}  // namespace
}  // namespace spillway::transport
