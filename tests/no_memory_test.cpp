// SPDX-License-Identifier: Apache-2.0
//
// Memory that ends: every allocation of flusher and sender in turn fails, and the account holds; and
// memory that is bounded: what a black hole leaves waiting stays within the budget. The same of libcurl.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory_resource>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <curl/curl.h>
#include <gtest/gtest.h>
#include <support/child_process.hpp>
#include <support/engine_fixture.hpp>
#include <support/memory_disk.hpp>
#include <support/raw_server.hpp>
#include <support/temporary_file.hpp>

#include <spillway/engine/exception.hpp>
#include <spillway/engine/outbox.hpp>
#include <spillway/engine/private_heap.hpp>
#include <spillway/transport/curl_transport.hpp>
#include <spillway/transport/memory_transport.hpp>

#if defined(__GNUC__) && !defined(__clang__)
// g++ inlines the operators below and takes their malloc() and free() for a mismatch.
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"
#endif

namespace {

// Allocations of this thread that are still to succeed; negative: no end.
constinit thread_local long allocations_left = -1;
constinit thread_local bool has_failed = false;

bool fails() noexcept {
  if (allocations_left < 0) return false;
  if (allocations_left-- > 0) return false;
  has_failed = true;
  return true;
}

}  // namespace

void* operator new(std::size_t bytes) {
  if (!fails()) {
    if (void* const memory = std::malloc(bytes)) return memory;
  }
  throw std::bad_alloc();
}
void* operator new(std::size_t bytes, const std::nothrow_t& /*tag*/) noexcept {
  return fails() ? nullptr : std::malloc(bytes);
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t /*bytes*/) noexcept { std::free(memory); }

namespace spillway {
namespace {

using namespace std::chrono_literals;
using testing::aws_config;
using testing::is_settled;
using transport::MemoryTransport;

/// The private heap of a test: counts what is taken, and fails as operator new does.
class CountingHeap final : public std::pmr::memory_resource {
 public:
  CountingHeap() { detail::replace_private_heap(this); }
  CountingHeap(const CountingHeap&) = delete;
  CountingHeap& operator=(const CountingHeap&) = delete;
  ~CountingHeap() override { detail::replace_private_heap(nullptr); }
  std::size_t bytes() const noexcept { return bytes_; }
  std::size_t bytes_most() const noexcept { return bytes_most_; }

 private:
  void* do_allocate(std::size_t bytes, std::size_t alignment) override {
    if (fails()) throw std::bad_alloc();
    void* const memory = std::pmr::new_delete_resource()->allocate(bytes, alignment);
    bytes_ += bytes;
    bytes_most_ = std::max(bytes_most_, bytes_.load());
    return memory;
  }
  void do_deallocate(void* memory, std::size_t bytes, std::size_t alignment) override {
    bytes_ -= bytes;
    std::pmr::new_delete_resource()->deallocate(memory, bytes, alignment);
  }
  bool do_is_equal(const memory_resource& other) const noexcept override { return this == &other; }

  std::atomic<std::size_t> bytes_{0};
  std::size_t bytes_most_ = 0;
};

// ---- Every allocation fails once ----

// Every one in a plain build; with a sanitizer, where each takes ten times as long, every fifth.
#if defined(SPILLWAY_SANITIZED)
constexpr long step = 5;
#else
constexpr long step = 1;
#endif

/// Records of every kind, some of them larger than a ring takes, and a request that failed.
void record(Engine& engine, const std::string& large) {
  {
    const Logger logger = engine.logger("db").with({"pool", "main"});
    SPILLWAY_INFO(logger, "of a logger that goes away", {"n", 1});
  }
  {
    const Context context{{.tenant = "acme", .request_id = "r"}};
    const Scope scope(context);
    SPILLWAY_DEBUG(engine, "kept", {"n", 1});
    engine.end_request(true, 1ms);
    SPILLWAY_EVENT(engine, EventMetric{{"Took", Unit::milliseconds}, 12.5},
                   EventDimension{"Route", "/orders"}, EventProperty{"id", "7"});
  }
  const Counter requests = engine.counter("Requests");
  const Histogram latency = engine.histogram("Latency", Unit::microseconds);
  const Gauge depth = engine.gauge("Depth");
  for (int i = 0; i < 20; ++i) {
    requests.add(1);
    latency.record(1 << i);
    depth.set(i);
    SPILLWAY_INFO(engine, "event", {"n", i}, {"text", "some text"});
  }
  SPILLWAY_WARN(engine, "large", {"text", std::string_view(large)});
  Span outer = engine.span("outer");
  outer.annotate("key", "value");
  for (int i = 0; i < 5; ++i) const Span inner = engine.span("inner");
}

void sweep(const Config& config) {
  const std::string large(300'000, 'x');
  bool reached_the_end = false;
  std::uint64_t dropped = 0;
  for (long nth = 0; nth < 4000 && !reached_the_end; nth += step) {
    SCOPED_TRACE("allocation " + std::to_string(nth));
    CountingHeap heap;
    {
      testing::TestEngine test(config);
      // Something is sealed before, and something is not.
      record(test.engine, large);
      test.advance(60s);
      record(test.engine, large);
      has_failed = false;
      allocations_left = nth;
      // As the threads of an engine: what nobody else catches ends a round.
      try {
        test.clock.advance(60s);
        test.engine.step();
        test.engine.step();
      } catch (const std::bad_alloc&) {
      }
      allocations_left = -1;
      reached_the_end = !has_failed;
      record(test.engine, large);
      test.advance(60s);
      test.settle();
      test.engine.flush(1s);
      for (int i = 0; i < 3; ++i) {  // What failed is tried again.
        test.advance(30s);
        test.settle();
      }
      const Stats stats = test.engine.stats();
      for (const SignalStats* const signal : {&stats.metrics, &stats.logs, &stats.spans}) {
        EXPECT_TRUE(is_settled(*signal));
        const std::uint64_t lost = signal->dropped_for(DropCause::no_memory);
        EXPECT_EQ(signal->dropped_total(), lost) << "no other cause";
        EXPECT_GT(signal->delivered, 0U) << "what came behind it";
        dropped += lost;
      }
      EXPECT_GE(stats.logs.delivered, 44U) << "at least the first part and the last";
    }
    if (::testing::Test::HasFailure()) return;
  }
  EXPECT_TRUE(reached_the_end);
  EXPECT_GT(dropped, 0U) << "some failures cost records";
}

class NoMemoryTest : public ::testing::Test {
  testing::AwsEnvironment environment_;
};

TEST_F(NoMemoryTest, AnyAllocationMayFailOnTheWayToAws) { sweep(aws_config()); }

TEST_F(NoMemoryTest, AnyAllocationMayFailWithRecordsKeptAndEventsAsDocuments) {
  Config config = aws_config();
  config.metrics = MetricsTo::emf_logs;
  config.log_retain_level = Severity::debug;
  sweep(config);
}

TEST_F(NoMemoryTest, AnyAllocationMayFailOnTheWayToACollector) {
  Config config = aws_config();
  config.metrics = MetricsTo::otlp;
  config.logs = LogsTo::otlp;
  config.traces = TracesTo::otlp;
  sweep(config);
}

// With requests under way, and payloads that wait: each record is in the account at the end.
TEST_F(NoMemoryTest, AnyAllocationMayFailWhileTheSenderEnds) {
  bool reached_the_end = false;
  for (long nth = 0; nth < 1000 && !reached_the_end; nth += step) {
    SCOPED_TRACE("allocation " + std::to_string(nth));
    CountingHeap heap;
    Config config = aws_config();
    config.metrics = MetricsTo::none;
    config.traces = TracesTo::none;
    testing::TestEngine test(config);
    test.http.hold();
    for (int i = 0; i < 3; ++i) {
      SPILLWAY_INFO(test.engine, "event", {"n", i});
      for (int round = 0; round < 3; ++round) test.advance(3s);
    }
    has_failed = false;
    allocations_left = nth;
    std::optional<Stats> stats;
    try {
      stats = test.engine.shutdown(1s);
    } catch (const std::bad_alloc&) {  // Of the account itself.
    }
    allocations_left = -1;
    reached_the_end = !has_failed;
    if (!stats) stats = test.engine.shutdown(1s);
    EXPECT_EQ(stats->logs.recorded, 3U);
    EXPECT_EQ(stats->logs.dropped_for(DropCause::shutdown_deadline), 3U);
    EXPECT_TRUE(is_settled(stats->logs));
    if (::testing::Test::HasFailure()) return;
  }
  EXPECT_TRUE(reached_the_end);
}

TEST_F(NoMemoryTest, AThreadWithoutMemoryForItsLaneLosesRecordsAsNoMemory) {
  testing::TestEngine test(aws_config());
  const Counter requests = test.engine.counter("Requests");
  std::thread([&] {
    allocations_left = 0;  // One fails, and then there is some again.
    requests.add(1);
    allocations_left = 0;
    SPILLWAY_INFO(test.engine, "event");
    {
      const Span span = test.engine.span("work");
      allocations_left = 0;
    }
    requests.add(1);
  }).join();
  const Stats stats = test.engine.shutdown(1s);
  EXPECT_EQ(stats.metrics.dropped_for(DropCause::no_memory), 1U);
  EXPECT_EQ(stats.logs.dropped_for(DropCause::no_memory), 1U);
  EXPECT_EQ(stats.spans.dropped_for(DropCause::no_memory), 1U);
  EXPECT_EQ(stats.metrics.delivered, 1U);
  for (const SignalStats* const signal : {&stats.metrics, &stats.logs, &stats.spans}) {
    EXPECT_EQ(signal->dropped_for(DropCause::closed), 0U);
    EXPECT_TRUE(is_settled(*signal));
  }
}

// The spool's own part of it: the disk's calls have their memory.
class DiskWithMemory final : public transport::Disk {
 public:
  int make_directory(Handle parent, const std::string& name) override {
    const WithMemory memory;
    return disk_.make_directory(parent, name);
  }
  Handle open_directory(Handle parent, const std::string& name) override {
    const WithMemory memory;
    return disk_.open_directory(parent, name);
  }
  int lock(Handle handle) override {
    const WithMemory memory;
    return disk_.lock(handle);
  }
  int list(Handle handle, std::vector<std::string>& names) override {
    const WithMemory memory;
    return disk_.list(handle, names);
  }
  Handle create(Handle handle, const std::string& name) override {
    const WithMemory memory;
    return disk_.create(handle, name);
  }
  std::int64_t write(Handle handle, const char* bytes, std::size_t count) override {
    const WithMemory memory;
    return disk_.write(handle, bytes, count);
  }
  Handle open(Handle handle, const std::string& name, std::uint64_t& size) override {
    const WithMemory memory;
    return disk_.open(handle, name, size);
  }
  std::int64_t read(Handle handle, char* bytes, std::size_t count) override {
    const WithMemory memory;
    return disk_.read(handle, bytes, count);
  }
  int sync(Handle handle) override {
    const WithMemory memory;
    return disk_.sync(handle);
  }
  void close(Handle handle) override {
    const WithMemory memory;
    disk_.close(handle);
  }
  int rename(Handle handle, const std::string& from, const std::string& to) override {
    const WithMemory memory;
    return disk_.rename(handle, from, to);
  }
  int remove(Handle handle, const std::string& name) override {
    const WithMemory memory;
    return disk_.remove(handle, name);
  }
  std::size_t files() { return disk_.files().size(); }

 private:
  struct WithMemory {
    WithMemory() = default;
    WithMemory(const WithMemory&) = delete;
    WithMemory& operator=(const WithMemory&) = delete;
    ~WithMemory() { allocations_left = left; }
    long left = std::exchange(allocations_left, -1);
  };
  testing::MemoryDisk disk_;
};

// Into the spool in an outage, and out of it behind it: any allocation fails on either way.
TEST_F(NoMemoryTest, AnyAllocationMayFailOnTheWayThroughTheSpool) {
  Config config = aws_config();
  config.spool_dir = "/spool";
  config.on_diagnostic = [](std::string_view) {};
  bool reached_the_end = false;
  for (long nth = 0; nth < 8000 && !reached_the_end; nth += 3 * step) {
    SCOPED_TRACE("allocation " + std::to_string(nth));
    CountingHeap heap;
    {
      const auto disk = std::make_shared<DiskWithMemory>();
      testing::TestEngine test(config, disk);
      bool is_up = false;
      test.http.set_answer([&](const transport::HttpRequest&) {
        return is_up ? MemoryTransport::answered(200)
                     : MemoryTransport::failed(transport::HttpOutcome::not_connected);
      });
      record(test.engine, {});
      test.advance(60s);
      has_failed = false;
      const auto round = [&] {
        try {
          test.advance(2s);
        } catch (const std::bad_alloc&) {
        }
      };
      allocations_left = nth;
      for (int i = 0; i < 6; ++i) round();
      allocations_left = -1;
      is_up = true;
      if (!has_failed) allocations_left = nth / 2;
      for (int i = 0; i < 10; ++i) round();
      allocations_left = -1;
      reached_the_end = !has_failed;
      for (int i = 0; i < 10; ++i) test.advance(30s);
      EXPECT_TRUE(test.engine.flush(1s));
      test.settle();
      const Stats stats = test.engine.stats();
      for (const SignalStats* const signal : {&stats.metrics, &stats.logs, &stats.spans}) {
        EXPECT_TRUE(is_settled(*signal)) << stats.to_json();
        EXPECT_EQ(signal->dropped_total(), signal->dropped_for(DropCause::no_memory));
      }
      EXPECT_GE(stats.delivery.requests, 3U);
    }
    EXPECT_EQ(heap.bytes(), 0U);
    if (::testing::Test::HasFailure()) return;
  }
  EXPECT_TRUE(reached_the_end);
}

// ---- libcurl ----

constinit thread_local long libcurl_allocations = 0;
void* failing_malloc(std::size_t bytes) {
  ++libcurl_allocations;
  return fails() ? nullptr : std::malloc(bytes);
}
void* failing_realloc(void* memory, std::size_t bytes) {
  return fails() ? nullptr : std::realloc(memory, bytes);
}
char* failing_strdup(const char* text) { return fails() ? nullptr : strdup(text); }
void* failing_calloc(std::size_t count, std::size_t bytes) {
  return fails() ? nullptr : std::calloc(count, bytes);
}

// Each of libcurl's and of ours in turn: the exchange ends so that it may be tried again, and the next
// one is answered.
TEST_F(NoMemoryTest, AnyAllocationMayFailInAnExchange) {
  ASSERT_EQ(curl_global_init_mem(CURL_GLOBAL_DEFAULT, &failing_malloc, &std::free, &failing_realloc,
                                 &failing_strdup, &failing_calloc),
            CURLE_OK);
  {
    testing::RawServer server([](const std::string&, const auto& connection) {
      connection.send(testing::http_answer(200, std::string(100'000, 'x'), "X-Header: value\r\n"));
      return true;
    });
    const auto request = [&] {
      transport::HttpRequest made;
      made.origin = server.origin();
      made.headers = {{"Authorization", std::string(100, 'a')}, {"X-Empty", ""}};
      made.body = std::string(1000, 'b');
      return made;
    };
    bool reached_the_end = false;
    for (long nth = 0; nth < 2000 && !reached_the_end; ++nth) {
      SCOPED_TRACE("allocation " + std::to_string(nth));
      transport::CurlTransport transport;
      transport::HttpRequest first = request();
      bool started = true;
      std::vector<transport::HttpCompletion> ended;
      has_failed = false;
      allocations_left = nth;
      try {
        transport.start(1, std::move(first), 60s);
      } catch (const std::bad_alloc&) {
        started = false;
      }
      while (started && ended.empty()) {
        try {
          ended = transport.poll(60s);
        } catch (const std::bad_alloc&) {
        }
      }
      allocations_left = -1;
      reached_the_end = !has_failed;
      if (started) {
        ASSERT_EQ(ended.size(), 1U);
        const transport::HttpResponse& response = ended[0].response;
        EXPECT_TRUE(response.outcome == transport::HttpOutcome::answered ||
                    response.outcome == transport::HttpOutcome::lost ||
                    response.outcome == transport::HttpOutcome::not_connected)
            << static_cast<int>(response.outcome) << " " << response.error;
        if (response.outcome == transport::HttpOutcome::answered) {
          EXPECT_EQ(response.body.size(), 100'000U);
        }
      }
      transport.start(2, request(), 60s);
      ended.clear();
      while (ended.empty()) ended = transport.poll(60s);
      ASSERT_EQ(ended.size(), 1U);
      EXPECT_EQ(ended[0].id, 2U);
      EXPECT_EQ(ended[0].response.status, 200) << ended[0].response.error;
      if (::testing::Test::HasFailure()) break;
    }
    EXPECT_TRUE(reached_the_end);
    EXPECT_GT(libcurl_allocations, 0) << "libcurl was there before";
  }
  curl_global_cleanup();
}

// ---- What a dead process left ----

TEST_F(NoMemoryTest, AnyAllocationMayFailWhileADeadProcessIsRead) {
  const testing::TemporaryDirectory directory;
  Config config = aws_config();
  config.crash_dir = directory.path("left");
  config.on_diagnostic = [](std::string_view) {};
  testing::in_killed_child([&] {
    testing::TestEngine test(config);
    for (int n = 0; n < 10; ++n) {
      SPILLWAY_INFO(test.engine, "event", {"n", n}, {"text", "longer than a string's own room"});
      Span span = test.engine.span("work");
      span.annotate("text", "longer than a string's own room");
    }
    testing::kill_self();
  });
  config.crash_dir = directory.path("crash");
  // Those of the reading come first; what goes on behind it has its own tests.
  constexpr long reading = 300;
  bool reached_the_end = false;
  for (long nth = 0; nth < reading && !reached_the_end; nth += step) {
    SCOPED_TRACE("allocation " + std::to_string(nth));
    std::filesystem::remove_all(config.crash_dir.get());
    std::filesystem::copy(directory.path("left"), config.crash_dir.get(),
                          std::filesystem::copy_options::recursive);
    testing::TestEngine test(config);
    has_failed = false;
    allocations_left = nth;
    for (int i = 0; i < 2; ++i) {
      try {
        test.engine.step();
      } catch (const std::bad_alloc&) {
      }
    }
    allocations_left = -1;
    reached_the_end = !has_failed;
    EXPECT_TRUE(has_failed || nth > 100);
    for (int i = 0; i < 3; ++i) test.advance(30s);
    EXPECT_TRUE(test.engine.flush(1s));
    const Stats stats = test.engine.stats();
    for (const SignalStats* const signal : {&stats.logs, &stats.spans}) {
      EXPECT_EQ(signal->recovered, 10U) << "once each";
      EXPECT_TRUE(is_settled(*signal));
      EXPECT_EQ(signal->dropped_total(), signal->dropped_for(DropCause::no_memory));
    }
    if (::testing::Test::HasFailure()) return;
  }
}

// ---- On the caller's thread ----

TEST_F(NoMemoryTest, AnExceptionMayBeLookedAtWithoutMemory) {
  const std::runtime_error error("a text that is longer than a string's own room");
  const auto pointer = std::make_exception_ptr(error);
  bool reached_the_end = false;
  for (long nth = 0; nth < 1000 && !reached_the_end; ++nth) {
    has_failed = false;
    allocations_left = nth;
    { const ExceptionInfo info(error); }
    { const ExceptionInfo info(pointer, false); }
    allocations_left = -1;
    reached_the_end = !has_failed;
  }
  EXPECT_TRUE(reached_the_end);
}

// ---- The budget ----

TEST_F(NoMemoryTest, ABlackHoleLeavesNoMoreWaitingThanTheBudget) {
  CountingHeap heap;
  {
    Config config = aws_config();
    config.queue_bytes_max = 8 << 20;
    testing::TestEngine test(config);
    test.http.hold();
    const std::string text(2'000, 'x');
    const std::string large(400'000, 'y');
    for (int round = 0; round < 300; ++round) {
      for (int i = 0; i < 100; ++i) {
        SPILLWAY_INFO(test.engine, "event", {"n", i}, {"text", std::string_view(text)});
        Span span = test.engine.span("work");
        span.annotate("text", std::string_view(text).substr(0, 500));
      }
      SPILLWAY_INFO(test.engine, "large", {"text", std::string_view(large)});
      test.advance(1s);
    }
    // Beside the budget: three payloads that are being filled, twice while they grow, and four empty
    // ones.
    constexpr std::size_t beside = (3 * 2 + 4) * (1U << 20) + (1U << 20);
    EXPECT_LE(heap.bytes_most(), (8U << 20) + beside);
    const Stats stats = test.engine.stats();
    EXPECT_GT(stats.logs.dropped_for(DropCause::queue_full), 0U) << "it was full";
    EXPECT_EQ(stats.logs.residue(), 0);
    EXPECT_EQ(stats.spans.residue(), 0);
  }
  EXPECT_EQ(heap.bytes(), 0U);
}

TEST_F(NoMemoryTest, TheOutageOfOneDestinationIsNotTheOthers) {
  Config config = aws_config();
  config.queue_bytes_max = 4 << 20;
  testing::TestEngine test(config);
  test.http.set_answer([](const transport::HttpRequest& request) {
    return testing::operation_of(request) == "PutLogEvents"
               ? MemoryTransport::failed(transport::HttpOutcome::not_connected)
               : MemoryTransport::answered(200);
  });
  const std::string text(2'000, 'x');
  const Counter requests = test.engine.counter("Requests");
  for (int round = 0; round < 120; ++round) {
    for (int i = 0; i < 100; ++i) {
      SPILLWAY_INFO(test.engine, "event", {"n", i}, {"text", std::string_view(text)});
    }
    requests.add(1);
    { const Span span = test.engine.span("work"); }
    test.advance(1s);
  }
  test.advance(60s);
  test.settle();
  const Stats stats = test.engine.stats();
  EXPECT_GT(stats.logs.dropped_for(DropCause::queue_full), 0U);
  EXPECT_EQ(stats.metrics.delivered, 120U);
  EXPECT_EQ(stats.spans.delivered, 120U);
}

TEST(OutboxTest, EachSignalHasAPartThatTheOthersCannotTake) {
  using detail::Outbox;
  using detail::Signal;
  Outbox outbox(1600, {true, true, true});
  EXPECT_FALSE(outbox.reserve(1401, Signal::logs));
  EXPECT_TRUE(outbox.reserve(1400, Signal::logs));
  EXPECT_FALSE(outbox.reserve(1, Signal::logs));
  EXPECT_TRUE(outbox.reserve(100, Signal::metrics));
  EXPECT_FALSE(outbox.reserve(1, Signal::metrics)) << "the rest is the spans'";
  EXPECT_TRUE(outbox.reserve(100, Signal::spans));
  EXPECT_EQ(outbox.bytes(), 1600U);
  outbox.release(500, Signal::logs);
  EXPECT_TRUE(outbox.reserve(500, Signal::spans)) << "what is free is anybody's";
  Outbox alone(1600, {false, true, false});
  EXPECT_TRUE(alone.reserve(1600, Signal::logs));
}

TEST(OutboxTest, APayloadIsChargedForItsMemoryAndGoesInNoMoreThanItNeeds) {
  detail::Outbox outbox(1 << 20);
  auto payload = outbox.take_empty();
  payload->signal = detail::Signal::logs;
  payload->bytes.append(std::string(200'000, 'x'));
  payload->bytes.truncate(1000);
  payload->end_item(0, 1);
  ASSERT_TRUE(outbox.send(payload));
  ASSERT_NE(payload, nullptr) << "the large one stays";
  EXPECT_TRUE(payload->items.empty());
  EXPECT_GE(outbox.bytes(), 1000U);
  EXPECT_LE(outbox.bytes(), 6000U);
  auto sent = outbox.receive();
  EXPECT_EQ(sent->bytes.view(), std::string(1000, 'x'));
  outbox.give_back(std::move(sent));
  EXPECT_EQ(outbox.bytes(), 0U);
}

}  // namespace
}  // namespace spillway
