// SPDX-License-Identifier: Apache-2.0
//
// The first step of a chain: every request has an id that its logs, its segment, its response and
// its problem documents carry.
#pragma once

#include <array>
#include <string>
#include <string_view>

#include <spillway/middleware/chain.hpp>

namespace spillway::middleware {

inline constexpr std::size_t request_id_chars_max = 128;

/// Whether an id from outside is taken: 1 to request_id_chars_max characters of printable ASCII,
/// without blank, quote, comma, semicolon and backslash, which logs and headers give a meaning.
bool is_request_id(std::string_view text) noexcept;

struct RequestIdOptions {
  std::string header = "X-Request-ID";
  /// Take the caller's id when it is legal. Off at an edge that strangers reach, who could make their
  /// requests look like another's.
  bool accept = true;
  bool respond = true;  ///< give the response the header
};

/// Takes the caller's id, or makes one: 32 hexadecimal digits, without a system call. It is no secret.
class RequestId {
 public:
  class State {
   public:
    State() noexcept {}

   private:
    friend class RequestId;
    std::array<char, 32> made_;
  };

  /// Throws std::invalid_argument for a header that has no name.
  explicit RequestId(RequestIdOptions options = {});
  RequestId(const RequestId&) = delete;
  RequestId& operator=(const RequestId&) = delete;

  Verdict before(State& state, Exchange& exchange) const;

 private:
  const RequestIdOptions options_;
};

}  // namespace spillway::middleware
