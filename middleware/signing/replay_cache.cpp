// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>
#include <cstring>
#include <random>

#include <spillway/middleware/signing/http_signature.hpp>
#include <spillway/middleware/signing/keys.hpp>
#include <spillway/middleware/signing/replay_cache.hpp>

namespace spillway::middleware {
namespace {

spillway::detail::Hash128 random_seed() {
  std::random_device system;
  const auto word = [&] { return std::uint64_t{system()} << 32 | system(); };
  const std::uint64_t low = word();
  return {low, word()};
}

}  // namespace

ReplayCache::ReplayCache(std::size_t entries, std::chrono::nanoseconds memory)
    : memory_ns_(memory.count()), seed_(random_seed()) {
  // A shard has room for its part and half as many again, because parts are not equal; half of its
  // slots stay free, so that searches are short.
  const std::size_t part = (entries + entries / 2) / shard_count + 16;
  for (Shard& shard : shards_) {
    for (Table& table : shard.tables) table.slots.resize(std::bit_ceil(part * 2));
  }
}

bool ReplayCache::contains(const Table& table, const Hash& hash) noexcept {
  const std::size_t mask = table.slots.size() - 1;
  for (std::size_t at = hash.low & mask;; at = (at + 1) & mask) {
    if (table.slots[at] == hash) return true;
    if (table.slots[at] == Hash{}) return false;
  }
}

void ReplayCache::insert(Table& table, const Hash& hash) noexcept {
  const std::size_t mask = table.slots.size() - 1;
  std::size_t at = hash.low & mask;
  while (table.slots[at] != Hash{}) at = (at + 1) & mask;
  table.slots[at] = hash;
  ++table.used;
}

void ReplayCache::clear(Table& table) noexcept {
  if (table.used == 0) return;
  std::fill(table.slots.begin(), table.slots.end(), Hash{});
  table.used = 0;
}

ReplayCache::Verdict ReplayCache::remember(std::string_view key_id, std::string_view nonce,
                                           SteadyTime now) noexcept {
  // A quote stands in neither.
  std::array<char, signing_key_id_chars_max + 1 + nonce_chars_max> text;
  if (key_id.size() > signing_key_id_chars_max || nonce.size() > nonce_chars_max)
    return Verdict::full;
  char* end = std::copy(key_id.begin(), key_id.end(), text.data());
  *end++ = '"';
  end = std::copy(nonce.begin(), nonce.end(), end);
  Hash hash = spillway::detail::siphash128(
      seed_, {text.data(), static_cast<std::size_t>(end - text.data())});
  if (hash == Hash{}) hash.low = 1;
  Shard& shard = shards_[hash.high % shard_count];
  const std::int64_t turn = std::chrono::nanoseconds(now.time_since_epoch()).count() / memory_ns_;
  const std::scoped_lock lock(shard.mutex);
  if (turn > shard.turn) {  // A thread whose clock reading is older uses the present turn.
    clear(shard.tables[static_cast<std::size_t>(turn % 2)]);
    if (turn > shard.turn + 1) clear(shard.tables[static_cast<std::size_t>((turn + 1) % 2)]);
    shard.turn = turn;
  }
  Table& present = shard.tables[static_cast<std::size_t>(shard.turn % 2)];
  if (contains(present, hash) ||
      contains(shard.tables[static_cast<std::size_t>((shard.turn + 1) % 2)], hash))
    return Verdict::seen;
  if (present.used * 2 >= present.slots.size()) return Verdict::full;
  insert(present, hash);
  return Verdict::fresh;
}

}  // namespace spillway::middleware
