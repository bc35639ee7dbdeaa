// SPDX-License-Identifier: Apache-2.0
#include "local/metric_fields.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "local/limits.hpp"

namespace spillway::local {

using simdjson::dom::array;
using simdjson::dom::element;
using simdjson::dom::object;
using std::chrono::system_clock;

// ---- Refusals ----

ApiError invalid_value(std::string message) {
  return {400, "InvalidParameterValueException", std::move(message)};
}
ApiError missing(const std::string& parameter) {
  return {400, "MissingRequiredParameterException", "The parameter " + parameter + " is required."};
}
ApiError invalid_combination(std::string message) {
  return {400, "InvalidParameterCombinationException", std::move(message)};
}
ApiError wrong_type(const std::string& parameter, const char* wanted) {
  return {400, "SerializationException", parameter + " must be " + wanted + "."};
}
ApiError too_many(const std::string& parameter, std::size_t max) {
  return invalid_value("The collection " + parameter + " must not have a size greater than " +
                       std::to_string(max) + ".");
}

// ---- Texts ----

namespace {

// Nothing but printable ASCII: the model rules out control characters and everything past ASCII.
bool is_printable_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c <= '~'; });
}

bool is_blank(std::string_view text) {
  return text.find_first_not_of(' ') == std::string_view::npos;
}

}  // namespace

Refusal read_text(element value, const std::string& parameter, std::size_t chars_max,
                  std::string_view& text) {
  if (value.is_null()) return missing(parameter);
  if (value.get(text) != simdjson::SUCCESS) return wrong_type(parameter, "a string");
  if (text.empty() || text.size() > chars_max) {
    return invalid_value("The parameter " + parameter + " must be 1 to " +
                         std::to_string(chars_max) + " characters long.");
  }
  if (!is_printable_ascii(text)) {
    return invalid_value("The parameter " + parameter +
                         " must contain only ASCII characters and no control characters.");
  }
  return std::nullopt;
}

Refusal read_namespace(element value, std::string_view& text) {
  if (auto refusal = read_text(value, "Namespace", limits::namespace_chars_max, text)) {
    return refusal;
  }
  if (text.front() == ':') return invalid_value("The parameter Namespace must not start with ':'.");
  if (text.starts_with("AWS/")) {
    return invalid_value("The value AWS/ for parameter Namespace is invalid.");
  }
  return std::nullopt;
}

namespace {

Refusal read_dimension(element value, const std::string& path, Dimensions& dimensions) {
  object fields;
  if (value.get(fields) != simdjson::SUCCESS) return wrong_type(path, "an object");
  std::pair<std::string_view, std::string_view> dimension;
  bool named = false;
  bool valued = false;
  for (const auto& [key, field] : fields) {
    Refusal refusal;
    if (key == "Name") {
      named = true;
      refusal = read_text(field, path + ".Name", limits::dimension_name_chars_max, dimension.first);
    } else if (key == "Value") {
      valued = true;
      refusal =
          read_text(field, path + ".Value", limits::dimension_value_chars_max, dimension.second);
    }
    if (refusal) return refusal;
  }
  if (!named) return missing(path + ".Name");
  if (!valued) return missing(path + ".Value");
  if (is_blank(dimension.first) || dimension.first.front() == ':') {
    return invalid_value("The parameter " + path +
                         ".Name must include a non-whitespace character and not start with ':'.");
  }
  if (is_blank(dimension.second)) {
    return invalid_value("The parameter " + path +
                         ".Value must include a non-whitespace character.");
  }
  dimensions.push_back(dimension);
  return std::nullopt;
}

}  // namespace

Refusal read_dimensions(element value, const std::string& path, Dimensions& dimensions) {
  array list;
  if (value.get(list) != simdjson::SUCCESS) return wrong_type(path, "a list");
  if (list.size() > limits::dimensions_max) return too_many(path, limits::dimensions_max);
  dimensions.reserve(list.size());
  for (const element member : list) {
    const std::string member_path = path + ".member." + std::to_string(dimensions.size() + 1);
    if (auto refusal = read_dimension(member, member_path, dimensions)) return refusal;
  }
  std::sort(dimensions.begin(), dimensions.end());
  const auto same_name = [](const auto& a, const auto& b) { return a.first == b.first; };
  if (std::adjacent_find(dimensions.begin(), dimensions.end(), same_name) != dimensions.end()) {
    return invalid_value("No metric may specify the same dimension name twice.");
  }
  return std::nullopt;
}

// ---- Numbers ----

namespace {

enum class NumberProblem : std::uint8_t { none, not_a_number, special, out_of_range };

NumberProblem take_number(element value, double& number) {
  std::string_view text;
  // The JSON protocol spells the special doubles as strings.
  if (value.get(text) == simdjson::SUCCESS &&
      (text == "NaN" || text == "Infinity" || text == "-Infinity")) {
    return NumberProblem::special;
  }
  if (value.get(number) != simdjson::SUCCESS) return NumberProblem::not_a_number;
  const double magnitude = std::fabs(number);
  const bool fits = magnitude == 0 || (magnitude >= limits::metric_value_magnitude_min &&
                                       magnitude <= limits::metric_value_max);
  return fits ? NumberProblem::none : NumberProblem::out_of_range;
}

Refusal refuse_number(NumberProblem problem, const std::string& parameter) {
  switch (problem) {
    case NumberProblem::none:
      break;
    case NumberProblem::not_a_number:
      return wrong_type(parameter, "a number");
    case NumberProblem::special:
      return invalid_value("The parameter " + parameter +
                           " is NaN or infinite: special values are not supported.");
    case NumberProblem::out_of_range:
      return invalid_value("The parameter " + parameter +
                           " is too small or too large: it must be within -2^360 to 2^360.");
  }
  return std::nullopt;
}

}  // namespace

Refusal read_number(element value, const std::string& parameter, double& number) {
  return refuse_number(take_number(value, number), parameter);
}

Refusal read_numbers(element value, const std::string& parameter, std::vector<double>& numbers) {
  array list;
  if (value.get(list) != simdjson::SUCCESS) return wrong_type(parameter, "a list");
  if (list.size() > limits::metric_values_max) {
    return too_many(parameter, limits::metric_values_max);
  }
  numbers.reserve(list.size());
  for (const element member : list) {
    double number = 0;
    // The path is spelled out for a bad number only: a request may hold 150 000 good ones.
    if (const NumberProblem problem = take_number(member, number); problem != NumberProblem::none) {
      return refuse_number(problem, parameter + ".member." + std::to_string(numbers.size() + 1));
    }
    numbers.push_back(number);
  }
  return std::nullopt;
}

Refusal read_timestamp(element value, const std::string& parameter, system_clock::time_point now) {
  double seconds = 0;
  if (value.get(seconds) != simdjson::SUCCESS) {
    return wrong_type(parameter, "a number of seconds since 1970");
  }
  const std::chrono::duration<double> time(seconds);
  const std::chrono::duration<double> present = now.time_since_epoch();
  if (time < present - limits::metric_age_max || time > present + limits::metric_ahead_max) {
    return invalid_value("The parameter " + parameter +
                         " must specify a time no more than two weeks in the past and no more "
                         "than two hours in the future.");
  }
  return std::nullopt;
}

}  // namespace spillway::local
