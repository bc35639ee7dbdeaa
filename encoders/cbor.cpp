// SPDX-License-Identifier: Apache-2.0
#include <bit>
#include <cstring>

#include <spillway/encoders/cbor.hpp>
#include <spillway/encoders/protobuf.hpp>

namespace spillway::detail::cbor {
namespace {

// The low five bits of an item's first byte: the argument itself, or how many bytes it takes.
constexpr unsigned char argument_8 = 24;
constexpr unsigned char argument_16 = 25;
constexpr unsigned char argument_32 = 26;
constexpr unsigned char argument_64 = 27;
constexpr unsigned char simple = 7 << 5;
constexpr unsigned char simple_false = 20;
constexpr unsigned char simple_true = 21;

// The lowest `bytes` of `value`; writes eight.
char* write_big_endian(char* to, std::uint64_t value, std::size_t bytes) noexcept {
  const std::uint64_t swapped = __builtin_bswap64(value << (64 - 8 * bytes));
  std::memcpy(to, &swapped, sizeof swapped);
  return to + bytes;
}

}  // namespace

char* write_head(char* to, Major major, std::uint64_t value) noexcept {
  const auto type = static_cast<unsigned char>(static_cast<unsigned char>(major) << 5);
  const auto with = [&](unsigned char argument, std::size_t bytes) {
    *to = static_cast<char>(type | argument);
    return write_big_endian(to + 1, value, bytes);
  };
  if (value < argument_8) {
    *to = static_cast<char>(type | value);
    return to + 1;
  }
  if (value <= 0xFF) return with(argument_8, 1);
  if (value <= 0xFFFF) return with(argument_16, 2);
  if (value <= 0xFFFF'FFFF) return with(argument_32, 4);
  return with(argument_64, 8);
}

void append_head(ByteBuffer& out, Major major, std::uint64_t value) {
  out.advance_to(write_head(out.reserve(head_bytes_max), major, value));
}

char* write_text(char* to, std::string_view text) noexcept {
  const std::size_t bytes = protobuf::utf8_bytes(text);
  return protobuf::write_utf8(write_head(to, Major::text, bytes), text, bytes);
}

void append_text(ByteBuffer& out, std::string_view text) {
  out.advance_to(write_text(out.reserve(text_bytes_max(text)), text));
}

char* write_double(char* to, double value) noexcept {
  const auto narrow = static_cast<float>(value);
  if (static_cast<double>(narrow) == value) {
    *to = static_cast<char>(simple | argument_32);
    return write_big_endian(to + 1, std::bit_cast<std::uint32_t>(narrow), 4);
  }
  *to = static_cast<char>(simple | argument_64);
  return write_big_endian(to + 1, std::bit_cast<std::uint64_t>(value), 8);
}

void append_bool(ByteBuffer& out, bool value) {
  out.append(static_cast<char>(simple | (value ? simple_true : simple_false)));
}

}  // namespace spillway::detail::cbor
