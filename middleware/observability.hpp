// SPDX-License-Identifier: Apache-2.0
//
// Logging, metrics and tracing of a server's requests, as one step of a chain (chain.hpp): an access
// log, measurements and an X-Ray segment for each request, under a context that carries tenant, user,
// request id and trace to everything recorded while it is handled. Behind RequestId, before the rest.
//
//   Observability observability(engine, routes);
//   Chain chain(routes, request_id, observability, ...);
//
// Metrics, by Method and Route: Requests, ClientErrors (4xx, with 429 among them), Throttles (429),
// Faults (5xx), SlowRequests (counts) and Latency (microseconds); TenantRequests by TenantID; InFlight
// (a gauge of the service). The status is what was really sent: of a request that ended without a
// response it is 499, or 500 when an exception went through.
//
// Logs: one record a request, "request", INFO; WARN for 4xx and slow ones, ERROR for 5xx, for
// exceptions and broken connections. Why a step answered in the handler's place is its field, and the
// segment's annotation, `decision`. Headers and bodies are not in it unless asked for, the query never is.
//
// Threads: shared by all of the server's. Allocates when it is set up, and when an operation is seen
// for the first time; not in requests.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <spillway/engine/spillway.hpp>
#include <spillway/middleware/chain.hpp>

namespace spillway::middleware {

/// Reads a property of a request. The text lives as long as the exchange: a part of the request, a
/// literal, or from Exchange::keep(). Called on the server's threads.
using Extractor = std::function<std::string_view(Exchange&)>;

/// The first header of this name. What a client can reach, it can forge: take a tenant from a header
/// only behind something that sets it.
Extractor from_header(std::string name);

struct ObservabilityOptions {
  bool logging = true;
  bool metrics = true;
  bool tracing = true;

  /// What else than its route tells requests apart (the X-Amz-Target of an RPC): names the segment,
  /// and is one more dimension, Operation. Empty, or past operations_max: the route does.
  Extractor operation{};
  Extractor tenant = from_header("X-Tenant-ID");
  Extractor user = from_header("X-User-ID");
  std::size_t operations_max = 256;  ///< of all routes together; each is six metrics

  /// Dimensions of each metric, beside the engine's own.
  Dimensions tags{};
  bool metrics_by_tenant = true;  ///< TenantRequests, a series for each tenant

  /// The share of unremarkable requests (INFO) that are logged; of the others, all. Metrics count
  /// every request; traces are sampled by the engine.
  double log_sample_rate = 1.0;
  /// From this on a request is slow; zero: none is.
  std::chrono::microseconds slow_request{0};
  bool log_path = true;    ///< the path as received, without its query
  bool log_client = true;  ///< the client's address
  /// So many bytes at most of a request's body, and of a response's, are logged, as far as the adapter
  /// has them at hand and their Content-Type says that they are text (or nothing). 0: none. The engine's
  /// redaction policy is applied to them, as to every string.
  std::size_t log_body_bytes_max = 0;

  /// Take a caller's trace and sampling decision (X-Amzn-Trace-Id, traceparent). Off at an edge that
  /// strangers reach: then each request begins a trace, whose segment links to the caller's.
  bool trust_trace_header = true;
  /// Give the response X-Amzn-Trace-Id.
  bool respond_trace_header = true;

  static ObservabilityOptions metrics_only() {
    ObservabilityOptions options;
    options.logging = options.tracing = false;
    return options;
  }
  static ObservabilityOptions logging_only() {
    ObservabilityOptions options;
    options.metrics = options.tracing = false;
    return options;
  }
  static ObservabilityOptions tracing_only() {
    ObservabilityOptions options;
    options.logging = options.metrics = false;
    return options;
  }
};

class Observability {
 private:
  /// The handles of a route, or of an operation of it.
  struct Handles {
    SpanName span;
    Counter requests;
    Counter client_errors;
    Counter throttles;
    Counter faults;
    Counter slow;
    Histogram latency;
  };
  class Operations;

 public:
  class State {
   public:
    State() noexcept {}  // Not zeroed first.
    /// The segment, for annotations of the handler's own. Null: tracing is off.
    Span* span() noexcept { return span_ ? &*span_ : nullptr; }

   private:
    friend class Observability;
    const Handles* handles_ = nullptr;
    std::string_view operation_;
    std::optional<Context> context_;
    std::optional<Span> span_;
  };

  /// `engine` and `routes` outlive it. Throws std::invalid_argument for options that cannot be.
  Observability(Engine& engine, const Routes& routes, ObservabilityOptions options = {});
  ~Observability();
  Observability(const Observability&) = delete;
  Observability& operator=(const Observability&) = delete;

  Verdict before(State& state, Exchange& exchange);
  void after(State& state, const Exchange& exchange, const ResponseFacts& facts) noexcept;

  const ObservabilityOptions& options() const noexcept { return options_; }

 private:
  Handles make_handles(const Route& route, std::string_view operation) const;
  void begin_span(State& state, Exchange& exchange) const;
  /// Of the calling thread's context.
  static void respond_trace(Exchange& exchange);
  void measure(const State& state, const ResponseFacts& facts, double micros,
               bool slow) const noexcept;
  void log(const State& state, const Exchange& exchange, const ResponseFacts& facts, double micros,
           bool slow) const noexcept;
  template <Severity severity>
  void write_log(const State& state, const Exchange& exchange, const ResponseFacts& facts,
                 double micros, bool slow) const noexcept;

  Engine& engine_;
  const ObservabilityOptions options_;
  std::vector<Handles> routes_;  // by Route::number
  std::unique_ptr<Operations> operations_;
  PerContext<Counter> requests_by_tenant_;
  Gauge in_flight_gauge_;
  alignas(cache_line_bytes) std::atomic<std::int64_t> in_flight_{0};
};

}  // namespace spillway::middleware
