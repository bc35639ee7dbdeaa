// SPDX-License-Identifier: Apache-2.0
//
// The series of an engine: each distinct (metric, unit, resolution, dimensions) has a number and a
// place in every bank.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
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

/// Sets of dimension names, as EMF's "Dimensions" has them: {{"Service"}, {"Service", "Route"}}. The
/// empty set is a metric without dimensions.
using DimensionSets = std::vector<std::vector<std::string>>;

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

/// Why the measurements of a series are dropped.
enum class Refusal : std::uint8_t { none, invalid, no_room };

struct Series {
  SeriesKey key;
  std::uint32_t id = 0;
  std::uint32_t cell_offset = 0;
  Refusal refusal = Refusal::none;  ///< not none: one of the first few, which stand for all such
  std::uint32_t metric = 0;         ///< number of the name
  bool is_folded = false;           ///< a dimension reads "__other__"
  /// is_plain(key): looked at once, here, and not by encoders for each point. False is always safe.
  bool has_plain_texts = false;
};

/// Printable ASCII without '"' and '\\': the text as it stands in JSON, and UTF-8.
bool is_plain(std::string_view text) noexcept;
bool is_plain(const SeriesKey& key) noexcept;  ///< all its texts

/// The value of a dimension that stands for those which are too many to be kept apart.
inline constexpr std::string_view folded_value = "__other__";

/// Interns series. Lookups and registrations take a lock (a handle does it once); reading by number
/// does not.
///
/// A metric has a budget of series. Past it, what is new is folded: the dimension with the most
/// values so far reads "__other__", and if that makes too many series as well, the next one too.
class SeriesTable {
 public:
  /// A metric that has used up its budget.
  struct Exploded {
    std::uint32_t metric;
    std::string name;
    std::string label;          ///< the dimension with the most values
    std::uint64_t value_count;  ///< how many it has
  };

  /// `layout` bounds the number of series and their cells. `per_metric_max`: series of one metric
  /// name before new ones are folded.
  SeriesTable(const BankLayout& layout, std::uint32_t per_metric_max);

  /// The series of `key`, whose dimensions are sorted and valid. When cells or numbers run out: a
  /// folded one that is there already, or the refused series.
  const Series& intern(SeriesKey key);
  /// The same for a series that others are summed into: it is not in the metric's budget, and has as
  /// much of its own; past that it is refused.
  const Series& intern_rollup(SeriesKey key);
  /// The series that stands for what may not be sent, of this kind. `why` is not none.
  const Series& refused(MetricKind kind, Refusal why) const noexcept {
    return series_[static_cast<std::uint32_t>(
        (static_cast<std::size_t>(why) - 1) * metric_kind_count + static_cast<std::size_t>(kind))];
  }
  /// How many there are that are not refused. Any thread, no lock.
  std::uint32_t used() const noexcept { return size() - refused_count; }

  /// Metrics past their budget. Any thread; takes the lock.
  std::vector<Exploded> exploded() const;
  /// How many. Any thread, no lock.
  std::uint32_t exploded_count() const noexcept {
    return exploded_count_.load(std::memory_order_relaxed);
  }

  /// Any thread, no lock. `id` comes from intern().
  const Series& operator[](std::uint32_t id) const noexcept { return series_[id]; }
  std::uint32_t size() const noexcept { return series_.size(); }

 private:
  struct KeyHash {
    std::size_t operator()(const SeriesKey& key) const noexcept;
  };
  static constexpr std::uint32_t refused_count = 2 * metric_kind_count;
  struct Label {
    std::string name;
    std::unordered_set<std::size_t> values;  // their hashes
  };
  struct Metric {
    std::uint32_t number = 0;
    std::uint32_t distinct = 0;  // series in the budget
    std::uint32_t folded = 0;
    std::uint32_t rollups = 0;
    bool is_exploded = false;
    std::vector<Label> labels;
    void note_values(const Dimensions& dimensions);
  };
  Metric& metric_of(const std::string& name);
  bool has_room(MetricKind kind) const noexcept;
  const Series* find(const SeriesKey& key) const;
  const Series& fold(SeriesKey key, Metric& metric);
  const Series& add(SeriesKey key, std::uint32_t metric, Refusal refusal = Refusal::none,
                    bool is_folded = false);

  const BankLayout layout_;
  const std::uint32_t per_metric_max_;
  mutable std::mutex mutex_;
  StableTable<Series> series_;
  std::unordered_map<SeriesKey, std::uint32_t, KeyHash> ids_;
  std::unordered_map<std::string, Metric> metrics_;
  std::atomic<std::uint32_t> exploded_count_{0};
  std::uint32_t next_offset_ = Bank::first_cell_offset();
};

}  // namespace spillway::detail
