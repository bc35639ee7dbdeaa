// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <limits>

#include <spillway/encoders/json.hpp>
#include <spillway/encoders/otlp.hpp>

namespace spillway::detail {

using namespace protobuf;

namespace {

// Fields of AnyValue.
constexpr std::uint32_t string_value = 1;
constexpr std::uint32_t bool_value = 2;
constexpr std::uint32_t int_value = 3;
constexpr std::uint32_t double_value = 4;

constexpr std::string_view scope_name = "spillway";
constexpr std::string_view scope_version = "0.1.0";

// Scope { 1: name  2: version }, as field 1 of the Scope* message.
std::string_view scope_bytes() {
  static const std::string bytes = [] {
    ByteBuffer scope;
    append_string_field(scope, 1, scope_name);
    append_string_field(scope, 2, scope_version);
    ByteBuffer field;
    append_bytes_field(field, 1, scope.view());
    return std::string(field.view());
  }();
  return bytes;
}

// The head of a KeyValue whose AnyValue has `value_bytes` bytes, all below 2^32; room for all of it
// is reserved.
char* begin_attribute(ByteBuffer& out, std::uint32_t field, std::string_view key_bytes,
                      std::size_t value_bytes) {
  const std::size_t bytes = key_bytes.size() + varint_bytes(value_bytes) + value_bytes;
  char* to = out.reserve(1 + varint_bytes_max + bytes);
  *to++ = length_tag(field);
  to = write_bytes(write_varint(to, bytes), key_bytes);
  return write_varint(to, value_bytes);
}

}  // namespace

OtlpKey::OtlpKey(std::string_view key) {
  ByteBuffer bytes;
  append_string_field(bytes, 1, key);
  bytes.append(length_tag(2));
  bytes_ = bytes.view();
}

void append_attribute(ByteBuffer& out, std::uint32_t field, std::string_view key_bytes,
                      std::string_view text) {
  const std::size_t bytes = utf8_bytes(text);
  char* to = begin_attribute(out, field, key_bytes, 1 + varint_bytes(bytes) + bytes);
  *to++ = length_tag(string_value);
  out.advance_to(write_utf8(write_varint(to, bytes), text, bytes));
}

void append_attribute(ByteBuffer& out, std::uint32_t field, std::string_view key_bytes,
                      std::int64_t value) {
  const auto bits = static_cast<std::uint64_t>(value);
  char* to = begin_attribute(out, field, key_bytes, 1 + varint_bytes(bits));
  *to++ = varint_tag(int_value);
  out.advance_to(write_varint(to, bits));
}

void append_attribute(ByteBuffer& out, std::uint32_t field, std::string_view key_bytes,
                      std::uint64_t value) {
  if (value <= std::uint64_t{std::numeric_limits<std::int64_t>::max()}) {
    return append_attribute(out, field, key_bytes, static_cast<std::int64_t>(value));
  }
  std::array<char, 20> digits{};
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
  append_attribute(out, field, key_bytes,
                   std::string_view(digits.data(), static_cast<std::size_t>(end - digits.data())));
}

void append_attribute(ByteBuffer& out, std::uint32_t field, std::string_view key_bytes,
                      double value) {
  char* to = begin_attribute(out, field, key_bytes, 9);
  *to++ = fixed64_tag(double_value);
  out.advance_to(write_fixed64(to, std::bit_cast<std::uint64_t>(value)));
}

void append_attribute(ByteBuffer& out, std::uint32_t field, std::string_view key_bytes,
                      bool value) {
  char* to = begin_attribute(out, field, key_bytes, 2);
  *to++ = varint_tag(bool_value);
  *to++ = value ? 1 : 0;
  out.advance_to(to);
}

std::string encode_otlp_resource(std::span<const std::pair<std::string, std::string>> attributes) {
  ByteBuffer out;
  for (const auto& [key, value] : attributes) {
    if (!value.empty()) append_attribute(out, 1, OtlpKey(key).bytes(), std::string_view(value));
  }
  return std::string(out.view());
}

void append_otlp_request(const Payload& payload, std::string_view resource, ByteBuffer& out) {
  std::size_t item_bytes = 0;
  for (const PayloadItem& item : payload.items) item_bytes += item.bytes;
  const std::string_view scope = scope_bytes();
  const std::size_t in_scope = scope.size() + item_bytes;
  const std::size_t in_resource =
      1 + varint_bytes(resource.size()) + resource.size() + 1 + varint_bytes(in_scope) + in_scope;
  char* to = out.reserve(in_resource + 2 * varint_bytes_max);
  *to++ = length_tag(1);
  to = write_varint(to, in_resource);
  *to++ = length_tag(1);
  to = write_bytes(write_varint(to, resource.size()), resource);
  *to++ = length_tag(2);
  to = write_bytes(write_varint(to, in_scope), scope);
  // Neighbours in the payload go as one piece.
  for (std::size_t i = 0; i < payload.items.size();) {
    const std::size_t first = payload.items[i].offset;
    std::size_t end = first;
    for (; i < payload.items.size() && payload.items[i].offset == end; ++i) {
      end += payload.items[i].bytes;
    }
    to = write_bytes(to, payload.bytes.view(first, end - first));
  }
  out.advance_to(to);
}

std::size_t otlp_request_overhead_bytes(std::string_view resource) noexcept {
  return resource.size() + scope_bytes().size() + 3 * (1 + varint_bytes_max);
}

OtlpPartialSuccess read_otlp_response(std::string_view body) {
  OtlpPartialSuccess result;
  for (Reader response(body); response.next();) {
    if (response.field() != 1 || response.type() != WireType::length) continue;
    for (Reader partial(response.bytes()); partial.next();) {
      if (partial.field() == 1 && partial.type() == WireType::varint) {
        result.rejected = std::max(static_cast<std::int64_t>(partial.number()), std::int64_t{0});
      } else if (partial.field() == 2) {
        result.message = partial.bytes();
      }
    }
  }
  return result;
}

std::string read_otlp_status(std::string_view body) {
  std::string message;
  for (Reader status(body); status.next();) {
    if (status.field() == 2 && status.type() == WireType::length) message = status.bytes();
  }
  return message;
}

}  // namespace spillway::detail
