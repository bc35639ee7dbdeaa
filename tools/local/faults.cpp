// SPDX-License-Identifier: Apache-2.0
#include "local/faults.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "local/limits.hpp"
#include <spillway/transport/text.hpp>

namespace spillway::local {
namespace {

using transport::parse_number;

constexpr std::array<std::string_view, 9> kind_names{
    "throttle", "error_500",     "error_503", "partial_reject", "delay",
    "refuse",   "lost_response", "skew",      "expired_token"};
constexpr std::array<FaultKind, 9> kinds{
    FaultKind::throttle,       FaultKind::error_500, FaultKind::error_503,
    FaultKind::partial_reject, FaultKind::delay,     FaultKind::refuse,
    FaultKind::lost_response,  FaultKind::skew,      FaultKind::expired_token};
constexpr std::array<std::string_view, 4> services{"*", "monitoring", "logs", "xray"};
constexpr std::array<std::string_view, 3> reasons{"too_old", "expired", "too_new"};

template <std::size_t Size>
std::optional<std::size_t> index_of(const std::array<std::string_view, Size>& names,
                                    std::string_view name) {
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) return std::nullopt;
  return static_cast<std::size_t>(found - names.begin());
}

template <std::size_t Size>
std::string one_of(const std::array<std::string_view, Size>& names) {
  std::string text = "one of";
  for (const std::string_view name : names) {
    text.append(name == names.front() ? " " : ", ").append(name);
  }
  return text;
}

// Sets one field; returns what the value should have been when it does not fit, or "unknown".
std::string set_field(Fault& fault, std::string_view key, const std::string& value) {
  if (key == "kind") {
    const auto index = index_of(kind_names, value);
    if (!index) return one_of(kind_names);
    fault.kind = kinds[*index];
  } else if (key == "service") {
    if (!index_of(services, value)) return one_of(services);
    fault.service = value;
  } else if (key == "operation") {
    fault.operation = value;
  } else if (key == "count") {
    const auto number = parse_number<std::int64_t>(value);
    if (!number || *number < -1 || *number == 0) return "a number of requests, or -1 for all";
    fault.count = *number;
  } else if (key == "probability") {
    const auto number = parse_number<double>(value);
    if (!number || !(*number > 0 && *number <= 1)) return "above 0 and at most 1";
    fault.probability = *number;
  } else if (key == "seed") {
    const auto number = parse_number<std::uint64_t>(value);
    if (!number) return "a number";
    fault.seed = *number;
  } else if (key == "delay_ms" || key == "ms") {
    const auto number = parse_number<std::int64_t>(value);
    if (!number || *number < 0 || *number > 3'600'000) return "0 to 3600000 milliseconds";
    fault.delay = std::chrono::milliseconds(*number);
  } else if (key == "skew_s" || key == "seconds") {
    const auto number = parse_number<std::int64_t>(value);
    constexpr std::int64_t ten_years = 315'576'000;
    if (!number || *number < -ten_years || *number > ten_years) return "a number of seconds";
    fault.skew = std::chrono::seconds(*number);
  } else if (key == "retry_after_ms") {
    fault.retry_after_ms = value;
  } else if (key == "retry_after") {
    fault.retry_after = value;
  } else if (key == "reason") {
    const auto index = index_of(reasons, value);
    if (!index) return one_of(reasons);
    fault.reason = static_cast<RejectReason>(*index);
  } else if (key == "rejected") {
    const auto number = parse_number<std::uint64_t>(value);
    if (!number) return "a number of events or documents";
    fault.rejected = *number;
  } else if (key == "code") {
    fault.code = value;
  } else {
    return "unknown";
  }
  return {};
}

bool has_control_characters(std::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < ' ' || c == 0x7f; });
}

bool fits(const Fault& fault, std::string_view service, std::string_view operation) {
  // Only these can be half refused: these two, and the three of OTLP.
  if (fault.kind == FaultKind::partial_reject && operation != "PutLogEvents" &&
      operation != "PutTraceSegments" && !operation.starts_with("Export")) {
    return false;
  }
  return (fault.service == "*" || fault.service == service) &&
         (fault.operation == "*" || fault.operation == operation);
}

}  // namespace

std::string_view to_string(FaultKind kind) noexcept {
  const auto* const found = std::find(kinds.begin(), kinds.end(), kind);
  return kind_names[static_cast<std::size_t>(found - kinds.begin())];
}

FaultResult make_fault(const FaultFields& fields) {
  Fault fault;
  std::string problems;
  bool has_kind = false;
  for (const auto& [key, value] : fields) {
    has_kind = has_kind || key == "kind";
    std::string wanted = set_field(fault, key, value);
    if (wanted.empty() && has_control_characters(value)) wanted = "without control characters";
    if (wanted.empty()) continue;
    if (!problems.empty()) problems += "; ";
    if (wanted == "unknown") {
      problems.append("unknown field '").append(key).append("'");
    } else {
      problems.append(key).append(" '").append(value).append("' must be ").append(wanted);
    }
  }
  if (!has_kind) problems.append("a fault needs a kind: ").append(one_of(kind_names));
  if (problems.empty() && fault.kind == FaultKind::delay && fault.delay.count() == 0) {
    problems = "a delay needs ms=<milliseconds>";
  }
  if (problems.empty() && fault.kind == FaultKind::skew && fault.skew.count() == 0) {
    problems = "a skew needs seconds=<number>";
  }
  if (!problems.empty()) return FaultError{std::move(problems)};
  return fault;
}

FaultResult parse_fault(std::string_view spec) {
  const std::size_t colon = std::min(spec.find(':'), spec.size());
  FaultFields fields{{"kind", std::string(spec.substr(0, colon))}};
  spec.remove_prefix(std::min(colon + 1, spec.size()));
  while (!spec.empty()) {
    const std::size_t end = std::min(spec.find(','), spec.size());
    const std::string_view field = spec.substr(0, end);
    const std::size_t equals = field.find('=');
    if (equals == std::string_view::npos) {
      return FaultError{std::string(field).append(" is not of the form name=value")};
    }
    fields.emplace_back(field.substr(0, equals), field.substr(equals + 1));
    spec.remove_prefix(std::min(end + 1, spec.size()));
  }
  return make_fault(fields);
}

// ---- The box ----

FaultBox::FaultBox(const std::vector<Fault>& faults) {
  for (const Fault& fault : faults) add(fault);
}

std::uint64_t FaultBox::add(Fault fault) {
  const std::scoped_lock lock(mutex_);
  if (active_.size() >= limits::faults_max) return 0;
  const std::uint64_t seed = fault.seed;
  active_.push_back({++last_id_, std::move(fault), 0, std::mt19937_64(seed)});
  return last_id_;
}

void FaultBox::clear() {
  const std::scoped_lock lock(mutex_);
  active_.clear();
}

std::vector<FaultReport> FaultBox::reports() const {
  const std::scoped_lock lock(mutex_);
  std::vector<FaultReport> result;
  for (const Active& active : active_) result.push_back({active.id, active.fault, active.fired});
  return result;
}

bool FaultBox::strikes(Active& active) {
  if (active.fault.count >= 0 && active.fired >= static_cast<std::uint64_t>(active.fault.count)) {
    return false;
  }
  // 53 bits as a fraction, the same on every platform, unlike std::uniform_real_distribution.
  const double draw = static_cast<double>(active.random() >> 11) * 0x1p-53;
  if (draw >= active.fault.probability) return false;
  ++active.fired;
  return true;
}

FaultPlan FaultBox::plan(std::string_view service, std::string_view operation) {
  const std::scoped_lock lock(mutex_);
  FaultPlan plan;
  for (Active& active : active_) {
    const Fault& fault = active.fault;
    if (!fits(fault, service, operation)) continue;
    if (fault.kind == FaultKind::delay) {
      if (strikes(active)) plan.delay += fault.delay;
    } else if (fault.kind == FaultKind::skew) {
      if (strikes(active)) plan.skew += fault.skew;
    } else if (!plan.verdict && strikes(active)) {
      plan.verdict = fault;
    }
  }
  return plan;
}

}  // namespace spillway::local
