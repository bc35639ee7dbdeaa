// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cstdlib>

#include <spillway/transport/endpoint.hpp>
#include <spillway/transport/profile.hpp>
#include <spillway/transport/text.hpp>

namespace spillway::transport {
namespace {

struct Partition {
  std::string_view region_prefix;
  std::string_view suffix;
  std::string_view dual_stack_suffix;
};

// The last row, with an empty prefix, is the partition of every other region.
constexpr std::array<Partition, 8> partitions{{
    {"cn-", "amazonaws.com.cn", "api.amazonwebservices.com.cn"},
    {"eusc-", "amazonaws.eu", "api.amazonwebservices.eu"},
    {"us-iso-", "c2s.ic.gov", "api.aws.ic.gov"},
    {"us-isob-", "sc2s.sgov.gov", "api.aws.scloud"},
    {"eu-isoe-", "cloud.adc-e.uk", "api.cloud-aws.adc-e.uk"},
    {"us-isof-", "csp.hci.ic.gov", "api.aws.hci.ic.gov"},
    {"us-gov-", "amazonaws.com", "api.aws"},
    {"", "amazonaws.com", "api.aws"},
}};

std::string environment(const std::string& name) {
  const char* const value = std::getenv(name.c_str());
  return value == nullptr ? std::string() : std::string(value);
}

bool is_true(const std::string& name) { return equal_without_case(environment(name), "true"); }

// A switch of the environment, else of the profile.
bool is_on(const std::string& variable, std::string_view profile_key) {
  if (const std::string value = environment(variable); !value.empty()) {
    return equal_without_case(value, "true");
  }
  const auto profile = load_profile(profile_name());
  return profile && equal_without_case(profile->get(profile_key), "true");
}

}  // namespace

std::string configured_region() {
  for (const char* const name : {"AWS_REGION", "AWS_DEFAULT_REGION"}) {
    if (std::string region = environment(name); !region.empty()) return region;
  }
  const auto profile = load_profile(profile_name());
  return profile ? profile->get("region") : std::string();
}

std::optional<std::string> configured_endpoint(const AwsService& service) {
  if (is_true("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")) return std::nullopt;
  for (const std::string& name :
       {"AWS_ENDPOINT_URL_" + std::string(service.variable), std::string("AWS_ENDPOINT_URL")}) {
    if (std::string url = environment(name); !url.empty()) return url;
  }
  const auto profile = load_profile(profile_name());
  if (!profile) return std::nullopt;
  if (const std::string services = profile->get("services"); !services.empty()) {
    if (const auto section = load_services(services)) {
      const std::string url = section->get(std::string(service.profile_key) + ".endpoint_url");
      if (!url.empty()) return url;
    }
  }
  const std::string url = profile->get("endpoint_url");
  return url.empty() ? std::nullopt : std::optional(url);
}

std::string service_endpoint(const AwsService& service, std::string_view region) {
  if (region == "local" && service.prefix == dynamodb.prefix) return "http://localhost:8000";
  const bool dual_stack = is_on("AWS_USE_DUALSTACK_ENDPOINT", "use_dualstack_endpoint");
  bool fips = is_on("AWS_USE_FIPS_ENDPOINT", "use_fips_endpoint");
  // In GovCloud the plain host is the FIPS one, but for these two, and for most over dual-stack.
  const bool has_fips_host =
      service.prefix == xray.prefix || service.prefix == service_discovery.prefix;
  if (region.starts_with("us-gov-") && !has_fips_host &&
      (!dual_stack || service.prefix == cloudwatch.prefix)) {
    fips = false;
  }
  for (const Partition& partition : partitions) {
    if (!region.starts_with(partition.region_prefix)) continue;
    std::string url = "https://" + std::string(service.prefix);
    if (fips) url += "-fips";
    url.append(".").append(region).append(".");
    return url.append(dual_stack ? partition.dual_stack_suffix : partition.suffix);
  }
  return {};
}

std::optional<AwsHost> parse_aws_host(std::string_view host) {
  const std::size_t service_end = host.find('.');
  if (service_end == std::string_view::npos) return std::nullopt;
  const std::size_t region_end = host.find('.', service_end + 1);
  if (region_end == std::string_view::npos) return std::nullopt;
  std::string_view service = host.substr(0, service_end);
  const std::string_view region = host.substr(service_end + 1, region_end - service_end - 1);
  const std::string_view suffix = host.substr(region_end + 1);
  if (service.ends_with("-fips")) service.remove_suffix(5);
  if (service.empty() || !is_region(region) || region.find('-') == std::string_view::npos) {
    return std::nullopt;
  }
  for (const Partition& partition : partitions) {
    if (suffix == partition.suffix || suffix == partition.dual_stack_suffix) {
      return AwsHost{std::string(service), std::string(region)};
    }
  }
  return std::nullopt;
}

bool is_region(std::string_view region) noexcept {
  return region.size() >= 2 && region.size() <= 63 && region.front() != '-' &&
         region.back() != '-' &&
         region.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") ==
             std::string_view::npos;
}

}  // namespace spillway::transport
