// SPDX-License-Identifier: Apache-2.0
//
// Wide events: all that is worth knowing of one unit of work, as one record. In EMF each is a document
// of its own: its metrics are CloudWatch's, by its dimensions, and its properties are there to be
// searched for.
//
//   SPILLWAY_EVENT(engine, spillway::EventMetric{{"Latency", spillway::Unit::milliseconds}, took_ms},
//                  spillway::EventMetric{"Items", items},
//                  spillway::EventDimension{"Route", route},
//                  spillway::EventProperty{"order_id", id});
//
// The three are types of their own: each value of a dimension is a metric that CloudWatch charges for,
// and an order's number does not become one by accident. Names are literals. At most 64 parts, one
// metric at least.
//
// With metrics = put-metric-data or otlp the metrics go into histograms of those dimensions, and there
// is no place for the properties.
#pragma once

#include <array>
#include <concepts>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include <spillway/buffers/series.hpp>
#include <spillway/buffers/unit.hpp>
#include <spillway/engine/log.hpp>

namespace spillway {

/// Name, unit and resolution of a metric, known when the program is compiled.
class MetricName {
 public:
  // NOLINTNEXTLINE(google-explicit-constructor): a literal is a name
  consteval MetricName(const char* name, Unit unit = Unit::none,
                       Resolution resolution = Resolution::minute)
      : name_(name), unit_(unit), resolution_(resolution) {}
  constexpr const StaticName& name() const noexcept { return name_; }
  constexpr Unit unit() const noexcept { return unit_; }
  constexpr Resolution resolution() const noexcept { return resolution_; }

 private:
  StaticName name_;
  Unit unit_;
  Resolution resolution_;
};

/// A part of a wide event: one of the three below. Made in place only.
class EventPart {
 public:
  [[gnu::always_inline]] constexpr const Field& field() const noexcept { return field_; }
  [[gnu::always_inline]] constexpr detail::SiteKey key() const noexcept {
    return {field_.copy().key, field_.type(), role_, unit_, resolution_ == Resolution::second};
  }
  /// All of key() but the key's text, for fold_field().
  [[gnu::always_inline]] constexpr std::uint32_t kind() const noexcept {
    return static_cast<std::uint32_t>(field_.type()) | static_cast<std::uint32_t>(role_) << 8 |
           static_cast<std::uint32_t>(unit_) << 16 |
           (resolution_ == Resolution::second ? 1U : 0U) << 24;
  }

 protected:
  template <class Value>
  [[gnu::always_inline]] constexpr EventPart(detail::FieldRole role, StaticName key,
                                             const Value& value, Unit unit = Unit::none,
                                             Resolution resolution = Resolution::minute) noexcept
      : field_(key, value), role_(role), unit_(unit), resolution_(resolution) {}

 private:
  Field field_;
  detail::FieldRole role_;
  Unit unit_;
  Resolution resolution_;
};

/// One measurement. NaN, infinite and values beyond 2^360 are counted as invalid, and stand in the
/// document as a property.
class EventMetric : public EventPart {
 public:
  template <class Number>
  requires std::is_arithmetic_v<Number>
  [[gnu::always_inline]] constexpr EventMetric(MetricName metric, Number value) noexcept
      : EventPart(detail::FieldRole::metric, metric.name(), static_cast<double>(value),
                  metric.unit(), metric.resolution()) {}
};

/// What the event's metrics are told apart by, beside the configured dimensions; one of the same name
/// takes the place of a configured one. The text is copied. One that CloudWatch would not take (empty,
/// not ASCII, more than 1024 characters) makes the event's measurements invalid.
class EventDimension : public EventPart {
 public:
  [[gnu::always_inline]] constexpr EventDimension(StaticName key, std::string_view value) noexcept
      : EventPart(detail::FieldRole::dimension, key, value) {}
};

/// Anything else: what a field of a log can be. Texts are copied.
class EventProperty : public EventPart {
 public:
  template <class Value>
  [[gnu::always_inline]] constexpr EventProperty(StaticName key, const Value& value) noexcept
      : EventPart(detail::FieldRole::property, key, value) {}
};

namespace detail {

inline constexpr std::size_t event_parts_max = 64;

/// Writes one wide event for the engine.
template <std::derived_from<EventPart>... Parts>
[[gnu::always_inline]] inline void record_event(std::uint64_t engine_id, LogSite& site,
                                                const Parts&... parts) noexcept {
  constexpr std::uint64_t metrics =
      (std::uint64_t{0} + ... + (std::same_as<Parts, EventMetric> ? 1U : 0U));
  static_assert(metrics > 0, "a wide event has at least one EventMetric");
  static_assert(sizeof...(Parts) <= event_parts_max, "a wide event has at most 64 parts");
  std::uint64_t folded = 0;
  ((folded = fold_field(folded, parts.field().key_hash(), parts.kind())), ...);
  const std::uint64_t bytes =
      round_up_to_8((std::uint64_t{log_values_at} + ... + parts.field().bytes()));
  const auto write = [&](Lane & lane) __attribute__((always_inline)) {
    std::uint32_t id = 0;
    if (site.fields.load(std::memory_order_acquire) == folded) [[likely]] {
      id = static_cast<std::uint32_t>(site.record_head.load(std::memory_order_relaxed) >> 32);
    } else {
      const std::array<SiteKey, sizeof...(Parts)> keys{parts.key()...};
      id = register_site(site, keys, folded);
    }
    if (id == 0) [[unlikely]]  // There are too many call sites, or no memory for one.
      return lane.counters.measurements_invalid.add(metrics);
    const Active& context = current_active();
    lane.counters.events_recorded.add(metrics);
    if (bytes > lane.ring.record_bytes_max()) [[unlikely]]
      return lane.counters.events_too_large.add(metrics);
    Ring::Room room;
    if ((lane.written_context == context.serial || write_context(lane, context, false)) &&
        (room = lane.ring.reserve(static_cast<std::uint32_t>(bytes)))) [[likely]] {
      const RecordHeader header{
          RecordHeader::pack(static_cast<std::uint32_t>(bytes), RecordKind::event), id,
          lane.log_ticks()};
      std::byte* at = room.at;
      std::memcpy(at, &header, sizeof header);
      std::memcpy(at + sizeof header, &context.span_id, 8);
      at += log_values_at;
      ((at = parts.field().write(at)), ...);
      lane.ring.commit(room);
    } else {
      lane.counters.events_ring_full.add(metrics);
    }
  };
  operate(engine_id, Signal::metrics, write);
}

}  // namespace detail
}  // namespace spillway

/// Records a wide event of an engine. Its parts are evaluated only when metrics go anywhere. See the
/// head of this file.
#define SPILLWAY_EVENT(engine, ...)                                                                \
  do {                                                                                             \
    if ((engine).events_enabled()) {                                                               \
      static constinit ::spillway::LogSite spillway_site{::spillway::Severity::info, "", __FILE__, \
                                                         __LINE__};                                \
      (engine).record_event(spillway_site, __VA_ARGS__);                                           \
    }                                                                                              \
  } while (false)
