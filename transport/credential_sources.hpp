// SPDX-License-Identifier: Apache-2.0
//
// Where AWS credentials come from, in the order in which they are asked:
//
//   1. environment      AWS_ACCESS_KEY_ID and its kin
//   2. assumed role     the profile's role_arn, with source_profile or credential_source
//   3. web identity     AWS_WEB_IDENTITY_TOKEN_FILE with AWS_ROLE_ARN, or the same of the profile
//   4. the profile      SSO, keys, credential_process
//   5. container        AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI: ECS, EKS Pod Identity
//   6. instance         the metadata service of EC2, version 2 only
//
// A source that is set up and does not work is an error; the next one is asked only when it is not
// set up. Sources: botocore's credentials.py and utils.py, read 2026-08.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include <spillway/transport/credentials.hpp>

namespace spillway::transport {

/// What the sources that fetch share.
struct SourceParts {
  std::shared_ptr<BlockingHttp> http;
  std::string region{};  ///< of STS; empty: configured_region()
  /// Null: the system's.
  std::function<std::chrono::system_clock::time_point()> now{};
  /// Waits between attempts; false: stopped. Null: http's.
  std::function<bool(std::chrono::milliseconds)> pause{};
};

/// A provider of fixed credentials.
std::unique_ptr<CredentialsProvider> static_credentials(Credentials credentials);
/// AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_CREDENTIAL_EXPIRATION. Half a
/// pair is an error.
std::unique_ptr<CredentialsProvider> environment_credentials();
/// The role that AWS_PROFILE's profile (or "default") says to assume, by AssumeRole of STS.
std::unique_ptr<CredentialsProvider> assume_role_credentials(SourceParts parts);
/// A role by AssumeRoleWithWebIdentity of STS. The token's file is read at each fetch.
std::unique_ptr<CredentialsProvider> web_identity_credentials(SourceParts parts);
/// The rest of what the profile may say: SSO with the token that `aws sso login` has left, keys, or a
/// program that prints them.
std::unique_ptr<CredentialsProvider> profile_credentials(SourceParts parts);
/// The service beside a container. By http only to addresses that are this machine's or the
/// container service's own: the one that was checked is the one that is asked.
std::unique_ptr<CredentialsProvider> container_credentials(SourceParts parts);
/// The role of the EC2 instance. Its credentials stay in use while the service gives no newer ones.
std::unique_ptr<CredentialsProvider> instance_credentials(SourceParts parts);

/// The whole chain, on a transport of its own (null: libcurl). `region`: of STS, when code says one.
std::shared_ptr<CredentialsChain> default_credentials_chain(
    CredentialsChain::Options options = {}, std::unique_ptr<HttpTransport> http = nullptr,
    std::string region = {});

}  // namespace spillway::transport
