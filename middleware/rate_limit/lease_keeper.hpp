// SPDX-License-Identifier: Apache-2.0
//
// The leases of a process: decisions on the callers' threads, questions to the shared table on
// threads of its own.
//
//   caller    hash ─► lease, under its shard's lock ─► admitted or denied by what is held
//                │         running low: its key into the queue              (some writes a second)
//                └──────── nothing known: its key into the queue, and wait, `wait` at most
//   worker    key from the queue ─► Lease::begin ─► SharedTable::take ─► Lease::settle ─► wakes
//             lots that ended ─► SharedTable::give_back
//
// A key is in the queue once at most (Lease::asked), so the queue has as many places as the table of
// leases. When the shared table does not answer, no key is asked for until a back-off is over, and
// who would wait is answered at once.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <queue>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <spillway/engine/clock.hpp>
#include <spillway/middleware/rate_limit/dynamodb_store.hpp>
#include <spillway/middleware/rate_limit/lease.hpp>
#include <spillway/middleware/rate_limit/state_table.hpp>
#include <spillway/transport/background_thread.hpp>

namespace spillway::detail {

/// Permits of requests that shall not count wait for a worker up to so many; more are kept.
inline constexpr std::size_t returns_max = 4096;
inline constexpr std::chrono::milliseconds shared_backoff_scale{100};
inline constexpr std::chrono::milliseconds shared_backoff_min{25};
inline constexpr std::chrono::milliseconds shared_backoff_max{5000};

class LeaseKeeper {
 public:
  struct Parts {
    LeaseSettings lease{};
    std::size_t keys_max = 16'384;
    bool admit_when_unavailable = false;
    std::chrono::nanoseconds wait{};
    std::string secret_key{};
    /// One for each worker.
    std::vector<std::unique_ptr<SharedTable>> tables{};
    /// False: nobody works but step(), for tests.
    bool threads = true;
    std::function<std::int64_t()> steady_ns{};  ///< null: the steady clock
    std::function<double()> draw{};             ///< numbers in [0, 1); null: random
  };
  explicit LeaseKeeper(Parts parts);
  ~LeaseKeeper();
  LeaseKeeper(const LeaseKeeper&) = delete;
  LeaseKeeper& operator=(const LeaseKeeper&) = delete;

  middleware::RateDecision take(const middleware::RateKey& key, const RateRule& rule,
                                std::int64_t permits, SteadyTime now) noexcept;
  void give_back(const middleware::RateKey& key, const RateRule& rule, std::int64_t permits,
                 std::int64_t receipt, SteadyTime now) noexcept;
  /// False in a forked child, too, which has none of the workers and does nothing.
  bool close(std::chrono::nanoseconds timeout) noexcept;
  bool is_inherited() const noexcept { return home_.is_another(); }
  middleware::DynamoDbRateStats stats() const;
  std::size_t keys() { return leases_.size(); }

  /// Does what a worker would do next, with the first table. False: there is nothing.
  bool step();

 private:
  struct Entry : Lease {};
  struct Return {
    std::shared_ptr<const LeaseKey> key;
    std::int64_t permits = 0;
    std::int64_t receipt = 0;
  };
  struct Ending {
    std::int64_t at = 0;
    Hash128 key;
    friend bool operator>(const Ending& a, const Ending& b) noexcept { return a.at > b.at; }
  };
  // One thing to do.
  struct Job {
    enum class Kind : std::uint8_t { ask, tend, give_back } kind = Kind::ask;
    Hash128 key{};
    Return what{};
  };
  // Callers that wait for a key of this stripe.
  struct Stripe {
    std::mutex mutex;
    std::condition_variable answered;
    std::atomic<std::uint64_t> answers{0};
  };

  std::int64_t steady_ns() const { return parts_.steady_ns(); }
  Stripe& stripe_of(const Hash128& key) noexcept { return stripes_[key.low % stripes_.size()]; }
  bool is_down(std::int64_t now) const noexcept {
    return now < down_until_.load(std::memory_order_relaxed) ||
           closing_.load(std::memory_order_relaxed);
  }
  middleware::RateDecision unavailable(const RateRule& rule, std::int64_t now) noexcept;
  middleware::RateDecision take_slowly(const middleware::RateKey& key, const Hash128& hash,
                                       const RateRule& rule, std::int64_t permits,
                                       std::int64_t now);
  void push(const Hash128& key) noexcept;
  void push(Return what);
  void work(SharedTable& table);
  std::optional<Job> next_job(std::int64_t now);  // Under mutex_.
  void run(SharedTable& table, const Job& job);
  void ask(SharedTable& table, const Hash128& key);
  void tend(const Hash128& key);
  void give_back(SharedTable& table, const Return& what);
  void wake(const Hash128& key);
  std::int64_t account(const SharedTake& result, int failures);

  Parts parts_;
  StateTable<Entry> leases_;
  std::array<Stripe, 16> stripes_;
  std::atomic<std::int64_t> down_until_{0};
  std::atomic<bool> closing_{false};

  // The queue, under `mutex_`.
  mutable std::mutex mutex_;
  std::condition_variable work_;
  std::vector<Hash128> asks_;  // a ring
  std::size_t asks_begin_ = 0;
  std::size_t asks_count_ = 0;
  std::deque<Return> returns_;
  std::priority_queue<Ending, std::vector<Ending>, std::greater<>> endings_;
  int busy_ = 0;
  bool stopping_ = false;
  std::condition_variable idle_;
  int failures_in_a_row_ = 0;
  middleware::DynamoDbRateStats stats_;

  std::atomic<std::uint64_t> unavailable_{0};
  std::atomic<std::uint64_t> waited_{0};
  const transport::HomeProcess home_;
  std::vector<std::thread> workers_;
};

}  // namespace spillway::detail
