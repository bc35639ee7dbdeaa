// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <spillway/engine/clock.hpp>
#include <spillway/middleware/rate_limit/key.hpp>
#include <spillway/middleware/rate_limit/limit.hpp>

namespace spillway::middleware {

/// Where counts are kept: in this process (LocalRateStore) or in a table that processes share
/// (DynamoDbRateStore). Every function: any thread.
class RateStore {
 public:
  virtual ~RateStore() = default;

  /// Takes `permits` (1 or more) of `key`'s limit, or says when they can be taken. `now` is what the
  /// caller read of the steady clock for this request. One key has one rule at a time: let the
  /// limit's name be part of the key.
  virtual RateDecision take(const RateKey& key, const detail::RateRule& rule, std::int64_t permits,
                            SteadyTime now) noexcept = 0;
  /// Undoes a decision by its receipt: the request shall not count.
  virtual void give_back(const RateKey& key, const detail::RateRule& rule, std::int64_t permits,
                         std::int64_t receipt, SteadyTime now) noexcept = 0;
};

}  // namespace spillway::middleware
