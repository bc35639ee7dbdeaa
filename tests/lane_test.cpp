// SPDX-License-Identifier: Apache-2.0
//
// Lanes: who gets one, what happens to it when its thread or its engine ends, and that the
// hand-over of cells between producers and the flusher neither loses nor invents a measurement.
#include <array>
#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <spillway/buffers/lane.hpp>

namespace spillway::detail {
namespace {

class StoppedTicks final : public TickSource {
 public:
  StoppedTicks() : TickSource(false) {}

 private:
  std::uint64_t now() const noexcept override { return 0; }
};

LaneLayout small_layout() {
  LaneLayout layout;
  layout.ring_bytes = 4096;
  layout.bank = {4096, 64, 64};
  return layout;
}

std::shared_ptr<LaneSet> make_set() {
  return LaneSet::create(small_layout(), std::make_shared<StoppedTicks>());
}

constexpr std::uint32_t offset = Bank::first_cell_offset();

bool add(std::uint64_t engine_id, std::uint64_t n = 1) {
  Lane* const lane = enter(engine_id);
  if (lane == nullptr) return false;
  lane->bank().add(offset, 0, static_cast<double>(n));
  lane->leave();
  return true;
}

struct Taken {
  std::uint64_t count = 0;
  std::uint64_t sum = 0;
  void operator()(Bank& bank) {
    for (std::uint32_t i = 0; i < bank.touched_count(); ++i) {
      auto& cell = bank.cell<CounterCell>(offset);
      count += cell.count;
      sum += static_cast<std::uint64_t>(cell.sum);
      cell = {};
    }
  }
};

bool take_all(LaneSet& set, Taken& taken) {
  set.want_cells();
  return set.take_cells(std::ref(taken));
}

TEST(LaneTest, AThreadHasOneLaneForAnEngine) {
  const auto set = make_set();
  EXPECT_EQ(set->size(), 0U);
  EXPECT_TRUE(add(set->engine_id()));
  EXPECT_TRUE(add(set->engine_id()));
  EXPECT_EQ(set->size(), 1U);
}

TEST(LaneTest, AThreadServesSeveralEnginesByTurns) {
  const auto first = make_set();
  const auto second = make_set();
  ASSERT_NE(first->engine_id(), second->engine_id());
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(add(first->engine_id()));
    EXPECT_TRUE(add(second->engine_id(), 10));
  }
  Taken from_first;
  take_all(*first, from_first);
  EXPECT_EQ(from_first.sum, 3U);
  Taken from_second;
  take_all(*second, from_second);
  EXPECT_EQ(from_second.sum, 30U);
}

TEST(LaneTest, TheNextThreadGoesOnWithTheLaneOfOneThatEnded) {
  const auto set = make_set();
  for (int i = 0; i < 100; ++i) std::thread([&] { EXPECT_TRUE(add(set->engine_id())); }).join();
  EXPECT_EQ(set->size(), 1U);
  Taken taken;
  take_all(*set, taken);
  EXPECT_EQ(taken.sum, 100U) << "what ended threads left in their cells is still there";
}

TEST(LaneTest, ThreadLocalDestructorsMayStillRecord) {
  const auto set = make_set();
  struct AtExit {
    std::uint64_t engine_id;
    bool recorded = false;
    ~AtExit() { EXPECT_TRUE(add(engine_id)); }
  };
  std::thread([&] {
    thread_local AtExit at_exit{set->engine_id()};
    EXPECT_TRUE(add(at_exit.engine_id));
  }).join();
  Taken taken;
  take_all(*set, taken);
  EXPECT_EQ(taken.sum, 2U);
  EXPECT_EQ(set->size(), 1U);
}

TEST(LaneTest, TakingClearsAndTakesEachMeasurementOnce) {
  const auto set = make_set();
  Taken taken;
  for (int i = 0; i < 5; ++i) {
    add(set->engine_id());
    take_all(*set, taken);
    EXPECT_EQ(taken.sum, static_cast<std::uint64_t>(i) + 1);
  }
  take_all(*set, taken);
  EXPECT_EQ(taken.sum, 5U);
}

TEST(LaneTest, WhatAnOperationHoldsBackIsTakenWhenItIsOver) {
  const auto set = make_set();
  ASSERT_TRUE(add(set->engine_id(), 1));
  Lane* const stuck = enter(set->engine_id());
  ASSERT_NE(stuck, nullptr);
  Taken taken;
  EXPECT_FALSE(take_all(*set, taken)) << "and says so";
  EXPECT_EQ(taken.sum, 0U);
  stuck->leave();
  ASSERT_TRUE(add(set->engine_id(), 10)) << "into the other bank";
  set->want_cells();
  EXPECT_FALSE(set->take_cells(std::ref(taken))) << "the first bank only";
  EXPECT_TRUE(set->take_cells(std::ref(taken)));
  EXPECT_EQ(taken.sum, 11U);
  EXPECT_TRUE(set->take_cells(std::ref(taken))) << "nothing more is wanted";
}

// ---- Counters, which the flusher reads by difference ----

// As a counter does. False: closed.
bool count(std::uint64_t engine_id, std::uint64_t n, std::uint32_t series = 0) {
  const std::uint32_t at = offset + series * static_cast<std::uint32_t>(sizeof(CumulativeCell));
  if (current_lane->try_count(engine_id, at, n)) return true;
  Lane* const lane = enter(engine_id);
  if (lane == nullptr) return false;
  lane->count(at, series, n);
  lane->leave();
  return true;
}

struct Counted {
  std::array<std::uint64_t, 2> counts{};
  std::array<double, 2> sums{};
  int visits = 0;
  void read(LaneSet& set) {
    set.take_counters([this](std::uint32_t series, std::uint64_t n, double sum) {
      counts[series] += n;
      sums[series] += sum;
      ++visits;
    });
  }
};

TEST(LaneTest, ACounterIsReadByDifference) {
  const auto set = make_set();
  EXPECT_FALSE(current_lane->try_count(set->engine_id(), offset, 1)) << "no lane yet";
  ASSERT_TRUE(count(set->engine_id(), 1));
  ASSERT_TRUE(count(set->engine_id(), 1ULL << 32));
  ASSERT_TRUE(count(set->engine_id(), 7, 1));
  Counted counted;
  counted.read(*set);
  EXPECT_EQ(counted.counts, (std::array<std::uint64_t, 2>{2, 1}));
  EXPECT_EQ(counted.sums, (std::array<double, 2>{4294967297.0, 7.0}));
  counted.read(*set);
  EXPECT_EQ(counted.visits, 2) << "what has not grown is not visited";
  ASSERT_TRUE(count(set->engine_id(), 3));
  counted.read(*set);
  EXPECT_EQ(counted.sums[0], 4294967300.0);
}

TEST(LaneTest, AmountsThatACumulativeCellDoesNotTake) {
  EXPECT_FALSE(CumulativeCell::fits(0)) << "its sum would lag behind its count";
  EXPECT_TRUE(CumulativeCell::fits(1));
  EXPECT_TRUE(CumulativeCell::fits(1ULL << 32));
  EXPECT_FALSE(CumulativeCell::fits((1ULL << 32) + 1));
  EXPECT_FALSE(CumulativeCell::fits(~0ULL));
}

TEST(LaneTest, TheNextThreadGoesOnWithTheCounters) {
  const auto set = make_set();
  Counted counted;
  for (int i = 0; i < 10; ++i) {
    std::thread([&] { ASSERT_TRUE(count(set->engine_id(), 2)); }).join();
    if (i % 3 == 0) counted.read(*set);
  }
  counted.read(*set);
  EXPECT_EQ(set->size(), 1U);
  EXPECT_EQ(counted.counts[0], 10U);
  EXPECT_EQ(counted.sums[0], 20.0);
}

TEST(LaneTest, AnAdditionThatClosingOvertookIsFound) {
  const auto set = make_set();
  ASSERT_TRUE(count(set->engine_id(), 1));
  Lane* const lane = current_lane;  // C1, and then nothing for a while.
  EXPECT_TRUE(set->close([] { return false; }));
  EXPECT_FALSE(count(set->engine_id(), 1)) << "others see that it is closed";
  Counted counted;
  counted.read(*set);
  EXPECT_EQ(counted.counts[0], 1U);
  EXPECT_EQ(set->late_counts(), 0U);
  lane->count(offset, 0, 1);  // C3.
  EXPECT_EQ(set->late_counts(), 1U);
}

TEST(LaneTest, CountersAreExactBesideTheFlusher) {
  const auto set = make_set();
  constexpr int threads = 4;
  constexpr std::uint64_t calls = 100'000;
  std::atomic<int> running{threads};
  std::vector<std::thread> producers;
  for (int t = 0; t < threads; ++t) {
    producers.emplace_back([&] {
      for (std::uint64_t i = 1; i <= calls; ++i) {
        ASSERT_TRUE(count(set->engine_id(), i, static_cast<std::uint32_t>(i & 1)));
      }
      running.fetch_sub(1, std::memory_order_release);
    });
  }
  Counted counted;
  while (running.load(std::memory_order_acquire) != 0) counted.read(*set);
  for (std::thread& producer : producers) producer.join();
  counted.read(*set);
  EXPECT_EQ(counted.counts[0] + counted.counts[1], threads * calls);
  EXPECT_EQ(counted.sums[0] + counted.sums[1], threads * (calls * (calls + 1) / 2.0));
}

TEST(LaneTest, AThreadForgetsTheLaneOfAnEngineThatIsGone) {
  auto gone = make_set();
  ASSERT_TRUE(add(gone->engine_id()));
  ASSERT_TRUE(count(gone->engine_id(), 1));
  gone->close([] { return false; });
  gone.reset();
  const auto next = make_set();
  ASSERT_TRUE(add(next->engine_id()));
  ASSERT_TRUE(count(next->engine_id(), 1));
}

TEST(LaneTest, ClosingGivesUpOnAnOperationThatDoesNotEnd) {
  const auto set = make_set();
  ASSERT_TRUE(add(set->engine_id(), 7));
  Lane* const stuck = enter(set->engine_id());
  EXPECT_FALSE(set->close([] { return true; }));
  std::uint32_t touched = 0;
  set->for_each_unfinished([&](Bank& bank) { touched += bank.touched_count(); });
  EXPECT_EQ(touched, 1U);
  stuck->leave();
  EXPECT_FALSE(add(set->engine_id()));
}

TEST(LaneTest, AClosedEngineTakesNothingAndSaysSo) {
  const auto set = make_set();
  ASSERT_TRUE(add(set->engine_id()));
  set->close([] { return false; });
  EXPECT_FALSE(add(set->engine_id()));
  std::thread([&] {
    EXPECT_FALSE(add(set->engine_id())) << "nor from a thread that had no lane";
  }).join();
  Taken taken;
  take_all(*set, taken);
  EXPECT_EQ(taken.sum, 1U);
}

TEST(LaneTest, ClosedCallsAreCountedWhereverTheyComeFrom) {
  auto set = make_set();
  const std::uint64_t id = set->engine_id();
  ASSERT_TRUE(add(id));
  set->close([] { return false; });
  count_refused(id, Signal::logs);
  std::uint64_t of_lanes = 0;
  set->for_each([&](const Lane& lane) { of_lanes += lane.counters.logs_closed.get(); });
  EXPECT_EQ(of_lanes, 1U);
  std::thread([&] { count_refused(id, Signal::logs); }).join();
  EXPECT_EQ(set->closed_calls(Signal::logs), 1U);
  std::thread([] {
    const std::uint64_t before = closed_without_engine();
    count_refused(~std::uint64_t{0}, Signal::metrics);
    EXPECT_EQ(closed_without_engine(), before + 1);
  }).join();
}

TEST(LaneTest, RecordingAfterTheEngineIsGoneDoesNothing) {
  std::uint64_t id = 0;
  {
    const auto set = make_set();
    id = set->engine_id();
    ASSERT_TRUE(add(id));
    set->close([] { return false; });
  }
  EXPECT_FALSE(add(id));
  std::thread([id] { EXPECT_FALSE(add(id)); }).join();
}

TEST(LaneTest, AHandleOfNoEngineDoesNothing) { EXPECT_FALSE(add(no_engine_id)); }

// Threads add while the flusher takes: in the end every addition was taken once.
TEST(LaneStressTest, NoAdditionIsLostOrTakenTwice) {
  const auto set = make_set();
  constexpr int threads = 4;
  constexpr std::uint64_t additions = 300'000;
  std::atomic<int> running{threads};
  std::vector<std::thread> producers;
  for (int t = 0; t < threads; ++t) {
    producers.emplace_back([&] {
      for (std::uint64_t i = 1; i <= additions; ++i) add(set->engine_id(), i);
      running.fetch_sub(1, std::memory_order_release);
    });
  }
  Taken taken;
  int rounds = 0;
  while (running.load(std::memory_order_acquire) != 0) {
    take_all(*set, taken);
    ++rounds;
  }
  for (std::thread& producer : producers) producer.join();
  take_all(*set, taken);
  take_all(*set, taken);
  EXPECT_EQ(taken.count, threads * additions);
  EXPECT_EQ(taken.sum, threads * (additions * (additions + 1) / 2));
  EXPECT_GT(rounds, 1);
}

// Threads add while the engine closes: what enter() allowed was taken, what it refused was not.
TEST(LaneStressTest, ClosingDrawsALineThatNoAdditionCrosses) {
  for (int round = 0; round < 50; ++round) {
    const auto set = make_set();
    constexpr int threads = 4;
    std::atomic<std::uint64_t> allowed{0};
    std::atomic<int> started{0};
    std::vector<std::thread> producers;
    for (int t = 0; t < threads; ++t) {
      producers.emplace_back([&] {
        std::uint64_t mine = 0;
        while (add(set->engine_id())) {
          if (++mine == 100) started.fetch_add(1, std::memory_order_relaxed);
        }
        allowed.fetch_add(mine, std::memory_order_relaxed);
      });
    }
    while (started.load(std::memory_order_relaxed) != threads) std::this_thread::yield();
    set->close([] { return false; });
    Taken taken;
    take_all(*set, taken);
    take_all(*set, taken);
    for (std::thread& producer : producers) producer.join();
    EXPECT_EQ(taken.sum, allowed.load()) << "round " << round;
  }
}

}  // namespace
}  // namespace spillway::detail
