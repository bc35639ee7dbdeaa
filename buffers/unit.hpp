// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace spillway {

/// The units of CloudWatch, all 27, in the order of the PutMetricData model (MetricDatum.Unit, read
/// 2026-08-07). There is no nanosecond: scale to microseconds. Different units of one name are
/// different series.
enum class Unit : std::uint8_t {
  seconds,
  microseconds,
  milliseconds,
  bytes,
  kilobytes,
  megabytes,
  gigabytes,
  terabytes,
  bits,
  kilobits,
  megabits,
  gigabits,
  terabits,
  percent,
  count,
  bytes_per_second,
  kilobytes_per_second,
  megabytes_per_second,
  gigabytes_per_second,
  terabytes_per_second,
  bits_per_second,
  kilobits_per_second,
  megabits_per_second,
  gigabits_per_second,
  terabits_per_second,
  count_per_second,
  none,
};

inline constexpr std::size_t unit_count = 27;

/// The name on the wire, as in "Bytes/Second".
constexpr std::string_view to_string(Unit unit) noexcept {
  constexpr std::array<std::string_view, unit_count> names{"Seconds",
                                                           "Microseconds",
                                                           "Milliseconds",
                                                           "Bytes",
                                                           "Kilobytes",
                                                           "Megabytes",
                                                           "Gigabytes",
                                                           "Terabytes",
                                                           "Bits",
                                                           "Kilobits",
                                                           "Megabits",
                                                           "Gigabits",
                                                           "Terabits",
                                                           "Percent",
                                                           "Count",
                                                           "Bytes/Second",
                                                           "Kilobytes/Second",
                                                           "Megabytes/Second",
                                                           "Gigabytes/Second",
                                                           "Terabytes/Second",
                                                           "Bits/Second",
                                                           "Kilobits/Second",
                                                           "Megabits/Second",
                                                           "Gigabits/Second",
                                                           "Terabits/Second",
                                                           "Count/Second",
                                                           "None"};
  return names[static_cast<std::size_t>(unit)];
}

}  // namespace spillway
