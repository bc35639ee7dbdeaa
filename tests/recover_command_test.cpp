// SPDX-License-Identifier: Apache-2.0
//
// `spillway recover` as a person runs it.
#include <filesystem>
#include <set>
#include <string>

#include <support/child_process.hpp>
#include <support/engine_fixture.hpp>
#include <support/program.hpp>
#include <support/temporary_file.hpp>

namespace spillway {
namespace {

std::set<std::string> files_in(const std::string& directory) {
  std::set<std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    files.insert(entry.path());
  }
  return files;
}

void leave_a_log_and_a_span(const std::string& crash_dir, TracesTo traces) {
  testing::in_killed_child([&] {
    Config config;
    config.service = "orders/eu";
    config.crash_dir = crash_dir;
    config.traces = traces;
    testing::TestEngine test(config);
    SPILLWAY_INFO(test.engine, "event", {"n", 42});
    { const Span span = test.engine.span("work"); }
    testing::kill_self();
  });
}

TEST(RecoverCommandTest, ShipsWhatAKilledProcessLeft) {
  const testing::TemporaryDirectory directory;
  const std::string crash_dir = directory.path("crash");
  leave_a_log_and_a_span(crash_dir, TracesTo::none);
  testing::Program program(SPILLWAY_CLI, {"recover", crash_dir},
                           {"SPILLWAY_LOGS=file", "SPILLWAY_LOGS_FILE=" + directory.path("log")});
  const std::string said = program.read_all();
  EXPECT_EQ(program.finish(), 0) << said;
  EXPECT_NE(said.find("orders/eu: {"), std::string::npos) << said;
  const testing::Json line(directory.read("log"));
  EXPECT_EQ(line["n"].number(), 42);
  EXPECT_EQ(line["service"].string(), "orders/eu");
  EXPECT_TRUE(line["recovered"].boolean());
  testing::Program again(SPILLWAY_CLI, {"recover", crash_dir}, {"SPILLWAY_LOGS=none"});
  EXPECT_NE(again.read_all().find("\"recorded\":0"), std::string::npos);
  EXPECT_EQ(again.finish(), 0);
}

TEST(RecoverCommandTest, DoesNotBeginWhenASignalGoesNowhere) {
  const testing::TemporaryDirectory directory;
  const std::string crash_dir = directory.path("crash");
  leave_a_log_and_a_span(crash_dir, TracesTo::xray_daemon);
  const std::set<std::string> left = files_in(crash_dir);
  testing::Program program(SPILLWAY_CLI, {"recover", crash_dir},
                           {"SPILLWAY_LOGS=file", "SPILLWAY_LOGS_FILE=" + directory.path("log")});
  const std::string said = program.read_all();
  EXPECT_EQ(program.finish(), 1) << said;
  EXPECT_NE(said.find("1 spans, and the configuration sends them nowhere: set SPILLWAY_TRACES"),
            std::string::npos)
      << said;
  EXPECT_FALSE(std::filesystem::exists(directory.path("log"))) << "nothing is sent";
  EXPECT_EQ(files_in(crash_dir), left) << "nor deleted";
}

TEST(RecoverCommandTest, NeedsADirectory) {
  testing::Program program(SPILLWAY_CLI, {"recover"});
  EXPECT_TRUE(program.read_line().starts_with("usage: spillway recover"));
  program.read_all();
  EXPECT_EQ(program.finish(), 2);
}

}  // namespace
}  // namespace spillway
