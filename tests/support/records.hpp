// SPDX-License-Identifier: Apache-2.0
//
// Drained records as the flusher hands them to the encoders, made by hand.
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <deque>
#include <list>
#include <memory_resource>
#include <numeric>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <spillway/buffers/batch.hpp>
#include <spillway/buffers/payload.hpp>

namespace spillway::testing {

/// 2026-11-21T01:00:00.123Z.
inline constexpr std::int64_t test_time_ms = 1'795'222'800'123;

inline detail::Payload make_payload() { return detail::Payload(std::pmr::get_default_resource()); }

/// The items of a payload as texts.
inline std::vector<std::string> items_of(const detail::Payload& payload) {
  std::vector<std::string> items;
  for (const detail::PayloadItem& item : payload.items) items.emplace_back(payload.item(item));
  return items;
}

/// Points of series that it owns.
class Points {
 public:
  Points() = default;
  explicit Points(Dimensions dimensions) : dimensions_(std::move(dimensions)) {}

  void counter(std::string name, double sum, std::uint64_t count = 1, Unit unit = Unit::count,
               Resolution resolution = Resolution::minute) {
    const auto kind = detail::MetricKind::counter;
    points.push_back({series(kind, std::move(name), unit, resolution),
                      test_time_ms,
                      count,
                      sum,
                      sum,
                      sum,
                      0,
                      {}});
  }
  void gauge(std::string name, double minimum, double maximum, double last, double sum,
             std::uint64_t count) {
    const auto kind = detail::MetricKind::gauge;
    points.push_back({series(kind, std::move(name), Unit::percent, Resolution::minute),
                      test_time_ms,
                      count,
                      sum,
                      minimum,
                      maximum,
                      last,
                      {}});
  }
  /// `values` rise.
  void histogram(std::string name, std::vector<detail::ValueCount> values,
                 Unit unit = Unit::microseconds, Resolution resolution = Resolution::minute) {
    values_.push_back(std::move(values));
    const auto& all = values_.back();
    double count = 0;
    double sum = 0;
    for (const detail::ValueCount& one : all) {
      count += one.count;
      sum += one.value * one.count;
    }
    const auto kind = detail::MetricKind::histogram;
    points.push_back({series(kind, std::move(name), unit, resolution), test_time_ms,
                      static_cast<std::uint64_t>(count), sum, all.front().value, all.back().value,
                      0, all});
  }

  std::vector<detail::MetricPoint> points;

 private:
  const detail::Series* series(detail::MetricKind kind, std::string name, Unit unit,
                               Resolution resolution) {
    series_.push_back({{kind, unit, resolution, std::move(name), dimensions_}, 0, 0});
    series_.back().has_plain_texts = detail::is_plain(series_.back().key);
    return &series_.back();
  }

  Dimensions dimensions_;
  std::deque<detail::Series> series_;
  std::deque<std::vector<detail::ValueCount>> values_;
};

/// `count` values 1, 2, 3... each recorded `each` times.
inline std::vector<detail::ValueCount> rising_values(std::size_t count, double each = 1) {
  std::vector<detail::ValueCount> values;
  for (std::size_t i = 1; i <= count; ++i) values.push_back({static_cast<double>(i), each});
  return values;
}

/// Values packed as record.hpp says.
class Packed {
 public:
  Packed& number(std::uint64_t value) { return append(&value, sizeof value); }
  Packed& number(std::int64_t value) { return number(static_cast<std::uint64_t>(value)); }
  Packed& number(double value) { return number(std::bit_cast<std::uint64_t>(value)); }
  Packed& boolean(bool value) {
    const auto byte = static_cast<std::uint8_t>(value);
    return append(&byte, 1);
  }
  Packed& string(std::string_view text) {
    const auto size = static_cast<std::uint32_t>(text.size());
    append(&size, sizeof size);
    return append(text.data(), text.size());
  }
  Packed& entry(std::uint32_t name, detail::EntryClass entry_class, detail::ValueType type) {
    const std::uint32_t header = detail::EntryHeader::pack(name, entry_class, type);
    return append(&header, sizeof header);
  }
  std::span<const std::byte> bytes() const { return bytes_; }
  void cut(std::size_t size) { bytes_.resize(size); }

 private:
  Packed& append(const void* from, std::size_t size) {
    const auto* const begin = static_cast<const std::byte*>(from);
    bytes_.insert(bytes_.end(), begin, begin + size);
    return *this;
  }
  std::vector<std::byte> bytes_;
};

}  // namespace spillway::testing
