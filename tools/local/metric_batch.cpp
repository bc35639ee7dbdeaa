// SPDX-License-Identifier: Apache-2.0
#include "local/metric_batch.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>

#include "local/entity.hpp"
#include "local/limits.hpp"

namespace spillway::local {
namespace {

using simdjson::dom::array;
using simdjson::dom::element;
using simdjson::dom::object;
using std::chrono::system_clock;

/// The parts of a datum that say how much: at first as they came, then as one form.
struct Measured {
  std::optional<double> value;
  std::vector<double> values;
  std::vector<double> counts;
  bool has_statistics = false;
};

Refusal read_statistics(element value, const std::string& path, MetricDatum& datum) {
  object fields;
  if (value.get(fields) != simdjson::SUCCESS) return wrong_type(path, "an object");
  std::array<bool, 4> seen{};
  constexpr std::array<std::string_view, 4> names{"SampleCount", "Sum", "Minimum", "Maximum"};
  const std::array<double*, 4> places{&datum.sample_count, &datum.sum, &datum.minimum,
                                      &datum.maximum};
  for (const auto& [key, field] : fields) {
    const auto* const name = std::find(names.begin(), names.end(), key);
    if (name == names.end()) continue;
    const auto index = static_cast<std::size_t>(name - names.begin());
    seen[index] = true;
    const std::string parameter = path + "." + std::string(key);
    if (auto refusal = read_number(field, parameter, *places[index])) return refusal;
  }
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (!seen[i]) return missing(path + "." + std::string(names[i]));
  }
  // Not in the model; other implementations of the service agree on these two.
  if (datum.sample_count <= 0) {
    return invalid_value("The parameter " + path + ".SampleCount must be greater than 0.");
  }
  if (datum.minimum > datum.maximum) {
    return invalid_value("The parameter " + path + ".Minimum must not exceed " + path +
                         ".Maximum.");
  }
  return std::nullopt;
}

// Exactly one of Value, Values and StatisticValues; but Values may stand beside StatisticValues,
// which then carry the exact extremes and sum (as the CloudWatch agent sends them).
Refusal check_kinds(const Measured& measured, const std::string& path) {
  const auto exclusive = [&](const char* a, const char* b) {
    return invalid_combination("The parameters " + path + a + " and " + path + b +
                               " are mutually exclusive and you have specified both.");
  };
  if (measured.value && measured.has_statistics) return exclusive(".Value", ".StatisticValues");
  if (measured.value && !measured.values.empty()) return exclusive(".Value", ".Values");
  if (measured.value && !measured.counts.empty()) return exclusive(".Value", ".Counts");
  if (!measured.value && measured.values.empty() && !measured.has_statistics) {
    return missing(path + ".Value (or .Values, or .StatisticValues)");
  }
  if (!measured.counts.empty() && measured.counts.size() != measured.values.size()) {
    return invalid_value("The parameters " + path + ".Values and " + path +
                         ".Counts must be of the same size.");
  }
  if (std::any_of(measured.counts.begin(), measured.counts.end(),
                  [](double count) { return count < 0; })) {
    return invalid_value("The parameter " + path + ".Counts must not hold a negative number.");
  }
  return std::nullopt;
}

void unite(const Measured& measured, MetricDatum& datum) {
  if (measured.value) datum.values.emplace_back(*measured.value, 1);
  for (std::size_t i = 0; i < measured.values.size(); ++i) {
    datum.values.emplace_back(measured.values[i], measured.counts.empty() ? 1 : measured.counts[i]);
  }
  if (measured.has_statistics) return;
  datum.minimum = datum.maximum = datum.values.front().first;
  for (const auto& [value, count] : datum.values) {
    datum.sample_count += count;
    datum.sum += value * count;
    datum.minimum = std::min(datum.minimum, value);
    datum.maximum = std::max(datum.maximum, value);
  }
}

// ---- Datums ----

Refusal read_unit(element value, const std::string& path, MetricDatum& datum) {
  if (value.get(datum.unit) != simdjson::SUCCESS) return wrong_type(path, "a string");
  if (std::find(limits::metric_units.begin(), limits::metric_units.end(), datum.unit) ==
      limits::metric_units.end()) {
    return invalid_value("The parameter " + path +
                         " must be a value in the set of standard units (Seconds, Microseconds, "
                         "Milliseconds, Bytes, ..., Count, ..., None).");
  }
  return std::nullopt;
}

Refusal read_resolution(element value, const std::string& path, MetricDatum& datum) {
  std::int64_t resolution = 0;
  if (value.get(resolution) != simdjson::SUCCESS) return wrong_type(path, "an integer");
  if (resolution != 1 && resolution != 60) {
    return invalid_value("The parameter " + path + " must be 1 or 60.");
  }
  datum.storage_resolution = static_cast<int>(resolution);
  return std::nullopt;
}

Refusal read_field(std::string_view key, element value, const std::string& path,
                   system_clock::time_point now, MetricDatum& datum, Measured& measured) {
  const std::string parameter = path + "." + std::string(key);
  if (key == "MetricName") {
    return read_text(value, parameter, limits::metric_name_chars_max, datum.name);
  }
  if (value.is_null()) return std::nullopt;
  if (key == "Dimensions") return read_dimensions(value, parameter, datum.dimensions);
  if (key == "Timestamp") return read_timestamp(value, parameter, now);
  if (key == "Value") return read_number(value, parameter, measured.value.emplace());
  if (key == "Values") return read_numbers(value, parameter, measured.values);
  if (key == "Counts") return read_numbers(value, parameter, measured.counts);
  if (key == "StatisticValues") {
    measured.has_statistics = true;
    return read_statistics(value, parameter, datum);
  }
  if (key == "Unit") return read_unit(value, parameter, datum);
  if (key == "StorageResolution") return read_resolution(value, parameter, datum);
  return std::nullopt;
}

Refusal read_datum(element value, const std::string& path, system_clock::time_point now,
                   MetricBatch& batch) {
  object fields;
  if (value.get(fields) != simdjson::SUCCESS) return wrong_type(path, "an object");
  MetricDatum datum{};
  Measured measured;
  for (const auto& [key, field] : fields) {
    if (auto refusal = read_field(key, field, path, now, datum, measured)) return refusal;
  }
  if (datum.name.empty()) return missing(path + ".MetricName");
  if (auto refusal = check_kinds(measured, path)) return refusal;
  unite(measured, datum);
  batch.datums.push_back(std::move(datum));
  return std::nullopt;
}

Refusal read_datums(element value, const std::string& path, system_clock::time_point now,
                    MetricBatch& batch) {
  array list;
  if (value.get(list) != simdjson::SUCCESS) return wrong_type(path, "a list");
  if (batch.datums.size() + list.size() > limits::metric_datums_max) {
    return too_many(path, limits::metric_datums_max);
  }
  batch.datums.reserve(batch.datums.size() + list.size());
  std::size_t number = 0;
  for (const element member : list) {
    const std::string member_path = path + ".member." + std::to_string(++number);
    if (auto refusal = read_datum(member, member_path, now, batch)) return refusal;
  }
  return std::nullopt;
}

// The metrics of a bad entity are kept without it, unless the request asks for strictness.
Refusal note_entity_problem(std::string_view problem, bool strict, MetricBatch& batch) {
  if (problem.empty()) return std::nullopt;
  if (strict) return invalid_value("EntityMetricData is invalid: " + std::string(problem) + ".");
  batch.entity_failure = problem;
  return std::nullopt;
}

Refusal read_entities(element value, bool strict, system_clock::time_point now,
                      MetricBatch& batch) {
  array list;
  if (value.get(list) != simdjson::SUCCESS) return wrong_type("EntityMetricData", "a list");
  if (list.size() > limits::metric_entities_max) {
    if (auto refusal = note_entity_problem("EntitySizeTooLarge", strict, batch)) return refusal;
  }
  std::size_t number = 0;
  for (const element member : list) {
    const std::string path = "EntityMetricData.member." + std::to_string(++number);
    element part;
    if (member["Entity"].get(part) == simdjson::SUCCESS) {
      const std::string_view problem = entity_problem(part, metric_entity);
      if (auto refusal = note_entity_problem(problem, strict, batch)) return refusal;
    }
    if (member["MetricData"].get(part) == simdjson::SUCCESS) {
      if (auto refusal = read_datums(part, path + ".MetricData", now, batch)) return refusal;
    }
  }
  return std::nullopt;
}

}  // namespace

Refusal read_metric_batch(object request, system_clock::time_point now, MetricBatch& batch) {
  batch = {};
  element value;
  if (request["Namespace"].get(value) != simdjson::SUCCESS) return missing("Namespace");
  if (auto refusal = read_namespace(value, batch.metric_namespace)) return refusal;

  if (request["MetricData"].get(value) == simdjson::SUCCESS && !value.is_null()) {
    if (auto refusal = read_datums(value, "MetricData", now, batch)) return refusal;
  }
  if (request["EntityMetricData"].get(value) == simdjson::SUCCESS && !value.is_null()) {
    bool strict = false;
    if (request["StrictEntityValidation"].get(strict) != simdjson::SUCCESS) {
      return missing("StrictEntityValidation");
    }
    if (auto refusal = read_entities(value, strict, now, batch)) return refusal;
  }
  if (batch.datums.empty()) return missing("MetricData");
  return std::nullopt;
}

}  // namespace spillway::local
