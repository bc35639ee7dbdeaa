// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace spillway::testing {

/// A TCP port on loopback that takes whatever comes, as an agent has. The kernel connects and takes
/// bytes while the test does something else; stop() is the agent's death, start() its next life.
class TcpListener {
 public:
  TcpListener() { start(); }
  TcpListener(const TcpListener&) = delete;
  TcpListener& operator=(const TcpListener&) = delete;
  ~TcpListener() { stop(); }

  std::uint16_t port() const { return port_; }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  bool listening() const { return descriptor_ >= 0; }

  /// On the port that it had before. `buffer_bytes`: what the kernel takes that nobody reads.
  void start(int buffer_bytes = 0) {
    descriptor_ = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    const int on = 1;
    setsockopt(descriptor_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (buffer_bytes != 0) {
      setsockopt(descriptor_, SOL_SOCKET, SO_RCVBUF, &buffer_bytes, sizeof buffer_bytes);
    }
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port_);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (bind(descriptor_, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
        listen(descriptor_, 16) != 0) {
      stop();
      return;
    }
    getsockname(descriptor_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
  }
  /// Closes the port and all connections. What was not read is lost, and the other side is told so.
  void stop() {
    accept_all();
    for (const int connection : connections_) close(connection);
    connections_.clear();
    if (descriptor_ >= 0) close(std::exchange(descriptor_, -1));
  }

  /// Ends the connections from this side, in order: what they sent was read before.
  void hang_up() {
    read();
    for (const int connection : connections_) close(connection);
    connections_.clear();
  }
  /// What has come since the last call, of all connections.
  std::string read() {
    accept_all();
    std::string text;
    std::vector<char> some(1 << 16);
    for (const int connection : connections_) {
      for (ssize_t size = 0; (size = recv(connection, some.data(), some.size(), 0)) > 0;) {
        text.append(some.data(), static_cast<std::size_t>(size));
      }
    }
    return text;
  }
  /// Connections at present.
  std::size_t connections() {
    accept_all();
    return connections_.size();
  }

 private:
  void accept_all() {
    if (descriptor_ < 0) return;
    for (int connection = 0; (connection = accept4(descriptor_, nullptr, nullptr,
                                                   SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
      connections_.push_back(connection);
    }
  }

  std::uint16_t port_ = 0;
  int descriptor_ = -1;
  std::vector<int> connections_;
};

}  // namespace spillway::testing
