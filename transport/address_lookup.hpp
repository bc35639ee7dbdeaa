// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <sys/socket.h>

namespace spillway::transport {

struct HostPort {
  std::string host;
  std::string port;
};
/// Of "host:port" or "[address]:port"; empty when the text has no such form.
HostPort parse_host_port(std::string_view text);

struct SocketAddress {
  sockaddr_storage bytes;
  socklen_t size;
  int family;
};

/// Finds the addresses of a host. A name is looked up on a thread of its own, because the resolver
/// may block for longer than anybody here can wait, and cannot be stopped. That thread outlives this
/// object if it must. One thread.
class AddressLookup {
 public:
  enum class State : std::uint8_t { known, pending, failed };

  /// `socket_type`: SOCK_STREAM or SOCK_DGRAM.
  explicit AddressLookup(int socket_type) : socket_type_(socket_type) {}

  /// Begins to look, or sees how far it has come. `known`: they are in `found`. `failed`: see
  /// error(); the next call begins anew.
  State look_up(const HostPort& target, std::vector<SocketAddress>& found);
  const std::string& error() const noexcept { return error_; }

 private:
  struct Work;
  const int socket_type_;
  std::shared_ptr<Work> work_;  // under way
  std::string error_;
};

}  // namespace spillway::transport
