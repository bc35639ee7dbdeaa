// SPDX-License-Identifier: Apache-2.0
//
// SHA-256 and HMAC-SHA-256, from OpenSSL. Neither allocates.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace spillway::transport {

using Sha256 = std::array<std::uint8_t, 32>;

Sha256 sha256(std::string_view bytes) noexcept;
Sha256 hmac_sha256(std::span<const std::uint8_t> key, std::string_view bytes) noexcept;

/// Lower-case hexadecimal.
std::string hex(std::span<const std::uint8_t> bytes);

/// Compares in a time that does not depend on where the texts differ.
bool equal_in_constant_time(std::string_view a, std::string_view b) noexcept;

}  // namespace spillway::transport
