// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

// The functions below are declared as they were before OpenSSL 3. Its new ones allocate for each digest,
// which a request that is verified must not.
#define OPENSSL_API_COMPAT 10101
#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <spillway/transport/sha256.hpp>

namespace spillway::transport {
namespace {

constexpr std::size_t block_bytes = 64;

/// A digest in the making. Wiped: it may be of a secret.
class Hasher {
 public:
  Hasher() noexcept { SHA256_Init(&state_); }
  Hasher(const Hasher&) = delete;
  Hasher& operator=(const Hasher&) = delete;
  ~Hasher() { OPENSSL_cleanse(&state_, sizeof state_); }

  Hasher& add(std::span<const std::uint8_t> bytes) noexcept {
    SHA256_Update(&state_, bytes.data(), bytes.size());
    return *this;
  }
  Sha256 digest() noexcept {
    Sha256 result;
    SHA256_Final(result.data(), &state_);
    return result;
  }

 private:
  SHA256_CTX state_;
};

std::span<const std::uint8_t> bytes_of(std::string_view text) noexcept {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

}  // namespace

Sha256 sha256(std::string_view bytes) noexcept { return Hasher().add(bytes_of(bytes)).digest(); }

// RFC 2104: the key fills a block, which stands in front of the message, and again of its digest.
Sha256 hmac_sha256(std::span<const std::uint8_t> key, std::string_view bytes) noexcept {
  std::array<std::uint8_t, block_bytes> block{};
  if (key.size() > block.size()) {
    const Sha256 shorter = Hasher().add(key).digest();
    std::copy(shorter.begin(), shorter.end(), block.begin());
  } else {
    std::copy(key.begin(), key.end(), block.begin());
  }
  constexpr std::uint8_t inner_pad = 0x36;
  constexpr std::uint8_t outer_pad = 0x5C;
  for (std::uint8_t& byte : block) byte ^= inner_pad;
  const Sha256 inner = Hasher().add(block).add(bytes_of(bytes)).digest();
  for (std::uint8_t& byte : block) byte ^= inner_pad ^ outer_pad;
  const Sha256 result = Hasher().add(block).add(inner).digest();
  OPENSSL_cleanse(block.data(), block.size());
  return result;
}

std::string hex(std::span<const std::uint8_t> bytes) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string text;
  text.reserve(bytes.size() * 2);
  for (const std::uint8_t byte : bytes) text += {digits[byte >> 4], digits[byte & 15]};
  return text;
}

bool equal_in_constant_time(std::string_view a, std::string_view b) noexcept {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace spillway::transport
