// SPDX-License-Identifier: Apache-2.0
//
// Question: what does HttpServerObservability add to a request, begun and finished on one thread:
// an access log, a segment, five measurements, a context? Beside it the same request without. Rows
// take turns, round by round. Prints JSON rows.
//
//   middleware [--quick | --smoke]
#include <array>
#include <functional>
#include <string_view>
#include <thread>

#include "options.hpp"
#include "rows.hpp"
#include "subjects.hpp"
#include <spillway/middleware/http_server.hpp>

namespace {

using Samples = std::vector<double>;

const spillway::HttpServerRequest& incoming() {
  static const spillway::HttpServerRequest request{
      .method = "GET",
      .target = "/orders/17?expand=items",
      .host = "shop.example",
      .user_agent = "curl/8.0",
      .peer_ip = "10.0.0.7",
      .request_id = "b7a1e5c2-5f0e-4f6e-9a55-1c2d3e4f5061",
      .tenant = "acme",
      .user = "u-17"};
  return request;
}

/// What the handler itself does in every case.
int handle(const spillway::HttpServerRequest& request) {
  std::size_t bytes = request.target.size() + request.host.size();
  bench::opaque(bytes);
  return 200;
}

/// A server whose traces are sampled at a rate.
struct Server {
  explicit Server(double sample_rate, spillway::LogsTo logs = spillway::LogsTo::file)
      : engine(
            [&] {
              spillway::Config config;
              config.service = "bench";
              config.metrics = spillway::MetricsTo::put_metric_data;
              config.logs = logs;
              config.logs_file = "/dev/null";
              config.traces = spillway::TracesTo::put_trace_segments;
              config.trace_sample_rate = sample_rate;
              config.trace_reservoir = 0;
              config.region = "eu-west-1";
              config.on_diagnostic = [](std::string_view) {};
              return config;
            }(),
            bench::agreeing(true)) {}

  void serve() {
    auto request = http.begin(route, incoming());
    request.finish(handle(incoming()), 1234);
  }

  spillway::Engine engine;
  spillway::HttpServerObservability http{engine};
  spillway::HttpServerObservability::Route route = http.route("GET", "/orders/{id}");
};

}  // namespace

int main(int argc, char** argv) {
  const bench::Options options(argc, argv);
  Server sampled(1.0);
  Server unsampled(0.0);
  Server quiet(0.0, spillway::LogsTo::none);
  struct Case {
    const char* subject;
    std::function<void(int)> call;
    std::array<Samples, 2> ns{};
  };
  std::array<Case, 4> cases{{{"floor", [](int) { handle(incoming()); }},
                             {"spillway", [&](int) { sampled.serve(); }},
                             {"trace not sampled", [&](int) { unsampled.serve(); }},
                             {"nor access log", [&](int) { quiet.serve(); }}}};
  const bench::Plan plan{.calls = 10, .batches = 20, .bursts = options.times(100)};
  for (int round = 0; round < options.times(10); ++round) {
    for (Case& one : cases) {
      bench::measure(
          plan, one.call, [] {}, one.ns[0]);
      Samples other;
      std::thread beside([&] {
        bench::measure(
            plan, one.call, [] {}, other);
      });
      bench::measure(
          plan, one.call, [] {}, one.ns[1]);
      beside.join();
      one.ns[1].insert(one.ns[1].end(), other.begin(), other.end());
    }
  }
  for (Case& one : cases) {
    for (const int threads : {1, 2}) {
      bench::Row row{"middleware", "http_request", one.subject, threads};
      row.ns = bench::summarise(one.ns[static_cast<std::size_t>(threads - 1)]);
      bench::print(row);
    }
  }
}
