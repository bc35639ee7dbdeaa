// SPDX-License-Identifier: Apache-2.0
//
// The `spillway` program as a person or a script runs it.
#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <simdjson.h>

#include "support/program.hpp"
#include "support/raw_client.hpp"
#include <spillway/transport/url.hpp>

namespace spillway {
namespace {

/// A run of the `spillway` program.
struct Program : testing::Program {
  explicit Program(const std::vector<std::string>& arguments)
      : testing::Program(SPILLWAY_CLI, arguments) {}
};

std::string contents(const std::filesystem::path& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

TEST(LocalCommandTest, ListensUntilItIsToldToStop) {
  const std::filesystem::path port_file =
      std::filesystem::path(::testing::TempDir()) / ("ports-" + std::to_string(getpid()));
  for (const int signal : {SIGTERM, SIGINT}) {
    Program program({"local", "--port", "0", "--udp-port", "0", "--port-file", port_file.string(),
                     "--fault", "throttle:service=xray"});
    const std::string line = program.read_line();
    ASSERT_TRUE(line.starts_with("spillway local: http://127.0.0.1:")) << line;

    simdjson::dom::parser parser;
    const std::string file = contents(port_file);
    const simdjson::dom::element ports = parser.parse(file);
    const std::string endpoint(ports["endpoint"].get_string().value());
    const std::string daemon(ports["daemon_address"].get_string().value());
    EXPECT_EQ(line, "spillway local: " + endpoint + " udp " + daemon);
    const auto port = static_cast<std::uint16_t>(std::uint64_t(ports["http_port"]));
    EXPECT_EQ(transport::parse_url(endpoint)->port, port);

    RawClient client(port);
    const std::string answer =
        client.exchange("GET /_spillway/faults HTTP/1.1\r\nHost: localhost\r\n\r\n");
    EXPECT_NE(answer.find(R"("kind":"throttle")"), std::string::npos) << answer;
    EXPECT_EQ(program.finish(signal), 0);
    std::filesystem::remove(port_file);
  }
}

TEST(LocalCommandTest, ListsEverythingThatIsWrong) {
  Program program({"local", "--port", "65536", "--colour", "--credentials", "half", "--secret",
                   "hidden", "--fault", "explode", "--udp-port"});
  const std::string output = program.read_all();
  EXPECT_EQ(program.finish(), 2);
  for (const char* const part : {"--port '65536'", "'--colour'", "ID:SECRET", "go together",
                                 "--fault 'explode'", "--udp-port needs a value"}) {
    EXPECT_NE(output.find(part), std::string::npos) << part << " in\n" << output;
  }
  EXPECT_EQ(output.find("hidden"), std::string::npos);
}

TEST(LocalCommandTest, RefusesToListenOutside) {
  Program program({"local", "--host", "0.0.0.0", "--port", "0", "--udp-port", "0"});
  EXPECT_NE(program.read_all().find("'0.0.0.0' must be 127.x.y.z"), std::string::npos);
  EXPECT_EQ(program.finish(), 2);
}

TEST(LocalCommandTest, HelpsAndNamesItsVersion) {
  struct Case {
    std::vector<std::string> arguments;
    const char* part;
    int code;
  };
  for (const Case& c : {Case{{"help"}, "local", 0}, Case{{"--version"}, "spillway 0.", 0},
                        Case{{"local", "--help"}, "--keep-messages", 0}, Case{{}, "usage", 2},
                        Case{{"remote"}, "no command 'remote'", 2}}) {
    Program program(c.arguments);
    EXPECT_NE(program.read_all().find(c.part), std::string::npos) << c.part;
    EXPECT_EQ(program.finish(), c.code);
  }
}

}  // namespace
}  // namespace spillway
