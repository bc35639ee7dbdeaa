// SPDX-License-Identifier: Apache-2.0
//
// The ring without threads: edges, and seeded random steps beside a std::deque that is the model.
#include <algorithm>
#include <cstring>
#include <deque>
#include <memory>
#include <random>
#include <vector>

#include <gtest/gtest.h>
#include <support/seed.hpp>
#include <sys/mman.h>

#include <spillway/buffers/ring.hpp>

namespace spillway::detail {
namespace {

constexpr std::uint32_t capacity = BasicRing<>::capacity_min;

class RingTest : public ::testing::Test {
 protected:
  RingTest() { ring.attach(storage.get(), capacity); }

  bool push(std::uint32_t id, std::uint32_t bytes, bool urgent = false) {
    const Ring::Room room = ring.reserve(bytes, urgent);
    if (!room) return false;
    std::byte* const at = room.at;
    EXPECT_GE(at, storage.get());
    EXPECT_LE(at + bytes, storage.get() + capacity);
    std::memset(at, static_cast<int>(id & 0xff), bytes);
    const RecordHeader header{RecordHeader::pack(bytes, RecordKind::log), id, id * 3ULL};
    std::memcpy(at, &header, sizeof header);
    ring.commit(room);
    return true;
  }

  std::vector<std::uint32_t> drain(std::uint64_t bytes_max = ~std::uint64_t{0}) {
    std::vector<std::uint32_t> ids;
    ring.drain(
        [&](const std::byte* record, const RecordHeader& header) {
          EXPECT_EQ(header.ticks, header.id * 3ULL);
          for (std::uint32_t i = sizeof header; i < header.bytes(); ++i) {
            EXPECT_EQ(static_cast<std::uint32_t>(record[i]), header.id & 0xff);
          }
          ids.push_back(header.id);
        },
        bytes_max);
    EXPECT_TRUE(ring.is_consistent());
    return ids;
  }

  std::unique_ptr<std::byte[]> storage = std::make_unique<std::byte[]>(capacity);
  Ring ring;
};

TEST_F(RingTest, IsEmptyAtFirst) {
  EXPECT_TRUE(ring.empty());
  EXPECT_TRUE(ring.is_consistent());
  EXPECT_TRUE(drain().empty());
}

TEST_F(RingTest, GivesBackWhatWasPutInOrder) {
  ASSERT_TRUE(push(1, 16));
  ASSERT_TRUE(push(2, 24));
  EXPECT_FALSE(ring.empty());
  EXPECT_EQ(drain(), (std::vector<std::uint32_t>{1, 2}));
  EXPECT_TRUE(ring.empty());
}

TEST_F(RingTest, AReservationWithoutCommitLeavesNoTrace) {
  ASSERT_TRUE(ring.reserve(64));
  EXPECT_TRUE(drain().empty());
  ASSERT_TRUE(push(7, 16));
  EXPECT_EQ(drain(), (std::vector<std::uint32_t>{7}));
}

TEST_F(RingTest, KeepsTheLastEighthForUrgentRecords) {
  std::uint32_t ordinary = 0;
  while (push(ordinary, 16)) ++ordinary;
  EXPECT_EQ(ordinary, (capacity - capacity / 8) / 16);
  std::uint32_t urgent = 0;
  while (push(ordinary + urgent, 16, true)) ++urgent;
  EXPECT_EQ(urgent, capacity / 8 / 16);
  EXPECT_EQ(drain().size(), ordinary + urgent);
}

TEST_F(RingTest, OrdinaryRecordsStayOutWhileUrgentOnesFillTheReserve) {
  while (push(1, 16)) {
  }
  ASSERT_TRUE(push(2, 16, true));
  EXPECT_FALSE(push(3, 16));
  EXPECT_TRUE(push(4, 16, true));
}

TEST_F(RingTest, HasRoomAgainAfterADrain) {
  while (push(1, 16)) {
  }
  drain();
  EXPECT_TRUE(push(2, 16));
  EXPECT_EQ(drain(), (std::vector<std::uint32_t>{2}));
}

TEST_F(RingTest, TakesTheLargestRecordWhereverItsHeadStands) {
  const std::uint32_t largest = ring.record_bytes_max();
  for (std::uint32_t offset = 0; offset <= capacity; offset += 8) {
    Ring fresh;
    fresh.attach(storage.get(), capacity);
    for (std::uint32_t used = 0; used < offset;
         used += 8) {  // Move the head on, 16 and 8 at a time.
      const std::uint32_t step = offset - used >= 16 ? 16 : 8;
      const Ring::Room room = fresh.reserve(step);
      ASSERT_TRUE(room);
      const std::uint32_t word = RecordHeader::pack(step, RecordKind::skip);
      std::memcpy(storage.get() + used % capacity, &word, sizeof word);
      fresh.commit(room);
      fresh.drain([](const std::byte*, const RecordHeader&) {});
      if (step == 16) used += 8;
    }
    ASSERT_TRUE(fresh.reserve(largest)) << "head at " << offset;
  }
}

// How many pages of the memory the kernel has given.
std::size_t resident_pages(void* memory, std::size_t bytes) {
  std::vector<unsigned char> pages(bytes / 4096);
  EXPECT_EQ(mincore(memory, bytes, pages.data()), 0);
  return static_cast<std::size_t>(std::count_if(
      pages.begin(), pages.end(), [](unsigned char page) { return (page & 1) != 0; }));
}

TEST(RingPagesTest, AreAskedForAheadOfTheFirstLapAndKeepWhatTheyHold) {
  constexpr std::uint32_t large = 1U << 20;
  void* const memory =
      mmap(nullptr, large, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  ASSERT_EQ(madvise(memory, large, MADV_NOHUGEPAGE), 0);
  Ring ring;
  ring.attach(static_cast<std::byte*>(memory), large);
  std::uint32_t next = 0;
  const auto push = [&](int records) {
    for (int i = 0; i < records; ++i) {
      const RecordHeader header{RecordHeader::pack(64, RecordKind::log), next++, 0};
      const Ring::Room room = ring.reserve(64);
      ASSERT_TRUE(room);
      std::memcpy(room.at, &header, sizeof header);
      ring.commit(room);
    }
  };
  std::uint32_t expected = 0;
  const auto drain = [&] {
    ring.drain(
        [&](const std::byte*, const RecordHeader& header) { EXPECT_EQ(header.id, expected++); });
  };
  push(10);
  drain();
  ring.populate_ahead();
  EXPECT_EQ(resident_pages(memory, large), 1U) << "a thread that records little stays small";
  push(128);  // Two pages more.
  drain();
  push(100);  // And some that are still there when the pages come.
  ring.populate_ahead();
  const std::size_t some = resident_pages(memory, large);
  EXPECT_GE(some, 16U);
  EXPECT_LT(some, large / 4096);
  drain();
  push(4096);
  drain();
  ring.populate_ahead();
  EXPECT_EQ(resident_pages(memory, large), large / 4096);
  EXPECT_EQ(expected, next);
  munmap(memory, large);
}

TEST_F(RingTest, StopsDrainingAtTheBound) {
  for (std::uint32_t i = 0; i < 10; ++i) ASSERT_TRUE(push(i, 32));
  EXPECT_EQ(drain(64).size(), 2U);
  EXPECT_EQ(drain(1).size(), 1U);
  EXPECT_EQ(drain().size(), 7U);
}

TEST_F(RingTest, AgreesWithAModelOverRandomSteps) {
  const std::uint64_t seed = testing::seed_or(20261121);
  SCOPED_TRACE(testing::seed_note(seed));
  std::mt19937_64 random(seed);
  std::deque<std::pair<std::uint32_t, std::uint32_t>> model;  // id, bytes
  std::uint64_t model_bytes = 0;
  std::uint32_t next = 0;
  for (int step = 0; step < 200'000; ++step) {
    if (random() % 4 != 0) {
      const auto bytes = static_cast<std::uint32_t>(16 + 8 * (random() % 24));
      const bool urgent = random() % 8 == 0;
      if (push(next, bytes, urgent)) {
        model.emplace_back(next, bytes);
        model_bytes += bytes;
        ASSERT_LE(model_bytes, urgent ? capacity : capacity - capacity / 8);
      } else {
        // Refused only when it cannot fit even with the skip to the end that it may need.
        const std::uint64_t reserve = urgent ? 0 : capacity / 8;
        ASSERT_GT(model_bytes + 2ULL * bytes + reserve + 200, capacity);
      }
      ++next;
    } else {
      const std::vector<std::uint32_t> ids = drain(random() % 3 == 0 ? ~0ULL : random() % 2000);
      for (const std::uint32_t id : ids) {
        ASSERT_FALSE(model.empty());
        ASSERT_EQ(model.front().first, id);
        model_bytes -= model.front().second;
        model.pop_front();
      }
    }
  }
  for (const std::uint32_t id : drain()) {
    ASSERT_EQ(model.front().first, id);
    model.pop_front();
  }
  EXPECT_TRUE(model.empty());
}

}  // namespace
}  // namespace spillway::detail
