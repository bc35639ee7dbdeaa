// SPDX-License-Identifier: Apache-2.0
//
// A PutMetricData request, read and checked. The service takes all of a request or nothing of it.
#pragma once

#include <chrono>
#include <string_view>
#include <utility>
#include <vector>

#include <simdjson.h>

#include "local/metric_fields.hpp"

namespace spillway::local {

/// One datum, its three forms (a value, values with counts, a statistic set) brought to one. Texts
/// belong to the parsed request.
struct MetricDatum {
  std::string_view name;
  Dimensions dimensions{};  ///< sorted by name
  std::string_view unit = "None";
  int storage_resolution = 60;
  double sample_count = 0;
  double sum = 0;
  double minimum = 0;
  double maximum = 0;
  /// Value and count. Empty for a bare statistic set.
  std::vector<std::pair<double, double>> values{};
};

struct MetricBatch {
  std::string_view metric_namespace;
  std::vector<MetricDatum> datums;
  /// Why an entity was not associated, for X-Amzn-Failure-Message; empty when all were.
  std::string_view entity_failure;
};

/// Reads `request` into `batch`, or says what CloudWatch would refuse it for.
Refusal read_metric_batch(simdjson::dom::object request, std::chrono::system_clock::time_point now,
                          MetricBatch& batch);

}  // namespace spillway::local
