// SPDX-License-Identifier: Apache-2.0
//
// OTLP over HTTP with binary protobuf (opentelemetry.io, "OTLP Specification", "OTLP/HTTP", read
// 2026-08), for all three signals: plain or with a token to a collector, signed to AWS's endpoints.
#pragma once

#include <memory>

#include <spillway/engine/exporter.hpp>

namespace spillway::detail {

std::unique_ptr<Exporter> make_otlp_exporter(Signal signal, const Config& config,
                                             std::shared_ptr<ExporterShared> shared);

/// Whether spans go to X-Ray's own endpoint, or are signed as if they did.
bool otlp_spans_go_to_xray(const Config& config);

}  // namespace spillway::detail
