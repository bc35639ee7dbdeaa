// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <bit>

#include <spillway/encoders/json.hpp>
#include <spillway/encoders/log_event.hpp>

namespace spillway::detail {
namespace {

constexpr std::array<std::string_view, 12> own_keys{"timestamp", "level",  "message",    "service",
                                                    "tenant",    "user",   "request_id", "trace_id",
                                                    "span_id",   "source", "truncated",  "_aws"};

// A key of the user's that cannot be taken for one of ours, nor for another field of the same
// record.
std::string unique_key(std::string_view key, const std::vector<std::string>& taken) {
  std::string unique(key);
  if (std::find(own_keys.begin(), own_keys.end(), key) != own_keys.end())
    unique = "field." + unique;
  const std::string base = unique;
  for (int n = 2; std::find(taken.begin(), taken.end(), unique) != taken.end(); ++n) {
    unique = base + "_" + std::to_string(n);
  }
  return unique;
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

void append_line(const LogView& log, std::size_t string_bytes_max, ByteBuffer& out) {
  append_iso8601(out, log.time_ns);
  out.append(' ');
  const std::string_view severity = to_string(log.site->severity);
  out.append(severity);
  out.append(std::string_view("      ").substr(0, 6 - severity.size()));
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

LogEncoder::LogEncoder(std::string_view service) : service_(service) {}

const LogEncoder::Template& LogEncoder::template_of(const SiteInfo& site) {
  const auto at = std::lower_bound(
      templates_.begin(), templates_.end(), &site,
      [](const auto& entry, const SiteInfo* wanted) { return std::less<>{}(entry.first, wanted); });
  if (at != templates_.end() && at->first == &site) return *at->second;
  auto made = std::make_unique<Template>();
  made->head.append(",\"level\":\"").append(to_string(site.severity));
  made->head.append("\",\"message\":").append(json_of(site.message));
  made->head.append(",\"service\":").append(json_of(service_));
  std::vector<std::string> keys;
  for (const SiteField& field : site.fields) {
    keys.push_back(unique_key(field.key, keys));
    made->keys.push_back("," + json_of(keys.back()) + ":");
  }
  // Where it comes from matters when something went wrong; elsewhere it is bytes that somebody pays
  // for.
  if (site.severity >= Severity::warn) {
    const std::size_t slash = site.file.rfind('/');
    const std::string file = slash == std::string::npos ? site.file : site.file.substr(slash + 1);
    made->tail = ",\"source\":" + json_of(file + ":" + std::to_string(site.line));
  }
  return *templates_.emplace(at, &site, std::move(made))->second;
}

void LogEncoder::append_fields(const LogView& log, const Template& fixed,
                               std::size_t string_bytes_max, ByteBuffer& out) const {
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
  for (std::size_t i = 0; i < fixed.keys.size(); ++i) {
    out.append(fixed.keys[i]);
    append_value(values, log.site->fields[i].type, string_bytes_max, out);
  }
  out.append(fixed.tail);
}

void LogEncoder::append_json(const LogView& log, std::size_t bytes_max, ByteBuffer& out) {
  const Template& fixed = template_of(*log.site);
  const auto append = [&](std::size_t longest) { append_fields(log, fixed, longest, out); };
  append_cut(append, "}", ",\"truncated\":true}", bytes_max, out);
}

void LogEncoder::append_console(const LogView& log, std::size_t bytes_max, ByteBuffer& out) {
  const auto append = [&](std::size_t longest) { append_line(log, longest, out); };
  append_cut(append, "", " truncated=true", bytes_max, out);
}

}  // namespace spillway::detail
