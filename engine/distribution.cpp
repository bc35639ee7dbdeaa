// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <utility>

#include <spillway/engine/distribution.hpp>

namespace spillway::detail {
namespace {

// What is left of a bucket once the extremes stand for themselves: where its values can lie, and
// how many there are.
struct Slice {
  double low;
  double high;
  double count;
  double grid = 0;
  double value = 0;

  double weight() const noexcept { return count * grid; }
};

// In rising order; behind them, when there is any, the one of the measurements without a bucket.
std::vector<Slice> slices_of(const Distribution& all) {
  std::vector<Slice> slices;
  std::uint64_t bucketed = 0;
  for (const auto& [bucket, count] : all.buckets) {
    const double inner = bucket_inner_bound(bucket);
    const double outer = bucket_outer_bound(bucket, bucket_width(bucket, all.coarse_bits));
    Slice slice{std::max(std::min(inner, outer), all.minimum),
                std::min(std::max(inner, outer), all.maximum), static_cast<double>(count)};
    bucketed += count;
    slices.push_back(slice);
  }
  std::sort(slices.begin(), slices.end(), [](const Slice& a, const Slice& b) {
    return std::pair(a.low, a.high) < std::pair(b.low, b.high);
  });
  if (bucketed < all.count) {
    slices.push_back({all.minimum, all.maximum, static_cast<double>(all.count - bucketed)});
  }
  return slices;
}

// The numbers that stand for a slice of this width are multiples of: whole and round where that is
// fine enough, binary fractions of few digits around one (their sums are exact), decimal fractions
// below.
double grid_of(double width) {
  if (width <= 0) return std::numeric_limits<double>::min();
  if (width >= 2) return std::pow(10.0, std::floor(std::log10(width / 2)));
  if (width >= 0.125) return std::exp2(std::floor(std::log2(width)) - 2);
  return std::pow(10.0, std::floor(std::log10(width / 4)));
}

// Takes one measurement out of the first slice (last, from behind) that has any and can hold
// `value`; false when there is none.
template <class Iterator>
bool take_one(Iterator first, Iterator last, double value) {
  const auto found = std::find_if(first, last, [&](const Slice& slice) {
    return slice.count > 0 && slice.low <= value && value <= slice.high;
  });
  if (found == last) return false;
  found->count -= 1;
  return true;
}

}  // namespace

void append_points(const Distribution& all, std::vector<ValueCount>& points) {
  if (all.count == 0) return;
  if (all.minimum == all.maximum) {
    points.push_back({all.minimum, static_cast<double>(all.count)});
    return;
  }
  std::vector<Slice> slices = slices_of(all);
  take_one(slices.begin(), slices.end(), all.minimum);
  // Out of its bucket when it has one: the slice behind the buckets could be anywhere.
  const auto behind_buckets = slices.begin() + static_cast<std::ptrdiff_t>(all.buckets.size());
  if (!take_one(std::make_reverse_iterator(behind_buckets), slices.rend(), all.maximum)) {
    take_one(behind_buckets, slices.end(), all.maximum);
  }
  std::erase_if(slices, [](const Slice& slice) { return slice.count <= 0; });
  for (Slice& slice : slices) slice.grid = grid_of(slice.high - slice.low);

  // The same relative place in every slice, chosen so that the sum comes out right. It lies inside,
  // because the true values do.
  const double rest = all.sum - all.minimum - all.maximum;
  double low_sum = 0;
  double width_sum = 0;
  for (const Slice& slice : slices) {
    low_sum += slice.low * slice.count;
    width_sum += (slice.high - slice.low) * slice.count;
  }
  const double place = width_sum > 0 ? std::clamp((rest - low_sum) / width_sum, 0.0, 1.0) : 0.0;

  // Rounded to short numbers. What rounding adds is taken from the next slice, the heaviest first;
  // where the next one is too light for that, the slice is written as two neighbouring numbers,
  // which can hit any sum.
  const auto heavier = [](const Slice& a, const Slice& b) { return a.weight() > b.weight(); };
  std::sort(slices.begin(), slices.end(), heavier);
  std::vector<Slice> neighbours;
  double left = rest;
  double ahead = 0;  // what the slices up to this one should have taken
  for (std::size_t i = 0; i < slices.size(); ++i) {
    Slice& slice = slices[i];
    ahead += (slice.low + place * (slice.high - slice.low)) * slice.count;
    const double wanted = ahead - (rest - left);
    slice.value = std::clamp(std::round(wanted / slice.count / slice.grid) * slice.grid, slice.low,
                             slice.high);
    left -= slice.value * slice.count;
    const double next_weight = i + 1 < slices.size() ? slices[i + 1].weight() : 0;
    const double ahead_by = wanted - slice.value * slice.count;
    if (std::fabs(ahead_by) <= next_weight / 2) continue;
    const double neighbour = slice.value + std::copysign(slice.grid, ahead_by);
    if (neighbour < slice.low || neighbour > slice.high) continue;
    const double moved = std::min(std::round(std::fabs(ahead_by) / slice.grid), slice.count);
    if (moved == 0) continue;
    slice.count -= moved;
    neighbours.push_back({slice.low, slice.high, moved, slice.grid, neighbour});
    left -= (neighbour - slice.value) * moved;
  }
  slices.insert(slices.end(), neighbours.begin(), neighbours.end());
  // What is still left goes to as few measurements as have room for it: some moved to the bound of
  // their slice, and a single one by the rest. The true values have this sum, so there is room.
  std::vector<ValueCount> written{{all.minimum, 1}, {all.maximum, 1}};
  const auto move = [&](Slice& slice, double to, double count) {
    slice.count -= count;
    left -= (to - slice.value) * count;
    written.push_back({to, count});
  };
  for (auto slice = slices.rbegin(); slice != slices.rend() && left != 0; ++slice) {
    const double bound = left > 0 ? slice->high : slice->low;
    if (bound == slice->value || slice->count < 1) continue;
    const double whole = std::min(std::floor(left / (bound - slice->value)), slice->count);
    if (whole > 0) move(*slice, bound, whole);
    const double to = std::clamp(slice->value + left, slice->low, slice->high);
    if (slice->count >= 1 && to != slice->value) move(*slice, to, 1);
  }

  for (const Slice& slice : slices) {
    if (slice.count > 0) written.push_back({slice.value, slice.count});
  }
  std::sort(written.begin(), written.end(),
            [](const ValueCount& a, const ValueCount& b) { return a.value < b.value; });
  const std::size_t first = points.size();
  for (const ValueCount& point : written) {
    if (points.size() > first && points.back().value == point.value) {
      points.back().count += point.count;
    } else {
      points.push_back(point);
    }
  }
}

}  // namespace spillway::detail
