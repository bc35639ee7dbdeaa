// SPDX-License-Identifier: Apache-2.0
//
// Where measurements without a time go: a thread's own aggregation cells, one per series, instead
// of one record per call.
//
// What counters are given as small integers goes to a cumulative cell, which its thread makes grow
// for ever and the flusher reads by difference: nobody hands anything over, and an addition is one
// store. Everything else goes to a bank.
//
// A bank is one block of memory, zero when fresh, that one thread at a time writes:
//
//   Bank | cells, at offsets that the series table hands out | touched[] | blocks[]
//
//   touched[]  numbers of the series that have a value since the bank was cleared, so that the
//              flusher visits only those
//   blocks[]   512-byte blocks of bucket counts, handed out in order; block 0 is never used: 0 means
//              "no block yet"
//
// Each thread has two banks. The producer writes the one that its gate names; the flusher takes
// the other, reads it, and clears it (lane.hpp has the hand-over). Nothing here is atomic: a bank
// has one owner at any time.
//
// Count, sum, minimum and maximum of a cell are exact always. When the blocks run out, measurements
// of new octaves lose their bucket, not their count; the flusher sees it as count minus buckets.
#pragma once

#include <atomic>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>

#include <spillway/buffers/bucket.hpp>
#include <spillway/buffers/cache_line.hpp>
#include <spillway/buffers/record.hpp>

namespace spillway::detail {

/// What one thread added to a counter as integers, ever since. Grown by that thread, read by the
/// flusher at any time, one addition at most apart: of one that is under way it may see the amount
/// before it sees the count.
struct CumulativeCell {
  std::atomic<std::uint64_t> count;  ///< producer
  std::atomic<std::uint64_t>
      excess;  ///< producer: the sum less `count`, modulo 2^64, so that to add
               ///< 1, the common case, is one store
  std::atomic<std::uint64_t> count_seen;   ///< flusher: what it read last
  std::atomic<std::uint64_t> excess_seen;  ///< flusher
  std::uint32_t series;                    ///< constant once count is not 0
  std::uint32_t next;                      ///< the same: offset of the next cell in use, 0: none

  /// Amounts that fit: from 1 on, and so small that no interval's sum comes near 2^64. The others,
  /// and doubles, go to a bank.
  static constexpr bool fits(std::uint64_t n) noexcept { return n - 1 < std::uint64_t{1} << 32; }
};
static_assert(sizeof(CumulativeCell) == 40);

/// Of a counter too, in a bank, at the same offset: what was added as doubles, 0s, large integers.
struct CounterCell {
  std::uint64_t count;
  double sum;
};
static_assert(sizeof(CounterCell) <= sizeof(CumulativeCell));

/// A sum in two halves that measurements go to in turn. A sum waits for the one before it to reach
/// memory and come back, some 9 cycles; two of them wait half as long.
struct AlternatingSum {
  double halves[2];

  /// `count` is the number of values added before.
  void add(double value, std::uint64_t count) noexcept { halves[count & 1] += value; }
  double total() const noexcept { return halves[0] + halves[1]; }
};

struct GaugeCell {
  std::uint64_t count;
  double last;
  AlternatingSum sum;
  double minimum;
  double maximum;
  std::uint64_t ticks;  ///< coarse time of `last`, to find the latest of several threads
};
static_assert(sizeof(GaugeCell) == 56);

/// Octaves with a direct slot: 2^-24 (60 ns in seconds) up to 2^40 (18 minutes in ns, 1 TiB in
/// bytes).
inline constexpr std::uint32_t direct_octaves = 64;
inline constexpr std::uint32_t direct_octave_first = 1023 - 24;

struct HistogramCell {
  std::uint64_t count;
  AlternatingSum sum;
  double minimum;
  double maximum;
  std::uint16_t block_of_octave[direct_octaves];  ///< 0: none yet
  std::uint16_t directory_block;                  ///< of the other octaves, 0: none yet
  std::uint16_t exemplar_block;                   ///< 0: none yet
  std::uint16_t reserved[2];
};
static_assert(sizeof(HistogramCell) == 176);

using OctaveBlock = std::uint32_t[buckets_per_octave];

/// Octaves outside the direct ones (zero, negative, tiny, huge) are found by two steps: sign and
/// upper exponent bits choose a block of 256 children, the lower 4 exponent bits choose among the
/// first 16 of the next.
using DirectoryBlock = std::uint16_t[2 * buckets_per_octave];
static_assert(sizeof(DirectoryBlock) == sizeof(OctaveBlock));
inline constexpr std::uint32_t octaves_per_directory = 16;
inline constexpr int directory_shift = bucket_bits + 4;

/// A measurement and the trace that it was made in.
struct ExemplarRecord {
  double value;
  std::uint64_t ticks;
  TraceId trace_id;
  std::uint64_t span_id;
};
/// The latest of a cell's measurements that were greater than all before: its slow values.
struct ExemplarBlock {
  static constexpr std::uint32_t kept = 4;
  std::uint32_t count;  ///< ever; the latest is at (count - 1) % kept
  ExemplarRecord records[kept];
};
static_assert(sizeof(ExemplarBlock) <= sizeof(OctaveBlock) &&
              std::is_trivially_copyable_v<ExemplarBlock>);

/// What became of a value given to a histogram.
enum class Recorded : std::uint8_t {
  plainly,
  as_highest,  ///< none in the cell was greater
  not_at_all   ///< it is none that CloudWatch takes
};

/// Sizes of a bank; the same for every thread of an engine. Memory is reserved in full and touched
/// as it is used.
struct BankLayout {
  std::uint32_t cell_bytes = 4U << 20;
  std::uint32_t series_max = 1U << 16;
  std::uint32_t block_max = 8192;  ///< at most 65535

  /// Of touched[]; even, so that the blocks behind it are aligned for what they hold.
  std::size_t touched_entries() const noexcept { return (std::size_t{series_max} + 1) / 2 * 2; }
  std::size_t bytes() const noexcept;
};

class alignas(cache_line_bytes) Bank {
 public:
  /// Makes a bank of the memory at `storage`: zeroed, layout.bytes() long, aligned to a cache line.
  static Bank* create(std::byte* storage, const BankLayout& layout) noexcept {
    auto* bank = new (storage) Bank;
    bank->touched_ =
        reinterpret_cast<std::uint32_t*>(storage + first_cell_offset() + layout.cell_bytes);
    bank->blocks_ = reinterpret_cast<OctaveBlock*>(bank->touched_ + layout.touched_entries());
    bank->block_max_ = layout.block_max;
    return bank;
  }

  /// Offset of the first cell; a series' cells stand at the same offset in every bank.
  static constexpr std::uint32_t first_cell_offset() noexcept { return 2 * cache_line_bytes; }

  template <class Cell>
  Cell& cell(std::uint32_t offset) noexcept {
    return *std::launder(reinterpret_cast<Cell*>(reinterpret_cast<std::byte*>(this) + offset));
  }
  OctaveBlock& octave_block(std::uint32_t block) noexcept { return blocks_[block]; }
  DirectoryBlock& directory_block(std::uint32_t block) noexcept {
    return *std::launder(reinterpret_cast<DirectoryBlock*>(&blocks_[block]));
  }
  ExemplarBlock& exemplar_block(std::uint32_t block) noexcept {
    return *std::launder(reinterpret_cast<ExemplarBlock*>(&blocks_[block]));
  }

  // ---- the producer ----

  void touch(std::uint32_t series) noexcept { touched_[touched_count_++] = series; }

  void add(std::uint32_t offset, std::uint32_t series, double value) noexcept {
    auto& counter = cell<CounterCell>(offset);
    if (counter.count == 0) [[unlikely]]
      touch(series);
    counter.sum += value;
    counter.count += 1;
  }

  // A value between the extremes so far is like one that was looked at before: NaN, infinity, what
  // CloudWatch does not take, a new extreme and a cell's first value all go the slow way.

  /// Sets a gauge to a value between its extremes. False: it is not, and nothing is done.
  bool try_set(std::uint32_t offset, double value, std::uint64_t ticks) noexcept {
    auto& gauge = cell<GaugeCell>(offset);
    // A fresh cell is zero: its count says that 0 is no extreme of it.
    if (!(value >= gauge.minimum && value <= gauge.maximum) || gauge.count == 0) [[unlikely]]
      return false;
    set_plainly(gauge, value, ticks);
    return true;
  }
  /// The same for any value. False: it is none that CloudWatch takes, and was left out.
  bool set(std::uint32_t offset, std::uint32_t series, double value, std::uint64_t ticks) noexcept {
    value = without_tiny(value);
    auto& gauge = cell<GaugeCell>(offset);
    if (!widen(gauge, series, value)) return false;
    set_plainly(gauge, value, ticks);
    return true;
  }

  /// Records a value between the extremes of a histogram, in an octave with counts. False: it is not,
  /// and nothing is done.
  bool try_record(std::uint32_t offset, double value) noexcept {
    auto& histogram = cell<HistogramCell>(offset);
    const std::uint64_t bits = std::bit_cast<std::uint64_t>(value);
    const std::uint64_t octave = (bits >> 52) - direct_octave_first;
    if (octave >= direct_octaves) [[unlikely]]
      return false;
    const std::uint32_t block = histogram.block_of_octave[octave];
    if (block == 0 || !(value >= histogram.minimum && value <= histogram.maximum)) [[unlikely]]
      return false;
    ++octave_block(block)[bits >> bucket_shift & (buckets_per_octave - 1)];
    histogram.sum.add(value, histogram.count);
    asm("" : "+m"(histogram.sum));
    histogram.count += 1;
    return true;
  }
  /// The same for any value.
  Recorded record(std::uint32_t offset, std::uint32_t series, double value) noexcept;
  /// Keeps the trace of a value that this bank recorded as_highest; not when blocks have run out.
  void add_exemplar(std::uint32_t offset, const ExemplarRecord& exemplar) noexcept;

  // ---- the flusher, while it owns the bank ----

  std::uint32_t touched_count() const noexcept { return touched_count_; }
  std::uint32_t touched(std::uint32_t i) const noexcept { return touched_[i]; }
  /// Gives the blocks and the touched list back. The caller has zeroed the cells of every touched
  /// series.
  void clear() noexcept;

 private:
  Bank() = default;
  // Makes the extremes of a cell, be it new, those with the value. False: not a valid value.
  template <class Cell>
  bool widen(Cell& cell, std::uint32_t series, double value) noexcept;
  static void set_plainly(GaugeCell& gauge, double value, std::uint64_t ticks) noexcept {
    gauge.last = value;
    gauge.ticks = ticks;
    gauge.sum.add(value, gauge.count);
    asm("" : "+m"(gauge.sum));
    gauge.count += 1;
  }
  // The block of counts that holds `bucket`, or 0 when blocks ran out.
  std::uint32_t find_block(HistogramCell& histogram, std::uint32_t bucket) noexcept;
  bool ensure_block(std::uint16_t& slot) noexcept;

  std::uint32_t touched_count_ = 0;
  std::uint32_t blocks_used_ = 0;
  std::uint32_t block_max_ = 0;
  std::uint32_t* touched_ = nullptr;
  OctaveBlock* blocks_ = nullptr;
};
static_assert(sizeof(Bank) <= Bank::first_cell_offset());

}  // namespace spillway::detail
