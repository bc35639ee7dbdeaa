// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

namespace spillway {

/// What two threads must not share when both write. 64 bytes on x86-64 and on the server ARMs; a
/// fixed number, because std::hardware_destructive_interference_size changes with compiler flags
/// and layouts here are part of the ABI.
inline constexpr std::size_t cache_line_bytes = 64;

}  // namespace spillway
