// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include <spillway/transport/blocking_http.hpp>

namespace spillway::transport {

struct HostAddresses {
  std::vector<std::string> addresses;  ///< "127.0.0.1", "fd00:ec2::23"; IPv4 in IPv6 as IPv4
  std::string error;                   ///< why there are none
};

/// The IP addresses of a host's name, found within `timeout` and before `stop` is stopped: the
/// system's resolver keeps to no limit, so it is asked by a thread that nobody waits for any longer
/// than that. An address in brackets or without stands for itself.
HostAddresses look_up(const std::string& host, std::chrono::milliseconds timeout,
                      BlockingHttp& stop);

/// Whether `host` is an IP address as inet_pton reads it, IPv6 with or without brackets. Short and
/// hexadecimal forms, which resolvers take for addresses, are none.
bool is_ip_address(const std::string& host) noexcept;

}  // namespace spillway::transport
