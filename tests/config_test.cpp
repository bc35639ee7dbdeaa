// SPDX-License-Identifier: Apache-2.0
//
// Settings from code, environment, file and default, and every error at once.
#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <support/environment.hpp>
#include <support/temporary_file.hpp>

#include <spillway/engine/config.hpp>
#include <spillway/engine/engine.hpp>

namespace spillway {
namespace {

using std::chrono::milliseconds;
using testing::ScopedVariable;

/// A setting with three values as text, and how code sets the third.
struct Setting3 {
  const char* key;
  const char* from_file;
  const char* from_environment;
  const char* from_code;
  std::function<void(Config&)> set;
};

const std::vector<Setting3>& settings() {
  static const std::vector<Setting3> all{
      {"service", "f", "e", "c", [](Config& c) { c.service = "c"; }},
      {"service_version", "1", "2", "3", [](Config& c) { c.service_version = "3"; }},
      {"metric_namespace", "f", "e", "c", [](Config& c) { c.metric_namespace = "c"; }},
      {"dimensions", "A=f", "A=e,B=2", "A=c",
       [](Config& c) {
         c.dimensions = Dimensions{{"A", "c"}};
       }},
      {"metrics", "none", "emf:logs", "put-metric-data",
       [](Config& c) { c.metrics = MetricsTo::put_metric_data; }},
      {"logs", "none", "console", "put-log-events",
       [](Config& c) { c.logs = LogsTo::put_log_events; }},
      {"traces", "none", "xray:daemon", "put-trace-segments",
       [](Config& c) { c.traces = TracesTo::put_trace_segments; }},
      {"metrics_file", "f", "e", "c", [](Config& c) { c.metrics_file = "c"; }},
      {"logs_file", "f", "e", "c", [](Config& c) { c.logs_file = "c"; }},
      {"log_group", "f", "e", "c", [](Config& c) { c.log_group = "c"; }},
      {"log_stream", "f", "e", "c", [](Config& c) { c.log_stream = "c"; }},
      {"emf_agent_endpoint", "tcp://f:1", "tcp://e:1", "udp://c:1",
       [](Config& c) { c.emf_agent_endpoint = "udp://c:1"; }},
      {"emf_log_group", "f", "e", "c", [](Config& c) { c.emf_log_group = "c"; }},
      {"emf_log_stream", "f", "e", "c", [](Config& c) { c.emf_log_stream = "c"; }},
      {"emf_histogram_object", "true", "true", "true",
       [](Config& c) { c.emf_histogram_object = true; }},
      {"environment", "f", "e", "c", [](Config& c) { c.environment = "c"; }},
      {"metric_data_format", "cbor", "json", "cbor",
       [](Config& c) { c.metric_data_format = MetricDataFormat::cbor; }},
      {"metric_entity", "true", "true", "true", [](Config& c) { c.metric_entity = true; }},
      {"metric_entity_attributes", "A=f", "A=e", "A=c",
       [](Config& c) {
         c.metric_entity_attributes = Dimensions{{"A", "c"}};
       }},
      {"otlp_endpoint", "http://f", "http://e", "http://c",
       [](Config& c) { c.otlp_endpoint = "http://c"; }},
      {"otlp_metrics_endpoint", "http://f", "http://e", "http://c",
       [](Config& c) { c.otlp_metrics_endpoint = "http://c"; }},
      {"otlp_logs_endpoint", "http://f", "http://e", "http://c",
       [](Config& c) { c.otlp_logs_endpoint = "http://c"; }},
      {"otlp_traces_endpoint", "http://f", "http://e", "http://c",
       [](Config& c) { c.otlp_traces_endpoint = "http://c"; }},
      {"otlp_headers", "F=***", "E=***,X=***", "C=***",
       [](Config& c) {
         c.otlp_headers = HttpHeaders{{"C", "secret"}};
       }},
      {"otlp_metrics_headers", "F=***", "E=***,X=***", "C=***",
       [](Config& c) {
         c.otlp_metrics_headers = HttpHeaders{{"C", "secret"}};
       }},
      {"otlp_logs_headers", "F=***", "E=***,X=***", "C=***",
       [](Config& c) {
         c.otlp_logs_headers = HttpHeaders{{"C", "secret"}};
       }},
      {"otlp_traces_headers", "F=***", "E=***,X=***", "C=***",
       [](Config& c) {
         c.otlp_traces_headers = HttpHeaders{{"C", "secret"}};
       }},
      {"otlp_compression", "none", "none", "none",
       [](Config& c) { c.otlp_compression = Compression::none; }},
      {"otlp_sign", "true", "true", "true", [](Config& c) { c.otlp_sign = true; }},
      {"resource_attributes", "A=f", "A=e,B=2", "A=c",
       [](Config& c) {
         c.resource_attributes = Dimensions{{"A", "c"}};
       }},
      {"region", "f-1", "e-1", "c-1", [](Config& c) { c.region = "c-1"; }},
      {"cloudwatch_endpoint", "http://f", "http://e", "http://c",
       [](Config& c) { c.cloudwatch_endpoint = "http://c"; }},
      {"logs_endpoint", "http://f", "http://e", "http://c",
       [](Config& c) { c.logs_endpoint = "http://c"; }},
      {"xray_endpoint", "http://f", "http://e", "http://c",
       [](Config& c) { c.xray_endpoint = "http://c"; }},
      {"xray_daemon_address", "f:1", "e:1", "c:1",
       [](Config& c) { c.xray_daemon_address = "c:1"; }},
      {"log_level", "trace", "fatal", "off", [](Config& c) { c.log_level = Severity::off; }},
      {"log_levels", "db=trace,http.client=off", "db=info", "a=warn",
       [](Config& c) {
         c.log_levels = LogLevels{{"a", Severity::warn}};
       }},
      {"log_rate_max", "5", "6", "7", [](Config& c) { c.log_rate_max = 7; }},
      {"log_retain_level", "trace", "debug", "info",
       [](Config& c) { c.log_retain_level = Severity::info; }},
      {"log_retain_slow", "5ms", "6ms", "7ms",
       [](Config& c) { c.log_retain_slow = milliseconds(7); }},
      {"log_retain_bytes", "70000", "80000", "90000",
       [](Config& c) { c.log_retain_bytes = 90000; }},
      {"trace_reservoir", "5", "6", "7", [](Config& c) { c.trace_reservoir = 7; }},
      {"trace_sample_rate", "0.25", "0.5", "0.75", [](Config& c) { c.trace_sample_rate = 0.75; }},
      {"trace_in_progress_after", "2000ms", "3000ms", "4000ms",
       [](Config& c) { c.trace_in_progress_after = milliseconds(4000); }},
      {"sampling", "xray:api", "xray:daemon", "local",
       [](Config& c) { c.sampling = SamplingFrom::local; }},
      {"sampling_rules_file", "f.json", "e.json", "c.json",
       [](Config& c) { c.sampling_rules_file = "c.json"; }},
      {"trace_keep_rare", "1", "2", "3", [](Config& c) { c.trace_keep_rare = 3; }},
      {"redact", "cards", "emails", "none", [](Config& c) { c.redact = "none"; }},
      {"redact_keys", "a", "b", "c", [](Config& c) { c.redact_keys = "c"; }},
      {"log_coarse_time", "true", "true", "true", [](Config& c) { c.log_coarse_time = true; }},
      {"rollups", "A;A,B", "B", "C,D;A",
       [](Config& c) {
         c.rollups = DimensionSets{{"C", "D"}, {"A"}};
       }},
      {"histogram_error", "0.02", "0.03", "0.04", [](Config& c) { c.histogram_error = 0.04; }},
      {"metric_interval", "2000ms", "3000ms", "4000ms",
       [](Config& c) { c.metric_interval = milliseconds(4000); }},
      {"log_interval", "2ms", "3ms", "4ms", [](Config& c) { c.log_interval = milliseconds(4); }},
      {"trace_interval", "2ms", "3ms", "4ms",
       [](Config& c) { c.trace_interval = milliseconds(4); }},
      {"poll_interval", "2ms", "3ms", "4ms", [](Config& c) { c.poll_interval = milliseconds(4); }},
      {"request_timeout", "20ms", "30ms", "40ms",
       [](Config& c) { c.request_timeout = milliseconds(40); }},
      {"attempts_max", "2", "3", "4", [](Config& c) { c.attempts_max = 4; }},
      {"shutdown_timeout", "2ms", "3ms", "4ms",
       [](Config& c) { c.shutdown_timeout = milliseconds(4); }},
      {"ring_bytes", "4096", "8192", "16384", [](Config& c) { c.ring_bytes = 16384; }},
      {"series_max", "17", "18", "19", [](Config& c) { c.series_max = 19; }},
      {"series_per_metric_max", "17", "18", "19", [](Config& c) { c.series_per_metric_max = 19; }},
      {"queue_bytes_max", "5000000", "6000000", "7000000",
       [](Config& c) { c.queue_bytes_max = 7'000'000; }},
      {"spool_dir", "/f", "/e", "/c", [](Config& c) { c.spool_dir = "/c"; }},
      {"spool_bytes", "5000000", "6000000", "7000000",
       [](Config& c) { c.spool_bytes = 7'000'000; }},
      {"crash_dir", "/f", "/e", "/c", [](Config& c) { c.crash_dir = "/c"; }},
      {"self_metrics", "true", "true", "true", [](Config& c) { c.self_metrics = true; }},
      {"ledger_at_exit", "true", "true", "true", [](Config& c) { c.ledger_at_exit = true; }},
      {"spool_age", "2000ms", "3000ms", "4000ms",
       [](Config& c) { c.spool_age = milliseconds(4000); }},
  };
  return all;
}

std::string variable_of(std::string key) {
  std::transform(key.begin(), key.end(), key.begin(),
                 [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; });
  return "SPILLWAY_" + key;
}

/// The line that describe() has for a key, without the key.
std::string line_of(const Config& config, const std::string& key) {
  const std::string text = "\n" + describe(config);
  const std::size_t at = text.find("\n" + key + " = ");
  if (at == std::string::npos) return "(no line)";
  const std::size_t begin = at + key.size() + 4;
  return text.substr(begin, text.find('\n', begin) - begin);
}

class ConfigTest : public ::testing::Test {
 protected:
  ConfigTest() {
    for (const char* const name :
         {"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ENDPOINT_URL",
          "AWS_ENDPOINT_URL_CLOUDWATCH", "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS",
          "AWS_ENDPOINT_URL_XRAY", "AWS_XRAY_DAEMON_ADDRESS", "AWS_XRAY_TRACING_NAME",
          "OTEL_SERVICE_NAME", "AWS_EMF_SERVICE_NAME", "AWS_EMF_NAMESPACE",
          "AWS_EMF_LOG_GROUP_NAME", "AWS_EMF_LOG_STREAM_NAME", "AWS_LAMBDA_FUNCTION_NAME",
          "SPILLWAY_CONFIG_FILE"}) {
      unset(name);
    }
    for (const Setting3& setting : settings()) unset(variable_of(setting.key));
    set("AWS_CONFIG_FILE", "/nonexistent");
    set("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent");
  }
  void set(const std::string& name, const std::string& value) {
    variables_.push_back(std::make_unique<ScopedVariable>(name, value.c_str()));
  }
  void unset(const std::string& name) {
    variables_.push_back(std::make_unique<ScopedVariable>(name, nullptr));
  }
  void use_file(const std::string& text) {
    set("SPILLWAY_CONFIG_FILE", directory_.write("config.json", text));
  }

  // What resolve() and then validate() have to say.
  static std::vector<ConfigError> errors_of(const Config& given) {
    std::vector<ConfigError> errors;
    const Config config = resolve(given, errors);
    for (ConfigError& error : validate(config)) errors.push_back(std::move(error));
    return errors;
  }
  static std::vector<std::string> wrong_keys(const Config& given) {
    std::vector<std::string> keys;
    for (const ConfigError& error : errors_of(given)) keys.push_back(error.key);
    return keys;
  }
  static Config resolved(const Config& given) {
    std::vector<ConfigError> errors;
    Config config = resolve(given, errors);
    EXPECT_TRUE(errors.empty()) << (errors.empty() ? "" : errors[0].key + errors[0].message);
    return config;
  }

  testing::TemporaryDirectory directory_;
  // In the order of setting; taken back from behind, so that the first state comes back.
  struct Undo : std::vector<std::unique_ptr<ScopedVariable>> {
    Undo() = default;
    Undo(const Undo&) = delete;
    Undo& operator=(const Undo&) = delete;
    ~Undo() {
      while (!empty()) pop_back();
    }
  } variables_;
};

// ---- Precedence ----

TEST_F(ConfigTest, TheTableHasEverySetting) {
  const std::string text = describe(resolved({}));
  EXPECT_EQ(static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n')),
            settings().size());
  for (const Setting3& setting : settings()) {
    EXPECT_NE(line_of(resolved({}), setting.key), "(no line)") << setting.key;
  }
}

TEST_F(ConfigTest, CodeWinsOverEnvironmentOverFileOverDefault) {
  for (const Setting3& setting : settings()) {
    const std::string key = setting.key;
    EXPECT_TRUE(line_of(resolved({}), key).ends_with("  (default)")) << key;
    use_file("{\"" + key + "\":\"" + setting.from_file + "\"}");
    EXPECT_EQ(line_of(resolved({}), key), std::string(setting.from_file) + "  (file)") << key;
    set(variable_of(key), setting.from_environment);
    EXPECT_EQ(line_of(resolved({}), key), std::string(setting.from_environment) + "  (environment)")
        << key;
    Config config;
    setting.set(config);
    EXPECT_EQ(line_of(resolved(config), key), std::string(setting.from_code) + "  (code)") << key;
    unset(variable_of(key));
    unset("SPILLWAY_CONFIG_FILE");
  }
}

TEST_F(ConfigTest, WhatOtherToolsSayComesBehind) {
  EXPECT_EQ(resolved({}).service.get(), "unknown_service");
  set("AWS_EMF_SERVICE_NAME", "emf");
  EXPECT_EQ(resolved({}).service.get(), "emf");
  set("OTEL_SERVICE_NAME", "otel");
  EXPECT_EQ(resolved({}).service.get(), "otel");
  set("AWS_XRAY_TRACING_NAME", "xray");
  EXPECT_EQ(resolved({}).service.get(), "xray");
  use_file(R"({"service":"file"})");
  EXPECT_EQ(resolved({}).service.get(), "file");
  const Config config = resolved({});
  EXPECT_EQ(config.metric_namespace.get(), "file");
  EXPECT_EQ(config.dimensions.get(), (Dimensions{{"Service", "file"}}));
  EXPECT_EQ(config.log_group.get(), "/spillway/file");
  EXPECT_EQ(config.emf_log_group.get(), "/spillway/file/metrics");
  set("AWS_EMF_NAMESPACE", "Shop");
  set("AWS_EMF_LOG_GROUP_NAME", "/emf");
  set("AWS_EMF_LOG_STREAM_NAME", "stream");
  EXPECT_EQ(config.emf_agent_endpoint.get(), "tcp://127.0.0.1:25888");
  set("AWS_EMF_AGENT_ENDPOINT", "udp://agent:25888");
  set("AWS_XRAY_DAEMON_ADDRESS", "xray:2000");
  set("AWS_REGION", "eu-west-1");
  set("AWS_ENDPOINT_URL_XRAY", "http://127.0.0.1:1");
  const Config more = resolved({});
  EXPECT_EQ(more.metric_namespace.get(), "Shop");
  EXPECT_EQ(more.emf_log_group.get(), "/emf");
  EXPECT_EQ(more.emf_log_stream.get(), "stream");
  EXPECT_EQ(more.emf_agent_endpoint.get(), "udp://agent:25888");
  EXPECT_EQ(more.xray_daemon_address.get(), "xray:2000");
  EXPECT_EQ(more.region.get(), "eu-west-1");
  EXPECT_EQ(more.cloudwatch_endpoint.get(), "https://monitoring.eu-west-1.amazonaws.com");
  EXPECT_EQ(more.xray_endpoint.get(), "http://127.0.0.1:1");
}

TEST_F(ConfigTest, TracesAreOffButInLambdaWithItsDaemon) {
  EXPECT_EQ(resolved({}).traces.get(), TracesTo::none);
  set("AWS_XRAY_DAEMON_ADDRESS", "169.254.79.129:2000");
  EXPECT_EQ(resolved({}).traces.get(), TracesTo::none);
  set("AWS_LAMBDA_FUNCTION_NAME", "f");
  EXPECT_EQ(resolved({}).traces.get(), TracesTo::xray_daemon);
  set("SPILLWAY_TRACES", "none");
  EXPECT_EQ(resolved({}).traces.get(), TracesTo::none);
}

TEST_F(ConfigTest, NothingConfiguredIsAGoodConfiguration) { EXPECT_TRUE(errors_of({}).empty()); }

// ---- Values as text ----

TEST_F(ConfigTest, AFileMayHaveValuesOfTheirOwnType) {
  use_file(
      R"({"attempts_max":5,"trace_sample_rate":1e-1,"log_coarse_time":true,"metric_interval":5000,)"
      R"("poll_interval":"1s","dimensions":{"Stage":"prod","Cell":3}})");
  const Config config = resolved({});
  EXPECT_EQ(config.attempts_max.get(), 5);
  EXPECT_EQ(config.trace_sample_rate.get(), 0.1);
  EXPECT_TRUE(config.log_coarse_time.get());
  EXPECT_EQ(config.metric_interval.get(), milliseconds(5000));
  EXPECT_EQ(config.poll_interval.get(), milliseconds(1000));
  EXPECT_EQ(config.dimensions.get(), (Dimensions{{"Stage", "prod"}, {"Cell", "3"}}));
}

TEST_F(ConfigTest, LevelsOfLoggersMayBeAnObject) {
  use_file(R"({"log_levels": {"db": "debug", "http.client": "off"}})");
  const Config config = resolved({});
  ASSERT_EQ(config.log_levels.get().size(), 2U);
  EXPECT_EQ(config.log_levels.get()[1].logger, "http.client");
  EXPECT_EQ(config.log_levels.get()[1].level, Severity::off);
  EXPECT_NE(describe(config).find("log_levels = db=debug,http.client=off  (file)"),
            std::string::npos);
}

TEST_F(ConfigTest, DimensionsOfAFileMayHaveAnyCharacter) {
  use_file(R"({"dimensions":{"Stage":"a,X=1","E=mc2":"yes"}})");
  EXPECT_EQ(resolved({}).dimensions.get(), (Dimensions{{"Stage", "a,X=1"}, {"E=mc2", "yes"}}));
  set("SPILLWAY_DIMENSIONS", "Stage=prod");
  EXPECT_EQ(resolved({}).dimensions.get(), (Dimensions{{"Stage", "prod"}}));
}

TEST_F(ConfigTest, TimesHaveTheirUnits) {
  struct Case {
    const char* text;
    std::int64_t ms;
  };
  for (const Case& c : {Case{"1500", 1500}, Case{"1500ms", 1500}, Case{"2s", 2000},
                        Case{"1m", 60'000}, Case{"-5s", -5000}, Case{"0", 0}}) {
    set("SPILLWAY_METRIC_INTERVAL", c.text);
    EXPECT_EQ(resolved({}).metric_interval.get(), milliseconds(c.ms)) << c.text;
  }
  for (const char* const bad :
       {"", "s", "1h", "1 s", "1.5s", "1sm", "--1", "5-", "99999999999999999999",
        "9223372036854775807m", "-9223372036854775808s", "9223372036854775807"}) {
    set("SPILLWAY_METRIC_INTERVAL", bad);
    EXPECT_EQ(wrong_keys({}), std::vector<std::string>{"metric_interval"}) << bad;
  }
}

TEST_F(ConfigTest, UnreadableValuesAreErrorsThatSayWhatIsAllowed) {
  struct Case {
    const char* variable;
    const char* value;
    const char* allowed;
  };
  for (const Case& c : {
           Case{"SPILLWAY_METRICS", "cloudwatch", "put-metric-data"},
           Case{"SPILLWAY_LOG_LEVEL", "INFO", "info"},
           Case{"SPILLWAY_LOG_LEVELS", "db=loud", "db=debug"},
           Case{"SPILLWAY_LOG_LEVELS", "debug", "db=debug"},
           Case{"SPILLWAY_LOG_COARSE_TIME", "yes", "true or false"},
           Case{"SPILLWAY_ATTEMPTS_MAX", "3.5", "a whole number"},
           Case{"SPILLWAY_ATTEMPTS_MAX", "99999999999999999999", "a whole number"},
           Case{"SPILLWAY_TRACE_SAMPLE_RATE", "5%", "a number"},
           Case{"SPILLWAY_DIMENSIONS", "Stage", "Stage=prod"},
           Case{"OTEL_RESOURCE_ATTRIBUTES", "service.name=orders,team", "pairs"},
       }) {
    set(c.variable, c.value);
    const auto errors = errors_of({});
    ASSERT_EQ(errors.size(), 1U) << c.value;
    EXPECT_EQ(errors[0].value, c.value);
    EXPECT_EQ(errors[0].origin, Origin::environment);
    EXPECT_NE(errors[0].message.find(c.allowed), std::string::npos) << errors[0].message;
    unset(c.variable);
  }
}

TEST_F(ConfigTest, AServiceOfKubernetesNamedSpillwayIsNoSetting) {
  set("SPILLWAY_SERVICE_HOST", "10.0.0.11");
  set("SPILLWAY_SERVICE_PORT", "80");
  set("SPILLWAY_SERVICE_PORT_HTTP", "80");
  set("SPILLWAY_PORT", "tcp://10.0.0.11:80");
  set("SPILLWAY_PORT_80_TCP", "tcp://10.0.0.11:80");
  set("SPILLWAY_PORT_80_TCP_PROTO", "tcp");
  set("SPILLWAY_PORT_80_TCP_PORT", "80");
  set("SPILLWAY_PORT_80_TCP_ADDR", "10.0.0.11");
  set("SPILLWAY_PORT_2000_UDP", "udp://10.0.0.11:2000");
  set("SPILLWAY_RECEIVER_SERVICE_HOST", "10.0.0.12");
  set("SPILLWAY_RECEIVER_PORT_9000_SCTP", "sctp://10.0.0.12:9000");
  EXPECT_TRUE(errors_of({}).empty());
  for (const char* const name :
       {"SPILLWAY_PORT", "SPILLWAY_PORT_X_TCP", "SPILLWAY_PORT_80", "SPILLWAY_SERVICE_HOSTS"}) {
    set(name, "80");
    EXPECT_EQ(errors_of({}).size(), 1U) << name;
    unset(name);
  }
}

TEST_F(ConfigTest, APasswordInAUrlIsNotShown) {
  Config config;
  config.metrics = MetricsTo::otlp;
  config.otlp_endpoint = "http://user:hunter2@127.0.0.1:1/a@b";
  const auto errors = errors_of(config);
  ASSERT_FALSE(errors.empty());
  for (const ConfigError& error : errors) {
    EXPECT_EQ(error.value.find("hunter2"), std::string::npos);
    EXPECT_EQ(error.value.find("http://***@127.0.0.1:1/a@b"), 0U) << error.value;
  }
}

TEST_F(ConfigTest, UnknownNamesAreErrors) {
  set("SPILLWAY_METRCIS", "none");
  set("SPILLWAY_metrics", "none");
  set("SPILLWAY_TEST_SEED", "1");
  EXPECT_EQ(wrong_keys({}).size(), 2U);
  unset("SPILLWAY_METRCIS");
  unset("SPILLWAY_metrics");
  use_file(R"({"metrcis":"none","logs":"none"})");
  EXPECT_EQ(wrong_keys({}), std::vector<std::string>{"metrcis"});
}

TEST_F(ConfigTest, AFileThatCannotBeReadIsAnError) {
  const auto message = [&] {
    const auto errors = errors_of({});
    EXPECT_EQ(errors.size(), 1U);
    return errors.empty() ? std::string() : errors[0].key + ": " + errors[0].message;
  };
  set("SPILLWAY_CONFIG_FILE", "/nonexistent/config.json");
  EXPECT_NE(message().find("No such file"), std::string::npos);
  for (const char* const text : {"", "[]", "{", "not json", "5", "{\"a\":}"}) {
    use_file(text);
    EXPECT_NE(message().find("one JSON object"), std::string::npos) << text;
  }
}

// ---- Wrong configurations ----

TEST_F(ConfigTest, EveryErrorIsListedAtOnce) {
  set("SPILLWAY_LOGS", "cloudwatch");
  set("SPILLWAY_NO_SUCH", "x");
  use_file(R"({"attempts_max":"many","nothing":1,"ring_bytes":5000})");
  Config config;
  config.service = "";
  config.metrics = MetricsTo::put_metric_data;
  config.traces = TracesTo::xray_daemon;
  config.xray_daemon_address = "nowhere";
  config.metric_namespace = "AWS/Shop";
  config.dimensions = Dimensions{{"Stage", ""}};
  config.region = "Not a region";
  config.cloudwatch_endpoint = "http://monitoring.eu-west-1.amazonaws.com";
  config.trace_sample_rate = std::nan("");
  config.metric_interval = milliseconds(0);
  std::vector<std::string> keys = wrong_keys(config);
  std::sort(keys.begin(), keys.end());
  EXPECT_EQ(keys, (std::vector<std::string>{
                      "SPILLWAY_NO_SUCH", "attempts_max", "cloudwatch_endpoint", "dimensions",
                      "logs", "metric_interval", "metric_namespace", "nothing", "region",
                      "ring_bytes", "service", "trace_sample_rate", "xray_daemon_address"}));
  try {
    const Engine engine(config);
    FAIL() << "an engine started with it";
  } catch (const InvalidConfig& invalid) {
    EXPECT_EQ(invalid.errors().size(), keys.size());
    const std::string text = invalid.what();
    EXPECT_NE(text.find("13 errors"), std::string::npos);
    for (const std::string& key : keys) {
      EXPECT_NE(text.find("\n  " + key + " = '"), std::string::npos) << key;
    }
  }
}

TEST_F(ConfigTest, RangesHaveTheirEnds) {
  const auto numbers = [](auto member,
                          std::initializer_list<std::pair<std::int64_t, bool>> values) {
    for (const auto& [value, good] : values) {
      Config config;
      using Value = std::remove_cvref_t<decltype((config.*member).get())>;
      config.*member = Value(value);
      EXPECT_EQ(errors_of(config).empty(), good) << value;
    }
  };
  numbers(&Config::trace_reservoir,
          {{-1, false}, {0, true}, {1'000'000, true}, {1'000'001, false}});
  numbers(&Config::metric_interval,
          {{999, false}, {1000, true}, {3'600'000, true}, {3'600'001, false}});
  numbers(&Config::log_interval, {{0, false}, {1, true}, {60'000, true}, {60'001, false}});
  numbers(&Config::trace_interval, {{0, false}, {1, true}, {60'000, true}, {60'001, false}});
  numbers(&Config::poll_interval, {{0, false}, {1, true}, {1000, true}, {1001, false}});
  numbers(&Config::request_timeout, {{9, false}, {10, true}, {300'000, true}, {300'001, false}});
  numbers(&Config::attempts_max, {{-1, false}, {0, true}, {100, true}, {101, false}});
  numbers(&Config::shutdown_timeout, {{-1, false}, {0, true}, {300'000, true}, {300'001, false}});
  numbers(&Config::ring_bytes, {{2048, false},
                                {4096, true},
                                {4097, false},
                                {16 << 20, true},
                                {32 << 20, false},
                                {0, false},
                                {-4096, false}});
  numbers(&Config::series_max, {{15, false}, {16, true}, {1 << 20, true}, {(1 << 20) + 1, false}});
  numbers(&Config::series_per_metric_max, {{0, false}, {1, true}, {1 << 20, true}});
  numbers(&Config::spool_bytes, {{(4 << 20) - 1, false}, {4 << 20, true}});
  numbers(&Config::spool_age,
          {{999, false}, {1000, true}, {1'209'600'000, true}, {1'209'600'001, false}});
  numbers(&Config::queue_bytes_max, {{(4 << 20) - 1, false}, {4 << 20, true}});
  for (const auto& [error, good] : {std::pair{0.0079, false},
                                    {0.008, true},
                                    {0.25, true},
                                    {0.26, false},
                                    {std::nan(""), false}}) {
    Config config;
    config.histogram_error = error;
    EXPECT_EQ(errors_of(config).empty(), good) << error;
  }
  for (const auto& [rate, good] : {std::pair{-0.001, false},
                                   {0.0, true},
                                   {1.0, true},
                                   {1.001, false},
                                   {std::nan(""), false}}) {
    Config config;
    config.trace_sample_rate = rate;
    EXPECT_EQ(errors_of(config).empty(), good) << rate;
  }
}

TEST_F(ConfigTest, AttributesOfTheEntityHaveTheirLimits) {
  Config config;
  config.metric_entity_attributes = Dimensions{{"A", ""}};
  EXPECT_TRUE(errors_of(config).empty()) << "asked for only with the entity";
  config.metric_entity = true;
  for (const Dimensions& bad :
       {Dimensions{{"A", ""}}, Dimensions{{"", "v"}}, Dimensions{{std::string(257, 'a'), "v"}},
        Dimensions{{"A", std::string(2049, 'v')}}, Dimensions(11, Dimension{"A", "v"})}) {
    config.metric_entity_attributes = bad;
    EXPECT_EQ(wrong_keys(config), (std::vector<std::string>{"metric_entity_attributes"}));
  }
  config.metric_entity_attributes =
      Dimensions(10, Dimension{std::string(256, 'a'), std::string(2048, 'v')});
  EXPECT_TRUE(errors_of(config).empty());
}

TEST_F(ConfigTest, SetsOfDimensionsAreReadOrRefused) {
  for (const char* const text : {";", "A;;B", "A,,B", "A;,"}) {
    const testing::ScopedVariable variable("SPILLWAY_ROLLUPS", text);
    EXPECT_EQ(wrong_keys({}), (std::vector<std::string>{"rollups"})) << text;
  }
  const testing::ScopedVariable variable("SPILLWAY_ROLLUPS", " Service ; Service, Route");
  std::vector<ConfigError> errors;
  EXPECT_EQ(resolve({}, errors).rollups.get(), (DimensionSets{{"Service"}, {"Service", "Route"}}));
  EXPECT_TRUE(errors.empty());
}

TEST_F(ConfigTest, WhatADestinationNeedsIsAskedForOnlyThen) {
  Config config;
  config.region = "";
  config.log_group = "with blank";
  config.log_stream = "a:b";
  config.emf_log_group = "aws/x";
  config.emf_log_stream = "*";
  config.xray_daemon_address = "nowhere";
  EXPECT_TRUE(errors_of(config).empty());
  config.logs = LogsTo::put_log_events;
  EXPECT_EQ(wrong_keys(config), (std::vector<std::string>{"log_group", "log_stream", "region"}));
  config.logs = LogsTo::file;
  EXPECT_EQ(wrong_keys(config), (std::vector<std::string>{"logs_file"}));
  config.logs = LogsTo::none;
  config.metrics = MetricsTo::emf_logs;
  EXPECT_EQ(wrong_keys(config),
            (std::vector<std::string>{"emf_log_group", "emf_log_stream", "region"}));
  config.metrics = MetricsTo::emf_file;
  EXPECT_EQ(wrong_keys(config), (std::vector<std::string>{"metrics_file"}));
  config.metrics = MetricsTo::none;
  config.metric_namespace = ":bad";
  EXPECT_TRUE(errors_of(config).empty());
  config.traces = TracesTo::xray_daemon;
  EXPECT_EQ(wrong_keys(config), (std::vector<std::string>{"xray_daemon_address"}));
}

TEST_F(ConfigTest, OtlpHasNoSpansInProgress) {
  Config config;
  config.trace_in_progress_after = std::chrono::seconds(5);
  config.traces = TracesTo::put_trace_segments;
  config.region = "eu-west-1";
  EXPECT_TRUE(errors_of(config).empty());
  config.traces = TracesTo::otlp;
  EXPECT_EQ(wrong_keys(config), (std::vector<std::string>{"trace_in_progress_after"}));
}

TEST_F(ConfigTest, ClearTextGoesAnywhereButToAws) {
  Config config;
  config.metrics = MetricsTo::put_metric_data;
  config.region = "eu-west-1";
  for (const auto& [url, good] : {std::pair{"https://monitoring.eu-west-1.amazonaws.com", true},
                                  {"http://monitoring.eu-west-1.amazonaws.com", false},
                                  {"http://MONITORING.eu-west-1.AMAZONAWS.com.cn", false},
                                  {"http://monitoring.eu-west-1.api.aws", false},
                                  {"http://127.0.0.1:4566", true},
                                  {"http://localhost:4566/prefix", true},
                                  {"127.0.0.1:4566", false},
                                  {"", false}}) {
    config.cloudwatch_endpoint = url;
    EXPECT_EQ(errors_of(config).empty(), good) << url;
  }
}

}  // namespace
}  // namespace spillway
