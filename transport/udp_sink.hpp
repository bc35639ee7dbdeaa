// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <spillway/transport/address_lookup.hpp>

namespace spillway::transport {

enum class DatagramResult : std::uint8_t { sent, busy, too_large, failed };

/// A connected UDP socket, opened at the first datagram and never blocking. One thread.
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
  DatagramResult transmit(std::string_view head, std::string_view body);
  DatagramResult look_up();
  void fail(int error);
  void fail_lookup(std::string_view reason);
  std::string address_;
  std::vector<SocketAddress> targets_;  // what `address_` was found to mean; empty: not known
  AddressLookup lookup_{SOCK_DGRAM};
  int descriptor_ = -1;
  std::string error_;
};

/// The host and port of an address for UdpSink; empty when it has no such form.
HostPort udp_host_port(std::string_view address);
/// The same for what the daemon takes over TCP.
HostPort tcp_host_port(std::string_view address);

}  // namespace spillway::transport
