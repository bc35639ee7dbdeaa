// SPDX-License-Identifier: Apache-2.0
//
// A bulkhead (bulkhead.hpp) as a step of a chain: so many requests are handled at a time, so many of
// one tenant. Behind the step that finds the tenant, Observability.
//
//   BulkheadStep bulkhead(engine, {.bulkhead = {.concurrency_max = 100,
//                                               .concurrency_per_tenant_max = 20}});
//
// A tenant that has its share is answered 429, a server that is full 503, both with Retry-After. A
// permit lasts until the response was sent, or the exchange ended otherwise.
//
// Metrics: BulkheadDecisions by Outcome (admitted, waited, full, tenant_full, queue_full,
// tenant_queue_full, timed_out). A log when it begins to refuse, and when it has not for a while; a
// refused request's `decision` is "bulkhead: " and the outcome.
//
// Thread-safe; a request allocates nothing.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <utility>

#include <spillway/engine/engine.hpp>
#include <spillway/middleware/exchange.hpp>
#include <spillway/middleware/resilience/bulkhead.hpp>
#include <spillway/middleware/resilience/refusal_spell.hpp>

namespace spillway::middleware {

struct BulkheadStepOptions {
  BulkheadOptions bulkhead{};
  /// Wait for a permit on the thread that begins the request, as long as the bulkhead's options and the
  /// request's deadline say. For servers with a thread for each request; where one thread serves many
  /// connections, waiting would hold them all up, and a request is refused at once.
  bool wait_on_thread = false;
  /// The same without a thread, for requests of adapters that set RequestView::resumer: they stand in the
  /// bulkhead's queue, and a thread of the step's own tells those whose time is over. Others are refused
  /// at once.
  bool wait_in_queue = false;
  std::chrono::seconds retry_after{1};
};

class BulkheadStep {
 public:
  class State;

  /// `engine` outlives the step. Throws std::invalid_argument for options that cannot work.
  explicit BulkheadStep(Engine& engine, const BulkheadStepOptions& options = {});
  BulkheadStep(const BulkheadStep&) = delete;
  BulkheadStep& operator=(const BulkheadStep&) = delete;
  /// No exchange is in it any more.
  ~BulkheadStep();

  Verdict before(State& state, Exchange& exchange) noexcept;
  Verdict resumed(State& state, Exchange& exchange) noexcept;
  void after(State& state, const Exchange& exchange, const ResponseFacts& facts) noexcept;

  Bulkhead& bulkhead() noexcept { return bulkhead_; }

  /// Without a refusal for so long, the bulkhead is said to admit everybody again.
  static constexpr std::chrono::seconds calm_after{10};
  /// Who waits in the queue hears so late at most that its time is over.
  static constexpr std::chrono::milliseconds expiry_interval{5};

 private:
  class Queued;
  class Watcher;
  Verdict decide(State& state, Exchange& exchange) noexcept;
  [[gnu::cold]] void note_refusal(const Exchange& exchange, BulkheadRefusal refusal) noexcept;
  [[gnu::cold]] void note_admission(const Exchange& exchange) noexcept;

  Engine& engine_;
  const bool wait_on_thread_;
  const std::chrono::seconds retry_after_;
  Bulkhead bulkhead_;
  Counter admitted_;
  Counter waited_;
  std::array<Counter, bulkhead_refusals> refused_;
  RefusalSpell spell_{calm_after};
  std::unique_ptr<Watcher> watcher_;  // of the queue; null: nobody waits in it
};

/// One request's place in the queue, and its end in whatever order: an exchange that goes takes it out, and
/// where a permit is just coming, waits for the end of that call.
class BulkheadStep::Queued final : public Bulkhead::Waiter {
 public:
  Queued(Bulkhead& bulkhead, const Exchange& exchange) noexcept
      : bulkhead_(bulkhead), exchange_(exchange) {}
  ~Queued() override;
  Queued(const Queued&) = delete;
  Queued& operator=(const Queued&) = delete;

  /// A permit, a refusal, or `waiting`: the exchange is resumed with what take() gives then.
  Bulkhead::Permit join() noexcept;
  Bulkhead::Permit take() noexcept { return std::move(permit_); }

 private:
  void granted(Bulkhead::Permit permit) noexcept override;
  void refused(BulkheadRefusal refusal) noexcept override;
  void tell() noexcept;

  Bulkhead& bulkhead_;
  const Exchange& exchange_;
  Bulkhead::Permit permit_;
  bool in_queue_ = false;  // the exchange's own thread's
  std::atomic<bool> told_{false};
};

class BulkheadStep::State {
 private:
  friend class BulkheadStep;
  Bulkhead::Permit permit_;
  std::optional<Queued> queued_;
};

}  // namespace spillway::middleware
