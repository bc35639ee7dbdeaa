// SPDX-License-Identifier: Apache-2.0
//
// The messages of OTLP (opentelemetry-proto 1.10: collector, common, resource, metrics, logs and
// trace, read 2026-11) as tables, and a check of bytes against them that is stricter than a parser
// of protobuf has to be: an encoder that writes what the tables do not have is wrong.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace spillway::local {

enum class ProtoType : std::uint8_t {
  boolean,
  int32,
  int64,
  uint32,
  uint64,
  sint32,
  enumeration,
  fixed32,
  fixed64,
  real,  ///< double
  string,
  bytes,
  message,
};

struct ProtoMessage;

struct ProtoField {
  std::uint32_t number;
  std::string_view name;
  ProtoType type;
  bool repeated = false;
  const ProtoMessage* message = nullptr;
  std::uint32_t enum_max = 0;  ///< enumerations here have every value from 0 to this one
  bool in_oneof = false;       ///< a message here has one oneof at most
};

struct ProtoMessage {
  std::string_view name;
  std::span<const ProtoField> fields;
};

extern const ProtoMessage otlp_metrics_request;
extern const ProtoMessage otlp_logs_request;
extern const ProtoMessage otlp_traces_request;

/// What is wrong with `bytes` as a message, and where: "resource_spans[0].scope_spans[0].spans[3]
/// .start_time_unix_nano: is a varint, must be a fixed64". Nothing when every field is one of the
/// message's, of its wire type and in its range, every string is UTF-8, a field that is not repeated
/// and a oneof stand once at most, and nothing is nested deeper than parsers go.
std::optional<std::string> find_proto_error(std::string_view bytes, const ProtoMessage& message);

}  // namespace spillway::local
