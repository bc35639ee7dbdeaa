// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include <spillway/buffers/batch.hpp>

namespace spillway::detail {

/// Buckets of one histogram over one interval, merged from all threads, with the exact figures
/// beside them.
struct Distribution {
  std::uint64_t count = 0;
  double sum = 0;
  double minimum = 0;
  double maximum = 0;
  /// Bucket number (bucket.hpp) and count, any order, each bucket once. May add up to less than
  /// `count`: measurements that found no block in their thread's bank have no bucket.
  std::vector<std::pair<std::uint32_t, std::uint64_t>> buckets;
  /// A bucket is the first of bucket_width() ones that go together.
  int coarse_bits = 0;

  void clear() noexcept {
    count = 0;
    sum = 0;
    buckets.clear();
  }
};

/// Appends to `points` values in rising order and their counts, which add up to `count` exactly,
/// whose extremes are the exact minimum and maximum, and whose weighted sum is `sum`: exactly,
/// unless more than some ten million measurements leave no double to say so, and then to the last
/// bit or two. Each value stays inside its bucket: within 1/128 of what was recorded, if buckets are not
/// wider.
void append_points(const Distribution& distribution, std::vector<ValueCount>& points);

}  // namespace spillway::detail
