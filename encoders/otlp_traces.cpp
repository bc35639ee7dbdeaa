// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <bit>
#include <string>

#include <spillway/buffers/names.hpp>
#include <spillway/encoders/otlp.hpp>
#include <spillway/encoders/otlp_traces.hpp>

namespace spillway::detail {

using namespace protobuf;

namespace {

// Fields of Span.
constexpr std::uint32_t span_trace_id = 1;
constexpr std::uint32_t span_span_id = 2;
constexpr std::uint32_t span_parent_id = 4;
constexpr std::uint32_t span_name = 5;
constexpr std::uint32_t span_kind = 6;
constexpr std::uint32_t span_start = 7;
constexpr std::uint32_t span_end = 8;
constexpr std::uint32_t span_attributes = 9;
constexpr std::uint32_t span_dropped_attributes = 10;
constexpr std::uint32_t span_links = 13;
constexpr std::uint32_t span_status = 15;
constexpr std::uint32_t span_trace_flags = 16;
// Of Link.
constexpr std::uint32_t link_trace_id = 1;
constexpr std::uint32_t link_span_id = 2;
constexpr int links_max = 128;  // OpenTelemetry SDK configuration: LinkCountLimit.
// Of Status.
constexpr std::uint32_t status_code = 3;
constexpr std::uint64_t status_error = 2;
// SpanKind.
constexpr char kind_internal = 1;
constexpr char kind_server = 2;
constexpr char kind_client = 3;
// SpanFlags: sampled, and whether the parent is in another process, which is known.
constexpr std::uint32_t flags_sampled = 1;
constexpr std::uint32_t flags_remote_known = 0x100;
constexpr std::uint32_t flags_remote = 0x200;

bool is_segment(const SpanView& span) noexcept { return span.body.span_id == span.body.segment_id; }

// The parts of X-Ray's blocks under the names of the semantic conventions.
struct BlockName {
  EntryClass entry_class;
  std::string_view ours;
  std::string_view theirs;
};
constexpr std::array<BlockName, 19> block_names{
    {{EntryClass::http_request, "method", "http.request.method"},
     {EntryClass::http_request, "url", "url.full"},
     {EntryClass::http_request, "user_agent", "user_agent.original"},
     {EntryClass::http_request, "client_ip", "client.address"},
     {EntryClass::http_request, "x_forwarded_for", "http.request.x_forwarded_for"},
     {EntryClass::http_response, "content_length", "http.response.body.size"},
     {EntryClass::aws, "operation", "rpc.method"},
     {EntryClass::aws, "region", "cloud.region"},
     {EntryClass::aws, "account_id", "cloud.account.id"},
     {EntryClass::aws, "request_id", "aws.request_id"},
     {EntryClass::aws, "queue_url", "aws.sqs.queue.url"},
     {EntryClass::aws, "table_name", "aws.dynamodb.table_names"},
     {EntryClass::aws, "retries", "rpc.retry_count"},
     {EntryClass::sql, "url", "db.url"},
     {EntryClass::sql, "sanitized_query", "db.query.text"},
     {EntryClass::sql, "database_type", "db.system.name"},
     {EntryClass::sql, "user", "db.user"},
     {EntryClass::exception, "type", "exception.type"},
     {EntryClass::exception, "message", "exception.message"}}};

// What has a place of its own in a span, or none: only the last exception's type and message are
// attributes.
bool is_attribute(const EntryHeader& header) noexcept {
  switch (header.entry_class()) {
    case EntryClass::metadata_namespace:
    case EntryClass::cause:
    case EntryClass::frame:
    case EntryClass::link:
    case EntryClass::link_attribute:
    case EntryClass::precursor:
      return false;
    case EntryClass::exception: {
      const std::string_view name = name_of(header.name());
      return name == "type" || name == "message";
    }
    default:
      return true;
  }
}

std::string_view attribute_name(const EntryHeader& header) noexcept {
  const std::string_view name = name_of(header.name());
  for (const BlockName& one : block_names) {
    if (one.entry_class == header.entry_class() && one.ours == name) return one.theirs;
  }
  return name;
}

void append_links(const SpanView& span, ByteBuffer& out) {
  int links = 0;
  for (ValueReader reader(span.entries); !reader.empty() && links < links_max;) {
    const EntryHeader header = reader.entry();
    if (header.type() != ValueType::string) {
      reader.number();
      continue;
    }
    const std::string_view text = reader.string();
    LinkBody link{};
    if (header.entry_class() != EntryClass::link || text.size() != sizeof link) continue;
    std::memcpy(&link, text.data(), sizeof link);
    const std::size_t message = begin_nested(out, span_links);
    char* to = out.reserve(32);
    *to++ = length_tag(link_trace_id);
    *to++ = 16;
    to = write_fixed64_big_endian(to, link.trace_id.high);
    to = write_fixed64_big_endian(to, link.trace_id.low);
    // A link without a span is none in OpenTelemetry; its id is zero then.
    *to++ = length_tag(link_span_id);
    *to++ = 8;
    to = write_fixed64_big_endian(to, link.span_id);
    out.advance_to(to);
    end_nested(out, message);
    ++links;
  }
}

bool has_failed(const SpanView& span) noexcept {
  if ((span.body.flags & span_fault) != 0) return true;
  if ((span.body.flags & (span_error | span_throttle)) == 0) return false;
  // A server that answers 4xx has not failed; a client that is answered so has.
  return !(is_segment(span) && span.body.http_status >= 400 && span.body.http_status < 500);
}

}  // namespace

// Appends the attributes of one span, within its room.
class OtlpSpanEncoder::Attributes {
 public:
  Attributes(std::size_t bytes_left, ByteBuffer& out) : bytes_left_(bytes_left), out_(out) {}

  template <class T>
  void add(const Key& key, const T& value) {
    const std::size_t before = out_.size();
    append_attribute(out_, span_attributes, key.key.bytes(), value);
    const std::size_t bytes = out_.size() - before;
    if (bytes <= bytes_left_) {
      bytes_left_ -= bytes;
    } else {
      out_.truncate(before);
      ++dropped_;
    }
  }
  void add(const Entry& entry) {
    switch (entry.type) {
      case ValueType::integer:
        return add(*entry.key, static_cast<std::int64_t>(entry.bits));
      case ValueType::unsigned_integer:
        return add(*entry.key, entry.bits);
      case ValueType::real:
        return add(*entry.key, std::bit_cast<double>(entry.bits));
      case ValueType::boolean:
        return add(*entry.key, entry.bits != 0);
      case ValueType::none:
      case ValueType::string:
        return add(*entry.key, entry.text);
    }
  }
  void count_dropped() noexcept { ++dropped_; }
  std::uint64_t dropped() const noexcept { return dropped_; }

 private:
  std::size_t bytes_left_;
  std::uint64_t dropped_ = 0;
  ByteBuffer& out_;
};

OtlpSpanEncoder::OtlpSpanEncoder(std::size_t span_bytes_max)
    : span_bytes_max_(span_bytes_max),
      status_code_(key_named("http.response.status_code")),
      error_type_(key_named("error.type")),
      rpc_system_(key_named("rpc.system")),
      tenant_(key_named("tenant")),
      user_(key_named("enduser.id")),
      request_id_(key_named("request_id")) {}

OtlpSpanEncoder::Key& OtlpSpanEncoder::key_named(std::string_view name) {
  std::unique_ptr<Key>& key = keys_[std::string(name)];
  if (key == nullptr) key = std::make_unique<Key>(name);
  return *key;
}

OtlpSpanEncoder::Key& OtlpSpanEncoder::key_of(EntryHeader header) {
  std::vector<Key*>& keys = keys_of_class_[static_cast<std::size_t>(header.entry_class())];
  const std::uint32_t name = header.name();
  if (name >= keys.size()) keys.resize(name + 1);
  if (keys[name] == nullptr) keys[name] = &key_named(attribute_name(header));
  return *keys[name];
}

void OtlpSpanEncoder::read_entries(std::span<const std::byte> bytes) {
  ++span_number_;
  entries_.clear();
  for (ValueReader reader(bytes); !reader.empty();) {
    const EntryHeader header = reader.entry();
    Entry entry{nullptr, header.type(), 0, {}};
    if (entry.type == ValueType::string) {
      entry.text = reader.string();
    } else {
      entry.bits = reader.number();
    }
    if (!is_attribute(header)) continue;
    entry.key = &key_of(header);
    entry.key->span = span_number_;
    entry.key->last_entry = entries_.size();
    entries_.push_back(entry);
  }
}

void OtlpSpanEncoder::append_attributes(const SpanView& span, const ContextTexts& context,
                                        std::size_t bytes_max, ByteBuffer& out) {
  read_entries(span.entries);
  Attributes attributes(bytes_max, out);
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    if (entries_[i].key->last_entry == i) attributes.add(entries_[i]);
  }
  // What the user has said already stands.
  const auto is_free = [this](const Key& key) { return key.span != span_number_; };
  const auto add_text = [&](const Key& key, std::string_view text) {
    if (!text.empty() && is_free(key)) attributes.add(key, text);
  };
  if (span.body.http_status != 0 && is_free(status_code_)) {
    attributes.add(status_code_, std::int64_t{span.body.http_status});
  }
  // X-Ray's three kinds of failure are one in OpenTelemetry, unless a status or this tells more.
  if (span.body.http_status == 0) {
    add_text(error_type_, (span.body.flags & span_fault) != 0      ? "fault"
                          : (span.body.flags & span_throttle) != 0 ? "throttle"
                          : (span.body.flags & span_error) != 0    ? "error"
                                                                   : "");
  }
  // By this X-Ray knows a call to AWS.
  if ((span.body.flags & span_aws) != 0) add_text(rpc_system_, "aws-api");
  add_text(tenant_, context.tenant);
  add_text(user_, context.user);
  add_text(request_id_, context.request_id);
  if ((span.body.flags & span_cut) != 0) attributes.count_dropped();
  if (attributes.dropped() != 0) {
    append_varint_field(out, span_dropped_attributes, attributes.dropped());
  }
}

void OtlpSpanEncoder::append_span(const SpanView& span, const ContextTexts& context,
                                  ByteBuffer& out) {
  const std::size_t start = out.size();
  const std::size_t message = begin_nested(out, otlp_item_field);
  const bool segment = is_segment(span);
  char* to = out.reserve(128);
  *to++ = length_tag(span_trace_id);
  *to++ = 16;
  to = write_fixed64_big_endian(to, span.body.trace_id.high);
  to = write_fixed64_big_endian(to, span.body.trace_id.low);
  *to++ = length_tag(span_span_id);
  *to++ = 8;
  to = write_fixed64_big_endian(to, span.body.span_id);
  if (span.body.parent_id != 0) {
    *to++ = length_tag(span_parent_id);
    *to++ = 8;
    to = write_fixed64_big_endian(to, span.body.parent_id);
  }
  const bool calls = (span.body.flags & (span_remote | span_aws)) != 0;
  *to++ = varint_tag(span_kind);
  *to++ = segment ? kind_server : calls ? kind_client : kind_internal;
  const std::int64_t start_ns = std::max(span.start_ns, std::int64_t{0});
  *to++ = fixed64_tag(span_start);
  to = write_fixed64(to, static_cast<std::uint64_t>(start_ns));
  *to++ = fixed64_tag(span_end);
  to = write_fixed64(to, static_cast<std::uint64_t>(std::max(span.end_ns, start_ns)));
  std::uint32_t flags = flags_sampled | flags_remote_known;
  if (segment && span.body.parent_id != 0) flags |= flags_remote;
  to = write_varint(to, span_trace_flags << 3 | static_cast<std::uint32_t>(WireType::fixed32));
  std::memcpy(to, &flags, sizeof flags);
  to += sizeof flags;
  if (has_failed(span)) {
    *to++ = length_tag(span_status);
    *to++ = 2;
    *to++ = varint_tag(status_code);
    *to++ = status_error;
  }
  out.advance_to(to);
  append_string_field(out, span_name, span.name);
  append_links(span, out);
  // What the length of the message and dropped_attributes_count may come to beside them.
  constexpr std::size_t reserved_bytes = 2 * (1 + varint_bytes_max);
  const std::size_t used = out.size() - start + reserved_bytes;
  append_attributes(span, context, span_bytes_max_ - std::min(used, span_bytes_max_), out);
  end_nested(out, message);
}

void OtlpSpanEncoder::encode(std::span<const SpanView> spans, const ContextTexts& context,
                             Payload& payload) {
  for (const SpanView& span : spans) {
    const std::size_t offset = payload.bytes.size();
    append_span(span, context, payload.bytes);
    payload.end_item(offset, 1, span.end_ns / 1'000'000, span.body.span_id);
  }
}

}  // namespace spillway::detail
