// SPDX-License-Identifier: Apache-2.0
//
// Handles of metrics. A handle is made once (Engine::counter and its siblings) and copied freely;
// recording through it moves one number into the calling thread's own cells. Handles do not keep
// the engine alive: calls after it has shut down, or is gone, are counted as `closed` and do
// nothing else.
#pragma once

#include <concepts>
#include <cstdint>
#include <string_view>

#include <spillway/buffers/lane.hpp>
#include <spillway/buffers/series.hpp>
#include <spillway/engine/context.hpp>

namespace spillway {

namespace detail {

/// Which engine, series and cell a handle means.
struct MetricRef {
  std::uint64_t engine_id = no_engine_id;
  std::uint32_t cell_offset = 0;
  std::uint32_t series = 0;
};

/// Adds to a counter what its thread's cumulative cell does not take, or takes no more: out of the
/// hot path.
[[gnu::cold]] void add_slow(const MetricRef& metric, std::uint64_t n) noexcept;
[[gnu::cold]] void count_invalid(std::uint64_t engine_id) noexcept;

// The one place where each kind of metric is recorded. A `lane` is entered.

inline void record_count(Lane& lane, const MetricRef& metric, double value) noexcept {
  if (value >= 0 && value <= magnitude_max) [[likely]] {
    lane.bank().add(metric.cell_offset, metric.series, value);
  } else {
    lane.counters.measurements_invalid.add();
  }
}
inline bool try_set_gauge(Lane& lane, const MetricRef& metric, double value) noexcept {
  return lane.bank().try_set(metric.cell_offset, value, lane.coarse_ticks());
}
inline bool try_record_value(Lane& lane, const MetricRef& metric, double value) noexcept {
  return lane.bank().try_record(metric.cell_offset, value);
}

// What these, or try_operate(), did not do: calls that nothing follows, so that what comes before
// them keeps nothing over a call.

[[gnu::cold]] void set_gauge_slow(const MetricRef& metric, double value) noexcept;
[[gnu::cold]] void record_value_slow(const MetricRef& metric, double value) noexcept;
/// What record_sample() did not do: the ring is full, the time takes a call, the engine is closed, or
/// the value is none.
[[gnu::cold]] void sample_slow(const MetricRef& metric, double value, bool exact) noexcept;

inline void write_sample(Lane& lane, const Ring::Room& room, std::uint32_t series, double value,
                         std::uint64_t ticks) noexcept {
  const RecordHeader header{RecordHeader::pack(sample_bytes, RecordKind::sample), series, ticks};
  std::memcpy(room.at, &header, sizeof header);
  std::memcpy(room.at + sizeof header, &value, sizeof value);
  lane.ring.commit(room);
}

inline void record_sample(const MetricRef& metric, double value, bool exact) noexcept {
  Lane& lane = *current_lane;
  if (is_valid_measurement(value) && lane.takes_records_of(metric.engine_id)) [[likely]] {
    const Ring::Room room = lane.ring.try_reserve(sample_bytes);
    std::uint64_t ticks = exact ? 0 : lane.coarse_ticks();
    if (room && (!exact || lane.try_exact_ticks(ticks))) [[likely]] {
      lane.counters.samples_recorded.add();
      return write_sample(lane, room, metric.series, value, ticks);
    }
  }
  sample_slow(metric, value, exact);
}

}  // namespace detail

/// A sum that only grows: requests, bytes, money. Each interval of each process is one sample of
/// CloudWatch's, with the interval's sum as its value: read the statistic Sum. SampleCount, Average,
/// Minimum and Maximum speak of those sums, not of single calls; the agent's counters do the same.
class Counter {
 public:
  Counter() = default;

  /// Adds `n`, in the unit given at registration. Negative, NaN and infinite values are dropped and
  /// counted as invalid.
  /// threads   any; never blocks; allocates only on a thread's first record.
  template <std::integral Integer>
  void add(Integer n) const noexcept {
    if constexpr (std::signed_integral<Integer>) {
      if (n < 0) [[unlikely]]
        return detail::count_invalid(metric_.engine_id);
    }
    const auto amount = static_cast<std::uint64_t>(n);
    if (!detail::CumulativeCell::fits(amount) ||
        !detail::current_lane->try_count(metric_.engine_id, metric_.cell_offset, amount))
        [[unlikely]] {
      detail::add_slow(metric_, amount);
    }
  }
  void add(double value) const noexcept {
    detail::operate(metric_.engine_id, detail::Signal::metrics,
                    [&](detail::Lane& lane) { detail::record_count(lane, metric_, value); });
  }
  void add() const noexcept { add(1U); }

  const detail::MetricRef& ref() const noexcept { return metric_; }

 private:
  friend class Engine;
  explicit Counter(const detail::MetricRef& metric) noexcept : metric_(metric) {}
  detail::MetricRef metric_;
};

/// A level that goes up and down: queue length, temperature. Each interval reports minimum, maximum
/// and average of what was set: with PutMetricData as a statistic set, in EMF as an array of few
/// numbers, whose SampleCount is not how often the gauge was set unless `emf_histogram_object` is
/// on.
class Gauge {
 public:
  Gauge() = default;

  /// Sets the level. NaN, infinite and values beyond 2^360 are dropped and counted as invalid.
  /// threads   any; never blocks; allocates only on a thread's first record.
  void set(double value) const noexcept {
    if (!detail::try_operate(metric_.engine_id, [&](detail::Lane& lane) {
          return detail::try_set_gauge(lane, metric_, value);
        })) [[unlikely]] {
      detail::set_gauge_slow(metric_, value);
    }
  }

  const detail::MetricRef& ref() const noexcept { return metric_; }

 private:
  friend class Engine;
  explicit Gauge(const detail::MetricRef& metric) noexcept : metric_(metric) {}
  detail::MetricRef metric_;
};

/// How a record gets its time: from the processor's counter, which costs some 10 ns, or from the
/// flusher's last round, a millisecond ago under load and 16 at most (Config::poll_interval).
enum class Stamp : std::uint8_t { exact, coarse };

/// A distribution: latencies, sizes. Count, sum, minimum and maximum are exact; values within 1 %.
///
/// Exemplars: a value that a thread records in a sampled trace and that is the highest of its second
/// so far keeps the ids of trace and span. Up to four of an interval, the highest, go out with it: in
/// OTLP, and in EMF as the property "exemplars". PutMetricData has no place for them.
class Histogram {
 public:
  Histogram() = default;

  /// Records one value. NaN, infinite and values beyond 2^360 are dropped and counted as invalid.
  /// threads   any; never blocks; allocates only on a thread's first record.
  void record(double value) const noexcept {
    if (!detail::try_operate(metric_.engine_id, [&](detail::Lane& lane) {
          return detail::try_record_value(lane, metric_, value);
        })) [[unlikely]] {
      detail::record_value_slow(metric_, value);
    }
  }

  /// Records one value as a record of its own in the ring, together with its time: it counts in the
  /// interval in which the flusher drains it, a poll interval later under load, where a value in a
  /// cell counts in the second in which the cells are taken. When the ring is full the value is
  /// folded into the thread's cells: it keeps its value and loses its time.
  void sample(double value, Stamp stamp = Stamp::exact) const noexcept {
    detail::record_sample(metric_, value, stamp == Stamp::exact);
  }

  const detail::MetricRef& ref() const noexcept { return metric_; }

 private:
  friend class Engine;
  explicit Histogram(const detail::MetricRef& metric) noexcept : metric_(metric) {}
  detail::MetricRef metric_;
};

/// A field of the request context that a metric can take as a dimension. Not the request id: each
/// would be a metric.
enum class ContextField : std::uint8_t { tenant, user };

namespace detail {

struct ContextView;
/// Finds the series of a view for a tenant or user, and puts it into the cache. `lane` is entered.
[[gnu::cold]] void fill_view(Lane& lane, ViewCache::View& cached, const ContextView& view,
                             std::uint32_t identity) noexcept;

/// A context's view of a metric: the base series with one more dimension, whose value is read from
/// the current context.
struct ContextView {
  MetricRef base;
  std::uint32_t number = 0;          ///< of the view, in the engine
  std::uint32_t dimension_name = 0;  ///< from intern_name()
  ContextField field = ContextField::tenant;

  /// The series for the calling thread's context; the base series when it names no tenant (user).
  MetricRef find(Lane& lane) const noexcept {
    const bool tenant = field == ContextField::tenant;
    std::uint32_t identity = current_active().number_of(tenant);
    if (identity + 1 <= 1) [[unlikely]] {  // None, or identity_unasked: one comparison for both.
      if (identity == identity_unasked) identity = ask_identity_number(tenant);
      if (identity == 0) return base;
    }
    const std::uint64_t key = std::uint64_t{number} << 32 | identity;
    ViewCache::View& view = lane.views->find(key);
    if (view.key != key) [[unlikely]]
      fill_view(lane, view, *this, identity);
    return {base.engine_id, view.offset, view.series};
  }
  /// What the cache of a lane says that need not be entered, or null.
  const ViewCache::View* find_cached(const Lane& lane) const noexcept {
    const std::uint32_t identity = current_active().number_of(field == ContextField::tenant);
    return lane.views->look_up(std::uint64_t{number} << 32 | identity);
  }
};

}  // namespace detail

namespace detail {
[[gnu::cold]] void add_slow(const ContextView& view, std::uint64_t n) noexcept;
[[gnu::cold]] void set_gauge_slow(const ContextView& view, double value) noexcept;
[[gnu::cold]] void record_value_slow(const ContextView& view, double value) noexcept;
}  // namespace detail

/// A metric whose series is chosen per call by the request context: `per(requests,
/// ContextField::tenant, "TenantID")`.
template <class Metric>
class PerContext {
 public:
  PerContext() = default;

  template <class Number>
  requires std::same_as<Metric, Counter> && std::is_arithmetic_v<Number>
  void add(Number n) const noexcept {
    if constexpr (std::integral<Number>) {
      if constexpr (std::signed_integral<Number>) {
        if (n < 0) [[unlikely]]
          return detail::count_invalid(view_.base.engine_id);
      }
      const auto amount = static_cast<std::uint64_t>(n);
      detail::Lane* const lane = detail::current_lane;
      const detail::ViewCache::View* const cached = view_.find_cached(*lane);
      if (cached == nullptr || !detail::CumulativeCell::fits(amount) ||
          !lane->try_count(view_.base.engine_id, cached->offset, amount)) [[unlikely]] {
        detail::add_slow(view_, amount);
      }
    } else {
      detail::operate(view_.base.engine_id, detail::Signal::metrics, [&](detail::Lane& lane) {
        detail::record_count(lane, view_.find(lane), static_cast<double>(n));
      });
    }
  }
  void set(double value) const noexcept requires std::same_as<Metric, Gauge> {
    if (!detail::try_operate(view_.base.engine_id, [&](detail::Lane& lane) {
          return detail::try_set_gauge(lane, view_.find(lane), value);
        })) [[unlikely]] {
      detail::set_gauge_slow(view_, value);
    }
  }
  void record(double value) const noexcept requires std::same_as<Metric, Histogram> {
    if (!detail::try_operate(view_.base.engine_id, [&](detail::Lane& lane) {
          return detail::try_record_value(lane, view_.find(lane), value);
        })) [[unlikely]] {
      detail::record_value_slow(view_, value);
    }
  }

 private:
  friend class Engine;
  explicit PerContext(const detail::ContextView& view) noexcept : view_(view) {}
  detail::ContextView view_;
};

}  // namespace spillway
