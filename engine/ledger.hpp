// SPDX-License-Identifier: Apache-2.0
//
// The counters behind Stats that the flusher and the sender write. What producers count is in their
// lanes.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include <spillway/buffers/lane.hpp>
#include <spillway/engine/delivery_health.hpp>
#include <spillway/engine/stats.hpp>

namespace spillway::detail {

/// What sending to one destination cost. The sender writes.
struct DeliveryLedger {
  std::atomic<std::uint64_t> requests{0};
  std::atomic<std::uint64_t> retries{0};
  std::atomic<std::uint64_t> throttles{0};
  std::atomic<std::uint64_t> failures{0};
  std::atomic<std::uint64_t> bytes{0};
  std::atomic<std::uint64_t> uncertain_records{0};

  DeliveryStats read() const noexcept;
};

/// One signal's way through flusher and sender, in records. Each counter only grows; who writes it
/// is on the right. In a batch: drained + adopted - sealed - dropped by the flusher. In the queue:
/// sealed - delivered - dropped by the sender.
struct SignalLedger {
  std::atomic<std::uint64_t> drained{0};    // flusher: taken from rings and cells
  std::atomic<std::uint64_t> adopted{0};    // sender: taken from the spool of a process before
  std::atomic<std::uint64_t> sealed{0};     // flusher: handed to the sender
  std::atomic<std::uint64_t> delivered{0};  // sender
  std::atomic<std::uint64_t> recovered{0};  // both: of these, what is of a process before
  std::atomic<std::uint64_t> spooled{0};    // sender: on disk now; does not only grow
  std::array<std::atomic<std::uint64_t>, drop_cause_count> dropped_in_batch{};  // flusher
  std::array<std::atomic<std::uint64_t>, drop_cause_count> dropped_in_queue{};  // sender
  /// flusher: what processes that died had dropped, and had not published
  std::array<std::atomic<std::uint64_t>, drop_cause_count> carried{};
  DeliveryLedger delivery;
  DeliveryHealth health;

  /// Flusher, which alone writes it: an addition that waits for no other core.
  void add_drained(std::uint64_t records) noexcept {
    drained.store(drained.load(std::memory_order_relaxed) + records, std::memory_order_relaxed);
  }
  /// All that there was to account for. Any thread.
  std::uint64_t taken() const noexcept {
    return drained.load(std::memory_order_relaxed) + adopted.load(std::memory_order_relaxed);
  }
  /// Records that delivery has lost.
  std::uint64_t lost() const noexcept;
};

struct Ledger {
  std::array<SignalLedger, signal_count> signals;
  std::atomic<std::uint64_t> measurements_unbucketed{0};
  std::atomic<std::uint64_t> samples_drained{0};
  /// By signal: records of a process that died were dropped for what may pass, and its files have to
  /// stay.
  std::array<std::atomic<bool>, signal_count> recovered_dropped{};

  SignalLedger& of(Signal signal) noexcept { return signals[static_cast<std::size_t>(signal)]; }
  void keep_recovered(Signal signal) noexcept {
    recovered_dropped[static_cast<std::size_t>(signal)].store(true, std::memory_order_relaxed);
  }
  void drop_in_batch(Signal signal, DropCause cause, std::uint64_t records) noexcept {
    of(signal).dropped_in_batch[static_cast<std::size_t>(cause)].fetch_add(
        records, std::memory_order_relaxed);
  }
  void drop_in_queue(Signal signal, DropCause cause, std::uint64_t records) noexcept {
    of(signal).dropped_in_queue[static_cast<std::size_t>(cause)].fetch_add(
        records, std::memory_order_relaxed);
  }
};

}  // namespace spillway::detail
