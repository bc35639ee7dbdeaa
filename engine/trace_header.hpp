// SPDX-License-Identifier: Apache-2.0
//
// The X-Ray trace header, X-Amzn-Trace-Id: Root=<trace id>;Parent=<16 hex>;Sampled=1. Fields in any
// order, spaces around them allowed, unknown fields passed over (X-Ray developer guide, "Tracing
// header"; header.go of the Go SDK).
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include <spillway/engine/context.hpp>

namespace spillway {

inline constexpr std::string_view trace_header_name = "X-Amzn-Trace-Id";

/// Reads a header. Nothing when it has no legal Root: a zero id, upper-case or missing digits are
/// not legal. An illegal Parent or Sampled is as if it were not there.
std::optional<TraceParent> parse_trace_header(std::string_view header);

/// "1-6b00e354-0f1e2d3c4b5a69788796a5b4".
std::string to_string(const TraceId& id);
std::optional<TraceId> parse_trace_id(std::string_view text);

/// The header for a request that the calling thread makes now: its trace, its innermost span as the
/// parent, and whether it is sampled. Empty when the thread is in no trace.
std::string current_trace_header();

}  // namespace spillway
