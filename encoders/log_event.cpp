// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>

#include <spillway/encoders/fields.hpp>
#include <spillway/encoders/json.hpp>
#include <spillway/encoders/log_event.hpp>

namespace spillway::detail {
namespace {

constexpr std::array<std::string_view, 13> own_keys{
    "timestamp",  "level",    "message", "service", "logger",    "tenant", "user",
    "request_id", "trace_id", "span_id", "source",  "truncated", "_aws"};

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
    append_member("=", values, field.type, string_bytes_max, out);
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
  made->head.append("\",\"level\":\"").append(to_string(site.severity));
  made->head.append("\",\"message\":").append(json_of(site.message));
  made->head.append(",\"service\":").append(json_of(service_));
  if (!site.logger.empty()) made->head.append(",\"logger\":").append(json_of(site.logger));
  made->fields = layout_of(site.fields, own_keys);
  // Where it comes from matters when something went wrong; elsewhere it is bytes that somebody pays
  // for.
  if (site.severity >= Severity::warn) {
    const std::size_t slash = site.file.rfind('/');
    const std::string file = slash == std::string::npos ? site.file : site.file.substr(slash + 1);
    made->fields.tail.append(",\"source\":")
        .append(json_of(file + ":" + std::to_string(site.line)));
  }
  return *templates_.emplace(at, &site, std::move(made))->second;
}

void LogEncoder::append_fields(const LogView& log, const Template& fixed,
                               std::size_t string_bytes_max, ByteBuffer& out) {
  constexpr std::size_t time_bytes = 64;
  char* to = out.reserve(time_bytes + fixed.head.size() + identity_bytes_max(*log.context) +
                         span_id_bytes);
  to = write_bytes(to, "{\"timestamp\":\"");
  to = write_iso8601(to, log.time_ns);
  to = write_bytes(to, fixed.head);
  to = write_identity(to, *log.context);
  if (log.span_id != 0) to = write_span_id(to, log.span_id);
  out.advance_to(to);
  detail::append_fields(fixed.fields, log.site->fields, log.values, string_bytes_max, readers_,
                        out);
  out.append(fixed.fields.tail);
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
