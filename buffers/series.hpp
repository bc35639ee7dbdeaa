// SPDX-License-Identifier: Apache-2.0
//
// The series of an engine: each distinct (metric, unit, resolution, dimensions) has a number and a
// place in every bank.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <spillway/buffers/cells.hpp>
#include <spillway/buffers/stable_table.hpp>
#include <spillway/buffers/unit.hpp>

namespace spillway {

/// One dimension of a metric; elsewhere attribute or label. CloudWatch takes ASCII, a name of 1-255
/// and a value of 1-1024.
struct Dimension {
  std::string name;
  std::string value;
  friend bool operator==(const Dimension&, const Dimension&) = default;
  friend auto operator<=>(const Dimension&, const Dimension&) = default;
};
using Dimensions = std::vector<Dimension>;

/// Seconds that CloudWatch stores a value for: 60, or 1 ("high resolution").
enum class Resolution : std::uint8_t { minute = 60, second = 1 };

}  // namespace spillway

namespace spillway::detail {

enum class MetricKind : std::uint8_t { counter, gauge, histogram };
inline constexpr std::size_t metric_kind_count = 3;

constexpr std::uint32_t cell_bytes(MetricKind kind) noexcept {
  constexpr std::uint32_t bytes[] = {sizeof(CumulativeCell), sizeof(GaugeCell),
                                     sizeof(HistogramCell)};
  return bytes[static_cast<std::size_t>(kind)];
}

struct SeriesKey {
  MetricKind kind = MetricKind::counter;
  Unit unit = Unit::none;
  Resolution resolution = Resolution::minute;
  std::string name;
  Dimensions dimensions;  ///< sorted by name
  friend bool operator==(const SeriesKey&, const SeriesKey&) = default;
};

struct Series {
  SeriesKey key;
  std::uint32_t id = 0;
  std::uint32_t cell_offset = 0;
  bool refused = false;  ///< its measurements are counted as invalid: the first series of each kind
};

/// Interns series. Lookups and registrations take a lock (a handle does it once); reading by number
/// does not.
class SeriesTable {
 public:
  /// `layout` bounds the number of series and their cells. `per_metric_max`: distinct dimension
  /// sets of one metric name before new ones fold into one whose values all read "__other__".
  SeriesTable(const BankLayout& layout, std::uint32_t per_metric_max);

  /// The series of `key`, whose dimensions are sorted and valid. When cells or numbers run out: the
  /// refused series.
  const Series& intern(SeriesKey key);
  /// The series that stands for what may not be sent, of this kind.
  const Series& refused(MetricKind kind) const noexcept {
    return series_[static_cast<std::uint32_t>(kind)];
  }

  /// Any thread, no lock. `id` comes from intern().
  const Series& operator[](std::uint32_t id) const noexcept { return series_[id]; }
  std::uint32_t size() const noexcept { return series_.size(); }

 private:
  struct KeyHash {
    std::size_t operator()(const SeriesKey& key) const noexcept;
  };
  const Series& add(SeriesKey key, bool refused);

  const BankLayout layout_;
  const std::uint32_t per_metric_max_;
  mutable std::mutex mutex_;
  StableTable<Series> series_;
  std::unordered_map<SeriesKey, std::uint32_t, KeyHash> ids_;
  std::unordered_map<std::string, std::uint32_t> per_metric_;
  std::uint32_t next_offset_ = Bank::first_cell_offset();
};

}  // namespace spillway::detail
