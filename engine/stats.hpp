// SPDX-License-Identifier: Apache-2.0
//
// The ledger: where every record is. For each signal, whenever nothing is in motion and at exit:
//
//   recorded = delivered + dropped[by cause] + held
//
// While the engine runs, what is held in a batch or in the queue is what went in and has not come out.
// After shutdown() nothing can be there any more, so that a record that was forgotten on its way
// shows as the residue.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace spillway {

/// Why a record was lost.
enum class DropCause : std::uint8_t {
  ring_full,          ///< the thread's ring had no room: the flusher was behind
  queue_full,         ///< too many bytes waited for delivery
  too_large,          ///< larger than the wire allows, and not to be cut
  invalid,            ///< NaN, infinite, out of range, or of a metric with a bad name or dimension
  expired,            ///< older than the service takes or than spool_age, or too far ahead
  rejected,           ///< refused by the service, alone or with its request
  unauthorised,       ///< credentials missing, wrong, or without permission
  retries_exhausted,  ///< failed while others were taken, or more often than attempts_max allows
  shutdown_deadline,  ///< still on its way when shutdown() had to return
  closed,             ///< recorded after the engine had shut down
  no_memory,          ///< there was none for the thread's ring, or for the record on its way
  series_limit,       ///< of a metric with more series than series_max left room for
  spool_full,         ///< the oldest in a spool that had reached spool_bytes
  spool_damaged,      ///< its file in the spool was damaged or gone
  rate_limited,       ///< a log beyond log_rate_max of its call site
  not_retained,       ///< a log below the level, of a request that nobody will look at
  no_destination      ///< left by a process that died, of a signal that goes nowhere now
};
inline constexpr std::size_t drop_cause_count = 17;
std::string_view to_string(DropCause cause) noexcept;

/// What sending cost.
struct DeliveryStats {
  std::uint64_t requests = 0;  ///< attempts, retries included
  std::uint64_t retries = 0;
  std::uint64_t throttles = 0;          ///< answers that asked to slow down
  std::uint64_t failures = 0;           ///< attempts without a usable answer
  std::uint64_t bytes = 0;              ///< of bodies, as sent
  std::uint64_t uncertain_records = 0;  ///< sent again after a lost answer: may be there twice

  DeliveryStats& operator+=(const DeliveryStats& other) noexcept;
};

/// One signal's account, in records: measurements, log records, spans.
struct SignalStats {
  std::uint64_t recorded = 0;  ///< accepted from callers, whatever became of it
  std::uint64_t delivered =
      0;  ///< acknowledged by the service; for UDP, files and stdout: taken by the kernel
  std::array<std::uint64_t, drop_cause_count> dropped{};
  std::uint64_t held_in_rings = 0;  ///< not yet drained
  std::uint64_t held_in_batch = 0;  ///< drained, not yet sealed into a payload
  std::uint64_t held_in_queue = 0;  ///< sealed, waiting or under way
  /// The same, on disk, in the spool or in what a process that died has left: there after the end of
  /// the process too.
  std::uint64_t held_in_spool = 0;
  std::uint64_t recovered = 0;  ///< of `recorded`: left by an earlier process
  std::string destination;      ///< "put-log-events"; empty: it goes nowhere
  DeliveryStats delivery;       ///< of that destination

  std::uint64_t dropped_for(DropCause cause) const noexcept {
    return dropped[static_cast<std::size_t>(cause)];
  }
  std::uint64_t dropped_total() const noexcept;
  std::uint64_t held() const noexcept {
    return held_in_rings + held_in_batch + held_in_queue + held_in_spool;
  }
  /// What the account does not explain: 0 when nothing is in motion, and above all at the end.
  std::int64_t residue() const noexcept;
};

/// A metric that has reached series_per_metric_max. Its measurements are all there; those of new
/// series are reported with the value "__other__".
struct FoldedMetric {
  std::string metric;
  std::string dimension;               ///< the one with the most values
  std::uint64_t dimension_values = 0;  ///< that have series of their own
  std::uint64_t measurements = 0;      ///< reported as "__other__" so far
  /// Of that dimension, up to five values that were recorded most, and how often.
  std::vector<std::pair<std::string, std::uint64_t>> top_values;
};

struct Stats {
  SignalStats metrics;
  SignalStats logs;
  SignalStats spans;
  DeliveryStats delivery;            ///< of all destinations
  std::uint64_t samples_folded = 0;  ///< timed samples that met a full ring and went into cells
  std::uint64_t measurements_unbucketed =
      0;  ///< kept in count, sum and extremes, but not in their bucket
  /// Requests whose trace headers were not legal, and were as if they were not there.
  std::uint64_t trace_headers_refused = 0;
  std::uint32_t lanes = 0;  ///< threads that recorded at the same time, at most
  std::uint32_t series = 0;
  /// As of the last metric interval.
  std::vector<FoldedMetric> folded_metrics;

  /// One JSON object.
  std::string to_json() const;
  /// A table for people, of some lines: what `ledger_at_exit` prints.
  std::string to_text() const;
};

}  // namespace spillway
