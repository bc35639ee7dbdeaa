// SPDX-License-Identifier: Apache-2.0
//
// A PutLogEvents request, read and checked, and the names that every call of Logs carries.
#pragma once

#include <chrono>
#include <cstddef>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include <simdjson.h>

#include "local/log_store.hpp"
#include "local/protocol.hpp"

namespace spillway::local {

/// InvalidParameterException, the answer of Logs to every broken rule.
ApiError invalid_parameter(std::string message);

Refusal read_group_name(simdjson::dom::object request, std::string_view& name);
Refusal read_stream_name(simdjson::dom::object request, std::string_view& name);

struct LogBatch {
  std::string_view group;
  std::string_view stream;
  std::vector<LogEventView> events;
  std::string_view entity_problem;  ///< for rejectedEntityInfo; empty when there is none
};

/// Reads `request` into `batch`, or says what Logs would refuse all of it for, as far as that can
/// be told without the clock and the group's retention.
Refusal read_log_batch(simdjson::dom::object request, LogBatch& batch);

/// Which events of a batch are taken: those from `accepted_begin` to before `accepted_end`. The
/// others are named as in the answer's rejectedLogEventsInfo.
struct LogSelection {
  std::size_t accepted_begin = 0;
  std::size_t accepted_end = 0;
  std::optional<std::size_t> too_old_end{};    ///< exclusive
  std::optional<std::size_t> expired_end{};    ///< exclusive
  std::optional<std::size_t> too_new_start{};  ///< inclusive

  bool rejects_any() const { return too_old_end || expired_end || too_new_start; }
};

/// Sorts the events, which are in order of time, into taken and not.
LogSelection select_events(std::span<const LogEventView> events,
                           std::chrono::system_clock::time_point now,
                           std::optional<std::chrono::days> retention);

/// Refuses a batch whose taken events span more than 24 hours.
Refusal check_span(std::span<const LogEventView> events, const LogSelection& selection);

}  // namespace spillway::local
