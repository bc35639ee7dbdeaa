// SPDX-License-Identifier: Apache-2.0
//
// Where AWS credentials come from. A provider is asked on the sender thread only, never by a
// recording thread and never by the engine's constructor.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace spillway::transport {

/// A key pair. The secret parts are wiped when it goes, and it has no way to print itself.
struct Credentials {
  std::string access_key_id;
  std::string secret_access_key;
  std::string session_token;                                          ///< empty for a long-term key
  std::optional<std::chrono::system_clock::time_point> expiration{};  ///< none: does not expire

  Credentials() = default;
  Credentials(std::string id, std::string secret, std::string token = {});
  Credentials(const Credentials&) = default;
  Credentials(Credentials&&) = default;
  Credentials& operator=(const Credentials&) = default;
  Credentials& operator=(Credentials&&) = default;
  ~Credentials();
};

/// Why there are none: names the source and what to do, never a value.
struct CredentialsError {
  std::string message;
};

using CredentialsResult = std::variant<Credentials, CredentialsError>;

/// One source of credentials.
class CredentialsProvider {
 public:
  virtual ~CredentialsProvider() = default;
  /// Nothing: this source is not configured, ask the next. An error: it is configured and does not
  /// work; do not go on.
  virtual std::optional<CredentialsResult> get() = 0;
};

/// Asks its providers in order and keeps the answer until it is told that it went stale or 15
/// minutes before it expires (the advisory window of botocore's credentials.py); when it cannot be
/// renewed then, until it expires.
class CredentialsChain {
 public:
  explicit CredentialsChain(std::vector<std::unique_ptr<CredentialsProvider>> providers);
  CredentialsResult get(std::chrono::system_clock::time_point now);
  /// The other side refused what get() gave: read the sources again next time.
  void forget() noexcept;

 private:
  std::vector<std::unique_ptr<CredentialsProvider>> providers_;
  std::optional<Credentials> cached_;
};

/// Environment, then the shared credentials file, then the shared config file (aws-wire: the order
/// of botocore's default chain, without the sources that need a network).
CredentialsChain default_credentials_chain();

/// A provider of fixed credentials.
std::unique_ptr<CredentialsProvider> static_credentials(Credentials credentials);
/// AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN. Half a pair is an error.
std::unique_ptr<CredentialsProvider> environment_credentials();
/// The profile of AWS_PROFILE (or "default") in the shared files.
std::unique_ptr<CredentialsProvider> profile_credentials();

}  // namespace spillway::transport
