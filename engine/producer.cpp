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

void count_invalid(std::uint64_t engine_id) noexcept {
  operate(engine_id, Signal::metrics, [](Lane& lane) { lane.counters.measurements_invalid.add(); });
}

std::uint32_t site_number_slow(LogSite& site, std::span<const FieldCopy> fields) noexcept {
  std::array<SiteKey, fields_max> keys{};
  std::size_t count = 0;
  for (const FieldCopy& field : fields) {
    if (field.type != ValueType::none) keys[count++] = {field.key, field.type};
  }
  return register_site(site, std::span(keys).first(count));
}

void append_packed(const FieldCopy& field, std::string& values) {
  const auto append = [&](const void* bytes, std::size_t size) {
    values.append(static_cast<const char*>(bytes), size);
  };
  switch (field.type) {
    case ValueType::none:
      break;
    case ValueType::boolean:
      values += static_cast<char>(field.bits);
      break;
    case ValueType::string: {
      const auto size = static_cast<std::uint32_t>(field.text.size());
      append(&size, sizeof size);
      append(field.text.data(), size);
      break;
    }
    default:
      append(&field.bits, sizeof field.bits);
  }
}

void log_large(Lane& lane, std::uint32_t site, std::uint64_t ticks, const LoggerState* logger,
               std::span<const FieldCopy> fields) noexcept {
  try {
    const Active& active = current_active();
    LargeLog log{site, logger, ticks, active.span_id, active.trace_id, {}, {}, {}, {}};
    if (active.identity != nullptr) {
      log.tenant = active.identity->tenant.view();
      log.user = active.identity->user.view();
      log.request_id = active.identity->request_id.view();
    }
    for (const FieldCopy& field : fields) append_packed(field, log.values);
    if (lane.services().take_large_log(std::move(log))) return;
  } catch (...) {  // No memory for the copy.
  }
  lane.counters.logs_queue_full.add();
}

}  // namespace spillway::detail
