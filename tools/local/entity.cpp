// SPDX-License-Identifier: Apache-2.0
#include "local/entity.hpp"

#include <algorithm>
#include <array>
#include <map>

#include "local/limits.hpp"

namespace spillway::local {
namespace {

using Attributes = std::map<std::string_view, std::string_view>;

constexpr std::array<std::string_view, 5> key_names{"Type", "ResourceType", "Identifier", "Name",
                                                    "Environment"};

// CloudWatch user guide, "How to add related information to custom telemetry sent to CloudWatch".
struct TypeRule {
  std::string_view type;
  std::array<std::string_view, 2> required;  ///< "": no second one
};
constexpr std::array<TypeRule, 5> type_rules{{
    {"Service", {"Name", "Environment"}},
    {"RemoteService", {"Name", ""}},
    {"AWS::Service", {"Name", ""}},
    {"Resource", {"ResourceType", "Identifier"}},
    {"AWS::Resource", {"ResourceType", "Identifier"}},
}};

// Reads a map of strings whose lengths are within bounds; false when it is something else.
bool read_attributes(simdjson::dom::element element, std::size_t key_chars_max,
                     std::size_t value_chars_max, Attributes& attributes) {
  simdjson::dom::object object;
  if (element.get(object) != simdjson::SUCCESS) return false;
  for (const auto& [key, value] : object) {
    std::string_view text;
    if (value.get(text) != simdjson::SUCCESS || text.empty() || text.size() > value_chars_max ||
        key.empty() || key.size() > key_chars_max) {
      return false;
    }
    attributes[key] = text;
  }
  return true;
}

}  // namespace

const EntityForm metric_entity{"KeyAttributes", "Attributes",
                               limits::metric_entity_value_chars_max};
const EntityForm log_entity{"keyAttributes", "attributes", limits::log_entity_value_chars_max};

std::string_view entity_problem(simdjson::dom::element entity, const EntityForm& form) {
  simdjson::dom::object object;
  simdjson::dom::element part;
  if (entity.get(object) != simdjson::SUCCESS ||
      object[form.key_attributes].get(part) != simdjson::SUCCESS) {
    return "InvalidEntity";
  }
  Attributes keys;
  if (!read_attributes(part, limits::entity_key_chars_max, form.value_chars_max, keys) ||
      keys.size() < limits::entity_keys_min || keys.size() > limits::entity_keys_max ||
      std::any_of(keys.begin(), keys.end(), [](const auto& attribute) {
        return std::find(key_names.begin(), key_names.end(), attribute.first) == key_names.end();
      })) {
    return "InvalidKeyAttributes";
  }
  if (!keys.contains("Type")) return "MissingRequiredFields";
  const auto* const rule = std::find_if(type_rules.begin(), type_rules.end(),
                                        [&](const auto& r) { return r.type == keys["Type"]; });
  if (rule == type_rules.end()) return "InvalidTypeValue";
  for (const std::string_view required : rule->required) {
    if (!required.empty() && !keys.contains(required)) return "MissingRequiredFields";
  }

  Attributes attributes;
  if (object[form.attributes].get(part) == simdjson::SUCCESS &&
      (!read_attributes(part, limits::entity_attribute_key_chars_max, form.value_chars_max,
                        attributes) ||
       attributes.size() > limits::entity_attributes_max)) {
    return "InvalidAttributes";
  }
  return {};
}

}  // namespace spillway::local
