// SPDX-License-Identifier: Apache-2.0
//
// Concise Binary Object Representation, RFC 8949, as far as the Smithy RPC v2 CBOR protocol of AWS
// needs it: heads of definite length, texts, numbers. Flusher and sender use it; it owns nothing.
#pragma once

#include <cstdint>
#include <string_view>

#include <spillway/buffers/byte_buffer.hpp>

namespace spillway::detail::cbor {

/// RFC 8949, section 3.1.
enum class Major : std::uint8_t {
  unsigned_number = 0,
  negative = 1,
  text = 3,
  array = 4,
  map = 5,
  tag = 6
};

/// The head of an item: its type, and a number, length or count in as few bytes as it takes.
void append_head(ByteBuffer& out, Major major, std::uint64_t value);
/// Made UTF-8 where it is none.
void append_text(ByteBuffer& out, std::string_view text);
/// In 4 bytes where they hold it exactly, else in 8.
void append_double(ByteBuffer& out, double value);
void append_bool(ByteBuffer& out, bool value);

}  // namespace spillway::detail::cbor
