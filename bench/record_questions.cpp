// SPDX-License-Identifier: Apache-2.0
//
// Questions around the recording path: how does the cost of a call grow with threads, series,
// fields and the length of strings; what does a full ring cost; what does a thread pay at its first
// record, and in memory; what does the first call after a pause cost; and how much does the one
// flusher take in when two threads record flat out. Prints JSON rows.
//
//   record_questions [--quick | --smoke] [--case NAME]
//
// Exit status 1: a sustained run lost count of a record, or a sum is not that of what was recorded.
#include <array>
#include <barrier>
#include <cmath>
#include <deque>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <numeric>
#include <semaphore>
#include <string>
#include <thread>

#include <pthread.h>
#include <simdjson.h>
#include <unistd.h>

#include "options.hpp"
#include "rows.hpp"
#include "subjects.hpp"

namespace {

using std::chrono::milliseconds;
using Samples = std::vector<double>;

const bench::Arguments& arguments() {
  static const bench::Arguments made;
  return made;
}

using bench::Options;

void print(const std::string& name, Samples& ns, int threads = 1,
           const std::string& subject = "spillway") {
  bench::Row row{"record", name, subject, threads};
  row.ns = bench::summarise(ns);
  bench::print(row);
}

/// Nanoseconds of one call.
template <class Call>
double once(Call&& call) {
  const std::uint64_t began = bench::fenced_ticks();
  call();
  const std::uint64_t took = bench::fenced_ticks() - began;
  const std::uint64_t cost = bench::stamp_cost();
  return static_cast<double>(took > cost ? took - cost : 0) * bench::ns_per_tick();
}

spillway::Config to_nowhere() {
  spillway::Config config;
  config.service = "bench";
  config.metrics = spillway::MetricsTo::emf_file;
  config.metrics_file = "/dev/null";
  config.logs = spillway::LogsTo::file;
  config.logs_file = "/dev/null";
  config.on_diagnostic = [](std::string_view) {};
  return config;
}

// ---- How does the cost grow with threads? (1 and 2 are record_percentiles') ----

template <class Call>
void ask_threads(const Options& options, const std::string& name, int batch, Call call) {
  if (!options.wants(name)) return;
  for (const int threads : {4, 8}) {
    std::vector<Samples> samples(static_cast<std::size_t>(threads));
    std::barrier start(threads);
    {
      std::vector<std::jthread> all;
      for (Samples& own : samples) {
        all.emplace_back([&] {
          start.arrive_and_wait();
          const bench::Plan plan{.calls = batch, .bursts = options.times(400)};
          bench::measure(
              plan, call, [] {}, own);
        });
      }
    }
    Samples together;
    for (const Samples& own : samples) together.insert(together.end(), own.begin(), own.end());
    print(name, together, threads);
  }
}

void ask_threads(const Options& options) {
  bench::SpillwaySubject ours;
  ask_threads(options, "counter_add", 100, [&](int) { ours.counter.add(1); });
  ask_threads(options, "histogram_record", 100,
              [&](int i) { ours.histogram.record(arguments().values[i & 1023]); });
  ask_threads(options, "gauge_set", 100,
              [&](int i) { ours.gauge.set(arguments().values[i & 1023]); });
  ask_threads(options, "log_3_fields", 20, [&](int i) { ours.log(i, arguments()); });
  ask_threads(options, "segment_3_annotations", 20, [&](int i) { ours.span(i, arguments()); });
}

// ---- What does the slowest single call cost? Batches hide it; a single one has the clock's own step. ----

void ask_single_calls(const Options& options) {
  bench::SpillwaySubject ours;
  const auto ask = [&](const std::string& name, auto call) {
    if (!options.wants(name)) return;
    Samples ns;
    bench::measure(
        {.calls = 1, .warm_up = 25'000, .batches = 1000, .bursts = options.times(200)}, call, [] {},
        ns);
    print(name, ns, 1);
  };
  ask("single_call_counter_add", [&](int) { ours.counter.add(1); });
  ask("single_call_histogram_record",
      [&](int i) { ours.histogram.record(arguments().values[i & 1023]); });
  ask("single_call_log_3_fields", [&](int i) { ours.log(i, arguments()); });
  ask("single_call_span_3_annotations", [&](int i) { ours.span(i, arguments()); });
}

// ---- With the number of series? ----

void ask_series(const Options& options) {
  for (const int count : {1, 100, 100'000}) {
    for (const bool histograms : {false, true}) {
      const std::string name = histograms ? "histogram_series" : "counter_series";
      if (!options.wants(name)) continue;
      spillway::Config config = to_nowhere();
      config.series_max = std::int64_t{1} << 18;
      config.series_per_metric_max = 200'000;
      spillway::Engine engine(config);
      std::vector<spillway::Counter> counters;
      std::vector<spillway::Histogram> values;
      for (int i = 0; i < count; ++i) {
        const spillway::Dimensions dimensions{{"User", std::to_string(i)}};
        if (histograms) {
          values.push_back(engine.histogram("Latency", spillway::Unit::none, dimensions));
        } else {
          counters.push_back(engine.counter("Requests", spillway::Unit::count, dimensions));
        }
      }
      // Any order but that of their memory.
      std::uint32_t random = 1;
      const auto next = [&random, count] {
        random = random * 1664525U + 1013904223U;
        return (static_cast<std::uint64_t>(random) * static_cast<std::uint32_t>(count)) >> 32;
      };
      const auto call = [&](int i) {
        if (histograms) {
          values[next()].record(arguments().values[i & 1023]);
        } else {
          counters[next()].add(1);
        }
      };
      Samples ns;
      bench::measure(
          {.calls = 100, .bursts = options.times(400)}, call, [] {}, ns);
      print(name, ns, 1, std::to_string(count) + " series");
    }
  }
}

// ---- With fields, and the length of a string? ----

template <std::size_t... Index>
void log_fields(const spillway::Engine& engine, int i, std::index_sequence<Index...>) {
  static constexpr const char* keys[] = {"f0", "f1", "f2",  "f3",  "f4",  "f5",  "f6",  "f7",
                                         "f8", "f9", "f10", "f11", "f12", "f13", "f14", "f15"};
  static_assert(sizeof...(Index) <= std::size(keys));
  static constinit spillway::LogSite site{spillway::Severity::info, "order placed", __FILE__,
                                          __LINE__};
  engine.log(site, {spillway::StaticName(keys[Index]), i + static_cast<int>(Index)}...);
}

void ask_sizes(const Options& options) {
  bench::SpillwaySubject ours;
  const bench::Plan plan{.calls = 20, .bursts = options.times(400)};
  const auto ask = [&](const std::string& name, const std::string& subject, auto call) {
    Samples ns;
    bench::measure(
        plan, call, [] {}, ns);
    print(name, ns, 1, subject);
  };
  if (options.wants("log_fields")) {
    const auto with = [&]<std::size_t count>(std::integral_constant<std::size_t, count>) {
      ask("log_fields", std::to_string(count) + " fields",
          [&](int i) { log_fields(ours.engine, i, std::make_index_sequence<count>()); });
    };
    with(std::integral_constant<std::size_t, 0>());
    with(std::integral_constant<std::size_t, 1>());
    with(std::integral_constant<std::size_t, 2>());
    with(std::integral_constant<std::size_t, 4>());
    with(std::integral_constant<std::size_t, 8>());
    with(std::integral_constant<std::size_t, 16>());
  }
  if (!options.wants("log_string")) return;
  for (const std::size_t bytes : {8U, 64U, 512U, 4096U}) {
    const std::string text(bytes, 'x');
    // Bursts that fit into the ring.
    bench::Plan fitting = plan;
    fitting.batches = bytes > 512 ? 8 : 50;
    Samples ns;
    bench::measure(
        fitting,
        [&](int) {
          SPILLWAY_INFO(ours.engine, "order placed", {"text", std::string_view(text)});
        },
        [] {}, ns);
    print("log_string", ns, 1, std::to_string(bytes) + " bytes");
  }
}

// ---- With the ring near empty, near full, and full? ----

void ask_ring(const Options& options) {
  if (!options.wants("log_ring")) return;
  // Drained by this thread between bursts, so that nothing but the ring's state differs.
  bench::SpillwaySubject ours({.threads = false});
  bench::Plan plan{.calls = 20, .batches = 10, .bursts = options.times(400)};
  plan.pause = std::chrono::microseconds(0);
  constexpr int capacity = (1 << 20) / 8 * 7 / 56;  // Logs before the part kept for warnings.
  const auto fill_up_to = [&](int logs) {
    ours.engine.flush(std::chrono::seconds(10));
    for (int i = 0; i < logs; ++i) ours.log(i, arguments());
  };
  const auto ask = [&](const std::string& state, int filled) {
    fill_up_to(filled);
    Samples ns;
    bench::measure(
        plan, [&](int i) { ours.log(i, arguments()); }, [&] { fill_up_to(filled); }, ns);
    print("log_ring", ns, 1, state);
  };
  ask("near empty", 0);
  ask("near full", capacity - plan.calls * plan.batches - 10);
  ask("dropping", 2 * capacity);
}

// ---- What does the first record of a thread cost, and its memory? ----

/// Threads that wait, each do one thing in their turn, and wait again until the group goes.
class ParkedThreads {
 public:
  /// As many of `count` as the system gives.
  explicit ParkedThreads(int count) {
    pthread_attr_t attributes{};
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 64U << 10);
    for (int i = 0; i < count; ++i) {
      Parked& one = threads_.emplace_back(*this);
      if (pthread_create(&one.thread, &attributes, &ParkedThreads::run, &one) == 0) continue;
      threads_.pop_back();
      break;
    }
    pthread_attr_destroy(&attributes);
    each([] {});
  }
  ~ParkedThreads() {
    leave_ = true;
    for (Parked& one : threads_) {
      one.go.release();
      pthread_join(one.thread, nullptr);
    }
  }

  int size() const { return static_cast<int>(threads_.size()); }
  /// Each thread runs `body`, one after the other.
  void each(std::function<void()> body) {
    body_ = std::move(body);
    for (Parked& one : threads_) {
      one.go.release();
      done_.acquire();
    }
  }

 private:
  struct Parked {
    explicit Parked(ParkedThreads& its_group) : group(its_group) {}
    ParkedThreads& group;
    std::binary_semaphore go{0};
    pthread_t thread{};
  };
  static void* run(void* parked) {
    auto& self = *static_cast<Parked*>(parked);
    for (;;) {
      self.go.acquire();
      if (self.group.leave_) return nullptr;
      self.group.body_();
      self.group.done_.release();
    }
  }

  std::deque<Parked> threads_;
  std::function<void()> body_;
  std::binary_semaphore done_{0};
  bool leave_ = false;
};

/// Of the whole process, counted page by page: /proc/self/statm lags by up to 64 pages a thread.
double resident_bytes() {
  std::ifstream rollup("/proc/self/smaps_rollup");
  for (std::string word; rollup >> word;) {
    if (word != "Rss:") continue;
    double kibibytes = 0;
    rollup >> kibibytes;
    return kibibytes * 1024;
  }
  return bench::absent;
}

void ask_first_record(const Options& options) {
  if (!options.wants("first_record")) return;
  const int threads = options.times(500);
  bench::SpillwaySubject ours;
  const auto ask = [&](const std::string& subject, auto call) {
    Samples ns;
    ParkedThreads(threads).each([&] { ns.push_back(once(call)); });
    print("first_record", ns, 1, subject);
  };
  ask("log, fresh lane", [&] { ours.log(1, arguments()); });
  // The lanes of the threads above, which have ended.
  ask("log, recycled lane", [&] { ours.log(1, arguments()); });
  ask("counter, recycled lane", [&] { ours.counter.add(1); });
}

void ask_memory(const Options& options) {
  if (!options.wants("thread_memory")) return;
  const int threads = options.times(10'000);
  const auto ask = [&](const std::string& subject, const std::function<void()>& body) {
    ParkedThreads parked(threads);
    const double before = resident_bytes();
    parked.each(body);
    bench::Row row{"record", "thread_memory", subject, parked.size()};
    row.bytes = (resident_bytes() - before) / parked.size();
    bench::print(row);
  };
  ask("nothing", [] {});
  bench::SpillwaySubject first;
  ask("one counter add", [&] { first.counter.add(1); });
  bench::SpillwaySubject second;
  ask("one log", [&] { second.log(1, arguments()); });
  bench::SpillwaySubject third;
  ask("a log, a counter, a histogram, a span", [&] {
    third.log(1, arguments());
    third.counter.add(1);
    third.histogram.record(1.5);
    third.span(1, arguments());
  });
}

// ---- What does the first call after an idle second cost? ----

void ask_idle(const Options& options) {
  if (!options.wants("after_idle_second")) return;
  bench::SpillwaySubject ours;
  struct Cold {
    const char* subject;
    std::function<void()> call;
    Samples ns{};
  };
  std::array<Cold, 4> calls{{{"counter add", [&] { ours.counter.add(1); }},
                             {"histogram record", [&] { ours.histogram.record(12.5); }},
                             {"log, 3 fields", [&] { ours.log(1, arguments()); }},
                             {"span, 3 annotations", [&] { ours.span(1, arguments()); }}}};
  const int rounds = options.times(15);
  for (int round = 0; round < rounds; ++round) {
    for (Cold& one : calls) {
      if (round == 0) one.call();  // The thread's very first is another question.
      std::this_thread::sleep_for(options.lasting(milliseconds(1000)));
      one.ns.push_back(once(one.call));
    }
  }
  for (Cold& one : calls) print("after_idle_second", one.ns, 1, one.subject);
}

// ---- How much does the one flusher take in? ----

/// Of what was recorded and of what came out.
struct Sums {
  double count = 0;
  double sum = 0;
};

/// What the EMF documents of a file say of a metric: a number for a counter, an object for a
/// histogram.
Sums read_sums(const std::string& file, std::string_view metric) {
  Sums sums;
  simdjson::dom::parser parser;
  simdjson::dom::document_stream documents;
  if (parser.load_many(file).get(documents) != simdjson::SUCCESS) return sums;
  for (const auto document : documents) {
    simdjson::dom::element found;
    if (document[metric].get(found) != simdjson::SUCCESS) continue;
    if (found.is_object()) {
      sums.count += found["Count"].get_double().value();
      sums.sum += found["Sum"].get_double().value();
    } else {
      sums.sum += found.get_double().value();
    }
  }
  return sums;
}

/// Threads call without a pause. Returns whether every record is accounted for, and `check`, given the
/// calls of all, has nothing to say.
template <class Call, class Check>
bool ask_sustained(const Options& options, const std::string& name, int records_a_call,
                   spillway::SignalStats spillway::Stats::*signal, Call call, Check check,
                   const std::string& metrics_file = "/dev/null", int threads = 2) {
  if (!options.wants(name)) return true;
  bench::SpillwaySubject ours({.metrics_file = metrics_file});
  const milliseconds how_long = options.lasting(milliseconds(10'000));
  std::vector<std::uint64_t> calls(static_cast<std::size_t>(threads));
  const auto began = std::chrono::steady_clock::now();
  {
    std::vector<std::jthread> producers;
    for (std::uint64_t& own : calls) {
      producers.emplace_back([&] {
        std::uint64_t count = 0;
        while (std::chrono::steady_clock::now() - began < how_long) {
          for (int i = 0; i < 1024; ++i) call(ours, i);
          count += 1024;
        }
        own = count;
      });
    }
  }
  const double took =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  const spillway::SignalStats stats = ours.engine.shutdown(std::chrono::seconds(30)).*signal;
  const std::uint64_t all = std::accumulate(calls.begin(), calls.end(), std::uint64_t{0});
  const std::uint64_t made = all * static_cast<std::uint64_t>(records_a_call);
  const auto report = [&](const std::string& subject, std::uint64_t records) {
    bench::Row row{"record", name, subject, threads};
    row.per_second = static_cast<double>(records) / took;
    bench::print(row);
  };
  const std::uint64_t missed = stats.dropped_for(spillway::DropCause::ring_full);
  report("recorded", stats.recorded);
  report("taken in by the flusher", stats.recorded - missed);
  report("dropped at the ring, counted", missed);
  report("delivered", stats.delivered);
  const std::string wrong = check(all);
  if (stats.recorded == made && stats.residue() == 0 && stats.held() == 0 && wrong.empty()) {
    return true;
  }
  std::fprintf(stderr, "%s: %llu calls, recorded %llu, delivered %llu, dropped %llu%s\n",
               name.c_str(), static_cast<unsigned long long>(made),
               static_cast<unsigned long long>(stats.recorded),
               static_cast<unsigned long long>(stats.delivered),
               static_cast<unsigned long long>(stats.dropped_total()), wrong.c_str());
  return false;
}

/// The sums of the documents that came out, against the calls.
std::string check_sums(const std::string& file, std::uint64_t calls, bool with_counter) {
  const Sums counter = read_sums(file, "Requests");
  const Sums histogram = read_sums(file, "Latency");
  double lap = 0;
  for (const double value : arguments().values) lap += value;
  const auto count = static_cast<double>(calls);
  const double sum = count / 1024 * lap;
  // Sums of doubles in another order.
  const bool equal = std::abs(histogram.sum - sum) <= 1e-9 * sum;
  const double counted = with_counter ? count : 0;
  if (counter.sum == counted && histogram.count == count && equal) return {};
  char text[200];
  std::snprintf(text, sizeof text,
                "; counted %.17g, recorded %.17g with the sum %.17g instead of %.17g", counter.sum,
                histogram.count, histogram.sum, sum);
  return text;
}

bool ask_sustained(const Options& options) {
  const std::string file =
      (std::filesystem::temp_directory_path() / ("spillway-sums-" + std::to_string(getpid())))
          .string();
  bool exact = ask_sustained(
      options, "sustained_measurements", 2, &spillway::Stats::metrics,
      [](bench::SpillwaySubject& ours, int i) {
        ours.counter.add(1);
        ours.histogram.record(arguments().values[i & 1023]);
      },
      [&](std::uint64_t calls) { return check_sums(file, calls, true); }, file);
  std::filesystem::remove(file);
  const auto only_counts = [](std::uint64_t) { return std::string(); };
  exact &= ask_sustained(
      options, "sustained_samples", 1, &spillway::Stats::metrics,
      [](bench::SpillwaySubject& ours, int i) {
        ours.histogram.sample(arguments().values[i & 1023]);
      },
      [&](std::uint64_t calls) { return check_sums(file, calls, false); }, file);
  std::filesystem::remove(file);
  exact &= ask_sustained(
      options, "sustained_logs", 1, &spillway::Stats::logs,
      [](bench::SpillwaySubject& ours, int i) { ours.log(i, arguments()); }, only_counts);
  exact &= ask_sustained(
      options, "sustained_logs_of_one", 1, &spillway::Stats::logs,
      [](bench::SpillwaySubject& ours, int i) { ours.log(i, arguments()); }, only_counts,
      "/dev/null", 1);
  exact &= ask_sustained(
      options, "sustained_spans", 1, &spillway::Stats::spans,
      [](bench::SpillwaySubject& ours, int i) { ours.span(i, arguments()); }, only_counts);
  return exact;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options(argc, argv);
  ask_threads(options);
  ask_single_calls(options);
  ask_series(options);
  ask_sizes(options);
  ask_ring(options);
  ask_first_record(options);
  ask_memory(options);
  ask_idle(options);
  return ask_sustained(options) ? 0 : 1;
}
