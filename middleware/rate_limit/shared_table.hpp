// SPDX-License-Identifier: Apache-2.0
//
// Counts that processes share, as the leases (lease_keeper.hpp) see them: one write takes many
// permits at once, or says why not. Times are wall-clock nanoseconds since 1970, as the table's
// users agree on them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <spillway/middleware/rate_limit/limit.hpp>

namespace spillway::detail {

/// What to take.
struct SharedWish {
  std::string_view key;  ///< RateKey::text()
  const RateRule& rule;
  std::int64_t least = 1;  ///< permits, or nothing
  std::int64_t want = 1;   ///< permits, `least` at least
  /// No more than this part of what is left, rounded up, unless `least` is more: so that the last
  /// permits do not all go to who asks first.
  std::int64_t share = 1;
  std::int64_t now_ns = 0;  ///< a fixed window's begin in the future takes from that window
};

struct SharedTake {
  enum class Outcome : std::uint8_t {
    taken,
    denied,
    throttled,    ///< the table asks to slow down; nothing was taken
    unavailable,  ///< nothing was taken
    lost          ///< no answer: the permits may have been taken
  };
  Outcome outcome = Outcome::unavailable;
  std::int64_t permits = 0;  ///< taken, or lost
  std::int64_t left = 0;     ///< could still be taken, by this write's word
  /// The key's state behind it: a good guess for the next write.
  RateState state{};
  std::int64_t least = 1;           ///< what was denied
  std::int64_t retry_after_ns = 0;  ///< when denied: until it fits
  int writes = 0;                   ///< requests that it took
  std::string error{};              ///< when not taken and not denied; for people
};

/// One thread at a time; stop() from any.
class SharedTable {
 public:
  virtual ~SharedTable() = default;
  /// `guess`: what an earlier take of this key left, or {}. A wrong one costs one more request.
  virtual SharedTake take(const SharedWish& wish, const RateState& guess) = 0;
  /// Undoes a part of what was taken with `receipt` (the state's fresh_at), unless time has done so.
  /// False: it is not known whether it was undone, or it was not for lack of an answer.
  virtual bool give_back(std::string_view key, const RateRule& rule, std::int64_t permits,
                         std::int64_t receipt, std::int64_t now_ns) = 0;
  /// The wall clock, corrected by what the table's answers say of it.
  virtual std::int64_t now_ns() = 0;
  /// Ends calls under way, and all to come, at once.
  virtual void stop() noexcept = 0;
};

}  // namespace spillway::detail
