// SPDX-License-Identifier: Apache-2.0
//
// Whether a service can work, from checks of what it depends on. The checks run in the background,
// side by side, each with a time-out; what orchestrators and load balancers ask is answered from
// memory, rendered in advance, as application/health+json.
//
//   HealthMonitor health({.service_id = "orders",
//                         .dependencies = {{"orders-table", check_dynamodb_table({.table = "orders"})},
//                                          {"prices", check_http("http://prices/health"), false}},
//                         .engine = &engine});
//   health.answer(HealthEndpoint::ready, now)->status            // 200 or 503
//
//   endpoint         asks                        200 while
//   /live            restart the process?        no check with `liveness` fails
//   /ready           send it requests?           every required check passes (or warns), it is past
//                                                its start and not draining
//   /health          is something broken?        the same, but also while it starts and drains
//   /health/detail   what is?                    as /health; with every check's last result
//
// A check that fails makes its dependency `warn` until it failed `failures_max` times in a row, then
// `fail`. A required one that fails takes the service down, an optional one degrades it. After
// breaker_failures in a row the dependency's circuit breaker opens: it is asked less and less often,
// and closes with the first check that passes.
//
// A result is served until the next one is there (stale-while-revalidate); of one check no two runs
// are under way (single-flight). What hangs fails by its time-out. Should the monitor itself stand
// still, answers say so from health_stalled_after on.
//
// Threads: any, for all functions. The monitor owns one thread that keeps the time, and as many that
// run checks as are needed at once, one a dependency at most. A forked child makes a monitor of its
// own: the parent's stands still there.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <spillway/engine/clock.hpp>
#include <spillway/middleware/health/check.hpp>

namespace spillway {
class Engine;
}

namespace spillway::middleware {

/// Something that the service depends on.
struct Dependency {
  std::string name;  ///< "orders-table": in answers, logs and as a dimension
  Check check;
  bool required = true;            ///< false: without it the service is degraded, not down
  bool liveness = false;           ///< its failure is one of the process itself: /live fails too
  std::string type = "component";  ///< of health+json: "datastore", "system", "component"
  std::chrono::milliseconds interval{10'000};
  std::chrono::milliseconds timeout{2'000};
  int failures_max = 2;                            ///< failures in a row that make it `fail`
  int breaker_failures = 4;                        ///< failures in a row that open its breaker
  std::chrono::milliseconds interval_max{60'000};  ///< between checks while the breaker is open
};
inline constexpr std::size_t health_dependencies_max = 64;

struct HealthOptions {
  std::string service_id{};
  std::string release{};  ///< of the program: "2.4.1"
  std::vector<Dependency> dependencies{};
  /// While nothing required has passed yet, so long a service that starts is not called broken.
  std::chrono::milliseconds startup_grace{30'000};
  /// Where transitions and measurements go; outlives the monitor. Null: nowhere.
  Engine* engine = nullptr;
  std::shared_ptr<Clock> clock{};  ///< null: the system's
  bool threads = true;  ///< false: checks run in step(), on the caller's thread, for tests
};

enum class HealthEndpoint : std::uint8_t { live, ready, health, detail };
inline constexpr std::size_t health_endpoint_count = 4;

/// An answer as it goes out.
struct HealthAnswer {
  int status = 503;
  std::string body;
};
inline constexpr std::string_view health_content_type = "application/health+json";

enum class ServiceState : std::uint8_t { starting, up, degraded, down };
std::string_view to_string(ServiceState state) noexcept;

/// The monitor's own thread goes round so often at least.
inline constexpr std::chrono::seconds health_beat{5};
/// One that did not for so long stands still.
inline constexpr std::chrono::seconds health_stalled_after{30};

class HealthMonitor {
 public:
  /// Begins the checks. Throws std::invalid_argument that lists every option that cannot work.
  explicit HealthMonitor(HealthOptions options);
  HealthMonitor(const HealthMonitor&) = delete;
  HealthMonitor& operator=(const HealthMonitor&) = delete;
  /// Waits for the checks under way.
  ~HealthMonitor();

  /// From memory: no check, no wait, no allocation. `now`: of a clock reading that is there anyway.
  std::shared_ptr<const HealthAnswer> answer(HealthEndpoint endpoint,
                                             SteadyTime now) const noexcept;
  ServiceState state() const noexcept;

  /// From now on /ready says 503, so that load balancers send requests elsewhere; there is no way
  /// back. May be called in a signal handler: the program keeps its own for SIGTERM and calls this.
  void begin_draining() noexcept;
  bool is_draining() const noexcept;

  /// Has every check that is not under way begin now.
  void refresh() noexcept;

  /// Without threads: one round. Runs what is due.
  void step();

 private:
  class Core;
  std::unique_ptr<Core> core_;
};

}  // namespace spillway::middleware
