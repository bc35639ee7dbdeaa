// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <new>
#include <numeric>

#include <spillway/engine/aggregate.hpp>

namespace spillway::detail {
namespace {

DropCause cause_of(Refusal refusal) {
  return refusal == Refusal::no_room ? DropCause::series_limit : DropCause::invalid;
}

}  // namespace

Aggregator::Aggregator(const SeriesTable& series, Rollups& rollups, Ledger& ledger,
                       double histogram_error,
                       std::function<std::int64_t(std::uint64_t)> wall_ns_of)
    : series_(series),
      rollups_(rollups),
      ledger_(ledger),
      coarse_bits_(coarse_bits_for(histogram_error)),
      wall_ns_of_(std::move(wall_ns_of)) {}

Aggregator::State& Aggregator::touch(const Series& series) {
  if (series.id >= states_.size()) states_.resize(series.id + 1 + series.id / 2);
  State& state = states_[series.id];
  if (state.count == 0) touched_of(series.key.resolution).push_back(series.id);
  return state;
}

Aggregator::State* Aggregator::touch_or_drop(const Series& series, std::uint64_t count) noexcept
    try {
  return &touch(series);
} catch (const std::bad_alloc&) {
  ledger_.drop_in_batch(Signal::metrics, DropCause::no_memory, count);
  return nullptr;
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

void Aggregator::set_last(State& state, double last, std::uint64_t ticks) {
  if (ticks < state.last_ticks) return;
  state.last = last;
  state.last_ticks = ticks;
}

Aggregator::BucketBlock& Aggregator::block_of(State& state, std::uint32_t octave) {
  for (const OctaveRef& ref : state.octaves) {
    if (ref.octave == octave) return blocks_[ref.block];
  }
  if (free_blocks_.empty()) {
    blocks_.emplace_back();
    free_blocks_.push_back(static_cast<std::uint32_t>(blocks_.size() - 1));
  }
  state.octaves.push_back({octave, free_blocks_.back()});
  free_blocks_.pop_back();
  BucketBlock& block = blocks_[state.octaves.back().block];
  block.fill(0);
  return block;
}

std::uint64_t Aggregator::merge_octave(State& state, std::uint32_t octave,
                                       const OctaveBlock& counts) noexcept try {
  BucketBlock& block = block_of(state, octave);
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < buckets_per_octave; ++i) {
    block[i] += counts[i];
    total += counts[i];
  }
  return total;
} catch (const std::bad_alloc&) {
  return 0;
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
  if (cell.exemplar_block != 0) merge_exemplars(state, bank.exemplar_block(cell.exemplar_block));
}

void Aggregator::merge_exemplars(State& state, const ExemplarBlock& block) {
  const std::uint32_t count = std::min(block.count, ExemplarBlock::kept);
  for (const ExemplarRecord& one : std::span(block.records).first(count)) {
    add_exemplar(state, {one.value, wall_ns_of_(one.ticks), one.trace_id, one.span_id});
  }
}

void Aggregator::add_exemplar(State& state, const Exemplar& exemplar) noexcept try {
  const auto at = std::find_if(state.exemplars.begin(), state.exemplars.end(),
                               [&](const Exemplar& other) { return other.value < exemplar.value; });
  state.exemplars.insert(at, exemplar);
  if (state.exemplars.size() > exemplars_per_point_max) state.exemplars.pop_back();
} catch (const std::bad_alloc&) {  // The measurement counts all the same.
}

void Aggregator::add_count(std::uint32_t id, std::uint64_t count, double sum) {
  ledger_.of(Signal::metrics).add_drained(count);
  const Series& series = series_[id];
  if (series.refusal != Refusal::none) {
    return ledger_.drop_in_batch(Signal::metrics, cause_of(series.refusal), count);
  }
  if (State* const state = touch_or_drop(series, count)) merge(*state, count, sum, sum, sum);
}

void Aggregator::take(Bank& bank) {
  std::uint64_t drained = 0;
  for (std::uint32_t i = 0; i < bank.touched_count(); ++i) {
    const Series& series = series_[bank.touched(i)];
    const auto account = [&](std::uint64_t count) {
      drained += count;
      if (series.refusal == Refusal::none) return true;
      ledger_.drop_in_batch(Signal::metrics, cause_of(series.refusal), count);
      return false;
    };
    switch (series.key.kind) {
      case MetricKind::counter: {
        auto& cell = bank.cell<CounterCell>(series.cell_offset);
        if (account(cell.count)) {
          if (State* const state = touch_or_drop(series, cell.count)) {
            merge(*state, cell.count, cell.sum, cell.sum, cell.sum);
          }
        }
        cell = {};
        break;
      }
      case MetricKind::gauge: {
        auto& cell = bank.cell<GaugeCell>(series.cell_offset);
        if (account(cell.count)) {
          if (State* const state = touch_or_drop(series, cell.count)) {
            merge(*state, cell.count, cell.sum.total(), cell.minimum, cell.maximum);
            set_last(*state, cell.last, cell.ticks);
          }
        }
        cell = {};
        break;
      }
      case MetricKind::histogram: {
        auto& cell = bank.cell<HistogramCell>(series.cell_offset);
        if (account(cell.count)) {
          if (State* const state = touch_or_drop(series, cell.count)) {
            merge(*state, cell.count, cell.sum.total(), cell.minimum, cell.maximum);
            merge_histogram(*state, bank, cell);
          }
        }
        cell = {};
        break;
      }
    }
  }
  ledger_.of(Signal::metrics).add_drained(drained);
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
  ledger_.of(Signal::metrics).add_drained(left);
  ledger_.drop_in_batch(Signal::metrics, DropCause::shutdown_deadline, left);
}

void Aggregator::add_sample(std::uint32_t id, double value) {
  ledger_.of(Signal::metrics).add_drained(1);
  const Series& series = series_[id];
  if (series.refusal != Refusal::none) {
    return ledger_.drop_in_batch(Signal::metrics, cause_of(series.refusal), 1);
  }
  State* const state = touch_or_drop(series, 1);
  if (state == nullptr) return;
  value = without_tiny(value);
  merge(*state, 1, value, value, value);
  const std::uint32_t bucket = bucket_of(value);
  try {
    ++block_of(*state, bucket >> bucket_bits)[bucket & (buckets_per_octave - 1)];
  } catch (const std::bad_alloc&) {
    ledger_.measurements_unbucketed.fetch_add(1, std::memory_order_relaxed);
  }
}

void Aggregator::add_point(const MetricPoint& point) {
  ledger_.of(Signal::metrics).add_drained(point.count);
  const Series& series = *point.series;
  if (series.refusal != Refusal::none) {
    return ledger_.drop_in_batch(Signal::metrics, cause_of(series.refusal), point.count);
  }
  State* const state = touch_or_drop(series, point.count);
  if (state == nullptr) return;
  merge(*state, point.count, point.sum, point.minimum, point.maximum);
  set_last(*state, point.last, 0);
  if (series.key.kind != MetricKind::histogram) return;
  std::uint64_t bucketed = 0;
  for (const ValueCount& one : point.values) {
    const std::uint32_t bucket = bucket_of(one.value);
    const auto count = static_cast<std::uint64_t>(one.count);
    try {
      block_of(*state, bucket >> bucket_bits)[bucket & (buckets_per_octave - 1)] += count;
      bucketed += count;
    } catch (const std::bad_alloc&) {
    }
  }
  ledger_.measurements_unbucketed.fetch_add(point.count - bucketed, std::memory_order_relaxed);
}

void Aggregator::for_each_open(Resolution resolution, std::int64_t time_ms,
                               const std::function<void(const MetricPoint&)>& visit) {
  for (const std::uint32_t id : touched_of(resolution)) {
    const State& state = states_[id];
    open_values_.clear();
    for (const OctaveRef& ref : state.octaves) {
      const BucketBlock& block = blocks_[ref.block];
      for (std::uint32_t i = 0; i < buckets_per_octave; ++i) {
        if (block[i] == 0) continue;
        open_values_.push_back(
            {bucket_inner_bound(ref.octave << bucket_bits | i), static_cast<double>(block[i])});
      }
    }
    visit({&series_[id], time_ms, state.count, state.sum, state.minimum, state.maximum, state.last,
           open_values_});
  }
}

// A series feeds only such of fewer dimensions: in rising order of their number each one has its own
// measurements alone when its turn comes, and nothing is added twice.
void Aggregator::roll_up(std::vector<std::uint32_t>& touched) {
  const auto dimension_count = [&](std::uint32_t id) { return series_[id].key.dimensions.size(); };
  std::sort(touched.begin(), touched.end(), [&](std::uint32_t a, std::uint32_t b) {
    return dimension_count(a) < dimension_count(b);
  });
  const std::size_t recorded = touched.size();
  for (std::size_t i = 0; i < recorded; ++i) {
    const std::uint32_t id = touched[i];
    const Rollups::Plan& plan = rollups_.plan_of(id);
    if (plan.targets.empty()) continue;
    // No later target may move them.
    const std::uint32_t highest = *std::max_element(plan.targets.begin(), plan.targets.end());
    if (highest >= states_.size()) states_.resize(highest + 1 + highest / 2);
    for (const std::uint32_t target : plan.targets) add_to(target, states_[id]);
    if (plan.keeps_own) continue;
    // Accounted once, with the first of the sets.
    states_[plan.targets.front()].records += states_[id].records;
    states_[id].is_left_out = true;
  }
}

void Aggregator::add_to(std::uint32_t target, const State& from) {
  State& to = touch(series_[target]);
  merge(to, from.count, from.sum, from.minimum, from.maximum);
  set_last(to, from.last, from.last_ticks);
  for (const Exemplar& exemplar : from.exemplars) add_exemplar(to, exemplar);
  for (const OctaveRef& ref : from.octaves) {
    BucketBlock& block = block_of(to, ref.octave);
    const BucketBlock& counts = blocks_[ref.block];
    for (std::size_t i = 0; i < buckets_per_octave; ++i) block[i] += counts[i];
  }
}

void Aggregator::append_point(const Series& series, State& state, std::int64_t time_ms) {
  begins_.emplace_back(values_.size(), exemplars_.size());
  // What many small ones come to, or what is left where positive and negative ones cancel out.
  state.sum = without_tiny(state.sum);
  state.minimum = without_tiny(state.minimum);
  state.maximum = without_tiny(state.maximum);
  if (series.key.kind == MetricKind::histogram) {
    distribution_.clear();
    distribution_.coarse_bits = coarse_bits_;
    distribution_.count = state.count;
    distribution_.sum = state.sum;
    distribution_.minimum = state.minimum;
    distribution_.maximum = state.maximum;
    for (const OctaveRef& ref : state.octaves) {
      const BucketBlock& block = blocks_[ref.block];
      const std::uint32_t width = bucket_width(ref.octave << bucket_bits, coarse_bits_);
      for (std::uint32_t i = 0; i < buckets_per_octave; i += width) {
        const std::uint64_t count = std::accumulate(&block[i], &block[i] + width, std::uint64_t{0});
        if (count != 0) distribution_.buckets.emplace_back(ref.octave << bucket_bits | i, count);
      }
    }
    append_points(distribution_, values_);
    exemplars_.insert(exemplars_.end(), state.exemplars.begin(), state.exemplars.end());
  }
  points_.push_back({&series,
                     time_ms,
                     state.count,
                     state.sum,
                     state.minimum,
                     state.maximum,
                     state.last,
                     {},
                     state.count - state.records,
                     {}});
}

std::span<const MetricPoint> Aggregator::close(Resolution resolution, std::int64_t time_ms) {
  points_.clear();
  values_.clear();
  exemplars_.clear();
  begins_.clear();
  std::vector<std::uint32_t>& touched = touched_of(resolution);
  std::uint64_t records = 0;
  for (const std::uint32_t id : touched) {
    State& state = states_[id];
    state.records = state.count;
    state.total += state.count;
    records += state.count;
  }
  try {
    close_touched(resolution, time_ms);
  } catch (const std::bad_alloc&) {
    give_up(touched, records);
  }
  return points_;
}

// There was no memory to close the interval: its measurements are dropped.
void Aggregator::give_up(std::vector<std::uint32_t>& touched, std::uint64_t records) noexcept {
  ledger_.drop_in_batch(Signal::metrics, DropCause::no_memory, records);
  points_.clear();
  for (const std::uint32_t id : touched) reset(states_[id]);
  touched.clear();
}

void Aggregator::reset(State& state) noexcept {
  for (const OctaveRef& ref : state.octaves) {
    try {
      free_blocks_.push_back(ref.block);
    } catch (const std::bad_alloc&) {  // A block less to use again.
    }
  }
  state.octaves.clear();
  state.exemplars.clear();
  state.count = 0;
  state.records = 0;
  state.is_left_out = false;
}

void Aggregator::close_touched(Resolution resolution, std::int64_t time_ms) {
  std::vector<std::uint32_t>& touched = touched_of(resolution);
  if (!rollups_.empty()) roll_up(touched);
  std::sort(touched.begin(), touched.end(), [&](std::uint32_t a, std::uint32_t b) {
    const auto order = series_[a].key.dimensions <=> series_[b].key.dimensions;
    return order != 0 ? order < 0 : a < b;
  });
  for (const std::uint32_t id : touched) {
    if (!states_[id].is_left_out) append_point(series_[id], states_[id], time_ms);
  }
  begins_.emplace_back(values_.size(), exemplars_.size());
  for (std::size_t i = 0; i < points_.size(); ++i) {
    const auto [value, exemplar] = begins_[i];
    const auto [value_end, exemplar_end] = begins_[i + 1];
    points_[i].values = std::span(values_).subspan(value, value_end - value);
    points_[i].exemplars = std::span(exemplars_).subspan(exemplar, exemplar_end - exemplar);
  }
  for (const std::uint32_t id : touched) reset(states_[id]);
  touched.clear();
}

}  // namespace spillway::detail
