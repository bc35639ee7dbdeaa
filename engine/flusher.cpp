// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>
#include <new>

#include <concurrentqueue/concurrentqueue.h>
#include <unistd.h>

#include <spillway/buffers/names.hpp>
#include <spillway/encoders/limits.hpp>
#include <spillway/encoders/otlp_traces.hpp>
#include <spillway/encoders/put_metric_data.hpp>
#include <spillway/engine/flusher.hpp>
#include <spillway/engine/otlp_exporter.hpp>
#include <spillway/engine/platform.hpp>
#include <spillway/engine/socket_exporter.hpp>

namespace spillway::detail {
namespace {

constexpr std::int64_t second_ms = 1000;

// How often measurements are written down for recovery; less often when it takes longer than one in so
// many of the flusher's time.
constexpr std::chrono::milliseconds keeping_interval{100};
constexpr int keeping_part = 16;

// The multiple of `interval_ms` that the time is at or behind.
std::int64_t aligned(std::int64_t time_ms, std::int64_t interval_ms) {
  const std::int64_t into = time_ms % interval_ms;
  return time_ms - (into < 0 ? into + interval_ms : into);
}

// Call sites times the loggers that they are used with. Beyond, records go out without what their
// logger has in common.
constexpr std::size_t sites_with_loggers_max = 1U << 16;

std::int64_t wall_ms(WallTime time) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(time.time_since_epoch()).count();
}

RedactionPolicy policy_of(const Config& config) {
  return parse_redaction_policy(config.redact.get(), config.redact_keys.get()).value();
}

// How the spans of a segment are written where traces go.
TraceAssembler::Encode trace_encoder(const Config& config) {
  if (config.traces == TracesTo::otlp) {
    auto encoder = std::make_shared<OtlpSpanEncoder>(limits::otlp_span_bytes_max,
                                                     otlp_spans_go_to_xray(config));
    return
        [encoder](std::span<const SpanView> spans, const ContextTexts& context, Payload& payload) {
          encoder->encode(spans, context, payload);
          return TraceEncoded{};
        };
  }
  auto encoder = std::make_shared<XrayEncoder>(XrayOptions{config.service, config.service_version,
                                                           limits::segment_document_bytes_max,
                                                           xray_resource(config)});
  return [encoder](std::span<const SpanView> spans, const ContextTexts& context, Payload& payload) {
    return encoder->encode(spans, context, payload);
  };
}

}  // namespace

// Whose records a ring holds at the place where the flusher stands in it.
struct Flusher::LaneContext {
  std::string tenant;
  std::string user;
  std::string request_id;
  std::string trace_state;
  ContextTexts texts;

  void read(std::uint32_t trace_flags, std::span<const std::byte> bytes,
            RecordRedactor& redactor) noexcept try {
    ContextBody body{};
    std::memcpy(&body, bytes.data(), sizeof body);
    const auto* at = reinterpret_cast<const char*>(bytes.data() + sizeof body);
    const auto take = [&at](std::string& text, std::size_t size) {
      text.assign(at, size);
      at += size;
    };
    take(tenant, body.tenant_bytes);
    take(user, body.user_bytes);
    take(request_id, body.request_id_bytes);
    take(trace_state, body.trace_state_bytes);
    for (std::string* const text : {&tenant, &user, &request_id}) redactor.redact(*text);
    // With something taken out it would be no tracestate any more.
    if (redactor.redact(trace_state)) trace_state.clear();
    texts = {tenant,        user,        request_id,
             body.trace_id, trace_state, static_cast<std::uint8_t>(trace_flags)};
  } catch (const std::bad_alloc&) {  // Nobody's, rather than those of somebody else.
    texts = {};
  }
};

struct Flusher::LargeLogs {
  moodycamel::ConcurrentQueue<LargeLog> queue;
  // Producers reserve bytes of the outbox's budget for them.
  static std::size_t bytes_of(const LargeLog& log) { return sizeof log + log.values.capacity(); }
};

Flusher::Flusher(Parts parts)
    : config_(parts.config),
      clock_(parts.clock),
      lanes_(parts.lanes),
      ledger_(parts.ledger),
      series_(parts.series),
      aggregator_(parts.series, parts.rollups, parts.ledger, parts.config.histogram_error,
                  [clock = parts.clock](std::uint64_t ticks) { return clock->wall_ns_of(ticks); }),
      cardinality_(parts.series, parts.report),
      redactor_(policy_of(parts.config)),
      log_encoder_(parts.config.service.get(), transport::shows_colours(STDOUT_FILENO)),
      rollups_(parts.rollups),
      intern_(parts.intern),
      event_series_(parts.config.dimensions.get(), parts.intern),
      report_(parts.report),
      large_logs_(std::make_unique<LargeLogs>()),
      loggers_(parts.loggers),
      limiter_(static_cast<std::uint64_t>(parts.config.log_rate_max.get())),
      crash_rings_(parts.crash_rings),
      recovery_(std::move(parts.recovery)),
      settled_(std::move(parts.settled)),
      outbox_(parts.outbox),
      account_(std::move(parts.account)),
      self_metrics_(std::move(parts.self_metrics)) {
  if (parts.metrics != nullptr) {
    metrics_.emplace(*parts.metrics, parts.outbox, parts.ledger);
    if (config_.metrics != MetricsTo::put_metric_data && config_.metrics != MetricsTo::otlp) {
      event_encoder_.emplace(emf_options(), config_.dimensions.get(),
                             [this](const std::string& metric, const auto& names) {
                               return rollups_.sets_for(metric, names);
                             });
    }
  }
  if (parts.logs != nullptr) {
    logs_.emplace(*parts.logs, parts.outbox, parts.ledger);
    log_bytes_max_ = parts.logs->limits().bytes_max - parts.logs->limits().overhead_bytes;
    if (config_.log_retain_level != Severity::off) {
      retention_.emplace(
          static_cast<std::size_t>(config_.log_retain_bytes.get()),
          [this](const LogView& log, std::uint32_t site, std::uint64_t ticks) {
            try {
              if (!limiter_.admit(site, limiter_second_)) {
                return ledger_.drop_in_batch(Signal::logs, DropCause::rate_limited, 1);
              }
              encode_log(log, ticks);
            } catch (const std::bad_alloc&) {
              ledger_.drop_in_batch(Signal::logs, DropCause::no_memory, 1);
            }
          },
          [this](std::uint64_t records) {
            ledger_.drop_in_batch(Signal::logs, DropCause::not_retained, records);
          });
    }
  }
  if (parts.traces != nullptr) {
    traces_.emplace(*parts.traces, parts.outbox, parts.ledger);
    assembler_.emplace(trace_encoder(config_), *traces_, ledger_,
                       config_.trace_in_progress_after.get());
  }
  if (crash_rings_ != nullptr) {
    crash_rings_->set_aggregated(metrics_.has_value(), metrics_ && !event_encoder_);
  }
  now_ = second_since_ = interval_since_ = clock_->steady();
  wall_now_ms_ = second_began_ms_ = interval_began_ms_ = wall_ms(clock_->wall());
  second_ms_ = aligned(second_began_ms_, second_ms);
  interval_ms_ = aligned(interval_began_ms_, config_.metric_interval.get().count());
  clock_->coarse.store(clock_->ticks(), std::memory_order_relaxed);
}

Flusher::~Flusher() = default;

bool Flusher::run_once() {
  clock_->follow();
  clock_->coarse.store(clock_->ticks(), std::memory_order_relaxed);
  now_ = clock_->steady();
  wall_now_ms_ = wall_ms(clock_->wall());
  loggers_.take_retired(retired_loggers_);
  const auto second = std::chrono::duration_cast<std::chrono::seconds>(now_.time_since_epoch());
  if (std::exchange(limiter_second_, second.count()) != second.count()) report_held_back();
  if (retention_) retention_->expire(now_);
  if (recovery_ != nullptr) recover();
  bool busy = drain_rings();
  if (drain_large_logs()) {
    busy = true;
    fullest_ = std::max(fullest_, 1.0);
  }
  close_what_is_over();
  keep_metrics(false);
  if (assembler_) assembler_->end_round(now_);
  seal_due();
  if (crash_rings_ != nullptr) end_round_of_crash_rings();
  keep_drops(false);
  retired_loggers_.clear();
  return busy;
}

void Flusher::begin_flush() { lanes_->want_cells(); }

bool Flusher::flush_all() {
  run_once();
  // A lane whose old bank was left over from before gives its own one the second time.
  if (!take_wanted_cells() && !take_wanted_cells()) return false;
  seal_all();
  return true;
}

void Flusher::flush_without_unfinished() {
  lanes_->for_each_unfinished([this](Bank& bank) { aggregator_.abandon(bank); });
  seal_all();
}

void Flusher::seal_all() {
  report_held_back();
  wall_now_ms_ = wall_ms(clock_->wall());
  close_interval(Resolution::second, wall_now_ms_);
  close_interval(Resolution::minute, wall_now_ms_);
  cardinality_.look(aggregator_);
  keep_metrics(true);
  if (assembler_) assembler_->flush(now_);
  for (auto* const batcher : {&metrics_, &logs_, &traces_}) {
    if (*batcher) (*batcher)->seal();
  }
}

void Flusher::seal_due() {
  for (auto* const batcher : {&metrics_, &logs_, &traces_}) {
    if (*batcher) (*batcher)->seal_if_due(now_);
  }
}

// ---- Rings ----

bool Flusher::drain_rings() {
  fullest_ = 0;
  lanes_->for_each([&](Lane& lane) {
    if (lane.ring.empty()) return;
    std::uint64_t drained = 0;
    const std::uint32_t index = LaneSet::index_of(lane);
    if (index >= lane_contexts_.size()) lane_contexts_.resize(lanes_->size());
    if (lane_contexts_[index] == nullptr) lane_contexts_[index] = std::make_unique<LaneContext>();
    LaneContext& context = *lane_contexts_[index];
    const auto drain = [&](const std::byte* record, const RecordHeader& header) {
      drain_record(context, record, header);
    };
    if (crash_rings_ == nullptr) {
      drained = lane.ring.drain(drain);
    } else {
      std::uint64_t& visited = crash_rings_->visited(lane);
      const std::uint64_t before = visited;
      lane.ring.walk(visited, lane.ring.published(),
                     [&](std::byte* record, const RecordHeader& header) {
                       if (header.kind() != RecordKind::skip) {
                         drain(record, header);
                         mark_sealed();  // This one is behind what it has sealed.
                         crash_rings_->saw(header.kind());
                       }
                       visited += header.bytes();
                     });
      drained = visited - before;
    }
    lane.ring.populate_ahead();
    fullest_ = std::max(fullest_, static_cast<double>(drained) / lane.ring.capacity());
  });
  return fullest_ > 0;
}

template <class Work>
void Flusher::take_record(Signal signal, std::uint64_t records, Work&& work) noexcept {
  ledger_.of(signal).add_drained(records);
  try {
    work();
  } catch (const std::bad_alloc&) {
    ledger_.drop_in_batch(signal, DropCause::no_memory, records);
  }
}

// For recovery: what was visited so far is in payloads, when one has been sealed since the last look.
void Flusher::mark_sealed() {
  for (const Signal signal : {Signal::metrics, Signal::logs}) {
    const std::optional<Batcher>& batcher = batcher_of(signal);
    std::uint64_t& marked = marked_seals_[static_cast<std::size_t>(signal)];
    if (!batcher || std::exchange(marked, batcher->seals()) == batcher->seals()) continue;
    crash_rings_->mark_sealed(signal, outbox_.last_sequence(signal));
  }
}

void Flusher::keep_metrics(bool now) noexcept try {
  if (crash_rings_ == nullptr || !metrics_) return;
  const bool is_due = now_ >= next_keeping_;
  if (!now && !is_due && !keeps_new_points_) return;
  const SteadyTime began = clock_->steady();
  if (is_due) {
    lanes_->want_cells();
    take_wanted_cells();
  }
  const std::uint64_t drained = ledger_.of(Signal::metrics).drained.load(std::memory_order_relaxed);
  if (keeps_new_points_ || drained != kept_drained_) {
    crash_rings_->begin_metrics();
    CrashMetricsWriter& file = crash_rings_->metrics();
    file.forget([this](std::uint64_t sequence) { return settled_(Signal::metrics, sequence); });
    for (const Resolution resolution : {Resolution::second, Resolution::minute}) {
      aggregator_.for_each_open(
          resolution, resolution == Resolution::second ? second_began_ms_ : interval_began_ms_,
          [&](const MetricPoint& point) {
            crash_rings_->on_series(*point.series);
            file.add_open(point, wall_now_ms_);
          });
    }
    crash_rings_->end_metrics(*lanes_, now_);
    kept_drained_ = drained;
    keeps_new_points_ = false;
  }
  next_keeping_ = now_ + std::max<SteadyTime::duration>(keeping_interval,
                                                        keeping_part * (clock_->steady() - began));
} catch (
    const std::bad_alloc&) {  // The next round may find memory; until then the old file says it.
}

bool Flusher::keep_drops(bool now) noexcept try {
  if (crash_rings_ == nullptr || !account_) return false;
  if (!now && now_ < next_drops_) return true;
  next_drops_ = now_ + keeping_interval;
  const Stats stats = account_();
  DropCounts counts = drop_counts_of(stats);
  if (self_metrics_ != nullptr) counts = counts.beyond(self_metrics_->reported_drops());
  // What only memory has is no more than it holds: the rest of it was dropped since, and is counted.
  const std::array<const SignalStats*, signal_count> signals{&stats.metrics, &stats.logs,
                                                             &stats.spans};
  for (std::size_t i = 0; i < signal_count; ++i) {
    counts.records[i][static_cast<std::size_t>(DropCause::ring_full)] +=
        std::min(crash_rings_->in_memory_only(static_cast<Signal>(i)),
                 signals[i]->held_in_batch + signals[i]->held_in_queue);
  }
  if (counts == kept_drops_) return true;
  if (!crash_rings_->write_ledger(counts)) return false;
  kept_drops_ = counts;
  return true;
} catch (const std::bad_alloc&) {
  return false;
}

// Points that were just appended: in the payload that is being filled, or in the last one.
void Flusher::keep_points(std::span<const MetricPoint> points, std::int64_t end_ms) noexcept try {
  if (crash_rings_ == nullptr || is_shipping_recovered_) return;
  const std::uint64_t sequence = std::max(
      outbox_.last_sequence(Signal::metrics) + (metrics_->empty() ? 0 : 1), std::uint64_t{1});
  for (const MetricPoint& point : points) {
    crash_rings_->on_series(*point.series);
    crash_rings_->metrics().add_closed(point, end_ms, sequence);
  }
  keeps_new_points_ = true;
} catch (const std::bad_alloc&) {  // They are in their payload only.
}

void Flusher::end_round_of_crash_rings() {
  if (crash_rings_->wants_seal(*lanes_)) {
    if (crash_rings_->has_aggregated()) keep_metrics(true);
    if (assembler_) assembler_->flush(now_);
    if (metrics_ && event_encoder_) metrics_->seal();
    for (auto* const batcher : {&logs_, &traces_}) {
      if (*batcher) (*batcher)->seal();
    }
  }
  mark_sealed();
  CrashRings::RoundState state;
  state.now = now_;
  for (const Signal signal : all_signals) {
    const std::optional<Batcher>& batcher = batcher_of(signal);
    if (!batcher) continue;
    state.signals[static_cast<std::size_t>(signal)] = {batcher->seals(), !batcher->empty(),
                                                       outbox_.last_sequence(signal)};
  }
  if (assembler_) state.oldest_span = assembler_->oldest();
  crash_rings_->end_round(*lanes_, state, settled_);
}

// ---- What a dead process left ----

// Its records go the way of this one's, marked: logs have a field `recovered`, spans an annotation.
class Flusher::Recovered final : public RecoveredRecords {
 public:
  explicit Recovered(Flusher& flusher)
      : flusher_(flusher),
        aggregator_(flusher.series_, flusher.rollups_, flusher.ledger_,
                    flusher.config_.histogram_error,
                    [](std::uint64_t /*ticks*/) { return std::int64_t{0}; }) {
    const std::uint32_t header =
        EntryHeader::pack(intern_name("recovered"), EntryClass::annotation, ValueType::boolean);
    const std::uint64_t yes = 1;
    mark_.resize(sizeof header + sizeof yes);
    std::memcpy(mark_.data(), &header, sizeof header);
    std::memcpy(mark_.data() + sizeof header, &yes, sizeof yes);
  }

  void begin_process() override { sites_.clear(); }
  void begin_lane() override { context_ = {}; }
  void on_context(std::uint32_t trace_flags, std::span<const std::byte> body) override {
    context_.read(trace_flags, body, flusher_.redactor_);
  }
  void on_log(const SiteInfo& site, std::uint32_t dead_site, std::int64_t wall_ns,
              std::uint64_t span_id, std::span<const std::byte> values) override {
    take(Signal::logs, [&] { add_log(site, dead_site, wall_ns, span_id, values); });
  }
  void on_event(const SiteInfo& site, std::uint32_t dead_site, std::int64_t wall_ns,
                std::uint64_t span_id, std::span<const std::byte> values) override {
    const std::uint64_t metrics = measurements_of(site);
    count_measurements(metrics);
    std::uint32_t number = 0;
    try {
      number = flusher_.metrics_ ? marked_site(site, dead_site, values) : 0;
    } catch (const std::bad_alloc&) {
    }
    if (number != 0) {
      for (const Resolution one : {Resolution::second, Resolution::minute}) {
        begin_interval(one, wall_ns / 1'000'000);
      }
      return flusher_.take_event({&site_of(number), wall_ns, span_id, &context_.texts, values_},
                                 number, aggregator_);
    }
    drop_measurements(metrics);
  }
  void on_drops(const DropCounts& counts) override {
    for (const Signal signal : all_signals) {
      SignalLedger& ledger = flusher_.ledger_.of(signal);
      for (std::size_t cause = 0; cause < drop_cause_count; ++cause) {
        ledger.carried[cause].fetch_add(counts.of(signal)[cause], std::memory_order_relaxed);
      }
    }
  }
  void on_sample(const SeriesKey& series, std::int64_t wall_ns, double value) override {
    count_measurements(1);
    const Series* const known = series_of(series);
    if (known == nullptr) return drop_measurements(1);
    begin_interval(known->key.resolution, wall_ns / 1'000'000);
    aggregator_.add_sample(known->id, value);
  }
  void on_point(const SeriesKey& series, const CrashMetricsReader::Point& given) override {
    const CrashPoint& head = given.head;
    count_measurements(head.records);
    const Series* const known = series_of(series);
    if (known == nullptr) return drop_measurements(head.records);
    const bool is_histogram = known->key.kind == MetricKind::histogram;
    MetricPoint point{known,        head.time_ms, head.count, head.sum,
                      head.minimum, head.maximum, head.last,  {}};
    if (is_histogram) point.values = given.values;
    point.counted_elsewhere = head.count - head.records;
    if (head.sequence == 0) {
      begin_interval(known->key.resolution, head.time_ms);
      return aggregator_.add_point(point);
    }
    if (known->refusal != Refusal::none || (is_histogram && given.values.empty())) {
      return drop_measurements(head.records, known->refusal == Refusal::no_room
                                                 ? DropCause::series_limit
                                                 : DropCause::invalid);
    }
    flusher_.ledger_.of(Signal::metrics).add_drained(head.records);
    flusher_.ship_points({&point, 1}, head.time_ms, head.end_ms);
  }
  /// All that was given is in payloads.
  void finish() {
    for (const Resolution one : {Resolution::second, Resolution::minute}) end_interval(one);
  }
  void on_span(std::string_view name, std::int64_t start_ns, std::int64_t end_ns,
               const SpanBody& body, std::span<const std::byte> entries) override {
    take(Signal::spans, [&] { add_span(name, start_ns, end_ns, body, entries); });
  }
  void on_span_part(std::uint64_t span_id, std::span<const std::byte> entries) override {
    if (!flusher_.assembler_) return;
    try {
      flusher_.assembler_->add_part(span_id, flusher_.redactor_.redact(entries), flusher_.now_);
    } catch (const std::bad_alloc&) {  // The span goes out without it.
    }
  }

 private:
  void count_measurements(std::uint64_t count) {
    flusher_.ledger_.of(Signal::metrics).recovered.fetch_add(count, std::memory_order_relaxed);
  }
  void drop_measurements(std::uint64_t count) {
    drop_measurements(count, flusher_.metrics_ ? DropCause::no_memory : DropCause::no_destination);
  }
  void drop_measurements(std::uint64_t count, DropCause cause) {
    flusher_.ledger_.of(Signal::metrics).add_drained(count);
    flusher_.ledger_.drop_in_batch(Signal::metrics, cause, count);
  }
  // Null: there is no memory, or metrics go nowhere.
  const Series* series_of(const SeriesKey& key) noexcept try {
    return flusher_.metrics_ ? &flusher_.series_[flusher_.intern_(key)] : nullptr;
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
  std::int64_t& began(Resolution resolution) {
    return began_ms_[resolution == Resolution::second ? 0 : 1];
  }
  std::int64_t length_of(Resolution resolution) const {
    return resolution == Resolution::second ? second_ms
                                            : flusher_.config_.metric_interval.get().count();
  }
  // What comes now is of the interval that has `time_ms` in it.
  void begin_interval(Resolution resolution, std::int64_t time_ms) {
    std::int64_t& since = began(resolution);
    if (aggregator_.has(resolution)) {
      if (time_ms >= since && time_ms - since < length_of(resolution)) return;
      end_interval(resolution);
    }
    since = aligned(time_ms, length_of(resolution));
  }
  void end_interval(Resolution resolution) {
    if (!aggregator_.has(resolution)) return;
    const std::int64_t since = began(resolution);
    flusher_.ship_points(aggregator_.close(resolution, since), since,
                         since + length_of(resolution));
  }
  template <class Work>
  void take(Signal signal, Work&& work) {
    flusher_.ledger_.of(signal).recovered.fetch_add(1, std::memory_order_relaxed);
    flusher_.take_record(signal, 1, work);
  }
  void drop_without_destination(Signal signal) {
    flusher_.ledger_.drop_in_batch(signal, DropCause::no_destination, 1);
  }

  void add_log(const SiteInfo& site, std::uint32_t dead_site, std::int64_t wall_ns,
               std::uint64_t span_id, std::span<const std::byte> values) {
    if (!flusher_.logs_) return drop_without_destination(Signal::logs);
    const std::uint32_t number = marked_site(site, dead_site, values);
    LogView log{&site_of(number), wall_ns, span_id, &context_.texts, values_};
    flusher_.redactor_.redact(log, number);
    flusher_.encode_log(log, static_cast<std::uint64_t>(wall_ns), 1);
  }
  // The number of a site with one more field, `recovered`; values_ are those of the record. 0: there is
  // no room for it, and it stands for a log that says nothing but its values.
  std::uint32_t marked_site(const SiteInfo& site, std::uint32_t dead_site,
                            std::span<const std::byte> values) {
    std::uint32_t& number = sites_[dead_site];
    if (number == 0) {
      SiteInfo marked = site;
      marked.fields.insert(marked.fields.begin(), {"recovered", ValueType::boolean});
      number = add_site(std::move(marked));
    }
    values_.assign(1, std::byte{1});
    if (number == 0) values_.clear();
    values_.insert(values_.end(), values.begin(), values.end());
    return number;
  }
  void add_span(std::string_view name, std::int64_t start_ns, std::int64_t end_ns,
                const SpanBody& body, std::span<const std::byte> entries) {
    if (!flusher_.assembler_) return drop_without_destination(Signal::spans);
    values_ = mark_;
    values_.insert(values_.end(), entries.begin(), entries.end());
    SpanView span{name, start_ns, std::max(start_ns, end_ns), body,
                  flusher_.redactor_.redact(values_)};
    span.body.entry_bytes = static_cast<std::uint32_t>(values_.size());
    flusher_.assembler_->add_span(span, context_.texts, flusher_.now_);
  }
  Flusher& flusher_;
  Aggregator aggregator_;  // what is left of intervals that were not over
  std::int64_t began_ms_[2] = {};
  LaneContext context_;
  std::unordered_map<std::uint32_t, std::uint32_t> sites_;  // by their number in the dead process
  std::vector<std::byte> mark_;
  std::vector<std::byte> values_;
};

void Flusher::set_recovered(bool recovered) {
  if (assembler_) assembler_->flush(now_);
  is_shipping_recovered_ = recovered;
  for (auto* const batcher : {&metrics_, &logs_, &traces_}) {
    if (!*batcher) continue;
    (*batcher)->seal();
    (*batcher)->set_recovered(recovered);
  }
}

// No further than half of the budget: what is in the files can wait, what is recorded now cannot.
void Flusher::recover() try {
  const auto enough = [this] { return outbox_.bytes() > outbox_.bytes_max() / 2; };
  if (is_recovering() && !enough()) {
    // Drops of this thread for what may pass.
    const auto drops = [this] {
      Sequences sums{};
      for (const Signal signal : all_signals) {
        const SignalLedger& ledger = ledger_.of(signal);
        const auto count = [](const auto& causes, DropCause cause) {
          return causes[static_cast<std::size_t>(cause)].load(std::memory_order_relaxed);
        };
        sums[static_cast<std::size_t>(signal)] =
            count(ledger.dropped_in_batch, DropCause::no_memory) +
            count(ledger.dropped_in_queue, DropCause::queue_full);
      }
      return sums;
    };
    if (recovered_ == nullptr) recovered_ = std::make_unique<Recovered>(*this);
    set_recovered(true);
    const auto drops_before = drops();
    try {
      recovery_->read(*recovered_, enough);
    } catch (const std::bad_alloc&) {  // Goes on there in the next round.
    }
    recovered_->finish();
    set_recovered(false);
    const auto drops_now = drops();
    for (const Signal signal : all_signals) {
      const auto index = static_cast<std::size_t>(signal);
      if (drops_now[index] != drops_before[index]) ledger_.keep_recovered(signal);
    }
    recovery_->sealed(outbox_.last_sequences());
    // Said twice rather than not at all.
    if (recovery_->counts().dropped == 0 || keep_drops(true)) recovery_->forget_drops();
    if (recovery_->is_read()) {
      recovered_.reset();
      report_recovery();
    }
  }
  finish_recovery();
} catch (const std::bad_alloc&) {  // The next round may find memory.
}

void Flusher::report_recovery() {
  const CrashRecovery::Counts& counts = recovery_->counts();
  std::string text = "recovered " + std::to_string(counts.logs) + " log records and " +
                     std::to_string(counts.spans) + " spans and " +
                     std::to_string(counts.measurements) + " measurements of " +
                     std::to_string(counts.processes) + " processes that died, which had dropped " +
                     std::to_string(counts.dropped) + " more; " +
                     std::to_string(counts.unreadable_bytes) + " bytes could not be read";
  const auto nowhere = [&](bool goes_nowhere, std::uint64_t records, const char* signal) {
    if (!goes_nowhere || records == 0) return;
    text += std::string("; the ") + signal + " are dropped, because no destination is set for them";
  };
  nowhere(!logs_, counts.logs, "log records");
  nowhere(!traces_, counts.spans, "spans");
  nowhere(!metrics_, counts.measurements, "measurements");
  if (counts.put_aside != 0) {
    text += "; " + std::to_string(counts.put_aside) +
            " rings that the disk does not give back are put aside as bad-lane-*";
  }
  if (counts.left != 0) {
    text += "; what " + std::to_string(counts.left) +
            " more processes left stays in crash_dir: it is of another version of Spillway, which "
            "can ship it with `spillway recover`, or cannot be read now";
  }
  report_(text);
}

void Flusher::finish_recovery() {
  if (recovery_ != nullptr && recovery_->remove(settled_, ledger_.recovered_dropped)) {
    recovery_.reset();
  }
}

void Flusher::drain_record(LaneContext& context, const std::byte* record,
                           const RecordHeader& header) {
  const std::byte* const body = record + sizeof header;
  switch (header.kind()) {
    case RecordKind::skip:
      break;
    case RecordKind::context:
      context.read(header.id, {body, header.bytes() - sizeof header}, redactor_);
      break;
    case RecordKind::log:
    case RecordKind::logger_log:
      take_record(Signal::logs, 1, [&] { drain_log(context, record, header); });
      break;
    case RecordKind::span: {
      SpanBody span{};
      std::memcpy(&span, body, sizeof span);
      // The announcement of one is not the span.
      const bool begins = (span.flags & span_in_progress) != 0;
      take_record(Signal::spans, begins ? 0 : 1, [&] { drain_span(context, record, header); });
      break;
    }
    case RecordKind::span_part: {
      if (!assembler_) break;
      SpanPartBody part{};
      std::memcpy(&part, body, sizeof part);
      try {
        assembler_->add_part(part.span_id, redactor_.redact({body + sizeof part, part.entry_bytes}),
                             now_);
      } catch (const std::bad_alloc&) {  // The span goes out without it.
      }
      break;
    }
    case RecordKind::event:
      drain_event(context, record, header);
      break;
    case RecordKind::sample: {
      double value = 0;
      std::memcpy(&value, body, sizeof value);
      ledger_.samples_drained.fetch_add(1, std::memory_order_relaxed);
      aggregator_.add_sample(header.id, value);
      break;
    }
    case RecordKind::request_end: {
      if (!retention_) break;
      std::int64_t took_ns = 0;
      std::memcpy(&took_ns, body, sizeof took_ns);
      const std::chrono::nanoseconds slow = config_.log_retain_slow.get();
      try {
        if (header.id != 0 || (slow.count() > 0 && took_ns >= slow.count())) {
          retention_->keep(context.texts, now_);
        } else {
          retention_->end(context.texts);
        }
      } catch (const std::bad_alloc&) {  // They stay until they are old.
      }
      break;
    }
  }
}

void Flusher::drain_log(LaneContext& context, const std::byte* record, const RecordHeader& header) {
  LogView log{&site_of(header.id), clock_->wall_ns_of(header.ticks), 0, &context.texts, {}};
  std::memcpy(&log.span_id, record + sizeof header, sizeof log.span_id);
  std::size_t values_at = log_values_at;
  const LoggerState* logger = nullptr;
  if (header.kind() == RecordKind::logger_log) {
    std::memcpy(&logger, record + values_at, sizeof logger);
    values_at += sizeof logger;
  }
  log.values = {record + values_at, header.bytes() - values_at};
  const std::uint32_t site = logger == nullptr ? header.id : add_logger(*logger, header.id, log);
  take_log(log, site, header.ticks,
           logger == nullptr ? loggers_.own_level()
                             : logger->levels->own.load(std::memory_order_relaxed));
}

void Flusher::drain_event(LaneContext& context, const std::byte* record,
                          const RecordHeader& header) {
  LogView event{&site_of(header.id), clock_->wall_ns_of(header.ticks), 0, &context.texts, {}};
  std::memcpy(&event.span_id, record + sizeof header, sizeof event.span_id);
  event.values = {record + log_values_at, header.bytes() - log_values_at};
  ledger_.samples_drained.fetch_add(measurements_of(*event.site), std::memory_order_relaxed);
  take_event(event, header.id, aggregator_);
}

void Flusher::take_event(LogView event, std::uint32_t site, Aggregator& to) {
  const std::uint64_t metrics = measurements_of(*event.site);
  std::uint64_t left = metrics;
  try {
    redactor_.redact(event, site);
    if (event_encoder_) {
      encode_event(event, metrics, left);
    } else {
      aggregate_event(event, to, left);
    }
  } catch (const std::bad_alloc&) {
    if (metrics_) metrics_->cancel();
    ledger_.of(Signal::metrics).add_drained(left);
    ledger_.drop_in_batch(Signal::metrics, DropCause::no_memory, left);
  }
}

void Flusher::encode_event(const LogView& event, std::uint64_t metrics, std::uint64_t& left) {
  const auto account = [&] {
    left = 0;
    ledger_.of(Signal::metrics).add_drained(metrics);
  };
  const std::int64_t time_ms = event.time_ns / 1'000'000;
  if (!is_in_time(time_ms)) {
    account();
    return ledger_.drop_in_batch(Signal::metrics, DropCause::expired, metrics);
  }
  if (const std::uint32_t version = rollups_.version(); version != event_sets_version_) {
    event_encoder_->forget();
    event_sets_version_ = version;
  }
  Payload& payload = metrics_->open();
  const std::size_t offset = payload.bytes.size();
  const std::uint64_t sent = event_encoder_->append(event, payload.bytes);
  if (sent != 0) payload.end_item(offset, sent, time_ms);
  account();
  if (sent != metrics) {
    ledger_.drop_in_batch(Signal::metrics, DropCause::invalid, metrics - sent);
  }
  if (sent == 0) {
    report_("wide event of " + event.site->file + ":" + std::to_string(event.site->line) +
            " is dropped as invalid: " + event_encoder_->error());
    return;
  }
  metrics_->appended(now_);
}

void Flusher::aggregate_event(const LogView& event, Aggregator& to, std::uint64_t& left) {
  auto series = event_series_.of(event).begin();
  ValueReader values(event.values);
  for (const SiteField& field : event.site->fields) {
    if (field.role != FieldRole::metric) {
      skip_value(values, field.type);
      continue;
    }
    const std::uint32_t number = *series++;
    const auto value = std::bit_cast<double>(values.number());
    --left;
    if (is_valid_measurement(value)) {
      to.add_sample(number, value);
    } else {
      ledger_.of(Signal::metrics).add_drained(1);
      ledger_.drop_in_batch(Signal::metrics, DropCause::invalid, 1);
    }
  }
}

std::uint32_t Flusher::site_with(const LoggerShape& shape, std::uint32_t site) {
  const std::uint64_t pair = std::uint64_t{shape.number} << 32 | site;
  if (const auto known = sites_with_loggers_.find(pair); known != sites_with_loggers_.end()) {
    return known->second;
  }
  if (sites_with_loggers_.size() == sites_with_loggers_max) return site;
  SiteInfo info = site_of(site);
  info.logger = shape.logger;
  info.fields.insert(info.fields.begin(), shape.fields.begin(), shape.fields.end());
  const std::uint32_t made = add_site(std::move(info));
  return sites_with_loggers_[pair] = made == 0 ? site : made;
}

std::uint32_t Flusher::add_logger(const LoggerState& logger, std::uint32_t site, LogView& log) {
  const std::uint32_t whole = site_with(*logger.shape, site);
  if (whole == site) return site;
  log.site = &site_of(whole);
  if (logger.values.empty()) return whole;
  const auto own = std::as_bytes(std::span(logger.values));
  merged_values_.assign(own.begin(), own.end());
  merged_values_.insert(merged_values_.end(), log.values.begin(), log.values.end());
  log.values = merged_values_;
  return whole;
}

void Flusher::take_log(LogView& log, std::uint32_t site, std::uint64_t ticks, Severity level) {
  if (!logs_) return;
  const Severity severity = log.site->severity;
  if (retention_ && severity < level) {
    redactor_.redact(log, site);
    return retention_->take(log, site, ticks, now_);
  }
  if (retention_ && severity >= Severity::error) retention_->keep(*log.context, now_);
  if (!limiter_.admit(site, limiter_second_)) {
    return ledger_.drop_in_batch(Signal::logs, DropCause::rate_limited, 1);
  }
  redactor_.redact(log, site);
  encode_log(log, ticks);
}

std::uint32_t Flusher::held_back_site(std::uint32_t site) {
  std::uint32_t& known = held_back_sites_[site];
  if (known == 0) {
    const SiteInfo& info = site_of(site);
    known = add_site({info.severity,
                      "log records were held back",
                      info.file,
                      info.line,
                      {{"held_back", ValueType::unsigned_integer},
                       {"of_message", ValueType::string},
                       {"call_site", ValueType::string}},
                      info.logger});
  }
  return known;
}

void Flusher::report_held_back() {
  limiter_.report([this](std::uint32_t site, std::uint64_t held_back) {
    const SiteInfo& info = site_of(site);
    const std::uint32_t site_of_report = held_back_site(site);
    if (!logs_ || site_of_report == 0) return;
    std::string values;
    append_packed({{}, ValueType::unsigned_integer, held_back, {}}, values);
    append_packed({{}, ValueType::string, 0, info.message}, values);
    const std::string place =
        info.file.substr(info.file.rfind('/') + 1) + ":" + std::to_string(info.line);
    append_packed({{}, ValueType::string, 0, place}, values);
    const ContextTexts nobody;
    const auto ticks = clock_->ticks();
    encode_log({&site_of(site_of_report), clock_->wall_ns_of(ticks), 0, &nobody,
                std::as_bytes(std::span(values))},
               ticks, 0);
  });
}

void Flusher::drop_retained() {
  if (retention_) retention_->clear();
}

void Flusher::encode_log(const LogView& log, std::uint64_t ticks, std::uint64_t records) {
  const std::int64_t time_ms = log.time_ns / 1'000'000;
  if (config_.logs == LogsTo::put_log_events) {
    if (time_ms < std::max(std::int64_t{0}, wall_now_ms_ - limits::log_past_ms_max) ||
        time_ms > wall_now_ms_ + limits::log_future_ms_max) {
      return ledger_.drop_in_batch(Signal::logs, DropCause::expired, records);
    }
  }
  Payload& payload = logs_->open();
  const std::size_t offset = payload.bytes.size();
  try {
    if (config_.logs == LogsTo::console) {
      log_encoder_.append_console(log, log_bytes_max_, payload.bytes);
    } else if (config_.logs == LogsTo::otlp) {
      otlp_log_encoder_.append(log, log_bytes_max_, payload.bytes);
    } else {
      log_encoder_.append_json(log, log_bytes_max_, payload.bytes);
    }
    payload.end_item(offset, records, time_ms, ticks);
  } catch (const std::bad_alloc&) {
    logs_->cancel();
    throw;
  }
  logs_->appended(now_);
}

void Flusher::drain_span(LaneContext& context, const std::byte* record,
                         const RecordHeader& header) {
  SpanView span{};
  std::memcpy(&span.body, record + sizeof header, sizeof span.body);
  const bool begins = (span.body.flags & span_in_progress) != 0;
  if (!assembler_) return;
  span.name = name_of(header.id);
  span.start_ns = clock_->wall_ns_of(span.body.start_ticks);
  // The duration by the counter alone: an anchor between the two ends would bend it.
  span.end_ns = std::max(clock_->wall_ns_of(header.ticks), span.start_ns);
  span.entries =
      redactor_.redact({record + sizeof header + sizeof span.body, span.body.entry_bytes});
  if (begins) return assembler_->announce(span, context.texts, now_);
  // The service's own root: the request is one that is traced, and it has ended.
  if (retention_ && span.body.span_id == span.body.segment_id) {
    retention_->keep(context.texts, now_);
  }
  assembler_->add_span(span, context.texts, now_);
}

bool Flusher::take_large_log(LargeLog&& log) noexcept {
  const std::size_t bytes = LargeLogs::bytes_of(log);
  if (!outbox_.reserve(bytes, Signal::logs)) return false;
  try {
    if (large_logs_->queue.enqueue(std::move(log))) return true;
  } catch (...) {  // No memory for the queue.
  }
  outbox_.release(bytes, Signal::logs);
  return false;
}

bool Flusher::drain_large_logs() {
  bool any = false;
  for (LargeLog log; large_logs_->queue.try_dequeue(log); any = true) {
    take_record(Signal::logs, 1, [&] {
      for (std::string* const text : {&log.tenant, &log.user, &log.request_id}) {
        redactor_.redact(*text);
      }
      const ContextTexts context{log.tenant,   log.user, log.request_id,
                                 log.trace_id, {},       log.trace_flags};
      LogView view{&site_of(log.site), clock_->wall_ns_of(log.ticks), log.span_id, &context,
                   std::as_bytes(std::span(log.values))};
      const std::uint32_t site =
          log.logger == nullptr ? log.site : add_logger(*log.logger, log.site, view);
      take_log(view, site, log.ticks,
               log.logger == nullptr ? loggers_.own_level()
                                     : log.logger->levels->own.load(std::memory_order_relaxed));
    });
    outbox_.release(LargeLogs::bytes_of(log), Signal::logs);
  }
  return any;
}

// ---- Cells ----

bool Flusher::take_wanted_cells() {
  lanes_->take_counters([this](std::uint32_t series, std::uint64_t count, double sum) {
    aggregator_.add_count(series, count, sum);
  });
  return lanes_->take_cells([this](Bank& bank) { aggregator_.take(bank); });
}

// By the wall clock: when it is set, forth or back, the intervals end there and then.
// One that stands still ends them a second late, by the steady clock.
void Flusher::close_what_is_over() {
  constexpr auto late = std::chrono::seconds(1);
  wall_now_ms_ = wall_ms(clock_->wall());
  const std::int64_t second = aligned(wall_now_ms_, second_ms);
  const std::int64_t interval = aligned(wall_now_ms_, config_.metric_interval.get().count());
  const bool second_is_over =
      second != second_ms_ || now_ - second_since_ > std::chrono::milliseconds(second_ms) + late;
  const bool interval_is_over =
      interval != interval_ms_ || now_ - interval_since_ > config_.metric_interval.get() + late;
  if (!second_is_over && !interval_is_over) return;
  if (second_is_over) second_since_ = now_;
  if (interval_is_over) interval_since_ = now_;
  second_ms_ = second;
  interval_ms_ = interval;
  lanes_->want_cells();
  take_wanted_cells();
  if (second_is_over) close_interval(Resolution::second, second);
  if (interval_is_over) {
    close_interval(Resolution::minute, interval);
    cardinality_.look(aggregator_);
  }
}

void Flusher::close_interval(Resolution resolution, std::int64_t end_ms) {
  std::int64_t& began_ms = resolution == Resolution::second ? second_began_ms_ : interval_began_ms_;
  const std::int64_t began = std::exchange(began_ms, end_ms);
  if (aggregator_.has(resolution)) {
    keeps_new_points_ = true;  // Whatever becomes of them: the file has them as open.
    ship_points(aggregator_.close(resolution, began), began, end_ms);
  }
  if (resolution == Resolution::minute) report_self(began, end_ms);
}

void Flusher::ship_points(std::span<const MetricPoint> points, std::int64_t began_ms,
                          std::int64_t end_ms) {
  if (is_in_time(began_ms)) return encode_points(points, end_ms);
  for (const MetricPoint& point : points) {
    ledger_.drop_in_batch(Signal::metrics, DropCause::expired,
                          point.records_of_piece(point.count, true));
  }
}

void Flusher::report_self(std::int64_t began_ms, std::int64_t end_ms) {
  if (self_metrics_ == nullptr || !metrics_ || !is_in_time(began_ms)) return;
  encode_points(self_metrics_->close(began_ms), end_ms);
}

// One datum that is too old would have the whole request refused.
bool Flusher::is_in_time(std::int64_t time_ms) const {
  if (!metrics_ || config_.metrics == MetricsTo::otlp) return true;
  return time_ms >= wall_now_ms_ - limits::metric_past_seconds_max * 1000 &&
         time_ms <= wall_now_ms_ + limits::metric_future_seconds_max * 1000;
}

EmfOptions Flusher::emf_options() const {
  EmfOptions options{config_.metric_namespace.get(), config_.emf_histogram_object.get()};
  if (config_.metrics == MetricsTo::emf_agent) {
    options.log_group = config_.emf_log_group.get();
    options.log_stream = config_.emf_log_stream.get();
    if (parse_agent_endpoint(config_.emf_agent_endpoint.get())->is_udp) {
      options.document_bytes_max = limits::emf_datagram_bytes_max;
    }
  }
  return options;
}

void Flusher::encode_points(std::span<const MetricPoint> points, std::int64_t end_ms) {
  if (!metrics_) {
    // Metrics that go nowhere have arrived.
    for (const MetricPoint& point : points) {
      const std::uint64_t records = point.records_of_piece(point.count, true);
      ledger_.of(Signal::metrics).sealed.fetch_add(records, std::memory_order_relaxed);
      ledger_.of(Signal::metrics).delivered.fetch_add(records, std::memory_order_relaxed);
    }
    return;
  }
  const auto one = [](const MetricPoint& point) { return std::span(&point, 1); };
  if (config_.metrics == MetricsTo::put_metric_data) {
    for (const MetricPoint& point : points) {
      append_points(one(point), end_ms,
                    [&](Payload& to) { encode_metric_datums(point, datum_format(config_), to); });
    }
  } else if (config_.metrics == MetricsTo::otlp) {
    for (const MetricPoint& point : points) {
      append_points(one(point), end_ms,
                    [&](Payload& to) { otlp_metric_encoder_.encode(point, end_ms, to); });
    }
  } else {
    const EmfOptions options = emf_options();
    for (std::size_t first = 0; first < points.size();) {
      std::size_t end = first + 1;
      while (end < points.size() &&
             points[end].series->key.dimensions == points[first].series->key.dimensions) {
        ++end;
      }
      const auto group = points.subspan(first, end - first);
      append_points(group, end_ms, [&](Payload& to) { encode_emf(group, options, to); });
      first = end;
    }
  }
}

template <class Encode>
void Flusher::append_points(std::span<const MetricPoint> points, std::int64_t end_ms,
                            Encode&& encode) noexcept try {
  encode(metrics_->open());
  metrics_->appended(now_);
  keep_points(points, end_ms);
} catch (const std::bad_alloc&) {
  metrics_->cancel();
  for (const MetricPoint& point : points) {
    ledger_.drop_in_batch(Signal::metrics, DropCause::no_memory,
                          point.records_of_piece(point.count, true));
  }
}

}  // namespace spillway::detail
