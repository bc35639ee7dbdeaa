// SPDX-License-Identifier: Apache-2.0
//
// Circuit breakers (circuit_breaker.hpp) as a step of a chain: requests for what fails too often, or
// answers too slowly, are refused at once, 503 with Retry-After. Around the handler, behind the steps
// that refuse for reasons of their own: a refusal of a step behind this one says nothing of the
// handler's health and is not counted.
//
//   BreakerStep breaker(engine, routes, {.dependency = [](const Route& route) {
//     return route.path_template.starts_with("/pay") ? "payments" : "";
//   }});
//
// Metrics: CircuitBreakerDecisions by Dependency and Outcome (admitted, open, probing), and
// CircuitBreakerChanges by Dependency and State. Each change of a state is a log, with its reason and
// the trace of the request that caused it; a refused request's `decision` is "circuit breaker: open" or
// "circuit breaker: probing".
//
// Thread-safe; a request allocates nothing.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <spillway/engine/engine.hpp>
#include <spillway/middleware/exchange.hpp>
#include <spillway/middleware/resilience/circuit_breaker.hpp>
#include <spillway/middleware/resilience/retry.hpp>

namespace spillway::middleware {

struct BreakerStepOptions {
  CircuitBreakerOptions breaker{};
  /// What a route's handler stands on: routes with the same answer share a breaker, "" has none. Asked
  /// once for each route, by the constructor. Null: every route but the unmatched has one of its own.
  std::function<std::string(const Route&)> dependency{};
  StatusSet failures = StatusSet::server_errors();
};

class BreakerStep {
  struct Dependency;

 public:
  class State {
   private:
    friend class BreakerStep;
    CircuitBreaker::Permit permit_;
    int status_ = 0;  // the handler's, before steps around this one changed it; 0: none
  };

  /// `engine` outlives the step. Throws std::invalid_argument for options that cannot work.
  BreakerStep(Engine& engine, const Routes& routes, const BreakerStepOptions& options = {});
  ~BreakerStep();
  BreakerStep(const BreakerStep&) = delete;
  BreakerStep& operator=(const BreakerStep&) = delete;

  Verdict before(State& state, Exchange& exchange) noexcept;
  void respond(State& state, const Exchange& exchange, const ResponseFacts& facts) const noexcept;
  void after(State& state, const Exchange& exchange, const ResponseFacts& facts) noexcept;

  /// Of a route; null: it has none.
  CircuitBreaker* breaker(const Route& route) noexcept;

 private:
  CallResult result_of(const State& state, const Exchange& exchange,
                       const ResponseFacts& facts) const noexcept;

  const StatusSet failures_;
  std::vector<std::unique_ptr<Dependency>> dependencies_;
  std::vector<Dependency*> by_route_;  // by Route::number; null: none
};

}  // namespace spillway::middleware
