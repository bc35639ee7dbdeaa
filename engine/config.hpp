// SPDX-License-Identifier: Apache-2.0
//
// How an engine is set up. What the code sets wins over the environment (SPILLWAY_*), that over a
// JSON file (SPILLWAY_CONFIG_FILE), that over the defaults written here. Engine refuses to start
// with a configuration that has errors, and names all of them.
#pragma once

#include <chrono>
#include <concepts>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <spillway/buffers/series.hpp>
#include <spillway/buffers/severity.hpp>
#include <spillway/transport/http.hpp>

namespace spillway {

/// Where a setting's value comes from, weakest first.
enum class Origin : std::uint8_t { fallback, file, environment, code };

/// A value and where it comes from. Assigning one in code marks it as coming from code.
template <class T>
class Setting {
 public:
  // NOLINTNEXTLINE(bugprone-forwarding-reference-overload): the constraint keeps copies out.
  template <class U>
  requires(!std::same_as<std::remove_cvref_t<U>, Setting> && std::convertible_to<U, T>)
      Setting(U&& value)  // NOLINT(google-explicit-constructor)
      : value_(static_cast<T>(std::forward<U>(value))), origin_(Origin::code) {}
  Setting(T value, Origin origin) : value_(std::move(value)), origin_(origin) {}

  operator const T&() const noexcept { return value_; }  // NOLINT(google-explicit-constructor)
  const T& get() const noexcept { return value_; }
  Origin origin() const noexcept { return origin_; }

 private:
  T value_;
  Origin origin_;
};

template <class T>
Setting<T> by_default(T value) {
  return {std::move(value), Origin::fallback};
}

enum class MetricsTo : std::uint8_t {
  none,
  emf_stdout,
  emf_file,
  emf_agent,
  emf_logs,
  put_metric_data,
  otlp
};
enum class LogsTo : std::uint8_t { none, console, json_stdout, file, put_log_events, otlp };
enum class TracesTo : std::uint8_t { none, xray_daemon, put_trace_segments, otlp };
enum class SamplingFrom : std::uint8_t { local, xray_daemon, xray_api };
enum class Compression : std::uint8_t { none, gzip };
enum class MetricDataFormat : std::uint8_t { json, cbor };

/// A level for the loggers of a name and those below it.
struct LoggerLevel {
  std::string logger;
  Severity level;
};
using LogLevels = std::vector<LoggerLevel>;

/// Headers that go with requests; as text "Name=value,Other=value", percent-encoded. Values may be
/// secrets: describe_config() and errors show *** for them.
using HttpHeaders = std::vector<transport::HttpHeader>;

struct Config {
  // ---- who we are ----
  /// Name of the service: segments are named so, logs carry it, metrics have it as the dimension
  /// "Service". Unset: AWS_XRAY_TRACING_NAME, OTEL_SERVICE_NAME, AWS_EMF_SERVICE_NAME,
  /// service.name of OTEL_RESOURCE_ATTRIBUTES, "unknown_service".
  Setting<std::string> service = by_default(std::string());
  /// Unset: service.version of OTEL_RESOURCE_ATTRIBUTES.
  Setting<std::string> service_version = by_default(std::string());
  /// "prod", "staging". Unset: deployment.environment.name (or deployment.environment) of
  /// OTEL_RESOURCE_ATTRIBUTES.
  Setting<std::string> environment = by_default(std::string());
  /// CloudWatch namespace. Unset: AWS_EMF_NAMESPACE, else the service's name.
  Setting<std::string> metric_namespace = by_default(std::string());
  /// Dimensions that every metric has beside its own; as text "Stage=prod,Cell=3". Unset:
  /// Service=<service>.
  Setting<Dimensions> dimensions = by_default(Dimensions());

  /// Sets of dimensions that every metric which has them is reported for beside its own, summed over
  /// the others; as text "Service;Service,Route". Engine::report_by() says it for one metric.
  Setting<DimensionSets> rollups = by_default(DimensionSets());
  /// How far a value of a histogram may be from what was recorded, relative: 0.008 to 0.25. What is
  /// larger makes fewer values to send. Count, sum, minimum and maximum are exact in any case.
  Setting<double> histogram_error = by_default(0.01);

  // ---- where telemetry goes ----
  /// none, emf:stdout, emf:file, emf:agent, emf:logs, put-metric-data, otlp
  Setting<MetricsTo> metrics = by_default(MetricsTo::emf_stdout);
  /// none, console, stdout, file, put-log-events, otlp
  Setting<LogsTo> logs = by_default(LogsTo::json_stdout);
  /// none, xray:daemon, put-trace-segments, otlp
  Setting<TracesTo> traces = by_default(TracesTo::none);
  Setting<std::string> metrics_file = by_default(std::string());  ///< for emf:file
  Setting<std::string> logs_file = by_default(std::string());     ///< for logs to a file
  /// Group and stream for put-log-events, made when missing. Unset: "/spillway/<service>",
  /// "<host>/<process id>".
  Setting<std::string> log_group = by_default(std::string());
  Setting<std::string> log_stream = by_default(std::string());
  /// Where the CloudWatch agent takes EMF, for emf:agent: tcp://host:port or udp://host:port. Unset:
  /// AWS_EMF_AGENT_ENDPOINT, else tcp://127.0.0.1:25888.
  Setting<std::string> emf_agent_endpoint = by_default(std::string());
  /// The same for emf:logs, and what emf:agent tells the agent. Unset: AWS_EMF_LOG_GROUP_NAME, AWS_EMF_LOG_STREAM_NAME,
  /// "/spillway/<service>/metrics".
  Setting<std::string> emf_log_group = by_default(std::string());
  Setting<std::string> emf_log_stream = by_default(std::string());
  /// Histograms in EMF as {"Values","Counts",...}: 1/100 of the size. AWS's own agents write it;
  /// the published specification knows numbers and arrays of numbers only. Histograms of more than
  /// 10 000 measurements in an interval are written so in any case.
  Setting<bool> emf_histogram_object = by_default(false);

  /// Of put-metric-data: json (AWS JSON 1.0), or cbor (Smithy RPC v2), which is what AWS's newest SDKs
  /// send and emulators do not speak.
  Setting<MetricDataFormat> metric_data_format = by_default(MetricDataFormat::json);
  /// Of put-metric-data: says with the metrics which service and environment they are of, so that
  /// CloudWatch shows them there. A service that does not take it keeps the metrics.
  Setting<bool> metric_entity = by_default(false);
  /// More of that service, as "AWS.ServiceNameSource=UserConfiguration"; at most 10.
  Setting<Dimensions> metric_entity_attributes = by_default(Dimensions());

  // ---- OTLP, over HTTP in protobuf ----
  /// Of a collector, to which /v1/metrics, /v1/logs and /v1/traces are added; or "aws", for the
  /// region's own. Unset: OTEL_EXPORTER_OTLP_ENDPOINT, else http://localhost:4318.
  Setting<std::string> otlp_endpoint = by_default(std::string());
  /// The whole URL for one signal. Unset: OTEL_EXPORTER_OTLP_<SIGNAL>_ENDPOINT, else as above.
  Setting<std::string> otlp_metrics_endpoint = by_default(std::string());
  Setting<std::string> otlp_logs_endpoint = by_default(std::string());
  Setting<std::string> otlp_traces_endpoint = by_default(std::string());
  /// With every request, as Authorization=Bearer%20<token>; Content-Type and Content-Encoding are
  /// ours. Unset: OTEL_EXPORTER_OTLP_HEADERS.
  Setting<HttpHeaders> otlp_headers = by_default(HttpHeaders());
  /// On top of those for one signal, in place of one of the same name. Unset:
  /// OTEL_EXPORTER_OTLP_<SIGNAL>_HEADERS.
  Setting<HttpHeaders> otlp_metrics_headers = by_default(HttpHeaders());
  Setting<HttpHeaders> otlp_logs_headers = by_default(HttpHeaders());
  Setting<HttpHeaders> otlp_traces_headers = by_default(HttpHeaders());
  /// Of requests from 10 KB on. Unset: OTEL_EXPORTER_OTLP_COMPRESSION, else gzip.
  Setting<Compression> otlp_compression = by_default(Compression::gzip);
  /// Requests to AWS's own host names are signed (SigV4) unless a header Authorization is set. True:
  /// those to other hosts too, for VPC endpoints and proxies.
  Setting<bool> otlp_sign = by_default(false);
  /// What the telemetry is about, beside service.name, service.version and
  /// deployment.environment.name. Unset: OTEL_RESOURCE_ATTRIBUTES.
  Setting<Dimensions> resource_attributes = by_default(Dimensions());

  // ---- AWS ----
  /// Unset: AWS_REGION, AWS_DEFAULT_REGION, the profile's. An engine that needs one and has none does
  /// not start: the instance's own is not asked for, which would take the network.
  Setting<std::string> region = by_default(std::string());
  /// Unset: AWS_ENDPOINT_URL_<SERVICE>, AWS_ENDPOINT_URL, the profile's, else the region's own.
  Setting<std::string> cloudwatch_endpoint = by_default(std::string());
  Setting<std::string> logs_endpoint = by_default(std::string());
  Setting<std::string> xray_endpoint = by_default(std::string());
  /// host:port of the X-Ray daemon. Unset: AWS_XRAY_DAEMON_ADDRESS, else 127.0.0.1:2000.
  Setting<std::string> xray_daemon_address = by_default(std::string());

  // ---- what is recorded ----
  Setting<Severity> log_level = by_default(Severity::info);
  /// Levels of named loggers (Engine::logger), and of those below them; as text "db=debug,http=warn",
  /// in a file also {"db":"debug"}.
  Setting<LogLevels> log_levels = by_default(LogLevels());
  /// Log records a second of one call site; those beyond are counted as rate_limited, and a record
  /// says how many there were. 0: no limit.
  Setting<std::int64_t> log_rate_max = by_default(std::int64_t{0});
  /// From this level up to log_level, the records of a request (a context with a request id or a
  /// trace) are kept in memory until it ends, and go out only if it fails, is slow or is sampled;
  /// else they are counted as not_retained. off: such records are not made at all.
  Setting<Severity> log_retain_level = by_default(Severity::off);
  /// A request that takes so long is slow; 0: none is.
  Setting<std::chrono::milliseconds> log_retain_slow = by_default(std::chrono::milliseconds(1'000));
  /// Of all that is kept; the oldest request makes room.
  Setting<std::int64_t> log_retain_bytes = by_default(std::int64_t{8} << 20);
  /// Of the traces that begin here: so many a second always, and of the others this share (the
  /// X-Ray SDKs' own default).
  Setting<std::int64_t> trace_reservoir = by_default(std::int64_t{1});
  Setting<double> trace_sample_rate = by_default(0.05);
  /// A segment that is open for so long is sent as one in progress, so that long work is seen before
  /// it ends; costs a record more for each segment. 0: none is. Not with OTLP, which has no such spans.
  Setting<std::chrono::milliseconds> trace_in_progress_after =
      by_default(std::chrono::milliseconds(0));
  /// Whose rules decide which traces are sampled: `local`, the two above or the file below; or those
  /// of X-Ray, asked for through the daemon (`xray:daemon`) or directly (`xray:api`). The local ones
  /// then hold while X-Ray's are not known.
  Setting<SamplingFrom> sampling = by_default(SamplingFrom::local);
  /// Rules in place of these two: a file as the X-Ray SDKs read it, version 2 (or 1). Unset: none.
  Setting<std::string> sampling_rules_file = by_default(std::string());
  /// Of the traces that rules leave out, at most so many a second are kept all the same: when nothing
  /// of their operation was sampled for a minute, and the segment alone when it ends in a fault.
  Setting<std::int64_t> trace_keep_rare = by_default(std::int64_t{0});
  /// What is taken out of every string of logs, spans and wide events before it leaves the process,
  /// "[redacted]" in its place: `cards` (card numbers, by issuer and Luhn's check), `emails`, `tokens`
  /// (bearer tokens, JSON Web Tokens, users and passwords in URLs), or `none`.
  Setting<std::string> redact = by_default(std::string("cards,emails,tokens"));
  /// Keys whose values are taken out whole: of fields, annotations and metadata, and in strings that
  /// hold JSON, a URL's query, a form or headers. Case and punctuation do not count; "*token" is
  /// every key that ends so, and what stands behind a '!' is harmless all the same. Empty: none.
  Setting<std::string> redact_keys = by_default(std::string(
      "*password*,*passwd*,*passphrase*,*pwd,*secret*,*token,!*next_token,!*page_token,"
      "!*continuation_token,!*sequence_token,!*client_token,*api_key,*access_key,*private_key,"
      "*credential*,authorization,proxy_authorization,*cookie,*signature,*card_number,cvv,cvc,pin,"
      "ssn"));
  /// Log records and wide events take the time of the flusher's last round (1 ms under load) instead of the
  /// processor's counter.
  Setting<bool> log_coarse_time = by_default(false);

  // ---- when ----
  Setting<std::chrono::milliseconds> metric_interval =
      by_default(std::chrono::milliseconds(10'000));
  /// The longest time that a log event or a finished trace waits for others to share its request.
  Setting<std::chrono::milliseconds> log_interval = by_default(std::chrono::milliseconds(1'000));
  Setting<std::chrono::milliseconds> trace_interval = by_default(std::chrono::milliseconds(500));
  /// How often the flusher looks while rings fill up; with less to do it slows down to 16 times this.
  Setting<std::chrono::milliseconds> poll_interval = by_default(std::chrono::milliseconds(1));
  Setting<std::chrono::milliseconds> request_timeout = by_default(std::chrono::milliseconds(5'000));
  /// Of one payload, the first included; 0: it is tried again for as long as there is memory to hold
  /// it (queue_bytes_max).
  Setting<std::int64_t> attempts_max = by_default(std::int64_t{0});
  /// How long the destructor of Engine waits for the last delivery.
  Setting<std::chrono::milliseconds> shutdown_timeout =
      by_default(std::chrono::milliseconds(5'000));

  // ---- how much ----
  Setting<std::int64_t> ring_bytes =
      by_default(std::int64_t{1} << 20);  ///< per thread; a power of two
  /// Of all metrics; what more there is, is dropped and counted as series_limit.
  Setting<std::int64_t> series_max = by_default(std::int64_t{1} << 16);
  /// Of one metric; what more there is, is reported with the value "__other__" for the dimension that
  /// has the most values.
  Setting<std::int64_t> series_per_metric_max = by_default(std::int64_t{10'000});
  /// Bytes of memory for what waits for delivery: the buffers of payloads, whatever is in them, from
  /// when the flusher has filled one until it is delivered, dropped or on disk; and log records that
  /// are too large for a ring. What comes on top is dropped and counted as queue_full; a sixteenth is
  /// kept for each signal. Not in it, and bounded each in its own way: rings and cells of threads
  /// (ring_bytes, series_max), the payload that is being filled and four empty ones (1 MB each), the
  /// bodies of requests under way (a copy of the payload for each), what is read back from the spool
  /// (nine payloads of a signal at most), the series of the interval, segments that wait for their
  /// root, and log_retain_bytes.
  Setting<std::int64_t> queue_bytes_max = by_default(std::int64_t{64} << 20);

  // ---- what survives ----
  /// Where payloads go that cannot be sent now, to be sent later, by this process or the next one of
  /// the same service; made when missing, for this user alone. For destinations reached by HTTP.
  /// Empty: they wait in memory, and are dropped and counted when that is full or the process ends.
  Setting<std::string> spool_dir = by_default(std::string());
  /// On disk at most, per process; beyond it the oldest are dropped and counted.
  Setting<std::int64_t> spool_bytes = by_default(std::int64_t{1} << 30);
  /// What is older is dropped and counted. CloudWatch takes nothing that is older than two weeks.
  Setting<std::chrono::milliseconds> spool_age =
      by_default(std::chrono::milliseconds(std::chrono::hours(7 * 24)));

  /// Where the rings of all threads are, so that logs and spans outlive the process when it is killed
  /// or aborts; the next engine of the same service ships them, marked `recovered`. Made when missing,
  /// for this user alone. Best on a tmpfs, such as /dev/shm/<service>; takes ring_bytes a thread. Holds
  /// records as they were made, before redaction. Empty: rings are in memory only.
  Setting<std::string> crash_dir = by_default(std::string());

  // ---- the engine's own account ----
  /// Reports the account (Stats) as metrics with each metric interval: spillway.records.* and
  /// spillway.exporter.* by Signal and Destination, what was dropped by Cause too. They go with the
  /// other metrics and count as no measurements themselves. Some 12 metrics for each signal.
  Setting<bool> self_metrics = by_default(false);
  /// Prints the final account to stderr when the engine shuts down, as a table.
  Setting<bool> ledger_at_exit = by_default(false);

  /// Hears, in plain words, of what went wrong with delivery: at most one message a minute for each
  /// kind. Called on the flusher or sender thread; must not block. Unset: a line on stderr.
  std::function<void(std::string_view)> on_diagnostic = {};
};

struct ConfigError {
  std::string key;
  std::string value;
  Origin origin;
  std::string message;  ///< what is wrong and what is allowed
};

/// Thrown by Engine's constructor; what() lists every error on a line of its own.
class InvalidConfig : public std::invalid_argument {
 public:
  explicit InvalidConfig(std::vector<ConfigError> errors);
  const std::vector<ConfigError>& errors() const noexcept { return errors_; }

 private:
  std::vector<ConfigError> errors_;
};

/// Fills what the code left open from the environment, then the file, then what AWS and
/// OpenTelemetry variables imply. Unreadable values and unknown keys are added to `errors`.
Config resolve(const Config& config, std::vector<ConfigError>& errors);

/// Every error of a configuration, after resolve(). Empty: an engine will start with it.
std::vector<ConfigError> validate(const Config& config);

/// One line a setting: `key = value  (origin)`, after resolve().
std::string describe(const Config& config);

}  // namespace spillway
