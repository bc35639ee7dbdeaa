// SPDX-License-Identifier: Apache-2.0
#include <stdexcept>
#include <utility>

#include <spillway/middleware/health/endpoints.hpp>

namespace spillway::middleware {

HealthEndpoints::HealthEndpoints(const HealthMonitor& monitor, HealthEndpointsOptions options)
    : monitor_(monitor),
      paths_{std::move(options.live), std::move(options.ready), std::move(options.health),
             std::move(options.detail)},
      detail_allowed_(std::move(options.detail_allowed)) {
  for (const std::string& path : paths_) {
    if (!path.starts_with('/'))
      throw std::invalid_argument("spillway: the health path \"" + path +
                                  "\" does not begin with '/'");
  }
}

Verdict HealthEndpoints::answer(HealthEndpoint endpoint, State& state, Exchange& exchange) const {
  exchange.add_header("Cache-Control", "no-store");
  const std::string_view method = exchange.request.method;
  if (method != "GET" && method != "HEAD") {
    exchange.add_header("Allow", "GET, HEAD");
    return exchange.refuse(405);
  }
  if (endpoint == HealthEndpoint::detail && !(detail_allowed_ && detail_allowed_(exchange)))
    return exchange.refuse(403);
  state.answer = monitor_.answer(endpoint, exchange.begun);
  return exchange.reply(state.answer->status, health_content_type, state.answer->body);
}

}  // namespace spillway::middleware
