// SPDX-License-Identifier: Apache-2.0
//
// The entity that metrics and log events may name as their origin. Both services check it the same
// way and refuse it without refusing the data.
#pragma once

#include <cstddef>
#include <string_view>

#include <simdjson.h>

namespace spillway::local {

/// How a service spells the two parts, and how long a value may be.
struct EntityForm {
  std::string_view key_attributes;
  std::string_view attributes;
  std::size_t value_chars_max;
};
extern const EntityForm metric_entity;
extern const EntityForm log_entity;

/// The reason that AWS would name (InvalidEntity, InvalidKeyAttributes, InvalidAttributes,
/// InvalidTypeValue or MissingRequiredFields), or nothing when the entity is valid.
std::string_view entity_problem(simdjson::dom::element entity, const EntityForm& form);

}  // namespace spillway::local
