// SPDX-License-Identifier: Apache-2.0
//
// How the ring and the gate reach memory that two threads share. They take this as a template
// parameter, so that tests/support/weak_memory.hpp can run the same code under every interleaving
// that the C++ memory model allows, and with each order weakened.
//
// MachineMemory is the machine's: everything here is inline and compiles to the bare access.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <spillway/buffers/asymmetric_fence.hpp>

namespace spillway::detail {

/// The accesses whose order the protocols of ring.hpp and gate.hpp stand on.
enum class Access : std::uint8_t {
  ring_commit,        ///< Pair A, the producer publishes a record
  ring_skip,          ///< Pair A, the producer publishes the rest of a lap
  ring_observe,       ///< Pair A, the flusher
  ring_release_step,  ///< Pair B, the flusher on its way
  ring_release_end,   ///< Pair B, the flusher at the end of a drain
  ring_reuse,         ///< Pair B, the producer
  gate_enter,         ///< P1
  gate_load_bank,     ///< P3
  gate_load_id,       ///< P3
  gate_leave,         ///< P5
  gate_swap,          ///< F1
  gate_close,         ///< F1
  gate_observe,       ///< F3
  light_fence,        ///< P2
  full_fence,         ///< P2 where asymmetric fences are missing
  heavy_fence,        ///< F2
};

struct MachineMemory {
  template <class T>
  using Atomic = std::atomic<T>;

#if defined(SPILLWAY_THREAD_SANITIZER)
  /// ThreadSanitizer cannot see fences: there the accesses themselves are sequentially consistent.
  static constexpr bool has_fences = false;
#else
  static constexpr bool has_fences = true;
#endif

  /// The order of an access: the one that stands in the code.
  static constexpr std::memory_order order(Access, std::memory_order written) noexcept {
    return written;
  }
  static void light_fence() noexcept { detail::light_fence(); }
  static void full_fence() noexcept {
    if constexpr (has_fences) std::atomic_thread_fence(std::memory_order_seq_cst);
  }

  // Memory that belongs to one thread at a time.
  static void write(std::byte* to, const void* from, std::size_t bytes) noexcept {
    std::memcpy(to, from, bytes);
  }
  static void read(void* to, const std::byte* from, std::size_t bytes) noexcept {
    std::memcpy(to, from, bytes);
  }
};

}  // namespace spillway::detail
