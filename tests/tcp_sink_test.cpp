// SPDX-License-Identifier: Apache-2.0
//
// Writing to a port of an agent that comes, goes, and does not read.
#include <string>

#include <gtest/gtest.h>
#include <support/tcp_listener.hpp>

#include <spillway/transport/tcp_sink.hpp>

namespace spillway::transport {
namespace {

using namespace std::chrono_literals;
using testing::TcpListener;
using Link = TcpSink::Link;

constexpr auto patience = 10'000ms;

TEST(TcpSinkTest, WhatIsWrittenArrivesAndIsAcknowledged) {
  TcpListener agent;
  TcpSink sink(agent.address());
  EXPECT_FALSE(sink.is_up());
  std::string_view text = "too early";
  EXPECT_EQ(sink.write(text, 0ms), WriteResult::failed);
  ASSERT_EQ(sink.connect(patience), Link::up) << sink.error();
  text = "one\ntwo\n";
  EXPECT_EQ(sink.write(text, patience), WriteResult::written);
  EXPECT_TRUE(text.empty());
  EXPECT_EQ(agent.read(), "one\ntwo\n");
  EXPECT_EQ(sink.write(text, 0ms), WriteResult::written);
  EXPECT_EQ(sink.acknowledged(), 8U);
  EXPECT_EQ(sink.connect(0ms), Link::up) << "it is";
}

TEST(TcpSinkTest, ARefusedConnectionFailsAndCanBeTriedAgain) {
  TcpListener agent;
  agent.stop();
  TcpSink sink(agent.address());
  EXPECT_EQ(sink.connect(patience), Link::failed);
  EXPECT_NE(sink.error().find(agent.address() + ": Connection refused"), std::string::npos)
      << sink.error();
  EXPECT_EQ(sink.connect(patience), Link::failed);
  agent.start();
  ASSERT_TRUE(agent.listening());
  EXPECT_EQ(sink.connect(patience), Link::up) << sink.error();
}

TEST(TcpSinkTest, ANameIsLookedUpBesideAndAllItsAddressesAreTried) {
  const TcpListener agent;  // On 127.0.0.1 only; "localhost" may be ::1 first.
  TcpSink sink("localhost:" + std::to_string(agent.port()));
  Link link = Link::pending;
  for (int i = 0; link == Link::pending && i < 100'000; ++i) link = sink.connect(1ms);
  EXPECT_EQ(link, Link::up) << sink.error();
}

TEST(TcpSinkTest, WhatIsNoAddressSaysSo) {
  for (const char* const bad : {"", "127.0.0.1", ":1", "h:0", "h:65536", "[]:1"}) {
    TcpSink sink(bad);
    EXPECT_EQ(sink.connect(0ms), Link::failed) << bad;
    EXPECT_NE(sink.error().find("not of the form host:port"), std::string::npos) << sink.error();
  }
}

TEST(TcpSinkTest, AReaderThatDoesNotReadMakesItBusyAndNothingIsLost) {
  TcpListener agent;
  agent.stop();
  agent.start(8 << 10);
  TcpSink sink(agent.address());
  ASSERT_EQ(sink.connect(patience), Link::up);
  std::string all;
  for (int i = 0; all.size() < 16 << 20; ++i) all.append(std::to_string(i)).append("\n");
  std::string_view rest = all;
  ASSERT_EQ(sink.write(rest, 0ms), WriteResult::busy);
  EXPECT_GT(rest.size(), 0U);
  EXPECT_LE(sink.acknowledged(), all.size() - rest.size());
  std::string read;
  for (int i = 0; !rest.empty() && i < 1'000'000; ++i) {
    read += agent.read();
    ASSERT_NE(sink.write(rest, 1ms), WriteResult::failed) << sink.error();
  }
  for (int i = 0; read.size() < all.size() && i < 1'000'000; ++i) read += agent.read();
  EXPECT_TRUE(read == all);
}

TEST(TcpSinkTest, AnAgentThatHungUpIsSeenBeforeAnythingIsWritten) {
  TcpListener agent;
  TcpSink sink(agent.address());
  ASSERT_EQ(sink.connect(patience), Link::up);
  std::string_view text = "read\n";
  ASSERT_EQ(sink.write(text, patience), WriteResult::written);
  agent.hang_up();
  text = "not lost\n";
  EXPECT_EQ(sink.write(text, patience), WriteResult::failed);
  EXPECT_EQ(text, "not lost\n");
  EXPECT_EQ(sink.acknowledged(), 5U) << "of the connection that was";
  EXPECT_FALSE(sink.is_up());
  ASSERT_EQ(sink.connect(patience), Link::up);
  EXPECT_EQ(sink.acknowledged(), 0U);
  EXPECT_EQ(sink.write(text, patience), WriteResult::written);
  EXPECT_EQ(agent.read(), "not lost\n");
}

}  // namespace
}  // namespace spillway::transport
