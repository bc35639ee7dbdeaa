// SPDX-License-Identifier: Apache-2.0
//
// HTTP Message Signatures with HMAC-SHA-256 (RFC 9421) and Content-Digest (RFC 9530): what both sides
// share. Only what we sign with is read: one signature by our label, parameters created, keyid, alg
// and nonce, components without parameters of their own. Everything else is no signature.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include <spillway/buffers/byte_buffer.hpp>
#include <spillway/middleware/exchange.hpp>
#include <spillway/transport/sha256.hpp>

namespace spillway::middleware {

inline constexpr std::string_view signature_label = "spillway";
inline constexpr std::string_view signature_algorithm = "hmac-sha256";  // RFC 9421, 6.2.2
inline constexpr std::size_t signature_components_max = 24;
inline constexpr std::size_t signature_base_bytes_max = 16U << 10;
inline constexpr std::size_t nonce_chars_min = 16;
inline constexpr std::size_t nonce_chars_max = 64;

/// What every signature covers.
inline constexpr std::array<std::string_view, 5> covered_always{"@method", "@authority", "@path",
                                                                "@query", "content-digest"};

/// Signature-Input, read. Views into the header.
struct SignatureInput {
  std::array<std::string_view, signature_components_max> components{};
  std::size_t component_count = 0;
  std::string_view parameters{};  ///< the value of @signature-params, as it was sent
  std::int64_t created = 0;       ///< seconds since 1970
  std::string_view key_id{};
  std::string_view nonce{};

  bool covers(std::string_view component) const noexcept;
};

/// The value of the dictionary member with our label; nothing when it is not there exactly once.
std::optional<std::string_view> find_member(std::string_view dictionary,
                                            std::string_view label) noexcept;
/// Reads the member's value. Nothing: it is none of ours.
std::optional<SignatureInput> parse_signature_input(std::string_view value) noexcept;
/// The text that is signed (RFC 9421, 2.5). False: a component is not there, or is ambiguous.
bool append_signature_base(spillway::detail::ByteBuffer& out, const RequestView& request,
                           const SignatureInput& input);

/// 32 bytes in base64, with the padding: always 44 characters.
class Base64Digest {
 public:
  explicit Base64Digest(const transport::Sha256& digest) noexcept;
  std::string_view view() const noexcept { return {text_.data(), 44}; }

 private:
  std::array<char, 45> text_;
};

}  // namespace spillway::middleware
