// SPDX-License-Identifier: Apache-2.0
//
// The engine: owns the flusher and the sender and gives out handles. One per process is usual;
// several are independent. This header is all that most programs include (as
// <spillway/spillway.hpp>).
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include <spillway/engine/clock.hpp>
#include <spillway/engine/config.hpp>
#include <spillway/engine/context.hpp>
#include <spillway/engine/health.hpp>
#include <spillway/engine/log.hpp>
#include <spillway/engine/logger.hpp>
#include <spillway/engine/metric.hpp>
#include <spillway/engine/span.hpp>
#include <spillway/engine/stats.hpp>
#include <spillway/engine/trace_header.hpp>
#include <spillway/engine/wide_event.hpp>
#include <spillway/transport/disk.hpp>
#include <spillway/transport/http.hpp>

namespace spillway {

/// What an engine runs on, for tests and simulations; the default is the machine itself.
struct Runtime {
  std::shared_ptr<Clock> clock{};                    ///< null: the system's
  std::unique_ptr<transport::HttpTransport> http{};  ///< null: libcurl
  std::function<double()> random{};  ///< numbers in [0, 1) for retry jitter; null: the system's
  bool threads = true;               ///< false: nothing moves but by step() and flush()
  /// What credentials are fetched with, from STS, the container's or the instance's service; null:
  /// libcurl.
  std::unique_ptr<transport::HttpTransport> credentials_http{};
  std::shared_ptr<transport::Disk> disk{};  ///< what spool_dir is on; null: the machine's
  /// What X-Ray's sampling rules are fetched with; null: libcurl.
  std::unique_ptr<transport::HttpTransport> sampling_http{};
};

/// After fork() the child has the object but not its threads. What it records goes nowhere, flush()
/// returns false, and shutdown() and the destructor return at once; an engine of its own delivers.
class Engine {
 public:
  /// Starts the engine. Throws InvalidConfig, which lists every error of the configuration. Touches
  /// no network: whether a destination can be reached is seen, and reported, at the first delivery.
  explicit Engine(const Config& config = {});
  Engine(const Config& config, Runtime runtime);
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
  /// Shuts down within the configured time.
  ~Engine();

  // ---- Metrics ----
  // A handle is made once and kept: making one takes a lock and compares strings. The same name,
  // unit, resolution and dimensions give the same series. The configured dimensions are added to
  // each. What CloudWatch would not take (an empty or non-ASCII dimension value, more than 30
  // dimensions) gives a handle whose measurements are counted as invalid, and a diagnostic that
  // says why. Thread-safe. May throw std::bad_alloc.

  Counter counter(std::string_view name, Unit unit = Unit::count, const Dimensions& dimensions = {},
                  Resolution resolution = Resolution::minute);
  Gauge gauge(std::string_view name, Unit unit = Unit::none, const Dimensions& dimensions = {},
              Resolution resolution = Resolution::minute);
  Histogram histogram(std::string_view name, Unit unit = Unit::none,
                      const Dimensions& dimensions = {},
                      Resolution resolution = Resolution::minute);

  /// The same metric with more dimensions.
  template <class Metric>
  Metric with(const Metric& metric, const Dimensions& more) {
    return Metric(with_dimensions(metric.ref(), more));
  }
  /// The same metric with one more dimension whose value each call takes from the request context;
  /// without a context, the metric itself. A call costs a probe of the thread's cache; the first
  /// one for a value interns the series.
  template <class Metric>
  PerContext<Metric> per(const Metric& metric, ContextField field, StaticName dimension) {
    return PerContext<Metric>(make_view(metric.ref(), field, dimension));
  }

  /// From now on the metric of that name is reported for these sets of its dimensions in place of all
  /// of them: a record of {Service, Route, TenantID} feeds {Service, Route} and {Service, TenantID}, and
  /// nobody pays for their product. A set with a dimension that a series does not have is passed
  /// over; a series for which none is left is reported as it is. Summed by the flusher: what records
  /// does nothing more. Call it before the first measurement. Thread-safe. May throw std::bad_alloc.
  void report_by(std::string_view metric, const DimensionSets& sets);

  // ---- Wide events: see the macro in wide_event.hpp ----

  /// Whether metrics go anywhere.
  bool events_enabled() const noexcept { return events_enabled_; }
  template <std::derived_from<EventPart>... Parts>
  [[gnu::always_inline]] void record_event(LogSite& site, const Parts&... parts) const noexcept {
    detail::record_event(engine_id_, site, parts...);
  }

  // ---- Logs: see the macros in log.hpp ----

  bool log_enabled(Severity severity) const noexcept {
    return severity >= log_level_.load(std::memory_order_relaxed);
  }
  /// From now on, for all threads: of what is logged through the engine itself and through loggers
  /// without a level of their own. Logs that go nowhere (logs = none) stay off.
  void set_log_level(Severity level) noexcept;
  /// From now on, for all threads: of the logger of this name and of those below it ("db" is above
  /// "db.pool") that have none of their own. No level: as the one above it again. Any thread; takes a
  /// lock. May throw std::bad_alloc.
  void set_log_level(std::string_view logger, std::optional<Severity> level);
  /// A part of the program that logs under its name and with a level of its own: "db.pool". Make it
  /// once and keep it. An empty name has the engine's level, for the sake of Logger::with(). Any
  /// thread; takes a lock. May throw std::bad_alloc.
  Logger logger(std::string_view name = {});
  /// The request of the calling thread's context has ended: whether its records that were kept
  /// (log_retain_level) go out. They do if it has failed, took as long as log_retain_slow, or its trace
  /// is sampled; and without this call, if one of its records is an ERROR. Any thread; free of cost
  /// where nothing is kept. middleware::Observability calls it.
  void end_request(bool failed, std::chrono::nanoseconds took) const noexcept {
    if (retains_logs_) detail::record_request_end(engine_id_, failed, took.count());
  }
  [[gnu::always_inline]] void log(LogSite& site, const Field& f0 = {}, const Field& f1 = {},
                                  const Field& f2 = {}, const Field& f3 = {}, const Field& f4 = {},
                                  const Field& f5 = {}, const Field& f6 = {}, const Field& f7 = {},
                                  const Field& f8 = {}, const Field& f9 = {}, const Field& f10 = {},
                                  const Field& f11 = {}, const Field& f12 = {},
                                  const Field& f13 = {}, const Field& f14 = {},
                                  const Field& f15 = {}) const noexcept {
    detail::log<false>(engine_id_, nullptr, site, f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11,
                       f12, f13, f14, f15);
  }

  // ---- Traces: see span.hpp ----

  [[gnu::always_inline]] Span span(StaticName name) const noexcept {
    return Span(engine_id_, tracing_, name);
  }
  Span span(SpanName name) const noexcept { return Span(engine_id_, tracing_, name); }
  /// `request`: what sampling rules look at when a trace begins with this span.
  Span span(StaticName name, const SamplingRequest& request) const noexcept {
    return Span(engine_id_, tracing_, name, &request);
  }
  Span span(SpanName name, const SamplingRequest& request) const noexcept {
    return Span(engine_id_, tracing_, name, &request);
  }
  /// Interns a name that is known at run time only. Make it once, as for a metric.
  SpanName span_name(std::string_view name) const;
  /// The trace that a request's headers say it is part of: for ContextFields::trace when the caller is
  /// trusted, for ContextFields::link when not. Nothing when there is none; when there are headers and
  /// none is legal, that is counted in Stats::trace_headers_refused. Any thread.
  std::optional<TraceParent> trace_of(const IncomingTrace& headers);

  // ---- Delivery ----

  /// Where every record is. Exact when nothing is in motion, and never far off. Measurements enter
  /// the account when the flusher takes the cells: each second, and in flush() and shutdown(). Any
  /// thread.
  Stats stats() const;
  /// Whether what is recorded arrives: of each destination, from its deliveries. Any thread.
  Health health() const;
  /// Sends everything recorded before the call and waits for the answers, at most `timeout`. True:
  /// all of it is settled, delivered or dropped for a cause. Any thread but the flusher's and
  /// sender's (diagnostics).
  bool flush(std::chrono::milliseconds timeout);
  /// Ends recording, sends what is there, and stops the threads, all within `timeout` (and some 50
  /// ms). What could not be delivered is counted as shutdown_deadline. Further calls return the
  /// same final account.
  Stats shutdown(std::chrono::milliseconds timeout);

  /// The effective configuration, one line a setting, with where each value came from.
  std::string describe_config() const;

  /// Without threads: one round of the flusher and one of the sender. True: there was work.
  bool step();

 private:
  class Core;
  detail::MetricRef make_metric(detail::MetricKind kind, std::string_view name, Unit unit,
                                const Dimensions& dimensions, Resolution resolution);
  detail::MetricRef with_dimensions(const detail::MetricRef& base, const Dimensions& more);
  detail::ContextView make_view(const detail::MetricRef& base, ContextField field,
                                StaticName dimension);

  std::uint64_t engine_id_ = detail::no_engine_id;
  std::atomic<Severity> log_level_{Severity::info};
  bool events_enabled_ = false;
  bool retains_logs_ = false;
  const detail::TracingState* tracing_ = nullptr;  // null: traces go nowhere
  std::unique_ptr<Core> core_;
};

}  // namespace spillway
