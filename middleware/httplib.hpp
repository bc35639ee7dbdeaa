// SPDX-License-Identifier: Apache-2.0
//
// A chain (chain.hpp) around every request of a cpp-httplib server, those that no handler takes
// included. Written against the shape of httplib::Server, so that this header needs no httplib.
//
//   httplib::Server server;
//   httplib_use(server, chain);
//   server.Get("/orders/(\\d+)", [&](const httplib::Request& request, httplib::Response& response) {
//     ...                                       // logs and spans here belong to the request
//     if (HttplibRequest<Chain>::exchange()->should_stop()) ...
//   });
//
// httplib serves a request on one thread from its first line to its last byte; the exchange stands in
// that thread's storage meanwhile.
//
// What httplib does not tell: bodies of requests (it reads them behind the hook), and whether a
// connection broke under a body that is a string: such an answer counts as sent. A request with a body
// that a step answers is the last of its connection, because its body stays unread. What httplib
// itself leaves unread, the body of a GET that a handler answers and of any HEAD, it still takes for
// the next request: let a proxy in front refuse those.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <spillway/middleware/chain.hpp>
#include <spillway/transport/text.hpp>

namespace spillway::middleware {

/// The fields of an httplib message.
template <class Message>
Headers httplib_headers(const Message& message) noexcept {
  return {&message, [](const void* object, std::string_view name, std::size_t nth) {
            // Not by the map's key, for which a string would have to be made.
            for (const auto& [key, value] : static_cast<const Message*>(object)->headers) {
              if (transport::equal_without_case(key, name) && nth-- == 0)
                return std::string_view(value);
            }
            return std::string_view{};
          }};
}

/// Whether a body may follow the request's header. Of some methods httplib takes what comes up to the
/// end of the connection when nothing says how long it is.
template <class Request>
bool httplib_has_body(const Request& request) noexcept {
  const Headers headers = httplib_headers(request);
  const std::string_view length = headers.find("Content-Length");
  if (headers.contains("Transfer-Encoding")) return true;
  if (!length.empty()) return length != "0";
  for (const std::string_view method : {"POST", "PUT", "PATCH", "DELETE", "PRI"}) {
    if (request.method == method) return true;
  }
  return false;
}

/// `request` outlives the result.
template <class Request>
RequestView httplib_view(const Request& request, std::string_view scheme = "http") noexcept {
  RequestView view{.method = request.method,
                   .scheme = scheme,
                   .peer_address = request.remote_addr,
                   .headers = httplib_headers(request),
                   .body_hidden = httplib_has_body(request)};
  view.target(request.target);
  view.host = view.header("Host");
  return view;
}

namespace detail {

template <class Response>
ResponseFacts httplib_facts(const Response& response) noexcept {
  ResponseFacts facts{.status = response.status};
  if (!response.content_provider_) {
    facts.body = response.body;
    facts.body_bytes = static_cast<std::int64_t>(response.body.size());
  } else {
    if (response.content_length_ > 0)
      facts.body_bytes = static_cast<std::int64_t>(response.content_length_);
  }
  facts.content_type = httplib_headers(response).find("Content-Type");
  return facts;
}

/// Makes `response` ready to be sent: the reply of a step in place of what the handler said, and the
/// headers of the steps.
/// written  set when the reply's body was handed to the connection whole; used until the response ends
template <class Response>
void httplib_prepare(const Exchange& exchange, Response& response, bool ends_connection,
                     bool& written) {
  if (exchange.has_reply()) {
    const Reply& reply = exchange.reply();
    if (!reply.body_only) response.status = reply.status;
    response.content_provider_ = nullptr;
    response.is_chunked_content_provider_ = false;
    response.content_length_ = 0;
    response.body = std::string(reply.body);
    for (const std::string_view name : body_header_names) response.headers.erase(std::string(name));
    if (!reply.content_type.empty())
      response.set_header("Content-Type", std::string(reply.content_type));
    if (reply.status != 204)
      response.set_header("Content-Length", std::to_string(response.body.size()));
  }
  for (const HeaderField& field : exchange.headers())
    response.set_header(std::string(field.name), std::string(field.value));
  if (!ends_connection) return;
  // httplib 0.11 heeds a response's Connection field as little as it skips an unread body, which would
  // be the next request. What it does heed is a content provider that fails.
  response.headers.erase("Keep-Alive");
  response.set_header("Connection", "close");
  response.content_provider_ = [body = std::move(response.body), &written](
                                   std::size_t /*offset*/, std::size_t /*length*/, auto& sink) {
    written = body.empty() || sink.write(body.data(), body.size());
    return false;
  };
  response.body.clear();
}

}  // namespace detail

/// The request that the calling thread serves.
template <class Chain>
class HttplibRequest {
 public:
  using Exchange = typename Chain::Exchange;

  /// Null outside of a request.
  static Exchange* exchange() noexcept {
    std::optional<Exchange>& current = mine().exchange_;
    return current ? &*current : nullptr;
  }

  /// Puts `chain` around every request of `server`. It takes the server's hooks before and behind
  /// routing, for exceptions and for logging. Before the server listens; the chain outlives it.
  /// scheme  a literal: "https" for an SSLServer
  template <class Server>
  static void install(Server& server, const Chain& chain, std::string_view scheme) {
    using Handled = typename Server::HandlerResponse;
    server.set_pre_routing_handler([&chain, scheme](const auto& request, auto& response) {
      HttplibRequest& own = mine();
      own.scope_.reset();
      own.ends_connection_ = false;
      Exchange& exchange = chain.begin(own.exchange_, httplib_view(request, scheme));
      if (!exchange.has_reply()) {
        if (exchange.context != nullptr) own.scope_.emplace(*exchange.context);
        return Handled::Unhandled;
      }
      response.status = exchange.reply().status;
      own.ends_connection_ = httplib_has_body(request);
      own.written_ = false;
      return Handled::Handled;
    });
    server.set_exception_handler(
        [](const auto& /*request*/, auto& response, const std::exception_ptr& exception) {
          if (Exchange* const current = exchange()) {
            current->fail(exception);
            response.status = current->reply().status;
          }
        });
    server.set_post_routing_handler([](const auto& /*request*/, auto& response) {
      Exchange* const current = exchange();
      if (current == nullptr)
        return;  // A request that could not be read does not come by the first.
      if (!current->has_reply()) current->respond(detail::httplib_facts(response));
      HttplibRequest& own = mine();
      own.scope_.reset();
      detail::httplib_prepare(*current, response, own.ends_connection_, own.written_);
    });
    server.set_logger([](const auto& /*request*/, const auto& response) {
      HttplibRequest& own = mine();
      own.scope_.reset();
      if (!own.exchange_) return;
      ResponseFacts facts = detail::httplib_facts(response);
      if (own.ends_connection_) {
        facts.body = own.exchange_->reply().body;
        facts.body_bytes = static_cast<std::int64_t>(facts.body.size());
        // Nothing is written of the answer to a HEAD but its header.
        if (!own.written_ && own.exchange_->request.method != "HEAD") facts.ending = Ending::broken;
      } else if (response.content_provider_ && !response.content_provider_success_) {
        facts.ending = Ending::broken;
      }
      own.exchange_->finish(facts);
      own.exchange_.reset();  // Request and response end with this call.
    });
  }

 private:
  static HttplibRequest& mine() noexcept {
    static thread_local HttplibRequest request;
    return request;
  }

  std::optional<Exchange> exchange_;
  std::optional<Scope> scope_;
  bool ends_connection_ = false;  // a step answered, and the request's body stays unread
  bool written_ = false;          // and the answer was handed over whole
};

/// HttplibRequest<Chain>::install().
template <class Server, class Chain>
void httplib_use(Server& server, const Chain& chain, std::string_view scheme = "http") {
  HttplibRequest<Chain>::install(server, chain, scheme);
}

}  // namespace spillway::middleware
