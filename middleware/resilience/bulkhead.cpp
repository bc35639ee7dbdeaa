// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cassert>
#include <condition_variable>

#include <spillway/middleware/resilience/bulkhead.hpp>
#include <spillway/middleware/resilience/settings.hpp>

namespace spillway::middleware {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;

std::string_view to_string(BulkheadRefusal refusal) noexcept {
  switch (refusal) {
    case BulkheadRefusal::none:
      return "none";
    case BulkheadRefusal::waiting:
      return "waiting";
    case BulkheadRefusal::full:
      return "full";
    case BulkheadRefusal::tenant_full:
      return "tenant_full";
    case BulkheadRefusal::queue_full:
      return "queue_full";
    case BulkheadRefusal::tenant_queue_full:
      return "tenant_queue_full";
    case BulkheadRefusal::timed_out:
      break;
  }
  return "timed_out";
}

void BulkheadOptions::check() const {
  SettingsCheck("a bulkhead")
      .within("concurrency_max", concurrency_max, 1U, 1'000'000U)
      .within("concurrency_per_tenant_max", concurrency_per_tenant_max, 0U, concurrency_max)
      .within("queue_max", queue_max, 0U, 10'000U)
      .within("wait_max", wait_max, milliseconds(0), milliseconds(60'000))
      .within("tenants.keys_max", tenants.keys_max, std::size_t{1}, std::size_t{1} << 20)
      .within("tenants.idle_after", milliseconds(tenants.idle_after), milliseconds(1'000),
              milliseconds(std::chrono::hours(24 * 365)))
      .done();
}

/// A thread that waits for a permit.
class Bulkhead::Sleeper final : public Waiter {
 public:
  Permit wait(Bulkhead& bulkhead, nanoseconds limit) noexcept {
    std::unique_lock lock(mutex_);
    if (!heard_.wait_for(lock, limit, [this] { return done_; })) {
      lock.unlock();
      if (bulkhead.cancel(*this)) return Permit(BulkheadRefusal::timed_out);
      lock.lock();  // The answer is on its way.
      heard_.wait(lock, [this] { return done_; });
    }
    return std::move(permit_);
  }

 private:
  void granted(Permit permit) noexcept override {
    const std::scoped_lock lock(mutex_);  // Until after the notice: the waiter may go at once.
    permit_ = std::move(permit);
    done_ = true;
    heard_.notify_one();
  }
  void refused(BulkheadRefusal refusal) noexcept override { granted(Permit(refusal)); }

  std::mutex mutex_;
  std::condition_variable heard_;
  bool done_ = false;
  Permit permit_;
};

Bulkhead::Bulkhead(const BulkheadOptions& options)
    : options_((options.check(), options)),
      permits_(options.concurrency_max),
      tenants_(
          options.concurrency_per_tenant_max == 0 ? KeyTableLimits{.keys_max = 1} : options.tenants,
          options.concurrency_per_tenant_max) {}

Bulkhead::~Bulkhead() { assert(waiting() == 0 && in_flight() == 0); }

void Bulkhead::List::append(Waiter& waiter) noexcept {
  waiter.next_ = nullptr;
  waiter.previous_ = last;
  (last != nullptr ? last->next_ : first) = &waiter;
  last = &waiter;
}

void Bulkhead::List::remove(Waiter& waiter) noexcept {
  (waiter.previous_ != nullptr ? waiter.previous_->next_ : first) = waiter.next_;
  (waiter.next_ != nullptr ? waiter.next_->previous_ : last) = waiter.previous_;
}

Bulkhead::Permit Bulkhead::acquire(std::string_view tenant, SteadyTime now,
                                   SteadyTime deadline) noexcept {
  if (Permit permit = try_take(tenant_of(tenant, now))) return permit;
  Sleeper sleeper;
  Permit permit = acquire(sleeper, tenant, now, deadline);
  if (permit.refusal() != BulkheadRefusal::waiting) return permit;
  const nanoseconds left = std::max(nanoseconds(deadline - now), nanoseconds::zero());
  return sleeper.wait(*this, std::min<nanoseconds>(options_.wait_max, left));
}

Bulkhead::Permit Bulkhead::acquire(Waiter& waiter, std::string_view tenant, SteadyTime now,
                                   SteadyTime deadline) noexcept {
  Tenant* const its = tenant_of(tenant, now);
  if (Permit permit = try_take(its)) return permit;
  expire(now);
  if (options_.queue_max == 0 || options_.wait_max == milliseconds(0) || deadline <= now)
    return take(its);
  const SteadyTime until = std::min(deadline, now + options_.wait_max);
  return Permit(enqueue(waiter, its, nanoseconds(until.time_since_epoch()).count()));
}

BulkheadRefusal Bulkhead::enqueue(Waiter& waiter, Tenant* tenant,
                                  std::int64_t deadline_ns) noexcept {
  {
    const std::scoped_lock lock(mutex_);
    if (waiting_.load(std::memory_order_relaxed) >= options_.queue_max)
      return BulkheadRefusal::queue_full;
    if (tenant != nullptr) {
      if (tenant->queued.load(std::memory_order_relaxed) >= options_.queue_per_tenant_max)
        return BulkheadRefusal::tenant_queue_full;
      tenant->queued.fetch_add(1, std::memory_order_relaxed);
    }
    waiter.tenant_ = tenant;
    waiter.deadline_ns_ = deadline_ns;
    waiter.queued_ = true;
    queue_.append(waiter);
    waiting_.fetch_add(1, std::memory_order_seq_cst);
  }
  dispatch();  // What was given back before anybody could see the waiter.
  return BulkheadRefusal::waiting;
}

void Bulkhead::unlink(Waiter& waiter) noexcept {
  queue_.remove(waiter);
  waiter.queued_ = false;
  if (waiter.tenant_ != nullptr) waiter.tenant_->queued.fetch_sub(1, std::memory_order_relaxed);
  waiting_.fetch_sub(1, std::memory_order_seq_cst);
}

void Bulkhead::dispatch() noexcept {
  List ready;
  {
    const std::scoped_lock lock(mutex_);
    for (Waiter* waiter = queue_.first; waiter != nullptr;) {
      Waiter* const next = waiter->next_;
      Tenant* const tenant = waiter->tenant_;
      if (tenant == nullptr || tenant->free.try_take()) {
        if (!permits_.try_take()) {
          if (tenant != nullptr) tenant->free.give_back();
          break;
        }
        unlink(*waiter);
        ready.append(*waiter);
      }
      waiter = next;
    }
  }
  for (Waiter* waiter = ready.first; waiter != nullptr;) {
    Waiter* const next = waiter->next_;  // The waiter may go as soon as it has heard.
    waiter->granted(Permit(*this, waiter->tenant_));
    waiter = next;
  }
}

bool Bulkhead::cancel(Waiter& waiter) noexcept {
  const std::scoped_lock lock(mutex_);
  if (!waiter.queued_) return false;
  unlink(waiter);
  return true;
}

void Bulkhead::expire(SteadyTime now) noexcept {
  if (waiting_.load(std::memory_order_relaxed) == 0) return;
  const std::int64_t now_ns = nanoseconds(now.time_since_epoch()).count();
  List over;
  {
    const std::scoped_lock lock(mutex_);
    for (Waiter* waiter = queue_.first; waiter != nullptr;) {
      Waiter* const next = waiter->next_;
      if (waiter->deadline_ns_ <= now_ns) {
        unlink(*waiter);
        over.append(*waiter);
      }
      waiter = next;
    }
  }
  for (Waiter* waiter = over.first; waiter != nullptr;) {
    Waiter* const next = waiter->next_;
    waiter->refused(BulkheadRefusal::timed_out);
    waiter = next;
  }
}

}  // namespace spillway::middleware
