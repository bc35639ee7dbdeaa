// SPDX-License-Identifier: Apache-2.0
#include "local/limits.hpp"
#include "local/operations.hpp"

namespace spillway::local {
namespace {

using simdjson::dom::array;
using simdjson::dom::element;

ApiError invalid_request(std::string message) {
  return {400, "InvalidRequestException", std::move(message)};
}

void write_problem(JsonWriter& json, const DocumentProblem& problem) {
  json.begin_object().key("Id");
  problem.id.empty() ? json.null() : json.value(problem.id);
  json.field("ErrorCode", problem.code).field("Message", problem.message).end_object();
}

/// The documents of one request, taken one by one.
class SegmentIntake {
 public:
  explicit SegmentIntake(const Call& call) : call_(call) {
    json_.begin_object().key("UnprocessedTraceSegments").begin_array();
  }

  void take(std::string_view document) {
    ++number_;
    DocumentReport report = check_document(document, parser_);
    if (report.problems.empty() && number_ > limits::trace_documents_max) {
      refuse_good(document, "TooManyDocuments", report);
    }
    const Fault* const fault = call_.partial_reject;
    if (report.problems.empty() && fault != nullptr && number_ <= fault->rejected) {
      refuse_good(document, fault->code, report);
    }
    const std::scoped_lock lock(call_.store.mutex);
    for (const DocumentProblem& problem : report.problems) {
      write_problem(json_, problem);
      ++call_.store.statistics.partial_rejects[problem.code];
    }
    if (report.problems.empty()) call_.store.traces.add(document, report, TraceRoute::https);
  }

  std::string finish() {
    json_.end_array().end_object();
    return json_.take();
  }

 private:
  // A document with nothing wrong in it, so its segments' ids can be read.
  void refuse_good(std::string_view document, const std::string& code, DocumentReport& report) {
    std::vector<Segment> segments;
    list_segments(document, false, parser_, segments);
    report.problems.push_back({segments.front().id, code, "Invalid segment. ErrorCode: " + code});
  }

  const Call& call_;
  simdjson::dom::parser parser_;
  JsonWriter json_;
  std::size_t number_ = 0;
};

Answer put_trace_segments(const Call& call) {
  array documents;
  if (call.request["TraceSegmentDocuments"].get(documents) != simdjson::SUCCESS) {
    return invalid_request("TraceSegmentDocuments must be a list of strings.");
  }
  for (const element document : documents) {
    if (!document.is_string()) {
      return invalid_request("TraceSegmentDocuments must be a list of strings.");
    }
  }
  SegmentIntake intake(call);
  for (const element document : documents) {
    std::string_view text;
    if (document.get(text) == simdjson::SUCCESS) intake.take(text);
  }
  return ok_reply(Service::xray, intake.finish());
}

}  // namespace

Answer call_xray(const Call& call) {
  switch (call.operation) {
    case OperationId::put_trace_segments:
      return put_trace_segments(call);
    case OperationId::put_telemetry_records:
      return ok_reply(Service::xray, "{}");
    case OperationId::get_sampling_rules:
      return ok_reply(Service::xray, R"({"SamplingRuleRecords":[]})");
    case OperationId::get_sampling_targets:
      return ok_reply(
          Service::xray,
          R"({"SamplingTargetDocuments":[],"LastRuleModification":0,"UnprocessedStatistics":[]})");
    default:
      return ApiError{404, "UnknownOperationException", {}};
  }
}

}  // namespace spillway::local
