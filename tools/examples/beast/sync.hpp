// SPDX-License-Identifier: Apache-2.0
//
// A thread for each connection.
#pragma once

#include <functional>
#include <thread>
#include <utility>
#include <vector>

#include "common.hpp"
#include <spillway/middleware/beast.hpp>

namespace examples {

inline void serve_connection(Shop& shop, Connections& connections, tcp::socket socket) {
  const Connections::Entry entry(connections, socket);
  const std::string peer = peer_of(socket);
  beast::flat_buffer buffer;
  boost::system::error_code error;
  for (;;) {
    Request request;
    http::read(socket, buffer, request, error);
    if (error) return;
    auto exchange = shop.chain.begin(middleware::beast_view(request, peer));
    Response response = middleware::beast_answer(exchange, request, [&] {
      return response_of(
          shop.handle(exchange.request.method, exchange.request.path, exchange.request.body),
          request);
    });
    http::write(socket, response, error);
    middleware::beast_finish(exchange, response, error);
    if (error || !response.keep_alive()) return;
  }
}

inline void serve_sync(Shop& shop) {
  asio::io_context context;
  tcp::acceptor acceptor(context, {asio::ip::address_v4::loopback(), 0});
  Connections connections;
  std::vector<std::thread> threads;
  std::thread accepting([&] {
    boost::system::error_code error;
    for (;;) {
      tcp::socket socket = acceptor.accept(error);
      if (error) return;
      socket.set_option(tcp::no_delay(true), error);
      threads.emplace_back(serve_connection, std::ref(shop), std::ref(connections),
                           std::move(socket));
    }
  });
  shop.serve_until_stopped(acceptor.local_endpoint().port());
  ::shutdown(acceptor.native_handle(), SHUT_RDWR);  // Ends a blocking accept().
  accepting.join();
  connections.shut_down();
  for (std::thread& thread : threads) thread.join();
}

}  // namespace examples
