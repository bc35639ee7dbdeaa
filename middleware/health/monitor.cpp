// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cerrno>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <new>
#include <optional>
#include <set>
#include <system_error>
#include <thread>
#include <utility>

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <spillway/encoders/json.hpp>
#include <spillway/engine/engine.hpp>
#include <spillway/middleware/health/monitor.hpp>
#include <spillway/middleware/resilience/draw.hpp>
#include <spillway/middleware/resilience/settings.hpp>
#include <spillway/transport/background_thread.hpp>

namespace spillway::middleware {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;

std::string_view to_string(CheckStatus status) noexcept {
  constexpr std::array<std::string_view, 3> names{"pass", "warn", "fail"};
  return names[static_cast<std::size_t>(status)];
}

std::string_view to_string(ServiceState state) noexcept {
  constexpr std::array<std::string_view, 4> names{"starting", "up", "degraded", "down"};
  return names[static_cast<std::size_t>(state)];
}

namespace {

// Checks of many processes that began together spread by this share of their interval.
constexpr double interval_jitter = 0.1;

/// Wakes a thread that polls, from anywhere: write() may be called in a signal handler.
class WakeUp {
 public:
  WakeUp() : descriptor_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (descriptor_ < 0)
      throw std::system_error(errno, std::generic_category(), "spillway: eventfd");
  }
  WakeUp(const WakeUp&) = delete;
  WakeUp& operator=(const WakeUp&) = delete;
  ~WakeUp() { close(descriptor_); }

  void wake() const noexcept {
    const int before = errno;  // It is the interrupted code's.
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t size = write(descriptor_, &one, sizeof one);
    errno = before;
  }
  void wait(milliseconds time) const noexcept {
    pollfd look{descriptor_, POLLIN, 0};
    if (poll(&look, 1, static_cast<int>(time.count())) <= 0) return;
    std::uint64_t count = 0;
    [[maybe_unused]] const ssize_t size = read(descriptor_, &count, sizeof count);
  }

 private:
  const int descriptor_;
};

/// A dependency and what is known of it.
struct Entry {
  explicit Entry(Dependency of) : dependency(std::move(of)) {}

  const Dependency dependency;
  Gauge healthy;      // 1, 0.5, 0
  Histogram latency;  // milliseconds
  Counter transitions;

  std::optional<CheckStatus> status;  // none: no result yet
  CheckResult last;
  WallTime last_time{};
  nanoseconds last_took{};
  int failures = 0;  // in a row

  bool running = false;
  bool overdue = false;  // the run was counted as failed already; its result will be too late
  SteadyTime begun{};
  SteadyTime due{};

  bool breaker_open() const noexcept { return failures >= dependency.breaker_failures; }
  bool is(CheckStatus wanted) const noexcept { return status == wanted; }
};

/// Everything that is ever answered, until the next change.
struct Answers {
  std::array<HealthAnswer, health_endpoint_count> normal;
  std::array<HealthAnswer, health_endpoint_count> draining;
};

void check_options(const HealthOptions& options) {
  constexpr milliseconds hour{3'600'000};
  SettingsCheck check("health checks");
  check.within("startup_grace", options.startup_grace, milliseconds(0), hour)
      .within<std::size_t>("dependencies.size()", options.dependencies.size(), 0,
                           health_dependencies_max);
  std::set<std::string_view> names;
  for (const Dependency& one : options.dependencies) {
    const std::string of = "dependency \"" + one.name + "\": ";
    check.require(!one.name.empty(), "a dependency has no name")
        .require(names.insert(one.name).second, of + "the name is there twice")
        .require(static_cast<bool>(one.check), of + "there is no check")
        .within(of + "interval", one.interval, milliseconds(10), hour)
        .within(of + "timeout", one.timeout, milliseconds(1), hour)
        .within(of + "interval_max", one.interval_max, milliseconds(10), 24 * hour)
        .within(of + "failures_max", one.failures_max, 1, 1000)
        .within(of + "breaker_failures", one.breaker_failures, 1, 1000);
  }
  check.done();
}

HealthOptions checked(HealthOptions options) {
  check_options(options);
  if (options.clock == nullptr) options.clock = spillway::detail::system_clock();
  return options;
}

CheckResult run_guarded(const Dependency& dependency, const std::atomic<bool>& stopping) noexcept {
  try {
    try {
      return dependency.check(CheckRun(dependency.timeout, stopping));
    } catch (const std::exception& error) {
      return CheckResult::fail(error.what());
    } catch (...) {
      return CheckResult::fail("the check threw something that is no std::exception");
    }
  } catch (...) {  // No memory for the text.
    CheckResult result;
    result.status = CheckStatus::fail;
    return result;
  }
}

}  // namespace

class HealthMonitor::Core {
 public:
  explicit Core(HealthOptions options)
      : options_(checked(std::move(options))), clock_(*options_.clock) {
    began_ = clock_.steady();
    for (Dependency& one : options_.dependencies) entries_.emplace_back(std::move(one));
    if (options_.engine != nullptr) make_metrics(*options_.engine);
    workers_.reserve(entries_.size());  // A thread that has begun cannot fail to find its place.
    render_stalled();
    beat(began_);
    {
      const std::scoped_lock lock(mutex_);
      publish(began_);
    }
    if (options_.threads)
      timekeeper_ = transport::start_thread("spillway-health", [this] { keep_time(); });
  }
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;

  ~Core() {
    stopping_.store(true);
    wake_.wake();
    if (timekeeper_.joinable()) timekeeper_.join();
    {
      const std::scoped_lock lock(mutex_);  // Pairs with the wait in work().
    }
    work_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  bool is_inherited() const noexcept { return home_.is_another(); }

  std::shared_ptr<const HealthAnswer> answer(HealthEndpoint endpoint,
                                             SteadyTime now) const noexcept {
    const auto index = static_cast<std::size_t>(endpoint);
    std::shared_ptr<const Answers> answers;
    if (now.time_since_epoch().count() - beat_ns_.load(std::memory_order_relaxed) >=
        nanoseconds(health_stalled_after).count()) [[unlikely]] {
      answers = stalled_;
    } else {
      const std::scoped_lock lock(answers_mutex_);
      answers = answers_;
    }
    const HealthAnswer& one = is_draining() ? answers->draining[index] : answers->normal[index];
    return {std::move(answers), &one};
  }
  ServiceState state() const noexcept { return state_.load(std::memory_order_relaxed); }

  // Only what a signal handler may do.
  void begin_draining() noexcept {
    draining_.store(true, std::memory_order_relaxed);
    wake_.wake();
  }
  bool is_draining() const noexcept { return draining_.load(std::memory_order_relaxed); }

  void refresh() noexcept {
    {
      const std::scoped_lock lock(mutex_);
      for (Entry& entry : entries_) {
        if (!entry.running) entry.due = SteadyTime{};
      }
    }
    wake_.wake();
  }

  void step() {
    std::unique_lock lock(mutex_);
    round(clock_.steady());
    while (!queue_.empty()) run_next(lock);
  }

 private:
  void make_metrics(Engine& engine) {
    healthy_ = engine.gauge("ServiceHealthy");
    for (Entry& entry : entries_) {
      const Dimensions by{{"Dependency", entry.dependency.name}};
      entry.healthy = engine.gauge("DependencyHealthy", Unit::none, by);
      entry.latency = engine.histogram("HealthCheckLatency", Unit::milliseconds, by);
      entry.transitions = engine.counter("HealthTransitions", Unit::count, by);
    }
  }

  // ---- Threads ----

  void keep_time() {
    while (!stopping_.load()) {
      milliseconds wait = health_beat;
      try {
        const std::scoped_lock lock(mutex_);
        const SteadyTime now = clock_.steady();
        round(now);
        start_workers();
        wait = std::chrono::ceil<milliseconds>(next_event(now) - now);
      } catch (const std::bad_alloc&) {  // The answers stay as they are for a while.
      }
      wake_.wait(std::clamp<milliseconds>(wait, milliseconds(1), health_beat));
    }
  }

  // With mutex_ held.
  void start_workers() {
    while (queue_.size() > idle_ && workers_.size() < entries_.size()) {
      try {
        workers_.push_back(transport::start_thread("spillway-check", [this] { work(); }));
        ++idle_;  // It is about to be.
      } catch (const std::exception&) {
        return;  // No thread now: what waits is counted as failed by its time-out, and again tried.
      }
    }
    work_.notify_all();
  }

  void work() {
    std::unique_lock lock(mutex_);
    while (true) {
      work_.wait(lock, [this] { return stopping_.load() || !queue_.empty(); });
      if (stopping_.load()) return;
      --idle_;
      try {
        run_next(lock);
      } catch (const std::bad_alloc&) {  // Of what is settled; it is rendered by the next round.
      }
      ++idle_;
      wake_.wake();
    }
  }

  // Runs the first of the queue, without the lock.
  void run_next(std::unique_lock<std::mutex>& lock) {
    Entry& entry = *queue_.front();
    queue_.pop_front();
    lock.unlock();
    CheckResult result = run_guarded(entry.dependency, stopping_);
    const SteadyTime now = clock_.steady();
    lock.lock();
    entry.running = false;
    if (std::exchange(entry.overdue, false)) return;  // Counted when its time was over.
    const milliseconds timeout = entry.dependency.timeout;
    if (now - entry.begun >= timeout) result = too_late(timeout);
    settle(entry, std::move(result), now);
    publish(now);
  }

  static CheckResult too_late(milliseconds timeout) {
    return CheckResult::fail("no result within " + std::to_string(timeout.count()) + " ms");
  }

  // ---- What is due. With mutex_ held. ----

  void round(SteadyTime now) {
    beat(now);
    for (Entry& entry : entries_) {
      if (entry.running) {
        // Once at its time-out, and again each time that it would have been due.
        const SteadyTime end = entry.overdue ? entry.due : entry.begun + entry.dependency.timeout;
        if (now < end) continue;
        entry.overdue = true;
        settle(entry, too_late(entry.dependency.timeout), now);
      } else if (now >= entry.due) {
        entry.running = true;
        entry.begun = now;
        queue_.push_back(&entry);
      }
    }
    publish(now);
  }

  SteadyTime next_event(SteadyTime now) const {
    SteadyTime next = now + health_beat;
    if (!started_) next = std::min(next, began_ + options_.startup_grace);
    for (const Entry& entry : entries_) {
      next = std::min(next, entry.running && !entry.overdue ? entry.begun + entry.dependency.timeout
                                                            : entry.due);
    }
    return next;
  }

  void beat(SteadyTime now) noexcept {
    beat_ns_.store(now.time_since_epoch().count(), std::memory_order_relaxed);
  }

  // ---- Results. With mutex_ held. ----

  void settle(Entry& entry, CheckResult result, SteadyTime now) {
    const Dependency& dependency = entry.dependency;
    entry.failures =
        result.status == CheckStatus::fail ? std::min(entry.failures + 1, 1'000'000) : 0;
    CheckStatus status = result.status;
    // A dependency that worked is given another chance; one that never did is not.
    if (status == CheckStatus::fail && entry.failures < dependency.failures_max &&
        entry.status.has_value() && !entry.is(CheckStatus::fail))
      status = CheckStatus::warn;
    result.output = spillway::detail::cut_utf8(result.output, check_output_bytes_max);
    entry.last = std::move(result);
    entry.last_time = clock_.wall();
    entry.last_took = now - entry.begun;
    entry.due = now + next_interval(entry);
    const std::optional<CheckStatus> before = std::exchange(entry.status, status);
    tell(entry, before);
  }

  nanoseconds next_interval(const Entry& entry) const {
    const Dependency& dependency = entry.dependency;
    milliseconds interval = dependency.interval;
    if (entry.breaker_open()) {
      const milliseconds longest = std::max(dependency.interval, dependency.interval_max);
      for (int i = dependency.breaker_failures; i <= entry.failures && interval < longest; ++i)
        interval *= 2;
      interval = std::min(interval, longest);
    }
    const double jitter = options_.threads ? 1 + interval_jitter * (2 * draw() - 1) : 1;
    return std::chrono::duration_cast<nanoseconds>(interval * jitter);
  }

  void tell(const Entry& entry, std::optional<CheckStatus> before) const {
    if (options_.engine == nullptr) return;
    constexpr std::array<double, 3> levels{1, 0.5, 0};
    entry.healthy.set(levels[static_cast<std::size_t>(*entry.status)]);
    entry.latency.record(std::chrono::duration<double, std::milli>(entry.last_took).count());
    if (before == entry.status) return;
    if (before.has_value()) entry.transitions.add(1);
    const std::string_view name = entry.dependency.name;
    const std::string_view from = before ? to_string(*before) : "unknown";
    const std::string_view to = to_string(*entry.status);
    const std::string_view output = entry.last.output;
    if (*entry.status == CheckStatus::pass) {
      SPILLWAY_INFO(*options_.engine, "dependency changed", {"dependency", name}, {"from", from},
                    {"to", to}, {"required", entry.dependency.required});
    } else {
      SPILLWAY_WARN(*options_.engine, "dependency changed", {"dependency", name}, {"from", from},
                    {"to", to}, {"required", entry.dependency.required}, {"output", output},
                    {"failures", entry.failures});
    }
  }

  ServiceState judge(SteadyTime now) {
    bool down = false;
    bool unknown = false;
    bool concern = false;
    for (const Entry& entry : entries_) {
      const bool required = entry.dependency.required || entry.dependency.liveness;
      down |= required && entry.is(CheckStatus::fail);
      unknown |= required && !entry.status.has_value();
      concern |= entry.status.has_value() && !entry.is(CheckStatus::pass);
    }
    if (!started_ && ((!down && !unknown) || now - began_ >= options_.startup_grace))
      started_ = true;
    if (!started_) return ServiceState::starting;
    if (down || unknown) return ServiceState::down;
    return concern ? ServiceState::degraded : ServiceState::up;
  }

  // What is answered from now on.
  void publish(SteadyTime now) {
    const ServiceState before = state_.load(std::memory_order_relaxed);
    const ServiceState state = judge(now);
    state_.store(state, std::memory_order_relaxed);
    const bool live = std::none_of(entries_.begin(), entries_.end(), [](const Entry& entry) {
      return entry.dependency.liveness && entry.is(CheckStatus::fail);
    });
    auto answers = std::make_shared<Answers>();
    answers->normal = render(state, live, false);
    answers->draining = render(state, live, true);
    {
      const std::scoped_lock lock(answers_mutex_);
      answers_ = std::move(answers);  // The old ones go when the last request let go of them.
    }
    if (options_.engine == nullptr) return;
    constexpr std::array<double, 4> levels{0, 1, 0.5, 0};
    healthy_.set(levels[static_cast<std::size_t>(state)]);
    if (state != before) {
      if (state == ServiceState::up) {
        SPILLWAY_INFO(*options_.engine, "service changed", {"from", to_string(before)},
                      {"to", to_string(state)});
      } else {
        SPILLWAY_WARN(*options_.engine, "service changed", {"from", to_string(before)},
                      {"to", to_string(state)});
      }
    }
    if (is_draining() && !std::exchange(draining_told_, true))
      SPILLWAY_INFO(*options_.engine, "service drains", {"state", to_string(state)});
  }

  // ---- Rendering ----

  std::array<HealthAnswer, health_endpoint_count> render(ServiceState state, bool live,
                                                         bool draining) const {
    const bool works = state == ServiceState::up || state == ServiceState::degraded;
    const bool broken = state == ServiceState::down;
    const auto head = [&](CheckStatus status) {
      spillway::detail::ByteBuffer out;
      out.append("{\"status\":\"");
      out.append(to_string(status));
      out.append("\"");
      return out;
    };
    const auto done = [](spillway::detail::ByteBuffer& out, int status) {
      out.append("}");
      return HealthAnswer{status, std::string(out.view())};
    };
    const CheckStatus whole = broken                                   ? CheckStatus::fail
                              : state == ServiceState::up && !draining ? CheckStatus::pass
                                                                       : CheckStatus::warn;
    std::array<HealthAnswer, health_endpoint_count> answers;
    const auto at = [&](HealthEndpoint endpoint) -> HealthAnswer& {
      return answers[static_cast<std::size_t>(endpoint)];
    };
    auto out = head(live ? CheckStatus::pass : CheckStatus::fail);
    at(HealthEndpoint::live) = done(out, live ? 200 : 503);
    const bool ready = works && live && !draining;
    out = head(!ready ? CheckStatus::fail : whole);
    append_notes(out, state, draining);
    at(HealthEndpoint::ready) = done(out, ready ? 200 : 503);
    out = head(whole);
    append_notes(out, state, draining);
    at(HealthEndpoint::health) = done(out, broken ? 503 : 200);
    out = head(whole);
    append_notes(out, state, draining);
    append_details(out);
    at(HealthEndpoint::detail) = done(out, broken ? 503 : 200);
    return answers;
  }

  static void append_notes(spillway::detail::ByteBuffer& out, ServiceState state, bool draining) {
    if (state == ServiceState::up && !draining) return;
    out.append(",\"notes\":[");
    if (state != ServiceState::up) {
      out.append("\"");
      out.append(to_string(state));
      out.append(draining ? "\"," : "\"");
    }
    if (draining) out.append("\"draining\"");
    out.append("]");
  }

  void append_details(spillway::detail::ByteBuffer& out) const {
    using spillway::detail::append_json_string;
    const auto text = [&](std::string_view name, std::string_view value) {
      if (value.empty()) return;
      out.append(name);
      append_json_string(out, value);
    };
    text(",\"serviceId\":", options_.service_id);
    text(",\"releaseId\":", options_.release);
    out.append(",\"checks\":{");
    std::string_view separator;
    for (const Entry& entry : entries_) {
      const Dependency& dependency = entry.dependency;
      out.append(std::exchange(separator, ","));
      append_json_string(out, dependency.name + ":" + entry.last.measure);
      text(":[{\"componentId\":", dependency.name);
      text(",\"componentType\":", dependency.type);
      out.append(dependency.required ? ",\"required\":true" : ",\"required\":false");
      if (!entry.status.has_value()) {
        out.append(",\"status\":\"warn\",\"output\":\"no result yet\"}]");
        continue;
      }
      text(",\"status\":", to_string(*entry.status));
      text(",\"output\":", entry.last.output);
      out.append(",\"observedValue\":");
      using Milliseconds = std::chrono::duration<double, std::milli>;
      spillway::detail::append_number(
          out, entry.last.observed.value_or(Milliseconds(entry.last_took).count()));
      text(",\"observedUnit\":", entry.last.unit);
      out.append(",\"time\":\"");
      spillway::detail::append_iso8601(
          out, std::chrono::duration_cast<nanoseconds>(entry.last_time.time_since_epoch()).count());
      out.append("\",\"failures\":");
      spillway::detail::append_number(out, static_cast<std::int64_t>(entry.failures));
      text(",\"breaker\":", entry.breaker_open() ? "open" : "closed");
      out.append("}]");
    }
    out.append("}");
  }

  void render_stalled() {
    const bool judges_life = std::any_of(entries_.begin(), entries_.end(), [](const Entry& entry) {
      return entry.dependency.liveness;
    });
    const HealthAnswer broken{503, R"({"status":"fail","output":"the health checks stand still"})"};
    Answers answers;
    answers.normal.fill(broken);
    if (!judges_life)
      answers.normal[static_cast<std::size_t>(HealthEndpoint::live)] = {200,
                                                                        R"({"status":"pass"})"};
    answers.draining = answers.normal;
    stalled_ = std::make_shared<const Answers>(std::move(answers));
  }

  HealthOptions options_;
  Clock& clock_;
  const transport::HomeProcess home_;
  SteadyTime began_{};
  WakeUp wake_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> draining_{false};
  std::atomic<std::int64_t> beat_ns_{0};
  std::atomic<ServiceState> state_{ServiceState::starting};
  static_assert(std::atomic<bool>::is_always_lock_free, "begin_draining() is for signal handlers");

  std::mutex mutex_;  // of what follows
  std::deque<Entry> entries_;
  std::deque<Entry*> queue_;  // to be run; each entry at most once
  std::condition_variable work_;
  std::size_t idle_ = 0;  // workers that wait, or are about to
  std::vector<std::thread> workers_;
  bool started_ = false;
  bool draining_told_ = false;
  Gauge healthy_;

  mutable std::mutex answers_mutex_;  // of the pointer, held to copy it
  std::shared_ptr<const Answers> answers_;
  std::shared_ptr<const Answers> stalled_;  // never changes
  std::thread timekeeper_;
};

HealthMonitor::HealthMonitor(HealthOptions options)
    : core_(std::make_unique<Core>(std::move(options))) {}
HealthMonitor::~HealthMonitor() { transport::release_inherited(core_); }
std::shared_ptr<const HealthAnswer> HealthMonitor::answer(HealthEndpoint endpoint,
                                                          SteadyTime now) const noexcept {
  return core_->answer(endpoint, now);
}
ServiceState HealthMonitor::state() const noexcept { return core_->state(); }
void HealthMonitor::begin_draining() noexcept { core_->begin_draining(); }
bool HealthMonitor::is_draining() const noexcept { return core_->is_draining(); }
void HealthMonitor::refresh() noexcept { core_->refresh(); }
void HealthMonitor::step() { core_->step(); }

}  // namespace spillway::middleware
