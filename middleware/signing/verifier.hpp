// SPDX-License-Identifier: Apache-2.0
//
// The receiving side of signer.hpp: whether a request comes, unchanged and for the first time, from
// somebody who has a key. Denies by default: what is not signed as the signer does is not signed.
//
//   SignatureVerifier verifier(keys);
//   const Verified result = verifier.verify(view, wall, steady);
//   if (!result) ... 401; to_string(result.refusal) for the log, not for the client ...
//
// A replay is noticed by the process that took the first one: where several serve one name, a request
// may be taken by each of them once within the time window.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <spillway/engine/clock.hpp>
#include <spillway/middleware/exchange.hpp>
#include <spillway/middleware/signing/keys.hpp>
#include <spillway/middleware/signing/replay_cache.hpp>
#include <spillway/middleware/signing/signer.hpp>

namespace spillway::middleware {

enum class SignatureRefusal : std::uint8_t {
  none,
  missing,          ///< no signature of ours
  malformed,        ///< it is not written as ours are
  not_covered,      ///< something that must be signed is not, or is there several times
  unknown_key,      ///< no key of that id verifies now
  expired,          ///< signed too long ago
  from_the_future,  ///< signed later than now, by more than clocks may differ
  wrong_signature,  ///< something was changed, or the secret is another
  wrong_digest,     ///< the body is not the one that was signed
  body_not_read,    ///< the body is not at hand as a whole
  body_hidden,      ///< nor will it ever be: RequestView::body_hidden
  body_too_large,
  replayed,
  replay_cache_full  ///< more requests within the time window than the cache was made for
};
inline constexpr std::size_t signature_refusal_count = 14;
std::string_view to_string(SignatureRefusal refusal) noexcept;

struct SignatureVerifierOptions {
  std::vector<std::string> protected_headers = default_protected_headers();
  std::chrono::seconds age_max{60};      ///< of a signature
  std::chrono::seconds clock_ahead{30};  ///< that a signer's clock may be ahead of ours
  std::size_t body_bytes_max = 1U << 20;
  std::size_t replay_entries =
      1U << 16;  ///< requests within age_max and clock_ahead; 128 bytes each

  /// Throws std::invalid_argument that lists everything that cannot work.
  void check() const;
};

struct Verified {
  SignatureRefusal refusal = SignatureRefusal::missing;
  std::string_view key_id{};  ///< a part of the request's header; empty: refused
  explicit operator bool() const noexcept { return refusal == SignatureRefusal::none; }
};

/// Thread-safe. A call hashes the body; nothing waits but for the short locks of keys and cache.
class SignatureVerifier {
 public:
  /// Throws std::invalid_argument for options that cannot work.
  explicit SignatureVerifier(std::shared_ptr<const SigningKeys> keys,
                             SignatureVerifierOptions options = {});

  /// The body must be in the view as a whole: with grpc.hpp no request can be verified, with httplib.hpp
  /// those without a body. A request that is taken is remembered.
  Verified verify(const RequestView& request, WallTime wall, SteadyTime steady);

 private:
  SignatureRefusal check_body(const RequestView& request) const;

  const std::shared_ptr<const SigningKeys> keys_;
  const SignatureVerifierOptions options_;
  ReplayCache seen_;
};

}  // namespace spillway::middleware
