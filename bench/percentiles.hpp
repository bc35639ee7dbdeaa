// SPDX-License-Identifier: Apache-2.0
//
// What one call costs on the calling thread, as percentiles. Calls are timed in batches, because
// reading the clock costs as much as the calls: a sample is a batch's time over its calls. Batches
// come in bursts with a pause behind each, so that the flusher drains, takes the cache lines away,
// and gives the caller the cost of getting them back.
//
// What this does not show: a batch hides the worst single call in it (use batches of 1 for that,
// and see the clock's own cost); a burst that waits for its turn is not counted as late
// (coordinated omission); and a virtual machine is stopped now and then, which is what the last
// percentile shows.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <string>
#include <vector>

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

namespace bench {

/// A time stamp that nothing moves across.
inline std::uint64_t fenced_ticks() noexcept {
#if defined(__x86_64__)
  _mm_lfence();
  const std::uint64_t ticks = __rdtsc();
  _mm_lfence();
  return ticks;
#else
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000U +
         static_cast<std::uint64_t>(now.tv_nsec);
#endif
}

/// Nanoseconds of a tick, read off the steady clock over a fifth of a second, once.
inline double ns_per_tick() {
  static const double rate = [] {
    using clock = std::chrono::steady_clock;
    const auto began = clock::now();
    const std::uint64_t first = fenced_ticks();
    while (clock::now() - began < std::chrono::milliseconds(200)) {
    }
    const std::uint64_t last = fenced_ticks();
    return std::chrono::duration<double, std::nano>(clock::now() - began).count() /
           static_cast<double>(last - first);
  }();
  return rate;
}

/// The least that two stamps with nothing between them are apart.
inline std::uint64_t stamp_cost() {
  static const std::uint64_t cost = [] {
    std::uint64_t least = ~std::uint64_t{0};
    for (int i = 0; i < 10'000; ++i) {
      const std::uint64_t before = fenced_ticks();
      least = std::min(least, fenced_ticks() - before);
    }
    return least;
  }();
  return cost;
}

/// Where the whole distribution is looked at, for pictures.
inline constexpr double shares[] = {0.001, 0.01,  0.05,  0.1,   0.2,    0.3,    0.4,
                                    0.5,   0.6,   0.7,   0.8,   0.9,    0.95,   0.98,
                                    0.99,  0.995, 0.998, 0.999, 0.9995, 0.9998, 0.9999};

struct Distribution {
  double p50 = 0;
  double p99 = 0;
  double p999 = 0;
  double mean = 0;
  std::vector<double> at_shares{};  ///< one for each of `shares`; may be empty
};

/// Quantiles of sorted samples. The clock goes in steps, so that thousands of samples are equal: each
/// stands for all times between it and halfway to its neighbours, evenly.
class Quantiles {
 public:
  explicit Quantiles(const std::vector<double>& sorted) : all_(sorted) {}
  double at(double share) const {
    const double rank = share * static_cast<double>(all_.size());
    const double value = all_[std::min(all_.size() - 1, static_cast<std::size_t>(rank))];
    const auto [first, behind] = std::equal_range(all_.begin(), all_.end(), value);
    const double low = first == all_.begin() ? value : (*(first - 1) + value) / 2;
    const double high = behind == all_.end() ? value : (value + *behind) / 2;
    const double part =
        (rank - static_cast<double>(first - all_.begin())) / static_cast<double>(behind - first);
    return low + (high - low) * part;
  }

 private:
  const std::vector<double>& all_;
};

inline Distribution summarise(std::vector<double>& ns) {
  if (ns.empty()) return {};
  std::sort(ns.begin(), ns.end());
  double sum = 0;
  for (const double one : ns) sum += one;
  const Quantiles of(ns);
  Distribution found{of.at(0.5), of.at(0.99), of.at(0.999), sum / static_cast<double>(ns.size())};
  for (const double share : shares) found.at_shares.push_back(of.at(share));
  return found;
}

struct Plan {
  int calls = 20;    ///< in a batch
  int warm_up = 0;   ///< calls before the first burst, not timed
  int batches = 50;  ///< in a burst
  int bursts = 400;
  std::chrono::microseconds pause{1000};
};

/// Times `call(i)` by the plan, on the calling thread, and appends a sample a batch to `ns`.
/// `burst_done()` runs behind each burst, before the pause.
template <class Call, class BurstDone>
void measure(const Plan& plan, Call&& call, BurstDone&& burst_done, std::vector<double>& ns) {
  const double rate = ns_per_tick();
  const std::uint64_t cost = stamp_cost();
  const auto rest = [&plan] {
    const timespec pause{plan.pause.count() / 1'000'000, plan.pause.count() % 1'000'000 * 1000};
    nanosleep(&pause, nullptr);
  };
  for (int i = 0; i < plan.warm_up; ++i) {
    call(i);
    if (i % (plan.calls * plan.batches) == 0) {
      burst_done();
      rest();
    }
  }
  ns.reserve(ns.size() +
             static_cast<std::size_t>(plan.batches) * static_cast<std::size_t>(plan.bursts));
  for (int burst = 0; burst < plan.bursts; ++burst) {
    for (int batch = 0; batch < plan.batches; ++batch) {
      const std::uint64_t before = fenced_ticks();
      for (int i = 0; i < plan.calls; ++i) call(i);
      const std::uint64_t after = fenced_ticks();
      const std::uint64_t took = after - before;
      ns.push_back(static_cast<double>(took > cost ? took - cost : 0) * rate / plan.calls);
    }
    burst_done();
    if (plan.pause.count() != 0) rest();
  }
}
template <class Call>
Distribution measure(const Plan& plan, Call&& call) {
  std::vector<double> ns;
  measure(
      plan, call, [] {}, ns);
  return summarise(ns);
}

/// Keeps the compiler from knowing a value.
template <class T>
inline void opaque(T& value) noexcept {
  asm volatile("" : "+m"(value) : : "memory");
}

}  // namespace bench
