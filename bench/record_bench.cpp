// SPDX-License-Identifier: Apache-2.0
//
// Question: what does one recording call cost the caller on average, on 1 and 2 threads, beside
// what a service would use in its place? Cases that fill a queue run in bursts, so that calls
// record instead of dropping; record_percentiles asks the same by percentiles.
#include <benchmark/benchmark.h>

#include "subjects.hpp"

namespace {

const bench::Arguments& arguments() {
  static const bench::Arguments made;
  return made;
}
bench::SpillwaySubject& ours() {
  static bench::SpillwaySubject subject;
  return subject;
}

// The number of calls is fixed for these cases: their pauses are not timed, and the library would
// choose it by timed seconds alone.
constexpr benchmark::IterationCount paused_calls = 500'000;

// Stops the clock each 1000 calls until the flusher has caught up.
template <class Call>
void run(benchmark::State& state, Call&& call) {
  int i = 0;
  for (auto _ : state) {
    call(i);
    if (++i % 1000 == 0) {
      state.PauseTiming();
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      state.ResumeTiming();
    }
  }
}

void counter_add(benchmark::State& state) {
  for (auto _ : state) ours().counter.add(1);
}
void gauge_set(benchmark::State& state) {
  double value = 0;
  for (auto _ : state) ours().gauge.set(value += 0.5);
}
void histogram_record(benchmark::State& state) {
  int i = 0;
  for (auto _ : state) ours().histogram.record(arguments().values[i++ & 1023]);
}
void log_3_fields(benchmark::State& state) {
  run(state, [](int i) { ours().log(i, arguments()); });
}
void log_disabled(benchmark::State& state) {
  int i = 0;
  for (auto _ : state) ours().log_disabled(i++, arguments());
}
void span_3_annotations(benchmark::State& state) {
  const spillway::Span root = ours().engine.span("root");
  run(state, [](int i) { ours().span(i, arguments()); });
}
void log_boost_spsc_queue(benchmark::State& state) {
  const auto subject = std::make_unique<bench::BoostSpscSubject>();
  run(state, [&](int i) { subject->log(i, arguments()); });
}
void log_moodycamel(benchmark::State& state) {
  static bench::MoodycamelSubject subject;
  auto token = subject.token();
  run(state, [&](int i) { subject.log(token, i, arguments()); });
}
#if defined(SPILLWAY_BENCH_SPDLOG)
void log_spdlog_async(benchmark::State& state) {
  static bench::SpdlogSubject subject;
  run(state, [](int i) { subject.log(i, arguments()); });
}
BENCHMARK(log_spdlog_async)->ThreadRange(1, 2)->Iterations(paused_calls);
#endif

BENCHMARK(counter_add)->ThreadRange(1, 2);
BENCHMARK(gauge_set)->ThreadRange(1, 2);
BENCHMARK(histogram_record)->ThreadRange(1, 2);
BENCHMARK(log_3_fields)->ThreadRange(1, 2)->Iterations(paused_calls);
BENCHMARK(log_disabled)->ThreadRange(1, 2);
BENCHMARK(span_3_annotations)->ThreadRange(1, 2)->Iterations(paused_calls);
BENCHMARK(log_boost_spsc_queue)->ThreadRange(1, 2)->Iterations(paused_calls);
BENCHMARK(log_moodycamel)->ThreadRange(1, 2)->Iterations(paused_calls);

}  // namespace

BENCHMARK_MAIN();
