// SPDX-License-Identifier: Apache-2.0
//
// A chain (chain.hpp) around the handlers of a Boost.Beast server: synchronous, with callbacks, or with
// coroutines. Written against the shape of beast::http::message, so that this header needs no Boost.
//
//   auto exchange = chain.begin(beast_view(request, peer_ip));
//   auto response = beast_answer(exchange, request, [&] { return handle(request); });
//   http::write(stream, response, error);                        // or async_write, or co_await
//   beast_finish(exchange, response, error);
//
// Request and response live until beast_finish(). A handler that is a coroutine itself takes the place
// of beast_answer()'s with beast_prepare().
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include <spillway/middleware/chain.hpp>
#include <spillway/transport/text.hpp>

namespace spillway::middleware {

/// The fields of a Beast message.
template <class Message>
Headers beast_headers(const Message& message) noexcept {
  return {&message, [](const void* object, std::string_view name, std::size_t nth) {
            // One after the other: its own search by name, down a tree, takes ten times as long for the
            // dozen fields that requests have.
            for (const auto& field : *static_cast<const Message*>(object)) {
              const auto own = field.name_string();  // Beast's own string_view.
              if (!transport::equal_without_case({own.data(), own.size()}, name) || nth-- > 0)
                continue;
              const auto value = field.value();
              return std::string_view(value.data() != nullptr ? value.data() : "", value.size());
            }
            return std::string_view{};
          }};
}

/// A request with a body that is a string, or has no data() to look at. `request` and `peer_address`
/// outlive the result.
template <class Request>
RequestView beast_view(const Request& request, std::string_view peer_address,
                       std::string_view scheme = "http") {
  const auto text = [](auto view) { return std::string_view(view.data(), view.size()); };
  RequestView view{.method = text(request.method_string()),
                   .scheme = scheme,
                   .peer_address = peer_address,
                   .headers = beast_headers(request)};
  view.target(text(request.target()));
  view.host = view.header("Host");
  if constexpr (requires { std::string_view(request.body()); }) {
    view.body = request.body();
    view.body_bytes = static_cast<std::int64_t>(request.body().size());
  }
  return view;
}

/// What a response is before it was sent.
template <class Response>
ResponseFacts beast_facts(const Response& response) {
  const auto bytes = response.payload_size();
  ResponseFacts facts{.status = static_cast<int>(response.result_int()),
                      .body_bytes = bytes ? static_cast<std::int64_t>(*bytes) : -1};
  if constexpr (requires { std::string_view(response.body()); }) facts.body = response.body();
  const auto type = response["Content-Type"];
  facts.content_type = {type.data() != nullptr ? type.data() : "", type.size()};
  return facts;
}

/// Makes `response` ready to be sent: the reply of a step in its place where there is one, and the
/// headers of the steps. Beast::http::response with a string_body.
template <class Response, class Request>
void beast_prepare(const Exchange& exchange, const Request& request, Response& response) {
  if (exchange.has_reply()) {
    const Reply& reply = exchange.reply();
    if (!reply.body_only) {
      response = Response{};
      response.version(request.version());
      response.result(static_cast<unsigned>(reply.status));
      response.keep_alive(request.keep_alive());
    }
    for (const std::string_view name : body_header_names)
      response.erase({name.data(), name.size()});
    if (!reply.content_type.empty()) response.set("Content-Type", std::string(reply.content_type));
    response.body() = std::string(reply.body);
    response.prepare_payload();
    // An answer to HEAD tells the length of the body that it must not have (RFC 9110, 9.3.2).
    if (exchange.request.method == "HEAD") response.body().clear();
  }
  for (const HeaderField& field : exchange.headers()) {
    response.insert({field.name.data(), field.name.size()},
                    {field.value.data(), field.value.size()});
  }
}

/// Runs `handle()`, which returns a response, unless a step has replied, and makes the response ready.
/// What the handler throws becomes the reply with status 500. Calling thread: the one that handles.
template <class ExchangeOfChain, class Request, class Handle>
auto beast_answer(ExchangeOfChain& exchange, const Request& request, Handle&& handle) {
  using Response = decltype(handle());
  Response response;
  if (!exchange.has_reply()) {
    exchange.guard([&] {
      response = std::forward<Handle>(handle)();
      exchange.respond(beast_facts(response));
    });
  }
  beast_prepare(exchange, request, response);
  return response;
}

/// The response was written, or `error` (boost::system::error_code) says why not.
template <class ExchangeOfChain, class Response, class Error>
void beast_finish(ExchangeOfChain& exchange, const Response& response, const Error& error) {
  ResponseFacts facts = beast_facts(response);
  if (error) facts.ending = Ending::broken;
  exchange.finish(facts);
}

}  // namespace spillway::middleware
