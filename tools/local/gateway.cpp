// SPDX-License-Identifier: Apache-2.0
#include "local/gateway.hpp"

#include <utility>
#include <variant>

#include "local/gzip.hpp"
#include "local/limits.hpp"
#include <spillway/transport/text.hpp>

namespace spillway::local {
namespace {

using std::chrono::system_clock;
using transport::equal_without_case;
using transport::find_header;
using transport::HttpRequest;

// Whether a Host header names this machine. A web page whose name was made to resolve to 127.0.0.1
// (DNS rebinding) still sends its own name here.
bool is_local_host(std::string_view host, std::string_view own_address) {
  const std::size_t bracket = host.find(']');
  const std::size_t colon = host.find(':', bracket == std::string_view::npos ? 0 : bracket);
  if (colon != std::string_view::npos &&
      !transport::parse_number<std::uint16_t>(host.substr(colon + 1))) {
    return false;
  }
  const std::string_view name = host.substr(0, colon);
  return name == "127.0.0.1" || equal_without_case(name, "localhost") || name == "[::1]" ||
         name == own_address;
}

// Whether the media type is the one that the protocol asks for, whatever its parameters.
bool has_content_type(const HttpRequest& request, std::string_view wanted) {
  const std::string_view given = find_header(request.headers, "content-type");
  return equal_without_case(transport::trim(given.substr(0, given.find(';'))), wanted);
}

// Why a request that no operation matches was not understood, as precisely as can be said.
std::string unknown_message(const HttpRequest& request) {
  if (request.path.starts_with("/service/")) {
    return "This receiver does not speak the RPC v2 CBOR protocol: use AWS JSON 1.0.";
  }
  if (has_content_type(request, "application/x-www-form-urlencoded")) {
    return "This receiver does not speak the Query protocol: use AWS JSON 1.0.";
  }
  return "There is no such operation here: path '" + request.path + "', X-Amz-Target '" +
         std::string(find_header(request.headers, "x-amz-target")) + "'.";
}

// Whose error form an unknown operation gets.
Service guess_service(const HttpRequest& request) {
  const std::string_view target = find_header(request.headers, "x-amz-target");
  if (target.starts_with("GraniteServiceVersion")) return Service::monitoring;
  return target.starts_with("Logs_") ? Service::logs : Service::xray;
}

// The failures that a fault can order in place of an answer.
Refusal ordered_failure(const Fault& fault, Protocol protocol) {
  switch (fault.kind) {
    case FaultKind::throttle:
      return common_error(protocol, CommonError::throttled, "Rate exceeded");
    case FaultKind::error_500:
      return common_error(protocol, CommonError::internal, "An internal error was ordered.");
    case FaultKind::error_503:
      return common_error(protocol, CommonError::unavailable, "The service was ordered away.");
    case FaultKind::expired_token:
      return common_error(protocol, CommonError::expired_token,
                          "The security token included in the request is expired");
    default:
      return std::nullopt;
  }
}

void add_retry_hints(const Fault& fault, Reply& reply) {
  if (!fault.retry_after_ms.empty()) {
    reply.headers.push_back({"x-amz-retry-after", fault.retry_after_ms});
  }
  if (!fault.retry_after.empty()) reply.headers.push_back({"Retry-After", fault.retry_after});
}

Reply hang_up() {
  Reply reply;
  reply.hang_up = true;
  return reply;
}

Answer dispatch(const Operation& operation, const Call& call) {
  switch (operation.service) {
    case Service::monitoring:
      return call_monitoring(call);
    case Service::logs:
      return call_logs(call);
    case Service::xray:
      break;
  }
  return call_xray(call);
}

}  // namespace

Gateway::Gateway(const Options& options, Store& store, FaultBox& faults)
    : clock_(options.clock ? options.clock : [] { return system_clock::now(); }),
      address_(options.host),
      check_signatures_(options.check_signatures),
      verifier_(options.credentials),
      store_(store),
      faults_(faults),
      control_(store, faults) {}

std::optional<Reply> Gateway::screen(const HttpRequest& head,
                                     std::optional<std::uint64_t> body_bytes) {
  const std::string_view host = find_header(head.headers, "host");
  if (!is_local_host(host, address_)) {
    return plain_error(403, "Host '" + std::string(host) +
                                "' is not this machine: use 127.0.0.1, localhost or [::1].");
  }
  // Only browsers send it, and no page of ours makes them.
  if (!find_header(head.headers, "origin").empty()) {
    return plain_error(403, "Requests from web pages are not taken.");
  }
  if (body_bytes && *body_bytes > body_bytes_max(head)) return too_large(head);
  if (Control::is_for(head)) return std::nullopt;
  if (head.method != "POST") return plain_error(405, "Every operation here is a POST.");
  if (find_operation(head) == nullptr) {
    return refuse_unknown(head);
  }
  return std::nullopt;
}

std::size_t Gateway::body_bytes_max(const HttpRequest& head) noexcept {
  const Operation* const operation = find_operation(head);
  return operation == nullptr ? limits::control_body_bytes_max : operation->body_bytes_max;
}

Reply Gateway::too_large(const HttpRequest& head) {
  const std::string message =
      "The body may have " + std::to_string(body_bytes_max(head)) + " bytes.";
  const Operation* const operation = find_operation(head);
  if (operation == nullptr) return plain_error(413, message);
  const ApiError error = common_error(operation->protocol, CommonError::too_large, message);
  count_request(operation->name, error.status);
  return refuse(operation->protocol, error);
}

Gateway::Outcome Gateway::handle(const HttpRequest& request, Workspace& workspace) {
  if (Control::is_for(request)) return {control_.answer(request)};
  const Operation* const operation = find_operation(request);
  if (operation == nullptr) return {refuse_unknown(request)};
  {
    const std::scoped_lock lock(store_.mutex);
    store_.statistics.body_bytes += request.body.size();
  }
  const FaultPlan plan = faults_.plan(to_string(operation->service), operation->name);
  Outcome outcome{carry_out(*operation, request, plan, workspace), plan.delay, plan.skew};
  if (plan.verdict && plan.verdict->kind == FaultKind::lost_response) outcome.reply = hang_up();
  count_request(operation->name, outcome.reply.hang_up ? 0 : outcome.reply.status);
  return outcome;
}

Reply Gateway::carry_out(const Operation& operation, const HttpRequest& request,
                         const FaultPlan& plan, Workspace& workspace) {
  const Service service = operation.service;
  const Protocol protocol = operation.protocol;
  const auto fail = [&](const ApiError& error) { return refuse(protocol, error); };
  if (plan.verdict && plan.verdict->kind == FaultKind::refuse) return hang_up();
  const auto now = clock_();
  // OTLP comes unsigned too, as to a collector.
  const bool is_signed = find_header(request.headers, "authorization").starts_with("AWS4-");
  if (check_signatures_ && (protocol != Protocol::otlp || is_signed)) {
    if (const auto refusal = verifier_.refuse(request, service, protocol, now + plan.skew)) {
      return fail(*refusal);
    }
  }
  if (plan.verdict) {
    if (const auto failure = ordered_failure(*plan.verdict, protocol)) {
      Reply reply = fail(*failure);
      add_retry_hints(*plan.verdict, reply);
      return reply;
    }
  }
  const std::string_view media_type = content_type(protocol);
  if (protocol != Protocol::xray && !has_content_type(request, media_type)) {
    const bool otlp = protocol == Protocol::otlp;
    return fail({otlp ? 415 : 400, otlp ? "UnsupportedMediaType" : "UnknownOperationException",
                 "Content-Type must be " + std::string(media_type) + "."});
  }

  const auto decoded = decode(operation, request, workspace);
  if (const auto* const error = std::get_if<ApiError>(&decoded)) return fail(*error);
  std::string_view body = std::get<std::string_view>(decoded);
  const Fault* const partial =
      plan.verdict && plan.verdict->kind == FaultKind::partial_reject ? &*plan.verdict : nullptr;
  if (protocol == Protocol::otlp) {
    return reply_of(protocol,
                    call_otlp({operation.id, body, request, is_signed, now, partial, store_}));
  }
  // A REST call without parameters may come without a body.
  if (body.empty() && service == Service::xray) body = "{}";
  simdjson::dom::object object;
  const auto parsed = workspace.parser.parse(body.data(), body.size()).get(object);
  if (parsed != simdjson::SUCCESS) {
    return fail(common_error(
        protocol, CommonError::unreadable_body,
        std::string("The body is not a JSON object: ") + simdjson::error_message(parsed)));
  }

  return reply_of(protocol, dispatch(operation, {operation.id, object, now, partial, store_}));
}

Reply Gateway::reply_of(Protocol protocol, Answer answer) {
  if (const auto* const error = std::get_if<ApiError>(&answer)) return refuse(protocol, *error);
  return std::get<Reply>(std::move(answer));
}

std::variant<std::string_view, ApiError> Gateway::decode(const Operation& operation,
                                                         const HttpRequest& request,
                                                         Workspace& workspace) {
  const std::string_view encoding = find_header(request.headers, "content-encoding");
  const auto unreadable = [&](std::string message) {
    return common_error(operation.protocol, CommonError::unreadable_body, std::move(message));
  };
  if (encoding.empty() || encoding == "identity") return std::string_view(request.body);
  if (!equal_without_case(encoding, "gzip") || !operation.takes_gzip) {
    return unreadable("Content-Encoding '" + std::string(encoding) + "' is not taken by " +
                      std::string(operation.name) + ".");
  }
  switch (gunzip(request.body, limits::inflated_bytes_max, workspace.inflated)) {
    case InflateResult::ok:
      break;
    case InflateResult::broken:
      return unreadable("The body is not one whole gzip member.");
    case InflateResult::too_large:
      return common_error(operation.protocol, CommonError::too_large,
                          "The body inflates to more than " +
                              std::to_string(limits::inflated_bytes_max) + " bytes.");
  }
  const std::scoped_lock lock(store_.mutex);
  store_.statistics.inflated_bytes += workspace.inflated.size();
  return std::string_view(workspace.inflated);
}

Reply Gateway::refuse_unknown(const HttpRequest& request) {
  count_request("unknown", 404);
  return refuse(protocol_of(guess_service(request)),
                {404, "UnknownOperationException", unknown_message(request)});
}

Reply Gateway::refuse(Protocol protocol, const ApiError& error) {
  const std::scoped_lock lock(store_.mutex);
  ++store_.statistics.errors[error.code];
  return error_reply(protocol, error);
}

void Gateway::count_request(std::string_view operation, int status) {
  const std::scoped_lock lock(store_.mutex);
  ++store_.statistics.requests[std::string(operation)][status];
}

}  // namespace spillway::local
