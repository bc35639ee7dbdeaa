// SPDX-License-Identifier: Apache-2.0
//
// Which nonces were seen, so that no request is taken twice. Bounded: its memory is taken when it is
// made, and what does not fit is refused, never let through.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string_view>
#include <vector>

#include <spillway/buffers/cache_line.hpp>
#include <spillway/engine/clock.hpp>
#include <spillway/middleware/siphash.hpp>

namespace spillway::middleware {

/// Thread-safe: of two that bring the same nonce at the same time one is first. Allocates nothing
/// after it was made.
class ReplayCache {
 public:
  enum class Verdict : std::uint8_t { fresh, seen, full };

  /// entries   nonces remembered within `memory`, at least; 96 to 192 bytes each, by how far it is
  ///           to the next power of two
  /// memory    how long one is remembered, at least; up to twice as long
  ReplayCache(std::size_t entries, std::chrono::nanoseconds memory);

  Verdict remember(std::string_view key_id, std::string_view nonce, SteadyTime now) noexcept;

 private:
  // Two tables, each filled for a `memory` long, in turn: a nonce stands in the present one and is
  // looked for in the one before too. Nothing is ever taken out of a table; it is emptied whole.
  static constexpr std::size_t shard_count = 16;
  using Hash = spillway::detail::Hash128;
  struct Table {
    std::vector<Hash> slots;  // {0, 0}: free
    std::size_t used = 0;
  };
  struct alignas(cache_line_bytes) Shard {
    std::mutex mutex;
    std::int64_t turn = 0;
    std::array<Table, 2> tables;
  };
  static bool contains(const Table& table, const Hash& hash) noexcept;
  static void insert(Table& table, const Hash& hash) noexcept;
  static void clear(Table& table) noexcept;

  const std::int64_t memory_ns_;
  const Hash seed_;  // so that nobody makes two nonces meet
  std::array<Shard, shard_count> shards_;
};

}  // namespace spillway::middleware
