// SPDX-License-Identifier: Apache-2.0
//
// The verifying side of Signature Version 4. The order of the checks and most of the messages are
// those of AWS's own front ends.
#pragma once

#include <chrono>
#include <string_view>
#include <vector>

#include "local/protocol.hpp"
#include <spillway/transport/credentials.hpp>
#include <spillway/transport/http.hpp>

namespace spillway::local {

/// Knows the keys that may sign. Immutable: any thread.
class SignatureVerifier {
 public:
  explicit SignatureVerifier(std::vector<transport::Credentials> known);

  /// Why the request is refused, or nothing when its signature is right, by a known key, for
  /// `service`, made within 15 minutes of `now`. The refusal is in the protocol's words; a message
  /// never shows a secret or a token.
  Refusal refuse(const transport::HttpRequest& request, Service service, Protocol protocol,
                 std::chrono::system_clock::time_point now) const;

 private:
  std::vector<transport::Credentials> known_;
};

}  // namespace spillway::local
