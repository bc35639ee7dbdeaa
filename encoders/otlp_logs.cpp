// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <bit>
#include <functional>

#include <spillway/encoders/json.hpp>
#include <spillway/encoders/otlp_logs.hpp>

namespace spillway::detail {

using namespace protobuf;

namespace {

// Fields of LogRecord.
constexpr std::uint32_t time_unix_nano = 1;
constexpr std::uint32_t severity_number = 2;
constexpr std::uint32_t severity_text = 3;
constexpr std::uint32_t record_body = 5;
constexpr std::uint32_t record_attributes = 6;
constexpr std::uint32_t record_flags = 8;
constexpr std::uint32_t record_trace_id = 9;
constexpr std::uint32_t record_span_id = 10;
constexpr std::uint32_t observed_time_unix_nano = 11;

constexpr std::array<std::string_view, 7> own_keys{
    "tenant",           "enduser.id", "request_id", "code.file.path",
    "code.line.number", "truncated",  "logger"};

const OtlpKey& own_key(std::size_t which) {
  static const std::array<OtlpKey, own_keys.size()> keys{
      OtlpKey(own_keys[0]), OtlpKey(own_keys[1]), OtlpKey(own_keys[2]), OtlpKey(own_keys[3]),
      OtlpKey(own_keys[4]), OtlpKey(own_keys[5]), OtlpKey(own_keys[6])};
  return keys[which];
}

// SeverityNumber: four of each, the first of them the plain one (TRACE 1, DEBUG 5 ... FATAL 21).
constexpr std::uint64_t number_of(Severity severity) noexcept {
  return static_cast<std::uint64_t>(severity) * 4 + 1;
}

// Attribute keys of a record must differ, as they are written: what is no UTF-8 is replaced in them.
OtlpKey unique_key(std::string_view key, const std::vector<OtlpKey>& taken) {
  const bool is_own = std::find(own_keys.begin(), own_keys.end(), key) != own_keys.end();
  const std::string base = is_own ? "field." + std::string(key) : std::string(key);
  OtlpKey unique(base);
  const auto is_taken = [&](const OtlpKey& other) { return other.bytes() == unique.bytes(); };
  for (int n = 2; std::any_of(taken.begin(), taken.end(), is_taken); ++n) {
    unique = OtlpKey(base + "_" + std::to_string(n));
  }
  return unique;
}

void append_value(ValueReader& values, ValueType type, std::string_view key,
                  std::size_t string_bytes_max, ByteBuffer& out) {
  switch (type) {
    case ValueType::none:
      break;
    case ValueType::integer:
      append_attribute(out, record_attributes, key, static_cast<std::int64_t>(values.number()));
      break;
    case ValueType::unsigned_integer:
      append_attribute(out, record_attributes, key, values.number());
      break;
    case ValueType::real:
      append_attribute(out, record_attributes, key, std::bit_cast<double>(values.number()));
      break;
    case ValueType::boolean:
      append_attribute(out, record_attributes, key, values.boolean());
      break;
    case ValueType::string:
      append_attribute(out, record_attributes, key, cut_utf8(values.string(), string_bytes_max));
      break;
  }
}

}  // namespace

const OtlpLogEncoder::Template& OtlpLogEncoder::template_of(const SiteInfo& site) {
  const auto at = std::lower_bound(
      templates_.begin(), templates_.end(), &site,
      [](const auto& entry, const SiteInfo* wanted) { return std::less<>{}(entry.first, wanted); });
  if (at != templates_.end() && at->first == &site) return *at->second;
  auto made = std::make_unique<Template>();
  ByteBuffer fixed;
  append_varint_field(fixed, severity_number, number_of(site.severity));
  append_string_field(fixed, severity_text, to_string(site.severity));
  const std::size_t body = begin_nested(fixed, record_body);
  append_string_field(fixed, 1, site.message);
  end_nested(fixed, body);
  if (!site.logger.empty()) {
    append_attribute(fixed, record_attributes, own_key(6).bytes(), std::string_view(site.logger));
  }
  if (site.severity >= Severity::warn) {
    append_attribute(fixed, record_attributes, own_key(3).bytes(), std::string_view(site.file));
    append_attribute(fixed, record_attributes, own_key(4).bytes(), std::uint64_t{site.line});
  }
  made->fixed = fixed.view();
  for (const SiteField& field : site.fields)
    made->keys.push_back(unique_key(field.key, made->keys));
  return *templates_.emplace(at, &site, std::move(made))->second;
}

void OtlpLogEncoder::append_record(const LogView& log, const Template& fixed,
                                   std::size_t string_bytes_max, bool truncated,
                                   ByteBuffer& out) const {
  const std::size_t record = begin_nested(out, otlp_item_field);
  const auto time = static_cast<std::uint64_t>(std::max(log.time_ns, std::int64_t{0}));
  char* to = out.reserve(2 * 9 + fixed.fixed.size() + 18 + 10 + 5);
  *to++ = fixed64_tag(time_unix_nano);
  to = write_fixed64(to, time);
  *to++ = fixed64_tag(observed_time_unix_nano);
  to = write_fixed64(to, time);
  to = write_bytes(to, fixed.fixed);
  const ContextTexts& context = *log.context;
  if (context.trace_id) {
    *to++ = length_tag(record_trace_id);
    *to++ = 16;
    to = write_fixed64_big_endian(to, context.trace_id.high);
    to = write_fixed64_big_endian(to, context.trace_id.low);
    if (context.trace_flags != 0) {
      *to++ = tag(record_flags, WireType::fixed32);
      const std::uint32_t flags = context.trace_flags;
      std::memcpy(to, &flags, sizeof flags);
      to += sizeof flags;
    }
  }
  if (log.span_id != 0) {
    *to++ = length_tag(record_span_id);
    *to++ = 8;
    to = write_fixed64_big_endian(to, log.span_id);
  }
  out.advance_to(to);
  const std::array<std::string_view, 3> behalf{context.tenant, context.user, context.request_id};
  for (std::size_t i = 0; i < behalf.size(); ++i) {
    if (!behalf[i].empty()) {
      append_attribute(out, record_attributes, own_key(i).bytes(),
                       cut_utf8(behalf[i], string_bytes_max));
    }
  }
  ValueReader values(log.values);
  for (std::size_t i = 0; i < fixed.keys.size(); ++i) {
    append_value(values, log.site->fields[i].type, fixed.keys[i].bytes(), string_bytes_max, out);
  }
  if (truncated) append_attribute(out, record_attributes, own_key(5).bytes(), true);
  end_nested(out, record);
}

void OtlpLogEncoder::append(const LogView& log, std::size_t bytes_max, ByteBuffer& out) {
  const Template& fixed = template_of(*log.site);
  const std::size_t start = out.size();
  append_record(log, fixed, ~std::size_t{0}, false, out);
  // Half the longest string each time: bytes that are no UTF-8 become three each.
  for (std::size_t longest = bytes_max; longest > 0 && out.size() - start > bytes_max;) {
    longest /= 2;
    out.truncate(start);
    append_record(log, fixed, longest, true, out);
  }
}

}  // namespace spillway::detail
