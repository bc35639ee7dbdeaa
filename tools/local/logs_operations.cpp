// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>

#include "local/limits.hpp"
#include "local/log_batch.hpp"
#include "local/operations.hpp"

namespace spillway::local {
namespace {

using simdjson::dom::object;

constexpr std::size_t describe_limit = 50;
constexpr std::size_t get_events_limit = 10'000;

std::int64_t to_ms(std::chrono::system_clock::time_point time) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(time.time_since_epoch()).count();
}

ApiError group_not_found() {
  return {400, "ResourceNotFoundException", "The specified log group does not exist."};
}
ApiError stream_not_found() {
  return {400, "ResourceNotFoundException", "The specified log stream does not exist."};
}
ApiError already_exists(std::string_view what) {
  return {400, "ResourceAlreadyExistsException",
          "The specified log " + std::string(what) + " already exists"};
}

std::string_view text_or_empty(object request, const char* key) {
  std::string_view text;
  return request[key].get(text) == simdjson::SUCCESS ? text : std::string_view{};
}

std::size_t number_or(object request, const char* key, std::size_t otherwise) {
  std::uint64_t number = 0;
  return request[key].get(number) == simdjson::SUCCESS ? static_cast<std::size_t>(number)
                                                       : otherwise;
}

// The account's quota is a million groups; ours is what fits in memory.
Refusal check_room(const Store& store) {
  std::size_t count = store.logs.groups().size();
  for (const auto& [name, group] : store.logs.groups()) count += group.streams.size();
  if (count < store.log_streams_max) return std::nullopt;
  return ApiError{400, "LimitExceededException", "Resource limit exceeded."};
}

// ---- PutLogEvents ----

// Takes away what the fault says, on top of what the rules did.
void reject_some(const Fault& fault, std::size_t event_count, LogSelection& selection) {
  const auto rejected = static_cast<std::size_t>(fault.rejected);
  const std::size_t prefix = std::min(rejected, event_count);
  if (fault.reason == RejectReason::too_new) {
    selection.too_new_start = event_count - prefix;
    selection.accepted_end = std::min(selection.accepted_end, event_count - prefix);
    return;
  }
  (fault.reason == RejectReason::too_old ? selection.too_old_end : selection.expired_end) =
      rejected;
  selection.accepted_begin = std::max(selection.accepted_begin, prefix);
}

void count_rejected(const LogSelection& selection, std::size_t event_count,
                    Statistics& statistics) {
  const std::size_t too_old = std::min(selection.too_old_end.value_or(0), event_count);
  const std::size_t expired = std::min(selection.expired_end.value_or(0), event_count);
  if (too_old > 0) statistics.partial_rejects["too_old"] += too_old;
  if (expired > too_old) statistics.partial_rejects["expired"] += expired - too_old;
  if (selection.too_new_start) {
    statistics.partial_rejects["too_new"] += event_count - *selection.too_new_start;
  }
}

std::string put_answer(const LogSelection& selection, std::string_view entity_problem) {
  JsonWriter json;
  json.begin_object();
  if (selection.rejects_any()) {
    json.key("rejectedLogEventsInfo").begin_object();
    if (selection.too_new_start) json.field("tooNewLogEventStartIndex", *selection.too_new_start);
    if (selection.too_old_end) json.field("tooOldLogEventEndIndex", *selection.too_old_end);
    if (selection.expired_end) json.field("expiredLogEventEndIndex", *selection.expired_end);
    json.end_object();
  }
  if (!entity_problem.empty()) {
    json.key("rejectedEntityInfo").begin_object().field("errorType", entity_problem).end_object();
  }
  json.end_object();
  return json.take();
}

Answer put_log_events(const Call& call) {
  LogBatch batch;
  if (auto refusal = read_log_batch(call.request, batch)) return *std::move(refusal);

  const std::scoped_lock lock(call.store.mutex);
  LogGroup* const group = call.store.logs.find_group(batch.group);
  if (group == nullptr) return group_not_found();
  const auto stream = group->streams.find(batch.stream);
  if (stream == group->streams.end()) return stream_not_found();

  LogSelection selection = select_events(batch.events, call.now, group->retention);
  if (auto refusal = check_span(batch.events, selection)) return *std::move(refusal);
  if (call.partial_reject != nullptr) {
    reject_some(*call.partial_reject, batch.events.size(), selection);
  }
  if (selection.accepted_begin < selection.accepted_end) {
    call.store.logs.add(
        stream->second,
        std::span(batch.events)
            .subspan(selection.accepted_begin, selection.accepted_end - selection.accepted_begin));
  }
  count_rejected(selection, batch.events.size(), call.store.statistics);
  return ok_reply(Service::logs, put_answer(selection, batch.entity_problem));
}

// ---- Groups and streams ----

Answer create_log_group(const Call& call) {
  std::string_view name;
  if (auto refusal = read_group_name(call.request, name)) return *std::move(refusal);
  if (name.starts_with("aws/")) {
    return invalid_parameter("Log group names cannot start with 'aws/'.");
  }
  constexpr std::array<std::string_view, 4> classes{"STANDARD", "INFREQUENT_ACCESS", "DELIVERY",
                                                    "ESSENTIALS"};
  const std::string_view log_class = text_or_empty(call.request, "logGroupClass");
  if (!log_class.empty() && std::find(classes.begin(), classes.end(), log_class) == classes.end()) {
    return invalid_parameter("Value at 'logGroupClass' must be a log group class.");
  }
  const std::scoped_lock lock(call.store.mutex);
  if (call.store.logs.find_group(name) != nullptr) return already_exists("group");
  if (auto refusal = check_room(call.store)) return *std::move(refusal);
  call.store.logs.create_group(name, to_ms(call.now));
  return ok_reply(Service::logs, {});
}

Answer create_log_stream(const Call& call) {
  std::string_view group_name;
  std::string_view name;
  if (auto refusal = read_group_name(call.request, group_name)) return *std::move(refusal);
  if (auto refusal = read_stream_name(call.request, name)) return *std::move(refusal);
  const std::scoped_lock lock(call.store.mutex);
  LogGroup* const group = call.store.logs.find_group(group_name);
  if (group == nullptr) return group_not_found();
  if (group->streams.contains(name)) return already_exists("stream");
  if (auto refusal = check_room(call.store)) return *std::move(refusal);
  call.store.logs.create_stream(*group, name, to_ms(call.now));
  return ok_reply(Service::logs, {});
}

Answer put_retention_policy(const Call& call) {
  std::string_view name;
  if (auto refusal = read_group_name(call.request, name)) return *std::move(refusal);
  std::int64_t days = 0;
  if (call.request["retentionInDays"].get(days) != simdjson::SUCCESS ||
      std::find(limits::retention_days.begin(), limits::retention_days.end(), days) ==
          limits::retention_days.end()) {
    return invalid_parameter(
        "Value at 'retentionInDays' must be one of 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, "
        "400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653.");
  }
  const std::scoped_lock lock(call.store.mutex);
  LogGroup* const group = call.store.logs.find_group(name);
  if (group == nullptr) return group_not_found();
  group->retention = std::chrono::days(days);
  return ok_reply(Service::logs, {});
}

// ---- Reading: one page each, enough to look around with an AWS client ----

Answer describe_log_groups(const Call& call) {
  const std::string_view prefix = text_or_empty(call.request, "logGroupNamePrefix");
  std::size_t left = number_or(call.request, "limit", describe_limit);
  JsonWriter json;
  json.begin_object().key("logGroups").begin_array();
  const std::scoped_lock lock(call.store.mutex);
  for (const auto& [name, group] : call.store.logs.groups()) {
    if (!name.starts_with(prefix) || left == 0) continue;
    --left;
    std::uint64_t bytes = 0;
    for (const auto& [stream_name, stream] : group.streams) bytes += stream.message_bytes();
    json.begin_object().field("logGroupName", name).field("creationTime", group.created_ms);
    if (group.retention) json.field("retentionInDays", group.retention->count());
    json.field("storedBytes", bytes).field("logGroupClass", "STANDARD").end_object();
  }
  json.end_array().end_object();
  return ok_reply(Service::logs, json.take());
}

Answer describe_log_streams(const Call& call) {
  std::string_view group_name;
  if (auto refusal = read_group_name(call.request, group_name)) return *std::move(refusal);
  const std::string_view prefix = text_or_empty(call.request, "logStreamNamePrefix");
  std::size_t left = number_or(call.request, "limit", describe_limit);
  const std::scoped_lock lock(call.store.mutex);
  LogGroup* const group = call.store.logs.find_group(group_name);
  if (group == nullptr) return group_not_found();
  JsonWriter json;
  json.begin_object().key("logStreams").begin_array();
  for (const auto& [name, stream] : group->streams) {
    if (!name.starts_with(prefix) || left == 0) continue;
    --left;
    json.begin_object().field("logStreamName", name).field("creationTime", stream.created_ms());
    json.field("storedBytes", stream.message_bytes()).end_object();
  }
  json.end_array().end_object();
  return ok_reply(Service::logs, json.take());
}

Answer get_log_events(const Call& call) {
  std::string_view group_name;
  std::string_view stream_name;
  if (auto refusal = read_group_name(call.request, group_name)) return *std::move(refusal);
  if (auto refusal = read_stream_name(call.request, stream_name)) return *std::move(refusal);
  // There is one page only, and its tokens lead to an empty one.
  const bool first_page = text_or_empty(call.request, "nextToken").empty();
  const std::size_t limit =
      first_page ? std::min(number_or(call.request, "limit", get_events_limit), get_events_limit)
                 : 0;
  bool from_head = false;
  if (call.request["startFromHead"].get(from_head) != simdjson::SUCCESS) from_head = false;

  const std::scoped_lock lock(call.store.mutex);
  LogGroup* const group = call.store.logs.find_group(group_name);
  if (group == nullptr) return group_not_found();
  const auto found = group->streams.find(stream_name);
  if (found == group->streams.end()) return stream_not_found();
  const LogStream& stream = found->second;
  const std::uint64_t tail = stream.event_count() > limit ? stream.event_count() - limit : 0;
  JsonWriter json;
  json.begin_object().key("events").begin_array();
  stream.read(from_head ? 0 : tail, limit, [&](std::int64_t time_ms, std::string_view message) {
    json.begin_object().field("timestamp", time_ms).field("message", message);
    json.field("ingestionTime", time_ms).end_object();
  });
  json.end_array().field("nextForwardToken", "f/end").field("nextBackwardToken", "b/end");
  json.end_object();
  return ok_reply(Service::logs, json.take());
}

}  // namespace

Answer call_logs(const Call& call) {
  switch (call.operation) {
    case OperationId::put_log_events:
      return put_log_events(call);
    case OperationId::create_log_group:
      return create_log_group(call);
    case OperationId::create_log_stream:
      return create_log_stream(call);
    case OperationId::put_retention_policy:
      return put_retention_policy(call);
    case OperationId::describe_log_groups:
      return describe_log_groups(call);
    case OperationId::describe_log_streams:
      return describe_log_streams(call);
    case OperationId::get_log_events:
      return get_log_events(call);
    default:
      return ApiError{400, "UnknownOperationException", {}};
  }
}

}  // namespace spillway::local
