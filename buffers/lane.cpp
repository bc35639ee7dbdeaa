// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <mutex>
#include <new>
#include <vector>

#include <pthread.h>
#include <sys/mman.h>

#include <spillway/buffers/lane.hpp>
#include <spillway/buffers/names.hpp>

namespace spillway::detail {

constinit ViewCache no_views{};
constinit Lane no_lane;
constinit thread_local Lane* current_lane = &no_lane;

std::uint32_t NameCache::id_of_slow(Entry& entry, const StaticName& name) noexcept {
  entry = {name.data(), name.hash(), intern_name(name.view())};
  return entry.id;
}

void Lane::count(std::uint32_t offset, std::uint32_t series, std::uint64_t n) noexcept {
  CumulativeCell& cell = cumulative(offset);
  const std::uint64_t count = cell.count.load(std::memory_order_relaxed);
  cell.excess.store(cell.excess.load(std::memory_order_relaxed) + (n - 1),
                    std::memory_order_relaxed);
  cell.count.store(count + 1, std::memory_order_release);
  if (count != 0) return;
  cell.series = series;
  cell.next = first_counter_.load(std::memory_order_relaxed);
  first_counter_.store(offset, std::memory_order_release);  // D1.
}

// ---- Which lanes a thread has ----

/// The lanes of one thread, one for each engine that it records to. Found by a trivial
/// thread_local; given back by a pthread key, whose destructors run after those of C++ thread_local
/// objects, which may therefore still record.
struct ThreadLanes {
  struct Entry {
    std::uint64_t engine_id;
    Lane* lane;
    std::shared_ptr<LaneSet> set;
  };
  std::vector<Entry> entries;

  Lane* find(std::uint64_t engine_id) const noexcept {
    const auto found = std::find_if(entries.begin(), entries.end(),
                                    [&](const Entry& e) { return e.engine_id == engine_id; });
    return found == entries.end() ? nullptr : found->lane;
  }

  /// Lets go of the lanes of engines that are gone, so that a thread that sees many engines does
  /// not collect them.
  void forget_closed() {
    std::erase_if(entries, [](const Entry& e) {
      const bool gone = e.set->closed() && e.set.use_count() == 1;
      if (gone && current_lane == e.lane) current_lane = &no_lane;
      return gone;
    });
  }

  static void release_all(void* lanes) noexcept {
    current = nullptr;
    current_lane = &no_lane;
    const std::unique_ptr<ThreadLanes> mine(static_cast<ThreadLanes*>(lanes));
    for (const Entry& entry : mine->entries) entry.set->release(*entry.lane);
  }

  static ThreadLanes& of_this_thread() {
    if (current == nullptr) {
      static const pthread_key_t key = [] {
        pthread_key_t made{};
        if (pthread_key_create(&made, &ThreadLanes::release_all) != 0) throw std::bad_alloc();
        return made;
      }();
      auto mine = std::make_unique<ThreadLanes>();
      if (pthread_setspecific(key, mine.get()) != 0) throw std::bad_alloc();
      current = mine.release();
    }
    return *current;
  }

  static constinit thread_local ThreadLanes* current;
};
constinit thread_local ThreadLanes* ThreadLanes::current = nullptr;

// ---- Which engines there are ----

namespace {

struct Registry {
  std::mutex mutex;  // of the sets, and of the free lanes of each; nothing else is locked under it
  std::vector<std::pair<std::uint64_t, std::weak_ptr<LaneSet>>> sets;
  std::atomic<std::uint64_t> closed_without_engine{0};
  std::atomic<std::uint64_t> last_engine_id{0};

  // Nobody holds the lock in the child of a fork, whatever another thread was doing here.
  static void before_fork() noexcept;
  static void after_fork() noexcept;
  Registry() { pthread_atfork(&before_fork, &after_fork, &after_fork); }

  std::shared_ptr<LaneSet> find(std::uint64_t engine_id) {
    const std::scoped_lock lock(mutex);
    for (const auto& [id, set] : sets) {
      if (id == engine_id) return set.lock();
    }
    return nullptr;
  }
  void add(const std::shared_ptr<LaneSet>& set) {
    const std::scoped_lock lock(mutex);
    std::erase_if(sets, [](const auto& entry) { return entry.second.expired(); });
    sets.emplace_back(set->engine_id(), set);
  }
};

// Never destroyed: threads record while static objects go away.
Registry& registry() {
  static auto* const instance = new Registry;
  return *instance;
}

void Registry::before_fork() noexcept { registry().mutex.lock(); }
void Registry::after_fork() noexcept { registry().mutex.unlock(); }

}  // namespace

Lane* enter_slow(std::uint64_t engine_id) noexcept try {
  if (engine_id == no_engine_id) return nullptr;
  ThreadLanes& mine = ThreadLanes::of_this_thread();
  Lane* lane = mine.find(engine_id);
  if (lane == nullptr) {
    std::shared_ptr<LaneSet> set = registry().find(engine_id);
    if (set == nullptr || set->closed()) return nullptr;
    mine.forget_closed();
    mine.entries.reserve(mine.entries.size() + 1);
    lane = set->acquire();
    if (lane == nullptr) return nullptr;
    mine.entries.push_back({engine_id, lane, std::move(set)});
  }
  current_lane = lane;
  const bool entered =
      asymmetric_fences() ? lane->gate_.enter(engine_id) : lane->gate_.enter_portable(engine_id);
  return entered ? lane : nullptr;
} catch (...) {
  return nullptr;
}

void count_refused(std::uint64_t engine_id, Signal signal) noexcept {
  if (ThreadLanes* const mine = ThreadLanes::current; mine != nullptr) {
    if (Lane* const lane = mine->find(engine_id); lane != nullptr) {
      switch (signal) {
        case Signal::metrics:
          lane->counters.metrics_closed.add();
          return;
        case Signal::logs:
          lane->counters.logs_closed.add();
          return;
        case Signal::spans:
          lane->counters.spans_closed.add();
          return;
      }
    }
  }
  if (const auto set = registry().find(engine_id); set != nullptr) {
    auto& calls = set->closed() ? set->closed_calls_ : set->calls_without_memory_;
    calls[static_cast<std::size_t>(signal)].fetch_add(1, std::memory_order_relaxed);
  } else {
    registry().closed_without_engine.fetch_add(1, std::memory_order_relaxed);
  }
}

std::uint64_t closed_without_engine() noexcept {
  return registry().closed_without_engine.load(std::memory_order_relaxed);
}

// ---- The lanes of one engine ----

LaneSet::LaneSet(const LaneLayout& layout, std::shared_ptr<const TickSource> ticks,
                 EngineServices* services, LaneStore* store)
    : layout_(layout),
      ticks_(std::move(ticks)),
      services_(services),
      store_(store),
      engine_id_(registry().last_engine_id.fetch_add(1, std::memory_order_relaxed) + 1) {
  // Asked here, because the kernel's answer to the first one may take milliseconds, which no
  // producer should wait for.
  asymmetric_fences();
}

std::shared_ptr<LaneSet> LaneSet::create(const LaneLayout& layout,
                                         std::shared_ptr<const TickSource> ticks,
                                         EngineServices* services, LaneStore* store) {
  std::shared_ptr<LaneSet> set(new LaneSet(layout, std::move(ticks), services, store));
  registry().add(set);
  return set;
}

namespace {

constexpr std::size_t page_bytes = 4096;
constexpr std::size_t in_pages(std::size_t bytes) {
  return (bytes + page_bytes - 1) / page_bytes * page_bytes;
}

}  // namespace

std::size_t LaneSet::head_bytes() noexcept { return in_pages(sizeof(Lane)); }

std::size_t LaneSet::counters_bytes() const noexcept {
  return std::size_t{Bank::first_cell_offset()} + layout_.bank.cell_bytes;
}

std::size_t LaneSet::lane_bytes() const noexcept {
  return Lane::counters_offset() + in_pages(counters_bytes()) + in_pages(layout_.ring_bytes) +
         2 * in_pages(layout_.bank.bytes());
}

LaneSet::~LaneSet() {
  for (Lane* lane = first_.load(std::memory_order_acquire); lane != nullptr;) {
    Lane* const next = lane->next_;
    munmap(lane, lane_bytes());
    lane = next;
  }
}

Lane* LaneSet::acquire() noexcept {
  Lane* lane = nullptr;
  {
    const std::scoped_lock lock(registry().mutex);
    if (!free_.empty()) {
      lane = free_.back();
      free_.pop_back();
      lane->written_context = Lane::unknown_context;
      return lane;
    }
  }
  // Reserved in full, and touched only as it is used: a thread that records once costs a few pages.
  void* const memory = mmap(nullptr, lane_bytes(), PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  auto* bytes = static_cast<std::byte*>(memory);
  const std::uint32_t index = size_.fetch_add(1, std::memory_order_acq_rel);
  std::byte* const ring = bytes + Lane::counters_offset() + in_pages(counters_bytes());
  if (store_ != nullptr) store_->attach(index, bytes, head_bytes(), ring, layout_.ring_bytes);
  lane = new (bytes) Lane;
  lane->names = new (bytes + sizeof(Lane)) NameCache;
  lane->views = new (bytes + sizeof(Lane) + sizeof(NameCache)) ViewCache;
  lane->ring.attach(ring, layout_.ring_bytes);
  bytes = ring + in_pages(layout_.ring_bytes);
  Bank* const first_bank = Bank::create(bytes, layout_.bank);
  lane->spare_bank_ = Bank::create(bytes + in_pages(layout_.bank.bytes()), layout_.bank);
  lane->services_ = services_;
  lane->ticks_ = ticks_.get();
  lane->exact_time_ = ticks_->is_hardware() ? Lane::Time::hardware : Lane::Time::call;
  lane->log_time_ = layout_.coarse_log_time ? Lane::Time::coarse : lane->exact_time_;
  lane->index_ = index;
  lane->gate_.open(engine_id_, first_bank, asymmetric_fences());

  lane->next_ = first_.load(std::memory_order_relaxed);
  while (!first_.compare_exchange_weak(lane->next_, lane, std::memory_order_seq_cst)) {
  }
  // Either close() finds the lane in the list, or this finds the set closed.
  if (closed_.load(std::memory_order_seq_cst)) lane->gate_.close();
  return lane;
}

void LaneSet::release(Lane& lane) noexcept try {
  const std::scoped_lock lock(registry().mutex);
  free_.push_back(&lane);
} catch (...) {
  // No memory for the list: the lane stays with the set, unused.
}

void LaneSet::want_cells() {
  for_each([](Lane& lane) { lane.wanted_ = lane.swaps_ + 1; });
}

bool LaneSet::take_cells(const std::function<void(Bank&)>& visit) {
  for_each([](Lane& lane) {
    if (lane.spare_is_dirty_ || lane.swaps_ >= lane.wanted_) return;
    lane.spare_bank_ = lane.gate_.swap(lane.spare_bank_);  // F1.
    lane.spare_is_dirty_ = true;
    ++lane.swaps_;
  });
  heavy_fence();  // F2.
  constexpr int looks_max = 2000;
  bool complete = true;
  for_each([&](Lane& lane) {
    const auto is_idle = [&lane] {
      return lane.gate_.is_idle() || lane.at_rest_.load(std::memory_order_acquire);  // F3.
    };
    if (lane.spare_is_dirty_) {
      for (int look = 0; !is_idle();) {
        if (++look == looks_max) {
          complete = false;
          return;
        }
      }
      visit(*lane.spare_bank_);  // F4.
      lane.spare_bank_->clear();
      lane.spare_is_dirty_ = false;
    }
    complete &= lane.swaps_ >= lane.wanted_;
  });
  return complete;
}

bool LaneSet::close(const std::function<bool()>& give_up) {
  closed_.store(true, std::memory_order_seq_cst);
  for_each([](Lane& lane) { lane.gate_.close(); });  // F1.
  heavy_fence();                                     // F2.
  bool at_rest = true;
  for_each([&](Lane& lane) {
    while (!lane.gate_.is_idle()) {  // F3.
      if (give_up()) {
        at_rest = false;
        return;
      }
    }
    lane.at_rest_.store(true, std::memory_order_release);
  });
  return at_rest;
}

void LaneSet::for_each_unfinished(const std::function<void(Bank&)>& visit) {
  for_each([&](Lane& lane) {
    if (lane.at_rest_.load(std::memory_order_acquire)) return;
    visit(*lane.gate_.peek());
    if (lane.spare_is_dirty_) visit(*lane.spare_bank_);
  });
}

std::uint64_t LaneSet::late_counts() const {
  std::uint64_t late = 0;
  for_each_counter([&](const CumulativeCell& cell) {
    late += cell.count.load(std::memory_order_acquire) -
            cell.count_seen.load(std::memory_order_relaxed);
  });
  return late;
}

std::uint64_t LaneSet::closed_calls(Signal signal) const noexcept {
  return closed_calls_[static_cast<std::size_t>(signal)].load(std::memory_order_relaxed);
}

std::uint64_t LaneSet::calls_without_memory(Signal signal) const noexcept {
  return calls_without_memory_[static_cast<std::size_t>(signal)].load(std::memory_order_relaxed);
}

}  // namespace spillway::detail
