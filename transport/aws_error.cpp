// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>

#include <simdjson.h>

#include <spillway/transport/aws_error.hpp>
#include <spillway/transport/text.hpp>

namespace spillway::transport {
namespace {

constexpr std::size_t message_chars_max = 500;

// "com.amazonaws.logs#Foo:http://..." is Foo.
std::string bare_code(std::string_view code) {
  code = code.substr(0, code.find(':'));
  const std::size_t hash = code.rfind('#');
  return std::string(trim(hash == std::string_view::npos ? code : code.substr(hash + 1)));
}

std::string_view between(std::string_view text, std::string_view open, std::string_view close) {
  const std::size_t begin = text.find(open);
  if (begin == std::string_view::npos) return {};
  text.remove_prefix(begin + open.size());
  return text.substr(0, std::min(text.find(close), text.size()));
}

// The text that stands behind a key in a CBOR map (RFC 8949, major type 3), for the short maps that
// errors are. Empty: there is none.
std::string_view cbor_text(std::string_view map, std::string_view key) {
  constexpr unsigned text = 3 << 5;
  constexpr unsigned length_inside_max = 23;
  const std::string pattern = std::string(1, static_cast<char>(text + key.size())).append(key);
  const std::size_t at = map.find(pattern);
  if (at == std::string_view::npos) return {};
  map.remove_prefix(at + pattern.size());
  const auto byte = [&](std::size_t i) -> unsigned {
    return i < map.size() ? static_cast<unsigned char>(map[i]) : 0;
  };
  if (byte(0) >= text && byte(0) <= text + length_inside_max) {
    return map.substr(1, byte(0) - text);
  }
  if (byte(0) == text + length_inside_max + 1) return map.size() < 2 ? "" : map.substr(2, byte(1));
  if (byte(0) == text + length_inside_max + 2) {
    return map.size() < 3 ? "" : map.substr(3, byte(1) << 8 | byte(2));
  }
  return {};
}

template <std::size_t count>
bool contains(const std::array<std::string_view, count>& list, std::string_view code) {
  return std::find(list.begin(), list.end(), code) != list.end();
}

constexpr std::array<std::string_view, 16> throttling_codes{
    "Throttling", "ThrottlingException", "ThrottledException", "RequestThrottledException",
    "RequestThrottled", "TooManyRequestsException", "ProvisionedThroughputExceededException",
    "TransactionInProgressException", "RequestLimitExceeded", "BandwidthLimitExceeded",
    "LimitExceededException",
    // CloudWatch's own; its agent retries them too.
    "LimitExceeded", "LimitExceededFault", "SlowDown", "PriorRequestNotComplete",
    "EC2ThrottledException"};

constexpr std::array<std::string_view, 20> credential_codes{"ExpiredToken",
                                                            "ExpiredTokenException",
                                                            "TokenRefreshRequired",
                                                            "InvalidClientTokenId",
                                                            "UnrecognizedClientException",
                                                            "UnrecognizedClient",
                                                            "InvalidAccessKeyId",
                                                            "InvalidSignatureException",
                                                            "SignatureDoesNotMatch",
                                                            "IncompleteSignature",
                                                            "IncompleteSignatureException",
                                                            "MissingAuthenticationToken",
                                                            "MissingAuthenticationTokenException",
                                                            "AccessDenied",
                                                            "AccessDeniedException",
                                                            "AuthFailure",
                                                            "NotAuthorized",
                                                            "RequestExpired",
                                                            "RequestTimeTooSkewed",
                                                            "RequestInTheFuture"};

constexpr std::array<std::string_view, 3> transient_codes{
    "RequestTimeout", "RequestTimeoutException", "IDPCommunicationError"};

constexpr std::array<std::string_view, 6> clock_skew_codes{
    "RequestTimeTooSkewed",      "RequestExpired",        "RequestInTheFuture",
    "InvalidSignatureException", "SignatureDoesNotMatch", "AuthFailure"};

}  // namespace

AwsError parse_aws_error(const HttpResponse& response) {
  AwsError error{bare_code(find_header(response.headers, "x-amzn-errortype")), {}};
  simdjson::dom::parser parser;
  simdjson::dom::element body;
  if (parser.parse(response.body).get(body) == simdjson::SUCCESS) {
    std::string_view text;
    for (const char* const key : {"__type", "code"}) {
      if (error.code.empty() && body[key].get(text) == simdjson::SUCCESS)
        error.code = bare_code(text);
    }
    for (const char* const key : {"message", "Message"}) {
      if (error.message.empty() && body[key].get(text) == simdjson::SUCCESS) error.message = text;
    }
  } else if (find_header(response.headers, "smithy-protocol") == "rpc-v2-cbor") {
    if (error.code.empty()) error.code = bare_code(cbor_text(response.body, "__type"));
    for (const char* const key : {"message", "Message"}) {
      if (error.message.empty()) error.message = cbor_text(response.body, key);
    }
  } else if (trim(response.body).starts_with('<')) {
    if (error.code.empty()) error.code = bare_code(between(response.body, "<Code>", "</Code>"));
    error.message = between(response.body, "<Message>", "</Message>");
  }
  error.message.resize(std::min(error.message.size(), message_chars_max));
  return error;
}

bool is_throttling(std::string_view code) noexcept { return contains(throttling_codes, code); }

Failure classify(const HttpResponse& response, const AwsError& error) noexcept {
  if (response.outcome == HttpOutcome::refused_locally) return Failure::request;
  if (response.outcome != HttpOutcome::answered) return Failure::transient;
  if (response.status >= 200 && response.status < 300) return Failure::none;
  if (is_throttling(error.code) || response.status == 429) return Failure::throttled;
  if (contains(transient_codes, error.code) || response.status == 408 || response.status >= 500) {
    return Failure::transient;
  }
  if (contains(credential_codes, error.code) || response.status == 401 || response.status == 403) {
    return Failure::credentials;
  }
  return response.status == 413 ? Failure::too_large : Failure::request;
}

bool may_be_clock_skew(const AwsError& error) noexcept {
  return contains(clock_skew_codes, error.code);
}

std::optional<std::chrono::milliseconds> retry_after(const HttpResponse& response) noexcept {
  constexpr std::int64_t longest_ms = 3'600'000;
  const auto asked = [&](const char* name,
                         std::int64_t unit_ms) -> std::optional<std::chrono::milliseconds> {
    const std::string_view text = trim(find_header(response.headers, name));
    if (text.empty() || text.find_first_not_of("0123456789") != std::string_view::npos) {
      return std::nullopt;
    }
    // More digits than a number holds are more than an hour.
    const auto value = parse_number<std::int64_t>(text).value_or(longest_ms);
    return std::chrono::milliseconds(std::min(value, longest_ms / unit_ms) * unit_ms);
  };
  if (const auto wait = asked("x-amz-retry-after", 1)) return wait;
  return asked("retry-after", 1000);
}

}  // namespace spillway::transport
