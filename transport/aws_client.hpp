// SPDX-License-Identifier: Apache-2.0
//
// Calls to an AWS service for threads that may wait: signed, retried by AWS's standard rules, all
// within a deadline.
//
//   AwsClient client({dynamodb, region, endpoint, credentials});
//   const AwsReply reply = client.call_json("DynamoDB_20120810.UpdateItem", "1.0", body, 500ms);
//   if (!reply.ok()) log(reply.error.code, describe(reply));
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include <spillway/transport/blocking_http.hpp>
#include <spillway/transport/retry.hpp>
#include <spillway/transport/signed_service.hpp>

namespace spillway::transport {

/// One thread at a time; stop() from any. Touches no network before the first call.
class AwsClient {
 public:
  struct Parts {
    AwsService service;
    std::string region;
    std::string endpoint;  ///< URL; empty: configured_endpoint(), else the region's own
    std::shared_ptr<CredentialsChain> credentials;
    std::unique_ptr<HttpTransport> http{};       ///< null: libcurl
    std::shared_ptr<ClockSkew> skew{};           ///< null: its own
    int attempts_max = 3;                        ///< the first included; DynamoDB's own rule says 4
    std::function<SignedService::Time()> now{};  ///< null: the system's
    std::function<double()> draw{};              ///< numbers in [0, 1); null: the system's
  };
  explicit AwsClient(Parts parts);

  /// Sends a request of method, path, query, headers and body, again where that helps, and returns
  /// the last answer. Everything, the wait for credentials too, ends within `timeout`.
  AwsReply call(HttpRequest request, std::chrono::milliseconds timeout);
  /// A call in AWS JSON. target: "DynamoDB_20120810.UpdateItem"; version: "1.0" or "1.1".
  AwsReply call_json(std::string_view target, std::string_view version, std::string body,
                     std::chrono::milliseconds timeout);
  /// Ends a call under way, and all to come, at once.
  void stop() noexcept { http_.stop(); }

 private:
  Parts parts_;
  SignedService service_;
  BlockingHttp http_;
  RetryQuota quota_;
};

}  // namespace spillway::transport
