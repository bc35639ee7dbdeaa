// SPDX-License-Identifier: Apache-2.0
//
// Spans as OTLP Span messages (opentelemetry-proto trace/v1; OpenTelemetry semantic conventions,
// read 2026-08). A segment is a SERVER span, a call to another service a CLIENT one, the rest is
// INTERNAL. Annotations and metadata are attributes, metadata of a namespace with its name in front
// (`cache.hits`); the http, AWS and SQL blocks become the conventions' own.
// Exceptions are events of the time they were recorded at, and the last of them says what the status and
// error.type are.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <spillway/buffers/batch.hpp>
#include <spillway/buffers/payload.hpp>
#include <spillway/encoders/otlp.hpp>
#include <spillway/encoders/otlp_exceptions.hpp>

namespace spillway::detail {

/// Keeps the attribute keys that it has met: as many as there are names in the program. One thread.
class OtlpSpanEncoder {
 public:
  /// `span_bytes_max`: links, events and attributes that would make a span longer are left out and
  /// counted as dropped in it; links may have half of the room, and events half of what is left. At
  /// least 4096.
  /// `names_annotations`: the keys of annotations are listed in aws.xray.annotations, by which X-Ray
  /// knows which attributes to index.
  explicit OtlpSpanEncoder(std::size_t span_bytes_max, bool names_annotations = false);

  /// Appends each span as one item, in the order given. All carry the context's tenant, user, request
  /// id and tracestate.
  void encode(std::span<const SpanView> spans, const ContextTexts& context, Payload& payload);

 private:
  /// An attribute's key. `last_entry` is that of the span number `span` where it stands last: of
  /// several values for one key the last one counts.
  struct Key {
    explicit Key(std::string_view text) : name(text), key(text) {}
    std::string name;
    OtlpKey key;
    std::uint64_t span = 0;
    std::size_t last_entry = 0;
  };
  struct Entry {
    Key* key;
    EntryClass entry_class;
    ValueType type;
    bool in_list;  // one of the texts of an array
    std::uint64_t bits;
    std::string_view text;
  };
  struct KeyOfName {
    Key* key = nullptr;
    bool is_list = false;
  };
  class Attributes;

  Key& key_named(std::string_view name);
  const KeyOfName& key_of(EntryHeader header);
  Key& key_in(std::uint32_t name_space, std::uint32_t name);
  void read_entries(std::span<const std::byte> bytes);
  void append_links(const SpanView& span, std::size_t bytes_max, ByteBuffer& out);
  void append_status(ByteBuffer& out);
  void append_span(const SpanView& span, const ContextTexts& context, ByteBuffer& out);
  void append_attributes(const SpanView& span, const ContextTexts& context, std::size_t bytes_max,
                         ByteBuffer& out);

  const std::size_t span_bytes_max_;
  const bool names_annotations_;
  std::unordered_map<std::string, std::unique_ptr<Key>> keys_;  // by name
  std::array<std::vector<KeyOfName>, 16> keys_of_class_;        // by entry class and name id
  Key& annotations_;
  Key& status_code_;
  Key& error_type_;
  Key& rpc_system_;
  Key& tenant_;
  Key& user_;
  Key& request_id_;
  std::vector<Entry> entries_;         // of the span in work
  std::vector<const Key*> link_keys_;  // of the link in work
  std::string status_text_;
  std::string name_;                     // of the key in work
  std::vector<std::string_view> texts_;  // of the list in work
  OtlpExceptions exceptions_;
  std::uint64_t span_number_ = 0;
};

}  // namespace spillway::detail
