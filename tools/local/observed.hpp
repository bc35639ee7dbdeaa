// SPDX-License-Identifier: Apache-2.0
//
// What arrived at the receiver, as plain values for tests and for the read-back pages.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace spillway::local {

/// One series: namespace, name, dimensions, unit and storage resolution.
struct MetricStatistics {
  std::string metric_namespace;
  std::string name;
  std::vector<std::pair<std::string, std::string>> dimensions;  ///< sorted by name
  std::string unit;
  int storage_resolution = 60;  ///< 0 of OTLP, which has none
  std::uint64_t datum_count = 0;
  double sample_count = 0;
  double sum = 0;
  double minimum = 0;
  double maximum = 0;
  /// Value and count, ascending, of everything that came as Value or Values; the part from which
  /// CloudWatch computes percentiles.
  std::vector<std::pair<double, double>> values;
  std::uint64_t values_not_kept = 0;  ///< entries past the bound on distinct values
};

struct LogEvent {
  std::int64_t timestamp_ms;
  std::string message;
};

struct LogStreamSummary {
  std::string group;
  std::string stream;
  std::uint64_t event_count = 0;  ///< every event that was accepted
  std::uint64_t message_bytes = 0;
  std::uint64_t first_kept = 0;  ///< position of the oldest event that can still be read
};

/// A segment, or a subsegment at any depth.
struct Segment {
  std::string trace_id;  ///< of the document, for the subsegments in it as well
  std::string id;
  std::string parent_id;  ///< of an embedded subsegment: what it stands in
  std::string name;
  double start_time = 0;
  double end_time = 0;  ///< 0 while in progress
  bool is_subsegment = false;
  bool in_progress = false;
  bool error = false;
  bool throttle = false;
  bool fault = false;
  bool over_udp = false;
};

/// How a document came.
enum class TraceRoute : std::uint8_t { https, udp, otlp };

struct TraceCounts {
  std::uint64_t https_documents = 0;
  std::uint64_t udp_documents = 0;
  std::uint64_t https_segments = 0;  ///< segments and subsegments, at any depth
  std::uint64_t udp_segments = 0;
  std::uint64_t otlp_spans = 0;
};

/// What was asked and how it was answered. The control pages are not in it.
struct Statistics {
  /// By operation ("unknown" when there was none), then by HTTP status; 0 for a connection that was
  /// closed without an answer.
  std::map<std::string, std::map<int, std::uint64_t>> requests;
  std::map<std::string, std::uint64_t> errors;  ///< whole requests, by error code
  /// Parts of accepted requests: log events too_old, too_new and expired, and trace documents by
  /// their code.
  std::map<std::string, std::uint64_t> partial_rejects;
  std::uint64_t body_bytes = 0;      ///< as sent
  std::uint64_t inflated_bytes = 0;  ///< of the gzipped bodies, after inflating
  std::uint64_t datagrams = 0;
  std::uint64_t datagram_bytes = 0;
  std::uint64_t datagrams_malformed = 0;  ///< no valid header line, or nothing behind it
  std::uint64_t datagrams_lost = 0;       ///< by the kernel, for want of buffer
  std::uint64_t connections = 0;
  std::uint64_t connections_refused = 0;  ///< past the cap
};

}  // namespace spillway::local
