// SPDX-License-Identifier: Apache-2.0
//
// Drained records as the encoders take them: views into memory of the flusher, valid during the
// call.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include <spillway/buffers/names.hpp>
#include <spillway/buffers/record.hpp>
#include <spillway/buffers/series.hpp>

namespace spillway::detail {

/// A value and how often it was recorded.
struct ValueCount {
  double value;
  double count;
};

/// A measurement of a histogram and the trace that it was made in.
struct Exemplar {
  double value;
  std::int64_t time_ns;  ///< wall clock
  TraceId trace_id;
  std::uint64_t span_id;  ///< 0: none
};
inline constexpr std::size_t exemplars_per_point_max = 4;

/// What one series amounts to over one interval.
struct MetricPoint {
  const Series* series;
  std::int64_t time_ms;  ///< wall clock, beginning of the interval
  std::uint64_t count;   ///< measurements
  double sum;
  double minimum;
  double maximum;
  double last;  ///< of a gauge
  /// Of a histogram: values in rising order whose counts add up to `count`, whose weighted sum is
  /// `sum` and whose extremes are `minimum` and `maximum`.
  std::span<const ValueCount> values;
  /// Measurements that other points of the interval carry too, and that the account counts there.
  std::uint64_t counted_elsewhere = 0;
  /// Of a histogram, the highest first; at most exemplars_per_point_max.
  std::span<const Exemplar> exemplars{};

  /// What the account counts with one piece of the point that holds `count_of_piece` of its
  /// measurements.
  std::uint64_t records_of_piece(std::uint64_t count_of_piece, bool is_first) const noexcept {
    if (counted_elsewhere == 0) return count_of_piece;
    return is_first ? count - counted_elsewhere : 0;
  }
};

/// On whose behalf a record was made.
struct ContextTexts {
  std::string_view tenant;
  std::string_view user;
  std::string_view request_id;
  TraceId trace_id;
  std::string_view trace_state{};  ///< W3C's tracestate
  std::uint8_t trace_flags = 0;    ///< W3C's: trace_flag_sampled
};

struct LogView {
  const SiteInfo* site;
  std::int64_t time_ns;   ///< wall clock
  std::uint64_t span_id;  ///< 0: none
  const ContextTexts* context;
  std::span<const std::byte> values;  ///< packed as record.hpp says
};

/// A finished span and the finished spans below it that travel in its document.
struct SpanView {
  std::string_view name;
  std::int64_t start_ns;  ///< wall clock
  std::int64_t end_ns;
  SpanBody body;
  std::span<const std::byte> entries;  ///< packed as record.hpp says
};

/// Reads packed values one after the other. A value that would reach past the end reads as absent:
/// a record that was damaged cannot lead outside its bytes.
class ValueReader {
 public:
  explicit ValueReader(std::span<const std::byte> bytes) noexcept : rest_(bytes) {}

  bool empty() const noexcept { return rest_.empty(); }
  /// What was not read yet.
  std::span<const std::byte> rest() const noexcept { return rest_; }
  std::uint64_t number() noexcept { return take<std::uint64_t>(); }
  bool boolean() noexcept { return take<std::uint8_t>() != 0; }
  EntryHeader entry() noexcept { return {take<std::uint32_t>()}; }
  std::string_view string() noexcept {
    const std::size_t size = take<std::uint32_t>();
    const std::size_t bytes = size < rest_.size() ? size : rest_.size();
    const std::string_view text(reinterpret_cast<const char*>(rest_.data()), bytes);
    rest_ = rest_.subspan(bytes);
    return text;
  }

 private:
  template <class T>
  T take() noexcept {
    T value{};
    if (rest_.size() < sizeof value) {
      rest_ = {};
      return value;
    }
    std::memcpy(&value, rest_.data(), sizeof value);
    rest_ = rest_.subspan(sizeof value);
    return value;
  }
  std::span<const std::byte> rest_;
};

}  // namespace spillway::detail
