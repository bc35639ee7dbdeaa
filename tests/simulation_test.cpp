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
    all.shutdowns += outcome.shutdowns;
    all.refusals += outcome.refusals;
    all.recovered += outcome.recovered;
  }
  EXPECT_GT(all.faults, 100U);
  EXPECT_GT(all.kills, 10U);
  EXPECT_GT(all.requests, 1000U);
  EXPECT_GT(all.shutdowns, 10U);
  EXPECT_GT(all.refusals, 10U);
  EXPECT_GT(all.recovered, 10U);
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

struct Broken {
  Sabotage sabotage;
  const char* what;  ///< must be said of it
};

/// What an engine that is broken does is found by the oracle that looks for just that.
class SabotageTest : public ::testing::TestWithParam<Broken> {};

TEST_P(SabotageTest, IsFound) {
  constexpr std::uint64_t seeds = 24;  // Not every run has what it takes: a spool, no kill before.
  std::string errors;
  for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
    const std::string error = run(seed, GetParam().sabotage).error;
    if (error.find(GetParam().what) != std::string::npos) return;
    errors += "\nseed " + std::to_string(seed) + ": " + error;
  }
  FAIL() << "not found:" << errors;
}

INSTANTIATE_TEST_SUITE_P(
    All, SabotageTest,
    ::testing::Values(Broken{Sabotage::loses_request, "in no account"},
                      Broken{Sabotage::repeats_request, "came twice without a cause"},
                      Broken{Sabotage::alters_record, "not the one recorded"},
                      Broken{Sabotage::moves_tenant, "another tenant's name"},
                      Broken{Sabotage::swaps_events, "not in the order of time"},
                      Broken{Sabotage::swaps_requests, "not in the order of their records"},
                      Broken{Sabotage::invents_record, "nobody recorded"},
                      Broken{Sabotage::stalls, "held though all is well again"},
                      Broken{Sabotage::miscounts, "in the account at the end"},
                      Broken{Sabotage::slow_shutdown, "longer than its deadline"}));

INSTANTIATE_TEST_SUITE_P(Seeds, SimulationTest, ::testing::Range(0, 4));

}  // namespace
}  // namespace spillway::simulation
