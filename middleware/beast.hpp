// SPDX-License-Identifier: Apache-2.0
//
// HttpServerObservability for Boost.Beast: wraps a handler from request to response. Written
// against the shape of beast::http::message, so that this header needs no Boost of its own.
//
//   auto response = spillway::observe(http, route, request, peer_ip,
//                                     [&] { return handle(request); });
#pragma once

#include <iterator>
#include <string>
#include <string_view>
#include <utility>

#include <spillway/middleware/http_server.hpp>

namespace spillway {

namespace detail {

template <class Message>
std::string_view field_of(const Message& message, std::string_view name) {
  const auto found = message.find({name.data(), name.size()});
  if (found == message.end()) return {};
  const auto value = found->value();  // Beast's own string_view.
  return {value.data(), value.size()};
}

/// The same of a header that may come several times: all of them, separated by commas. `memory` holds
/// the text when there are several.
template <class Message>
std::string_view fields_of(const Message& message, std::string_view name, std::string& memory) {
  const auto found = message.equal_range({name.data(), name.size()});
  if (found.first == found.second || std::next(found.first) == found.second)
    return field_of(message, name);
  for (auto at = found.first; at != found.second; ++at) {
    if (!memory.empty()) memory += ',';
    memory.append(at->value().data(), at->value().size());
  }
  return memory;
}

}  // namespace detail

/// Runs `handle()`, which returns a beast::http::response, as the observed request, and gives the
/// response X-Request-ID and X-Amzn-Trace-Id. An exception finishes the request as 500 and goes on.
/// Calling thread: the one that handles.
template <class Request, class Handle>
auto observe(HttpServerObservability& http, const HttpServerObservability::Route& route,
             const Request& request, std::string_view peer_ip, Handle&& handle) {
  const auto text = [](auto view) { return std::string_view(view.data(), view.size()); };
  const HttpServerOptions& options = http.options();
  // Several tracestates are one; several traceparents are not legal, joined even less so.
  std::string traceparents;
  std::string tracestates;
  auto observed =
      http.begin(route, {.method = text(request.method_string()),
                         .target = text(request.target()),
                         .host = detail::field_of(request, "Host"),
                         .user_agent = detail::field_of(request, "User-Agent"),
                         .peer_ip = peer_ip,
                         .trace_header = detail::field_of(request, trace_header_name),
                         .traceparent = detail::fields_of(request, traceparent_name, traceparents),
                         .tracestate = detail::fields_of(request, tracestate_name, tracestates),
                         .request_id = detail::field_of(request, "X-Request-ID"),
                         .tenant = detail::field_of(request, options.tenant_header),
                         .user = detail::field_of(request, options.user_header),
                         .forwarded_for = detail::field_of(request, "X-Forwarded-For")});
  auto response = std::forward<Handle>(handle)();
  const std::string_view id = observed.request_id();
  response.set("X-Request-ID", std::string(id));
  if (const std::string trace = observed.trace_header(); !trace.empty()) {
    response.set(std::string(trace_header_name), trace);
  }
  const auto bytes = response.payload_size();
  observed.finish(static_cast<int>(response.result_int()),
                  bytes ? static_cast<std::int64_t>(*bytes) : -1);
  return response;
}

}  // namespace spillway
