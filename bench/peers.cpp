// SPDX-License-Identifier: Apache-2.0
#include "peers.hpp"

#include <bit>
#include <cstdlib>
#include <memory>
#include <string>

#include "subjects.hpp"

#if defined(SPILLWAY_BENCH_QUILL)
#include <quill/Backend.h>
#include <quill/Frontend.h>
#include <quill/LogMacros.h>
#include <quill/Logger.h>
#include <quill/sinks/NullSink.h>
#endif
#if defined(SPILLWAY_BENCH_FMTLOG)
#define FMTLOG_HEADER_ONLY
#include <fmtlog/fmtlog.h>
#endif
#if defined(SPILLWAY_BENCH_XTR)
#include <xtr/logger.hpp>
#endif
#if defined(SPILLWAY_BENCH_PROMETHEUS)
#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#endif
#if defined(SPILLWAY_BENCH_OPENTELEMETRY)
#include <opentelemetry/sdk/common/global_log_handler.h>
#include <opentelemetry/sdk/metrics/meter_provider_factory.h>
#include <opentelemetry/sdk/trace/batch_span_processor_factory.h>
#include <opentelemetry/sdk/trace/batch_span_processor_options.h>
#include <opentelemetry/sdk/trace/exporter.h>
#include <opentelemetry/sdk/trace/span_data.h>
#include <opentelemetry/sdk/trace/tracer_provider_factory.h>
#endif
#if defined(SPILLWAY_BENCH_TRACY)
#include <tracy/Tracy.hpp>
#endif
#if defined(SPILLWAY_BENCH_LTTNG)
#define LTTNG_UST_TRACEPOINT_DEFINE
#define LTTNG_UST_TRACEPOINT_CREATE_PROBES
#include "lttng_events.hpp"
#endif

namespace bench {
namespace {

const Arguments& arguments() {
  static const Arguments made;
  return made;
}
constexpr Plan cell{.calls = 100};
constexpr Plan record{.calls = 20, .warm_up = 25'000};
constexpr Plan span{.calls = 20, .warm_up = 25'000, .pause = std::chrono::milliseconds(4)};

/// For libraries that find their own state.
struct Nothing {};
template <class Call>
auto calls_of(Call call) {
  return calls_on([] { return Nothing(); }, [call](Nothing, int i) { call(i); });
}

using Cases = std::vector<Case>;

#if defined(SPILLWAY_BENCH_QUILL)
struct QuillOptions : quill::FrontendOptions {
  static constexpr quill::QueueType queue_type = quill::QueueType::BoundedDropping;
  static constexpr std::size_t initial_queue_capacity = 1U << 20;
};
void add_quill(Cases& cases) {
  using Frontend = quill::FrontendImpl<QuillOptions>;
  quill::BackendOptions options;
  options.error_notifier = [](const std::string&) {};  // It says what it dropped.
  quill::Backend::start(options);
  auto* const logger = Frontend::create_or_get_logger(
      "bench", Frontend::create_or_get_sink<quill::NullSink>("null"));
  cases.push_back({"log_3_fields", "quill", record, calls_of([logger](int i) {
                     QUILL_LOG_INFO(logger, "order placed order_id={} total={} currency={}", i,
                                    arguments().values[i & 1023], arguments().view);
                   })});
}
#endif

#if defined(SPILLWAY_BENCH_FMTLOG)
void add_fmtlog(Cases& cases) {
  fmtlog::setLogFile("/dev/null");
  fmtlog::startPollingThread(100'000);
  cases.push_back({"log_3_fields", "fmtlog", record, calls_of([](int i) {
                     logi("order placed order_id={} total={} currency={}", i,
                          arguments().values[i & 1023], arguments().view);
                   })});
}
#endif

#if defined(SPILLWAY_BENCH_XTR)
void add_xtr(Cases& cases) {
  static xtr::logger logger(xtr::make_fd_storage("/dev/null"));
  const auto sink = [] { return logger.get_sink("bench"); };
  cases.push_back({"log_3_fields", "xtr", record, calls_on(sink, [](xtr::sink& to, int i) {
                     XTR_LOG_TSC(to, "order placed order_id={} total={} currency={}", i,
                                 arguments().values[i & 1023], arguments().view);
                   })});
  // Stamped when the backend takes it: a time of about then, as ours when it is coarse.
  cases.push_back({"log_3_fields_coarse", "xtr", record, calls_on(sink, [](xtr::sink& to, int i) {
                     XTR_LOG(to, "order placed order_id={} total={} currency={}", i,
                             arguments().values[i & 1023], arguments().view);
                   })});
}
#endif

#if defined(SPILLWAY_BENCH_LTTNG)
void add_lttng(Cases& cases) {
  cases.push_back({"log_3_fields", "LTTng-UST", record, calls_of([](int i) {
                     lttng_ust_tracepoint(spillway_bench, order, i, arguments().values[i & 1023],
                                          arguments().text.c_str());
                   })});
}
#endif

#if defined(SPILLWAY_BENCH_PROMETHEUS)
void add_prometheus(Cases& cases) {
  static prometheus::Registry registry;
  static auto& family =
      prometheus::BuildCounter().Name("requests").Help("Requests").Register(registry);
  static prometheus::Counter& counter = family.Add({{"route", "/orders"}});
  static prometheus::Gauge& gauge =
      prometheus::BuildGauge().Name("depth").Help("Depth").Register(registry).Add(
          {{"route", "/orders"}});
  static prometheus::Histogram& histogram =
      prometheus::BuildHistogram().Name("latency").Help("Latency").Register(registry).Add(
          {{"route", "/orders"}},
          prometheus::Histogram::BucketBoundaries{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000});
  const std::string name = "prometheus-cpp";
  cases.push_back({"counter_add", name, cell, calls_of([](int) { counter.Increment(); })});
  cases.push_back(
      {"gauge_set", name, cell, calls_of([](int i) { gauge.Set(arguments().values[i & 1023]); })});
  cases.push_back({"histogram_record", name, cell,
                   calls_of([](int i) { histogram.Observe(arguments().values[i & 1023]); })});
  cases.push_back({"counter_by_context", name, cell, calls_of([](int) {
                     family.Add({{"route", "/orders"}, {"tenant", "acme"}}).Increment();
                   })});
}
#endif

#if defined(SPILLWAY_BENCH_OPENTELEMETRY)
namespace otel = opentelemetry;

/// Takes every span and throws it away.
class NoExporter final : public otel::sdk::trace::SpanExporter {
  std::unique_ptr<otel::sdk::trace::Recordable> MakeRecordable() noexcept override {
    return std::make_unique<otel::sdk::trace::SpanData>();
  }
  otel::sdk::common::ExportResult Export(
      const otel::nostd::span<std::unique_ptr<otel::sdk::trace::Recordable>>&) noexcept override {
    return otel::sdk::common::ExportResult::kSuccess;
  }
  bool ForceFlush(std::chrono::microseconds) noexcept override { return true; }
  bool Shutdown(std::chrono::microseconds) noexcept override { return true; }
};

void add_opentelemetry(Cases& cases) {
  const std::string name = "opentelemetry-cpp";
  namespace log = otel::sdk::common::internal_log;
  log::GlobalLogHandler::SetLogLevel(log::LogLevel::None);
  otel::sdk::trace::BatchSpanProcessorOptions options;
  options.max_queue_size = 16'384;  // Room for a few bursts.
  options.schedule_delay_millis = std::chrono::milliseconds(1);
  static const auto spans = otel::sdk::trace::TracerProviderFactory::Create(
      otel::sdk::trace::BatchSpanProcessorFactory::Create(std::make_unique<NoExporter>(), options));
  static const auto tracer = spans->GetTracer("bench");
  cases.push_back({"span_3_annotations", name, span, calls_of([](int i) {
                     const auto begun = tracer->StartSpan("charge-card");
                     begun->SetAttribute("order_id", i);
                     begun->SetAttribute("total", arguments().values[i & 1023]);
                     begun->SetAttribute("currency", arguments().text.c_str());
                     begun->End();
                   })});
  static const auto metrics = otel::sdk::metrics::MeterProviderFactory::Create();
  static const auto meter = metrics->GetMeter("bench");
  static const auto counter = meter->CreateUInt64Counter("Requests");
  static const auto histogram = meter->CreateDoubleHistogram("Latency");
  cases.push_back({"counter_add", name, cell, calls_of([](int) {
                     counter->Add(1, {{"route", "/orders"}});
                   })});
  cases.push_back({"histogram_record", name, cell, calls_of([](int i) {
                     histogram->Record(arguments().values[i & 1023], {{"route", "/orders"}},
                                       otel::context::Context{});
                   })});
  cases.push_back({"counter_by_context", name, cell, calls_of([](int) {
                     counter->Add(1, {{"route", "/orders"}, {"tenant", "acme"}});
                   })});
}
#endif

#if defined(SPILLWAY_BENCH_TRACY)
// Before Tracy starts, ahead of main(): it would trace the whole machine, ours with it.
[[gnu::constructor(101)]] void keep_tracy_to_this_process() {
  setenv("TRACY_NO_SYS_TRACE", "1", 1);
}

// Nobody is connected: what it records stays in its queue, which grows.
void add_tracy(Cases& cases) {
  cases.push_back({"span_3_annotations", "Tracy", span, calls_of([](int i) {
                     ZoneScopedN("charge-card");
                     ZoneValue(i);
                     ZoneValue(std::bit_cast<std::uint64_t>(arguments().values[i & 1023]));
                     ZoneText(arguments().view.data(), arguments().view.size());
                   })});
}
#endif

}  // namespace

std::vector<Case> peer_cases() {
  Cases cases;
#if defined(SPILLWAY_BENCH_QUILL)
  add_quill(cases);
#endif
#if defined(SPILLWAY_BENCH_FMTLOG)
  add_fmtlog(cases);
#endif
#if defined(SPILLWAY_BENCH_XTR)
  add_xtr(cases);
#endif
#if defined(SPILLWAY_BENCH_LTTNG)
  add_lttng(cases);
#endif
#if defined(SPILLWAY_BENCH_PROMETHEUS)
  add_prometheus(cases);
#endif
#if defined(SPILLWAY_BENCH_OPENTELEMETRY)
  add_opentelemetry(cases);
#endif
#if defined(SPILLWAY_BENCH_TRACY)
  add_tracy(cases);
#endif
  return cases;
}

}  // namespace bench
