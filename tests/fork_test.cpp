// SPDX-License-Identifier: Apache-2.0
//
// An engine in a forked child: an object whose threads stayed behind.
#include <cerrno>
#include <memory>

#include <support/engine_fixture.hpp>
#include <support/temporary_file.hpp>
#include <sys/wait.h>
#include <unistd.h>

namespace spillway {
namespace {

using namespace std::chrono_literals;

/// Exit status of a child that runs `body`; -1 when it did not come to its end.
template <class Body>
int status_of_child(Body&& body) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);  // Ends a child that hangs.
    _exit(body());
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

class ForkTest : public ::testing::Test {
 protected:
  Config config() const {
    Config config;
    config.metrics = MetricsTo::none;
    config.logs = LogsTo::file;
    config.logs_file = directory.path("log");
    return config;
  }
  testing::TemporaryDirectory directory;
};

TEST_F(ForkTest, TheChildsCopyOfTheEngineGoesAwayAtOnce) {
  auto engine = std::make_unique<Engine>(config());
  SPILLWAY_INFO(*engine, "the parent's");
  EXPECT_EQ(status_of_child([&] {
              SPILLWAY_INFO(*engine, "the child's");
              engine.reset();
              return 7;
            }),
            7);
  const Stats stats = engine->shutdown(60s);
  EXPECT_EQ(stats.logs.delivered, 1U);
  EXPECT_TRUE(testing::is_settled(stats.logs));
}

TEST_F(ForkTest, InTheChildNothingIsWaitedFor) {
  Engine engine(config());
  SPILLWAY_INFO(engine, "the parent's");
  EXPECT_EQ(status_of_child([&] {
              if (engine.flush(1h)) return 1;
              engine.shutdown(1h);
              return 7;
            }),
            7);
  EXPECT_TRUE(engine.flush(60s));
}

}  // namespace
}  // namespace spillway
