// SPDX-License-Identifier: Apache-2.0
//
// What a span can be told about itself, as X-Ray's segment documents have it (X-Ray developer guide,
// "AWS X-Ray segment documents"). Values to pass to Span and Engine::span(): everything in them is
// read before the call returns. Empty fields are left out.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include <spillway/buffers/static_name.hpp>

namespace spillway {

/// The request of an http block.
struct HttpRequestFields {
  std::string_view method{};
  std::string_view url{};  ///< scheme, host and path
  std::string_view user_agent{};
  std::string_view client_ip{};
  bool x_forwarded_for = false;  ///< client_ip came from a header and may be forged
  bool traced = false;           ///< of a call: the other side records a segment too
};

/// A call to an AWS service: the aws block of a subsegment.
struct AwsCallFields {
  std::string_view operation{};  ///< "UpdateItem"
  std::string_view region{};     ///< when it is not our own
  std::string_view account_id{};
  std::string_view request_id{};
  std::string_view table_name{};
  std::string_view queue_url{};
  std::span<const std::string_view> table_names{};
  std::span<const std::string_view> resource_names{};
  int retries = -1;  ///< below 0: not known
};

/// A call to an SQL database.
struct SqlFields {
  std::string_view url{};                ///< without user and password
  std::string_view connection_string{};  ///< where there is no URL; without secrets
  std::string_view sanitized_query{};    ///< with placeholders for the values
  std::string_view database_type{};
  std::string_view database_version{};
  std::string_view driver_version{};
  std::string_view user{};
  std::string_view preparation{};  ///< "call" or "statement"
};

struct StackFrame {
  std::string_view path{};
  std::uint32_t line = 0;
  std::string_view label{};  ///< the function
};

struct ExceptionFields {
  std::string_view type{};
  std::string_view message{};
  bool remote = false;                  ///< it came from another service
  std::span<const StackFrame> stack{};  ///< innermost first; cut at stack_frames_max
  std::uint32_t frames_skipped = 0;     ///< between this and what called it, on purpose
  std::uint64_t caused_by = 0;          ///< id of the exception that led to this one; 0: none
};
inline constexpr std::size_t stack_frames_max = 32;      // Ours: a document is 64 KB.
inline constexpr std::size_t nested_exceptions_max = 8;  // Ours.

/// Where the program was when a span failed.
struct CauseFields {
  std::string_view working_directory{};
  std::span<const std::string_view> paths{};  ///< of the modules in use
};

struct LinkAttribute {
  StaticName key;
  std::string_view value;
};

/// What sampling rules look at, of the request that a trace begins with. Empty: not known, and matched
/// by any pattern.
struct SamplingRequest {
  std::string_view host{};
  std::string_view method{};
  std::string_view path{};
};

}  // namespace spillway
