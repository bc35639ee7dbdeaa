// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>
#include <support/environment.hpp>
#include <support/json.hpp>

#include <spillway/engine/testing.hpp>

namespace spillway::testing {

/// Credentials and a region for engines that talk to AWS, and no other setting from outside.
class AwsEnvironment {
  ScopedVariable id_{"AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"};
  ScopedVariable secret_{"AWS_SECRET_ACCESS_KEY", "canary-secret"};
  ScopedVariable region_{"AWS_REGION", "eu-west-1"};
  ScopedVariable token_{"AWS_SESSION_TOKEN", nullptr};
  ScopedVariable config_file_{"AWS_CONFIG_FILE", "/nonexistent"};
  ScopedVariable credentials_file_{"AWS_SHARED_CREDENTIALS_FILE", "/nonexistent"};
  ScopedVariable profile_{"AWS_PROFILE", nullptr};
  ScopedVariable endpoint_{"AWS_ENDPOINT_URL", nullptr};
};

/// Every signal to AWS, everything sampled.
inline Config aws_config() {
  Config config;
  config.service = "orders";
  config.metric_namespace = "Shop";
  config.metrics = MetricsTo::put_metric_data;
  config.logs = LogsTo::put_log_events;
  config.traces = TracesTo::put_trace_segments;
  config.trace_sample_rate = 1.0;
  config.log_group = "/shop/orders";
  config.log_stream = "pod-1";
  return config;
}

/// The operation of a request: "PutMetricData", "CreateLogStream", "TraceSegments".
inline std::string operation_of(const transport::HttpRequest& request) {
  const std::string_view target = transport::find_header(request.headers, "X-Amz-Target");
  return std::string(target.empty() ? request.path.substr(1) : target.substr(target.find('.') + 1));
}

inline std::vector<std::string> operations(const TestEngine& test) {
  std::vector<std::string> names;
  for (const transport::HttpRequest& request : test.http.requests())
    names.push_back(operation_of(request));
  return names;
}

/// Whether the account is balanced and nothing is under way; explains itself when not.
inline ::testing::AssertionResult is_settled(const SignalStats& stats) {
  if (stats.residue() == 0 && stats.held() == 0) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure()
         << "recorded " << stats.recorded << ", delivered " << stats.delivered << ", dropped "
         << stats.dropped_total() << ", held " << stats.held();
}

}  // namespace spillway::testing
