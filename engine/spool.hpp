// SPDX-License-Identifier: Apache-2.0
//
// The spool: payloads that wait on disk, because their destination is down or memory is scarce, and
// outlive the process. The sender owns it and is the only one to call it.
//
// One file a payload (spool_file.hpp), and not a database, for what tests and trials showed:
//   - Deleting needs no room. On a full file system SQLite 3.40 refused to delete in each of its
//     journal modes (WAL, DELETE, TRUNCATE: "database or disk is full"), so that a backlog could not
//     shrink; unlink() went through.
//   - Damage stays where it is. Of 400 flips of one byte in the first two pages of a database, 52
//     made all of it unreadable; here a flip costs an item, or at worst one payload.
//   - Opening reads names only, whatever the backlog's size: the account is in them.
//
//   spool_dir/                  0700
//     <service>.<n>/            0700, a "box": locked (flock) by the engine that uses it
//       <sequence>-...-logs-...  0600, one payload
//       bad-<its name>          set aside: damaged
//
// put()     create, write, fsync, close, fsync of the box. Only then is the payload's memory let go:
//           before, a crash costs what is in memory only, as without a spool. At the end of an engine
//           the syncs of all come after the writes of all: however slow the disk is, what is written
//           outlives the process, and only a loss of power right then could cost it.
// remove()  unlink, after the destination's answer. Between the two the outcome of one request is
//           unknown to who comes after a crash: it is sent again. The box is synced with the next
//           put(), or 200 ms later: a loss of power may bring back what was removed since.
//
// Boxes of engines that are gone have no lock: open() takes all of the same service, and tend() looks
// for more once a minute. What they hold goes first, in its order.
//
// Trouble with the disk (full, read-only, gone) is no trouble for the sender: put() says no for a
// second, payloads stay in memory, and one diagnostic a minute says why.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <spillway/buffers/payload.hpp>
#include <spillway/engine/clock.hpp>
#include <spillway/engine/ledger.hpp>
#include <spillway/engine/spool_file.hpp>
#include <spillway/transport/disk.hpp>

namespace spillway::detail {

class Spool {
 public:
  struct Parts {
    std::shared_ptr<transport::Disk> disk;
    std::shared_ptr<Clock> clock;
    Ledger& ledger;
    std::string directory;
    std::string service;
    /// Names of the exporters whose payloads come here, by signal; empty: none do. Files of another
    /// destination are left alone until they are too old, or their room is needed.
    std::array<std::string, signal_count> destinations;
    std::uint64_t bytes_max;
    std::chrono::milliseconds age_max;
    std::function<void(std::string_view)> diagnostic;
  };

  /// Payloads on disk at the same time, set aside ones not counted.
  static constexpr std::size_t files_max = 65'536;
  static constexpr std::size_t boxes_max = 256;
  static constexpr std::size_t bad_files_max = 64;
  static constexpr std::chrono::milliseconds trouble_pause{1'000};
  static constexpr std::chrono::milliseconds sync_delay{200};
  static constexpr std::chrono::seconds adopt_interval{60};

  /// A payload on disk.
  struct Entry {
    std::uint32_t box = 0;
    SpoolName name;
    SteadyTime expires{};
    bool damaged = false;  ///< items are missing
  };
  struct Loaded {
    Entry entry;
    std::unique_ptr<Payload> payload;
  };

  explicit Spool(Parts parts);
  ~Spool();

  /// Housekeeping of each round: opens the directory (the first time, and again after trouble), drops
  /// what is too old, adopts, syncs. Returns when it wants to be called again at the latest.
  SteadyTime tend();

  /// Stores a payload behind the others. False: it stays in memory. What does not fit into the bounds
  /// beside it goes, oldest first, and is dropped as spool_full.
  bool put(const Payload& payload);
  /// The same of one that the caller keeps in memory too, as if it had taken it.
  std::optional<Entry> put_taken(const Payload& payload);
  /// From here on put() leaves the syncs to sync_deferred(), which goes on until `until` and leaves
  /// the rest to the system. What the disk then refuses is dropped as shutdown_deadline.
  void defer_sync() noexcept { deferred_from_ = boxes_.front().next_sequence; }
  void sync_deferred(SteadyTime until);

  bool empty(Signal signal) const noexcept {
    return waiting_[static_cast<std::size_t>(signal)].empty();
  }
  /// Reads the oldest payload of a signal, which is the caller's from here on. Nothing: there is none,
  /// or the disk does not give it now. Damaged items are dropped as spool_damaged.
  std::optional<Loaded> take(Signal signal);

  /// When it was stored, by the steady clock.
  SteadyTime stored_since(const Entry& entry) const { return entry.expires - parts_.age_max; }
  /// The next `items` of a payload are delivered or dropped, and with them `records` records.
  void settled(Entry& entry, std::size_t items, std::uint64_t records) noexcept;
  /// The payload is delivered or dropped as a whole.
  void remove(const Entry& entry) noexcept;

 private:
  struct Box {
    transport::Disk::Handle handle = -1;  // -1: not open
    std::string name;
    std::uint64_t next_sequence = 1;
    std::size_t files = 0;
    std::size_t bad_files = 0;
    bool unsynced = false;
  };
  using Queue = std::deque<Entry>;

  Queue& waiting_of(Signal signal) noexcept { return waiting_[static_cast<std::size_t>(signal)]; }
  /// Says what went wrong, and leaves alone for a while what `until` is for.
  void trouble(SteadyTime& until, std::string_view what, int error);
  bool open();
  bool open_own_box(const std::vector<std::string>& names);
  void adopt(const std::vector<std::string>& names);
  bool is_open(const std::string& name) const;
  /// Locks a box and queues what it holds. False: it cannot be had now, most likely because another
  /// engine has it.
  bool open_box(std::uint32_t box, const std::string& name);
  void read_names(std::uint32_t box, std::vector<std::string>& names);
  bool write_all(transport::Disk::Handle file, std::string_view bytes, int& error);
  bool read_all(transport::Disk::Handle file, std::uint64_t size);
  /// Whether the bytes of a file make a payload; damaged items are left out.
  std::unique_ptr<Payload> payload_of(Entry& entry, std::string_view bytes);
  bool make_room(std::uint64_t bytes);
  void drop_expired();
  void drop_front(Signal signal, DropCause cause);
  void count_lost(Signal signal, std::uint64_t records, DropCause cause) noexcept;
  /// Writes the payload, behind `queue` if that is not null.
  std::optional<Entry> store(const Payload& payload, Queue* queue);
  void unlink(std::uint32_t box, const std::string& name);
  bool is_not_removed(std::uint32_t box, const std::string& name) const;
  /// Valid until the next call; takes no memory.
  const std::string& text_of(const SpoolName& name);
  void drop_foreign(DropCause cause);
  void release_if_empty(std::uint32_t box);
  void set_aside(const Entry& entry);
  void forget(const Entry& entry) noexcept;
  void retry_removals();
  void sync_boxes();
  int sync_file(const Entry& entry);
  SignalLedger& ledger_of(Signal signal) noexcept { return parts_.ledger.of(signal); }
  std::int64_t wall_ms() const;

  const Parts parts_;
  transport::Disk::Handle directory_ = -1;
  std::vector<Box> boxes_;  // the first one is the one that is written to
  std::array<Queue, signal_count> waiting_;
  Queue foreign_;  // of other destinations, in boxes that are open; by the time of their making
  std::uint64_t bytes_ = 0;
  std::size_t files_ = 0;
  SteadyTime no_writing_until_{};
  SteadyTime no_reading_until_{};
  SteadyTime next_sync_ = SteadyTime::max();
  std::optional<std::uint64_t> deferred_from_;  // in the first box: sequences that are not synced
  SteadyTime next_adoption_{};
  std::vector<std::pair<std::uint32_t, std::string>> not_removed_;  // box and name
  std::string text_;
  ByteBuffer scratch_;
};

}  // namespace spillway::detail
