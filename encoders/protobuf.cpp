// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <spillway/encoders/json.hpp>
#include <spillway/encoders/protobuf.hpp>

namespace spillway::detail::protobuf {
namespace {

constexpr std::string_view replacement = "\xEF\xBF\xBD";  // U+FFFD
constexpr std::size_t length_bytes = 2;                   // that begin_nested() leaves

bool is_ascii(std::string_view text) noexcept {
  const char* const from = text.data();
  const std::size_t size = text.size();
  std::uint64_t all = 0;
  std::uint64_t word = 0;
  if (size >= sizeof word) {
    for (std::size_t at = 0; at + sizeof word < size; at += sizeof word) {
      std::memcpy(&word, from + at, sizeof word);
      all |= word;
    }
    std::memcpy(&word, from + size - sizeof word, sizeof word);
    all |= word;
  } else if (size >= 4) {
    std::uint32_t first = 0;
    std::uint32_t last = 0;
    std::memcpy(&first, from, sizeof first);
    std::memcpy(&last, from + size - sizeof last, sizeof last);
    all = first | last;
  } else {
    for (const char c : text) all |= static_cast<unsigned char>(c);
  }
  return (all & 0x8080808080808080U) == 0;
}

char* write_tag(char* to, std::uint32_t field, WireType type) noexcept {
  return write_varint(to, field << 3 | static_cast<std::uint32_t>(type));
}

}  // namespace

std::size_t utf8_bytes(std::string_view text) noexcept {
  if (is_ascii(text)) return text.size();
  std::size_t bytes = 0;
  while (!text.empty()) {
    const Utf8Character character = decode_utf8(text);
    bytes += character.bytes == 0 ? replacement.size() : character.bytes;
    text.remove_prefix(std::max(character.bytes, std::size_t{1}));
  }
  return bytes;
}

char* write_utf8(char* to, std::string_view text, std::size_t bytes) noexcept {
  if (bytes == text.size()) return write_bytes(to, text);
  while (!text.empty()) {
    const Utf8Character character = decode_utf8(text);
    const std::size_t taken = std::max(character.bytes, std::size_t{1});
    to = write_bytes(to, character.bytes == 0 ? replacement : text.substr(0, taken));
    text.remove_prefix(taken);
  }
  return to;
}

void append_varint_field(ByteBuffer& out, std::uint32_t field, std::uint64_t value) {
  char* const to = out.reserve(2 * varint_bytes_max);
  out.advance_to(write_varint(write_tag(to, field, WireType::varint), value));
}

void append_fixed64_field(ByteBuffer& out, std::uint32_t field, std::uint64_t value) {
  char* const to = out.reserve(varint_bytes_max + sizeof value);
  out.advance_to(write_fixed64(write_tag(to, field, WireType::fixed64), value));
}

void append_string_field(ByteBuffer& out, std::uint32_t field, std::string_view text) {
  const std::size_t bytes = utf8_bytes(text);
  char* const to = out.reserve(2 * varint_bytes_max + bytes);
  out.advance_to(
      write_utf8(write_varint(write_tag(to, field, WireType::length), bytes), text, bytes));
}

void append_bytes_field(ByteBuffer& out, std::uint32_t field, std::string_view bytes) {
  char* const to = out.reserve(2 * varint_bytes_max + bytes.size());
  out.advance_to(
      write_bytes(write_varint(write_tag(to, field, WireType::length), bytes.size()), bytes));
}

void end_nested(ByteBuffer& out, std::size_t body) {
  const std::size_t bytes = out.size() - body;
  const std::size_t wanted = varint_bytes(bytes);
  char* const end = out.reserve(varint_bytes_max);
  char* const length = end - bytes - length_bytes;
  if (wanted != length_bytes) {
    std::memmove(length + wanted, length + length_bytes, bytes);
    out.advance_to(length + wanted + bytes);
  }
  write_varint(length, bytes);
}

bool Reader::read_varint(std::uint64_t& value) noexcept {
  value = 0;
  for (std::size_t i = 0; i < rest_.size() && i < varint_bytes_max; ++i) {
    const auto byte = static_cast<unsigned char>(rest_[i]);
    value |= std::uint64_t{byte & 0x7FU} << (7 * i);
    if (byte >= 0x80) continue;
    rest_.remove_prefix(i + 1);
    return true;
  }
  return false;
}

bool Reader::next() noexcept {
  if (rest_.empty()) return false;
  std::uint64_t key = 0;
  if (!read_varint(key) || key >> 3 == 0 || key >> 32 != 0) return stop();
  field_ = static_cast<std::uint32_t>(key >> 3);
  type_ = static_cast<WireType>(key & 7U);
  number_ = 0;
  bytes_ = {};
  const auto take_fixed = [this](std::size_t bytes) {
    if (rest_.size() < bytes) return stop();
    std::memcpy(&number_, rest_.data(), bytes);
    rest_.remove_prefix(bytes);
    return true;
  };
  switch (type_) {
    case WireType::varint:
      return read_varint(number_) || stop();
    case WireType::fixed64:
      return take_fixed(8);
    case WireType::fixed32:
      return take_fixed(4);
    case WireType::length: {
      std::uint64_t bytes = 0;
      if (!read_varint(bytes) || bytes > rest_.size()) return stop();
      bytes_ = rest_.substr(0, bytes);
      rest_.remove_prefix(bytes);
      return true;
    }
  }
  return stop();  // A group, or a type that there is not.
}

}  // namespace spillway::detail::protobuf
