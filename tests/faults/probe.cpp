// SPDX-License-Identifier: Apache-2.0
//
// The service that faults of the real kernel are tried on: an engine that is set up by its environment, and threads
// that record at a steady pace until they are told to stop. Told by lines on standard input, each answered by one line:
//
//   stop          no more is recorded
//   flush MS      {"flushed": true}
//   stats         {"stats": ..., "resident_peak_kb": ...}
//   shutdown MS   {"stats": ..., "shutdown_ms": ..., "starved_ms": ..., "resident_peak_kb": ..., "diagnostics": [...]},
//                 and the end
//
//   faults_probe RUN THREADS RATE HELD_MAX BOOKS
//
// RUN marks this process's records; each thread makes RATE logs and measurements a second and a tenth as many spans, but
// none while more than HELD_MAX records wait. What a call has come back from is counted in the file BOOKS, which outlives
// the process: for each thread four 64-bit counts (logs, spans, measurements, and one that is not used).
//
// starved_ms is how late a thread that does nothing but sleep was woken while the engine shut down, all together: what the
// machine took and not the engine.
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iostream>
#include <mutex>
#include <new>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <spillway/buffers/byte_buffer.hpp>
#include <spillway/encoders/json.hpp>
#include <spillway/spillway.hpp>

namespace {

using namespace std::chrono_literals;
using std::chrono::steady_clock;

/// What one thread has recorded; read by others after this process is gone.
struct Book {
  std::atomic<std::uint64_t> logs;
  std::atomic<std::uint64_t> spans;
  std::atomic<std::uint64_t> measurements;
  std::uint64_t unused;
};
static_assert(sizeof(Book) == 32 && std::atomic<std::uint64_t>::is_always_lock_free);

Book* map_books(const std::string& path, std::size_t count) {
  const int file = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  const std::size_t bytes = count * sizeof(Book);
  if (file < 0 || ftruncate(file, static_cast<off_t>(bytes)) != 0) {
    throw std::runtime_error("cannot make " + path);
  }
  void* const at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (at == MAP_FAILED) throw std::runtime_error("cannot map " + path);
  return static_cast<Book*>(at);
}

std::uint64_t held(const spillway::Stats& stats) {
  return stats.logs.held() + stats.spans.held() + stats.metrics.held();
}

class Recorder {
 public:
  Recorder(spillway::Engine& engine, std::int64_t run, std::int64_t rate, std::uint64_t held_max)
      : engine_(engine), run_(run), rate_(rate), held_max_(held_max) {}

  void run(std::int64_t thread, Book& book) {
    const auto start = steady_clock::now();
    std::int64_t due = 0;
    for (std::int64_t n = 0; !stopped_.load(std::memory_order_relaxed);) {
      std::this_thread::sleep_for(1ms);
      const auto passed = steady_clock::now() - start;
      const std::int64_t before = due;
      due =
          std::chrono::duration_cast<std::chrono::microseconds>(passed).count() * rate_ / 1'000'000;
      if (held(engine_.stats()) > held_max_) continue;
      for (std::int64_t i = before; i < due; ++i, ++n) record_one(thread, n, book);
    }
  }
  void stop() { stopped_.store(true, std::memory_order_relaxed); }

 private:
  void record_one(std::int64_t thread, std::int64_t n, Book& book) {
    SPILLWAY_INFO(engine_, "event", {"run", run_}, {"thread", thread}, {"n", n});
    count(book.logs);
    work_.add(1);
    count(book.measurements);
    if (n % 10 != 0) return;
    {
      spillway::Span span = engine_.span("work");
      span.annotate("run", run_);
      span.annotate("thread", thread);
      span.annotate("n", n / 10);
    }
    count(book.spans);
  }
  static void count(std::atomic<std::uint64_t>& counter) {
    counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_release);
  }

  spillway::Engine& engine_;
  const std::int64_t run_;
  const std::int64_t rate_;
  const std::uint64_t held_max_;
  const spillway::Counter work_ = engine_.counter("Work");
  std::atomic<bool> stopped_{false};
};

/// How late a sleeping thread is woken, all together, while this exists.
class Starvation {
 public:
  Starvation() : watcher_([this] { watch(); }) {}
  double stop_ms() {
    ended_.store(true, std::memory_order_relaxed);
    watcher_.join();
    return std::chrono::duration<double, std::milli>(late_).count();
  }

 private:
  void watch() {
    while (!ended_.load(std::memory_order_relaxed)) {
      const auto before = steady_clock::now();
      std::this_thread::sleep_for(1ms);
      const auto late = steady_clock::now() - before - 1ms;
      if (late > 1ms) late_ += late;
    }
  }

  std::atomic<bool> ended_{false};
  steady_clock::duration late_{};
  std::thread watcher_;
};

std::int64_t resident_peak_kb() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    if (std::int64_t kb = 0; word == "VmHWM:" && status >> kb) return kb;
  }
  return 0;
}

std::string list_of(const std::vector<std::string>& texts) {
  spillway::detail::ByteBuffer out;
  out.append('[');
  for (const std::string& text : texts) {
    if (&text != &texts.front()) out.append(',');
    spillway::detail::append_json_string(out, text);
  }
  out.append(']');
  return std::string(out.view());
}

int serve(std::int64_t run, std::size_t thread_count, std::int64_t rate, std::uint64_t held_max,
          const std::string& books_path) {
  Book* const books = map_books(books_path, thread_count);
  std::mutex mutex;
  std::vector<std::string> diagnostics;
  spillway::Config config;
  config.on_diagnostic = [&](std::string_view text) {
    const std::lock_guard lock(mutex);
    diagnostics.emplace_back(text);
  };
  spillway::Engine engine(config);
  Recorder recorder(engine, run, rate, held_max);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < thread_count; ++t) {
    threads.emplace_back([&, t] { recorder.run(static_cast<std::int64_t>(t), books[t]); });
  }
  const auto stop = [&] {
    recorder.stop();
    for (std::thread& thread : threads) thread.join();
    threads.clear();
  };
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string command;
    std::int64_t ms = 0;
    words >> command >> ms;
    if (command == "stop") {
      stop();
      std::cout << "{}" << std::endl;
    } else if (command == "flush") {
      const bool flushed = engine.flush(std::chrono::milliseconds(ms));
      std::cout << "{\"flushed\":" << (flushed ? "true" : "false") << "}" << std::endl;
    } else if (command == "stats") {
      std::cout << "{\"stats\":" << engine.stats().to_json()
                << ",\"resident_peak_kb\":" << resident_peak_kb() << "}" << std::endl;
    } else if (command == "shutdown") {
      stop();
      Starvation starvation;
      const auto before = steady_clock::now();
      const spillway::Stats stats = engine.shutdown(std::chrono::milliseconds(ms));
      const std::chrono::duration<double, std::milli> took = steady_clock::now() - before;
      const double starved = starvation.stop_ms();
      const std::lock_guard lock(mutex);
      std::cout << "{\"stats\":" << stats.to_json() << ",\"shutdown_ms\":" << took.count()
                << ",\"starved_ms\":" << starved << ",\"resident_peak_kb\":" << resident_peak_kb()
                << ",\"diagnostics\":" << list_of(diagnostics) << "}" << std::endl;
      return 0;
    } else {
      throw std::runtime_error("no such command: " + line);
    }
  }
  stop();
  return 0;
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 6) {
    std::cerr << "usage: faults_probe RUN THREADS RATE HELD_MAX BOOKS\n";
    return 2;
  }
  return serve(std::atoll(argv[1]), static_cast<std::size_t>(std::atoll(argv[2])),
               std::atoll(argv[3]), static_cast<std::uint64_t>(std::atoll(argv[4])), argv[5]);
} catch (const std::exception& error) {
  std::cerr << "faults_probe: " << error.what() << '\n';
  return 1;
}
