// SPDX-License-Identifier: Apache-2.0
#include "local/protocol.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "local/json.hpp"
#include "local/limits.hpp"
#include <spillway/encoders/protobuf.hpp>
#include <spillway/transport/text.hpp>

namespace spillway::local {
namespace {

using limits::inflated_bytes_max;
using limits::log_body_bytes_max;
using limits::metric_body_bytes_max;
using limits::otlp_logs_bytes_max;
using limits::otlp_traces_bytes_max;
using limits::trace_body_bytes_max;

constexpr std::array<Operation, 15> operations{{
    {OperationId::put_metric_data, Service::monitoring, "PutMetricData",
     "GraniteServiceVersion20100801.PutMetricData", metric_body_bytes_max, true},
    // gzip is not in the model of Logs, but AWS's own CloudWatch agent sends it.
    {OperationId::put_log_events, Service::logs, "PutLogEvents", "Logs_20140328.PutLogEvents",
     log_body_bytes_max, true},
    {OperationId::create_log_group, Service::logs, "CreateLogGroup", "Logs_20140328.CreateLogGroup",
     log_body_bytes_max, false},
    {OperationId::create_log_stream, Service::logs, "CreateLogStream",
     "Logs_20140328.CreateLogStream", log_body_bytes_max, false},
    {OperationId::put_retention_policy, Service::logs, "PutRetentionPolicy",
     "Logs_20140328.PutRetentionPolicy", log_body_bytes_max, false},
    {OperationId::describe_log_groups, Service::logs, "DescribeLogGroups",
     "Logs_20140328.DescribeLogGroups", log_body_bytes_max, false},
    {OperationId::describe_log_streams, Service::logs, "DescribeLogStreams",
     "Logs_20140328.DescribeLogStreams", log_body_bytes_max, false},
    {OperationId::get_log_events, Service::logs, "GetLogEvents", "Logs_20140328.GetLogEvents",
     log_body_bytes_max, false},
    {OperationId::put_trace_segments, Service::xray, "PutTraceSegments", "/TraceSegments",
     trace_body_bytes_max, false},
    {OperationId::put_telemetry_records, Service::xray, "PutTelemetryRecords", "/TelemetryRecords",
     trace_body_bytes_max, false},
    {OperationId::get_sampling_rules, Service::xray, "GetSamplingRules", "/GetSamplingRules",
     trace_body_bytes_max, false},
    {OperationId::get_sampling_targets, Service::xray, "GetSamplingTargets", "/SamplingTargets",
     trace_body_bytes_max, false},
    // OTLP/HTTP, "Binary Protobuf Encoding": the default paths.
    {OperationId::export_metrics, Service::monitoring, "ExportMetrics", "/v1/metrics",
     inflated_bytes_max, true, Protocol::otlp},
    {OperationId::export_logs, Service::logs, "ExportLogs", "/v1/logs", otlp_logs_bytes_max, true,
     Protocol::otlp},
    {OperationId::export_traces, Service::xray, "ExportTraces", "/v1/traces", otlp_traces_bytes_max,
     true, Protocol::otlp},
}};

struct CommonForm {
  int status;
  std::string_view code;
};

// By CommonError, then by Protocol. CloudWatch keeps the codes of its Query days (its model says
// awsQueryCompatible) and 403; Logs answers 400 with shape names; X-Ray, a REST protocol, 403 with
// shape names. Codes: the common errors in each service's API reference. OTLP has statuses alone
// (OTLP/HTTP, "Failures"); its codes here are for the counts.
constexpr std::array<std::array<CommonForm, 4>, 11> common_forms{{
    {{{403, "MissingAuthenticationToken"},
      {400, "MissingAuthenticationTokenException"},
      {403, "MissingAuthenticationTokenException"},
      {403, "MissingAuthenticationToken"}}},
    {{{400, "IncompleteSignature"},
      {400, "IncompleteSignatureException"},
      {403, "IncompleteSignatureException"},
      {403, "IncompleteSignature"}}},
    {{{403, "InvalidClientTokenId"},
      {400, "UnrecognizedClientException"},
      {403, "UnrecognizedClientException"},
      {403, "UnrecognizedClient"}}},
    {{{403, "SignatureDoesNotMatch"},
      {400, "InvalidSignatureException"},
      {403, "InvalidSignatureException"},
      {403, "InvalidSignature"}}},
    {{{403, "RequestExpired"},
      {400, "InvalidSignatureException"},
      {403, "InvalidSignatureException"},
      {403, "InvalidSignature"}}},
    {{{403, "ExpiredToken"},
      {400, "ExpiredTokenException"},
      {403, "ExpiredTokenException"},
      {403, "ExpiredToken"}}},
    {{{400, "ThrottlingException"},
      {400, "ThrottlingException"},
      {429, "ThrottledException"},
      {429, "Throttled"}}},
    {{{500, "InternalServiceFault"},
      {500, "InternalFailure"},
      {500, "InternalFailure"},
      {500, "InternalFailure"}}},
    {{{503, "ServiceUnavailable"},
      {503, "ServiceUnavailableException"},
      {503, "ServiceUnavailable"},
      {503, "ServiceUnavailable"}}},
    {{{400, "SerializationException"},
      {400, "SerializationException"},
      {400, "InvalidRequestException"},
      {400, "InvalidProtobuf"}}},
    {{{413, "RequestEntityTooLarge"},
      {413, "RequestEntityTooLargeException"},
      {413, "RequestEntityTooLargeException"},
      {413, "RequestTooLarge"}}},
}};

// The Query code that a JSON client of CloudWatch finds in x-amzn-query-error (model, error.code).
std::string_view query_code(std::string_view code) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 5> aliases{{
      {"InvalidParameterValueException", "InvalidParameterValue"},
      {"MissingRequiredParameterException", "MissingParameter"},
      {"InvalidParameterCombinationException", "InvalidParameterCombination"},
      {"InternalServiceFault", "InternalServiceError"},
      {"ThrottlingException", "Throttling"},
  }};
  for (const auto& [shape, alias] : aliases) {
    if (shape == code) return alias;
  }
  return code;
}

// A google.rpc.Status, the body of OTLP's errors: { 1: code  2: message }.
std::string rpc_status(const ApiError& error) {
  constexpr std::array<std::pair<int, std::uint64_t>, 6> codes{
      {{400, 3}, {403, 7}, {404, 5}, {413, 8}, {429, 8}, {503, 14}}};
  std::uint64_t code = error.status == 415 ? 3 : 13;
  for (const auto& [status, known] : codes) {
    if (status == error.status) code = known;
  }
  detail::ByteBuffer body;
  detail::protobuf::append_varint_field(body, 1, code);
  detail::protobuf::append_string_field(body, 2, error.code + ": " + error.message);
  return std::string(body.view());
}

}  // namespace

std::string_view to_string(Service service) noexcept {
  constexpr std::array<std::string_view, 3> names{"monitoring", "logs", "xray"};
  return names[static_cast<std::size_t>(service)];
}

std::string_view content_type(Protocol protocol) noexcept {
  switch (protocol) {
    case Protocol::monitoring:
      return "application/x-amz-json-1.0";
    case Protocol::logs:
      return "application/x-amz-json-1.1";
    case Protocol::otlp:
      return otlp_content_type;
    case Protocol::xray:
      break;
  }
  return "application/json";
}

const Operation* find_operation(const transport::HttpRequest& request) noexcept {
  if (request.method != "POST") return nullptr;
  const std::string_view selector =
      request.path == "/" ? transport::find_header(request.headers, "x-amz-target") : request.path;
  const auto* const found =
      std::find_if(operations.begin(), operations.end(),
                   [&](const Operation& operation) { return operation.selector == selector; });
  return found == operations.end() ? nullptr : found;
}

ApiError common_error(Protocol protocol, CommonError error, std::string message) {
  const CommonForm& form =
      common_forms[static_cast<std::size_t>(error)][static_cast<std::size_t>(protocol)];
  return {form.status, std::string(form.code), std::move(message)};
}

Reply ok_reply(Service service, std::string body) {
  return {200, std::string(content_type(protocol_of(service))), std::move(body)};
}

Reply error_reply(Protocol protocol, const ApiError& error) {
  Reply reply{error.status, std::string(content_type(protocol)), {}};
  if (protocol == Protocol::otlp) {
    reply.body = rpc_status(error);
    return reply;
  }
  JsonWriter json;
  json.begin_object();
  if (protocol == Protocol::xray) {
    reply.headers.push_back({"x-amzn-ErrorType", error.code});
  } else {
    // With and without a namespace before the name: clients meet both.
    const std::string prefix = protocol == Protocol::monitoring ? "com.amazonaws.cloudwatch#" : "";
    json.field("__type", prefix + error.code);
  }
  if (protocol == Protocol::monitoring) {
    std::string query_error(query_code(error.code));
    query_error += error.status < 500 ? ";Sender" : ";Receiver";
    reply.headers.push_back({"x-amzn-query-error", std::move(query_error)});
  }
  json.field("message", error.message).end_object();
  reply.body = json.take();
  return reply;
}

Reply plain_error(int status, std::string_view message) {
  JsonWriter json;
  json.begin_object().field("message", message).end_object();
  return {status, "application/json", json.take()};
}

}  // namespace spillway::local
