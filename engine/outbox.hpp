// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include <spillway/buffers/payload.hpp>

namespace spillway::detail {

/// Payloads on their way from the flusher to the sender, and empty ones on their way back: two
/// bounded lock-free queues and one budget of memory. The flusher owns a payload until send(), the
/// sender until give_back().
///
/// The signals share the budget. Each one that is `used` has a part of it that the others cannot take,
/// so that the outage of one destination is not the others'.
class Outbox {
 public:
  static constexpr std::size_t kept_part = 16;  ///< of the budget, one in so many for each signal

  /// `bytes_max` bounds what is sent and not given back: the memory of the payloads, not only what is
  /// in them.
  explicit Outbox(std::size_t bytes_max, std::array<bool, signal_count> used = {});
  ~Outbox();

  // ---- the flusher ----
  /// An empty payload, used before when there is one. Null: there is no memory.
  std::unique_ptr<Payload> take_empty() noexcept;
  /// Queues the payload and numbers it among those of its signal; one that has far more memory than it needs goes as a copy, and
  /// stays, empty, with the caller. False, and the payload stays with the caller: no room.
  bool send(std::unique_ptr<Payload>& payload);
  /// Number of the last payload of a signal that was sent; 0 before the first.
  std::uint64_t last_sequence(Signal signal) const noexcept {
    return last_sequences_[static_cast<std::size_t>(signal)].load(std::memory_order_acquire);
  }
  Sequences last_sequences() const noexcept {
    return {last_sequence(Signal::metrics), last_sequence(Signal::logs),
            last_sequence(Signal::spans)};
  }

  // ---- the sender ----
  /// The next payload, or null.
  std::unique_ptr<Payload> receive();
  /// Ends a payload that came from receive(): its bytes leave the budget.
  void give_back(std::unique_ptr<Payload> payload);
  /// The bytes of a payload count until it is given back, also when it was cut in two.
  std::size_t bytes_max() const noexcept { return bytes_max_; }
  std::size_t bytes() const noexcept { return bytes_.load(std::memory_order_relaxed); }

  /// Large logs share the budget. Any thread.
  bool reserve(std::size_t bytes, Signal signal) noexcept;
  void release(std::size_t bytes, Signal signal) noexcept;

 private:
  struct Queues;
  const std::size_t bytes_max_;
  const std::array<bool, signal_count> used_;
  std::atomic<std::size_t> bytes_{0};
  std::array<std::atomic<std::size_t>, signal_count> bytes_of_{};
  std::array<std::atomic<std::uint64_t>, signal_count> last_sequences_{};
  const std::unique_ptr<Queues> queues_;
};

}  // namespace spillway::detail
