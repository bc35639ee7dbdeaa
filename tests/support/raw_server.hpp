// SPDX-License-Identifier: Apache-2.0
//
// An HTTP server that does exactly what a test says, for what no well-behaved server does: answers
// that break off, that never come, that are no HTTP.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace spillway::testing {

/// Listens on a port of 127.0.0.1, with a thread for each connection.
class RawServer {
 public:
  /// The server's end of a connection.
  class Connection {
   public:
    Connection(int descriptor, RawServer& server) : descriptor_(descriptor), server_(server) {}

    /// Sends bytes as they are.
    void send(std::string_view bytes) const {
      while (!bytes.empty()) {
        const ssize_t size = ::send(descriptor_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
        if (size <= 0) return;
        bytes.remove_prefix(static_cast<std::size_t>(size));
      }
    }
    /// Waits until the client has gone, or the server stops.
    void wait_for_the_end() const {
      char byte = 0;
      while (recv(descriptor_, &byte, 1, 0) > 0) {
      }
    }
    /// Ends the connection by a reset in place of an orderly close.
    void reset() const {
      const linger at_once{1, 0};
      setsockopt(descriptor_, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    }
    /// Waits until so many requests have been read from all connections.
    void wait_for_requests(std::size_t count) const { server_.wait_for_requests(count); }

   private:
    const int descriptor_;
    RawServer& server_;
  };

  /// Called with each request, head and body; false closes the connection.
  using Handler = std::function<bool(const std::string& request, const Connection& connection)>;

  explicit RawServer(Handler handler) : handler_(std::move(handler)) {
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    bind(listener_, reinterpret_cast<sockaddr*>(&address), size);
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    listen(listener_, 128);
    acceptor_ = std::thread([this] { accept_all(); });
  }
  RawServer(const RawServer&) = delete;
  RawServer& operator=(const RawServer&) = delete;
  ~RawServer() {
    shutdown(listener_, SHUT_RDWR);
    acceptor_.join();
    {
      const std::scoped_lock lock(mutex_);
      stopping_ = true;
      for (const int descriptor : open_) shutdown(descriptor, SHUT_RDWR);
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
    close(listener_);
  }

  std::uint16_t port() const { return port_; }
  std::string origin() const { return "http://127.0.0.1:" + std::to_string(port_); }
  std::vector<std::string> requests() const {
    const std::scoped_lock lock(mutex_);
    return requests_;
  }
  std::size_t connections() const {
    const std::scoped_lock lock(mutex_);
    return connections_;
  }
  void wait_for_requests(std::size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return stopping_ || requests_.size() >= count; });
  }

  /// Until every connection is closed from this side.
  void wait_until_closed() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return open_.empty(); });
  }

 private:
  void accept_all() {
    while (true) {
      const int descriptor = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (descriptor < 0) return;
      const std::scoped_lock lock(mutex_);
      open_.push_back(descriptor);
      ++connections_;
      threads_.emplace_back([this, descriptor] { serve(descriptor); });
    }
  }

  void serve(int descriptor) {
    std::string buffered;
    for (std::string request; read_request(descriptor, buffered, request);) {
      {
        const std::scoped_lock lock(mutex_);
        requests_.push_back(request);
      }
      changed_.notify_all();
      if (!handler_(request, Connection(descriptor, *this))) break;
    }
    {
      const std::scoped_lock lock(mutex_);
      std::erase(open_, descriptor);
      close(descriptor);
    }
    changed_.notify_all();
  }

  // The next request, by its Content-Length; false at the end of the connection.
  static bool read_request(int descriptor, std::string& buffered, std::string& request) {
    const auto complete = [&]() -> std::size_t {
      const std::size_t head = buffered.find("\r\n\r\n");
      if (head == std::string::npos) return 0;
      const std::size_t at = buffered.find("Content-Length: ");
      const std::size_t body = at < head ? std::stoul(buffered.substr(at + 16, 20)) : 0;
      return buffered.size() >= head + 4 + body ? head + 4 + body : 0;
    };
    std::size_t bytes = 0;
    while ((bytes = complete()) == 0) {
      char piece[4096];
      const ssize_t size = recv(descriptor, piece, sizeof piece, 0);
      if (size <= 0) return false;
      buffered.append(piece, static_cast<std::size_t>(size));
    }
    request = buffered.substr(0, bytes);
    buffered.erase(0, bytes);
    return true;
  }

  const Handler handler_;
  int listener_ = -1;
  std::uint16_t port_ = 0;
  std::thread acceptor_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::vector<int> open_;
  std::vector<std::thread> threads_;
  std::vector<std::string> requests_;
  std::size_t connections_ = 0;
};

/// A complete answer.
inline std::string http_answer(int status, std::string_view body, std::string_view headers = {}) {
  return "HTTP/1.1 " + std::to_string(status) + " Whatever\r\n" + std::string(headers) +
         "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + std::string(body);
}

}  // namespace spillway::testing
