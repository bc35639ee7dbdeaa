// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>

#include <simdjson.h>

#include <spillway/engine/sampling_rules.hpp>

namespace spillway::detail {
namespace {

using simdjson::dom::array;
using simdjson::dom::element;
using simdjson::dom::object;

// GetSamplingRules: SamplingRule. Ours where the model has no maximum.
constexpr std::int64_t reservoir_max = 1'000'000;
constexpr std::size_t rule_name_chars_max = 32;
constexpr std::size_t pattern_chars_max = 128;

// ---- The local file ----

class LocalRulesReader {
 public:
  explicit LocalRulesReader(std::vector<std::string>& errors) : errors_(errors) {}

  std::vector<SamplingRule> read(element document) {
    std::vector<SamplingRule> rules;
    object file;
    if (document.get(file) != simdjson::SUCCESS) {
      errors_.emplace_back("must hold one JSON object with version, default and rules");
      return rules;
    }
    refuse_others(file, "", {"version", "default", "rules"});
    std::int64_t version = 0;
    if (file["version"].get(version) != simdjson::SUCCESS || (version != 1 && version != 2)) {
      errors_.emplace_back("version must be 1 or 2");
    }
    host_key_ = version == 1 ? "service_name" : "host";
    if (element list; file["rules"].get(list) == simdjson::SUCCESS) {
      array entries;
      if (list.get(entries) != simdjson::SUCCESS) {
        errors_.emplace_back("rules must be a list");
      } else if (entries.size() > local_rules_max) {
        errors_.emplace_back("rules has " + std::to_string(entries.size()) +
                             " entries, more than " + std::to_string(local_rules_max));
      } else {
        std::size_t index = 0;
        for (const element entry : entries) {
          rules.push_back(read_rule("rules[" + std::to_string(index++) + "]", entry, false));
        }
      }
    }
    element fallback;
    if (file["default"].get(fallback) != simdjson::SUCCESS) {
      errors_.emplace_back("default is missing: it needs fixed_target and rate");
    } else {
      rules.push_back(read_rule("default", fallback, true));
    }
    return rules;
  }

 private:
  SamplingRule read_rule(const std::string& where, element entry, bool is_default) {
    SamplingRule rule;
    object fields;
    if (entry.get(fields) != simdjson::SUCCESS) {
      errors_.push_back(where + " must be an object");
      return rule;
    }
    if (is_default) {
      for (const std::string_view key :
           {std::string_view("host"), std::string_view("service_name"),
            std::string_view("http_method"), std::string_view("url_path")}) {
        if (fields[key].error() == simdjson::SUCCESS) {
          errors_.push_back("default may not have " + std::string(key) +
                            ": it is for what no rule matches");
        }
      }
      refuse_others(fields, "default.",
                    {"fixed_target", "rate", "description", "host", "service_name", "http_method",
                     "url_path"});
    } else {
      refuse_others(fields, where + ".",
                    {"fixed_target", "rate", "description", host_key_, "http_method", "url_path"});
      rule.host = pattern(where, fields, host_key_);
      rule.method = pattern(where, fields, "http_method");
      rule.path = pattern(where, fields, "url_path");
    }
    if (element text; fields["description"].get(text) == simdjson::SUCCESS && !text.is_string()) {
      errors_.push_back(where + ".description must be text");
    }
    std::int64_t target = 0;
    if (fields["fixed_target"].get(target) != simdjson::SUCCESS || target < 0 ||
        target > reservoir_max) {
      errors_.push_back(where + ".fixed_target must be a whole number from 0 to " +
                        std::to_string(reservoir_max) + ", traces a second");
    } else {
      rule.reservoir = static_cast<std::uint32_t>(target);
    }
    double rate = 0;
    // Written so that NaN fails.
    if (fields["rate"].get(rate) != simdjson::SUCCESS || !(rate >= 0 && rate <= 1)) {
      errors_.push_back(where + ".rate must be a number from 0 to 1");
    } else {
      rule.fixed_rate = rate;
    }
    return rule;
  }

  std::string pattern(const std::string& where, object fields, std::string_view key) {
    std::string_view text;
    if (fields[key].get(text) != simdjson::SUCCESS || text.empty() ||
        text.size() > pattern_chars_max) {
      errors_.push_back(where + "." + std::string(key) + " must be a pattern of 1 to " +
                        std::to_string(pattern_chars_max) + " characters such as * or /api/*");
      return "*";
    }
    return std::string(text);
  }

  void refuse_others(object fields, const std::string& where,
                     std::initializer_list<std::string_view> known) {
    for (const auto& [key, value] : fields) {
      if (std::find(known.begin(), known.end(), key) == known.end()) {
        errors_.push_back(where + std::string(key) + " is not known; mend its name or remove it");
      }
    }
  }

  std::vector<std::string>& errors_;
  std::string_view host_key_;
};

// ---- Answers ----

template <class T>
std::optional<T> field(object fields, std::string_view key) {
  T value{};
  if (fields[key].get(value) != simdjson::SUCCESS) return std::nullopt;
  return value;
}

std::optional<double> number_in(object fields, std::string_view key, double low, double high) {
  const auto value = field<double>(fields, key);
  return value && *value >= low && *value <= high ? value : std::nullopt;
}

std::optional<std::uint32_t> count_in(object fields, std::string_view key, double high) {
  const auto value = number_in(fields, key, 0, high);
  return value ? std::optional(static_cast<std::uint32_t>(*value)) : std::nullopt;
}

// A time of X-Ray's: seconds since 1970, within what a 32-bit count of them holds.
constexpr double seconds_max = 4294967295.0;

std::optional<SamplingRule> read_central_rule(object record) {
  object fields;
  if (record["SamplingRule"].get(fields) != simdjson::SUCCESS) return std::nullopt;
  // The rules that a client of the first version can apply (the SDKs' filter).
  if (field<std::int64_t>(fields, "Version").value_or(0) != 1) return std::nullopt;
  if (field<std::string_view>(fields, "ResourceARN").value_or("*") != "*") return std::nullopt;
  if (object attributes;
      fields["Attributes"].get(attributes) == simdjson::SUCCESS && attributes.size() != 0) {
    return std::nullopt;
  }
  SamplingRule rule;
  rule.name = field<std::string_view>(fields, "RuleName").value_or("");
  const auto rate = number_in(fields, "FixedRate", 0, 1);
  const auto reservoir = count_in(fields, "ReservoirSize", reservoir_max);
  if (rule.name.empty() || rule.name.size() > rule_name_chars_max || !rate || !reservoir)
    return std::nullopt;
  rule.fixed_rate = *rate;
  rule.reservoir = *reservoir;
  rule.priority = field<std::int64_t>(fields, "Priority").value_or(10'000);
  const std::array<std::pair<std::string_view, std::string*>, 5> patterns{
      {{"ServiceName", &rule.service_name},
       {"ServiceType", &rule.service_type},
       {"Host", &rule.host},
       {"HTTPMethod", &rule.method},
       {"URLPath", &rule.path}}};
  for (const auto& [key, pattern] : patterns) {
    const auto text = field<std::string_view>(fields, key);
    if (!text) continue;
    if (text->size() > pattern_chars_max) return std::nullopt;
    *pattern = *text;
  }
  object boost;
  rule.boosts = fields["SamplingRateBoost"].get(boost) == simdjson::SUCCESS;
  return rule;
}

}  // namespace

std::vector<SamplingRule> parse_local_rules(std::string_view text,
                                            std::vector<std::string>& errors) {
  simdjson::dom::parser parser;
  element document;
  if (const auto error = parser.parse(simdjson::padded_string(text)).get(document)) {
    errors.emplace_back(std::string("is not JSON: ") + simdjson::error_message(error));
    return {};
  }
  return LocalRulesReader(errors).read(document);
}

std::vector<SamplingRule> read_local_rules(const std::string& path,
                                           std::vector<std::string>& errors) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    errors.emplace_back(std::string("cannot be read: ") + std::strerror(errno));
    return {};
  }
  std::string text;
  text.resize(sampling_file_bytes_max + 1);
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad() || file.gcount() < 0) {
    errors.emplace_back("cannot be read");
    return {};
  }
  text.resize(static_cast<std::size_t>(file.gcount()));
  if (text.size() > sampling_file_bytes_max) {
    errors.emplace_back("is larger than " + std::to_string(sampling_file_bytes_max) + " bytes");
    return {};
  }
  return parse_local_rules(text, errors);
}

std::optional<SamplingRulesPage> parse_sampling_rules(std::string_view body) {
  simdjson::dom::parser parser;
  object answer;
  array records;
  if (parser.parse(simdjson::padded_string(body)).get(answer) != simdjson::SUCCESS ||
      answer["SamplingRuleRecords"].get(records) != simdjson::SUCCESS) {
    return std::nullopt;
  }
  SamplingRulesPage page;
  for (const element entry : records) {
    object record;
    if (entry.get(record) != simdjson::SUCCESS) continue;
    if (auto rule = read_central_rule(record)) page.rules.push_back(std::move(*rule));
  }
  page.next_token = field<std::string_view>(answer, "NextToken").value_or("");
  return page;
}

std::optional<SamplingTargets> parse_sampling_targets(std::string_view body) {
  simdjson::dom::parser parser;
  object answer;
  array documents;
  if (parser.parse(simdjson::padded_string(body)).get(answer) != simdjson::SUCCESS ||
      answer["SamplingTargetDocuments"].get(documents) != simdjson::SUCCESS) {
    return std::nullopt;
  }
  SamplingTargets result;
  for (const element entry : documents) {
    object fields;
    if (entry.get(fields) != simdjson::SUCCESS) continue;
    SamplingTarget& target = result.targets.emplace_back();
    target.rule_name = field<std::string_view>(fields, "RuleName").value_or("");
    target.fixed_rate = number_in(fields, "FixedRate", 0, 1);
    target.reservoir_quota = count_in(fields, "ReservoirQuota", reservoir_max);
    target.reservoir_quota_ttl = number_in(fields, "ReservoirQuotaTTL", 0, seconds_max);
    target.interval_seconds = count_in(fields, "Interval", 3600);
    if (object boost; fields["SamplingBoost"].get(boost) == simdjson::SUCCESS) {
      target.boost_rate = number_in(boost, "BoostRate", 0, 1);
      target.boost_rate_ttl = number_in(boost, "BoostRateTTL", 0, seconds_max);
    }
  }
  for (const bool of_boost : {false, true}) {
    array refused;
    if (answer[of_boost ? "UnprocessedBoostStatistics" : "UnprocessedStatistics"].get(refused) !=
        simdjson::SUCCESS) {
      continue;
    }
    for (const element entry : refused) {
      object fields;
      if (entry.get(fields) != simdjson::SUCCESS) continue;
      const auto text = [&](std::string_view name) {
        return std::string(field<std::string_view>(fields, name).value_or(""));
      };
      result.unprocessed.push_back(
          {text("RuleName"), text("ErrorCode"), text("Message"), of_boost});
    }
  }
  result.last_rule_modification =
      number_in(answer, "LastRuleModification", 0, seconds_max).value_or(0);
  return result;
}

}  // namespace spillway::detail
