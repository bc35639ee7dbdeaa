// SPDX-License-Identifier: Apache-2.0
//
// Time-outs as a step of a chain: it gives each request a deadline, the server's or the caller's,
// whichever is first, and sees to what is late. In front of BreakerStep.
//
//   DeadlineStep deadline({.timeout = 5s, .routes = {{"GET /reports/{id}", 60s}}});
//
// The handler asks exchange.should_stop() and exchange.remaining(now), and tells whom it calls what is
// left by downstream_timeout(). A request that has too little time left to begin is answered 503: nothing
// of it was done, it can be tried again. One whose answer comes after the deadline is answered 504
// in its place. A handler cannot be interrupted; an adapter that waits for one sets a timer to the
// deadline and calls exchange.cancel().
//
// Metrics: DeadlineDecisions by Outcome (not_begun, late, malformed). A request's `decision` is
// "deadline: " and the outcome.
//
// Thread-safe; a request allocates nothing.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <spillway/engine/engine.hpp>
#include <spillway/middleware/exchange.hpp>
#include <spillway/middleware/resilience/deadline.hpp>

namespace spillway::middleware {

struct DeadlineOptions {
  std::chrono::milliseconds timeout{30'000};  ///< of a request; 0: none
  /// Other time-outs of some routes, by Route::name.
  std::vector<std::pair<std::string, std::chrono::milliseconds>> routes{};
  /// Where the caller says how long it waits (deadline.hpp has the grammar); "grpc-timeout" for one.
  std::string header{timeout_header_name};
  bool accept = true;                       ///< take the caller's; it can only shorten the server's
  std::chrono::milliseconds useful_min{0};  ///< with less left, a request is not begun
  bool replace_late = true;                 ///< answer 504 in place of what comes too late
  /// In Lambda: the invocation's end, from Lambda-Runtime-Deadline-Ms as the Runtime API gave it,
  /// `lambda_margin` earlier. Not elsewhere: any caller could set it.
  bool lambda = false;
  std::chrono::milliseconds lambda_margin{200};
  std::shared_ptr<const Clock> clock{};  ///< null: the machine's
};

class DeadlineStep {
 public:
  class State {
   private:
    friend class DeadlineStep;
    bool late_ = false;
  };

  /// `engine` outlives the step. Throws std::invalid_argument that lists everything that cannot work.
  DeadlineStep(Engine& engine, const Routes& routes, const DeadlineOptions& options = {});
  DeadlineStep(const DeadlineStep&) = delete;
  DeadlineStep& operator=(const DeadlineStep&) = delete;

  Verdict before(State& state, Exchange& exchange) noexcept;
  void respond(State& state, Exchange& exchange, const ResponseFacts& facts) noexcept;
  void after(State& state, const Exchange& exchange, const ResponseFacts& facts) noexcept;

 private:
  const DeadlineOptions options_;
  const std::shared_ptr<const Clock> clock_;
  std::vector<std::chrono::milliseconds> by_route_;  // by Route::number
  Counter not_begun_;
  Counter late_;
  Counter malformed_;
};

/// What a handler passes on to whom it calls (X-Request-Timeout, grpc-timeout): the time that is left,
/// less `margin` for the way back. Nothing when the request has no deadline.
std::optional<TimeoutText> downstream_timeout(const Exchange& exchange, SteadyTime now,
                                              std::chrono::nanoseconds margin = {}) noexcept;

}  // namespace spillway::middleware
