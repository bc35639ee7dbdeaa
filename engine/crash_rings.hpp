// SPDX-License-Identifier: Apache-2.0
//
// Rings that outlive their process. With `crash_dir` set, the rings of all threads, and what it takes
// to read them, are files that the process has mapped; the kernel keeps what was stored there when the
// process is killed. The next engine of the same service ships it (crash_recovery.hpp).
//
//   crash_dir/                 0700
//     <service>.<n>/           0700, locked (flock) by the engine that uses it
//       clock                  CrashClock: layout, and how ticks become wall time
//       names                  each name and call site, written before a record can refer to it
//       lane-<i>               the Lane | its ring | CrashTail
//       metrics                what was aggregated (crash_metrics.hpp)
//       ledger                 what was dropped and is not published (drop_counts.hpp)
//
// A record stays in its ring until its payload is settled: delivered, dropped, or in the spool. The
// flusher visits the rings without releasing them, and marks each round: so far have the rings been
// read, and these payloads hold what was read. When those are settled the round's records are struck
// (turned into `skip`), so that recovery does not ship them again, and released. Wide events, logs and
// spans are struck apart: each signal has its destination, and spans wait for their segment.
//
//   pos.  released        struck         visited      published
//   ------|---------------|--------------|------------|-----------  head
//          may be written  skip, or of    in payloads  not read yet
//          over            the other      that are
//                          signal         not settled
//
// What is settled between the last round and the end of the process is not struck. So the sender writes
// the number of each signal's last settled payload into the file `clock` at once, and the flusher writes
// into a lane's file, whenever a payload is sealed, how far the ring was read then: recovery passes over
// what is before it. What was delivered and not acknowledged yet comes a second time.
//
// A ring holds half of its bytes so at most. A quarter makes the flusher seal what it has at once;
// beyond the half, records are released though they are not settled, and are in memory only. How many
// these are is in the file `ledger`, as dropped for ring_full, until they are settled: who comes after
// this process counts them.
//
// What a record refers to by position, its context, is copied to a slot when it is released: two
// slots, written in turn, so that one is whole whenever the process dies.
//
// The recording path is the same as without: only the memory differs. Put crash_dir on a tmpfs
// (/dev/shm): on a disk the kernel writes dirty pages back, which a producer may have to wait for.
// Files hold records as they were made: what redaction takes out is still in them.
//
// Samples, and wide events that are aggregated, stay until the file `metrics` has them: it is written
// when cells are taken, when an interval ends, and when a ring is a quarter full. So what is lost of
// measurements is what cells took since the flusher emptied them, some 100 ms (Flusher::keep_metrics).
//
// Not kept: that, exemplars, logs too large for a ring, and debug records that wait for the outcome of
// their request.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

#include <spillway/buffers/lane.hpp>
#include <spillway/buffers/names.hpp>
#include <spillway/buffers/payload.hpp>
#include <spillway/buffers/series.hpp>
#include <spillway/engine/clock.hpp>
#include <spillway/engine/crash_metrics.hpp>
#include <spillway/engine/drop_counts.hpp>
#include <spillway/transport/disk.hpp>

namespace spillway::detail {

/// The file `clock`.
struct CrashClock {
  static constexpr char expected_magic[8] = {'S', 'P', 'L', 'C', 'R', 'A', 'S', 'H'};
  static constexpr std::uint32_t current_version = 3;
  /// A line from ticks to wall time. Two of them are written in turn; the newer one that is complete
  /// counts.
  struct Anchor {
    std::uint64_t number;  ///< 0: being written
    std::uint64_t ticks;
    std::int64_t wall_ns;
    double ns_per_tick;
  };
  char magic[8];
  std::uint32_t version;
  std::uint32_t head_bytes;  ///< of a lane's file, before the ring
  std::uint32_t ring_bytes;
  std::uint32_t published_at;  ///< where in a lane's file the ring's positions are, 8 bytes each
  std::uint32_t released_at;
  std::uint32_t events_are_aggregated;  ///< 1: what is before the position in `metrics` is in there
  std::uint64_t process;
  /// Of each signal, the payloads up to this one are settled; written by the sender. The second one is
  /// its inverse, so that damage does not pass for deliveries.
  struct Settled {
    std::uint64_t sequence;
    std::uint64_t inverted;
  };
  Settled settled[signal_count];
  Anchor anchors[2];

  std::uint64_t settled_at_least(Signal signal) const noexcept {
    const Settled& of = settled[static_cast<std::size_t>(signal)];
    return std::min(of.sequence, ~of.inverted);
  }
};
static_assert(std::is_trivially_copyable_v<CrashClock>);

/// On whose behalf the records of a lane are, from a place on.
struct CrashContext {
  static constexpr std::uint32_t record_bytes_max = 4096 - 16;
  std::uint64_t
      valid_from;       ///< where its record was in the ring, plus 1; 0: being written, or none
  std::uint64_t bytes;  ///< of the record; 0: it was too large
  std::byte record[record_bytes_max];
};
static_assert(sizeof(CrashContext) == 4096);

/// What has to be settled before a signal's records of a ring are.
struct CrashMark {
  std::uint64_t position;  ///< the ring was read up to there
  std::uint64_t signal;    ///< Signal
  std::uint64_t sequence;  ///< the payload that settles its records before there
  std::uint64_t check;     ///< sum() of the others; not so while they are being written

  std::uint64_t sum() const noexcept {
    constexpr std::uint64_t odd = 0x9E3779B97F4A7C15U;
    return ((position * odd ^ signal) * odd ^ sequence) * odd + 1;
  }
};

/// The file of a lane ends with this.
struct CrashTail {
  static constexpr std::uint32_t mark_count = 256;
  CrashContext contexts[2];     ///< written in turn
  CrashMark marks[mark_count];  ///< the same
};
static_assert(sizeof(CrashTail) == 4 * 4096);

/// The file `names` is a sequence of these, each followed by `bytes` of text: for a name its
/// characters; for a site message, file and keys, each behind its length (4 bytes), in which
/// `numbers` are severity, line and count of fields, and each key is preceded by what else the field is
/// (4 bytes): ValueType, FieldRole, Unit, whether it is of high resolution.
/// For a series name, and each dimension's name and value, behind their lengths; `numbers` are kind and
/// Unit (in the second byte), resolution, and count of dimensions.
struct CrashName {
  enum Kind : std::uint32_t { name = 1, site = 2, series = 3 };
  std::uint32_t kind;
  std::uint32_t id;
  std::uint32_t bytes;
  std::uint32_t numbers[3];
};
static_assert(sizeof(CrashName) == 24);

/// The signal of a record; nothing: it is none that is kept.
inline std::optional<Signal> signal_of(RecordKind kind) noexcept {
  switch (kind) {
    case RecordKind::event:
    case RecordKind::sample:
      return Signal::metrics;
    case RecordKind::log:
    case RecordKind::logger_log:
      return Signal::logs;
    case RecordKind::span:
    case RecordKind::span_part:
      return Signal::spans;
    case RecordKind::skip:
    case RecordKind::context:
    case RecordKind::request_end:
      break;
  }
  return std::nullopt;
}
/// Whether the file `metrics` settles it, and no payload.
inline bool is_aggregated(RecordKind kind, bool events_are_aggregated) noexcept {
  return kind == RecordKind::sample || (kind == RecordKind::event && events_are_aggregated);
}

class CrashRings final : public LaneStore, public NameListener {
 public:
  struct Parts {
    std::string directory;
    std::string service;
    std::uint32_t ring_bytes;
    std::shared_ptr<Clock> clock;
    std::function<void(std::string_view)> diagnostic;
  };
  /// Makes the files. Null, and a diagnostic: it cannot, and rings are in memory only.
  static std::unique_ptr<CrashRings> open(Parts parts);
  ~CrashRings() override;
  /// Deletes the files: all that they hold is accounted for. Once nothing is recorded any more.
  void finish() noexcept;

  /// The name of the directory that it writes to.
  const std::string& own_box() const noexcept { return box_name_; }

  bool attach(std::uint32_t index, std::byte* head, std::size_t head_bytes, std::byte* ring,
              std::size_t ring_bytes) noexcept override;
  void on_name(std::uint32_t id, std::string_view name) noexcept override;
  void on_site(std::uint32_t id, const SiteInfo& site) noexcept override;
  /// The same of a series: before any record or point of it. Any thread.
  void on_series(const Series& series) noexcept;

  // ---- the flusher ----

  /// Where a lane's ring has been read up to.
  std::uint64_t& visited(const Lane& lane);
  /// Which records are aggregated. Before the first one.
  void set_aggregated(bool samples, bool events) noexcept;
  /// A record of this kind was read.
  void saw(RecordKind kind) noexcept {
    if (is_aggregated(kind, events_are_aggregated_)) {
      seen_aggregated_ = samples_are_kept_;
    } else if (const auto signal = signal_of(kind)) {
      seen_[static_cast<std::size_t>(*signal)] = true;
    }
  }
  /// Where what is aggregated is written down: between begin_metrics() and end_metrics().
  CrashMetricsWriter& metrics() noexcept { return metrics_; }
  /// All that was read of the rings so far is in the aggregator.
  void begin_metrics() { metrics_.begin(visited_); }
  void end_metrics(LaneSet& lanes, SteadyTime now);
  /// Writes down what was dropped and is not published. False: the disk does not take it now.
  bool write_ledger(const DropCounts& counts);
  /// Records of a signal that were let go and are not settled: if the process dies they are dropped, for ring_full.
  std::uint64_t in_memory_only(Signal signal) const noexcept;
  /// Whether records wait for that.
  bool has_aggregated() const noexcept {
    return seen_aggregated_ || std::any_of(marks_.begin(), marks_.end(),
                                           [](const Mark& mark) { return mark.has_aggregated; });
  }
  /// Where what was read so far of a signal is.
  struct SignalState {
    std::uint64_t seals = 0;          ///< payloads sealed so far
    bool is_open = false;             ///< something is in the payload that is not sealed
    std::uint64_t last_sequence = 0;  ///< of the payloads that the sender has
  };
  struct RoundState {
    std::array<SignalState, signal_count> signals;
    SteadyTime now{};
    SteadyTime oldest_span = SteadyTime::max();  ///< that waits for its segment
  };
  /// Ends a round of visits: strikes and releases what is settled by now.
  void end_round(LaneSet& lanes, const RoundState& state,
                 const std::function<bool(Signal, std::uint64_t)>& settled);
  /// Whether rings fill up with what is not sealed.
  bool wants_seal(LaneSet& lanes);
  /// All records of the signal that were visited are in its payloads up to `sequence`.
  void mark_sealed(Signal signal, std::uint64_t sequence);

  // ---- the sender ----

  /// The payloads of a signal up to this one are settled.
  void settled(Signal signal, std::uint64_t sequence) noexcept;

 private:
  /// What has to happen before the records of one signal are settled: first, for spans, their
  /// segments go into payloads; then so many payloads are sealed; then the last of them is settled.
  struct Condition {
    bool has_records = false;  // since the mark before; without, nothing has to happen
    std::optional<std::uint64_t> seals;
    std::optional<std::uint64_t> sequence;
    bool done = false;
  };
  struct Mark {
    std::vector<std::uint64_t> positions;  // by lane: read up to there
    SteadyTime time{};
    std::array<Condition, signal_count> signals;
    bool has_aggregated = false;  // that are not in the file `metrics` yet

    Condition& of(Signal signal) noexcept { return signals[static_cast<std::size_t>(signal)]; }
  };
  /// What was released though it is not settled.
  struct Orphans {
    SteadyTime time{};
    std::array<Condition, signal_count> signals;
    std::array<std::uint64_t, signal_count> records{};
  };
  static constexpr std::size_t marks_max = 256;

  explicit CrashRings(Parts parts);
  bool open_box();
  bool make_files();
  void write_anchor();
  bool append_name(const CrashName& head, std::string_view text) noexcept;
  void add_mark(SteadyTime now);
  void let_go(LaneSet& lanes, Mark& mark);
  void strike(LaneSet& lanes, const Mark& mark, Signal signal);
  template <class Which>
  static void strike(LaneSet& lanes, std::vector<std::uint64_t>& struck,
                     const std::vector<std::uint64_t>& positions, Which&& which);
  void release(LaneSet& lanes, const Mark& mark);
  CrashTail* tail_of(std::uint32_t lane);
  void mark(Signal signal, const std::vector<std::uint64_t>& positions, std::uint64_t sequence);
  void write_mark(std::uint32_t lane, const CrashMark& mark);
  static void save_context(CrashContext (&slots)[2], std::uint64_t position,
                           const std::byte* record, std::uint32_t bytes) noexcept;
  void trouble(std::string_view what, int error) const;

  const Parts parts_;
  std::shared_ptr<transport::Disk> disk_ = transport::system_disk();
  transport::Disk::Handle directory_ = -1;
  transport::Disk::Handle box_ = -1;
  std::string box_name_;
  int names_ = -1;
  std::mutex names_mutex_;          // of what is appended to them
  std::mutex series_mutex_;         // any thread's
  std::vector<bool> known_series_;  // by number: it is among the names
  pid_t process_ = 0;
  CrashClock* clock_ = nullptr;
  SteadyTime next_anchor_{};
  SteadyTime next_warning_{};
  SteadyTime next_metrics_warning_{};
  std::uint64_t anchors_ = 0;

  // By lane.
  std::vector<std::uint64_t> visited_;
  std::vector<std::uint64_t> marked_;  // of the latest mark
  std::array<std::vector<std::uint64_t>, signal_count> struck_;
  std::array<std::vector<std::uint64_t>, signal_count> said_;  // position of the latest CrashMark
  std::vector<std::uint32_t> mark_counts_;
  std::deque<Mark> marks_;
  std::deque<Orphans> orphans_;
  std::array<bool, signal_count> seen_{};  // since the latest mark
  bool seen_aggregated_ = false;           // the same
  bool samples_are_kept_ = false;
  bool events_are_aggregated_ = false;
  std::vector<std::uint64_t> struck_aggregated_;
  CrashMetricsWriter metrics_;
  std::mutex lanes_mutex_;         // attach() is any thread's
  std::vector<CrashTail*> tails_;  // by lane; null: the lane is in memory only
  std::vector<int> lane_files_;
  std::vector<std::string> files_;  // names of all files in the box
};

}  // namespace spillway::detail
