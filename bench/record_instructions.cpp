// SPDX-License-Identifier: Apache-2.0
//
// Question: how many instructions does one recording call take? Run under callgrind, which counts
// them: each case becomes a dump of its own, named after it. bench/instructions.py starts it, reads
// the dumps and compares them with bench/instructions.json. Unlike times these figures repeat
// exactly, on a busy machine too.
//
// Each call is a function of its own, called through a pointer that the compiler does not know.
// `empty` is one that does nothing: what the loop, the call and the return take.
#include <cstdio>
#include <string>

#include <valgrind/callgrind.h>

#include "subjects.hpp"
#include <spillway/engine/trace_header.hpp>

namespace {

constexpr int calls_per_case = 1000;  // All of them fit into a ring.

const bench::Arguments& arguments() {
  static const bench::Arguments made;
  return made;
}

using Call = void(const bench::SpillwaySubject& ours, int i, const bench::Arguments& with);

#define CALL [[gnu::noinline]] void
CALL empty(const bench::SpillwaySubject&, int, const bench::Arguments&) { asm volatile(""); }
CALL counter_add(const bench::SpillwaySubject& ours, int, const bench::Arguments&) {
  ours.counter.add(1);
}
CALL gauge_set(const bench::SpillwaySubject& ours, int i, const bench::Arguments& with) {
  ours.gauge.set(with.values[i & 1023]);
}
CALL histogram_record(const bench::SpillwaySubject& ours, int i, const bench::Arguments& with) {
  ours.histogram.record(with.values[i & 1023]);
}
CALL sample_exact(const bench::SpillwaySubject& ours, int i, const bench::Arguments& with) {
  ours.histogram.sample(with.values[i & 1023]);
}
CALL sample_coarse(const bench::SpillwaySubject& ours, int i, const bench::Arguments& with) {
  ours.histogram.sample(with.values[i & 1023], spillway::Stamp::coarse);
}
CALL counter_by_context(const bench::SpillwaySubject& ours, int, const bench::Arguments&) {
  ours.by_tenant.add(1);
}
CALL log_3_fields(const bench::SpillwaySubject& ours, int i, const bench::Arguments& with) {
  ours.log(i, with);
}
CALL log_disabled(const bench::SpillwaySubject& ours, int i, const bench::Arguments& with) {
  ours.log_disabled(i, with);
}
CALL span_3_annotations(const bench::SpillwaySubject& ours, int i, const bench::Arguments& with) {
  ours.span(i, with);
}
#undef CALL

void count(const char* name, bench::SpillwaySubject& ours, Call* call) {
  asm volatile("" : "+r"(call));
  for (int i = 0; i < 10; ++i) call(ours, i, arguments());  // What only first calls do.
  ours.engine.flush(std::chrono::seconds(10));
  CALLGRIND_ZERO_STATS;
  for (int i = 0; i < calls_per_case; ++i) call(ours, i, arguments());
  CALLGRIND_DUMP_STATS_AT(name);
}

}  // namespace

int main() {
  bench::SpillwaySubject ours({.threads = false});
  if (!spillway::detail::asymmetric_fences() || !spillway::detail::hardware_ticks_are_steady()) {
    std::fputs("no membarrier or no steady processor clock: these would be other code\n", stderr);
    return 1;
  }
  count("empty", ours, empty);
  count("counter_add", ours, counter_add);
  count("gauge_set", ours, gauge_set);
  count("histogram_record", ours, histogram_record);
  count("sample_exact", ours, sample_exact);
  count("sample_coarse", ours, sample_coarse);
  count("log_3_fields", ours, log_3_fields);
  count("log_disabled", ours, log_disabled);
  {
    bench::SpillwaySubject coarse({.threads = false, .coarse_time = true});
    count("log_3_fields_coarse", coarse, log_3_fields);
  }
  {
    const bench::Folder folder;
    bench::SpillwaySubject crash({.threads = false, .crash_dir = folder.path()});
    count("log_3_fields_crash_dir", crash, log_3_fields);
    count("sample_exact_crash_dir", crash, sample_exact);
    const spillway::Span root = crash.engine.span("root");
    count("span_3_annotations_crash_dir", crash, span_3_annotations);
  }
  {
    const spillway::Span root = ours.engine.span("root");
    count("span_3_annotations", ours, span_3_annotations);
  }
  {
    const spillway::Context context{{.tenant = "acme"}};
    const spillway::Scope scope(context);
    count("counter_by_context", ours, counter_by_context);
  }
  const spillway::Context context{
      {.trace = spillway::parse_trace_header(
           "Root=1-6b00e354-0f1e2d3c4b5a69788796a5b4;Parent=1a2b3c4d5e6f7081;Sampled=0")}};
  const spillway::Scope scope(context);
  count("span_unsampled", ours, span_3_annotations);
  std::printf("%d calls a case\n", calls_per_case);
}
