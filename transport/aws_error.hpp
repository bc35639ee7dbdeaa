// SPDX-License-Identifier: Apache-2.0
//
// What an AWS service says went wrong, and what kind of wrong it is. Sources: Smithy's awsJson and
// restJson protocols, botocore's retries/standard.py and the services' API references, read
// 2026-08.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <spillway/transport/http.hpp>

namespace spillway::transport {

struct AwsError {
  std::string
      code;  ///< "ThrottlingException", without namespace or URL; empty when the body names none
  std::string message;  ///< the service's words, at most 500 characters
};

/// Reads the error of a response that is not 2xx: header x-amzn-errortype, body `__type` or `code`
/// in JSON, `<Code>` in XML.
AwsError parse_aws_error(const HttpResponse& response);

enum class Failure : std::uint8_t {
  none,
  transient,    ///< 5xx, a connection that failed or broke: try again
  throttled,    ///< slow down, then try again
  credentials,  ///< missing, expired, wrong, or without permission
  too_large,    ///< send less at once
  request       ///< the request itself is at fault: as it is, it will never be taken
};

/// Whether the code says to slow down.
bool is_throttling(std::string_view code) noexcept;

/// The kind of a response's failure; `none` for 2xx.
Failure classify(const HttpResponse& response, const AwsError& error) noexcept;

/// Whether the answer may come from a clock that is wrong.
bool may_be_clock_skew(const AwsError& error) noexcept;

/// How long the server asks to wait: x-amz-retry-after (ms) or Retry-After (whole seconds).
/// At most an hour, however much is asked; negative and unreadable values are no answer.
std::optional<std::chrono::milliseconds> retry_after(const HttpResponse& response) noexcept;

}  // namespace spillway::transport
