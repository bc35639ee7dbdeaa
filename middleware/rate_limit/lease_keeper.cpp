// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <exception>
#include <utility>

#include <spillway/middleware/rate_limit/lease_keeper.hpp>
#include <spillway/transport/retry.hpp>

namespace spillway::detail {

using middleware::RateAlgorithm;
using middleware::RateDecision;
using middleware::RateKey;

namespace {

std::int64_t ns_of(SteadyTime time) noexcept {
  return std::chrono::nanoseconds(time.time_since_epoch()).count();
}

}  // namespace

LeaseKeeper::LeaseKeeper(Parts parts)
    : parts_(std::move(parts)), leases_(parts_.keys_max), asks_(leases_.keys_max()) {
  process_hash_key();  // So that no decision is the first to ask the system for it.
  if (!parts_.steady_ns) {
    parts_.steady_ns = [] { return ns_of(std::chrono::steady_clock::now()); };
  }
  if (!parts_.draw) {
    parts_.draw = [engine = std::mt19937_64(std::random_device{}())]() mutable {
      return std::uniform_real_distribution<double>(0, 1)(engine);
    };
  }
  if (!parts_.threads) return;
  workers_.reserve(parts_.tables.size());  // A thread that has begun cannot fail to find its place.
  try {
    for (const auto& table : parts_.tables) {
      workers_.push_back(
          transport::start_thread("spillway-limits", [this, one = table.get()] { work(*one); }));
    }
  } catch (...) {
    close(std::chrono::nanoseconds(0));
    throw;
  }
}

LeaseKeeper::~LeaseKeeper() { close(std::chrono::nanoseconds(0)); }

// ---- Callers ----

RateDecision LeaseKeeper::take(const RateKey& key, const RateRule& rule, std::int64_t permits,
                               SteadyTime time) noexcept {
  const std::int64_t now = ns_of(time);
  const Hash128 hash = key.hash();
  RateDecision decision;
  bool low = false;
  const auto answer = leases_.visit(hash, now, [&](Entry* entry) {
    if (entry == nullptr) return Lease::Answer::ask;
    const Lease::Answer known = entry->take(rule, permits, now, decision);
    if (known != Lease::Answer::ask && entry->wants_more(parts_.lease, now))
      low = entry->asked = true;
    return known;
  });
  if (low) [[unlikely]]
    push(hash);
  if (answer != Lease::Answer::ask) [[likely]]
    return decision;
  try {
    return take_slowly(key, hash, rule, permits, now);
  } catch (const std::exception&) {  // No memory.
    return unavailable(rule, now);
  }
}

RateDecision LeaseKeeper::take_slowly(const RateKey& key, const Hash128& hash, const RateRule& rule,
                                      std::int64_t permits, std::int64_t now) {
  const auto deadline = std::chrono::steady_clock::now() + parts_.wait;
  Stripe& stripe = stripe_of(hash);
  std::shared_ptr<const LeaseKey> made;
  RateDecision decision;
  bool waits = false;         // and its permits are counted in Lease::waiting
  std::uint32_t denials = 0;  // before it waited
  for (;;) {
    enum class Next : std::uint8_t { decided, make_key, give_up, wait } next{};
    bool asks = false;
    std::uint64_t answers = 0;
    const bool last = waits && std::chrono::steady_clock::now() >= deadline;
    leases_.visit(hash, now, [&](Entry* entry) {
      next = Next::give_up;
      if (entry == nullptr) return;
      const auto known = entry->take(rule, permits, now, decision);
      if (known != Lease::Answer::ask ||
          (waits && entry->was_denied_since(denials, rule, permits, now, decision))) {
        next = Next::decided;
      } else if (!last && !is_down(now) && now >= entry->retry_at) {
        if (entry->key == nullptr) entry->key = std::move(made);
        next = entry->key == nullptr ? Next::make_key : Next::wait;
      }
      if (next == Next::wait) {
        if (!entry->asked) {
          asks = entry->asked = true;
          entry->least = permits;
        }
        // Read before the answer can come: no wake-up is missed.
        answers = stripe.answers.load(std::memory_order_acquire);
        if (!waits && parts_.wait.count() > 0) {
          waits = true;
          entry->waiting += permits;
          denials = entry->denials;
          waited_.fetch_add(1, std::memory_order_relaxed);
        }
      } else if (waits && next != Next::make_key) {
        entry->waiting -= permits;
      }
    });
    if (asks) push(hash);
    if (next == Next::decided) return decision;
    if (next == Next::give_up || (next == Next::wait && !waits)) return unavailable(rule, now);
    if (next == Next::make_key) {
      made = std::make_shared<const LeaseKey>(LeaseKey{key.text(parts_.secret_key), rule});
      continue;
    }
    {
      std::unique_lock lock(stripe.mutex);
      stripe.answered.wait_until(lock, deadline, [&] {
        return stripe.answers.load(std::memory_order_acquire) != answers;
      });
    }
    now = std::max(now, steady_ns());
  }
}

RateDecision LeaseKeeper::unavailable(const RateRule& rule, std::int64_t now) noexcept {
  unavailable_.fetch_add(1, std::memory_order_relaxed);
  const auto outcome = parts_.admit_when_unavailable ? RateDecision::Outcome::admitted_unavailable
                                                     : RateDecision::Outcome::denied_unavailable;
  const std::int64_t wait =
      std::max(down_until_.load(std::memory_order_relaxed) - now, std::int64_t{0});
  return {outcome, rule.capacity, 0, 0, wait, 0};
}

void LeaseKeeper::give_back(const RateKey& key, const RateRule& /*rule*/, std::int64_t permits,
                            std::int64_t receipt, SteadyTime time) noexcept {
  if (receipt == 0) return;
  const std::int64_t now = ns_of(time);
  // Without leases nothing is held: others may wait for it.
  const bool holds = parts_.lease.permits_max != 0;
  Return what{nullptr, permits, receipt};
  leases_.visit_present(key.hash(), [&](Entry* entry) {
    // A lease that is gone was idle: what it had taken counts no longer.
    if (entry == nullptr) return;
    if (!entry->put_back(holds ? permits : 0, receipt, now) || !holds) what.key = entry->key;
  });
  if (what.key == nullptr) return;
  try {
    push(std::move(what));
  } catch (const std::exception&) {  // No memory: it stays taken.
  }
}

void LeaseKeeper::push(const Hash128& key) noexcept {
  {
    const std::scoped_lock lock(mutex_);
    asks_[(asks_begin_ + asks_count_++) % asks_.size()] = key;
  }
  work_.notify_one();
}

void LeaseKeeper::push(Return what) {
  {
    const std::scoped_lock lock(mutex_);
    if (returns_.size() >= returns_max || stopping_) return;
    returns_.push_back(std::move(what));
  }
  work_.notify_one();
}

// ---- Workers ----

void LeaseKeeper::work(SharedTable& table) {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    const std::int64_t now = steady_ns();
    const auto job = next_job(now);
    if (!job) {
      idle_.notify_all();
      if (endings_.empty()) {
        work_.wait(lock);
      } else {
        work_.wait_for(lock, std::chrono::nanoseconds(endings_.top().at - now));
      }
      continue;
    }
    ++busy_;
    lock.unlock();
    run(table, *job);
    lock.lock();
    --busy_;
  }
}

bool LeaseKeeper::step() {
  std::unique_lock lock(mutex_);
  const auto job = next_job(steady_ns());
  lock.unlock();
  if (job) run(*parts_.tables.front(), *job);
  return job.has_value();
}

std::optional<LeaseKeeper::Job> LeaseKeeper::next_job(std::int64_t now) {
  // Somebody waits for asks; what ended is quickly looked at, and would pile up.
  if (!endings_.empty() && endings_.top().at <= now) {
    const Job job{Job::Kind::tend, endings_.top().key, {}};
    endings_.pop();
    return job;
  }
  if (asks_count_ != 0) {
    const Job job{Job::Kind::ask, asks_[asks_begin_], {}};
    asks_begin_ = (asks_begin_ + 1) % asks_.size();
    --asks_count_;
    return job;
  }
  if (!returns_.empty()) {
    Job job{Job::Kind::give_back, {}, std::move(returns_.front())};
    returns_.pop_front();
    return job;
  }
  return std::nullopt;
}

void LeaseKeeper::run(SharedTable& table, const Job& job) {
  try {
    switch (job.kind) {
      case Job::Kind::ask:
        ask(table, job.key);
        return;
      case Job::Kind::tend:
        tend(job.key);
        return;
      case Job::Kind::give_back:
        give_back(table, job.what);
        return;
    }
  } catch (const std::exception& error) {  // No memory.
    const std::int64_t retry_ns = std::chrono::nanoseconds(shared_backoff_max).count();
    if (job.kind == Job::Kind::ask) {
      leases_.visit_present(job.key, [&](Entry* entry) {
        if (entry == nullptr) return;
        entry->settle(parts_.lease, {}, {}, steady_ns() + retry_ns);
      });
      wake(job.key);
    }
    const std::scoped_lock lock(mutex_);
    stats_.last_error = error.what();
  }
}

void LeaseKeeper::wake(const Hash128& key) {
  Stripe& stripe = stripe_of(key);
  {
    const std::scoped_lock lock(stripe.mutex);
    stripe.answers.fetch_add(1, std::memory_order_release);
  }
  stripe.answered.notify_all();
}

void LeaseKeeper::ask(SharedTable& table, const Hash128& key) {
  const std::int64_t began = steady_ns();
  Lease::Ask question;
  int failures = 0;
  leases_.visit_present(key, [&](Entry* entry) {
    if (entry == nullptr) return;  // Never: what is asked is not idle.
    question = entry->begin(parts_.lease, began);
    failures = entry->failures;
  });
  if (question.key == nullptr) return;
  const RateRule& rule = question.key->rule;
  Lease::Asked when{began, table.now_ns(), began, question.next_window};
  SharedTake result;
  std::int64_t retry_at = down_until_.load(std::memory_order_relaxed);
  if (!is_down(began)) {
    SharedWish wish{.key = question.key->text,
                    .rule = rule,
                    .least = question.least,
                    .want = question.want,
                    .share = question.share,
                    .now_ns = when.wall_ns};
    if (question.next_window) wish.now_ns += rule.window_ns - when.wall_ns % rule.window_ns;
    result = table.take(wish, question.guess);
    retry_at = account(result, failures);
    when.answered_ns = steady_ns();
  }
  Lease::Lot out;
  std::int64_t ends = 0;
  leases_.visit_present(key, [&](Entry* entry) {
    if (entry == nullptr) return;
    out = entry->settle(parts_.lease, result, when, retry_at);
    for (const Lease::Lot& lot : entry->lots()) {
      if (lot.receipt == result.state.fresh_at && lot.permits != 0) ends = lot.until;
    }
  });
  wake(key);
  if (result.outcome == SharedTake::Outcome::taken) {
    const std::scoped_lock lock(mutex_);
    endings_.push({ends, key});
  }
  if (out.permits != 0) push(Return{question.key, out.permits, out.receipt});
}

// Keeps the account of a write; returns when to ask for this key again if it failed.
std::int64_t LeaseKeeper::account(const SharedTake& result, int failures) {
  using Outcome = SharedTake::Outcome;
  const std::scoped_lock lock(mutex_);
  stats_.writes += static_cast<std::uint64_t>(result.writes);
  const auto permits = static_cast<std::uint64_t>(result.permits);
  if (result.outcome == Outcome::taken || result.outcome == Outcome::denied) {
    stats_.permits_taken += permits;
    if (result.outcome == Outcome::denied) ++stats_.denials;
    failures_in_a_row_ = 0;
    down_until_.store(0, std::memory_order_relaxed);
    return 0;
  }
  ++stats_.failures;
  stats_.last_error = result.error;
  if (result.outcome == Outcome::lost) stats_.permits_lost += permits;
  // Throttling is of one key; what else fails, fails for all.
  const bool all = result.outcome != Outcome::throttled;
  const int attempt = all ? ++failures_in_a_row_ : failures + 1;
  const auto pause = std::max(
      transport::full_jitter(shared_backoff_scale, shared_backoff_max, attempt, parts_.draw()),
      shared_backoff_min);
  const std::int64_t until = steady_ns() + std::chrono::nanoseconds(pause).count();
  if (all) down_until_.store(until, std::memory_order_relaxed);
  return until;
}

void LeaseKeeper::tend(const Hash128& key) {
  std::array<Lease::Lot, 2> ended{};
  std::shared_ptr<const LeaseKey> owner;
  const std::int64_t now = steady_ns();
  leases_.visit_present(key, [&](Entry* entry) {
    if (entry == nullptr) return;
    ended = entry->take_ended(now);
    owner = entry->key;
  });
  for (const Lease::Lot& lot : ended) {
    if (lot.permits != 0) push(Return{owner, lot.permits, lot.receipt});
  }
}

void LeaseKeeper::give_back(SharedTable& table, const Return& what) {
  const bool known =
      table.give_back(what.key->text, what.key->rule, what.permits, what.receipt, table.now_ns());
  const std::scoped_lock lock(mutex_);
  if (known) stats_.permits_returned += static_cast<std::uint64_t>(what.permits);
}

// ---- The end ----

bool LeaseKeeper::close(std::chrono::nanoseconds timeout) noexcept {
  if (is_inherited()) return false;
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  closing_.store(true, std::memory_order_relaxed);
  std::unique_lock lock(mutex_);
  const auto finish = [&] {
    if (workers_.empty()) {
      lock.unlock();
      while (!parts_.tables.empty() && step()) {
      }
      lock.lock();
    }
    work_.notify_all();
    return idle_.wait_until(lock, deadline,
                            [&] { return asks_count_ == 0 && returns_.empty() && busy_ == 0; });
  };
  bool all = stopping_ || finish();
  if (all && !stopping_) {
    try {
      std::vector<Return> held;
      lock.unlock();
      leases_.visit_all([&](const Hash128& /*key*/, Entry& entry) {
        for (const Lease::Lot& lot : entry.take_ended(std::numeric_limits<std::int64_t>::max())) {
          if (lot.permits != 0) held.push_back({entry.key, lot.permits, lot.receipt});
        }
      });
      lock.lock();
      returns_.insert(returns_.end(), std::make_move_iterator(held.begin()),
                      std::make_move_iterator(held.end()));
    } catch (const std::exception&) {  // No memory: it stays taken.
      if (!lock.owns_lock()) lock.lock();
      all = false;
    }
    all = finish() && all;
  }
  stopping_ = true;
  work_.notify_all();
  lock.unlock();
  for (const auto& table : parts_.tables) table->stop();
  for (std::thread& worker : workers_) {
    if (worker.joinable()) worker.join();
  }
  return all;
}

middleware::DynamoDbRateStats LeaseKeeper::stats() const {
  middleware::DynamoDbRateStats stats;
  {
    const std::scoped_lock lock(mutex_);
    stats = stats_;
  }
  stats.waited = waited_.load(std::memory_order_relaxed);
  stats.unavailable = unavailable_.load(std::memory_order_relaxed);
  return stats;
}

}  // namespace spillway::detail
