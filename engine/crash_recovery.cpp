// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include <spillway/buffers/batch.hpp>
#include <spillway/engine/crash_recovery.hpp>
#include <spillway/transport/url.hpp>

namespace spillway::detail {

using transport::Disk;

namespace {

// A lane's file is its ring, at most 16 MiB, and little more; the names of a program are fewer.
constexpr std::uint64_t file_bytes_max = 256U << 20;
constexpr std::uint32_t head_bytes_max = 1U << 20;

template <class T>
bool take(std::string_view& bytes, T& value) noexcept {
  if (bytes.size() < sizeof value) return false;
  std::memcpy(&value, bytes.data(), sizeof value);
  bytes.remove_prefix(sizeof value);
  return true;
}
bool take_text(std::string_view& bytes, std::string& text) {
  std::uint32_t size = 0;
  if (!take(bytes, size) || size > bytes.size()) return false;
  text = bytes.substr(0, size);
  bytes.remove_prefix(size);
  return true;
}

std::optional<std::string> contents(Disk& disk, Disk::Handle directory, const std::string& name) {
  std::uint64_t size = 0;
  const Disk::Handle file = disk.open(directory, name, size);
  if (file < 0) return std::nullopt;
  std::string text;
  bool good = size <= file_bytes_max;
  if (good) text.resize(size);
  for (std::uint64_t got = 0; good && got < size;) {
    const std::int64_t more = disk.read(file, text.data() + got, size - got);
    good = more > 0;
    got += static_cast<std::uint64_t>(std::max(more, std::int64_t{0}));
  }
  disk.close(file);
  return good ? std::optional(std::move(text)) : std::nullopt;
}

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

}  // namespace

struct CrashRecovery::DeadProcess {
  CrashClock clock{};
  CrashClock::Anchor anchor{};
  std::unordered_map<std::uint32_t, std::string> names;
  std::unordered_map<std::uint32_t, SiteInfo> sites;

  bool read_clock(std::string_view bytes) {
    if (!take(bytes, clock) ||
        std::memcmp(clock.magic, CrashClock::expected_magic, sizeof clock.magic) != 0 ||
        clock.version != CrashClock::current_version || clock.ring_bytes < Ring::capacity_min ||
        clock.ring_bytes > Ring::capacity_max || (clock.ring_bytes & (clock.ring_bytes - 1)) != 0 ||
        clock.head_bytes > head_bytes_max ||
        clock.published_at + std::uint64_t{8} > clock.head_bytes ||
        clock.released_at + std::uint64_t{8} > clock.head_bytes) {
      return false;
    }
    anchor = clock.anchors[clock.anchors[0].number < clock.anchors[1].number ? 1 : 0];
    return anchor.number != 0 && anchor.ns_per_tick > 0 && anchor.ns_per_tick < 1e6;
  }

  void read_names(std::string_view bytes) {
    CrashName head{};
    while (take(bytes, head) && head.bytes <= bytes.size()) {
      std::string_view text = bytes.substr(0, head.bytes);
      bytes.remove_prefix(head.bytes);
      if (head.kind == CrashName::name) {
        names[head.id] = text;
      } else if (head.kind == CrashName::site) {
        read_site(head, text);
      }
    }
  }
  void read_site(const CrashName& head, std::string_view text) {
    SiteInfo site{static_cast<Severity>(
                      std::min(head.numbers[0], static_cast<std::uint32_t>(Severity::fatal))),
                  {},
                  {},
                  head.numbers[1],
                  {}};
    if (!take_text(text, site.message) || !take_text(text, site.file)) return;
    for (std::uint32_t i = 0; i < head.numbers[2]; ++i) {
      SiteField field{};
      std::uint32_t type = 0;
      if (!take(text, type) || type > static_cast<std::uint32_t>(ValueType::string) ||
          !take_text(text, field.key)) {
        return;
      }
      field.type = static_cast<ValueType>(type);
      site.fields.push_back(std::move(field));
    }
    sites.insert_or_assign(head.id, std::move(site));
  }

  std::int64_t wall_ns(std::uint64_t ticks) const noexcept {
    const auto distance = static_cast<std::int64_t>(ticks - anchor.ticks);
    constexpr double ns_max = 4e18;  // Of damaged numbers: no sum overflows below it.
    const double ns =
        std::clamp(static_cast<double>(distance) * anchor.ns_per_tick, -ns_max, ns_max);
    const std::int64_t from =
        anchor.wall_ns > 0 && anchor.wall_ns < std::int64_t{1} << 62 ? anchor.wall_ns : 0;
    return from + std::llround(ns);
  }

  std::string_view name(std::uint32_t id) const {
    const auto found = names.find(id);
    return name_of(found == names.end() ? 0 : intern_name(found->second));
  }

  /// A span's entries with numbers of this process for their names, up to what is damaged.
  std::string translated(std::span<const std::byte> entries) const {
    std::string out;
    std::string_view rest(reinterpret_cast<const char*>(entries.data()), entries.size());
    EntryHeader header{};
    while (take(rest, header)) {
      std::size_t bytes = header.type() == ValueType::none ? 0 : 8;
      if (header.type() == ValueType::string) {
        std::uint32_t size = 0;
        if (rest.size() < sizeof size) break;
        std::memcpy(&size, rest.data(), sizeof size);
        bytes = sizeof size + std::size_t{size};
      }
      if (bytes > rest.size() || header.type() > ValueType::string) break;
      const auto found = names.find(header.name());
      const EntryHeader ours{
          EntryHeader::pack(found == names.end() ? 0 : intern_name(found->second),
                            header.entry_class(), header.type())};
      out.append(reinterpret_cast<const char*>(&ours), sizeof ours);
      out.append(rest.substr(0, bytes));
      rest.remove_prefix(bytes);
    }
    return out;
  }

  /// False: it is no record.
  bool read_record(const RecordHeader& header, std::span<const std::byte> body,
                   RecoveredRecords& records, Counts& counts) const {
    switch (header.kind()) {
      case RecordKind::skip:
      case RecordKind::event:
      case RecordKind::sample:
      case RecordKind::request_end:
        return true;
      case RecordKind::context: {
        ContextBody context{};
        if (body.size() < sizeof context) return false;
        std::memcpy(&context, body.data(), sizeof context);
        if (body.size() - sizeof context <
            std::size_t{context.tenant_bytes} + context.user_bytes + context.request_id_bytes) {
          return false;
        }
        records.on_context(body);
        return true;
      }
      case RecordKind::log:
      case RecordKind::logger_log: {
        ValueReader values(body);
        const std::uint64_t span_id = values.number();
        // What a logger adds was in the dead process's memory.
        if (header.kind() == RecordKind::logger_log) values.number();
        const auto site = sites.find(header.id);
        const SiteInfo& known = site == sites.end() ? site_of(0) : site->second;
        records.on_log(known, header.id, wall_ns(header.ticks), span_id, values.rest());
        ++counts.logs;
        return true;
      }
      case RecordKind::span: {
        SpanBody span{};
        if (body.size() < sizeof span) return false;
        std::memcpy(&span, body.data(), sizeof span);
        body = body.subspan(sizeof span);
        if (span.entry_bytes > body.size()) return false;
        if ((span.flags & span_in_progress) != 0) return true;  // Its end is the record of it.
        const std::string entries = translated(body.first(span.entry_bytes));
        span.entry_bytes = static_cast<std::uint32_t>(entries.size());
        records.on_span(name(header.id), wall_ns(span.start_ticks), wall_ns(header.ticks), span,
                        bytes_of(entries));
        ++counts.spans;
        return true;
      }
      case RecordKind::span_part: {
        SpanPartBody part{};
        if (body.size() < sizeof part) return false;
        std::memcpy(&part, body.data(), sizeof part);
        body = body.subspan(sizeof part);
        if (part.entry_bytes > body.size()) return false;
        records.on_span_part(part.span_id, bytes_of(translated(body.first(part.entry_bytes))));
        return true;
      }
    }
    return false;
  }

  void read_lane(const std::string& file, RecoveredRecords& records, Counts& counts) const {
    const std::size_t ring_bytes = clock.ring_bytes;
    if (file.size() != clock.head_bytes + ring_bytes + 2 * sizeof(CrashContext)) return;
    records.begin_lane();
    std::uint64_t head = 0;
    std::uint64_t at = 0;
    std::memcpy(&head, file.data() + clock.published_at, sizeof head);
    std::memcpy(&at, file.data() + clock.released_at, sizeof at);
    if (head < at || head - at > ring_bytes || head % 8 != 0 || at % 8 != 0) {
      counts.unreadable_bytes += ring_bytes;
      return;
    }
    read_context(file, at, records, counts);
    const std::span<const std::byte> ring = bytes_of(file).subspan(clock.head_bytes, ring_bytes);
    while (at != head) {
      const std::size_t offset = at & (ring_bytes - 1);
      RecordHeader header{};
      std::memcpy(&header.size_and_kind, ring.data() + offset, sizeof header.size_and_kind);
      const std::size_t bytes = header.bytes();
      const bool is_skip = header.kind() == RecordKind::skip;
      bool good = bytes >= (is_skip ? 8 : sizeof header) && bytes % 8 == 0 && bytes <= head - at &&
                  offset + bytes <= ring_bytes;
      if (good && !is_skip) {
        std::memcpy(&header, ring.data() + offset, sizeof header);
        good = read_record(header, ring.subspan(offset + sizeof header, bytes - sizeof header),
                           records, counts);
      }
      if (!good) {
        counts.unreadable_bytes += head - at;
        return;
      }
      at += bytes;
    }
  }

  /// On whose behalf the first record was made, if that was said before it.
  void read_context(const std::string& file, std::uint64_t released, RecoveredRecords& records,
                    Counts& counts) const {
    const char* const slots = file.data() + clock.head_bytes + clock.ring_bytes;
    CrashContext newest{};
    for (int i = 0; i < 2; ++i) {
      CrashContext slot{};
      std::memcpy(&slot, slots + static_cast<std::size_t>(i) * sizeof slot, sizeof slot);
      if (slot.valid_from > newest.valid_from && slot.valid_from <= released) newest = slot;
    }
    RecordHeader header{};
    if (newest.valid_from == 0 || newest.bytes < sizeof header ||
        newest.bytes > CrashContext::record_bytes_max) {
      return;
    }
    std::memcpy(&header, newest.record, sizeof header);
    if (header.kind() != RecordKind::context) return;
    read_record(header,
                std::span<const std::byte>(newest.record)
                    .subspan(sizeof header, newest.bytes - sizeof header),
                records, counts);
  }
};

std::unique_ptr<CrashRecovery> CrashRecovery::find(const std::string& directory,
                                                   const std::string& service,
                                                   const std::string& own_box) {
  std::unique_ptr<CrashRecovery> found(new CrashRecovery);
  Disk& disk = *found->disk_;
  const Disk::Handle parent = disk.open_directory(Disk::no_parent, directory);
  if (parent < 0) return nullptr;
  std::vector<std::string> names;
  disk.list(parent, names);
  std::sort(names.begin(), names.end());
  const std::string prefix = transport::percent_encode(service) + ".";
  for (const std::string& name : names) {
    if (!name.starts_with(prefix) || name == own_box ||
        name.find_first_not_of("0123456789", prefix.size()) != std::string::npos) {
      continue;
    }
    Box box;
    box.handle = disk.open_directory(parent, name);
    if (box.handle < 0) continue;
    if (disk.lock(box.handle) >= 0 && disk.list(box.handle, box.files) >= 0 && !box.files.empty()) {
      std::sort(box.files.begin(), box.files.end());
      found->boxes_.push_back(std::move(box));
    } else {
      disk.close(box.handle);
    }
  }
  disk.close(parent);
  return found->boxes_.empty() ? nullptr : std::move(found);
}

CrashRecovery::~CrashRecovery() {
  for (const Box& box : boxes_) disk_->close(box.handle);
}

CrashRecovery::Counts CrashRecovery::read(RecoveredRecords& records) {
  Counts counts;
  for (const Box& box : boxes_) read_box(box, records, counts);
  return counts;
}

void CrashRecovery::read_box(const Box& box, RecoveredRecords& records, Counts& counts) {
  DeadProcess dead;
  const auto clock = contents(*disk_, box.handle, "clock");
  if (!clock || !dead.read_clock(*clock)) return;
  ++counts.processes;
  records.begin_process();
  if (const auto names = contents(*disk_, box.handle, "names")) dead.read_names(*names);
  for (const std::string& file : box.files) {
    if (!file.starts_with("lane-")) continue;
    if (const auto lane = contents(*disk_, box.handle, file)) {
      dead.read_lane(*lane, records, counts);
    }
  }
}

void CrashRecovery::remove() noexcept {
  for (const Box& box : boxes_) {
    for (const std::string& file : box.files) disk_->remove(box.handle, file);
  }
}

}  // namespace spillway::detail
