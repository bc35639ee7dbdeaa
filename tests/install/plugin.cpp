// SPDX-License-Identifier: Apache-2.0
//
// A plugin with an engine of its own.
#include <spillway/spillway.hpp>

extern "C" int run_plugin() {
  spillway::Engine engine{{.service = "plugin", .metric_namespace = "Shop"}};
  const auto requests = engine.counter("Requests");
  const spillway::Context context{{.tenant = "acme"}};
  const spillway::Scope scope(context);
  requests.add(1);
  auto span = engine.span("work");
  span.end();
  const spillway::Stats stats = engine.shutdown(std::chrono::seconds(10));
  return stats.metrics.delivered == 1 ? 0 : 1;
}
