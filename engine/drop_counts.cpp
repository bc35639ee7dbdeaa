// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cstdio>

#include <zlib.h>

#include <spillway/engine/drop_counts.hpp>
#include <spillway/engine/spool_file.hpp>
#include <spillway/transport/text.hpp>

namespace spillway::detail {

namespace {

std::string crc_line_of(std::string_view text) {
  std::array<char, 16> line{};
  const auto crc = crc32_z(0, reinterpret_cast<const Bytef*>(text.data()), text.size());
  std::snprintf(line.data(), line.size(), "crc %08lx\n", static_cast<unsigned long>(crc));
  return line.data();
}

}  // namespace

std::uint64_t DropCounts::total() const noexcept {
  std::uint64_t sum = 0;
  for (const OfSignal& of_signal : records) {
    for (const std::uint64_t count : of_signal) sum += count;
  }
  return sum;
}

DropCounts DropCounts::beyond(const DropCounts& others) const noexcept {
  DropCounts more;
  for (std::size_t signal = 0; signal < signal_count; ++signal) {
    for (std::size_t cause = 0; cause < drop_cause_count; ++cause) {
      const std::uint64_t mine = records[signal][cause];
      const std::uint64_t theirs = others.records[signal][cause];
      more.records[signal][cause] = mine > theirs ? mine - theirs : 0;
    }
  }
  return more;
}

DropCounts drop_counts_of(const Stats& stats) noexcept {
  return {{stats.metrics.dropped, stats.logs.dropped, stats.spans.dropped}};
}

std::string ledger_file_of(const DropCounts& counts) {
  std::string text;
  for (std::size_t signal = 0; signal < signal_count; ++signal) {
    for (std::size_t cause = 0; cause < drop_cause_count; ++cause) {
      const std::uint64_t count = counts.records[signal][cause];
      if (count == 0) continue;
      text.append(signal_name(static_cast<Signal>(signal))).append(" ");
      text.append(to_string(static_cast<DropCause>(cause))).append(" ");
      text.append(std::to_string(count)).append("\n");
    }
  }
  return text + crc_line_of(text);
}

std::optional<DropCounts> read_ledger_file(std::string_view text) {
  const std::size_t crc_at = text.rfind("crc ");
  if (crc_at == std::string_view::npos ||
      text.substr(crc_at) != crc_line_of(text.substr(0, crc_at))) {
    return std::nullopt;
  }
  text = text.substr(0, crc_at);
  DropCounts counts;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    const std::size_t cause_at = line.find(' ') + 1;
    const std::size_t count_at = line.rfind(' ') + 1;
    const auto count = transport::parse_number<std::uint64_t>(line.substr(count_at));
    if (cause_at == 0 || count_at <= cause_at || !count) return std::nullopt;
    for (std::size_t signal = 0; signal < signal_count; ++signal) {
      if (line.substr(0, cause_at - 1) != signal_name(static_cast<Signal>(signal))) continue;
      for (std::size_t cause = 0; cause < drop_cause_count; ++cause) {
        if (line.substr(cause_at, count_at - 1 - cause_at) ==
            to_string(static_cast<DropCause>(cause))) {
          counts.records[signal][cause] = *count;
        }
      }
    }
  }
  return counts;
}

}  // namespace spillway::detail
