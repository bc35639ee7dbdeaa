// SPDX-License-Identifier: Apache-2.0
//
// What the examples have in common, whatever their framework: a service with its engine, its chain of
// steps and its handlers, and how it is run. Each example beside it is the adapter, and nothing else.
//
// Where telemetry goes is said by the environment (SPILLWAY_*, AWS_*). The service prints its port,
// serves until SIGTERM or SIGINT, and prints the account: what was recorded, delivered and dropped.
#pragma once

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <string>
#include <string_view>

#include <spillway/middleware/client_address.hpp>
#include <spillway/middleware/cors.hpp>
#include <spillway/middleware/error_body.hpp>
#include <spillway/middleware/observability.hpp>
#include <spillway/middleware/rate_limit/local_store.hpp>
#include <spillway/middleware/rate_limit/rate_limiter.hpp>
#include <spillway/middleware/request_id.hpp>
#include <spillway/middleware/resilience/breaker_step.hpp>
#include <spillway/middleware/resilience/bulkhead_step.hpp>
#include <spillway/middleware/resilience/deadline_step.hpp>
#include <spillway/spillway.hpp>

namespace examples {

namespace middleware = spillway::middleware;
using namespace std::chrono_literals;

struct Answer {
  int status = 200;
  std::string body{};
};

/// Until SIGTERM or SIGINT comes. Made before any thread is, which all inherit its mask.
class StopSignal {
 public:
  StopSignal() {
    sigemptyset(&signals_);
    sigaddset(&signals_, SIGTERM);
    sigaddset(&signals_, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
  }
  void wait() const {
    int signal = 0;
    sigwait(&signals_, &signal);
  }

 private:
  sigset_t signals_{};
};

class Shop {
  // First of all: the engine's threads are not to get the signals.
  const StopSignal stop_;

 public:
  spillway::Engine engine{{.service = "shop", .metric_namespace = "Shop"}};
  const middleware::Routes routes{
      {"GET", "/orders/{id}"}, {"GET", "/slow"}, {"POST", "/orders"}, {"POST", "/shop.Orders/Get"}};

 private:
  /// SHOP_CONCURRENCY: how many requests are handled at a time.
  static std::uint32_t concurrency() {
    const char* const wished = std::getenv("SHOP_CONCURRENCY");
    return wished != nullptr ? static_cast<std::uint32_t>(std::stoul(wished)) : 256;
  }

  middleware::ClientAddress client_address_{{.trusted_proxies = {"127.0.0.0/8"}}};
  middleware::RequestId request_id_;
  middleware::Observability observability_{engine, routes};
  middleware::Cors cors_{{.origins = {"https://*.shop.example"}}};
  middleware::ErrorBody error_body_;
  middleware::LocalRateStore store_;
  middleware::RateLimiter limiter_{engine,
                                   store_,
                                   {.policies = {{.name = "tenant",
                                                  .limit = {.permits = 1'000'000, .window = 1s},
                                                  .by = {{middleware::RateKeySource::tenant}}}}}};
  middleware::DeadlineStep deadline_{engine, routes, {.timeout = 10s}};
  middleware::BreakerStep breaker_{engine, routes, {.breaker = {.failure_rate = 0.9}}};
  middleware::BulkheadStep bulkhead_{
      engine,
      {.bulkhead = {.concurrency_max = concurrency(), .wait_max = 2s},
       .wait_on_thread = true,   // Of frameworks with a thread for each request; the others' has
       .wait_in_queue = true}};  // many to serve.

 public:
  const middleware::Chain<middleware::ClientAddress, middleware::RequestId,
                          middleware::Observability, middleware::Cors, middleware::ErrorBody,
                          middleware::RateLimiter, middleware::DeadlineStep,
                          middleware::BreakerStep, middleware::BulkheadStep>
      chain{routes,      client_address_, request_id_, observability_, cors_,
            error_body_, limiter_,        deadline_,   breaker_,       bulkhead_};

  /// GET /orders/{id}; an id that is "throw" fails, one that is no number is not there.
  Answer order(std::string_view id) {
    const auto span = engine.span("find-order");
    if (id == "throw") throw std::runtime_error("the database is gone");
    if (id.empty() || id.find_first_not_of("0123456789") != id.npos)
      throw middleware::HttpError(404, "there is no such order");
    SPILLWAY_INFO(engine, "order found", {"order", id});
    return {200, "{\"order\":" + std::string(id) + "}"};
  }
  /// POST /orders.
  Answer place(std::string_view body) {
    if (body.empty()) return {422, {}};  // ErrorBody says the rest.
    return {201, std::string(body)};
  }
  /// The two above by their paths, for frameworks that do not route.
  Answer handle(std::string_view method, std::string_view path, std::string_view body) {
    constexpr std::string_view orders = "/orders/";
    if (method == "GET" && path.starts_with(orders)) return order(path.substr(orders.size()));
    if (method == "POST" && path == "/orders") return place(body);
    return {404, {}};
  }

  /// Says where the service listens, and waits for the signal.
  void serve_until_stopped(std::uint16_t port) {
    std::cout << "listening on 127.0.0.1:" << port << std::endl;
    stop_.wait();
  }
  /// Once no request is served any more.
  void report() { std::cout << engine.shutdown(10s).to_json() << std::endl; }
};

}  // namespace examples
