// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <new>
#include <utility>

#include <spillway/engine/batcher.hpp>
#include <spillway/engine/private_heap.hpp>

namespace spillway::detail {

Batcher::Batcher(const Exporter& exporter, Outbox& outbox, Ledger& ledger)
    : exporter_(exporter), outbox_(outbox), ledger_(ledger), payload_(outbox.take_empty()) {}

Payload& Batcher::open() {
  if (payload_ == nullptr) payload_ = outbox_.take_empty();
  if (payload_ == nullptr) throw std::bad_alloc();
  opened_items_ = payload_->items.size();
  opened_bytes_ = payload_->bytes.size();
  is_open_ = true;
  return *payload_;
}

void Batcher::cancel() noexcept {
  if (!std::exchange(is_open_, false)) return;
  payload_->items.erase(payload_->items.begin() + static_cast<std::ptrdiff_t>(opened_items_),
                        payload_->items.end());
  payload_->bytes.truncate(opened_bytes_);
}

// Without memory for the next payload what does not fit stays where it is until the next time.
void Batcher::appended(SteadyTime now) noexcept try {
  is_open_ = false;
  if (fitting_items_ == 0 && !payload_->items.empty()) oldest_ = now;
  while (fitting_items_ < payload_->items.size()) {
    const PayloadItem& item = payload_->items[fitting_items_];
    if (item.bytes + exporter_.limits().overhead_bytes > exporter_.limits().bytes_max) {
      drop_too_large(item);
      payload_->items.erase(payload_->items.begin() + static_cast<std::ptrdiff_t>(fitting_items_));
    } else if (fits(item)) {
      count_in(item);
    } else {
      return move_on(now);
    }
  }
} catch (const std::bad_alloc&) {
}

bool Batcher::fits(const PayloadItem& item) const {
  const BatchLimits& limits = exporter_.limits();
  if (fitting_items_ == 0) return true;
  return fitting_items_ < limits.items_max &&
         fitting_bytes_ + item.bytes + limits.overhead_bytes <= limits.bytes_max &&
         (limits.span_ms_max == 0 ||
          std::max(latest_ms_, item.time_ms) - std::min(earliest_ms_, item.time_ms) <=
              limits.span_ms_max);
}

void Batcher::count_in(const PayloadItem& item) {
  const bool first = fitting_items_ == 0;
  earliest_ms_ = first ? item.time_ms : std::min(earliest_ms_, item.time_ms);
  latest_ms_ = first ? item.time_ms : std::max(latest_ms_, item.time_ms);
  ++fitting_items_;
  fitting_bytes_ += item.bytes + exporter_.limits().overhead_bytes;
}

void Batcher::drop_too_large(const PayloadItem& item) {
  // Encoders keep below the limits; what comes out larger all the same must not take its
  // neighbours down.
  ledger_.drop_in_batch(exporter_.signal(), DropCause::too_large, item.records);
}

// Each byte moves twice at most, however many payloads the rest fills: a segment with very many
// spans fills thousands.
void Batcher::move_on(SteadyTime now) {
  const auto begin = payload_->items.begin() + static_cast<std::ptrdiff_t>(fitting_items_);
  const std::size_t cut = begin->offset;
  Payload rest(private_heap());
  rest.bytes.append(payload_->bytes.view(cut, payload_->bytes.size() - cut));
  rest.items.assign(begin, payload_->items.end());
  payload_->items.erase(begin, payload_->items.end());
  payload_->bytes.truncate(cut);
  seal();
  for (const PayloadItem& item : rest.items) {
    if (item.bytes + exporter_.limits().overhead_bytes > exporter_.limits().bytes_max) {
      drop_too_large(item);
      continue;
    }
    if (!fits(item)) seal();
    try {
      Payload& next = open();
      next.bytes.append(rest.bytes.view(item.offset - cut, item.bytes));
      next.end_item(opened_bytes_, item.records, item.time_ms, item.id);
      count_in(item);
      is_open_ = false;
    } catch (const std::bad_alloc&) {
      cancel();
      ledger_.drop_in_batch(exporter_.signal(), DropCause::no_memory, item.records);
    }
  }
  oldest_ = now;
}

void Batcher::seal_if_due(SteadyTime now) noexcept {
  if (fitting_items_ != 0 && now - oldest_ >= exporter_.limits().delay_max) seal();
}

void Batcher::seal() noexcept {
  if (payload_ == nullptr || payload_->items.empty()) return;
  const Signal signal = exporter_.signal();
  const std::uint64_t records = payload_->records();
  payload_->signal = signal;
  payload_->recovered = recovered_;
  // Counted first: the sender may be done with it before send() returns.
  ledger_.of(signal).sealed.fetch_add(records, std::memory_order_relaxed);
  if (outbox_.send(payload_)) {
    if (payload_ == nullptr) payload_ = outbox_.take_empty();
  } else {
    ledger_.drop_in_queue(signal, DropCause::queue_full, records);
    payload_->clear();
  }
  fitting_items_ = 0;
  fitting_bytes_ = 0;
  ++seals_;
}

}  // namespace spillway::detail
