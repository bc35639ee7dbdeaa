// SPDX-License-Identifier: Apache-2.0
//
// The flusher: one thread that turns what producers wrote into payloads. A round is a list of
// steps:
//
//   tell the time          coarse clock for producers, anchor for ticks
//   drain the rings        logs are encoded at once, spans go to their segment, samples to their series
//   take the cells         each second of the wall clock: the banks of all threads into the aggregator
//   close the intervals    the same for high resolution; each metric interval, counted from 1970, for
//                          the rest: with one of 10 s, at :00, :10, :20
//   complete the traces    segments whose root is there
//   seal what is due       payloads go to the sender
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include <spillway/buffers/lane.hpp>
#include <spillway/encoders/emf.hpp>
#include <spillway/encoders/log_event.hpp>
#include <spillway/encoders/otlp_logs.hpp>
#include <spillway/encoders/otlp_metrics.hpp>
#include <spillway/encoders/wide_event.hpp>
#include <spillway/engine/aggregate.hpp>
#include <spillway/engine/batcher.hpp>
#include <spillway/engine/cardinality.hpp>
#include <spillway/engine/clock.hpp>
#include <spillway/engine/config.hpp>
#include <spillway/engine/crash_recovery.hpp>
#include <spillway/engine/crash_rings.hpp>
#include <spillway/engine/debug_retention.hpp>
#include <spillway/engine/event_series.hpp>
#include <spillway/engine/exporter.hpp>
#include <spillway/engine/ledger.hpp>
#include <spillway/engine/log_limiter.hpp>
#include <spillway/engine/logger_table.hpp>
#include <spillway/engine/outbox.hpp>
#include <spillway/engine/record_redactor.hpp>
#include <spillway/engine/self_metrics.hpp>
#include <spillway/engine/services.hpp>
#include <spillway/engine/trace_assembler.hpp>

namespace spillway::detail {

class Flusher {
 public:
  struct Parts {
    const Config& config;
    std::shared_ptr<Clock> clock;
    std::shared_ptr<LaneSet> lanes;
    const SeriesTable& series;
    Ledger& ledger;
    Outbox& outbox;
    // Null where a signal goes nowhere: its records are counted as delivered to nobody, which is
    // what was asked for.
    const Exporter* metrics;
    const Exporter* logs;
    const Exporter* traces;
    LoggerTable& loggers;
    Rollups& rollups;
    std::function<void(std::string_view)> report;
    /// The number of the series of a key, whose dimensions need not be in order.
    std::function<std::uint32_t(SeriesKey)> intern;
    CrashRings* crash_rings = nullptr;        ///< null: rings are in memory only
    std::unique_ptr<CrashRecovery> recovery;  ///< what a dead process left; null: nothing
    /// Whether the payloads of a signal up to a number are settled.
    std::function<bool(Signal, std::uint64_t)> settled;
    std::unique_ptr<SelfMetrics> self_metrics = nullptr;  ///< null: they are not wanted
    /// What has been dropped so far.
    std::function<Stats()> account = nullptr;
  };
  /// What the parts refer to outlives it.
  explicit Flusher(Parts parts);
  ~Flusher();

  /// One round. True: there was work.
  bool run_once();
  /// Of the last round, how full the fullest ring was: 1 is a whole ring, more one that went on while
  /// it was drained. A large log counts as a whole one.
  double fullest() const noexcept { return fullest_; }
  /// A flush is of everything that was recorded before begin_flush().
  void begin_flush();
  /// A round that holds nothing back. True: the flush is done, all of it is in payloads. False: a
  /// producer is in the middle of an operation; call again.
  bool flush_all();
  /// The end of a flush that shall not wait for such producers: what they have in their cells is
  /// dropped, and counted as closely as it can be read beside them.
  void flush_without_unfinished();

  /// Deletes what a dead process left if it is settled by now: each round does it, and the end of the
  /// engine, when there are no more.
  void finish_recovery();
  /// Something that a dead process left is not read yet: the outbox has no room for it now.
  bool is_recovering() const noexcept { return recovery_ != nullptr && !recovery_->is_read(); }

  /// Metrics that have more series than they may, as of the last metric interval. Any thread.
  std::vector<FoldedMetric> folded_metrics() const { return cardinality_.found(); }

  /// After the last flush: drops what is kept for requests that have not ended.
  void drop_retained();

  /// A log too large for a ring. Any thread.
  bool take_large_log(LargeLog&& log) noexcept;

 private:
  struct LaneContext;
  struct LargeLogs;

  class Recovered;

  /// Ships what a dead process left, as far as the outbox has room, and deletes it once it is settled.
  void recover();
  /// Seals what there is; what comes then is of a dead process, or is not.
  void set_recovered(bool recovered);
  void report_recovery();
  /// Writes down what measurements amount to, when it is time or `now`.
  void keep_metrics(bool now) noexcept;
  /// Writes down what was dropped and is not published, when it is time or `now`. False: that failed.
  bool keep_drops(bool now) noexcept;
  void keep_points(std::span<const MetricPoint> points, std::int64_t end_ms) noexcept;
  void end_round_of_crash_rings();
  void mark_sealed();
  std::optional<Batcher>& batcher_of(Signal signal) noexcept {
    return signal == Signal::metrics ? metrics_ : signal == Signal::logs ? logs_ : traces_;
  }
  /// Counts records of a signal as drained and has `work` make of it what goes into a payload; without
  /// memory for that it is dropped, and the others go on.
  template <class Work>
  void take_record(Signal signal, std::uint64_t records, Work&& work) noexcept;
  bool drain_rings();
  void drain_record(LaneContext& context, const std::byte* record, const RecordHeader& header);
  void drain_log(LaneContext& context, const std::byte* record, const RecordHeader& header);
  void drain_event(LaneContext& context, const std::byte* record, const RecordHeader& header);
  /// Aggregated, it goes to `to`.
  void take_event(LogView event, std::uint32_t site, Aggregator& to);
  /// `left`: the measurements that are not accounted yet.
  void encode_event(const LogView& event, std::uint64_t metrics, std::uint64_t& left);
  /// The measurements of a wide event where they are aggregated.
  void aggregate_event(const LogView& event, Aggregator& to, std::uint64_t& left);
  void drain_span(LaneContext& context, const std::byte* record, const RecordHeader& header);
  bool drain_large_logs();
  /// The number of what stands for call site `site` in records of this shape.
  std::uint32_t site_with(const LoggerShape& shape, std::uint32_t site);
  /// Puts what a logger has in common into the record of call site `site`, whose new number it
  /// returns. Valid until the next call.
  std::uint32_t add_logger(const LoggerState& logger, std::uint32_t site, LogView& log);
  /// `site` is the number of `log.site`; `level` that of its logger.
  void take_log(LogView& log, std::uint32_t site, std::uint64_t ticks, Severity level);
  /// `records`: how many it stands for.
  void encode_log(const LogView& log, std::uint64_t ticks, std::uint64_t records = 1);
  /// Says what the limit of a call site has held back.
  void report_held_back();
  std::uint32_t held_back_site(std::uint32_t site);
  bool take_wanted_cells();
  void seal_all();
  void close_what_is_over();
  /// Ends the interval at `end_ms`, where the next one begins.
  void close_interval(Resolution resolution, std::int64_t end_ms);
  /// The engine's own metrics of the interval from `began_ms` on.
  void report_self(std::int64_t began_ms, std::int64_t end_ms);
  bool is_in_time(std::int64_t time_ms) const;
  EmfOptions emf_options() const;
  void encode_points(std::span<const MetricPoint> points, std::int64_t end_ms);
  /// Appends points by `encode(Payload&)`, or drops their measurements for lack of memory.
  template <class Encode>
  void append_points(std::span<const MetricPoint> points, std::int64_t end_ms,
                     Encode&& encode) noexcept;
  /// Encodes the points of an interval, or drops them when it is too long ago.
  void ship_points(std::span<const MetricPoint> points, std::int64_t began_ms, std::int64_t end_ms);
  void seal_due();

  const Config& config_;
  const std::shared_ptr<Clock> clock_;
  const std::shared_ptr<LaneSet> lanes_;
  Ledger& ledger_;
  const SeriesTable& series_;
  Aggregator aggregator_;
  CardinalityWatch cardinality_;
  RecordRedactor redactor_;
  LogEncoder log_encoder_;
  OtlpLogEncoder otlp_log_encoder_;
  OtlpMetricEncoder otlp_metric_encoder_;
  Rollups& rollups_;
  const std::function<std::uint32_t(SeriesKey)> intern_;
  EventSeries event_series_;
  const std::function<void(std::string_view)> report_;
  std::optional<WideEventEncoder> event_encoder_;  // where metrics go as EMF
  std::uint32_t event_sets_version_ = 0;           // of rollups_, that the encoder knows
  std::size_t log_bytes_max_ = 0;                  // of one event, where logs go
  std::optional<Batcher> metrics_;
  std::optional<Batcher> logs_;
  std::optional<Batcher> traces_;
  std::optional<TraceAssembler> assembler_;
  std::vector<std::unique_ptr<LaneContext>> lane_contexts_;  // by lane index
  std::unique_ptr<LargeLogs> large_logs_;
  LoggerTable& loggers_;
  // What refers to them is in the rings: they go when a round has come to its end.
  std::vector<std::unique_ptr<const LoggerState>> retired_loggers_;
  // By the number of the shape, and that of the call site.
  std::unordered_map<std::uint64_t, std::uint32_t> sites_with_loggers_;
  std::vector<std::byte> merged_values_;
  LogLimiter limiter_;
  std::int64_t limiter_second_ = 0;
  std::unordered_map<std::uint32_t, std::uint32_t> held_back_sites_;  // by number: who says it
  std::optional<DebugRetention> retention_;
  CrashRings* const crash_rings_;
  Sequences marked_seals_{};  // of metrics and logs
  SteadyTime next_keeping_{};
  std::uint64_t kept_drained_ = 0;  // measurements that were drained when they were written down
  bool keeps_new_points_ = false;   // intervals have ended since
  bool is_shipping_recovered_ = false;
  SteadyTime next_drops_{};
  DropCounts kept_drops_;  // as they were written down
  std::unique_ptr<CrashRecovery> recovery_;
  std::unique_ptr<Recovered> recovered_;  // while recovery_ is being read
  const std::function<bool(Signal, std::uint64_t)> settled_;
  Outbox& outbox_;
  const std::function<Stats()> account_;
  const std::unique_ptr<SelfMetrics> self_metrics_;

  SteadyTime now_{};
  double fullest_ = 0;
  // Of this round: reading the clock for each record costs as much as encoding it.
  std::int64_t wall_now_ms_ = 0;
  // Of the wall clock. An interval that a flush has cut, or the first, begins inside its second or
  // metric interval.
  std::int64_t second_ms_ = 0;
  std::int64_t interval_ms_ = 0;
  SteadyTime second_since_{};
  SteadyTime interval_since_{};
  std::int64_t second_began_ms_ = 0;
  std::int64_t interval_began_ms_ = 0;
};

}  // namespace spillway::detail
