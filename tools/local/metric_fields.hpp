// SPDX-License-Identifier: Apache-2.0
//
// The fields that a PutMetricData request is made of: each function reads one, or says what
// CloudWatch would refuse it for. `parameter` is the path as the service's messages spell it:
// MetricData.member.1.Value.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <simdjson.h>

#include "local/protocol.hpp"

namespace spillway::local {

/// Name and value.
using Dimensions = std::vector<std::pair<std::string_view, std::string_view>>;

ApiError invalid_value(std::string message);
ApiError missing(const std::string& parameter);
ApiError invalid_combination(std::string message);
ApiError wrong_type(const std::string& parameter, const char* wanted);
ApiError too_many(const std::string& parameter, std::size_t max);

/// Printable ASCII, 1 to `chars_max` characters.
Refusal read_text(simdjson::dom::element value, const std::string& parameter, std::size_t chars_max,
                  std::string_view& text);
Refusal read_namespace(simdjson::dom::element value, std::string_view& text);
/// Sorts them by name: their order is not part of a metric's identity.
Refusal read_dimensions(simdjson::dom::element value, const std::string& parameter,
                        Dimensions& dimensions);
Refusal read_number(simdjson::dom::element value, const std::string& parameter, double& number);
Refusal read_numbers(simdjson::dom::element value, const std::string& parameter,
                     std::vector<double>& numbers);
Refusal read_timestamp(simdjson::dom::element value, const std::string& parameter,
                       std::chrono::system_clock::time_point now);

}  // namespace spillway::local
