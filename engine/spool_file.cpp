// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cstddef>
#include <cstring>

#include <zlib.h>

#include <spillway/engine/spool_file.hpp>

namespace spillway::detail {
namespace {

constexpr std::string_view magic{"SPLSPOOL", 8};
constexpr std::uint32_t version = 1;

std::uint32_t crc_of(const void* bytes, std::size_t count) noexcept {
  return static_cast<std::uint32_t>(crc32_z(0, static_cast<const Bytef*>(bytes), count));
}
std::uint32_t crc_of(const SpoolHeader& header) noexcept {
  return crc_of(&header, offsetof(SpoolHeader, header_crc));
}

constexpr std::array<std::string_view, signal_count> signal_names{"metrics", "logs", "spans"};

void append_hex(std::string& text, std::uint64_t value, int digits) {
  for (int shift = 4 * (digits - 1); shift >= 0; shift -= 4) {
    text += "0123456789abcdef"[value >> shift & 15U];
  }
  text += '-';
}

/// Takes exactly `digits` lower-case hexadecimal digits and the dash behind them.
bool take_hex(std::string_view& text, std::size_t digits, std::uint64_t& value) noexcept {
  if (text.size() <= digits || text[digits] != '-') return false;
  value = 0;
  for (const char c : text.substr(0, digits)) {
    if (c >= '0' && c <= '9') {
      value = value << 4 | static_cast<std::uint64_t>(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      value = value << 4 | static_cast<std::uint64_t>(c - 'a' + 10);
    } else {
      return false;
    }
  }
  text.remove_prefix(digits + 1);
  return true;
}

}  // namespace

std::string_view signal_name(Signal signal) noexcept {
  return signal_names[static_cast<std::size_t>(signal)];
}

std::string SpoolName::text() const {
  std::string text;
  append_to(text);
  return text;
}

void SpoolName::append_to(std::string& text) const {
  append_hex(text, sequence, 16);
  append_hex(text, static_cast<std::uint64_t>(created_ms), 12);
  append_hex(text, records, 16);
  append_hex(text, items_done, 6);
  append_hex(text, bytes, 8);
  text.append(signal_name(signal)).append("-").append(destination);
}

std::optional<SpoolName> parse_spool_name(std::string_view text) {
  SpoolName name;
  std::uint64_t created = 0;
  std::uint64_t items_done = 0;
  std::uint64_t bytes = 0;
  if (!take_hex(text, 16, name.sequence) || !take_hex(text, 12, created) ||
      !take_hex(text, 16, name.records) || !take_hex(text, 6, items_done) ||
      !take_hex(text, 8, bytes)) {
    return std::nullopt;
  }
  const std::size_t dash = text.find('-');
  if (dash == std::string_view::npos) return std::nullopt;
  std::size_t signal = 0;
  while (signal < signal_count && signal_names[signal] != text.substr(0, dash)) ++signal;
  name.destination = text.substr(dash + 1);
  if (signal == signal_count || name.destination.empty() ||
      name.destination.size() > spool_destination_chars_max) {
    return std::nullopt;
  }
  name.created_ms = static_cast<std::int64_t>(created);
  name.items_done = static_cast<std::uint32_t>(items_done);
  name.bytes = static_cast<std::uint32_t>(bytes);
  name.signal = static_cast<Signal>(signal);
  return name;
}

void append_spool_file(const Payload& payload, std::string_view destination,
                       std::int64_t created_ms, ByteBuffer& out) {
  SpoolHeader header{};
  std::memcpy(header.magic, magic.data(), magic.size());
  header.version = version;
  header.items = static_cast<std::uint32_t>(payload.items.size());
  header.created_ms = created_ms;
  header.signal = static_cast<std::uint32_t>(payload.signal);
  destination = destination.substr(0, spool_destination_chars_max);
  std::memcpy(header.destination, destination.data(), destination.size());
  const std::size_t table_bytes = payload.items.size() * sizeof(SpoolItem);
  for (const PayloadItem& item : payload.items) header.bytes += item.bytes;
  char* const room = out.reserve(sizeof header + table_bytes + header.bytes);
  char* const table = room + sizeof header;
  char* text = table + table_bytes;
  for (std::size_t i = 0; i < payload.items.size(); ++i) {
    const PayloadItem& item = payload.items[i];
    const std::string_view bytes = payload.item(item);
    if (!bytes.empty()) std::memcpy(text, bytes.data(), bytes.size());
    const SpoolItem entry{item.bytes, crc_of(text, bytes.size()), item.records, item.time_ms,
                          item.id};
    std::memcpy(table + i * sizeof entry, &entry, sizeof entry);
    text += bytes.size();
  }
  header.table_crc = crc_of(table, table_bytes);
  header.header_crc = crc_of(header);
  std::memcpy(room, &header, sizeof header);
  out.advance_to(text);
}

std::optional<SpoolFile> read_spool_file(std::string_view bytes) {
  SpoolHeader header{};
  if (bytes.size() < sizeof header) return std::nullopt;
  std::memcpy(&header, bytes.data(), sizeof header);
  bytes.remove_prefix(sizeof header);
  const std::size_t table_bytes = std::size_t{header.items} * sizeof(SpoolItem);
  if (std::string_view(header.magic, sizeof header.magic) != magic || header.version != version ||
      header.header_crc != crc_of(header) || header.signal >= signal_count ||
      table_bytes > bytes.size() || header.table_crc != crc_of(bytes.data(), table_bytes)) {
    return std::nullopt;
  }
  SpoolFile file;
  file.signal = static_cast<Signal>(header.signal);
  file.destination.assign(header.destination,
                          strnlen(header.destination, sizeof header.destination));
  file.created_ms = header.created_ms;
  file.items.reserve(header.items);
  std::string_view rest = bytes.substr(table_bytes);
  for (std::size_t i = 0; i < header.items; ++i) {
    SpoolItem entry{};
    std::memcpy(&entry, bytes.data() + i * sizeof entry, sizeof entry);
    const std::string_view text = rest.substr(0, entry.bytes);
    rest.remove_prefix(text.size());
    const bool intact = text.size() == entry.bytes && crc_of(text.data(), text.size()) == entry.crc;
    file.items.push_back({entry, text, intact});
  }
  return file;
}

}  // namespace spillway::detail
