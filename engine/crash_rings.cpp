// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <spillway/engine/crash_rings.hpp>
#include <spillway/transport/url.hpp>

namespace spillway::detail {

using transport::Disk;

namespace {

constexpr std::uint32_t boxes_max = 256;
constexpr std::chrono::seconds anchor_interval{1};

/// What is mapped from files. A child of fork() would share it with its parent, and write into the
/// parent's rings: it gets copies of its own in place.
struct SharedPages {
  struct Region {
    std::byte* begin;
    std::size_t bytes;
    int file;
    std::size_t offset;
  };
  std::mutex mutex;
  std::vector<Region> regions;

  static SharedPages& all() {
    static auto* const instance =
        new SharedPages;  // Never destroyed: forks come until the very end.
    return *instance;
  }
  SharedPages() {
    pthread_atfork([] { all().mutex.lock(); }, [] { all().mutex.unlock(); },
                   [] {
                     for (const Region& one : all().regions) {
                       mmap(one.begin, one.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED,
                            one.file, static_cast<off_t>(one.offset));
                     }
                     all().mutex.unlock();
                   });
  }
  bool map(const Region& region) {
    const std::scoped_lock lock(mutex);
    regions.reserve(regions.size() + 1);
    if (mmap(region.begin, region.bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
             region.file, static_cast<off_t>(region.offset)) == MAP_FAILED) {
      return false;
    }
    regions.push_back(region);
    return true;
  }
  void forget(int file) {
    const std::scoped_lock lock(mutex);
    std::erase_if(regions, [file](const Region& one) { return one.file == file; });
  }
};

}  // namespace

// ---- Files ----

CrashRings::CrashRings(Parts parts) : parts_(std::move(parts)), process_(getpid()) {}

std::unique_ptr<CrashRings> CrashRings::open(Parts parts) {
  parts.service = transport::percent_encode(parts.service);
  std::unique_ptr<CrashRings> made(new CrashRings(std::move(parts)));
  if (!made->open_box() || !made->make_files()) {
    made->finish();
    return nullptr;
  }
  add_name_listener(*made);
  return made;
}

CrashRings::~CrashRings() {
  remove_name_listener(*this);
  finish();
  for (const int file : lane_files_) {
    SharedPages::all().forget(file);
    close(file);
  }
  for (CrashTail* const tail : tails_) {
    if (tail != nullptr) munmap(tail, sizeof *tail);
  }
  if (clock_ != nullptr) munmap(clock_, sizeof *clock_);
  if (names_ >= 0) close(names_);
  if (box_ >= 0) disk_->close(box_);
  if (directory_ >= 0) disk_->close(directory_);
}

void CrashRings::finish() noexcept {
  if (box_ < 0) return;
  const std::scoped_lock lock(lanes_mutex_);
  for (const std::string& file : files_) disk_->remove(box_, file);
  files_.clear();
}

void CrashRings::trouble(std::string_view what, int error) const {
  std::string message = "crash_dir " + parts_.directory + ": ";
  message.append(what).append(": ");
  message += error == -EPERM ? "it must be a directory of this user's that nobody else may write to"
                             : std::generic_category().message(-error);
  parts_.diagnostic(message + "; what is in rings will not outlive the process");
}

bool CrashRings::open_box() {
  const int made = disk_->make_directory(Disk::no_parent, parts_.directory);
  if (made < 0 && made != -EEXIST) {
    trouble("cannot be made", made);
    return false;
  }
  directory_ = disk_->open_directory(Disk::no_parent, parts_.directory);
  if (directory_ < 0) {
    trouble("cannot be opened", directory_);
    return false;
  }
  // The first one that is nobody's and has nothing in it.
  for (std::uint32_t number = 0; number < boxes_max; ++number) {
    box_name_ = parts_.service + "." + std::to_string(number);
    disk_->make_directory(directory_, box_name_);
    box_ = disk_->open_directory(directory_, box_name_);
    if (box_ < 0) continue;
    std::vector<std::string> names;
    if (disk_->lock(box_) >= 0 && disk_->list(box_, names) >= 0 && names.empty()) return true;
    disk_->close(std::exchange(box_, -1));
  }
  trouble("no directory in it is free", -EBUSY);
  return false;
}

bool CrashRings::make_files() {
  files_.emplace_back("names");
  names_ = openat(box_, "names", O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600);
  files_.emplace_back("metrics");
  files_.emplace_back("ledger");
  files_.emplace_back("clock");
  const int file = openat(box_, "clock", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  // Given its room now: a store to a page that the file system has no room for ends the process.
  int error = names_ < 0 || file < 0 ? errno : posix_fallocate(file, 0, sizeof(CrashClock));
  if (error == 0) {
    void* const memory =
        mmap(nullptr, sizeof(CrashClock), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    error = memory == MAP_FAILED ? errno : 0;
    if (error == 0) clock_ = new (memory) CrashClock;
  }
  if (file >= 0) close(file);
  if (error != 0) {
    trouble("cannot make files", -error);
    return false;
  }
  clock_->version = CrashClock::current_version;
  const auto ring_at = static_cast<std::size_t>(reinterpret_cast<const std::byte*>(&no_lane.ring) -
                                                reinterpret_cast<const std::byte*>(&no_lane));
  clock_->published_at = static_cast<std::uint32_t>(ring_at + Ring::published_offset());
  clock_->released_at = static_cast<std::uint32_t>(ring_at + Ring::released_offset());
  clock_->head_bytes = static_cast<std::uint32_t>(LaneSet::head_bytes());
  clock_->ring_bytes = parts_.ring_bytes;
  clock_->process = static_cast<std::uint64_t>(process_);
  for (const Signal signal : all_signals) settled(signal, 0);
  write_anchor();
  std::memcpy(clock_->magic, CrashClock::expected_magic, sizeof clock_->magic);
  return true;
}

void CrashRings::write_anchor() {
  constexpr std::uint64_t stretch = 1U << 30;
  CrashClock::Anchor anchor{};
  anchor.number = ++anchors_;
  anchor.ticks = parts_.clock->ticks();
  anchor.wall_ns = parts_.clock->wall_ns_of(anchor.ticks);
  // Ahead of the anchor, where no step of the wall clock lies in between.
  anchor.ns_per_tick =
      static_cast<double>(parts_.clock->wall_ns_of(anchor.ticks + stretch) - anchor.wall_ns) /
      static_cast<double>(stretch);
  CrashClock::Anchor& slot = clock_->anchors[anchors_ & 1];
  std::atomic_ref<std::uint64_t> number(slot.number);
  number.store(0, std::memory_order_relaxed);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  slot.ticks = anchor.ticks;
  slot.wall_ns = anchor.wall_ns;
  slot.ns_per_tick = anchor.ns_per_tick;
  number.store(anchor.number, std::memory_order_release);
}

bool CrashRings::attach(std::uint32_t index, std::byte* head, std::size_t head_bytes,
                        std::byte* ring, std::size_t ring_bytes) noexcept try {
  if (getpid() != process_) return false;
  const std::scoped_lock lock(lanes_mutex_);
  if (tails_.size() <= index) tails_.resize(index + 1);
  lane_files_.reserve(lane_files_.size() + 1);
  const std::string name = "lane-" + std::to_string(index);
  files_.push_back(name);
  const int file = openat(box_, name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0) {
    trouble("cannot make files", -errno);
    return false;
  }
  const std::size_t tail_at = head_bytes + ring_bytes;
  void* tail = MAP_FAILED;
  // Given its room now: a store to a page that the file system has no room for ends the process.
  if (posix_fallocate(file, 0, static_cast<off_t>(tail_at + sizeof(CrashTail))) == 0) {
    tail = mmap(nullptr, sizeof(CrashTail), PROT_READ | PROT_WRITE, MAP_SHARED, file,
                static_cast<off_t>(tail_at));
  }
  SharedPages& pages = SharedPages::all();
  bool mapped = false;
  try {
    mapped = tail != MAP_FAILED && pages.map({ring, ring_bytes, file, head_bytes}) &&
             pages.map({head, head_bytes, file, 0});
  } catch (const std::bad_alloc&) {
  }
  if (!mapped) {
    pages.forget(file);
    mmap(ring, ring_bytes, PROT_READ | PROT_WRITE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    if (tail != MAP_FAILED) munmap(tail, sizeof(CrashTail));
    disk_->remove(box_, name);
    close(file);
    trouble("has no room for a thread's ring", -ENOSPC);
    return false;
  }
  lane_files_.push_back(file);
  tails_[index] = static_cast<CrashTail*>(tail);
  return true;
} catch (...) {
  return false;
}

// ---- Names ----

// One call for an entry: the process may die between two.
bool CrashRings::append_name(const CrashName& head, std::string_view text) noexcept try {
  if (getpid() != process_) return true;  // A child's numbers are its own.
  std::string entry(reinterpret_cast<const char*>(&head), sizeof head);
  entry.append(text);
  const std::scoped_lock lock(names_mutex_);
  const ssize_t written = write(names_, entry.data(), entry.size());
  if (written == static_cast<ssize_t>(entry.size())) return true;
  const int error = written < 0 ? errno : ENOSPC;
  // A part of it would make all that comes behind it unreadable.
  const off_t end = lseek(names_, 0, SEEK_END);
  if (written > 0 && end >= written && ftruncate(names_, end - written) != 0) {
    trouble("cannot take back a part of a name", -errno);
  }
  trouble("cannot write down a name", -error);
  return false;
} catch (...) {  // No memory: what refers to it cannot be read afterwards.
  return false;
}

void CrashRings::on_name(std::uint32_t id, std::string_view name) noexcept {
  append_name({CrashName::name, id, static_cast<std::uint32_t>(name.size()), {}}, name);
}

void CrashRings::on_site(std::uint32_t id, const SiteInfo& site) noexcept try {
  std::string text;
  const auto append_number = [&](std::uint32_t number) {
    text.append(reinterpret_cast<const char*>(&number), sizeof number);
  };
  const auto append_text = [&](std::string_view part) {
    append_number(static_cast<std::uint32_t>(part.size()));
    text.append(part);
  };
  append_text(site.message);
  append_text(site.file);
  for (const SiteField& field : site.fields) {
    append_number(
        static_cast<std::uint32_t>(field.type) | static_cast<std::uint32_t>(field.role) << 8 |
        static_cast<std::uint32_t>(field.unit) << 16 | (field.high_resolution ? 1U : 0U) << 24);
    append_text(field.key);
  }
  append_name({CrashName::site,
               id,
               static_cast<std::uint32_t>(text.size()),
               {static_cast<std::uint32_t>(site.severity), site.line,
                static_cast<std::uint32_t>(site.fields.size())}},
              text);
} catch (...) {
}

void CrashRings::on_series(const Series& series) noexcept try {
  // A child's series are its own, and the flusher may have held the lock when it was forked.
  if (series.refusal != Refusal::none || getpid() != process_) return;
  const std::scoped_lock lock(series_mutex_);
  if (series.id < known_series_.size() && known_series_[series.id]) return;
  if (series.id >= known_series_.size()) known_series_.resize(series.id + 1 + series.id / 2);
  std::string text;
  const auto append_text = [&](std::string_view part) {
    const auto size = static_cast<std::uint32_t>(part.size());
    text.append(reinterpret_cast<const char*>(&size), sizeof size);
    text.append(part);
  };
  const SeriesKey& key = series.key;
  append_text(key.name);
  for (const Dimension& dimension : key.dimensions) {
    append_text(dimension.name);
    append_text(dimension.value);
  }
  known_series_[series.id] = append_name(
      {CrashName::series,
       series.id,
       static_cast<std::uint32_t>(text.size()),
       {static_cast<std::uint32_t>(key.kind) | static_cast<std::uint32_t>(key.unit) << 8,
        static_cast<std::uint32_t>(key.resolution),
        static_cast<std::uint32_t>(key.dimensions.size())}},
      text);
} catch (...) {  // Another time: the flusher asks for each point.
}

// ---- Rounds ----

std::uint64_t& CrashRings::visited(const Lane& lane) {
  const std::uint32_t index = LaneSet::index_of(lane);
  if (index >= visited_.size()) {
    visited_.resize(index + 1);
    for (auto* const positions : {&struck_, &said_}) {
      for (auto& of_signal : *positions) of_signal.resize(index + 1);
    }
    mark_counts_.resize(index + 1);
    struck_aggregated_.resize(index + 1);
  }
  return visited_[index];
}

CrashTail* CrashRings::tail_of(std::uint32_t lane) {
  const std::scoped_lock lock(lanes_mutex_);
  return lane < tails_.size() ? tails_[lane] : nullptr;
}

void CrashRings::write_mark(std::uint32_t lane, const CrashMark& mark) {
  CrashTail* const tail = tail_of(lane);
  if (tail == nullptr) return;
  CrashMark& slot = tail->marks[mark_counts_[lane]++ % CrashTail::mark_count];
  std::atomic_ref<std::uint64_t> check(slot.check);
  check.store(slot.sum() + 1, std::memory_order_relaxed);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  slot.position = mark.position;
  slot.signal = mark.signal;
  slot.sequence = mark.sequence;
  check.store(slot.sum(), std::memory_order_release);
}

void CrashRings::mark(Signal signal, const std::vector<std::uint64_t>& positions,
                      std::uint64_t sequence) {
  std::vector<std::uint64_t>& said = said_[static_cast<std::size_t>(signal)];
  for (std::uint32_t lane = 0; lane < positions.size(); ++lane) {
    const std::uint64_t position = positions[lane];
    if (std::exchange(said[lane], position) == position) continue;
    write_mark(lane, {position, static_cast<std::uint64_t>(signal), sequence, 0});
  }
}

void CrashRings::mark_sealed(Signal signal, std::uint64_t sequence) {
  mark(signal, visited_, sequence);
}

void CrashRings::settled(Signal signal, std::uint64_t sequence) noexcept {
  CrashClock::Settled& of = clock_->settled[static_cast<std::size_t>(signal)];
  std::atomic_ref(of.sequence).store(sequence, std::memory_order_relaxed);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  std::atomic_ref(of.inverted).store(~sequence, std::memory_order_release);
}

bool CrashRings::wants_seal(LaneSet& lanes) {
  bool wants = false;
  lanes.for_each([&](Lane& lane) {
    wants |= visited(lane) - lane.ring.released() > lane.ring.capacity() / 4;
  });
  return wants;
}

void CrashRings::end_round(LaneSet& lanes, const RoundState& state,
                           const std::function<bool(Signal, std::uint64_t)>& settled) {
  if (state.now >= next_anchor_) {
    write_anchor();
    next_anchor_ = state.now + anchor_interval;
  }
  add_mark(state.now);
  // Seals are looked up for every mark, also behind one that is not settled.
  const auto find_sequence = [&](Signal signal, SteadyTime since, Condition& condition) {
    const SignalState& of = state.signals[static_cast<std::size_t>(signal)];
    if (!condition.has_records || condition.sequence) return false;
    if (signal == Signal::spans && state.oldest_span <= since) return false;
    if (!condition.seals) condition.seals = of.seals + (of.is_open ? 1 : 0);
    if (of.seals < *condition.seals) return false;
    condition.sequence = of.last_sequence;
    return true;
  };
  for (Mark& one : marks_) {
    for (const Signal signal : all_signals) {
      const bool is_new = find_sequence(signal, one.time, one.of(signal));
      if (is_new && signal == Signal::spans) {
        mark(signal, one.positions, *one.of(signal).sequence);
      }
    }
  }
  std::erase_if(orphans_, [&](Orphans& one) {
    std::uint64_t left = 0;
    for (const Signal signal : all_signals) {
      const auto index = static_cast<std::size_t>(signal);
      Condition& condition = one.signals[index];
      find_sequence(signal, one.time, condition);
      if (condition.sequence && settled(signal, *condition.sequence)) one.records[index] = 0;
      left += one.records[index];
    }
    return left == 0;
  });
  for (const Signal signal : all_signals) {
    const Mark* last = nullptr;
    for (Mark& one : marks_) {
      Condition& condition = one.of(signal);
      if (condition.done) continue;
      if (condition.has_records && (!condition.sequence || !settled(signal, *condition.sequence))) {
        break;
      }
      condition.done = true;
      if (condition.has_records) last = &one;
    }
    if (last != nullptr) strike(lanes, *last, signal);
  }
  const auto is_done = [](const Condition& condition) { return condition.done; };
  while (!marks_.empty() && !marks_.front().has_aggregated &&
         std::all_of(marks_.front().signals.begin(), marks_.front().signals.end(), is_done)) {
    release(lanes, marks_.front());
    marks_.pop_front();
  }
  // A ring that is full of what is not settled drops new records: rather it keeps less.
  const auto is_half_full = [&] {
    bool full = false;
    lanes.for_each([&](Lane& lane) {
      full |= visited(lane) - lane.ring.released() > lane.ring.capacity() / 2;
    });
    return full;
  };
  while (!marks_.empty() && is_half_full()) {
    if (state.now >= next_warning_) {
      next_warning_ = state.now + std::chrono::minutes(1);
      parts_.diagnostic(
          "crash_dir " + parts_.directory +
          ": a ring is half full of records that are not delivered yet; the oldest go on "
          "in memory only, and would not outlive the process. Set spool_dir, or a "
          "larger ring_bytes");
    }
    let_go(lanes, marks_.front());
    release(lanes, marks_.front());
    marks_.pop_front();
  }
}

// Its records are about to be released, settled or not.
void CrashRings::let_go(LaneSet& lanes, Mark& mark) {
  Orphans made{mark.time, mark.signals, {}};
  lanes.for_each([&](Lane& lane) {
    const std::uint32_t index = LaneSet::index_of(lane);
    if (index >= mark.positions.size()) return;
    const std::uint64_t from = lane.ring.released();
    if (from >= mark.positions[index]) return;
    lane.ring.walk(from, mark.positions[index],
                   [&](const std::byte* /*record*/, const RecordHeader& header) {
                     const auto signal = signal_of(header.kind());
                     if (!signal || header.kind() == RecordKind::span_part) return;
                     const bool is_event = header.kind() == RecordKind::event;
                     made.records[static_cast<std::size_t>(*signal)] +=
                         is_event ? measurements_of(site_of(header.id)) : 1;
                   });
  });
  for (std::size_t i = 0; i < signal_count; ++i) {
    if (made.signals[i].done) made.records[i] = 0;
  }
  if (orphans_.size() >= marks_max) {  // Those of the new one are settled later.
    for (std::size_t i = 0; i < signal_count; ++i) {
      if (!made.signals[i].has_records) made.signals[i] = orphans_.back().signals[i];
      made.records[i] += orphans_.back().records[i];
    }
    orphans_.pop_back();
  }
  orphans_.push_back(made);
}

std::uint64_t CrashRings::in_memory_only(Signal signal) const noexcept {
  std::uint64_t records = 0;
  for (const Orphans& one : orphans_) records += one.records[static_cast<std::size_t>(signal)];
  return records;
}

void CrashRings::add_mark(SteadyTime now) {
  if (visited_ == marked_) return;
  Mark made{visited_, now, {}, seen_aggregated_};
  for (std::size_t i = 0; i < signal_count; ++i) made.signals[i].has_records = seen_[i];
  if (marks_.size() >= marks_max) {  // Its records are in the new one too.
    for (std::size_t i = 0; i < signal_count; ++i) {
      made.signals[i].has_records |= marks_.back().signals[i].has_records;
    }
    made.has_aggregated |= marks_.back().has_aggregated;
    marks_.pop_back();
  }
  marks_.push_back(std::move(made));
  marked_ = visited_;
  seen_ = {};
  seen_aggregated_ = false;
}

void CrashRings::set_aggregated(bool samples, bool events) noexcept {
  samples_are_kept_ = samples;
  events_are_aggregated_ = events;
  clock_->events_are_aggregated = events ? 1 : 0;
}

bool CrashRings::write_ledger(const DropCounts& counts) {
  const std::string text = ledger_file_of(counts);
  const std::string_view pieces[] = {text};
  return transport::replace_file(*disk_, box_, "ledger", pieces) == 0;
}

void CrashRings::end_metrics(LaneSet& lanes, SteadyTime now) {
  const std::optional<int> error = metrics_.finish(*disk_, box_);
  const std::uint64_t left_out = metrics_.take_left_out();
  if ((error || left_out != 0) && now >= next_metrics_warning_) {
    next_metrics_warning_ = now + std::chrono::minutes(1);
    parts_.diagnostic(
        "crash_dir " + parts_.directory + ": " +
        (error ? "cannot write down measurements: " + std::generic_category().message(-*error)
               : std::to_string(left_out) +
                     " points that wait for delivery are too many to be kept") +
        "; they would not outlive the process");
  }
  // Between the two the file says which records are in it.
  strike(lanes, struck_aggregated_, visited_,
         [this](RecordKind kind) { return is_aggregated(kind, events_are_aggregated_); });
  seen_aggregated_ = false;
  for (Mark& mark : marks_) mark.has_aggregated = false;
}

void CrashRings::strike(LaneSet& lanes, const Mark& mark, Signal signal) {
  strike(lanes, struck_[static_cast<std::size_t>(signal)], mark.positions, [&](RecordKind kind) {
    return signal_of(kind) == signal && !is_aggregated(kind, events_are_aggregated_);
  });
}

template <class Which>
void CrashRings::strike(LaneSet& lanes, std::vector<std::uint64_t>& struck,
                        const std::vector<std::uint64_t>& positions, Which&& which) {
  lanes.for_each([&](Lane& lane) {
    const std::uint32_t index = LaneSet::index_of(lane);
    if (index >= positions.size()) return;
    const std::uint64_t from = std::max(struck[index], lane.ring.released());
    if (from >= positions[index]) return;
    lane.ring.walk(from, positions[index], [&](std::byte* record, const RecordHeader& header) {
      if (which(header.kind())) Ring::strike(record, header);
    });
    struck[index] = positions[index];
  });
}

void CrashRings::release(LaneSet& lanes, const Mark& mark) {
  lanes.for_each([&](Lane& lane) {
    const std::uint32_t index = LaneSet::index_of(lane);
    if (index >= mark.positions.size()) return;
    const std::uint64_t from = lane.ring.released();
    if (from >= mark.positions[index]) return;
    std::uint64_t position = from;
    std::uint64_t context_at = 0;
    const std::byte* context = nullptr;
    std::uint32_t context_bytes = 0;
    lane.ring.walk(from, mark.positions[index], [&](std::byte* record, const RecordHeader& header) {
      if (header.kind() == RecordKind::context) {
        context_at = position;
        context = record;
        context_bytes = header.bytes();
      }
      position += header.bytes();
    });
    if (CrashTail* const tail = tail_of(index); context != nullptr && tail != nullptr) {
      save_context(tail->contexts, context_at, context, context_bytes);
    }
    lane.ring.release(mark.positions[index]);
  });
}

void CrashRings::save_context(CrashContext (&slots)[2], std::uint64_t position,
                              const std::byte* record, std::uint32_t bytes) noexcept {
  CrashContext& slot = slots[0].valid_from <= slots[1].valid_from ? slots[0] : slots[1];
  std::atomic_ref<std::uint64_t> valid_from(slot.valid_from);
  valid_from.store(0, std::memory_order_relaxed);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  slot.bytes = bytes <= CrashContext::record_bytes_max ? bytes : 0;
  std::memcpy(slot.record, record, slot.bytes);
  valid_from.store(position + 1, std::memory_order_release);
}

}  // namespace spillway::detail
