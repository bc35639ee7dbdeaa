// SPDX-License-Identifier: Apache-2.0
#include <new>

#include <boost/lockfree/spsc_queue.hpp>

#include <spillway/engine/outbox.hpp>
#include <spillway/engine/private_heap.hpp>

namespace spillway::detail {
namespace {

constexpr std::size_t queue_payloads_max = 4096;
// Empty ones are beside the budget: four megabytes.
constexpr std::size_t empty_payloads_max = 4;
// A payload that has grown beyond this is freed instead of being used again.
constexpr std::size_t kept_bytes_max = 1U << 20;
// A payload with more memory than twice what is in it and this goes as a copy.
constexpr std::size_t slack_bytes_max = 4096;

std::size_t memory_of(const Payload& payload) noexcept {
  return sizeof payload + payload.bytes.capacity() + payload.items.capacity() * sizeof(PayloadItem);
}
std::size_t content_of(const Payload& payload) noexcept {
  return sizeof payload + payload.bytes.size() + payload.items.size() * sizeof(PayloadItem);
}

// The same in no more memory than it needs, while the other stays, empty. Null: not worth it, or no
// memory.
std::unique_ptr<Payload> smaller_copy(Payload& payload) noexcept try {
  if (memory_of(payload) <= 2 * content_of(payload) + slack_bytes_max) return nullptr;
  auto copy = std::make_unique<Payload>(private_heap());
  copy->bytes.append(payload.bytes.view());
  copy->items.assign(payload.items.begin(), payload.items.end());
  copy->signal = payload.signal;
  copy->recovered = payload.recovered;
  return copy;
} catch (const std::bad_alloc&) {
  return nullptr;
}

}  // namespace

struct Outbox::Queues {
  boost::lockfree::spsc_queue<Payload*> full{queue_payloads_max};
  boost::lockfree::spsc_queue<Payload*> empty{empty_payloads_max};
};

Outbox::Outbox(std::size_t bytes_max, std::array<bool, signal_count> used)
    : bytes_max_(bytes_max), used_(used), queues_(std::make_unique<Queues>()) {}

Outbox::~Outbox() {
  const auto discard = [](Payload* payload) { delete payload; };
  queues_->full.consume_all(discard);
  queues_->empty.consume_all(discard);
}

std::unique_ptr<Payload> Outbox::take_empty() noexcept {
  Payload* payload = nullptr;
  if (queues_->empty.pop(payload)) return std::unique_ptr<Payload>(payload);
  return std::unique_ptr<Payload>(new (std::nothrow) Payload(private_heap()));
}

bool Outbox::reserve(std::size_t bytes, Signal signal) noexcept {
  const auto mine = static_cast<std::size_t>(signal);
  // What the others have not taken of their parts.
  std::size_t kept = 0;
  for (std::size_t i = 0; i < signal_count; ++i) {
    const std::size_t taken = bytes_of_[i].load(std::memory_order_relaxed);
    const std::size_t part = bytes_max_ / kept_part;
    if (i != mine && used_[i] && taken < part) kept += part - taken;
  }
  std::size_t used = bytes_.load(std::memory_order_relaxed);
  do {
    if (used + bytes > bytes_max_ - kept) return false;
  } while (!bytes_.compare_exchange_weak(used, used + bytes, std::memory_order_relaxed));
  bytes_of_[mine].fetch_add(bytes, std::memory_order_relaxed);
  return true;
}

void Outbox::release(std::size_t bytes, Signal signal) noexcept {
  bytes_of_[static_cast<std::size_t>(signal)].fetch_sub(bytes, std::memory_order_relaxed);
  bytes_.fetch_sub(bytes, std::memory_order_relaxed);
}

bool Outbox::send(std::unique_ptr<Payload>& payload) {
  std::unique_ptr<Payload> copy = smaller_copy(*payload);
  Payload& sent = copy != nullptr ? *copy : *payload;
  const std::size_t bytes = memory_of(sent);
  if (!reserve(bytes, sent.signal)) return false;
  sent.charged_bytes = bytes;
  const Signal signal = sent.signal;
  const std::uint64_t sequence = sent.sequence = last_sequence(signal) + 1;
  // The queue owns it once it is there.
  if (!queues_->full.push(&sent)) {
    release(bytes, signal);
    return false;
  }
  last_sequences_[static_cast<std::size_t>(signal)].store(sequence, std::memory_order_release);
  if (copy != nullptr) {
    (void)copy.release();  // NOLINT(bugprone-unused-return-value)
    payload->clear();
  } else {
    (void)payload.release();  // NOLINT(bugprone-unused-return-value)
  }
  return true;
}

std::unique_ptr<Payload> Outbox::receive() {
  Payload* payload = nullptr;
  queues_->full.pop(payload);
  return std::unique_ptr<Payload>(payload);
}

void Outbox::give_back(std::unique_ptr<Payload> payload) {
  release(payload->charged_bytes, payload->signal);
  payload->charged_bytes = 0;
  payload->clear();
  if (payload->bytes.capacity() <= kept_bytes_max && queues_->empty.push(payload.get())) {
    (void)payload.release();  // NOLINT(bugprone-unused-return-value): the queue owns it now
  }
}

}  // namespace spillway::detail
