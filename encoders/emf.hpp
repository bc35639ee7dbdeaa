// SPDX-License-Identifier: Apache-2.0
//
// CloudWatch Embedded Metric Format: one JSON document a line, from which CloudWatch Logs extracts
// metrics (CloudWatch user guide, "Specification: Embedded metric format", read 2026-08).
#pragma once

#include <span>
#include <string_view>

#include <spillway/buffers/batch.hpp>
#include <spillway/buffers/payload.hpp>
#include <spillway/encoders/limits.hpp>

namespace spillway::detail {

struct EmfOptions {
  std::string_view metric_namespace;
  /// Histograms as {"Values","Counts","Max","Min","Count","Sum"} in place of arrays of at most 100
  /// numbers. Those of more than limits::emf_array_measurements_max are always.
  bool histogram_object = false;
  /// Where the CloudWatch agent puts the documents; empty: not its business.
  std::string_view log_group{};
  std::string_view log_stream{};
  /// No document is larger, as far as metrics can be spread over several.
  std::size_t document_bytes_max = limits::emf_document_bytes_max;
};

/// Appends the documents for points of one dimension set and one time, one item each: at most 100
/// metrics a document, 100 values a metric, and no metric name twice in a document. A counter is
/// its sum. A gauge that moved is the shortest array with its minimum, maximum and mean, which says
/// nothing of how often it was set; one whose mean needs more than 100 numbers is an object
/// {"Max","Min","Count","Sum"}.
void encode_emf(std::span<const MetricPoint> points, const EmfOptions& options, Payload& payload);

/// Bytes of the largest document that encode_emf can make of these points.
std::size_t emf_document_bytes_max(std::span<const MetricPoint> points) noexcept;

}  // namespace spillway::detail
