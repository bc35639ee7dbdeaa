// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <spillway/engine/batcher.hpp>

namespace spillway::detail {

Batcher::Batcher(const Exporter& exporter, Outbox& outbox, Ledger& ledger)
    : exporter_(exporter), outbox_(outbox), ledger_(ledger), payload_(outbox.take_empty()) {}

Payload& Batcher::open() { return *payload_; }

void Batcher::appended(SteadyTime now) {
  if (fitting_items_ == 0 && !payload_->items.empty()) oldest_ = now;
  const BatchLimits& limits = exporter_.limits();
  while (fitting_items_ < payload_->items.size()) {
    const PayloadItem& item = payload_->items[fitting_items_];
    const std::size_t bytes = item.bytes + limits.overhead_bytes;
    if (bytes > limits.bytes_max) {
      // Encoders keep below the limits; what comes out larger all the same must not take its
      // neighbours down.
      ledger_.drop_in_batch(exporter_.signal(), DropCause::too_large, item.records);
      payload_->items.erase(payload_->items.begin() + static_cast<std::ptrdiff_t>(fitting_items_));
      continue;
    }
    const bool first = fitting_items_ == 0;
    const std::int64_t earliest = first ? item.time_ms : std::min(earliest_ms_, item.time_ms);
    const std::int64_t latest = first ? item.time_ms : std::max(latest_ms_, item.time_ms);
    const bool fits = fitting_items_ < limits.items_max &&
                      fitting_bytes_ + bytes <= limits.bytes_max &&
                      (limits.span_ms_max == 0 || latest - earliest <= limits.span_ms_max);
    if (!fits) {
      split_off(fitting_items_);
      oldest_ = now;
      continue;
    }
    ++fitting_items_;
    fitting_bytes_ += bytes;
    earliest_ms_ = earliest;
    latest_ms_ = latest;
  }
}

void Batcher::split_off(std::size_t item) {
  std::unique_ptr<Payload> rest = outbox_.take_empty();
  const auto begin = payload_->items.begin() + static_cast<std::ptrdiff_t>(item);
  for (auto at = begin; at != payload_->items.end(); ++at) {
    const std::size_t offset = rest->bytes.size();
    rest->bytes.append(payload_->item(*at));
    rest->end_item(offset, at->records, at->time_ms, at->id);
  }
  payload_->bytes.truncate(begin->offset);
  payload_->items.erase(begin, payload_->items.end());
  seal();
  payload_ = std::move(rest);
}

void Batcher::seal_if_due(SteadyTime now) {
  if (fitting_items_ != 0 && now - oldest_ >= exporter_.limits().delay_max) seal();
}

void Batcher::seal() {
  if (payload_->items.empty()) return;
  const Signal signal = exporter_.signal();
  const std::uint64_t records = payload_->records();
  payload_->signal = signal;
  // Counted first: the sender may be done with it before send() returns.
  ledger_.of(signal).sealed.fetch_add(records, std::memory_order_relaxed);
  if (outbox_.send(payload_)) {
    payload_ = outbox_.take_empty();
  } else {
    ledger_.drop_in_queue(signal, DropCause::queue_full, records);
    payload_->clear();
  }
  fitting_items_ = 0;
  fitting_bytes_ = 0;
}

}  // namespace spillway::detail
