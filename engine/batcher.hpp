// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <memory>

#include <spillway/engine/clock.hpp>
#include <spillway/engine/exporter.hpp>
#include <spillway/engine/ledger.hpp>
#include <spillway/engine/outbox.hpp>

namespace spillway::detail {

/// Collects encoded items of one signal into payloads that keep their exporter's limits, and sends
/// each when it is full or old. Flusher only.
class Batcher {
 public:
  /// All outlive it.
  Batcher(const Exporter& exporter, Outbox& outbox, Ledger& ledger);

  /// The payload to append items to. Every append is followed by appended() or, when it broke off for
  /// lack of memory, by cancel(). Throws std::bad_alloc.
  Payload& open();
  /// Looks at the items that were appended since open(): what is too much for the payload goes into
  /// the next one.
  void appended(SteadyTime now) noexcept;
  /// Takes away what was appended since open(); nothing, when it was not open.
  void cancel() noexcept;

  /// Sends what there is when its oldest item has waited long enough.
  void seal_if_due(SteadyTime now) noexcept;
  /// Sends what there is.
  void seal() noexcept;
  /// Whether what is appended from here on is of a process that died. Only while it is empty.
  void set_recovered(bool recovered) noexcept { recovered_ = recovered; }
  /// Payloads sealed so far, sent or dropped.
  std::uint64_t seals() const noexcept { return seals_; }
  bool empty() const noexcept { return payload_ == nullptr || payload_->items.empty(); }

 private:
  /// Whether the item may go behind those that are known to fit.
  bool fits(const PayloadItem& item) const;
  void count_in(const PayloadItem& item);
  void drop_too_large(const PayloadItem& item);
  /// Seals the items that fit, and goes on with those behind them.
  void move_on(SteadyTime now);

  const Exporter& exporter_;
  Outbox& outbox_;
  Ledger& ledger_;
  std::unique_ptr<Payload> payload_;  // null: there was no memory for one
  bool is_open_ = false;
  // What there was at open().
  std::size_t opened_items_ = 0;
  std::size_t opened_bytes_ = 0;
  SteadyTime oldest_{};
  std::uint64_t seals_ = 0;
  bool recovered_ = false;
  // Sums over the items that are known to fit.
  std::size_t fitting_items_ = 0;
  std::size_t fitting_bytes_ = 0;
  std::int64_t earliest_ms_ = 0;
  std::int64_t latest_ms_ = 0;
};

}  // namespace spillway::detail
