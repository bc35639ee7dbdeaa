// SPDX-License-Identifier: Apache-2.0
//
// A store-load fence whose whole price is paid by one side.
//
// Two threads run Dekker's pattern: each stores its own flag, then loads the other's. Without a
// full fence on both sides both may read the old value. A full fence costs a producer 5-20 ns; here
// the producer's side is a compiler barrier and the flusher's side is membarrier(2), which makes
// every running thread of the process pass a full fence (PRIVATE_EXPEDITED, Linux 4.14). After
// heavy_fence() returns, for each producer either its store before light_fence() is visible to the
// flusher, or its loads after light_fence() see what the flusher stored before heavy_fence().
//
// Where membarrier is missing or filtered, and under ThreadSanitizer, which cannot see it,
// `asymmetric_fences()` is false and producers pay for the full fence themselves (see Lane::enter).
#pragma once

#include <atomic>

#if defined(__SANITIZE_THREAD__)
#define SPILLWAY_THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SPILLWAY_THREAD_SANITIZER 1
#endif
#endif

namespace spillway::detail {

/// Whether producers may use light_fence(). Asked once per process; registers it with the kernel.
bool asymmetric_fences() noexcept;

/// The producer's side: keeps the compiler from moving loads above stores; no instruction.
inline void light_fence() noexcept { std::atomic_signal_fence(std::memory_order_seq_cst); }

/// The flusher's side: a full fence in every running thread of this process. Some microseconds; a
/// few times a second.
void heavy_fence() noexcept;

}  // namespace spillway::detail
