// SPDX-License-Identifier: Apache-2.0
//
// Which series are summed into which others: a metric recorded with {Service, Route, TenantID} is
// wanted for {Service} and {Service, Route} as well, or for these alone. Sums are made by the flusher
// when an interval ends, one addition a series; what records a measurement does nothing for it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <spillway/buffers/series.hpp>

namespace spillway::detail {

class Rollups {
 public:
  /// What becomes of one series.
  struct Plan {
    std::vector<std::uint32_t> targets;  ///< series of fewer dimensions that it is added to
    bool keeps_own = true;               ///< it is reported itself
    std::uint32_t version = 0;           ///< of the sets; 0: not made yet
  };

  /// `series` outlives it. `everywhere`: sets that every metric is reported for beside its own, where
  /// it has these dimensions. `report` hears of what cannot be done; flusher.
  Rollups(SeriesTable& series, const DimensionSets& everywhere,
          std::function<void(std::string_view)> report);

  /// From now on the metric is reported for these sets and no others. Any thread; takes a lock.
  void declare(std::string_view metric, const DimensionSets& sets);

  /// Whether no series is summed into another. Any thread.
  bool empty() const noexcept { return version_.load(std::memory_order_acquire) == 0; }
  /// Grows with each declaration. Any thread.
  std::uint32_t version() const noexcept { return version_.load(std::memory_order_acquire); }
  /// The sets of `names`, which are sorted, that a metric is reported for where it is not summed here:
  /// as its directives in EMF say. Flusher.
  DimensionSets sets_for(const std::string& metric, const std::vector<std::string>& names);
  /// The plan of a series of the table; valid until the next call. Flusher.
  const Plan& plan_of(std::uint32_t series);

 private:
  Plan make_plan(const Series& series, std::uint32_t version);
  std::optional<DimensionSets> declared_for(const std::string& metric);
  void add_target(const Series& series, const std::vector<std::string>& set, Plan& plan);

  SeriesTable& series_;
  const std::function<void(std::string_view)> report_;
  const DimensionSets everywhere_;
  std::mutex mutex_;  // of declared_
  std::unordered_map<std::string, DimensionSets> declared_;
  std::atomic<std::uint32_t> version_{0};  // grows with each declaration; 0: there are no sets
  std::vector<Plan> plans_;                // flusher; by series number
};

}  // namespace spillway::detail
