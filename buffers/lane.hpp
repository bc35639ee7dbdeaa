// SPDX-License-Identifier: Apache-2.0
//
// A lane is what one producer thread writes for one engine: a ring of records, two banks of cells,
// and counters. The flusher of that engine reads it. A call that records into a bank, or may take a
// slow way, is one operation:
//
//   operate(engine_id, signal, [](Lane& lane) { write cells, or reserve and commit a record });
//
// The flusher takes a thread's cells, or closes its lane, by the hand-over of gate.hpp: P1..P5 of the
// producer, F1..F4 of the flusher.
//
// Counters and records need none of that. A thread makes its cumulative cells grow, and the flusher
// reads them beside it; a record is whole when the ring's head says so.
//
//   producer                                   flusher
//   C1  look at the gate                       D1  first_counter_ (acquire), then cell by cell
//   C2  excess (relaxed), if it is not 1       D2  count (acquire), then excess; less what was seen
//   C3  count = count + 1 (release)
//
//   R1  look at the gate                       ring.hpp
//   R2  reserve, count, write, commit
//
// C3 pairs with D2, so that no amount is missing from what is counted. After close() an addition
// or a record that had passed C1 or R1 before may still come. The account finds them: late_counts(),
// and what is counted as recorded and was never drained.
//
// Life of a lane:
//   acquire()  by the thread, at its first record   free list -> the thread (or fresh memory)
//   release()  when the thread ends                 the thread -> free list; ring and cells keep what
//                                                   they hold, the next owner goes on from there
//   close()    when the engine shuts down           engine_id_ = 0: each later call is counted
//
// The memory goes with the LaneSet, which the engine and every thread that has a lane of it own
// together.
//
// Not for signal handlers: an operation inside an operation of the same thread would break the gate.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include <spillway/buffers/asymmetric_fence.hpp>
#include <spillway/buffers/cache_line.hpp>
#include <spillway/buffers/cells.hpp>
#include <spillway/buffers/gate.hpp>
#include <spillway/buffers/ring.hpp>
#include <spillway/buffers/static_name.hpp>
#include <spillway/buffers/tick_source.hpp>

namespace spillway::detail {

/// A counter with one writer: no read-modify-write instruction.
class SingleWriterCounter {
 public:
  void add(std::uint64_t n = 1) noexcept {
#if defined(__x86_64__) && !defined(SPILLWAY_SANITIZED)
    // The same in one instruction, where compilers make three of it.
    asm volatile("addq %1, %0" : "+m"(value_) : "er"(n) : "cc");
#else
    value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
#endif
  }
  std::uint64_t get() const noexcept { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

/// What the producer counts. Written by it only; ever growing, also across owners of the lane.
struct LaneCounters {
  SingleWriterCounter logs_recorded;  ///< committed or dropped
  SingleWriterCounter logs_ring_full;
  SingleWriterCounter logs_queue_full;  ///< too large for a ring, and no room beside it
  SingleWriterCounter spans_recorded;
  SingleWriterCounter spans_ring_full;
  SingleWriterCounter
      measurements_invalid;              ///< NaN, infinite, too large, or negative for a counter
  SingleWriterCounter samples_recorded;  ///< committed to the ring or folded into a cell
  SingleWriterCounter events_recorded;   ///< measurements of wide events: committed or dropped
  SingleWriterCounter events_ring_full;
  SingleWriterCounter events_too_large;  ///< for the ring
  SingleWriterCounter samples_folded;
  SingleWriterCounter metrics_closed;  ///< calls after the engine had shut down
  SingleWriterCounter logs_closed;
  SingleWriterCounter spans_closed;
};

/// Remembers the numbers of the string literals that a thread uses, found by address. Producer
/// only. Zeroed memory is an empty cache: it is never constructed page by page.
class NameCache {
 public:
  std::uint32_t id_of(const StaticName& name) noexcept {
    Entry& entry = entries_[name.hash() % entries_.size()];
    // The address alone would do, were there no libraries that are loaded where another one was.
    if (entry.text == name.data() && entry.hash == name.hash()) [[likely]]
      return entry.id;
    return id_of_slow(entry, name);
  }

 private:
  struct Entry {
    const char* text;
    std::uint32_t hash;
    std::uint32_t id;
  };
  static std::uint32_t id_of_slow(Entry& entry, const StaticName& name) noexcept;
  std::array<Entry, 256> entries_;
};

/// Finds the cell of a (metric, tenant) pair, so that a tenant's view of a metric costs one probe.
/// Producer only. Zeroed memory is an empty cache.
class ViewCache {
 public:
  struct View {
    std::uint64_t key;  ///< 0: free
    std::uint32_t offset;
    std::uint32_t series;
  };
  /// The view of `key`, or null. Of a key without an identity in its lower half there is none.
  const View* look_up(std::uint64_t key) const noexcept {
    const View* const bucket = &views_[bucket_of(key)];
    for (std::size_t way = 0; way < ways; ++way) {
      if (bucket[way].key == key) return &bucket[way];
    }
    return nullptr;
  }
  /// The view of `key` (not 0), or a free place to put it, whatever stood there before.
  View& find(std::uint64_t key) noexcept {
    View* const bucket = &views_[bucket_of(key)];
    for (std::size_t way = 0; way < ways; ++way) {
      if (bucket[way].key == key) return bucket[way];
    }
    View& victim = bucket[next_victim_++ % ways];
    victim.key = 0;
    return victim;
  }

 private:
  static constexpr std::size_t ways = 4;
  std::size_t bucket_of(std::uint64_t key) const noexcept {
    return (key * 0x9E3779B97F4A7C15U >> 32) % (views_.size() / ways) * ways;
  }
  std::array<View, 4096> views_;
  std::uint32_t next_victim_;
};
static_assert(std::is_trivially_default_constructible_v<NameCache> &&
              std::is_trivially_default_constructible_v<ViewCache>);

/// Of no lane: empty for ever.
extern ViewCache no_views;

/// What a handle refers to that no engine gave out. Lanes of no engine have 0, so that nothing
/// matches them.
inline constexpr std::uint64_t no_engine_id = ~std::uint64_t{0};

enum class Signal : std::uint8_t { metrics, logs, spans };
inline constexpr std::size_t signal_count = 3;

class LaneSet;
/// What an engine does for producers out of line (engine/services.hpp).
class EngineServices;

class alignas(cache_line_bytes) Lane {
  /// Where a time comes from.
  enum class Time : std::uint8_t { hardware, coarse, call };

  // The first line: what every record looks at.
  BasicGate<Bank> gate_;
  const TickSource* ticks_ = nullptr;  // constant
  Time exact_time_ = Time::hardware;   // constant
  Time log_time_ = Time::hardware;     // constant

 public:
  constexpr Lane() = default;
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  // ---- the producer, between enter() and leave() ----

  Bank& bank() noexcept { return gate_.bank(); }  // Once an operation: see there.
  void leave() noexcept { gate_.leave(); }
  /// Time of the flusher's last round, in ticks: a load where a clock would cost 10 ns.
  std::uint64_t coarse_ticks() const noexcept {
    return ticks_->coarse.load(std::memory_order_relaxed);
  }
  std::uint64_t exact_ticks() const noexcept { return ticks(exact_time_); }
  /// What a log is stamped with.
  std::uint64_t log_ticks() const noexcept { return ticks(log_time_); }

  /// Adds `n`, which fits, to the counter at `offset`, be it the first time.
  void count(std::uint32_t offset, std::uint32_t series, std::uint64_t n) noexcept;

  // ---- the producer, without an operation ----

  /// Whether records of that engine may go into the ring at this moment: R1.
  bool takes_records_of(std::uint64_t engine_id) const noexcept {
    return gate_.is_open_for(engine_id);
  }
  /// The same times, if they can be had without a call.
  bool try_exact_ticks(std::uint64_t& ticks) const noexcept {
    return try_ticks(exact_time_, ticks);
  }
  bool try_log_ticks(std::uint64_t& ticks) const noexcept { return try_ticks(log_time_, ticks); }

  /// Adds `n`, which fits, to the counter at `offset`. False, and nothing is done: the lane is not
  /// one of that engine, or the engine is closed, or it is the first addition, which is count()'s.
  bool try_count(std::uint64_t engine_id, std::uint32_t offset, std::uint64_t n) noexcept {
    if (!gate_.is_open_for(engine_id)) [[unlikely]]  // C1.
      return false;
    CumulativeCell& cell = cumulative(offset);
    const std::uint64_t count = cell.count.load(std::memory_order_relaxed);
    if (count == 0) [[unlikely]]
      return false;
    if (n != 1) {
      cell.excess.store(cell.excess.load(std::memory_order_relaxed) + (n - 1),
                        std::memory_order_relaxed);  // C2.
    }
    cell.count.store(count + 1, std::memory_order_release);  // C3.
    return true;
  }

  /// The engine that the lane belongs to; alive inside an operation.
  EngineServices& services() const noexcept { return *services_; }

  /// Serial of the last context record in the ring. 0, which is no context, needs no record in a
  /// fresh ring; behind another thread's records it does.
  std::uint64_t written_context = 0;
  static constexpr std::uint64_t unknown_context = ~std::uint64_t{0};
  Ring ring;
  LaneCounters counters;
  NameCache* names = nullptr;
  ViewCache* views = &no_views;

 private:
  friend class LaneSet;
  friend Lane* enter(std::uint64_t engine_id) noexcept;
  template <class Attempt>
  friend bool try_operate(std::uint64_t engine_id, Attempt&& attempt) noexcept;
  template <class Operation>
  friend void operate(std::uint64_t engine_id, Signal signal, Operation&& operation) noexcept;
  friend Lane* enter_slow(std::uint64_t engine_id) noexcept;

  bool try_ticks(Time from, std::uint64_t& ticks) const noexcept {
    if (from == Time::hardware) [[likely]] {
      ticks = hardware_ticks();
      return true;
    }
    ticks = coarse_ticks();
    return from == Time::coarse;
  }
  std::uint64_t ticks(Time from) const noexcept {
    std::uint64_t ticks = 0;
    return try_ticks(from, ticks) ? ticks : ticks_->ticks();
  }

  // The cumulative cells stand behind the lane and its caches, at the offsets that a bank has.
  static constexpr std::size_t counters_offset() noexcept {
    constexpr std::size_t page_bytes = 4096;
    return (sizeof(Lane) + sizeof(NameCache) + sizeof(ViewCache) + page_bytes - 1) / page_bytes *
           page_bytes;
  }
  CumulativeCell& cumulative(std::uint32_t offset) noexcept {
    return *std::launder(reinterpret_cast<CumulativeCell*>(reinterpret_cast<std::byte*>(this) +
                                                           counters_offset() + offset));
  }

  // Cold.
  EngineServices* services_ = nullptr;           // constant
  std::atomic<std::uint32_t> first_counter_{0};  // producer: offset of the latest cell in use
  Bank* spare_bank_ = nullptr;                   // flusher: the bank that the gate does not name
  bool spare_is_dirty_ = false;                  // flusher: taken from the producer, not yet read
  std::uint64_t swaps_ = 0;                      // flusher: how often it took a bank away
  std::uint64_t wanted_ = 0;                     // flusher: how often it has to have done so
  std::uint32_t index_ = 0;                      // constant
  Lane* next_ = nullptr;                         // constant: the set's list
  // Closed, and seen idle since: a late caller that knocks at the gate is no operation.
  std::atomic<bool> at_rest_{false};
};

/// A thread's current lane; never null. `no_lane` stands for none.
extern Lane no_lane;
#if defined(__GNUC__)
[[gnu::tls_model("initial-exec")]]
#endif
extern constinit thread_local Lane* current_lane;

/// Begins an operation of the calling thread for an engine, giving the thread its lane at its first
/// one (which allocates and takes a lock). nullptr: the engine has shut down, or there is no memory
/// for a lane. The caller counts that with count_refused().
Lane* enter_slow(std::uint64_t engine_id) noexcept;
inline Lane* enter(std::uint64_t engine_id) noexcept {
  Lane* const lane = current_lane;
  return lane->gate_.enter(engine_id) ? lane : enter_slow(engine_id);
}

/// Counts a call that found its engine closed, or no memory for a lane.
[[gnu::cold]] void count_refused(std::uint64_t engine_id, Signal signal) noexcept;

/// Runs `attempt(Lane&)` as one operation of the calling thread for an engine, and returns what it
/// does. False also, with nothing run: the thread has no lane of that engine yet, or it is closed.
template <class Attempt>
[[gnu::always_inline]] inline bool try_operate(std::uint64_t engine_id,
                                               Attempt&& attempt) noexcept {
  Lane* const lane = current_lane;
  if (!lane->gate_.enter(engine_id)) [[unlikely]]
    return false;
  const bool done = attempt(*lane);
  lane->leave();
  return done;
}
/// Runs `operation(Lane&)` as one operation of the calling thread for an engine, or counts a call
/// that was refused.
template <class Operation>
[[gnu::always_inline]] inline void operate(std::uint64_t engine_id, Signal signal,
                                           Operation&& operation) noexcept {
  Lane* lane = current_lane;
  if (!lane->gate_.enter(engine_id)) [[unlikely]] {
    lane = enter_slow(engine_id);
    if (lane == nullptr) return count_refused(engine_id, signal);
  }
  operation(*lane);
  lane->leave();
}
/// Calls that came after their engine object was gone, in this process.
std::uint64_t closed_without_engine() noexcept;

/// Sizes of every lane of an engine.
struct LaneLayout {
  std::uint32_t ring_bytes = 1U << 20;
  bool coarse_log_time = false;  ///< logs get the time of the flusher's last round
  BankLayout bank;
};

/// Puts what has to outlive the process into files.
class LaneStore {
 public:
  virtual ~LaneStore() = default;
  /// Gives a lane that is not in use yet memory of a file, zeroed, in place of `head` (whole pages,
  /// which the Lane is in) and of its ring. False: it keeps what it has. Any thread.
  virtual bool attach(std::uint32_t index, std::byte* head, std::size_t head_bytes, std::byte* ring,
                      std::size_t ring_bytes) noexcept = 0;
};

/// All lanes of one engine. The flusher calls what is not marked otherwise.
class LaneSet : public std::enable_shared_from_this<LaneSet> {
 public:
  /// Registers the set under a new engine id, never used before in this process. `services` and
  /// `store` must live until close() has returned.
  static std::shared_ptr<LaneSet> create(const LaneLayout& layout,
                                         std::shared_ptr<const TickSource> ticks,
                                         EngineServices* services = nullptr,
                                         LaneStore* store = nullptr);
  ~LaneSet();

  std::uint64_t engine_id() const noexcept { return engine_id_; }
  std::uint32_t size() const noexcept { return size_.load(std::memory_order_acquire); }
  const LaneLayout& layout() const noexcept { return layout_; }

  /// Every lane that was ever handed out, in use or free. Any thread.
  template <class Visit>
  void for_each(Visit&& visit) const {
    for (Lane* lane = first_.load(std::memory_order_acquire); lane != nullptr; lane = lane->next_) {
      visit(*lane);
    }
  }

  /// Asks for everything that is in the cells of all threads now.
  void want_cells();
  /// Takes the cells that are wanted: `visit(Bank&)` reads a bank and zeroes the cells of its touched
  /// series; clearing the rest is done here. A lane whose producer is stopped inside an operation
  /// keeps its old bank until the next call. Returns whether nothing that is wanted is left.
  bool take_cells(const std::function<void(Bank&)>& visit);
  /// After close() gave up: `visit` sees the banks of lanes whose producers are still inside an
  /// operation, and may only read. The figures may be some calls old.
  void for_each_unfinished(const std::function<void(Bank&)>& visit);

  /// Reads what was added to counters since the last call: `visit(series, count, sum)`, count not 0.
  template <class Visit>
  void take_counters(Visit&& visit) {
    for_each_counter([&](CumulativeCell& cell) {
      const std::uint64_t count = cell.count.load(std::memory_order_acquire);  // D2.
      const std::uint64_t new_count = count - cell.count_seen.load(std::memory_order_relaxed);
      if (new_count == 0) return;
      const std::uint64_t excess = cell.excess.load(std::memory_order_relaxed);
      const std::uint64_t new_excess = excess - cell.excess_seen.load(std::memory_order_relaxed);
      cell.count_seen.store(count, std::memory_order_relaxed);
      cell.excess_seen.store(excess, std::memory_order_relaxed);
      visit(cell.series, new_count, static_cast<double>(new_count + new_excess));
    });
  }
  /// Additions that came after the last take_counters(). Any thread.
  std::uint64_t late_counts() const;

  /// From here on enter() fails for this engine. Returns once no producer is inside an operation,
  /// or when `give_up` says so. Once. True: nothing is written to any lane from here on.
  bool close(const std::function<bool()>& give_up);
  bool closed() const noexcept { return closed_.load(std::memory_order_acquire); }

  /// Pages from the beginning of a lane that hold the Lane itself.
  static std::size_t head_bytes() noexcept;
  /// The index of a lane in the order of creation, for tables beside the set.
  static std::uint32_t index_of(const Lane& lane) noexcept { return lane.index_; }

  /// Calls after close() by threads that had no lane. Any thread.
  std::uint64_t closed_calls(Signal signal) const noexcept;
  /// Calls by threads for which there was no memory for a lane. Any thread.
  std::uint64_t calls_without_memory(Signal signal) const noexcept;

 private:
  friend Lane* enter_slow(std::uint64_t engine_id) noexcept;
  friend void count_refused(std::uint64_t engine_id, Signal signal) noexcept;
  friend struct ThreadLanes;

  LaneSet(const LaneLayout& layout, std::shared_ptr<const TickSource> ticks,
          EngineServices* services, LaneStore* store);
  template <class Visit>
  void for_each_counter(Visit&& visit) const {
    for_each([&](Lane& lane) {
      for (std::uint32_t at = lane.first_counter_.load(std::memory_order_acquire);
           at != 0;) {  // D1.
        CumulativeCell& cell = lane.cumulative(at);
        visit(cell);
        at = cell.next;
      }
    });
  }
  Lane* acquire() noexcept;           // any thread
  void release(Lane& lane) noexcept;  // any thread
  std::size_t counters_bytes() const noexcept;
  std::size_t lane_bytes() const noexcept;

  const LaneLayout layout_;
  const std::shared_ptr<const TickSource> ticks_;
  EngineServices* const services_;
  LaneStore* const store_;
  const std::uint64_t engine_id_;
  std::atomic<Lane*> first_{nullptr};
  std::atomic<std::uint32_t> size_{0};
  std::vector<Lane*> free_;  // Under a lock of all sets, taken once in a thread's life at each end.
  std::atomic<bool> closed_{false};
  std::array<std::atomic<std::uint64_t>, signal_count> closed_calls_{};
  std::array<std::atomic<std::uint64_t>, signal_count> calls_without_memory_{};
};

}  // namespace spillway::detail
