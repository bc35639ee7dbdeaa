// SPDX-License-Identifier: Apache-2.0
//
// AWS Signature Version 4 with HMAC-SHA256, for every service but S3 (which encodes paths
// differently). Source: IAM User Guide, "Create a signed AWS API request", and botocore's auth.py,
// both read 2026-08.
#pragma once

#include <chrono>
#include <span>
#include <string>
#include <string_view>

#include <spillway/transport/credentials.hpp>
#include <spillway/transport/http.hpp>
#include <spillway/transport/sha256.hpp>

namespace spillway::transport {

/// Where a signature is valid: "20261121/eu-west-1/logs/aws4_request".
struct SigningScope {
  std::string date;  ///< YYYYMMDD
  std::string region;
  std::string service;

  std::string text() const;
};

/// YYYYMMDDTHHMMSSZ.
std::string amz_date(std::chrono::system_clock::time_point time);

/// Signs requests with one key at a time and remembers the derived key for the day. One thread.
class Sigv4Signer {
 public:
  Sigv4Signer(std::string region, std::string service);
  ~Sigv4Signer();
  Sigv4Signer(Sigv4Signer&&) = default;
  Sigv4Signer& operator=(Sigv4Signer&&) = default;

  /// Adds Host, X-Amz-Date, X-Amz-Security-Token (when there is a token) and Authorization,
  /// replacing those that stand there, over the exact bytes of the body. Sign again for every
  /// attempt: the date changes.
  void sign(HttpRequest& request, const Credentials& credentials,
            std::chrono::system_clock::time_point now);

 private:
  const Sha256& signing_key(const Credentials& credentials, const SigningScope& scope);

  std::string region_;
  std::string service_;
  // The derived key, and what it was derived from.
  Sha256 key_{};
  std::string key_date_;
  Credentials key_credentials_;
};

// ---- The steps, for the verifying side and for tests ----

/// The key that signs in `scope`: four nested HMACs, beginning with the secret.
Sha256 derive_signing_key(std::string_view secret, const SigningScope& scope);

/// The canonical form of a request. `headers` are those to sign, any case and order, several of one
/// name allowed.
std::string canonical_request(std::string_view method, std::string_view path,
                              std::string_view query, std::span<const HttpHeader> headers,
                              std::string_view body_sha256_hex);

/// The names of `headers` as they stand in SignedHeaders: lower case, sorted, once each.
std::string signed_header_names(std::span<const HttpHeader> headers);

std::string string_to_sign(std::string_view amz_date, const SigningScope& scope,
                           std::string_view canonical_request);

/// Whether a header takes part in signatures: those that proxies rewrite do not.
bool is_signable(std::string_view header_name) noexcept;

}  // namespace spillway::transport
