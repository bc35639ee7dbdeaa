// SPDX-License-Identifier: Apache-2.0
//
// What the flusher hands to the sender: items that were encoded one by one and travel together.
// Each item knows how many records it stands for, so that whatever happens to it is accounted in
// records.
#pragma once

#include <array>
#include <cstdint>
#include <memory_resource>
#include <vector>

#include <spillway/buffers/byte_buffer.hpp>
#include <spillway/buffers/lane.hpp>

namespace spillway::detail {

/// One log event, metric datum, document: a piece of a payload's bytes.
struct PayloadItem {
  std::uint32_t offset;
  std::uint32_t bytes;
  std::uint64_t records;  ///< measurements, log records or spans in it
  std::int64_t time_ms;   ///< wall clock, of a log event
  std::uint64_t id;       ///< of a segment document; of a log event, its ticks
};

inline constexpr std::array<Signal, signal_count> all_signals{Signal::metrics, Signal::logs,
                                                              Signal::spans};

/// Of each signal, the number of a payload: they count from 1 in the order of sealing. 0: none.
using Sequences = std::array<std::uint64_t, signal_count>;

struct Payload {
  explicit Payload(std::pmr::memory_resource* memory) : bytes(memory), items(memory) {}

  ByteBuffer bytes;
  std::pmr::vector<PayloadItem> items;
  Signal signal = Signal::metrics;
  std::uint64_t sequence = 0;     ///< of its signal's, in the order of sealing
  std::size_t charged_bytes = 0;  ///< of the outbox's budget
  /// Of a process that died: the files that it left hold these records until they are settled.
  bool recovered = false;

  std::string_view item(const PayloadItem& which) const noexcept {
    return bytes.view(which.offset, which.bytes);
  }
  /// Ends the item that begins at `offset` and reaches to the end of the bytes.
  void end_item(std::size_t offset, std::uint64_t records, std::int64_t time_ms = 0,
                std::uint64_t id = 0) {
    items.push_back({static_cast<std::uint32_t>(offset),
                     static_cast<std::uint32_t>(bytes.size() - offset), records, time_ms, id});
  }
  std::uint64_t records() const noexcept {
    std::uint64_t sum = 0;
    for (const PayloadItem& one : items) sum += one.records;
    return sum;
  }
  void clear() noexcept {
    bytes.clear();
    items.clear();
  }
};

}  // namespace spillway::detail
