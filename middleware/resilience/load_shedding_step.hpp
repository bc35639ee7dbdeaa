// SPDX-License-Identifier: Apache-2.0
//
// Load shedding (load_shedder.hpp) as a step of a chain: what is refused is answered 503 with
// Retry-After before any work was done for it. Behind the steps that know who asks, before those that
// do much.
//
//   LoadSheddingStep shedding(engine, routes, {.priority_of = [](const Route& route) {
//     return route.path_template == "/checkout" ? Priority::critical : Priority::normal;
//   }});
//
// A request's priority is its route's. A client may ask for less in the header X-Request-Priority
// (critical, normal, sheddable), and for more only when `may_raise` says that it is one of ours.
//
// Metrics: LoadSheddingDecisions by Outcome (admitted, in_flight, queue_delay, cpu_pressure,
// cpu_throttled, memory); the gauge InFlightLimit. A log when it begins to refuse, and when it has not
// for a while, with the request's trace; a refused request's `decision` is "load shedding: " and the
// reason.
//
// Thread-safe; a request allocates nothing.
#pragma once

#include <array>
#include <chrono>
#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include <spillway/engine/engine.hpp>
#include <spillway/middleware/allowed.hpp>
#include <spillway/middleware/exchange.hpp>
#include <spillway/middleware/resilience/load_shedder.hpp>
#include <spillway/middleware/resilience/refusal_spell.hpp>

namespace spillway::middleware {

inline constexpr std::string_view priority_header_name = "X-Request-Priority";
std::string_view to_string(Priority priority) noexcept;
std::optional<Priority> parse_priority(std::string_view text) noexcept;

struct LoadSheddingOptions {
  LoadShedderOptions shedder{};
  /// Of a route; asked once for each by the constructor. Null: every one is normal.
  std::function<Priority(const Route&)> priority_of{};
  Allowed may_raise{};  ///< null: nobody may
  /// When a request arrived, where the server knows: how long it waited is the queue delay. Null: the
  /// program tells delays itself, by shedder().observe_queue_delay(), or none.
  std::function<SteadyTime(const Exchange&)> arrived{};
  std::chrono::seconds retry_after{1};
};

class LoadSheddingStep {
 public:
  class State {
   private:
    friend class LoadSheddingStep;
    bool begun_ = false;
  };

  /// `engine` outlives the step. Throws std::invalid_argument for options that cannot work.
  LoadSheddingStep(Engine& engine, const Routes& routes, const LoadSheddingOptions& options = {});
  LoadSheddingStep(const LoadSheddingStep&) = delete;
  LoadSheddingStep& operator=(const LoadSheddingStep&) = delete;

  Verdict before(State& state, Exchange& exchange);
  void after(State& state, const Exchange& exchange, const ResponseFacts& facts) noexcept;

  LoadShedder& shedder() noexcept { return shedder_; }

  /// Without a refusal for so long, it is said to be over.
  static constexpr std::chrono::seconds calm_after{10};

 private:
  Priority priority_of(const Exchange& exchange) const;
  [[gnu::cold]] void note_refusal(const Exchange& exchange, ShedReason reason) noexcept;
  [[gnu::cold]] void note_admission(const Exchange& exchange) noexcept;

  Engine& engine_;
  const std::vector<Priority> priorities_;  // by Route::number
  const Allowed may_raise_;
  const std::function<SteadyTime(const Exchange&)> arrived_;
  const std::chrono::seconds retry_after_;
  LoadShedder shedder_;
  std::array<Counter, shed_reason_count> decisions_;
  Gauge limit_;
  RefusalSpell spell_{calm_after};
};

}  // namespace spillway::middleware
