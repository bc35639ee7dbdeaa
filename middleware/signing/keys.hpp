// SPDX-License-Identifier: Apache-2.0
//
// The secrets that services sign requests to each other with, by key id. Several at a time, so that
// they can be replaced without an outage: give the new key to all verifiers, then to all signers (its
// `from` may lie ahead), and take the old one away when nobody signs with it any more.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include <spillway/engine/clock.hpp>

namespace spillway::middleware {

struct SigningKey {
  std::string id;  ///< printable ASCII without quote and backslash; goes along with each request
  std::string secret;  ///< signing_secret_bytes_min bytes at least, of a random generator
  WallTime from = WallTime::min();   ///< signs from then on
  WallTime until = WallTime::max();  ///< neither signs nor verifies from then on
};
inline constexpr std::size_t signing_secret_bytes_min = 32;
inline constexpr std::size_t signing_key_id_chars_max = 64;
inline constexpr std::size_t signing_keys_max = 64;

/// Thread-safe. Secrets are kept out of core dumps and wiped when they go; it has no way to print them.
class SigningKeys {
 public:
  /// Throws std::invalid_argument that lists what is wrong, never with a secret.
  explicit SigningKeys(std::vector<SigningKey> keys);
  ~SigningKeys();
  SigningKeys(const SigningKeys&) = delete;
  SigningKeys& operator=(const SigningKeys&) = delete;

  /// From now on these. Throws as the constructor, and then nothing changes.
  void replace(std::vector<SigningKey> keys);

  struct Key;
  using KeyHandle = std::shared_ptr<const Key>;
  /// The key to sign with: of those that are valid the one with the latest `from`. Null: none is.
  KeyHandle signing(WallTime now) const;
  /// The key of an id, when it verifies. A key verifies before its `from`: the signer's clock may be
  /// ahead, or its list newer.
  KeyHandle verifying(std::string_view id, WallTime now) const;

 private:
  struct Table;
  std::shared_ptr<const Table> table() const;

  mutable std::mutex mutex_;  // of the pointer
  std::shared_ptr<const Table> table_;
};

}  // namespace spillway::middleware
