// SPDX-License-Identifier: Apache-2.0
//
// Question: what does one recording call cost the caller, by percentiles, on 1 and 2 threads,
// beside its floor and what a service would use in its place? Subjects take turns, round by round,
// so that a slow minute of the machine meets all alike. Prints JSON rows, one a line.
//
//   record_percentiles [--quick] [--case NAME]
#include <barrier>
#include <cmath>
#include <functional>
#include <map>
#include <thread>

#include "percentiles.hpp"
#include "subjects.hpp"

namespace {

using Samples = std::vector<double>;

struct Case {
  std::string name;
  std::string subject;
  bench::Plan plan;
  /// Called on each measuring thread; appends its samples.
  std::function<void(const bench::Plan&, Samples&)> run;
};

const bench::Arguments& arguments() {
  static const bench::Arguments made;
  return made;
}

Samples run_on(int threads, const Case& what) {
  std::vector<Samples> samples(static_cast<std::size_t>(threads));
  std::barrier start(threads);
  std::vector<std::thread> others;
  const auto body = [&](std::size_t t) {
    start.arrive_and_wait();
    what.run(what.plan, samples[t]);
  };
  for (int t = 1; t < threads; ++t) others.emplace_back(body, static_cast<std::size_t>(t));
  body(0);
  for (std::thread& other : others) other.join();
  for (std::size_t t = 1; t < samples.size(); ++t) {
    samples[0].insert(samples[0].end(), samples[t].begin(), samples[t].end());
  }
  return std::move(samples[0]);
}

template <class Call>
std::function<void(const bench::Plan&, Samples&)> calls(Call call) {
  return [call](const bench::Plan& plan, Samples& samples) {
    bench::measure(
        plan, call, [] {}, samples);
  };
}

// ---- Floors: bare code that does the stores and clock reads of the call, and nothing else ----

struct FloorRing {
  std::unique_ptr<std::byte[]> bytes =
      std::make_unique<std::byte[]>((1U << 20) + 256);  // The last record may hang over.
  std::atomic<std::uint64_t> head{0};
  std::atomic<std::uint64_t> tail{0};
  bench::Consumer consumer{[this] {
    // Reads what a drain reads: the lines that were written since.
    const std::uint64_t end = head.load(std::memory_order_acquire);
    std::uint64_t sum = 0;
    for (std::uint64_t at = tail.load(std::memory_order_relaxed); at < end; at += 64) {
      std::uint64_t word = 0;
      std::memcpy(&word, &bytes[at & ((1U << 20) - 1)], 8);
      sum += word;
    }
    bench::opaque(sum);
    tail.store(end, std::memory_order_release);
  }};

  std::byte* room() { return &bytes[head.load(std::memory_order_relaxed) & ((1U << 20) - 1)]; }
  void commit(std::uint64_t size) {
    head.store(head.load(std::memory_order_relaxed) + size, std::memory_order_release);
  }
};

FloorRing& floor_ring() {
  thread_local FloorRing ring;
  return ring;
}

void floor_counter(int /*i*/) {
  thread_local std::uint64_t cell = 0;
  cell += 1;
  bench::opaque(cell);
}

void floor_gauge(int i) {
  thread_local struct {
    double last, sum;
    std::uint64_t count;
  } cell{};
  cell.last = arguments().values[i & 1023];
  cell.sum += cell.last;
  bench::opaque(cell.sum);
  cell.count += 1;
  bench::opaque(cell.count);
}

void floor_histogram(int i) {
  thread_local struct {
    double sum;
    std::uint64_t count;
    std::uint32_t buckets[8192];
  } cell{};
  const double value = arguments().values[i & 1023];
  ++cell.buckets[(std::bit_cast<std::uint64_t>(value) >> 45) & 8191];
  cell.sum += value;
  bench::opaque(cell.sum);
  cell.count += 1;
  bench::opaque(cell.count);
}

void floor_log(int i) {
  FloorRing& ring = floor_ring();
  const bench::Arguments& with = arguments();
  std::byte* const at = ring.room();
  const std::uint64_t head[2] = {static_cast<std::uint64_t>(i), spillway::detail::hardware_ticks()};
  const std::uint32_t size = 9;
  std::memcpy(at, head, 16);
  std::memcpy(at + 16, &i, 4);
  std::memcpy(at + 24, &with.values[i & 1023], 8);
  std::memcpy(at + 32, &size, 4);
  std::memcpy(at + 36, with.view.data(), 9);
  ring.commit(48);
}

void floor_span(int i) {
  FloorRing& ring = floor_ring();
  const bench::Arguments& with = arguments();
  const std::uint64_t start = spillway::detail::hardware_ticks();
  std::byte* const at = ring.room();
  const std::uint64_t words[9] = {1, start, 3, 4, 5, 6, 7, 8, static_cast<std::uint64_t>(i)};
  std::memcpy(at, words, sizeof words);
  std::memcpy(at + 72, &with.values[i & 1023], 8);
  std::memcpy(at + 80, with.view.data(), 9);
  const std::uint64_t end = spillway::detail::hardware_ticks();
  std::memcpy(at + 96, &end, 8);
  ring.commit(112);
}

std::vector<Case> all_cases(bench::SpillwaySubject& ours) {
  const bench::Plan cell{.calls = 100};
  const bench::Plan record{.calls = 20};
  std::vector<Case> cases {
    {"counter_add", "spillway", cell, calls([&](int) { ours.counter.add(1); })},
        {"counter_add", "floor", cell, calls(floor_counter)},
        {"gauge_set", "spillway", cell,
         calls([&](int i) { ours.gauge.set(arguments().values[i & 1023]); })},
        {"gauge_set", "floor", cell, calls(floor_gauge)},
        {"histogram_record", "spillway", cell,
         calls([&](int i) { ours.histogram.record(arguments().values[i & 1023]); })},
        {"histogram_record", "floor", cell, calls(floor_histogram)},
        {"counter_by_context", "spillway", cell,
         [&](const bench::Plan& plan, Samples& samples) {
           const spillway::Context context{{.tenant = "acme"}};
           const spillway::Scope scope(context);
           bench::measure(
               plan, [&](int) { ours.by_tenant.add(1); }, [] {}, samples);
         }},
        {"log_disabled", "spillway", cell,
         calls([&](int i) { ours.log_disabled(i, arguments()); })},
        {"log_3_fields", "spillway", record, calls([&](int i) { ours.log(i, arguments()); })},
        {"log_3_fields", "floor", record, calls(floor_log)},
        {"log_3_fields", "boost spsc_queue", record,
         [](const bench::Plan& plan, Samples& samples) {
           const auto subject = std::make_unique<bench::BoostSpscSubject>();
           bench::measure(
               plan, [&](int i) { subject->log(i, arguments()); }, [] {}, samples);
         }},
        {"log_3_fields", "moodycamel", record,
         [](const bench::Plan& plan, Samples& samples) {
           static bench::MoodycamelSubject subject;
           auto token = subject.token();
           bench::measure(
               plan, [&](int i) { subject.log(token, i, arguments()); }, [] {}, samples);
         }},
#if defined(SPILLWAY_BENCH_SPDLOG)
        {"log_3_fields", "spdlog async", record,
         [](const bench::Plan& plan, Samples& samples) {
           static bench::SpdlogSubject subject;
           bench::measure(
               plan, [&](int i) { subject.log(i, arguments()); }, [] {}, samples);
         }},
#endif
        {"span_3_annotations", "spillway", record,
         [&](const bench::Plan& plan, Samples& samples) {
           const spillway::Span root = ours.engine.span("root");
           bench::measure(
               plan, [&](int i) { ours.span(i, arguments()); }, [] {}, samples);
         }},
        {"span_3_annotations", "floor", record, calls(floor_span)},
  };
  return cases;
}

}  // namespace

int main(int argc, char** argv) {
  bool quick = false;
  std::string_view only;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--quick") quick = true;
    if (argument == "--case" && i + 1 < argc) only = argv[++i];
  }
  const int rounds = quick ? 3 : 10;
  bench::SpillwaySubject ours;
  std::vector<Case> cases = all_cases(ours);
  std::erase_if(cases, [&](const Case& one) { return !only.empty() && one.name != only; });
  std::map<std::pair<std::size_t, int>, Samples> samples;
  for (int round = 0; round < rounds; ++round) {
    for (std::size_t i = 0; i < cases.size(); ++i) {
      cases[i].plan.bursts = quick ? 40 : 100;
      for (const int threads : {1, 2}) {
        Samples more = run_on(threads, cases[i]);
        Samples& all = samples[{i, threads}];
        all.insert(all.end(), more.begin(), more.end());
      }
    }
  }
  for (auto& [key, all] : samples) {
    const Case& what = cases[key.first];
    const bench::Distribution d = bench::summarise(all);
    std::printf(
        "{\"suite\":\"record\",\"case\":\"%s\",\"subject\":\"%s\",\"threads\":%d,\"ns_p50\":%.2f,"
        "\"ns_p99\":%.2f,"
        "\"ns_p999\":%.2f,\"ns_mean\":%.2f,\"instructions\":null,\"per_second\":null}\n",
        what.name.c_str(), what.subject.c_str(), key.second, d.p50, d.p99, d.p999, d.mean);
  }
}
