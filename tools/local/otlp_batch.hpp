// SPDX-License-Identifier: Apache-2.0
//
// What stands in an OTLP request: points, log records and spans, each looked at on its own. As OTLP
// has it, a record that is wrong is refused alone and the rest is taken ("Partial Success").
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "local/metric_batch.hpp"
#include "local/protocol.hpp"

namespace spillway::local {

/// A record that is not taken. The codes are ours: OTLP has a message and no codes.
struct OtlpProblem {
  std::string code;
  std::string message;
};

/// Points, summed up by CloudWatch's rules so that they can be compared with PutMetricData's: a
/// point of a sum or gauge is one sample. Texts belong to the body, or to `texts`.
struct OtlpMetrics {
  std::vector<MetricBatch> batches;  ///< of each resource; its service.name is the namespace
  std::vector<OtlpProblem> problems;
  std::deque<std::string> texts;  ///< attributes that are no strings
};

struct OtlpLog {
  std::string service;
  std::int64_t time_ms;
  std::string json;  ///< as CloudWatch Logs shows OTLP records
};
struct OtlpLogs {
  std::vector<OtlpLog> records;
  std::vector<OtlpProblem> problems;
};

struct OtlpSpan {
  std::string trace_id;  ///< as X-Ray writes it
  std::string json;      ///< as a segment, with its attributes
};
struct OtlpSpans {
  std::vector<OtlpSpan> spans;
  std::vector<OtlpProblem> problems;
};

// Each reads a body that find_proto_error() finds nothing wrong in, or says what all of it is
// refused for.

Refusal read_otlp_metrics(std::string_view body, OtlpMetrics& metrics);
Refusal read_otlp_logs(std::string_view body, std::chrono::system_clock::time_point now,
                       OtlpLogs& logs);
Refusal read_otlp_spans(std::string_view body, std::chrono::system_clock::time_point now,
                        OtlpSpans& spans);

}  // namespace spillway::local
