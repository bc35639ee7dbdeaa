// SPDX-License-Identifier: Apache-2.0
#include <spillway/engine/testing.hpp>
#include <spillway/spillway.hpp>

int main() {
  spillway::Engine engine{{.service = "orders", .metric_namespace = "Shop"}};
  auto requests = engine.counter("Requests");
  auto latency = engine.histogram("Latency", spillway::Unit::microseconds, {{"Route", "/orders"}});
  requests.add(1);
  latency.record(873);
  SPILLWAY_INFO(engine, "order placed", {"order_id", 17}, {"total", 9.5});
  auto span = engine.span("charge-card");
  span.annotate("provider", "acme");
}
