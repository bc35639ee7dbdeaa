// SPDX-License-Identifier: Apache-2.0
//
// The pieces of JSON text that every encoder writes. All output is valid UTF-8 JSON whatever goes
// in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include <spillway/buffers/byte_buffer.hpp>
#include <spillway/buffers/record.hpp>
#include <spillway/encoders/bytes.hpp>

namespace spillway::detail {

// write_*() writes to memory that the caller reserved and returns where the next byte goes; append_*()
// appends to a buffer. Encoders write what is small and of known size without asking the buffer each
// time, and append what may be long.

/// A JSON string with its quotes. Control characters, quotes and backslashes are escaped, as are
/// characters that change how a terminal or an editor shows the rest (C1 controls, bidi overrides,
/// line separators). Bytes that are not UTF-8 (cut, overlong, surrogates) become U+FFFD each.
void append_json_string(ByteBuffer& out, std::string_view text);
/// Needs json_string_bytes_max(text): an escape makes up to six bytes of one, and what is written
/// sixteen bytes at a time goes a little too far.
char* write_json_string(char* to, std::string_view text) noexcept;
constexpr std::size_t json_string_bytes_max(std::string_view text) noexcept {
  return 6 * text.size() + 50;
}
/// The same of a text that is known to be is_plain() (buffers/series.hpp): not looked at again.
[[gnu::always_inline]] inline char* write_plain_string(char* to, std::string_view text) noexcept {
  *to++ = '"';
  to = write_bytes(to, text);
  *to++ = '"';
  return to;
}
/// The same without quotes.
void append_json_escaped(ByteBuffer& out, std::string_view text);

/// The shortest text that reads back as the same double, with an exponent where 64 bits do not hold
/// it as an integer: some parsers refuse those. NaN and infinities, which JSON has no numbers for,
/// as the strings "NaN", "Infinity" and "-Infinity".
void append_number(ByteBuffer& out, double value);
void append_number(ByteBuffer& out, std::uint64_t value);
void append_number(ByteBuffer& out, std::int64_t value);
/// Each needs number_bytes_max.
char* write_number(char* to, double value) noexcept;
char* write_number(char* to, std::uint64_t value) noexcept;
char* write_number(char* to, std::int64_t value) noexcept;
inline constexpr std::size_t number_bytes_max = 32;

/// 16 lower-case hexadecimal digits.
void append_hex16(ByteBuffer& out, std::uint64_t value);
char* write_hex16(char* to, std::uint64_t value) noexcept;
/// An X-Ray trace id: 1-<8 hex>-<24 hex>.
void append_xray_trace_id(ByteBuffer& out, const TraceId& id);
char* write_xray_trace_id(char* to, const TraceId& id) noexcept;
inline constexpr std::size_t xray_trace_id_bytes = 35;
/// 2026-11-21T01:02:03.123456789Z.
void append_iso8601(ByteBuffer& out, std::int64_t time_ns);
char* write_iso8601(char* to, std::int64_t time_ns) noexcept;
inline constexpr std::size_t iso8601_bytes = 30;
/// Seconds with six decimals, as X-Ray's times: 1795220308.120145. A time before 1970 is 0. Needs
/// number_bytes_max.
char* write_epoch_seconds(char* to, std::int64_t time_ns) noexcept;

/// The UTF-8 character that `text`, which is not empty, begins with; 0 bytes: it begins with none.
struct Utf8Character {
  std::size_t bytes;
  std::uint32_t code;
};
Utf8Character decode_utf8(std::string_view text) noexcept;

/// The bytes of `text` up to `bytes_max`, cut before a character that would be split.
std::string_view cut_utf8(std::string_view text, std::size_t bytes_max) noexcept;

}  // namespace spillway::detail
