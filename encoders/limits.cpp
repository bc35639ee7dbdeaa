// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <spillway/encoders/limits.hpp>

namespace spillway::limits {
namespace {

bool is_printable_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c <= '~'; });
}
bool is_blank(std::string_view text) {
  return text.find_first_not_of(' ') == std::string_view::npos;
}

std::optional<std::string> text_error(std::string_view what, std::string_view text,
                                      std::size_t chars_max, bool may_begin_with_colon) {
  const std::string subject(what);
  if (text.empty()) return subject + " is empty";
  if (text.size() > chars_max) {
    return subject + " has " + std::to_string(text.size()) + " characters, more than " +
           std::to_string(chars_max);
  }
  if (!is_printable_ascii(text)) return subject + " has characters other than printable ASCII";
  if (is_blank(text)) return subject + " is blank";
  if (!may_begin_with_colon && text.front() == ':') return subject + " begins with ':'";
  return std::nullopt;
}

}  // namespace

std::optional<std::string> namespace_error(std::string_view name) {
  if (name.starts_with("AWS/")) return "the namespace begins with AWS/, which is reserved";
  return text_error("the namespace", name, namespace_chars_max, false);
}

std::optional<std::string> metric_name_error(std::string_view name) {
  return text_error("the metric's name", name, metric_name_chars_max, true);
}

std::optional<std::string> entity_attributes_error(const Dimensions& attributes) {
  if (attributes.size() > entity_attributes_max) {
    return "has " + std::to_string(attributes.size()) + " attributes, more than " +
           std::to_string(entity_attributes_max);
  }
  for (const Dimension& one : attributes) {
    if (auto error = text_error("the name of an attribute", one.name,
                                entity_attribute_name_chars_max, true)) {
      return error;
    }
    if (auto error = text_error("the value of attribute '" + one.name + "'", one.value,
                                entity_value_chars_max, true)) {
      return error;
    }
  }
  return std::nullopt;
}

std::optional<std::string> dimension_value_error(std::string_view name, std::string_view value) {
  if (!value.empty() && value.size() <= dimension_value_chars_max && is_printable_ascii(value) &&
      !is_blank(value)) {
    return std::nullopt;
  }
  return text_error("the value of dimension '" + std::string(name) + "'", value,
                    dimension_value_chars_max, true);
}

std::optional<std::string> dimensions_error(const Dimensions& dimensions) {
  if (dimensions.size() > dimensions_max) {
    return std::to_string(dimensions.size()) + " dimensions, more than " +
           std::to_string(dimensions_max);
  }
  for (std::size_t i = 0; i < dimensions.size(); ++i) {
    const Dimension& dimension = dimensions[i];
    if (auto error = text_error("the name of dimension " + std::to_string(i + 1), dimension.name,
                                emf_dimension_name_chars_max, false)) {
      return error;
    }
    if (auto error = dimension_value_error(dimension.name, dimension.value)) return error;
    const auto same = [&](const Dimension& other) { return other.name == dimension.name; };
    if (std::count_if(dimensions.begin(), dimensions.end(), same) != 1) {
      return "dimension '" + dimension.name + "' is given more than once";
    }
  }
  return std::nullopt;
}

}  // namespace spillway::limits
