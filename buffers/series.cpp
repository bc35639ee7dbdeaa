// SPDX-License-Identifier: Apache-2.0
#include <functional>

#include <spillway/buffers/series.hpp>

namespace spillway::detail {

std::size_t SeriesTable::KeyHash::operator()(const SeriesKey& key) const noexcept {
  std::size_t hash = std::hash<std::string_view>{}(key.name);
  const auto mix = [&hash](std::size_t value) {
    hash = (hash ^ value) * 0x9E3779B97F4A7C15U;
    hash ^= hash >> 32;
  };
  mix(static_cast<std::size_t>(key.kind) << 16 | static_cast<std::size_t>(key.unit) << 8 |
      static_cast<std::size_t>(key.resolution));
  for (const Dimension& dimension : key.dimensions) {
    mix(std::hash<std::string_view>{}(dimension.name));
    mix(std::hash<std::string_view>{}(dimension.value));
  }
  return hash;
}

SeriesTable::SeriesTable(const BankLayout& layout, std::uint32_t per_metric_max)
    : layout_(layout), per_metric_max_(per_metric_max) {
  for (std::size_t kind = 0; kind < metric_kind_count; ++kind) {
    SeriesKey key;
    key.kind = static_cast<MetricKind>(kind);
    key.name = "(refused)";
    add(std::move(key), true);
  }
}

const Series& SeriesTable::intern(SeriesKey key) {
  const std::scoped_lock lock(mutex_);
  if (const auto known = ids_.find(key); known != ids_.end()) return series_[known->second];
  std::uint32_t& distinct = per_metric_[key.name];
  if (distinct >= per_metric_max_ && !key.dimensions.empty()) {
    for (Dimension& dimension : key.dimensions) dimension.value = "__other__";
    if (const auto known = ids_.find(key); known != ids_.end()) return series_[known->second];
  }
  const std::uint64_t cells_end = std::uint64_t{next_offset_} + cell_bytes(key.kind);
  if (cells_end > std::uint64_t{Bank::first_cell_offset()} + layout_.cell_bytes ||
      series_.size() >= layout_.series_max || series_.size() == series_.capacity()) {
    return refused(key.kind);
  }
  ++distinct;
  return add(std::move(key), false);
}

const Series& SeriesTable::add(SeriesKey key, bool refused) {
  const std::uint32_t offset = next_offset_;
  next_offset_ += cell_bytes(key.kind);
  const std::uint32_t id = series_.push({key, series_.size(), offset, refused});
  if (!refused) ids_.emplace(std::move(key), id);
  return series_[id];
}

}  // namespace spillway::detail
