// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <bit>
#include <utility>

#include <spillway/encoders/json.hpp>
#include <spillway/encoders/log_event.hpp>

namespace spillway::detail {
namespace {

constexpr std::array<std::string_view, 13> own_keys{
    "timestamp",  "level",    "message", "service", "logger",    "tenant", "user",
    "request_id", "trace_id", "span_id", "source",  "truncated", "_aws"};

// Deeper than anybody reads; keys with more names stand as they are.
constexpr std::size_t key_names_max = 8;

/// A key of the user's that cannot be taken for one of ours, nor for another one of the same object.
template <class IsTaken>
std::string unique_key(std::string_view key, bool at_top, const IsTaken& is_taken) {
  std::string base(key);
  if (at_top && std::find(own_keys.begin(), own_keys.end(), key) != own_keys.end()) {
    base = "field." + base;
  }
  std::string unique = base;
  for (int n = 2; is_taken(unique); ++n) unique = base + "_" + std::to_string(n);
  return unique;
}

/// A member of a record's JSON: a field, or an object of them.
struct Member {
  std::string wanted;  ///< as the fields call it
  std::string key;     ///< as it is written
  std::size_t field = 0;
  std::vector<Member> members;  ///< of an object, never empty; a field has none

  bool is_object() const noexcept { return !members.empty(); }
};

/// The names of a path; the whole key where it is none.
std::vector<std::string_view> names_of(std::string_view key) {
  std::vector<std::string_view> names;
  for (std::string_view rest = key;; rest.remove_prefix(rest.find('.') + 1)) {
    names.push_back(rest.substr(0, rest.find('.')));
    if (names.back().empty() || names.size() > key_names_max) return {key};
    if (names.back().size() == rest.size()) return names;
  }
}

/// All fields as members of one object.
std::vector<Member> members_of(const std::vector<SiteField>& fields) {
  Member root;
  for (std::size_t i = 0; i < fields.size(); ++i) {
    const std::vector<std::string_view> names = names_of(fields[i].key);
    Member* object = &root;
    for (std::size_t level = 0; level < names.size(); ++level) {
      const bool is_field = level + 1 == names.size();
      auto& members = object->members;
      const auto same = std::find_if(members.begin(), members.end(), [&](const Member& one) {
        return !is_field && one.is_object() && one.wanted == names[level];
      });
      if (same != members.end()) {
        object = &*same;
        continue;
      }
      const auto is_taken = [&](const std::string& wanted) {
        return std::any_of(members.begin(), members.end(),
                           [&](const Member& one) { return one.key == wanted; });
      };
      std::string key = unique_key(names[level], level == 0, is_taken);
      object = &members.emplace_back(Member{std::string(names[level]), std::move(key), i, {}});
    }
  }
  return std::move(root.members);
}

void append_value(ValueReader& values, ValueType type, std::size_t string_bytes_max,
                  ByteBuffer& out) {
  switch (type) {
    case ValueType::none:
      break;
    case ValueType::integer:
      append_number(out, static_cast<std::int64_t>(values.number()));
      break;
    case ValueType::unsigned_integer:
      append_number(out, values.number());
      break;
    case ValueType::real:
      append_number(out, std::bit_cast<double>(values.number()));
      break;
    case ValueType::boolean:
      out.append(values.boolean() ? "true" : "false");
      break;
    case ValueType::string:
      append_json_string(out, cut_utf8(values.string(), string_bytes_max));
      break;
  }
}

void skip_value(ValueReader& values, ValueType type) {
  switch (type) {
    case ValueType::none:
      break;
    case ValueType::boolean:
      values.boolean();
      break;
    case ValueType::string:
      values.string();
      break;
    default:
      values.number();
  }
}

void append_member(std::string_view key, std::string_view value, ByteBuffer& out) {
  if (value.empty()) return;
  out.append(key);
  append_json_string(out, value);
}

std::string json_of(std::string_view text) {
  ByteBuffer buffer;
  append_json_string(buffer, text);
  return std::string(buffer.view());
}

// What `append(longest string)` appends and `end`, or, where that is more than `bytes_max`, with
// strings cut and `mark` in place of `end`. Half the longest string each time: an escape makes up to
// six bytes of one, so sizes cannot be foreseen.
template <class Append>
void append_cut(const Append& append, std::string_view end, std::string_view mark,
                std::size_t bytes_max, ByteBuffer& out) {
  const std::size_t start = out.size();
  append(~std::size_t{0});
  if (out.size() - start + end.size() <= bytes_max) return out.append(end);
  for (std::size_t longest = bytes_max;
       longest > 0 && out.size() - start + mark.size() > bytes_max;) {
    longest /= 2;
    out.truncate(start);
    append(longest);
  }
  out.append(mark);
}

// Select Graphic Rendition (ECMA-48, 8.3.117): dim, dim, green, yellow, red, bold red.
constexpr std::array<std::string_view, 6> colours_of_severities{
    "\x1b[2m", "\x1b[2m", "\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[1;31m"};
constexpr std::string_view no_colour = "\x1b[0m";

void append_line(const LogView& log, bool colours, std::size_t string_bytes_max, ByteBuffer& out) {
  append_iso8601(out, log.time_ns);
  out.append(' ');
  const std::string_view severity = to_string(log.site->severity);
  if (colours) {
    out.append(colours_of_severities[static_cast<std::size_t>(log.site->severity)]);
  }
  out.append(severity);
  if (colours) out.append(no_colour);
  out.append(std::string_view("      ").substr(0, 6 - severity.size()));
  if (!log.site->logger.empty()) {
    append_json_escaped(out, log.site->logger);
    out.append(": ");
  }
  append_json_escaped(out, log.site->message);
  const auto append_pair = [&](std::string_view key, std::string_view value) {
    if (value.empty()) return;
    out.append(' ');
    out.append(key);
    out.append('=');
    append_json_escaped(out, value);
  };
  append_pair("tenant", log.context->tenant);
  append_pair("user", log.context->user);
  append_pair("request_id", log.context->request_id);
  ValueReader values(log.values);
  for (const SiteField& field : log.site->fields) {
    out.append(' ');
    append_json_escaped(out, field.key);
    out.append('=');
    append_value(values, field.type, string_bytes_max, out);
  }
  if (log.context->trace_id) {
    out.append(" trace_id=");
    append_xray_trace_id(out, log.context->trace_id);
  }
}

}  // namespace

LogEncoder::LogEncoder(std::string_view service, bool colours)
    : service_(service), colours_(colours) {}

const LogEncoder::Template& LogEncoder::template_of(const SiteInfo& site) {
  const auto at = std::lower_bound(
      templates_.begin(), templates_.end(), &site,
      [](const auto& entry, const SiteInfo* wanted) { return std::less<>{}(entry.first, wanted); });
  if (at != templates_.end() && at->first == &site) return *at->second;
  auto made = std::make_unique<Template>();
  made->head.append(",\"level\":\"").append(to_string(site.severity));
  made->head.append("\",\"message\":").append(json_of(site.message));
  made->head.append(",\"service\":").append(json_of(service_));
  if (!site.logger.empty()) made->head.append(",\"logger\":").append(json_of(site.logger));
  std::string before;
  const auto add = [&](const auto& self, const std::vector<Member>& members, bool at_top) -> void {
    for (const Member& member : members) {
      if (at_top || &member != members.data()) before += ',';
      before.append(json_of(member.key)).append(":");
      if (member.is_object()) {
        before += '{';
        self(self, member.members, false);
        before += '}';
      } else {
        made->keys.push_back(std::exchange(before, {}));
        made->order.push_back(member.field);
      }
    }
  };
  add(add, members_of(site.fields), true);
  if (std::is_sorted(made->order.begin(), made->order.end())) made->order.clear();
  made->tail = before;
  // Where it comes from matters when something went wrong; elsewhere it is bytes that somebody pays
  // for.
  if (site.severity >= Severity::warn) {
    const std::size_t slash = site.file.rfind('/');
    const std::string file = slash == std::string::npos ? site.file : site.file.substr(slash + 1);
    made->tail.append(",\"source\":").append(json_of(file + ":" + std::to_string(site.line)));
  }
  return *templates_.emplace(at, &site, std::move(made))->second;
}

void LogEncoder::append_fields(const LogView& log, const Template& fixed,
                               std::size_t string_bytes_max, ByteBuffer& out) {
  out.append("{\"timestamp\":\"");
  append_iso8601(out, log.time_ns);
  out.append('"');
  out.append(fixed.head);
  const ContextTexts& context = *log.context;
  append_member(",\"tenant\":", context.tenant, out);
  append_member(",\"user\":", context.user, out);
  append_member(",\"request_id\":", context.request_id, out);
  if (context.trace_id) {
    out.append(",\"trace_id\":\"");
    append_xray_trace_id(out, context.trace_id);
    out.append('"');
  }
  if (log.span_id != 0) {
    out.append(",\"span_id\":\"");
    append_hex16(out, log.span_id);
    out.append('"');
  }
  ValueReader values(log.values);
  const std::vector<SiteField>& fields = log.site->fields;
  if (fixed.order.empty()) {
    for (std::size_t i = 0; i < fixed.keys.size(); ++i) {
      out.append(fixed.keys[i]);
      append_value(values, fields[i].type, string_bytes_max, out);
    }
  } else {
    readers_.clear();
    for (const SiteField& field : fields) {
      readers_.push_back(values);
      skip_value(values, field.type);
    }
    for (std::size_t i = 0; i < fixed.keys.size(); ++i) {
      const std::size_t field = fixed.order[i];
      out.append(fixed.keys[i]);
      append_value(readers_[field], fields[field].type, string_bytes_max, out);
    }
  }
  out.append(fixed.tail);
}

void LogEncoder::append_json(const LogView& log, std::size_t bytes_max, ByteBuffer& out) {
  const Template& fixed = template_of(*log.site);
  const auto append = [&](std::size_t longest) { append_fields(log, fixed, longest, out); };
  append_cut(append, "}", ",\"truncated\":true}", bytes_max, out);
}

void LogEncoder::append_console(const LogView& log, std::size_t bytes_max, ByteBuffer& out) {
  const auto append = [&](std::size_t longest) { append_line(log, colours_, longest, out); };
  append_cut(append, "", " truncated=true", bytes_max, out);
}

}  // namespace spillway::detail
