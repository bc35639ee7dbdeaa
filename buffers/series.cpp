// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <functional>

#include <spillway/buffers/series.hpp>

namespace spillway::detail {

bool is_plain(std::string_view text) noexcept {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return c >= ' ' && c <= '~' && c != '"' && c != '\\'; });
}

bool is_plain(const SeriesKey& key) noexcept {
  return is_plain(key.name) &&
         std::all_of(key.dimensions.begin(), key.dimensions.end(), [](const Dimension& dimension) {
           return is_plain(dimension.name) && is_plain(dimension.value);
         });
}

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
  for (const Refusal why : {Refusal::invalid, Refusal::no_room}) {
    for (std::size_t kind = 0; kind < metric_kind_count; ++kind) {
      SeriesKey key;
      key.kind = static_cast<MetricKind>(kind);
      key.name = "(refused)";
      add(std::move(key), 0, why);
    }
  }
}

const Series* SeriesTable::find(const SeriesKey& key) const {
  const auto known = ids_.find(key);
  return known == ids_.end() ? nullptr : &series_[known->second];
}

SeriesTable::Metric& SeriesTable::metric_of(const std::string& name) {
  const auto [at, is_new] = metrics_.try_emplace(name);
  if (is_new) at->second.number = static_cast<std::uint32_t>(metrics_.size());
  return at->second;
}

bool SeriesTable::has_room(MetricKind kind) const noexcept {
  const std::uint64_t cells_end = std::uint64_t{next_offset_} + cell_bytes(kind);
  return cells_end <= std::uint64_t{Bank::first_cell_offset()} + layout_.cell_bytes &&
         series_.size() < layout_.series_max && series_.size() < series_.capacity();
}

const Series& SeriesTable::intern(SeriesKey key) {
  const std::scoped_lock lock(mutex_);
  if (const Series* const known = find(key)) return *known;
  Metric& metric = metric_of(key.name);
  const bool in_budget = metric.distinct < per_metric_max_ || key.dimensions.empty();
  if (!in_budget || !has_room(key.kind)) return fold(std::move(key), metric);
  ++metric.distinct;
  metric.note_values(key.dimensions);
  return add(std::move(key), metric.number);
}

void SeriesTable::Metric::note_values(const Dimensions& dimensions) {
  for (const Dimension& dimension : dimensions) {
    if (dimension.value == folded_value) continue;
    auto label = std::find_if(labels.begin(), labels.end(),
                              [&](const Label& one) { return one.name == dimension.name; });
    if (label == labels.end()) label = labels.insert(label, Label{dimension.name, {}});
    label->values.insert(std::hash<std::string_view>{}(dimension.value));
  }
}

const Series& SeriesTable::fold(SeriesKey key, Metric& metric) {
  // Enough for one label to be folded while another keeps its values.
  const std::uint32_t folded_max = per_metric_max_ / 10 + 1;
  if (!metric.is_exploded && metric.distinct >= per_metric_max_) {
    metric.is_exploded = true;
    exploded_count_.fetch_add(1, std::memory_order_relaxed);
  }
  const auto value_count = [&](const Dimension* dimension) {
    const auto label = std::find_if(metric.labels.begin(), metric.labels.end(),
                                    [&](const Label& one) { return one.name == dimension->name; });
    return label == metric.labels.end() ? 0 : label->values.size();
  };
  std::vector<Dimension*> by_values;
  for (Dimension& dimension : key.dimensions) by_values.push_back(&dimension);
  std::stable_sort(by_values.begin(), by_values.end(), [&](const Dimension* a, const Dimension* b) {
    return value_count(a) > value_count(b);
  });
  const bool room = has_room(key.kind);
  for (std::size_t i = 0; i < by_values.size(); ++i) {
    by_values[i]->value = folded_value;
    if (const Series* const known = find(key)) return *known;
    // What is left has one value each: this is the last fold that says anything.
    const bool is_last = i + 1 == by_values.size() || value_count(by_values[i + 1]) <= 1;
    if (room && (metric.folded < folded_max || is_last)) {
      ++metric.folded;
      metric.note_values(key.dimensions);
      return add(std::move(key), metric.number, Refusal::none, true);
    }
  }
  return refused(key.kind, Refusal::no_room);
}

const Series& SeriesTable::intern_rollup(SeriesKey key) {
  const std::scoped_lock lock(mutex_);
  if (const Series* const known = find(key)) return *known;
  Metric& metric = metric_of(key.name);
  if (metric.rollups >= per_metric_max_ || !has_room(key.kind)) {
    return refused(key.kind, Refusal::no_room);
  }
  ++metric.rollups;
  return add(std::move(key), metric.number);
}

const Series& SeriesTable::add(SeriesKey key, std::uint32_t metric, Refusal refusal,
                               bool is_folded) {
  const std::uint32_t offset = next_offset_;
  next_offset_ += cell_bytes(key.kind);
  const std::uint32_t id =
      series_.push({key, series_.size(), offset, refusal, metric, is_folded, is_plain(key)});
  if (refusal == Refusal::none) ids_.emplace(std::move(key), id);
  return series_[id];
}

std::vector<SeriesTable::Exploded> SeriesTable::exploded() const {
  const std::scoped_lock lock(mutex_);
  std::vector<Exploded> found;
  for (const auto& [name, metric] : metrics_) {
    if (!metric.is_exploded) continue;
    const auto most = std::max_element(
        metric.labels.begin(), metric.labels.end(),
        [](const Label& a, const Label& b) { return a.values.size() < b.values.size(); });
    const bool any = most != metric.labels.end();
    found.push_back({metric.number, name, any ? most->name : "", any ? most->values.size() : 0});
  }
  std::sort(found.begin(), found.end(),
            [](const Exploded& a, const Exploded& b) { return a.metric < b.metric; });
  return found;
}

}  // namespace spillway::detail
