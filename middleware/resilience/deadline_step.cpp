// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <spillway/middleware/resilience/deadline_step.hpp>
#include <spillway/middleware/resilience/settings.hpp>

namespace spillway::middleware {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;

DeadlineStep::DeadlineStep(Engine& engine, const Routes& routes, const DeadlineOptions& options)
    : options_(options),
      clock_(options.clock != nullptr ? options.clock : spillway::detail::system_clock()),
      by_route_(routes.all().size(), options.timeout) {
  constexpr milliseconds none{0};
  constexpr milliseconds day{86'400'000};
  SettingsCheck check("a deadline step");
  check.within("timeout", options.timeout, none, day)
      .within("useful_min", options.useful_min, none, day)
      .within("lambda_margin", options.lambda_margin, none, milliseconds(900'000))
      .require(!options.accept || !options.header.empty(), "header is empty");
  for (const auto& other : options.routes) {
    const auto route = std::find_if(routes.all().begin(), routes.all().end(),
                                    [&](const Route& one) { return one.name == other.first; });
    check.require(route != routes.all().end(), "routes: there is no \"" + other.first + "\"")
        .within("routes: " + other.first, other.second, none, day);
    if (route != routes.all().end()) by_route_[route->number] = other.second;
  }
  check.done();
  const auto decisions = [&](const char* outcome) {
    return engine.counter("DeadlineDecisions", Unit::count, {{"Outcome", outcome}});
  };
  not_begun_ = decisions("not_begun");
  late_ = decisions("late");
  malformed_ = decisions("malformed");
}

Verdict DeadlineStep::before(State& /*state*/, Exchange& exchange) noexcept {
  if (const milliseconds timeout = by_route_[exchange.route.number]; timeout.count() != 0)
    exchange.deadline = std::min(exchange.deadline, exchange.begun + timeout);
  if (options_.accept) {
    if (const std::string_view text = exchange.request.header(options_.header); !text.empty()) {
      const auto granted = parse_timeout(text);
      if (!granted) {
        malformed_.add(1U);
        return exchange.refuse(
            400, "the time-out header is not a number and a unit, such as 1500m for 1500 ms",
            "deadline: malformed");
      }
      // A hundred years, the longest that is granted, fit.
      if (const SteadyTime until = exchange.begun + *granted; until < exchange.deadline) {
        exchange.deadline = until;
        exchange.deadline_is_callers = true;
      }
    }
  }
  if (options_.lambda) {
    const auto end = lambda_deadline(exchange.request.header("Lambda-Runtime-Deadline-Ms"),
                                     clock_->wall(), exchange.begun, options_.lambda_margin);
    if (end && *end < exchange.deadline) {
      exchange.deadline = *end;
      exchange.deadline_is_callers = true;
    }
  }
  const nanoseconds left = exchange.remaining(exchange.begun);
  if (left > nanoseconds::zero() && left >= options_.useful_min) [[likely]]
    return Verdict::proceed;
  not_begun_.add(1U);
  exchange.add_retry_after({});
  return exchange.refuse(503, "there is too little time left to begin", "deadline: not_begun");
}

void DeadlineStep::respond(State& state, Exchange& exchange,
                           const ResponseFacts& /*facts*/) noexcept {
  if (exchange.deadline == SteadyTime::max() || clock_->steady() < exchange.deadline) return;
  state.late_ = true;
  late_.add(1U);
  if (options_.replace_late)
    exchange.refuse(504, "the answer was not ready in time", "deadline: late");
}

void DeadlineStep::after(State& state, const Exchange& exchange,
                         const ResponseFacts& /*facts*/) noexcept {
  // Those that did not come to respond(): exceptions, cancelled ones.
  if (!state.late_ && !exchange.ended_early() && exchange.ended >= exchange.deadline) late_.add(1U);
}

std::optional<TimeoutText> downstream_timeout(const Exchange& exchange, SteadyTime now,
                                              nanoseconds margin) noexcept {
  if (exchange.deadline == SteadyTime::max()) return std::nullopt;
  return TimeoutText(exchange.remaining(now) - margin);
}

}  // namespace spillway::middleware
