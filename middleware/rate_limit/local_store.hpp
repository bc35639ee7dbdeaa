// SPDX-License-Identifier: Apache-2.0
//
// Counts of one process: exact, some tens of nanoseconds a decision, no allocation after it was
// made.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include <spillway/middleware/rate_limit/state_table.hpp>
#include <spillway/middleware/rate_limit/store.hpp>

namespace spillway::middleware {

struct LocalRateStoreOptions {
  /// Keys counted at the same time; each takes some 50 to 100 bytes from the start. A key can be
  /// forgotten as soon as its limit is all there again.
  std::size_t keys_max = 65'536;
  /// What a new key gets while that many others are in use: false refuses it, so that no flood of
  /// made-up keys gets past the limit; true lets it pass uncounted.
  bool admit_when_full = false;

  /// Throws std::invalid_argument that says what cannot work.
  void check() const;
};

class LocalRateStore final : public RateStore {
 public:
  /// Throws std::invalid_argument for options that cannot work.
  explicit LocalRateStore(LocalRateStoreOptions options = {});

  RateDecision take(const RateKey& key, const detail::RateRule& rule, std::int64_t permits,
                    SteadyTime now) noexcept override;
  void give_back(const RateKey& key, const detail::RateRule& rule, std::int64_t permits,
                 std::int64_t receipt, SteadyTime now) noexcept override;

  /// Keys that are held, idle ones too.
  std::size_t keys() { return table_.size(); }
  /// Decisions about keys that found no room.
  std::uint64_t turned_away() const noexcept {
    return turned_away_.load(std::memory_order_relaxed);
  }

 private:
  struct Entry : detail::RateState {
    std::int64_t idle_at() const noexcept { return fresh_at; }
  };

  const LocalRateStoreOptions options_;
  detail::StateTable<Entry> table_;
  std::atomic<std::uint64_t> turned_away_{0};
};

}  // namespace spillway::middleware
