// SPDX-License-Identifier: Apache-2.0
//
// The TCP side: HTTP/1.1 by Boost.Beast, a thread for each connection up to a cap, everything that
// a peer can make large or slow bounded.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <list>
#include <string>
#include <thread>

#include "local/gateway.hpp"
#include "local/socket.hpp"
#include "local/store.hpp"

namespace spillway::local {

class HttpServer {
 public:
  /// Listens from here on. Throws when the address cannot be had.
  HttpServer(const Options& options, Gateway& gateway, Store& store);
  /// Ends every connection where it stands and joins their threads.
  ~HttpServer();

  std::uint16_t port() const { return port_; }

 private:
  struct Connection {
    std::thread thread;
    std::atomic<bool> done{false};
  };
  void accept_all();
  void start(FileDescriptor socket);
  void serve(FileDescriptor socket);
  void forget_done(bool all);

  Gateway& gateway_;
  Store& store_;
  const std::size_t connections_max_;
  FileDescriptor listener_;
  std::uint16_t port_;
  StopSignal stop_;
  std::list<Connection> connections_;  ///< of the accepting thread
  std::thread acceptor_;
};

}  // namespace spillway::local
