// SPDX-License-Identifier: Apache-2.0
//
//   simulate --seeds N [--seed S]    N runs from seed S (1) on; exit status 1: one of them failed
#include <chrono>
#include <cstdio>
#include <string_view>

#include "simulation.hpp"
#include <spillway/transport/text.hpp>

int main(int argc, char** argv) {
  std::uint64_t seeds = 1;
  std::uint64_t first = 1;
  for (int i = 1; i < argc; i += 2) {
    const std::string_view option = argv[i];
    const auto number =
        i + 1 < argc ? spillway::transport::parse_number<std::uint64_t>(argv[i + 1]) : std::nullopt;
    if (number && option == "--seeds") {
      seeds = *number;
    } else if (number && option == "--seed") {
      first = *number;
    } else {
      std::fprintf(stderr, "usage: simulate --seeds N [--seed S]\n");
      return 2;
    }
  }
  const auto began = std::chrono::steady_clock::now();
  spillway::simulation::Outcome all;
  std::uint64_t failed = 0;
  for (std::uint64_t seed = first; seed - first < seeds; ++seed) {
    const auto outcome = spillway::simulation::run(seed);
    all.steps += outcome.steps;
    all.recorded += outcome.recorded;
    all.requests += outcome.requests;
    all.faults += outcome.faults;
    all.kills += outcome.kills;
    all.shutdowns += outcome.shutdowns;
    all.refusals += outcome.refusals;
    all.recovered += outcome.recovered;
    if (outcome.error.empty()) continue;
    ++failed;
    std::printf("seed %llu: %s\n  again: tools/simulate --seed %llu\n",
                static_cast<unsigned long long>(seed), outcome.error.c_str(),
                static_cast<unsigned long long>(seed));
  }
  const double took =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  std::printf(
      "%llu seeds, %llu failed, %.0f seeds a second; %llu steps, %llu records, %llu requests, %llu "
      "faults, %llu kills, %llu shutdowns, %llu records refused one by one, %llu recovered\n",
      static_cast<unsigned long long>(seeds), static_cast<unsigned long long>(failed),
      static_cast<double>(seeds) / took, static_cast<unsigned long long>(all.steps),
      static_cast<unsigned long long>(all.recorded), static_cast<unsigned long long>(all.requests),
      static_cast<unsigned long long>(all.faults), static_cast<unsigned long long>(all.kills),
      static_cast<unsigned long long>(all.shutdowns), static_cast<unsigned long long>(all.refusals),
      static_cast<unsigned long long>(all.recovered));
  return failed == 0 ? 0 : 1;
}
