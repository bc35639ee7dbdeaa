// SPDX-License-Identifier: Apache-2.0
//
// Leases of shared limits: processes on a table in memory, whose clock, failures and lost answers the
// tests choose. Most of them have no thread: step() does what a worker would.
#include <atomic>
#include <deque>
#include <map>
#include <mutex>
#include <random>
#include <thread>

#include <gtest/gtest.h>
#include <support/seed.hpp>

#include <spillway/middleware/rate_limit/lease_keeper.hpp>

namespace spillway::detail {
namespace {

using namespace std::chrono_literals;
using middleware::RateAlgorithm;
using middleware::RateDecision;
using middleware::RateKey;
using middleware::RateLimit;
using Outcome = RateDecision::Outcome;

constexpr std::int64_t second = 1'000'000'000;
constexpr std::int64_t millisecond = 1'000'000;

/// What the processes of a test share: the time, and the states of the keys.
struct World {
  std::mutex mutex;
  std::atomic<std::int64_t> steady = 5'000 * second;
  std::int64_t wall_offset = 1'795'000'000 * second + 1'234;
  std::map<std::string, RateState> states;
  SharedTake::Outcome outcome = SharedTake::Outcome::taken;  // another one: every write fails so
  int answers_to_lose = 0;
  std::int64_t answer_takes = 0;
  int writes = 0;

  std::int64_t wall() const { return steady + wall_offset; }
};

class MemoryTable final : public SharedTable {
 public:
  /// `skew`: how far the process's wall clock is wrong.
  explicit MemoryTable(World& world, std::int64_t skew = 0) : world_(world), skew_(skew) {}

  SharedTake take(const SharedWish& wish, const RateState& /*guess*/) override {
    const std::scoped_lock lock(world_.mutex);
    ++world_.writes;
    world_.steady += world_.answer_takes;
    SharedTake result;
    result.writes = 1;
    result.error = "scripted";
    result.outcome = world_.outcome;
    if (world_.outcome != SharedTake::Outcome::taken) return result;
    RateState& state = world_.states[id(wish.key, wish.rule, end_of(wish.rule, wish.now_ns))];
    RateState probe = state;
    const auto least = detail::take(probe, wish.rule, wish.least, wish.now_ns);
    if (!least.admitted()) {
      result.outcome = SharedTake::Outcome::denied;
      result.least = wish.least;
      result.retry_after_ns = least.retry_after_ns;
      result.state = state;
      return result;
    }
    const std::int64_t left = wish.least + least.remaining;
    result.permits = std::min({wish.want, left, std::max((left - 1) / wish.share + 1, wish.least)});
    result.left = detail::take(state, wish.rule, result.permits, wish.now_ns).remaining;
    result.state = state;
    if (world_.answers_to_lose > 0) {
      --world_.answers_to_lose;
      result.outcome = SharedTake::Outcome::lost;
    }
    return result;
  }
  bool give_back(std::string_view key, const RateRule& rule, std::int64_t permits,
                 std::int64_t receipt, std::int64_t now) override {
    const std::scoped_lock lock(world_.mutex);
    if (world_.outcome != SharedTake::Outcome::taken) return false;
    if (now < receipt)
      detail::give_back(world_.states[id(key, rule, receipt)], rule, permits, receipt, now);
    return true;
  }
  std::int64_t now_ns() override {
    const std::scoped_lock lock(world_.mutex);
    return world_.wall() + skew_;
  }
  void stop() noexcept override {}

 private:
  static std::int64_t end_of(const RateRule& rule, std::int64_t now) {
    return now - now % rule.window_ns + rule.window_ns;
  }
  static std::string id(std::string_view key, const RateRule& rule, std::int64_t end) {
    const bool fixed = rule.algorithm == RateAlgorithm::fixed_window;
    return std::string(key) + (fixed ? "/" + std::to_string(end) : "");
  }
  World& world_;
  const std::int64_t skew_;
};

RateLimit limit_of(RateAlgorithm algorithm, std::int64_t permits,
                   std::chrono::nanoseconds window = 1s) {
  return {.permits = permits, .window = window, .algorithm = algorithm};
}

RateKey key_of(std::string_view tenant) {
  RateKey key("api");
  key.add("tenant", tenant);
  return key;
}

class LeaseTest : public ::testing::Test {
 protected:
  LeaseKeeper::Parts parts(int tables = 1) {
    LeaseKeeper::Parts made{.lease = {.permits_max = 100, .time_ns = second},
                            .keys_max = 1'000,
                            .wait = 0ns,
                            .threads = false,
                            .steady_ns =
                                [this] {
                                  const std::scoped_lock lock(world.mutex);
                                  return world.steady.load();
                                },
                            .draw = [] { return 0.5; }};
    for (int i = 0; i < tables; ++i) made.tables.push_back(std::make_unique<MemoryTable>(world));
    return made;
  }
  SteadyTime now() const { return SteadyTime(std::chrono::nanoseconds(world.steady.load())); }
  RateDecision take(LeaseKeeper& keeper, std::string_view tenant = "a") {
    return keeper.take(key_of(tenant), rule, 1, now());
  }
  // The same, and the worker is quick.
  RateDecision take_with(LeaseKeeper& keeper, std::string_view tenant = "a") {
    RateDecision decision = take(keeper, tenant);
    run(keeper);
    return decision.outcome == Outcome::denied_unavailable ? take(keeper, tenant) : decision;
  }
  static void run(LeaseKeeper& keeper) {
    while (keeper.step()) {
    }
  }

  World world;
  RateRule rule{limit_of(RateAlgorithm::fixed_window, 1'000, 60s)};
};

TEST_F(LeaseTest, OneWriteServesManyRequests) {
  LeaseKeeper keeper(parts());
  EXPECT_EQ(take(keeper).outcome, Outcome::denied_unavailable)
      << "nothing is known, and it waits not";
  EXPECT_TRUE(keeper.step());
  EXPECT_EQ(take(keeper).outcome, Outcome::admitted);
  for (int i = 0; i < 900; ++i) {
    world.steady += millisecond;
    ASSERT_EQ(take_with(keeper).outcome, Outcome::admitted) << i;
  }
  EXPECT_LT(world.writes, 45);
  EXPECT_EQ(keeper.stats().writes, static_cast<std::uint64_t>(world.writes));
}

TEST_F(LeaseTest, OnceWarmNoRequestWaits) {
  for (const RateAlgorithm algorithm :
       {RateAlgorithm::fixed_window, RateAlgorithm::token_bucket, RateAlgorithm::sliding_window}) {
    SCOPED_TRACE(to_string(algorithm));
    rule = RateRule(limit_of(algorithm, 10'000, 10s));
    LeaseKeeper keeper(parts());
    world.states.clear();
    int unknown = 0;
    for (int i = 0; i < 60'000; ++i) {
      world.steady += 2 * millisecond;
      const RateDecision decision = take(keeper);
      if (i > 1'000) {
        ASSERT_EQ(decision.outcome, Outcome::admitted) << "request " << i;
      }
      unknown += decision.outcome == Outcome::admitted ? 0 : 1;
      if (i % 4 == 0) run(keeper);  // An answer takes 8 ms.
    }
    EXPECT_LT(unknown, 20);
    EXPECT_EQ(keeper.stats().waited, 0U);
  }
}

TEST_F(LeaseTest, ADenialIsRememberedUntilItsWindowEnds) {
  rule = RateRule(limit_of(RateAlgorithm::fixed_window, 10, 60s));
  LeaseKeeper keeper(parts());
  int admitted = 0;
  for (int i = 0; i < 40; ++i) admitted += take_with(keeper).outcome == Outcome::admitted ? 1 : 0;
  EXPECT_EQ(admitted, 10);
  const int writes = world.writes;
  const std::int64_t end = world.wall() - world.wall() % (60 * second) + 60 * second;
  const RateDecision denied = take(keeper);
  EXPECT_EQ(denied.outcome, Outcome::denied);
  EXPECT_EQ(denied.retry_after_ns, end - world.wall());
  EXPECT_EQ(denied.reset_after_ns, end - world.wall());
  EXPECT_EQ(denied.limit, 10);
  EXPECT_EQ(denied.receipt, 0);
  for (int i = 0; i < 40; ++i) ASSERT_EQ(take_with(keeper).outcome, Outcome::denied);
  EXPECT_EQ(world.writes, writes);
  world.steady += end - world.wall();
  EXPECT_EQ(take_with(keeper).outcome, Outcome::admitted);
}

TEST_F(LeaseTest, ADenialIsBelievedNoLongerThanSet) {
  rule = RateRule(limit_of(RateAlgorithm::fixed_window, 1, 60s));
  auto made = parts();
  made.lease.denial_ns_max = second;
  LeaseKeeper keeper(std::move(made));
  ASSERT_EQ(take_with(keeper).outcome, Outcome::admitted);
  ASSERT_EQ(take_with(keeper).outcome, Outcome::denied);
  for (auto& [id, state] : world.states) state.current = 0;  // Another process gave back.
  ASSERT_EQ(take_with(keeper).outcome, Outcome::denied);
  world.steady += second;
  EXPECT_EQ(take_with(keeper).outcome, Outcome::admitted);
}

TEST_F(LeaseTest, WhatIsNotUsedInTimeGoesBackAndLeasesShrink) {
  for (const RateAlgorithm algorithm :
       {RateAlgorithm::fixed_window, RateAlgorithm::token_bucket, RateAlgorithm::sliding_window}) {
    SCOPED_TRACE(to_string(algorithm));
    rule = RateRule(limit_of(algorithm, 1'000, 3'600s));
    world.states.clear();
    LeaseKeeper keeper(parts());
    int used = 0;
    for (; used < 200; ++used) ASSERT_EQ(take_with(keeper).outcome, Outcome::admitted);
    const auto held = keeper.stats().permits_taken - 200;
    ASSERT_GT(held, 10U);
    world.steady += second - 1;
    run(keeper);
    EXPECT_EQ(keeper.stats().permits_returned, 0U) << "not before its time";
    world.steady += 1;
    run(keeper);
    EXPECT_EQ(keeper.stats().permits_returned, held);
    // The next process finds all of it.
    std::int64_t left = 0;
    MemoryTable table(world);
    for (;;) {
      const SharedTake one =
          table.take({.key = "api|tenant=a", .rule = rule, .now_ns = world.wall()}, {});
      if (one.outcome != SharedTake::Outcome::taken) break;
      ++left;
    }
    EXPECT_GE(left, 800);
    EXPECT_LE(left, 801) << "a second's worth may have flowed back";
  }
}

TEST_F(LeaseTest, ALeaseBeginsWithItsAnswer) {
  LeaseKeeper keeper(parts());
  world.answer_takes = 3 * second;
  take(keeper);
  keeper.step();
  world.steady += second - 1;
  EXPECT_EQ(take(keeper).outcome, Outcome::admitted);
  take(keeper);
  keeper.step();
  world.steady += second;
  EXPECT_EQ(take(keeper).outcome, Outcome::denied_unavailable);
}

TEST_F(LeaseTest, ARareKeyTakesOneAtATime) {
  LeaseKeeper keeper(parts());
  for (int i = 0; i < 20; ++i) {
    ASSERT_EQ(take_with(keeper).outcome, Outcome::admitted);
    world.steady += 2 * second;
    run(keeper);
  }
  EXPECT_EQ(keeper.stats().writes, 20U);
  EXPECT_EQ(keeper.stats().permits_taken, 20U);
  EXPECT_EQ(keeper.stats().permits_returned, 0U);
}

TEST_F(LeaseTest, AnOutageIsAnsweredAsChosenAndNotHammered) {
  for (const bool open : {false, true}) {
    auto made = parts();
    made.admit_when_unavailable = open;
    LeaseKeeper keeper(std::move(made));
    world.outcome = SharedTake::Outcome::unavailable;
    const int writes = world.writes;
    for (int i = 0; i < 1'000; ++i) {
      const RateDecision decision = take(keeper);
      ASSERT_EQ(decision.outcome,
                open ? Outcome::admitted_unavailable : Outcome::denied_unavailable);
      ASSERT_EQ(decision.receipt, 0);
      run(keeper);
      world.steady += 10 * millisecond;
    }
    EXPECT_LT(world.writes - writes, 15) << "in 10 s";
    EXPECT_EQ(keeper.stats().last_error, "scripted");
    world.outcome = SharedTake::Outcome::taken;
    world.steady += std::chrono::nanoseconds(shared_backoff_max).count();
    take(keeper);
    run(keeper);
    EXPECT_EQ(take(keeper).outcome, Outcome::admitted);
    EXPECT_EQ(keeper.stats().unavailable, 1'001U);
  }
}

TEST_F(LeaseTest, WhatIsHeldServesThroughAnOutage) {
  LeaseKeeper keeper(parts());
  for (int i = 0; i < 100; ++i) ASSERT_EQ(take_with(keeper).outcome, Outcome::admitted);
  world.outcome = SharedTake::Outcome::unavailable;
  int served = 0;
  while (take_with(keeper).outcome == Outcome::admitted) ++served;
  EXPECT_GT(served, 10);
}

TEST_F(LeaseTest, ThrottlingIsOfOneKey) {
  LeaseKeeper keeper(parts());
  world.outcome = SharedTake::Outcome::throttled;
  take(keeper, "hot");
  run(keeper);
  world.outcome = SharedTake::Outcome::taken;
  EXPECT_EQ(take_with(keeper, "cold").outcome, Outcome::admitted);
  EXPECT_EQ(take_with(keeper, "hot").outcome, Outcome::denied_unavailable);
  world.steady += second;
  EXPECT_EQ(take_with(keeper, "hot").outcome, Outcome::admitted);
}

TEST_F(LeaseTest, ALostAnswerCountsAsTaken) {
  rule = RateRule(limit_of(RateAlgorithm::fixed_window, 1'000, 3'600s));
  world.steady += rule.window_ns - world.wall() % rule.window_ns;
  LeaseKeeper keeper(parts());
  int admitted = 0;
  int denied = 0;
  for (int i = 0; denied < 3; ++i) {
    ASSERT_LT(i, 20'000);
    if (i % 400 == 399) world.answers_to_lose = 1;
    const Outcome outcome = take_with(keeper).outcome;
    admitted += outcome == Outcome::admitted ? 1 : 0;
    denied += outcome == Outcome::denied ? 1 : 0;
    world.steady += millisecond;
    run(keeper);
  }
  const auto stats = keeper.stats();
  EXPECT_GT(stats.permits_lost, 0U);
  EXPECT_EQ(static_cast<std::uint64_t>(admitted) + stats.permits_lost, 1'000U);
}

TEST_F(LeaseTest, ClosingGivesBackWhatIsHeld) {
  LeaseKeeper keeper(parts());
  for (int i = 0; i < 50; ++i) {
    ASSERT_EQ(take_with(keeper, "a").outcome, Outcome::admitted);
    ASSERT_EQ(take_with(keeper, "b").outcome, Outcome::admitted);
  }
  EXPECT_TRUE(keeper.close(1s));
  const auto stats = keeper.stats();
  EXPECT_EQ(stats.permits_taken - stats.permits_returned, 100U);
  EXPECT_EQ(take(keeper).outcome, Outcome::denied_unavailable);
  EXPECT_TRUE(keeper.close(1s)) << "again";
}

TEST_F(LeaseTest, ARequestThatShallNotCountIsPutBack) {
  rule = RateRule(limit_of(RateAlgorithm::fixed_window, 3, 60s));
  for (const std::int64_t lease : {0, 100}) {
    SCOPED_TRACE(lease);
    world.states.clear();
    auto made = parts();
    made.lease.permits_max = lease;
    LeaseKeeper keeper(std::move(made));
    for (int i = 0; i < 20; ++i) {
      const RateDecision decision = take_with(keeper);
      ASSERT_EQ(decision.outcome, Outcome::admitted) << i;
      keeper.give_back(key_of("a"), rule, 1, decision.receipt, now());
      run(keeper);
    }
    // Without leases nothing stays here.
    if (lease == 0) {
      EXPECT_EQ(world.states.begin()->second.current, 0U);
    }
    for (int i = 0; i < 3; ++i) ASSERT_EQ(take_with(keeper).outcome, Outcome::admitted);
    EXPECT_EQ(take_with(keeper).outcome, Outcome::denied);
    keeper.give_back(key_of("nobody"), rule, 1, 77, now());
    keeper.give_back(key_of("a"), rule, 1, 0, now());
    EXPECT_EQ(take_with(keeper).outcome, Outcome::denied);
  }
}

TEST_F(LeaseTest, AKeyThatFindsNoPlaceIsAnsweredAsChosen) {
  auto made = parts();
  made.keys_max = 10;
  LeaseKeeper keeper(std::move(made));
  rule = RateRule(limit_of(RateAlgorithm::fixed_window, 1, 60s));
  for (int i = 0; i < 30; ++i) {
    take_with(keeper, std::to_string(i));
    take_with(keeper, std::to_string(i));  // Denied until the window ends.
  }
  EXPECT_EQ(take_with(keeper, "one more").outcome, Outcome::denied_unavailable);
  EXPECT_LE(keeper.keys(), 10U);
  world.steady += 70 * second;
  EXPECT_EQ(take_with(keeper, "one more").outcome, Outcome::admitted);
}

TEST_F(LeaseTest, SeveralPermitsAreTakenTogetherOrNotAtAll) {
  rule = RateRule(limit_of(RateAlgorithm::fixed_window, 10, 60s));
  for (const std::int64_t lease : {0, 100}) {
    world.states.clear();
    auto made = parts();
    made.lease.permits_max = lease;
    LeaseKeeper keeper(std::move(made));
    const auto take_many = [&](std::int64_t permits) {
      keeper.take(key_of("a"), rule, permits, now());
      run(keeper);
      return keeper.take(key_of("a"), rule, permits, now()).outcome;
    };
    EXPECT_EQ(take_many(7), Outcome::admitted);
    EXPECT_EQ(take_many(5), Outcome::denied);
    EXPECT_EQ(take_many(11), Outcome::denied);
    EXPECT_EQ(take_many(3), Outcome::admitted) << "what was denied was more";
    EXPECT_EQ(take_many(1), Outcome::denied);
  }
}

// Clocks that differ, processes that are killed, answers that are lost, and the bound of lease.hpp for each algorithm.
TEST_F(LeaseTest, ProcessesTogetherAdmitNoMoreThanIsStated) {
  const std::uint64_t seed = spillway::testing::seed_or(2026);
  SCOPED_TRACE(spillway::testing::seed_note(seed));
  std::mt19937_64 random(seed);
  for (int round = 0; round < 60; ++round) {
    const auto algorithm = static_cast<RateAlgorithm>(round % 3);
    const auto permits = static_cast<std::int64_t>(20 + random() % 400);
    rule =
        RateRule(limit_of(algorithm, permits, std::chrono::milliseconds(200 + random() % 3'000)));
    world.states.clear();
    std::array<std::optional<LeaseKeeper>, 3> processes;
    constexpr std::array<std::int64_t, 3> skews{-50 * millisecond, 0, 50 * millisecond};
    std::map<std::int64_t, std::int64_t> by_window;
    std::deque<std::int64_t> admitted;
    for (int i = 0; i < 3'000; ++i) {
      const std::size_t which = random() % processes.size();
      auto& process = processes[which];
      if (!process) {
        auto made = parts(0);
        made.tables.push_back(std::make_unique<MemoryTable>(world, skews[which]));
        made.lease.time_ns = 300 * millisecond;
        process.emplace(std::move(made));
      }
      world.steady += static_cast<std::int64_t>(random() % (2 * millisecond));
      if (random() % 300 == 0) world.answers_to_lose = 1;
      if (random() % 500 == 0) world.outcome = SharedTake::Outcome::unavailable;
      if (random() % 50 == 0) world.outcome = SharedTake::Outcome::taken;
      if (random() % 700 == 0) {
        // Killed: nothing goes back, as with a table that is gone.
        const auto before = std::exchange(world.outcome, SharedTake::Outcome::unavailable);
        process.reset();
        world.outcome = before;
        continue;
      }
      const RateDecision decision = take(*process);
      if (decision.outcome == Outcome::admitted) {
        ++by_window[decision.receipt];
        admitted.push_back(world.wall());
      }
      if (random() % 3 == 0) process->step();
    }
    if (algorithm == RateAlgorithm::fixed_window) {
      for (const auto& [window, count] : by_window) ASSERT_LE(count, permits);
    } else if (algorithm == RateAlgorithm::token_bucket) {
      // A bucket that is deeper by what flows in a lease time, and in the time between the first and
      // the last clock, admits all of it.
      RateRule wide = rule;
      wide.depth_ns += 300 * millisecond + skews.back() - skews.front();
      RateState bucket;
      for (const std::int64_t at : admitted)
        ASSERT_TRUE(detail::take(bucket, wide, 1, at).admitted()) << "round " << round;
    } else {
      // In a window and the lease time no more than two counters can hold between them.
      std::size_t first = 0;
      for (std::size_t last = 0; last < admitted.size(); ++last) {
        while (admitted[last] - admitted[first] >= rule.window_ns) ++first;
        ASSERT_LE(static_cast<std::int64_t>(last - first + 1), 2 * permits) << "round " << round;
      }
    }
    ASSERT_GT(admitted.size(), 10U) << "round " << round;
  }
}

// ---- With threads ----

TEST_F(LeaseTest, CallersThatWaitAreAdmittedExactlyTheLimit) {
  for (const std::int64_t lease : {0, 100}) {
    for (const RateAlgorithm algorithm : {RateAlgorithm::token_bucket, RateAlgorithm::fixed_window,
                                          RateAlgorithm::sliding_window}) {
      SCOPED_TRACE(std::string(to_string(algorithm)) + " " + std::to_string(lease));
      world.states.clear();
      rule = RateRule(limit_of(algorithm, 2'000, 3'600s));
      auto made = parts(2);
      made.threads = true;
      made.wait = 10s;
      made.lease.permits_max = lease;
      LeaseKeeper keeper(std::move(made));
      std::atomic<int> admitted{0};
      std::atomic<int> other{0};
      const auto call = [&] {
        for (int i = 0; i < 1'500; ++i) {
          const RateDecision decision = take(keeper);
          if (decision.outcome == Outcome::admitted) ++admitted;
          if (decision.outcome == Outcome::denied_unavailable) ++other;
        }
      };
      std::thread beside(call);
      call();
      beside.join();
      EXPECT_EQ(admitted.load(), 2'000);
      EXPECT_EQ(other.load(), 0);
      EXPECT_GT(keeper.stats().waited, 0U);
    }
  }
}

}  // namespace
}  // namespace spillway::detail
