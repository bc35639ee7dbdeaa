// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <random>
#include <thread>

#include <unistd.h>

#include <spillway/buffers/names.hpp>
#include <spillway/encoders/limits.hpp>
#include <spillway/engine/diagnostics.hpp>
#include <spillway/engine/engine.hpp>
#include <spillway/engine/flusher.hpp>
#include <spillway/engine/flusher_pace.hpp>
#include <spillway/engine/logger_table.hpp>
#include <spillway/engine/platform.hpp>
#include <spillway/engine/sampling.hpp>
#include <spillway/engine/sampling_client.hpp>
#include <spillway/engine/sampling_rules.hpp>
#include <spillway/engine/self_metrics.hpp>
#include <spillway/engine/sender.hpp>
#include <spillway/engine/services.hpp>
#include <spillway/transport/background_thread.hpp>
#include <spillway/transport/curl_transport.hpp>
#include <spillway/transport/stream_sink.hpp>
#include <spillway/transport/udp_sink.hpp>

namespace spillway {

using detail::Signal;
using std::chrono::milliseconds;

namespace {

Config checked(const Config& given) {
  std::vector<ConfigError> errors;
  Config config = resolve(given, errors);
  for (ConfigError& error : validate(config)) errors.push_back(std::move(error));
  if (!errors.empty()) throw InvalidConfig(std::move(errors));
  return config;
}

detail::LaneLayout layout_of(const Config& config) {
  detail::LaneLayout layout;
  layout.ring_bytes = static_cast<std::uint32_t>(config.ring_bytes.get());
  layout.coarse_log_time = config.log_coarse_time;
  layout.bank.series_max = static_cast<std::uint32_t>(config.series_max.get());
  // Room for every series to be of the largest kind would be reserved for nothing: most are
  // counters.
  layout.bank.cell_bytes = layout.bank.series_max * 96;
  return layout;
}

detail::Sampler::Options sampling_of(const Config& config) {
  detail::Sampler::Options options;
  options.service_name = config.service;
  options.service_type = detail::xray_resource(config).origin;
  options.keep_per_second = static_cast<std::uint32_t>(config.trace_keep_rare.get());
  if (const std::string& path = config.sampling_rules_file; !path.empty()) {
    std::vector<std::string> problems;
    options.local_rules = detail::read_local_rules(path, problems);
    if (!problems.empty()) {  // The file was good when the configuration was checked.
      throw InvalidConfig(
          {{"sampling_rules_file", path, config.sampling_rules_file.origin(), problems.front()}});
    }
  } else {
    detail::SamplingRule rule;
    rule.reservoir = static_cast<std::uint32_t>(config.trace_reservoir.get());
    rule.fixed_rate = config.trace_sample_rate;
    options.local_rules.push_back(std::move(rule));
  }
  return options;
}

std::function<double()> system_random() {
  return [engine = std::mt19937_64(std::random_device{}())]() mutable {
    return std::uniform_real_distribution<double>(0, 1)(engine);
  };
}

// For an engine without HTTP destinations: waits and wakes, sends nothing.
class NoTransport final : public transport::HttpTransport {
 public:
  void start(std::uint64_t id, transport::HttpRequest /*request*/,
             milliseconds /*timeout*/) override {
    refused_.push_back({id, {transport::HttpOutcome::refused_locally, 0, {}, {}, "no HTTP here"}});
  }
  std::vector<transport::HttpCompletion> poll(milliseconds wait) override {
    std::unique_lock lock(mutex_);
    wakened_.wait_for(lock, wait, [this] { return woken_; });
    woken_ = false;
    return std::exchange(refused_, {});
  }
  void wake() noexcept override {
    {
      const std::scoped_lock lock(mutex_);
      woken_ = true;
    }
    wakened_.notify_one();
  }
  void cancel_all() noexcept override { refused_.clear(); }

 private:
  std::mutex mutex_;
  std::condition_variable wakened_;
  bool woken_ = false;
  std::vector<transport::HttpCompletion> refused_;
};

}  // namespace

/// Everything behind an Engine. Its threads are the flusher's and the sender's; all else is called
/// by any thread.
class Engine::Core final : public detail::EngineServices {
 public:
  Core(const Config& given, Runtime runtime)
      : config_(checked(given)),
        clock_(runtime.clock != nullptr ? runtime.clock : detail::system_clock()),
        diagnostics_(config_.on_diagnostic, clock_),
        crash_rings_(make_crash_rings()),
        lanes_(detail::LaneSet::create(layout_of(config_), clock_, this, crash_rings_.get())),
        series_(lanes_->layout().bank,
                static_cast<std::uint32_t>(config_.series_per_metric_max.get())),
        loggers_(std::make_shared<detail::LoggerTable>(
            lanes_->engine_id(), config_,
            [this](std::string message) { diagnostics_.post(std::move(message)); })),
        rollups_(series_, config_.rollups.get(), reporter()),
        outbox_(static_cast<std::size_t>(config_.queue_bytes_max.get()),
                {config_.metrics != MetricsTo::none, config_.logs != LogsTo::none,
                 config_.traces != TracesTo::none}),
        sender_(sender_parts(runtime)),
        flusher_({config_, clock_, lanes_, series_, ledger_, outbox_,
                  sender_.exporter(Signal::metrics), sender_.exporter(Signal::logs),
                  sender_.exporter(Signal::spans), *loggers_, rollups_, reporter(),
                  [this](detail::SeriesKey key) { return intern(std::move(key)).series; },
                  crash_rings_.get(), make_recovery(),
                  [this](Signal signal, std::uint64_t sequence) {
                    return sender_.settled(signal, sequence);
                  },
                  make_self_metrics(), [this] { return stats(); }}),
        has_threads_(runtime.threads),
        process_(getpid()) {
    tracing_.clock = clock_;
    tracing_.sampler = &sampler_;
    tracing_.in_lambda = std::getenv("AWS_LAMBDA_FUNCTION_NAME") != nullptr;
    // OTLP has no spans in progress.
    tracing_.announces =
        config_.trace_in_progress_after.get() > milliseconds(0) && config_.traces != TracesTo::otlp;
    if (config_.traces != TracesTo::none && config_.sampling != SamplingFrom::local) {
      sampling_client_.emplace(sampling_client_parts(runtime));
    }
    if (!has_threads_) return;
    recovering_ = flusher_.is_recovering();
    flusher_beats_.beat(clock_->steady());
    sender_thread_ = transport::start_thread("spillway-send", [this] { run_sender(); });
    try {
      flusher_thread_ = transport::start_thread("spillway-flush", [this] { run_flusher(); });
    } catch (...) {  // The sender's must not outlive what it works on.
      {
        const std::scoped_lock lock(mutex_);
        sender_stops_ = true;
      }
      sender_.wake();
      sender_thread_.join();
      throw;
    }
    if (sampling_client_) {
      try {
        sampling_client_->start();
      } catch (const std::exception& error) {  // Local rules will do.
        diagnostics_.post(std::string("no thread for X-Ray's sampling rules: ") + error.what());
      }
    }
  }

  /// A forked child has the object but not its threads: to wait for them, or to destroy what they
  /// slept on, would take for ever.
  bool is_inherited() const noexcept { return getpid() != process_; }
  /// Keeps it for the life of the process: its threads are another process's, or a call may still be
  /// using it.
  static void keep(std::unique_ptr<Core> core) noexcept {
    static std::atomic<Core*> kept{nullptr};
    Core* const mine = core.release();
    mine->next_kept_ = kept.exchange(mine);
  }
  /// After shutdown(): no call is in the middle of something that this object serves.
  bool is_at_rest() const noexcept { return at_rest_; }

  const Config& config() const noexcept { return config_; }
  std::uint64_t engine_id() const noexcept { return lanes_->engine_id(); }
  const detail::TracingState* tracing() const noexcept {
    return config_.traces == TracesTo::none ? nullptr : &tracing_;
  }

  // ---- Series ----

  detail::MetricRef metric(detail::MetricKind kind, std::string_view name, Unit unit,
                           const Dimensions& dimensions, Resolution resolution) {
    detail::SeriesKey key;
    key.kind = kind;
    key.unit = unit;
    key.resolution = resolution;
    key.name = name;
    key.dimensions = config_.dimensions.get();
    key.dimensions.insert(key.dimensions.end(), dimensions.begin(), dimensions.end());
    return intern(std::move(key));
  }

  detail::MetricRef with(const detail::MetricRef& base, const Dimensions& more) {
    if (base.engine_id != engine_id()) return {};
    detail::SeriesKey key = series_[base.series].key;
    if (series_[base.series].refusal != detail::Refusal::none) return base;
    key.dimensions.insert(key.dimensions.end(), more.begin(), more.end());
    return intern(std::move(key));
  }

  std::int64_t wall_ns() const noexcept override {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(clock_->wall().time_since_epoch())
        .count();
  }
  detail::MetricRef with_dimension(const detail::MetricRef& base, std::string_view name,
                                   std::string_view value) noexcept override try {
    return with(base, {{std::string(name), std::string(value)}});
  } catch (...) {
    return ref(series_.refused(series_[base.series].key.kind, detail::Refusal::no_room));
  }

  void report_by(std::string_view metric, const DimensionSets& sets) {
    rollups_.declare(metric, sets);
  }

  std::uint32_t next_view() noexcept { return next_view_.fetch_add(1, std::memory_order_relaxed); }

  // ---- Loggers ----

  const std::shared_ptr<detail::LoggerTable>& loggers() const noexcept { return loggers_; }

  bool take_large_log(detail::LargeLog&& log) noexcept override {
    return flusher_.take_large_log(std::move(log));
  }

  std::optional<TraceParent> trace_of(const IncomingTrace& headers) {
    auto parent = parse_trace_headers(headers);
    if (!parent && !headers.empty()) {
      trace_headers_refused_.fetch_add(1, std::memory_order_relaxed);
    }
    return parent;
  }

  // ---- Delivery ----

  Stats stats() const {
    Stats stats;
    settle_signal(Signal::metrics, stats.metrics);
    settle_signal(Signal::logs, stats.logs);
    settle_signal(Signal::spans, stats.spans);
    const auto add = [](SignalStats& to, DropCause cause, std::uint64_t records) {
      to.recorded += records;
      to.dropped[static_cast<std::size_t>(cause)] += records;
    };
    std::uint64_t ring_logs = 0;
    std::uint64_t ring_spans = 0;
    std::uint64_t ring_samples = 0;
    lanes_->for_each([&](const detail::Lane& lane) {
      const detail::LaneCounters& count = lane.counters;
      const std::uint64_t log_drops = count.logs_ring_full.get() + count.logs_queue_full.get();
      ring_logs += count.logs_recorded.get() - log_drops;
      ring_spans += count.spans_recorded.get() - count.spans_ring_full.get();
      const std::uint64_t event_drops = count.events_ring_full.get() + count.events_too_large.get();
      ring_samples += count.samples_recorded.get() - count.samples_folded.get() +
                      count.events_recorded.get() - event_drops;
      add(stats.metrics, DropCause::invalid, count.measurements_invalid.get());
      add(stats.metrics, DropCause::ring_full, count.events_ring_full.get());
      add(stats.metrics, DropCause::too_large, count.events_too_large.get());
      add(stats.metrics, DropCause::closed, count.metrics_closed.get());
      add(stats.logs, DropCause::ring_full, count.logs_ring_full.get());
      add(stats.logs, DropCause::queue_full, count.logs_queue_full.get());
      add(stats.logs, DropCause::closed, count.logs_closed.get());
      add(stats.spans, DropCause::ring_full, count.spans_ring_full.get());
      add(stats.spans, DropCause::closed, count.spans_closed.get());
      stats.samples_folded += count.samples_folded.get();
    });
    // What producers committed and the flusher has not drained. Behind its last round that came
    // while the engine was closed.
    const bool flusher_is_done = flusher_is_done_.load(std::memory_order_acquire);
    const auto hold = [&](SignalStats& to, std::uint64_t committed, std::uint64_t drained) {
      const std::uint64_t held = committed > drained ? committed - drained : 0;
      if (flusher_is_done) return add(to, DropCause::closed, held);
      to.held_in_rings = held;
      to.recorded += held;
    };
    hold(stats.logs, ring_logs, drained(Signal::logs) - stats.logs.recovered);
    hold(stats.spans, ring_spans, drained(Signal::spans) - stats.spans.recovered);
    hold(stats.metrics, ring_samples, ledger_.samples_drained.load(std::memory_order_relaxed));
    add(stats.metrics, DropCause::closed, lanes_->closed_calls(Signal::metrics));
    if (flusher_is_done) add(stats.metrics, DropCause::closed, lanes_->late_counts());
    add(stats.logs, DropCause::closed, lanes_->closed_calls(Signal::logs));
    add(stats.spans, DropCause::closed, lanes_->closed_calls(Signal::spans));
    add(stats.metrics, DropCause::no_memory, lanes_->calls_without_memory(Signal::metrics));
    add(stats.logs, DropCause::no_memory, lanes_->calls_without_memory(Signal::logs));
    add(stats.spans, DropCause::no_memory, lanes_->calls_without_memory(Signal::spans));
    const auto load = [](const std::atomic<std::uint64_t>& value) {
      return value.load(std::memory_order_relaxed);
    };
    for (const auto& [signal, of] :
         {std::pair(Signal::metrics, &stats.metrics), std::pair(Signal::logs, &stats.logs),
          std::pair(Signal::spans, &stats.spans)}) {
      stats.delivery += of->delivery;
      const auto& carried = ledger_.signals[static_cast<std::size_t>(signal)].carried;
      for (std::size_t cause = 0; cause < drop_cause_count; ++cause) {
        const std::uint64_t records = load(carried[cause]);
        add(*of, static_cast<DropCause>(cause), records);
        of->recovered += records;
      }
    }
    stats.measurements_unbucketed = load(ledger_.measurements_unbucketed);
    stats.trace_headers_refused = load(trace_headers_refused_);
    stats.lanes = lanes_->size();
    stats.series = series_.used();
    stats.folded_metrics = flusher_.folded_metrics();
    return stats;
  }

  Health health() const {
    Health health;
    const SteadyTime now = clock_->steady();
    for (const Signal signal : {Signal::metrics, Signal::logs, Signal::spans}) {
      const detail::Exporter* const exporter = sender_.exporter(signal);
      if (exporter == nullptr) continue;
      const detail::SignalLedger& ledger = ledger_.signals[static_cast<std::size_t>(signal)];
      health.destinations.push_back(ledger.health.read(now, ledger.lost()));
      health.destinations.back().name = exporter->name();
      health.state = std::max(health.state, health.destinations.back().state);
    }
    const auto fail = [&](const char* reason) {
      health.state = HealthState::failing;
      health.reason = reason;
    };
    if (is_inherited()) {
      fail("this process is a fork of the engine's: nothing is delivered here");
    } else if (is_closed_.load(std::memory_order_relaxed)) {
      fail("the engine has shut down");
    } else if (has_threads_ && flusher_beats_.age(now) > health_thread_stuck) {
      fail("the flusher does not get on");
    } else if (has_threads_ && sender_.heartbeat().age(now) > health_thread_stuck) {
      fail("the sender does not get on");
    }
    return health;
  }

  bool step() {
    if (sampling_client_ && clock_->steady() >= next_sampling_) {
      next_sampling_ = sampling_client_->run_once();
    }
    const bool drained = flusher_.run_once();
    diagnostics_.deliver();
    sender_.run_once(milliseconds(0));
    return drained;
  }

  bool flush(milliseconds timeout) {
    if (is_inherited()) return false;
    timeout = std::min(timeout, timeout_max);
    if (!has_threads_) {
      flusher_.begin_flush();
      const bool complete = flusher_.flush_all();
      diagnostics_.deliver();
      return settle_by_hand() && complete && !flusher_.is_recovering();
    }
    const SteadyTime deadline = clock_->steady() + timeout;
    std::unique_lock lock(mutex_);
    // What a dead process left comes first.
    if (!progress_.wait_until(lock, deadline, [&] { return !recovering_ || stopping_; })) {
      return false;
    }
    if (stopping_) return sender_.settled(outbox_.last_sequences());
    const std::uint64_t ticket = ++flushes_wanted_;
    flusher_wakes_.notify_one();
    if (!progress_.wait_until(lock, deadline, [&] { return flushes_done_ >= ticket; }))
      return false;
    const detail::Sequences sequences = outbox_.last_sequences();
    return progress_.wait_until(lock, deadline, [&] { return sender_.settled(sequences); });
  }

  Stats shutdown(milliseconds timeout) {
    if (is_inherited()) return stats();
    const std::scoped_lock once(shutdown_mutex_);
    if (final_) return *final_;
    timeout = std::min(timeout, timeout_max);
    const SteadyTime deadline = clock_->steady() + timeout;
    is_closed_.store(true, std::memory_order_relaxed);
    at_rest_ = lanes_->close([&] { return clock_->steady() >= deadline; });
    if (has_threads_) {
      {
        const std::scoped_lock lock(mutex_);
        stopping_ = true;
        stopping_until_ = deadline;
      }
      flusher_wakes_.notify_one();
      std::unique_lock lock(mutex_);
      const bool flushed = progress_.wait_until(lock, deadline + shutdown_grace,
                                                [this] { return flusher_has_ended_; });
      // What is left at the deadline is to be on disk by then.
      const milliseconds to_store = config_.spool_dir.get().empty()
                                        ? milliseconds(0)
                                        : std::min(timeout / 10, store_time_max);
      progress_.wait_until(lock, deadline - to_store,
                           [&] { return sender_.settled(outbox_.last_sequences()); });
      sender_stops_ = true;
      lock.unlock();
      sender_.hurry();
      lock.lock();
      const bool sent = progress_.wait_until(lock, deadline + shutdown_grace,
                                             [this] { return sender_has_ended_; });
      lock.unlock();
      const auto end = [](std::thread& thread, bool has_ended) {
        has_ended ? thread.join() : thread.detach();
      };
      end(flusher_thread_, flushed);
      end(sender_thread_, sent);
      const auto left =
          std::chrono::ceil<milliseconds>(deadline + shutdown_grace - clock_->steady());
      if (sampling_client_ && !sampling_client_->stop(std::max(left, milliseconds(0)))) {
        at_rest_ = false;
      }
      if (!flushed || !sent) {
        // A disk, a resolver or the host's own on_diagnostic does not return. The thread that waits
        // for it is left behind, with all that it works on.
        at_rest_ = false;
        return end_account(false);
      }
    } else {
      flusher_.begin_flush();
      if (!flusher_.flush_all()) flusher_.flush_without_unfinished();
      diagnostics_.deliver();
      settle_by_hand(deadline);
    }
    loggers_->close();
    flusher_.drop_retained();
    if (!has_threads_) abandon(deadline + shutdown_grace / 2);
    flusher_is_done_.store(true, std::memory_order_release);
    flusher_.finish_recovery();
    if (crash_rings_ != nullptr) crash_rings_->finish();
    return end_account(true);
  }

 private:
  const Stats& end_account(bool threads_have_ended) {
    final_ = stats();
    if (!threads_have_ended) drop_what_memory_holds(*final_);
    if (config_.ledger_at_exit) {
      const std::string text =
          "spillway: the account of " + config_.service.get() + "\n" + final_->to_text();
      std::string_view rest = text;
      transport::StreamSink::standard_error().write(rest, ledger_print_max);
    }
    return *final_;
  }

  detail::SamplingClient::Parts sampling_client_parts(Runtime& runtime) {
    detail::SamplingClient::Parts parts{
        .sampler = sampler_,
        .clock = clock_,
        .service_name = config_.service,
        .region = config_.region,
        .endpoint = config_.xray_endpoint,
        .credentials = credentials_,
        .http = std::move(runtime.sampling_http),
        .random = runtime.threads ? system_random() : [] { return 0.5; },
        .diagnostic = [this](std::string_view message) { diagnostics_.post(message); },
    };
    if (config_.sampling == SamplingFrom::xray_daemon) {
      const auto [host, port] = transport::tcp_host_port(config_.xray_daemon_address.get());
      const bool is_v6 = host.find(':') != std::string::npos;
      parts.proxy_origin = "http://" + (is_v6 ? "[" + host + "]" : host) + ":" + port;
    }
    return parts;
  }

  detail::Sender::Parts sender_parts(Runtime& runtime) {
    auto shared = std::make_shared<detail::ExporterShared>();
    shared->region = config_.region;
    shared->credentials = credentials_ =
        transport::default_credentials_chain({.background = runtime.threads, .draw = {}},
                                             std::move(runtime.credentials_http), config_.region);
    std::array<std::unique_ptr<detail::Exporter>, detail::signal_count> exporters{
        make_metrics_exporter(config_, shared), make_logs_exporter(config_, shared),
        make_traces_exporter(config_, shared)};
    if (runtime.http == nullptr) {
      const bool any = std::any_of(exporters.begin(), exporters.end(), [](const auto& exporter) {
        return exporter != nullptr && exporter->uses_http();
      });
      if (any) {
        runtime.http = std::make_unique<transport::CurlTransport>();
      } else {
        runtime.http = std::make_unique<NoTransport>();
      }
    }
    std::unique_ptr<detail::Spool> spool = make_spool(exporters, std::move(runtime.disk));
    return {clock_,
            std::move(runtime.http),
            std::move(exporters),
            outbox_,
            ledger_,
            config_.request_timeout,
            static_cast<int>(config_.attempts_max.get()),
            runtime.random ? std::move(runtime.random) : system_random(),
            reporter(),
            std::move(spool),
            settled_listener()};
  }

  std::unique_ptr<detail::CrashRings> make_crash_rings() {
    if (config_.crash_dir.get().empty()) return nullptr;
    return detail::CrashRings::open(
        {config_.crash_dir, config_.service, static_cast<std::uint32_t>(config_.ring_bytes.get()),
         clock_, [this](std::string_view message) { diagnostics_.post(std::string(message)); }});
  }
  std::function<void(Signal, std::uint64_t)> settled_listener() {
    if (crash_rings_ == nullptr) return nullptr;
    return
        [this](Signal signal, std::uint64_t sequence) { crash_rings_->settled(signal, sequence); };
  }
  std::unique_ptr<detail::CrashRecovery> make_recovery() {
    if (config_.crash_dir.get().empty()) return nullptr;
    return detail::CrashRecovery::find(
        config_.crash_dir, config_.service,
        crash_rings_ == nullptr ? std::string() : crash_rings_->own_box());
  }

  // For flusher and sender.
  std::function<void(std::string_view)> reporter() {
    return [this](std::string_view message) { diagnostics_.report(message); };
  }

  std::unique_ptr<detail::Spool> make_spool(
      const std::array<std::unique_ptr<detail::Exporter>, detail::signal_count>& exporters,
      std::shared_ptr<transport::Disk> disk) {
    std::array<std::string, detail::signal_count> destinations;
    for (const auto& exporter : exporters) {
      if (exporter == nullptr || !exporter->uses_http()) continue;
      destinations[static_cast<std::size_t>(exporter->signal())] = exporter->name();
    }
    const bool any = std::any_of(destinations.begin(), destinations.end(),
                                 [](const std::string& name) { return !name.empty(); });
    if (!any || config_.spool_dir.get().empty()) return nullptr;
    return std::make_unique<detail::Spool>(detail::Spool::Parts{
        disk != nullptr ? std::move(disk) : transport::system_disk(), clock_, ledger_,
        config_.spool_dir, config_.service, std::move(destinations),
        static_cast<std::uint64_t>(config_.spool_bytes.get()), config_.spool_age, reporter()});
  }

  std::unique_ptr<detail::SelfMetrics> make_self_metrics() {
    if (!config_.self_metrics) return nullptr;
    return std::make_unique<detail::SelfMetrics>(detail::SelfMetrics::Parts{
        [this] { return stats(); },
        [this](detail::MetricKind kind, std::string_view name, Unit unit,
               const Dimensions& dimensions) -> const detail::Series& {
          return series_[metric(kind, name, unit, dimensions, Resolution::minute).series];
        }});
  }

  detail::MetricRef intern(detail::SeriesKey key) {
    std::optional<std::string> error = limits::metric_name_error(key.name);
    if (!error) error = limits::dimensions_error(key.dimensions);
    // In an EMF document metrics and dimensions are members of one object.
    const auto same_name = [&](const Dimension& dimension) { return dimension.name == key.name; };
    if (!error && (key.name == "_aws" ||
                   std::any_of(key.dimensions.begin(), key.dimensions.end(), same_name))) {
      error = "a metric may not be named like one of its dimensions, nor _aws";
    }
    if (error) {
      diagnostics_.post("metric '" + key.name +
                        "' is refused, its measurements are dropped as invalid: " + *error);
      return ref(series_.refused(key.kind, detail::Refusal::invalid));
    }
    std::sort(key.dimensions.begin(), key.dimensions.end());
    const std::string name = key.name;
    const detail::Series& series = series_.intern(std::move(key));
    if (crash_rings_ != nullptr) crash_rings_->on_series(series);
    if (series.refusal != detail::Refusal::none) {
      diagnostics_.post("metric '" + name +
                        "' is refused: series_max is reached; its measurements are dropped as "
                        "series_limit");
    }
    return ref(series);
  }

  detail::MetricRef ref(const detail::Series& series) const noexcept {
    return {engine_id(), series.cell_offset, series.id};
  }

  std::uint64_t drained(Signal signal) const noexcept {
    return ledger_.signals[static_cast<std::size_t>(signal)].taken();
  }

  void settle_signal(Signal signal, SignalStats& stats) const {
    const detail::SignalLedger& ledger = ledger_.signals[static_cast<std::size_t>(signal)];
    const auto load = [](const std::atomic<std::uint64_t>& value) {
      return value.load(std::memory_order_relaxed);
    };
    // Read against the stream, so that what moves meanwhile is seen twice rather than missed.
    stats.delivered = load(ledger.delivered);
    std::uint64_t left_queue = stats.delivered;
    std::uint64_t left_batch = 0;
    for (std::size_t i = 0; i < drop_cause_count; ++i) {
      const std::uint64_t queue = load(ledger.dropped_in_queue[i]);
      const std::uint64_t batch = load(ledger.dropped_in_batch[i]);
      stats.dropped[i] += queue + batch;
      left_queue += queue;
      left_batch += batch;
    }
    const std::uint64_t sealed = load(ledger.sealed);
    const std::uint64_t drained = ledger.taken();
    left_batch += sealed;
    stats.held_in_queue = sealed > left_queue ? sealed - left_queue : 0;
    stats.held_in_spool = std::min(load(ledger.spooled), stats.held_in_queue);
    stats.held_in_queue -= stats.held_in_spool;
    stats.recovered = load(ledger.recovered);
    stats.held_in_batch = drained > left_batch ? drained - left_batch : 0;
    // Both have ended: whatever is not accounted for by now is nowhere, and the residue shows it.
    if (flusher_is_done_.load(std::memory_order_acquire) &&
        sender_has_nothing_.load(std::memory_order_acquire) &&
        !last_flush_failed_.load(std::memory_order_relaxed)) {
      stats.held_in_batch = stats.held_in_queue = 0;
    }
    stats.recorded += drained;
    stats.delivery = ledger.delivery.read();
    if (const detail::Exporter* const exporter = sender_.exporter(signal)) {
      stats.destination = exporter->name();
    }
  }

  // Nothing is sent or stored any more, so that it ends with the process; but logs and spans in rings
  // that outlive it do not.
  void drop_what_memory_holds(Stats& stats) const noexcept {
    const auto drop = [](SignalStats& signal) {
      signal.dropped[static_cast<std::size_t>(DropCause::shutdown_deadline)] +=
          signal.held() - signal.held_in_spool;
      signal.held_in_rings = signal.held_in_batch = signal.held_in_queue = 0;
    };
    // What the flusher has not seen of counters.
    const std::uint64_t unseen = lanes_->late_counts();
    stats.metrics.recorded += unseen;
    stats.metrics.dropped[static_cast<std::size_t>(DropCause::shutdown_deadline)] += unseen;
    if (crash_rings_ != nullptr) return;
    drop(stats.metrics);
    drop(stats.logs);
    drop(stats.spans);
  }

  std::uint64_t requests() const noexcept {
    std::uint64_t sum = 0;
    for (const detail::SignalLedger& signal : ledger_.signals) {
      sum += signal.delivery.requests.load(std::memory_order_relaxed);
    }
    return sum;
  }

  // Without threads: lets the sender work while it gets anywhere. At `end` of the engine the disk is
  // left to abandon().
  bool settle_by_hand(SteadyTime end = SteadyTime::max()) {
    for (std::uint64_t rounds = 0; rounds < 1'000'000; ++rounds) {
      if (sender_.settled(outbox_.last_sequences())) return true;
      if (clock_->steady() >= end) sender_.hurry();
      const std::uint64_t before = requests();
      sender_.run_once(milliseconds(0));
      sender_.run_once(milliseconds(0));
      if (requests() == before) {
        return sender_.settled(outbox_.last_sequences());
      }
    }
    return false;
  }

  // The end of what the sender has.
  void abandon(SteadyTime until) {
    try {
      sender_.abandon(until);
      sender_has_nothing_.store(true, std::memory_order_release);
    } catch (const std::bad_alloc&) {  // Then they stay held.
    }
  }

  void run_flusher() {
    detail::FlusherPace pace;
    detail::Sequences sent{};
    enum class Flush : std::uint8_t { none, asked, last } flush = Flush::none;
    std::uint64_t ticket = 0;
    std::unique_lock lock(mutex_);
    while (true) {
      if (flush == Flush::none && (stopping_ || flushes_wanted_ != flushes_done_)) {
        flush = stopping_ ? Flush::last : Flush::asked;
        ticket = flushes_wanted_;
        flusher_.begin_flush();
      }
      flusher_beats_.beat(clock_->steady());
      const bool out_of_time = flush == Flush::last && clock_->steady() >= stopping_until_;
      lock.unlock();
      bool busy = false;
      bool flushed = false;
      try {
        if (flush == Flush::none) {
          busy = flusher_.run_once();
        } else {
          flushed = flusher_.flush_all();
          if (!flushed && out_of_time) {
            flusher_.flush_without_unfinished();
            flushed = true;
          }
        }
        diagnostics_.deliver();
      } catch (
          const std::bad_alloc&) {  // The next round may find memory; the last one does not wait.
        flushed |= out_of_time;
        last_flush_failed_.store(out_of_time, std::memory_order_relaxed);
      }
      if (outbox_.last_sequences() != sent) {
        sent = outbox_.last_sequences();
        sender_.wake();
      }
      lock.lock();
      recovering_ = flusher_.is_recovering();
      if (flushed) {
        flushes_done_ = ticket;
        if (flush == Flush::last) {
          flusher_has_ended_ = true;
          progress_.notify_all();
          return;
        }
        flush = Flush::none;
      }
      progress_.notify_all();
      if (flush != Flush::none) {  // A producer has to get on with what it is in the middle of.
        flusher_wakes_.wait_for(lock, config_.poll_interval.get());
        continue;
      }
      // Logs that take their time from the rounds want them often.
      const double fullest = busy && config_.log_coarse_time ? 1.0 : flusher_.fullest();
      flusher_wakes_.wait_for(lock, config_.poll_interval.get() * pace.next(fullest),
                              [&] { return stopping_ || flushes_wanted_ != flushes_done_; });
    }
  }

  void run_sender() {
    constexpr milliseconds longest{500};
    std::unique_lock lock(mutex_);
    while (!sender_stops_) {
      lock.unlock();
      try {
        sender_.run_once(longest);
      } catch (const std::bad_alloc&) {  // The next round may find memory.
      }
      lock.lock();
      progress_.notify_all();
    }
    const SteadyTime stop_storing_at = stopping_until_ + shutdown_grace / 2;
    lock.unlock();
    abandon(stop_storing_at);  // Here, because it may write to the spool.
    lock.lock();
    sender_has_ended_ = true;
    progress_.notify_all();
  }

  // The deadline of shutdown() is kept within this.
  static constexpr milliseconds shutdown_grace{50};
  /// "As long as it takes", in time points that do not overflow.
  static constexpr milliseconds timeout_max = std::chrono::days(1);
  // Of the time that shutdown() has, the last tenth is for the spool, and no more than this.
  static constexpr milliseconds store_time_max{500};
  // A stderr that nobody reads keeps the process no longer than this.
  static constexpr milliseconds ledger_print_max{20};

  const Config config_;
  const std::shared_ptr<Clock> clock_;
  detail::Diagnostics diagnostics_;
  const std::unique_ptr<detail::CrashRings> crash_rings_;  // null: rings are in memory only
  const std::shared_ptr<detail::LaneSet> lanes_;
  detail::SeriesTable series_;
  const std::shared_ptr<detail::LoggerTable> loggers_;
  detail::Rollups rollups_;
  detail::Ledger ledger_;
  detail::Outbox outbox_;
  std::shared_ptr<transport::CredentialsChain> credentials_;
  detail::Sender sender_;
  detail::Flusher flusher_;
  detail::Sampler sampler_{sampling_of(config_)};
  std::optional<detail::SamplingClient> sampling_client_;
  SteadyTime next_sampling_{};  // of step()
  detail::TracingState tracing_;
  std::atomic<std::uint64_t> trace_headers_refused_{0};
  std::atomic<std::uint32_t> next_view_{1};
  const bool has_threads_;
  const pid_t process_;

  std::mutex mutex_;
  std::condition_variable flusher_wakes_;
  std::condition_variable progress_;  // of flushes and of deliveries
  std::atomic<bool> flusher_is_done_{false};
  std::atomic<bool> last_flush_failed_{false};  // for lack of memory: records stay in batches
  std::atomic<bool> sender_has_nothing_{false};
  bool stopping_ = false;
  SteadyTime stopping_until_{};
  bool sender_stops_ = false;
  bool flusher_has_ended_ = false;
  bool sender_has_ended_ = false;
  bool recovering_ = false;
  std::uint64_t flushes_wanted_ = 0;
  std::uint64_t flushes_done_ = 0;
  std::thread flusher_thread_;
  std::thread sender_thread_;
  std::mutex shutdown_mutex_;
  std::optional<Stats> final_;
  bool at_rest_ = false;
  std::atomic<bool> is_closed_{false};
  detail::Heartbeat flusher_beats_;
  Core* next_kept_ = nullptr;
};

Engine::Engine(const Config& config) : Engine(config, Runtime{}) {}

Engine::Engine(const Config& config, Runtime runtime)
    : core_(std::make_unique<Core>(config, std::move(runtime))) {
  engine_id_ = core_->engine_id();
  events_enabled_ = core_->config().metrics != MetricsTo::none;
  retains_logs_ =
      core_->config().log_retain_level != Severity::off && core_->config().logs != LogsTo::none;
  tracing_ = core_->tracing();
  log_level_.store(core_->loggers()->level(), std::memory_order_relaxed);
}

Engine::~Engine() {
  if (!core_->is_inherited()) core_->shutdown(core_->config().shutdown_timeout);
  if (core_->is_inherited() || !core_->is_at_rest()) {
    Core::keep(std::move(core_));
  }
}

void Engine::set_log_level(Severity level) noexcept {
  core_->loggers()->set_level(level);
  log_level_.store(core_->loggers()->level(), std::memory_order_relaxed);
}
void Engine::set_log_level(std::string_view logger, std::optional<Severity> level) {
  core_->loggers()->set_level(logger, level);
  log_level_.store(core_->loggers()->level(), std::memory_order_relaxed);
}
Logger Engine::logger(std::string_view name) { return core_->loggers()->logger(name); }

detail::MetricRef Engine::make_metric(detail::MetricKind kind, std::string_view name, Unit unit,
                                      const Dimensions& dimensions, Resolution resolution) {
  return core_->metric(kind, name, unit, dimensions, resolution);
}

Counter Engine::counter(std::string_view name, Unit unit, const Dimensions& dimensions,
                        Resolution resolution) {
  return Counter(make_metric(detail::MetricKind::counter, name, unit, dimensions, resolution));
}
Gauge Engine::gauge(std::string_view name, Unit unit, const Dimensions& dimensions,
                    Resolution resolution) {
  return Gauge(make_metric(detail::MetricKind::gauge, name, unit, dimensions, resolution));
}
Histogram Engine::histogram(std::string_view name, Unit unit, const Dimensions& dimensions,
                            Resolution resolution) {
  return Histogram(make_metric(detail::MetricKind::histogram, name, unit, dimensions, resolution));
}

void Engine::report_by(std::string_view metric, const DimensionSets& sets) {
  core_->report_by(metric, sets);
}

detail::MetricRef Engine::with_dimensions(const detail::MetricRef& base, const Dimensions& more) {
  return core_->with(base, more);
}

detail::ContextView Engine::make_view(const detail::MetricRef& base, ContextField field,
                                      StaticName dimension) {
  return {base, core_->next_view(), detail::intern_name(dimension.view()), field};
}

SpanName Engine::span_name(std::string_view name) const {
  return SpanName(detail::intern_name(name));
}

std::optional<TraceParent> Engine::trace_of(const IncomingTrace& headers) {
  return core_->trace_of(headers);
}

Stats Engine::stats() const { return core_->stats(); }
bool Engine::flush(milliseconds timeout) { return core_->flush(timeout); }
Stats Engine::shutdown(milliseconds timeout) { return core_->shutdown(timeout); }
Health Engine::health() const { return core_->health(); }
std::string Engine::describe_config() const { return describe(core_->config()); }
bool Engine::step() { return core_->step(); }

}  // namespace spillway
