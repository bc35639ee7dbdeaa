// SPDX-License-Identifier: Apache-2.0
#include <boost/lockfree/spsc_queue.hpp>

#include <spillway/engine/outbox.hpp>
#include <spillway/engine/private_heap.hpp>

namespace spillway::detail {
namespace {

constexpr std::size_t queue_payloads_max = 4096;
constexpr std::size_t empty_payloads_max = 16;
// A payload that has grown beyond this is freed instead of being used again.
constexpr std::size_t kept_bytes_max = 4U << 20;

}  // namespace

struct Outbox::Queues {
  boost::lockfree::spsc_queue<Payload*> full{queue_payloads_max};
  boost::lockfree::spsc_queue<Payload*> empty{empty_payloads_max};
};

Outbox::Outbox(std::size_t bytes_max)
    : bytes_max_(bytes_max), queues_(std::make_unique<Queues>()) {}

Outbox::~Outbox() {
  const auto discard = [](Payload* payload) { delete payload; };
  queues_->full.consume_all(discard);
  queues_->empty.consume_all(discard);
}

std::unique_ptr<Payload> Outbox::take_empty() {
  Payload* payload = nullptr;
  if (queues_->empty.pop(payload)) return std::unique_ptr<Payload>(payload);
  return std::make_unique<Payload>(private_heap());
}

bool Outbox::reserve(std::size_t bytes) noexcept {
  std::size_t used = bytes_.load(std::memory_order_relaxed);
  do {
    if (used + bytes > bytes_max_) return false;
  } while (!bytes_.compare_exchange_weak(used, used + bytes, std::memory_order_relaxed));
  return true;
}

bool Outbox::send(std::unique_ptr<Payload>& payload) {
  const std::size_t bytes = payload->bytes.size();
  if (!reserve(bytes)) return false;
  payload->charged_bytes = bytes;
  payload->sequence = last_sequence_.load(std::memory_order_relaxed) + 1;
  if (!queues_->full.push(payload.get())) {
    release(bytes);
    return false;
  }
  last_sequence_.store(payload->sequence, std::memory_order_release);
  (void)payload.release();  // NOLINT(bugprone-unused-return-value): the queue owns it now
  return true;
}

std::unique_ptr<Payload> Outbox::receive() {
  Payload* payload = nullptr;
  queues_->full.pop(payload);
  return std::unique_ptr<Payload>(payload);
}

void Outbox::give_back(std::unique_ptr<Payload> payload) {
  release(payload->charged_bytes);
  payload->charged_bytes = 0;
  payload->clear();
  if (payload->bytes.capacity() <= kept_bytes_max && queues_->empty.push(payload.get())) {
    (void)payload.release();  // NOLINT(bugprone-unused-return-value): the queue owns it now
  }
}

}  // namespace spillway::detail
