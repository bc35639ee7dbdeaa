// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <spillway/engine/clock.hpp>

namespace spillway::detail {
namespace {

constexpr std::int64_t second = 1'000'000'000;

/// A machine whose counter runs at 2 GHz and whose wall clock began an hour before the steady one.
struct Machine {
  std::uint64_t ticks = 1'000'000;
  std::int64_t steady_ns = 5 * second;
  std::int64_t wall_ns = 3605 * second;

  Instant now() const { return {ticks, wall_ns, steady_ns}; }
  void run(std::int64_t ns) {
    ticks += 2 * static_cast<std::uint64_t>(ns);
    steady_ns += ns;
    wall_ns += ns;
  }
};

class TickLineTest : public ::testing::Test {
 protected:
  TickLine line() {
    const Instant first = machine_.now();
    machine_.run(second / 1000);
    return {first, machine_.now()};
  }
  /// As the flusher does, every tenth of a second.
  void follow(TickLine& line, int seconds) {
    for (int i = 0; i < 10 * seconds; ++i) {
      machine_.run(second / 10);
      if (line.is_due(machine_.ticks, machine_.steady_ns)) line.anchor(machine_.now());
    }
  }
  /// How far off the line is, in ns.
  double error(const TickLine& line) const {
    return static_cast<double>(line.wall_ns_of(machine_.ticks) - machine_.wall_ns);
  }

  Machine machine_;
};

TEST_F(TickLineTest, FollowsTheWallClock) {
  TickLine line = this->line();
  follow(line, 100);
  machine_.run(second / 2);
  EXPECT_NEAR(error(line), 0, 100);
}

TEST_F(TickLineTest, AStepOfTheWallClockDoesNotReachBack) {
  TickLine line = this->line();
  machine_.run(second / 2);
  const std::uint64_t before_the_step = machine_.ticks;
  const std::int64_t was = machine_.wall_ns;
  machine_.wall_ns -= 3600 * second;
  machine_.run(second / 2);
  line.anchor(machine_.now());
  EXPECT_NEAR(static_cast<double>(line.wall_ns_of(before_the_step) - was), 0, 100);
  EXPECT_NEAR(error(line), 0, 100);
}

TEST_F(TickLineTest, ACounterThatBeginsAgainIsFollowed) {
  TickLine line = this->line();
  follow(line, 10);
  machine_.run(second / 1000);
  const std::uint64_t before_it = machine_.ticks;
  const std::int64_t was = machine_.wall_ns;
  machine_.ticks = 0;  // Hibernation: the clocks go on.
  machine_.steady_ns += second / 100;
  machine_.wall_ns += 3600 * second;
  line.anchor(machine_.now());
  EXPECT_NEAR(static_cast<double>(line.wall_ns_of(before_it) - was), 0, 1000)
      << "a record that was in its ring";
  EXPECT_NEAR(error(line), 0, 1000);
  follow(line, 1000);
  EXPECT_NEAR(error(line), 0, 100);
}

TEST_F(TickLineTest, ACounterThatRanOnWhileTheSteadyClockStoodDoesNotBendTheSlope) {
  TickLine line = this->line();
  follow(line, 10);
  machine_.ticks += std::uint64_t{2} * 3600 * second;  // Suspension.
  machine_.wall_ns += 3600 * second;
  follow(line, 3);
  machine_.run(second / 2);
  EXPECT_NEAR(error(line), 0, 1000);
}

TEST_F(TickLineTest, AFirstSlopeThatIsFarOffIsMended) {
  const Instant first = machine_.now();
  machine_.run(second / 1000);
  Instant latest = machine_.now();
  latest.ticks += 20'000;
  TickLine line(first, latest);
  follow(line, 4);
  machine_.run(second / 2);
  EXPECT_NEAR(error(line), 0, 1000);
}

}  // namespace
}  // namespace spillway::detail
