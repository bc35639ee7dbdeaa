// SPDX-License-Identifier: Apache-2.0
//
// The limits of the wire, each with its source. AWS moves them (datums per PutMetricData went from
// 20 to 1000, log events from 256 KB to 1 MB): look there before changing one.
//
//   PMD   PutMetricData, CloudWatch API reference and botocore model cloudwatch/2010-08-01,
//         read 2026-08-07
//   EMF   CloudWatch user guide, "Specification: Embedded metric format", read 2026-08
//   PLE   PutLogEvents, CloudWatch Logs API reference and botocore model logs/2014-03-28,
//         read 2026-08-07
//   XSD   X-Ray developer guide, "X-Ray segment documents"
//   XPT   PutTraceSegments; the daemon's and the OpenTelemetry exporter's batch size
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <spillway/buffers/series.hpp>

namespace spillway::limits {

// PMD
inline constexpr std::size_t namespace_chars_max = 255;
inline constexpr std::size_t metric_name_chars_max = 255;
inline constexpr std::size_t dimensions_max = 30;
inline constexpr std::size_t dimension_value_chars_max = 1024;
inline constexpr std::size_t datums_per_request_max = 1000;
inline constexpr std::size_t values_per_datum_max = 150;
/// 1 MB, taken as 10^6 so that either reading of it holds.
inline constexpr std::size_t put_metric_data_bytes_max = 1'000'000;
inline constexpr std::int64_t metric_past_seconds_max = 14 * 24 * 3600;
inline constexpr std::int64_t metric_future_seconds_max = 2 * 3600;
inline constexpr std::size_t entity_attributes_max = 10;
inline constexpr std::size_t entity_attribute_name_chars_max = 256;
inline constexpr std::size_t entity_value_chars_max = 2048;
/// SDKs compress from here on (request_min_compression_size_bytes).
inline constexpr std::size_t gzip_bytes_min = 10'240;

// EMF
inline constexpr std::size_t emf_metrics_per_document_max = 100;
inline constexpr std::size_t emf_values_per_metric_max = 100;
inline constexpr std::size_t emf_dimension_name_chars_max = 250;
/// 1 MB, taken as 10^6 so that either reading of it holds.
inline constexpr std::size_t emf_document_bytes_max = 1'000'000;
/// Over UDP to the agent, which wants a line break behind it: a UDP/IPv4 payload has 65 507 bytes.
inline constexpr std::size_t emf_datagram_bytes_max = 65'507 - 1;
/// Ours: a histogram of more measurements than fill 100 documents is written as values and counts in
/// any case. As arrays, a million measurements a second were 10 MB a second of one metric.
inline constexpr std::size_t emf_array_measurements_max = 100 * emf_values_per_metric_max;

// PLE
inline constexpr std::size_t log_batch_bytes_max = 1'048'576;
inline constexpr std::size_t log_event_overhead_bytes = 26;
inline constexpr std::size_t log_events_per_batch_max = 10'000;
inline constexpr std::size_t log_event_bytes_max = log_batch_bytes_max - log_event_overhead_bytes;
inline constexpr std::int64_t log_batch_span_ms_max = 24 * 3600 * 1000LL;
inline constexpr std::int64_t log_past_ms_max = 14 * 24 * 3600 * 1000LL;
inline constexpr std::int64_t log_future_ms_max = 2 * 3600 * 1000LL;

// XSD
inline constexpr std::size_t segment_document_bytes_max = 64'000;
/// Ours: subsegments may nest without a limit in the specification, but readers of JSON have one.
inline constexpr std::size_t segment_levels_max = 100;
inline constexpr std::size_t segment_name_chars_max = 200;
inline constexpr std::size_t segment_string_chars_max = 250;
inline constexpr std::size_t annotation_string_chars_max = 1000;
// XPT
inline constexpr std::size_t segments_per_request_max = 50;
/// Not documented; the same caution as for the other requests.
inline constexpr std::size_t put_trace_segments_bytes_max = 1'000'000;
/// A UDP/IPv4 payload of 65 507 bytes holds the daemon's header line and the document.
inline constexpr std::string_view xray_daemon_header = "{\"format\":\"json\",\"version\":1}\n";
inline constexpr std::size_t xray_datagram_bytes_max = 65'507;

// OTLP: CloudWatch user guide, "OTLP endpoints", read 2026-08. Of metrics nothing is published but
// 150 labels a point. A collector takes 20 MiB (confighttp, max_request_body_size).
/// Of logs, uncompressed: 1 MB, taken as 10^6. Traces may have 5 MB.
inline constexpr std::size_t otlp_request_bytes_max = 1'000'000;
inline constexpr std::size_t otlp_spans_per_request_max = 10'000;
inline constexpr std::size_t otlp_span_bytes_max = 200'000;
inline constexpr std::int64_t otlp_span_of_times_ms_max = 24 * 3600 * 1000LL;
/// Resource and scope may have 16 KB, or the call is refused; what is ours takes less than 4 KB.
inline constexpr std::size_t otlp_resource_attribute_bytes_max = 12'000;
/// Ours: as many as the other requests of the same signal.
inline constexpr std::size_t otlp_points_per_request_max = 1000;
inline constexpr std::size_t otlp_logs_per_request_max = 10'000;
/// Ours: OTLP wants Retry-After to be kept ("OTLP/HTTP Throttling"); it is up to so long.
inline constexpr std::chrono::milliseconds otlp_retry_after_max = std::chrono::minutes(5);

/// What is wrong with a namespace, metric name or dimensions; nothing when CloudWatch takes them.
std::optional<std::string> namespace_error(std::string_view name);
std::optional<std::string> metric_name_error(std::string_view name);
std::optional<std::string> dimensions_error(const Dimensions& dimensions);
/// The same for the attributes of an entity.
std::optional<std::string> entity_attributes_error(const Dimensions& attributes);
std::optional<std::string> dimension_value_error(std::string_view name, std::string_view value);

}  // namespace spillway::limits
