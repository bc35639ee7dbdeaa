// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <charconv>

#include <spillway/middleware/resilience/deadline.hpp>
#include <spillway/transport/text.hpp>

namespace spillway::middleware {
namespace {

struct TimeoutUnit {
  char letter;
  std::int64_t ns;
};
constexpr std::array<TimeoutUnit, 6> units{{{'n', 1},
                                            {'u', 1'000},
                                            {'m', 1'000'000},
                                            {'S', 1'000'000'000},
                                            {'M', 60'000'000'000},
                                            {'H', 3'600'000'000'000}}};
constexpr std::size_t digits_max = 8;
constexpr std::int64_t value_max = 99'999'999;
constexpr std::int64_t longest_ns = std::int64_t{100} * 365 * 24 * 3'600'000'000'000;

}  // namespace

std::optional<std::chrono::nanoseconds> parse_timeout(std::string_view text) noexcept {
  if (text.size() < 2 || text.size() > digits_max + 1) return std::nullopt;
  const auto unit = std::find_if(units.begin(), units.end(),
                                 [&](const TimeoutUnit& one) { return one.letter == text.back(); });
  text.remove_suffix(1);
  if (unit == units.end() || text.find_first_not_of("0123456789") != std::string_view::npos)
    return std::nullopt;
  const std::int64_t value = *transport::parse_number<std::int64_t>(text);
  return std::chrono::nanoseconds(value > longest_ns / unit->ns ? longest_ns : value * unit->ns);
}

TimeoutText::TimeoutText(std::chrono::nanoseconds timeout) noexcept {
  const std::int64_t ns = std::max<std::int64_t>(timeout.count(), 0);
  const auto unit = std::find_if(units.begin(), units.end() - 1,
                                 [&](const TimeoutUnit& one) { return ns / one.ns <= value_max; });
  char* const end = std::to_chars(text_.data(), text_.data() + digits_max, ns / unit->ns).ptr;
  *end = unit->letter;
  bytes_ = static_cast<std::size_t>(end - text_.data()) + 1;
}

std::optional<SteadyTime> lambda_deadline(std::string_view deadline_ms, WallTime wall,
                                          SteadyTime now,
                                          std::chrono::milliseconds margin) noexcept {
  constexpr std::int64_t begin_ms = 946'684'800'000;  // 2000
  constexpr std::int64_t end_ms = 4'102'444'800'000;  // 2100
  const auto at = transport::parse_number<std::int64_t>(deadline_ms);
  if (!at || *at < begin_ms || *at >= end_ms) return std::nullopt;
  const auto wall_ms =
      std::chrono::duration_cast<std::chrono::milliseconds>(wall.time_since_epoch()).count();
  return now + std::chrono::milliseconds(*at - wall_ms) - margin;
}

}  // namespace spillway::middleware
