// SPDX-License-Identifier: Apache-2.0
//
// Records made of a fuzzer's bytes, such as the encoders get from the engine.
#pragma once

#include <algorithm>
#include <cmath>
#include <deque>
#include <memory_resource>
#include <set>
#include <string>
#include <vector>

#include "target.hpp"
#include <spillway/buffers/batch.hpp>
#include <spillway/buffers/payload.hpp>
#include <spillway/encoders/limits.hpp>

namespace spillway::fuzz {

inline detail::Payload make_payload() { return detail::Payload(std::pmr::get_default_resource()); }

/// `texts` own what the context refers to.
inline detail::ContextTexts take_context(Input& input, std::deque<std::string>& texts) {
  detail::ContextTexts context;
  for (std::string_view* text : {&context.tenant, &context.user, &context.request_id}) {
    texts.push_back(input.text());
    *text = texts.back();
  }
  context.trace_id = input.take<TraceId>();
  return context;
}

/// A log record of a call site, whose values may be damaged.
struct Log {
  explicit Log(Input& input)
      : site{static_cast<Severity>(input.up_to(5)),
             input.text(),
             input.text(),
             input.take<std::uint32_t>(),
             {}} {
    static constexpr detail::ValueType types[] = {
        detail::ValueType::integer, detail::ValueType::unsigned_integer, detail::ValueType::real,
        detail::ValueType::boolean, detail::ValueType::string};
    const std::size_t fields = input.up_to(16);
    for (std::size_t i = 0; i < fields; ++i)
      site.fields.push_back({input.text(), types[input.up_to(4)]});
    context = take_context(input, texts);
    time_ns = input.take<std::int64_t>();
    span_id = input.take<std::uint64_t>();
    bytes_max = 1024 + input.take<std::uint16_t>();
    values = input.rest();
  }
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;

  detail::LogView view() const {
    return {&site, time_ns, span_id, &context,
            std::as_bytes(std::span(values.data(), values.size()))};
  }

  detail::SiteInfo site;
  std::deque<std::string> texts;
  detail::ContextTexts context;
  std::int64_t time_ns = 0;
  std::uint64_t span_id = 0;
  std::size_t bytes_max = 0;
  std::string_view values;
};

/// Points of one dimension set, such as the engine lets through.
struct Points {
  explicit Points(Input& input) {
    const std::size_t dimension_count = input.up_to(5);
    for (std::size_t i = 0; i < dimension_count; ++i) {
      dimensions.push_back({input.text(), input.text(8)});
    }
    if (limits::dimensions_error(dimensions)) dimensions.clear();
    const std::size_t point_count = 1 + input.up_to(20);
    for (std::size_t i = 0; i < point_count; ++i) add(input);
  }

  void add(Input& input) {
    const auto kind = static_cast<detail::MetricKind>(input.up_to(2));
    std::string name = input.text();
    if (limits::metric_name_error(name)) name = "m" + std::to_string(input.up_to(3));
    series.push_back(
        {.key = {kind, static_cast<Unit>(input.up_to(26)),
                 input.flag() ? Resolution::second : Resolution::minute, name, dimensions}});
    series.back().has_plain_texts = detail::is_plain(series.back().key);
    detail::MetricPoint point{
        &series.back(), input.take<std::int32_t>() * std::int64_t{1000}, 0, 0, 0, 0, 0, {}};
    std::vector<double> drawn;
    const std::size_t count = 1 + input.up_to(255);
    for (std::size_t i = 0; i < count; ++i) {
      const double value = input.flag() ? static_cast<double>(input.take<float>())
                                        : static_cast<double>(input.take<std::int8_t>());
      drawn.push_back(std::isfinite(value) ? value : 0);
    }
    std::sort(drawn.begin(), drawn.end());
    values.emplace_back();
    for (const double value : drawn) {
      const double times = 1 + static_cast<double>(input.up_to(200));
      if (!values.back().empty() && values.back().back().value == value) {
        values.back().back().count += times;
      } else {
        values.back().push_back({value, times});
      }
      point.count += static_cast<std::uint64_t>(times);
      point.sum += value * times;
    }
    point.minimum = drawn.front();
    point.maximum = drawn.back();
    point.last = drawn[drawn.size() / 2];
    if (kind == detail::MetricKind::histogram) point.values = values.back();
    points.push_back(point);
    measurements += point.count;
  }

  Dimensions dimensions;
  std::deque<detail::Series> series;
  std::deque<std::vector<detail::ValueCount>> values;
  std::vector<detail::MetricPoint> points;
  std::uint64_t measurements = 0;
};

/// Spans of one segment: few ids, so that they find parents, brothers of the same id, and circles.
inline std::vector<detail::SpanView> take_spans(Input& input, std::deque<std::string>& texts,
                                                std::uint64_t segment_id) {
  const auto id = [&] { return static_cast<std::uint64_t>(input.up_to(20)); };
  std::vector<detail::SpanView> spans;
  std::set<std::uint64_t> ids;
  while (!input.empty() && spans.size() < 150) {
    detail::SpanView span{};
    texts.push_back(input.text());
    span.name = texts.back();
    span.start_ns = input.take<std::int64_t>();
    span.end_ns = input.take<std::int64_t>();
    span.body.span_id = ids.size() < 20 ? 1 + id() : 100 + spans.size();
    if (!ids.insert(span.body.span_id).second) span.body.span_id = 1000 + spans.size();
    span.body.parent_id = input.flag() ? 1 + id() : 100 + id();
    span.body.segment_id = segment_id;
    span.body.trace_id = input.take<TraceId>();
    // One in progress is not counted: engine_traces_test has those.
    span.body.flags =
        static_cast<std::uint16_t>(input.take<std::uint16_t>() & ~detail::span_in_progress);
    span.body.http_status = input.take<std::uint16_t>();
    texts.push_back(input.text(4));
    span.entries = std::as_bytes(std::span(texts.back().data(), texts.back().size()));
    span.body.entry_bytes = static_cast<std::uint32_t>(texts.back().size());
    spans.push_back(span);
  }
  return spans;
}

}  // namespace spillway::fuzz
