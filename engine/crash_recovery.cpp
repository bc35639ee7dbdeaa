// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <optional>

#include <spillway/buffers/batch.hpp>
#include <spillway/engine/crash_recovery.hpp>
#include <spillway/transport/text.hpp>
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

constexpr std::string_view lane_prefix = "lane-";
constexpr std::string_view bad_prefix = "bad-";
constexpr std::string_view metrics_name = "metrics";
constexpr std::string_view metrics_settled = "metrics.metrics";
constexpr std::array<std::string_view, signal_count> settled_suffixes{".metrics", ".logs",
                                                                      ".spans"};

/// `refused`: it is there, and the disk does not give it now; `lost`: nor will it.
enum class FileState : std::uint8_t { read, missing, refused, lost };

FileState read_file(Disk& disk, Disk::Handle directory, const std::string& name,
                    std::string& text) {
  std::uint64_t size = 0;
  const Disk::Handle file = disk.open(directory, name, size);
  if (file == -ENOENT) return FileState::missing;
  if (file < 0) return file == -EIO ? FileState::lost : FileState::refused;
  if (size > file_bytes_max) {
    disk.close(file);
    return FileState::lost;
  }
  std::int64_t more = 1;
  try {
    text.resize(size);
    for (std::uint64_t got = 0; more > 0 && got < size;) {
      more = disk.read(file, text.data() + got, size - got);
      got += static_cast<std::uint64_t>(std::max(more, std::int64_t{0}));
    }
  } catch (...) {
    disk.close(file);
    throw;
  }
  disk.close(file);
  return more > 0 ? FileState::read : more == -EIO ? FileState::lost : FileState::refused;
}

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

std::uint64_t size_of(Disk& disk, Disk::Handle directory, const std::string& name) {
  std::uint64_t size = 0;
  const Disk::Handle file = disk.open(directory, name, size);
  if (file < 0) return 0;
  disk.close(file);
  return size;
}

/// Not if all that can be had of it was, and the rest is put aside.
bool has_something(const std::vector<std::string>& files) {
  const auto any = [&](std::string_view prefix) {
    return std::any_of(files.begin(), files.end(),
                       [&](const std::string& name) { return name.starts_with(prefix); });
  };
  return !files.empty() && (any(lane_prefix) || !any(bad_prefix));
}

}  // namespace

struct CrashRecovery::DeadProcess {
  CrashClock clock{};
  CrashClock::Anchor anchor{};
  std::unordered_map<std::uint32_t, std::string> names;
  std::unordered_map<std::uint32_t, SiteInfo> sites;
  std::unordered_map<std::uint32_t, SeriesKey> series;
  CrashMetricsReader metrics;

  static bool is_of_another_version(std::string_view bytes) {
    CrashClock clock{};
    return take(bytes, clock) &&
           std::memcmp(clock.magic, CrashClock::expected_magic, sizeof clock.magic) == 0 &&
           clock.version != CrashClock::current_version;
  }
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
      } else if (head.kind == CrashName::series) {
        read_series(head, text);
      }
    }
  }
  void read_series(const CrashName& head, std::string_view text) {
    SeriesKey key;
    const std::uint32_t kind = head.numbers[0] & 0xFFU;
    const std::uint32_t unit = head.numbers[0] >> 8;
    if (kind >= metric_kind_count || unit > static_cast<std::uint32_t>(Unit::none) ||
        !take_text(text, key.name)) {
      return;
    }
    key.kind = static_cast<MetricKind>(kind);
    key.unit = static_cast<Unit>(unit);
    key.resolution = head.numbers[1] == 1 ? Resolution::second : Resolution::minute;
    for (std::uint32_t i = 0; i < head.numbers[2]; ++i) {
      Dimension dimension;
      if (!take_text(text, dimension.name) || !take_text(text, dimension.value)) return;
      key.dimensions.push_back(std::move(dimension));
    }
    series.insert_or_assign(head.id, std::move(key));
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
      std::uint32_t what = 0;
      if (!take(text, what) || !take_text(text, field.key)) return;
      const std::uint32_t type = what & 0xFFU;
      const std::uint32_t role = what >> 8 & 0xFFU;
      const std::uint32_t unit = what >> 16 & 0xFFU;
      if (type == static_cast<std::uint32_t>(ValueType::none) ||
          type > static_cast<std::uint32_t>(ValueType::string) ||
          role > static_cast<std::uint32_t>(FieldRole::metric) ||
          unit > static_cast<std::uint32_t>(Unit::none)) {
        return;
      }
      field.type = static_cast<ValueType>(type);
      field.role = static_cast<FieldRole>(role);
      field.unit = static_cast<Unit>(unit);
      field.high_resolution = what >> 24 != 0;
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
      case RecordKind::event: {
        ValueReader values(body);
        const std::uint64_t span_id = values.number();
        const auto site = sites.find(header.id);
        if (site == sites.end()) {  // Nothing says which of its values are measurements.
          counts.unreadable_bytes += body.size();
          return true;
        }
        records.on_event(site->second, header.id, wall_ns(header.ticks), span_id, values.rest());
        counts.measurements += measurements_of(site->second);
        return true;
      }
      case RecordKind::sample: {
        const auto found = series.find(header.id);
        double value = 0;
        if (body.size() < sizeof value) return false;
        std::memcpy(&value, body.data(), sizeof value);
        if (found == series.end() || !is_valid_measurement(value)) {
          counts.unreadable_bytes += body.size();
          return true;
        }
        records.on_sample(found->second, wall_ns(header.ticks), value);
        ++counts.measurements;
        return true;
      }
      case RecordKind::skip:
      case RecordKind::request_end:
        return true;
      case RecordKind::context: {
        ContextBody context{};
        if (body.size() < sizeof context) return false;
        std::memcpy(&context, body.data(), sizeof context);
        if (body.size() - sizeof context < std::size_t{context.tenant_bytes} + context.user_bytes +
                                               context.request_id_bytes +
                                               context.trace_state_bytes) {
          return false;
        }
        records.on_context(header.id, body);
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

  std::size_t lane_bytes() const noexcept {
    return clock.head_bytes + clock.ring_bytes + sizeof(CrashTail);
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
    const Disk::Handle handle = disk.open_directory(parent, name);
    if (handle < 0) continue;
    std::vector<std::string> files;
    if (disk.lock(handle) >= 0 && disk.list(handle, files) >= 0 && has_something(files)) {
      found->boxes_.push_back(sorted(handle, std::move(files)));
    } else {
      disk.close(handle);
    }
  }
  disk.close(parent);
  return found->boxes_.empty() ? nullptr : std::move(found);
}

std::optional<CrashRecovery::Counts> CrashRecovery::look_at(const std::string& box,
                                                            const std::string& lane,
                                                            RecoveredRecords& records) {
  CrashRecovery one;
  const Disk::Handle handle = one.disk_->open_directory(Disk::no_parent, box);
  if (handle < 0) return std::nullopt;
  one.boxes_.push_back(sorted(handle, {lane}));
  Box& only = one.boxes_.front();
  if (only.lanes.empty()) return std::nullopt;
  one.is_looking_ = true;
  one.open_box(records);
  if (one.dead_ == nullptr) return std::nullopt;
  LaneFile& file = only.lanes.front();
  const auto all = [] { return false; };
  if (file.is_metrics) {
    one.read_metrics(file, records, all);
  } else {
    one.open_lane(file, records);
    if (one.lane_) one.read_lane(file, records, all);
  }
  return one.counts_;
}

CrashRecovery::Box CrashRecovery::sorted(Disk::Handle handle, std::vector<std::string> names) {
  Box box;
  box.handle = handle;
  std::sort(names.begin(), names.end());
  box.others.reserve(names.size() + 1);
  for (std::string& name : names) {
    const bool is_metrics = name == metrics_name || name == metrics_settled;
    if (!is_metrics && !name.starts_with(lane_prefix)) {
      box.others.push_back(std::move(name));
      continue;
    }
    LaneFile lane;
    lane.is_metrics = is_metrics;
    if (is_metrics) {
      lane.settled[static_cast<std::size_t>(Signal::metrics)] = name == metrics_settled;
      lane.name = std::move(name);
      box.lanes.insert(box.lanes.begin(), std::move(lane));
      continue;
    }
    const std::string_view rest = std::string_view(name).substr(lane_prefix.size());
    lane.number = transport::parse_number<std::uint64_t>(rest.substr(0, rest.find('.')))
                      .value_or(~std::uint64_t{0});
    for (std::size_t i = 0; i < signal_count; ++i) {
      lane.settled[i] = name.find(settled_suffixes[i]) != std::string::npos;
    }
    lane.name = std::move(name);
    box.lanes.push_back(std::move(lane));
  }
  return box;
}

CrashRecovery::CrashRecovery() = default;
CrashRecovery::~CrashRecovery() {
  for (const Box& box : boxes_) {
    if (!box.gone) disk_->close(box.handle);
  }
}

// What can run out of memory comes before the place that is remembered moves on.
void CrashRecovery::read(RecoveredRecords& records, const std::function<bool()>& enough) {
  while (!is_read()) {
    if (enough()) return;
    if (dead_ == nullptr) {
      open_box(records);
      continue;
    }
    std::vector<LaneFile>& lanes = boxes_[box_].lanes;
    if (file_ == lanes.size()) {
      end_box();
      continue;
    }
    if (lanes[file_].is_metrics) {
      if (!read_metrics(lanes[file_], records, enough)) return;
      lanes[file_++].is_read = true;
      continue;
    }
    if (!lane_) open_lane(lanes[file_], records);
    if (lane_) {
      if (!read_lane(lanes[file_], records, enough)) return;
      lane_.reset();
    }
    lanes[file_++].is_read = true;
  }
}

void CrashRecovery::open_box(RecoveredRecords& records) {
  Box& box = boxes_[box_];
  auto dead = std::make_unique<DeadProcess>();
  std::string text;
  const FileState ledger = is_looking_ || box.has_drops
                               ? FileState::missing
                               : read_file(*disk_, box.handle, "ledger", text);
  if (ledger == FileState::read) {
    if (const auto drops = read_ledger_file(text)) {
      box.has_drops = true;
      counts_.dropped += drops->total();
      records.on_drops(*drops);
    }
  }
  const FileState clock = ledger == FileState::refused
                              ? FileState::refused
                              : read_file(*disk_, box.handle, "clock", text);
  const bool is_good = clock == FileState::read && dead->read_clock(text);
  std::string names;
  const FileState names_state =
      is_good ? read_file(*disk_, box.handle, "names", names) : FileState::missing;
  FileState metrics_state = FileState::missing;
  LaneFile* const metrics =
      !box.lanes.empty() && box.lanes.front().is_metrics ? &box.lanes.front() : nullptr;
  if (is_good && names_state != FileState::refused && metrics != nullptr) {
    std::string bytes;
    metrics_state = read_file(*disk_, box.handle, metrics->name, bytes);
    if (metrics_state == FileState::read) dead->metrics = CrashMetricsReader(std::move(bytes));
  }
  if (is_good && names_state != FileState::refused && metrics_state != FileState::refused) {
    if (names_state == FileState::read) dead->read_names(names);
    if (metrics_state == FileState::lost) put_aside(box, *metrics);
    ++counts_.processes;
    records.begin_process();
    dead_ = std::move(dead);
    return;
  }
  if (clock == FileState::refused || names_state == FileState::refused ||
      metrics_state == FileState::refused || DeadProcess::is_of_another_version(text)) {
    box.stays = true;
    ++counts_.left;
  } else {
    for (LaneFile& lane : box.lanes) {
      counts_.unreadable_bytes += size_of(*disk_, box.handle, lane.name);
      lane.is_read = true;
    }
  }
  end_box();
}

void CrashRecovery::end_box() noexcept {
  dead_.reset();
  file_ = 0;
  ++box_;
}

bool CrashRecovery::read_metrics(LaneFile& file, RecoveredRecords& records,
                                 const std::function<bool()>& enough) {
  constexpr auto metrics = static_cast<std::size_t>(Signal::metrics);
  const std::uint64_t settled = dead_->clock.settled_at_least(Signal::metrics);
  while (!enough()) {
    const CrashMetricsReader::Point* const point =
        file.settled[metrics] ? nullptr : dead_->metrics.next();
    if (point == nullptr) {
      counts_.unreadable_bytes += dead_->metrics.unreadable_bytes();
      return true;
    }
    if (point->head.sequence != 0 && point->head.sequence <= settled) continue;
    const auto series = dead_->series.find(point->head.series);
    if (series == dead_->series.end()) {
      counts_.unreadable_bytes += sizeof point->head;
      continue;
    }
    file.given[metrics] = true;
    counts_.measurements += point->head.records;
    records.on_point(series->second, *point);
  }
  return false;
}

void CrashRecovery::put_aside(Box& box, LaneFile& file) {
  counts_.unreadable_bytes += size_of(*disk_, box.handle, file.name);
  ++counts_.put_aside;
  if (is_looking_) return;
  const std::string aside = std::string(bad_prefix) + file.name;
  disk_->remove(box.handle, aside);
  // What cannot be put aside either is looked at again by the next engine.
  disk_->rename(box.handle, file.name, aside);
  file.stays = true;
}

void CrashRecovery::open_lane(LaneFile& file, RecoveredRecords& records) {
  Box& box = boxes_[box_];
  OpenLane lane;
  const FileState state = read_file(*disk_, box.handle, file.name, lane.bytes);
  if (state == FileState::lost) return put_aside(box, file);
  if (state == FileState::refused) {
    if (std::none_of(box.lanes.begin(), box.lanes.end(),
                     [](const LaneFile& one) { return one.stays; })) {
      ++counts_.left;
    }
    file.stays = true;
  }
  if (state != FileState::read || lane.bytes.empty()) return;  // Empty: it died while making it.
  const CrashClock& clock = dead_->clock;
  if (lane.bytes.size() != dead_->lane_bytes()) {
    counts_.unreadable_bytes += lane.bytes.size();
    return;
  }
  std::memcpy(&lane.head, lane.bytes.data() + clock.published_at, sizeof lane.head);
  std::memcpy(&lane.at, lane.bytes.data() + clock.released_at, sizeof lane.at);
  if (lane.head < lane.at || lane.head - lane.at > clock.ring_bytes || lane.head % 8 != 0 ||
      lane.at % 8 != 0) {
    counts_.unreadable_bytes += clock.ring_bytes;
    return;
  }
  read_marks(lane);
  records.begin_lane();
  dead_->read_context(lane.bytes, lane.at, records, counts_);
  lane_ = std::move(lane);
}

// How far the ring's records are settled though they are not struck.
void CrashRecovery::read_marks(OpenLane& lane) const noexcept {
  const CrashClock& clock = dead_->clock;
  const char* at =
      lane.bytes.data() + clock.head_bytes + clock.ring_bytes + offsetof(CrashTail, marks);
  for (std::uint32_t i = 0; i < CrashTail::mark_count; ++i, at += sizeof(CrashMark)) {
    CrashMark mark{};
    std::memcpy(&mark, at, sizeof mark);
    if (mark.check != mark.sum() || mark.position > lane.head || mark.signal >= signal_count) {
      continue;
    }
    if (mark.sequence > clock.settled_at_least(static_cast<Signal>(mark.signal))) continue;
    std::uint64_t& settled = lane.settled[mark.signal];
    settled = std::max(settled, mark.position);
  }
}

bool CrashRecovery::read_lane(LaneFile& file, RecoveredRecords& records,
                              const std::function<bool()>& enough) {
  const CrashClock& clock = dead_->clock;
  const std::size_t ring_bytes = clock.ring_bytes;
  const std::span<const std::byte> ring =
      bytes_of(lane_->bytes).subspan(clock.head_bytes, ring_bytes);
  std::uint64_t& at = lane_->at;
  while (at != lane_->head) {
    if (enough()) return false;
    const std::uint64_t left = lane_->head - at;
    const std::size_t offset = at & (ring_bytes - 1);
    RecordHeader header{};
    std::memcpy(&header.size_and_kind, ring.data() + offset, sizeof header.size_and_kind);
    const std::size_t bytes = header.bytes();
    const bool is_skip = header.kind() == RecordKind::skip;
    bool good = bytes >= (is_skip ? 8 : sizeof header) && bytes % 8 == 0 && bytes <= left &&
                offset + bytes <= ring_bytes;
    if (good && !is_skip) {
      std::memcpy(&header, ring.data() + offset, sizeof header);
      const auto signal = signal_of(header.kind());
      const auto index = static_cast<std::size_t>(signal.value_or(Signal::metrics));
      const bool is_settled =
          signal && (file.settled[index] ||
                     at < (is_aggregated(header.kind(), clock.events_are_aggregated != 0)
                               ? dead_->metrics.position_of(file.number)
                               : lane_->settled[index]));
      if (signal && !is_settled) file.given[index] = true;
      good = is_settled ||
             dead_->read_record(header, ring.subspan(offset + sizeof header, bytes - sizeof header),
                                records, counts_);
    }
    if (!good) {
      counts_.unreadable_bytes += left;
      return true;
    }
    at += bytes;
  }
  return true;
}

void CrashRecovery::forget_drops() noexcept try {
  for (Box& box : boxes_) {
    if (!box.has_drops || box.gone) continue;
    disk_->remove(box.handle, "ledger");
  }
} catch (const std::bad_alloc&) {  // It goes with its box.
}

void CrashRecovery::sealed(const Sequences& sequences) noexcept {
  for (std::size_t i = 0; i < boxes_.size() && i <= box_; ++i) {
    for (LaneFile& lane : boxes_[i].lanes) {
      if (!lane.is_read || std::exchange(lane.is_sealed, true)) continue;
      lane.sequences = sequences;
    }
  }
}

bool CrashRecovery::remove(const std::function<bool(Signal, std::uint64_t)>& settled,
                           const std::array<std::atomic<bool>, signal_count>& keep) noexcept {
  bool all = is_read();
  for (std::size_t i = 0; i < boxes_.size() && i <= box_; ++i) {
    Box& box = boxes_[i];
    if (box.gone || box.stays) continue;
    bool waits = i == box_;  // It is still being read.
    bool stays = false;
    for (LaneFile& lane : box.lanes) {
      if (lane.name.empty()) continue;  // Is gone.
      if (!lane.stays && !is_done(box, lane, settled, keep)) {
        waits |= !lane.stays;
      }
      stays |= lane.stays;
    }
    all &= !waits;
    if (waits) continue;
    box.stays = stays;
    if (stays) continue;
    for (const std::string& file : box.others) disk_->remove(box.handle, file);
    disk_->close(box.handle);
    box.gone = true;
  }
  return all;
}

// Whether the lane's file is gone.
bool CrashRecovery::is_done(Box& box, LaneFile& lane,
                            const std::function<bool(Signal, std::uint64_t)>& settled,
                            const std::array<std::atomic<bool>, signal_count>& keep) noexcept {
  if (!lane.is_sealed) return false;
  bool waits = false;
  bool kept = false;
  PerSignal now = lane.settled;
  for (const Signal signal : all_signals) {
    const auto index = static_cast<std::size_t>(signal);
    if (now[index] || !lane.given[index]) continue;
    if (!settled(signal, lane.sequences[index])) {
      waits = true;
    } else if (keep[index].load(std::memory_order_relaxed)) {
      kept = true;  // Behind settled(): what is dropped is said before it is settled.
    } else {
      now[index] = true;
    }
  }
  if (!waits && !kept && !lane.is_metrics) {
    disk_->remove(box.handle, lane.name);
    lane.name.clear();
    return true;
  }
  if (!waits && !kept) {
    // It goes with its box: how far it had read the rings that are left is in it.
    if (!lane.settled[static_cast<std::size_t>(Signal::metrics)]) {
      disk_->rename(box.handle, lane.name, std::string(metrics_settled));
    }
    box.others.emplace_back(metrics_settled);  // There is room for it.
    lane.name.clear();
    return true;
  }
  lane.stays = !waits;
  if (now == lane.settled) return false;
  try {
    std::string name = lane.name.substr(0, lane.name.find('.'));
    for (std::size_t i = 0; i < signal_count; ++i) {
      if (now[i]) name += settled_suffixes[i];
    }
    if (disk_->rename(box.handle, lane.name, name) >= 0) {
      lane.name = std::move(name);
      lane.settled = now;
    }
  } catch (const std::bad_alloc&) {  // Another time.
  }
  return false;
}

}  // namespace spillway::detail
