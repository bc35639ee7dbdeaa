// SPDX-License-Identifier: Apache-2.0
//
// Limits that processes share, counted in a DynamoDB table.
//
//   DynamoDbRateStore store({.table = "rate-limits"});
//   if (auto error = store.create_table()) throw std::runtime_error(*error);   // when asked to
//   RateLimiter limiter(engine, store, {...});
//
// Permits are leased: a process takes many with one conditional UpdateItem and decides by itself
// until they are used up, in tens of nanoseconds; more are fetched in the background before that. A
// caller waits for the network only where nothing is known: at a key's first requests, when they
// come more rarely than a lease is long, and when the demand grows faster than the leases do. That a
// limit is reached is remembered until it can have changed. lease.hpp says what processes together
// admit: never more than the limit in a fixed window; for the others what the limit allows in a time
// longer by the lease time and that of a write. Clocks of processes that differ by d make a bucket's or sliding window's
// time longer by d.
//
// Without leases (lease_permits_max = 0) each decision waits for a write, which requests of one key
// that wait at the same time share; token buckets and fixed windows are then exact.
//
// What a killed process held, and what was taken by a write whose answer was lost, counts as used.
// close() and the destructor give back what is held.
//
// The item is in dynamodb_table.hpp. Cost: a write unit for every write, an item below 1 KB for
// every key (for every key and window with fixed windows) until its TTL. Permissions:
// dynamodb:UpdateItem; for create_table() DescribeTable, CreateTable and UpdateTimeToLive too.
// Credentials, region and endpoint are found as everywhere else.
//
// Make it in the process that uses it: its threads do not survive a fork.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include <spillway/middleware/rate_limit/store.hpp>

namespace spillway::detail {
class LeaseKeeper;
}  // namespace spillway::detail
namespace spillway::middleware {

struct DynamoDbRateStoreOptions {
  std::string table;     ///< 3 to 255 letters, digits, "-_."
  std::string region{};  ///< empty: AWS_REGION, then the profile's
  std::string
      endpoint{};  ///< URL; empty: AWS_ENDPOINT_URL_DYNAMODB and so on, then the region's own

  /// Permits of a key that a process takes ahead at most; 0: none. Up to rate_permits_max.
  std::int64_t lease_permits_max = 1'000;
  /// Permits not used for so long go back. 100 ms to 1 min.
  std::chrono::milliseconds lease_time{2'000};
  /// That a limit is reached is believed for so long at most, then the table is asked again, which
  /// finds what others gave back: exclude_successful wants that.
  std::chrono::milliseconds denial_time_max = std::chrono::hours(31 * 24);

  /// When the table does not answer: true lets requests pass uncounted, false refuses them (503).
  bool admit_when_unavailable = false;
  /// A caller waits so long at most for the table, 0: never. Then it is not available. Up to 10 s.
  std::chrono::milliseconds wait{100};
  /// Of one write. 10 ms to 30 s.
  std::chrono::milliseconds request_timeout{1'000};
  int connections = 4;  ///< writes at the same time, each on a thread of its own; 1 to 64
  /// Keys at the same time, each 250 to 500 bytes from the start; one that finds no place is as one
  /// whose table does not answer. 1 to 16 M.
  std::size_t keys_max = 16'384;
  /// Makes digests of secret key parts useless to who reads the table: the same for all processes.
  std::string secret_key{};
  std::chrono::milliseconds close_timeout{2'000};  ///< of the destructor
};

struct DynamoDbRateStats {
  std::uint64_t writes = 0;            ///< requests to take permits
  std::uint64_t permits_taken = 0;     ///< by those
  std::uint64_t permits_returned = 0;  ///< not used in time, or not to be counted
  std::uint64_t permits_lost = 0;      ///< may have been taken: the answer was lost
  std::uint64_t denials = 0;           ///< by the table; remembered ones are not here
  std::uint64_t failures = 0;          ///< of writes, lost answers and throttling too
  std::uint64_t waited = 0;            ///< decisions that waited for the table
  std::uint64_t unavailable = 0;       ///< decisions without it
  std::string last_error{};            ///< for people
};

/// Thrown by the constructor; what() lists every error on a line of its own.
class InvalidDynamoDbRateStore : public std::invalid_argument {
 public:
  explicit InvalidDynamoDbRateStore(std::vector<std::string> errors);
  const std::vector<std::string>& errors() const noexcept { return errors_; }

 private:
  std::vector<std::string> errors_;
};

/// Any thread.
class DynamoDbRateStore final : public RateStore {
 public:
  /// Throws InvalidDynamoDbRateStore. Begins its threads; touches no network before the first
  /// decision.
  explicit DynamoDbRateStore(const DynamoDbRateStoreOptions& options);
  ~DynamoDbRateStore() override;
  DynamoDbRateStore(const DynamoDbRateStore&) = delete;
  DynamoDbRateStore& operator=(const DynamoDbRateStore&) = delete;

  /// Makes the table when there is none (on-demand capacity, TTL) and waits until it is ACTIVE. What
  /// is wrong, or nothing. Waits for the network.
  std::optional<std::string> create_table(
      std::chrono::milliseconds timeout = std::chrono::seconds(60));

  RateDecision take(const RateKey& key, const detail::RateRule& rule, std::int64_t permits,
                    SteadyTime now) noexcept override;
  void give_back(const RateKey& key, const detail::RateRule& rule, std::int64_t permits,
                 std::int64_t receipt, SteadyTime now) noexcept override;

  /// Gives back what is held. Decisions after it are as if the table did not answer. False: not all
  /// of it within `timeout`.
  bool close(std::chrono::milliseconds timeout) noexcept;

  DynamoDbRateStats stats() const;

 private:
  const DynamoDbRateStoreOptions options_;
  std::unique_ptr<detail::LeaseKeeper> keeper_;
};

}  // namespace spillway::middleware
