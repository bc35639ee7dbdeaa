// SPDX-License-Identifier: Apache-2.0
//
// Question: what does one recording call cost the caller, by percentiles, on 1 and 2 threads,
// beside its floor and what a service would use in its place? Subjects take turns, round by round,
// so that a slow minute of the machine meets all alike. Prints JSON rows, one a line.
//
//   record_percentiles [--quick | --smoke] [--case NAME]
#include <barrier>
#include <cmath>
#include <map>
#include <optional>
#include <thread>

#include "cases.hpp"
#include "options.hpp"
#include "peers.hpp"
#include "rows.hpp"
#include "subjects.hpp"
#include <spillway/engine/trace_header.hpp>

namespace {

using bench::calls_on;
using bench::Case;
using bench::Samples;

// Of a lambda: its body stands in the measuring loop, as a log call stands in the code that logs.
#define INLINED __attribute__((always_inline))

const bench::Arguments arguments;

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

/// The contexts that some calls need.
struct TenantScope {
  spillway::Context context{{.tenant = "acme"}};
  spillway::Scope scope{context};
};
/// A segment per burst: one that takes in all spans of the run would go out as one, and keep the
/// flusher for a tenth of a second.
struct Root {
  explicit Root(const spillway::Engine& its_engine) : engine(its_engine) {}
  void rest() {
    span.reset();
    span.emplace(engine.span("root"));
  }
  const spillway::Engine& engine;
  std::optional<spillway::Span> span{engine.span("root")};
};
struct UnsampledScope {
  spillway::Context context{
      {.trace = spillway::parse_trace_header(
           "Root=1-6b00e354-0f1e2d3c4b5a69788796a5b4;Parent=1a2b3c4d5e6f7081;Sampled=0")}};
  spillway::Scope scope{context};
};

// ---- Floors: bare code that does the stores and clock reads of the call, and nothing else ----

struct FloorRing {
  static constexpr std::uint64_t capacity = 1U << 20;
  static constexpr std::uint64_t ahead = 640;
  std::unique_ptr<std::byte[]> bytes =
      std::make_unique<std::byte[]>(capacity + 1024);  // The last record may hang over.
  std::atomic<std::uint64_t> head{0};
  std::atomic<std::uint64_t> tail{0};
  bench::Consumer consumer{[this] {
    // Reads what a drain reads: the lines that were written since.
    const std::uint64_t end = head.load(std::memory_order_acquire);
    std::uint64_t sum = 0;
    for (std::uint64_t at = tail.load(std::memory_order_relaxed); at < end; at += 64) {
      std::uint64_t word = 0;
      std::memcpy(&word, &bytes[at & (capacity - 1)], 8);
      sum += word;
    }
    bench::opaque(sum);
    tail.store(end, std::memory_order_release);
  }};

  [[gnu::always_inline]] std::byte* room(std::uint64_t size) {
    const std::uint64_t at = head.load(std::memory_order_relaxed);
    for (std::uint64_t line = 0; line < size; line += 64) {
      spillway::detail::prefetch_for_write(&bytes[(at + ahead + line) & (capacity - 1)]);
    }
    return &bytes[at & (capacity - 1)];
  }
  [[gnu::always_inline]] void commit(std::uint64_t size) {
    head.store(head.load(std::memory_order_relaxed) + size, std::memory_order_release);
  }
};

FloorRing& floor_ring() {
  thread_local FloorRing ring;
  return ring;
}

// A thread finds a series' cell through a pointer that it loads: there is no thread_local variable
// per series.
template <class Cell>
Cell* volatile& floor_cell() {
  thread_local Cell cell{};
  thread_local Cell* volatile here = &cell;
  return here;
}

struct FloorCounter {
  std::uint64_t value;
  [[gnu::always_inline]] void add() {
    value += 1;
    bench::opaque(value);
  }
};

// Two sums in turn: one would wait for itself.
struct FloorGauge {
  std::uint64_t count;
  double last;
  double sums[2];
  [[gnu::always_inline]] void set(double value) {
    last = value;
    sums[count & 1] += value;
    bench::opaque(sums);
    count += 1;
  }
};

struct FloorHistogram {
  std::uint64_t count;
  double sums[2];
  std::uint32_t buckets[8192];
  [[gnu::always_inline]] void record(double value) {
    ++buckets[(std::bit_cast<std::uint64_t>(value) >> 45) & 8191];
    sums[count & 1] += value;
    bench::opaque(sums);
    count += 1;
  }
};

[[gnu::always_inline]] inline std::uint64_t ticks_if(bool exact) {
  return exact ? spillway::detail::hardware_ticks() : 1;
}

template <bool exact>
[[gnu::always_inline]] inline void floor_log(FloorRing& ring, int i) {
  std::byte* const at = ring.room(48);
  const std::uint64_t head[2] = {static_cast<std::uint64_t>(i), ticks_if(exact)};
  const std::int64_t id = i;
  const std::uint32_t size = 9;
  std::memcpy(at, head, 16);
  std::memcpy(at + 16, &id, 8);
  std::memcpy(at + 24, &arguments.values[i & 1023], 8);
  std::memcpy(at + 32, &size, 4);
  std::memcpy(at + 36, arguments.view.data(), 9);
  ring.commit(48);
}

template <bool exact>
[[gnu::always_inline]] inline void floor_sample(FloorRing& ring, int i) {
  std::byte* const at = ring.room(24);
  const std::uint64_t head[2] = {static_cast<std::uint64_t>(i), ticks_if(exact)};
  std::memcpy(at, head, 16);
  std::memcpy(at + 16, &arguments.values[i & 1023], 8);
  ring.commit(24);
}

[[gnu::always_inline]] inline void floor_span(FloorRing& ring, int i) {
  const std::uint64_t start = spillway::detail::hardware_ticks();
  std::byte* const at = ring.room(112);
  const std::uint64_t words[9] = {1, start, 3, 4, 5, 6, 7, 8, static_cast<std::uint64_t>(i)};
  std::memcpy(at, words, sizeof words);
  std::memcpy(at + 72, &arguments.values[i & 1023], 8);
  std::memcpy(at + 80, arguments.view.data(), 9);
  const std::uint64_t end = spillway::detail::hardware_ticks();
  std::memcpy(at + 96, &end, 8);
  ring.commit(112);
}

template <class Call>
auto floor_calls(Call call) {
  return calls_on([]() -> FloorRing& { return floor_ring(); }, call);
}

std::vector<Case> all_cases(bench::SpillwaySubject& ours, bench::SpillwaySubject& coarse,
                            bench::SpillwaySubject& crash) {
  const bench::Plan cell{.calls = 100};
  // A ring's first lap meets pages that the kernel has yet to give: warmed up before, and measured by
  // record_questions.
  const bench::Plan record{.calls = 20, .warm_up = 25'000};
  // The flusher takes a microsecond for a span: it needs the time, or spans are dropped.
  const bench::Plan span{.calls = 20, .warm_up = 25'000, .pause = std::chrono::milliseconds(4)};
  const double* const values = arguments.values;
  std::atomic<bool>* const off = new std::atomic<bool>(false);  // Lives as long as the cases.
  return {
    {"counter_add", "spillway", cell, calls([&](int) INLINED { ours.counter.add(1); })},
        {"counter_add", "floor", cell,
         calls_on(floor_cell<FloorCounter>, [](FloorCounter* volatile& at, int) { at->add(); })},
        {"gauge_set", "spillway", cell,
         calls([&ours, values](int i) INLINED { ours.gauge.set(values[i & 1023]); })},
        {"gauge_set", "floor", cell,
         calls_on(floor_cell<FloorGauge>,
                  [values](FloorGauge* volatile& at, int i) { at->set(values[i & 1023]); })},
        {"histogram_record", "spillway", cell,
         calls([&ours, values](int i) INLINED { ours.histogram.record(values[i & 1023]); })},
        {"histogram_record", "floor", cell,
         calls_on(floor_cell<FloorHistogram>,
                  [values](FloorHistogram* volatile& at, int i) { at->record(values[i & 1023]); })},
        {"counter_by_context", "spillway", cell,
         calls_on([] { return std::make_unique<TenantScope>(); },
                  [&](auto&, int) INLINED { ours.by_tenant.add(1); })},
        {"counter_by_context", "floor", cell,
         calls_on(floor_cell<FloorCounter>, [](FloorCounter* volatile& at, int) { at->add(); })},
        {"log_disabled", "spillway", cell,
         calls([&](int i) INLINED { ours.log_disabled(i, arguments); })},
        {"log_disabled", "floor", cell, calls([off](int) {
           if (off->load(std::memory_order_relaxed)) std::abort();
         })},
        {"span_unsampled", "spillway", cell,
         calls_on([] { return std::make_unique<UnsampledScope>(); },
                  [&](auto&, int i) INLINED { ours.span(i, arguments); })},
        {"span_unsampled", "floor", cell, calls([off](int) {
           if (off->load(std::memory_order_relaxed)) std::abort();
         })},
        {"sample_exact", "spillway", record,
         calls([&ours, values](int i) INLINED { ours.histogram.sample(values[i & 1023]); })},
        {"sample_exact", "spillway, crash_dir", record,
         calls([&crash, values](int i) INLINED { crash.histogram.sample(values[i & 1023]); })},
        {"sample_exact", "floor", record, floor_calls(floor_sample<true>)},
        {"sample_coarse", "spillway", record, calls([&ours, values](int i) INLINED {
           ours.histogram.sample(values[i & 1023], spillway::Stamp::coarse);
         })},
        {"sample_coarse", "floor", record, floor_calls(floor_sample<false>)},
        {"log_3_fields_coarse", "spillway", record,
         calls([&](int i) INLINED { coarse.log(i, arguments); })},
        {"log_3_fields_coarse", "floor", record, floor_calls(floor_log<false>)},
        {"log_3_fields", "spillway", record, calls([&](int i) INLINED { ours.log(i, arguments); })},
        {"log_3_fields", "spillway, crash_dir", record,
         calls([&](int i) INLINED { crash.log(i, arguments); })},
        {"log_3_fields", "floor", record, floor_calls(floor_log<true>)},
        {"log_3_fields", "boost spsc_queue", record,
         calls_on([] { return std::make_unique<bench::BoostSpscSubject>(); },
                  [](auto& subject, int i) { subject->log(i, arguments); })},
        {"log_3_fields", "moodycamel", record,
         calls_on(
             [] {
               static bench::MoodycamelSubject subject;
               return std::pair<bench::MoodycamelSubject&, moodycamel::ProducerToken>(
                   subject, subject.token());
             },
             [](auto& subject, int i) { subject.first.log(subject.second, i, arguments); })},
#if defined(SPILLWAY_BENCH_SPDLOG)
        {"log_3_fields",
         "spdlog async",
         {.calls = 20},
         calls_on(
             []() -> bench::SpdlogSubject& {
               static bench::SpdlogSubject subject;
               return subject;
             },
             [](bench::SpdlogSubject& subject, int i) { subject.log(i, arguments); })},
#endif
        {"span_3_annotations", "spillway", span,
         calls_on([&] { return Root(ours.engine); },
                  [&](auto&, int i) INLINED { ours.span(i, arguments); })},
        {"span_3_annotations", "spillway, crash_dir", span,
         calls_on([&] { return Root(crash.engine); },
                  [&](auto&, int i) INLINED { crash.span(i, arguments); })},
        {"span_3_annotations", "floor", span, floor_calls(floor_span)},
  };
}

}  // namespace

int main(int argc, char** argv) {
  const bench::Options options(argc, argv);
  const int rounds = options.times(10);
  bench::SpillwaySubject ours;
  bench::SpillwaySubject coarse({.coarse_time = true});
  const bench::Folder folder;
  bench::SpillwaySubject crash({.crash_dir = folder.path()});
  std::vector<Case> cases = all_cases(ours, coarse, crash);
  for (Case& one : bench::peer_cases()) cases.push_back(std::move(one));
  std::erase_if(cases, [&](const Case& one) { return !options.wants(one.name); });
  std::map<std::pair<std::size_t, int>, Samples> samples;
  // A dropped record costs other than a recorded one.
  std::vector<std::uint64_t> dropped_in(cases.size());
  const auto dropped = [&] {
    std::uint64_t sum = 0;
    for (const bench::SpillwaySubject* const one : {&ours, &coarse, &crash}) {
      const spillway::Stats stats = one->engine.stats();
      sum += stats.logs.dropped_total() + stats.spans.dropped_total();
    }
    return sum;
  };
  for (int round = 0; round < rounds; ++round) {
    for (std::size_t i = 0; i < cases.size(); ++i) {
      cases[i].plan.bursts = std::min(100, options.times(200));
      for (const int threads : {1, 2}) {
        const std::uint64_t dropped_before = dropped();
        Samples more = run_on(threads, cases[i]);
        dropped_in[i] += dropped() - dropped_before;
        Samples& all = samples[{i, threads}];
        all.insert(all.end(), more.begin(), more.end());
      }
    }
  }
  for (auto& [key, all] : samples) {
    bench::Row row{"record", cases[key.first].name, cases[key.first].subject, key.second};
    row.ns = bench::summarise(all);
    bench::print(row);
  }
  for (std::size_t i = 0; i < cases.size(); ++i) {
    if (dropped_in[i] != 0) {
      std::fprintf(stderr, "%s: %llu records of the run were dropped\n", cases[i].name.c_str(),
                   static_cast<unsigned long long>(dropped_in[i]));
    }
  }
}
