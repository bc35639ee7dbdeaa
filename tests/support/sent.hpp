// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <support/gunzip.hpp>
#include <support/json.hpp>

#include <spillway/engine/testing.hpp>

namespace spillway::testing {

/// What a TestEngine with aws_config() has sent, taken apart.
struct Sent {
  std::vector<Json> logs;
  std::vector<Json> segments;
  /// By "Name|Value of a dimension|...", without the dimension Service.
  std::map<std::string, Json> metrics;

  /// The sum of a counter; 0 when it was never sent.
  double sum(const std::string& metric) const {
    const auto found = metrics.find(metric);
    return found == metrics.end() ? 0 : found->second["Value"].number();
  }
};

/// Flushes first.
inline Sent sent(TestEngine& test) {
  EXPECT_TRUE(test.engine.flush(std::chrono::seconds(1)));
  Sent all;
  for (const auto& request : test.http.requests()) {
    const Json body(body_of(request));
    if (body.has("logEvents")) {
      for (std::size_t i = 0; i < body["logEvents"].size(); ++i) {
        all.logs.emplace_back(body["logEvents"][i]["message"].string());
      }
    } else if (body.has("TraceSegmentDocuments")) {
      for (std::size_t i = 0; i < body["TraceSegmentDocuments"].size(); ++i) {
        all.segments.emplace_back(body["TraceSegmentDocuments"][i].string());
      }
    } else {
      for (std::size_t i = 0; i < body["MetricData"].size(); ++i) {
        const Json datum = body["MetricData"][i];
        std::string key = datum["MetricName"].string();
        for (std::size_t d = 0; d < datum["Dimensions"].size(); ++d) {
          const std::string name = datum["Dimensions"][d]["Name"].string();
          if (name != "Service") key += "|" + datum["Dimensions"][d]["Value"].string();
        }
        all.metrics.emplace(key, datum);
      }
    }
  }
  return all;
}

}  // namespace spillway::testing
