// SPDX-License-Identifier: Apache-2.0
//
// A host that begins and ends in one of the ways that hosts do. Exit status 0: what it can see itself is
// right; tests/process_life_test.cpp looks at the log.
//
//   process_life_program MODE LOG_FILE
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include <spillway/spillway.hpp>

namespace {

using namespace std::chrono_literals;

std::string log_file;

spillway::Config config() {
  spillway::Config config;
  config.metrics = spillway::MetricsTo::none;
  config.logs = spillway::LogsTo::file;
  config.logs_file = log_file;
  return config;
}

// The first object of the program that is made, before those of the library: an engine, and records of each kind. Only
// where the variable says so.
struct Early {
  std::unique_ptr<spillway::Engine> engine;
  Early() {
    const char* const file = std::getenv("SPILLWAY_TEST_BEFORE_MAIN");
    if (file == nullptr) return;
    spillway::Config config;
    config.metrics = spillway::MetricsTo::none;
    config.logs = spillway::LogsTo::file;
    config.logs_file = file;
    engine = std::make_unique<spillway::Engine>(config);
    const spillway::Context context({.tenant = "acme"});
    const spillway::Scope scope(context);
    SPILLWAY_INFO(*engine, "before main", {"n", 1});
    const spillway::Span span = engine->span("before-main");
    engine->counter("Early").add(1);
  }
};
// 101 is the first that a program may have.
[[gnu::init_priority(101)]] Early early;

int before_main() {
  SPILLWAY_INFO(*early.engine, "in main");
  const spillway::Stats stats = early.engine->shutdown(60s);
  return stats.logs.delivered == 2 && stats.metrics.recorded == 1 && stats.logs.residue() == 0 ? 0
                                                                                               : 1;
}

/// Holds a handle and uses it when it goes.
struct LateCounter {
  std::optional<spillway::Counter> counter;
  ~LateCounter() {
    if (counter) counter->add(1);
  }
};

spillway::Engine& static_engine() {
  static spillway::Engine engine(config());
  return engine;
}

struct LateLog {
  ~LateLog() { SPILLWAY_INFO(static_engine(), "from a static destructor"); }
};

// One static object goes before the engine and may use it, the other one after it and has a handle.
int static_destruction() {
  static LateCounter after;
  spillway::Engine& engine = static_engine();
  static LateLog before;
  (void)before;
  after.counter = engine.counter("Late");
  std::exit(0);
}

// Threads that record while the engine shuts down and the process ends.
int recording_threads() {
  spillway::Engine& engine = static_engine();
  const spillway::Counter counter = engine.counter("Busy");
  std::atomic<int> running{0};
  static std::atomic<bool> never{false};
  for (int i = 0; i < 2; ++i) {
    std::thread([counter, &running] {
      thread_local LateCounter late;
      late.counter = counter;
      counter.add(1);
      ++running;
      while (!never.load(std::memory_order_relaxed)) counter.add(1);
    }).detach();
  }
  while (running != 2) std::this_thread::yield();
  SPILLWAY_INFO(engine, "threads are at it");
  std::exit(0);
}

// Objects of a thread that record when the thread ends, in either order with their first use.
int thread_local_destruction() {
  spillway::Engine engine(config());
  const spillway::Counter counter = engine.counter("Late");
  const auto body = [&](bool record_first) {
    if (record_first) counter.add(1);
    struct Late {
      spillway::Engine* engine = nullptr;
      ~Late() {
        if (engine != nullptr) SPILLWAY_INFO(*engine, "from a thread_local destructor");
      }
    };
    thread_local Late late;
    late.engine = &engine;
    if (!record_first) counter.add(1);
  };
  std::thread(body, true).join();
  std::thread(body, false).join();
  return engine.shutdown(60s).logs.delivered == 2 ? 0 : 1;
}

int after_shutdown() {
  spillway::Engine engine(config());
  const spillway::Counter counter = engine.counter("Requests");
  engine.shutdown(60s);
  counter.add(1);
  SPILLWAY_INFO(engine, "too late");
  { const spillway::Span span = engine.span("late"); }
  return 0;
}

// As a daemon starts: an engine in the process that goes, another one in the one that stays.
int daemonise() {
  auto first = std::make_unique<spillway::Engine>(config());
  SPILLWAY_INFO(*first, "before");
  first->shutdown(60s);
  int done[2];
  if (pipe(done) != 0) return 2;
  const pid_t child = fork();
  if (child == 0) {
    setsid();
    first.reset();
    bool good = false;
    {
      spillway::Engine own(config());
      SPILLWAY_INFO(own, "daemon");
      good = own.shutdown(60s).logs.delivered == 1;
    }
    const char status = good ? 1 : 0;
    _exit(write(done[1], &status, 1) == 1 ? 0 : 1);
  }
  close(done[1]);
  char status = 0;
  const bool said = read(done[0], &status, 1) == 1;
  int ended = 0;
  while (waitpid(child, &ended, 0) < 0 && errno == EINTR) {
  }
  return said && status == 1 ? 0 : 1;
}

// What a program that the host starts inherits.
int exec_descriptors() {
  spillway::Config own = config();
  own.spool_dir = log_file + ".spool";
  own.region = "eu-west-1";
  own.metrics = spillway::MetricsTo::put_metric_data;
  own.cloudwatch_endpoint = "http://127.0.0.1:1";
  own.shutdown_timeout = 100ms;
  own.on_diagnostic = [](std::string_view) {};
  spillway::Engine engine(own);
  engine.counter("Requests").add(1);
  SPILLWAY_INFO(engine, "open");
  engine.flush(100ms);
  const pid_t child = fork();
  if (child == 0) {
    execl("/bin/ls", "ls", "-l", "/proc/self/fd", nullptr);
    _exit(127);
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

std::atomic<bool> terminated{false};
pthread_t terminated_on;

// The signal is the host's: it arrives on the host's thread, and the engine goes on until it is told.
int sigterm() {
  struct sigaction action {};
  action.sa_handler = [](int) {
    terminated_on = pthread_self();
    terminated = true;
  };
  sigaction(SIGTERM, &action, nullptr);
  spillway::Engine engine(config());
  for (int i = 0; i < 100; ++i) {
    SPILLWAY_INFO(engine, "working", {"n", i});
    if (i == 50) kill(getpid(), SIGTERM);
  }
  while (!terminated) std::this_thread::yield();
  if (pthread_equal(terminated_on, pthread_self()) == 0) return 3;
  const spillway::Stats stats = engine.shutdown(60s);
  return stats.logs.delivered == 100 && stats.logs.residue() == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 64;
  const std::string_view mode = argv[1];
  log_file = argv[2];
  alarm(120);  // Ends what hangs.
  if (mode == "before-main") return before_main();
  if (mode == "static-destruction") return static_destruction();
  if (mode == "recording-threads") return recording_threads();
  if (mode == "thread-local-destruction") return thread_local_destruction();
  if (mode == "after-shutdown") return after_shutdown();
  if (mode == "daemonise") return daemonise();
  if (mode == "exec-descriptors") return exec_descriptors();
  if (mode == "sigterm") return sigterm();
  return 64;
}
