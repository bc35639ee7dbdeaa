// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <string>
#include <unordered_map>

#include <spillway/engine/cardinality.hpp>

namespace spillway::detail {
namespace {

constexpr std::size_t top_values_max = 5;

// The values of one metric's exploding dimension, and how often each was recorded.
struct Counting {
  FoldedMetric metric;
  std::unordered_map<std::string_view, std::uint64_t> by_value;
};

}  // namespace

void CardinalityWatch::look(const Aggregator& aggregator) {
  if (series_.exploded_count() == 0) return;
  std::unordered_map<std::uint32_t, Counting> counting;
  const auto exploded = series_.exploded();
  for (const SeriesTable::Exploded& one : exploded) {
    counting[one.metric].metric = {one.name, one.label, one.value_count, 0, {}};
  }
  const std::uint32_t size = series_.size();
  for (std::uint32_t id = 0; id < size; ++id) {
    const Series& series = series_[id];
    const auto found = counting.find(series.metric);
    if (found == counting.end()) continue;
    Counting& counts = found->second;
    const std::uint64_t total = aggregator.total_of(id);
    if (series.is_folded) {
      counts.metric.measurements += total;
      continue;
    }
    for (const Dimension& dimension : series.key.dimensions) {
      if (dimension.name == counts.metric.dimension) counts.by_value[dimension.value] += total;
    }
  }
  std::vector<FoldedMetric> made;
  for (const SeriesTable::Exploded& one : exploded) {
    Counting& counts = counting[one.metric];
    std::vector<std::pair<std::string_view, std::uint64_t>> values(counts.by_value.begin(),
                                                                   counts.by_value.end());
    const auto top = std::min(values.size(), top_values_max);
    std::partial_sort(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(top),
                      values.end(), [](const auto& a, const auto& b) {
                        return a.second != b.second ? a.second > b.second : a.first < b.first;
                      });
    for (std::size_t i = 0; i < top; ++i) {
      counts.metric.top_values.emplace_back(values[i].first, values[i].second);
    }
    if (std::find(said_.begin(), said_.end(), one.metric) == said_.end()) {
      said_.push_back(one.metric);
      say(counts.metric);
    }
    made.push_back(std::move(counts.metric));
  }
  const std::scoped_lock lock(mutex_);
  found_ = std::move(made);
}

void CardinalityWatch::say(const FoldedMetric& metric) const {
  std::string text = "metric '" + metric.metric + "' has reached series_per_metric_max: " +
                     std::to_string(metric.dimension_values) + " values of the dimension '" +
                     metric.dimension + "'; new ones are reported as " + std::string(folded_value) +
                     ". Recorded most:";
  for (const auto& [value, count] : metric.top_values) {
    text += " '" + value + "' (" + std::to_string(count) + ")";
  }
  text += ". Give it fewer values, or raise the setting";
  report_(text);
}

std::vector<FoldedMetric> CardinalityWatch::found() const {
  const std::scoped_lock lock(mutex_);
  return found_;
}

}  // namespace spillway::detail
