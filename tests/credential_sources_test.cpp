// SPDX-License-Identifier: Apache-2.0
//
// The sources that fetch: what they ask, of whom, and what they make of every answer. Scripted
// answers first, then real sockets and programs.
#include <csignal>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <support/environment.hpp>
#include <support/raw_server.hpp>
#include <support/temporary_file.hpp>

#include <spillway/transport/credential_documents.hpp>
#include <spillway/transport/credential_sources.hpp>
#include <spillway/transport/host_lookup.hpp>
#include <spillway/transport/memory_transport.hpp>
#include <spillway/transport/process.hpp>

namespace spillway::transport {
namespace {

using namespace std::chrono_literals;
using testing::ScopedVariable;
using Time = std::chrono::system_clock::time_point;

constexpr const char* canary = "canary-secret";
// 2026-11-21T01:20:00Z
const Time now = Time(std::chrono::seconds(1'795'224'000));
const Time expiration = now + 1h;
constexpr const char* expiration_text = "2026-11-21T02:20:00Z";

std::string metadata_answer(const std::string& id) {
  return R"({"Code":"Success","AccessKeyId":")" + id +
         R"(","SecretAccessKey":"canary-secret","Token":"t\/k","Expiration":")" + expiration_text +
         R"(","AccountId":"1"})";
}
std::string sts_answer(const std::string& operation, const std::string& id) {
  return "<" + operation + "Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><" +
         operation + "Result><AssumedRoleUser><Arn>arn</Arn></AssumedRoleUser><Credentials>" +
         "<AccessKeyId>" + id + "</AccessKeyId><SecretAccessKey>" + canary +
         "</SecretAccessKey><SessionToken>token</SessionToken><Expiration>" +
         "2026-11-21T02:20:00.123456Z</Expiration></Credentials></" + operation + "Result></" +
         operation + "Response>";
}
std::string sts_error(const std::string& code) {
  return "<ErrorResponse><Error><Type>Sender</Type><Code>" + code +
         "</Code><Message>no</Message></Error></ErrorResponse>";
}

class SourcesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto memory = std::make_unique<MemoryTransport>();
    http_ = memory.get();
    parts_.http = std::make_shared<BlockingHttp>(std::move(memory));
    parts_.now = [] { return now; };
    parts_.pause = [this](std::chrono::milliseconds time) {
      pauses_.push_back(time);
      return true;
    };
  }

  using Factory = std::unique_ptr<CredentialsProvider> (*)(SourceParts);
  Credentials taken(Factory source) {
    SourceResult result = source(parts_)->get(true);
    auto* const credentials = std::get_if<Credentials>(&result);
    EXPECT_NE(credentials, nullptr) << message_of(result);
    return credentials == nullptr ? Credentials() : std::move(*credentials);
  }
  /// The error's message; never with the value.
  std::string error(Factory source) {
    const SourceResult result = source(parts_)->get(true);
    EXPECT_TRUE(std::holds_alternative<CredentialsError>(result)) << message_of(result);
    EXPECT_EQ(message_of(result).find(canary), std::string::npos);
    return message_of(result);
  }
  std::string absent(Factory source) {
    const SourceResult result = source(parts_)->get(true);
    const auto* const absence = std::get_if<NotConfigured>(&result);
    EXPECT_NE(absence, nullptr) << message_of(result);
    return absence == nullptr ? std::string() : absence->reason;
  }
  bool pending(Factory source) {
    const SourceResult result = source(parts_)->get(false);
    const auto* const error = std::get_if<CredentialsError>(&result);
    return error != nullptr && error->pending && http_->requests().empty();
  }
  static std::string message_of(const SourceResult& result) {
    if (const auto* const error = std::get_if<CredentialsError>(&result)) return error->message;
    const auto* const absence = std::get_if<NotConfigured>(&result);
    return absence == nullptr ? "credentials" : "not configured: " + absence->reason;
  }
  void script(int status, std::string body, std::vector<HttpHeader> headers = {}) {
    http_->script(MemoryTransport::answered(status, std::move(body), std::move(headers)));
  }
  const HttpRequest& request(std::size_t index = 0) const { return http_->requests().at(index); }
  std::string header(std::string_view name, std::size_t index = 0) const {
    return std::string(find_header(request(index).headers, name));
  }

  testing::TemporaryDirectory directory_;
  MemoryTransport* http_ = nullptr;
  SourceParts parts_;
  std::vector<std::chrono::milliseconds> pauses_;

  const std::string shared_ = directory_.path("credentials");
  const std::string config_ = directory_.path("config");
  const std::string home_ = directory_.path("");
  ScopedVariable home_variable_{"HOME", home_.c_str()};
  ScopedVariable config_file_{"AWS_CONFIG_FILE", config_.c_str()};
  ScopedVariable credentials_file_{"AWS_SHARED_CREDENTIALS_FILE", shared_.c_str()};
  ScopedVariable region_{"AWS_REGION", "eu-west-1"};
  ScopedVariable id_{"AWS_ACCESS_KEY_ID", nullptr};
  ScopedVariable secret_{"AWS_SECRET_ACCESS_KEY", nullptr};
  ScopedVariable token_{"AWS_SESSION_TOKEN", nullptr};
  ScopedVariable profile_{"AWS_PROFILE", nullptr};
  ScopedVariable endpoint_{"AWS_ENDPOINT_URL", nullptr};
  ScopedVariable role_{"AWS_ROLE_ARN", nullptr};
  ScopedVariable web_identity_{"AWS_WEB_IDENTITY_TOKEN_FILE", nullptr};
  ScopedVariable session_{"AWS_ROLE_SESSION_NAME", nullptr};
  ScopedVariable relative_{"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", nullptr};
  ScopedVariable full_{"AWS_CONTAINER_CREDENTIALS_FULL_URI", nullptr};
  ScopedVariable container_token_{"AWS_CONTAINER_AUTHORIZATION_TOKEN", nullptr};
  ScopedVariable container_file_{"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", nullptr};
  ScopedVariable imds_off_{"AWS_EC2_METADATA_DISABLED", nullptr};
  ScopedVariable imds_{"AWS_EC2_METADATA_SERVICE_ENDPOINT", nullptr};
  ScopedVariable imds_mode_{"AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", nullptr};
};

// ---- Documents ----

TEST(TimeTest, IsReadInEveryFormThatServicesWrite) {
  EXPECT_EQ(parse_time("2026-11-21T01:20:00Z"), now);
  EXPECT_EQ(parse_time("2026-11-21T01:20:00.123456Z"), now);
  EXPECT_EQ(parse_time("2026-11-21T02:20:00+01:00"), now);
  EXPECT_EQ(parse_time("2026-11-20T23:50:00-01:30"), now);
  EXPECT_EQ(parse_time("1970-01-01T00:00:00Z"), Time());
  EXPECT_EQ(parse_time("2028-02-29T00:00:00Z"), Time(std::chrono::seconds(1'835'395'200)));
  for (const char* const bad :
       {"", "2026-11-21", "2026-11-21T01:20:00", "2026-11-21T01:20:00X", "2026-13-21T01:20:00Z",
        "2026-02-29T01:20:00Z", "2026-11-21T24:20:00Z", "2026-11-21T01:60:00Z", "soon",
        "2026-11-21T01:20:00.Z", "2026-11-21T01:20:00+1:00", "2026-11-21T01:20:00+24:00",
        "+026-11-21T01:20:00Z", "9999-11-21T01:20:00Z", "2026-11-21T-1:20:00Z",
        "2026-11-21T01:20:00ZZ"}) {
    EXPECT_EQ(parse_time(bad), std::nullopt) << bad;
  }
}

TEST(DocumentTest, NamesWhatIsWrongAndNeverTheValue) {
  struct Case {
    const char* text;
    const char* says;
  };
  for (const auto& [text, says] : {
           Case{"", "not a JSON object"},
           Case{"[]", "not a JSON object"},
           Case{R"({"AccessKeyId":"A","SecretAccessKey":"canary-)", "not a JSON object"},
           Case{R"({"SecretAccessKey":"canary-secret"})", "no access key id"},
           Case{R"({"AccessKeyId":"A"})", "no secret access key"},
           Case{R"({"AccessKeyId":"A","SecretAccessKey":7})", "no secret access key"},
           Case{R"({"AccessKeyId":"A","SecretAccessKey":"canary-secret\n"})", "secret access key"},
           Case{R"({"AccessKeyId":"A","SecretAccessKey":"canary-secret","SessionToken":"a b"})",
                "session token"},
           Case{R"({"AccessKeyId":"A","SecretAccessKey":"canary-secret","Expiration":"soon"})",
                "expiration"},
           Case{R"({"AccessKeyId":"A","SecretAccessKey":"canary-secret","Expiration":12})",
                "expiration"},
       }) {
    std::string body = text;
    const SourceResult result = credentials_from_json("program", body, process_members);
    const auto* const error = std::get_if<CredentialsError>(&result);
    ASSERT_NE(error, nullptr) << text;
    EXPECT_EQ(error->message.rfind("program: ", 0), 0U);
    EXPECT_NE(error->message.find(says), std::string::npos) << error->message;
    EXPECT_EQ(error->message.find(canary), std::string::npos);
    EXPECT_TRUE(body.empty()) << "the text is wiped";
  }
  std::string body = R"({"AccessKeyId":"A","SecretAccessKey":"s","Expiration":null})";
  EXPECT_EQ(std::get<Credentials>(credentials_from_json("", body, process_members)).expiration,
            std::nullopt);
}

// ---- Assumed roles ----

TEST_F(SourcesTest, ARoleIsAssumedWithTheKeysOfItsSource) {
  directory_.write("config",
                   "[default]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = base\n"
                   "external_id = a b\nduration_seconds = 900\nrole_session_name = shop@1\n"
                   "[profile base]\naws_access_key_id = BASE\naws_secret_access_key = s\n");
  EXPECT_TRUE(pending(assume_role_credentials)) << "nobody waits who must not";
  script(200, sts_answer("AssumeRole", "ROLE"));
  const Credentials credentials = taken(assume_role_credentials);
  EXPECT_EQ(credentials.access_key_id, "ROLE");
  EXPECT_EQ(credentials.secret_access_key, canary);
  EXPECT_EQ(credentials.session_token, "token");
  EXPECT_EQ(credentials.expiration, expiration);
  EXPECT_EQ(request().origin, "https://sts.eu-west-1.amazonaws.com");
  EXPECT_EQ(request().body,
            "Action=AssumeRole&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fr&"
            "RoleSessionName=shop%401&ExternalId=a%20b&DurationSeconds=900");
  EXPECT_NE(header("Authorization").find("Credential=BASE/20261121/eu-west-1/sts/aws4_request"),
            std::string::npos);
}

TEST_F(SourcesTest, RolesOfRolesAreAssumedOneAfterTheOther) {
  directory_.write("config",
                   "[profile a]\nrole_arn = arn:aws:iam::1:role/a\nsource_profile = b\n"
                   "[profile b]\nrole_arn = arn:aws:iam::1:role/b\nsource_profile = b\n"
                   "aws_access_key_id = BASE\naws_secret_access_key = s\n");
  const ScopedVariable named("AWS_PROFILE", "a");
  script(200, sts_answer("AssumeRole", "ONE"));
  script(200, sts_answer("AssumeRole", "TWO"));
  EXPECT_EQ(taken(assume_role_credentials).access_key_id, "TWO");
  EXPECT_NE(header("Authorization", 0).find("Credential=BASE/"), std::string::npos);
  EXPECT_NE(header("Authorization", 1).find("Credential=ONE/"), std::string::npos);
  EXPECT_EQ(header("X-Amz-Security-Token", 1), "token");
}

TEST_F(SourcesTest, WhatIsWrongWithARoleIsSaidWithoutARequest) {
  struct Case {
    const char* config;
    const char* says;
  };
  for (const auto& [config, says] : {
           Case{"role_arn = arn:aws:iam::1:role/r\n", "source_profile or credential_source"},
           Case{"role_arn = arn:aws:iam::1:role/r\nsource_profile = a\ncredential_source = b\n",
                "both"},
           Case{"role_arn = arn:aws:iam::1:role/r\nsource_profile = nowhere\n", "'nowhere'"},
           Case{"role_arn = arn:aws:iam::1:role/r\nsource_profile = loop\n"
                "[profile loop]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = default\n",
                "circle"},
           Case{
               "role_arn = arn:aws:iam::1:role/r\nsource_profile = empty\n[profile empty]\na = b\n",
               "no role_arn, aws_access_key_id"},
           Case{"role_arn = arn:aws:iam::1:role/r\ncredential_source = Moon\n", "'Moon'"},
           Case{"role_arn = arn:aws:iam::1:role/r\ncredential_source = Environment\n",
                "AWS_ACCESS_KEY_ID is not set"},
           Case{"role_arn = r\nsource_profile = default\naws_access_key_id = A\n"
                "aws_secret_access_key = canary-secret\n",
                "of the form arn:aws:iam"},
           Case{"role_arn = arn:aws:iam::1:role/r\nsource_profile = default\n"
                "aws_access_key_id = A\naws_secret_access_key = canary-secret\n"
                "duration_seconds = 899\n",
                "900 to 43200"},
           Case{"role_arn = arn:aws:iam::1:role/r\nsource_profile = default\n"
                "aws_access_key_id = A\naws_secret_access_key = canary-secret\n"
                "role_session_name = a b\n",
                "session name"},
           Case{"role_arn = arn:aws:iam::1:role/r\nmfa_serial = m\nsource_profile = default\n",
                "mfa_serial"},
       }) {
    directory_.write("config", "[default]\n" + std::string(config));
    const std::string message = error(assume_role_credentials);
    EXPECT_NE(message.find(says), std::string::npos) << message;
    EXPECT_NE(message.find("profile '"), std::string::npos) << message;
  }
  EXPECT_TRUE(http_->requests().empty());
}

TEST_F(SourcesTest, ARoleNeedsARegionForSts) {
  const ScopedVariable no_region("AWS_REGION", nullptr);
  const ScopedVariable no_default("AWS_DEFAULT_REGION", nullptr);
  const ScopedVariable id("AWS_ACCESS_KEY_ID", "A");
  const ScopedVariable secret("AWS_SECRET_ACCESS_KEY", "s");
  directory_.write(
      "config", "[default]\nrole_arn = arn:aws:iam::1:role/r\ncredential_source = Environment\n");
  EXPECT_NE(error(assume_role_credentials).find("AWS_REGION"), std::string::npos);
  parts_.region = "eu-west-3";  // The engine's own setting.
  script(200, sts_answer("AssumeRole", "ROLE"));
  EXPECT_EQ(taken(assume_role_credentials).access_key_id, "ROLE");
  EXPECT_EQ(request().origin, "https://sts.eu-west-3.amazonaws.com");
}

TEST_F(SourcesTest, StsIsAskedAgainOnlyWhereThatHelps) {
  const ScopedVariable id("AWS_ACCESS_KEY_ID", "A");
  const ScopedVariable secret("AWS_SECRET_ACCESS_KEY", canary);
  directory_.write(
      "config", "[default]\nrole_arn = arn:aws:iam::1:role/r\ncredential_source = Environment\n");
  script(400, sts_error("Throttling"));
  http_->script(MemoryTransport::failed(HttpOutcome::lost));
  script(200, sts_answer("AssumeRole", "ROLE"));
  EXPECT_EQ(taken(assume_role_credentials).access_key_id, "ROLE");
  EXPECT_EQ(pauses_.size(), 2U);
  http_->forget_requests();
  script(403, sts_error("AccessDenied"));
  EXPECT_NE(error(assume_role_credentials).find("403 AccessDenied"), std::string::npos);
  EXPECT_EQ(http_->requests().size(), 1U);
  http_->forget_requests();
  for (int i = 0; i < 3; ++i) script(500, "");
  EXPECT_NE(error(assume_role_credentials).find("answered 500"), std::string::npos);
  EXPECT_EQ(http_->requests().size(), 3U);
}

TEST_F(SourcesTest, AClockThatIsOffIsCorrectedForSts) {
  const ScopedVariable id("AWS_ACCESS_KEY_ID", "A");
  const ScopedVariable secret("AWS_SECRET_ACCESS_KEY", canary);
  directory_.write(
      "config", "[default]\nrole_arn = arn:aws:iam::1:role/r\ncredential_source = Environment\n");
  script(403, sts_error("SignatureDoesNotMatch"), {{"Date", "Sat, 21 Nov 2026 03:20:00 GMT"}});
  script(200, sts_answer("AssumeRole", "ROLE"));
  EXPECT_EQ(taken(assume_role_credentials).access_key_id, "ROLE");
  EXPECT_EQ(header("X-Amz-Date", 0), "20261121T012000Z");
  EXPECT_EQ(header("X-Amz-Date", 1), "20261121T032000Z");
  EXPECT_TRUE(pauses_.empty());
}

// ---- Web identity ----

TEST_F(SourcesTest, AWebIdentityIsSentUnsignedAndReadAtEachFetch) {
  const std::string file = directory_.write("token", "first.token\n");
  const ScopedVariable token("AWS_WEB_IDENTITY_TOKEN_FILE", file.c_str());
  const ScopedVariable role("AWS_ROLE_ARN", "arn:aws:iam::1:role/pod");
  EXPECT_TRUE(pending(web_identity_credentials));
  script(200, sts_answer("AssumeRoleWithWebIdentity", "POD"));
  EXPECT_EQ(taken(web_identity_credentials).access_key_id, "POD");
  EXPECT_EQ(header("Authorization"), "");
  EXPECT_EQ(request().origin, "https://sts.eu-west-1.amazonaws.com");
  EXPECT_EQ(request().body,
            "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A1%"
            "3Arole%2Fpod&RoleSessionName=spillway-1795224000&WebIdentityToken=first.token");
  directory_.write("token", "second.token");
  // The provider of the identity was slow to answer STS.
  script(400, sts_error("IDPCommunicationError"));
  script(200, sts_answer("AssumeRoleWithWebIdentity", "POD"));
  EXPECT_EQ(taken(web_identity_credentials).access_key_id, "POD");
  EXPECT_NE(request(2).body.find("second.token"), std::string::npos);
}

TEST_F(SourcesTest, AWebIdentityThatIsIncompleteIsAnError) {
  const ScopedVariable token("AWS_WEB_IDENTITY_TOKEN_FILE", "/nonexistent");
  EXPECT_NE(error(web_identity_credentials).find("AWS_ROLE_ARN"), std::string::npos);
  const ScopedVariable role("AWS_ROLE_ARN", "arn:aws:iam::1:role/pod");
  EXPECT_NE(error(web_identity_credentials).find("/nonexistent"), std::string::npos);
  const std::string file = directory_.write("token", "abc\n");
  const ScopedVariable empty("AWS_WEB_IDENTITY_TOKEN_FILE", file.c_str());
  EXPECT_NE(error(web_identity_credentials).find("4 to 20000"), std::string::npos);
  EXPECT_TRUE(http_->requests().empty());
}

TEST_F(SourcesTest, AWebIdentityMayBeTheProfilesOrTheSourceOfARole) {
  const std::string file = directory_.write("token", "a.token");
  directory_.write("config",
                   "[profile web]\nrole_arn = arn:aws:iam::1:role/web\nrole_session_name = me\n"
                   "web_identity_token_file = " +
                       file +
                       "\n[profile top]\nrole_arn = arn:aws:iam::1:role/top\nsource_profile = "
                       "web\n");
  {
    const ScopedVariable named("AWS_PROFILE", "web");
    EXPECT_NE(absent(assume_role_credentials).find("no role_arn to assume"), std::string::npos);
    script(200, sts_answer("AssumeRoleWithWebIdentity", "WEB"));
    EXPECT_EQ(taken(web_identity_credentials).access_key_id, "WEB");
    EXPECT_NE(request().body.find("RoleSessionName=me"), std::string::npos);
  }
  const ScopedVariable named("AWS_PROFILE", "top");
  script(200, sts_answer("AssumeRoleWithWebIdentity", "WEB"));
  script(200, sts_answer("AssumeRole", "TOP"));
  EXPECT_EQ(taken(assume_role_credentials).access_key_id, "TOP");
  EXPECT_NE(header("Authorization", 2).find("Credential=WEB/"), std::string::npos);
}

// ---- SSO ----

class SsoTest : public SourcesTest {
 protected:
  static constexpr const char* profile =
      "[default]\nsso_session = corp\nsso_account_id = 123456789012\nsso_role_name = Dev Ops\n"
      "[sso-session corp]\nsso_region = eu-central-1\nsso_start_url = https://corp/start\n";
  // SHA-1 of "corp".
  static constexpr const char* cached = "cache/ee0bfd2552fbd840c02cc48b6e823320543c450f.json";
  void cache(const std::string& text, std::string_view name = "") {
    const std::string folder = directory_.path(".aws/sso/cache");
    std::filesystem::create_directories(folder);
    directory_.write(".aws/sso/" + std::string(name.empty() ? cached : name), text);
  }
  static std::string file(const char* expires) {
    return R"({"accessToken":"canary-secret","expiresAt":")" + std::string(expires) + "\"}";
  }
};

TEST_F(SsoTest, TheTokenOfTheLastLoginGetsTheRole) {
  directory_.write("config", profile);
  EXPECT_TRUE(pending(profile_credentials));
  cache(file(expiration_text));
  script(200, R"({"roleCredentials":{"accessKeyId":"SSO","secretAccessKey":"canary-secret",)"
              R"("sessionToken":"t","expiration":1795227600000}})");
  const Credentials credentials = taken(profile_credentials);
  EXPECT_EQ(credentials.access_key_id, "SSO");
  EXPECT_EQ(credentials.expiration, expiration);
  EXPECT_EQ(request().origin, "https://portal.sso.eu-central-1.amazonaws.com");
  EXPECT_EQ(request().method, "GET");
  EXPECT_EQ(request().path, "/federation/credentials");
  EXPECT_EQ(request().query, "role_name=Dev%20Ops&account_id=123456789012");
  EXPECT_EQ(header("x-amz-sso_bearer_token"), canary);
}

TEST_F(SsoTest, AnOldProfileNamesItsTokenByTheStartUrl) {
  directory_.write("config",
                   "[default]\nsso_start_url = https://corp/start\nsso_region = eu-central-1\n"
                   "sso_account_id = 1\nsso_role_name = r\n");
  EXPECT_NE(error(profile_credentials).find("aws sso login"), std::string::npos);
  // SHA-1 of the start URL.
  cache(file(expiration_text), "cache/717f6b50ccf65f10839b090b78b6ff0786091a96.json");
  script(403, R"({"message":"no"})");
  const std::string refused = error(profile_credentials);
  EXPECT_NE(refused.find("answered 403: no"), std::string::npos) << refused;
}

TEST_F(SsoTest, ATokenThatIsOldOrBrokenAsksForALogin) {
  directory_.write("config", profile);
  EXPECT_NE(error(profile_credentials).find("no SSO token"), std::string::npos);
  cache(file("2026-11-21T01:20:00Z"));
  EXPECT_NE(error(profile_credentials).find("has expired"), std::string::npos);
  cache(R"({"accessToken":"canary-secret","expiresAt":"2026-1)");
  EXPECT_NE(error(profile_credentials).find("not usable"), std::string::npos);
  directory_.write("config", "[default]\nsso_account_id = 1\nsso_session = nowhere\n");
  EXPECT_NE(error(profile_credentials).find("'nowhere'"), std::string::npos);
  directory_.write("config", "[default]\nsso_account_id = 1\n");
  EXPECT_NE(error(profile_credentials).find("sso_role_name"), std::string::npos);
  EXPECT_TRUE(http_->requests().empty());
}

// ---- Programs ----

TEST(WordsTest, AreSplitAsAShellDoes) {
  const auto words = [](std::string_view text) {
    const auto split = split_words(text);
    std::string result;
    for (const std::string& word : split.value_or(std::vector<std::string>{"?"})) {
      result += "[" + word + "]";
    }
    return result;
  };
  EXPECT_EQ(words(""), "");
  EXPECT_EQ(words("  a  b\tc "), "[a][b][c]");
  EXPECT_EQ(words("a 'b c' \"d e\""), "[a][b c][d e]");
  EXPECT_EQ(words("a'b'c\"d\" ''"), "[abcd][]");
  EXPECT_EQ(words("a\\ b '\\' \"\\\"\\x\""), "[a b][\\][\"\\x]");
  EXPECT_EQ(words("$HOME `x` a;b|c"), "[$HOME][`x`][a;b|c]");
  EXPECT_EQ(words("'a"), "[?]");
  EXPECT_EQ(words("a\\"), "[?]");
}

TEST_F(SourcesTest, AProgramPrintsCredentials) {
  // The arguments arrive as words, and nothing in them is replaced.
  const std::string script =
      directory_.write("print",
                       "#!/bin/sh\necho '{\"Version\":1,\"AccessKeyId\":\"'$#-\"$2\"'\",'\n"
                       "echo '\"SecretAccessKey\":\"s\",\"SessionToken\":\"t\",'\n"
                       "echo '\"Expiration\":\"2026-11-21T02:20:00Z\"}'\n");
  directory_.write("config", "[default]\ncredential_process = sh " + script + " 'a b' \"$HOME\"\n");
  EXPECT_TRUE(pending(profile_credentials));
  const Credentials credentials = taken(profile_credentials);
  EXPECT_EQ(credentials.access_key_id, "2-$HOME");
  EXPECT_EQ(credentials.session_token, "t");
  EXPECT_EQ(credentials.expiration, expiration);
}

TEST_F(SourcesTest, AProgramThatFailsIsAnErrorWithItsWords) {
  const auto says = [&](const std::string& command) {
    directory_.write("config", "[default]\ncredential_process = " + command + "\n");
    return error(profile_credentials);
  };
  EXPECT_NE(says("/nonexistent/program").find("No such file"), std::string::npos);
  EXPECT_NE(says("sh -c 'echo {}; echo log in first >&2; exit 3'").find("status 3: log in first"),
            std::string::npos);
  EXPECT_NE(says("sh -c 'kill -9 $$'").find("signal 9"), std::string::npos);
  EXPECT_NE(says("echo canary-secret").find("not a JSON object"), std::string::npos);
  EXPECT_NE(says("echo '{\"Version\":2}'").find("Version must be 1"), std::string::npos);
  EXPECT_NE(says("echo 'a").find("quote"), std::string::npos);
  EXPECT_NE(says("head -c 1000000 /dev/zero").find("prints too much"), std::string::npos);
}

TEST(ProcessTest, EndsWithItsChildrenWhenItIsStopped) {
  int asked = 0;
  const ProcessResult run =
      run_process({"sh", "-c", "sleep 600 & wait"}, 600s, [&] { return ++asked > 2; });
  EXPECT_FALSE(run.succeeded);
  EXPECT_EQ(run.error, "'sh' was stopped");
  const ProcessResult late = run_process({"sleep", "600"}, 0s, [] { return false; });
  EXPECT_EQ(late.error, "'sleep' does not end in time");
}

TEST(ProcessTest, HasNoInputAndNoSignalBlockedOrIgnored) {
  const auto before = std::signal(SIGPIPE, SIG_IGN);
  const ProcessResult run =
      run_process({"sh", "-c", "cat; cat /proc/self/status"}, 60s, [] { return false; });
  std::signal(SIGPIPE, before);
  EXPECT_TRUE(run.succeeded) << run.error;
  const auto mask = [&](const std::string& name) {
    const std::size_t at = run.output.find(name + ":");
    return at == std::string::npos ? ~0ULL : std::stoull(run.output.substr(at + 8), nullptr, 16);
  };
  // Two above the ordinary ones are the C library's own.
  EXPECT_EQ(mask("SigBlk") & 0x7fffffff, 0U);
  EXPECT_EQ(mask("SigIgn") & 0x7fffffff, 0U);
}

// ---- Container ----

TEST_F(SourcesTest, AContainersRelativeUriIsOfTheContainerService) {
  EXPECT_NE(absent(container_credentials).find("not set"), std::string::npos);
  const ScopedVariable relative("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/creds?id=1");
  const ScopedVariable full("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1/never");
  const ScopedVariable token("AWS_CONTAINER_AUTHORIZATION_TOKEN", "Basic canary-secret");
  EXPECT_TRUE(pending(container_credentials));
  script(200, metadata_answer("TASK"));
  const Credentials credentials = taken(container_credentials);
  EXPECT_EQ(credentials.access_key_id, "TASK");
  EXPECT_EQ(credentials.session_token, "t/k");
  EXPECT_EQ(credentials.expiration, expiration);
  EXPECT_EQ(request().method, "GET");
  EXPECT_EQ(request().origin, "http://169.254.170.2");
  EXPECT_EQ(request().address, "169.254.170.2") << "past any proxy";
  EXPECT_EQ(request().path + "?" + request().query, "/v2/creds?id=1");
  EXPECT_EQ(header("Authorization"), "Basic canary-secret");
}

TEST_F(SourcesTest, AContainersFullUriIsHttpsOrThisMachinesOrTheServicesOwn) {
  struct Case {
    const char* uri;
    const char* address;  ///< null: refused
  };
  for (const auto& [uri, address] : {
           Case{"http://127.0.0.1:8080/x", "127.0.0.1"},
           Case{"http://127.9.9.9/x", "127.9.9.9"},
           Case{"http://[::1]:8080/x", "::1"},
           Case{"http://[::ffff:127.0.0.1]/x", "127.0.0.1"},
           Case{"http://169.254.170.2/x", "169.254.170.2"},
           Case{"http://169.254.170.23/v1/credentials", "169.254.170.23"},
           Case{"http://[fd00:ec2::23]/v1/credentials", "fd00:ec2::23"},
           Case{"http://[FD00:EC2:0:0::23]/v1/credentials", "fd00:ec2::23"},
           Case{"https://creds.example.com/x", ""},
           Case{"http://169.254.169.254/x", nullptr},
           Case{"http://10.0.0.1/x", nullptr},
           Case{"http://128.0.0.1/x", nullptr},
           Case{"http://[::ffff:10.0.0.1]/x", nullptr},
           Case{"http://[fd00:ec2::24]/x", nullptr},
           Case{"http://0.0.0.0/x", nullptr},
           Case{"http://0x7f.1/x", nullptr},
           Case{"http://2130706433/x", nullptr},
           Case{"http://127.1/x", nullptr},
           Case{"http://0177.0.0.1/x", nullptr},
           Case{"http://user@127.0.0.1/x", nullptr},
           Case{"http://127.0.0.1@evil.example/x", nullptr},
           Case{"http://127.0.0.1.evil.invalid/x", nullptr},
           Case{"ftp://127.0.0.1/x", nullptr},
           Case{"127.0.0.1/x", nullptr},
       }) {
    http_->forget_requests();
    const ScopedVariable full("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri);
    if (address == nullptr) {
      EXPECT_NE(error(container_credentials).find("AWS_CONTAINER_CREDENTIALS_FULL_URI"),
                std::string::npos)
          << uri;
      EXPECT_TRUE(http_->requests().empty()) << uri;
      continue;
    }
    script(200, metadata_answer("TASK"));
    EXPECT_EQ(taken(container_credentials).access_key_id, "TASK") << uri;
    EXPECT_EQ(request().address, address) << uri;
  }
  const ScopedVariable named("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://localhost:1/x");
  http_->forget_requests();
  script(200, metadata_answer("TASK"));
  EXPECT_EQ(taken(container_credentials).access_key_id, "TASK");
  EXPECT_EQ(request().origin, "http://localhost:1");
  EXPECT_TRUE(request().address == "127.0.0.1" || request().address == "::1");
}

TEST_F(SourcesTest, AContainersTokenFileWinsAndIsReadEachTime) {
  const ScopedVariable relative("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/creds");
  const ScopedVariable token("AWS_CONTAINER_AUTHORIZATION_TOKEN", "not-this");
  const std::string file = directory_.write("pod-token", "first\n");
  const ScopedVariable named("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file.c_str());
  script(200, metadata_answer("TASK"));
  taken(container_credentials);
  EXPECT_EQ(header("Authorization"), "first");
  directory_.write("pod-token", "second");
  script(200, metadata_answer("TASK"));
  taken(container_credentials);
  EXPECT_EQ(header("Authorization", 1), "second");
  directory_.write("pod-token", "canary-secret\nX-Header: smuggled");
  EXPECT_NE(error(container_credentials).find("line break"), std::string::npos);
  const ScopedVariable missing("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/nonexistent");
  EXPECT_NE(error(container_credentials).find("/nonexistent"), std::string::npos);
  EXPECT_EQ(http_->requests().size(), 2U);
}

TEST_F(SourcesTest, AContainerIsAskedThreeTimesWithASecondBetween) {
  const ScopedVariable relative("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/creds");
  script(500, "");
  script(200, "{half");
  script(200, metadata_answer("TASK"));
  EXPECT_EQ(taken(container_credentials).access_key_id, "TASK");
  EXPECT_EQ(pauses_, (std::vector<std::chrono::milliseconds>{1s, 1s}));
  http_->set_answer([](const HttpRequest&) { return MemoryTransport::answered(404, canary); });
  EXPECT_NE(error(container_credentials).find("answered 404"), std::string::npos);
  EXPECT_EQ(http_->requests().size(), 6U);
  const ScopedVariable bad("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "creds");
  EXPECT_NE(error(container_credentials).find("begin with /"), std::string::npos);
}

TEST_F(SourcesTest, AContainerAnswersOverARealConnection) {
  testing::RawServer server([](const std::string&, const testing::RawServer::Connection& to) {
    to.send(testing::http_answer(200, metadata_answer("TASK")));
    return true;
  });
  parts_.http = std::make_shared<BlockingHttp>();
  const std::string uri = server.origin() + "/v1/creds";
  const ScopedVariable full("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri.c_str());
  const ScopedVariable proxy("http_proxy", "http://127.0.0.1:1");
  EXPECT_EQ(taken(container_credentials).access_key_id, "TASK");
  EXPECT_EQ(server.requests().at(0).rfind("GET /v1/creds HTTP/1.1\r\n", 0), 0U);
}

// ---- Instance ----

TEST_F(SourcesTest, AnInstanceIsAskedInVersionTwo) {
  EXPECT_TRUE(pending(instance_credentials));
  script(200, "the-token");
  script(200, "web-role\n");
  script(200, metadata_answer("INSTANCE"));
  const Credentials credentials = taken(instance_credentials);
  EXPECT_EQ(credentials.access_key_id, "INSTANCE");
  EXPECT_EQ(credentials.expiration, expiration);
  EXPECT_EQ(request(0).method, "PUT");
  EXPECT_EQ(request(0).origin, "http://169.254.169.254");
  EXPECT_EQ(request(0).address, "169.254.169.254");
  EXPECT_EQ(request(0).path, "/latest/api/token");
  EXPECT_EQ(header("x-aws-ec2-metadata-token-ttl-seconds", 0), "21600");
  EXPECT_EQ(request(1).path, "/latest/meta-data/iam/security-credentials/");
  EXPECT_EQ(request(2).path, "/latest/meta-data/iam/security-credentials/web-role");
  EXPECT_EQ(header("x-aws-ec2-metadata-token", 2), "the-token");
  EXPECT_TRUE(instance_credentials(parts_)->outlives_expiration());
}

TEST_F(SourcesTest, AnInstanceIsNeverAskedInVersionOne) {
  for (const int status : {403, 404, 405}) {
    http_->forget_requests();
    script(status, "");
    EXPECT_NE(absent(instance_credentials).find(std::to_string(status)), std::string::npos);
    EXPECT_EQ(http_->requests().size(), 1U);
  }
  http_->script(MemoryTransport::failed(HttpOutcome::not_connected));
  EXPECT_NE(absent(instance_credentials).find("does not answer"), std::string::npos);
  script(400, "");
  EXPECT_NE(error(instance_credentials).find("answered 400"), std::string::npos);
}

TEST_F(SourcesTest, AnInstanceWithoutARoleOrWithABrokenOne) {
  script(200, "the-token");
  script(404, "");
  EXPECT_EQ(absent(instance_credentials), "the instance has no role");
  script(200, "the-token");
  script(200, "role");
  script(200, R"({"Code":"AssumeRoleUnauthorizedAccess","Message":"canary-secret"})");
  EXPECT_NE(error(instance_credentials).find("AssumeRoleUnauthorizedAccess"), std::string::npos);
  script(200, "the-token");
  script(200, "role");
  script(200, R"({"Code":"Success","AccessKeyId":"A","SecretAccessKey":"canary-secret"})");
  EXPECT_NE(error(instance_credentials).find("no expiration"), std::string::npos);
  script(200, "the-token");
  script(500, "");
  EXPECT_NE(error(instance_credentials).find("answered 500"), std::string::npos);
}

TEST_F(SourcesTest, WhereTheInstancesServiceIsCanBeSaid) {
  const auto origin = [&] {
    http_->forget_requests();
    http_->script(MemoryTransport::failed(HttpOutcome::not_connected));
    absent(instance_credentials);
    return http_->requests().empty() ? "" : request().origin + request().path;
  };
  directory_.write("config",
                   "[default]\nec2_metadata_service_endpoint = http://127.0.0.1:7/base/\n"
                   "ec2_metadata_service_endpoint_mode = IPv6\n");
  EXPECT_EQ(origin(), "http://127.0.0.1:7/base/latest/api/token");
  directory_.write("config", "[default]\nec2_metadata_service_endpoint_mode = IPv6\n");
  EXPECT_EQ(origin(), "http://[fd00:ec2::254]/latest/api/token");
  const ScopedVariable mode("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "IPv4");
  EXPECT_EQ(origin(), "http://169.254.169.254/latest/api/token");
  const ScopedVariable endpoint("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9");
  EXPECT_EQ(origin(), "http://127.0.0.1:9/latest/api/token");
  http_->forget_requests();
  const ScopedVariable attempts("AWS_METADATA_SERVICE_NUM_ATTEMPTS", "3");
  for (int i = 0; i < 3; ++i) http_->script(MemoryTransport::failed(HttpOutcome::lost));
  absent(instance_credentials);
  EXPECT_EQ(http_->requests().size(), 3U);
  const ScopedVariable off("AWS_EC2_METADATA_DISABLED", "TRUE");
  EXPECT_NE(absent(instance_credentials).find("AWS_EC2_METADATA_DISABLED"), std::string::npos);
}

TEST_F(SourcesTest, AMetadataServiceThatHangsIsLeftAtItsTimeOut) {
  testing::RawServer server([](const std::string&, const testing::RawServer::Connection& to) {
    to.wait_for_the_end();
    return false;
  });
  parts_.http = std::make_shared<BlockingHttp>();
  const ScopedVariable endpoint("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.origin().c_str());
  EXPECT_NE(absent(instance_credentials).find("does not answer"), std::string::npos);
}

// ---- The whole chain ----

TEST_F(SourcesTest, TheChainAsksInItsOrder) {
  auto memory = std::make_unique<MemoryTransport>();
  MemoryTransport& http = *memory;
  const auto chain =
      default_credentials_chain({.background = false, .draw = {}}, std::move(memory));
  Time at = now;
  const auto found = [&] {
    at += 24h;  // What was found before has expired.
    const CredentialsResult result = chain->get(at);
    const auto* const good = std::get_if<std::shared_ptr<const Credentials>>(&result);
    return good == nullptr ? std::get<CredentialsError>(result).message : (*good)->access_key_id;
  };
  http.set_answer(
      [](const HttpRequest&) { return MemoryTransport::failed(HttpOutcome::not_connected); });
  const std::string message = found();
  for (const char* const reason :
       {"AWS_ACCESS_KEY_ID", "profile 'default'", "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS", "metadata service"}) {
    EXPECT_NE(message.find(reason), std::string::npos) << message;
  }
  // From the last source to the first.
  const auto answer = [&](const std::string& id, int hours) {
    const auto day = std::chrono::floor<std::chrono::days>(at + 24h + std::chrono::hours(hours));
    const std::chrono::year_month_day date(day);
    const auto two = [](unsigned n) { return (n < 10 ? "0" : "") + std::to_string(n); };
    return R"({"Code":"Success","AccessKeyId":")" + id +
           R"(","SecretAccessKey":"s","Token":"t","Expiration":")" +
           std::to_string(static_cast<int>(date.year())) + "-" +
           two(static_cast<unsigned>(date.month())) + "-" + two(static_cast<unsigned>(date.day())) +
           "T02:00:00Z\"}";
  };
  http.script(MemoryTransport::answered(200, "token"));
  http.script(MemoryTransport::answered(200, "role"));
  http.script(MemoryTransport::answered(200, answer("INSTANCE", 1)));
  EXPECT_EQ(found(), "INSTANCE");
  const ScopedVariable relative("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/x");
  http.script(MemoryTransport::answered(200, answer("CONTAINER", 1)));
  EXPECT_EQ(found(), "CONTAINER");
}

TEST(HostLookupTest, AddressesStandForThemselvesAndTheRestIsAsked) {
  BlockingHttp stop(std::make_unique<MemoryTransport>());
  EXPECT_EQ(look_up("192.0.2.1", 1s, stop).addresses, std::vector<std::string>{"192.0.2.1"});
  EXPECT_EQ(look_up("[2001:db8::1]", 1s, stop).addresses, std::vector<std::string>{"2001:db8::1"});
  EXPECT_EQ(look_up("[::ffff:192.0.2.1]", 1s, stop).addresses,
            std::vector<std::string>{"192.0.2.1"});
  EXPECT_FALSE(look_up("localhost", 60s, stop).addresses.empty());
  EXPECT_FALSE(is_ip_address("127.1"));
  EXPECT_FALSE(is_ip_address("0x7f.1"));
  EXPECT_FALSE(is_ip_address(""));
  EXPECT_FALSE(is_ip_address("[127.0.0.1]"));
  EXPECT_TRUE(is_ip_address("[::1]"));
  stop.stop();
  const HostAddresses stopped = look_up("name.invalid", 600s, stop);
  EXPECT_TRUE(stopped.addresses.empty()) << "nobody waits for a resolver that does not answer";
}

}  // namespace
}  // namespace spillway::transport
