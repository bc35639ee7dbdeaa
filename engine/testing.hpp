// SPDX-License-Identifier: Apache-2.0
//
// An engine under a test's control: no threads, no network, time that moves when the test says so.
// Everything recorded is where the test left it until step() or flush().
//
//   spillway::testing::TestEngine test({.service = "orders",
//                                       .logs = spillway::LogsTo::put_log_events, ...});
//   SPILLWAY_INFO(test.engine, "order placed");
//   test.advance(2s);
//   test.http.requests() ...
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <utility>

#include <spillway/engine/engine.hpp>
#include <spillway/transport/memory_transport.hpp>

namespace spillway::testing {

/// A clock that stands still. Ticks are nanoseconds of its wall clock. Move it from one thread at a
/// time.
class ManualClock final : public Clock {
 public:
  /// 2026-11-21T01:00:00Z unless said otherwise.
  explicit ManualClock(WallTime wall = WallTime(std::chrono::seconds(1795222800)))
      : Clock(false), wall_ns_(ns_of(wall)) {}

  void advance(std::chrono::nanoseconds by) noexcept {
    wall_ns_.fetch_add(by.count(), std::memory_order_relaxed);
    steady_ns_.fetch_add(by.count(), std::memory_order_relaxed);
  }
  /// A step of the wall clock, as an administrator or NTP makes one.
  void step_wall(std::chrono::nanoseconds by) noexcept {
    wall_ns_.fetch_add(by.count(), std::memory_order_relaxed);
  }

  WallTime wall() const noexcept override {
    return WallTime(std::chrono::duration_cast<WallTime::duration>(
        std::chrono::nanoseconds(wall_ns_.load(std::memory_order_relaxed))));
  }
  SteadyTime steady() const noexcept override {
    return SteadyTime(std::chrono::nanoseconds(steady_ns_.load(std::memory_order_relaxed)));
  }
  std::int64_t wall_ns_of(std::uint64_t ticks) noexcept override {
    return static_cast<std::int64_t>(ticks);
  }

 private:
  static std::int64_t ns_of(WallTime time) {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
  }
  std::uint64_t now() const noexcept override {
    return static_cast<std::uint64_t>(wall_ns_.load(std::memory_order_relaxed));
  }
  std::atomic<std::int64_t> wall_ns_;
  std::atomic<std::int64_t> steady_ns_{1'000'000'000};
};

/// An engine on a ManualClock and a MemoryTransport. Retry jitter is the middle of its range.
class TestEngine {
 private:
  std::shared_ptr<ManualClock> clock_ = std::make_shared<ManualClock>();
  transport::MemoryTransport* transport_ = nullptr;

  Runtime make_runtime(std::shared_ptr<transport::Disk> disk) {
    auto memory = std::make_unique<transport::MemoryTransport>();
    transport_ = memory.get();
    // Where credentials are asked for, nobody answers.
    auto nobody = std::make_unique<transport::MemoryTransport>();
    nobody->set_answer([](const transport::HttpRequest&) {
      return transport::MemoryTransport::failed(transport::HttpOutcome::not_connected);
    });
    return {clock_, std::move(memory), [] { return 0.5; },
            false,  std::move(nobody), std::move(disk)};
  }

 public:
  /// `disk`: what spool_dir is on; null: the machine's.
  explicit TestEngine(const Config& config, std::shared_ptr<transport::Disk> disk = nullptr)
      : engine(config, make_runtime(std::move(disk))), clock(*clock_), http(*transport_) {}

  /// Moves time on and lets flusher and sender make a round.
  void advance(std::chrono::nanoseconds by) {
    clock.advance(by);
    engine.step();
  }
  /// Rounds at the present time until nothing moves any more.
  void settle() {
    for (int i = 0; i < 4; ++i) engine.step();
  }

  Engine engine;
  ManualClock& clock;
  transport::MemoryTransport& http;
};

}  // namespace spillway::testing
