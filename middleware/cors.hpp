// SPDX-License-Identifier: Apache-2.0
//
// Cross-origin resource sharing (WHATWG Fetch, "CORS protocol"): which web pages of other origins may
// read the answers. Preflight requests are answered here; the handler never sees them. Behind
// Observability, before the steps that cost: a preflight has no credentials.
//
//   Cors cors({.origins = {"https://shop.example", "https://*.shop.example"},
//              .methods = {"GET", "POST"}, .headers = {"Authorization", "Content-Type"}});
//
// A preflight that is not allowed is answered 403 and says why; an actual request of an origin that is
// not on the list goes on without CORS headers, so that the browser keeps the answer from the page.
// Thread-safe; a request allocates nothing.
#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include <spillway/middleware/exchange.hpp>

namespace spillway::middleware {

struct CorsOptions {
  /// Origins as browsers send them: scheme, host, and port where it is not the scheme's own; all in
  /// lower case. "https://*.shop.example" is every host below shop.example, not itself. "*" alone is
  /// every origin. "null" (sandboxed pages, files) only when it is listed.
  std::vector<std::string> origins{};
  std::vector<std::string> methods{"GET", "HEAD", "POST"};  ///< with case; or "*" alone
  std::vector<std::string> headers{};  ///< that requests may have, without case; or "*" alone
  std::vector<std::string> expose{};   ///< headers of the answer that pages may read
  /// Cookies and Authorization are sent along. Not with "*" for origins, methods or headers.
  bool credentials = false;
  std::chrono::seconds max_age{600};  ///< a browser keeps a preflight's answer so long
};

class Cors {
 public:
  struct State {};

  /// Throws std::invalid_argument that lists everything that cannot work.
  explicit Cors(const CorsOptions& options);
  Cors(const Cors&) = delete;
  Cors& operator=(const Cors&) = delete;

  Verdict before(State& state, Exchange& exchange) const noexcept;

 private:
  bool allows_origin(std::string_view origin) const noexcept;
  bool allows_headers(std::string_view list) const noexcept;
  Verdict preflight(Exchange& exchange, std::string_view origin,
                    std::string_view method) const noexcept;
  void add_origin(Exchange& exchange, std::string_view origin) const noexcept;

  const CorsOptions options_;
  const bool any_origin_;
  const bool any_method_;
  const bool any_header_;
  // As they stand in responses.
  std::string methods_;
  std::string headers_;
  std::string expose_;
  std::string max_age_;
};

}  // namespace spillway::middleware
