// SPDX-License-Identifier: Apache-2.0
//
// The ready-made checks against servers on loopback, scripted answers of AWS and directories in place
// of the kernel's files.
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>
#include <support/engine_fixture.hpp>
#include <support/raw_server.hpp>
#include <support/temporary_file.hpp>
#include <support/tls_server.hpp>

#include <spillway/middleware/health/checkers.hpp>

namespace spillway::middleware {
namespace {

using namespace std::chrono_literals;
using spillway::testing::RawServer;
using transport::MemoryTransport;

CheckResult run(const Check& check, std::chrono::milliseconds timeout = 10s) {
  const std::atomic<bool> stopping{false};
  return check(CheckRun(timeout, stopping));
}

TEST(CheckTcpTest, PassesWhenAConnectionStands) {
  const RawServer server([](const std::string&, const auto&) { return true; });
  EXPECT_EQ(run(check_tcp("127.0.0.1", server.port())).status, CheckStatus::pass);
  EXPECT_EQ(run(check_tcp("localhost", server.port())).status, CheckStatus::pass);
}

TEST(CheckTcpTest, FailsAtAClosedPortAndAnUnknownName) {
  std::uint16_t port = 0;
  {
    const RawServer server([](const std::string&, const auto&) { return true; });
    port = server.port();
  }
  const CheckResult closed = run(check_tcp("127.0.0.1", port));
  EXPECT_EQ(closed.status, CheckStatus::fail);
  EXPECT_NE(closed.output.find("refused"), std::string::npos) << closed.output;
  EXPECT_EQ(run(check_tcp("no name at all", 80), 1s).status, CheckStatus::fail);
  EXPECT_THROW(check_tcp("", 80), std::invalid_argument);
  EXPECT_THROW(check_tcp("host", 0), std::invalid_argument);
}

class CheckHttpTest : public ::testing::Test {
 protected:
  RawServer server{[this](const std::string& request, const RawServer::Connection& connection) {
    asked = request;
    connection.send(testing::http_answer(status, body));
    return true;
  }};
  int status = 200;
  std::string body = "all is well";
  std::string asked;
};

TEST_F(CheckHttpTest, AsksAndReadsTheAnswer) {
  const Check check = check_http(server.origin() + "/health?deep=1",
                                 {.headers = {{"X-Probe", "yes"}}, .body_contains = "well"});
  EXPECT_EQ(run(check).status, CheckStatus::pass);
  EXPECT_TRUE(asked.starts_with("GET /health?deep=1 HTTP/1.1\r\n")) << asked;
  EXPECT_NE(asked.find("X-Probe: yes"), std::string::npos);
  EXPECT_EQ(run(check).status, CheckStatus::pass) << "again, on the same connection";
  body = "all is lost";
  EXPECT_EQ(run(check).status, CheckStatus::fail);
  body = "well";
  status = 503;
  const CheckResult refused = run(check);
  EXPECT_EQ(refused.status, CheckStatus::fail);
  EXPECT_NE(refused.output.find("status 503"), std::string::npos) << refused.output;
}

TEST_F(CheckHttpTest, ARedirectIsNotFollowed) {
  status = 302;
  EXPECT_EQ(run(check_http(server.origin())).status, CheckStatus::fail);
  EXPECT_EQ(run(check_http(server.origin(), {.status_max = 399})).status, CheckStatus::pass);
}

TEST(CheckHttpOptionsTest, RefusesWhatCannotWork) {
  EXPECT_THROW(check_http("ftp://host/"), std::invalid_argument);
  EXPECT_THROW(check_http("http://host/", {.status_min = 300, .status_max = 200}),
               std::invalid_argument);
}

TEST(CheckHttpSilenceTest, AServerThatNeverAnswersFailsByTheTimeOut) {
  const RawServer server([](const std::string&, const RawServer::Connection& connection) {
    connection.wait_for_the_end();
    return false;
  });
  EXPECT_EQ(run(check_http(server.origin()), 50ms).status, CheckStatus::fail);
}

// Certificates of a test's own authority, which nothing but AWS_CA_BUNDLE makes known.
class CheckHttpsTest : public ::testing::Test {
 protected:
  using Certificate = testing::Certificate;
  using TlsServer = testing::TlsServer;

  CheckHttpsTest() { authority.write_pem(bundle); }
  static CheckResult ask(const TlsServer& server) {
    return run(check_http(server.origin() + "/health", {.headers = {{"X-Probe", "canary"}}}), 60s);
  }
  static void expect_refused(const TlsServer& server, std::string_view words) {
    const CheckResult result = ask(server);
    EXPECT_EQ(result.status, CheckStatus::fail);
    EXPECT_NE(result.output.find(words), std::string::npos)
        << "\"" << result.output << "\" does not say: " << words;
    EXPECT_EQ(server.connections(), 1U);
    EXPECT_EQ(server.received(), "") << "no request left";
  }

  const testing::TemporaryDirectory directory;
  const std::string bundle = directory.path("authorities.pem");
  const Certificate authority{{.subject = "Trusted", .names = "DNS:ca", .is_authority = true}};
  const testing::ScopedVariable bundle_variable{"AWS_CA_BUNDLE", bundle.c_str()};
  const testing::ScopedVariable https_proxy{"https_proxy", nullptr};
  const testing::ScopedVariable https_proxy_upper{"HTTPS_PROXY", nullptr};
  const testing::ScopedVariable all_proxy{"all_proxy", nullptr};
  const testing::ScopedVariable all_proxy_upper{"ALL_PROXY", nullptr};
};

TEST_F(CheckHttpsTest, ACertificateOfATrustedAuthorityForThisHostPasses) {
  const Certificate good({}, &authority);
  const TlsServer server(good);
  const CheckResult result = ask(server);
  EXPECT_EQ(result.status, CheckStatus::pass) << result.output;
  EXPECT_TRUE(server.received().starts_with("GET /health HTTP/1.1\r\n")) << server.received();
  EXPECT_EQ(server.wire().find("canary"), std::string::npos) << "nothing is in clear";
}

TEST_F(CheckHttpsTest, ACertificateOfAnotherHostFails) {
  const Certificate other({.subject = "orders.example", .names = "DNS:orders.example"}, &authority);
  expect_refused(TlsServer(other), "no alternative certificate subject name matches");
}

TEST_F(CheckHttpsTest, ACertificateOfAnUnknownAuthorityOrOneThatExpiredFails) {
  const Certificate stranger({.subject = "Stranger", .names = "DNS:ca", .is_authority = true});
  const Certificate forged({}, &stranger);
  expect_refused(TlsServer(forged), "unable to get local issuer certificate");
  const Certificate expired({.begins_s = -7200, .ends_s = -60}, &authority);
  expect_refused(TlsServer(expired), "certificate has expired");
}

class CheckDynamoDbTest : public ::testing::Test {
 protected:
  CheckResult run_with(transport::HttpResponse response) {
    const Check check = check_dynamodb_table(
        {.table = "orders", .http = [&] {
           auto memory = std::make_unique<MemoryTransport>();
           memory->set_answer([this, response](const transport::HttpRequest& request) {
             asked = request;
             return response;
           });
           return memory;
         }});
    return run(check);
  }
  static transport::HttpResponse table(std::string_view status) {
    return MemoryTransport::answered(
        200, R"({"Table":{"TableName":"orders","TableStatus":")" + std::string(status) + "\"}}");
  }
  testing::AwsEnvironment environment;
  transport::HttpRequest asked;
};

TEST_F(CheckDynamoDbTest, AnActiveTablePasses) {
  EXPECT_EQ(run_with(table("ACTIVE")).status, CheckStatus::pass);
  EXPECT_EQ(asked.origin, "https://dynamodb.eu-west-1.amazonaws.com");
  EXPECT_EQ(asked.body, R"({"TableName":"orders"})");
  EXPECT_EQ(transport::find_header(asked.headers, "X-Amz-Target"),
            "DynamoDB_20120810.DescribeTable");
  EXPECT_NE(transport::find_header(asked.headers, "Authorization").find("AKIDEXAMPLE"),
            std::string::npos);
}

TEST_F(CheckDynamoDbTest, OneThatCannotBeUsedFails) {
  EXPECT_EQ(run_with(table("UPDATING")).status, CheckStatus::warn) << "it can be used";
  for (const std::string_view status : {"CREATING", "DELETING", "ARCHIVED"}) {
    const CheckResult result = run_with(table(status));
    EXPECT_EQ(result.status, CheckStatus::fail);
    EXPECT_EQ(result.output, "table orders is " + std::string(status));
  }
}

TEST_F(CheckDynamoDbTest, ErrorsSayWhichAndNeverASecret) {
  const CheckResult missing = run_with(MemoryTransport::answered(
      400, R"({"__type":"com.amazonaws.dynamodb.v20120810#ResourceNotFoundException"})"));
  EXPECT_EQ(missing.status, CheckStatus::fail);
  EXPECT_NE(missing.output.find("ResourceNotFoundException"), std::string::npos) << missing.output;
  EXPECT_EQ(missing.output.find("canary"), std::string::npos);
  EXPECT_EQ(run_with(MemoryTransport::answered(200, "{}")).status, CheckStatus::fail);
  EXPECT_EQ(run_with(MemoryTransport::answered(200, "no JSON")).status, CheckStatus::fail);
}

TEST_F(CheckDynamoDbTest, RefusesWhatCannotWork) {
  EXPECT_THROW(check_dynamodb_table({}), std::invalid_argument);
  EXPECT_THROW(check_dynamodb_table({.table = "orders", .endpoint = "nowhere"}),
               std::invalid_argument);
}

TEST(CheckMemoryTest, AgainstTheLimitOfTheCgroup) {
  const testing::TemporaryDirectory directory;
  const auto write = [&](const std::string& file, std::string_view text) {
    const std::filesystem::path path = directory.path(file);
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text;
  };
  write("proc/self/cgroup", "0::/\n");
  write("sys/fs/cgroup/memory.max", "104857600\n");
  const Check check = check_memory({.root = directory.path("")});
  const auto with = [&](std::uint64_t used) {
    write("sys/fs/cgroup/memory.current", std::to_string(used));
    return run(check);
  };
  EXPECT_EQ(with(80'000'000).status, CheckStatus::pass);
  EXPECT_NEAR(*with(80'000'000).observed, 76.3, 0.1);
  EXPECT_EQ(with(90'000'000).status, CheckStatus::warn);
  const CheckResult full = with(104'857'600);
  EXPECT_EQ(full.status, CheckStatus::fail);
  EXPECT_EQ(full.output, "100.0 % of 100 MiB of the cgroup is used");
  EXPECT_THROW(check_memory({.warn_at = 0.9, .fail_at = 0.8}), std::invalid_argument);
}

TEST(CheckMemoryTest, WhatCannotBeReadIsAWarning) {
  EXPECT_EQ(run(check_memory({.root = "/nonexistent"})).status, CheckStatus::warn);
}

TEST(CheckDiskTest, SpaceAndInodesOfAFileSystem) {
  const testing::TemporaryDirectory directory;
  const auto with = [&](double warn, double fail) {
    return run(check_disk({.path = directory.path(""), .free_warn = warn, .free_fail = fail}));
  };
  const CheckResult enough = with(0, 0);
  EXPECT_EQ(enough.status, CheckStatus::pass) << enough.output;
  EXPECT_GT(*enough.observed, 0);
  EXPECT_EQ(with(1, 0).status, CheckStatus::warn) << "the directory itself takes an inode";
  EXPECT_EQ(with(1, 1).status, CheckStatus::fail);
  EXPECT_NE(with(1, 1).output.find("free are"), std::string::npos);
}

TEST(CheckDiskTest, WhatIsNoDiskFails) {
  EXPECT_NE(run(check_disk({.path = "/nonexistent"})).output.find("No such file"),
            std::string::npos);
  EXPECT_EQ(run(check_disk({.path = "/proc"})).status, CheckStatus::fail);
  EXPECT_THROW(check_disk({.path = ""}), std::invalid_argument);
  EXPECT_THROW(check_disk({.free_warn = 0.1, .free_fail = 0.2}), std::invalid_argument);
}

TEST(CheckEngineTest, FollowsTheDeliveries) {
  const testing::AwsEnvironment environment;
  Config config = testing::aws_config();
  config.on_diagnostic = [](std::string_view) {};
  testing::TestEngine test(config);
  const Check check = check_engine(test.engine);
  EXPECT_EQ(run(check).status, CheckStatus::pass);
  test.http.set_answer(
      [](const auto&) { return MemoryTransport::failed(transport::HttpOutcome::lost); });
  SPILLWAY_INFO(test.engine, "event");
  test.engine.flush(1s);
  const CheckResult late = run(check);
  EXPECT_EQ(late.status, CheckStatus::warn);
  EXPECT_NE(late.output.find("put-log-events: "), std::string::npos) << late.output;
  test.engine.shutdown(0s);
  EXPECT_EQ(run(check).status, CheckStatus::fail);
}

}  // namespace
}  // namespace spillway::middleware
