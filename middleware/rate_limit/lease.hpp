// SPDX-License-Identifier: Apache-2.0
//
// What one process holds of one key of a shared limit: permits that were taken from the table ahead
// of the requests (a lease), or the knowledge that there are none. A value without lock, clock or
// network: its owner (lease_keeper.hpp) has those. Times are steady nanoseconds, but `receipt`s and
// the table's state, which are the table's.
//
// Permits lie in lots, one a write. A lot ends, and what is left of it goes back to the table:
//   token bucket, sliding window   after the lease time, which begins with the answer. So in any time T
//                                  the processes together admit at most what the limit allows in T,
//                                  the lease time and the time of a write.
//   fixed window                   then, or with its window: no window admits more than its limit.
// Near the end of a fixed window the next lot is taken from the window to come.
//
// How many permits a write takes follows the demand: four times as many when the last lot was used
// up within half of the lease time, half as many when more than half of a lot was left, and never
// more than a quarter of what the table has left.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>

#include <spillway/middleware/rate_limit/shared_table.hpp>

namespace spillway::detail {

struct LeaseSettings {
  /// Taken ahead at most; 0: nothing is, a request waits for a write of its own.
  std::int64_t permits_max = 1'000;
  std::int64_t time_ns = 2'000'000'000;
  /// A denial is believed for so long at most.
  std::int64_t denial_ns_max = std::numeric_limits<std::int64_t>::max();
};

/// Made when a key is first seen.
struct LeaseKey {
  std::string text;
  RateRule rule;
};

class Lease {
 public:
  /// Permits of one write.
  struct Lot {
    std::int64_t permits = 0;  ///< not used yet
    std::int64_t taken = 0;    ///< at first
    std::int64_t from = 0;     ///< usable from here
    std::int64_t until = 0;    ///< to before here
    std::int64_t receipt = 0;
    std::int64_t left = 0;     ///< in the table then
    std::int64_t full_at = 0;  ///< all of the limit is there again
  };
  enum class Answer : std::uint8_t { admitted, denied, ask };

  /// Decides on `permits` by what is held. `ask`: the table has to be asked first.
  Answer take(const RateRule& rule, std::int64_t permits, std::int64_t now,
              middleware::RateDecision& decision) noexcept;
  /// Whether the table has denied so many since `denials` was what it is now, and how: a request that
  /// waited for the answer is denied even when its time is over by then.
  bool was_denied_since(std::uint32_t before, const RateRule& rule, std::int64_t permits,
                        std::int64_t now, middleware::RateDecision& decision) const noexcept;
  /// Puts permits of a request back into their lot. False: the lot is gone.
  bool put_back(std::int64_t permits, std::int64_t receipt, std::int64_t now) noexcept;
  /// Whether it is time to ask for more, so that no request has to wait for it.
  bool wants_more(const LeaseSettings& settings, std::int64_t now) noexcept;
  /// When none of this is worth keeping: StateTable's question.
  std::int64_t idle_at() const noexcept;

  /// What to ask the table for. `least` permits have to come, or none.
  struct Ask {
    std::shared_ptr<const LeaseKey> key;
    std::int64_t least = 1;
    std::int64_t want = 1;
    std::int64_t share = 1;
    bool next_window = false;
    RateState guess{};
  };
  Ask begin(const LeaseSettings& settings, std::int64_t now) noexcept;

  /// When the question was asked, by both clocks, and answered.
  struct Asked {
    std::int64_t steady_ns = 0;
    std::int64_t wall_ns = 0;
    std::int64_t answered_ns = 0;  ///< steady
    bool next_window = false;
  };
  /// Takes in what a write brought. `retry_at`: after one that failed, not before. Returns a lot that
  /// found no place: give it back.
  Lot settle(const LeaseSettings& settings, const SharedTake& result, const Asked& asked,
             std::int64_t retry_at) noexcept;
  /// Takes out lots that ended by `now`: give them back.
  std::array<Lot, 2> take_ended(std::int64_t now) noexcept;

  /// While these are set the lease is not idle.
  bool asked = false;                   ///< a question is under way, or in the queue
  std::int64_t waiting = 0;             ///< permits of requests that wait
  std::int64_t least = 1;               ///< of the request that asked
  std::int64_t retry_at = 0;            ///< after a failure
  int failures = 0;                     ///< since the last answer
  std::uint32_t denials = 0;            ///< by the table
  std::shared_ptr<const LeaseKey> key;  ///< null: never asked

  std::int64_t size() const noexcept { return size_; }
  const std::array<Lot, 2>& lots() const noexcept { return lots_; }

 private:
  middleware::RateDecision denial(const RateRule& rule, std::int64_t now) const noexcept;
  bool is_next_window_due(const LeaseSettings& settings, std::int64_t now) noexcept;

  std::array<Lot, 2> lots_{};  // the one that ends first is first
  std::int64_t denied_until_ = 0;
  std::int64_t denied_permits_ = 1;  // so many and more
  std::int64_t denied_full_at_ = 0;
  std::int64_t size_ = 1;  // of the next lot
  std::int64_t taken_at_ = std::numeric_limits<std::int64_t>::min() / 2;
  // Fixed window: the end of the one that was asked last, and the end before which the one behind it
  // was asked for already.
  std::int64_t window_end_ = 0;
  std::int64_t asked_ahead_ = 0;
  RateState state_{};  // the table's, as it was last
};

}  // namespace spillway::detail
