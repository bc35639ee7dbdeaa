// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include <spillway/buffers/cache_line.hpp>
#include <spillway/middleware/resilience/stripes.hpp>

namespace spillway::middleware {

/// A fixed number of permits, never more of them out. They lie in stripes: a thread takes from and
/// gives back to its own first, and looks into the others' when that is empty, so that threads that
/// do not compete for the last permits do not meet in one cache line.
class PermitPool {
 public:
  explicit PermitPool(std::uint32_t permits) noexcept : permits_(permits) {
    for (std::uint32_t i = 0; i < stripe_count; ++i) {
      stripes_[i].free.store(permits / stripe_count + (i < permits % stripe_count ? 1 : 0),
                             std::memory_order_relaxed);
    }
  }

  /// False: none was found. One that was given back meanwhile may have been missed; who waits for
  /// one looks again after he has said so (Bulkhead).
  bool try_take() noexcept {
    const std::uint32_t mine = this_stripe();
    for (std::uint32_t i = 0; i < stripe_count; ++i) {
      std::atomic<std::uint32_t>& free = stripes_[(mine + i) % stripe_count].free;
      std::uint32_t count = free.load(std::memory_order_seq_cst);
      while (count != 0) {
        if (free.compare_exchange_weak(count, count - 1, std::memory_order_seq_cst)) return true;
      }
    }
    return false;
  }
  void give_back() noexcept {
    stripes_[this_stripe()].free.fetch_add(1, std::memory_order_seq_cst);
  }

  std::uint32_t permits() const noexcept { return permits_; }
  /// How many are out; exact when nothing is in motion.
  std::uint32_t out() const noexcept {
    std::uint32_t free = 0;
    for (const Stripe& stripe : stripes_) free += stripe.free.load(std::memory_order_relaxed);
    return free < permits_ ? permits_ - free : 0;
  }

 private:
  struct alignas(cache_line_bytes) Stripe {
    std::atomic<std::uint32_t> free{0};
  };
  const std::uint32_t permits_;
  std::array<Stripe, stripe_count> stripes_;
};

}  // namespace spillway::middleware
