// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <spillway/buffers/asymmetric_fence.hpp>

namespace spillway::detail {
namespace {

[[maybe_unused]] long membarrier(int command) noexcept {
  return syscall(SYS_membarrier, command, 0, 0);
}

bool register_process() noexcept {
#if defined(SPILLWAY_THREAD_SANITIZER)
  return false;
#else
  // A way to run the portable path on a machine that has the fast one: tests and doubtful kernels
  // use it.
  if (const char* off = std::getenv("SPILLWAY_PORTABLE_FENCES"); off != nullptr && *off == '1') {
    return false;
  }
  const long commands = membarrier(MEMBARRIER_CMD_QUERY);
  return commands > 0 && (commands & MEMBARRIER_CMD_PRIVATE_EXPEDITED) != 0 &&
         membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0;
#endif
}

}  // namespace

bool asymmetric_fences() noexcept {
  static const bool available = register_process();
  return available;
}

void heavy_fence() noexcept {
#if !defined(SPILLWAY_THREAD_SANITIZER)
  if (asymmetric_fences() && membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0) return;
  std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}

}  // namespace spillway::detail
