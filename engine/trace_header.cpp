// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cstdlib>

#include <spillway/encoders/json.hpp>
#include <spillway/engine/span.hpp>
#include <spillway/engine/trace_header.hpp>
#include <spillway/transport/text.hpp>

namespace spillway {
namespace {

constexpr std::size_t xray_header_chars_max = 4096;
// Ours: of all the fields together that are carried without being understood.
constexpr std::size_t carried_fields_chars_max = 512;
// Trace Context, 3.3.1.1 and 3.3.1.5: a vendor should carry at least 512 characters; when it cannot
// carry more, members of more than 128 go first, then those at the end.
constexpr std::size_t tracestate_members_max = 32;
constexpr std::size_t tracestate_chars_max = 512;
constexpr std::size_t tracestate_long_member_chars = 128;
// Ours: no more is looked at. 32 members as long as they may be.
constexpr std::size_t tracestate_header_chars_max = tracestate_members_max * 514;
// The flag of Trace Context, 3.2.2.5.
constexpr std::uint64_t traceparent_sampled = 1;

std::optional<std::uint64_t> parse_hex(std::string_view text) noexcept {
  std::uint64_t value = 0;
  for (const char c : text) {
    const bool digit = c >= '0' && c <= '9';
    if (!digit && (c < 'a' || c > 'f')) return std::nullopt;
    value = value << 4 | static_cast<std::uint64_t>(digit ? c - '0' : c - 'a' + 10);
  }
  return value;
}

// What a header may hold; a line break would begin another one where it is written again.
bool is_header_text(std::string_view text) noexcept {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= ' ' && c <= '~') || c == '\t'; });
}

std::string_view trim_blanks(std::string_view text) noexcept {
  const auto first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

// Takes what stands before `separator` off the front of `rest`.
std::string_view take_until(std::string_view& rest, char separator) noexcept {
  const std::size_t end = std::min(rest.find(separator), rest.size());
  const std::string_view taken = rest.substr(0, end);
  rest.remove_prefix(std::min(end + 1, rest.size()));
  return taken;
}

// ---- tracestate ----

bool is_lower(char c) noexcept { return c >= 'a' && c <= 'z'; }
bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }

bool is_key_part(std::string_view text, std::size_t chars_max, bool may_begin_with_digit) noexcept {
  if (text.empty() || text.size() > chars_max) return false;
  if (!is_lower(text[0]) && !(may_begin_with_digit && is_digit(text[0]))) return false;
  return std::all_of(text.begin(), text.end(), [](char c) {
    return is_lower(c) || is_digit(c) || c == '_' || c == '-' || c == '*' || c == '/';
  });
}

// simple-key, or tenant-id "@" system-id (3.3.1.3.1).
bool is_tracestate_key(std::string_view key) noexcept {
  const std::size_t at = key.find('@');
  if (at == std::string_view::npos) return is_key_part(key, 256, false);
  return is_key_part(key.substr(0, at), 241, true) && is_key_part(key.substr(at + 1), 14, false);
}

// 3.3.1.3.2: printable, no comma, no equals sign, and no blank at the end.
bool is_tracestate_value(std::string_view value) noexcept {
  if (value.empty() || value.size() > 256 || value.back() == ' ') return false;
  return std::all_of(value.begin(), value.end(),
                     [](char c) { return c >= ' ' && c <= '~' && c != ',' && c != '='; });
}

// The members of a legal header, joined; empty when it is not legal, which loses nothing but itself.
// Of two members with one key the first is the later one in time, and stays.
std::string carried_tracestate(std::string_view header) {
  if (header.size() > tracestate_header_chars_max) return {};
  std::array<std::string_view, tracestate_members_max> members;
  std::size_t count = 0;
  std::size_t chars = 0;
  while (!header.empty()) {
    const std::string_view member = trim_blanks(take_until(header, ','));
    if (member.empty()) continue;
    const std::size_t equals = member.find('=');
    if (equals == std::string_view::npos || !is_tracestate_key(member.substr(0, equals)) ||
        !is_tracestate_value(member.substr(equals + 1))) {
      return {};
    }
    const std::string_view key = member.substr(0, equals + 1);
    if (std::any_of(members.begin(), members.begin() + static_cast<std::ptrdiff_t>(count),
                    [&](std::string_view other) { return other.starts_with(key); })) {
      continue;
    }
    if (count == members.size()) return {};
    members[count++] = member;
    chars += member.size() + 1;
  }
  const auto leave_out = [&](std::string_view& member) {
    chars -= member.size() + 1;
    member = {};
  };
  for (std::size_t i = count; i-- > 0 && chars > tracestate_chars_max + 1;) {
    if (members[i].size() > tracestate_long_member_chars) leave_out(members[i]);
  }
  for (std::size_t i = count; i-- > 0 && chars > tracestate_chars_max + 1;) {
    if (!members[i].empty()) leave_out(members[i]);
  }
  std::string text;
  text.reserve(chars);
  for (std::size_t i = 0; i < count; ++i) {
    if (members[i].empty()) continue;
    if (!text.empty()) text += ',';
    text += members[i];
  }
  return text;
}

void append_hex_trace_id(detail::ByteBuffer& out, const TraceId& id) {
  detail::append_hex16(out, id.high);
  detail::append_hex16(out, id.low);
}

// The fields that a header of Lambda's carries for the trace, when the thread's context has none of
// its own: a span that joined Lambda's trace by itself has no Context that could keep them.
detail::ShortText carried_fields(const detail::Active& active) {
  if (active.identity != nullptr && !active.identity->trace_fields.view().empty())
    return active.identity->trace_fields;
  if ((active.span_flags & detail::span_joined) != 0) {
    if (const auto lambda = lambda_trace(); lambda && lambda->trace_id == active.trace_id)
      return lambda->fields;
  }
  return {};
}

void append_xray(detail::ByteBuffer& out, const detail::Active& active) {
  out.append("Root=");
  detail::append_xray_trace_id(out, active.trace_id);
  if (active.span_id != 0) {
    out.append(";Parent=");
    detail::append_hex16(out, active.span_id);
  }
  if (active.sampled != Sampled::unknown) {
    out.append(active.is_sampled() ? ";Sampled=1" : ";Sampled=0");
  }
  const detail::ShortText fields = carried_fields(active);
  if (!fields.view().empty()) {
    out.append(';');
    out.append(fields.view());
  }
}

}  // namespace

// ---- Ids ----

std::optional<TraceId> parse_trace_id_hex(std::string_view text) {
  if (text.size() != 32) return std::nullopt;
  const auto high = parse_hex(text.substr(0, 16));
  const auto low = parse_hex(text.substr(16));
  if (!high || !low) return std::nullopt;
  const TraceId id{*high, *low};
  return id ? std::optional(id) : std::nullopt;
}

std::optional<TraceId> parse_trace_id(std::string_view text) {
  if (text.size() != 35 || !text.starts_with("1-") || text[10] != '-') return std::nullopt;
  std::array<char, 32> digits{};
  std::copy_n(text.begin() + 2, 8, digits.begin());
  std::copy_n(text.begin() + 11, 24, digits.begin() + 8);
  return parse_trace_id_hex({digits.data(), digits.size()});
}

std::string to_string(const TraceId& id) {
  detail::ByteBuffer out;
  detail::append_xray_trace_id(out, id);
  return std::string(out.view());
}

std::string to_hex(const TraceId& id) {
  detail::ByteBuffer out;
  append_hex_trace_id(out, id);
  return std::string(out.view());
}

// ---- In ----

std::optional<TraceParent> parse_trace_header(std::string_view header) {
  if (header.size() > xray_header_chars_max || !is_header_text(header)) return std::nullopt;
  TraceParent parent;
  std::string carried;
  while (!header.empty()) {
    const std::string_view field = trim_blanks(take_until(header, ';'));
    std::string_view value = field;
    const std::string_view name = take_until(value, '=');
    if (name == "Root") {
      const auto id = parse_trace_id(value);
      if (!id) return std::nullopt;
      parent.trace_id = *id;
    } else if (name == "Parent") {
      parent.parent_id = value.size() == 16 ? parse_hex(value).value_or(0) : 0;
    } else if (name == "Sampled") {
      parent.sampled = value == "1" ? Sampled::yes : value == "0" ? Sampled::no : Sampled::unknown;
    } else if (name != "Self" && !name.empty() && name.size() < field.size() &&
               carried.size() + field.size() < carried_fields_chars_max) {
      if (!carried.empty()) carried += ';';
      carried += field;
    }
  }
  if (!parent.trace_id) return std::nullopt;
  parent.fields = detail::ShortText(carried);
  return parent;
}

std::optional<TraceParent> parse_traceparent(std::string_view traceparent,
                                             std::string_view tracestate) {
  traceparent = trim_blanks(traceparent);
  // version "-" trace-id "-" parent-id "-" trace-flags; a later version may have more behind it
  // (3.2.2, 4.3).
  constexpr std::size_t chars = 2 + 1 + 32 + 1 + 16 + 1 + 2;
  if (traceparent.size() < chars || traceparent[2] != '-' || traceparent[35] != '-' ||
      traceparent[52] != '-') {
    return std::nullopt;
  }
  const auto version = parse_hex(traceparent.substr(0, 2));
  if (!version || *version == 0xFF) return std::nullopt;
  if (traceparent.size() > chars && (*version == 0 || traceparent[chars] != '-'))
    return std::nullopt;
  const auto trace_id = parse_trace_id_hex(traceparent.substr(3, 32));
  const auto parent_id = parse_hex(traceparent.substr(36, 16));
  const auto flags = parse_hex(traceparent.substr(53, 2));
  if (!trace_id || !parent_id || *parent_id == 0 || !flags) return std::nullopt;
  TraceParent parent;
  parent.trace_id = *trace_id;
  parent.parent_id = *parent_id;
  parent.sampled = (*flags & traceparent_sampled) != 0 ? Sampled::yes : Sampled::no;
  parent.trace_state = detail::ShortText(carried_tracestate(tracestate));
  return parent;
}

std::optional<TraceParent> parse_trace_headers(const IncomingTrace& headers) {
  std::optional<TraceParent> xray;
  std::optional<TraceParent> w3c;
  if (!headers.xray.empty()) xray = parse_trace_header(headers.xray);
  if (!headers.traceparent.empty())
    w3c = parse_traceparent(headers.traceparent, headers.tracestate);
  if (!xray || !w3c) return xray ? std::move(xray) : std::move(w3c);
  const bool by_a_tracer = xray->parent_id != 0 || xray->sampled != Sampled::unknown;
  if (xray->trace_id == w3c->trace_id) {
    xray->trace_state = std::move(w3c->trace_state);
    if (xray->parent_id == 0) xray->parent_id = w3c->parent_id;
    if (xray->sampled == Sampled::unknown) xray->sampled = w3c->sampled;
    return xray;
  }
  return by_a_tracer ? std::move(xray) : std::move(w3c);
}

std::optional<TraceParent> lambda_trace() {
  const char* const header = std::getenv("_X_AMZN_TRACE_ID");
  if (header == nullptr) return std::nullopt;
  auto parent = parse_trace_header(header);
  if (parent) parent->segment_is_lambdas = true;
  return parent;
}

// ---- Out ----

std::string current_trace_header() {
  const detail::Active& active = detail::current_active();
  if (!active.trace_id) return {};
  detail::ByteBuffer out;
  append_xray(out, active);
  return std::string(out.view());
}

OutgoingTrace current_trace_headers() {
  OutgoingTrace headers;
  const detail::Active& active = detail::current_active();
  if (!active.trace_id) return headers;
  detail::ByteBuffer out;
  append_xray(out, active);
  headers.xray = out.view();
  out.clear();
  out.append("00-");
  append_hex_trace_id(out, active.trace_id);
  out.append('-');
  // A traceparent names a span, also where none is recorded.
  detail::append_hex16(out, active.span_id != 0 ? active.span_id : detail::next_span_id());
  out.append(active.is_sampled() ? "-01" : "-00");
  headers.traceparent = out.view();
  if (active.identity != nullptr) headers.tracestate = active.identity->trace_state.view();
  return headers;
}

}  // namespace spillway
