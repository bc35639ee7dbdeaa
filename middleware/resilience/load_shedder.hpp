// SPDX-License-Identifier: Apache-2.0
//
// Load shedding: when there is more to do than can be done, some requests are refused at once so that
// the others are served in time. It goes by what overload really looks like, not by a rate that
// somebody guessed:
//
//   in flight     against a limit that follows the latency (below)
//   queue delay   how long requests, or tasks of an executor, waited before they ran: as in CoDel
//                 (RFC 8289), no queue is bad that empties within an interval
//   CPU           the share of time in which tasks of the cgroup waited for a CPU (PSI), and the share
//                 of its quota's periods in which it was throttled
//   memory        of the cgroup, against its limit
//
//   LoadShedder shedder(options);
//   const ShedReason reason = shedder.try_begin(Priority::normal, now);
//   if (reason != ShedReason::none) ... refused ...
//   ... the request ...
//   shedder.end(took, now);
//
// Who is refused: of `sheddable` requests all, as soon as a signal says elevated; of `normal` ones a
// share that grows with the signal; `critical` ones only by their part of the limit in flight.
//
// The limit is Gradient2 of Netflix's concurrency-limits: when requests take longer than they did over
// the last some hundred windows, it shrinks by the ratio; while it is used and they do not, it grows
// by its square root. It never falls below in_flight_min.
//
// Threads: any; neither lock nor allocation in try_begin() and end(), but for the one thread that ends
// a window. One thread of its own reads the kernel's files.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include <spillway/buffers/cache_line.hpp>
#include <spillway/engine/clock.hpp>
#include <spillway/middleware/exchange.hpp>
#include <spillway/middleware/resilience/cgroup.hpp>

namespace spillway::middleware {

/// When a signal between 0 and 1 sheds what.
struct ShedThresholds {
  double sheddable;    ///< from here on no sheddable request is taken
  double normal_from;  ///< from here on a growing share of the normal ones is refused
  double normal_all;   ///< from here on all of them are
};

struct LoadShedderOptions {
  std::uint32_t in_flight_min = 20;     ///< the limit never falls below
  std::uint32_t in_flight_first = 100;  ///< what it begins with
  std::uint32_t in_flight_max = 2000;
  double latency_tolerance = 1.5;  ///< so many times the long-term latency is well
  /// Parts of the limit that sheddable and critical requests may fill.
  double sheddable_part = 0.75;
  double critical_part = 1.25;

  std::chrono::milliseconds queue_target{5};      ///< CoDel's TARGET
  std::chrono::milliseconds queue_interval{100};  ///< CoDel's INTERVAL

  ShedThresholds cpu_pressure{0.6, 0.8, 1.0};
  ShedThresholds cpu_throttled{0.2, 0.5, 1.0};
  ShedThresholds memory{0.88, 0.93, 0.98};
  std::chrono::milliseconds sample_interval{1'000};  ///< of the kernel's files

  std::string root{};              ///< see Cgroup
  std::shared_ptr<Clock> clock{};  ///< of the samples; null: the system's
  bool threads = true;             ///< false: files are read by sample() only, for tests

  /// Throws std::invalid_argument that lists everything that cannot work.
  void check() const;
};

enum class ShedReason : std::uint8_t {
  none,
  in_flight,
  queue_delay,
  cpu_pressure,
  cpu_throttled,
  memory
};
inline constexpr std::size_t shed_reason_count = 6;
std::string_view to_string(ShedReason reason) noexcept;

class LoadShedder {
 public:
  /// Throws std::invalid_argument for options that cannot work.
  explicit LoadShedder(const LoadShedderOptions& options);
  LoadShedder(const LoadShedder&) = delete;
  LoadShedder& operator=(const LoadShedder&) = delete;
  ~LoadShedder();

  /// None: the request may run, and end() follows.
  ShedReason try_begin(Priority priority, SteadyTime now) noexcept;
  /// A request that was let in ended. `took`: how long it was served, for the limit; nothing when that
  /// says nothing (it was cancelled, or served without work).
  void end(std::optional<std::chrono::nanoseconds> took, SteadyTime now) noexcept;

  /// How long something waited before it ran: a request between its arrival and try_begin(), or a
  /// task that is posted to the server's executor just to see.
  void observe_queue_delay(std::chrono::nanoseconds delay, SteadyTime now) noexcept;

  /// Reads the kernel's files now.
  void sample();

  std::uint32_t in_flight() const noexcept { return in_flight_.load(std::memory_order_relaxed); }
  std::uint32_t limit() const noexcept { return limit_.load(std::memory_order_relaxed); }

 private:
  static std::int64_t ns_of(SteadyTime time) noexcept {
    return std::chrono::nanoseconds(time.time_since_epoch()).count();
  }
  ShedReason shed_by_kernel(Priority priority) const noexcept;
  ShedReason shed_by_queue(Priority priority, SteadyTime now) noexcept;
  void end_window(SteadyTime now) noexcept;

  const LoadShedderOptions options_;
  const std::shared_ptr<Clock> clock_;
  const Cgroup cgroup_;

  // What the files said: the share of normal requests to refuse, in 1/65535, and for which reason
  // normal and sheddable ones are. Written by sample().
  struct alignas(4) Level {  // loaded and stored as one word
    std::uint16_t normal_share = 0;
    ShedReason normal = ShedReason::none;
    ShedReason sheddable = ShedReason::none;
  };
  std::atomic<Level> level_{};
  std::atomic<std::uint32_t> limit_;

  alignas(cache_line_bytes) std::atomic<std::uint32_t> in_flight_{0};
  // The window of latencies that is being filled.
  std::atomic<std::int64_t> took_sum_ns_{0};
  std::atomic<std::uint32_t> took_count_{0};
  std::atomic<std::uint32_t> in_flight_most_{0};
  std::atomic<std::int64_t> window_end_ns_{0};

  std::mutex window_mutex_;  // of what follows; tried, never waited for
  double long_ns_ = 0;       // the long-term latency
  double exact_limit_;

  // CoDel, for a server with many threads: the interval's least delay, and when to drop next.
  alignas(cache_line_bytes) std::atomic<std::int64_t> interval_end_ns_{0};
  std::atomic<std::int64_t> least_delay_ns_;
  std::atomic<bool> standing_queue_{false};
  std::atomic<std::int64_t> drop_next_ns_{0};
  std::atomic<std::uint32_t> drops_{0};

  struct Sampler;
  std::unique_ptr<Sampler> sampler_;
  std::mutex sample_mutex_;  // of the last sample, which follows
  std::optional<Cgroup::Cpu> last_cpu_;
  std::optional<std::chrono::microseconds> last_pressure_;
  SteadyTime last_sample_{};
};

}  // namespace spillway::middleware
