// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>

#include <spillway/middleware/exchange.hpp>

namespace spillway::middleware {

/// Says of a request whether its client may have what others may not. Called on the server's threads.
using Allowed = std::function<bool(const Exchange&)>;

/// Clients with an address of these networks, by Exchange::client_address: "10.0.0.0/8". Throws
/// std::invalid_argument for what is no network. Behind a proxy every client has the proxy's address
/// unless a step before (client_address.hpp) knows better.
Allowed from_networks(std::initializer_list<std::string_view> networks);

/// Requests that carry this secret in a header, compared in constant time. Throws
/// std::invalid_argument for one shorter than 16 characters.
Allowed with_secret(std::string header, std::string secret);

}  // namespace spillway::middleware
