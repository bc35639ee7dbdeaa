// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "local/json.hpp"
#include "local/metric_batch.hpp"
#include "local/observed.hpp"

namespace spillway::local {

/// The sums of every series. Its owner locks.
class MetricStore {
 public:
  explicit MetricStore(std::size_t series_max) : series_max_(series_max) {}

  void add(const MetricBatch& batch);
  void clear();

  /// Sorted by namespace, name and dimensions. Empty arguments stand for all.
  std::vector<MetricStatistics> find(std::string_view metric_namespace,
                                     std::string_view name) const;
  void write(JsonWriter& json, std::string_view metric_namespace, std::string_view name,
             bool with_values) const;

 private:
  struct Series {
    MetricStatistics statistics;
    std::map<double, double> values;
  };
  Series* series_of(std::string_view metric_namespace, const MetricDatum& datum);

  std::size_t series_max_;
  std::unordered_map<std::string, Series> series_;
  std::string key_;
  std::uint64_t datums_ = 0;
  std::uint64_t datums_without_series_ = 0;
};

}  // namespace spillway::local
