// SPDX-License-Identifier: Apache-2.0
//
// What the receiver enforces, and where each limit is written down. "Model" is the service's
// service-2.json in botocore 1.44.5, read 2026-11; "guide" is the service's user or developer
// guide. Where AWS documents a rule but not what breaking it looks like, the comment says so.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace spillway::local::limits {

using std::chrono::days;
using std::chrono::hours;

// ---- CloudWatch PutMetricData: model cloudwatch/2010-08-01, operation PutMetricData ----

/// "Each PutMetricData request is limited to 1 MB in size for HTTP POST requests", as sent: a body
/// may be gzipped, and then what counts is the compressed one.
inline constexpr std::size_t metric_body_bytes_max = 1U << 20;
/// Over MetricData and EntityMetricData together.
inline constexpr std::size_t metric_datums_max = 1000;
inline constexpr std::size_t metric_entities_max = 2;
inline constexpr std::size_t namespace_chars_max = 255;
inline constexpr std::size_t metric_name_chars_max = 255;
inline constexpr std::size_t dimensions_max = 30;
inline constexpr std::size_t dimension_name_chars_max = 255;
inline constexpr std::size_t dimension_value_chars_max = 1024;
inline constexpr std::size_t metric_values_max = 150;
/// 2^360. The smallest magnitude is from the older API reference (8.515920e-109 to 1.174271e+108,
/// base 10); today's says only "too small".
inline constexpr double metric_value_max = 0x1p360;
inline constexpr double metric_value_magnitude_min = 8.515920e-109;
inline constexpr auto metric_age_max = days(14);
inline constexpr auto metric_ahead_max = hours(2);
inline constexpr std::array<std::string_view, 27> metric_units{"Seconds",
                                                               "Microseconds",
                                                               "Milliseconds",
                                                               "Bytes",
                                                               "Kilobytes",
                                                               "Megabytes",
                                                               "Gigabytes",
                                                               "Terabytes",
                                                               "Bits",
                                                               "Kilobits",
                                                               "Megabits",
                                                               "Gigabits",
                                                               "Terabits",
                                                               "Percent",
                                                               "Count",
                                                               "Bytes/Second",
                                                               "Kilobytes/Second",
                                                               "Megabytes/Second",
                                                               "Gigabytes/Second",
                                                               "Terabytes/Second",
                                                               "Bits/Second",
                                                               "Kilobits/Second",
                                                               "Megabits/Second",
                                                               "Gigabits/Second",
                                                               "Terabits/Second",
                                                               "Count/Second",
                                                               "None"};

// ---- Entities: shape Entity of both models ----

inline constexpr std::size_t entity_keys_min = 2;
inline constexpr std::size_t entity_keys_max = 4;
inline constexpr std::size_t entity_key_chars_max = 32;
inline constexpr std::size_t entity_attributes_max = 10;
inline constexpr std::size_t entity_attribute_key_chars_max = 256;
inline constexpr std::size_t metric_entity_value_chars_max = 2048;
inline constexpr std::size_t log_entity_value_chars_max = 512;

// ---- CloudWatch Logs: model logs/2014-03-28 ----

/// "The maximum batch size is 1,048,576 bytes. This size is calculated as the sum of all event
/// messages in UTF-8, plus 26 bytes for each log event."
inline constexpr std::size_t log_batch_bytes_max = 1'048'576;
inline constexpr std::size_t log_event_overhead_bytes = 26;
inline constexpr std::size_t log_events_max = 10'000;
inline constexpr auto log_age_max = days(14);
inline constexpr auto log_ahead_max = hours(2);
inline constexpr auto log_batch_span_max = hours(24);
inline constexpr std::size_t log_name_chars_max = 512;
inline constexpr std::array<std::int64_t, 22> retention_days{
    1,   3,   5,   7,   14,   30,   60,   90,   120,  150,  180,
    365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653};
/// Room for a full batch whose every byte is escaped as \u00XX (six for one) and for the keys of
/// 10 000 events. The service documents no limit of its own for the body.
inline constexpr std::size_t log_body_bytes_max = 8U << 20;

// ---- X-Ray: model xray/2016-04-12, and the developer guide's page "Segment documents" ----

/// "64 kB" in the guide. The service does not say with which code it refuses more.
inline constexpr std::size_t trace_document_bytes_max = 64U << 10;
/// The daemon's batch size, "limit imposed by the API" in the OpenTelemetry exporter; not in the
/// model, which leaves open what happens to the fifty-first.
inline constexpr std::size_t trace_documents_max = 50;
inline constexpr std::size_t segment_name_chars_max = 200;
/// 50 documents of 64 KB, escaped once more, with room to spare.
inline constexpr std::size_t trace_body_bytes_max = 8U << 20;

// ---- OTLP: CloudWatch user guide, "OTLP endpoints"; of metrics only the labels are published ----

/// "1 MB", uncompressed; taken as 1 MiB, at which AWS's own exporter splits.
inline constexpr std::size_t otlp_logs_bytes_max = 1U << 20;
/// "5 MB", uncompressed.
inline constexpr std::size_t otlp_traces_bytes_max = 5'000'000;
inline constexpr std::size_t otlp_spans_max = 10'000;
inline constexpr std::size_t otlp_span_bytes_max = 200'000;
/// "16 KB" of resource and scope together, or the whole call is refused.
inline constexpr std::size_t otlp_resource_bytes_max = 16U << 10;
inline constexpr std::size_t otlp_labels_max = 150;

// ---- Signature Version 4 ----

/// "Signature expired: ... (... - 15 min.)", the text of every service's refusal.
inline constexpr auto clock_skew_max = std::chrono::minutes(15);

// ---- Our own bounds ----

/// A compressed body may not become larger than this.
inline constexpr std::size_t inflated_bytes_max = 16U << 20;
inline constexpr std::size_t control_body_bytes_max = 64U << 10;
inline constexpr std::size_t url_bytes_max = 8U << 10;
inline constexpr std::uint32_t header_bytes_max = 64U << 10;
inline constexpr auto idle_connection_max = std::chrono::seconds(60);
inline constexpr auto request_time_max = std::chrono::seconds(30);
inline constexpr std::size_t faults_max = 1000;

}  // namespace spillway::local::limits
