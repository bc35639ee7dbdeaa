// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include <spillway/encoders/otlp.hpp>
#include <spillway/encoders/otlp_metrics.hpp>

namespace spillway::detail {

using namespace protobuf;

namespace {

// Fields of Metric.
constexpr std::uint32_t metric_name = 1;
constexpr std::uint32_t metric_unit = 3;
constexpr std::uint32_t metric_gauge = 5;
constexpr std::uint32_t metric_sum = 7;
constexpr std::uint32_t metric_exponential_histogram = 10;
// Of Gauge, Sum and ExponentialHistogram.
constexpr std::uint32_t data_points = 1;
constexpr std::uint32_t aggregation_temporality = 2;
constexpr std::uint32_t is_monotonic = 3;
constexpr std::uint64_t delta = 1;
// Of every data point but where it says otherwise.
constexpr std::uint32_t start_time_unix_nano = 2;
constexpr std::uint32_t time_unix_nano = 3;
constexpr std::uint32_t number_attributes = 7;
constexpr std::uint32_t number_as_double = 4;
constexpr std::uint32_t histogram_attributes = 1;
constexpr std::uint32_t histogram_count = 4;
constexpr std::uint32_t histogram_sum = 5;
constexpr std::uint32_t histogram_scale = 6;
constexpr std::uint32_t histogram_zero_count = 7;
constexpr std::uint32_t histogram_positive = 8;
constexpr std::uint32_t histogram_negative = 9;
constexpr std::uint32_t histogram_exemplars = 11;
constexpr std::uint32_t histogram_minimum = 12;
constexpr std::uint32_t histogram_maximum = 13;
// Of Exemplar.
constexpr std::uint32_t exemplar_time_unix_nano = 2;
constexpr std::uint32_t exemplar_as_double = 3;
constexpr std::uint32_t exemplar_span_id = 4;
constexpr std::uint32_t exemplar_trace_id = 5;
// Of Buckets.
constexpr std::uint32_t buckets_offset = 1;
constexpr std::uint32_t buckets_counts = 2;

constexpr std::size_t sub_buckets = std::size_t{1} << otlp_scale_max;

// Upper bounds of the buckets from 1 to 2, the last one 2.
const std::array<double, sub_buckets>& upper_bounds() {
  static const std::array<double, sub_buckets> bounds = [] {
    std::array<double, sub_buckets> made{};
    for (std::size_t i = 0; i < made.size(); ++i) {
      made[i] = std::exp2(static_cast<double>(i + 1) / static_cast<double>(made.size()));
    }
    return made;
  }();
  return bounds;
}

void append_double_field(ByteBuffer& out, std::uint32_t field, double value) {
  append_fixed64_field(out, field, std::bit_cast<std::uint64_t>(value));
}

char* write_fixed64_field(char* to, std::uint32_t field, std::uint64_t value) noexcept {
  *to++ = fixed64_tag(field);
  return write_fixed64(to, value);
}

constexpr std::size_t times_bytes = 2 * 9;
char* write_times(char* to, const MetricPoint& point, std::int64_t end_ms) noexcept {
  constexpr std::int64_t ns_per_ms = 1'000'000;
  const std::int64_t start = std::max(point.time_ms, std::int64_t{0});
  to = write_fixed64_field(to, start_time_unix_nano, static_cast<std::uint64_t>(start * ns_per_ms));
  // A wall clock that was set back does not end an interval before it began.
  return write_fixed64_field(to, time_unix_nano,
                             static_cast<std::uint64_t>(std::max(end_ms, start) * ns_per_ms));
}

// Tag and length of a field below 16.
constexpr std::size_t field_bytes(std::size_t bytes) noexcept {
  return 1 + varint_bytes(bytes) + bytes;
}

// KeyValue{key = 1, value = 2: AnyValue{string_value = 1}}. The lengths are known beforehand, so that
// nothing is moved to make room for them. Needs dimensions_bytes_max().
char* write_dimensions(char* to, std::uint32_t field, const Dimensions& dimensions) noexcept {
  for (const Dimension& dimension : dimensions) {
    const std::size_t name = utf8_bytes(dimension.name);
    const std::size_t text = utf8_bytes(dimension.value);
    const std::size_t value = field_bytes(text);
    *to++ = length_tag(field);
    to = write_varint(to, field_bytes(name) + field_bytes(value));
    *to++ = length_tag(1);
    to = write_utf8(write_varint(to, name), dimension.name, name);
    *to++ = length_tag(2);
    to = write_varint(to, value);
    *to++ = length_tag(1);
    to = write_utf8(write_varint(to, text), dimension.value, text);
  }
  return to;
}
std::size_t dimensions_bytes_max(const Dimensions& dimensions) noexcept {
  std::size_t bytes = 0;
  for (const Dimension& dimension : dimensions) {
    bytes += 4 * (1 + varint_bytes_max) + 3 * (dimension.name.size() + dimension.value.size());
  }
  return bytes;
}

void append_exemplar(const Exemplar& exemplar, ByteBuffer& out) {
  std::array<char, 16> id{};
  const std::size_t message = begin_nested(out, histogram_exemplars);
  append_fixed64_field(out, exemplar_time_unix_nano,
                       static_cast<std::uint64_t>(std::max(exemplar.time_ns, std::int64_t{0})));
  append_double_field(out, exemplar_as_double, exemplar.value);
  if (exemplar.span_id != 0) {
    write_fixed64_big_endian(id.data(), exemplar.span_id);
    append_bytes_field(out, exemplar_span_id, {id.data(), 8});
  }
  write_fixed64_big_endian(write_fixed64_big_endian(id.data(), exemplar.trace_id.high),
                           exemplar.trace_id.low);
  append_bytes_field(out, exemplar_trace_id, {id.data(), 16});
  end_nested(out, message);
}

void append_number_point(const MetricPoint& point, double value, std::int64_t end_ms,
                         ByteBuffer& out) {
  const std::size_t data_point = begin_nested(out, data_points);
  const Dimensions& dimensions = point.series->key.dimensions;
  char* to = out.reserve(times_bytes + 9 + dimensions_bytes_max(dimensions));
  to = write_times(to, point, end_ms);
  to = write_fixed64_field(to, number_as_double, std::bit_cast<std::uint64_t>(value));
  out.advance_to(write_dimensions(to, number_attributes, dimensions));
  end_nested(out, data_point);
}

}  // namespace

std::int32_t otlp_bucket_of(double value) noexcept {
  int exponent = 0;
  const double mantissa = std::frexp(value, &exponent) * 2;  // [1, 2)
  const auto octave = (exponent - 1) * static_cast<std::int32_t>(sub_buckets);
  if (mantissa == 1) return octave - 1;  // A bucket holds its upper bound.
  // x <= log2(1 + x) < x + 1/11: the bucket lies at or a little above the linear one.
  const auto& bounds = upper_bounds();
  const auto linear = static_cast<std::size_t>((mantissa - 1) * static_cast<double>(sub_buckets));
  const std::size_t last = std::min(linear + sub_buckets / 8, sub_buckets - 1);
  const auto at = std::lower_bound(bounds.begin() + static_cast<std::ptrdiff_t>(linear),
                                   bounds.begin() + static_cast<std::ptrdiff_t>(last), mantissa);
  return octave + static_cast<std::int32_t>(at - bounds.begin());
}

void OtlpMetricEncoder::append_buckets(std::uint32_t field, int scale, std::vector<Bucket>& buckets,
                                       ByteBuffer& out) const {
  if (buckets.empty()) return;
  const int shift = otlp_scale_max - scale;
  const std::size_t message = begin_nested(out, field);
  std::int32_t next = buckets.front().index >> shift;
  append_varint_field(out, buckets_offset, zigzag(next));
  const std::size_t counts = begin_nested(out, buckets_counts);
  for (std::size_t i = 0; i < buckets.size();) {
    const std::int32_t index = buckets[i].index >> shift;
    std::uint64_t count = 0;
    for (; i < buckets.size() && buckets[i].index >> shift == index; ++i) count += buckets[i].count;
    const auto empty = static_cast<std::size_t>(index - next);
    char* const to = out.reserve(empty + varint_bytes_max);
    std::memset(to, 0, empty);  // A count of 0 is a byte of 0.
    out.advance_to(write_varint(to + empty, count));
    next = index + 1;
  }
  end_nested(out, counts);
  end_nested(out, message);
}

void OtlpMetricEncoder::append_histogram_point(const MetricPoint& point, std::int64_t end_ms,
                                               ByteBuffer& out) {
  positive_.clear();
  negative_.clear();
  std::uint64_t zeros = 0;
  for (const ValueCount& one : point.values) {
    const auto count = static_cast<std::uint64_t>(one.count);
    if (one.value > 0) {
      positive_.push_back({otlp_bucket_of(one.value), count});
    } else if (one.value < 0) {
      negative_.push_back({otlp_bucket_of(-one.value), count});
    } else {
      zeros += count;
    }
  }
  // By rising magnitude, as the positive ones are.
  std::reverse(negative_.begin(), negative_.end());
  int scale = otlp_scale_max;
  const auto range = [&](const std::vector<Bucket>& buckets) {
    const int shift = otlp_scale_max - scale;
    return buckets.empty()
               ? 0
               : std::int64_t{buckets.back().index >> shift} - (buckets.front().index >> shift) + 1;
  };
  while (range(positive_) + range(negative_) > otlp_buckets_max) --scale;

  const std::size_t data_point = begin_nested(out, data_points);
  out.advance_to(write_times(out.reserve(times_bytes), point, end_ms));
  append_fixed64_field(out, histogram_count, point.count);
  append_double_field(out, histogram_sum, point.sum);
  append_varint_field(out, histogram_scale, zigzag(scale));
  append_fixed64_field(out, histogram_zero_count, zeros);
  append_buckets(histogram_positive, scale, positive_, out);
  append_buckets(histogram_negative, scale, negative_, out);
  for (const Exemplar& exemplar : point.exemplars) append_exemplar(exemplar, out);
  append_double_field(out, histogram_minimum, point.minimum);
  append_double_field(out, histogram_maximum, point.maximum);
  const Dimensions& dimensions = point.series->key.dimensions;
  out.advance_to(write_dimensions(out.reserve(dimensions_bytes_max(dimensions)),
                                  histogram_attributes, dimensions));
  end_nested(out, data_point);
}

void OtlpMetricEncoder::encode(const MetricPoint& point, std::int64_t end_ms, Payload& payload) {
  ByteBuffer& out = payload.bytes;
  const std::size_t offset = out.size();
  const SeriesKey& key = point.series->key;
  const std::size_t metric = begin_nested(out, otlp_item_field);
  append_string_field(out, metric_name, key.name);
  if (const std::string_view unit = ucum_unit(key.unit); !unit.empty()) {
    append_string_field(out, metric_unit, unit);
  }
  switch (key.kind) {
    case MetricKind::counter: {
      const std::size_t sum = begin_nested(out, metric_sum);
      append_number_point(point, point.sum, end_ms, out);
      constexpr char delta_and_monotonic[] = {varint_tag(aggregation_temporality), char{delta},
                                              varint_tag(is_monotonic), 1};
      out.append({delta_and_monotonic, sizeof delta_and_monotonic});
      end_nested(out, sum);
      break;
    }
    case MetricKind::gauge: {
      const std::size_t gauge = begin_nested(out, metric_gauge);
      append_number_point(point, point.last, end_ms, out);
      end_nested(out, gauge);
      break;
    }
    case MetricKind::histogram: {
      const std::size_t histogram = begin_nested(out, metric_exponential_histogram);
      append_histogram_point(point, end_ms, out);
      append_varint_field(out, aggregation_temporality, delta);
      end_nested(out, histogram);
      break;
    }
  }
  end_nested(out, metric);
  payload.end_item(offset, point.records_of_piece(point.count, true), end_ms);
}

std::string_view ucum_unit(Unit unit) noexcept {
  // https://ucum.org/ucum; in the order of Unit. CloudWatch's kilo is 1000.
  constexpr std::array<std::string_view, unit_count> names{
      "s",     "us",    "ms",    "By",     "kBy",    "MBy",    "GBy",    "TBy",   "bit",
      "kbit",  "Mbit",  "Gbit",  "Tbit",   "%",      "1",      "By/s",   "kBy/s", "MBy/s",
      "GBy/s", "TBy/s", "bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s", "1/s",   ""};
  return names[static_cast<std::size_t>(unit)];
}

}  // namespace spillway::detail
