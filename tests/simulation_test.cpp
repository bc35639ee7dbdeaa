// SPDX-License-Identifier: Apache-2.0
//
// A fixed set of seeds of the simulation; tools/simulate runs any number of others.
#include <gtest/gtest.h>
#include <simulation/simulation.hpp>

namespace spillway::simulation {
namespace {

class SimulationTest : public ::testing::TestWithParam<int> {};

TEST_P(SimulationTest, HoldsItsPromises) {
  constexpr int seeds = 12;  // Of each kind: with and without a spool, killed and not.
  Outcome all;
  for (int i = 0; i < seeds; ++i) {
    const auto seed = static_cast<std::uint64_t>(GetParam() * seeds + i + 1);
    const Outcome outcome = run(seed);
    EXPECT_EQ(outcome.error, "") << "again: tools/simulate --seed " << seed;
    all.faults += outcome.faults;
    all.kills += outcome.kills;
    all.requests += outcome.requests;
  }
  EXPECT_GT(all.faults, 100U);
  EXPECT_GT(all.kills, 10U);
  EXPECT_GT(all.requests, 1000U);
}

TEST_P(SimulationTest, IsTheSameEachTime) {
  const auto seed = static_cast<std::uint64_t>(GetParam() + 1000);
  const Outcome first = run(seed);
  const Outcome again = run(seed);
  EXPECT_EQ(first.recorded, again.recorded);
  EXPECT_EQ(first.requests, again.requests);
  EXPECT_EQ(first.faults, again.faults);
  EXPECT_EQ(first.kills, again.kills);
}

INSTANTIATE_TEST_SUITE_P(Seeds, SimulationTest, ::testing::Range(0, 4));

}  // namespace
}  // namespace spillway::simulation
