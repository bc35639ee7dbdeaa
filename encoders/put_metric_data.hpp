// SPDX-License-Identifier: Apache-2.0
//
// CloudWatch PutMetricData in AWS JSON 1.0 and in Smithy RPC v2 CBOR (CloudWatch API reference; botocore
// model cloudwatch/2010-08-01, read 2026-08-07).
#pragma once

#include <string>
#include <string_view>

#include <spillway/buffers/batch.hpp>
#include <spillway/buffers/payload.hpp>

namespace spillway::detail {

enum class DatumFormat : std::uint8_t { json, cbor };

/// What the telemetry is of, so that CloudWatch shows it with the service. Empty: nothing is said.
struct MetricEntity {
  Dimensions key_attributes;
  Dimensions attributes;
  bool empty() const noexcept { return key_attributes.empty(); }
};

/// Appends a point to the payload as one item a datum. Counters are a Value, gauges a StatisticSet,
/// histograms Values and Counts with the exact StatisticValues beside them, in as many datums as
/// 150 values each need.
///
/// output    the payload's buffer grows; throws std::bad_alloc.
void encode_metric_datums(const MetricPoint& point, DatumFormat format, Payload& payload);

/// Bytes of the largest datum that encode_metric_datums can make of a point.
std::size_t metric_datum_bytes_max(const MetricPoint& point) noexcept;

/// Appends the request body that carries the payload's items, which are of that format. With an entity
/// CloudWatch is told to keep the metrics also when it does not take the entity.
void append_put_metric_data(const Payload& payload, DatumFormat format,
                            std::string_view metric_namespace, const MetricEntity& entity,
                            ByteBuffer& out);

}  // namespace spillway::detail
