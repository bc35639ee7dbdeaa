// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <new>
#include <system_error>
#include <utility>

#include <spillway/engine/private_heap.hpp>
#include <spillway/engine/spool.hpp>
#include <spillway/transport/text.hpp>
#include <spillway/transport/url.hpp>

namespace spillway::detail {

using std::chrono::milliseconds;
using transport::Disk;

namespace {

constexpr std::string_view bad_prefix = "bad-";
constexpr std::size_t name_chars_max = 128;
constexpr std::int64_t created_ms_max = (std::int64_t{1} << 48) - 1;  // What a name has room for.

// The number of a box, behind the service's name and a dot.
std::optional<std::uint32_t> box_number(std::string_view name, std::string_view service) {
  if (!name.starts_with(service) || name.size() <= service.size() || name[service.size()] != '.') {
    return std::nullopt;
  }
  return transport::parse_number<std::uint32_t>(name.substr(service.size() + 1));
}

}  // namespace

Spool::Spool(Parts parts)
    : parts_([&] {
        parts.service = transport::percent_encode(parts.service);
        return std::move(parts);
      }()),
      boxes_(1),
      scratch_(private_heap()) {
  text_.reserve(name_chars_max);
}

Spool::~Spool() {
  for (const Box& box : boxes_) {
    if (box.handle >= 0) parts_.disk->close(box.handle);
  }
  if (directory_ >= 0) parts_.disk->close(directory_);
}

std::int64_t Spool::wall_ms() const {
  const auto since = parts_.clock->wall().time_since_epoch();
  return std::clamp(std::chrono::duration_cast<milliseconds>(since).count(), std::int64_t{0},
                    created_ms_max);
}

void Spool::trouble(SteadyTime& until, std::string_view what, int error) {
  until = parts_.clock->steady() + trouble_pause;
  std::string message = "spool " + parts_.directory + ": ";
  message.append(what).append(": ");
  if (error == -EPERM) {
    message += "it must be a directory of this user's that nobody else may write to";
  } else {
    message += std::generic_category().message(-error);
  }
  message += "; payloads stay in memory meanwhile";
  parts_.diagnostic(message);
}

// ---- Opening ----

SteadyTime Spool::tend() {
  const SteadyTime now = parts_.clock->steady();
  if (boxes_.front().handle < 0) {
    if (now < no_writing_until_ || !open()) return no_writing_until_;
  }
  if (now >= next_adoption_) {
    std::vector<std::string> names;
    if (parts_.disk->list(directory_, names) >= 0) adopt(names);
    next_adoption_ = now + adopt_interval;
  }
  retry_removals();
  drop_expired();
  if (now >= next_sync_) sync_boxes();
  return std::min(next_sync_, next_adoption_);
}

bool Spool::open() {
  Disk& disk = *parts_.disk;
  const auto failed = [this](std::string_view what, int error) {
    trouble(no_writing_until_, what, error);
    return false;
  };
  if (directory_ >= 0) disk.close(directory_);
  directory_ = -1;
  const int made = disk.make_directory(Disk::no_parent, parts_.directory);
  if (made < 0 && made != -EEXIST) return failed("cannot be made", made);
  directory_ = disk.open_directory(Disk::no_parent, parts_.directory);
  if (directory_ < 0) return failed("cannot be opened", directory_);
  std::vector<std::string> names;
  if (const int listed = disk.list(directory_, names); listed < 0) {
    return failed("cannot be read", listed);
  }
  if (!open_own_box(names)) return failed("no box of it can be written", -EACCES);
  adopt(names);
  next_adoption_ = parts_.clock->steady() + adopt_interval;
  return true;
}

bool Spool::open_own_box(const std::vector<std::string>& names) {
  std::vector<std::uint32_t> numbers;
  for (const std::string& name : names) {
    if (const auto number = box_number(name, parts_.service)) numbers.push_back(*number);
  }
  std::sort(numbers.begin(), numbers.end());
  const auto name_of = [this](std::uint32_t number) {
    return parts_.service + "." + std::to_string(number);
  };
  for (const std::uint32_t number : numbers) {
    if (!is_open(name_of(number)) && open_box(0, name_of(number))) return true;
  }
  for (std::uint32_t number = 0; number < boxes_max; ++number) {
    if (std::binary_search(numbers.begin(), numbers.end(), number)) continue;
    const int made = parts_.disk->make_directory(directory_, name_of(number));
    if (made < 0 && made != -EEXIST) return false;
    if (open_box(0, name_of(number))) return true;
  }
  return false;
}

bool Spool::is_open(const std::string& name) const {
  return std::any_of(boxes_.begin(), boxes_.end(),
                     [&](const Box& box) { return box.handle >= 0 && box.name == name; });
}

void Spool::release_if_empty(std::uint32_t number) {
  Box& box = boxes_[number];
  if (box.handle < 0 || box.files != 0 || box.unsynced) return;
  // Read anew, what is delivered and could not be deleted would be sent a second time.
  if (std::any_of(not_removed_.begin(), not_removed_.end(),
                  [&](const auto& one) { return one.first == number; })) {
    return;
  }
  std::erase_if(foreign_, [&](const Entry& entry) {
    if (entry.box != number) return false;
    --files_;
    bytes_ -= entry.name.bytes;
    return true;
  });
  parts_.disk->close(box.handle);
  box = {};
}

void Spool::adopt(const std::vector<std::string>& names) {
  // Those that are empty, or have nothing for this engine, are for others.
  for (std::uint32_t box = 1; box < boxes_.size(); ++box) release_if_empty(box);
  for (const std::string& name : names) {
    if (!box_number(name, parts_.service) || is_open(name)) continue;
    std::uint32_t free = 1;
    while (free < boxes_.size() && (boxes_[free].handle >= 0 || boxes_[free].files != 0)) ++free;
    if (free == boxes_max) return;
    if (free == boxes_.size()) boxes_.emplace_back();
    if (open_box(free, name)) release_if_empty(free);
  }
}

bool Spool::open_box(std::uint32_t box, const std::string& name) {
  Disk& disk = *parts_.disk;
  const Disk::Handle handle = disk.open_directory(directory_, name);
  if (handle < 0) return false;
  try {
    std::vector<std::string> names;
    if (disk.lock(handle) < 0 || disk.list(handle, names) < 0) {
      disk.close(handle);
      return false;
    }
    // Files of a directory that was deleted are still in the queues.
    const std::size_t files = boxes_[box].files;
    boxes_[box] = {handle, name, boxes_[box].next_sequence, files, 0, false};
    read_names(box, names);
  } catch (const std::bad_alloc&) {  // Another time: nothing of it is in the queues.
    boxes_[box].handle = -1;
    disk.close(handle);
    throw;
  }
  return true;
}

void Spool::read_names(std::uint32_t box, std::vector<std::string>& names) {
  std::array<Queue, signal_count> found;
  Queue foreign;
  const std::int64_t now_ms = wall_ms();
  const SteadyTime now = parts_.clock->steady();
  const auto age_of = [&](const SpoolName& name) {
    return milliseconds(std::max(std::int64_t{0}, now_ms - name.created_ms));
  };
  std::sort(names.begin(), names.end());  // By sequence.
  for (const std::string& text : names) {
    const bool is_removed = is_not_removed(box, text);
    if (text.starts_with(bad_prefix)) {
      if (is_removed) continue;
      const auto name = parse_spool_name(std::string_view(text).substr(bad_prefix.size()));
      if (name && age_of(*name) >= parts_.age_max) {
        unlink(box, text);
      } else {
        ++boxes_[box].bad_files;
      }
      continue;
    }
    auto name = parse_spool_name(text);
    if (!name || name->text() != text) continue;  // None of ours: it stays.
    boxes_[box].next_sequence = std::max(boxes_[box].next_sequence, name->sequence + 1);
    if (is_removed) continue;  // But for the disk.
    const auto signal = static_cast<std::size_t>(name->signal);
    const milliseconds left = std::max(parts_.age_max - age_of(*name), milliseconds(0));
    Queue& queue = name->destination == parts_.destinations[signal] ? found[signal] : foreign;
    queue.push_back({box, std::move(*name), now + left, false});
  }
  // Between the others by the time of their making, and never out of their own order. Room first:
  // what runs out of memory has changed nothing.
  const auto merge = [](Queue& merged, Queue& older, Queue& others) noexcept {
    for (Entry& next : merged) {
      const bool first = others.empty() || (!older.empty() && older.front().name.created_ms <=
                                                                  others.front().name.created_ms);
      Queue& from = first ? older : others;
      next = std::move(from.front());
      from.pop_front();
    }
    others.swap(merged);
  };
  std::array<Queue, signal_count> merged;
  for (std::size_t signal = 0; signal < signal_count; ++signal) {
    merged[signal].resize(found[signal].size() + waiting_[signal].size());
  }
  Queue merged_foreign(foreign.size() + foreign_.size());
  for (const Entry& entry : foreign) {
    bytes_ += entry.name.bytes;
    ++files_;
  }
  merge(merged_foreign, foreign, foreign_);
  for (std::size_t signal = 0; signal < signal_count; ++signal) {
    for (const Entry& entry : found[signal]) {
      SignalLedger& ledger = ledger_of(entry.name.signal);
      ledger.adopted.fetch_add(entry.name.records, std::memory_order_relaxed);
      ledger.sealed.fetch_add(entry.name.records, std::memory_order_relaxed);
      ledger.recovered.fetch_add(entry.name.records, std::memory_order_relaxed);
      ledger.spooled.fetch_add(entry.name.records, std::memory_order_relaxed);
      bytes_ += entry.name.bytes;
      ++files_;
      ++boxes_[box].files;
    }
    merge(merged[signal], found[signal], waiting_[signal]);
  }
  try {
    drop_expired();
  } catch (const std::bad_alloc&) {  // Another time; what was read is in the queues.
  }
  const auto foreign_files = std::count_if(foreign_.begin(), foreign_.end(),
                                           [box](const Entry& one) { return one.box == box; });
  if (foreign_files == 0) return;
  try {
    parts_.diagnostic("spool " + parts_.directory + "/" + boxes_[box].name + ": " +
                      std::to_string(foreign_files) +
                      " payloads are for destinations that are not configured; they stay there "
                      "until they are older than spool_age, or their room is needed");
  } catch (const std::bad_alloc&) {  // Nobody hears of it; what was read is in the queues.
  }
}

// ---- Writing ----

bool Spool::put(const Payload& payload) {
  return store(payload, &waiting_of(payload.signal)).has_value();
}

std::optional<Spool::Entry> Spool::put_taken(const Payload& payload) {
  return store(payload, nullptr);
}

// Takes no memory once the file is written: it would be on disk and here.
std::optional<Spool::Entry> Spool::store(const Payload& payload, Queue* queue) {
  Disk& disk = *parts_.disk;
  Box& box = boxes_.front();
  const std::string& destination = parts_.destinations[static_cast<std::size_t>(payload.signal)];
  if (destination.empty() || parts_.clock->steady() < no_writing_until_ || box.handle < 0) {
    return std::nullopt;
  }
  Entry entry;
  entry.name.created_ms = wall_ms();
  scratch_.clear();
  append_spool_file(payload, destination, entry.name.created_ms, scratch_);
  if (scratch_.size() > spool_file_bytes_max || !make_room(scratch_.size())) return std::nullopt;
  entry.expires = parts_.clock->steady() + parts_.age_max;
  entry.name.sequence = box.next_sequence++;
  entry.name.records = payload.records();
  entry.name.bytes = static_cast<std::uint32_t>(scratch_.size());
  entry.name.signal = payload.signal;
  entry.name.destination = destination;
  const std::string name = entry.name.text();
  if (queue != nullptr) queue->push_back(entry);
  const auto leave = [queue] {
    if (queue != nullptr) queue->pop_back();
  };

  const Disk::Handle file = disk.create(box.handle, name);
  if (file < 0) {
    leave();
    trouble(no_writing_until_, "cannot write", file);
    if (file == -ENOENT || file == -ESTALE) {  // The directory was deleted: made anew in a while.
      disk.close(box.handle);
      box.handle = -1;
    }
    return std::nullopt;
  }
  int error = 0;
  const bool is_written = write_all(file, scratch_.view(), error);
  // From here on the end of the process does not cost it, however long the disk takes to sync.
  std::atomic<std::uint64_t>& spooled = ledger_of(payload.signal).spooled;
  if (is_written) spooled.fetch_add(entry.name.records, std::memory_order_relaxed);
  bool stored = is_written;
  const bool sync_now = !deferred_from_;
  if (stored && sync_now) {
    error = disk.sync(file);
    stored = error >= 0;
  }
  disk.close(file);
  if (stored && sync_now) {
    error = disk.sync(box.handle);
    // Some file systems have nothing to sync of a directory.
    stored = error >= 0 || error == -EINVAL || error == -ENOTSUP;
  }
  if (!stored) {
    leave();
    if (is_written) spooled.fetch_sub(entry.name.records, std::memory_order_relaxed);
    unlink(0, name);
    trouble(no_writing_until_, "cannot write", error);
    return std::nullopt;
  }
  box.unsynced = !sync_now;
  ++box.files;
  ++files_;
  bytes_ += entry.name.bytes;
  return entry;
}

void Spool::sync_deferred(SteadyTime until) {
  const std::uint64_t first = deferred_from_.value_or(boxes_.front().next_sequence);
  deferred_from_.reset();
  for (std::size_t signal = 0; signal < signal_count; ++signal) {
    std::erase_if(waiting_[signal], [&](const Entry& entry) {
      if (entry.box != 0 || entry.name.sequence < first) return false;
      if (parts_.clock->steady() >= until || sync_file(entry) >= 0) return false;
      count_lost(static_cast<Signal>(signal), entry.name.records, DropCause::shutdown_deadline);
      // Which of them a dead process had left is not known any more: its files stay.
      parts_.ledger.keep_recovered(static_cast<Signal>(signal));
      forget(entry);
      unlink(0, entry.name.text());
      return true;
    });
  }
  if (parts_.clock->steady() < until) sync_boxes();
}

int Spool::sync_file(const Entry& entry) {
  std::uint64_t size = 0;
  const Disk::Handle handle = boxes_[entry.box].handle;
  const Disk::Handle file =
      handle < 0 ? -ENOENT : parts_.disk->open(handle, entry.name.text(), size);
  if (file < 0) return file;
  const int synced = parts_.disk->sync(file);
  parts_.disk->close(file);
  return synced;
}

bool Spool::write_all(Disk::Handle file, std::string_view bytes, int& error) {
  while (!bytes.empty()) {
    const std::int64_t written = parts_.disk->write(file, bytes.data(), bytes.size());
    if (written <= 0) {
      error = written < 0 ? static_cast<int>(written) : -EIO;
      return false;
    }
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  return true;
}

// The oldest of all signals go first.
bool Spool::make_room(std::uint64_t bytes) {
  if (bytes > parts_.bytes_max) return false;
  while (files_ >= files_max || bytes_ + bytes > parts_.bytes_max) {
    Queue* oldest = nullptr;
    for (Queue& queue : waiting_) {
      if (!queue.empty() &&
          (oldest == nullptr || queue.front().name.created_ms < oldest->front().name.created_ms)) {
        oldest = &queue;
      }
    }
    if (!foreign_.empty() &&
        (oldest == nullptr || foreign_.front().name.created_ms < oldest->front().name.created_ms)) {
      drop_foreign(DropCause::spool_full);
      continue;
    }
    if (oldest == nullptr) return false;  // All of it is under way.
    drop_front(oldest->front().name.signal, DropCause::spool_full);
  }
  return true;
}

// ---- Reading ----

std::optional<Spool::Loaded> Spool::take(Signal signal) {
  Disk& disk = *parts_.disk;
  Queue& queue = waiting_of(signal);
  while (!queue.empty() && parts_.clock->steady() >= no_reading_until_) {
    Entry entry = queue.front();
    const std::string name = entry.name.text();
    std::uint64_t size = 0;
    const Disk::Handle handle = boxes_[entry.box].handle;
    const Disk::Handle file = handle < 0 ? -ENOENT : disk.open(handle, name, size);
    if (file < 0 && file != -ENOENT && file != -EPERM) {
      trouble(no_reading_until_, "cannot read", file);
      return std::nullopt;
    }
    std::unique_ptr<Payload> payload;
    if (file >= 0) {
      const bool complete = size <= spool_file_bytes_max && read_all(file, size);
      disk.close(file);
      if (complete) payload = payload_of(entry, scratch_.view());
    }
    queue.pop_front();
    if (payload != nullptr) return Loaded{std::move(entry), std::move(payload)};
    count_lost(signal, entry.name.records, DropCause::spool_damaged);
    set_aside(entry);
  }
  return std::nullopt;
}

bool Spool::read_all(Disk::Handle file, std::uint64_t size) {
  scratch_.clear();
  char* const room = scratch_.reserve(size);
  std::uint64_t got = 0;
  while (got < size) {
    const std::int64_t more = parts_.disk->read(file, room + got, size - got);
    if (more < 0) return false;
    if (more == 0) break;  // Shorter than it was a moment ago: what is there counts.
    got += static_cast<std::uint64_t>(more);
  }
  scratch_.advance_to(room + got);
  return true;
}

std::unique_ptr<Payload> Spool::payload_of(Entry& entry, std::string_view bytes) {
  const auto file = read_spool_file(bytes);
  if (!file || file->signal != entry.name.signal || file->destination != entry.name.destination ||
      file->items.size() <= entry.name.items_done) {
    return nullptr;
  }
  auto payload = std::make_unique<Payload>(private_heap());
  payload->signal = file->signal;
  std::uint64_t records = 0;
  std::uint64_t lost = 0;
  for (std::size_t i = entry.name.items_done; i < file->items.size(); ++i) {
    const SpoolFile::Item& item = file->items[i];
    records += item.entry.records;
    if (!item.intact) {
      lost += item.entry.records;
      entry.damaged = true;
      continue;
    }
    const std::size_t offset = payload->bytes.size();
    payload->bytes.append(item.bytes);
    payload->end_item(offset, item.entry.records, item.entry.time_ms, item.entry.id);
  }
  if (records != entry.name.records || payload->items.empty()) return nullptr;
  if (entry.damaged) {
    count_lost(entry.name.signal, lost, DropCause::spool_damaged);
    parts_.diagnostic("spool " + parts_.directory + ": a payload was damaged; " +
                      std::to_string(lost) + " of its " + std::to_string(records) +
                      " records are lost");
  }
  return payload;
}

// ---- The end of a payload ----

void Spool::settled(Entry& entry, std::size_t items, std::uint64_t records) noexcept try {
  // Where items are missing the number of those that are done is not their place in the file.
  const Box& box = boxes_[entry.box];
  if (entry.damaged || box.handle < 0) return;
  SpoolName name = entry.name;
  name.items_done += static_cast<std::uint32_t>(items);
  name.records -= std::min(records, name.records);
  if (parts_.disk->rename(box.handle, entry.name.text(), name.text()) >= 0) {
    entry.name = std::move(name);
  }
} catch (const std::bad_alloc&) {  // Who comes after a crash sends them again.
}

void Spool::remove(const Entry& entry) noexcept try {
  if (entry.damaged) return set_aside(entry);
  forget(entry);
  unlink(entry.box, text_of(entry.name));
} catch (const std::bad_alloc&) {  // It stays there, and is sent again by the next engine.
}

void Spool::forget(const Entry& entry) noexcept {
  --files_;
  --boxes_[entry.box].files;
  bytes_ -= entry.name.bytes;
}

const std::string& Spool::text_of(const SpoolName& name) {
  text_.clear();
  name.append_to(text_);
  return text_;
}

bool Spool::is_not_removed(std::uint32_t box, const std::string& name) const {
  return std::any_of(not_removed_.begin(), not_removed_.end(),
                     [&](const auto& one) { return one.first == box && one.second == name; });
}

void Spool::unlink(std::uint32_t box, const std::string& name) {
  Box& in = boxes_[box];
  if (in.handle < 0) return;
  const int removed = parts_.disk->remove(in.handle, name);
  if (removed < 0 && removed != -ENOENT) {
    try {
      not_removed_.emplace_back(box, name);
    } catch (const std::bad_alloc&) {  // It stays there, and is sent again by the next engine.
    }
    return;
  }
  in.unsynced = true;
  next_sync_ = std::min(next_sync_, parts_.clock->steady() + sync_delay);
}

void Spool::retry_removals() {
  if (not_removed_.empty() || parts_.clock->steady() < no_writing_until_) return;
  const std::size_t before = not_removed_.size();
  std::erase_if(not_removed_, [&](const auto& one) {
    Box& box = boxes_[one.first];
    if (box.handle < 0) return true;
    const int removed = parts_.disk->remove(box.handle, one.second);
    if (removed < 0 && removed != -ENOENT) return false;
    box.unsynced = true;
    next_sync_ = std::min(next_sync_, parts_.clock->steady() + sync_delay);
    return true;
  });
  if (not_removed_.size() == before) trouble(no_writing_until_, "cannot delete", -EIO);
}

void Spool::set_aside(const Entry& entry) {
  forget(entry);
  Box& box = boxes_[entry.box];
  const std::string name = entry.name.text();
  if (box.handle >= 0 && box.bad_files < bad_files_max &&
      parts_.disk->rename(box.handle, name, std::string(bad_prefix) + name) >= 0) {
    ++box.bad_files;
    return;
  }
  unlink(entry.box, name);
}

void Spool::drop_expired() {
  const SteadyTime now = parts_.clock->steady();
  for (Queue& queue : waiting_) {
    while (!queue.empty() && queue.front().expires <= now) {
      drop_front(queue.front().name.signal, DropCause::expired);
    }
  }
  while (!foreign_.empty() && foreign_.front().expires <= now) drop_foreign(DropCause::expired);
}

void Spool::drop_front(Signal signal, DropCause cause) {
  Queue& queue = waiting_of(signal);
  const Entry entry = std::move(queue.front());
  queue.pop_front();
  count_lost(signal, entry.name.records, cause);
  forget(entry);
  unlink(entry.box, text_of(entry.name));
}

// From here on in the account: as recovered, and lost.
void Spool::drop_foreign(DropCause cause) {
  const Entry entry = std::move(foreign_.front());
  foreign_.pop_front();
  SignalLedger& ledger = ledger_of(entry.name.signal);
  ledger.adopted.fetch_add(entry.name.records, std::memory_order_relaxed);
  ledger.sealed.fetch_add(entry.name.records, std::memory_order_relaxed);
  ledger.recovered.fetch_add(entry.name.records, std::memory_order_relaxed);
  parts_.ledger.drop_in_queue(entry.name.signal, cause, entry.name.records);
  --files_;
  bytes_ -= entry.name.bytes;
  unlink(entry.box, text_of(entry.name));
}

void Spool::count_lost(Signal signal, std::uint64_t records, DropCause cause) noexcept {
  ledger_of(signal).spooled.fetch_sub(records, std::memory_order_relaxed);
  parts_.ledger.drop_in_queue(signal, cause, records);
}

void Spool::sync_boxes() {
  for (Box& box : boxes_) {
    if (box.unsynced && box.handle >= 0) parts_.disk->sync(box.handle);
    box.unsynced = false;
  }
  next_sync_ = SteadyTime::max();
}

}  // namespace spillway::detail
