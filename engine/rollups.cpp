// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <spillway/engine/rollups.hpp>

namespace spillway::detail {
namespace {

// As the dimensions of a key: sorted, no name twice.
DimensionSets in_order(DimensionSets sets) {
  for (std::vector<std::string>& set : sets) {
    std::sort(set.begin(), set.end());
    set.erase(std::unique(set.begin(), set.end()), set.end());
  }
  std::sort(sets.begin(), sets.end());
  sets.erase(std::unique(sets.begin(), sets.end()), sets.end());
  return sets;
}

// The dimensions whose names are in the set; fewer than the set has when one is missing.
Dimensions chosen(const Dimensions& dimensions, const std::vector<std::string>& set) {
  Dimensions found;
  for (const Dimension& one : dimensions) {
    if (std::binary_search(set.begin(), set.end(), one.name)) found.push_back(one);
  }
  return found;
}

}  // namespace

Rollups::Rollups(SeriesTable& series, const DimensionSets& everywhere,
                 std::function<void(std::string_view)> report)
    : series_(series), report_(std::move(report)), everywhere_(in_order(everywhere)) {
  if (!everywhere_.empty()) version_.store(1, std::memory_order_release);
}

void Rollups::declare(std::string_view metric, const DimensionSets& sets) {
  const std::scoped_lock lock(mutex_);
  declared_[std::string(metric)] = in_order(sets);
  version_.fetch_add(1, std::memory_order_release);
}

DimensionSets Rollups::sets_for(const std::string& metric, const std::vector<std::string>& names) {
  const auto is_part = [&](const std::vector<std::string>& set) {
    return std::includes(names.begin(), names.end(), set.begin(), set.end());
  };
  const auto declared = declared_for(metric);
  DimensionSets sets;
  if (!declared) sets.push_back(names);
  for (const auto& set : declared ? *declared : everywhere_) {
    if (is_part(set) && (declared || set != names)) sets.push_back(set);
  }
  if (sets.empty()) sets.push_back(names);
  return sets;
}

const Rollups::Plan& Rollups::plan_of(std::uint32_t series) {
  if (series >= plans_.size()) plans_.resize(series + 1 + series / 2);
  const std::uint32_t version = version_.load(std::memory_order_acquire);
  if (plans_[series].version != version) plans_[series] = make_plan(series_[series], version);
  return plans_[series];
}

Rollups::Plan Rollups::make_plan(const Series& series, std::uint32_t version) {
  Plan plan;
  plan.version = version;
  const auto declared = declared_for(series.key.name);
  if (!declared) {
    for (const auto& set : everywhere_) add_target(series, set, plan);
    return plan;
  }
  plan.keeps_own = false;
  for (const auto& set : *declared) {
    if (chosen(series.key.dimensions, set).size() == series.key.dimensions.size()) {
      plan.keeps_own |= set.size() == series.key.dimensions.size();
    } else {
      add_target(series, set, plan);
    }
  }
  // A series that no set is made of is not lost.
  if (plan.targets.empty()) plan.keeps_own = true;
  return plan;
}

std::optional<DimensionSets> Rollups::declared_for(const std::string& metric) {
  const std::scoped_lock lock(mutex_);
  const auto found = declared_.find(metric);
  return found == declared_.end() ? std::nullopt : std::optional(found->second);
}

void Rollups::add_target(const Series& series, const std::vector<std::string>& set, Plan& plan) {
  SeriesKey key = series.key;
  key.dimensions = chosen(series.key.dimensions, set);
  if (key.dimensions.size() != set.size() || set.size() == series.key.dimensions.size()) return;
  const Series& target = series_.intern_rollup(std::move(key));
  if (target.refusal == Refusal::none) {
    plan.targets.push_back(target.id);
  } else {
    report_("metric '" + series.key.name +
            "' is not reported for all of its dimension sets: series_max or "
            "series_per_metric_max is reached");
  }
}

}  // namespace spillway::detail
