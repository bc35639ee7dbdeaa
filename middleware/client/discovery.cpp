// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <utility>

#include <simdjson.h>

#include <spillway/encoders/json.hpp>
#include <spillway/middleware/client/discovery.hpp>
#include <spillway/middleware/resilience/settings.hpp>
#include <spillway/transport/aws_client.hpp>
#include <spillway/transport/credential_sources.hpp>
#include <spillway/transport/dns.hpp>
#include <spillway/transport/text.hpp>
#include <spillway/transport/url.hpp>

namespace spillway::middleware {
namespace {

std::string origin_of(const std::string& scheme, const std::string& host, std::uint16_t port) {
  const bool own = port == (scheme == "https" ? 443 : 80);
  const bool v6 = host.find(':') != std::string::npos;
  return scheme + "://" + (v6 ? "[" + host + "]" : host) + (own ? "" : ":" + std::to_string(port));
}

bool is_scheme(const std::string& scheme) { return scheme == "http" || scheme == "https"; }

}  // namespace

Discover static_endpoints(std::vector<ServiceEndpoint> endpoints) {
  SettingsCheck check("static endpoints");
  check.within<std::size_t>("the number of endpoints", endpoints.size(), 1, service_endpoints_max);
  for (ServiceEndpoint& one : endpoints) {
    const auto url = transport::parse_url(one.origin);
    check.require(url.has_value(), "\"" + one.origin + "\" is no http or https URL");
    if (url) one.origin = url->origin();
  }
  check.done();
  return [endpoints = std::move(endpoints)](std::chrono::milliseconds /*timeout*/) {
    return Discovered{endpoints, {}};
  };
}

Discover dns_endpoints(DnsDiscoveryOptions options) {
  SettingsCheck("discovery by DNS")
      .require(!options.name.empty(), "there is no name")
      .require(options.port != 0, "there is no port")
      .require(is_scheme(options.scheme), "the scheme is neither http nor https")
      .done();
  return [options = std::move(options)](std::chrono::milliseconds timeout) {
    auto found = transport::DnsResolver(options.servers).addresses(options.name, timeout);
    Discovered result{{}, std::move(found.error)};
    for (std::string& address : found.addresses) {
      result.endpoints.push_back({.origin = origin_of(options.scheme, options.name, options.port),
                                  .address = std::move(address)});
    }
    return result;
  };
}

Discover srv_endpoints(DnsDiscoveryOptions options) {
  SettingsCheck("discovery by SRV records")
      .require(!options.name.empty(), "there is no name")
      .require(is_scheme(options.scheme), "the scheme is neither http nor https")
      .done();
  return [options = std::move(options)](std::chrono::milliseconds timeout) {
    const auto found = transport::DnsResolver(options.servers).services(options.name, timeout);
    Discovered result{{}, found.error};
    const auto best =
        std::min_element(found.services.begin(), found.services.end(),
                         [](const auto& a, const auto& b) { return a.priority < b.priority; });
    for (const transport::DnsService& one : found.services) {
      if (one.priority != best->priority) continue;
      result.endpoints.push_back({.origin = origin_of(options.scheme, one.host, one.port),
                                  .weight = std::max<std::uint32_t>(one.weight, 1)});
    }
    return result;
  };
}

Discover cloud_map_endpoints(CloudMapOptions options) {
  if (options.region.empty()) options.region = transport::configured_region();
  SettingsCheck("discovery by Cloud Map")
      .require(!options.namespace_name.empty(), "there is no namespace_name")
      .require(!options.service.empty(), "there is no service")
      .require(is_scheme(options.scheme), "the scheme is neither http nor https")
      .require(!options.region.empty(), "there is no region: set `region` or AWS_REGION")
      .done();
  transport::AwsClient::Parts parts;
  parts.service = transport::service_discovery;
  parts.region = options.region;
  parts.endpoint = options.endpoint;
  if (parts.endpoint.empty())
    parts.endpoint = transport::configured_endpoint(parts.service).value_or("");
  if (parts.endpoint.empty()) {
    // DiscoverInstances is on hosts of its own: "data-" before the name (the API's host prefix).
    parts.endpoint = transport::service_endpoint(parts.service, options.region);
    parts.endpoint.insert(parts.endpoint.find("://") + 3, "data-");
  }
  parts.credentials = transport::default_credentials_chain();
  if (options.http) parts.http = options.http();
  const auto client = std::make_shared<transport::AwsClient>(std::move(parts));
  spillway::detail::ByteBuffer body;
  body.append("{\"NamespaceName\":");
  spillway::detail::append_json_string(body, options.namespace_name);
  body.append(",\"ServiceName\":");
  spillway::detail::append_json_string(body, options.service);
  body.append(",\"MaxResults\":1000,\"HealthStatus\":\"HEALTHY_OR_ELSE_ALL\"}");
  return [client, options = std::move(options),
          body = std::string(body.view())](std::chrono::milliseconds timeout) {
    Discovered result;
    const transport::AwsReply reply =
        client->call_json("Route53AutoNaming_v20170314.DiscoverInstances", "1.1", body, timeout);
    if (!reply.ok()) {
      result.error = "DiscoverInstances of " + options.service + ": " + describe(reply);
      return result;
    }
    simdjson::dom::parser parser;
    simdjson::dom::array instances;
    if (parser.parse(reply.response.body)["Instances"].get(instances) != simdjson::SUCCESS) {
      result.error = "DiscoverInstances of " + options.service + ": the answer has no Instances";
      return result;
    }
    for (const simdjson::dom::element instance : instances) {
      if (result.endpoints.size() == service_endpoints_max) break;
      const auto attribute = [&](std::string_view name) {
        std::string_view value;
        return instance["Attributes"][name].get(value) == simdjson::SUCCESS ? std::string(value)
                                                                            : std::string();
      };
      std::string host = attribute("AWS_INSTANCE_IPV4");
      if (host.empty()) host = attribute("AWS_INSTANCE_IPV6");
      if (host.empty()) host = attribute("AWS_INSTANCE_CNAME");
      const auto port = transport::parse_number<std::uint16_t>(attribute("AWS_INSTANCE_PORT"))
                            .value_or(options.port);
      if (host.empty() || port == 0) continue;  // Not for requests over HTTP.
      result.endpoints.push_back({.origin = origin_of(options.scheme, host, port),
                                  .zone = attribute("AVAILABILITY_ZONE")});
    }
    if (result.endpoints.empty())
      result.error = options.service + " has no instance with an address and a port";
    return result;
  };
}

}  // namespace spillway::middleware
