// SPDX-License-Identifier: Apache-2.0
#include <string>
#include <string_view>

#include <spillway/middleware/resilience/bulkhead_step.hpp>

namespace spillway::middleware {
namespace {

struct Refusal {
  int status;
  std::string_view detail;
  std::string_view decision;
};

Refusal refusal_of(BulkheadRefusal refusal) noexcept {
  constexpr std::string_view tenant = "too many requests of this tenant are under way";
  constexpr std::string_view all = "too many requests are under way";
  switch (refusal) {
    case BulkheadRefusal::tenant_full:
      return {429, tenant, "bulkhead: tenant_full"};
    case BulkheadRefusal::tenant_queue_full:
      return {429, tenant, "bulkhead: tenant_queue_full"};
    case BulkheadRefusal::queue_full:
      return {503, all, "bulkhead: queue_full"};
    case BulkheadRefusal::timed_out:
      return {503, all, "bulkhead: timed_out"};
    case BulkheadRefusal::none:
    case BulkheadRefusal::waiting:
    case BulkheadRefusal::full:
      break;
  }
  return {503, all, "bulkhead: full"};
}

}  // namespace

BulkheadStep::BulkheadStep(Engine& engine, const BulkheadStepOptions& options)
    : engine_(engine),
      wait_on_thread_(options.wait_on_thread),
      retry_after_(options.retry_after),
      bulkhead_(options.bulkhead) {
  const auto decisions = [&](std::string_view outcome) {
    return engine.counter("BulkheadDecisions", Unit::count, {{"Outcome", std::string(outcome)}});
  };
  admitted_ = decisions("admitted");
  waited_ = decisions("waited");
  for (const BulkheadRefusal refusal :
       {BulkheadRefusal::full, BulkheadRefusal::tenant_full, BulkheadRefusal::queue_full,
        BulkheadRefusal::tenant_queue_full, BulkheadRefusal::timed_out})
    refused_[static_cast<std::size_t>(refusal)] = decisions(to_string(refusal));
}

Verdict BulkheadStep::before(State& state, Exchange& exchange) noexcept {
  state.permit_ = bulkhead_.try_acquire(exchange.tenant, exchange.begun);
  if (state.permit_) [[likely]] {
    admitted_.add(1U);
  } else if (wait_on_thread_) {
    state.permit_ = bulkhead_.acquire(exchange.tenant, exchange.begun, exchange.deadline);
    if (state.permit_) waited_.add(1U);
  }
  if (state.permit_) [[likely]] {
    if (spell_.admitted(exchange.begun)) [[unlikely]]
      note_admission(exchange);
    return Verdict::proceed;
  }
  const BulkheadRefusal refusal = state.permit_.refusal();
  refused_[static_cast<std::size_t>(refusal)].add(1U);
  note_refusal(exchange, refusal);
  const auto [status, detail, decision] = refusal_of(refusal);
  exchange.add_retry_after(retry_after_);
  return exchange.refuse(status, detail, decision);
}

void BulkheadStep::after(State& state, const Exchange& /*exchange*/,
                         const ResponseFacts& /*facts*/) noexcept {
  state.permit_.give_back();
}

void BulkheadStep::note_refusal(const Exchange& exchange, BulkheadRefusal refusal) noexcept {
  if (!spell_.refused(exchange.begun)) return;
  const auto current = exchange.enter();
  SPILLWAY_WARN(engine_, "bulkhead refuses requests", {"reason", to_string(refusal)},
                {"in_flight", bulkhead_.in_flight()}, {"waiting", bulkhead_.waiting()},
                {"concurrency_max", bulkhead_.options().concurrency_max},
                {"concurrency_per_tenant_max", bulkhead_.options().concurrency_per_tenant_max});
}

void BulkheadStep::note_admission(const Exchange& exchange) noexcept {
  const auto current = exchange.enter();
  SPILLWAY_INFO(engine_, "bulkhead admits all requests again",
                {"in_flight", bulkhead_.in_flight()});
}

}  // namespace spillway::middleware
