// SPDX-License-Identifier: Apache-2.0
//
// Where AWS credentials come from, in the order in which they are asked. A source that is set up and
// does not work is an error; the next one is asked only when it is not set up. Sources: botocore's
// credentials.py and utils.py, read 2026-08.
#pragma once

#include <memory>

#include <spillway/transport/credentials.hpp>

namespace spillway::transport {

/// A provider of fixed credentials.
std::unique_ptr<CredentialsProvider> static_credentials(Credentials credentials);
/// AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_CREDENTIAL_EXPIRATION. Half a
/// pair is an error.
std::unique_ptr<CredentialsProvider> environment_credentials();
/// The keys of AWS_PROFILE's profile (or "default") in the shared files.
std::unique_ptr<CredentialsProvider> profile_credentials();

/// The whole chain, on a transport of its own (null: libcurl).
std::shared_ptr<CredentialsChain> default_credentials_chain(
    CredentialsChain::Options options = {}, std::unique_ptr<HttpTransport> http = nullptr);

}  // namespace spillway::transport
