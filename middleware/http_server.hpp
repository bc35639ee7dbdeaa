// SPDX-License-Identifier: Apache-2.0
//
// Observability of an HTTP server: one call around each request gives an access log, metrics, and
// an X-Ray segment, under a context that carries tenant, user, request id and trace to everything
// recorded inside.
//
//   spillway::HttpServerObservability http(engine);
//   const auto route = http.route("GET", "/orders/{id}");          // once, when routes are set up
//   ...
//   auto request = http.begin(route, info);                        // in the handler's thread
//   ... handle it: logs and spans made here belong to it ...
//   request.finish(status, body_bytes);                            // else the destructor says 500
//
// Metrics: Requests, ClientErrors, Faults (counts) and Latency (microseconds, by Route and Method)
// and TenantRequests by TenantID; InFlight (a gauge of the service). 4xx is the client's error, 429 a
// throttle too, 5xx our fault.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <spillway/engine/spillway.hpp>

namespace spillway {

/// What is known of a request when it begins. Views must live until begin() returns, `method` and
/// `target` until finish().
struct HttpServerRequest {
  std::string_view method;
  std::string_view target;  ///< as received: path and query
  std::string_view scheme = "http";
  std::string_view host{};  ///< the Host header
  std::string_view user_agent{};
  std::string_view peer_ip{};       ///< of the connection
  std::string_view trace_header{};  ///< X-Amzn-Trace-Id
  std::string_view traceparent{};   ///< and tracestate: the same as W3C says it
  std::string_view tracestate{};
  std::string_view
      request_id{};  ///< X-Request-ID; one is made when it is missing or not printable ASCII
  std::string_view tenant{};
  std::string_view user{};
  std::string_view forwarded_for{};  ///< X-Forwarded-For
};

struct HttpServerOptions {
  /// Headers that adapters read the tenant and user from.
  std::string tenant_header = "X-Tenant-ID";
  std::string user_header = "X-User-ID";
  /// TenantRequests, a series for each tenant.
  bool metrics_by_tenant = true;
  /// Take a caller's trace and sampling decision. Off at an edge that strangers reach: then each
  /// request begins a trace, whose segment links to the caller's.
  bool trust_trace_header = true;
  /// Take the client's address from X-Forwarded-For. Only behind a proxy that sets it.
  bool trust_forwarded_for = false;
};

class HttpServerObservability {
 public:
  /// Handles of one route, made once. The template is used everywhere, never the raw path.
  class Route {
   public:
    Route() = default;

   private:
    friend class HttpServerObservability;
    std::string method_;
    std::string template_;
    SpanName span_;
    Counter requests_;
    Counter client_errors_;
    Counter faults_;
    Histogram latency_;
  };

  /// A request in flight. Lives on the stack of the thread that handles it.
  class [[nodiscard]] Request {
   public:
    Request(const Request&) = delete;
    Request& operator=(const Request&) = delete;
    /// Finishes as 500, when finish() was not called: an exception went through.
    ~Request();

    /// Records what was really sent. Once; `body_bytes` below 0 is unknown.
    void finish(int status, std::int64_t body_bytes = -1) noexcept;

    /// Headers for the response.
    std::string_view request_id() const noexcept { return context_.request_id(); }
    std::string trace_header() const { return current_trace_header(); }
    Span& span() noexcept { return span_; }

   private:
    friend class HttpServerObservability;
    Request(HttpServerObservability& server, const Route& route, const HttpServerRequest& request);

    HttpServerObservability& server_;
    const Route& route_;
    const std::string_view method_;
    const Context context_;
    const Scope scope_;
    Span span_;
    const std::chrono::steady_clock::time_point begun_;
    bool finished_ = false;
  };

  /// `engine` outlives it.
  explicit HttpServerObservability(Engine& engine, HttpServerOptions options = {});

  const HttpServerOptions& options() const noexcept { return options_; }

  /// Makes the handles of a route. `path_template` like "/orders/{id}".
  Route route(std::string_view method, std::string_view path_template);

  /// Begins a request in the calling thread, which also finishes it. `route` and the observability
  /// outlive it.
  Request begin(const Route& route, const HttpServerRequest& request) {
    return {*this, route, request};
  }

 private:
  Context make_context(const HttpServerRequest& request) const;

  Engine& engine_;
  const HttpServerOptions options_;
  PerContext<Counter> requests_by_tenant_;
  Gauge in_flight_gauge_;
  alignas(cache_line_bytes) std::atomic<std::int64_t> in_flight_{0};
};

}  // namespace spillway
