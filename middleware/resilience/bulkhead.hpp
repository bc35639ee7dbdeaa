// SPDX-License-Identifier: Apache-2.0
//
// A bulkhead: so many requests at a time, so many of one tenant, and a bounded queue for the rest.
//
//   Bulkhead bulkhead({.concurrency_max = 100, .concurrency_per_tenant_max = 20});
//   auto permit = bulkhead.acquire(tenant, now);       // waits wait_max at most
//   if (!permit) ... refused: permit.refusal() ...
//   ... the permit's end gives it back ...
//
// A request takes its tenant's permit first and one of all tenants' then, and never waits holding
// only one: a tenant at its limit takes nothing from the others. Those who wait stand in one queue
// in the order in which they came; a permit goes to the first whose tenant may have one, so that a
// tenant at its limit does not hold up those behind it. Who comes new does not pass who waits.
//
// Threads: any. While nobody waits, taking and giving back is two additions each to counters that
// threads seldom share, without a lock. The queue has a lock.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string_view>
#include <utility>

#include <spillway/engine/clock.hpp>
#include <spillway/middleware/resilience/key_table.hpp>
#include <spillway/middleware/resilience/permit_pool.hpp>

namespace spillway::middleware {

struct BulkheadOptions {
  std::uint32_t concurrency_max = 256;           ///< requests at a time
  std::uint32_t concurrency_per_tenant_max = 0;  ///< of one tenant; 0: tenants are not told apart
  std::uint32_t queue_max = 128;                 ///< requests that wait; 0: none does
  std::uint32_t queue_per_tenant_max = 32;       ///< of one tenant, where tenants are told apart
  std::chrono::milliseconds wait_max{100};
  KeyTableLimits tenants{.keys_max = 1024};

  /// Throws std::invalid_argument that lists everything that cannot work.
  void check() const;
};

enum class BulkheadRefusal : std::uint8_t {
  none,
  waiting,      ///< not yet: the waiter stands in the queue
  full,         ///< as many requests as may be are under way, and nobody may wait
  tenant_full,  ///< the same of the tenant
  queue_full,
  tenant_queue_full,
  timed_out  ///< waited as long as it may
};
inline constexpr std::size_t bulkhead_refusals = 7;  ///< how many there are
std::string_view to_string(BulkheadRefusal refusal) noexcept;

class Bulkhead {
  struct Tenant;

 public:
  /// A place among the requests under way, given back at its end. The bulkhead outlives it.
  class [[nodiscard]] Permit {
   public:
    Permit() = default;
    /// None, and why.
    explicit Permit(BulkheadRefusal refusal) noexcept : refusal_(refusal) {}
    Permit(Permit&& other) noexcept
        : bulkhead_(std::exchange(other.bulkhead_, nullptr)),
          tenant_(other.tenant_),
          refusal_(other.refusal_) {}
    Permit& operator=(Permit&& other) noexcept {
      Permit old(std::move(*this));
      bulkhead_ = std::exchange(other.bulkhead_, nullptr);
      tenant_ = other.tenant_;
      refusal_ = other.refusal_;
      return *this;
    }
    ~Permit() { give_back(); }

    explicit operator bool() const noexcept { return bulkhead_ != nullptr; }
    BulkheadRefusal refusal() const noexcept { return refusal_; }
    /// Gives it back before its end.
    void give_back() noexcept {
      if (Bulkhead* const bulkhead = std::exchange(bulkhead_, nullptr)) bulkhead->release(tenant_);
    }

   private:
    friend class Bulkhead;
    Permit(Bulkhead& bulkhead, Tenant* tenant) noexcept
        : bulkhead_(&bulkhead), tenant_(tenant), refusal_(BulkheadRefusal::none) {}
    Bulkhead* bulkhead_ = nullptr;
    Tenant* tenant_ = nullptr;
    BulkheadRefusal refusal_ = BulkheadRefusal::full;
  };

  /// Somebody who waits without holding a thread. Belongs to its owner, who keeps it where it is
  /// from acquire() until one of the two functions was called or cancel() said true.
  class Waiter {
   public:
    Waiter() = default;
    Waiter(const Waiter&) = delete;
    Waiter& operator=(const Waiter&) = delete;
    virtual ~Waiter() = default;

   private:
    friend class Bulkhead;
    /// The permit has come, or will not come (timed_out). Called once, on the thread that gave a
    /// permit back or called expire(), with no lock held: hand over to the request's own executor,
    /// do not serve it here.
    virtual void granted(Permit permit) noexcept = 0;
    virtual void refused(BulkheadRefusal refusal) noexcept = 0;

    Waiter* next_ = nullptr;
    Waiter* previous_ = nullptr;
    Tenant* tenant_ = nullptr;
    std::int64_t deadline_ns_ = 0;
    bool queued_ = false;
  };

  /// Throws std::invalid_argument for options that cannot work.
  explicit Bulkhead(const BulkheadOptions& options);
  /// Nobody waits and no permit is out any more.
  ~Bulkhead();
  Bulkhead(const Bulkhead&) = delete;
  Bulkhead& operator=(const Bulkhead&) = delete;

  /// A permit now, or a refusal: full or tenant_full. Never waits.
  Permit try_acquire(std::string_view tenant, SteadyTime now) noexcept {
    return try_take(tenant_of(tenant, now));
  }
  /// Waits for one, at most wait_max and until `deadline`.
  Permit acquire(std::string_view tenant, SteadyTime now,
                 SteadyTime deadline = SteadyTime::max()) noexcept;
  /// The permit if there is one, else a refusal; with `waiting`, `waiter` hears of the rest, perhaps
  /// before this returns. Somebody must call expire() when the waiting time is over.
  Permit acquire(Waiter& waiter, std::string_view tenant, SteadyTime now,
                 SteadyTime deadline = SteadyTime::max()) noexcept;
  /// Takes a waiter out of the queue. True: it was there and hears nothing any more. False: it has
  /// heard, or is hearing just now.
  bool cancel(Waiter& waiter) noexcept;
  /// Refuses those whose waiting time is over. Also done by every acquire() that finds no permit.
  void expire(SteadyTime now) noexcept;

  std::uint32_t in_flight() const noexcept { return permits_.out(); }
  std::uint32_t waiting() const noexcept { return waiting_.load(std::memory_order_relaxed); }
  const BulkheadOptions& options() const noexcept { return options_; }

 private:
  struct Tenant {
    explicit Tenant(std::uint32_t permits) noexcept : free(permits) {}
    // Permits that are out, or somebody in the queue, keep a tenant in its place.
    bool try_recycle(std::int64_t /*now_ns*/) noexcept {
      return free.out() == 0 && queued.load(std::memory_order_relaxed) == 0;
    }
    PermitPool free;
    std::atomic<std::uint32_t> queued{0};  // written under mutex_
  };
  class Sleeper;
  struct List {  // of waiters, linked through themselves
    Waiter* first = nullptr;
    Waiter* last = nullptr;
    void append(Waiter& waiter) noexcept;
    void remove(Waiter& waiter) noexcept;
  };

  Tenant* tenant_of(std::string_view tenant, SteadyTime now) noexcept {
    if (options_.concurrency_per_tenant_max == 0) return nullptr;
    return &tenants_.find(tenant, std::chrono::nanoseconds(now.time_since_epoch()).count());
  }
  Permit try_take(Tenant* tenant) noexcept {
    // Those who wait go first. Whom this leaves waiting may not have the permit: its tenant is full.
    if (waiting_.load(std::memory_order_seq_cst) != 0) [[unlikely]]
      dispatch();
    return take(tenant);
  }
  Permit take(Tenant* tenant) noexcept {
    if (tenant != nullptr && !tenant->free.try_take()) [[unlikely]]
      return Permit(BulkheadRefusal::tenant_full);
    if (permits_.try_take()) [[likely]]
      return Permit(*this, tenant);
    if (tenant != nullptr) {
      tenant->free.give_back();
      if (waiting_.load(std::memory_order_seq_cst) != 0) dispatch();  // It was missed meanwhile.
    }
    return Permit(BulkheadRefusal::full);
  }
  // Pair with enqueue(): a permit is given back, then waiting_ is looked at; a waiter is counted in
  // waiting_, then permits are looked for (all seq_cst). One of the two sees the other.
  void release(Tenant* tenant) noexcept {
    permits_.give_back();
    if (tenant != nullptr) tenant->free.give_back();
    if (waiting_.load(std::memory_order_seq_cst) != 0) [[unlikely]]
      dispatch();
  }
  BulkheadRefusal enqueue(Waiter& waiter, Tenant* tenant, std::int64_t deadline_ns) noexcept;
  /// Gives permits to those in the queue that may have them.
  void dispatch() noexcept;
  void unlink(Waiter& waiter) noexcept;  // with mutex_ held

  const BulkheadOptions options_;
  alignas(cache_line_bytes) std::atomic<std::uint32_t> waiting_{0};  // written under mutex_
  PermitPool permits_;
  KeyTable<Tenant> tenants_;
  std::mutex mutex_;
  List queue_;
};

}  // namespace spillway::middleware
