// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include <spillway/buffers/names.hpp>
#include <spillway/engine/record_redactor.hpp>

namespace spillway::detail {

const RecordRedactor::Site& RecordRedactor::site_of(const SiteInfo& info, std::uint32_t number) {
  if (number >= sites_.size()) sites_.resize(number + 1 + number / 2);
  Site& site = sites_[number];
  if (site.known) return site;
  bool numbers_are_secret = false;
  for (std::size_t i = 0; i < info.fields.size(); ++i) {
    const bool is_string = info.fields[i].type == ValueType::string;
    site.has_strings |= is_string;
    if (info.fields[i].role == FieldRole::metric) continue;  // "PasswordResets" counts them.
    if (!redactor_.is_secret(info.fields[i].key)) continue;
    site.secrets |= std::uint64_t{1} << i;
    numbers_are_secret |= !is_string;
  }
  if (numbers_are_secret) {
    site.replacement = std::make_unique<SiteInfo>(info);
    for (std::size_t i = 0; i < info.fields.size(); ++i) {
      if ((site.secrets >> i & 1U) != 0) site.replacement->fields[i].type = ValueType::string;
    }
  }
  site.known = true;
  return site;
}

bool RecordRedactor::is_secret_name(std::uint32_t name) {
  if (name >= names_.size()) names_.resize(name + 1 + name / 2);
  std::uint8_t& known = names_[name];
  if (known == 0) known = redactor_.is_secret(name_of(name)) ? 2 : 1;
  return known == 2;
}

void RecordRedactor::append(const void* bytes, std::size_t size) {
  const auto* const begin = static_cast<const std::byte*>(bytes);
  packed_.insert(packed_.end(), begin, begin + size);
}

void RecordRedactor::append_text(std::string_view text) {
  const auto size = static_cast<std::uint32_t>(text.size());
  append(&size, sizeof size);
  append(text.data(), text.size());
}

void RecordRedactor::copy_up_to(std::span<const std::byte> from, std::span<const std::byte> rest) {
  const std::size_t end = from.size() - rest.size();
  append(from.data() + copied_, end - copied_);
  copied_ = end;
}

void RecordRedactor::redact(LogView& log, std::uint32_t number) {
  if (!active_) return;
  const Site& site = site_of(*log.site, number);
  if (!site.has_strings && site.secrets == 0) return;
  packed_.clear();
  copied_ = 0;
  ValueReader values(log.values);
  for (std::size_t i = 0; i < log.site->fields.size(); ++i) {
    const std::span<const std::byte> here = values.rest();
    const bool is_secret = (site.secrets >> i & 1U) != 0;
    switch (log.site->fields[i].type) {
      case ValueType::string: {
        const std::string_view text = values.string();
        const std::string_view kept = is_secret ? Redactor::mark : redactor_.text(text);
        if (kept.data() == text.data()) continue;
        copy_up_to(log.values, here);
        append_text(kept);
        break;
      }
      case ValueType::none:
        continue;
      case ValueType::boolean:
        values.boolean();
        if (!is_secret) continue;
        copy_up_to(log.values, here);
        append_text(Redactor::mark);
        break;
      default:
        values.number();
        if (!is_secret) continue;
        copy_up_to(log.values, here);
        append_text(Redactor::mark);
    }
    copied_ = log.values.size() - values.rest().size();
  }
  if (packed_.empty()) return;
  copy_up_to(log.values, {});
  if (site.replacement != nullptr) log.site = site.replacement.get();
  log.values = packed_;
}

std::span<const std::byte> RecordRedactor::redact(std::span<const std::byte> entries) {
  if (!active_) return entries;
  packed_.clear();
  copied_ = 0;
  for (ValueReader reader(entries); !reader.empty();) {
    const std::span<const std::byte> here = reader.rest();
    const EntryHeader header = reader.entry();
    const bool is_secret = is_secret_name(header.name());
    std::string_view kept = Redactor::mark;
    if (header.type() == ValueType::string) {
      const std::string_view text = reader.string();
      if (!is_secret) kept = redactor_.text(text);
      if (kept.data() == text.data()) continue;
    } else {
      reader.number();
      if (!is_secret) continue;
    }
    copy_up_to(entries, here);
    const std::uint32_t string_header =
        EntryHeader::pack(header.name(), header.entry_class(), ValueType::string);
    append(&string_header, sizeof string_header);
    append_text(kept);
    copied_ = entries.size() - reader.rest().size();
  }
  if (packed_.empty()) return entries;
  copy_up_to(entries, {});
  return packed_;
}

bool RecordRedactor::redact(std::string& text) {
  const std::string_view kept = redactor_.text(text);
  if (kept.data() == text.data()) return false;
  text = kept;
  return true;
}

}  // namespace spillway::detail
