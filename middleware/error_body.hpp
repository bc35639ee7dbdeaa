// SPDX-License-Identifier: Apache-2.0
//
// The step that gives errors one form: an answer of 400 and above becomes a problem document
// (RFC 9457) with the status, its title and the request id, as refusals of steps and exceptions
// already are (Exchange::refuse, Exchange::fail). Anywhere in a chain.
#pragma once

#include <cstdint>

#include <spillway/middleware/exchange.hpp>

namespace spillway::middleware {

/// Which bodies of the handler's are replaced. Status and headers stay, and so do problem documents.
enum class ErrorBodies : std::uint8_t {
  empty,          ///< those without a body
  server_errors,  ///< these, and those of 5xx, which may tell strangers of the inside
  all
};

class ErrorBody {
 public:
  struct State {};

  explicit ErrorBody(ErrorBodies replaced = ErrorBodies::empty) noexcept : replaced_(replaced) {}

  void respond(State& state, Exchange& exchange, const ResponseFacts& facts) const noexcept;

 private:
  const ErrorBodies replaced_;
};

}  // namespace spillway::middleware
