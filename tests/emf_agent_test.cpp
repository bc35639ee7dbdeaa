// SPDX-License-Identifier: Apache-2.0
//
// EMF to the CloudWatch agent's ports: what the ledger calls delivered has arrived, across deaths of
// the agent.
#include <map>
#include <sstream>
#include <string>

#include <netinet/in.h>
#include <support/engine_fixture.hpp>
#include <support/tcp_listener.hpp>

#include <spillway/engine/socket_exporter.hpp>

namespace spillway {
namespace {

using namespace std::chrono_literals;
using testing::is_settled;
using testing::Json;
using testing::TcpListener;
using testing::TestEngine;

Config config_of(const std::string& endpoint) {
  Config config = testing::aws_config();
  config.metrics = MetricsTo::emf_agent;
  config.emf_agent_endpoint = endpoint;
  config.emf_log_group = "/shop/metrics";
  config.emf_log_stream = "pod-1";
  config.logs = LogsTo::none;
  config.traces = TracesTo::none;
  config.metric_interval = 1s;
  config.on_diagnostic = [](std::string_view) {};
  return config;
}

class EmfAgentTest : public ::testing::Test {
 protected:
  // Lets the sender try, and wait out its back-offs, until all is settled.
  static void deliver(TestEngine& test) {
    for (int i = 0; i < 2000 && test.engine.stats().metrics.held() != 0; ++i) {
      test.clock.advance(100ms);
      test.engine.step();
    }
  }
  // The documents of whole lines; a line without its end is in `torn`.
  void take(const std::string& text) {
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
      if (lines.eof() && !text.ends_with('\n')) {
        ++torn_;
        return;
      }
      const Json document(line);
      sums_["Requests"] += document["Requests"].number();
      ++documents_;
      last_ = line;
    }
  }

  TcpListener agent_;
  std::map<std::string, double> sums_;
  int documents_ = 0;
  int torn_ = 0;
  std::string last_;
  testing::AwsEnvironment environment_;
};

TEST_F(EmfAgentTest, ADocumentIsALineThatSaysWhereItGoes) {
  TestEngine test(config_of("tcp://" + agent_.address()));
  const Counter requests = test.engine.counter("Requests");
  requests.add(3);
  test.advance(1s);
  deliver(test);
  take(agent_.read());
  ASSERT_EQ(documents_, 1);
  const Json document(last_);
  EXPECT_EQ(document["_aws"]["LogGroupName"].string(), "/shop/metrics");
  EXPECT_EQ(document["_aws"]["LogStreamName"].string(), "pod-1");
  EXPECT_EQ(document["Requests"].number(), 3);
  EXPECT_EQ(test.engine.stats().metrics.destination, "emf:agent");
  EXPECT_TRUE(is_settled(test.engine.stats().metrics));
}

TEST_F(EmfAgentTest, AnAgentThatComesLateGetsWhatWaited) {
  agent_.stop();
  TestEngine test(config_of("tcp://" + agent_.address()));
  const Counter requests = test.engine.counter("Requests");
  requests.add(3);
  test.advance(1s);
  test.settle();
  EXPECT_EQ(test.engine.stats().metrics.held(), 1U);
  agent_.start();
  ASSERT_TRUE(agent_.listening());
  deliver(test);
  take(agent_.read());
  EXPECT_EQ(sums_["Requests"], 3);
  EXPECT_TRUE(is_settled(test.engine.stats().metrics));
}

TEST_F(EmfAgentTest, NothingIsLostWhenTheAgentRestarts) {
  TestEngine test(config_of("tcp://" + agent_.address()));
  const Counter requests = test.engine.counter("Requests");
  for (int round = 0; round < 30; ++round) {
    requests.add(1);
    test.advance(1s);
    // It dies with a document in flight, between documents, or lives on; and stays away for a while.
    if (round % 3 == 1) {
      deliver(test);
      take(agent_.read());
    }
    if (round % 3 != 0) {
      take(agent_.read());
      agent_.stop();
      if (round % 2 == 0) test.settle();
      agent_.start();
      ASSERT_TRUE(agent_.listening());
    }
    deliver(test);
    take(agent_.read());
  }
  EXPECT_EQ(test.engine.stats().metrics.delivered, 30U);
  EXPECT_TRUE(is_settled(test.engine.stats().metrics));
  EXPECT_EQ(sums_["Requests"], 30);
  EXPECT_EQ(documents_, 30);
}

TEST_F(EmfAgentTest, AnAgentThatStaysAwayCostsWhatItsRetriesSay) {
  agent_.stop();
  Config config = config_of("tcp://" + agent_.address());
  config.attempts_max = 8;
  TestEngine test(config);
  test.engine.counter("Requests").add(3);
  test.advance(1s);
  deliver(test);
  const Stats stats = test.engine.stats();
  EXPECT_EQ(stats.metrics.dropped_for(DropCause::retries_exhausted), 1U);
  EXPECT_TRUE(is_settled(stats.metrics));
}

// The exporter itself, with lines larger than what the kernel takes at once.
class AgentLinesTest : public ::testing::Test {
 protected:
  static detail::Payload payload_of(int lines, std::uint64_t sequence) {
    detail::Payload payload(std::pmr::get_default_resource());
    for (int i = 0; i < lines; ++i) {
      const std::size_t offset = payload.bytes.size();
      payload.bytes.append(std::to_string(i) + ":");
      payload.bytes.append(std::string(100'000, static_cast<char>('a' + i % 26)));
      payload.end_item(offset, 1 + static_cast<std::uint64_t>(i));
    }
    payload.sequence = sequence;
    return payload;
  }
  // Writes until it is through or has failed; the agent reads if it is to. Returns the last outcome,
  // with all that was delivered.
  detail::Outcome write(detail::Exporter& exporter, const detail::Payload& payload, bool reads,
                        int rounds_max = 100'000) {
    detail::Outcome outcome;
    std::uint64_t delivered = 0;
    for (int i = 0; i < rounds_max; ++i) {
      outcome = exporter.write(payload, 1ms);
      delivered += outcome.delivered;
      if (reads) read_ += agent_.read();
      if (outcome.next != detail::Outcome::Next::again) break;
    }
    outcome.delivered = delivered;
    return outcome;
  }
  // How often each line is there in full.
  std::map<std::string, int> lines() const {
    std::map<std::string, int> found;
    std::istringstream text(read_);
    for (std::string line; std::getline(text, line);) ++found[line];
    return found;
  }
  TcpListener agent_;
  std::string read_;
  testing::AwsEnvironment environment_;
};

TEST_F(AgentLinesTest, WhatADeadAgentDidNotAcknowledgeIsWrittenAgain) {
  agent_.stop();
  agent_.start(64 << 10);
  const auto exporter = detail::make_emf_agent_exporter(config_of("tcp://" + agent_.address()));
  const detail::Payload payload = payload_of(200, 1);
  // It reads some, then no more, and dies with a full buffer.
  detail::Outcome outcome = write(*exporter, payload, true, 2);
  std::uint64_t delivered = outcome.delivered;
  read_ += agent_.read();
  outcome = write(*exporter, payload, false, 50);
  delivered += outcome.delivered;
  ASSERT_EQ(outcome.next, detail::Outcome::Next::again)
      << "twenty megabytes fit no socket's buffer";
  read_ += agent_.read();
  agent_.stop();
  outcome = write(*exporter, payload, false);
  delivered += outcome.delivered;
  ASSERT_EQ(outcome.next, detail::Outcome::Next::retry);
  EXPECT_TRUE(outcome.uncertain);
  EXPECT_NE(outcome.message.find("emf:agent: lost the connection to"), std::string::npos)
      << outcome.message;
  agent_.start();
  ASSERT_TRUE(agent_.listening());
  read_ += "\n";  // A line that was torn is not that of the next connection.
  outcome = write(*exporter, payload, true);
  delivered += outcome.delivered;
  EXPECT_EQ(outcome.next, detail::Outcome::Next::finished);
  EXPECT_EQ(delivered, payload.records());
  read_ += agent_.read();
  const auto found = lines();
  for (const detail::PayloadItem& item : payload.items) {
    EXPECT_TRUE(found.contains(std::string(payload.item(item))))
        << payload.item(item).substr(0, 10);
  }
}

TEST_F(AgentLinesTest, PayloadsFollowOneAnotherOnAConnection) {
  const auto exporter = detail::make_emf_agent_exporter(config_of("tcp://" + agent_.address()));
  for (std::uint64_t sequence = 1; sequence <= 5; ++sequence) {
    const detail::Payload payload = payload_of(static_cast<int>(sequence), sequence);
    const detail::Outcome outcome = write(*exporter, payload, true);
    EXPECT_EQ(outcome.next, detail::Outcome::Next::finished);
    EXPECT_EQ(outcome.delivered, payload.records());
  }
  read_ += agent_.read();
  EXPECT_EQ(lines().size(), 5U);
  EXPECT_EQ(lines().begin()->second, 5);
  EXPECT_EQ(agent_.connections(), 1U);
}

// ---- UDP ----

TEST_F(EmfAgentTest, OverUdpNoDocumentIsLargerThanADatagram) {
  const int socket_of_agent = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(bind(socket_of_agent, reinterpret_cast<sockaddr*>(&address), size), 0);
  getsockname(socket_of_agent, reinterpret_cast<sockaddr*>(&address), &size);
  TestEngine test(config_of("udp://127.0.0.1:" + std::to_string(ntohs(address.sin_port))));
  constexpr int metrics = 100;
  constexpr int values = 90;
  for (int metric = 0; metric < metrics; ++metric) {
    const Histogram histogram = test.engine.histogram("M" + std::to_string(metric));
    for (int value = 0; value < values; ++value) histogram.record(1.0 / (3 + 7 * value));
  }
  std::map<std::string, double> counts;
  std::size_t documents = 0;
  const auto read = [&] {
    std::string datagram(70'000, '\0');
    for (ssize_t got = 0; (got = recv(socket_of_agent, datagram.data(), datagram.size(), 0)) > 0;) {
      ASSERT_LE(got, 65'507);
      const std::string_view text(datagram.data(), static_cast<std::size_t>(got));
      EXPECT_EQ(text.find('\n'), text.size() - 1);
      const Json document{std::string(text)};
      const Json all = document["_aws"]["CloudWatchMetrics"][std::size_t{0}]["Metrics"];
      for (std::size_t i = 0; i < all.size(); ++i) {
        const std::string name = all[i]["Name"].string();
        counts[name] += static_cast<double>(document[name].size());
      }
      ++documents;
    }
  };
  test.advance(1s);
  for (int i = 0; i < 100 && test.engine.stats().metrics.held() != 0; ++i) {
    read();
    test.advance(2ms);
  }
  read();
  close(socket_of_agent);
  EXPECT_EQ(test.engine.stats().metrics.delivered, std::uint64_t{metrics * values});
  EXPECT_GE(documents, 2U) << "as one it would have more than a hundred thousand bytes";
  EXPECT_EQ(counts.size(), std::size_t{metrics});
  for (const auto& [name, count] : counts) EXPECT_EQ(count, values) << name;
}

// The pace lets some go at a time: those are delivered, whatever becomes of the rest.
TEST_F(EmfAgentTest, DatagramsThatWentOutAreDeliveredAtOnce) {
  const int socket_of_agent = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(bind(socket_of_agent, reinterpret_cast<sockaddr*>(&address), size), 0);
  getsockname(socket_of_agent, reinterpret_cast<sockaddr*>(&address), &size);
  const auto exporter = detail::make_emf_agent_exporter(
      config_of("udp://127.0.0.1:" + std::to_string(ntohs(address.sin_port))));
  detail::Payload payload(std::pmr::get_default_resource());
  payload.sequence = 1;
  for (int i = 0; i < 100; ++i) {
    const std::size_t offset = payload.bytes.size();
    payload.bytes.append("{}");
    payload.end_item(offset, 3);
  }
  std::uint64_t delivered = 0;
  std::uint64_t arrived = 0;
  int pauses = 0;
  for (auto next = detail::Outcome::Next::again; next == detail::Outcome::Next::again;) {
    const detail::Outcome outcome = exporter->write(payload, std::chrono::milliseconds(0));
    next = outcome.next;
    ASSERT_TRUE(next == detail::Outcome::Next::again || next == detail::Outcome::Next::finished);
    if (next == detail::Outcome::Next::again) ++pauses;
    delivered += outcome.delivered;
    char datagram[16];
    while (recv(socket_of_agent, datagram, sizeof datagram, 0) > 0) ++arrived;
    EXPECT_EQ(delivered, 3 * arrived);
  }
  close(socket_of_agent);
  EXPECT_GT(pauses, 0);
  EXPECT_EQ(delivered, 300U);
}

TEST_F(EmfAgentTest, WhatIsNoEndpointIsRefused) {
  for (const char* const bad : {"127.0.0.1:1", "http://127.0.0.1:1", "tcp://", "tcp://h",
                                "udp://:1", "tcp://h:0", "tcp://h:1/path"}) {
    try {
      const TestEngine refused(config_of(bad));
      ADD_FAILURE() << bad;
    } catch (const InvalidConfig& invalid) {
      ASSERT_EQ(invalid.errors().size(), 1U);
      EXPECT_EQ(invalid.errors()[0].key, "emf_agent_endpoint");
    }
  }
  EXPECT_EQ(detail::parse_agent_endpoint("tcp://[::1]:25888/")->address, "[::1]:25888");
}

}  // namespace
}  // namespace spillway
