// SPDX-License-Identifier: Apache-2.0
//
// Names against a name server of our own on loopback: answers, none, and silence.
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <support/name_server.hpp>
#include <support/raw_server.hpp>

#include <spillway/transport/dns.hpp>

namespace spillway::transport {
namespace {

using namespace std::chrono_literals;
using spillway::testing::NameServer;

TEST(DnsTest, AddressesOfAName) {
  NameServer server([](const std::string& name, std::uint16_t type) -> NameServer::Answer {
    if (name != "orders.test" || type != NameServer::a) return {};
    return {{NameServer::ipv4(203, 0, 113, 7), NameServer::ipv4(203, 0, 113, 8)}};
  });
  const DnsAddresses found = DnsResolver(server.address()).addresses("orders.test", 10s);
  EXPECT_EQ(found.addresses, (std::vector<std::string>{"203.0.113.7", "203.0.113.8"}));
  EXPECT_EQ(found.error, "");
}

TEST(DnsTest, NumericAddressesAndTheHostsFileAskNobody) {
  NameServer server([](const std::string& name, std::uint16_t type) -> NameServer::Answer {
    ADD_FAILURE() << name << " " << type;
    return {};
  });
  const DnsResolver resolver(server.address());
  EXPECT_EQ(resolver.addresses("203.0.113.7", 10s).addresses,
            (std::vector<std::string>{"203.0.113.7"}));
  EXPECT_EQ(resolver.addresses("2001:db8::1", 10s).addresses,
            (std::vector<std::string>{"2001:db8::1"}));
  EXPECT_FALSE(resolver.addresses("localhost", 10s).addresses.empty());
}

TEST(DnsTest, ServicesOfAName) {
  NameServer server([](const std::string& name, std::uint16_t type) -> NameServer::Answer {
    if (name != "_http._tcp.orders.test" || type != NameServer::srv) return {};
    return {{NameServer::service(1, 10, 8080, "a.orders.test"),
             NameServer::service(2, 0, 8081, "b.orders.test")}};
  });
  const DnsServices found = DnsResolver(server.address()).services("_http._tcp.orders.test", 10s);
  ASSERT_EQ(found.services.size(), 2U) << found.error;
  for (const DnsService& one : found.services) {
    const bool first = one.port == 8080;
    EXPECT_EQ(one.host, first ? "a.orders.test" : "b.orders.test");
    EXPECT_EQ(one.priority, first ? 1 : 2);
    EXPECT_EQ(one.weight, first ? 10 : 0);
  }
}

TEST(DnsTest, WhatDoesNotExistIsAnErrorThatNamesIt) {
  NameServer server(
      [](const std::string&, std::uint16_t) -> NameServer::Answer { return {.code = 3}; });
  const DnsResolver resolver(server.address());
  EXPECT_NE(resolver.addresses("gone.test", 10s).error.find("cannot resolve gone.test: "),
            std::string::npos);
  EXPECT_NE(resolver.services("_x._tcp.gone.test", 10s).error.find("_x._tcp.gone.test"),
            std::string::npos);
}

TEST(DnsTest, AServerThatNeverAnswersEndsWithTheTime) {
  NameServer server(
      [](const std::string&, std::uint16_t) -> NameServer::Answer { return {.silent = true}; });
  const DnsResolver resolver(server.address());
  const auto begun = std::chrono::steady_clock::now();
  EXPECT_TRUE(resolver.addresses("orders.test", 50ms).addresses.empty());
  EXPECT_FALSE(resolver.services("orders.test", 50ms).error.empty());
  EXPECT_LT(std::chrono::steady_clock::now() - begun, 5s) << "what c-ares alone takes is 20 s";
}

TEST(TryConnectTest, ConnectsToTheFirstThatTakesIt) {
  testing::RawServer server([](const std::string&, const auto&) { return true; });
  EXPECT_EQ(try_connect({"127.0.0.1"}, server.port(), 10s), "");
  EXPECT_EQ(try_connect({"not an address", "127.0.0.1"}, server.port(), 10s), "");
}

TEST(TryConnectTest, SaysWhyNot) {
  std::uint16_t port = 0;
  {
    const testing::RawServer server([](const std::string&, const auto&) { return true; });
    port = server.port();
  }
  EXPECT_EQ(try_connect({"127.0.0.1"}, port, 10s),
            "cannot connect to 127.0.0.1 port " + std::to_string(port) + ": Connection refused");
  EXPECT_EQ(try_connect({}, 1, 1s), "there is no address");
}

}  // namespace
}  // namespace spillway::transport
