// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>
#include <utility>

#include <spillway/encoders/fields.hpp>
#include <spillway/encoders/json.hpp>

namespace spillway::detail {
namespace {

// Deeper than anybody reads; keys with more names stand as they are.
constexpr std::size_t key_names_max = 8;

/// A key of the user's that cannot be taken for one of ours, nor for another one of the same object.
template <class IsTaken>
std::string unique_key(std::string_view key, std::span<const std::string_view> own_keys,
                       const IsTaken& is_taken) {
  std::string base(key);
  if (std::find(own_keys.begin(), own_keys.end(), key) != own_keys.end()) base = "field." + base;
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
std::vector<Member> members_of(const std::vector<SiteField>& fields,
                               std::span<const std::string_view> own_keys) {
  Member root;
  for (std::size_t i = 0; i < fields.size(); ++i) {
    if (fields[i].role != FieldRole::property) {
      root.members.push_back({fields[i].key, fields[i].key, i, {}});
    }
  }
  for (std::size_t i = 0; i < fields.size(); ++i) {
    if (fields[i].role != FieldRole::property) continue;
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
      std::string key = unique_key(
          names[level], level == 0 ? own_keys : std::span<const std::string_view>(), is_taken);
      object = &members.emplace_back(Member{std::string(names[level]), std::move(key), i, {}});
    }
  }
  return std::move(root.members);
}

char* write_member(char* to, std::string_view key, std::string_view value) noexcept {
  return value.empty() ? to : write_json_string(write_bytes(to, key), value);
}

void append_members(const std::vector<Member>& members, bool at_top, std::string& before,
                    FieldLayout& layout) {
  for (const Member& member : members) {
    if (at_top || &member != members.data()) before += ',';
    before.append(json_of(member.key)).append(":");
    if (member.is_object()) {
      before += '{';
      append_members(member.members, false, before, layout);
      before += '}';
    } else {
      layout.keys.push_back(std::exchange(before, {}));
      layout.order.push_back(member.field);
    }
  }
}

}  // namespace

std::string json_of(std::string_view text) {
  ByteBuffer buffer;
  append_json_string(buffer, text);
  return std::string(buffer.view());
}

void append_member(std::string_view key, ValueReader& values, ValueType type,
                   std::size_t string_bytes_max, ByteBuffer& out) {
  char* to = write_bytes(out.reserve(key.size() + number_bytes_max), key);
  switch (type) {
    case ValueType::none:
      break;
    case ValueType::integer:
      to = write_number(to, static_cast<std::int64_t>(values.number()));
      break;
    case ValueType::unsigned_integer:
      to = write_number(to, values.number());
      break;
    case ValueType::real:
      to = write_number(to, std::bit_cast<double>(values.number()));
      break;
    case ValueType::boolean:
      to = values.boolean() ? write_bytes(to, "true") : write_bytes(to, "false");
      break;
    case ValueType::string:
      out.advance_to(to);
      return append_json_string(out, cut_utf8(values.string(), string_bytes_max));
  }
  out.advance_to(to);
}

void skip_value(ValueReader& values, ValueType type) noexcept {
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

char* write_identity(char* to, const ContextTexts& context) noexcept {
  to = write_member(to, ",\"tenant\":", context.tenant);
  to = write_member(to, ",\"user\":", context.user);
  to = write_member(to, ",\"request_id\":", context.request_id);
  if (!context.trace_id) return to;
  to = write_bytes(to, ",\"trace_id\":\"");
  to = write_xray_trace_id(to, context.trace_id);
  *to++ = '"';
  return to;
}

std::size_t identity_bytes_max(const ContextTexts& context) noexcept {
  constexpr std::size_t keys_and_trace_id_bytes = 96;
  return keys_and_trace_id_bytes + json_string_bytes_max(context.tenant) +
         json_string_bytes_max(context.user) + json_string_bytes_max(context.request_id);
}

char* write_span_id(char* to, std::uint64_t span_id) noexcept {
  to = write_bytes(to, ",\"span_id\":\"");
  to = write_hex16(to, span_id);
  *to++ = '"';
  return to;
}

FieldLayout layout_of(const std::vector<SiteField>& fields,
                      std::span<const std::string_view> own_keys) {
  FieldLayout layout;
  append_members(members_of(fields, own_keys), true, layout.tail, layout);
  if (std::is_sorted(layout.order.begin(), layout.order.end())) layout.order.clear();
  return layout;
}

void append_fields(const FieldLayout& layout, const std::vector<SiteField>& fields,
                   std::span<const std::byte> values, std::size_t string_bytes_max,
                   std::vector<ValueReader>& scratch, ByteBuffer& out) {
  ValueReader reader(values);
  if (layout.order.empty()) {
    for (std::size_t i = 0; i < layout.keys.size(); ++i) {
      append_member(layout.keys[i], reader, fields[i].type, string_bytes_max, out);
    }
    return;
  }
  scratch.clear();
  for (const SiteField& field : fields) {
    scratch.push_back(reader);
    skip_value(reader, field.type);
  }
  for (std::size_t i = 0; i < layout.keys.size(); ++i) {
    const std::size_t field = layout.order[i];
    append_member(layout.keys[i], scratch[field], fields[field].type, string_bytes_max, out);
  }
}

}  // namespace spillway::detail
