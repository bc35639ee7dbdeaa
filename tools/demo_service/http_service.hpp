// SPDX-License-Identifier: Apache-2.0
//
// A small HTTP/1.1 server and client on Boost.Beast, with the middleware's chain where a real server
// has it: in the session, from the request that was read to the response that was written.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>

#include <spillway/middleware/beast.hpp>

namespace demo {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using Request = http::request<http::string_body>;
using Response = http::response<http::string_body>;

/// Who writes responses: a head in one piece (middleware/beast.hpp says why), or Beast field by field.
enum class Writer : std::uint8_t { one_piece, beast };

/// A keep-alive server on loopback, an io_context with its own threads. `Service` has
/// `Response handle(const Request&)`, which runs on them, one request of a connection at a time.
template <class Service, class Chain, Writer writer = Writer::one_piece>
class HttpService {
 public:
  /// Listens on 127.0.0.1 and `port` (0: any free one). Service and chain outlive it. Throws
  /// boost::system::system_error.
  HttpService(std::uint16_t port, int threads, Service& service, const Chain& chain)
      : service_(service), chain_(chain) {
    acceptor_.open(asio::ip::tcp::v4());
    acceptor_.set_option(asio::socket_base::reuse_address(true));
    acceptor_.bind({asio::ip::address_v4::loopback(), port});
    acceptor_.listen();
    accept();
    for (int i = 0; i < threads; ++i) {
      threads_.emplace_back([this] { context_.run(); });
    }
  }
  HttpService(const HttpService&) = delete;
  HttpService& operator=(const HttpService&) = delete;
  /// Closes all connections, lets running handlers end, joins the threads.
  ~HttpService() {
    asio::post(context_, [this] {
      beast::error_code ignored;
      acceptor_.close(ignored);
      const std::scoped_lock lock(mutex_);
      for (const auto& weak : sessions_) {
        if (const auto session = weak.lock()) session->close();
      }
    });
    for (std::thread& thread : threads_) thread.join();
  }

  std::uint16_t port() const { return acceptor_.local_endpoint().port(); }

 private:
  // One connection: read, handle, write, again.
  class Session : public std::enable_shared_from_this<Session> {
   public:
    Session(asio::ip::tcp::socket socket, HttpService& server)
        : stream_(std::move(socket)), server_(server) {
      beast::error_code ignored;
      stream_.socket().set_option(asio::ip::tcp::no_delay(true), ignored);
      peer_ip_ = stream_.socket().remote_endpoint(ignored).address().to_string(ignored);
    }

    void read() {
      exchange_.reset();
      request_ = {};
      http::async_read(stream_, buffer_, request_,
                       [self = this->shared_from_this()](beast::error_code error, std::size_t) {
                         if (!error) self->handle();
                       });
    }
    void close() {
      beast::error_code ignored;
      stream_.socket().shutdown(asio::ip::tcp::socket::shutdown_both, ignored);
    }

   private:
    void handle() {
      namespace middleware = spillway::middleware;
      auto& exchange = server_.chain_.begin(exchange_, middleware::beast_view(request_, peer_ip_));
      response_ = middleware::beast_handle(exchange, request_,
                                           [&] { return server_.service_.handle(request_); });
      response_.keep_alive(request_.keep_alive());
      auto then = [self = this->shared_from_this()](beast::error_code error, std::size_t) {
        self->written(error);
      };
      if constexpr (writer == Writer::one_piece) {
        asio::async_write(stream_,
                          middleware::beast_buffers<asio::const_buffer>(exchange, response_, head_),
                          std::move(then));
      } else {
        middleware::beast_add_headers(exchange, response_);
        http::async_write(stream_, response_, std::move(then));
      }
    }
    void written(beast::error_code error) {
      spillway::middleware::beast_finish(*exchange_, response_, error);
      if (!error && response_.keep_alive()) read();
    }

    beast::tcp_stream stream_;
    beast::flat_buffer buffer_;
    HttpService& server_;
    std::string peer_ip_;
    Request request_;
    Response response_;
    std::string head_;
    std::optional<typename Chain::Exchange> exchange_;
  };

  void accept() {
    acceptor_.async_accept(
        asio::make_strand(context_), [this](beast::error_code error, asio::ip::tcp::socket socket) {
          if (error) return;
          const auto session = std::make_shared<Session>(std::move(socket), *this);
          {
            const std::scoped_lock lock(mutex_);
            std::erase_if(sessions_, [](const auto& one) { return one.expired(); });
            sessions_.push_back(session);
          }
          session->read();
          accept();
        });
  }

  Service& service_;
  const Chain& chain_;
  asio::io_context context_;
  asio::ip::tcp::acceptor acceptor_{context_};
  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::vector<std::weak_ptr<Session>> sessions_;
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
