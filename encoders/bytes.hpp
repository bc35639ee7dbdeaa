// SPDX-License-Identifier: Apache-2.0
//
// Bytes as they are, for encoders that have reserved the memory they write to.
#pragma once

#include <cstring>
#include <string_view>

namespace spillway::detail {

/// Returns where the next byte goes. Of a literal this is a move or two, so what never changes stands
/// together in one.
inline char* write_bytes(char* to, std::string_view bytes) noexcept {
  if (!bytes.empty()) std::memcpy(to, bytes.data(), bytes.size());
  return to + bytes.size();
}

}  // namespace spillway::detail
