// SPDX-License-Identifier: Apache-2.0
//
// The file `metrics` of crash_dir: what measurements amounted to when it was written last. The flusher
// writes it anew each time, and puts it in place of the old one by a rename, so that the process may
// die anywhere. In it are
//
//   - how far the ring of each lane had been read: the samples and aggregated events before there are
//     in the points, and those behind are still in the ring;
//   - the series of the intervals that are not over, as they stand, before they are summed into those
//     of fewer dimensions;
//   - the points of the intervals before, with the payload that settles each.
//
//   CrashMetricsHead | position of each lane (8 bytes) | CrashPoint and its ValueCounts, each
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <spillway/buffers/batch.hpp>
#include <spillway/buffers/payload.hpp>
#include <spillway/transport/disk.hpp>

namespace spillway::detail {

struct CrashMetricsHead {
  static constexpr char expected_magic[8] = {'S', 'P', 'L', 'M', 'E', 'T', 'R', 'C'};
  char magic[8];
  std::uint64_t lanes;
};
static_assert(sizeof(CrashMetricsHead) == 16);

struct CrashPoint {
  std::uint32_t series;  ///< by the file `names`
  std::uint32_t values;  ///< ValueCounts behind it
  std::int64_t time_ms;
  std::int64_t end_ms;     ///< of its interval; of one that is not over, when this was written
  std::uint64_t sequence;  ///< of the payload that settles it; 0: its interval is not over
  std::uint64_t count;
  std::uint64_t records;  ///< of `count`, those that the account counts here
  double sum;
  double minimum;
  double maximum;
  double last;
  std::uint64_t crc;  ///< CRC-32 of all of the above and of the values
};
static_assert(sizeof(CrashPoint) == 88 && std::is_trivially_copyable_v<CrashPoint> &&
              sizeof(ValueCount) == 16 && std::is_trivially_copyable_v<ValueCount>);

/// Writes the file. Flusher only.
class CrashMetricsWriter {
 public:
  /// What it may be large. Points beyond it are in memory only, the oldest first.
  static constexpr std::size_t bytes_max = 64U << 20;

  /// A point that has been appended to a payload, be it sealed or not.
  void add_closed(const MetricPoint& point, std::int64_t end_ms, std::uint64_t sequence);
  /// Leaves out the points of payloads that are settled.
  void forget(const std::function<bool(std::uint64_t)>& settled);

  /// Begins the file.
  void begin(std::span<const std::uint64_t> positions);
  /// A series of an interval that is not over. Of its values the bounds of buckets will do.
  void add_open(const MetricPoint& point, std::int64_t end_ms);
  /// Puts the file in place. Nothing, or an errno with a minus sign: then there is none any more, and
  /// what was in it is in memory only.
  std::optional<int> finish(transport::Disk& disk, transport::Disk::Handle box);
  /// Points that were left out since this was asked last.
  std::uint64_t take_left_out() noexcept { return std::exchange(left_out_, 0); }

 private:
  struct Closed {
    std::uint64_t sequence = 0;
    std::uint64_t points = 0;
    std::string bytes;
  };
  std::deque<Closed> closed_;
  std::size_t closed_bytes_ = 0;
  std::string text_;
  std::uint64_t left_out_ = 0;
};

/// Reads the file point by point; what is out of its bounds ends it.
class CrashMetricsReader {
 public:
  struct Point {
    CrashPoint head{};
    std::vector<ValueCount> values;
  };
  CrashMetricsReader() = default;
  /// Takes the bytes of a file. It is empty when they are none.
  explicit CrashMetricsReader(std::string bytes);

  /// How far the ring of a lane had been read; 0 when that is not said.
  std::uint64_t position_of(std::uint64_t lane) const noexcept;
  /// The next one, valid until the next call. Null: there are no more. Throws std::bad_alloc, and
  /// begins with the same one again.
  const Point* next();
  /// Bytes that are no points.
  std::uint64_t unreadable_bytes() const noexcept { return unreadable_bytes_; }

 private:
  std::string bytes_;
  std::uint64_t lanes_ = 0;
  std::size_t at_ = 0;
  std::uint64_t unreadable_bytes_ = 0;
  Point point_;
};

}  // namespace spillway::detail
