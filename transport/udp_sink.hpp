// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <sys/socket.h>

namespace spillway::transport {

enum class DatagramResult : std::uint8_t { sent, busy, too_large, failed };

/// A connected UDP socket, opened at the first datagram and never blocking. One thread.
///
/// A name is looked up on a thread of its own, because the resolver may block for longer than
/// anybody here can wait, and cannot be stopped. That thread outlives the sink if it must.
///
/// A name may have several addresses of which only one is listened on ("localhost" is ::1 and
/// 127.0.0.1): the first that does not refuse a datagram is kept.
class UdpSink {
 public:
  /// `address`: "host:port", or the daemon's form "tcp:host:port udp:host:port". The host is a name
  /// or an address.
  explicit UdpSink(std::string address);
  UdpSink(const UdpSink&) = delete;
  UdpSink& operator=(const UdpSink&) = delete;
  ~UdpSink();

  /// Sends `head` and `body` as one datagram. `busy`: no room in the kernel now, or the name is
  /// still being looked up. `failed`: no address takes it, see error(); the next call looks them up
  /// anew.
  DatagramResult send(std::string_view head, std::string_view body);
  const std::string& error() const noexcept { return error_; }

 private:
  struct SocketAddress {
    sockaddr_storage bytes;
    socklen_t size;
    int family;
  };
  struct Lookup;
  DatagramResult transmit(std::string_view head, std::string_view body);
  DatagramResult look_up();
  void fail(int error);
  void fail_lookup(const char* reason);
  std::string address_;
  std::vector<SocketAddress> targets_;  // what `address_` was found to mean; empty: not known
  std::shared_ptr<Lookup> lookup_;      // under way
  int descriptor_ = -1;
  std::string error_;
};

/// The host and port of an address for UdpSink; empty when it has no such form.
struct HostPort {
  std::string host;
  std::string port;
};
HostPort udp_host_port(std::string_view address);

}  // namespace spillway::transport
