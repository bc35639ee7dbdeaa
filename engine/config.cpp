// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <optional>

#include <simdjson.h>
#include <unistd.h>

#include <spillway/encoders/limits.hpp>
#include <spillway/encoders/redaction.hpp>
#include <spillway/engine/config.hpp>
#include <spillway/engine/sampling_rules.hpp>
#include <spillway/engine/socket_exporter.hpp>
#include <spillway/transport/endpoint.hpp>
#include <spillway/transport/text.hpp>
#include <spillway/transport/udp_sink.hpp>
#include <spillway/transport/url.hpp>

namespace spillway {
namespace {

using std::chrono::milliseconds;
using transport::parse_number;

// ---- Values as text ----

template <class Enum, std::size_t count>
using EnumNames = std::array<std::pair<std::string_view, Enum>, count>;

constexpr EnumNames<MetricsTo, 7> names_of(MetricsTo /*tag*/) {
  return {{{"none", MetricsTo::none},
           {"emf:stdout", MetricsTo::emf_stdout},
           {"emf:file", MetricsTo::emf_file},
           {"emf:agent", MetricsTo::emf_agent},
           {"emf:logs", MetricsTo::emf_logs},
           {"put-metric-data", MetricsTo::put_metric_data},
           {"otlp", MetricsTo::otlp}}};
}
constexpr EnumNames<LogsTo, 6> names_of(LogsTo /*tag*/) {
  return {{{"none", LogsTo::none},
           {"console", LogsTo::console},
           {"stdout", LogsTo::json_stdout},
           {"file", LogsTo::file},
           {"put-log-events", LogsTo::put_log_events},
           {"otlp", LogsTo::otlp}}};
}
constexpr EnumNames<TracesTo, 4> names_of(TracesTo /*tag*/) {
  return {{{"none", TracesTo::none},
           {"xray:daemon", TracesTo::xray_daemon},
           {"put-trace-segments", TracesTo::put_trace_segments},
           {"otlp", TracesTo::otlp}}};
}
constexpr EnumNames<SamplingFrom, 3> names_of(SamplingFrom /*tag*/) {
  return {{{"local", SamplingFrom::local},
           {"xray:daemon", SamplingFrom::xray_daemon},
           {"xray:api", SamplingFrom::xray_api}}};
}
constexpr EnumNames<Compression, 2> names_of(Compression /*tag*/) {
  return {{{"none", Compression::none}, {"gzip", Compression::gzip}}};
}
constexpr EnumNames<MetricDataFormat, 2> names_of(MetricDataFormat /*tag*/) {
  return {{{"json", MetricDataFormat::json}, {"cbor", MetricDataFormat::cbor}}};
}
constexpr EnumNames<Severity, 7> names_of(Severity /*tag*/) {
  return {{{"trace", Severity::trace},
           {"debug", Severity::debug},
           {"info", Severity::info},
           {"warn", Severity::warn},
           {"error", Severity::error},
           {"fatal", Severity::fatal},
           {"off", Severity::off}}};
}

std::optional<std::string> parse(std::string_view text, std::string* /*tag*/) {
  return std::string(text);
}
std::optional<bool> parse(std::string_view text, bool* /*tag*/) {
  if (text == "true" || text == "1") return true;
  if (text == "false" || text == "0") return false;
  return std::nullopt;
}
std::optional<std::int64_t> parse(std::string_view text, std::int64_t* /*tag*/) {
  return parse_number<std::int64_t>(text);
}
std::optional<double> parse(std::string_view text, double* /*tag*/) {
  return parse_number<double>(text);
}
std::optional<milliseconds> parse(std::string_view text, milliseconds* /*tag*/) {
  const std::size_t unit = std::min(text.find_first_not_of("-0123456789"), text.size());
  const auto number = parse_number<std::int64_t>(text.substr(0, unit));
  if (!number) return std::nullopt;
  const std::string_view name = text.substr(unit);
  std::int64_t unit_ms = 1;
  if (name == "s") {
    unit_ms = 1000;
  } else if (name == "m") {
    unit_ms = 60'000;
  } else if (!name.empty() && name != "ms") {
    return std::nullopt;
  }
  constexpr std::int64_t longest_ms = std::int64_t{1} << 52;  // No product overflows below it.
  if (*number > longest_ms / unit_ms || *number < -longest_ms / unit_ms) return std::nullopt;
  return milliseconds(*number * unit_ms);
}
std::optional<Dimensions> parse(std::string_view text, Dimensions* /*tag*/) {
  Dimensions dimensions;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(','), text.size());
    const std::string_view pair = text.substr(0, end);
    const std::size_t equals = pair.find('=');
    if (equals == std::string_view::npos) return std::nullopt;
    dimensions.push_back(
        {std::string(pair.substr(0, equals)), std::string(pair.substr(equals + 1))});
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return dimensions;
}
std::optional<DimensionSets> parse(std::string_view text, DimensionSets* /*tag*/) {
  DimensionSets sets;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(';'), text.size());
    std::string_view names = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    auto& set = sets.emplace_back();
    while (!names.empty()) {
      const std::size_t comma = std::min(names.find(','), names.size());
      const std::string_view name = transport::trim(names.substr(0, comma));
      names.remove_prefix(std::min(comma + 1, names.size()));
      if (name.empty()) return std::nullopt;
      set.emplace_back(name);
    }
    if (set.empty()) return std::nullopt;
  }
  return sets;
}
// "name=value,other=value" with percent-encoded values, as OpenTelemetry's variables are written
// (the W3C's baggage, without properties).
std::optional<std::vector<std::pair<std::string, std::string>>> parse_pairs(std::string_view text) {
  std::vector<std::pair<std::string, std::string>> pairs;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(','), text.size());
    const std::string_view pair = transport::trim(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (pair.empty()) continue;
    const std::size_t equals = std::min(pair.find('='), pair.size());
    const std::string_view name = transport::trim(pair.substr(0, equals));
    if (name.empty() || equals == pair.size()) return std::nullopt;
    auto value = transport::percent_decode(transport::trim(pair.substr(equals + 1)));
    if (!value) return std::nullopt;
    pairs.emplace_back(name, std::move(*value));
  }
  return pairs;
}
std::optional<HttpHeaders> parse(std::string_view text, HttpHeaders* /*tag*/) {
  auto pairs = parse_pairs(text);
  if (!pairs) return std::nullopt;
  HttpHeaders headers;
  for (auto& [name, value] : *pairs) headers.push_back({std::move(name), std::move(value)});
  return headers;
}
template <class Enum>
requires std::is_enum_v<Enum> std::optional<Enum> parse(std::string_view text, Enum* /*tag*/) {
  for (const auto& [name, value] : names_of(Enum{})) {
    if (name == text) return value;
  }
  return std::nullopt;
}

std::optional<LogLevels> parse(std::string_view text, LogLevels* /*tag*/) {
  const auto pairs = parse_pairs(text);
  if (!pairs) return std::nullopt;
  LogLevels levels;
  for (const auto& [logger, name] : *pairs) {
    const auto level = parse(name, static_cast<Severity*>(nullptr));
    if (!level) return std::nullopt;
    levels.push_back({logger, *level});
  }
  return levels;
}

/// Without what a URL has between :// and @: it may be a password.
std::string print(const std::string& value) {
  const std::size_t scheme = value.find("://");
  if (scheme == std::string::npos) return value;
  const std::size_t begin = scheme + 3;
  const std::size_t at = value.substr(0, value.find_first_of("/?#", begin)).rfind('@');
  if (at == std::string::npos || at < begin) return value;
  return value.substr(0, begin) + "***" + value.substr(at);
}
std::string print(bool value) { return value ? "true" : "false"; }
std::string print(std::int64_t value) { return std::to_string(value); }
std::string print(double value) {
  std::array<char, 32> text{};
  return {text.data(), std::to_chars(text.data(), text.data() + text.size(), value).ptr};
}
std::string print(milliseconds value) { return std::to_string(value.count()) + "ms"; }
std::string print(const Dimensions& value) {
  std::string text;
  for (const Dimension& dimension : value) {
    if (!text.empty()) text += ',';
    text.append(dimension.name).append("=").append(dimension.value);
  }
  return text;
}
std::string print(const DimensionSets& value) {
  std::string text;
  for (std::size_t i = 0; i < value.size(); ++i) {
    if (i != 0) text += ';';
    for (std::size_t j = 0; j < value[i].size(); ++j) {
      if (j != 0) text += ',';
      text.append(value[i][j]);
    }
  }
  return text;
}
std::string print(const HttpHeaders& value) {
  std::string text;
  for (const transport::HttpHeader& header : value) {
    if (!text.empty()) text += ',';
    text.append(header.name).append("=***");
  }
  return text;
}
template <class Enum>
requires std::is_enum_v<Enum> std::string print(Enum value) {
  for (const auto& [name, other] : names_of(Enum{})) {
    if (other == value) return std::string(name);
  }
  return "?";
}
std::string print(const LogLevels& value) {
  std::string text;
  for (const LoggerLevel& one : value) {
    if (!text.empty()) text += ',';
    text.append(one.logger).append("=").append(print(one.level));
  }
  return text;
}

std::string allowed(std::string* /*tag*/) { return "text"; }
std::string allowed(bool* /*tag*/) { return "true or false"; }
std::string allowed(std::int64_t* /*tag*/) { return "a whole number"; }
std::string allowed(double* /*tag*/) { return "a number"; }
std::string allowed(milliseconds* /*tag*/) { return "a time like 500ms, 10s or 1m"; }
std::string allowed(Dimensions* /*tag*/) { return "pairs like Stage=prod,Cell=3"; }
std::string allowed(DimensionSets* /*tag*/) { return "sets of names like Service;Service,Route"; }
std::string allowed(HttpHeaders* /*tag*/) {
  return "pairs like Authorization=Bearer%20token, percent-encoded";
}
std::string allowed(LogLevels* /*tag*/) {
  return "pairs like db=debug,http=warn of loggers and trace, debug, info, warn, error, fatal or "
         "off";
}
template <class Enum>
requires std::is_enum_v<Enum> std::string allowed(Enum* /*tag*/) {
  std::string text = "one of";
  for (const auto& [name, value] : names_of(Enum{})) text.append(" ").append(name);
  return text;
}

// ---- The settings, listed once ----

/// Calls `visit(key, setting)` for every setting of a configuration.
template <class ConfigType, class Visit>
void for_each_setting(ConfigType& config, Visit&& visit) {
  visit("service", config.service);
  visit("service_version", config.service_version);
  visit("environment", config.environment);
  visit("metric_namespace", config.metric_namespace);
  visit("dimensions", config.dimensions);
  visit("rollups", config.rollups);
  visit("histogram_error", config.histogram_error);
  visit("metrics", config.metrics);
  visit("logs", config.logs);
  visit("traces", config.traces);
  visit("metrics_file", config.metrics_file);
  visit("logs_file", config.logs_file);
  visit("log_group", config.log_group);
  visit("log_stream", config.log_stream);
  visit("emf_agent_endpoint", config.emf_agent_endpoint);
  visit("emf_log_group", config.emf_log_group);
  visit("emf_log_stream", config.emf_log_stream);
  visit("emf_histogram_object", config.emf_histogram_object);
  visit("metric_data_format", config.metric_data_format);
  visit("metric_entity", config.metric_entity);
  visit("metric_entity_attributes", config.metric_entity_attributes);
  visit("otlp_endpoint", config.otlp_endpoint);
  visit("otlp_metrics_endpoint", config.otlp_metrics_endpoint);
  visit("otlp_logs_endpoint", config.otlp_logs_endpoint);
  visit("otlp_traces_endpoint", config.otlp_traces_endpoint);
  visit("otlp_headers", config.otlp_headers);
  visit("otlp_metrics_headers", config.otlp_metrics_headers);
  visit("otlp_logs_headers", config.otlp_logs_headers);
  visit("otlp_traces_headers", config.otlp_traces_headers);
  visit("otlp_compression", config.otlp_compression);
  visit("otlp_sign", config.otlp_sign);
  visit("resource_attributes", config.resource_attributes);
  visit("region", config.region);
  visit("cloudwatch_endpoint", config.cloudwatch_endpoint);
  visit("logs_endpoint", config.logs_endpoint);
  visit("xray_endpoint", config.xray_endpoint);
  visit("xray_daemon_address", config.xray_daemon_address);
  visit("log_level", config.log_level);
  visit("log_levels", config.log_levels);
  visit("log_rate_max", config.log_rate_max);
  visit("log_retain_level", config.log_retain_level);
  visit("log_retain_slow", config.log_retain_slow);
  visit("log_retain_bytes", config.log_retain_bytes);
  visit("trace_reservoir", config.trace_reservoir);
  visit("trace_sample_rate", config.trace_sample_rate);
  visit("trace_in_progress_after", config.trace_in_progress_after);
  visit("sampling", config.sampling);
  visit("sampling_rules_file", config.sampling_rules_file);
  visit("trace_keep_rare", config.trace_keep_rare);
  visit("redact", config.redact);
  visit("redact_keys", config.redact_keys);
  visit("log_coarse_time", config.log_coarse_time);
  visit("metric_interval", config.metric_interval);
  visit("log_interval", config.log_interval);
  visit("trace_interval", config.trace_interval);
  visit("poll_interval", config.poll_interval);
  visit("request_timeout", config.request_timeout);
  visit("attempts_max", config.attempts_max);
  visit("shutdown_timeout", config.shutdown_timeout);
  visit("ring_bytes", config.ring_bytes);
  visit("series_max", config.series_max);
  visit("series_per_metric_max", config.series_per_metric_max);
  visit("queue_bytes_max", config.queue_bytes_max);
  visit("spool_dir", config.spool_dir);
  visit("spool_bytes", config.spool_bytes);
  visit("spool_age", config.spool_age);
  visit("crash_dir", config.crash_dir);
  visit("self_metrics", config.self_metrics);
  visit("ledger_at_exit", config.ledger_at_exit);
}

constexpr std::string_view variable_prefix = "SPILLWAY_";

std::string variable_of(std::string_view key) {
  std::string name(variable_prefix);
  for (const char c : key) name += transport::to_upper(c);
  return name;
}

// Variables with the prefix that are no settings.
bool is_other_variable(std::string_view name) {
  return name == "SPILLWAY_CONFIG_FILE" || name == "SPILLWAY_PORTABLE_FENCES" ||
         name.starts_with("SPILLWAY_TEST_") || name.starts_with("SPILLWAY_BENCH_");
}

// Kubernetes tells each pod of a Service named "spillway", or "spillway-receiver", by variables like
// SPILLWAY_SERVICE_HOST, SPILLWAY_SERVICE_PORT_HTTP, SPILLWAY_PORT and SPILLWAY_PORT_80_TCP_ADDR.
// https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
bool is_service_link(std::string_view name, std::string_view value) {
  if (name.ends_with("_SERVICE_HOST") || name.ends_with("_SERVICE_PORT") ||
      name.find("_SERVICE_PORT_") != std::string_view::npos) {
    return true;
  }
  if (name.ends_with("_PORT") && value.find("://") != std::string_view::npos) return true;
  constexpr std::string_view port = "_PORT_";
  const std::size_t at = name.find(port);
  if (at == std::string_view::npos) return false;
  std::string_view rest = name.substr(at + port.size());
  const std::size_t digits = std::min(rest.find_first_not_of("0123456789"), rest.size());
  if (digits == 0) return false;
  rest.remove_prefix(digits);
  return rest.starts_with("_TCP") || rest.starts_with("_UDP") || rest.starts_with("_SCTP");
}

std::string_view to_string(Origin origin) {
  constexpr std::array<std::string_view, 4> names{"default", "file", "environment", "code"};
  return names[static_cast<std::size_t>(origin)];
}

std::string environment(const std::string& name) {
  const char* const value = std::getenv(name.c_str());
  return value == nullptr ? std::string() : std::string(value);
}

// Sets one setting from text when it came from a weaker origin. False: there is no such key.
bool set_from_text(Config& config, std::string_view wanted, std::string_view text, Origin origin,
                   std::vector<ConfigError>& errors) {
  bool found = false;
  for_each_setting(config, [&](std::string_view key, auto& setting) {
    if (key != wanted) return;
    found = true;
    if (setting.origin() >= origin) return;
    using Value = std::remove_cvref_t<decltype(setting.get())>;
    if (auto value = parse(text, static_cast<Value*>(nullptr))) {
      setting = {std::move(*value), origin};
    } else {
      const bool is_secret = std::same_as<Value, HttpHeaders>;
      errors.push_back({std::string(key), is_secret ? "***" : std::string(text), origin,
                        "must be " + allowed(static_cast<Value*>(nullptr))});
    }
  });
  return found;
}

void read_environment(Config& config, std::vector<ConfigError>& errors) {
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    const std::size_t equals = std::min(text.find('='), text.size());
    const std::string_view name = text.substr(0, equals);
    if (!name.starts_with(variable_prefix) || is_other_variable(name)) continue;
    const std::string key = transport::lower(name.substr(variable_prefix.size()));
    const std::string_view value = text.substr(std::min(equals + 1, text.size()));
    if (variable_of(key) == name && set_from_text(config, key, value, Origin::environment, errors))
      continue;
    if (!is_service_link(name, value)) {
      errors.push_back({std::string(name), std::string(value), Origin::environment,
                        "is not a setting; unset it or mend its name"});
    }
  }
}

std::string text_of(simdjson::dom::element value) {
  if (std::string_view text; value.get(text) == simdjson::SUCCESS) return std::string(text);
  return simdjson::minify(value);
}

void read_file(Config& config, const std::string& path, std::vector<ConfigError>& errors) {
  const auto fail = [&](std::string message) {
    errors.push_back({"SPILLWAY_CONFIG_FILE", path, Origin::environment, std::move(message)});
  };
  std::ifstream file(path, std::ios::binary);
  if (!file) return fail(std::string("cannot be read: ") + std::strerror(errno));
  const std::string text(std::istreambuf_iterator<char>(file), {});
  simdjson::dom::parser parser;
  simdjson::dom::object object;
  if (const auto error = parser.parse(simdjson::padded_string(text)).get(object)) {
    return fail(std::string("must hold one JSON object: ") + simdjson::error_message(error));
  }
  for (const auto& [key, value] : object) {
    // As an object, names and values may have any character.
    Setting<Dimensions>* const pairs_setting = key == "dimensions" ? &config.dimensions
                                               : key == "resource_attributes"
                                                   ? &config.resource_attributes
                                                   : nullptr;
    if (simdjson::dom::object pairs;
        pairs_setting != nullptr && value.get(pairs) == simdjson::SUCCESS) {
      if (pairs_setting->origin() >= Origin::file) continue;
      Dimensions dimensions;
      for (const auto& [name, member] : pairs) {
        dimensions.push_back({std::string(name), text_of(member)});
      }
      *pairs_setting = {std::move(dimensions), Origin::file};
      continue;
    }
    std::string value_text = text_of(value);
    if (simdjson::dom::object levels;
        key == "log_levels" && value.get(levels) == simdjson::SUCCESS) {
      value_text.clear();
      for (const auto& [logger, level] : levels) {
        value_text.append(logger).append("=").append(text_of(level)).append(",");
      }
    }
    if (!set_from_text(config, key, value_text, Origin::file, errors)) {
      errors.push_back({std::string(key), text_of(value), Origin::file, "is not a setting"});
    }
  }
}

void fill_in(Setting<std::string>& setting, std::initializer_list<const char*> variables,
             std::string otherwise) {
  if (setting.origin() != Origin::fallback) return;
  for (const char* const variable : variables) {
    if (std::string value = environment(variable); !value.empty()) {
      setting = {std::move(value), Origin::environment};
      return;
    }
  }
  setting = {std::move(otherwise), Origin::fallback};
}

std::string host_name() {
  std::array<char, 256> name{};
  return gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "localhost";
}

void fill_endpoint(Setting<std::string>& setting, const transport::AwsService& service,
                   const std::string& region) {
  if (setting.origin() != Origin::fallback) return;
  if (auto url = transport::configured_endpoint(service)) {
    setting = {std::move(*url), Origin::environment};
  } else if (!region.empty()) {
    setting = {transport::service_endpoint(service, region), Origin::fallback};
  }
}

bool uses_otlp(const Config& config) {
  return config.metrics == MetricsTo::otlp || config.logs == LogsTo::otlp ||
         config.traces == TracesTo::otlp;
}

// Of OTEL_RESOURCE_ATTRIBUTES; empty when it is not there.
Dimensions environment_attributes(std::vector<ConfigError>& errors) {
  const std::string text = environment("OTEL_RESOURCE_ATTRIBUTES");
  Dimensions attributes;
  if (auto pairs = parse_pairs(text)) {
    for (auto& [name, value] : *pairs) attributes.push_back({std::move(name), std::move(value)});
  } else {
    errors.push_back({"OTEL_RESOURCE_ATTRIBUTES", text, Origin::environment,
                      "must be pairs like deployment.environment.name=prod, percent-encoded"});
  }
  return attributes;
}

std::string value_of(const Dimensions& attributes, std::string_view name) {
  const auto found = std::find_if(attributes.begin(), attributes.end(),
                                  [&](const Dimension& one) { return one.name == name; });
  return found == attributes.end() ? std::string() : found->value;
}

void fill_headers(Setting<HttpHeaders>& setting, const char* variable,
                  std::vector<ConfigError>& errors) {
  const std::string text = environment(variable);
  if (setting.origin() != Origin::fallback || text.empty()) return;
  if (auto headers = parse(text, static_cast<HttpHeaders*>(nullptr))) {
    setting = {std::move(*headers), Origin::environment};
  } else {
    errors.push_back({variable, "***", Origin::environment,
                      "must be " + allowed(static_cast<HttpHeaders*>(nullptr))});
  }
}

void fill_otlp_endpoint(Setting<std::string>& setting, const char* variable,
                        const transport::AwsService& service, std::string_view path,
                        bool has_own_base, const Config& config) {
  if (setting.origin() != Origin::fallback) return;
  if (std::string url = environment(variable); !has_own_base && !url.empty()) {
    setting = {std::move(url), Origin::environment};
    return;
  }
  std::string url = config.otlp_endpoint;
  if (url == "aws") url = transport::service_endpoint(service, config.region.get());
  while (url.ends_with('/')) url.pop_back();
  setting = {url.append(path), Origin::fallback};
}

// What OpenTelemetry's variables say of OTLP; of no interest, wrong or right, when nothing uses it.
void fill_otlp(Config& config, std::vector<ConfigError>& errors) {
  // A base that Spillway was told in its own words wins over all of them.
  const bool own_base = config.otlp_endpoint.origin() != Origin::fallback;
  fill_in(config.otlp_endpoint, {"OTEL_EXPORTER_OTLP_ENDPOINT"}, "http://localhost:4318");
  if (!uses_otlp(config)) return;
  fill_otlp_endpoint(config.otlp_metrics_endpoint, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
                     transport::cloudwatch, "/v1/metrics", own_base, config);
  fill_otlp_endpoint(config.otlp_logs_endpoint, "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
                     transport::cloudwatch_logs, "/v1/logs", own_base, config);
  fill_otlp_endpoint(config.otlp_traces_endpoint, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                     transport::xray, "/v1/traces", own_base, config);
  fill_headers(config.otlp_headers, "OTEL_EXPORTER_OTLP_HEADERS", errors);
  fill_headers(config.otlp_metrics_headers, "OTEL_EXPORTER_OTLP_METRICS_HEADERS", errors);
  fill_headers(config.otlp_logs_headers, "OTEL_EXPORTER_OTLP_LOGS_HEADERS", errors);
  fill_headers(config.otlp_traces_headers, "OTEL_EXPORTER_OTLP_TRACES_HEADERS", errors);
  if (const std::string text = environment("OTEL_EXPORTER_OTLP_COMPRESSION");
      config.otlp_compression.origin() == Origin::fallback && !text.empty()) {
    if (const auto compression = parse(text, static_cast<Compression*>(nullptr))) {
      config.otlp_compression = {*compression, Origin::environment};
    } else {
      errors.push_back({"OTEL_EXPORTER_OTLP_COMPRESSION", text, Origin::environment,
                        "must be " + allowed(static_cast<Compression*>(nullptr))});
    }
  }
}

// Names are tokens and values hold no line break (RFC 9110, 5.1 and 5.5).
bool is_header(const transport::HttpHeader& header) {
  constexpr std::string_view token =
      "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  return !header.name.empty() && header.name.find_first_not_of(token) == std::string::npos &&
         std::all_of(header.value.begin(), header.value.end(), [](char c) {
           return (static_cast<unsigned char>(c) >= 0x20 && c != 0x7f) || c == '\t';
         });
}

bool uses_logs(const Config& config) {
  return config.logs == LogsTo::put_log_events || config.metrics == MetricsTo::emf_logs;
}
bool uses_xray(const Config& config) {
  return config.traces == TracesTo::put_trace_segments ||
         (config.traces != TracesTo::none && config.sampling == SamplingFrom::xray_api);
}
bool uses_aws(const Config& config) {
  return uses_logs(config) || config.metrics == MetricsTo::put_metric_data || uses_xray(config);
}

// Characters of log group names (CreateLogGroup).
bool is_log_group(std::string_view name) {
  return !name.empty() && name.size() <= 512 && !name.starts_with("aws/") &&
         name.find_first_not_of(
             "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_/#") ==
             std::string_view::npos;
}
bool is_log_stream(std::string_view name) {
  return !name.empty() && name.size() <= 512 && name.find_first_of(":*") == std::string_view::npos;
}

}  // namespace

InvalidConfig::InvalidConfig(std::vector<ConfigError> errors)
    : std::invalid_argument([&] {
        std::string text = "spillway: the configuration has " + std::to_string(errors.size()) +
                           (errors.size() == 1 ? " error" : " errors");
        for (const ConfigError& error : errors) {
          text.append("\n  ").append(error.key).append(" = '").append(error.value);
          text.append("' (").append(to_string(error.origin)).append("): ").append(error.message);
        }
        return text;
      }()),
      errors_(std::move(errors)) {}

Config resolve(const Config& given, std::vector<ConfigError>& errors) {
  Config config = given;
  read_environment(config, errors);
  if (const std::string path = environment("SPILLWAY_CONFIG_FILE"); !path.empty()) {
    read_file(config, path, errors);
  }
  const Dimensions attributes = environment_attributes(errors);
  const auto fill_from = [&](Setting<std::string>& setting, std::string_view attribute) {
    if (setting.origin() != Origin::fallback || !setting.get().empty()) return;
    if (std::string value = value_of(attributes, attribute); !value.empty()) {
      setting = {std::move(value), Origin::environment};
    }
  };
  fill_in(config.service, {"AWS_XRAY_TRACING_NAME", "OTEL_SERVICE_NAME", "AWS_EMF_SERVICE_NAME"},
          "");
  fill_from(config.service, "service.name");
  fill_in(config.service, {}, "unknown_service");
  fill_from(config.service_version, "service.version");
  fill_from(config.environment, "deployment.environment.name");
  fill_from(config.environment, "deployment.environment");
  if (config.resource_attributes.origin() == Origin::fallback && !attributes.empty()) {
    config.resource_attributes = {attributes, Origin::environment};
  }
  fill_in(config.metric_namespace, {"AWS_EMF_NAMESPACE"}, config.service);
  if (config.dimensions.origin() == Origin::fallback) {
    config.dimensions = {Dimensions{{"Service", config.service}}, Origin::fallback};
  }
  // In Lambda there is a daemon, and its address says so; elsewhere traces are off until somebody
  // wants them.
  if (config.traces.origin() == Origin::fallback &&
      !environment("AWS_LAMBDA_FUNCTION_NAME").empty() &&
      !environment("AWS_XRAY_DAEMON_ADDRESS").empty()) {
    config.traces = {TracesTo::xray_daemon, Origin::environment};
  }
  if (std::string region = transport::configured_region();
      config.region.origin() == Origin::fallback && !region.empty()) {
    config.region = {std::move(region), Origin::environment};
  }
  fill_endpoint(config.cloudwatch_endpoint, transport::cloudwatch, config.region);
  fill_endpoint(config.logs_endpoint, transport::cloudwatch_logs, config.region);
  fill_endpoint(config.xray_endpoint, transport::xray, config.region);
  fill_otlp(config, errors);
  fill_in(config.xray_daemon_address, {"AWS_XRAY_DAEMON_ADDRESS"}, "127.0.0.1:2000");
  const std::string stream = host_name() + "/" + std::to_string(getpid());
  fill_in(config.log_group, {}, "/spillway/" + config.service.get());
  fill_in(config.log_stream, {}, stream);
  fill_in(config.emf_agent_endpoint, {"AWS_EMF_AGENT_ENDPOINT"}, "tcp://127.0.0.1:25888");
  fill_in(config.emf_log_group, {"AWS_EMF_LOG_GROUP_NAME"},
          "/spillway/" + config.service.get() + "/metrics");
  fill_in(config.emf_log_stream, {"AWS_EMF_LOG_STREAM_NAME"}, stream);
  return config;
}

std::vector<ConfigError> validate(const Config& config) {
  std::vector<ConfigError> errors;
  const auto check = [&](bool good, std::string_view key, const auto& setting,
                         std::string message) {
    if (good) return;
    errors.push_back(
        {std::string(key), print(setting.get()), setting.origin(), std::move(message)});
  };
  const auto in_range = [&](std::string_view key, const auto& setting, auto low, auto high) {
    using Value = std::remove_cvref_t<decltype(setting.get())>;
    // Written so that NaN fails.
    check(setting.get() >= Value(low) && setting.get() <= Value(high), key, setting,
          "must be from " + print(Value(low)) + " to " + print(Value(high)));
  };
  using detail::parse_redaction_policy;
  using std::chrono::hours;

  check(!config.service.get().empty() &&
            config.service.get().size() <= limits::segment_name_chars_max,
        "service", config.service, "must have 1 to 200 characters");
  if (config.metrics != MetricsTo::none) {
    check(!limits::namespace_error(config.metric_namespace.get()), "metric_namespace",
          config.metric_namespace,
          limits::namespace_error(config.metric_namespace.get()).value_or(""));
    if (const auto error = limits::dimensions_error(config.dimensions.get())) {
      check(false, "dimensions", config.dimensions, *error);
    }
  }
  if (config.metric_entity) {
    const auto error = limits::entity_attributes_error(config.metric_entity_attributes.get());
    check(!error, "metric_entity_attributes", config.metric_entity_attributes, error.value_or(""));
  }
  check(config.metrics != MetricsTo::emf_file || !config.metrics_file.get().empty(), "metrics_file",
        config.metrics_file, "must name a file, because metrics = emf:file");
  check(config.logs != LogsTo::file || !config.logs_file.get().empty(), "logs_file",
        config.logs_file, "must name a file, because logs = file");
  if (config.logs == LogsTo::put_log_events) {
    check(is_log_group(config.log_group.get()), "log_group", config.log_group,
          "must have 1 to 512 of A-Z a-z 0-9 . - _ / # and not begin with aws/");
    check(is_log_stream(config.log_stream.get()), "log_stream", config.log_stream,
          "must have 1 to 512 characters, none of them : or *");
  }
  if (config.metrics == MetricsTo::emf_agent) {
    check(detail::parse_agent_endpoint(config.emf_agent_endpoint.get()).has_value(),
          "emf_agent_endpoint", config.emf_agent_endpoint,
          "must be tcp://host:port or udp://host:port");
  }
  if (config.metrics == MetricsTo::emf_logs || config.metrics == MetricsTo::emf_agent) {
    check(is_log_group(config.emf_log_group.get()), "emf_log_group", config.emf_log_group,
          "must have 1 to 512 of A-Z a-z 0-9 . - _ / # and not begin with aws/");
    check(is_log_stream(config.emf_log_stream.get()), "emf_log_stream", config.emf_log_stream,
          "must have 1 to 512 characters, none of them : or *");
  }
  if (uses_aws(config)) {
    check(transport::is_region(config.region.get()), "region", config.region,
          "must name an AWS region such as eu-west-1; set it here, in AWS_REGION or in the profile "
          "(the instance metadata service is not asked for it)");
  }
  const auto check_endpoint = [&](bool used, std::string_view key,
                                  const Setting<std::string>& setting) {
    if (!used || (setting.get().empty() && config.region.get().empty())) return;
    const auto url = transport::parse_url(setting.get());
    check(url.has_value(), key, setting,
          "must be a URL such as https://host or http://127.0.0.1:4566");
    const auto is_aws = [](std::string_view host) {
      return host.find(".amazonaws.") != std::string_view::npos || host.ends_with(".api.aws");
    };
    check(!url || url->scheme == "https" || !is_aws(url->host), key, setting,
          "must be https: telemetry and its signatures do not go to AWS in clear text");
  };
  check_endpoint(config.metrics == MetricsTo::put_metric_data, "cloudwatch_endpoint",
                 config.cloudwatch_endpoint);
  check_endpoint(uses_logs(config), "logs_endpoint", config.logs_endpoint);
  check_endpoint(uses_xray(config), "xray_endpoint", config.xray_endpoint);
  const auto check_otlp = [&](bool used, std::string_view signal,
                              const Setting<std::string>& endpoint,
                              const Setting<HttpHeaders>& own_headers) {
    if (!used) return;
    const std::string key = "otlp_" + std::string(signal);
    check(config.otlp_endpoint.get() != "aws" || transport::is_region(config.region.get()),
          "region", config.region, "must name an AWS region, because otlp_endpoint = aws");
    check_endpoint(true, key + "_endpoint", endpoint);
    for (const auto& [name, headers] :
         {std::pair(std::string("otlp_headers"), &config.otlp_headers),
          std::pair(key + "_headers", &own_headers)}) {
      check(std::all_of(headers->get().begin(), headers->get().end(), is_header), name, *headers,
            "must have names of letters, digits and '-', and values without line breaks");
    }
  };
  check_otlp(config.metrics == MetricsTo::otlp, "metrics", config.otlp_metrics_endpoint,
             config.otlp_metrics_headers);
  check_otlp(config.logs == LogsTo::otlp, "logs", config.otlp_logs_endpoint,
             config.otlp_logs_headers);
  check_otlp(config.traces == TracesTo::otlp, "traces", config.otlp_traces_endpoint,
             config.otlp_traces_headers);
  if (uses_otlp(config)) {
    check(!config.otlp_sign || transport::is_region(config.region.get()), "region", config.region,
          "must name an AWS region, because otlp_sign = true");
    std::size_t bytes = 0;
    for (const Dimension& one : config.resource_attributes.get()) {
      bytes += one.name.size() + one.value.size();
      check(!one.name.empty(), "resource_attributes", config.resource_attributes,
            "must have no attribute without a name");
    }
    check(bytes <= limits::otlp_resource_attribute_bytes_max, "resource_attributes",
          config.resource_attributes,
          "must have at most " + std::to_string(limits::otlp_resource_attribute_bytes_max) +
              " bytes of names and values together");
  }
  check(config.traces != TracesTo::xray_daemon ||
            !transport::udp_host_port(config.xray_daemon_address.get()).host.empty(),
        "xray_daemon_address", config.xray_daemon_address,
        "must be host:port, or tcp:host:port udp:host:port");
  check(config.traces == TracesTo::none || config.sampling != SamplingFrom::xray_daemon ||
            !transport::tcp_host_port(config.xray_daemon_address.get()).host.empty(),
        "xray_daemon_address", config.xray_daemon_address,
        "must be host:port, or tcp:host:port udp:host:port, because sampling = xray:daemon");
  check(std::none_of(config.log_levels.get().begin(), config.log_levels.get().end(),
                     [](const LoggerLevel& one) { return one.logger.empty(); }),
        "log_levels", config.log_levels, "must name a logger for each level");
  check(parse_redaction_policy(config.redact.get(), "").has_value(), "redact", config.redact,
        "must be some of cards,emails,tokens, or none");
  check(parse_redaction_policy("", config.redact_keys.get()).has_value(), "redact_keys",
        config.redact_keys, "must be names with commas between them, each with a letter or digit");
  in_range("histogram_error", config.histogram_error, 0.008, 0.25);
  in_range("trace_reservoir", config.trace_reservoir, 0, 1'000'000);
  in_range("trace_sample_rate", config.trace_sample_rate, 0, 1);
  check(config.trace_in_progress_after.get() == milliseconds(0) ||
            (config.trace_in_progress_after.get() >= milliseconds(1000) &&
             config.trace_in_progress_after.get() <= hours(1)),
        "trace_in_progress_after", config.trace_in_progress_after,
        "must be 0, or from 1000ms to 3600000ms");
  check(config.trace_in_progress_after.get() == milliseconds(0) ||
            config.traces.get() != TracesTo::otlp,
        "trace_in_progress_after", config.trace_in_progress_after,
        "must be 0 where traces go out as OTLP, which has no spans in progress: a collector would "
        "take one for a second span");
  in_range("trace_keep_rare", config.trace_keep_rare, 0, 1'000'000);
  if (const std::string& path = config.sampling_rules_file; !path.empty()) {
    std::vector<std::string> problems;
    detail::read_local_rules(path, problems);
    for (std::string& problem : problems) {
      check(false, "sampling_rules_file", config.sampling_rules_file, std::move(problem));
    }
  }
  in_range("log_rate_max", config.log_rate_max, 0, 1'000'000'000);
  in_range("log_retain_slow", config.log_retain_slow, milliseconds(0), hours(1));
  in_range("log_retain_bytes", config.log_retain_bytes, 64 << 10, std::int64_t{16} << 30);
  in_range("metric_interval", config.metric_interval, milliseconds(1000), hours(1));
  in_range("log_interval", config.log_interval, milliseconds(1), milliseconds(60'000));
  in_range("trace_interval", config.trace_interval, milliseconds(1), milliseconds(60'000));
  in_range("poll_interval", config.poll_interval, milliseconds(1), milliseconds(1000));
  in_range("request_timeout", config.request_timeout, milliseconds(10), milliseconds(300'000));
  in_range("attempts_max", config.attempts_max, 0, 100);
  in_range("shutdown_timeout", config.shutdown_timeout, milliseconds(0), milliseconds(300'000));
  const std::int64_t ring = config.ring_bytes.get();
  check(ring >= (4 << 10) && ring <= (16 << 20) && (ring & (ring - 1)) == 0, "ring_bytes",
        config.ring_bytes, "must be a power of two from 4096 to 16777216");
  in_range("series_max", config.series_max, 16, 1 << 20);
  in_range("series_per_metric_max", config.series_per_metric_max, 1, 1 << 20);
  in_range("queue_bytes_max", config.queue_bytes_max, 4 << 20, std::int64_t{64} << 30);
  check(config.spool_dir.get().empty() || config.spool_dir.get().front() == '/', "spool_dir",
        config.spool_dir, "must be an absolute path, or empty for no spool");
  check(config.crash_dir.get().empty() || config.crash_dir.get().front() == '/', "crash_dir",
        config.crash_dir, "must be an absolute path, or empty for rings in memory");
  in_range("spool_bytes", config.spool_bytes, 4 << 20, std::int64_t{1} << 40);
  in_range("spool_age", config.spool_age, milliseconds(1000), hours(14 * 24));
  return errors;
}

std::string describe(const Config& config) {
  std::string text;
  for_each_setting(config, [&](std::string_view key, const auto& setting) {
    text.append(key).append(" = ").append(print(setting.get()));
    text.append("  (").append(to_string(setting.origin())).append(")\n");
  });
  return text;
}

}  // namespace spillway
