// SPDX-License-Identifier: Apache-2.0
//
// Names to addresses within a time-out, which getaddrinfo() does not keep to when a name server does
// not answer. Over c-ares: the system's hosts file and resolver configuration, read for each call.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace spillway::transport {

struct DnsAddresses {
  std::vector<std::string> addresses;  ///< "203.0.113.7", "2001:db8::1"; none: see error
  std::string error;                   ///< for people
};

/// A record of type SRV (RFC 2782).
struct DnsService {
  std::string host;
  std::uint16_t port = 0;
  std::uint16_t priority = 0;
  std::uint16_t weight = 0;
};
struct DnsServices {
  std::vector<DnsService> services;
  std::string error;
};

/// Thread-safe: a call keeps nothing.
class DnsResolver {
 public:
  /// `servers`: "127.0.0.1:5353", with commas between; empty: the system's.
  explicit DnsResolver(std::string servers = {}) : servers_(std::move(servers)) {}

  /// A and AAAA. A numeric address is its own.
  DnsAddresses addresses(const std::string& name, std::chrono::milliseconds timeout) const;
  /// SRV: "_http._tcp.orders.local".
  DnsServices services(const std::string& name, std::chrono::milliseconds timeout) const;

 private:
  std::string servers_;
};

/// Connects over TCP to the first of the addresses that takes it, and closes. Empty: it did; else
/// why not, for people.
std::string try_connect(const std::vector<std::string>& addresses, std::uint16_t port,
                        std::chrono::milliseconds timeout);

}  // namespace spillway::transport
