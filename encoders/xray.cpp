// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <iterator>
#include <unordered_map>
#include <vector>

#include <spillway/encoders/json.hpp>
#include <spillway/encoders/limits.hpp>
#include <spillway/encoders/xray.hpp>

namespace spillway::detail {
namespace {

struct Entry {
  EntryClass entry_class;
  ValueType type;
  std::string_view scope;  // of metadata: its namespace
  std::string key;
  std::uint64_t bits = 0;
  std::string_view text;
};

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

constexpr std::string_view default_namespace = "default";
constexpr std::string_view own_namespace = "spillway";

// The entries of a span; of several with one key the last one stands, where each says one thing.
std::vector<Entry> read_entries(std::span<const std::byte> bytes) {
  std::vector<Entry> entries;
  std::string_view scope = default_namespace;
  for (ValueReader reader(bytes); !reader.empty();) {
    const EntryHeader header = reader.entry();
    const std::string_view name = name_of(header.name());
    Entry entry{header.entry_class(), header.type(), {}, {}, 0, {}};
    if (entry.type == ValueType::string) {
      entry.text = reader.string();
    } else {
      entry.bits = reader.number();
    }
    if (entry.type > ValueType::string) continue;  // There is no JSON for it.
    if (entry.entry_class == EntryClass::metadata_namespace) {
      scope = name.starts_with("AWS.") ? default_namespace : name;
      continue;
    }
    if (entry.entry_class == EntryClass::annotation) {
      entry.key = legal_annotation_key(name);
    } else if (entry.entry_class == EntryClass::metadata) {
      entry.key = legal_metadata_key(name);
      entry.scope = scope;
    } else {
      entry.key = name;
    }
    scope = default_namespace;
    if (entry.entry_class <= EntryClass::http_response || entry.entry_class == EntryClass::sql) {
      std::erase_if(entries, [&](const Entry& other) {
        return other.entry_class == entry.entry_class && other.key == entry.key &&
               other.scope == entry.scope;
      });
    }
    entries.push_back(std::move(entry));
  }
  return entries;
}

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

// Members of one class between braces, separated; returns whether there were any.
bool append_members(const std::vector<Entry>& entries, EntryClass wanted,
                    std::size_t text_bytes_max, ByteBuffer& out, std::string_view scope = {}) {
  bool any = false;
  for (const Entry& entry : entries) {
    if (entry.entry_class != wanted || entry.scope != scope) continue;
    if (any) out.append(',');
    append_json_string(out, entry.key);
    out.append(':');
    append_value(entry, text_bytes_max, out);
    any = true;
  }
  return any;
}

bool has(const std::vector<Entry>& entries, EntryClass wanted) {
  return std::any_of(entries.begin(), entries.end(),
                     [&](const Entry& entry) { return entry.entry_class == wanted; });
}

void append_http(const SpanView& span, const std::vector<Entry>& entries, ByteBuffer& out) {
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
void append_links(const std::vector<Entry>& entries, ByteBuffer& out) {
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
      out.append(attributes ? "," : ",\"attributes\":{");
      append_json_string(out, entry.key);
      out.append(':');
      append_value(entry, limits::segment_string_chars_max, out);
      attributes = true;
    }
  }
  close();
  if (any) out.append(']');
}

void append_precursors(const std::vector<Entry>& entries, ByteBuffer& out) {
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

// Members of one class; what may be there several times is a list.
bool append_members_and_lists(const std::vector<Entry>& entries, EntryClass wanted,
                              std::initializer_list<std::string_view> lists, ByteBuffer& out) {
  bool any = false;
  const auto begin_member = [&](std::string_view key) {
    if (any) out.append(',');
    append_json_string(out, key);
    out.append(':');
    any = true;
  };
  const auto is_list = [&](std::string_view key) {
    return std::find(lists.begin(), lists.end(), key) != lists.end();
  };
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const Entry& entry = entries[i];
    if (entry.entry_class != wanted || is_list(entry.key)) continue;
    const bool comes_again = std::any_of(
        entries.begin() + static_cast<std::ptrdiff_t>(i) + 1, entries.end(),
        [&](const Entry& later) { return later.entry_class == wanted && later.key == entry.key; });
    if (comes_again) continue;
    begin_member(entry.key);
    append_value(entry, limits::segment_string_chars_max, out);
  }
  for (const std::string_view list : lists) {
    char separator = '[';
    for (const Entry& entry : entries) {
      if (entry.entry_class != wanted || entry.key != list) continue;
      if (separator == '[') begin_member(list);
      out.append(separator);
      append_value(entry, limits::segment_string_chars_max, out);
      separator = ',';
    }
    if (separator == ',') out.append(']');
  }
  return any;
}

// The exceptions of a cause with their stacks. What belongs to none, because the entry that begins one
// is missing, is left out.
void append_exceptions(const std::vector<Entry>& entries, ByteBuffer& out) {
  bool any = false;
  bool in_exception = false;
  bool in_stack = false;
  bool in_frame = false;
  const auto close_stack = [&] {
    if (in_stack) out.append("}]");
    in_stack = in_frame = false;
  };
  for (const Entry& entry : entries) {
    if (entry.entry_class == EntryClass::exception && entry.key == "id") {
      close_stack();
      out.append(any ? "},{\"id\":\"" : "\"exceptions\":[{\"id\":\"");
      append_hex16(out, entry.bits);
      out.append('"');
      any = in_exception = true;
    } else if (entry.entry_class == EntryClass::exception && in_exception) {
      if (in_stack) continue;
      out.append(',');
      append_json_string(out, entry.key);
      out.append(':');
      if (entry.key == "cause") {
        out.append('"');
        append_hex16(out, entry.bits);
        out.append('"');
      } else {
        append_value(entry, limits::segment_string_chars_max, out);
      }
    } else if (entry.entry_class == EntryClass::frame && in_exception) {
      const bool begins = entry.key == "path";
      if (!begins && !in_frame) continue;
      out.append(!begins ? "," : in_stack ? "},{" : ",\"stack\":[{");
      append_json_string(out, entry.key);
      out.append(':');
      append_value(entry, limits::segment_string_chars_max, out);
      in_stack = in_frame = true;
    }
  }
  close_stack();
  if (any) out.append("}]");
}

void append_cause(const std::vector<Entry>& entries, ByteBuffer& out) {
  const bool exceptions = std::any_of(entries.begin(), entries.end(), [](const Entry& entry) {
    return entry.entry_class == EntryClass::exception && entry.key == "id";
  });
  const Entry* of_another = nullptr;
  bool described = false;
  for (const Entry& entry : entries) {
    if (entry.entry_class != EntryClass::cause) continue;
    if (entry.key == "id") {
      of_another = &entry;
    } else {
      described = true;
    }
  }
  if (exceptions || described) {
    out.append(",\"cause\":{");
    std::vector<Entry> own;  // Without the id, which stands alone or not at all.
    std::copy_if(entries.begin(), entries.end(), std::back_inserter(own), [](const Entry& entry) {
      return entry.entry_class == EntryClass::cause && entry.key != "id";
    });
    const bool any = append_members_and_lists(own, EntryClass::cause, {"paths"}, out);
    if (any && exceptions) out.append(',');
    append_exceptions(entries, out);
    out.append('}');
  } else if (of_another != nullptr) {
    out.append(",\"cause\":\"");
    append_hex16(out, of_another->bits);
    out.append('"');
  }
}

void append_sql(const std::vector<Entry>& entries, ByteBuffer& out) {
  if (!has(entries, EntryClass::sql)) return;
  out.append(",\"sql\":{");
  append_members(entries, EntryClass::sql, limits::segment_string_chars_max, out);
  out.append('}');
}

// By namespace, in the order in which they came.
void append_metadata(const std::vector<Entry>& entries, bool all, bool cut, ByteBuffer& out) {
  std::vector<std::string_view> scopes;
  for (const Entry& entry : entries) {
    if (!all || entry.entry_class != EntryClass::metadata) continue;
    if (std::find(scopes.begin(), scopes.end(), entry.scope) == scopes.end()) {
      scopes.push_back(entry.scope);
    }
  }
  if (cut && std::find(scopes.begin(), scopes.end(), own_namespace) == scopes.end()) {
    scopes.push_back(own_namespace);
  }
  char separator = '{';
  for (const std::string_view scope : scopes) {
    if (separator == '{') out.append(",\"metadata\":");
    out.append(separator);
    separator = ',';
    append_json_string(out, scope);
    out.append(":{");
    const bool any =
        all && append_members(entries, EntryClass::metadata, ~std::size_t{0}, out, scope);
    if (cut && scope == own_namespace) out.append(any ? ",\"cut\":true" : "\"cut\":true");
    out.append('}');
  }
  if (separator == ',') out.append('}');
}

// How much of a span is written: first all of it; when that is more than a document holds, less.
enum class Detail : std::uint8_t { full, without_metadata, bare };

void append_segment_members(const std::vector<Entry>& entries, const ContextTexts& context,
                            const XrayOptions& options, ByteBuffer& out) {
  out.append(",\"service\":{");
  if (!options.service_version.empty()) {
    out.append("\"version\":");
    append_json_string(out, cut_utf8(options.service_version, limits::segment_string_chars_max));
    out.append(',');
  }
  out.append("\"runtime\":\"C++\"}");
  if (!options.resource.origin.empty()) {
    out.append(",\"origin\":");
    append_json_string(out, options.resource.origin);
  }
  if (!context.user.empty()) {
    out.append(",\"user\":");
    append_json_string(out, cut_utf8(context.user, limits::segment_string_chars_max));
  }
  out.append(",\"aws\":{\"xray\":{\"sdk\":\"spillway for C++\",\"sdk_version\":\"0.1.0\"");
  for (const Entry& entry : entries) {
    if (entry.entry_class != EntryClass::sampling_rule) continue;
    out.append(",\"sampling_rule_name\":");
    append_json_string(out, entry.text);
    break;
  }
  out.append('}');
  if (has(entries, EntryClass::aws)) {
    out.append(',');
    append_members_and_lists(entries, EntryClass::aws, {"table_names", "resource_names"}, out);
  }
  for (const XrayResource::Block& block : options.resource.blocks) {
    // What the span says itself stands.
    if (block.name == "account_id" &&
        std::any_of(entries.begin(), entries.end(), [](const Entry& entry) {
          return entry.entry_class == EntryClass::aws && entry.key == "account_id";
        })) {
      continue;
    }
    out.append(",\"");
    out.append(block.name);
    out.append("\":");
    out.append(block.json);
  }
  out.append('}');
}

// Everything of a span's object but its subsegments and the closing brace.
void append_span(const SpanView& span, bool is_segment, const ContextTexts& context,
                 const XrayOptions& options, Detail level, ByteBuffer& out) {
  const std::vector<Entry> entries =
      level == Detail::bare ? std::vector<Entry>{} : read_entries(span.entries);
  out.append("{\"name\":");
  const bool service_names_it = is_segment && !options.service.empty();
  append_json_string(out, legal_segment_name(service_names_it ? options.service : span.name));
  out.append(",\"id\":\"");
  append_hex16(out, span.body.span_id);
  out.append("\",\"start_time\":");
  out.advance_to(write_epoch_seconds(out.reserve(number_bytes_max), span.start_ns));
  if ((span.body.flags & span_in_progress) != 0) {
    out.append(",\"in_progress\":true");
  } else {
    out.append(",\"end_time\":");
    out.advance_to(write_epoch_seconds(out.reserve(number_bytes_max),
                                       std::max(span.end_ns, span.start_ns)));
  }
  if ((span.body.flags & span_error) != 0) out.append(",\"error\":true");
  if ((span.body.flags & span_throttle) != 0) out.append(",\"throttle\":true");
  if ((span.body.flags & span_fault) != 0) out.append(",\"fault\":true");
  if (!is_segment && (span.body.flags & span_aws) != 0) {
    out.append(",\"namespace\":\"aws\"");
  } else if (!is_segment && (span.body.flags & span_remote) != 0) {
    out.append(",\"namespace\":\"remote\"");
  }
  append_http(span, entries, out);
  append_sql(entries, out);
  append_cause(entries, out);
  append_precursors(entries, out);
  if (is_segment) {
    append_links(entries, out);
    append_segment_members(entries, context, options, out);
  } else if (has(entries, EntryClass::aws)) {
    out.append(",\"aws\":{");
    append_members_and_lists(entries, EntryClass::aws, {"table_names", "resource_names"}, out);
    out.append('}');
  }

  // What the segment says of the request it served, unless the user annotated it already. X-Ray's
  // service map goes by the segment's name, so what the service did is an annotation.
  const auto wants = [&](std::string_view key, std::string_view value) {
    return is_segment && !value.empty() &&
           std::none_of(entries.begin(), entries.end(), [&](const Entry& e) {
             return e.entry_class == EntryClass::annotation && e.key == key;
           });
  };
  const bool tenant = wants("tenant", context.tenant);
  const bool request_id = wants("request_id", context.request_id);
  const bool operation =
      service_names_it && span.name != options.service && wants("operation", span.name);
  if (operation || tenant || request_id || has(entries, EntryClass::annotation)) {
    out.append(",\"annotations\":{");
    bool any =
        append_members(entries, EntryClass::annotation, limits::annotation_string_chars_max, out);
    const auto append_own = [&](std::string_view key, std::string_view value) {
      out.append(any ? "," : "");
      append_json_string(out, key);
      out.append(':');
      append_json_string(out, cut_utf8(value, limits::annotation_string_chars_max));
      any = true;
    };
    if (operation) append_own("operation", span.name);
    if (tenant) append_own("tenant", context.tenant);
    if (request_id) append_own("request_id", context.request_id);
    out.append('}');
  }
  const bool cut = level != Detail::full || (span.body.flags & span_cut) != 0;
  append_metadata(entries, level == Detail::full, cut, out);
}

// What makes a document of a span: a segment's, or an independent subsegment's, members.
void append_document_members(const SpanView& span, bool is_segment, ByteBuffer& out) {
  out.append(",\"trace_id\":\"");
  append_xray_trace_id(out, span.body.trace_id);
  out.append('"');
  if (span.body.parent_id != 0) {
    out.append(",\"parent_id\":\"");
    append_hex16(out, span.body.parent_id);
    out.append('"');
  }
  if (!is_segment) out.append(",\"type\":\"subsegment\"");
}
constexpr std::size_t document_members_bytes_max = 128;
constexpr std::size_t nesting_bytes = sizeof(",\"subsegments\":[]}") + 1;

// The spans of one segment as a tree, each with its own text and the size of all that is below it.
class TraceTree {
 public:
  TraceTree(std::span<const SpanView> spans, const ContextTexts& context,
            const XrayOptions& options)
      : spans_(spans), options_(options) {
    nodes_.resize(spans.size());
    std::unordered_map<std::uint64_t, std::size_t> by_id;
    for (std::size_t i = 0; i < spans.size(); ++i) {
      by_id.emplace(spans[i].body.span_id, i);
      write_text(i, context);
    }
    for (std::size_t i = 0; i < spans.size(); ++i) {
      const auto parent = by_id.find(spans[i].body.parent_id);
      if (is_root(i) || parent == by_id.end() || parent->second == i) continue;
      if (nodes_[i].too_large || nodes_[parent->second].too_large) continue;
      nodes_[i].parent = parent->second;
      nodes_[parent->second].children.push_back(i);
    }
  }

  TraceEncoded write_documents(Payload& payload) {
    TraceEncoded result;
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      if (nodes_[i].too_large) ++result.spans_too_large;
    }
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      // What a tree before this one could not hold is measured, and a root, already.
      if (nodes_[i].parent == none && !nodes_[i].measured) fit(i);
    }
    // A cycle of parents (ids made by somebody else) is in no tree; each of its spans goes alone.
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      if (!nodes_[i].measured) {
        nodes_[i].children.clear();
        nodes_[i].parent = none;
        roots_.push_back(i);
      }
    }
    for (const std::size_t root : roots_) {
      if (nodes_[root].too_large) continue;
      const std::size_t offset = payload.bytes.size();
      payload.bytes.append(text_of(root));
      append_document_members(spans_[root], is_segment(root), payload.bytes);
      std::uint64_t spans = write_below(root, payload.bytes);
      if ((spans_[root].body.flags & span_in_progress) != 0) --spans;  // Counted when it ends.
      payload.end_item(offset, spans, spans_[root].end_ns / 1'000'000, spans_[root].body.span_id);
    }
    return result;
  }

 private:
  static constexpr std::size_t none = ~std::size_t{0};
  struct Node {
    std::size_t text_offset = 0;
    std::size_t text_bytes = 0;
    std::size_t parent = none;
    std::size_t bytes = 0;  // with everything below
    std::size_t levels = 1;
    bool too_large = false;
    bool measured = false;
    std::vector<std::size_t> children;
  };

  bool is_root(std::size_t i) const { return spans_[i].body.span_id == spans_[i].body.segment_id; }
  // In Lambda the service's root is a subsegment of the segment that Lambda writes.
  bool is_segment(std::size_t i) const {
    return is_root(i) && (spans_[i].body.flags & span_joined) == 0;
  }
  std::string_view text_of(std::size_t i) const {
    return texts_.view(nodes_[i].text_offset, nodes_[i].text_bytes);
  }
  std::size_t room() const {
    return options_.document_bytes_max - document_members_bytes_max - nesting_bytes;
  }

  void write_text(std::size_t i, const ContextTexts& context) {
    Node& node = nodes_[i];
    node.text_offset = texts_.size();
    for (const Detail level : {Detail::full, Detail::without_metadata, Detail::bare}) {
      texts_.truncate(node.text_offset);
      append_span(spans_[i], is_segment(i), context, options_, level, texts_);
      node.text_bytes = texts_.size() - node.text_offset;
      if (node.text_bytes <= room()) return;
    }
    node.too_large = true;
  }

  // Measures the tree below `top`, children first, and takes the largest children out of whatever
  // has grown too large for a document, and what is nested too deep; they become documents of their
  // own. Without recursion: a trace may be a chain of any length.
  void fit(std::size_t top) {
    std::vector<std::size_t> order{top};
    for (std::size_t i = 0; i < order.size(); ++i) {
      const auto& children = nodes_[order[i]].children;
      order.insert(order.end(), children.begin(), children.end());
    }
    for (auto at = order.rbegin(); at != order.rend(); ++at) {
      Node& node = nodes_[*at];
      node.measured = true;
      std::sort(node.children.begin(), node.children.end(),
                [&](std::size_t a, std::size_t b) { return nodes_[a].bytes < nodes_[b].bytes; });
      const auto split_off = [&](std::size_t child) {
        nodes_[child].parent = none;
        roots_.push_back(child);
      };
      std::erase_if(node.children, [&](std::size_t child) {
        const bool deep = nodes_[child].levels == limits::segment_levels_max;
        if (deep) split_off(child);
        return deep;
      });
      node.bytes = node.text_bytes + nesting_bytes;
      for (const std::size_t child : node.children) node.bytes += nodes_[child].bytes + 1;
      while (!node.children.empty() && node.bytes > room()) {
        const std::size_t largest = node.children.back();
        node.children.pop_back();
        node.bytes -= nodes_[largest].bytes + 1;
        split_off(largest);
      }
      node.levels = 1;
      for (const std::size_t child : node.children) {
        node.levels = std::max(node.levels, nodes_[child].levels + 1);
      }
      std::sort(node.children.begin(), node.children.end(), [&](std::size_t a, std::size_t b) {
        return spans_[a].start_ns < spans_[b].start_ns;
      });
    }
    roots_.push_back(top);
  }

  // Writes the subsegments of `top` and the closing brace; returns how many spans that is with
  // `top`.
  std::uint64_t write_below(std::size_t top, ByteBuffer& out) {
    std::uint64_t spans = 1;
    struct Open {
      std::size_t node;
      std::size_t next_child;
    };
    std::vector<Open> open{{top, 0}};
    while (!open.empty()) {
      auto& [node, next_child] = open.back();
      const auto& children = nodes_[node].children;
      if (next_child == children.size()) {
        out.append(children.empty() ? "}" : "]}");
        open.pop_back();
        continue;
      }
      out.append(next_child == 0 ? ",\"subsegments\":[" : ",");
      const std::size_t child = children[next_child++];
      out.append(text_of(child));
      ++spans;
      open.push_back({child, 0});
    }
    return spans;
  }

  std::span<const SpanView> spans_;
  const XrayOptions& options_;
  ByteBuffer texts_;
  std::vector<Node> nodes_;
  std::vector<std::size_t> roots_;
};

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

TraceEncoded encode_trace(std::span<const SpanView> spans, const ContextTexts& context,
                          const XrayOptions& options, Payload& payload) {
  return TraceTree(spans, context, options).write_documents(payload);
}

void append_put_trace_segments(const Payload& payload, ByteBuffer& out) {
  out.append("{\"TraceSegmentDocuments\":");
  char separator = '[';
  for (const PayloadItem& item : payload.items) {
    out.append(separator);
    append_json_string(out, payload.item(item));
    separator = ',';
  }
  out.append("]}");
}

}  // namespace spillway::detail
