// SPDX-License-Identifier: Apache-2.0
//
// What recording costs a thread that has recorded before: no system call and no lock, of any kind of record. A thread under
// a seccomp filter cannot make a system call and live; the C library's locks are this program's own, and count.
// allocation_test counts allocations. Not built with sanitizers, which make both.
#include <atomic>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <new>
#include <string>
#include <string_view>

#include <arpa/inet.h>
#include <dlfcn.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <support/child_process.hpp>
#include <support/engine_fixture.hpp>
#include <support/temporary_file.hpp>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

constinit thread_local bool counting = false;
constinit thread_local std::size_t locks_taken = 0;

/// Counts a call of the C library's `name`, and makes it.
template <class Lock>
int take(const char* name, std::atomic<int (*)(Lock*)>& real, Lock* lock) {
  if (counting) ++locks_taken;
  auto function = real.load(std::memory_order_relaxed);
  if (function == nullptr) {
    function = reinterpret_cast<int (*)(Lock*)>(dlsym(RTLD_NEXT, name));
    real.store(function, std::memory_order_relaxed);
  }
  return function(lock);
}

}  // namespace

extern "C" {
int pthread_mutex_lock(pthread_mutex_t* lock) noexcept {
  static std::atomic<int (*)(pthread_mutex_t*)> real{nullptr};
  return take("pthread_mutex_lock", real, lock);
}
int pthread_mutex_trylock(pthread_mutex_t* lock) noexcept {
  static std::atomic<int (*)(pthread_mutex_t*)> real{nullptr};
  return take("pthread_mutex_trylock", real, lock);
}
int pthread_rwlock_rdlock(pthread_rwlock_t* lock) noexcept {
  static std::atomic<int (*)(pthread_rwlock_t*)> real{nullptr};
  return take("pthread_rwlock_rdlock", real, lock);
}
int pthread_rwlock_wrlock(pthread_rwlock_t* lock) noexcept {
  static std::atomic<int (*)(pthread_rwlock_t*)> real{nullptr};
  return take("pthread_rwlock_wrlock", real, lock);
}
int pthread_spin_lock(pthread_spinlock_t* lock) noexcept {
  static std::atomic<int (*)(pthread_spinlock_t*)> real{nullptr};
  return take("pthread_spin_lock", real, lock);
}
}

namespace spillway {
namespace {

using namespace std::chrono_literals;

/// Written by a child that is about to end: the system call it has made, plus 1.
std::atomic<long>* const made_call =
    new (mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))
        std::atomic<long>(0);

/// From here on the calling thread may only end its process.
bool forbid_system_calls() {
  struct sigaction action {};
  action.sa_flags = SA_SIGINFO;
  action.sa_sigaction = [](int, siginfo_t* info, void*) {
    *made_call = info->si_syscall + 1;
    _exit(3);
  };
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
  };
  const sock_fprog filter{static_cast<unsigned short>(std::size(program)), program};
  return sigaction(SIGSYS, &action, nullptr) == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

/// One of each kind of record that there is.
class Records {
 public:
  explicit Records(Engine& engine) : engine_(engine) {}

  void record(int i) const {
    const Context context{{.tenant = "acme", .user = "u-17", .request_id = "0f1e2d3c-4b5a-6978"}};
    const Scope scope(context);
    requests_.add(1);
    requests_.add(0.5);
    per_tenant_.add(1);
    depth_.set(i);
    latency_.record(i * 0.25);
    latency_.record(-i);
    latency_.sample(i);
    SPILLWAY_INFO(engine_, "order placed", {"order_id", i}, {"total", i * 1.5}, {"text", text_});
    SPILLWAY_TRACE(engine_, "below the level", {"order_id", i});
    SPILLWAY_WARN(logger_, "of a named logger", {"n", i}, {"good", true});
    SPILLWAY_EVENT(engine_, EventMetric{{"Took", Unit::milliseconds}, 12.5},
                   EventProperty{"order_id", 4711}, EventDimension{"Route", text_});
    Span root = engine_.span("orders");
    Span child = engine_.span("charge-card");
    child.annotate("provider", "acme");
    child.annotate("cents", i);
    child.metadata("cache", "hits", i);
    child.http_request({.method = "POST", .url = "https://pay.example/charges"});
    child.http_response(200, 17);
  }

 private:
  Engine& engine_;
  const Counter requests_ = engine_.counter("Requests");
  const Gauge depth_ = engine_.gauge("Depth");
  const Histogram latency_ = engine_.histogram("Latency");
  const decltype(engine_.per(requests_, ContextField::tenant, "TenantID")) per_tenant_ =
      engine_.per(requests_, ContextField::tenant, "TenantID");
  const Logger logger_ = engine_.logger("db.pool");
  const std::string text_ = "nine char";
};

/// Takes datagrams as X-Ray's daemon does.
class Daemon {
 public:
  Daemon() {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t bytes = sizeof address;
    bind(socket_, reinterpret_cast<sockaddr*>(&address), bytes);
    getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &bytes);
    port_ = ntohs(address.sin_port);
  }
  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;
  ~Daemon() { close(socket_); }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

 private:
  const int socket_ = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  std::uint16_t port_ = 0;
};

/// With rings in memory, and with rings that outlive the process.
class HotPathTest : public ::testing::TestWithParam<bool> {
 protected:
  Config config() const {
    Config config;
    config.service = "hot";
    config.metrics = MetricsTo::emf_file;
    config.metrics_file = directory_.path("emf");
    config.logs = LogsTo::file;
    config.logs_file = directory_.path("log");
    config.traces = TracesTo::xray_daemon;
    config.xray_daemon_address = daemon_.address();
    config.trace_sample_rate = 1.0;
    config.log_rate_max = 0;
    config.on_diagnostic = [](std::string_view) {};
    if (GetParam()) config.crash_dir = directory_.path("crash");
    return config;
  }
  /// In a child: an engine with its threads, and a thread that has recorded.
  template <class Body>
  int in_child(Body&& body) const {
    *made_call = 0;
    return testing::exit_status_of_child([&] {
      Engine engine(config());
      const Records records(engine);
      for (int i = 0; i < 1000; ++i) records.record(i);
      engine.flush(10s);
      return body(records, engine);
    });
  }

  const Daemon daemon_;
  const testing::TemporaryDirectory directory_;
};

TEST_P(HotPathTest, NoRecordMakesASystemCall) {
  EXPECT_EQ(in_child([](const Records& records, const Engine&) {
              if (!forbid_system_calls()) return 2;
              for (int i = 0; i < 20'000; ++i) records.record(i);
              _exit(0);  // Before anything of the engine's end.
              return 1;
            }),
            0)
      << "system call " << *made_call - 1;
}

TEST_P(HotPathTest, ASystemCallWouldShow) {
  EXPECT_EQ(in_child([](const Records& records, const Engine&) {
              if (!forbid_system_calls()) return 2;
              records.record(1);
              return static_cast<int>(getppid() & 0) + 1;
            }),
            3);
  EXPECT_EQ(*made_call - 1, SYS_getppid);
}

TEST_P(HotPathTest, NoRecordTakesALock) {
  EXPECT_EQ(in_child([](const Records& records, const Engine&) {
              locks_taken = 0;
              counting = true;
              for (int i = 0; i < 20'000; ++i) records.record(i);
              counting = false;
              return locks_taken == 0 ? 0 : 1;
            }),
            0);
}

TEST_P(HotPathTest, ALockWouldShow) {
  EXPECT_EQ(in_child([](const Records&, Engine& engine) {
              locks_taken = 0;
              counting = true;
              static_cast<void>(engine.counter("Another"));
              counting = false;
              return locks_taken == 0 ? 1 : 0;
            }),
            0);
}

INSTANTIATE_TEST_SUITE_P(Rings, HotPathTest, ::testing::Bool(), [](const auto& instance) {
  return instance.param ? "OfFiles" : "InMemory";
});

}  // namespace
}  // namespace spillway
