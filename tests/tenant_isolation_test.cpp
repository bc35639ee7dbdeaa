// SPDX-License-Identifier: Apache-2.0
//
// No record comes under another tenant's name: threads that change tenants between records, and in the middle of spans,
// while the flusher reads their rings; and the same when the process is killed and the next one sends what it left. Each
// record carries whose it is a second time, in a field of its own.
#include <atomic>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <support/child_process.hpp>
#include <support/engine_fixture.hpp>
#include <support/temporary_file.hpp>

namespace spillway {
namespace {

using namespace std::chrono_literals;

constexpr int thread_count = 3;
constexpr int tenant_count = 7;

std::string tenant_of(int thread, int n) {
  return "tenant-" + std::to_string((thread + n) % tenant_count);
}

class TenantIsolationTest : public ::testing::Test {
 protected:
  Config config() const {
    Config config;
    config.metrics = MetricsTo::none;
    config.logs = LogsTo::file;
    config.logs_file = directory_.path("log");
    config.ring_bytes = 1 << 16;
    config.on_diagnostic = [](std::string_view) {};
    return config;
  }
  static void record(Engine& engine, int thread, int n) {
    const std::string own = tenant_of(thread, n);
    const Context context({.tenant = own, .user = own});
    const Scope scope(context);
    SPILLWAY_INFO(engine, "outer", {"own", own}, {"thread", thread}, {"n", 2 * n});
    if (n % 3 == 0) {
      // As a job that is done on somebody else's behalf.
      const std::string other = tenant_of(thread, n + 1);
      const Context of_other({.tenant = other, .user = other});
      const Scope inner(of_other);
      SPILLWAY_INFO(engine, "inner", {"own", other}, {"thread", thread}, {"n", 2 * n + 1});
    }
  }
  /// How many lines there are; each is whose it says.
  std::size_t check_lines() const {
    std::istringstream text(directory_.read("log"));
    std::set<std::pair<std::int64_t, std::int64_t>> found;
    for (std::string line; std::getline(text, line);) {
      const testing::Json log(line);
      EXPECT_EQ(log["tenant"].string(), log["own"].string()) << line;
      EXPECT_EQ(log["user"].string(), log["own"].string()) << line;
      found.emplace(static_cast<std::int64_t>(log["thread"].number()),
                    static_cast<std::int64_t>(log["n"].number()));
    }
    return found.size();
  }

  const testing::TemporaryDirectory directory_;
};

TEST_F(TenantIsolationTest, ThreadsThatChangeTenantsMixNone) {
  Engine engine(config());
  std::vector<std::thread> threads;
  for (int thread = 0; thread < thread_count; ++thread) {
    threads.emplace_back([&engine, thread] {
      for (int n = 0; n < 3000; ++n) record(engine, thread, n);
    });
  }
  for (std::thread& thread : threads) thread.join();
  const Stats stats = engine.shutdown(60s);
  EXPECT_EQ(stats.logs.residue(), 0);
  EXPECT_EQ(check_lines(), stats.logs.delivered);
  EXPECT_GT(stats.logs.delivered, 500U);
}

TEST_F(TenantIsolationTest, NeitherDoesTheNextProcessOfOneThatWasKilled) {
  Config with_rings = config();
  with_rings.crash_dir = directory_.path("crash");
  std::uint64_t recovered = 0;
  for (int kill = 0; kill < 10; ++kill) {
    testing::in_killed_child([&] {
      Engine engine(with_rings);
      std::atomic<int> recorded{0};
      std::vector<std::thread> threads;
      for (int thread = 0; thread < thread_count; ++thread) {
        threads.emplace_back([&, thread] {
          // Numbers of their own for each process.
          for (int n = kill * 1'000'000;; ++n) {
            record(engine, thread, n);
            recorded.fetch_add(1, std::memory_order_relaxed);
            if (n % 50 == 49) std::this_thread::yield();
          }
        });
      }
      while (recorded.load(std::memory_order_relaxed) < 500 + 300 * kill) std::this_thread::yield();
      testing::kill_self();
    });
    Engine engine(with_rings);
    engine.flush(60s);
    recovered += engine.shutdown(60s).logs.recovered;
  }
  EXPECT_GT(recovered, 100U);
  EXPECT_GT(check_lines(), 1000U);
}

}  // namespace
}  // namespace spillway
