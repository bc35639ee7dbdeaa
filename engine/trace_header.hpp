// SPDX-License-Identifier: Apache-2.0
//
// A trace across services: the headers that say which trace a request belongs to, read from a caller
// and written for a callee. Two forms, of which a service may get and give both:
//
//   X-Amzn-Trace-Id: Root=1-6b00e354-0f1e2d3c4b5a69788796a5b4;Parent=1a2b3c4d5e6f7081;Sampled=1
//   traceparent: 00-6b00e3540f1e2d3c4b5a69788796a5b4-1a2b3c4d5e6f7081-01   (and tracestate)
//
// The ids are the same numbers in both. Sources: X-Ray developer guide, "Tracing header"; header.go of
// the X-Ray Go SDK; W3C Trace Context level 1, https://www.w3.org/TR/trace-context-1/.
//
// Any thread; nothing here keeps a reference to what it is given.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include <spillway/engine/context.hpp>

namespace spillway {

inline constexpr std::string_view trace_header_name = "X-Amzn-Trace-Id";
inline constexpr std::string_view traceparent_name = "traceparent";
inline constexpr std::string_view tracestate_name = "tracestate";

// ---- In ----

/// The headers of a request as they came; empty where there is none. Several `tracestate` headers are
/// one, joined by commas.
struct IncomingTrace {
  std::string_view xray{};  ///< X-Amzn-Trace-Id
  std::string_view traceparent{};
  std::string_view tracestate{};

  bool empty() const noexcept { return xray.empty() && traceparent.empty(); }
};

/// Where the request comes from; nothing when no header says it legally. With both headers, of
/// different traces, X-Amzn-Trace-Id counts when a tracer wrote it (it has a Parent or a decision):
/// load balancers add one with a Root of their own to any request. Of the same trace, what each
/// carries beside the ids is kept.
std::optional<TraceParent> parse_trace_headers(const IncomingTrace& headers);

/// Reads X-Amzn-Trace-Id: fields in any order, blanks around them. Nothing when it has no legal Root
/// (a zero id, upper-case or missing digits are not legal), is longer than 4096 characters, or has
/// characters that a header may not have. An illegal Parent or Sampled is as if it were not there.
/// Other fields are carried, Lineage among them, but not Self, which is a load balancer's own.
std::optional<TraceParent> parse_trace_header(std::string_view header);

/// Reads traceparent, and tracestate when that is legal. Nothing when traceparent is not.
std::optional<TraceParent> parse_traceparent(std::string_view traceparent,
                                             std::string_view tracestate = {});

/// The trace that Lambda began for the invocation that runs now: _X_AMZN_TRACE_ID. Spans join it
/// without being told; this is for a Context of one's own. Nothing outside of Lambda.
std::optional<TraceParent> lambda_trace();

// ---- Out ----

/// The headers for a request that the calling thread makes now: its trace, its innermost span as the
/// parent, whether it is sampled, and what its caller gave it to carry. Empty when the thread is in no
/// trace; tracestate is also empty when there is nothing to carry. Never a line break in them.
struct OutgoingTrace {
  std::string xray;
  std::string traceparent;
  std::string tracestate;
};
OutgoingTrace current_trace_headers();

/// X-Amzn-Trace-Id of the same.
std::string current_trace_header();

// ---- Ids ----

/// "1-6b00e354-0f1e2d3c4b5a69788796a5b4".
std::string to_string(const TraceId& id);
std::optional<TraceId> parse_trace_id(std::string_view text);
/// "6b00e3540f1e2d3c4b5a69788796a5b4", as W3C and OpenTelemetry write it.
std::string to_hex(const TraceId& id);
std::optional<TraceId> parse_trace_id_hex(std::string_view text);

}  // namespace spillway
