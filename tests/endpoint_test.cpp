// SPDX-License-Identifier: Apache-2.0
#include <string>

#include <gtest/gtest.h>
#include <support/environment.hpp>
#include <support/temporary_file.hpp>

#include <spillway/transport/endpoint.hpp>

namespace spillway::transport {
namespace {

using testing::ScopedVariable;

class EndpointTest : public ::testing::Test {
 protected:
  testing::TemporaryDirectory directory_;
  const std::string config_ = directory_.path("config");
  ScopedVariable config_file_{"AWS_CONFIG_FILE", config_.c_str()};
  ScopedVariable credentials_file_{"AWS_SHARED_CREDENTIALS_FILE", "/nonexistent"};
  ScopedVariable profile_{"AWS_PROFILE", nullptr};
  ScopedVariable region_{"AWS_REGION", nullptr};
  ScopedVariable default_region_{"AWS_DEFAULT_REGION", nullptr};
  ScopedVariable url_{"AWS_ENDPOINT_URL", nullptr};
  ScopedVariable cloudwatch_url_{"AWS_ENDPOINT_URL_CLOUDWATCH", nullptr};
  ScopedVariable logs_url_{"AWS_ENDPOINT_URL_CLOUDWATCH_LOGS", nullptr};
  ScopedVariable xray_url_{"AWS_ENDPOINT_URL_XRAY", nullptr};
  ScopedVariable ignore_{"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", nullptr};
  ScopedVariable fips_{"AWS_USE_FIPS_ENDPOINT", nullptr};
  ScopedVariable dual_{"AWS_USE_DUALSTACK_ENDPOINT", nullptr};
};

TEST_F(EndpointTest, TheRegionIsSaidByVariablesThenByTheProfile) {
  EXPECT_EQ(configured_region(), "");
  directory_.write("config", "[default]\nregion = eu-west-1\n[profile dev]\nregion = eu-west-2\n");
  EXPECT_EQ(configured_region(), "eu-west-1");
  const ScopedVariable named("AWS_PROFILE", "dev");
  EXPECT_EQ(configured_region(), "eu-west-2");
  const ScopedVariable fallback("AWS_DEFAULT_REGION", "us-west-1");
  EXPECT_EQ(configured_region(), "us-west-1");
  const ScopedVariable region("AWS_REGION", "us-west-2");
  EXPECT_EQ(configured_region(), "us-west-2");
  const ScopedVariable empty("AWS_REGION", "");
  EXPECT_EQ(configured_region(), "us-west-1");
}

TEST_F(EndpointTest, AnOverrideIsSaidByTheNearestSource) {
  EXPECT_EQ(configured_endpoint(cloudwatch_logs), std::nullopt);
  directory_.write("config", "[default]\nendpoint_url = http://profile\n");
  EXPECT_EQ(configured_endpoint(cloudwatch_logs), "http://profile");
  directory_.write("config",
                   "[default]\nendpoint_url = http://profile\nservices = local\n"
                   "[services local]\ncloudwatch_logs =\n  endpoint_url = http://services\n");
  EXPECT_EQ(configured_endpoint(cloudwatch_logs), "http://services");
  EXPECT_EQ(configured_endpoint(xray), "http://profile");
  const ScopedVariable all("AWS_ENDPOINT_URL", "http://all");
  EXPECT_EQ(configured_endpoint(cloudwatch_logs), "http://all");
  const ScopedVariable one("AWS_ENDPOINT_URL_CLOUDWATCH_LOGS", "http://one");
  EXPECT_EQ(configured_endpoint(cloudwatch_logs), "http://one");
  EXPECT_EQ(configured_endpoint(cloudwatch), "http://all");
  const ScopedVariable ignore("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "True");
  EXPECT_EQ(configured_endpoint(cloudwatch_logs), std::nullopt);
}

TEST_F(EndpointTest, EachPartitionHasItsNames) {
  struct Case {
    const char* region;
    const char* plain;
    const char* dual;
  };
  for (const Case& c :
       {Case{"eu-west-1", "logs.eu-west-1.amazonaws.com", "logs.eu-west-1.api.aws"},
        Case{"cn-north-1", "logs.cn-north-1.amazonaws.com.cn",
             "logs.cn-north-1.api.amazonwebservices.com.cn"},
        Case{"us-gov-west-1", "logs.us-gov-west-1.amazonaws.com", "logs.us-gov-west-1.api.aws"},
        Case{"eusc-de-east-1", "logs.eusc-de-east-1.amazonaws.eu",
             "logs.eusc-de-east-1.api.amazonwebservices.eu"},
        Case{"us-iso-east-1", "logs.us-iso-east-1.c2s.ic.gov", "logs.us-iso-east-1.api.aws.ic.gov"},
        Case{"us-isob-east-1", "logs.us-isob-east-1.sc2s.sgov.gov",
             "logs.us-isob-east-1.api.aws.scloud"},
        Case{"eu-isoe-west-1", "logs.eu-isoe-west-1.cloud.adc-e.uk",
             "logs.eu-isoe-west-1.api.cloud-aws.adc-e.uk"},
        Case{"us-isof-east-1", "logs.us-isof-east-1.csp.hci.ic.gov",
             "logs.us-isof-east-1.api.aws.hci.ic.gov"},
        Case{"mars-north-1", "logs.mars-north-1.amazonaws.com", "logs.mars-north-1.api.aws"}}) {
    EXPECT_EQ(service_endpoint(cloudwatch_logs, c.region), std::string("https://") + c.plain);
    const ScopedVariable dual("AWS_USE_DUALSTACK_ENDPOINT", "true");
    EXPECT_EQ(service_endpoint(cloudwatch_logs, c.region), std::string("https://") + c.dual);
  }
  EXPECT_EQ(service_endpoint(cloudwatch, "eu-west-1"),
            "https://monitoring.eu-west-1.amazonaws.com");
  EXPECT_EQ(service_endpoint(xray, "eu-west-1"), "https://xray.eu-west-1.amazonaws.com");
}

TEST_F(EndpointTest, FipsHasAHostOfItsOwnButInGovCloudMostlyThePlainOne) {
  const ScopedVariable fips("AWS_USE_FIPS_ENDPOINT", "true");
  EXPECT_EQ(service_endpoint(cloudwatch, "us-east-1"),
            "https://monitoring-fips.us-east-1.amazonaws.com");
  EXPECT_EQ(service_endpoint(cloudwatch, "us-gov-west-1"),
            "https://monitoring.us-gov-west-1.amazonaws.com");
  EXPECT_EQ(service_endpoint(cloudwatch_logs, "us-gov-west-1"),
            "https://logs.us-gov-west-1.amazonaws.com");
  EXPECT_EQ(service_endpoint(xray, "us-gov-west-1"),
            "https://xray-fips.us-gov-west-1.amazonaws.com");
  const ScopedVariable dual("AWS_USE_DUALSTACK_ENDPOINT", "true");
  EXPECT_EQ(service_endpoint(cloudwatch, "us-gov-west-1"),
            "https://monitoring.us-gov-west-1.api.aws");
  EXPECT_EQ(service_endpoint(cloudwatch_logs, "us-gov-west-1"),
            "https://logs-fips.us-gov-west-1.api.aws");
  EXPECT_EQ(service_endpoint(cloudwatch_logs, "us-east-1"), "https://logs-fips.us-east-1.api.aws");
}

TEST_F(EndpointTest, TheProfileMaySwitchThemOnAndTheEnvironmentWins) {
  directory_.write("config",
                   "[default]\nuse_fips_endpoint = true\nuse_dualstack_endpoint = True\n");
  EXPECT_EQ(service_endpoint(sts, "us-east-1"), "https://sts-fips.us-east-1.api.aws");
  const ScopedVariable fips("AWS_USE_FIPS_ENDPOINT", "false");
  EXPECT_EQ(service_endpoint(sts, "us-east-1"), "https://sts.us-east-1.api.aws");
  const ScopedVariable dual("AWS_USE_DUALSTACK_ENDPOINT", "false");
  EXPECT_EQ(service_endpoint(sts, "us-east-1"), "https://sts.us-east-1.amazonaws.com");
}

TEST_F(EndpointTest, TheRegionLocalIsDynamoDbOnThisMachine) {
  EXPECT_EQ(service_endpoint(dynamodb, "local"), "http://localhost:8000");
}

TEST(AwsHostTest, NamesOfEndpointsAreUnderstood) {
  const auto is = [](std::string_view host, std::string_view service, std::string_view region) {
    const auto parsed = parse_aws_host(host);
    ASSERT_TRUE(parsed) << host;
    EXPECT_EQ(parsed->service, service);
    EXPECT_EQ(parsed->region, region);
  };
  is("xray.eu-west-1.amazonaws.com", "xray", "eu-west-1");
  is("monitoring-fips.us-gov-east-1.api.aws", "monitoring", "us-gov-east-1");
  is("logs.cn-north-1.amazonaws.com.cn", "logs", "cn-north-1");
  for (const char* const host :
       {"localhost", "", ".", "collector.example.com", "xray.amazonaws.com",
        "xray.eu-west-1.amazonaws.com.evil.org", "vpce-1.xray.eu-west-1.vpce.amazonaws.com",
        "xray..amazonaws.com", ".eu-west-1.amazonaws.com", "127.0.0.1"}) {
    EXPECT_FALSE(parse_aws_host(host)) << host;
  }
}

TEST(RegionTest, WhatLooksLikeOne) {
  for (const char* const good : {"eu-west-1", "us-gov-east-1", "local", "us-isob-east-1"}) {
    EXPECT_TRUE(is_region(good)) << good;
  }
  for (const char* const bad :
       {"", "x", "EU-WEST-1", "eu west 1", "eu-west-1.evil.com", "-eu", "eu-", "eu/1", "eu\n"}) {
    EXPECT_FALSE(is_region(bad)) << bad;
  }
  EXPECT_TRUE(is_region(std::string(63, 'a')));
  EXPECT_FALSE(is_region(std::string(64, 'a')));
}

}  // namespace
}  // namespace spillway::transport
