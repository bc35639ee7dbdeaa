// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mutex>

#include "local/log_store.hpp"
#include "local/metric_store.hpp"
#include "local/observed.hpp"
#include "local/options.hpp"
#include "local/trace_store.hpp"

namespace spillway::local {

/// Everything that arrived. One mutex for all of it: requests are read and checked outside, and
/// what happens under the lock is a copy.
struct Store {
  explicit Store(const Options& options)
      : metrics(options.metric_series_max),
        logs(options.log_events_kept_max, options.log_bytes_kept_max),
        traces(options.trace_documents_kept_max, options.trace_bytes_kept_max),
        log_streams_max(options.log_streams_max) {}

  mutable std::mutex mutex;
  MetricStore metrics;
  LogStore logs;
  TraceStore traces;
  Statistics statistics;
  const std::size_t log_streams_max;

  void clear() {
    const std::scoped_lock lock(mutex);
    metrics.clear();
    logs.clear();
    traces.clear();
    statistics = {};
  }
};

}  // namespace spillway::local
