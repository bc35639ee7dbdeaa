// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <mutex>
#include <string_view>
#include <vector>

#include <spillway/engine/aggregate.hpp>
#include <spillway/engine/stats.hpp>

namespace spillway::detail {

/// Says which metrics have more series than their budget, because of which dimension, and what of it
/// is recorded most.
class CardinalityWatch {
 public:
  /// `report` hears of each such metric once; flusher.
  CardinalityWatch(const SeriesTable& series, std::function<void(std::string_view)> report)
      : series_(series), report_(std::move(report)) {}

  /// Looks again. A pass over all series when there is such a metric. Flusher.
  void look(const Aggregator& aggregator);
  /// As of the last look. Any thread; takes a lock.
  std::vector<FoldedMetric> found() const;

 private:
  void say(const FoldedMetric& metric) const;

  const SeriesTable& series_;
  const std::function<void(std::string_view)> report_;
  std::vector<std::uint32_t> said_;  // flusher; numbers of metrics
  mutable std::mutex mutex_;
  std::vector<FoldedMetric> found_;
};

}  // namespace spillway::detail
