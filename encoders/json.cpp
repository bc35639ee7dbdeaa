// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cmath>
#include <ctime>

#include <spillway/encoders/characters.hpp>
#include <spillway/encoders/json.hpp>

namespace spillway::detail {
namespace {

constexpr std::string_view hex_digits = "0123456789abcdef";

// Controls, and what changes the direction or the lines of the text around it.
bool must_be_escaped(std::uint32_t code) noexcept {
  return code < 0x20 || (code >= 0x7f && code < 0xA0) || code == 0x2028 || code == 0x2029 ||
         (code >= 0x202A && code <= 0x202E) || (code >= 0x2066 && code <= 0x2069);
}

char* write_u_escape(char* to, std::uint32_t code) noexcept {
  *to++ = '\\';
  *to++ = 'u';
  for (int shift = 12; shift >= 0; shift -= 4) *to++ = hex_digits[code >> shift & 15U];
  return to;
}

constexpr std::size_t block_bytes = sizeof(Characters);

// Not zero for each character that a JSON string does not take as it is: all but printable ASCII, and
// '"' and '\\'.
auto specials(const Characters& block) noexcept {
  return (block < all(' ')) | (block > all('~')) | (block == all('"')) | (block == all('\\'));
}

// The same of eight characters in a register, some bit in the high ones of the bytes. Where there is such
// a byte, a borrow may make its neighbour look like one too: the answer is the same.
constexpr std::uint64_t specials(std::uint64_t word) noexcept {
  constexpr std::uint64_t ones = 0x0101010101010101;
  const std::uint64_t quote = word ^ '"' * ones;
  const std::uint64_t backslash = word ^ '\\' * ones;
  const std::uint64_t below_blank = (word - ' ' * ones) & ~word;
  const std::uint64_t above_tilde = word + ones;
  const std::uint64_t marks = (quote - ones) & ~quote;
  return (word | above_tilde | below_blank | marks | ((backslash - ones) & ~backslash)) &
         0x80 * ones;
}

// Copies the first and the last `Word` of `text`, which may overlap and are all of it; returns what of
// them is special.
template <class Word>
[[gnu::always_inline]] inline std::uint64_t copy_ends(char* to, const char* from,
                                                      std::size_t size) noexcept {
  Word first = 0;
  Word last = 0;
  std::memcpy(&first, from, sizeof first);
  std::memcpy(&last, from + size - sizeof last, sizeof last);
  std::memcpy(to, &first, sizeof first);
  std::memcpy(to + size - sizeof last, &last, sizeof last);
  if constexpr (sizeof(Word) == 4) return specials(std::uint64_t{first} << 32 | last);
  return specials(std::uint64_t{first}) | specials(std::uint64_t{last});
}

// Copies `text` to `to` when all of it is plain; else false, and what stands there means nothing.
[[gnu::always_inline]] inline bool copy_plain(char* to, std::string_view text) noexcept {
  const char* const from = text.data();
  const std::size_t size = text.size();
  if (size < 4) {
    std::uint64_t word = 0;
    for (std::size_t i = 0; i < size; ++i) {
      word = word << 8 | static_cast<unsigned char>(from[i]);
      to[i] = from[i];
    }
    constexpr std::uint64_t blanks = 0x2020202020202020;
    return specials(blanks << 8 * size | word) == 0;
  }
  if (size < 8) return copy_ends<std::uint32_t>(to, from, size) == 0;
  if (size < block_bytes) return copy_ends<std::uint64_t>(to, from, size) == 0;
  Characters block;
  for (std::size_t at = 0; at + block_bytes <= size; at += block_bytes) {
    std::memcpy(&block, from + at, block_bytes);
    if (bits_of(specials(block)) != 0) return false;
    std::memcpy(to + at, &block, block_bytes);
  }
  std::memcpy(&block, from + size - block_bytes, block_bytes);
  std::memcpy(to + size - block_bytes, &block, block_bytes);
  return bits_of(specials(block)) == 0;
}

// The eight hexadecimal digits of a number, all at once: its nibbles as bytes, in the order of the text,
// and then '0' or 'a' - 10 added to each.
char* write_hex8(char* to, std::uint32_t value) noexcept {
  constexpr std::uint64_t ones = 0x0101010101010101;
  std::uint64_t word = __builtin_bswap32(value);
  word = (word | word << 16) & 0x0000FFFF0000FFFF;
  word = (word | word << 8) & 0x00FF00FF00FF00FF;
  word = (word >> 4 & 0x000F000F000F000F) | (word & 0x000F000F000F000F) << 8;
  const std::uint64_t is_letter = (word + 6 * ones) >> 4 & ones;
  word += '0' * ones + is_letter * ('a' - '0' - 10);
  std::memcpy(to, &word, sizeof word);
  return to + sizeof word;
}
constexpr auto digit_pairs = [] {
  std::array<char, 200> pairs{};
  for (std::size_t i = 0; i < 100; ++i) {
    pairs[2 * i] = static_cast<char>('0' + i / 10);
    pairs[2 * i + 1] = static_cast<char>('0' + i % 10);
  }
  return pairs;
}();
char* write_pair(char* to, std::uint32_t value) noexcept {
  std::memcpy(to, &digit_pairs[std::size_t{2} * value], 2);
  return to + 2;
}
char* write_4_digits(char* to, std::uint32_t value) noexcept {
  return write_pair(write_pair(to, value / 100), value % 100);
}

// The digits of a number below 10^8 as characters, the first one in the lowest byte. Halved three times,
// all parts at once: lanes of four digits, of two, of one. A division is a multiplication and a shift,
// which are exact for numbers as small as these.
std::uint64_t digits_of_8(std::uint32_t value) noexcept {
  std::uint64_t lanes = value / 10'000 | std::uint64_t{value % 10'000} << 32;
  const std::uint64_t hundreds = (lanes * 10'486 >> 20) & 0x0000007F0000007F;
  lanes = hundreds | (lanes - hundreds * 100) << 16;
  const std::uint64_t tens = (lanes * 103 >> 10) & 0x000F000F000F000F;
  return (tens | (lanes - tens * 10) << 8) + 0x3030303030303030;
}
char* write_8_digits(char* to, std::uint32_t value) noexcept {
  const std::uint64_t digits = digits_of_8(value);
  std::memcpy(to, &digits, sizeof digits);
  return to + sizeof digits;
}
constexpr std::uint32_t of_8_digits = 100'000'000;

constexpr auto powers_of_10 = [] {
  std::array<std::uint64_t, 20> powers{1};
  for (std::size_t i = 1; i < powers.size(); ++i) powers[i] = powers[i - 1] * 10;
  return powers;
}();
unsigned decimal_digits(std::uint64_t value) noexcept {
  // 1233 / 4096 is log10(2), or a little less: it is this many digits, or one more.
  const auto least = static_cast<unsigned>(std::bit_width(value | 1)) * 1233 >> 12;
  return least + (value >= powers_of_10[least] ? 1U : 0U) + (value == 0 ? 1U : 0U);
}

// Numbers as most are: whole, or with up to three decimals. Null: this is none.
//
// A decimal of at most 15 digits is the only one of its length that reads back as the same double, and
// thousandths / 1000 is rounded as a reader of the decimal rounds. So what this writes is the
// shortest text, as std::to_chars finds it by a longer way.
char* write_short_number(char* to, double value) noexcept {
  constexpr double largest = 1e9;
  if (!(value >= 1 && value < largest)) {
    if (value != 0 || std::signbit(value)) return nullptr;
    *to = '0';
    return to + 1;
  }
  const auto thousandths = static_cast<std::uint64_t>(value * 1000 + 0.5);
  if (static_cast<double>(thousandths) / 1000 != value) return nullptr;
  const std::uint64_t whole = thousandths / 1000;
  auto decimals = static_cast<std::uint32_t>(thousandths % 1000);
  // Where a power of ten is shorter: 1e+05.
  constexpr std::uint64_t power_may_be_shorter = 100'000;
  if (decimals == 0 && whole >= power_may_be_shorter && whole % 10 == 0) return nullptr;
  to = write_number(to, whole);
  if (decimals != 0) {
    *to++ = '.';
    for (std::uint32_t unit = 100; decimals != 0; unit /= 10) {
      *to++ = static_cast<char>('0' + decimals / unit);
      decimals %= unit;
    }
  }
  return to;
}

// The character at `from`, of `left` bytes, that a JSON string does not take as it is; steps behind it.
[[gnu::noinline]] char* write_escape(char* to, const char*& from, std::size_t left) noexcept {
  const Utf8Character character = decode_utf8({from, left});
  if (character.bytes == 0) {
    to = write_u_escape(to, 0xFFFD);
  } else if (character.code == '\n' || character.code == '\r' || character.code == '\t') {
    *to++ = '\\';
    *to++ = *from == '\n' ? 'n' : *from == '\r' ? 'r' : 't';
  } else if (must_be_escaped(character.code)) {
    to = write_u_escape(to, character.code);
  } else {
    to = write_bytes(to, {from, character.bytes});
  }
  from += std::max(character.bytes, std::size_t{1});
  return to;
}

constexpr std::size_t escaped_block_bytes_max = 3 * block_bytes;
static_assert(json_string_bytes_max("") == 2 + escaped_block_bytes_max);

// Escapes `size` characters, at most sixteen, up to one that needs more than a backslash before it;
// returns where the next one goes. Needs room for escaped_block_bytes_max, and twice sixteen bytes that
// can be read. A document within a document has a quote in every eight characters, so what is behind a
// quote or backslash is copied again, a byte further on, in place of a branch for each character.
[[gnu::always_inline]] inline char* write_block(char* to, const char*& from,
                                                std::size_t size) noexcept {
  Characters block;
  std::memcpy(&block, from, block_bytes);
  std::memcpy(to, &block, block_bytes);
  std::uint32_t marked = bits_of((block == all('"')) | (block == all('\\')));
  const std::uint32_t others = bits_of((block < all(' ')) | (block > all('~')));
  // A branch: where the next block begins does not wait for this one's outcome.
  std::size_t taken = size;
  if (others != 0) [[unlikely]] {
    taken = std::min(size, static_cast<std::size_t>(std::countr_zero(others)));
  }
  marked &= (1U << taken) - 1;
  for (; marked != 0; marked &= marked - 1) {
    const auto at = static_cast<std::size_t>(std::countr_zero(marked));
    to[at] = '\\';
    ++to;
    std::memcpy(to + at, from + at, block_bytes);
  }
  from += taken;
  return to + taken;
}

// Calls `room()` before each block: it returns where that goes.
template <class Room>
char* write_escaped(char* to, std::string_view text, const Room& room) {
  const char* from = text.data();
  const char* end = from + text.size();
  const auto left = [&] { return static_cast<std::size_t>(end - from); };
  while (left() >= 2 * block_bytes) {
    const char* const block_end = from + block_bytes;
    to = write_block(room(to), from, block_bytes);
    if (from != block_end) [[unlikely]]
      to = write_escape(to, from, left());
  }
  std::array<char, 4 * block_bytes> padded{};  // Nothing is read behind the text.
  write_bytes(padded.data(), {from, left()});
  end = padded.data() + left();
  for (from = padded.data(); from != end;) {
    const char* const block_end = from + std::min(left(), block_bytes);
    to = write_block(room(to), from, std::min(left(), block_bytes));
    if (from != block_end) to = write_escape(to, from, left());
  }
  return to;
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
  char* to = out.reserve(text.size());
  if (copy_plain(to, text)) return out.advance_to(to + text.size());
  out.advance_to(write_escaped(to, text, [&out](char* at) {
    out.advance_to(at);
    return out.reserve(escaped_block_bytes_max);
  }));
}

void append_json_string(ByteBuffer& out, std::string_view text) {
  char* const to = out.reserve(text.size() + 2);
  if (copy_plain(to + 1, text)) {
    to[0] = to[text.size() + 1] = '"';
    return out.advance_to(to + text.size() + 2);
  }
  out.append('"');
  append_json_escaped(out, text);
  out.append('"');
}

char* write_json_string(char* to, std::string_view text) noexcept {
  *to++ = '"';
  to = copy_plain(to, text) ? to + text.size()
                            : write_escaped(to, text, [](char* at) { return at; });
  *to++ = '"';
  return to;
}

char* write_number(char* to, double value) noexcept {
  if (char* const end = write_short_number(to, value)) return end;
  if (std::isnan(value)) return write_bytes(to, "\"NaN\"");
  if (std::isinf(value)) return write_bytes(to, value > 0 ? "\"Infinity\"" : "\"-Infinity\"");
  char* const end = to + number_bytes_max;
  if (std::fabs(value) < 0x1p63) return std::to_chars(to, end, value).ptr;
  return std::to_chars(to, end, value, std::chars_format::scientific).ptr;
}
char* write_number(char* to, std::uint64_t value) noexcept {
  if (value >= of_8_digits) {
    to = write_number(to, value / of_8_digits);
    return write_8_digits(to, static_cast<std::uint32_t>(value % of_8_digits));
  }
  char* const end = to + decimal_digits(value);
  char* at = end;
  for (; value >= 100; value /= 100) write_pair(at -= 2, static_cast<std::uint32_t>(value % 100));
  if (value >= 10) {
    write_pair(at - 2, static_cast<std::uint32_t>(value));
  } else {
    at[-1] = static_cast<char>('0' + value);
  }
  return end;
}
char* write_number(char* to, std::int64_t value) noexcept {
  const auto bits = static_cast<std::uint64_t>(value);
  if (value >= 0) return write_number(to, bits);
  *to = '-';
  return write_number(to + 1, 0 - bits);
}
void append_number(ByteBuffer& out, double value) {
  out.advance_to(write_number(out.reserve(number_bytes_max), value));
}
void append_number(ByteBuffer& out, std::uint64_t value) {
  out.advance_to(write_number(out.reserve(number_bytes_max), value));
}
void append_number(ByteBuffer& out, std::int64_t value) {
  out.advance_to(write_number(out.reserve(number_bytes_max), value));
}

char* write_hex16(char* to, std::uint64_t value) noexcept {
  to = write_hex8(to, static_cast<std::uint32_t>(value >> 32));
  return write_hex8(to, static_cast<std::uint32_t>(value));
}
void append_hex16(ByteBuffer& out, std::uint64_t value) {
  out.advance_to(write_hex16(out.reserve(16), value));
}

char* write_xray_trace_id(char* to, const TraceId& id) noexcept {
  *to++ = '1';
  *to++ = '-';
  to = write_hex8(to, static_cast<std::uint32_t>(id.high >> 32));
  *to++ = '-';
  to = write_hex8(to, static_cast<std::uint32_t>(id.high));
  return write_hex16(to, id.low);
}
void append_xray_trace_id(ByteBuffer& out, const TraceId& id) {
  out.advance_to(write_xray_trace_id(out.reserve(xray_trace_id_bytes), id));
}

char* write_iso8601(char* to, std::int64_t time_ns) noexcept {
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
  to = write_bytes(to, {known_text, 19});
  *to++ = '.';
  const auto nanoseconds = static_cast<std::uint32_t>(fraction);
  *to++ = static_cast<char>('0' + nanoseconds / of_8_digits);
  to = write_4_digits(to, nanoseconds / 10'000 % 10'000);
  to = write_4_digits(to, nanoseconds % 10'000);
  *to++ = 'Z';
  return to;
}
void append_iso8601(ByteBuffer& out, std::int64_t time_ns) {
  out.advance_to(write_iso8601(out.reserve(iso8601_bytes), time_ns));
}

char* write_epoch_seconds(char* to, std::int64_t time_ns) noexcept {
  const std::int64_t known_ns = std::max(time_ns, std::int64_t{0});
  const auto micros =
      static_cast<std::uint64_t>(known_ns / 1000 + (known_ns % 1000 >= 500 ? 1 : 0));
  // From 2001 to 2286 that is sixteen digits, ten of them before the point.
  constexpr std::uint64_t of_15_digits = 1'000'000'000'000'000;
  if (micros >= of_15_digits && micros < 10 * of_15_digits) {
    to = write_8_digits(to, static_cast<std::uint32_t>(micros / of_8_digits));
    const std::uint64_t digits = digits_of_8(static_cast<std::uint32_t>(micros % of_8_digits));
    const std::uint64_t behind_point = digits >> 16;
    std::memcpy(to, &digits, 2);
    to[2] = '.';
    std::memcpy(to + 3, &behind_point, sizeof behind_point);
    return to + 9;
  }
  to = write_number(to, micros / 1'000'000);
  *to++ = '.';
  const auto fraction = static_cast<std::uint32_t>(micros % 1'000'000);
  to = write_pair(to, fraction / 10'000);
  return write_4_digits(to, fraction % 10'000);
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
