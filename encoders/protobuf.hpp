// SPDX-License-Identifier: Apache-2.0
//
// Protocol Buffers on the wire (protobuf.dev, "Encoding", read 2026-08): the pieces for encoders
// that know their messages by heart, and a reader for short answers. Flusher and sender use it; it
// owns nothing.
//
// A message is a row of fields, a field a tag (number and wire type) and a value. What is nested is
// preceded by its length: begin_nested() leaves room for it, end_nested() puts it there.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string_view>

#include <spillway/buffers/byte_buffer.hpp>
#include <spillway/encoders/bytes.hpp>

namespace spillway::detail::protobuf {

enum class WireType : std::uint8_t { varint = 0, fixed64 = 1, length = 2, fixed32 = 5 };

/// The tag of a field whose number is below 16: one byte.
constexpr char tag(std::uint32_t field, WireType type) noexcept {
  return static_cast<char>(field << 3 | static_cast<std::uint32_t>(type));
}
constexpr char varint_tag(std::uint32_t field) noexcept { return tag(field, WireType::varint); }
constexpr char fixed64_tag(std::uint32_t field) noexcept { return tag(field, WireType::fixed64); }
constexpr char length_tag(std::uint32_t field) noexcept { return tag(field, WireType::length); }

inline constexpr std::size_t varint_bytes_max = 10;

constexpr std::size_t varint_bytes(std::uint64_t value) noexcept {
  return (static_cast<std::size_t>(std::bit_width(value | 1)) + 6) / 7;
}
/// Signed numbers of type sint: small magnitudes become small numbers.
constexpr std::uint64_t zigzag(std::int64_t value) noexcept {
  return static_cast<std::uint64_t>(value) << 1 ^ static_cast<std::uint64_t>(value >> 63);
}

// ---- On memory that the caller reserved; each returns where the next byte goes ----

inline char* write_varint(char* to, std::uint64_t value) noexcept {
  while (value >= 0x80) {
    *to++ = static_cast<char>(value | 0x80);
    value >>= 7;
  }
  *to++ = static_cast<char>(value);
  return to;
}
inline char* write_fixed64(char* to, std::uint64_t value) noexcept {
  std::memcpy(to, &value, sizeof value);  // Little endian, as the records are.
  return to + sizeof value;
}
inline char* write_fixed64_big_endian(char* to, std::uint64_t value) noexcept {
  return write_fixed64(to, __builtin_bswap64(value));
}

/// Bytes of `text` as a field of type string, which parsers refuse when it is not UTF-8: each byte
/// that is none counts as the three of U+FFFD.
std::size_t utf8_bytes(std::string_view text) noexcept;
/// Writes these bytes; `bytes` is what utf8_bytes() said.
char* write_utf8(char* to, std::string_view text, std::size_t bytes) noexcept;

// ---- On a buffer ----

void append_varint_field(ByteBuffer& out, std::uint32_t field, std::uint64_t value);
void append_fixed64_field(ByteBuffer& out, std::uint32_t field, std::uint64_t value);
/// Made UTF-8 where it is none.
void append_string_field(ByteBuffer& out, std::uint32_t field, std::string_view text);
void append_bytes_field(ByteBuffer& out, std::uint32_t field, std::string_view bytes);

/// Begins a nested message as a field whose number is below 16; returns what end_nested() wants.
inline std::size_t begin_nested(ByteBuffer& out, std::uint32_t field) {
  char* const to = out.reserve(3);
  *to = length_tag(field);
  out.advance_to(to + 3);
  return out.size();
}
/// Ends it. A length from 128 to 16383 goes into the room that was left; others move the message.
void end_nested(ByteBuffer& out, std::size_t body);

/// Reads the fields of a message one after the other. Bytes that are no message end it early.
class Reader {
 public:
  explicit Reader(std::string_view message) noexcept : rest_(message) {}

  /// Steps to the next field. False: there is none, or what follows is damaged.
  bool next() noexcept;
  bool damaged() const noexcept { return damaged_; }

  std::uint32_t field() const noexcept { return field_; }
  WireType type() const noexcept { return type_; }
  /// Of a field that is no length-delimited one; else 0.
  std::uint64_t number() const noexcept { return number_; }
  /// Of a length-delimited field; else empty.
  std::string_view bytes() const noexcept { return bytes_; }

 private:
  bool read_varint(std::uint64_t& value) noexcept;
  bool stop() noexcept {
    damaged_ = true;
    rest_ = {};
    return false;
  }

  std::string_view rest_;
  std::string_view bytes_;
  std::uint64_t number_ = 0;
  std::uint32_t field_ = 0;
  WireType type_ = WireType::varint;
  bool damaged_ = false;
};

}  // namespace spillway::detail::protobuf
