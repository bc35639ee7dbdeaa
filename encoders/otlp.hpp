// SPDX-License-Identifier: Apache-2.0
//
// What the three signals of OTLP share (opentelemetry-proto 1.x, common, resource and collector
// messages, read 2026-08): attributes, the resource, and the request that carries a payload's items.
//
// An item is one log record, metric or span, encoded as the field of its scope that it will be. All
// three requests have the same skeleton, so a request is a head and the items as they are:
//
//   Export*ServiceRequest { 1: Resource* { 1: Resource  2: Scope* { 1: scope  2: item ... } } }
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <spillway/buffers/byte_buffer.hpp>
#include <spillway/buffers/payload.hpp>
#include <spillway/encoders/protobuf.hpp>

namespace spillway::detail {

/// Field of a scope that holds its log records, metrics or spans.
inline constexpr std::uint32_t otlp_item_field = 2;

/// The key of an attribute, as it stands in every KeyValue that has it.
class OtlpKey {
 public:
  explicit OtlpKey(std::string_view key);
  /// Field `key`, and the tag of the field `value`.
  std::string_view bytes() const noexcept { return bytes_; }

 private:
  std::string bytes_;
};

// ---- Attributes, each as field `field` (below 16) of the message that has them ----

void append_attribute(ByteBuffer& out, std::uint32_t field, std::string_view key_bytes,
                      std::string_view text);
void append_attribute(ByteBuffer& out, std::uint32_t field, std::string_view key_bytes,
                      std::int64_t value);
/// OTLP's integers are signed; a larger one is written as text, as OpenTelemetry maps such values.
void append_attribute(ByteBuffer& out, std::uint32_t field, std::string_view key_bytes,
                      std::uint64_t value);
void append_attribute(ByteBuffer& out, std::uint32_t field, std::string_view key_bytes,
                      double value);
void append_attribute(ByteBuffer& out, std::uint32_t field, std::string_view key_bytes, bool value);

/// A Resource message of text attributes; empty values are left out.
std::string encode_otlp_resource(std::span<const std::pair<std::string, std::string>> attributes);

/// Appends the request body that carries the payload's items under `resource`.
void append_otlp_request(const Payload& payload, std::string_view resource, ByteBuffer& out);
/// Bytes of that body beside the items, at most.
std::size_t otlp_request_overhead_bytes(std::string_view resource) noexcept;

/// What a server says of a request that it took: how many of its records it refused, and why.
struct OtlpPartialSuccess {
  std::int64_t rejected = 0;
  std::string message;
};
/// Reads an Export*ServiceResponse; what is damaged or absent rejects nothing.
OtlpPartialSuccess read_otlp_response(std::string_view body);
/// The message of a google.rpc.Status, the body of an error; empty when there is none.
std::string read_otlp_status(std::string_view body);

}  // namespace spillway::detail
