// SPDX-License-Identifier: Apache-2.0
#include "local/log_batch.hpp"

#include <algorithm>
#include <string>
#include <utility>

#include "local/entity.hpp"
#include "local/limits.hpp"

namespace spillway::local {
namespace {

using simdjson::dom::array;
using simdjson::dom::element;
using simdjson::dom::object;
using std::chrono::milliseconds;
using std::chrono::system_clock;

ApiError wrong_type(const std::string& path, const char* wanted) {
  return {400, "SerializationException", path + " must be " + wanted + "."};
}

// The message of the front end that checks requests against the model.
ApiError constraint(const std::string& path, const std::string& rule) {
  return invalid_parameter("1 validation error detected: Value at '" + path +
                           "' failed to satisfy constraint: Member must " + rule);
}

Refusal read_name(object request, const char* key, std::string_view& name) {
  element value;
  if (request[key].get(value) != simdjson::SUCCESS || value.is_null()) {
    return constraint(key, "not be null");
  }
  if (value.get(name) != simdjson::SUCCESS) return wrong_type(key, "a string");
  const auto chars = static_cast<std::size_t>(std::count_if(name.begin(), name.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
  if (chars < 1 || chars > limits::log_name_chars_max) {
    return constraint(key, "have length between 1 and 512");
  }
  return std::nullopt;
}

Refusal read_event(element value, const std::string& path, LogEventView& event) {
  object fields;
  if (value.get(fields) != simdjson::SUCCESS) return wrong_type(path, "an object");
  bool has_timestamp = false;
  bool has_message = false;
  for (const auto& [key, field] : fields) {
    if (key == "timestamp") {
      has_timestamp = true;
      if (field.get(event.timestamp_ms) != simdjson::SUCCESS) {
        return wrong_type(path + ".timestamp", "an integer");
      }
    } else if (key == "message") {
      has_message = true;
      if (field.get(event.message) != simdjson::SUCCESS) {
        return wrong_type(path + ".message", "a string");
      }
    }
  }
  if (!has_timestamp) return constraint(path + ".timestamp", "not be null");
  if (!has_message) return constraint(path + ".message", "not be null");
  if (event.timestamp_ms < 0) {
    return constraint(path + ".timestamp", "have value greater than or equal to 0");
  }
  if (event.message.empty()) {
    return constraint(path + ".message", "have length greater than or equal to 1");
  }
  return std::nullopt;
}

Refusal read_events(object request, std::vector<LogEventView>& events) {
  element value;
  if (request["logEvents"].get(value) != simdjson::SUCCESS || value.is_null()) {
    return constraint("logEvents", "not be null");
  }
  array list;
  if (value.get(list) != simdjson::SUCCESS) return wrong_type("logEvents", "a list");
  if (list.size() < 1 || list.size() > limits::log_events_max) {
    return constraint("logEvents", "have length between 1 and 10000");
  }
  events.clear();
  events.reserve(list.size());
  std::size_t bytes = 0;
  for (const element member : list) {
    LogEventView event{};
    // The cheap shape first; the path is spelled out for a bad event only.
    if (auto refusal = read_event(member, "logEvents", event)) {
      return read_event(member, "logEvents." + std::to_string(events.size() + 1) + ".member",
                        event);
    }
    if (!events.empty() && event.timestamp_ms < events.back().timestamp_ms) {
      return invalid_parameter(
          "Log events in a single PutLogEvents request must be in chronological order.");
    }
    bytes += event.message.size() + limits::log_event_overhead_bytes;
    events.push_back(event);
  }
  if (bytes > limits::log_batch_bytes_max) {
    return invalid_parameter("Upload too large: " + std::to_string(bytes) +
                             " bytes exceeds limit of " +
                             std::to_string(limits::log_batch_bytes_max));
  }
  return std::nullopt;
}

std::int64_t to_ms(system_clock::time_point time) {
  return std::chrono::duration_cast<milliseconds>(time.time_since_epoch()).count();
}

}  // namespace

ApiError invalid_parameter(std::string message) {
  return {400, "InvalidParameterException", std::move(message)};
}

Refusal read_group_name(object request, std::string_view& name) {
  if (auto refusal = read_name(request, "logGroupName", name)) return refusal;
  constexpr std::string_view allowed =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_/#";
  if (name.find_first_not_of(allowed) != std::string_view::npos) {
    return constraint("logGroupName", R"(satisfy regular expression pattern: [\.\-_/#A-Za-z0-9]+)");
  }
  return std::nullopt;
}

Refusal read_stream_name(object request, std::string_view& name) {
  if (auto refusal = read_name(request, "logStreamName", name)) return refusal;
  if (name.find_first_of(":*") != std::string_view::npos) {
    return constraint("logStreamName", "satisfy regular expression pattern: [^:*]*");
  }
  return std::nullopt;
}

Refusal read_log_batch(object request, LogBatch& batch) {
  if (auto refusal = read_group_name(request, batch.group)) return refusal;
  if (auto refusal = read_stream_name(request, batch.stream)) return refusal;
  if (auto refusal = read_events(request, batch.events)) return refusal;
  element entity;
  batch.entity_problem = {};
  if (request["entity"].get(entity) == simdjson::SUCCESS && !entity.is_null()) {
    batch.entity_problem = entity_problem(entity, log_entity);
  }
  return std::nullopt;
}

LogSelection select_events(std::span<const LogEventView> events, system_clock::time_point now,
                           std::optional<std::chrono::days> retention) {
  const auto count_before = [&](std::int64_t time_ms) {
    const auto first = std::partition_point(
        events.begin(), events.end(),
        [&](const LogEventView& event) { return event.timestamp_ms < time_ms; });
    return static_cast<std::size_t>(first - events.begin());
  };
  LogSelection result;
  const std::size_t too_old = count_before(to_ms(now - limits::log_age_max));
  const std::size_t expired = retention ? count_before(to_ms(now - *retention)) : 0;
  result.accepted_begin = std::max(too_old, expired);
  result.accepted_end = count_before(to_ms(now + limits::log_ahead_max) + 1);
  if (too_old > 0) result.too_old_end = too_old;
  if (expired > 0) result.expired_end = expired;
  if (result.accepted_end < events.size()) result.too_new_start = result.accepted_end;
  return result;
}

Refusal check_span(std::span<const LogEventView> events, const LogSelection& selection) {
  if (selection.accepted_begin >= selection.accepted_end) return std::nullopt;
  const milliseconds span(events[selection.accepted_end - 1].timestamp_ms -
                          events[selection.accepted_begin].timestamp_ms);
  if (span <= limits::log_batch_span_max) return std::nullopt;
  return invalid_parameter(
      "The batch of log events in a single PutLogEvents request cannot span more than 24 hours.");
}

}  // namespace spillway::local
