// SPDX-License-Identifier: Apache-2.0
//
// Counters that many threads write are kept in stripes, a cache line each, so that two threads
// seldom share one. A thread keeps its stripe for life.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace spillway::middleware {

/// A power of two. More would cost memory in every table of counters, for services with more than
/// eight busy threads.
inline constexpr std::uint32_t stripe_count = 8;

/// The stripe of the calling thread: threads are dealt out in turn.
inline std::uint32_t this_stripe() noexcept {
  static constinit std::atomic<std::uint32_t> dealt{0};
  static constinit thread_local std::uint32_t mine = ~std::uint32_t{0};
  if (mine == ~std::uint32_t{0}) [[unlikely]]
    mine = dealt.fetch_add(1, std::memory_order_relaxed) % stripe_count;
  return mine;
}

}  // namespace spillway::middleware
