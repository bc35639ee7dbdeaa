// SPDX-License-Identifier: Apache-2.0
//
// The step that finds out whose request it is behind proxies: it sets Exchange::client_address, which
// the access log, the segment and the rate limiter use. First in a chain, before Observability.
//
//   ClientAddress client_address({.trusted_proxies = {"10.0.0.0/8", "fd00::/8"}});
//   Chain chain(routes, client_address, request_id, observability, ...);
//
// Without it, and for peers that are no trusted proxy, the client is the other end of the connection.
// Thread-safe; a request allocates nothing.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include <spillway/middleware/exchange.hpp>
#include <spillway/middleware/ip_address.hpp>

namespace spillway::middleware {

/// Fields of one name that are read; each can hold a list. A request with more is believed nothing:
/// the last field is the nearest proxy's, the first may be the client's own.
inline constexpr std::size_t forwarded_fields_max = 16;

struct ClientAddressOptions {
  std::vector<std::string> trusted_proxies{};  ///< networks: "10.0.0.0/8"
  std::string header = "X-Forwarded-For";
};

class ClientAddress {
 public:
  class State {
   public:
    State() noexcept {}  // Not zeroed first.

   private:
    friend class ClientAddress;
    std::array<char, IpAddress::text_bytes_max> text_;
  };

  /// Throws std::invalid_argument, which names each network that is none.
  explicit ClientAddress(const ClientAddressOptions& options);
  ClientAddress(const ClientAddress&) = delete;
  ClientAddress& operator=(const ClientAddress&) = delete;

  Verdict before(State& state, Exchange& exchange) const noexcept;

 private:
  std::vector<IpNetwork> trusted_;
  const std::string header_;
};

}  // namespace spillway::middleware
