// SPDX-License-Identifier: Apache-2.0
//
// Reads the rings that a dead process left in crash_dir (crash_rings.hpp). Trusts nothing in them: the
// process may have died anywhere, and what is out of bounds ends the reading of its ring, and is
// counted.
//
// A lane's file is deleted when the last payload with something of it is settled, and its box with the
// last lane. What of a lane is settled earlier its file's name says, as "lane-3.logs": who comes after
// this process reads the rest only. A signal of which something was dropped for what may pass stays for
// the next engine. What this version cannot read, another one may: it stays too. A file that the disk
// does not give back is counted once, and put aside as "bad-lane-3".
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <spillway/buffers/names.hpp>
#include <spillway/buffers/record.hpp>
#include <spillway/engine/crash_metrics.hpp>
#include <spillway/engine/crash_rings.hpp>
#include <spillway/transport/disk.hpp>

namespace spillway::detail {

/// Takes the records of dead processes, lane by lane, in their order. What it is given is valid
/// during the call.
class RecoveredRecords {
 public:
  virtual ~RecoveredRecords() = default;
  /// Call sites are of the process that began last.
  virtual void begin_process() = 0;
  virtual void begin_lane() = 0;
  /// As in a ring: the number in its header, and what is behind that.
  virtual void on_context(std::uint32_t trace_flags, std::span<const std::byte> body) = 0;
  virtual void on_log(const SiteInfo& site, std::uint32_t dead_site, std::int64_t wall_ns,
                      std::uint64_t span_id, std::span<const std::byte> values) = 0;
  /// A wide event.
  virtual void on_event(const SiteInfo& site, std::uint32_t dead_site, std::int64_t wall_ns,
                        std::uint64_t span_id, std::span<const std::byte> values) = 0;
  virtual void on_sample(const SeriesKey& series, std::int64_t wall_ns, double value) = 0;
  /// What a series amounted to in an interval, or in the part of one in which the process died.
  virtual void on_point(const SeriesKey& series, const CrashMetricsReader::Point& point) = 0;
  /// Names of entries are numbers of this process.
  virtual void on_span(std::string_view name, std::int64_t start_ns, std::int64_t end_ns,
                       const SpanBody& body, std::span<const std::byte> entries) = 0;
  virtual void on_span_part(std::uint64_t span_id, std::span<const std::byte> entries) = 0;
  /// What the process had dropped, and had not published.
  virtual void on_drops(const DropCounts& /*counts*/) {}
};

class CrashRecovery {
 public:
  struct Counts {
    std::uint64_t processes = 0;
    std::uint64_t measurements = 0;
    std::uint64_t logs = 0;
    std::uint64_t spans = 0;
    std::uint64_t dropped = 0;           ///< records that they had dropped and not published
    std::uint64_t unreadable_bytes = 0;  ///< of rings, behind something that is no record
    /// Processes of another version, or whose files the disk does not give now: they stay.
    std::uint64_t left = 0;
    std::uint64_t put_aside = 0;  ///< rings that the disk does not give any more
  };

  /// Takes the boxes of engines of `service` that are gone. `own_box` is this engine's. Null: there
  /// are none.
  static std::unique_ptr<CrashRecovery> find(const std::string& directory,
                                             const std::string& service,
                                             const std::string& own_box);
  ~CrashRecovery();
  /// Reads one ring (a file "lane-<i>" of the directory `box`), which stays as it is and may be in use.
  /// Nothing: it is not one of this version, or cannot be read.
  static std::optional<Counts> look_at(const std::string& box, const std::string& lane,
                                       RecoveredRecords& records);

  /// Reads on until `enough`, which is asked before each record. Throws std::bad_alloc: what was
  /// given until then counts, and the next call goes on behind it.
  void read(RecoveredRecords& records, const std::function<bool()>& enough);
  bool is_read() const noexcept { return box_ == boxes_.size(); }
  const Counts& counts() const noexcept { return counts_; }

  /// The drops that were given so far are written down elsewhere: nobody takes them from here again.
  void forget_drops() noexcept;
  /// All that was given so far is in payloads up to these.
  void sealed(const Sequences& sequences) noexcept;
  /// Deletes what is settled, but nothing of a signal that `keep` names. True: all have been read, and
  /// nothing waits any more.
  bool remove(const std::function<bool(Signal, std::uint64_t)>& settled,
              const std::array<std::atomic<bool>, signal_count>& keep) noexcept;

 private:
  using PerSignal = std::array<bool, signal_count>;
  struct LaneFile {
    std::string name;
    PerSignal settled{};  // nothing of it is to be sent, as its name says
    std::uint64_t number = 0;
    bool is_metrics = false;  // not a lane's, but `metrics`
    PerSignal given{};        // something was read
    bool is_read = false;
    bool stays = false;
    bool is_sealed = false;  // what was given is in payloads up to
    Sequences sequences{};
  };
  struct Box {
    transport::Disk::Handle handle = -1;
    std::vector<LaneFile> lanes{};
    std::vector<std::string> others{};
    bool has_drops = false;  // that were given
    bool stays = false;
    bool gone = false;
  };
  struct DeadProcess;
  /// The lane's file that is being read.
  struct OpenLane {
    std::string bytes;
    std::uint64_t at = 0;
    std::uint64_t head = 0;
    std::array<std::uint64_t, signal_count> settled{};  // the records of a signal before it are
  };

  CrashRecovery();
  void open_box(RecoveredRecords& records);
  void open_lane(LaneFile& file, RecoveredRecords& records);
  /// Whether all points were given.
  bool read_metrics(LaneFile& file, RecoveredRecords& records, const std::function<bool()>& enough);
  void put_aside(Box& box, LaneFile& file);
  bool is_done(Box& box, LaneFile& file, const std::function<bool(Signal, std::uint64_t)>& settled,
               const std::array<std::atomic<bool>, signal_count>& keep) noexcept;
  void read_marks(OpenLane& lane) const noexcept;
  /// Whether the lane has ended.
  bool read_lane(LaneFile& file, RecoveredRecords& records, const std::function<bool()>& enough);
  static Box sorted(transport::Disk::Handle handle, std::vector<std::string> names);
  void end_box() noexcept;

  std::shared_ptr<transport::Disk> disk_ = transport::system_disk();
  std::vector<Box> boxes_;
  Counts counts_;
  // Where the reading is: in which box, in which of its files, and in what of that.
  std::size_t box_ = 0;
  std::size_t file_ = 0;
  std::unique_ptr<DeadProcess> dead_;  // null: the box is to be opened
  std::optional<OpenLane> lane_;       // nothing: the file is to be opened
  bool is_looking_ = false;            // files stay as they are
};

}  // namespace spillway::detail
