// SPDX-License-Identifier: Apache-2.0
//
// Items into payloads: limits kept, order kept, every record in one payload or dropped and counted.
#include <gtest/gtest.h>

#include <spillway/engine/batcher.hpp>

namespace spillway::detail {
namespace {

constexpr std::size_t budget = 256U << 20;

class BatcherTest : public ::testing::Test {
 protected:
  static BatchLimits limits(std::size_t items_max, std::size_t bytes_max = 1'000'000,
                            std::int64_t span_ms_max = 0) {
    return {items_max, bytes_max, 0, span_ms_max, std::chrono::seconds(1)};
  }
  static void append(Payload& payload, std::size_t bytes, std::int64_t time_ms = 0) {
    const std::size_t offset = payload.bytes.size();
    payload.bytes.append(std::string(bytes, static_cast<char>('a' + payload.items.size() % 26)));
    payload.end_item(offset, 1, time_ms);
  }
  /// What was sealed, in order.
  std::vector<std::unique_ptr<Payload>> sealed() {
    std::vector<std::unique_ptr<Payload>> all;
    while (auto payload = outbox.receive()) all.push_back(std::move(payload));
    return all;
  }

  Ledger ledger;
  Outbox outbox{budget};
  SteadyTime now{};
};

TEST_F(BatcherTest, ManyItemsOfOneAppendFillAsManyPayloadsAsTheyNeed) {
  const Exporter exporter("test", Signal::spans, limits(50));
  Batcher batcher(exporter, outbox, ledger);
  Payload& payload = batcher.open();
  for (int i = 0; i < 130; ++i) append(payload, 10 + static_cast<std::size_t>(i % 7));
  batcher.appended(now);
  batcher.seal();
  const auto payloads = sealed();
  ASSERT_EQ(payloads.size(), 3U);
  int i = 0;
  for (const auto& one : payloads) {
    EXPECT_EQ(one->items.size(), one == payloads.back() ? 30U : 50U);
    for (const PayloadItem& item : one->items) {
      EXPECT_EQ(one->item(item),
                std::string(10 + static_cast<std::size_t>(i % 7), static_cast<char>('a' + i % 26)));
      ++i;
    }
  }
  EXPECT_EQ(i, 130);
  EXPECT_EQ(ledger.of(Signal::spans).sealed, 130U);
}

TEST_F(BatcherTest, BytesAndTimeSpanEndAPayloadToo) {
  const Exporter exporter("test", Signal::logs, limits(1000, 100, 10));
  Batcher batcher(exporter, outbox, ledger);
  append(batcher.open(), 60);
  append(batcher.open(), 40);
  append(batcher.open(), 1);  // 101 bytes.
  append(batcher.open(), 1, 10);
  append(batcher.open(), 1, 11);  // 11 ms from the first.
  batcher.appended(now);
  batcher.seal();
  const auto payloads = sealed();
  ASSERT_EQ(payloads.size(), 3U);
  EXPECT_EQ(payloads[0]->bytes.size(), 100U);
  EXPECT_EQ(payloads[1]->items.size(), 2U);
  EXPECT_EQ(payloads[2]->items.size(), 1U);
}

TEST_F(BatcherTest, AnItemLargerThanAPayloadIsDroppedAndItsNeighboursAreNot) {
  const Exporter exporter("test", Signal::logs, limits(2, 100));
  Batcher batcher(exporter, outbox, ledger);
  for (const std::size_t bytes : {101U, 5U, 102U, 6U, 7U, 103U, 8U, 104U}) {
    append(batcher.open(), bytes);
  }
  batcher.appended(now);
  batcher.seal();
  const auto payloads = sealed();
  ASSERT_EQ(payloads.size(), 2U);
  std::vector<std::size_t> sizes;
  for (const auto& one : payloads) {
    for (const PayloadItem& item : one->items) sizes.push_back(one->item(item).size());
  }
  EXPECT_EQ(sizes, (std::vector<std::size_t>{5, 6, 7, 8}));
  EXPECT_EQ(
      ledger.of(Signal::logs).dropped_in_batch[static_cast<std::size_t>(DropCause::too_large)], 4U);
}

TEST_F(BatcherTest, WhatWaitsIsSealedWhenItsOldestItemIsOldEnough) {
  const Exporter exporter("test", Signal::logs, limits(2));
  Batcher batcher(exporter, outbox, ledger);
  const auto append_at = [&](SteadyTime time) {
    append(batcher.open(), 5);
    batcher.appended(time);
  };
  append_at(now);
  append_at(now + std::chrono::milliseconds(900));
  append_at(now + std::chrono::milliseconds(950));  // The first of the second payload.
  EXPECT_EQ(sealed().size(), 1U);
  batcher.seal_if_due(now + std::chrono::milliseconds(1949));
  EXPECT_EQ(sealed().size(), 0U);
  batcher.seal_if_due(now + std::chrono::milliseconds(1950));
  EXPECT_EQ(sealed().size(), 1U);
}

// A segment with a hundred thousand spans below it. Moving the rest along for every payload made
// terabytes of copies of it: the test did not end.
TEST_F(BatcherTest, CancelTakesBackWhatWasAppendedAndNothingElse) {
  const Exporter exporter("test", Signal::spans, limits(50));
  Batcher batcher(exporter, outbox, ledger);
  append(batcher.open(), 10);
  batcher.appended(now);
  batcher.cancel();  // Nothing is open.
  append(batcher.open(), 20);
  batcher.cancel();
  batcher.cancel();
  append(batcher.open(), 30);
  batcher.appended(now);
  batcher.seal();
  batcher.cancel();
  append(batcher.open(), 40);
  batcher.appended(now);
  batcher.seal();
  const auto payloads = sealed();
  ASSERT_EQ(payloads.size(), 2U);
  ASSERT_EQ(payloads[0]->items.size(), 2U);
  EXPECT_EQ(payloads[0]->item(payloads[0]->items[0]), std::string(10, 'a'));
  EXPECT_EQ(payloads[0]->item(payloads[0]->items[1]), std::string(30, 'b'));
  ASSERT_EQ(payloads[1]->items.size(), 1U);
  EXPECT_EQ(payloads[1]->item(payloads[1]->items[0]), std::string(40, 'a'));
  EXPECT_EQ(ledger.of(Signal::spans).sealed, 3U);
}

TEST_F(BatcherTest, AHugeAppendIsMovedOnceAndNotOncePerPayload) {
  const Exporter exporter("test", Signal::spans, limits(1));
  Batcher batcher(exporter, outbox, ledger);
  constexpr std::uint64_t items = 400'000;
  Payload& payload = batcher.open();
  for (std::uint64_t i = 0; i < items; ++i) append(payload, 100);
  batcher.appended(now);
  batcher.seal();
  const auto payloads = sealed();
  const std::uint64_t no_room =
      ledger.of(Signal::spans).dropped_in_queue[static_cast<std::size_t>(DropCause::queue_full)];
  EXPECT_GT(payloads.size(), 1000U);
  EXPECT_EQ(payloads.size() + no_room, items);
  EXPECT_EQ(ledger.of(Signal::spans).sealed, items);
}

}  // namespace
}  // namespace spillway::detail
