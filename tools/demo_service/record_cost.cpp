// SPDX-License-Identifier: Apache-2.0
//
// What recording costs the caller on this machine, as the demo reports it: one thread, the flusher
// beside it, all signals encoded and thrown away. Prints {"counter":{"p50":..,"p99":..},...} in
// nanoseconds. tools/bench asks more.
#include <cstdio>
#include <string>
#include <string_view>

#include "../../bench/percentiles.hpp"
#include <spillway/spillway.hpp>

int main() {
  using namespace spillway;
  Engine engine(Config{.service = "record-cost",
                       .metrics = MetricsTo::emf_file,
                       .logs = LogsTo::file,
                       .traces = TracesTo::xray_daemon,
                       .metrics_file = "/dev/null",
                       .logs_file = "/dev/null",
                       .xray_daemon_address = "127.0.0.1:9",  // Discard.
                       .trace_sample_rate = 1.0,
                       .on_diagnostic = [](std::string_view) {}});
  const Counter requests = engine.counter("Requests", Unit::count, {{"Route", "/orders"}});
  const Histogram latency = engine.histogram("Latency", Unit::microseconds, {{"Route", "/orders"}});
  double values[1024];
  for (int i = 0; i < 1024; ++i) values[i] = 100 + (i * 7919 % 1024) * 0.7;
  std::string text = "nine char";
  std::string_view view = text;
  bench::opaque(view);

  const auto print = [](std::string_view name, const bench::Distribution& d,
                        const char* separator) {
    std::printf("%s\"%.*s\":{\"p50\":%.1f,\"p99\":%.1f}", separator, static_cast<int>(name.size()),
                name.data(), d.p50, d.p99);
  };
  const bench::Plan fast{.calls = 100};
  const bench::Plan usual{.calls = 20};
  print("counter", bench::measure(fast, [&](int) { requests.add(1); }), "{");
  print("histogram", bench::measure(fast, [&](int i) { latency.record(values[i]); }), ",");
  print("log",
        bench::measure(usual,
                       [&](int i) {
                         SPILLWAY_INFO(engine, "order placed", {"order_id", i},
                                       {"total", values[i]}, {"currency", view});
                       }),
        ",");
  const Span root = engine.span("root");
  print("span",
        bench::measure(usual,
                       [&](int i) {
                         Span span = engine.span("charge-card");
                         span.annotate("order_id", i);
                         span.annotate("total", values[i]);
                         span.annotate("currency", view);
                       }),
        ",");
  std::puts("}");
}
