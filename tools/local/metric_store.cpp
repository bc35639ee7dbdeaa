// SPDX-License-Identifier: Apache-2.0
#include "local/metric_store.hpp"

#include <algorithm>
#include <tuple>

namespace spillway::local {
namespace {

// More distinct values than a log-linear histogram of 1 % has over its whole range.
constexpr std::size_t distinct_values_max = 10'000;

}  // namespace

void MetricStore::add(const MetricBatch& batch) {
  for (const MetricDatum& datum : batch.datums) {
    ++datums_;
    Series* const series = series_of(batch.metric_namespace, datum);
    if (series == nullptr) {
      ++datums_without_series_;
      continue;
    }
    MetricStatistics& sums = series->statistics;
    sums.minimum = sums.datum_count == 0 ? datum.minimum : std::min(sums.minimum, datum.minimum);
    sums.maximum = sums.datum_count == 0 ? datum.maximum : std::max(sums.maximum, datum.maximum);
    ++sums.datum_count;
    sums.sample_count += datum.sample_count;
    sums.sum += datum.sum;
    for (const auto& [value, count] : datum.values) {
      if (series->values.size() < distinct_values_max || series->values.contains(value)) {
        series->values[value] += count;
      } else {
        ++sums.values_not_kept;
      }
    }
  }
}

MetricStore::Series* MetricStore::series_of(std::string_view metric_namespace,
                                            const MetricDatum& datum) {
  // Each part behind its length: in OTLP any of them may hold any character.
  key_.clear();
  const auto append = [this](std::string_view part) {
    key_.append(std::to_string(part.size())).append(1, ':').append(part);
  };
  append(metric_namespace);
  append(datum.name);
  append(datum.unit);
  key_.append(std::to_string(datum.storage_resolution));
  for (const auto& [name, value] : datum.dimensions) {
    append(name);
    append(value);
  }
  const auto found = series_.find(key_);
  if (found != series_.end()) return &found->second;
  if (series_.size() >= series_max_) return nullptr;

  Series& made = series_[key_];
  made.statistics.metric_namespace = metric_namespace;
  made.statistics.name = datum.name;
  made.statistics.unit = datum.unit;
  made.statistics.storage_resolution = datum.storage_resolution;
  made.statistics.dimensions.assign(datum.dimensions.begin(), datum.dimensions.end());
  return &made;
}

void MetricStore::clear() {
  series_.clear();
  datums_ = 0;
  datums_without_series_ = 0;
}

std::vector<MetricStatistics> MetricStore::find(std::string_view metric_namespace,
                                                std::string_view name) const {
  std::vector<MetricStatistics> result;
  for (const auto& [key, series] : series_) {
    const MetricStatistics& sums = series.statistics;
    if (!metric_namespace.empty() && sums.metric_namespace != metric_namespace) continue;
    if (!name.empty() && sums.name != name) continue;
    result.push_back(sums);
    result.back().values.assign(series.values.begin(), series.values.end());
  }
  std::sort(result.begin(), result.end(), [](const auto& a, const auto& b) {
    return std::tie(a.metric_namespace, a.name, a.dimensions, a.unit, a.storage_resolution) <
           std::tie(b.metric_namespace, b.name, b.dimensions, b.unit, b.storage_resolution);
  });
  return result;
}

void MetricStore::write(JsonWriter& json, std::string_view metric_namespace, std::string_view name,
                        bool with_values) const {
  json.begin_object().field("datums", datums_);
  json.field("datums_without_series", datums_without_series_);
  json.key("series").begin_array();
  for (const MetricStatistics& sums : find(metric_namespace, name)) {
    json.begin_object().field("namespace", sums.metric_namespace).field("name", sums.name);
    json.key("dimensions").begin_object();
    for (const auto& [dimension, value] : sums.dimensions) json.field(dimension, value);
    json.end_object().field("unit", sums.unit);
    json.field("storage_resolution", sums.storage_resolution);
    json.field("datums", sums.datum_count).field("sample_count", sums.sample_count);
    json.field("sum", sums.sum).field("min", sums.minimum).field("max", sums.maximum);
    if (with_values) {
      json.field("values_not_kept", sums.values_not_kept).key("values").begin_array();
      for (const auto& [value, count] : sums.values) {
        json.begin_array().value(value).value(count).end_array();
      }
      json.end_array();
    }
    json.end_object();
  }
  json.end_array().end_object();
}

}  // namespace spillway::local
