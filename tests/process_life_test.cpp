// SPDX-License-Identifier: Apache-2.0
//
// An engine in processes that begin, freeze, hang and end in the ways that hosts do.
#include <algorithm>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>

#include <support/engine_fixture.hpp>
#include <support/program.hpp>
#include <support/temporary_file.hpp>

namespace spillway {
namespace {

using namespace std::chrono_literals;

// ---- Processes of their own ----

class ProcessLifeTest : public ::testing::Test {
 protected:
  /// Exit status of the program; its output is printed when it is not 0.
  int run(const std::string& mode, const std::string& variable = "LANG=C") {
    testing::Program program(
        PROCESS_LIFE_PROGRAM, {mode, directory.path("log")},
        {"AWS_ACCESS_KEY_ID=AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY=none", variable});
    output = program.read_all();
    const int status = program.finish();
    EXPECT_EQ(status, 0) << output;
    return status;
  }
  std::int64_t lines() const {
    const std::string text = directory.read("log");
    return std::count(text.begin(), text.end(), '\n');
  }

  testing::TemporaryDirectory directory;
  std::string output;
};

TEST_F(ProcessLifeTest, ObjectsMayRecordBeforeMain) {
  run("before-main", "SPILLWAY_TEST_BEFORE_MAIN=" + directory.path("log"));
  EXPECT_EQ(lines(), 2);
}

TEST_F(ProcessLifeTest, StaticObjectsMayRecordWhileTheyGoInAnyOrder) {
  run("static-destruction");
  EXPECT_EQ(lines(), 1);
}

TEST_F(ProcessLifeTest, ThreadsMayRecordWhileTheProcessEnds) {
  run("recording-threads");
  EXPECT_EQ(lines(), 1);
}

TEST_F(ProcessLifeTest, ObjectsOfAThreadMayRecordWhileItEnds) {
  run("thread-local-destruction");
  EXPECT_EQ(lines(), 2);
}

TEST_F(ProcessLifeTest, RecordingAfterShutdownDoesNothing) {
  run("after-shutdown");
  EXPECT_EQ(lines(), 0);
}

TEST_F(ProcessLifeTest, ADaemonHasAnEngineOfItsOwn) {
  run("daemonise");
  EXPECT_EQ(lines(), 2);
}

TEST_F(ProcessLifeTest, AProgramThatTheHostStartsInheritsNothing) {
  run("exec-descriptors");
  EXPECT_EQ(output.find(directory.path("log")), std::string::npos) << output;
}

TEST_F(ProcessLifeTest, SignalsStayTheHosts) {
  run("sigterm");
  EXPECT_EQ(lines(), 100);
}

// ---- Threads that hang ----

/// Something that does not return until the test is through with what it asks.
class Obstacle {
 public:
  void wait() {
    std::unique_lock lock(mutex_);
    reached_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return gone_; });
  }
  void wait_until_reached() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return reached_; });
  }
  void remove() {
    const std::scoped_lock lock(mutex_);
    gone_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool reached_ = false;
  bool gone_ = false;
};

class HangingTransport final : public transport::HttpTransport {
 public:
  explicit HangingTransport(std::shared_ptr<Obstacle> obstacle) : obstacle_(std::move(obstacle)) {}
  void start(std::uint64_t /*id*/, transport::HttpRequest /*request*/,
             std::chrono::milliseconds /*timeout*/) override {
    obstacle_->wait();
  }
  std::vector<transport::HttpCompletion> poll(std::chrono::milliseconds /*wait*/) override {
    std::this_thread::yield();
    return {};
  }
  void wake() noexcept override {}
  void cancel_all() noexcept override {}

 private:
  std::shared_ptr<Obstacle> obstacle_;
};

// These hang for ever if shutdown() waits for the thread.

TEST(HangingThreadTest, ShutdownDoesNotWaitForASenderThatHangs) {
  const testing::AwsEnvironment environment;
  Config config = testing::aws_config();
  config.metrics = MetricsTo::none;
  config.traces = TracesTo::none;
  auto obstacle = std::make_shared<Obstacle>();
  {
    Runtime runtime;
    runtime.http = std::make_unique<HangingTransport>(obstacle);
    Engine engine(config, std::move(runtime));
    SPILLWAY_INFO(engine, "under way");
    engine.flush(1ms);
    obstacle->wait_until_reached();
    const Stats stats = engine.shutdown(50ms);
    EXPECT_EQ(stats.logs.dropped_for(DropCause::shutdown_deadline), 1U)
        << "what only memory holds ends with the process";
    EXPECT_TRUE(testing::is_settled(stats.logs));
  }
  obstacle->remove();
}

TEST(HangingThreadTest, WhatIsInRingsThatOutliveTheProcessIsHeldWhenASenderHangs) {
  const testing::AwsEnvironment environment;
  const testing::TemporaryDirectory directory;
  Config config = testing::aws_config();
  config.metrics = MetricsTo::none;
  config.traces = TracesTo::none;
  config.crash_dir = directory.path("crash");
  auto obstacle = std::make_shared<Obstacle>();
  {
    Runtime runtime;
    runtime.http = std::make_unique<HangingTransport>(obstacle);
    Engine engine(config, std::move(runtime));
    SPILLWAY_INFO(engine, "under way");
    engine.flush(1ms);
    obstacle->wait_until_reached();
    const Stats stats = engine.shutdown(50ms);
    EXPECT_EQ(stats.logs.dropped_total(), 0U);
    EXPECT_EQ(stats.logs.held(), 1U);
    EXPECT_EQ(stats.logs.residue(), 0);
  }
  obstacle->remove();
}

TEST(HangingThreadTest, ShutdownDoesNotWaitForADiagnosticThatHangs) {
  auto obstacle = std::make_shared<Obstacle>();
  Config config;
  config.metrics = MetricsTo::none;
  config.logs = LogsTo::none;
  config.on_diagnostic = [obstacle](std::string_view) { obstacle->wait(); };
  {
    Engine engine(config);
    engine.counter("not ascii \xc3\xa9").add(1);
    obstacle->wait_until_reached();
    engine.shutdown(50ms);
  }
  obstacle->remove();
}

// Its cells are nobody's then: what counters have in them is in the account all the same.
TEST(HangingThreadTest, WhatCountersHoldIsCountedWhenTheFlusherHangs) {
  auto obstacle = std::make_shared<Obstacle>();
  Config config;
  config.metrics = MetricsTo::none;
  config.logs = LogsTo::none;
  config.on_diagnostic = [obstacle](std::string_view) { obstacle->wait(); };
  {
    Engine engine(config);
    const Counter requests = engine.counter("Requests");
    engine.counter("not ascii \xc3\xa9");
    obstacle->wait_until_reached();
    requests.add(1);
    requests.add(2);
    const Stats stats = engine.shutdown(50ms);
    EXPECT_EQ(stats.metrics.recorded, 2U);
    EXPECT_EQ(stats.metrics.dropped_for(DropCause::shutdown_deadline), 2U);
    EXPECT_TRUE(testing::is_settled(stats.metrics));
  }
  obstacle->remove();
}

// ---- Lambda ----

// Between invocations the process stands still for as long as the platform likes.
TEST(LambdaTest, AFlushAtTheEndOfAnInvocationLeavesNothingForTheFreeze) {
  const testing::AwsEnvironment environment;
  testing::TestEngine test(testing::aws_config());
  const Counter invocations = test.engine.counter("Invocations");
  for (int i = 0; i < 3; ++i) {
    invocations.add(1);
    SPILLWAY_INFO(test.engine, "invoked", {"n", i});
    { const Span span = test.engine.span("handler"); }
    EXPECT_TRUE(test.engine.flush(1s));
    const Stats stats = test.engine.stats();
    for (const SignalStats* const signal : {&stats.metrics, &stats.logs, &stats.spans}) {
      EXPECT_EQ(signal->held(), 0U);
      EXPECT_EQ(signal->residue(), 0);
    }
    EXPECT_EQ(stats.logs.delivered, static_cast<std::uint64_t>(i) + 1);
    test.clock.advance(2h);  // Frozen.
  }
}

TEST(LambdaTest, ARequestThatTheFreezeCutOffIsSentAgainAfterwards) {
  const testing::AwsEnvironment environment;
  Config config = testing::aws_config();
  config.metrics = MetricsTo::none;
  config.traces = TracesTo::none;
  testing::TestEngine test(config);
  SPILLWAY_INFO(test.engine, "invoked");
  test.http.script(transport::MemoryTransport::failed(transport::HttpOutcome::lost));
  test.http.hold();
  EXPECT_FALSE(test.engine.flush(1s));
  test.clock.advance(2h);  // Frozen, with the request under way.
  test.http.release();
  test.settle();
  test.advance(30s);
  test.settle();
  const Stats stats = test.engine.stats();
  EXPECT_EQ(stats.logs.delivered, 1U);
  EXPECT_EQ(stats.logs.delivery.uncertain_records, 1U);
  EXPECT_TRUE(testing::is_settled(stats.logs));
}

TEST(LambdaTest, AFlushKeepsTheInvocationsDeadline) {
  const testing::AwsEnvironment environment;
  Config config = testing::aws_config();
  config.metrics = MetricsTo::none;
  config.traces = TracesTo::none;
  config.shutdown_timeout = 10ms;
  auto obstacle = std::make_shared<Obstacle>();
  Runtime runtime;
  runtime.http = std::make_unique<HangingTransport>(obstacle);
  Engine engine(config, std::move(runtime));
  SPILLWAY_INFO(engine, "invoked");
  EXPECT_FALSE(engine.flush(20ms)) << "and it returned";
  obstacle->remove();
}

}  // namespace
}  // namespace spillway
