// SPDX-License-Identifier: Apache-2.0
//
// HTTPS as it must be: what a server shows is checked against the authorities that are trusted and the name that was
// asked for, nothing older than TLS 1.2 is spoken, and no byte of a request leaves before. The servers are OpenSSL's, with
// certificates made here.
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <support/environment.hpp>
#include <support/temporary_file.hpp>
#include <support/tls_server.hpp>

#include <spillway/spillway.hpp>
#include <spillway/transport/curl_transport.hpp>

namespace spillway {
namespace {

using namespace std::chrono_literals;
using testing::Certificate;
using testing::OpensslContext;
using testing::OpensslSession;
using testing::ScopedVariable;
using testing::TemporaryDirectory;
using testing::TlsServer;
using transport::CurlTransport;
using transport::HttpOutcome;
using transport::HttpRequest;
using transport::HttpResponse;

constexpr std::string_view canary = "canary-that-must-not-be-on-the-wire";

class TlsTest : public ::testing::Test {
 protected:
  TlsTest() {
    authority_.write_pem(bundle_);
    bundle_variable_ = std::make_unique<ScopedVariable>("AWS_CA_BUNDLE", bundle_.c_str());
  }

  static HttpRequest request_to(const std::string& origin) {
    HttpRequest request;
    request.origin = origin;
    request.path = "/" + std::string(canary);
    request.headers = {{"Authorization", std::string(canary)}};
    request.body = canary;
    return request;
  }
  static HttpResponse exchange(const HttpRequest& request,
                               std::chrono::milliseconds timeout = 60s) {
    CurlTransport transport;
    transport.start(1, request, timeout);
    while (true) {
      auto ended = transport.poll(24h);
      if (!ended.empty()) return std::move(ended.at(0).response);
    }
  }
  static HttpResponse exchange(const TlsServer& server) {
    return exchange(request_to(server.origin()));
  }

  /// The request did not leave, the reason is said in these words, and a try again is safe.
  static void expect_refused(const TlsServer& server, const HttpResponse& response,
                             std::string_view words) {
    EXPECT_EQ(response.outcome, HttpOutcome::not_connected);
    EXPECT_EQ(response.status, 0);
    EXPECT_NE(response.error.find(words), std::string::npos)
        << "\"" << response.error << "\" does not say: " << words;
    EXPECT_EQ(server.connections(), 1U) << "nothing was tried in its place";
    EXPECT_EQ(server.received(), "");
    EXPECT_EQ(server.wire().find(canary), std::string::npos);
  }
  static void expect_answered(const TlsServer& server, const HttpResponse& response) {
    EXPECT_EQ(response.outcome, HttpOutcome::answered) << response.error;
    EXPECT_EQ(response.status, 200);
    EXPECT_EQ(response.body, "{}");
    EXPECT_NE(server.received().find(canary), std::string::npos);
    EXPECT_NE(server.wire(), "");
    EXPECT_EQ(server.wire().find(canary), std::string::npos) << "what is sent is not in clear";
  }

  const TemporaryDirectory directory_;
  const std::string bundle_ = directory_.path("authorities.pem");
  const Certificate authority_{{.subject = "Trusted", .names = "DNS:ca", .is_authority = true}};
  const Certificate good_{{}, &authority_};
  std::unique_ptr<ScopedVariable> bundle_variable_;
  const ScopedVariable https_proxy_{"https_proxy", nullptr};
  const ScopedVariable https_proxy_upper_{"HTTPS_PROXY", nullptr};
  const ScopedVariable all_proxy_{"all_proxy", nullptr};
  const ScopedVariable all_proxy_upper_{"ALL_PROXY", nullptr};
};

// ---- What is accepted ----

TEST_F(TlsTest, ACertificateOfATrustedAuthorityIsAccepted) {
  const TlsServer server(good_);
  expect_answered(server, exchange(server));
  EXPECT_EQ(server.version(), "TLSv1.3");
}

TEST_F(TlsTest, Tls12Suffices) {
  const TlsServer server(good_, {.version_min = TLS1_VERSION, .version_max = TLS1_2_VERSION});
  expect_answered(server, exchange(server));
  EXPECT_EQ(server.version(), "TLSv1.2");
}

TEST_F(TlsTest, AChainIsFollowedToItsAuthority) {
  const Certificate between({.subject = "Between", .names = "DNS:between", .is_authority = true},
                            &authority_);
  const Certificate leaf({}, &between);
  const TlsServer server(leaf, {.intermediate = &between});
  expect_answered(server, exchange(server));
}

TEST_F(TlsTest, APinnedAddressIsCheckedByTheNameThatWasAskedFor) {
  const Certificate named({.subject = "logs.example", .names = "DNS:logs.example"}, &authority_);
  {
    const TlsServer server(named);
    HttpRequest request = request_to(server.origin("logs.example"));
    request.address = "127.0.0.1";
    expect_answered(server, exchange(request));
  }
  const TlsServer server(named);
  HttpRequest request = request_to(server.origin("monitoring.example"));
  request.address = "127.0.0.1";
  expect_refused(server, exchange(request), "monitoring.example");
}

// ---- What is refused ----

TEST_F(TlsTest, ACertificateOfAnotherHostIsRefused) {
  const Certificate other({.subject = "logs.example", .names = "DNS:logs.example,IP:127.0.0.2"},
                          &authority_);
  const TlsServer server(other);
  expect_refused(server, exchange(server),
                 "TLS: SSL: no alternative certificate subject name matches");
}

TEST_F(TlsTest, ANameInTheSubjectDoesNotReplaceOneInItsPlace) {
  const Certificate other({.subject = "127.0.0.1", .names = "DNS:logs.example"}, &authority_);
  const TlsServer server(other);
  expect_refused(server, exchange(server), "127.0.0.1");
}

TEST_F(TlsTest, AnExpiredCertificateIsRefused) {
  const Certificate expired({.begins_s = -7200, .ends_s = -60}, &authority_);
  const TlsServer server(expired);
  expect_refused(server, exchange(server), "expired");
}

TEST_F(TlsTest, ACertificateOfTheFutureIsRefused) {
  const Certificate early({.begins_s = 3600, .ends_s = 7200}, &authority_);
  const TlsServer server(early);
  expect_refused(server, exchange(server), "not yet valid");
}

TEST_F(TlsTest, ASelfSignedCertificateIsRefused) {
  const Certificate alone({});
  const TlsServer server(alone);
  expect_refused(server, exchange(server), "self-signed");
}

TEST_F(TlsTest, AnUnknownAuthorityIsRefused) {
  // The same name as the trusted one: the signature tells them apart.
  const Certificate unknown({.subject = "Trusted", .names = "DNS:ca", .is_authority = true});
  const Certificate leaf({}, &unknown);
  const TlsServer server(leaf, {.intermediate = &unknown});
  expect_refused(server, exchange(server), "TLS: ");
}

TEST_F(TlsTest, AnAuthorityThatWasNotSentIsRefused) {
  const Certificate between({.subject = "Between", .names = "DNS:between", .is_authority = true},
                            &authority_);
  const Certificate leaf({}, &between);
  const TlsServer server(leaf);
  expect_refused(server, exchange(server), "unable to get local issuer certificate");
}

TEST_F(TlsTest, ACertificateThatIsNoAuthorityCannotIssue) {
  const Certificate leaf({.subject = "leaf"}, &good_);
  const TlsServer server(leaf, {.intermediate = &good_});
  expect_refused(server, exchange(server), "invalid CA certificate");
}

TEST_F(TlsTest, Tls11IsRefused) {
  const TlsServer server(good_, {.version_min = TLS1_VERSION, .version_max = TLS1_1_VERSION});
  expect_refused(server, exchange(server), "protocol");
  EXPECT_EQ(server.version(), "");

  // The server is one that works: a client that allows it gets through.
  const OpensslContext context(SSL_CTX_new(TLS_client_method()));
  SSL_CTX_set_security_level(context.get(), 0);
  SSL_CTX_set_min_proto_version(context.get(), TLS1_VERSION);
  const OpensslSession session(SSL_new(context.get()));
  const int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(server.port());
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(connect(descriptor, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  SSL_set_fd(session.get(), descriptor);
  EXPECT_EQ(SSL_connect(session.get()), 1);
  EXPECT_STREQ(SSL_get_version(session.get()), "TLSv1.1");
  close(descriptor);
}

TEST_F(TlsTest, AServerWithoutTlsIsRefused) {
  const TlsServer server(good_, {.plain_answer = "HTTP/1.1 400 Bad Request\r\n\r\n"});
  expect_refused(server, exchange(server), "TLS: ");
}

// ---- Which authorities are trusted ----

TEST_F(TlsTest, WithoutABundleOnlyTheSystemsAreTrusted) {
  bundle_variable_ = std::make_unique<ScopedVariable>("AWS_CA_BUNDLE", nullptr);
  const TlsServer server(good_);
  expect_refused(server, exchange(server), "unable to get local issuer certificate");
}

TEST_F(TlsTest, ABundleThatIsNotThereIsSaidAndNotPassedOver) {
  const ScopedVariable missing("AWS_CA_BUNDLE", directory_.path("none.pem").c_str());
  const TlsServer server(good_);
  const HttpResponse response = exchange(server);
  EXPECT_EQ(response.outcome, HttpOutcome::not_connected);
  EXPECT_NE(response.error.find(directory_.path("none.pem")), std::string::npos) << response.error;
  EXPECT_NE(response.error.find("AWS_CA_BUNDLE"), std::string::npos) << response.error;
  EXPECT_EQ(server.received(), "");
  EXPECT_EQ(server.wire().find(canary), std::string::npos);
}

TEST_F(TlsTest, ABundleWithoutACertificateIsSaidAndNotPassedOver) {
  const std::string path = directory_.write("text.pem", "no certificate\n");
  const ScopedVariable wrong("AWS_CA_BUNDLE", path.c_str());
  const TlsServer server(good_);
  const HttpResponse response = exchange(server);
  EXPECT_EQ(response.outcome, HttpOutcome::not_connected);
  EXPECT_NE(response.error.find(path), std::string::npos) << response.error;
  EXPECT_EQ(server.received(), "");
}

// ---- Time ----

TEST_F(TlsTest, AHandshakeThatStopsInItsMiddleIsBounded) {
  for (const std::size_t bytes : {std::size_t{1}, std::size_t{60}, std::size_t{300}}) {
    const TlsServer server(good_, {.handshake_bytes_max = bytes});
    expect_refused(server, exchange(request_to(server.origin()), 200ms), "timed out");
    EXPECT_EQ(server.version(), "");
  }
}

// ---- An engine ----

class TlsEngineTest : public TlsTest {
 protected:
  Config config(const TlsServer& server) {
    Config config;
    config.service = "tls";
    config.metrics = MetricsTo::none;
    config.logs = LogsTo::otlp;
    config.otlp_endpoint = server.origin();
    config.on_diagnostic = [this](std::string_view text) {
      const std::scoped_lock lock(mutex_);
      diagnostics_ += std::string(text) + "\n";
    };
    return config;
  }

  std::mutex mutex_;
  std::string diagnostics_;
};

TEST_F(TlsEngineTest, RecordsReachAServerThatIsTrusted) {
  const TlsServer server(good_);
  Engine engine(config(server));
  SPILLWAY_INFO(engine, "event");
  EXPECT_TRUE(engine.flush(30s));
  const Stats stats = engine.shutdown(10s);
  EXPECT_EQ(stats.logs.delivered, 1U);
  EXPECT_EQ(stats.logs.residue(), 0);
  EXPECT_NE(server.received().find("/v1/logs"), std::string::npos);
}

TEST_F(TlsEngineTest, RecordsForOneThatIsNotAreKeptAndAccountedFor) {
  const Certificate expired({.begins_s = -7200, .ends_s = -60}, &authority_);
  const TlsServer server(expired);
  Engine engine(config(server));
  SPILLWAY_INFO(engine, "event");
  while (engine.stats().logs.delivery.failures == 0) std::this_thread::yield();
  EXPECT_EQ(engine.stats().logs.held(), 1U) << "a new certificate may come";
  const Stats stats = engine.shutdown(100ms);
  EXPECT_EQ(stats.logs.delivered, 0U);
  EXPECT_EQ(stats.logs.dropped_for(DropCause::shutdown_deadline), 1U);
  EXPECT_EQ(stats.logs.residue(), 0);
  EXPECT_EQ(stats.logs.delivery.uncertain_records, 0U);
  EXPECT_EQ(server.received(), "");
  const std::scoped_lock lock(mutex_);
  EXPECT_NE(diagnostics_.find("certificate has expired"), std::string::npos) << diagnostics_;
}

}  // namespace
}  // namespace spillway
