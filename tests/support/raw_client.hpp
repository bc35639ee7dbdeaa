// SPDX-License-Identifier: Apache-2.0
//
// A client that sends exactly the bytes it is given, for what no HTTP library would send.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <spillway/transport/http.hpp>

namespace spillway {

inline sockaddr_in loopback(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

/// One TCP connection to 127.0.0.1.
class RawClient {
 public:
  explicit RawClient(std::uint16_t port) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const sockaddr_in address = loopback(port);
    connected_ = connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  }
  ~RawClient() { close(fd_); }
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  bool connected() const { return connected_; }

  /// False once the other side has closed.
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t size = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (size <= 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(size));
    }
    return true;
  }

  /// Reads until `end` has come, or the connection ends.
  std::string read_until(std::string_view end) {
    std::string result;
    char byte = 0;
    while (!result.ends_with(end) && recv(fd_, &byte, 1, 0) == 1) result += byte;
    return result;
  }

  /// The next response: header and, by its Content-Length, body. Empty when there is none.
  std::string read_response() {
    std::string response = read_until("\r\n\r\n");
    const std::size_t at = response.find("Content-Length: ");
    if (at == std::string::npos) return response;
    std::size_t left = std::stoul(response.substr(at + 16));
    std::string body(left, '\0');
    std::size_t filled = 0;
    while (filled < body.size()) {
      const ssize_t size = recv(fd_, body.data() + filled, body.size() - filled, 0);
      if (size <= 0) break;
      filled += static_cast<std::size_t>(size);
    }
    return response + body.substr(0, filled);
  }

  std::string exchange(std::string_view bytes) {
    send(bytes);
    return read_response();
  }

 private:
  int fd_;
  bool connected_ = false;
};

/// The bytes of a request as HTTP/1.1 would send it.
inline std::string wire_form(const transport::HttpRequest& request) {
  std::string text = request.method + " " + request.path;
  if (!request.query.empty()) text += "?" + request.query;
  text += " HTTP/1.1\r\n";
  for (const auto& header : request.headers) text += header.name + ": " + header.value + "\r\n";
  return text + "Content-Length: " + std::to_string(request.body.size()) + "\r\n\r\n" +
         request.body;
}

}  // namespace spillway
