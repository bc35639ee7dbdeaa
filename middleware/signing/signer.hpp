// SPDX-License-Identifier: Apache-2.0
//
// Signs requests from service to service: HTTP Message Signatures (RFC 9421) with HMAC-SHA-256, over
// method, host, path, query, the body's digest (RFC 9530) and the headers that say on whose behalf. Each
// carries the time, a key id and a nonce. The receiving side: verifier.hpp.
//
//   Content-Digest: sha-256=:<base64>:
//   Signature-Input: spillway=("@method" "@authority" "@path" "@query" "content-digest" "x-tenant-id")
//                    ;created=1795262400;keyid="orders-2026-11";alg="hmac-sha256";nonce="<32 hex digits>"
//   Signature: spillway=:<base64>:
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <spillway/engine/clock.hpp>
#include <spillway/middleware/signing/keys.hpp>
#include <spillway/transport/http.hpp>

namespace spillway::middleware {

/// Headers that nobody on the way may add, take away or change. Signed where a request has them; a
/// verifier refuses a request that has one of them unsigned.
std::vector<std::string> default_protected_headers();

/// Thread-safe.
class RequestSigner {
 public:
  explicit RequestSigner(std::shared_ptr<const SigningKeys> keys,
                         std::vector<std::string> protected_headers = default_protected_headers());

  /// Adds the three headers, replacing those that stand there, over origin, path, query, headers and
  /// body as they are: sign last, and again for every attempt. Empty: done. Else why not: no key is
  /// valid, the origin is no URL, or a protected header is there twice. A request that was signed before
  /// is signed again without an allocation.
  std::string sign(transport::HttpRequest& request, WallTime now) const;

 private:
  const std::shared_ptr<const SigningKeys> keys_;
  const std::vector<std::string> protected_headers_;  // in lower case
};

}  // namespace spillway::middleware
