// SPDX-License-Identifier: Apache-2.0
//
// A library that is loaded at run time and records with its host's engine: its call sites, names and texts are in memory
// that goes with it. PLUGIN is its own name; the rest is the same, so that one is laid out as the other.
#include <spillway/spillway.hpp>

extern "C" void record_from_plugin(spillway::Engine& engine, int count) {
  const spillway::Counter counter = engine.counter("Calls");
  for (int i = 0; i < count; ++i) {
    spillway::Span span = engine.span("work of " PLUGIN);
    span.annotate("key_of_" PLUGIN, i);
    SPILLWAY_INFO(engine, "message of " PLUGIN, {"key_of_" PLUGIN, i});
    SPILLWAY_EVENT(engine, spillway::EventMetric{{"Took" PLUGIN, spillway::Unit::count}, 1.0},
                   spillway::EventProperty{"of_" PLUGIN, i});
    counter.add(1);
  }
}
