// SPDX-License-Identifier: Apache-2.0
//
// A thread for each connection.
#pragma once

#include <atomic>
#include <list>
#include <system_error>
#include <thread>
#include <utility>

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

/// A thread for each connection. Those that have ended are joined as others begin.
class ConnectionThreads {
 public:
  ConnectionThreads() = default;
  ConnectionThreads(const ConnectionThreads&) = delete;
  ConnectionThreads& operator=(const ConnectionThreads&) = delete;
  ~ConnectionThreads() {
    for (One& one : threads_) one.thread.join();
  }

  /// Throws std::system_error when the system gives no thread.
  template <class Serve>
  void start(Serve serve) {
    threads_.remove_if([](One& one) {
      if (!one.ended) return false;
      one.thread.join();
      return true;
    });
    One& one = threads_.emplace_back();
    try {
      one.thread = std::thread([&one, serve = std::move(serve)]() mutable {
        serve();
        one.ended = true;
      });
    } catch (...) {
      threads_.pop_back();
      throw;
    }
  }

 private:
  struct One {
    std::thread thread;
    std::atomic<bool> ended{false};
  };
  std::list<One> threads_;
};

inline void serve_sync(Shop& shop) {
  asio::io_context context;
  tcp::acceptor acceptor(context, {asio::ip::address_v4::loopback(), 0});
  Connections connections;
  ConnectionThreads threads;
  std::thread accepting([&] {
    boost::system::error_code error;
    for (;;) {
      tcp::socket socket = acceptor.accept(error);
      if (error) {
        if (has_ended(error)) return;
        std::this_thread::sleep_for(accept_pause);
        continue;
      }
      socket.set_option(tcp::no_delay(true), error);
      try {
        threads.start([&shop, &connections, socket = std::move(socket)]() mutable {
          serve_connection(shop, connections, std::move(socket));
        });
      } catch (const std::system_error& no_thread) {  // The connection is closed.
        std::cerr << std::string("thread: ") + no_thread.what() + "\n";
      }
    }
  });
  shop.serve_until_stopped(acceptor.local_endpoint().port());
  ::shutdown(acceptor.native_handle(), SHUT_RDWR);  // Ends a blocking accept().
  accepting.join();
  connections.shut_down();
}

}  // namespace examples
