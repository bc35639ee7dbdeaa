// SPDX-License-Identifier: Apache-2.0
//
// Concise Binary Object Representation, RFC 8949, as far as the Smithy RPC v2 CBOR protocol of AWS
// needs it: heads of definite length, texts, numbers. Flusher and sender use it; it owns nothing.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
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

// write_*() writes to memory that the caller reserved and returns where the next byte goes; append_*()
// appends to a buffer.

/// The head of an item: its type, and a number, length or count in as few bytes as it takes. Needs
/// head_bytes_max.
char* write_head(char* to, Major major, std::uint64_t value) noexcept;
void append_head(ByteBuffer& out, Major major, std::uint64_t value);
inline constexpr std::size_t head_bytes_max = 9;
/// Made UTF-8 where it is none. Needs text_bytes_max(text): a byte that is none is three.
char* write_text(char* to, std::string_view text) noexcept;
void append_text(ByteBuffer& out, std::string_view text);
constexpr std::size_t text_bytes_max(std::string_view text) noexcept {
  return head_bytes_max + 3 * text.size();
}
/// In 4 bytes where they hold it exactly, else in 8. Needs head_bytes_max.
char* write_double(char* to, double value) noexcept;
void append_bool(ByteBuffer& out, bool value);

/// A text that is known beforehand, as it stands in the item; for write_bytes().
template <std::size_t size>
struct Literal {
  std::array<char, size> bytes{};
  consteval Literal(const char (&text)[size]) {  // NOLINT: from a literal, by itself.
    static_assert(size - 1 < 24, "a length of more than 23 does not fit into the first byte");
    bytes[0] = static_cast<char>(static_cast<unsigned>(Major::text) << 5 | (size - 1));
    for (std::size_t i = 0; i + 1 < size; ++i) bytes[i + 1] = text[i];
  }
};
template <std::size_t size>
char* write_literal(char* to, const Literal<size>& literal) noexcept {
  std::memcpy(to, literal.bytes.data(), size);
  return to + size;
}

}  // namespace spillway::detail::cbor
