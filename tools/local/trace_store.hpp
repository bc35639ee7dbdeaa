// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include <simdjson.h>

#include "local/json.hpp"
#include "local/observed.hpp"
#include "local/trace_document.hpp"

namespace spillway::local {

/// The documents as they came, an OTLP span as the segment that it stands for, the oldest forgotten first; counts stay exact. Its owner locks.
class TraceStore {
 public:
  TraceStore(std::size_t documents_kept_max, std::size_t bytes_kept_max);

  void add(std::string_view document, const DocumentReport& report, TraceRoute route);
  void clear();

  const TraceCounts& counts() const { return counts_; }
  /// Those of the documents that are kept; an empty id stands for every trace.
  std::vector<Segment> segments(std::string_view trace_id) const;
  void write(JsonWriter& json, std::string_view trace_id, std::size_t limit) const;

 private:
  struct Document {
    std::string trace_id;
    std::string text;
    TraceRoute route;
  };
  void forget_oldest();

  std::size_t documents_kept_max_;
  std::size_t bytes_kept_max_;
  std::deque<Document> documents_;
  std::size_t bytes_kept_ = 0;
  TraceCounts counts_;
};

}  // namespace spillway::local
