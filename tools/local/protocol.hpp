// SPDX-License-Identifier: Apache-2.0
//
// How the services speak HTTP: which request is which operation, and what an error looks like in each
// one's protocol.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <spillway/transport/http.hpp>

namespace spillway::local {

enum class Service : std::uint8_t { monitoring, logs, xray };

/// Also the name in a credential scope.
std::string_view to_string(Service service) noexcept;

/// In which words a service speaks: its own, or OTLP, which all three take.
enum class Protocol : std::uint8_t { monitoring, logs, xray, otlp };
constexpr Protocol protocol_of(Service service) noexcept { return static_cast<Protocol>(service); }

enum class OperationId : std::uint8_t {
  put_metric_data,
  put_log_events,
  create_log_group,
  create_log_stream,
  put_retention_policy,
  describe_log_groups,
  describe_log_streams,
  get_log_events,
  put_trace_segments,
  put_telemetry_records,
  get_sampling_rules,
  get_sampling_targets,
  export_metrics,
  export_logs,
  export_traces,
};

struct Operation {
  OperationId id;
  Service service;
  std::string_view name;
  std::string_view selector;  ///< X-Amz-Target, or for X-Ray and OTLP the path
  std::size_t body_bytes_max;
  bool takes_gzip;
  Protocol protocol = protocol_of(service);
};

/// The operation that a request asks for; nothing when there is none.
const Operation* find_operation(const transport::HttpRequest& request) noexcept;

/// The media type of the protocol's requests and answers.
std::string_view content_type(Protocol protocol) noexcept;
inline constexpr std::string_view otlp_content_type = "application/x-protobuf";

/// What goes back over the connection. `hang_up`: nothing goes back, the connection is closed.
struct Reply {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::vector<transport::HttpHeader> headers{};
  bool hang_up = false;
};

/// A refusal, before it has taken its protocol's form. `code` is the shape's name in the model.
struct ApiError {
  int status = 400;
  std::string code;
  std::string message;
};
/// What a check answers: nothing when all is well.
using Refusal = std::optional<ApiError>;

/// Refusals that every protocol knows, each under its own name and status.
enum class CommonError : std::uint8_t {
  missing_token,
  incomplete_signature,
  unknown_key,
  wrong_signature,
  skewed,
  expired_token,
  throttled,
  internal,
  unavailable,
  unreadable_body,
  too_large,
};
ApiError common_error(Protocol protocol, CommonError error, std::string message);

/// The success of an operation: its JSON in the service's content type.
Reply ok_reply(Service service, std::string body);
Reply error_reply(Protocol protocol, const ApiError& error);
/// Outside of any service: plain JSON with a message.
Reply plain_error(int status, std::string_view message);

}  // namespace spillway::local
