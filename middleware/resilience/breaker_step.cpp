// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <spillway/middleware/resilience/breaker_step.hpp>

namespace spillway::middleware {

struct BreakerStep::Dependency {
  Dependency(Engine& to, const std::string& its_name, const CircuitBreakerOptions& its_options)
      : engine(to), name(its_name), options(its_options), breaker(options) {
    const auto decisions = [&](const char* outcome) {
      return engine.counter("CircuitBreakerDecisions", Unit::count,
                            {{"Dependency", name}, {"Outcome", outcome}});
    };
    admitted = decisions("admitted");
    refused_open = decisions("open");
    refused_probing = decisions("probing");
    for (const BreakerState state :
         {BreakerState::closed, BreakerState::open, BreakerState::half_open}) {
      changes[static_cast<std::size_t>(state)] =
          engine.counter("CircuitBreakerChanges", Unit::count,
                         {{"Dependency", name}, {"State", std::string(to_string(state))}});
    }
    options.on_change = [this, also = its_options.on_change](const BreakerChange& change) {
      tell(change);
      if (also) also(change);
    };
  }

  void tell(const BreakerChange& change) const noexcept {
    changes[static_cast<std::size_t>(change.to)].add(1U);
    const auto open_for_ms =
        std::chrono::duration_cast<std::chrono::milliseconds>(change.open_for).count();
    if (change.to == BreakerState::open) {
      SPILLWAY_WARN(engine, "circuit breaker opened", {"dependency", std::string_view(name)},
                    {"from", to_string(change.from)}, {"reason", to_string(change.reason)},
                    {"calls", change.calls}, {"failed", change.failed}, {"slow", change.slow},
                    {"open_for_ms", open_for_ms});
    } else if (change.to == BreakerState::half_open) {
      SPILLWAY_INFO(engine, "circuit breaker probes", {"dependency", std::string_view(name)},
                    {"reason", to_string(change.reason)});
    } else {
      SPILLWAY_INFO(engine, "circuit breaker closed", {"dependency", std::string_view(name)},
                    {"reason", to_string(change.reason)}, {"calls", change.calls});
    }
  }

  Engine& engine;
  const std::string name;
  CircuitBreakerOptions options;  // the breaker's
  CircuitBreaker breaker;
  Counter admitted;
  Counter refused_open;
  Counter refused_probing;
  std::array<Counter, 3> changes;  // by the state that was entered
};

BreakerStep::BreakerStep(Engine& engine, const Routes& routes, const BreakerStepOptions& options)
    : failures_(options.failures) {
  options.breaker.check();
  for (const Route& route : routes.all()) {
    const std::string name = options.dependency              ? options.dependency(route)
                             : &route != &routes.unmatched() ? route.name
                                                             : std::string();
    const auto same = std::find_if(dependencies_.begin(), dependencies_.end(),
                                   [&](const auto& one) { return one->name == name; });
    if (name.empty()) {
      by_route_.push_back(nullptr);
    } else if (same != dependencies_.end()) {
      by_route_.push_back(same->get());
    } else {
      dependencies_.push_back(std::make_unique<Dependency>(engine, name, options.breaker));
      by_route_.push_back(dependencies_.back().get());
    }
  }
}

BreakerStep::~BreakerStep() = default;

CircuitBreaker* BreakerStep::breaker(const Route& route) noexcept {
  Dependency* const dependency = by_route_[route.number];
  return dependency != nullptr ? &dependency->breaker : nullptr;
}

Verdict BreakerStep::before(State& state, Exchange& exchange) noexcept {
  Dependency* const dependency = by_route_[exchange.route.number];
  if (dependency == nullptr) return Verdict::proceed;
  CircuitBreaker& breaker = dependency->breaker;
  if (breaker.state() == BreakerState::closed) [[likely]] {
    state.permit_ = breaker.try_acquire(exchange.begun);
  } else {  // The log of a change belongs to the request.
    const auto current = exchange.enter();
    state.permit_ = breaker.try_acquire(exchange.begun);
  }
  if (state.permit_) [[likely]] {
    dependency->admitted.add(1U);
    return Verdict::proceed;
  }
  exchange.add_retry_after(breaker.retry_in(exchange.begun));
  constexpr std::string_view detail = "what answers this request is not well: try again later";
  if (state.permit_.refusal() == BreakerRefusal::probing) {
    dependency->refused_probing.add(1U);
    return exchange.refuse(503, detail, "circuit breaker: probing");
  }
  dependency->refused_open.add(1U);
  return exchange.refuse(503, detail, "circuit breaker: open");
}

void BreakerStep::respond(State& state, const Exchange& /*exchange*/,
                          const ResponseFacts& facts) const noexcept {
  state.status_ = facts.status;
}

CallResult BreakerStep::result_of(const State& state, const Exchange& exchange,
                                  const ResponseFacts& facts) const noexcept {
  if (exchange.ended_early() || facts.ending == Ending::cancelled) return CallResult::ignored;
  if (facts.ending != Ending::failed &&
      !failures_.contains(state.status_ != 0 ? state.status_ : facts.status))
    return CallResult::success;
  // A caller that grants a millisecond must not open the breaker for everybody.
  if (exchange.deadline_is_callers && exchange.ended >= exchange.deadline)
    return CallResult::ignored;
  return CallResult::failure;
}

void BreakerStep::after(State& state, const Exchange& exchange,
                        const ResponseFacts& facts) noexcept {
  Dependency* const dependency = by_route_[exchange.route.number];
  if (dependency == nullptr) return;
  const CallResult result = result_of(state, exchange, facts);
  const auto took = exchange.ended - exchange.begun;
  if (result == CallResult::success && took < dependency->options.slow_call &&
      !state.permit_.is_probe()) [[likely]]
    return dependency->breaker.record(state.permit_, result, took, exchange.ended);
  const auto current = exchange.enter();
  dependency->breaker.record(state.permit_, result, took, exchange.ended);
}

}  // namespace spillway::middleware
