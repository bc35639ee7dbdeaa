// SPDX-License-Identifier: Apache-2.0
//
// What a service answers, in front of a whole engine: whatever it says, the account is balanced.
#include <chrono>

#include "target.hpp"
#include <spillway/engine/testing.hpp>

namespace spillway::fuzz {
namespace {

using namespace std::chrono_literals;

Config to_aws() {
  Config config;
  config.service = "fuzz";
  config.region = "eu-west-1";
  config.metrics = MetricsTo::put_metric_data;
  config.logs = LogsTo::put_log_events;
  config.traces = TracesTo::put_trace_segments;
  config.trace_sample_rate = 1.0;
  config.ring_bytes = 65'536;
  config.on_diagnostic = [](std::string_view) {};
  return config;
}

void require_account(const SignalStats& signal) {
  require(signal.recorded == signal.delivered + signal.dropped_total(),
          "after shutdown what was recorded is delivered or dropped");
}

/// Replies, one after the other: status, Retry-After in seconds, body.
SPILLWAY_FUZZ_TARGET(replies) {
  setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE", 1);
  setenv("AWS_SECRET_ACCESS_KEY", "secret", 1);
  testing::TestEngine test(to_aws());
  Input input(bytes);
  test.http.set_answer([&](const transport::HttpRequest&) {
    if (input.empty()) return transport::MemoryTransport::answered(200);
    constexpr int statuses[] = {200, 200, 200, 400, 403, 404, 413, 429, 500, 503, 307};
    const int status = statuses[input.up_to(10)];
    if (input.up_to(15) == 0) {
      return transport::MemoryTransport::failed(
          static_cast<transport::HttpOutcome>(input.up_to(4)));
    }
    std::string wait = std::to_string(input.take<std::int16_t>());
    return transport::MemoryTransport::answered(status, input.text(4),
                                                {{"Retry-After", std::move(wait)}});
  });
  const auto requests = test.engine.counter("Requests");
  for (int i = 0; i < 3; ++i) {
    requests.add(1);
    for (int j = 0; j < 3; ++j) SPILLWAY_INFO(test.engine, "an event", {"number", j});
    { const auto span = test.engine.span("outer"); }
    test.advance(61s);
  }
  for (int i = 0; i < 20; ++i) test.advance(30s);
  const Stats stats = test.engine.shutdown(1s);
  require_account(stats.metrics);
  require_account(stats.logs);
  require_account(stats.spans);
}

}  // namespace
}  // namespace spillway::fuzz
