// SPDX-License-Identifier: Apache-2.0
//
// A bounded table of one object a key (a breaker a host, permits a tenant), made up front: finding
// allocates nothing and, for a key that is there, takes no lock. A key that has been idle gives its
// place to a new one; when there is no place, keys share one object, and that is counted.
//
// A place belongs to a key's hash, 64 bits under a key of this process: the text is not kept, and
// nobody outside can make two keys meet. Each hash may lie in one of two sets of eight places.
//
// Value must have `bool try_recycle(std::int64_t now_ns)`: become as new for another key, or say no
// because somebody uses it. Objects never move or go, so a caller that found one as it was being
// recycled uses an object of another key once, and nothing worse.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string_view>
#include <vector>

#include <spillway/buffers/cache_line.hpp>
#include <spillway/middleware/siphash.hpp>

namespace spillway::middleware {

/// A hash under this process's key, or another one; never 0.
inline std::uint64_t hash_key(
    std::string_view key,
    const spillway::detail::Hash128& under = spillway::detail::process_hash_key()) noexcept {
  const std::uint64_t hash = spillway::detail::siphash128(under, key).low;
  return hash != 0 ? hash : 1;
}

struct KeyTableLimits {
  std::size_t keys_max = 256;            ///< places; rounded up to a power of two, 16 at least
  std::chrono::seconds idle_after{600};  ///< a key unused for so long may lose its place
};

template <class Value>
class KeyTable {
 public:
  /// Makes every object as Value(arguments...).
  template <class... Arguments>
  explicit KeyTable(const KeyTableLimits& limits, const Arguments&... arguments)
      : idle_ns_(std::chrono::nanoseconds(limits.idle_after).count()),
        sets_(std::bit_ceil(std::max(limits.keys_max, 2 * ways)) / ways),
        used_ns_(sets_.size() * ways),
        overflow_(arguments...) {
    for (std::size_t i = 0; i < used_ns_.size(); ++i) values_.emplace_back(arguments...);
    for (std::size_t i = 0; i < used_ns_.size(); ++i) index_.push_back(&values_[i]);
  }

  /// The object of a key. Any thread.
  Value& find(std::uint64_t key, std::int64_t now_ns) noexcept {
    for (const std::size_t set : {first_set(key), second_set(key)}) {
      for (std::size_t way = 0; way < ways; ++way) {
        if (sets_[set].keys[way].load(std::memory_order_acquire) != key) continue;
        const std::size_t place = set * ways + way;
        // Written seldom: the line is shared by the threads that use the key.
        if (now_ns - used_ns_[place].load(std::memory_order_relaxed) > idle_ns_ / 8) [[unlikely]]
          used_ns_[place].store(now_ns, std::memory_order_relaxed);
        return *index_[place];
      }
    }
    return insert(key, now_ns);
  }
  Value& find(std::string_view key, std::int64_t now_ns) noexcept {
    return find(hash_key(key, hashed_under_), now_ns);
  }

  /// Calls that found no place and used the shared object.
  std::uint64_t overflows() const noexcept { return overflows_.load(std::memory_order_relaxed); }
  /// Whether `value` is the one that keys without a place share.
  bool is_overflow(const Value& value) const noexcept { return &value == &overflow_; }
  std::size_t places() const noexcept { return used_ns_.size(); }

 private:
  static constexpr std::size_t ways = 8;
  struct alignas(cache_line_bytes) Set {
    std::atomic<std::uint64_t> keys[ways]{};  // 0: nobody's
  };

  std::size_t first_set(std::uint64_t key) const noexcept { return key & (sets_.size() - 1); }
  std::size_t second_set(std::uint64_t key) const noexcept {
    const std::size_t set = (key >> 32) & (sets_.size() - 1);
    return set != first_set(key) ? set : set ^ 1U;  // There are two sets at least.
  }
  bool is_free(std::size_t place, std::int64_t now_ns) const noexcept {
    return sets_[place / ways].keys[place % ways].load(std::memory_order_relaxed) == 0 ||
           now_ns - used_ns_[place].load(std::memory_order_relaxed) >= idle_ns_;
  }

  Value* present(std::uint64_t key) noexcept {
    for (const std::size_t set : {first_set(key), second_set(key)}) {
      for (std::size_t way = 0; way < ways; ++way) {
        if (sets_[set].keys[way].load(std::memory_order_acquire) == key)
          return index_[set * ways + way];
      }
    }
    return nullptr;
  }

  [[gnu::cold]] [[gnu::noinline]] Value& insert(std::uint64_t key, std::int64_t now_ns) noexcept {
    bool any = false;
    const std::size_t candidates[2] = {first_set(key), second_set(key)};
    for (const std::size_t set : candidates) {
      for (std::size_t way = 0; way < ways; ++way) any = any || is_free(set * ways + way, now_ns);
    }
    if (any) {  // Else a flood of keys would stand in line for the lock, for nothing.
      const std::scoped_lock lock(inserting_);
      if (Value* const there = present(key)) return *there;  // Another thread was first.
      for (const std::size_t set : candidates) {
        for (std::size_t way = 0; way < ways; ++way) {
          const std::size_t place = set * ways + way;
          if (!is_free(place, now_ns)) continue;
          std::atomic<std::uint64_t>& owner = sets_[set].keys[way];
          if (owner.load(std::memory_order_relaxed) != 0 && !index_[place]->try_recycle(now_ns))
            continue;
          used_ns_[place].store(now_ns, std::memory_order_relaxed);
          owner.store(key, std::memory_order_release);
          return *index_[place];
        }
      }
    } else if (Value* const there = present(key)) {  // And took the last place for this key.
      return *there;
    }
    overflows_.fetch_add(1, std::memory_order_relaxed);
    return overflow_;
  }

  const std::int64_t idle_ns_;
  // A copy, beside what is read next; and so that find(), which may not throw, is not the first to make it.
  const spillway::detail::Hash128 hashed_under_ = spillway::detail::process_hash_key();
  std::vector<Set> sets_;
  std::vector<std::atomic<std::int64_t>> used_ns_;
  std::deque<Value> values_;   // which need not be movable
  std::vector<Value*> index_;  // of values_
  std::mutex inserting_;
  std::atomic<std::uint64_t> overflows_{0};
  Value overflow_;
};

}  // namespace spillway::middleware
