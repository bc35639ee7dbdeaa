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
constexpr std::size_t head_bytes_max = 9;

char* write_big_endian(char* to, std::uint64_t value, int bytes) noexcept {
  for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8)
    *to++ = static_cast<char>(value >> shift);
  return to;
}

char* write_head(char* to, Major major, std::uint64_t value) noexcept {
  const auto type = static_cast<unsigned char>(static_cast<unsigned char>(major) << 5);
  const auto with = [&](unsigned char argument, int bytes) {
    *to = static_cast<char>(type | argument);
    return write_big_endian(to + 1, value, bytes);
  };
  if (value < argument_8) return with(static_cast<unsigned char>(value), 0);
  if (value <= 0xFF) return with(argument_8, 1);
  if (value <= 0xFFFF) return with(argument_16, 2);
  if (value <= 0xFFFF'FFFF) return with(argument_32, 4);
  return with(argument_64, 8);
}

}  // namespace

void append_head(ByteBuffer& out, Major major, std::uint64_t value) {
  out.advance_to(write_head(out.reserve(head_bytes_max), major, value));
}

void append_text(ByteBuffer& out, std::string_view text) {
  const std::size_t bytes = protobuf::utf8_bytes(text);
  char* const to = write_head(out.reserve(head_bytes_max + bytes), Major::text, bytes);
  out.advance_to(protobuf::write_utf8(to, text, bytes));
}

void append_double(ByteBuffer& out, double value) {
  char* const to = out.reserve(head_bytes_max);
  const auto narrow = static_cast<float>(value);
  if (static_cast<double>(narrow) == value) {
    *to = static_cast<char>(simple | argument_32);
    return out.advance_to(write_big_endian(to + 1, std::bit_cast<std::uint32_t>(narrow), 4));
  }
  *to = static_cast<char>(simple | argument_64);
  out.advance_to(write_big_endian(to + 1, std::bit_cast<std::uint64_t>(value), 8));
}

void append_bool(ByteBuffer& out, bool value) {
  out.append(static_cast<char>(simple | (value ? simple_true : simple_false)));
}

}  // namespace spillway::detail::cbor
