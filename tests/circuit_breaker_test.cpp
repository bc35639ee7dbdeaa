// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <atomic>
#include <barrier>
#include <cmath>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <support/seed.hpp>

#include <spillway/middleware/resilience/circuit_breaker.hpp>

namespace spillway::middleware {
namespace {

using namespace std::chrono_literals;

/// A breaker on a time that the test moves, which opens at half of 10 calls, for 5 s, and probes
/// with 3.
class CircuitBreakerTest : public ::testing::Test {
 protected:
  CircuitBreakerTest() {
    options.window = 10s;
    options.calls_min = 10;
    options.slow_call = 1s;
    options.slow_call_rate = 0.6;
    options.open_jitter = 0;
    options.open_time = 5s;
    options.open_time_max = 30s;
    options.on_change = [this](const BreakerChange& change) { changes.push_back(change); };
  }

  void call(CallResult result, std::chrono::nanoseconds took = 1ms) {
    const auto permit = breaker().try_acquire(now);
    ASSERT_TRUE(permit);
    breaker().record(permit, result, took, now);
  }
  void calls(int count, CallResult result, std::chrono::nanoseconds took = 1ms) {
    for (int i = 0; i < count; ++i) call(result, took);
  }
  void open() {
    calls(10, CallResult::failure);
    ASSERT_EQ(breaker().state(), BreakerState::open);
  }
  void half_open() {
    open();
    now += 5s;
  }
  CircuitBreaker& breaker() {
    if (!breaker_) breaker_.emplace(options);
    return *breaker_;
  }

  CircuitBreakerOptions options;
  std::vector<BreakerChange> changes;
  SteadyTime now{1000s};

 private:
  std::optional<CircuitBreaker> breaker_;
};

TEST_F(CircuitBreakerTest, OpensWhenTheFailureRateIsReachedAndNotBefore) {
  calls(6, CallResult::success);
  calls(5, CallResult::failure);
  EXPECT_EQ(breaker().state(), BreakerState::closed);  // 5 of 11
  call(CallResult::failure);                           // 6 of 12
  EXPECT_EQ(breaker().state(), BreakerState::open);
  ASSERT_EQ(changes.size(), 1U);
  EXPECT_EQ(changes[0].reason, BreakerReason::failure_rate);
  EXPECT_EQ(changes[0].calls, 12U);
  EXPECT_EQ(changes[0].failed, 6U);
  EXPECT_EQ(changes[0].open_for, 5s);
  EXPECT_EQ(breaker().try_acquire(now).refusal(), BreakerRefusal::open);
  EXPECT_EQ(breaker().retry_in(now + 2s), 3s);
}

TEST_F(CircuitBreakerTest, FewCallsAreNotJudged) {
  calls(9, CallResult::failure);
  EXPECT_EQ(breaker().state(), BreakerState::closed);
  call(CallResult::failure);
  EXPECT_EQ(breaker().state(), BreakerState::open);
}

TEST_F(CircuitBreakerTest, SlowCallsOpenItAlthoughTheySucceed) {
  calls(4, CallResult::success);
  calls(5, CallResult::success, 1s);
  EXPECT_EQ(breaker().state(), BreakerState::closed);
  call(CallResult::success, 1s);
  EXPECT_EQ(breaker().state(), BreakerState::open);
  EXPECT_EQ(changes.at(0).reason, BreakerReason::slow_call_rate);
  EXPECT_EQ(changes.at(0).slow, 6U);
  EXPECT_EQ(changes.at(0).failed, 0U);
}

TEST_F(CircuitBreakerTest, IgnoredResultsAreNotCounted) {
  calls(100, CallResult::ignored);
  EXPECT_EQ(breaker().counts().calls, 0U);
  calls(9, CallResult::failure);
  EXPECT_EQ(breaker().state(), BreakerState::closed);
}

TEST_F(CircuitBreakerTest, TheWindowSlidesByABucketAtATime) {
  calls(9, CallResult::failure);
  now += 1s;
  calls(5, CallResult::success);
  for (int second = 2; second <= 9; ++second) {
    now += 1s;
    call(CallResult::success);
    EXPECT_EQ(breaker().counts().failed, 9U) << second;
  }
  now += 1s;
  call(CallResult::success);
  EXPECT_EQ(breaker().counts().failed, 0U);
  EXPECT_EQ(breaker().counts().calls, 14U);
}

TEST_F(CircuitBreakerTest, ALongPauseEmptiesTheWindow) {
  calls(9, CallResult::failure);
  now += 24h;
  call(CallResult::failure);
  EXPECT_EQ(breaker().counts().calls, 1U);
  EXPECT_EQ(breaker().state(), BreakerState::closed);
}

TEST_F(CircuitBreakerTest, TheWindowIsAsAModelSaysIt) {
  const std::uint64_t seed = spillway::testing::seed_or(1);
  SCOPED_TRACE(spillway::testing::seed_note(seed));
  std::mt19937_64 random(seed);
  options.calls_min = 1'000'000;
  struct Call {
    std::int64_t bucket;
    bool failed;
  };
  std::vector<Call> model;
  for (int i = 0; i < 5000; ++i) {
    now += std::chrono::milliseconds(random() % 100 == 0 ? random() % 30'000 : random() % 300);
    const bool failed = random() % 3 == 0;
    call(failed ? CallResult::failure : CallResult::success);
    // Buckets are the seconds of the steady clock.
    const auto bucket = std::chrono::floor<std::chrono::seconds>(now.time_since_epoch()).count();
    model.push_back({bucket, failed});
    std::erase_if(model, [&](const Call& one) { return one.bucket <= bucket - 10; });
    const auto failures =
        std::count_if(model.begin(), model.end(), [](auto& c) { return c.failed; });
    ASSERT_EQ(breaker().counts().calls, model.size()) << i;
    ASSERT_EQ(breaker().counts().failed, static_cast<std::size_t>(failures)) << i;
  }
}

TEST_F(CircuitBreakerTest, HalfOpenLetsExactlySoManyProbesThrough) {
  half_open();
  std::vector<CircuitBreaker::Permit> permits;
  for (int i = 0; i < 10; ++i) {
    if (const auto permit = breaker().try_acquire(now)) permits.push_back(permit);
  }
  EXPECT_EQ(permits.size(), 3U);
  EXPECT_EQ(breaker().try_acquire(now).refusal(), BreakerRefusal::probing);
  // One that succeeded makes no room for another.
  breaker().record(permits[0], CallResult::success, 1ms, now);
  EXPECT_FALSE(breaker().try_acquire(now));
  EXPECT_EQ(breaker().state(), BreakerState::half_open);
  breaker().record(permits[1], CallResult::success, 1ms, now);
  breaker().record(permits[2], CallResult::success, 1ms, now);
  EXPECT_EQ(breaker().state(), BreakerState::closed);
  EXPECT_EQ(changes.back().reason, BreakerReason::probes_succeeded);
}

TEST_F(CircuitBreakerTest, RecoveryBeginsWithAnEmptyWindow) {
  half_open();
  calls(3, CallResult::success);
  EXPECT_EQ(breaker().counts().calls, 0U);
  calls(9, CallResult::failure);
  EXPECT_EQ(breaker().state(), BreakerState::closed);
}

TEST_F(CircuitBreakerTest, ProbesThatFailOpenItAsSoonAsTheOthersCannotHelp) {
  half_open();
  call(CallResult::failure);
  EXPECT_EQ(breaker().state(), BreakerState::half_open);  // 1 of 3 is below a half.
  call(CallResult::failure);
  EXPECT_EQ(breaker().state(), BreakerState::open);
  EXPECT_EQ(changes.back().reason, BreakerReason::probes_failed);
}

TEST_F(CircuitBreakerTest, SlowProbesOpenItToo) {
  half_open();
  calls(2, CallResult::success, 2s);
  EXPECT_EQ(breaker().state(), BreakerState::open);
  EXPECT_EQ(changes.back().reason, BreakerReason::probes_slow);
}

TEST_F(CircuitBreakerTest, AProbeThatNeverAnswersGivesItsPermitBack) {
  options.probes = 1;
  options.probe_timeout = 30s;
  half_open();
  const auto lost = breaker().try_acquire(now);
  ASSERT_TRUE(lost);
  now += 30s - 1ns;
  EXPECT_FALSE(breaker().try_acquire(now));
  now += 1ns;
  const auto next = breaker().try_acquire(now);
  ASSERT_TRUE(next);
  EXPECT_FALSE(breaker().try_acquire(now));
  // What it says when it is late is not asked any more.
  breaker().record(lost, CallResult::failure, 31s, now);
  breaker().release(lost);
  EXPECT_EQ(breaker().state(), BreakerState::half_open);
  EXPECT_FALSE(breaker().try_acquire(now));
  breaker().record(next, CallResult::success, 1ms, now);
  EXPECT_EQ(breaker().state(), BreakerState::closed);
}

TEST_F(CircuitBreakerTest, AProbeThatIsReleasedOrIgnoredGivesItsPermitBackAtOnce) {
  options.probes = 1;
  half_open();
  const auto cancelled = breaker().try_acquire(now);
  ASSERT_TRUE(cancelled);
  breaker().release(cancelled);
  const auto ignored = breaker().try_acquire(now);
  ASSERT_TRUE(ignored);
  breaker().record(ignored, CallResult::ignored, 1ms, now);
  breaker().release(cancelled);  // Twice is once.
  const auto third = breaker().try_acquire(now);
  ASSERT_TRUE(third);
  EXPECT_FALSE(breaker().try_acquire(now));
}

TEST_F(CircuitBreakerTest, ResultsOfCallsThatBeganBeforeAChangeAreNotCounted) {
  const auto early = breaker().try_acquire(now);
  half_open();
  const auto probe = breaker().try_acquire(now);
  ASSERT_TRUE(probe);
  for (int i = 0; i < 10; ++i) breaker().record(early, CallResult::success, 1ms, now);
  EXPECT_EQ(breaker().state(), BreakerState::half_open);
  breaker().record(probe, CallResult::success, 1ms, now);
  calls(2, CallResult::success);
  ASSERT_EQ(breaker().state(), BreakerState::closed);
  for (int i = 0; i < 20; ++i) {
    breaker().record(early, CallResult::failure, 1ms, now);
    breaker().record(probe, CallResult::failure, 1ms, now);
    breaker().record({}, CallResult::failure, 1ms, now);
  }
  EXPECT_EQ(breaker().counts().calls, 0U);
  EXPECT_EQ(breaker().state(), BreakerState::closed);
}

TEST_F(CircuitBreakerTest, OpenTimesGrowUntilItWasClosedForAWindow) {
  const auto open_for = [this] { return changes.back().open_for; };
  half_open();
  calls(2, CallResult::failure);
  EXPECT_EQ(open_for(), 10s);
  now += 10s;
  calls(2, CallResult::failure);
  EXPECT_EQ(open_for(), 20s);
  now += 20s;
  calls(2, CallResult::failure);
  EXPECT_EQ(open_for(), 30s);  // open_time_max
  now += 30s;
  calls(3, CallResult::success);
  calls(10, CallResult::failure);  // closed for a moment only
  EXPECT_EQ(open_for(), 30s);
  now += 30s;
  calls(3, CallResult::success);
  now += 10s;
  calls(10, CallResult::failure);
  EXPECT_EQ(open_for(), 5s);
}

TEST_F(CircuitBreakerTest, OpenTimesAreSpread) {
  options.open_jitter = 0.1;
  double random = 0;
  options.random = [&] { return random; };
  open();
  EXPECT_EQ(changes.back().open_for, 4500ms);
  now += 4500ms;
  random = 0.999999;
  calls(2, CallResult::failure);
  EXPECT_NEAR(std::chrono::duration<double>(changes.back().open_for).count(), 11, 0.001);
}

TEST_F(CircuitBreakerTest, ATableOfBreakersHasPlacesAndForgets) {
  EXPECT_THROW(CircuitBreakers(options, {.keys_max = 0}), std::invalid_argument);
  EXPECT_THROW(CircuitBreakers(options, {.idle_after = 0s}), std::invalid_argument);
  EXPECT_THROW(CircuitBreakers(options, {.idle_after = -1s}), std::invalid_argument);
}

TEST_F(CircuitBreakerTest, OptionsThatCannotWorkAreAllNamed) {
  options.probes = 0;
  options.failure_rate = std::nan("");
  options.open_time_max = 1s;
  try {
    CircuitBreakers breakers(options);
    FAIL();
  } catch (const std::invalid_argument& error) {
    const std::string what = error.what();
    EXPECT_NE(what.find("probes = 0: allowed are 1 to 16"), std::string::npos) << what;
    EXPECT_NE(what.find("failure_rate = nan"), std::string::npos) << what;
    EXPECT_NE(what.find("open_time_max (ms) = 1000: allowed are 5000"), std::string::npos) << what;
  }
}

// ---- Threads ----

TEST(CircuitBreakerStressTest, ThreadsThatRaceForProbesGetExactlySoMany) {
  constexpr int rounds = 300;
  CircuitBreakerOptions options;
  options.calls_min = 1;
  options.probes = 5;
  options.open_time = options.open_time_max = 1ms;
  options.open_jitter = 0;
  CircuitBreaker breaker(options);
  SteadyTime now{1s};
  breaker.record(breaker.try_acquire(now), CallResult::failure, 1us, now);
  std::array<std::vector<CircuitBreaker::Permit>, 4> permits;
  int wrong = 0;
  const auto next_round = [&]() noexcept {
    std::size_t probes = 0;
    for (auto& mine : permits) {
      probes += mine.size();
      for (const auto& permit : mine) breaker.record(permit, CallResult::failure, 1us, now);
      mine.clear();
    }
    if (probes != 5 || breaker.state() != BreakerState::open) ++wrong;
    now += 1ms;
  };
  now += 1ms;
  std::barrier round(4, next_round);
  std::vector<std::thread> threads;
  for (auto& mine : permits) {
    threads.emplace_back([&] {
      for (int i = 0; i < rounds; ++i) {
        for (int attempt = 0; attempt < 5; ++attempt) {
          if (const auto permit = breaker.try_acquire(now)) mine.push_back(permit);
        }
        round.arrive_and_wait();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST(CircuitBreakerStressTest, NoCallIsCountedTwiceOrLostWhenBucketsRoll) {
  CircuitBreakerOptions options;
  options.window = std::chrono::hours(1);
  CircuitBreaker breaker(options);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20'000; ++i) {
        // Eight buckets of six minutes, that all threads walk through at their own speed.
        const SteadyTime now{std::chrono::seconds(3600 + i / 8)};
        breaker.record(breaker.try_acquire(now), CallResult::success, 1us, now);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(breaker.counts().calls, 80'000U);
}

// ---- Keys ----

TEST(CircuitBreakersTest, EachKeyHasItsOwn) {
  CircuitBreakerOptions options;
  options.calls_min = 1;
  CircuitBreakers breakers(options);
  const SteadyTime now{1s};
  CircuitBreaker& pay = breakers.of("pay.example", now);
  pay.record(pay.try_acquire(now), CallResult::failure, 1ms, now);
  EXPECT_EQ(breakers.of("pay.example", now).state(), BreakerState::open);
  EXPECT_EQ(breakers.of("mail.example", now).state(), BreakerState::closed);
  EXPECT_EQ(&breakers.of("pay.example", now), &pay);
}

TEST(CircuitBreakersTest, IdleKeysGiveTheirPlacesToNewOnes) {
  CircuitBreakerOptions options;
  options.calls_min = 1;
  CircuitBreakers breakers(options, {.keys_max = 16, .idle_after = 60s});
  ASSERT_EQ(breakers.table().places(), 16U);
  SteadyTime now{1000s};
  const auto key = [](int i) { return "host-" + std::to_string(i); };
  CircuitBreaker& first = breakers.of(key(0), now);
  const auto permit = first.try_acquire(now);
  first.record(permit, CallResult::failure, 1ms, now);
  ASSERT_EQ(first.state(), BreakerState::open);
  const auto late = CircuitBreaker::Permit(permit);
  for (int i = 1; i < 16; ++i) breakers.of(key(i), now);
  EXPECT_EQ(breakers.table().overflows(), 0U);
  // Full: the rest share one.
  CircuitBreaker& other = breakers.of("one more", now);
  EXPECT_TRUE(breakers.table().is_overflow(other));
  EXPECT_EQ(breakers.table().overflows(), 1U);
  // In use, a key keeps its place.
  now += 59s;
  for (int i = 1; i < 16; ++i) breakers.of(key(i), now);
  now += 1s;
  CircuitBreaker& heir = breakers.of("one more", now);
  EXPECT_EQ(&heir, &first);
  EXPECT_EQ(heir.state(), BreakerState::closed);
  heir.record(late, CallResult::failure, 1ms, now);
  EXPECT_EQ(heir.counts().calls, 0U);
  EXPECT_TRUE(breakers.table().is_overflow(breakers.of(key(0), now)));
}

TEST(CircuitBreakersTest, KeysFoundByManyThreadsAreOneEach) {
  // So few for the places that no key finds its two sets full, whatever the seed.
  CircuitBreakers breakers({}, {.keys_max = 16'384});
  const SteadyTime now{1s};
  std::vector<std::vector<CircuitBreaker*>> found(4);
  std::vector<std::thread> threads;
  for (auto& mine : found) {
    threads.emplace_back([&] {
      for (int i = 0; i < 2000; ++i) mine.push_back(&breakers.of("key " + std::to_string(i), now));
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& mine : found) EXPECT_EQ(mine, found[0]);
  std::vector<CircuitBreaker*> distinct = found[0];
  std::sort(distinct.begin(), distinct.end());
  EXPECT_EQ(std::unique(distinct.begin(), distinct.end()), distinct.end());
}

// Between a thread's look for the key and its look for a place, another may take the last one for
// this very key.
TEST(CircuitBreakersTest, TheLastPlaceIsOneForAllThreadsThatWantItsKey) {
  struct Value {
    bool try_recycle(std::int64_t /*now_ns*/) { return false; }
  };
  for (int round = 0; round < 200; ++round) {
    KeyTable<Value> table({.keys_max = 16});
    for (std::uint64_t key = 1; key < table.places(); ++key) table.find(key, 0);
    ASSERT_EQ(table.overflows(), 0U);
    constexpr std::uint64_t last = 1'000;
    std::atomic<int> ready{0};
    const auto find = [&] {
      ++ready;
      while (ready.load() < 2) std::this_thread::yield();
      return &table.find(last, 0);
    };
    Value* other = nullptr;
    std::thread beside([&] { other = find(); });
    Value* const mine = find();
    beside.join();
    ASSERT_EQ(mine, other) << "round " << round;
    ASSERT_EQ(table.overflows(), 0U);
  }
}

TEST(CircuitBreakersTest, HashesAreOfAllBytesAndOfTheLength) {
  std::vector<std::uint64_t> hashes;
  for (const std::string& key :
       {std::string(), std::string("\0", 1), std::string("\0\0", 2), std::string("a"),
        std::string("a\0", 2), std::string("12345678"), std::string("123456789"),
        std::string("12345678\0", 9), std::string("1234567812345678")}) {
    hashes.push_back(hash_key(key));
    EXPECT_EQ(hash_key(key), hashes.back());
  }
  std::sort(hashes.begin(), hashes.end());
  EXPECT_EQ(std::unique(hashes.begin(), hashes.end()), hashes.end());
}

}  // namespace
}  // namespace spillway::middleware
