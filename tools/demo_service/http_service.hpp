// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include <boost/beast/http.hpp>

namespace demo {

using Request = boost::beast::http::request<boost::beast::http::string_body>;
using Response = boost::beast::http::response<boost::beast::http::string_body>;

/// A keep-alive HTTP/1.1 server on loopback: Boost.Beast on an Asio io_context with its own
/// threads. The handler runs on them, one request of a connection at a time.
class HttpService {
 public:
  using Handler = std::function<Response(const Request&, const std::string& peer_ip)>;

  /// Listens on 127.0.0.1 and `port` (0: any free one). Throws boost::system::system_error.
  HttpService(std::uint16_t port, int threads, Handler handler);
  /// Closes all connections, lets running handlers end, joins the threads.
  ~HttpService();

  std::uint16_t port() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// A blocking keep-alive client of one local service, for one thread.
class HttpClient {
 public:
  explicit HttpClient(std::uint16_t port);
  ~HttpClient();
  /// One GET; reconnects once when the connection was closed. Throws boost::system::system_error.
  Response get(const std::string& target, const std::string& trace_header,
               const std::string& tenant);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace demo
