// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <stdexcept>
#include <utility>
#include <vector>

#include <spillway/middleware/allowed.hpp>
#include <spillway/middleware/ip_address.hpp>
#include <spillway/transport/sha256.hpp>

namespace spillway::middleware {

Allowed from_networks(std::initializer_list<std::string_view> networks) {
  std::vector<IpNetwork> parsed;
  for (const std::string_view text : networks) {
    const auto network = IpNetwork::parse(text);
    if (!network)
      throw std::invalid_argument("spillway: \"" + std::string(text) +
                                  "\" is no network; \"10.0.0.0/8\" and \"2001:db8::/32\" are");
    parsed.push_back(*network);
  }
  return [parsed = std::move(parsed)](const Exchange& exchange) {
    const auto address = IpAddress::parse(exchange.client_address);
    return address && std::any_of(parsed.begin(), parsed.end(), [&](const IpNetwork& network) {
             return network.contains(*address);
           });
  };
}

Allowed with_secret(std::string header, std::string secret) {
  constexpr std::size_t secret_chars_min = 16;
  if (secret.size() < secret_chars_min)
    throw std::invalid_argument("spillway: the secret of header " + header +
                                " is shorter than 16 characters");
  return [header = std::move(header), secret = std::move(secret)](const Exchange& exchange) {
    return transport::equal_in_constant_time(exchange.request.header(header), secret);
  };
}

}  // namespace spillway::middleware
