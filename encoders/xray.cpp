// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <utility>

#include <spillway/encoders/json.hpp>
#include <spillway/encoders/limits.hpp>
#include <spillway/encoders/xray.hpp>

namespace spillway::detail {
namespace {

using Entry = XrayEncoder::Entry;
using Entries = std::vector<Entry>;

// As X-Ray takes it: others than letters, digits and '_' are '_'.
std::string legal_annotation_key(std::string_view key) {
  std::string legal(key.substr(0, limits::segment_string_chars_max));
  for (char& c : legal) {
    const bool good =
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
    if (!good) c = '_';
  }
  return legal;
}

// X-Ray keeps names of metadata that begin with "AWS." for itself.
std::string legal_metadata_key(std::string_view key) {
  return key.starts_with("AWS.") ? "AWS_" + std::string(key.substr(4)) : std::string(key);
}

std::string legal_key(EntryClass entry_class, std::string_view name) {
  if (entry_class == EntryClass::annotation) return legal_annotation_key(name);
  if (entry_class == EntryClass::metadata) return legal_metadata_key(name);
  return std::string(name);
}

constexpr std::string_view default_namespace = "default";
constexpr std::string_view own_namespace = "spillway";

void append_value(const Entry& entry, std::size_t text_bytes_max, ByteBuffer& out) {
  switch (entry.type) {
    case ValueType::integer:
      append_number(out, static_cast<std::int64_t>(entry.bits));
      break;
    case ValueType::unsigned_integer:
      append_number(out, entry.bits);
      break;
    case ValueType::real:
      append_number(out, std::bit_cast<double>(entry.bits));
      break;
    case ValueType::boolean:
      out.append(entry.bits != 0 ? "true" : "false");
      break;
    case ValueType::none:
    case ValueType::string:
      append_json_string(out, cut_utf8(entry.text, text_bytes_max));
      break;
  }
}

// ,"key": without the comma where it is the first of its object.
void append_key(const Entry& entry, bool is_first, ByteBuffer& out) {
  out.append(std::string_view(entry.key->member).substr(is_first ? 1 : 0));
}

// Members of one class between braces, separated; returns whether there were any.
bool append_members(const Entries& entries, EntryClass wanted, std::size_t text_bytes_max,
                    ByteBuffer& out, std::string_view scope = {}) {
  bool any = false;
  for (const Entry& entry : entries) {
    if (entry.entry_class != wanted || entry.scope != scope) continue;
    append_key(entry, !any, out);
    append_value(entry, text_bytes_max, out);
    any = true;
  }
  return any;
}

bool has(const Entries& entries, EntryClass wanted) {
  return std::any_of(entries.begin(), entries.end(),
                     [&](const Entry& entry) { return entry.entry_class == wanted; });
}

void append_http(const SpanView& span, const Entries& entries, ByteBuffer& out) {
  const bool request = has(entries, EntryClass::http_request);
  const bool response = span.body.http_status != 0 || has(entries, EntryClass::http_response);
  if (!request && !response) return;
  out.append(",\"http\":{");
  if (request) {
    out.append("\"request\":{");
    append_members(entries, EntryClass::http_request, limits::segment_string_chars_max, out);
    out.append(response ? "}," : "}");
  }
  if (response) {
    out.append("\"response\":{");
    const bool any =
        append_members(entries, EntryClass::http_response, limits::segment_string_chars_max, out);
    if (span.body.http_status != 0) {
      out.append(any ? ",\"status\":" : "\"status\":");
      append_number(out, std::uint64_t{span.body.http_status});
    }
    out.append('}');
  }
  out.append('}');
}

// "links" of a segment (the OpenTelemetry X-Ray exporter's span_links.go; not in the guide of 2023).
void append_links(const Entries& entries, ByteBuffer& out) {
  bool any = false;
  bool open = false;  // A link, with or without attributes.
  bool attributes = false;
  const auto close = [&] {
    if (open) out.append(attributes ? "}}" : "}");
    open = attributes = false;
  };
  for (const Entry& entry : entries) {
    if (entry.entry_class == EntryClass::link) {
      close();
      LinkBody link{};
      if (entry.text.size() != sizeof link) continue;
      std::memcpy(&link, entry.text.data(), sizeof link);
      out.append(any ? ",{\"trace_id\":\"" : ",\"links\":[{\"trace_id\":\"");
      append_xray_trace_id(out, link.trace_id);
      if (link.span_id != 0) {
        out.append("\",\"id\":\"");
        append_hex16(out, link.span_id);
      }
      out.append('"');
      any = open = true;
    } else if (entry.entry_class == EntryClass::link_attribute && open) {
      if (!attributes) out.append(",\"attributes\":{");
      append_key(entry, !attributes, out);
      append_value(entry, limits::segment_string_chars_max, out);
      attributes = true;
    }
  }
  close();
  if (any) out.append(']');
}

void append_precursors(const Entries& entries, ByteBuffer& out) {
  char separator = '[';
  for (const Entry& entry : entries) {
    if (entry.entry_class != EntryClass::precursor) continue;
    if (separator == '[') out.append(",\"precursor_ids\":");
    out.append(separator);
    out.append('"');
    append_hex16(out, entry.bits);
    out.append('"');
    separator = ',';
  }
  if (separator == ',') out.append(']');
}

// Members of one class, but for one called `without`; what may be there several times is a list.
bool append_members_and_lists(const Entries& entries, EntryClass wanted,
                              std::initializer_list<std::string_view> lists, ByteBuffer& out,
                              std::string_view without = {}) {
  bool any = false;
  const auto is_list = [&](std::string_view key) {
    return std::find(lists.begin(), lists.end(), key) != lists.end();
  };
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const Entry& entry = entries[i];
    if (entry.entry_class != wanted || entry.key->name == without || is_list(entry.key->name)) {
      continue;
    }
    const bool comes_again =
        std::any_of(entries.begin() + static_cast<std::ptrdiff_t>(i) + 1, entries.end(),
                    [&](const Entry& later) { return later.key == entry.key; });
    if (comes_again) continue;
    append_key(entry, !any, out);
    append_value(entry, limits::segment_string_chars_max, out);
    any = true;
  }
  for (const std::string_view list : lists) {
    char separator = '[';
    for (const Entry& entry : entries) {
      if (entry.entry_class != wanted || entry.key->name != list) continue;
      if (separator == '[') append_key(entry, !any, out);
      out.append(separator);
      append_value(entry, limits::segment_string_chars_max, out);
      separator = ',';
      any = true;
    }
    if (separator == ',') out.append(']');
  }
  return any;
}

// The exceptions of a cause with their stacks. What belongs to none, because the entry that begins one
// is missing, is left out.
void append_exceptions(const Entries& entries, ByteBuffer& out) {
  bool any = false;
  bool in_exception = false;
  bool in_stack = false;
  bool in_frame = false;
  const auto close_stack = [&] {
    if (in_stack) out.append("}]");
    in_stack = in_frame = false;
  };
  for (const Entry& entry : entries) {
    if (entry.entry_class == EntryClass::exception && entry.key->name == "id") {
      close_stack();
      out.append(any ? "},{\"id\":\"" : "\"exceptions\":[{\"id\":\"");
      append_hex16(out, entry.bits);
      out.append('"');
      any = in_exception = true;
    } else if (entry.entry_class == EntryClass::exception && in_exception) {
      if (in_stack || entry.key->name == "time") continue;  // There is no place for it.
      append_key(entry, false, out);
      if (entry.key->name == "cause") {
        out.append('"');
        append_hex16(out, entry.bits);
        out.append('"');
      } else {
        append_value(entry, limits::segment_string_chars_max, out);
      }
    } else if (entry.entry_class == EntryClass::frame && in_exception) {
      const bool begins = entry.key->name == "path";
      if (!begins && !in_frame) continue;
      if (begins) out.append(in_stack ? "},{" : ",\"stack\":[{");
      append_key(entry, begins, out);
      append_value(entry, limits::segment_string_chars_max, out);
      in_stack = in_frame = true;
    }
  }
  close_stack();
  if (any) out.append("}]");
}

void append_cause(const Entries& entries, ByteBuffer& out) {
  const bool exceptions = std::any_of(entries.begin(), entries.end(), [](const Entry& entry) {
    return entry.entry_class == EntryClass::exception && entry.key->name == "id";
  });
  const Entry* of_another = nullptr;
  bool described = false;
  for (const Entry& entry : entries) {
    if (entry.entry_class != EntryClass::cause) continue;
    if (entry.key->name == "id") {
      of_another = &entry;
    } else {
      described = true;
    }
  }
  if (exceptions || described) {
    out.append(",\"cause\":{");
    // The id stands alone or not at all.
    const bool any = append_members_and_lists(entries, EntryClass::cause, {"paths"}, out, "id");
    if (any && exceptions) out.append(',');
    append_exceptions(entries, out);
    out.append('}');
  } else if (of_another != nullptr) {
    out.append(",\"cause\":\"");
    append_hex16(out, of_another->bits);
    out.append('"');
  }
}

void append_sql(const Entries& entries, ByteBuffer& out) {
  if (!has(entries, EntryClass::sql)) return;
  out.append(",\"sql\":{");
  append_members(entries, EntryClass::sql, limits::segment_string_chars_max, out);
  out.append('}');
}

// By namespace, in the order in which they came.
void append_metadata(const Entries& entries, bool all, bool cut, ByteBuffer& out) {
  char separator = '{';
  bool is_own_cut = false;
  const auto append_scope = [&](std::string_view scope) {
    if (separator == '{') out.append(",\"metadata\":");
    out.append(separator);
    separator = ',';
    append_json_string(out, scope);
    out.append(":{");
    const bool any =
        all && append_members(entries, EntryClass::metadata, ~std::size_t{0}, out, scope);
    if (cut && scope == own_namespace) {
      out.append(any ? ",\"cut\":true" : "\"cut\":true");
      is_own_cut = true;
    }
    out.append('}');
  };
  for (std::size_t i = 0; all && i < entries.size(); ++i) {
    if (entries[i].entry_class != EntryClass::metadata) continue;
    const bool is_begun = std::any_of(
        entries.begin(), entries.begin() + static_cast<std::ptrdiff_t>(i),
        [&](const Entry& earlier) {
          return earlier.entry_class == EntryClass::metadata && earlier.scope == entries[i].scope;
        });
    if (!is_begun) append_scope(entries[i].scope);
  }
  if (cut && !is_own_cut) append_scope(own_namespace);
  if (separator == ',') out.append('}');
}

// Plain in a name of X-Ray's and in a JSON string.
constexpr auto is_plain_in_name = [] {
  std::array<bool, 256> table{};
  for (const char c : std::string_view(" _.:/%&#=+-@0123456789abcdefghijklmnopqrstuvwxyz"
                                       "ABCDEFGHIJKLMNOPQRSTUVWXYZ")) {
    table[static_cast<unsigned char>(c)] = true;
  }
  return table;
}();

constexpr std::size_t name_bytes_max = 4 * limits::segment_name_chars_max;

// legal_segment_name() with its quotes; most names are legal as they stand.
char* write_name(char* to, std::string_view name) {
  const bool is_plain = !name.empty() && name.size() <= limits::segment_name_chars_max &&
                        std::all_of(name.begin(), name.end(), [](char c) {
                          return is_plain_in_name[static_cast<unsigned char>(c)];
                        });
  if (!is_plain) return write_json_string(to, legal_segment_name(name));
  *to++ = '"';
  to = write_bytes(to, name);
  *to++ = '"';
  return to;
}

// Room for all that append_span() writes first: the name, the id, times and flags.
constexpr std::size_t span_head_bytes_max = 6 * name_bytes_max + 512;

char* write_flags(char* to, std::uint16_t flags, bool is_segment) noexcept {
  if ((flags & span_error) != 0) to = write_bytes(to, ",\"error\":true");
  if ((flags & span_throttle) != 0) to = write_bytes(to, ",\"throttle\":true");
  if ((flags & span_fault) != 0) to = write_bytes(to, ",\"fault\":true");
  if (!is_segment && (flags & span_aws) != 0) {
    to = write_bytes(to, ",\"namespace\":\"aws\"");
  } else if (!is_segment && (flags & span_remote) != 0) {
    to = write_bytes(to, ",\"namespace\":\"remote\"");
  }
  return to;
}

// Letters, digits, blanks and some punctuation. Beyond ASCII, where the table of all letters would
// be long: what is not in a block of controls, symbols, private use or emoji.
bool is_legal_in_name(std::uint32_t code) noexcept {
  if (code < 0x80) {
    constexpr std::string_view punctuation = " _.:/%&#=+\\-@";
    const char c = static_cast<char>(code);
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           punctuation.find(c) != std::string_view::npos;
  }
  return code >= 0xC0 && (code < 0x2000 || code > 0x2BFF) && (code < 0xE000 || code > 0xF8FF) &&
         (code < 0xFE00 || code > 0xFE0F) && (code < 0xFFF0 || code > 0xFFFF) &&
         (code < 0x1F000 || code > 0x1FAFF) && code < 0xE0000;
}

}  // namespace

std::string legal_segment_name(std::string_view name) {
  std::string legal;
  std::size_t chars = 0;
  while (!name.empty() && chars < limits::segment_name_chars_max) {
    const Utf8Character character = decode_utf8(name);
    const std::size_t bytes = std::max(character.bytes, std::size_t{1});
    if (character.bytes != 0 && is_legal_in_name(character.code)) {
      legal.append(name.substr(0, bytes));
      ++chars;
    }
    name.remove_prefix(bytes);
  }
  return legal.empty() ? "unnamed" : legal;
}

namespace {

// What makes a document of a span: a segment's, or an independent subsegment's, members.
char* write_document_members(char* to, const SpanView& span, bool is_segment) noexcept {
  to = write_bytes(to, ",\"trace_id\":\"");
  to = write_xray_trace_id(to, span.body.trace_id);
  *to++ = '"';
  if (span.body.parent_id != 0) {
    to = write_bytes(to, ",\"parent_id\":\"");
    to = write_hex16(to, span.body.parent_id);
    *to++ = '"';
  }
  return is_segment ? to : write_bytes(to, ",\"type\":\"subsegment\"");
}
constexpr std::size_t document_members_bytes_max = 128;
constexpr std::size_t nesting_bytes = sizeof(",\"subsegments\":[]}") + 1;

std::string json_text(std::string_view text) {
  ByteBuffer out;
  append_json_string(out, text);
  return std::string(out.view());
}

std::string service_members_of(const XrayOptions& options) {
  std::string members = ",\"service\":{";
  if (!options.service_version.empty()) {
    const std::string_view version(options.service_version);
    members +=
        "\"version\":" + json_text(cut_utf8(version, limits::segment_string_chars_max)) + ",";
  }
  members += "\"runtime\":\"C++\"}";
  if (!options.resource.origin.empty()) {
    members += ",\"origin\":" + json_text(options.resource.origin);
  }
  return members;
}

}  // namespace

XrayEncoder::XrayEncoder(XrayOptions options)
    : options_(std::move(options)),
      segment_name_(options_.service.empty() ? ""
                                             : json_text(legal_segment_name(options_.service))),
      service_members_(service_members_of(options_)),
      operation_(key_named(EntryClass::annotation, "operation")),
      tenant_(key_named(EntryClass::annotation, "tenant")),
      request_id_(key_named(EntryClass::annotation, "request_id")) {
  for (const XrayResource::Block& block : options_.resource.blocks) {
    const std::string member = ",\"" + block.name + "\":" + block.json;
    aws_blocks_ += member;
    if (block.name != "account_id") aws_blocks_without_account_ += member;
  }
}

// ---- The entries of a span ----

XrayEncoder::Key& XrayEncoder::key_named(EntryClass entry_class, std::string_view name) {
  std::string legal = legal_key(entry_class, name);
  std::unique_ptr<Key>& key = keys_[static_cast<std::size_t>(entry_class)][legal];
  if (key == nullptr) {
    std::string member = "," + json_text(legal) + ":";
    key = std::make_unique<Key>(Key{std::move(legal), std::move(member)});
  }
  return *key;
}

XrayEncoder::Key& XrayEncoder::key_of(EntryHeader header) {
  std::vector<Key*>& keys = keys_of_class_[static_cast<std::size_t>(header.entry_class())];
  std::uint32_t number = header.name();
  if (number >= keys.size()) {
    // A number that is none, out of a damaged record, must not decide how large the table is.
    const std::string_view name = name_of(number);
    if (name.data() == name_of(0).data()) number = 0;
    if (number >= keys.size()) keys.resize(number + 1);
  }
  if (keys[number] == nullptr) keys[number] = &key_named(header.entry_class(), name_of(number));
  return *keys[number];
}

// Of several with one key the last one stands, where each says one thing.
void XrayEncoder::read_entries(std::span<const std::byte> bytes) {
  std::string_view scope = default_namespace;
  for (ValueReader reader(bytes); !reader.empty();) {
    const EntryHeader header = reader.entry();
    Entry entry{header.entry_class(), header.type(), {}, nullptr, 0, {}};
    if (entry.type == ValueType::string) {
      entry.text = reader.string();
    } else {
      entry.bits = reader.number();
    }
    if (entry.type > ValueType::string) continue;  // There is no JSON for it.
    if (entry.entry_class == EntryClass::metadata_namespace) {
      const std::string_view name = name_of(header.name());
      scope = name.starts_with("AWS.") ? default_namespace : name;
      continue;
    }
    entry.key = &key_of(header);
    if (entry.entry_class == EntryClass::metadata) entry.scope = scope;
    scope = default_namespace;
    const bool says_one_thing =
        entry.entry_class <= EntryClass::http_response || entry.entry_class == EntryClass::sql;
    if (says_one_thing && entry.key->span == span_number_) {
      std::erase_if(entries_, [&](const Entry& other) {
        return other.key == entry.key && other.scope == entry.scope;
      });
    }
    entry.key->span = span_number_;
    classes_ |= 1U << static_cast<unsigned>(entry.entry_class);
    entries_.push_back(entry);
  }
}

// ---- A span ----

void XrayEncoder::append_segment_members(std::string_view user, ByteBuffer& out) {
  out.append(service_members_);
  if (!user.empty()) {
    out.append(",\"user\":");
    append_json_string(out, cut_utf8(user, limits::segment_string_chars_max));
  }
  out.append(",\"aws\":{\"xray\":{\"sdk\":\"spillway for C++\",\"sdk_version\":\"0.1.0\"");
  const auto rule = std::find_if(entries_.begin(), entries_.end(), [](const Entry& entry) {
    return entry.entry_class == EntryClass::sampling_rule;
  });
  if (rule != entries_.end()) {
    out.append(",\"sampling_rule_name\":");
    append_json_string(out, rule->text);
  }
  out.append('}');
  bool has_own_account = false;
  if (has(entries_, EntryClass::aws)) {
    out.append(',');
    append_members_and_lists(entries_, EntryClass::aws, {"table_names", "resource_names"}, out);
    has_own_account = std::any_of(entries_.begin(), entries_.end(), [](const Entry& entry) {
      return entry.entry_class == EntryClass::aws && entry.key->name == "account_id";
    });
  }
  // What the span says itself stands.
  out.append(has_own_account ? aws_blocks_without_account_ : aws_blocks_);
  out.append('}');
}

// With what the segment says of the request it served, unless the user annotated it already. X-Ray's
// service map goes by the segment's name, so what the service did is an annotation.
void XrayEncoder::append_annotations(const SpanView& span, bool is_segment, ByteBuffer& out) {
  bool any = false;
  const auto begin_member = [&](std::string_view member) {
    if (!any) out.append(",\"annotations\":{");
    out.append(member.substr(any ? 0 : 1));
    any = true;
  };
  if ((classes_ & 1U << static_cast<unsigned>(EntryClass::annotation)) != 0) {
    for (const Entry& entry : entries_) {
      if (entry.entry_class != EntryClass::annotation) continue;
      begin_member(entry.key->member);
      append_value(entry, limits::annotation_string_chars_max, out);
    }
  }
  const auto append_own = [&](const Key& key, std::string_view value) {
    if (value.empty() || is_annotated(key)) return;
    begin_member(key.member);
    append_json_string(out, cut_utf8(value, limits::annotation_string_chars_max));
  };
  if (is_segment) {
    if (!segment_name_.empty() && span.name != options_.service) append_own(operation_, span.name);
    append_own(tenant_, context_->tenant);
    append_own(request_id_, context_->request_id);
  }
  if (any) out.append('}');
}

// Everything of a span's object but its subsegments and the closing brace.
void XrayEncoder::append_span(const SpanView& span, bool is_segment, Detail level,
                              ByteBuffer& out) {
  ++span_number_;
  classes_ = 0;
  entries_.clear();
  if (level != Detail::bare) read_entries(span.entries);

  char* to = out.reserve(span_head_bytes_max + segment_name_.size());
  to = write_bytes(to, "{\"name\":");
  to = is_segment && !segment_name_.empty() ? write_bytes(to, segment_name_)
                                            : write_name(to, span.name);
  to = write_bytes(to, ",\"id\":\"");
  to = write_hex16(to, span.body.span_id);
  to = write_bytes(to, "\",\"start_time\":");
  to = write_epoch_seconds(to, span.start_ns);
  if ((span.body.flags & span_in_progress) != 0) {
    to = write_bytes(to, ",\"in_progress\":true");
  } else {
    to = write_bytes(to, ",\"end_time\":");
    to = write_epoch_seconds(to, std::max(span.end_ns, span.start_ns));
  }
  out.advance_to(write_flags(to, span.body.flags, is_segment));

  // Most spans have annotations and nothing else.
  const bool has_more = (classes_ & ~(1U << static_cast<unsigned>(EntryClass::annotation))) != 0;
  if (has_more || span.body.http_status != 0) append_http(span, entries_, out);
  if (has_more) {
    append_sql(entries_, out);
    append_cause(entries_, out);
    append_precursors(entries_, out);
    if (is_segment) append_links(entries_, out);
  }
  if (is_segment) {
    append_segment_members(context_->user, out);
  } else if (has_more && has(entries_, EntryClass::aws)) {
    out.append(",\"aws\":{");
    append_members_and_lists(entries_, EntryClass::aws, {"table_names", "resource_names"}, out);
    out.append('}');
  }
  append_annotations(span, is_segment, out);
  const bool cut = level != Detail::full || (span.body.flags & span_cut) != 0;
  if (has_more || cut) append_metadata(entries_, level == Detail::full, cut, out);
}

// ---- The spans of one segment as a tree, each with its own text and the size of all below it ----

bool XrayEncoder::is_root(std::size_t i) const noexcept {
  return spans_[i].body.span_id == spans_[i].body.segment_id;
}
// In Lambda the service's root is a subsegment of the segment that Lambda writes.
bool XrayEncoder::is_segment(std::size_t i) const noexcept {
  return is_root(i) && (spans_[i].body.flags & span_joined) == 0;
}
std::size_t XrayEncoder::room() const noexcept {
  return options_.document_bytes_max - document_members_bytes_max - nesting_bytes;
}

void XrayEncoder::write_text(std::size_t i) {
  Node& node = nodes_[i];
  node.text_offset = texts_.size();
  for (const Detail level : {Detail::full, Detail::without_metadata, Detail::bare}) {
    texts_.truncate(node.text_offset);
    append_span(spans_[i], is_segment(i), level, texts_);
    node.text_bytes = texts_.size() - node.text_offset;
    if (node.text_bytes <= room()) return;
  }
  node.too_large = true;
}

// Of spans with the same id the first one is their children's parent.
void XrayEncoder::find_parents() {
  by_id_.clear();
  for (std::size_t i = 0; i < spans_.size(); ++i) by_id_.emplace_back(spans_[i].body.span_id, i);
  std::sort(by_id_.begin(), by_id_.end());
  for (std::size_t i = 0; i < spans_.size(); ++i) {
    const std::uint64_t parent_id = spans_[i].body.parent_id;
    const auto parent =
        std::lower_bound(by_id_.begin(), by_id_.end(), std::pair(parent_id, std::size_t{0}));
    if (is_root(i) || parent == by_id_.end() || parent->first != parent_id) continue;
    if (parent->second == i || nodes_[i].too_large || nodes_[parent->second].too_large) continue;
    nodes_[i].parent = parent->second;
    ++nodes_[parent->second].child_count;
  }
  std::size_t first = 0;
  for (Node& node : nodes_) {
    node.first_child = first;
    first += std::exchange(node.child_count, 0);
  }
  children_.resize(first);
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    if (nodes_[i].parent == none) continue;
    Node& parent = nodes_[nodes_[i].parent];
    children_[parent.first_child + parent.child_count++] = i;
  }
}

void XrayEncoder::sort_by_start(std::span<std::size_t> children) const {
  std::sort(children.begin(), children.end(),
            [&](std::size_t a, std::size_t b) { return spans_[a].start_ns < spans_[b].start_ns; });
}

void XrayEncoder::split_off(std::size_t child) {
  nodes_[child].parent = none;
  roots_.push_back(child);
}

// Measures the tree below `top`, children first, and takes the largest children out of whatever has
// grown too large for a document, and what is nested too deep; they become documents of their own.
// Without recursion: a trace may be a chain of any length.
void XrayEncoder::fit(std::size_t top) {
  order_.assign(1, top);
  for (std::size_t i = 0; i < order_.size(); ++i) {
    const auto children = children_of(nodes_[order_[i]]);
    order_.insert(order_.end(), children.begin(), children.end());
  }
  for (auto at = order_.rbegin(); at != order_.rend(); ++at) {
    Node& node = nodes_[*at];
    node.measured = true;
    const auto all = children_of(node);
    const auto kept = std::remove_if(all.begin(), all.end(), [&](std::size_t child) {
      const bool deep = nodes_[child].levels == limits::segment_levels_max;
      if (deep) split_off(child);
      return deep;
    });
    node.child_count = static_cast<std::size_t>(kept - all.begin());
    node.bytes = node.text_bytes + nesting_bytes;
    for (const std::size_t child : children_of(node)) node.bytes += nodes_[child].bytes + 1;
    if (node.bytes > room()) {
      const auto children = children_of(node);
      std::sort(children.begin(), children.end(),
                [&](std::size_t a, std::size_t b) { return nodes_[a].bytes < nodes_[b].bytes; });
    }
    while (node.child_count > 0 && node.bytes > room()) {
      const std::size_t largest = children_of(node).back();
      --node.child_count;
      node.bytes -= nodes_[largest].bytes + 1;
      split_off(largest);
    }
    const auto children = children_of(node);
    for (const std::size_t child : children) {
      node.levels = std::max(node.levels, nodes_[child].levels + 1);
    }
    sort_by_start(children);
  }
  roots_.push_back(top);
}

// Writes the document whose root that is; `write_span(i, out)` writes the members of a span's own, and
// says whether the document may go on. False: it is none, and nothing is there.
template <class WriteSpan>
bool XrayEncoder::write_document(std::size_t root, const WriteSpan& write_span, Payload& payload) {
  const SpanView& span = spans_[root];
  ByteBuffer& out = payload.bytes;
  const std::size_t offset = out.size();
  std::uint64_t spans = 1;
  bool fits = write_span(root, out);
  if (fits) {
    out.advance_to(
        write_document_members(out.reserve(document_members_bytes_max), span, is_segment(root)));
    open_.assign(1, {root, 0});
  }
  while (fits && !open_.empty()) {
    auto& [node, next_child] = open_.back();
    const auto children = children_of(nodes_[node]);
    if (next_child == children.size()) {
      out.append(children.empty() ? "}" : "]}");
      open_.pop_back();
      continue;
    }
    out.append(next_child == 0 ? ",\"subsegments\":[" : ",");
    const std::size_t child = children[next_child++];
    fits = write_span(child, out);
    ++spans;
    open_.emplace_back(child, 0);
  }
  if (!fits) {
    out.truncate(offset);
    return false;
  }
  if ((span.body.flags & span_in_progress) != 0) --spans;  // Counted when it ends.
  payload.end_item(offset, spans, span.end_ns / 1'000'000, span.body.span_id);
  return true;
}

// The one span without a parent, if all others are below it and none too deep; else none.
std::size_t XrayEncoder::top_of_all() {
  order_.clear();
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    if (nodes_[i].parent == none) order_.push_back(i);
  }
  if (order_.size() != 1) return none;
  std::size_t levels = 0;
  for (std::size_t first = 0; first != order_.size(); ++levels) {
    const std::size_t end = order_.size();
    for (; first != end; ++first) {
      const auto children = children_of(nodes_[order_[first]]);
      order_.insert(order_.end(), children.begin(), children.end());
    }
  }
  return order_.size() == nodes_.size() && levels <= limits::segment_levels_max ? order_.front()
                                                                                : none;
}

// As most segments go out: all of it is one document, which is written where it goes, without being
// measured before. False, and nothing is there, when it is not, or is too large; fit() then finds out
// what goes where, and comes to one document where this does.
bool XrayEncoder::write_at_once(Payload& payload) {
  find_parents();
  const std::size_t top = top_of_all();
  if (top == none) return false;
  for (const Node& node : nodes_) sort_by_start(children_of(node));
  std::size_t bytes = 0;
  const auto write_span = [&](std::size_t i, ByteBuffer& out) {
    const std::size_t before = out.size();
    append_span(spans_[i], is_segment(i), Detail::full, out);
    bytes += out.size() - before + nesting_bytes + (i == top ? 0 : 1);
    return bytes <= room();
  };
  return write_document(top, write_span, payload);
}

TraceEncoded XrayEncoder::encode(std::span<const SpanView> spans, const ContextTexts& context,
                                 Payload& payload) {
  spans_ = spans;
  context_ = &context;
  nodes_.assign(spans.size(), Node{});
  if (write_at_once(payload)) return {};
  texts_.clear();
  nodes_.assign(spans.size(), Node{});
  roots_.clear();
  TraceEncoded result;
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    write_text(i);
    if (nodes_[i].too_large) ++result.spans_too_large;
  }
  find_parents();
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    // What a tree before this one could not hold is measured, and a root, already.
    if (nodes_[i].parent == none && !nodes_[i].measured) fit(i);
  }
  // A cycle of parents (ids made by somebody else) is in no tree; each of its spans goes alone.
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    if (nodes_[i].measured) continue;
    nodes_[i].child_count = 0;
    nodes_[i].parent = none;
    roots_.push_back(i);
  }
  const auto write_span = [this](std::size_t i, ByteBuffer& out) {
    out.append(text_of(nodes_[i]));
    return true;
  };
  for (const std::size_t root : roots_) {
    if (!nodes_[root].too_large) write_document(root, write_span, payload);
  }
  return result;
}

void append_put_trace_segments(const Payload& payload, ByteBuffer& out) {
  out.append("{\"TraceSegmentDocuments\":[");
  std::string_view separator;
  for (const PayloadItem& item : payload.items) {
    out.append(separator);
    append_json_string(out, payload.item(item));
    separator = ",";
  }
  out.append("]}");
}

}  // namespace spillway::detail
