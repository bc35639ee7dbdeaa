// SPDX-License-Identifier: Apache-2.0
//
// Counts in a DynamoDB table. A take is one conditional UpdateItem, so that no two processes get the
// same permit; ConditionalCheckFailedException brings the item along (ALL_OLD), which says whether to
// try another form or that the limit is reached.
//
//   item                                        written by
//   id            S   partition key             algorithm/window/RateKey::text(), with the window's
//                                               number behind it for fixed windows
//   fresh_at      N   RateState::fresh_at, ns   token bucket (its TAT), sliding window
//   taken         N   RateState::current        fixed and sliding window
//   taken_before  N   RateState::previous       sliding window
//   expires_at    N   TTL, seconds              all
//
//   form                condition                                        update
//   fixed window        no item, or taken <= room                        ADD taken
//   bucket, in use      now <= fresh_at <= latest                        fresh_at + cost
//   bucket, full        no item, or fresh_at < now                       fresh_at = now + cost
//   sliding, the same   same windows, and taken <= room                  taken + permits
//   sliding, moved on   no item, or as it was read                       all three
//
// Only the change from one form to the other can lose a race; what loses goes again with what it
// was told, writes_per_take_max times at most.
//
// A fixed window has an item of its own: windows are taken from before they begin, and a process
// whose clock is wrong ends no window of the others.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include <spillway/middleware/rate_limit/shared_table.hpp>
#include <spillway/transport/aws_client.hpp>

namespace spillway::detail {

/// A take can lose against those of others so often; then it counts as throttled.
inline constexpr int writes_per_take_max = 16;
/// A state further ahead of the clock than its limit can bring it, and this, comes from another
/// limit or a clock that was wrong: AWS refuses signatures that are further off. It begins anew.
inline constexpr std::chrono::minutes shared_clock_tolerance{15};
/// An item is deleted so long after it stopped to count, or later.
inline constexpr std::chrono::hours item_grace{1};

class DynamoDbTable final : public SharedTable {
 public:
  struct Parts {
    std::string table;
    std::string region;
    std::string endpoint;  ///< as AwsClient's
    std::shared_ptr<transport::CredentialsChain> credentials;
    std::chrono::milliseconds timeout{1000};  ///< of one request
    std::unique_ptr<transport::HttpTransport> http{};
    std::shared_ptr<transport::ClockSkew> skew{};
    std::function<transport::SignedService::Time()> now{};  ///< null: the system's
    /// Waits between two looks at a table that is being made; null: sleeps.
    std::function<void(std::chrono::milliseconds)> pause{};
  };
  explicit DynamoDbTable(Parts parts);

  SharedTake take(const SharedWish& wish, const RateState& guess) override;
  bool give_back(std::string_view key, const RateRule& rule, std::int64_t permits,
                 std::int64_t receipt, std::int64_t now_ns) override;
  std::int64_t now_ns() override;
  void stop() noexcept override { client_.stop(); }

  /// Makes the table when there is none, with on-demand capacity and TTL, and waits until it can be
  /// used. What is wrong, or nothing.
  std::optional<std::string> create(std::chrono::milliseconds timeout);

 private:
  transport::AwsReply call(std::string_view operation, std::string body,
                           std::chrono::milliseconds timeout);

  std::string table_;
  std::chrono::milliseconds timeout_;
  std::shared_ptr<transport::ClockSkew> skew_;
  std::function<transport::SignedService::Time()> now_;
  std::function<void(std::chrono::milliseconds)> pause_;
  transport::AwsClient client_;
};

}  // namespace spillway::detail
