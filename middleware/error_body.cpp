// SPDX-License-Identifier: Apache-2.0
#include <spillway/middleware/error_body.hpp>
#include <spillway/transport/text.hpp>

namespace spillway::middleware {

void ErrorBody::respond(State& /*state*/, Exchange& exchange,
                        const ResponseFacts& facts) const noexcept {
  // An answer to HEAD has no body, and a reply of another step is one already.
  if (facts.status < 400 || exchange.has_reply() || exchange.request.method == "HEAD") return;
  constexpr std::string_view problem = "application/problem+json";
  const std::string_view type =
      transport::trim(facts.content_type.substr(0, facts.content_type.find(';')));
  if (transport::equal_without_case(type, problem) && facts.body_bytes != 0) return;
  const bool replace = facts.body_bytes == 0 || replaced_ == ErrorBodies::all ||
                       (replaced_ == ErrorBodies::server_errors && facts.status >= 500);
  if (replace) exchange.replace_body(facts.status);
}

}  // namespace spillway::middleware
