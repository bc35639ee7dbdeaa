// SPDX-License-Identifier: Apache-2.0
//
// Single-producer single-consumer ring of bytes, holding records of varying size (record.hpp).
//
//   head_   written by the producer only: bytes ever published
//   tail_   written by the flusher only:  bytes ever released
//   Always: tail_ <= head_ <= tail_ + capacity. The byte of a position: position & mask_.
//   A record never wraps: where it would, a `skip` record fills the rest and the record starts at
//   offset 0.
//
// Pair A  producer stores head_ (release)  ->  flusher loads head_ (acquire): the records are
//         visible.
// Pair B  flusher stores tail_ (release)   ->  producer loads tail_ (acquire): the bytes may be
//         overwritten.
// A thread reads its own index relaxed: nobody else writes it.
//
// limit_ is the producer's private bound: up to there bytes are free, contiguous, and not kept
// back. One comparison with it is the whole check of a reservation; the slow path recomputes it,
// and reads tail_ only when the ring looks full. A stale bound only makes the ring look fuller than
// it is.
//
// The last eighth is kept for urgent records (WARN and above, failed spans), so that a flood of
// chatter cannot hide the error behind it. Full: reserve() finds no room and the caller counts a
// drop. Producers never wait.
//
// A room that is not committed leaves no trace: the next one starts at the same place.
#pragma once

#include <atomic>
#include <cassert>
#include <cstddef>
#include <cstdint>

#include <sys/mman.h>

#include <spillway/buffers/cache_line.hpp>
#include <spillway/buffers/memory_access.hpp>
#include <spillway/buffers/record.hpp>

namespace spillway::detail {

/// Asks for the cache line to be the calling core's own.
inline void prefetch_for_write(const std::byte* at) noexcept {
#if defined(__x86_64__)
  // The compiler's builtin needs a newer baseline for this instruction, which all of x86-64 takes.
  asm volatile("prefetchw %0" : : "m"(*at));
#else
  __builtin_prefetch(at, 1, 3);
#endif
}

template <class Memory = MachineMemory>
class BasicRing {
 public:
  static constexpr std::uint32_t capacity_min = 4096;
  static constexpr std::uint32_t capacity_max = 1U << 24;
  /// How far ahead of the record being written the ring asks for its lines, which the flusher's core
  /// took when it read the last lap.
  static constexpr std::uint32_t prefetch_bytes = 640;

  BasicRing() = default;
  BasicRing(const BasicRing&) = delete;
  BasicRing& operator=(const BasicRing&) = delete;

  /// Gives the ring its memory, owned by the caller and outliving the ring. `capacity` is a power
  /// of two from capacity_min to capacity_max. Before any other call, from one thread.
  void attach(std::byte* storage, std::uint32_t capacity) noexcept {
    assert((capacity & (capacity - 1)) == 0 && capacity >= capacity_min &&
           capacity <= capacity_max);
    storage_ = storage;
    lap_ = reinterpret_cast<std::uintptr_t>(storage);
    mask_ = capacity - 1;
    limit_ = capacity - urgent_bytes();
  }

  std::uint32_t capacity() const noexcept { return mask_ + 1; }
  /// The largest record that is certain to fit into an empty ring, wherever its head stands.
  std::uint32_t record_bytes_max() const noexcept { return capacity() / 4; }

  // ---- the producer ----

  /// Where a record goes, and what head_ is once it is there.
  struct Room {
    std::byte* at = nullptr;
    std::uint64_t end = 0;
    explicit operator bool() const noexcept { return at != nullptr; }
  };

  /// Room for a record of `bytes` (a multiple of 8, at least 16) if the bound says so at once; none
  /// when reserve() has to be asked.
  Room try_reserve(std::uint64_t bytes) noexcept {
    const std::uint64_t head = head_.load(std::memory_order_relaxed);
    const std::uint64_t end = head + bytes;
    if (end > limit_) [[unlikely]]
      return {};
    std::byte* const at = address_of(head);
    // Records up to a line long meet each line with their ends alone. Past the lap's end the hint is
    // for nothing, and does nothing.
    prefetch_for_write(at + bytes + prefetch_bytes);
    if (bytes > cache_line_bytes) prefetch_for_write(at + prefetch_bytes);
    if (at == nullptr) __builtin_unreachable();
    return {at, end};
  }
  /// The same with a bound that is looked at again, where urgent records find what is kept back for
  /// them. None: full. More than record_bytes_max() may find no room in an empty ring.
  Room reserve(std::uint32_t bytes, bool urgent = false) noexcept {
    const Room room = try_reserve(bytes);
    return room ? room : reserve_slow(bytes, urgent);
  }

  /// Publishes the record in the room last reserved.
  void commit(const Room& room) noexcept {
    head_.store(room.end,
                Memory::order(Access::ring_commit, std::memory_order_release));  // Pair A.
  }

  // ---- the flusher ----

  /// Calls `visit(const std::byte* record, const RecordHeader&)` for the records published so far,
  /// oldest first, until none is left or `bytes_max` are done, and releases them in steps of an
  /// eighth of the ring. Returns the bytes done.
  template <class Visit>
  std::uint64_t drain(Visit&& visit, std::uint64_t bytes_max = ~std::uint64_t{0}) {
    const std::uint64_t start = tail_.load(std::memory_order_relaxed);
    const std::uint64_t head =
        head_.load(Memory::order(Access::ring_observe, std::memory_order_acquire));  // Pair A.
    std::uint64_t tail = start;
    std::uint64_t released = start;
    while (tail != head && tail - start < bytes_max) {
      const std::byte* record = storage_ + (tail & mask_);
      RecordHeader header{};
      Memory::read(&header.size_and_kind, record, sizeof header.size_and_kind);
      assert(header.bytes() >= 8 && header.bytes() % 8 == 0 && header.bytes() <= head - tail);
      if (header.kind() != RecordKind::skip) {
        Memory::read(&header, record, sizeof header);
        visit(record, header);
      }
      tail += header.bytes();
      if (tail - released >= capacity() / 8) {
        tail_.store(tail, Memory::order(Access::ring_release_step,
                                        std::memory_order_release));  // Pair B.
        released = tail;
      }
    }
    if (tail != released) {
      tail_.store(tail, Memory::order(Access::ring_release_end,
                                      std::memory_order_release));  // Pair B.
    }
    return tail - start;
  }

  // The flusher of a ring whose records stay in it until they are delivered (engine/crash_rings.hpp)
  // does in three steps what drain() does in one: walk(), strike() and release().

  /// Calls `visit(std::byte* record, const RecordHeader&)` for the records of [from, to), up to what
  /// was published(); of a `skip` only the first word of the header is valid.
  template <class Visit>
  void walk(std::uint64_t from, std::uint64_t to, Visit&& visit) {
    while (from != to) {
      std::byte* const record = storage_ + (from & mask_);
      RecordHeader header{};
      Memory::read(&header.size_and_kind, record, sizeof header.size_and_kind);
      if (header.kind() != RecordKind::skip) Memory::read(&header, record, sizeof header);
      assert(header.bytes() >= 8 && header.bytes() % 8 == 0 && header.bytes() <= to - from);
      visit(record, header);
      from += header.bytes();
    }
  }
  /// Turns a record that is not released yet into a `skip`: it is not there any more.
  static void strike(std::byte* record, const RecordHeader& header) noexcept {
    const std::uint32_t word = RecordHeader::pack(header.bytes(), RecordKind::skip);
    Memory::write(record, &word, sizeof word);
  }
  void release(std::uint64_t position) noexcept {
    tail_.store(position,
                Memory::order(Access::ring_release_end, std::memory_order_release));  // Pair B.
  }
  /// Where in the ring object these two are, for who reads it after its process.
  static constexpr std::size_t published_offset() noexcept { return offsetof(BasicRing, head_); }
  static constexpr std::size_t released_offset() noexcept { return offsetof(BasicRing, tail_); }
  std::uint64_t released() const noexcept { return tail_.load(std::memory_order_acquire); }
  std::uint64_t published() const noexcept {
    return head_.load(std::memory_order_acquire);  // Pair A.
  }

  /// Has the kernel give the ring its pages ahead of the producer's first lap, so that it is not the
  /// producer who waits for them: eight times what was used so far, and nothing for a thread that
  /// records once. Content is left alone.
  void populate_ahead() noexcept {
    const std::uint64_t used = tail_.load(std::memory_order_relaxed);
    if (populated_ == capacity() || used < page_bytes) return;
    const auto wanted = static_cast<std::uint32_t>(
        used * 8 < capacity() ? used * 8 / page_bytes * page_bytes : capacity());
    if (wanted <= populated_) return;
    // A kernel before 5.14 does not know the advice: then pages come when they are touched.
    const bool known = madvise(storage_ + populated_, wanted - populated_, populate_write) == 0;
    populated_ = known ? wanted : capacity();
  }

  /// Whether something is published and not released. From any thread; a hint for the others.
  bool empty() const noexcept {
    return tail_.load(std::memory_order_acquire) == head_.load(std::memory_order_acquire);
  }

  /// The invariants above that can be checked from outside. For tests, with no call under way.
  bool is_consistent() const noexcept {
    const std::uint64_t head = head_.load(std::memory_order_acquire);
    const std::uint64_t tail = tail_.load(std::memory_order_acquire);
    return tail <= head && head - tail <= capacity() && head % 8 == 0 && tail % 8 == 0 &&
           limit_ <= tail_seen_ + capacity() && tail_seen_ <= tail;
  }

 private:
  static constexpr std::uint32_t page_bytes = 4096;
  static constexpr int populate_write =
      23;  // MADV_POPULATE_WRITE, which older headers do not name.

  std::uint32_t urgent_bytes() const noexcept { return capacity() / 8; }

  // Out of line and cold: taken once per lap, and while the ring is full.
  [[gnu::noinline, gnu::cold]] Room reserve_slow(std::uint32_t bytes, bool urgent) noexcept {
    if (bytes > record_bytes_max()) return {};
    std::uint64_t head = head_.load(std::memory_order_relaxed);
    const auto offset = static_cast<std::uint32_t>(head & mask_);
    const std::uint32_t to_end = capacity() - offset;
    const std::uint32_t skipped = bytes > to_end ? to_end : 0;
    const std::uint64_t needed = std::uint64_t{bytes} + skipped + (urgent ? 0U : urgent_bytes());
    if (head + needed > tail_seen_ + capacity()) {
      tail_seen_ =
          tail_.load(Memory::order(Access::ring_reuse, std::memory_order_acquire));  // Pair B.
      if (head + needed > tail_seen_ + capacity()) return {};
    }
    if (skipped != 0) {
      const std::uint32_t word = RecordHeader::pack(skipped, RecordKind::skip);
      Memory::write(storage_ + offset, &word, sizeof word);
      head += skipped;
      head_.store(head, Memory::order(Access::ring_skip, std::memory_order_release));  // Pair A.
    }
    lap_ = reinterpret_cast<std::uintptr_t>(storage_) - (head - (head & mask_));
    const std::uint64_t lap_end = (head | mask_) + 1;
    const std::uint64_t free_end = tail_seen_ + capacity() - urgent_bytes();
    limit_ = lap_end < free_end ? lap_end : free_end;
    return {address_of(head), head + bytes};
  }

  /// Of a position up to limit_. A number till here, because lap_ is outside of the storage.
  std::byte* address_of(std::uint64_t position) const noexcept {
    return reinterpret_cast<std::byte*>(lap_ + position);
  }

  using Position = typename Memory::template Atomic<std::uint64_t>;

  // The producer's line; the flusher reads head_ once per drain.
  alignas(cache_line_bytes) Position head_{0};
  std::uint64_t limit_ = 0;
  std::uintptr_t lap_ = 0;  // What makes an address of a position of the lap that limit_ is in.
  std::byte* storage_ = nullptr;
  std::uint64_t tail_seen_ = 0;
  std::uint32_t mask_ = 0;
  // The flusher's line; the producer reads it only when the ring looks full.
  alignas(cache_line_bytes) Position tail_{0};
  std::uint32_t populated_ = 0;
};

using Ring = BasicRing<>;
static_assert(sizeof(Ring) == 2 * cache_line_bytes);
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

}  // namespace spillway::detail
