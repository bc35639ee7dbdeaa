// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <spillway/engine/aggregate.hpp>

namespace spillway::detail {

Aggregator::State& Aggregator::touch(const Series& series) {
  if (series.id >= states_.size()) states_.resize(series.id + 1 + series.id / 2);
  State& state = states_[series.id];
  if (state.count == 0) touched_of(series.key.resolution).push_back(series.id);
  return state;
}

void Aggregator::merge(State& state, std::uint64_t count, double sum, double minimum,
                       double maximum) {
  if (state.count == 0) {
    state.minimum = minimum;
    state.maximum = maximum;
    state.sum = 0;
    state.last_ticks = 0;
  }
  state.count += count;
  state.sum += sum;
  state.minimum = std::min(state.minimum, minimum);
  state.maximum = std::max(state.maximum, maximum);
}

Aggregator::BucketBlock& Aggregator::block_of(State& state, std::uint32_t octave) {
  for (const OctaveRef& ref : state.octaves) {
    if (ref.octave == octave) return blocks_[ref.block];
  }
  if (free_blocks_.empty()) {
    free_blocks_.push_back(static_cast<std::uint32_t>(blocks_.size()));
    blocks_.emplace_back();
  }
  state.octaves.push_back({octave, free_blocks_.back()});
  free_blocks_.pop_back();
  BucketBlock& block = blocks_[state.octaves.back().block];
  block.fill(0);
  return block;
}

std::uint64_t Aggregator::merge_octave(State& state, std::uint32_t octave,
                                       const OctaveBlock& counts) {
  BucketBlock& block = block_of(state, octave);
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < buckets_per_octave; ++i) {
    block[i] += counts[i];
    total += counts[i];
  }
  return total;
}

void Aggregator::merge_histogram(State& state, Bank& bank, HistogramCell& cell) {
  std::uint64_t bucketed = 0;
  for (std::uint32_t i = 0; i < direct_octaves; ++i) {
    if (const std::uint32_t block = cell.block_of_octave[i]; block != 0) {
      bucketed += merge_octave(state, direct_octave_first + i, bank.octave_block(block));
    }
  }
  if (cell.directory_block != 0) {
    const DirectoryBlock& directories = bank.directory_block(cell.directory_block);
    for (std::uint32_t i = 0; i < std::size(directories); ++i) {
      if (directories[i] == 0) continue;
      const DirectoryBlock& directory = bank.directory_block(directories[i]);
      for (std::uint32_t j = 0; j < octaves_per_directory; ++j) {
        if (directory[j] == 0) continue;
        bucketed +=
            merge_octave(state, i * octaves_per_directory + j, bank.octave_block(directory[j]));
      }
    }
  }
  ledger_.measurements_unbucketed.fetch_add(cell.count - bucketed, std::memory_order_relaxed);
}

void Aggregator::add_count(std::uint32_t id, std::uint64_t count, double sum) {
  ledger_.of(Signal::metrics).drained.fetch_add(count, std::memory_order_relaxed);
  const Series& series = series_[id];
  if (series.refused) return ledger_.drop_in_batch(Signal::metrics, DropCause::invalid, count);
  merge(touch(series), count, sum, sum, sum);
}

void Aggregator::take(Bank& bank) {
  std::uint64_t drained = 0;
  for (std::uint32_t i = 0; i < bank.touched_count(); ++i) {
    const Series& series = series_[bank.touched(i)];
    const auto account = [&](std::uint64_t count) {
      drained += count;
      if (series.refused) ledger_.drop_in_batch(Signal::metrics, DropCause::invalid, count);
      return !series.refused;
    };
    switch (series.key.kind) {
      case MetricKind::counter: {
        auto& cell = bank.cell<CounterCell>(series.cell_offset);
        if (account(cell.count)) {
          merge(touch(series), cell.count, cell.sum, cell.sum, cell.sum);
        }
        cell = {};
        break;
      }
      case MetricKind::gauge: {
        auto& cell = bank.cell<GaugeCell>(series.cell_offset);
        if (account(cell.count)) {
          State& state = touch(series);
          merge(state, cell.count, cell.sum.total(), cell.minimum, cell.maximum);
          if (cell.ticks >= state.last_ticks) {
            state.last = cell.last;
            state.last_ticks = cell.ticks;
          }
        }
        cell = {};
        break;
      }
      case MetricKind::histogram: {
        auto& cell = bank.cell<HistogramCell>(series.cell_offset);
        if (account(cell.count)) {
          State& state = touch(series);
          merge(state, cell.count, cell.sum.total(), cell.minimum, cell.maximum);
          merge_histogram(state, bank, cell);
        }
        cell = {};
        break;
      }
    }
  }
  ledger_.of(Signal::metrics).drained.fetch_add(drained, std::memory_order_relaxed);
}

void Aggregator::abandon(Bank& bank) {
  std::uint64_t left = 0;
  for (std::uint32_t i = 0; i < bank.touched_count(); ++i) {
    const Series& series = series_[bank.touched(i)];
    switch (series.key.kind) {
      case MetricKind::counter:
        left += bank.cell<CounterCell>(series.cell_offset).count;
        break;
      case MetricKind::gauge:
        left += bank.cell<GaugeCell>(series.cell_offset).count;
        break;
      case MetricKind::histogram:
        left += bank.cell<HistogramCell>(series.cell_offset).count;
        break;
    }
  }
  ledger_.of(Signal::metrics).drained.fetch_add(left, std::memory_order_relaxed);
  ledger_.drop_in_batch(Signal::metrics, DropCause::shutdown_deadline, left);
}

void Aggregator::add_sample(std::uint32_t id, double value) {
  ledger_.of(Signal::metrics).drained.fetch_add(1, std::memory_order_relaxed);
  const Series& series = series_[id];
  if (series.refused) return ledger_.drop_in_batch(Signal::metrics, DropCause::invalid, 1);
  State& state = touch(series);
  merge(state, 1, value, value, value);
  const std::uint32_t bucket = bucket_of(value);
  ++block_of(state, bucket >> bucket_bits)[bucket & (buckets_per_octave - 1)];
}

std::span<const MetricPoint> Aggregator::close(Resolution resolution, std::int64_t time_ms) {
  points_.clear();
  values_.clear();
  value_ranges_.clear();
  std::vector<std::uint32_t>& touched = touched_of(resolution);
  std::sort(touched.begin(), touched.end(), [&](std::uint32_t a, std::uint32_t b) {
    const auto order = series_[a].key.dimensions <=> series_[b].key.dimensions;
    return order != 0 ? order < 0 : a < b;
  });
  for (const std::uint32_t id : touched) {
    State& state = states_[id];
    const std::size_t first_value = values_.size();
    if (series_[id].key.kind == MetricKind::histogram) {
      distribution_.clear();
      distribution_.count = state.count;
      distribution_.sum = state.sum;
      distribution_.minimum = state.minimum;
      distribution_.maximum = state.maximum;
      for (const OctaveRef& ref : state.octaves) {
        const BucketBlock& block = blocks_[ref.block];
        for (std::uint32_t i = 0; i < buckets_per_octave; ++i) {
          if (block[i] != 0) {
            distribution_.buckets.emplace_back(ref.octave << bucket_bits | i, block[i]);
          }
        }
        free_blocks_.push_back(ref.block);
      }
      append_points(distribution_, values_);
    }
    value_ranges_.emplace_back(first_value, values_.size() - first_value);
    points_.push_back({&series_[id],
                       time_ms,
                       state.count,
                       state.sum,
                       state.minimum,
                       state.maximum,
                       state.last,
                       {}});
    state.octaves.clear();
    state.count = 0;
  }
  for (std::size_t i = 0; i < points_.size(); ++i) {
    points_[i].values = std::span(values_).subspan(value_ranges_[i].first, value_ranges_[i].second);
  }
  touched.clear();
  return points_;
}

}  // namespace spillway::detail
