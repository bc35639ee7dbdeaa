// SPDX-License-Identifier: Apache-2.0
//
// Sampling rules as text: the local file of the X-Ray SDKs, and the answers of GetSamplingRules and
// GetSamplingTargets (botocore model xray/2016-04-12, read 2026-08).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <spillway/engine/sampling.hpp>

namespace spillway::detail {

inline constexpr std::size_t sampling_file_bytes_max = 1U << 20;
inline constexpr std::size_t local_rules_max = 1000;

/// Reads a local rules file, version 1 or 2 (sampling/local/* of the X-Ray Python SDK):
///
///   {"version": 2, "default": {"fixed_target": 1, "rate": 0.05},
///    "rules": [{"description": "health", "host": "*", "http_method": "GET", "url_path": "/healthz",
///               "fixed_target": 0, "rate": 0}]}
///
/// Rules are asked in the order of the file, then the default. Version 1 says `service_name` for
/// `host`. Everything wrong is added to `errors`, with where it stands and what is allowed.
std::vector<SamplingRule> parse_local_rules(std::string_view text,
                                            std::vector<std::string>& errors);
/// The same from a file.
std::vector<SamplingRule> read_local_rules(const std::string& path,
                                           std::vector<std::string>& errors);

/// One page of GetSamplingRules.
struct SamplingRulesPage {
  std::vector<SamplingRule> rules;  ///< that clients without resource and attributes can apply
  std::string next_token;           ///< empty: the last page
};
/// Nothing when the body is none of GetSamplingRules. Rules of another version, for one resource, with
/// attributes, or with values out of range are left out.
std::optional<SamplingRulesPage> parse_sampling_rules(std::string_view body);

struct SamplingTarget {
  std::string rule_name;
  std::optional<double> fixed_rate;
  std::optional<std::uint32_t> reservoir_quota;
  std::optional<double> reservoir_quota_ttl;  ///< seconds since 1970
  std::optional<std::uint32_t> interval_seconds;
  std::optional<double> boost_rate;
  std::optional<double> boost_rate_ttl;  ///< seconds since 1970
};
struct UnprocessedStatistics {
  std::string rule_name;
  std::string error_code;
  std::string message;
  bool of_boost = false;  ///< the statistics of the rule's boost
};
struct SamplingTargets {
  std::vector<SamplingTarget> targets;
  std::vector<UnprocessedStatistics> unprocessed;
  double last_rule_modification = 0;  ///< seconds since 1970
};
/// Nothing when the body is none of GetSamplingTargets. Values out of range read as absent.
std::optional<SamplingTargets> parse_sampling_targets(std::string_view body);

}  // namespace spillway::detail
