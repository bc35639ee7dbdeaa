// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include <spillway/middleware/signing/keys.hpp>
#include <spillway/transport/secret.hpp>

namespace spillway::middleware {

struct SigningKeys::Key {
  std::string id;
  transport::Secret secret;
  WallTime from;
  WallTime until;

  std::span<const std::uint8_t> bytes() const noexcept {
    return {reinterpret_cast<const std::uint8_t*>(secret.data()), secret.size()};
  }
};

}  // namespace spillway::middleware
