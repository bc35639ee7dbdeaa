// SPDX-License-Identifier: Apache-2.0
//
// Asio with coroutines: the exchange stands in the coroutine's frame. A handler that waits is itself a
// coroutine; it ends when its deadline is over, or when the client has closed its connection.
#pragma once

#include <algorithm>
#include <exception>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include <sys/socket.h>

#include "common.hpp"
#include <spillway/middleware/beast.hpp>

#if defined(BOOST_ASIO_HAS_CO_AWAIT)

namespace examples {

/// GET /slow: waits as long as it may.
inline asio::awaitable<Answer> slow(tcp::socket& socket, middleware::Exchange& exchange) {
  const auto wished = std::chrono::steady_clock::now() + 5s;
  asio::steady_timer timer(co_await asio::this_coro::executor, std::min(wished, exchange.deadline));
  // A client that closes its connection makes the socket readable, with nothing to read.
  const auto watched = std::make_shared<bool>(true);
  socket.async_wait(tcp::socket::wait_read, [&, watched](boost::system::error_code error) {
    char byte = 0;
    if (error || !*watched ||
        ::recv(socket.native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) != 0)
      return;
    exchange.cancel();
    timer.cancel();
  });
  boost::system::error_code ended;
  co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, ended));
  *watched = false;
  socket.cancel(ended);
  if (exchange.should_stop()) throw middleware::HttpError(504, "gave up");
  co_return Answer{200, "{\"waited\":5}"};
}

inline asio::awaitable<Answer> answer(Shop& shop, tcp::socket& socket,
                                      middleware::Exchange& exchange) {
  if (exchange.request.path == "/slow") co_return co_await slow(socket, exchange);
  const auto current = exchange.enter();  // Not across a co_await: another request may run there.
  co_return shop.handle(exchange.request.method, exchange.request.path, exchange.request.body);
}

inline asio::awaitable<void> serve_requests(Shop& shop, Connections& connections,
                                            tcp::socket socket) {
  const Connections::Entry entry(connections, socket);
  const std::string peer = peer_of(socket);
  beast::flat_buffer buffer;
  boost::system::error_code error;
  auto token = asio::redirect_error(asio::use_awaitable, error);
  socket.set_option(tcp::no_delay(true), error);
  Turn turn(socket.get_executor());
  for (;;) {
    Request request;
    co_await http::async_read(socket, buffer, request, token);
    if (error) co_return;
    middleware::RequestView view = middleware::beast_view(request, peer);
    view.resumer = turn.resumer();
    auto exchange = shop.chain.begin(view);
    while (exchange.is_waiting()) {
      co_await turn.async_wait(token);
      exchange.resume();
    }
    Response response;
    if (!exchange.has_reply()) {
      try {
        response = response_of(co_await answer(shop, socket, exchange), request);
        exchange.respond(middleware::beast_facts(response));
      } catch (...) {
        exchange.fail(std::current_exception());
      }
    }
    if (exchange.cancelled()) co_return;  // 499, and nobody to write to
    middleware::beast_prepare(exchange, request, response);
    co_await http::async_write(socket, response, token);
    middleware::beast_finish(exchange, response, error);
    if (error || !response.keep_alive()) co_return;
  }
}

inline asio::awaitable<void> accept_connections(Shop& shop, Connections& connections,
                                                asio::io_context& context,
                                                tcp::acceptor& acceptor) {
  boost::system::error_code error;
  auto token = asio::redirect_error(asio::use_awaitable, error);
  for (;;) {
    tcp::socket socket = co_await acceptor.async_accept(asio::make_strand(context), token);
    if (error) {
      if (has_ended(error)) co_return;
      asio::steady_timer timer(acceptor.get_executor(), accept_pause);
      co_await timer.async_wait(token);
      continue;
    }
    const auto executor = socket.get_executor();
    asio::co_spawn(executor, serve_requests(shop, connections, std::move(socket)), asio::detached);
  }
}

inline void serve_coroutines(Shop& shop) {
  asio::io_context context;
  tcp::acceptor acceptor(asio::make_strand(context), {asio::ip::address_v4::loopback(), 0});
  Connections connections;
  asio::co_spawn(acceptor.get_executor(), accept_connections(shop, connections, context, acceptor),
                 asio::detached);
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) threads.emplace_back([&] { context.run(); });
  shop.serve_until_stopped(acceptor.local_endpoint().port());
  asio::post(acceptor.get_executor(), [&] { acceptor.close(); });
  connections.shut_down();
  for (std::thread& thread : threads) thread.join();
}

}  // namespace examples

#endif
