// SPDX-License-Identifier: Apache-2.0
//
// What the recording benchmarks compare, each as one call with the same arguments: an int, a double
// and a text of nine characters for a log, three annotations for a span. All consume what is
// recorded, and throw it away.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <boost/lockfree/spsc_queue.hpp>
#include <concurrentqueue/concurrentqueue.h>

#include <spillway/spillway.hpp>

#if defined(SPILLWAY_BENCH_SPDLOG)
#include <spdlog/async.h>
#include <spdlog/sinks/null_sink.h>
#include <spdlog/spdlog.h>
#endif

namespace bench {

/// The arguments of a call: values that the compiler does not know.
struct Arguments {
  double values[1024];
  std::string text = "nine char";
  std::string_view view = text;

  Arguments() {
    for (int i = 0; i < 1024; ++i) values[i] = 100 + (i * 7919 % 1024) * 0.7;
  }
};

/// Takes every request, and answers it with 200 at once.
class AgreeingTransport final : public spillway::transport::HttpTransport {
 public:
  void start(std::uint64_t id, spillway::transport::HttpRequest /*request*/,
             std::chrono::milliseconds /*timeout*/) override {
    done_.push_back({id, {spillway::transport::HttpOutcome::answered, 200, {}, "{}", {}}});
  }
  std::vector<spillway::transport::HttpCompletion> poll(std::chrono::milliseconds wait) override {
    std::unique_lock lock(mutex_);
    if (done_.empty()) wakes_.wait_for(lock, wait, [this] { return woken_; });
    woken_ = false;
    return std::exchange(done_, {});
  }
  void wake() noexcept override {
    {
      const std::scoped_lock lock(mutex_);
      woken_ = true;
    }
    wakes_.notify_one();
  }
  void cancel_all() noexcept override { done_.clear(); }

 private:
  std::vector<spillway::transport::HttpCompletion> done_;  // Of the thread that polls.
  std::mutex mutex_;
  std::condition_variable wakes_;
  bool woken_ = false;
};

/// Credentials that sign what nobody checks.
inline void use_any_credentials() {
  setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE", 1);
  setenv("AWS_SECRET_ACCESS_KEY", "secret", 1);
}

/// A machine on which every request succeeds at once.
inline spillway::Runtime agreeing(bool threads) {
  use_any_credentials();
  return {.http = std::make_unique<AgreeingTransport>(), .threads = threads};
}

/// A folder for the files of a run, gone with it.
class Folder {
 public:
  Folder() {
    std::string path = std::filesystem::temp_directory_path() / "spillway-bench-XXXXXX";
    if (mkdtemp(path.data()) == nullptr) std::abort();
    path_ = path;
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

struct SubjectOptions {
  bool threads = true;
  bool coarse_time = false;
  std::string metrics_file = "/dev/null";
  std::string crash_dir{};
};

/// An engine that encodes, compresses and signs everything and throws it away, and its handles.
class SpillwaySubject {
 public:
  explicit SpillwaySubject(const SubjectOptions& options = {})
      : engine(spillway::Config{.service = "bench",
                                .metrics = spillway::MetricsTo::emf_file,
                                .logs = spillway::LogsTo::file,
                                .traces = spillway::TracesTo::put_trace_segments,
                                .metrics_file = options.metrics_file,
                                .logs_file = "/dev/null",
                                .emf_histogram_object = true,
                                .region = "eu-west-1",
                                .trace_sample_rate = 1.0,
                                .log_coarse_time = options.coarse_time,
                                .crash_dir = options.crash_dir,
                                .on_diagnostic = [](std::string_view) {}},
               agreeing(options.threads)) {}

  spillway::Engine engine;
  const spillway::Counter counter =
      engine.counter("Requests", spillway::Unit::count, {{"Route", "/orders"}});
  const spillway::Gauge gauge = engine.gauge("Depth", spillway::Unit::none, {{"Route", "/orders"}});
  const spillway::Histogram histogram =
      engine.histogram("Latency", spillway::Unit::microseconds, {{"Route", "/orders"}});
  const spillway::PerContext<spillway::Counter> by_tenant =
      engine.per(counter, spillway::ContextField::tenant, "TenantID");

  // Inlined into the measuring loop, as into the code that calls.
  [[gnu::always_inline]] void log(int i, const Arguments& with) const {
    SPILLWAY_INFO(engine, "order placed", {"order_id", i}, {"total", with.values[i & 1023]},
                  {"currency", with.view});
  }
  [[gnu::always_inline]] void log_disabled(int i, const Arguments& with) const {
    SPILLWAY_DEBUG(engine, "order placed", {"order_id", i}, {"total", with.values[i & 1023]},
                   {"currency", with.view});
  }
  [[gnu::always_inline]] void span(int i, const Arguments& with) const {
    spillway::Span span = engine.span("charge-card");
    span.annotate("order_id", i);
    span.annotate("total", with.values[i & 1023]);
    span.annotate("currency", with.view);
  }
};

/// The 48 bytes that a log with these arguments is, as a value for queues.
struct LogBytes {
  std::uint64_t header[2];
  std::int64_t id;
  double total;
  char text[16];

  static LogBytes make(int i, const Arguments& with) {
    LogBytes bytes{};
    bytes.header[0] = static_cast<std::uint64_t>(i);
    bytes.header[1] = spillway::detail::hardware_ticks();
    bytes.id = i;
    bytes.total = with.values[i & 1023];
    std::memcpy(bytes.text, with.view.data(), 9);
    return bytes;
  }
};

/// Runs `consume()` every 100 µs beside the measurement: a consumer that spins on the producer's
/// index would make each push five times dearer.
class Consumer {
 public:
  template <class Consume>
  explicit Consumer(Consume consume)
      : thread_([this, consume] {
          while (!stop_.load(std::memory_order_relaxed)) {
            consume();
            std::this_thread::sleep_for(std::chrono::microseconds(100));
          }
        }) {}
  ~Consumer() {
    stop_.store(true, std::memory_order_relaxed);
    thread_.join();
  }

 private:
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

/// boost::lockfree::spsc_queue, one per thread.
class BoostSpscSubject {
 public:
  void log(int i, const Arguments& with) { queue_.push(LogBytes::make(i, with)); }

 private:
  boost::lockfree::spsc_queue<LogBytes, boost::lockfree::capacity<(1U << 14)>> queue_;
  Consumer consumer_{[this] { queue_.consume_all([](const LogBytes&) {}); }};
};

/// moodycamel::ConcurrentQueue, shared, with a token per thread.
class MoodycamelSubject {
 public:
  auto token() { return moodycamel::ProducerToken(queue_); }
  void log(moodycamel::ProducerToken& token, int i, const Arguments& with) {
    queue_.enqueue(token, LogBytes::make(i, with));
  }

 private:
  moodycamel::ConcurrentQueue<LogBytes> queue_{1U << 16};
  Consumer consumer_{[this] {
    LogBytes taken[256];
    while (queue_.try_dequeue_bulk(taken, 256) != 0) {
    }
  }};
};

#if defined(SPILLWAY_BENCH_SPDLOG)
/// spdlog's asynchronous logger: 8192 messages, the oldest overwritten when full, a sink that
/// throws them away.
class SpdlogSubject {
 public:
  SpdlogSubject()
      : pool_(std::make_shared<spdlog::details::thread_pool>(8192, 1)),
        logger_(std::make_shared<spdlog::async_logger>(
            "bench", std::make_shared<spdlog::sinks::null_sink_mt>(), pool_,
            spdlog::async_overflow_policy::overrun_oldest)) {}

  void log(int i, const Arguments& with) {
    logger_->info("order placed order_id={} total={} currency={}", i, with.values[i & 1023],
                  with.view);
  }

 private:
  std::shared_ptr<spdlog::details::thread_pool> pool_;
  std::shared_ptr<spdlog::async_logger> logger_;
};
#endif

}  // namespace bench
