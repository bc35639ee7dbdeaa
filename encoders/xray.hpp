// SPDX-License-Identifier: Apache-2.0
//
// X-Ray segment documents (X-Ray developer guide, "X-Ray segment documents"; read as of May 2023)
// and the body of PutTraceSegments.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <spillway/buffers/batch.hpp>
#include <spillway/buffers/byte_buffer.hpp>
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

/// Outcome of XrayEncoder::encode: spans that are in no document, because one alone was larger than a
/// document may be.
struct TraceEncoded {
  std::uint64_t spans_too_large = 0;
};

/// Keeps the keys that it has met as JSON, as many as there are names in the program, and memory for
/// the tree of a segment. One thread.
class XrayEncoder {
 public:
  explicit XrayEncoder(XrayOptions options);

  /// Appends the documents for finished spans of one segment: the segment with everything below it
  /// as one item, and what does not fit into its document as independent subsegments, each with what
  /// is below it. A segment has the service's name, by which X-Ray draws its map; its span's own name
  /// is the annotation `operation`.
  ///
  /// spans     any order; at most one has span_id == segment_id. A span whose parent is not among
  ///           them becomes an independent subsegment.
  /// context   whose user, tenant and request id the segment carries.
  TraceEncoded encode(std::span<const SpanView> spans, const ContextTexts& context,
                      Payload& payload);

  /// The key of an entry. `span` is the number of the last span that has it.
  struct Key {
    std::string name;
    std::string member;  ///< ,"name":
    std::uint64_t span = 0;
  };
  struct Entry {
    EntryClass entry_class;
    ValueType type;
    std::string_view scope;  ///< of metadata: its namespace
    Key* key;
    std::uint64_t bits;
    std::string_view text;
  };

 private:
  /// How much of a span is written: first all of it; when that is more than a document holds, less.
  enum class Detail : std::uint8_t { full, without_metadata, bare };

  /// A span in the tree: its own text, and the size of all that is below it.
  struct Node {
    std::size_t text_offset = 0;
    std::size_t text_bytes = 0;
    std::size_t parent = none;
    std::size_t bytes = 0;  ///< with everything below
    std::size_t levels = 1;
    std::size_t first_child = 0;  ///< in children_
    std::size_t child_count = 0;
    bool too_large = false;
    bool measured = false;
  };
  static constexpr std::size_t none = ~std::size_t{0};

  Key& key_named(EntryClass entry_class, std::string_view name);
  Key& key_of(EntryHeader header);
  void read_entries(std::span<const std::byte> bytes);
  bool is_annotated(const Key& key) const noexcept { return key.span == span_number_; }

  void append_span(const SpanView& span, bool is_segment, Detail level, ByteBuffer& out);
  void append_segment_members(std::string_view user, ByteBuffer& out);
  void append_annotations(const SpanView& span, bool is_segment, ByteBuffer& out);

  bool is_root(std::size_t i) const noexcept;
  bool is_segment(std::size_t i) const noexcept;
  std::size_t room() const noexcept;
  std::span<std::size_t> children_of(const Node& node) noexcept {
    return {children_.data() + node.first_child, node.child_count};
  }
  std::string_view text_of(const Node& node) const noexcept {
    return texts_.view(node.text_offset, node.text_bytes);
  }
  void write_text(std::size_t i);
  void find_parents();
  void fit(std::size_t top);
  void split_off(std::size_t child);
  void sort_by_start(std::span<std::size_t> children) const;
  template <class WriteSpan>
  bool write_document(std::size_t root, const WriteSpan& write_span, Payload& payload);
  std::size_t top_of_all();
  bool write_at_once(Payload& payload);

  const XrayOptions options_;
  const std::string segment_name_;     // with quotes; empty: the span's own
  const std::string service_members_;  // ,"service":{...},"origin":"..."
  std::string aws_blocks_;             // ,"ecs":{...} and so on
  std::string aws_blocks_without_account_;

  std::array<std::unordered_map<std::string, std::unique_ptr<Key>>, 16> keys_;  // by class and name
  std::array<std::vector<Key*>, 16> keys_of_class_;  // by class and number of the name
  Key& operation_;
  Key& tenant_;
  Key& request_id_;

  // Of the segment in work.
  std::span<const SpanView> spans_;
  const ContextTexts* context_ = nullptr;
  ByteBuffer texts_;
  std::vector<Node> nodes_;
  std::vector<std::pair<std::uint64_t, std::size_t>> by_id_;
  std::vector<std::size_t> children_;  // of all nodes, those of one together
  std::vector<std::size_t> roots_;
  std::vector<std::size_t> order_;
  std::vector<std::pair<std::size_t, std::size_t>> open_;  // a node, and its next child
  // Of the span in work.
  std::vector<Entry> entries_;
  std::uint32_t classes_ = 0;  // that its entries have, a bit each
  std::uint64_t span_number_ = 0;
};

/// Appends the request body that carries the payload's documents.
void append_put_trace_segments(const Payload& payload, ByteBuffer& out);

/// A name as X-Ray takes it: characters outside its list removed, at most 200 characters; "unnamed"
/// when none is left.
std::string legal_segment_name(std::string_view name);

}  // namespace spillway::detail
