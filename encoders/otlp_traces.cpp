// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <bit>
#include <string>
#include <utility>

#include <spillway/buffers/names.hpp>
#include <spillway/encoders/json.hpp>
#include <spillway/encoders/otlp.hpp>
#include <spillway/encoders/otlp_traces.hpp>

namespace spillway::detail {

using namespace protobuf;

namespace {

// Fields of Span.
constexpr std::uint32_t span_trace_id = 1;
constexpr std::uint32_t span_span_id = 2;
constexpr std::uint32_t span_trace_state = 3;
constexpr std::uint32_t span_parent_id = 4;
constexpr std::uint32_t span_name = 5;
constexpr std::uint32_t span_kind = 6;
constexpr std::uint32_t span_start = 7;
constexpr std::uint32_t span_end = 8;
constexpr std::uint32_t span_attributes = 9;
constexpr std::uint32_t span_dropped_attributes = 10;
constexpr std::uint32_t span_events = 11;
constexpr std::uint32_t span_dropped_events = 12;
constexpr std::uint32_t span_links = 13;
constexpr std::uint32_t span_dropped_links = 14;
constexpr std::uint32_t span_status = 15;
constexpr std::uint32_t span_trace_flags = 16;
// Of Link.
constexpr std::uint32_t link_trace_id = 1;
constexpr std::uint32_t link_span_id = 2;
constexpr std::uint32_t link_attributes = 4;
constexpr std::uint32_t link_dropped_attributes = 5;
constexpr std::uint64_t links_max = 128;  // OpenTelemetry SDK configuration: LinkCountLimit.
// Of KeyValue, AnyValue and ArrayValue.
constexpr std::uint32_t key_value_value = 2;
constexpr std::uint32_t any_value_string = 1;
constexpr std::uint32_t any_value_array = 5;
constexpr std::uint32_t array_values = 1;
// Of Status.
constexpr std::uint32_t status_message = 2;
constexpr std::uint32_t status_code = 3;
constexpr std::uint64_t status_error = 2;
constexpr std::size_t status_message_bytes_max = 1024;  // Ours: it is for a line of a page.
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
  bool is_list = false;
};
// What the conventions have no word for has one of ours in their namespaces.
constexpr std::array<BlockName, 24> block_names{
    {{EntryClass::http_request, "method", "http.request.method"},
     {EntryClass::http_request, "url", "url.full"},
     {EntryClass::http_request, "user_agent", "user_agent.original"},
     {EntryClass::http_request, "client_ip", "client.address"},
     {EntryClass::http_request, "x_forwarded_for", "http.request.x_forwarded_for"},
     {EntryClass::http_request, "traced", "http.request.traced"},
     {EntryClass::http_response, "content_length", "http.response.body.size"},
     {EntryClass::aws, "operation", "rpc.method"},
     {EntryClass::aws, "region", "cloud.region"},
     {EntryClass::aws, "account_id", "cloud.account.id"},
     {EntryClass::aws, "request_id", "aws.request_id"},
     {EntryClass::aws, "queue_url", "aws.sqs.queue.url"},
     {EntryClass::aws, "table_name", "aws.dynamodb.table_names", true},
     {EntryClass::aws, "table_names", "aws.dynamodb.table_names", true},
     {EntryClass::aws, "resource_names", "aws.resource_names", true},
     {EntryClass::aws, "retries", "rpc.retry_count"},
     {EntryClass::sql, "url", "db.url"},
     {EntryClass::sql, "connection_string", "db.connection_string"},
     {EntryClass::sql, "database_version", "db.system.version"},
     {EntryClass::sql, "driver_version", "db.driver.version"},
     {EntryClass::sql, "preparation", "db.preparation"},
     {EntryClass::sql, "sanitized_query", "db.query.text"},
     {EntryClass::sql, "database_type", "db.system.name"},
     {EntryClass::sql, "user", "db.user"}}};

// What has a place of its own in a span, or none, is no attribute.
bool is_attribute(const EntryHeader& header) noexcept {
  switch (header.entry_class()) {
    case EntryClass::metadata_namespace:
    case EntryClass::cause:
    case EntryClass::frame:
    case EntryClass::link:
    case EntryClass::link_attribute:
    case EntryClass::precursor:
    case EntryClass::exception:
      return false;
    default:
      return true;
  }
}

// Null for what has its own name.
const BlockName* block_name(const EntryHeader& header) noexcept {
  const std::string_view name = name_of(header.name());
  const auto* const found =
      std::find_if(block_names.begin(), block_names.end(), [&](const BlockName& one) {
        return one.entry_class == header.entry_class() && one.ours == name;
      });
  return found == block_names.end() ? nullptr : found;
}

// Begins a link; returns what end_nested() wants.
std::size_t begin_link(const LinkBody& link, ByteBuffer& out) {
  const std::size_t message = begin_nested(out, span_links);
  char* to = out.reserve(32);
  *to++ = length_tag(link_trace_id);
  *to++ = 16;
  to = write_fixed64_big_endian(to, link.trace_id.high);
  to = write_fixed64_big_endian(to, link.trace_id.low);
  // A link without a span is none in OpenTelemetry; its id is zero then.
  *to++ = length_tag(link_span_id);
  *to++ = 8;
  out.advance_to(write_fixed64_big_endian(to, link.span_id));
  return message;
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
    keep_or_drop(before);
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
  /// An array of strings, each once.
  void add_list(const Key& key, std::span<const std::string_view> texts) {
    const std::size_t before = out_.size();
    const std::size_t attribute = begin_nested(out_, span_attributes);
    const std::string_view key_bytes = key.key.bytes();
    out_.append(
        key_bytes.substr(0, key_bytes.size() - 1));  // begin_nested() writes the value's tag.
    const std::size_t value = begin_nested(out_, key_value_value);
    const std::size_t array = begin_nested(out_, any_value_array);
    for (auto text = texts.begin(); text != texts.end(); ++text) {
      if (std::find(texts.begin(), text, *text) != text) continue;
      const std::size_t element = begin_nested(out_, array_values);
      append_string_field(out_, any_value_string, *text);
      end_nested(out_, element);
    }
    end_nested(out_, array);
    end_nested(out_, value);
    end_nested(out_, attribute);
    keep_or_drop(before);
  }
  void count_dropped() noexcept { ++dropped_; }
  std::uint64_t dropped() const noexcept { return dropped_; }

 private:
  void keep_or_drop(std::size_t before) {
    const std::size_t bytes = out_.size() - before;
    if (bytes <= bytes_left_) {
      bytes_left_ -= bytes;
    } else {
      out_.truncate(before);
      ++dropped_;
    }
  }

  std::size_t bytes_left_;
  std::uint64_t dropped_ = 0;
  ByteBuffer& out_;
};

OtlpSpanEncoder::OtlpSpanEncoder(std::size_t span_bytes_max, bool names_annotations)
    : span_bytes_max_(span_bytes_max),
      names_annotations_(names_annotations),
      annotations_(key_named("aws.xray.annotations")),
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

const OtlpSpanEncoder::KeyOfName& OtlpSpanEncoder::key_of(EntryHeader header) {
  std::vector<KeyOfName>& keys = keys_of_class_[static_cast<std::size_t>(header.entry_class())];
  std::uint32_t name = header.name();
  if (name >= keys.size()) {
    // A number that is none, out of a damaged record, must not decide how large the table is.
    if (name_of(name).data() == name_of(0).data()) name = 0;
    if (name >= keys.size()) keys.resize(name + 1);
  }
  if (keys[name].key == nullptr) {
    const BlockName* const known = block_name(header);
    keys[name] = {&key_named(known != nullptr ? known->theirs : name_of(name)),
                  known != nullptr && known->is_list};
  }
  return keys[name];
}

// Two namespaces may have the same key.
OtlpSpanEncoder::Key& OtlpSpanEncoder::key_in(std::uint32_t name_space, std::uint32_t name) {
  name_.assign(name_of(name_space));
  if (name_ == "default") return key_named(name_of(name));  // X-Ray's, of what has none.
  name_.append(".").append(name_of(name));
  const auto found = keys_.find(name_);
  return found != keys_.end() ? *found->second : key_named(name_);
}

void OtlpSpanEncoder::read_entries(std::span<const std::byte> bytes) {
  ++span_number_;
  entries_.clear();
  std::uint32_t name_space = 0;  // of the metadata that follows; 0: none
  for (ValueReader reader(bytes); !reader.empty();) {
    const EntryHeader header = reader.entry();
    Entry entry{nullptr, header.entry_class(), header.type(), false, 0, {}};
    if (entry.type == ValueType::string) {
      entry.text = reader.string();
    } else {
      entry.bits = reader.number();
    }
    const std::uint32_t of = std::exchange(
        name_space, entry.entry_class == EntryClass::metadata_namespace ? header.name() : 0);
    if (!is_attribute(header)) continue;
    if (of != 0 && entry.entry_class == EntryClass::metadata) {
      entry.key = &key_in(of, header.name());
    } else {
      const KeyOfName& known = key_of(header);
      entry.key = known.key;
      entry.in_list = known.is_list && entry.type == ValueType::string;
    }
    entry.key->span = span_number_;
    entry.key->last_entry = entries_.size();
    entries_.push_back(entry);
  }
}

void OtlpSpanEncoder::append_attributes(const SpanView& span, const ContextTexts& context,
                                        std::size_t bytes_max, ByteBuffer& out) {
  read_entries(span.entries);
  Attributes attributes(bytes_max, out);
  texts_.clear();
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    const Entry& entry = entries_[i];
    if (entry.key->last_entry != i) continue;
    if (entry.entry_class == EntryClass::annotation) texts_.push_back(entry.key->name);
    if (!entry.in_list) attributes.add(entry);
  }
  if (names_annotations_ && !texts_.empty() && annotations_.span != span_number_)
    attributes.add_list(annotations_, texts_);
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    if (!entries_[i].in_list || entries_[i].key->last_entry != i) continue;
    texts_.clear();
    for (const Entry& one : entries_) {
      if (one.in_list && one.key == entries_[i].key) texts_.push_back(one.text);
    }
    attributes.add_list(*entries_[i].key, texts_);
  }
  // What the user has said already stands.
  const auto is_free = [this](const Key& key) { return key.span != span_number_; };
  const auto add_text = [&](const Key& key, std::string_view text) {
    if (!text.empty() && is_free(key)) attributes.add(key, text);
  };
  if (span.body.http_status != 0 && is_free(status_code_)) {
    attributes.add(status_code_, std::int64_t{span.body.http_status});
  }
  // X-Ray's three kinds of failure are one in OpenTelemetry, unless an exception, a status or this
  // tells more.
  if (!exceptions_.type().empty()) {
    add_text(error_type_, exceptions_.type());
  } else if (span.body.http_status == 0) {
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

void OtlpSpanEncoder::append_links(const SpanView& span, std::size_t bytes_max, ByteBuffer& out) {
  const std::size_t start = out.size();
  std::uint64_t links = 0;
  std::uint64_t dropped_links = 0;
  std::size_t message = 0;
  bool in_link = false;
  std::uint64_t dropped = 0;  // attributes of the link in work
  link_keys_.clear();
  const auto end_link = [&] {
    if (!in_link) return;
    if (dropped != 0) append_varint_field(out, link_dropped_attributes, std::exchange(dropped, 0));
    end_nested(out, message);
    link_keys_.clear();
    in_link = false;
  };
  for (ValueReader reader(span.entries); !reader.empty();) {
    const EntryHeader header = reader.entry();
    if (header.type() != ValueType::string) {
      reader.number();
      continue;
    }
    const std::string_view text = reader.string();
    LinkBody link{};
    if (header.entry_class() == EntryClass::link && text.size() == sizeof link) {
      end_link();
      if (links == links_max || out.size() - start > bytes_max) {
        ++dropped_links;
        continue;
      }
      std::memcpy(&link, text.data(), sizeof link);
      message = begin_link(link, out);
      in_link = true;
      ++links;
    } else if (header.entry_class() == EntryClass::link_attribute && in_link) {
      const Key* const key = key_of(header).key;
      // A key stands once.
      if (std::find(link_keys_.begin(), link_keys_.end(), key) != link_keys_.end()) continue;
      const std::size_t before = out.size();
      append_attribute(out, link_attributes, key->key.bytes(), text);
      if (out.size() - start > bytes_max) {
        out.truncate(before);
        ++dropped;
      } else {
        link_keys_.push_back(key);
      }
    }
  }
  end_link();
  if (dropped_links != 0) append_varint_field(out, span_dropped_links, dropped_links);
}

void OtlpSpanEncoder::append_status(ByteBuffer& out) {
  const std::size_t status = begin_nested(out, span_status);
  append_varint_field(out, status_code, status_error);
  if (!exceptions_.empty()) {
    status_text_.assign(exceptions_.type());
    if (!exceptions_.type().empty() && !exceptions_.message().empty()) status_text_ += ": ";
    status_text_ += exceptions_.message();
    append_string_field(out, status_message, cut_utf8(status_text_, status_message_bytes_max));
  }
  end_nested(out, status);
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
  out.advance_to(to);
  append_string_field(out, span_name, span.name);
  if (!context.trace_state.empty()) {
    append_string_field(out, span_trace_state, context.trace_state);
  }
  exceptions_.clear();
  // A span with an exception is a fault (Span::record_exception).
  if ((span.body.flags & span_fault) != 0) exceptions_.read(span.entries);
  if (has_failed(span)) append_status(out);
  // What the length of the message and the counts of what is left out may come to.
  constexpr std::size_t reserved_bytes = 4 * (2 + varint_bytes_max);
  const auto room = [&] {
    const std::size_t used = out.size() - start + reserved_bytes;
    return span_bytes_max_ - std::min(used, span_bytes_max_);
  };
  append_links(span, room() / 2, out);
  const std::size_t dropped =
      exceptions_.append(span_events, {start_ns, std::max(span.end_ns, start_ns)}, room() / 2, out);
  if (dropped != 0) append_varint_field(out, span_dropped_events, dropped);
  append_attributes(span, context, room(), out);
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
