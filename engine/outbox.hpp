// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include <spillway/buffers/payload.hpp>

namespace spillway::detail {

/// Payloads on their way from the flusher to the sender, and empty ones on their way back: two
/// bounded lock-free queues and one byte budget. The flusher owns a payload until send(), the
/// sender until give_back().
class Outbox {
 public:
  /// `bytes_max` bounds what is sent and not given back.
  explicit Outbox(std::size_t bytes_max);
  ~Outbox();

  // ---- the flusher ----
  /// An empty payload, used before when there is one.
  std::unique_ptr<Payload> take_empty();
  /// Queues the payload and numbers it. False, and the payload stays with the caller: no room.
  bool send(std::unique_ptr<Payload>& payload);
  /// Number of the last payload sent; 0 before the first.
  std::uint64_t last_sequence() const noexcept {
    return last_sequence_.load(std::memory_order_acquire);
  }

  // ---- the sender ----
  /// The next payload, or null.
  std::unique_ptr<Payload> receive();
  /// Ends a payload: its bytes leave the budget. `from_outbox`: it came from receive(), and is not
  /// a part of one.
  void give_back(std::unique_ptr<Payload> payload);
  /// The bytes of a payload count until it is given back, also when it was cut in two.
  std::size_t bytes_max() const noexcept { return bytes_max_; }
  std::size_t bytes() const noexcept { return bytes_.load(std::memory_order_relaxed); }

  /// Large logs share the budget. Any thread.
  bool reserve(std::size_t bytes) noexcept;
  void release(std::size_t bytes) noexcept { bytes_.fetch_sub(bytes, std::memory_order_relaxed); }

 private:
  struct Queues;
  const std::size_t bytes_max_;
  std::atomic<std::size_t> bytes_{0};
  std::atomic<std::uint64_t> last_sequence_{0};
  const std::unique_ptr<Queues> queues_;
};

}  // namespace spillway::detail
