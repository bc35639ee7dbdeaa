// SPDX-License-Identifier: Apache-2.0
#include <condition_variable>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include <spillway/middleware/resilience/bulkhead_step.hpp>
#include <spillway/transport/background_thread.hpp>

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

/// The thread that tells those in the queue whose time is over. Sleeps while nobody waits.
class BulkheadStep::Watcher {
 public:
  explicit Watcher(Bulkhead& bulkhead) : bulkhead_(bulkhead) {
    thread_ = transport::start_thread("spillway-queue", [this] { watch(); });
  }
  Watcher(const Watcher&) = delete;
  Watcher& operator=(const Watcher&) = delete;
  ~Watcher() {
    {
      const std::scoped_lock lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  bool is_inherited() const noexcept { return home_.is_another(); }

  /// Somebody waits.
  void look() noexcept {
    const std::scoped_lock lock(mutex_);  // Under it the thread sleeps, or is about to look.
    changed_.notify_one();
  }

 private:
  void watch() {
    std::unique_lock lock(mutex_);
    while (!stopping_) {
      changed_.wait(lock, [this] { return stopping_ || bulkhead_.waiting() != 0; });
      changed_.wait_for(lock, expiry_interval, [this] { return stopping_; });
      lock.unlock();
      bulkhead_.expire(std::chrono::steady_clock::now());
      lock.lock();
    }
  }

  Bulkhead& bulkhead_;
  const transport::HomeProcess home_;
  std::mutex mutex_;  // of stopping_
  std::condition_variable changed_;
  bool stopping_ = false;
  std::thread thread_;
};

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
  if (options.wait_in_queue) watcher_ = std::make_unique<Watcher>(bulkhead_);
}

BulkheadStep::~BulkheadStep() { transport::release_inherited(watcher_); }

// ---- Waiting without a thread ----

BulkheadStep::Queued::~Queued() {
  if (!in_queue_ || bulkhead_.cancel(*this)) return;
  while (!told_.load(std::memory_order_acquire)) std::this_thread::yield();
}

Bulkhead::Permit BulkheadStep::Queued::join() noexcept {
  in_queue_ = true;  // Before anybody can tell.
  Bulkhead::Permit permit =
      bulkhead_.acquire(*this, exchange_.tenant, exchange_.begun, exchange_.deadline);
  in_queue_ = permit.refusal() == BulkheadRefusal::waiting;
  return permit;
}

void BulkheadStep::Queued::granted(Bulkhead::Permit permit) noexcept {
  permit_ = std::move(permit);
  tell();
}
void BulkheadStep::Queued::refused(BulkheadRefusal refusal) noexcept {
  permit_ = Bulkhead::Permit(refusal);
  tell();
}
void BulkheadStep::Queued::tell() noexcept {
  exchange_.resume_later();
  told_.store(true, std::memory_order_release);  // The last that this thread does with it.
}

// ---- A request ----

Verdict BulkheadStep::before(State& state, Exchange& exchange) noexcept {
  state.permit_ = bulkhead_.try_acquire(exchange.tenant, exchange.begun);
  if (state.permit_) [[likely]] {
    admitted_.add(1U);
  } else if (watcher_ != nullptr && !watcher_->is_inherited() && exchange.can_wait()) {
    state.permit_ = state.queued_.emplace(bulkhead_, exchange).join();
    if (state.permit_.refusal() == BulkheadRefusal::waiting) {
      watcher_->look();
      return Verdict::wait;
    }
    if (state.permit_) admitted_.add(1U);
  } else if (wait_on_thread_) {
    state.permit_ = bulkhead_.acquire(exchange.tenant, exchange.begun, exchange.deadline);
    if (state.permit_) waited_.add(1U);
  }
  return decide(state, exchange);
}

Verdict BulkheadStep::resumed(State& state, Exchange& exchange) noexcept {
  state.permit_ = state.queued_->take();
  // It came too late: for somebody else, not for a handler whose answer nobody waits for.
  if (state.permit_ && exchange.should_stop())
    state.permit_ = Bulkhead::Permit(BulkheadRefusal::timed_out);
  if (state.permit_) waited_.add(1U);
  return decide(state, exchange);
}

Verdict BulkheadStep::decide(State& state, Exchange& exchange) noexcept {
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
