// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory_resource>
#include <string_view>

namespace spillway::detail {

/// Memory for payloads: mimalloc's heap, apart from the host's. The library is opened at run time,
/// into its own scope, because linking it would put its malloc in front of the host's. Where it is
/// not installed: the host's malloc. Any thread may allocate and free.
std::pmr::memory_resource* private_heap();

/// "mimalloc 2.0.9" or "malloc".
std::string_view private_heap_name();
/// Puts another one in its place, for tests that count what is taken or have it fail; null: the own
/// one again. What is allocated goes back to where it came from.
void replace_private_heap(std::pmr::memory_resource* heap) noexcept;

}  // namespace spillway::detail
