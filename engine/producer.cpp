// SPDX-License-Identifier: Apache-2.0
//
// The out-of-line parts of recording: rare, and on the calling thread all the same.
#include <array>

#include <spillway/buffers/names.hpp>
#include <spillway/engine/log.hpp>
#include <spillway/engine/metric.hpp>
#include <spillway/engine/services.hpp>

namespace spillway::detail {

void fill_view(Lane& lane, ViewCache::View& cached, const ContextView& view,
               std::uint32_t identity) noexcept {
  const MetricRef found = lane.services().with_dimension(view.base, name_of(view.dimension_name),
                                                         identity_of(identity));
  cached = {std::uint64_t{view.number} << 32 | identity, found.cell_offset, found.series};
}

namespace {

// `metric_of(lane)` finds the metric once the lane is entered.
template <class MetricOf>
void add_entered(std::uint64_t engine_id, std::uint64_t n, MetricOf&& metric_of) noexcept {
  operate(engine_id, Signal::metrics, [&](Lane& lane) {
    const MetricRef metric = metric_of(lane);
    if (CumulativeCell::fits(n)) {
      lane.count(metric.cell_offset, metric.series, n);
    } else {
      record_count(lane, metric, static_cast<double>(n));
    }
  });
}

}  // namespace

void add_slow(const MetricRef& metric, std::uint64_t n) noexcept {
  add_entered(metric.engine_id, n, [&](Lane&) { return metric; });
}

void add_slow(const ContextView& view, std::uint64_t n) noexcept {
  add_entered(view.base.engine_id, n, [&](Lane& lane) { return view.find(lane); });
}

namespace {

// Keeps the trace of the highest value so far.
void record_any_value(Lane& lane, const MetricRef& metric, double value) noexcept {
  // Once: the next one that the gate names may be another, and this cell unknown to it.
  Bank& bank = lane.bank();
  const Recorded recorded = bank.record(metric.cell_offset, metric.series, value);
  if (recorded == Recorded::not_at_all) return lane.counters.measurements_invalid.add();
  if (recorded != Recorded::as_highest) return;
  const Active& active = current_active();
  if (!active.is_sampled() || !active.trace_id) return;
  bank.add_exemplar(metric.cell_offset,
                    {value, lane.coarse_ticks(), active.trace_id, active.span_id});
}

void set_any_gauge(Lane& lane, const MetricRef& metric, double value) noexcept {
  if (!lane.bank().set(metric.cell_offset, metric.series, value, lane.coarse_ticks()))
    lane.counters.measurements_invalid.add();
}

}  // namespace

void set_gauge_slow(const MetricRef& metric, double value) noexcept {
  operate(metric.engine_id, Signal::metrics,
          [&](Lane& lane) { set_any_gauge(lane, metric, value); });
}

void set_gauge_slow(const ContextView& view, double value) noexcept {
  operate(view.base.engine_id, Signal::metrics,
          [&](Lane& lane) { set_any_gauge(lane, view.find(lane), value); });
}

void record_value_slow(const MetricRef& metric, double value) noexcept {
  operate(metric.engine_id, Signal::metrics,
          [&](Lane& lane) { record_any_value(lane, metric, value); });
}

void record_value_slow(const ContextView& view, double value) noexcept {
  operate(view.base.engine_id, Signal::metrics,
          [&](Lane& lane) { record_any_value(lane, view.find(lane), value); });
}

void count_invalid(std::uint64_t engine_id) noexcept {
  operate(engine_id, Signal::metrics, [](Lane& lane) { lane.counters.measurements_invalid.add(); });
}

void sample_slow(const MetricRef& metric, double value, bool exact) noexcept {
  operate(metric.engine_id, Signal::metrics, [&](Lane& lane) {
    if (!is_valid_measurement(value)) return lane.counters.measurements_invalid.add();
    lane.counters.samples_recorded.add();
    if (const Ring::Room room = lane.ring.reserve(sample_bytes)) {
      return write_sample(lane, room, metric.series, value,
                          exact ? lane.exact_ticks() : lane.coarse_ticks());
    }
    lane.counters.samples_folded.add();
    lane.bank().record(metric.cell_offset, metric.series, value);
  });
}

namespace {

/// The first word of a record of these fields but its size.
std::uint64_t record_head_of(LogSite& site, std::uint64_t folded,
                             std::span<const FieldCopy> fields) noexcept {
  if (site.fields.load(std::memory_order_acquire) == folded) {
    return site.record_head.load(std::memory_order_relaxed);
  }
  std::array<SiteKey, fields_max> keys{};
  std::size_t count = 0;
  for (const FieldCopy& field : fields) keys[count++] = {field.key, field.type};
  return log_record_head(register_site(site, std::span(keys).first(count), folded));
}

std::uint64_t bytes_of(const FieldCopy& field) noexcept {
  if (field.type == ValueType::string) return 4 + field.text.size();
  return field.type == ValueType::boolean ? 1 : 8;
}

void pack(std::byte* at, std::span<const FieldCopy> fields) noexcept {
  for (const FieldCopy& field : fields) {
    if (field.type == ValueType::string) {
      const auto size = static_cast<std::uint32_t>(field.text.size());
      std::memcpy(at, &size, sizeof size);
      if (size != 0) std::memcpy(at + sizeof size, field.text.data(), size);
    } else {
      std::memcpy(at, &field.bits, bytes_of(field));
    }
    at += bytes_of(field);
  }
}

/// A record that no ring takes: longer than a quarter of one. Copied and queued; the flusher's
/// memory budget bounds it.
bool take_large_log(Lane& lane, std::uint64_t head, const LoggerState* logger,
                    std::uint64_t value_bytes, std::span<const FieldCopy> fields) noexcept try {
  if (value_bytes > record_bytes_limit) return false;
  const Active& active = current_active();
  LargeLog log{static_cast<std::uint32_t>(head >> 32),
               logger,
               lane.exact_ticks(),
               active.span_id,
               active.trace_id,
               active.trace_flags(),
               {},
               {},
               {},
               {}};
  if (active.identity != nullptr) {
    log.tenant = active.identity->tenant.view();
    log.user = active.identity->user.view();
    log.request_id = active.identity->request_id.view();
  }
  log.values.resize(value_bytes);
  pack(reinterpret_cast<std::byte*>(log.values.data()), fields);
  return lane.services().take_large_log(std::move(log));
} catch (...) {  // No memory for the copy.
  return false;
}

}  // namespace

void append_packed(const FieldCopy& field, std::string& values) {
  const std::size_t before = values.size();
  values.resize(before + bytes_of(field));
  pack(reinterpret_cast<std::byte*>(values.data()) + before, {&field, 1});
}

void record_request_end(std::uint64_t engine_id, bool failed, std::int64_t took_ns) noexcept {
  Lane* const lane = enter(engine_id);
  if (lane == nullptr) return;
  const Active& context = current_active();
  if (lane->written_context == context.serial || write_context(*lane, context, true)) {
    constexpr std::uint32_t bytes = sizeof(RecordHeader) + sizeof took_ns;
    // Where it finds no room, what was kept for the request goes when it is too old.
    if (const Ring::Room room = lane->ring.reserve(bytes, true)) {
      const RecordHeader header{RecordHeader::pack(bytes, RecordKind::request_end),
                                failed || context.is_sampled() ? 1U : 0U, 0};
      std::memcpy(room.at, &header, sizeof header);
      std::memcpy(room.at + sizeof header, &took_ns, sizeof took_ns);
      lane->ring.commit(room);
    }
  }
  lane->leave();
}

void log_slow(std::uint64_t engine_id, const LoggerState* logger, LogSite& site,
              std::uint64_t folded, std::span<const FieldCopy> fields) noexcept {
  operate(engine_id, Signal::logs, [&](Lane& lane) {
    const std::uint64_t head = record_head_of(site, folded, fields);
    const bool urgent = site.severity >= Severity::warn;
    const Active& context = current_active();
    std::uint64_t value_bytes = 0;
    for (const FieldCopy& field : fields) value_bytes += bytes_of(field);
    const std::uint32_t values_at = log_values_at + (logger == nullptr ? 0U : 8U);
    const std::uint64_t bytes = round_up_to_8(values_at + value_bytes);
    lane.counters.logs_recorded.add();
    if (bytes > lane.ring.record_bytes_max()) {
      if (!take_large_log(lane, head, logger, value_bytes, fields)) {
        lane.counters.logs_queue_full.add();
      }
      return;
    }
    Ring::Room room;
    if ((lane.written_context == context.serial || write_context(lane, context, urgent)) &&
        (room = lane.ring.reserve(static_cast<std::uint32_t>(bytes), urgent))) {
      write_log_head(room.at,
                     logger == nullptr ? log_first_word<false>(head, bytes)
                                       : log_first_word<true>(head, bytes),
                     lane.log_ticks(), context.span_id);
      if (logger != nullptr) std::memcpy(room.at + log_values_at, &logger, sizeof logger);
      pack(room.at + values_at, fields);
      lane.ring.commit(room);
    } else {
      lane.counters.logs_ring_full.add();
    }
  });
}

}  // namespace spillway::detail
