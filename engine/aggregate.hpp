// SPDX-License-Identifier: Apache-2.0
//
// Puts the cells of all threads together, series by series, until an interval ends, and sums series
// into those of fewer dimensions that are wanted beside them (rollups.hpp). Flusher only.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include <spillway/buffers/batch.hpp>
#include <spillway/buffers/cells.hpp>
#include <spillway/buffers/series.hpp>
#include <spillway/engine/distribution.hpp>
#include <spillway/engine/ledger.hpp>
#include <spillway/engine/rollups.hpp>

namespace spillway::detail {

class Aggregator {
 public:
  /// What it is given outlives it. `histogram_error`: how far a histogram's values may be from what
  /// was recorded, relative; not less than bucket_error_min.
  /// `wall_ns_of` turns ticks into the wall clock's nanoseconds.
  Aggregator(const SeriesTable& series, Rollups& rollups, Ledger& ledger, double histogram_error,
             std::function<std::int64_t(std::uint64_t)> wall_ns_of);

  /// Adds what a thread added to a counter.
  void add_count(std::uint32_t series, std::uint64_t count, double sum);
  /// Adds what a thread's bank holds and zeroes its cells.
  void take(Bank& bank);
  /// Counts what a bank holds as dropped at shutdown. Its producer may still be writing it.
  void abandon(Bank& bank);
  /// Adds one measurement that came through a ring, or was refused there.
  void add_sample(std::uint32_t series, double value);

  /// Ends the interval of the series of one resolution: what they amount to, as points at
  /// `time_ms`, valid until the next call. Points of the same dimensions stand together.
  std::span<const MetricPoint> close(Resolution resolution, std::int64_t time_ms);
  /// Whether any series of that resolution has a measurement.
  bool has(Resolution resolution) const noexcept { return !touched_of(resolution).empty(); }

  /// Adds what a process that died left of a series: `values` may be bounds of buckets, and fewer than
  /// there are measurements.
  void add_point(const MetricPoint& point);
  /// Shows the series of an interval that is not over, as they stand, before they are summed into
  /// others: as points at `time_ms` whose values are the bounds of their buckets.
  void for_each_open(Resolution resolution, std::int64_t time_ms,
                     const std::function<void(const MetricPoint&)>& visit);

  /// Measurements of a series in all intervals that are closed.
  std::uint64_t total_of(std::uint32_t series) const noexcept {
    return series < states_.size() ? states_[series].total : 0;
  }

 private:
  using BucketBlock = std::array<std::uint64_t, buckets_per_octave>;
  struct OctaveRef {
    std::uint32_t octave;  // bucket number >> bucket_bits
    std::uint32_t block;   // in blocks_
  };
  struct State {
    std::uint64_t count = 0;
    double sum = 0;
    double minimum = 0;
    double maximum = 0;
    double last = 0;
    std::uint64_t last_ticks = 0;
    std::vector<OctaveRef> octaves;
    std::vector<Exemplar> exemplars;
    std::uint64_t total = 0;    // of its own, in the intervals before
    std::uint64_t records = 0;  // while an interval is closed: of `count`, what is accounted here
    bool is_left_out = false;   // while an interval is closed
  };

  /// Throws std::bad_alloc, and then nothing has changed.
  State& touch(const Series& series);
  /// The same, or null, and the measurements are dropped.
  State* touch_or_drop(const Series& series, std::uint64_t count) noexcept;
  void close_touched(Resolution resolution, std::int64_t time_ms);
  void give_up(std::vector<std::uint32_t>& touched, std::uint64_t records) noexcept;
  void reset(State& state) noexcept;
  void merge(State& state, std::uint64_t count, double sum, double minimum, double maximum);
  void merge_histogram(State& state, Bank& bank, HistogramCell& cell);
  /// Returns the measurements that have their buckets now: none without memory for them.
  std::uint64_t merge_octave(State& state, std::uint32_t octave,
                             const OctaveBlock& counts) noexcept;
  BucketBlock& block_of(State& state, std::uint32_t octave);
  void merge_exemplars(State& state, const ExemplarBlock& block);
  static void add_exemplar(State& state, const Exemplar& exemplar) noexcept;
  void set_last(State& state, double last, std::uint64_t ticks);
  void roll_up(std::vector<std::uint32_t>& touched);
  void add_to(std::uint32_t target, const State& state);
  void append_point(const Series& series, State& state, std::int64_t time_ms);
  std::vector<std::uint32_t>& touched_of(Resolution resolution) noexcept {
    return touched_[resolution == Resolution::second ? 1 : 0];
  }
  const std::vector<std::uint32_t>& touched_of(Resolution resolution) const noexcept {
    return touched_[resolution == Resolution::second ? 1 : 0];
  }

  const SeriesTable& series_;
  Rollups& rollups_;
  Ledger& ledger_;
  const int coarse_bits_;
  const std::function<std::int64_t(std::uint64_t)> wall_ns_of_;
  std::vector<State> states_;  // by series number
  std::array<std::vector<std::uint32_t>, 2> touched_;
  std::vector<BucketBlock> blocks_;
  std::vector<std::uint32_t> free_blocks_;
  // Of the last close().
  Distribution distribution_;
  std::vector<MetricPoint> points_;
  std::vector<ValueCount> values_;
  std::vector<ValueCount> open_values_;  // of for_each_open()
  std::vector<Exemplar> exemplars_;
  // Of each point, where its values and its exemplars begin.
  std::vector<std::pair<std::size_t, std::size_t>> begins_;
};

}  // namespace spillway::detail
