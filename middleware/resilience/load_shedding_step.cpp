// SPDX-License-Identifier: Apache-2.0
#include <string>

#include <spillway/middleware/resilience/load_shedding_step.hpp>

namespace spillway::middleware {
namespace {

constexpr std::array<std::string_view, 3> priority_names{"critical", "normal", "sheddable"};

constexpr std::array<std::string_view, shed_reason_count> decision_texts{
    "",
    "load shedding: in_flight",
    "load shedding: queue_delay",
    "load shedding: cpu_pressure",
    "load shedding: cpu_throttled",
    "load shedding: memory"};

std::vector<Priority> priorities(const Routes& routes, const LoadSheddingOptions& options) {
  std::vector<Priority> result;
  for (const Route& route : routes.all())
    result.push_back(options.priority_of ? options.priority_of(route) : Priority::normal);
  return result;
}

}  // namespace

std::string_view to_string(Priority priority) noexcept {
  return priority_names[static_cast<std::size_t>(priority)];
}

std::optional<Priority> parse_priority(std::string_view text) noexcept {
  for (std::size_t i = 0; i < priority_names.size(); ++i) {
    if (text == priority_names[i]) return static_cast<Priority>(i);
  }
  return std::nullopt;
}

LoadSheddingStep::LoadSheddingStep(Engine& engine, const Routes& routes,
                                   const LoadSheddingOptions& options)
    : engine_(engine),
      priorities_(priorities(routes, options)),
      may_raise_(options.may_raise),
      arrived_(options.arrived),
      retry_after_(options.retry_after),
      shedder_(options.shedder),
      limit_(engine.gauge("InFlightLimit", Unit::count)) {
  for (std::size_t i = 0; i < decisions_.size(); ++i) {
    const auto reason = static_cast<ShedReason>(i);
    const std::string_view outcome = reason == ShedReason::none ? "admitted" : to_string(reason);
    decisions_[i] =
        engine.counter("LoadSheddingDecisions", Unit::count, {{"Outcome", std::string(outcome)}});
  }
}

Priority LoadSheddingStep::priority_of(const Exchange& exchange) const {
  const std::uint32_t number = exchange.route.number;
  const Priority own = number < priorities_.size() ? priorities_[number] : Priority::normal;
  const std::string_view text = exchange.request.header(priority_header_name);
  if (text.data() == nullptr) [[likely]]
    return own;
  const auto asked = parse_priority(text);
  if (!asked || *asked == own) return own;
  // Smaller is more.
  return *asked > own || (may_raise_ && may_raise_(exchange)) ? *asked : own;
}

Verdict LoadSheddingStep::before(State& state, Exchange& exchange) {
  exchange.priority = priority_of(exchange);
  if (arrived_) shedder_.observe_queue_delay(exchange.begun - arrived_(exchange), exchange.begun);
  const ShedReason reason = shedder_.try_begin(exchange.priority, exchange.begun);
  decisions_[static_cast<std::size_t>(reason)].add(1U);
  if (reason == ShedReason::none) [[likely]] {
    state.begun_ = true;
    if (spell_.admitted(exchange.begun)) [[unlikely]]
      note_admission(exchange);
    return Verdict::proceed;
  }
  note_refusal(exchange, reason);
  exchange.add_retry_after(retry_after_);
  return exchange.refuse(503, "the service is overloaded",
                         decision_texts[static_cast<std::size_t>(reason)]);
}

void LoadSheddingStep::after(State& state, const Exchange& exchange,
                             const ResponseFacts& facts) noexcept {
  if (!state.begun_) return;
  // What another step refused, and what the client broke off, took no time of the handler's. A reply
  // in place of the handler's, as a deadline's that it has missed, did: those are the slowest.
  std::optional<std::chrono::nanoseconds> took;
  if (facts.ending == Ending::sent && !exchange.ended_early())
    took = exchange.ended - exchange.begun;
  shedder_.end(took, exchange.ended);
  limit_.set(shedder_.limit());
}

void LoadSheddingStep::note_refusal(const Exchange& exchange, ShedReason reason) noexcept {
  if (!spell_.refused(exchange.begun)) return;
  const auto current = exchange.enter();
  SPILLWAY_WARN(engine_, "load shedding begins", {"reason", to_string(reason)},
                {"priority", to_string(exchange.priority)}, {"in_flight", shedder_.in_flight()},
                {"limit", shedder_.limit()});
}

void LoadSheddingStep::note_admission(const Exchange& exchange) noexcept {
  const auto current = exchange.enter();
  SPILLWAY_INFO(engine_, "load shedding is over", {"in_flight", shedder_.in_flight()},
                {"limit", shedder_.limit()});
}

}  // namespace spillway::middleware
