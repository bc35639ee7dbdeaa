// SPDX-License-Identifier: Apache-2.0
//
// The hand-over of a bank between one producer thread and the flusher:
//
//   producer                                   flusher
//   P1  busy_ = 1                              F1  bank_ = the clean bank   (or the id = 0)
//   P2  light fence                            F2  heavy fence, once for all lanes
//   P3  load the id, bank_                     F3  wait until busy_ is seen 0
//   P4  write that bank                        F4  the other bank is the flusher's
//   P5  busy_ = 0 (release)
//
// The fences make P1..P3 and F1..F3 Dekker's pattern: either the flusher sees busy_ == 1 at F3 and
// waits, or the producer sees the new bank at P3. P5 pairs with the acquire load of F3: what P4
// wrote is visible at F4. F1 (release) pairs with P3 (acquire): a bank that the flusher cleared is
// visible as cleared. Producers never wait; a producer that was stopped inside an operation only
// delays the taking of its own old bank.
//
// Where asymmetric fences are missing (asymmetric_fence.hpp) the producer pays for a full fence at
// P2: then engine_id_ is 0, so that enter() fails, and enter_portable() is the way in.
//
// tests/interleaving_test.cpp runs this code through all interleavings.
#pragma once

#include <atomic>
#include <cstdint>

#include <spillway/buffers/memory_access.hpp>

namespace spillway::detail {

template <class Bank, class Memory = MachineMemory>
class BasicGate {
 public:
  constexpr BasicGate() = default;
  BasicGate(const BasicGate&) = delete;
  BasicGate& operator=(const BasicGate&) = delete;

  // ---- the producer ----

  /// P1..P3. False: closed, not this engine's, or the full fence is needed.
  bool enter(std::uint64_t engine_id) noexcept {
    busy_.store(1, Memory::order(Access::gate_enter, relaxed));
    Memory::light_fence();
    if (engine_id_.load(Memory::order(Access::gate_load_id, relaxed)) == engine_id) [[likely]]
      return true;
    leave();
    return false;
  }
  /// The same with a full fence of the producer's own.
  bool enter_portable(std::uint64_t engine_id) noexcept {
    busy_.store(1, Memory::order(Access::gate_enter, relaxed));
    Memory::full_fence();
    if (portable_engine_id_.load(Memory::order(Access::gate_load_id, relaxed)) == engine_id) {
      return true;
    }
    leave();
    return false;
  }
  /// Whether it is open for that engine at this moment. No operation: for what needs no bank and no
  /// hand-over, be asymmetric fences there or not.
  bool is_open_for(std::uint64_t engine_id) const noexcept {
    return portable_engine_id_.load(std::memory_order_relaxed) == engine_id;
  }
  /// P3. The producer's until leave(). Ask once an operation: a second answer may be another bank.
  Bank& bank() noexcept { return *bank_.load(Memory::order(Access::gate_load_bank, acquire)); }
  /// P5.
  void leave() noexcept {
    busy_.store(0, Memory::order(Access::gate_leave, std::memory_order_release));
  }

  // ---- the flusher; between F1 and F3 it calls heavy_fence() ----

  /// Before any other thread knows the gate: the engine that it opens for, and the first bank.
  void open(std::uint64_t engine_id, Bank* bank, bool asymmetric) noexcept {
    bank_.store(bank, std::memory_order_relaxed);
    if (asymmetric) engine_id_.store(engine_id, std::memory_order_relaxed);
    portable_engine_id_.store(engine_id, std::memory_order_relaxed);
  }
  /// F1. Gives the producer a clean bank and returns the one that it had.
  Bank* swap(Bank* clean) noexcept {
    Bank* const old = bank_.load(std::memory_order_relaxed);
    bank_.store(clean, Memory::order(Access::gate_swap, release));
    return old;
  }
  /// F1. From the next heavy fence on enter() fails.
  void close() noexcept {
    engine_id_.store(0, Memory::order(Access::gate_close, close_order));
    portable_engine_id_.store(0, Memory::order(Access::gate_close, close_order));
  }
  /// F3. Whether no operation that began before the heavy fence is still under way.
  bool is_idle() const noexcept {
    return busy_.load(Memory::order(Access::gate_observe, acquire)) == 0;
  }
  /// The producer's present bank, for who may read what changes meanwhile.
  Bank* peek() const noexcept { return bank_.load(std::memory_order_acquire); }

 private:
  static constexpr auto relaxed =
      Memory::has_fences ? std::memory_order_relaxed : std::memory_order_seq_cst;
  static constexpr auto acquire =
      Memory::has_fences ? std::memory_order_acquire : std::memory_order_seq_cst;
  static constexpr auto release =
      Memory::has_fences ? std::memory_order_release : std::memory_order_seq_cst;
  static constexpr auto close_order = relaxed;

  template <class T>
  using Atomic = typename Memory::template Atomic<T>;

  Atomic<std::uint32_t> busy_{0};       // producer
  Atomic<std::uint64_t> engine_id_{0};  // flusher; 0: closed, or the portable way is needed
  Atomic<Bank*> bank_{nullptr};         // flusher
  Atomic<std::uint64_t> portable_engine_id_{0};  // flusher
};

}  // namespace spillway::detail
