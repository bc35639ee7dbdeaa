// SPDX-License-Identifier: Apache-2.0
//
// What has been dropped, by signal and cause, and the file `ledger` that says it to the next engine: a
// line for each count that is not 0, and a checksum.
//
//   logs ring_full 12
//   crc 89abcdef
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <spillway/buffers/lane.hpp>
#include <spillway/engine/stats.hpp>

namespace spillway::detail {

struct DropCounts {
  using OfSignal = std::array<std::uint64_t, drop_cause_count>;
  std::array<OfSignal, signal_count> records{};

  OfSignal& of(Signal signal) noexcept { return records[static_cast<std::size_t>(signal)]; }
  const OfSignal& of(Signal signal) const noexcept {
    return records[static_cast<std::size_t>(signal)];
  }
  std::uint64_t total() const noexcept;
  /// What is more than in `others`, by signal and cause.
  DropCounts beyond(const DropCounts& others) const noexcept;
  friend bool operator==(const DropCounts&, const DropCounts&) = default;
};

DropCounts drop_counts_of(const Stats& stats) noexcept;

std::string ledger_file_of(const DropCounts& counts);
/// Nothing: it is none, or damaged. Causes that this version does not know are left out.
std::optional<DropCounts> read_ledger_file(std::string_view text);

}  // namespace spillway::detail
