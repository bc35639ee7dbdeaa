// SPDX-License-Identifier: Apache-2.0
//
// The health endpoints as a step of a chain. The first one: probes are then no requests for access
// logs, limits and breakers.
//
//   HealthEndpoints endpoints(monitor, {.detail_allowed = from_networks({"10.0.0.0/8"})});
//   Chain chain(routes, endpoints, request_id, observability, ...);
#pragma once

#include <array>
#include <memory>
#include <string>
#include <string_view>

#include <spillway/middleware/allowed.hpp>
#include <spillway/middleware/chain.hpp>
#include <spillway/middleware/health/monitor.hpp>

namespace spillway::middleware {

struct HealthEndpointsOptions {
  std::string live = "/live";
  std::string ready = "/ready";
  std::string health = "/health";
  std::string detail = "/health/detail";
  /// Who may see details, which tell an attacker what a service is made of. Null: nobody.
  Allowed detail_allowed{};
};

/// Answers GET and HEAD of its paths; every other request goes on. Nothing is allocated.
class HealthEndpoints {
 public:
  struct State {
    std::shared_ptr<const HealthAnswer> answer;  // kept while it is sent
  };

  /// `monitor` outlives it. Throws std::invalid_argument for a path that does not begin with '/'.
  explicit HealthEndpoints(const HealthMonitor& monitor, HealthEndpointsOptions options = {});
  HealthEndpoints(const HealthEndpoints&) = delete;
  HealthEndpoints& operator=(const HealthEndpoints&) = delete;

  Verdict before(State& state, Exchange& exchange) const {
    for (std::size_t i = 0; i < paths_.size(); ++i) {
      if (exchange.request.path == paths_[i]) [[unlikely]]
        return answer(static_cast<HealthEndpoint>(i), state, exchange);
    }
    return Verdict::proceed;
  }

 private:
  Verdict answer(HealthEndpoint endpoint, State& state, Exchange& exchange) const;

  const HealthMonitor& monitor_;
  const std::array<std::string, health_endpoint_count> paths_;  // by HealthEndpoint
  const Allowed detail_allowed_;
};

}  // namespace spillway::middleware
