// SPDX-License-Identifier: Apache-2.0
#include <numeric>

#include <spillway/encoders/json.hpp>
#include <spillway/engine/stats.hpp>

namespace spillway {

std::string_view to_string(DropCause cause) noexcept {
  constexpr std::array<std::string_view, drop_cause_count> names{
      "ring_full",    "queue_full",        "too_large",         "invalid", "expired",  "rejected",
      "unauthorised", "retries_exhausted", "shutdown_deadline", "closed",  "no_memory"};
  return names[static_cast<std::size_t>(cause)];
}

std::uint64_t SignalStats::dropped_total() const noexcept {
  return std::accumulate(dropped.begin(), dropped.end(), std::uint64_t{0});
}

std::int64_t SignalStats::residue() const noexcept {
  return static_cast<std::int64_t>(recorded - delivered - dropped_total() - held());
}

std::string Stats::to_json() const {
  detail::ByteBuffer out;
  const auto number = [&](std::string_view name, std::uint64_t value) {
    out.append(name);
    detail::append_number(out, value);
  };
  const auto signal = [&](std::string_view name, const SignalStats& stats) {
    out.append(name);
    number("{\"recorded\":", stats.recorded);
    number(",\"delivered\":", stats.delivered);
    out.append(",\"dropped\":{");
    std::string_view separator;
    for (std::size_t i = 0; i < drop_cause_count; ++i) {
      if (stats.dropped[i] == 0) continue;
      out.append(separator);
      detail::append_json_string(out, to_string(static_cast<DropCause>(i)));
      number(":", stats.dropped[i]);
      separator = ",";
    }
    number("},\"held\":", stats.held());
    out.append(",\"residue\":");
    detail::append_number(out, stats.residue());
    out.append('}');
  };
  signal("{\"metrics\":", metrics);
  signal(",\"logs\":", logs);
  signal(",\"spans\":", spans);
  number(",\"delivery\":{\"requests\":", delivery.requests);
  number(",\"retries\":", delivery.retries);
  number(",\"throttles\":", delivery.throttles);
  number(",\"failures\":", delivery.failures);
  number(",\"bytes\":", delivery.bytes);
  number(",\"uncertain_records\":", delivery.uncertain_records);
  number("},\"samples_folded\":", samples_folded);
  number(",\"measurements_unbucketed\":", measurements_unbucketed);
  number(",\"trace_headers_refused\":", trace_headers_refused);
  number(",\"lanes\":", lanes);
  number(",\"series\":", series);
  out.append('}');
  return std::string(out.view());
}

}  // namespace spillway
