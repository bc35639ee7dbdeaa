// SPDX-License-Identifier: Apache-2.0
//
// OTLP over HTTP, as CloudWatch's and X-Ray's endpoints take it, and as a collector does: without a
// signature, and logs without a group of theirs.
#include <algorithm>

#include "local/limits.hpp"
#include "local/operations.hpp"
#include "local/otlp_batch.hpp"
#include "local/otlp_schema.hpp"
#include <spillway/encoders/protobuf.hpp>
#include <spillway/transport/text.hpp>

namespace spillway::local {
namespace {

using transport::find_header;

/// Where the records of an unsigned request go.
constexpr std::string_view collector_group = "otlp";
constexpr std::string_view unknown_service = "unknown_service";  // The semantic conventions' word.

// What a partial_reject that was ordered takes from the front.
template <class Item>
void reject_ordered(const Fault* fault, std::vector<Item>& items,
                    std::vector<OtlpProblem>& problems) {
  if (fault == nullptr) return;
  const auto count = static_cast<std::size_t>(
      std::min<std::uint64_t>(fault->rejected, std::uint64_t{items.size()}));
  items.erase(items.begin(), items.begin() + static_cast<std::ptrdiff_t>(count));
  problems.insert(problems.end(), count, {fault->code, "This record was ordered to be refused."});
}

// Export*ServiceResponse, all three the same: { 1: { 1: rejected  2: error_message } }.
Reply answer(const std::vector<OtlpProblem>& problems) {
  Reply reply{200, std::string(otlp_content_type), {}};
  if (problems.empty()) return reply;
  detail::ByteBuffer body;
  const std::size_t partial = detail::protobuf::begin_nested(body, 1);
  detail::protobuf::append_varint_field(body, 1, problems.size());
  detail::protobuf::append_string_field(body, 2,
                                        problems.front().code + ": " + problems.front().message);
  detail::protobuf::end_nested(body, partial);
  reply.body = body.view();
  return reply;
}

// The store's lock is held.
void count_problems(const std::vector<OtlpProblem>& problems, Store& store) {
  for (const OtlpProblem& problem : problems) ++store.statistics.partial_rejects[problem.code];
}

Answer export_metrics(const OtlpCall& call) {
  OtlpMetrics metrics;
  if (auto refusal = read_otlp_metrics(call.body, metrics)) return *std::move(refusal);
  if (!metrics.batches.empty()) {
    reject_ordered(call.partial_reject, metrics.batches.front().datums, metrics.problems);
  }
  const std::scoped_lock lock(call.store.mutex);
  for (const MetricBatch& batch : metrics.batches) call.store.metrics.add(batch);
  count_problems(metrics.problems, call.store);
  return answer(metrics.problems);
}

// The stream of the record's service, made when it is missing; null when there is no room for it.
LogStream* own_stream(const OtlpCall& call, const OtlpLog& log) {
  LogStore& logs = call.store.logs;
  const std::string_view name = log.service.empty() ? unknown_service : log.service;
  logs.create_group(collector_group, log.time_ms);
  LogGroup& own = *logs.find_group(collector_group);
  if (!own.streams.contains(name)) {
    if (own.streams.size() >= call.store.log_streams_max) return nullptr;
    logs.create_stream(own, name, log.time_ms);
  }
  return &own.streams.find(name)->second;
}

LogStream* find_stream(LogStore& logs, std::string_view group_name, std::string_view name) {
  LogGroup* const group = logs.find_group(group_name);
  if (group == nullptr) return nullptr;
  const auto found = group->streams.find(name);
  return found == group->streams.end() ? nullptr : &found->second;
}

Answer export_logs(const OtlpCall& call) {
  OtlpLogs logs;
  if (auto refusal = read_otlp_logs(call.body, call.now, logs)) return *std::move(refusal);
  const std::string_view group = find_header(call.request.headers, "x-aws-log-group");
  const std::string_view stream = find_header(call.request.headers, "x-aws-log-stream");
  if (group.empty() != stream.empty() || (call.is_signed && group.empty())) {
    return ApiError{400, "MissingLogStream", "x-aws-log-group and x-aws-log-stream must be given."};
  }
  reject_ordered(call.partial_reject, logs.records, logs.problems);
  const std::scoped_lock lock(call.store.mutex);
  LogStream* const named = find_stream(call.store.logs, group, stream);
  if (!group.empty() && named == nullptr) {
    return ApiError{400, "ResourceNotFoundException", "There is no such log group or stream."};
  }
  for (const OtlpLog& log : logs.records) {
    LogStream* const to = named != nullptr ? named : own_stream(call, log);
    if (to == nullptr) {
      logs.problems.push_back({"TooManyStreams", "There is no room for one more log stream."});
      continue;
    }
    const LogEventView event{log.time_ms, log.json};
    call.store.logs.add(*to, {&event, 1});
  }
  count_problems(logs.problems, call.store);
  return answer(logs.problems);
}

Answer export_traces(const OtlpCall& call) {
  OtlpSpans spans;
  if (auto refusal = read_otlp_spans(call.body, call.now, spans)) return *std::move(refusal);
  reject_ordered(call.partial_reject, spans.spans, spans.problems);
  const std::scoped_lock lock(call.store.mutex);
  for (const OtlpSpan& span : spans.spans) {
    call.store.traces.add(span.json, {{}, span.trace_id, 1}, TraceRoute::otlp);
  }
  count_problems(spans.problems, call.store);
  return answer(spans.problems);
}

struct Export {
  const ProtoMessage& message;
  std::size_t body_bytes_max;
  Answer (*carry_out)(const OtlpCall& call);
};

Export export_of(OperationId operation) {
  switch (operation) {
    case OperationId::export_metrics:
      return {otlp_metrics_request, limits::inflated_bytes_max, export_metrics};
    case OperationId::export_logs:
      return {otlp_logs_request, limits::otlp_logs_bytes_max, export_logs};
    default:
      return {otlp_traces_request, limits::otlp_traces_bytes_max, export_traces};
  }
}

}  // namespace

Answer call_otlp(const OtlpCall& call) {
  const Export wanted = export_of(call.operation);
  if (call.body.size() > wanted.body_bytes_max) {
    return common_error(Protocol::otlp, CommonError::too_large,
                        "The body may have " + std::to_string(wanted.body_bytes_max) +
                            " bytes before it is compressed.");
  }
  if (auto error = find_proto_error(call.body, wanted.message)) {
    return common_error(
        Protocol::otlp, CommonError::unreadable_body,
        "The body is no " + std::string(wanted.message.name) + ": " + *std::move(error));
  }
  return wanted.carry_out(call);
}

}  // namespace spillway::local
