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
//
// Beast's serializer hands the kernel a piece of memory for each field and allocates one for each that is
// inserted, which takes longer than all steps that add them. Faster, and with a chain even than Beast's
// writing without one, is a head in one piece:
//
//   auto response = beast_handle(exchange, request, [&] { return handle(request); });
//   asio::write(stream, beast_buffers<asio::const_buffer>(exchange, response, head), error);
//   beast_finish(exchange, response, error);
#pragma once

#include <array>
#include <charconv>
#include <cstddef>
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

/// Whether answers with this status end with their head, whatever its fields say (RFC 9112, 6.3).
constexpr bool beast_ends_with_head(unsigned status) noexcept {
  return status / 100 == 1 || status == 204 || status == 304;
}

/// Puts the reply of a step in the place of `response`, where there is one. The steps' headers are still
/// to be added, by beast_buffers(). Beast::http::response with a string_body.
template <class Response, class Request>
void beast_take_reply(const Exchange& exchange, const Request& request, Response& response) {
  if (!exchange.has_reply()) return;
  const Reply& reply = exchange.reply();
  if (!reply.body_only) {
    response = Response{};
    response.version(request.version());
    response.result(static_cast<unsigned>(reply.status));
    response.keep_alive(request.keep_alive());
  }
  for (const std::string_view name : body_header_names) response.erase({name.data(), name.size()});
  // Nor does such a status tell a length (RFC 9110, 8.6), and Beast refuses to prepare it with a body.
  if (beast_ends_with_head(response.result_int())) {
    response.body().clear();
    return;
  }
  if (!reply.content_type.empty()) response.set("Content-Type", std::string(reply.content_type));
  response.body() = std::string(reply.body);
  response.prepare_payload();
  // An answer to HEAD tells the length of the body that it must not have (RFC 9110, 9.3.2).
  if (exchange.request.method == "HEAD") response.body().clear();
}

template <class Response>
void beast_add_headers(const Exchange& exchange, Response& response) {
  for (const HeaderField& field : exchange.headers()) {
    response.insert({field.name.data(), field.name.size()},
                    {field.value.data(), field.value.size()});
  }
}

/// Makes `response` ready to be sent by Beast: beast_take_reply(), and the headers of the steps.
template <class Response, class Request>
void beast_prepare(const Exchange& exchange, const Request& request, Response& response) {
  beast_take_reply(exchange, request, response);
  beast_add_headers(exchange, response);
}

/// Runs `handle()`, which returns a response, unless a step has replied, whose reply it is then. What
/// the handler throws becomes the reply with status 500; a request that is still waiting is refused with
/// 503. Calling thread: the one that handles.
template <class ExchangeOfChain, class Request, class Handle>
auto beast_handle(ExchangeOfChain& exchange, const Request& request, Handle&& handle) {
  using Response = decltype(handle());
  Response response;
  exchange.stop_waiting();
  if (!exchange.has_reply()) {
    exchange.guard([&] {
      response = std::forward<Handle>(handle)();
      exchange.respond(beast_facts(response));
    });
  }
  beast_take_reply(exchange, request, response);
  return response;
}

/// The same, with the steps' headers: ready to be sent by Beast.
template <class ExchangeOfChain, class Request, class Handle>
auto beast_answer(ExchangeOfChain& exchange, const Request& request, Handle&& handle) {
  auto response = beast_handle(exchange, request, std::forward<Handle>(handle));
  beast_add_headers(exchange, response);
  return response;
}

/// What goes over the wire (RFC 9112): the head with the steps' headers, made in `head`, and the body where
/// it is. A body that is chunked goes as one chunk, in `head` too; answers to HEAD, and 1xx, 204 and 304, go
/// without one. `Buffer`: asio::const_buffer.
///
/// head  of the session: keeps its memory from request to request. It and the response stay until the
///       buffers are written.
template <class Buffer, class Response>
std::array<Buffer, 2> beast_buffers(const Exchange& exchange, const Response& response,
                                    std::string& head) {
  const auto add = [&](std::string_view text) { head.append(text); };
  const auto add_number = [&](std::uint64_t value, int base) {
    std::array<char, 20> digits;
    const char* const end =
        std::to_chars(digits.data(), digits.data() + digits.size(), value, base).ptr;
    add({digits.data(), static_cast<std::size_t>(end - digits.data())});
  };
  const auto add_field = [&](std::string_view name, std::string_view value) {
    add(name);
    add(": ");
    add(value);
    add("\r\n");
  };
  const std::string_view body(response.body());
  const bool chunked = response.chunked();
  head.clear();
  add(response.version() == 10 ? "HTTP/1.0 " : "HTTP/1.1 ");
  add_number(response.result_int(), 10);
  add(" ");
  const auto reason = response.reason();
  add({reason.data(), reason.size()});
  add("\r\n");
  for (const auto& field : response) {
    const auto name = field.name_string();
    const auto value = field.value();
    add_field({name.data(), name.size()}, {value.data(), value.size()});
  }
  for (const HeaderField& field : exchange.headers()) add_field(field.name, field.value);
  add("\r\n");
  if (exchange.request.method == "HEAD" || beast_ends_with_head(response.result_int()))
    return {Buffer(head.data(), head.size()), Buffer()};
  if (!chunked) return {Buffer(head.data(), head.size()), Buffer(body.data(), body.size())};
  if (!body.empty()) {
    add_number(body.size(), 16);
    add("\r\n");
    add(body);
    add("\r\n");
  }
  add("0\r\n\r\n");
  return {Buffer(head.data(), head.size()), Buffer()};
}

/// The response was written, or `error` (boost::system::error_code) says why not.
template <class ExchangeOfChain, class Response, class Error>
void beast_finish(ExchangeOfChain& exchange, const Response& response, const Error& error) {
  ResponseFacts facts = beast_facts(response);
  if (error) facts.ending = Ending::broken;
  exchange.finish(facts);
}

}  // namespace spillway::middleware
