// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <spillway/encoders/json.hpp>
#include <spillway/engine/trace_header.hpp>
#include <spillway/transport/text.hpp>

namespace spillway {
namespace {

std::optional<std::uint64_t> parse_hex(std::string_view text) noexcept {
  std::uint64_t value = 0;
  for (const char c : text) {
    const bool digit = c >= '0' && c <= '9';
    if (!digit && (c < 'a' || c > 'f')) return std::nullopt;
    value = value << 4 | static_cast<std::uint64_t>(digit ? c - '0' : c - 'a' + 10);
  }
  return value;
}

}  // namespace

std::optional<TraceId> parse_trace_id(std::string_view text) {
  if (text.size() != 35 || !text.starts_with("1-") || text[10] != '-') return std::nullopt;
  const auto seconds = parse_hex(text.substr(2, 8));
  const auto middle = parse_hex(text.substr(11, 8));
  const auto low = parse_hex(text.substr(19, 16));
  if (!seconds || !middle || !low) return std::nullopt;
  const TraceId id{*seconds << 32 | *middle, *low};
  return id ? std::optional(id) : std::nullopt;
}

std::string to_string(const TraceId& id) {
  detail::ByteBuffer out;
  detail::append_xray_trace_id(out, id);
  return std::string(out.view());
}

std::optional<TraceParent> parse_trace_header(std::string_view header) {
  constexpr std::size_t header_chars_max = 4096;
  if (header.size() > header_chars_max) return std::nullopt;
  TraceParent parent;
  while (!header.empty()) {
    const std::size_t end = std::min(header.find(';'), header.size());
    const std::string_view field = transport::trim(header.substr(0, end));
    header.remove_prefix(std::min(end + 1, header.size()));
    const std::size_t equals = std::min(field.find('='), field.size());
    const std::string_view name = field.substr(0, equals);
    const std::string_view value = field.substr(std::min(equals + 1, field.size()));
    if (name == "Root") {
      const auto id = parse_trace_id(value);
      if (!id) return std::nullopt;
      parent.trace_id = *id;
    } else if (name == "Parent") {
      parent.parent_id = value.size() == 16 ? parse_hex(value).value_or(0) : 0;
    } else if (name == "Sampled") {
      parent.sampled = value == "1" ? Sampled::yes : value == "0" ? Sampled::no : Sampled::unknown;
    }
  }
  return parent.trace_id ? std::optional(parent) : std::nullopt;
}

std::string current_trace_header() {
  const detail::Active& active = detail::current_active();
  if (!active.trace_id) return {};
  detail::ByteBuffer out;
  out.append("Root=");
  detail::append_xray_trace_id(out, active.trace_id);
  if (active.span_id != 0) {
    out.append(";Parent=");
    detail::append_hex16(out, active.span_id);
  }
  if (active.sampled != Sampled::unknown) {
    out.append(active.sampled == Sampled::yes ? ";Sampled=1" : ";Sampled=0");
  }
  return std::string(out.view());
}

}  // namespace spillway
