// SPDX-License-Identifier: Apache-2.0
//
// Asio with callbacks: a few threads for all connections. The exchange stands in the session.
#pragma once

#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "common.hpp"
#include <spillway/middleware/beast.hpp>

namespace examples {

class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(tcp::socket socket, Shop& shop, Connections& connections)
      : stream_(std::move(socket)),
        entry_(connections, stream_.socket()),
        shop_(shop),
        peer_(peer_of(stream_.socket())) {
    boost::system::error_code ignored;
    stream_.socket().set_option(tcp::no_delay(true), ignored);
  }

  void read() {
    request_ = {};
    http::async_read(stream_, buffer_, request_,
                     [self = shared_from_this()](boost::system::error_code error, std::size_t) {
                       if (!error) self->handle();
                     });
  }

 private:
  void handle() {
    middleware::RequestView view = middleware::beast_view(request_, peer_);
    view.resumer = turn_.resumer();
    shop_.chain.begin(exchange_, view);
    go_on();
  }
  void go_on() {
    auto& exchange = *exchange_;
    if (exchange.is_waiting()) {
      turn_.async_wait([self = shared_from_this()](boost::system::error_code) {
        self->exchange_->resume();
        self->go_on();
      });
      return;
    }
    response_ = middleware::beast_handle(exchange, request_, [&] {
      return response_of(
          shop_.handle(exchange.request.method, exchange.request.path, exchange.request.body),
          request_);
    });
    asio::async_write(stream_,
                      middleware::beast_buffers<asio::const_buffer>(exchange, response_, head_),
                      [self = shared_from_this()](boost::system::error_code error, std::size_t) {
                        self->written(error);
                      });
  }
  void written(const boost::system::error_code& error) {
    middleware::beast_finish(*exchange_, response_, error);
    exchange_.reset();
    if (!error && response_.keep_alive()) read();
  }

  beast::tcp_stream stream_;
  const Connections::Entry entry_;
  Shop& shop_;
  const std::string peer_;
  Turn turn_{stream_.get_executor()};
  beast::flat_buffer buffer_;
  Request request_;
  Response response_;
  std::string head_;
  std::optional<decltype(Shop::chain)::Exchange> exchange_;  // destroyed before what it looks at
};

inline void accept_sessions(asio::io_context& context, tcp::acceptor& acceptor, Shop& shop,
                            Connections& connections);

inline void accept_later(asio::io_context& context, tcp::acceptor& acceptor, Shop& shop,
                         Connections& connections) {
  const auto timer = std::make_shared<asio::steady_timer>(acceptor.get_executor(), accept_pause);
  timer->async_wait([&, timer](boost::system::error_code) {
    accept_sessions(context, acceptor, shop, connections);
  });
}

inline void accept_sessions(asio::io_context& context, tcp::acceptor& acceptor, Shop& shop,
                            Connections& connections) {
  acceptor.async_accept(asio::make_strand(context),
                        [&](boost::system::error_code error, tcp::socket socket) {
                          if (error) {
                            if (!has_ended(error))
                              accept_later(context, acceptor, shop, connections);
                            return;
                          }
                          std::make_shared<Session>(std::move(socket), shop, connections)->read();
                          accept_sessions(context, acceptor, shop, connections);
                        });
}

inline void serve_callbacks(Shop& shop) {
  asio::io_context context;
  tcp::acceptor acceptor(asio::make_strand(context), {asio::ip::address_v4::loopback(), 0});
  Connections connections;
  accept_sessions(context, acceptor, shop, connections);
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) threads.emplace_back([&] { context.run(); });
  shop.serve_until_stopped(acceptor.local_endpoint().port());
  asio::post(acceptor.get_executor(), [&] { acceptor.close(); });
  connections.shut_down();
  for (std::thread& thread : threads) thread.join();
}

}  // namespace examples
