// SPDX-License-Identifier: Apache-2.0
//
// A bounded hash table from 128-bit keys to small values, for any number of threads. It is made in
// one piece and never grows: a key that finds no room evicts one that is idle, or is refused.
//
// Values live and move under their shard's lock, so that no two keys ever share one and no update is
// lost: what counting needs, and what resilience/key_table.hpp, whose objects are found without a
// lock, does not promise.
//
// Shards, each with a lock of its own that is held for some ten nanoseconds: a decision has to be
// exact, so two threads that decide on one key take turns. Open addressing with linear probing;
// deletion moves followers back, so there are no tombstones.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include <spillway/buffers/cache_line.hpp>
#include <spillway/middleware/siphash.hpp>

namespace spillway::detail {

/// A lock for a few instructions. Its holder may be preempted: after some spins the processor is
/// given away.
class SpinLock {
 public:
  void lock() noexcept {
    for (int spins = 0; locked_.exchange(true, std::memory_order_acquire);) {
      do {
        if (++spins % spins_before_yield == 0) {
          std::this_thread::yield();
        } else {
#if defined(__x86_64__)
          __builtin_ia32_pause();
#endif
        }
      } while (locked_.load(std::memory_order_relaxed));
    }
  }
  void unlock() noexcept { locked_.store(false, std::memory_order_release); }

 private:
  static constexpr int spins_before_yield = 64;
  std::atomic<bool> locked_{false};
};

/// `Value` is default constructible, movable, and says with `std::int64_t idle_at() const` from
/// which moment on it can be forgotten without anybody noticing.
template <class Value>
class StateTable {
 public:
  /// Holds at least `keys_max` keys and at most an eighth more.
  explicit StateTable(std::size_t keys_max)
      : shard_mask_(
            std::bit_ceil(std::clamp(keys_max / keys_per_shard_min, std::size_t{1}, shards_max)) -
            1),
        shards_(shard_mask_ + 1) {
    // Keys spread over the shards by chance: the eighth is for the fuller ones.
    const std::size_t keys = (keys_max + shard_mask_) / shards_.size();
    for (Shard& shard : shards_) {
      shard.keys_max = keys + (shards_.size() == 1 ? 0 : keys / 8);
      shard.slots.resize(std::bit_ceil(shard.keys_max + shard.keys_max / 3 + 1));
    }
  }

  /// Calls `act(Value*)` with the key's value under the shard's lock; a key that is new gets one.
  /// nullptr: the table is full of keys that are not idle at `now`. `act` must be short.
  template <class Act>
  decltype(auto) visit(const Hash128& key, std::int64_t now, Act&& act) {
    const Hash128 real = used(key);
    Shard& shard = shard_of(real);
    const std::scoped_lock lock(shard.lock);
    if (Value* const found = shard.find(real)) return act(found);
    return act(shard.insert(real, now));
  }
  /// The same for a key that is there; `act(nullptr)` when it is not.
  template <class Act>
  decltype(auto) visit_present(const Hash128& key, Act&& act) {
    const Hash128 real = used(key);
    Shard& shard = shard_of(real);
    const std::scoped_lock lock(shard.lock);
    return act(shard.find(real));
  }
  /// Calls `act(key, Value&)` for every key, shard by shard, each under its lock.
  template <class Act>
  void visit_all(Act&& act) {
    for (Shard& shard : shards_) {
      const std::scoped_lock lock(shard.lock);
      for (Slot& slot : shard.slots) {
        if (slot.key != Hash128{}) act(slot.key, slot.value);
      }
    }
  }

  /// Keys that are there now, idle ones too.
  std::size_t size() {
    std::size_t keys = 0;
    for (Shard& shard : shards_) {
      const std::scoped_lock lock(shard.lock);
      keys += shard.keys;
    }
    return keys;
  }
  std::size_t keys_max() const noexcept { return shards_.size() * shards_.front().keys_max; }

 private:
  static constexpr std::size_t shards_max = 64;
  static constexpr std::size_t keys_per_shard_min = 64;
  static constexpr std::size_t swept_per_insert = 4;

  struct Slot {
    Hash128 key{};  // all zero: free
    Value value{};
  };

  struct alignas(cache_line_bytes) Shard {
    SpinLock lock;
    std::size_t keys = 0;
    std::size_t keys_max = 0;
    std::size_t hand = 0;  // where the next sweep begins
    // No key was idle before this when all were looked at last: spares a full shard the next look.
    std::int64_t none_idle_before = std::numeric_limits<std::int64_t>::min();
    std::vector<Slot> slots;

    std::size_t mask() const noexcept { return slots.size() - 1; }
    std::size_t home(const Hash128& key) const noexcept { return key.low & mask(); }

    Value* find(const Hash128& key) noexcept {
      for (std::size_t i = home(key); slots[i].key != Hash128{}; i = (i + 1) & mask()) {
        if (slots[i].key == key) return &slots[i].value;
      }
      return nullptr;
    }

    [[gnu::noinline]] Value* insert(const Hash128& key, std::int64_t now) {
      if (keys >= keys_max && now >= none_idle_before) {
        sweep(slots.size(), now);
      } else {
        sweep(swept_per_insert, now);
      }
      if (keys >= keys_max) {
        if (now >= none_idle_before) {
          none_idle_before = std::numeric_limits<std::int64_t>::max();
          for (const Slot& slot : slots) {
            if (slot.key != Hash128{})
              none_idle_before = std::min(none_idle_before, slot.value.idle_at());
          }
        }
        return nullptr;
      }
      std::size_t i = home(key);
      while (slots[i].key != Hash128{}) i = (i + 1) & mask();
      slots[i].key = key;
      slots[i].value = Value{};
      ++keys;
      none_idle_before = std::numeric_limits<std::int64_t>::min();
      return &slots[i].value;
    }

    // Looks at `count` slots and frees those whose keys are idle.
    void sweep(std::size_t count, std::int64_t now) {
      for (; count != 0; --count) {
        Slot& slot = slots[hand];
        if (slot.key != Hash128{} && slot.value.idle_at() <= now) {
          erase(hand);  // A follower may stand here now: look again.
        } else {
          hand = (hand + 1) & mask();
        }
      }
    }

    void erase(std::size_t hole) {
      for (std::size_t i = (hole + 1) & mask(); slots[i].key != Hash128{}; i = (i + 1) & mask()) {
        // A follower may move into the hole when its home is not behind the hole.
        if (((i - home(slots[i].key)) & mask()) >= ((i - hole) & mask())) {
          slots[hole] = std::move(slots[i]);
          hole = i;
        }
      }
      slots[hole].key = {};
      slots[hole].value = Value{};
      --keys;
    }
  };

  // The key that is all zero means a free slot.
  static Hash128 used(const Hash128& key) noexcept {
    return key == Hash128{} ? Hash128{1, 0} : key;
  }
  Shard& shard_of(const Hash128& key) noexcept { return shards_[key.high & shard_mask_]; }

  std::size_t shard_mask_;
  std::vector<Shard> shards_;
};

}  // namespace spillway::detail
