// SPDX-License-Identifier: Apache-2.0
//
// X-Ray segment documents (X-Ray developer guide, "X-Ray segment documents"; read as of May 2023)
// and the body of PutTraceSegments.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <spillway/buffers/batch.hpp>
#include <spillway/buffers/payload.hpp>

namespace spillway::detail {

/// What a segment runs on: its origin, and blocks of its `aws` member.
struct XrayResource {
  struct Block {
    std::string name;  ///< "ecs"
    std::string json;  ///< its value
  };
  std::string origin;  ///< empty: not known
  std::vector<Block> blocks;
};

struct XrayOptions {
  std::string service;          ///< name of every segment; empty: the span's own
  std::string service_version;  ///< empty: left out
  std::size_t document_bytes_max;
  XrayResource resource{};
};

/// Outcome of encode_trace: spans that are in no document, because one alone was larger than a
/// document may be.
struct TraceEncoded {
  std::uint64_t spans_too_large = 0;
};

/// Appends the documents for finished spans of one segment: the segment with everything below it as
/// one item, and what does not fit into its document as independent subsegments, each with what is
/// below it. A segment has the service's name, by which X-Ray draws its map; its span's own name is
/// the annotation `operation`.
///
/// spans     any order; at most one has span_id == segment_id. A span whose parent is not among
///           them becomes an independent subsegment.
/// context   whose user, tenant and request id the segment carries.
TraceEncoded encode_trace(std::span<const SpanView> spans, const ContextTexts& context,
                          const XrayOptions& options, Payload& payload);

/// Appends the request body that carries the payload's documents.
void append_put_trace_segments(const Payload& payload, ByteBuffer& out);

/// A name as X-Ray takes it: characters outside its list removed, at most 200 characters; "unnamed"
/// when none is left.
std::string legal_segment_name(std::string_view name);

}  // namespace spillway::detail
