// SPDX-License-Identifier: Apache-2.0
//
// An engine in a forked child: an object whose threads stayed behind.
#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <support/child_process.hpp>
#include <support/engine_fixture.hpp>
#include <support/temporary_file.hpp>
#include <unistd.h>

namespace spillway {
namespace {

using namespace std::chrono_literals;

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
  EXPECT_EQ(testing::exit_status_of_child([&] {
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
  EXPECT_EQ(testing::exit_status_of_child([&] {
              if (engine.flush(1h)) return 1;
              engine.shutdown(1h);
              return 7;
            }),
            7);
  EXPECT_TRUE(engine.flush(60s));
}

// ThreadSanitizer ends a child that starts threads when its parent had some.
#if !defined(SPILLWAY_THREAD_SANITIZER)

TEST_F(ForkTest, AnEngineOfTheChildsOwnDeliversWhatTheChildRecords) {
  Engine engine(config());
  SPILLWAY_INFO(engine, "the parent's");
  EXPECT_EQ(testing::exit_status_of_child([&] {
              Config own = config();
              own.logs_file = directory.path("child");
              Engine child(own);
              SPILLWAY_INFO(child, "the child's");
              const Stats stats = child.shutdown(60s);
              return stats.logs.delivered == 1 && stats.logs.residue() == 0 ? 7 : 1;
            }),
            7);
  EXPECT_EQ(engine.shutdown(60s).logs.delivered, 1U);
  const auto lines = [](const std::string& text) {
    return std::count(text.begin(), text.end(), '\n');
  };
  EXPECT_EQ(lines(directory.read("log")), 1) << "nothing twice";
  EXPECT_EQ(lines(directory.read("child")), 1);
}

// Engines are looked up under a lock, as tenants are.
TEST_F(ForkTest, AChildMakesItsEngineWhateverOtherThreadsWereDoing) {
  std::atomic<bool> stop{false};
  std::vector<std::thread> others;
  for (int i = 0; i < 2; ++i) {
    others.emplace_back([&] {
      for (std::uint64_t n = 0; !stop; ++n) {
        detail::count_refused(~std::uint64_t{7}, detail::Signal::logs);
        detail::intern_identity("tenant-" + std::to_string(n % 5000));
      }
    });
  }
  for (int round = 0; round < 50; ++round) {
    EXPECT_EQ(testing::exit_status_of_child([&] {
                alarm(30);  // Ends a child that hangs.
                detail::intern_identity("of the child");
                Config own;
                own.metrics = MetricsTo::none;
                own.logs = LogsTo::none;
                const Engine child(own);
                return 7;
              }),
              7);
  }
  stop = true;
  for (std::thread& other : others) other.join();
}

// What the parent has on disk is the parent's: the child neither sends nor locks it.
TEST_F(ForkTest, TheSpoolStaysTheParents) {
  const testing::AwsEnvironment environment;
  Config spooled = config();
  spooled.logs = LogsTo::put_log_events;
  spooled.log_group = "/shop/orders";
  spooled.log_stream = "pod";
  spooled.logs_endpoint = "http://127.0.0.1:1";  // Nobody is there.
  spooled.spool_dir = directory.path("spool");
  spooled.on_diagnostic = [](std::string_view) {};
  auto engine = std::make_unique<Engine>(spooled);
  SPILLWAY_INFO(*engine, "the parent's");
  ASSERT_TRUE(engine->flush(60s));
  ASSERT_EQ(engine->stats().logs.held_in_spool, 1U);
  EXPECT_EQ(testing::exit_status_of_child([&] {
              engine.reset();
              Engine own(spooled);
              own.flush(100ms);
              return own.stats().logs.recovered == 0 ? 7 : 1;
            }),
            7);
  EXPECT_EQ(engine->shutdown(1s).logs.held_in_spool, 1U);
  engine.reset();
  Engine next(spooled);
  SPILLWAY_INFO(next, "the next one's");  // The sender has opened the spool when this is settled.
  next.flush(60s);
  EXPECT_EQ(next.stats().logs.recovered, 1U);
}

#endif

// A server that forks its workers when it has recorded itself.
TEST(ForkIdsTest, AChildsIdsAreNotItsParents) {
  struct Ids {
    TraceId trace;
    std::uint64_t span;
    bool operator==(const Ids&) const = default;
  };
  const auto draw = [] { return Ids{detail::next_trace_id(1), detail::next_span_id()}; };
  draw();
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(testing::exit_status_of_child([&] {
                const Ids ids = draw();
                return write(ends[1], &ids, sizeof ids) == sizeof ids ? 0 : 1;
              }),
              0);
  }
  Ids first{};
  Ids second{};
  ASSERT_EQ(read(ends[0], &first, sizeof first), static_cast<ssize_t>(sizeof first));
  ASSERT_EQ(read(ends[0], &second, sizeof second), static_cast<ssize_t>(sizeof second));
  const Ids parents = draw();
  for (const auto& [a, b] : {std::pair{first, second}, {first, parents}, {second, parents}}) {
    EXPECT_FALSE(a.trace == b.trace);
    EXPECT_NE(a.span, b.span);
  }
  close(ends[0]);
  close(ends[1]);
}

}  // namespace
}  // namespace spillway
