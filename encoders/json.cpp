// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <ctime>

#include <spillway/encoders/json.hpp>

namespace spillway::detail {
namespace {

constexpr std::string_view hex_digits = "0123456789abcdef";

// Characters that a JSON string takes as they are: printable ASCII but '"' and '\'.
constexpr auto is_plain = [] {
  std::array<bool, 256> table{};
  for (std::size_t c = 0x20; c < 0x7f; ++c) table[c] = c != '"' && c != '\\';
  return table;
}();

// Controls, and what changes the direction or the lines of the text around it.
bool must_be_escaped(std::uint32_t code) noexcept {
  return code < 0x20 || (code >= 0x7f && code < 0xA0) || code == 0x2028 || code == 0x2029 ||
         (code >= 0x202A && code <= 0x202E) || (code >= 0x2066 && code <= 0x2069);
}

char* append_u_escape(char* to, std::uint32_t code) noexcept {
  *to++ = '\\';
  *to++ = 'u';
  for (int shift = 12; shift >= 0; shift -= 4) *to++ = hex_digits[code >> shift & 15U];
  return to;
}

template <class Number>
void append_chars(ByteBuffer& out, Number value) {
  char* const to = out.reserve(32);
  out.advance_to(std::to_chars(to, to + 32, value).ptr);
}

}  // namespace

Utf8Character decode_utf8(std::string_view text) noexcept {
  const auto byte = [&](std::size_t i) -> std::uint32_t {
    return static_cast<unsigned char>(text[i]);
  };
  const auto continues = [&](std::size_t i) {
    return i < text.size() && (byte(i) & 0xC0U) == 0x80U;
  };
  const std::uint32_t first = byte(0);
  if (first < 0x80) return {1, first};
  if (first >= 0xC2 && first < 0xE0 && continues(1)) {
    return {2, (first & 0x1FU) << 6 | (byte(1) & 0x3FU)};
  }
  if (first >= 0xE0 && first < 0xF0 && continues(1) && continues(2)) {
    const std::uint32_t code = (first & 0x0FU) << 12 | (byte(1) & 0x3FU) << 6 | (byte(2) & 0x3FU);
    if (code >= 0x800 && (code < 0xD800 || code > 0xDFFF)) return {3, code};
  }
  if (first >= 0xF0 && first < 0xF5 && continues(1) && continues(2) && continues(3)) {
    const std::uint32_t code = (first & 0x07U) << 18 | (byte(1) & 0x3FU) << 12 |
                               (byte(2) & 0x3FU) << 6 | (byte(3) & 0x3FU);
    if (code >= 0x10000 && code <= 0x10FFFF) return {4, code};
  }
  return {0, 0};
}

void append_json_escaped(ByteBuffer& out, std::string_view text) {
  while (true) {
    const auto* const plain_end = std::find_if_not(
        text.begin(), text.end(), [](char c) { return is_plain[static_cast<unsigned char>(c)]; });
    const auto plain = static_cast<std::size_t>(plain_end - text.begin());
    out.append(text.substr(0, plain));
    text.remove_prefix(plain);
    if (text.empty()) return;
    char* to = out.reserve(8);
    const Utf8Character character = decode_utf8(text);
    if (character.bytes == 0) {
      to = append_u_escape(to, 0xFFFD);
    } else if (character.code == '"' || character.code == '\\') {
      *to++ = '\\';
      *to++ = text.front();
    } else if (character.code == '\n' || character.code == '\r' || character.code == '\t') {
      *to++ = '\\';
      *to++ = text.front() == '\n' ? 'n' : text.front() == '\r' ? 'r' : 't';
    } else if (must_be_escaped(character.code)) {
      to = append_u_escape(to, character.code);
    } else {
      std::memcpy(to, text.data(), character.bytes);
      to += character.bytes;
    }
    text.remove_prefix(std::max(character.bytes, std::size_t{1}));
    out.advance_to(to);
  }
}

void append_json_string(ByteBuffer& out, std::string_view text) {
  out.append('"');
  append_json_escaped(out, text);
  out.append('"');
}

void append_number(ByteBuffer& out, double value) {
  if (std::isnan(value)) return out.append("\"NaN\"");
  if (std::isinf(value)) return out.append(value > 0 ? "\"Infinity\"" : "\"-Infinity\"");
  if (std::fabs(value) < 0x1p63) return append_chars(out, value);
  char* const to = out.reserve(32);
  out.advance_to(std::to_chars(to, to + 32, value, std::chars_format::scientific).ptr);
}
void append_number(ByteBuffer& out, std::uint64_t value) { append_chars(out, value); }
void append_number(ByteBuffer& out, std::int64_t value) { append_chars(out, value); }

void append_hex16(ByteBuffer& out, std::uint64_t value) {
  char* to = out.reserve(16);
  for (int shift = 60; shift >= 0; shift -= 4) *to++ = hex_digits[value >> shift & 15U];
  out.advance_to(to);
}

void append_xray_trace_id(ByteBuffer& out, const TraceId& id) {
  char* to = out.reserve(35);
  *to++ = '1';
  *to++ = '-';
  for (int shift = 60; shift >= 0; shift -= 4) {
    if (shift == 28) *to++ = '-';
    *to++ = hex_digits[id.high >> shift & 15U];
  }
  for (int shift = 60; shift >= 0; shift -= 4) *to++ = hex_digits[id.low >> shift & 15U];
  out.advance_to(to);
}

void append_iso8601(ByteBuffer& out, std::int64_t time_ns) {
  constexpr std::int64_t second = 1'000'000'000;
  std::int64_t seconds = time_ns / second;
  std::int64_t fraction = time_ns % second;
  if (fraction < 0) {
    fraction += second;
    --seconds;
  }
  // The date and time of the last second written: most records share it with the one before.
  thread_local constinit std::int64_t known_second = 0;
  thread_local constinit char known_text[20] = "1970-01-01T00:00:00";
  if (seconds != known_second) {
    const std::time_t time = seconds;
    std::tm utc{};
    gmtime_r(&time, &utc);
    if (std::strftime(known_text, sizeof known_text, "%Y-%m-%dT%H:%M:%S", &utc) != 19) {
      std::memcpy(known_text, "0000-00-00T00:00:00", 20);  // A year of more than four digits.
    }
    known_second = seconds;
  }
  char* to = out.reserve(30);
  // NOLINTNEXTLINE(bugprone-not-null-terminated-result): JSON, not a C string.
  std::memcpy(to, known_text, 19);
  to[19] = '.';
  for (int digit = 28; digit > 19; --digit) {
    to[digit] = static_cast<char>('0' + fraction % 10);
    fraction /= 10;
  }
  to[29] = 'Z';
  out.advance_to(to + 30);
}

void append_epoch_seconds(ByteBuffer& out, std::int64_t time_ns) {
  const std::int64_t known_ns = std::max(time_ns, std::int64_t{0});
  const std::int64_t micros = known_ns / 1000 + (known_ns % 1000 >= 500 ? 1 : 0);
  append_chars(out, micros / 1'000'000);
  char* const to = out.reserve(7);
  to[0] = '.';
  std::int64_t fraction = micros % 1'000'000;
  for (int digit = 6; digit > 0; --digit) {
    to[digit] = static_cast<char>('0' + fraction % 10);
    fraction /= 10;
  }
  out.advance_to(to + 7);
}

std::string_view cut_utf8(std::string_view text, std::size_t bytes_max) noexcept {
  if (text.size() <= bytes_max) return text;
  std::size_t bytes = bytes_max;
  for (int back = 0;
       back < 3 && bytes > 0 && (static_cast<unsigned char>(text[bytes]) & 0xC0U) == 0x80U;
       ++back) {
    --bytes;
  }
  return text.substr(0, bytes);
}

}  // namespace spillway::detail
