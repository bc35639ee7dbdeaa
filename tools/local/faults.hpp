// SPDX-License-Identifier: Apache-2.0
//
// Trouble on demand: which requests are to go wrong, and how.
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace spillway::local {

enum class FaultKind : std::uint8_t {
  throttle,        ///< the service's throttling error
  error_500,       ///< the service's internal error
  error_503,       ///< unavailable
  partial_reject,  ///< 200, but some events or documents are named as refused and not stored
  delay,           ///< the request is carried out, the answer waits
  lost_response,   ///< the request is carried out, the connection is closed without an answer
  refuse,          ///< the connection is closed and nothing is carried out
  expired_token,   ///< the credentials count as expired
  skew,            ///< the server's clock is off: its Date, and its check of signatures
};
std::string_view to_string(FaultKind kind) noexcept;

enum class RejectReason : std::uint8_t { too_old, expired, too_new };

struct Fault {
  FaultKind kind = FaultKind::throttle;
  std::string service = "*";    ///< monitoring, logs or xray
  std::string operation = "*";  ///< PutLogEvents, ...
  std::int64_t count = -1;      ///< how many requests; -1: every one until it is cleared
  double probability = 1;       ///< of each request that fits, drawn from `seed`
  std::uint64_t seed = 1;
  std::chrono::milliseconds delay{0};  ///< delay: how long
  std::chrono::seconds skew{0};        ///< skew: how far the server's clock is ahead
  /// throttle, error_500, error_503: the value of x-amz-retry-after. Any text, to see what a client
  /// makes of a bad one.
  std::string retry_after_ms{};
  std::string retry_after{};                    ///< the same of Retry-After
  RejectReason reason = RejectReason::too_old;  ///< partial_reject of log events
  /// partial_reject: how many events are refused, from the old or the new end, or how many
  /// documents, from the first. May be more than there are.
  std::uint64_t rejected = 1;
  std::string code = "InvalidSegment";  ///< partial_reject of documents: the ErrorCode
};

/// What is wrong with a fault's description, all of it.
struct FaultError {
  std::string message;
};
using FaultResult = std::variant<Fault, FaultError>;

/// "throttle:service=logs,count=3,retry_after_ms=200": the kind, then fields of Fault by name;
/// delay is spelled delay_ms or ms, skew skew_s or seconds.
FaultResult parse_fault(std::string_view spec);

/// A fault's description as fields, the way both the command line and JSON give it.
using FaultFields = std::vector<std::pair<std::string, std::string>>;
FaultResult make_fault(const FaultFields& fields);

struct FaultReport {
  std::uint64_t id;
  Fault fault;
  std::uint64_t fired;
};

/// What happens to one request: at most one verdict, and what comes with it.
struct FaultPlan {
  std::optional<Fault> verdict{};
  std::chrono::milliseconds delay{0};
  std::chrono::seconds skew{0};
};

/// The faults in force. Any thread.
class FaultBox {
 public:
  explicit FaultBox(const std::vector<Fault>& faults = {});

  /// Returns the fault's id, or 0 when there are too many.
  std::uint64_t add(Fault fault);
  void clear();
  std::vector<FaultReport> reports() const;

  /// Decides for one request and counts what fired. Delays and skews add up; of the rest the first
  /// that fits wins, and only it counts as fired.
  FaultPlan plan(std::string_view service, std::string_view operation);

 private:
  struct Active {
    std::uint64_t id;
    Fault fault;
    std::uint64_t fired = 0;
    std::mt19937_64 random;
  };
  static bool strikes(Active& active);

  mutable std::mutex mutex_;
  std::vector<Active> active_;
  std::uint64_t last_id_ = 0;
};

}  // namespace spillway::local
