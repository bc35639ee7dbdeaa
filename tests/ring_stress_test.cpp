// SPDX-License-Identifier: Apache-2.0
//
// The ring with a real producer and a real flusher. Each record proves itself: its id is the next
// that was committed, and every word of its body is made of that id. Drops are part of the account:
// pushed = drained + refused. The same steps run first on one thread, to test the test.
#include <atomic>
#include <cstring>
#include <memory>
#include <random>
#include <thread>

#include <gtest/gtest.h>
#include <support/seed.hpp>

#include <spillway/buffers/ring.hpp>

namespace spillway::detail {
namespace {

constexpr std::uint32_t capacity = 1U << 14;

std::uint64_t word_of(std::uint32_t id, std::uint32_t i) {
  return (std::uint64_t{id} << 32 | i) * 0x9E3779B97F4A7C15U;
}

struct Producer {
  Ring& ring;
  std::mt19937_64 random;
  std::uint32_t committed = 0;
  std::uint64_t refused = 0;

  void step() {
    const auto words = static_cast<std::uint32_t>(random() % 20);
    const std::uint32_t bytes = 16 + 8 * words;
    const Ring::Room room = ring.reserve(bytes, random() % 16 == 0);
    if (!room) {
      ++refused;
      return;
    }
    const RecordHeader header{RecordHeader::pack(bytes, RecordKind::log), committed, words};
    std::memcpy(room.at, &header, sizeof header);
    for (std::uint32_t i = 0; i < words; ++i) {
      const std::uint64_t word = word_of(committed, i);
      std::memcpy(room.at + 16 + 8 * i, &word, sizeof word);
    }
    ring.commit(room);
    ++committed;
  }
};

struct Flusher {
  Ring& ring;
  std::uint32_t expected = 0;
  std::uint64_t wrong = 0;

  std::uint64_t step(std::uint64_t bytes_max) {
    return ring.drain(
        [this](const std::byte* record, const RecordHeader& header) {
          if (header.id != expected || header.bytes() != 16 + 8 * header.ticks) ++wrong;
          for (std::uint32_t i = 0; i < header.ticks; ++i) {
            std::uint64_t word = 0;
            std::memcpy(&word, record + 16 + 8 * i, sizeof word);
            if (word != word_of(header.id, i)) ++wrong;
          }
          ++expected;
        },
        bytes_max);
  }
};

TEST(RingStressTest, SingleThreadedStepsProveThemselves) {
  const std::uint64_t seed = testing::seed_or(1);
  SCOPED_TRACE(testing::seed_note(seed));
  const auto storage = std::make_unique<std::byte[]>(capacity);
  Ring ring;
  ring.attach(storage.get(), capacity);
  Producer producer{ring, std::mt19937_64(seed)};
  Flusher flusher{ring};
  for (int i = 0; i < 20'000; ++i) {
    producer.step();
    if (i % 100 == 99) flusher.step(~0ULL);
  }
  flusher.step(~0ULL);
  EXPECT_EQ(flusher.expected, producer.committed);
  EXPECT_EQ(flusher.wrong, 0U);
  EXPECT_EQ(producer.committed + producer.refused, 20'000U);
}

TEST(RingStressTest, TwoThreadsLoseAndInventNothing) {
  const std::uint64_t seed = testing::seed_or(2);
  SCOPED_TRACE(testing::seed_note(seed));
  const auto storage = std::make_unique<std::byte[]>(capacity);
  Ring ring;
  ring.attach(storage.get(), capacity);
  constexpr std::uint64_t pushes = 1'000'000;
  std::atomic<bool> done{false};
  Producer producer{ring, std::mt19937_64(seed)};
  Flusher flusher{ring};
  std::thread thread([&] {
    for (std::uint64_t i = 0; i < pushes; ++i) producer.step();
    done.store(true, std::memory_order_release);
  });
  std::mt19937_64 random(seed + 1);
  while (!done.load(std::memory_order_acquire))
    flusher.step(random() % 4 == 0 ? ~0ULL : random() % 4096);
  thread.join();
  flusher.step(~0ULL);
  EXPECT_EQ(flusher.expected, producer.committed);
  EXPECT_EQ(flusher.wrong, 0U);
  EXPECT_EQ(producer.committed + producer.refused, pushes);
  EXPECT_TRUE(ring.is_consistent());
}

}  // namespace
}  // namespace spillway::detail
