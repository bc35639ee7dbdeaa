// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <utility>

#include <spillway/encoders/fields.hpp>
#include <spillway/engine/event_series.hpp>

namespace spillway::detail {

EventSeries::EventSeries(Dimensions common, std::function<std::uint32_t(SeriesKey)> intern)
    : common_(std::move(common)), intern_(std::move(intern)) {}

std::span<const std::uint32_t> EventSeries::of(const LogView& event) {
  const SiteInfo* const site = event.site;
  key_.assign(reinterpret_cast<const char*>(&site), sizeof site);
  ValueReader values(event.values);
  for (const SiteField& field : site->fields) {
    const std::span<const std::byte> before = values.rest();
    skip_value(values, field.type);
    if (field.role != FieldRole::dimension) continue;
    key_.append(reinterpret_cast<const char*>(before.data()), before.size() - values.rest().size());
  }
  if (const auto found = known_.find(key_); found != known_.end()) return found->second;
  series_ = intern_all(event);
  if (key_.size() > key_bytes_max) return series_;
  if (known_.size() == known_max) known_.clear();
  return known_.emplace(key_, series_).first->second;
}

std::vector<std::uint32_t> EventSeries::intern_all(const LogView& event) const {
  const std::vector<SiteField>& fields = event.site->fields;
  Dimensions dimensions;
  for (const Dimension& one : common_) {
    const bool is_own = std::any_of(fields.begin(), fields.end(), [&](const SiteField& field) {
      return field.role == FieldRole::dimension && field.key == one.name;
    });
    if (!is_own) dimensions.push_back(one);
  }
  ValueReader values(event.values);
  for (const SiteField& field : fields) {
    if (field.role == FieldRole::dimension) {
      dimensions.push_back({field.key, std::string(values.string())});
    } else {
      skip_value(values, field.type);
    }
  }
  std::vector<std::uint32_t> series;
  for (const SiteField& field : fields) {
    if (field.role != FieldRole::metric) continue;
    series.push_back(intern_({MetricKind::histogram, field.unit,
                              field.high_resolution ? Resolution::second : Resolution::minute,
                              field.key, dimensions}));
  }
  return series;
}

}  // namespace spillway::detail
