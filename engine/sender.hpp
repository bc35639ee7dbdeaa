// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <spillway/engine/clock.hpp>
#include <spillway/engine/exporter.hpp>
#include <spillway/engine/ledger.hpp>
#include <spillway/engine/outbox.hpp>
#include <spillway/engine/spool.hpp>
#include <spillway/transport/http.hpp>
#include <spillway/transport/retry.hpp>

namespace spillway::detail {

/// Delivers payloads: sends, retries with back-off, splits what is refused as a whole, and accounts
/// every record of every payload exactly once. One thread, or a test, calls run_once().
///
/// Each destination has a pace of its own. A failure makes it wait, longer with each one in a row, and
/// longer still when its quota of retries is used up; one request at a time asks whether it is back.
/// What waits keeps its order and stays until it is delivered, refused, or the engine ends: how much
/// may wait is the outbox's to say. A payload that fails again and again while others of its
/// destination are taken is at fault itself: it is split until the piece is found.
///
/// With a spool, what a destination does not take now goes to disk: all that waits for it once it is
/// down or memory is scarce. From then on the spool's come first, and what is in memory queues behind
/// them. A payload that is on disk is settled as far as flush() is concerned.
class Sender {
 public:
  struct Parts {
    std::shared_ptr<Clock> clock;
    std::unique_ptr<transport::HttpTransport> http;
    std::array<std::unique_ptr<Exporter>, signal_count> exporters;  ///< by signal; null: nowhere
    Outbox& outbox;
    Ledger& ledger;
    std::chrono::milliseconds request_timeout;
    int attempts_max;              ///< of a payload; 0: for as long as there is room
    std::function<double()> draw;  ///< random numbers in [0, 1)
    std::function<void(std::string_view)> diagnostic;  ///< hears what went wrong
    std::unique_ptr<Spool> spool = nullptr;            ///< null: payloads wait in memory only
    /// Hears, on the sender's thread, that the payloads of a signal up to a number are settled. May be
    /// null.
    std::function<void(Signal, std::uint64_t)> on_settled = nullptr;
  };
  explicit Sender(Parts parts);
  ~Sender();

  const Exporter* exporter(Signal signal) const noexcept {
    return parts_.exporters[static_cast<std::size_t>(signal)].get();
  }

  /// Takes new payloads, starts what is due, waits at most `wait` for answers, and settles what
  /// came.
  void run_once(std::chrono::milliseconds wait);
  /// Makes a run_once() that waits return. Any thread.
  void wake() noexcept { parts_.http->wake(); }

  /// Whether every payload of a signal up to this number is settled. Any thread.
  bool settled(Signal signal, std::uint64_t sequence) const noexcept {
    return lanes_[static_cast<std::size_t>(signal)].settled.load(std::memory_order_acquire) >=
           sequence;
  }
  /// The same of all signals.
  bool settled(const Sequences& sequences) const noexcept {
    return settled(Signal::metrics, sequences[0]) && settled(Signal::logs, sequences[1]) &&
           settled(Signal::spans, sequences[2]);
  }
  const Heartbeat& heartbeat() const noexcept { return heartbeat_; }
  /// abandon() is about to be called: rounds store no more payloads before it. Any thread.
  void hurry() noexcept {
    is_ending_.store(true, std::memory_order_relaxed);
    wake();
  }
  /// Stores everything that is not settled, or drops it: as unauthorised what was refused for its
  /// credentials last, the rest as too late. From `until` on nothing more is stored. Nothing may be
  /// sent afterwards.
  void abandon(SteadyTime until = SteadyTime::max());

 private:
  /// The file of a payload that is on its way. Its parts, when it was split, go one after the other:
  /// so the file can say how far they are.
  struct Stored {
    Spool::Entry entry;
    int parts = 1;
    bool busy = false;
  };
  struct Job {
    std::unique_ptr<Payload> payload;
    std::shared_ptr<Stored> stored;  // null: in memory only
    // Of its file, those that it stands for: all that its payload had when it was stored or split.
    std::size_t stored_items = 0;
    std::uint64_t stored_records = 0;
    std::size_t stored_from = 0;  // of its file, how many of the items that were left come before
    std::uint64_t unaccounted =
        0;  // records of the payload that are neither delivered nor dropped yet
    int attempts = 0;
    int refusals = 0;         // for credentials, in a row
    int failing_answers = 0;  // since it last let another one go first
    int fails_while_ok = 0;   // failures between which others of the destination were taken
    int splits_left = 0;
    bool signed_again = false;
    DropCause cause = DropCause::shutdown_deadline;  // when the engine ends now
    std::uint64_t successes_seen = 0;                // of its lane, at its last failure
    SteadyTime since{};                              // when the sender got it
    SteadyTime not_before{};
  };
  struct Lane {
    std::deque<Job> waiting;    // the stored ones first, the others in the order of sealing
    std::vector<Job> unplaced;  // for which that had no memory; has room for unplaced_max
    int in_flight = 0;
    transport::RetryQuota quota;
    int paid = 0;      // to the quota, for the last retry
    int failures = 0;  // since the last success
    SteadyTime not_before{};
    /// Grows with each failure that changed the pace: what was under way then does not change it
    /// again.
    std::uint64_t pace = 0;
    std::uint64_t successes = 0;
    /// How many parts of each payload that is not settled are left, by number.
    std::deque<int> unsettled;
    std::uint64_t first_unsettled = 1;
    std::atomic<std::uint64_t> settled{0};
  };
  struct Flight {
    std::size_t lane = 0;
    std::uint64_t pace = 0;  // of the lane when it began
    Job job;
  };

  void receive();
  /// Returns when the next job is due at the latest.
  SteadyTime start_due(SteadyTime now, std::chrono::milliseconds wait);
  /// Of what waits, the one to go next.
  std::deque<Job>::iterator next_in(std::size_t lane, SteadyTime now);
  void attempt(std::size_t lane, Job job, SteadyTime now, std::chrono::milliseconds wait);
  void settle(std::size_t lane, Job job, const Outcome& outcome, std::uint64_t pace,
              SteadyTime now);
  void retry(std::size_t lane, Job job, const Outcome& outcome, SteadyTime now);
  void slow_down(Lane& lane, const Outcome& outcome, SteadyTime now);
  /// Puts a job back where it belongs in the order, or aside while there is no memory for that.
  void put_back(std::size_t lane, Job job) noexcept;
  void place_unplaced(std::size_t lane) noexcept;
  std::optional<Job> take_oldest(std::size_t lane) noexcept;
  void split(std::size_t lane, Job job, const Outcome& outcome);
  void account(Job& job, std::uint64_t delivered, std::uint64_t dropped, DropCause cause);
  void finish(Job job);
  void finish_in_memory(Signal signal, std::uint64_t sequence);
  void finish_stored(Job& job);
  bool uses_spool(std::size_t lane) const noexcept;
  bool is_down(std::size_t lane) const noexcept;
  bool is_ending() const noexcept { return is_ending_.load(std::memory_order_relaxed); }
  bool can_store(std::size_t lane, const Job& job) const noexcept;
  bool store(std::size_t lane, Job& job) noexcept;
  bool store_and_keep(std::size_t lane, Job& job) noexcept;
  /// True: there is more.
  bool store_waiting();
  void load_next(std::size_t lane);
  /// One more from the spool, behind those that are loaded. False: there is none.
  bool load(std::size_t lane);
  void give_up(std::size_t lane, Job job, bool may_store);
  void report(std::string_view message) noexcept;
  void observe(SteadyTime now) noexcept;
  SignalLedger& of(std::size_t lane) noexcept { return parts_.ledger.signals[lane]; }

  Parts parts_;
  std::array<Lane, signal_count> lanes_;
  std::unordered_map<std::uint64_t, Flight> flights_;
  std::uint64_t next_flight_ = 1;
  /// What the transport has said and is not settled, the first last.
  std::vector<transport::HttpCompletion> completions_;
  std::uint64_t settlements_ = 0;  // ever: of payloads, in the order of their signal
  std::atomic<bool> is_ending_{false};
  std::unique_ptr<Payload> received_;  // while there is no memory to queue it
  Heartbeat heartbeat_;
};

}  // namespace spillway::detail
