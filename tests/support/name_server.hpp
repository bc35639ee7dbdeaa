// SPDX-License-Identifier: Apache-2.0
//
// A name server over UDP that answers what a test says, for resolvers that are given its port.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

namespace spillway::testing {

class NameServer {
 public:
  enum Type : std::uint16_t { a = 1, aaaa = 28, srv = 33 };
  /// An answer: the data of its records, or none; nothing is sent at all when `silent`.
  struct Answer {
    std::vector<std::string> records{};
    int code = 0;  ///< 3: no such name
    bool silent = false;
  };
  using Handler = std::function<Answer(const std::string& name, std::uint16_t type)>;

  explicit NameServer(Handler handler) : handler_(std::move(handler)) {
    socket_ = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    bind(socket_, reinterpret_cast<sockaddr*>(&address), size);
    getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { serve(); });
  }
  NameServer(const NameServer&) = delete;
  NameServer& operator=(const NameServer&) = delete;
  ~NameServer() {
    // A datagram of no bytes ends it.
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port_);
    sendto(socket_, "", 0, 0, reinterpret_cast<sockaddr*>(&address), sizeof address);
    thread_.join();
    close(socket_);
  }

  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

  static std::string ipv4(std::uint8_t a, std::uint8_t b, std::uint8_t c, std::uint8_t d) {
    return {static_cast<char>(a), static_cast<char>(b), static_cast<char>(c), static_cast<char>(d)};
  }
  static std::string service(std::uint16_t priority, std::uint16_t weight, std::uint16_t port,
                             std::string_view host) {
    std::string record = word(priority) + word(weight) + word(port);
    while (!host.empty()) {
      const auto dot = host.find('.');
      const std::string_view label = host.substr(0, dot);
      record += static_cast<char>(label.size());
      record += label;
      host.remove_prefix(dot == std::string_view::npos ? host.size() : dot + 1);
    }
    return record + '\0';
  }

 private:
  static std::string word(unsigned value) {
    return {static_cast<char>(value >> 8U & 0xFFU), static_cast<char>(value & 0xFFU)};
  }

  void serve() {
    char buffer[1500];
    while (true) {
      sockaddr_in peer{};
      socklen_t peer_size = sizeof peer;
      const ssize_t size = recvfrom(socket_, buffer, sizeof buffer, 0,
                                    reinterpret_cast<sockaddr*>(&peer), &peer_size);
      if (size == 0) return;
      if (size < 17) continue;
      const std::string query(buffer, static_cast<std::size_t>(size));
      std::string name;
      std::size_t at = 12;
      while (at < query.size() && query[at] != 0) {
        const auto bytes = static_cast<std::size_t>(query[at]);
        name += (name.empty() ? "" : ".") + query.substr(at + 1, bytes);
        at += bytes + 1;
      }
      const std::string question = query.substr(12, at + 5 - 12);
      const auto type = static_cast<std::uint16_t>(static_cast<unsigned char>(query[at + 2]));
      const Answer answer = handler_(name, type);
      if (answer.silent) continue;
      std::string reply = query.substr(0, 2) + "\x81" + static_cast<char>(0x80 | answer.code) +
                          word(1) + word(static_cast<unsigned>(answer.records.size())) + word(0) +
                          word(0) + question;
      for (const std::string& record : answer.records)  // The name by its place, class, TTL 60 s.
        reply += word(0xC00C) + word(type) + word(1) + word(0) + word(60) +
                 word(static_cast<unsigned>(record.size())) + record;
      sendto(socket_, reply.data(), reply.size(), 0, reinterpret_cast<sockaddr*>(&peer), peer_size);
    }
  }

  const Handler handler_;
  int socket_ = -1;
  std::uint16_t port_ = 0;
  std::thread thread_;
};

}  // namespace spillway::testing
