// SPDX-License-Identifier: Apache-2.0
//
// Where a service is: functions that list its endpoints, for ServiceClient. Options that cannot work
// throw std::invalid_argument when the function is made; nothing asks a network before it is called.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <spillway/transport/http.hpp>

namespace spillway::middleware {

/// One place that a service's requests may go to.
struct ServiceEndpoint {
  std::string
      origin;  ///< "http://orders.internal:8080": what the Host header, TLS and signatures go by
  std::string address{};  ///< the IP address to connect to; empty: as the origin's name resolves
  std::string zone{};     ///< availability zone; empty: not known
  std::uint32_t weight = 1;
  bool operator==(const ServiceEndpoint&) const = default;
};

struct Discovered {
  std::vector<ServiceEndpoint> endpoints{};
  std::string error{};  ///< why there are none, for people
};
inline constexpr std::size_t service_endpoints_max = 1000;  ///< of one service; more are cut off

/// Lists a service's endpoints within the time. Called by one thread at a time.
using Discover = std::function<Discovered(std::chrono::milliseconds timeout)>;

/// Always these.
Discover static_endpoints(std::vector<ServiceEndpoint> endpoints);

struct DnsDiscoveryOptions {
  std::string name;        ///< A and AAAA: "orders.internal". SRV: "_http._tcp.orders.internal"
  std::uint16_t port = 0;  ///< of A and AAAA
  std::string scheme = "http";
  std::string servers{};  ///< "127.0.0.1:53"; empty: the system's
};
/// An endpoint for each address of a name.
Discover dns_endpoints(DnsDiscoveryOptions options);
/// An endpoint for each SRV record of the best priority, with its weight (RFC 2782; 0 counts as 1).
Discover srv_endpoints(DnsDiscoveryOptions options);

struct CloudMapOptions {
  std::string namespace_name;
  std::string service;
  std::string scheme = "http";
  std::uint16_t port = 0;  ///< of instances without AWS_INSTANCE_PORT
  std::string region{};    ///< empty: AWS_REGION and its like
  std::string
      endpoint{};  ///< URL; empty: AWS_ENDPOINT_URL_SERVICEDISCOVERY and its like, else the region's
  std::function<std::unique_ptr<transport::HttpTransport>()> http{};  ///< null: libcurl; for tests
};
/// AWS Cloud Map, DiscoverInstances: the healthy ones, or all when none is. Address by AWS_INSTANCE_IPV4,
/// AWS_INSTANCE_IPV6 or AWS_INSTANCE_CNAME, zone by AVAILABILITY_ZONE. Needs servicediscovery:DiscoverInstances.
Discover cloud_map_endpoints(CloudMapOptions options);

}  // namespace spillway::middleware
