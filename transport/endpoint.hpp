// SPDX-License-Identifier: Apache-2.0
//
// Which region, and which URL a service of it has.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace spillway::transport {

/// The services that Spillway talks to.
struct AwsService {
  std::string_view prefix;       ///< of the host name, and the SigV4 service name
  std::string_view variable;     ///< AWS_ENDPOINT_URL_<this>
  std::string_view profile_key;  ///< in a `services` section
};
inline constexpr AwsService cloudwatch{"monitoring", "CLOUDWATCH", "cloudwatch"};
inline constexpr AwsService cloudwatch_logs{"logs", "CLOUDWATCH_LOGS", "cloudwatch_logs"};
inline constexpr AwsService xray{"xray", "XRAY", "xray"};
inline constexpr AwsService dynamodb{"dynamodb", "DYNAMODB", "dynamodb"};
inline constexpr AwsService sns{"sns", "SNS", "sns"};
inline constexpr AwsService sts{"sts", "STS", "sts"};
inline constexpr AwsService service_discovery{"servicediscovery", "SERVICEDISCOVERY",
                                              "servicediscovery"};

/// AWS_REGION, AWS_DEFAULT_REGION, then `region` of the profile; empty when none says. No network
/// is asked.
std::string configured_region();

/// AWS_ENDPOINT_URL_<SERVICE>, AWS_ENDPOINT_URL, then the profile's services section and
/// endpoint_url; nothing when none says or AWS_IGNORE_CONFIGURED_ENDPOINT_URLS is true (order of
/// botocore's ConfiguredEndpointProvider).
std::optional<std::string> configured_endpoint(const AwsService& service);

/// "https://logs.eu-west-1.amazonaws.com": by the region's partition, honouring
/// AWS_USE_FIPS_ENDPOINT and AWS_USE_DUALSTACK_ENDPOINT, or use_fips_endpoint and
/// use_dualstack_endpoint of the profile (botocore's endpoint rule sets, read 2026-08).
std::string service_endpoint(const AwsService& service, std::string_view region);

/// What the name of an AWS endpoint says: "xray.eu-west-1.amazonaws.com" is X-Ray's in eu-west-1.
struct AwsHost {
  std::string service;  ///< without "-fips"
  std::string region;
};
/// Nothing when `host` is no such name. Names of VPC endpoints, which begin otherwise, are none.
std::optional<AwsHost> parse_aws_host(std::string_view host);

/// Whether `region` looks like one: "eu-west-1", "us-gov-east-1".
bool is_region(std::string_view region) noexcept;

}  // namespace spillway::transport
