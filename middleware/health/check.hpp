// SPDX-License-Identifier: Apache-2.0
//
// What a health check is: a function that looks at one thing the service depends on and says how it
// is. HealthMonitor (monitor.hpp) runs checks, each on a thread that may wait; checkers.hpp has some
// that are ready made.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace spillway::middleware {

/// The words of application/health+json (draft-inadarei-api-health-check-06, 3.1).
enum class CheckStatus : std::uint8_t {
  pass,
  warn,  ///< works, with concerns
  fail
};
std::string_view to_string(CheckStatus status) noexcept;

struct CheckResult {
  CheckStatus status = CheckStatus::pass;
  std::string output{};  ///< why, for people; cut at check_output_bytes_max
  /// What was measured, with its CloudWatch-style name and unit: "utilization", "percent". Nothing:
  /// the monitor's own measure, the time that the check took.
  std::optional<double> observed{};
  std::string measure = "responseTime";
  std::string unit = "ms";

  static CheckResult warn(std::string why) { return {CheckStatus::warn, std::move(why)}; }
  static CheckResult fail(std::string why) { return {CheckStatus::fail, std::move(why)}; }
};
inline constexpr std::size_t check_output_bytes_max = 512;

/// One run of a check.
class CheckRun {
 public:
  CheckRun(std::chrono::milliseconds timeout, const std::atomic<bool>& stopping) noexcept
      : timeout_(timeout), stopping_(&stopping) {}
  /// A check ends within this time, whatever it waits for. One that does not counts as failed, and
  /// is not begun again before it ends; the monitor's destructor waits for it.
  std::chrono::milliseconds timeout() const noexcept { return timeout_; }
  /// The monitor is going: what waits for long may give up.
  bool stopping() const noexcept { return stopping_->load(std::memory_order_relaxed); }

 private:
  std::chrono::milliseconds timeout_;
  const std::atomic<bool>* stopping_;
};

/// Called by one thread at a time. An exception is a failure, with its text as the output.
using Check = std::function<CheckResult(const CheckRun&)>;

}  // namespace spillway::middleware
