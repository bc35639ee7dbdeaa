// SPDX-License-Identifier: Apache-2.0
//
// The step of a chain that limits requests: who is counted, by which limits, and what the client is
// told.
//
//   LocalRateStore store;
//   RateLimiter limiter(engine, store,
//                       {.policies = {{.name = "tenant",
//                                      .limit = {.permits = 1000, .window = 60s},
//                                      .by = {{RateKeySource::tenant}},
//                                      .tenants = {{"acme", {.permits = 5000, .window = 60s}}}},
//                                     {.name = "client",
//                                      .limit = {.permits = 20, .window = 1s},
//                                      .by = {{RateKeySource::client_address}}}}});
//   Chain chain(routes, observability, limiter, ...);   // behind the step that finds the tenant
//
// A request has to fit under every policy; what the first ones took of a request that a later one
// denies is given back. A denied request is answered 429 with Retry-After and a problem document,
// one that could not be decided, and whose store fails closed, 503.
//
// Every response has X-RateLimit-Limit, -Remaining and -Reset (seconds from now) of the policy that
// has least left, and RateLimit-Policy and RateLimit of all of them
// (draft-ietf-httpapi-ratelimit-headers-10).
//
// Metrics: RateLimitDecisions by Policy and Outcome (admitted, denied, admitted_unavailable,
// denied_unavailable). A denial is a log at DEBUG; a denied request's `decision` is "rate_limit: " and the
// policy, or "rate_limit: store_unavailable".
#pragma once

#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <spillway/engine/engine.hpp>
#include <spillway/middleware/exchange.hpp>
#include <spillway/middleware/ip_address.hpp>
#include <spillway/middleware/rate_limit/store.hpp>

namespace spillway::middleware {

/// What of a request a policy counts by. A request that has it not (no tenant, say) is counted
/// together with all others that have it not.
enum class RateKeySource : std::uint8_t { tenant, user, client_address, route, method, header };

struct RateKeyPart {
  RateKeySource source = RateKeySource::client_address;
  std::string header{};  ///< of `header`: its name
  /// A password, token or API key: no store keeps it, only its digest.
  bool secret = false;
};

struct RatePolicy {
  std::string name;  ///< clients and metrics see it: letters, digits, "-_."
  RateLimit limit{};
  /// At least one. {} is refused: who wants one count for all says so by `global`.
  std::vector<RateKeyPart> by{};
  bool global = false;
  /// Limits of some tenants and users in place of `limit`; a user's goes before a tenant's. They are
  /// looked up only where the key has the tenant or user in it.
  std::vector<std::pair<std::string, RateLimit>> tenants{};
  std::vector<std::pair<std::string, RateLimit>> users{};
};

struct RateLimiterOptions {
  std::vector<RatePolicy> policies{};  ///< 1 to rate_policies_max
  /// Clients are told apart by so many bits of their address: a subscriber has a whole IPv6 /64. Whose
  /// address it is behind proxies, the step ClientAddress finds, which stands before this one.
  int ipv4_prefix = 32;
  int ipv6_prefix = 64;
  /// Requests that were answered below 400 do not count: to limit failed logins.
  bool exclude_successful = false;
  bool headers = true;  ///< on every response; a denied request has them in any case
};

inline constexpr std::size_t rate_policies_max = 4;
inline constexpr std::size_t rate_overrides_max = 100'000;  ///< of one policy

/// Thrown by RateLimiter's constructor; what() lists every error on a line of its own.
class InvalidRateLimiter : public std::invalid_argument {
 public:
  explicit InvalidRateLimiter(std::vector<std::string> errors);
  const std::vector<std::string>& errors() const noexcept { return errors_; }

 private:
  std::vector<std::string> errors_;
};

/// A step; shared by all threads. With exclude_successful no step behind it changes the tenant or
/// user of the exchange: what was taken could not be found again.
class RateLimiter {
 public:
  /// Of one request: what it took, for giving it back.
  class State {
   public:
    State() noexcept {}  // NOLINT: what is not used is left as it is.

   private:
    friend class RateLimiter;
    std::uint8_t taken_ = 0;  // policies, the first ones
    IpAddress client_;
    bool has_client_ = false;
    std::array<std::int64_t, rate_policies_max> receipts_;
  };

  /// Throws InvalidRateLimiter. `engine` and `store` outlive the limiter; several limiters may share
  /// a store when their policies have different names.
  RateLimiter(Engine& engine, RateStore& store, const RateLimiterOptions& options);
  ~RateLimiter();
  RateLimiter(const RateLimiter&) = delete;
  RateLimiter& operator=(const RateLimiter&) = delete;

  Verdict before(State& state, Exchange& exchange);
  void after(State& state, const Exchange& exchange, const ResponseFacts& facts) noexcept;

 private:
  struct Rule;
  struct Policy;
  const Rule& rule_of(const Policy& policy, const Exchange& exchange) const noexcept;
  RateKey key_of(const Policy& policy, const State& state, const Exchange& exchange) const noexcept;
  void find_client(State& state, const Exchange& exchange) const noexcept;
  void give_back(State& state, const Exchange& exchange) noexcept;
  Verdict deny(Exchange& exchange, const Policy& policy, const Rule& rule,
               const RateDecision& decision) const noexcept;

  Engine& engine_;
  RateStore& store_;
  std::vector<Policy> policies_;
  int ipv4_prefix_;
  int ipv6_prefix_;
  bool exclude_successful_;
  bool headers_;
  bool needs_client_ = false;
};

}  // namespace spillway::middleware
