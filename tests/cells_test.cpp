// SPDX-License-Identifier: Apache-2.0
//
// A bank of cells and the aggregator that reads it, on one thread: what goes in comes out, value by
// value.
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <random>

#include <gtest/gtest.h>
#include <support/seed.hpp>

#include <spillway/buffers/cells.hpp>
#include <spillway/buffers/series.hpp>
#include <spillway/engine/aggregate.hpp>

namespace spillway::detail {
namespace {

class CellsTest : public ::testing::Test {
 protected:
  explicit CellsTest(std::uint32_t block_max = 512) {
    layout.cell_bytes = 1U << 16;
    layout.series_max = 256;
    layout.block_max = block_max;
    memory.reset(static_cast<std::byte*>(std::aligned_alloc(cache_line_bytes, layout.bytes())));
    std::memset(memory.get(), 0, layout.bytes());
    bank = Bank::create(memory.get(), layout);
    table = std::make_unique<SeriesTable>(layout, 100);
    rollups = std::make_unique<Rollups>(*table, DimensionSets{}, [](std::string_view) {});
    aggregator = std::make_unique<Aggregator>(
        *table, *rollups, ledger, 0.01,
        [](std::uint64_t ticks) { return static_cast<std::int64_t>(ticks); });
  }

  const Series& series(MetricKind kind, std::string name,
                       Resolution resolution = Resolution::minute) {
    SeriesKey key;
    key.kind = kind;
    key.name = std::move(name);
    key.resolution = resolution;
    return table->intern(std::move(key));
  }
  void record(const Series& one, double value) { bank->record(one.cell_offset, one.id, value); }
  std::span<const MetricPoint> close() {
    aggregator->take(*bank);
    bank->clear();
    return aggregator->close(Resolution::minute, 0);
  }
  bool bank_is_zero() const {
    const std::byte* const cells = memory.get() + Bank::first_cell_offset();
    return std::all_of(cells, cells + layout.cell_bytes,
                       [](std::byte b) { return b == std::byte{0}; });
  }

  struct Free {
    void operator()(std::byte* p) const { std::free(p); }  // NOLINT: of aligned_alloc
  };
  BankLayout layout;
  std::unique_ptr<std::byte, Free> memory;
  Bank* bank;
  std::unique_ptr<SeriesTable> table;
  Ledger ledger;
  std::unique_ptr<Rollups> rollups;
  std::unique_ptr<Aggregator> aggregator;
};

class FewBlocksTest : public CellsTest {
 protected:
  FewBlocksTest() : CellsTest(3) {}
};

TEST_F(CellsTest, ACounterSumsWhatCumulativeCellsAndBanksHold) {
  const Series& one = series(MetricKind::counter, "c");
  aggregator->add_count(one.id, 1, 3.0);
  bank->add(one.cell_offset, one.id, 0.25);
  bank->add(one.cell_offset, one.id, 0.0);
  const auto points = close();
  ASSERT_EQ(points.size(), 1U);
  EXPECT_EQ(points[0].count, 3U);
  EXPECT_EQ(points[0].sum, 3.25);
  EXPECT_TRUE(bank_is_zero());
  EXPECT_TRUE(close().empty()) << "nothing was recorded since";
}

TEST_F(CellsTest, AGaugeKeepsLastAndExtremes) {
  const Series& one = series(MetricKind::gauge, "g");
  for (const double value : {5.0, -2.0, 9.0, 4.0}) bank->set(one.cell_offset, one.id, value, 1);
  const auto points = close();
  ASSERT_EQ(points.size(), 1U);
  EXPECT_EQ(points[0].count, 4U);
  EXPECT_EQ(points[0].sum, 16.0);
  EXPECT_EQ(points[0].minimum, -2.0);
  EXPECT_EQ(points[0].maximum, 9.0);
  EXPECT_EQ(points[0].last, 4.0);
  EXPECT_TRUE(bank_is_zero());
}

TEST_F(CellsTest, OfTwoBanksTheLaterGaugeStands) {
  const Series& one = series(MetricKind::gauge, "g");
  bank->set(one.cell_offset, one.id, 1.0, 200);
  aggregator->take(*bank);
  bank->clear();
  bank->set(one.cell_offset, one.id, 2.0, 100);
  EXPECT_EQ(close()[0].last, 1.0);
}

TEST_F(CellsTest, AHistogramTakesAnyDouble) {
  const Series& one = series(MetricKind::histogram, "h");
  const double values[] = {0.0,
                           -0.0,
                           1.0,
                           1.0,
                           -1.0,
                           1e-30,
                           -1e-30,
                           1e100,
                           -1e100,
                           0x1p360,
                           -0x1p360,
                           0x1p-24,
                           0x1p40,
                           std::nextafter(0x1p40, 0),
                           std::nextafter(0x1p-24, 0)};
  double sum = 0;
  for (const double value : values) {
    record(one, value);
    sum += value;
  }
  const auto points = close();
  ASSERT_EQ(points.size(), 1U);
  EXPECT_EQ(points[0].count, std::size(values));
  // Doubles add up in some order, and these magnitudes hide each other: right to their last bit.
  EXPECT_NEAR(points[0].sum, sum, 0x1p360 * std::numeric_limits<double>::epsilon());
  EXPECT_EQ(points[0].minimum, -0x1p360);
  EXPECT_EQ(points[0].maximum, 0x1p360);
  double count = 0;
  for (const ValueCount& value : points[0].values) count += value.count;
  EXPECT_EQ(count, static_cast<double>(std::size(values)));
  EXPECT_EQ(ledger.measurements_unbucketed.load(), 0U);
  EXPECT_TRUE(bank_is_zero());
}

TEST_F(CellsTest, EveryValueIsFoundInItsBucket) {
  const std::uint64_t seed = testing::seed_or(7);
  SCOPED_TRACE(testing::seed_note(seed));
  std::mt19937_64 random(seed);
  const Series& one = series(MetricKind::histogram, "h");
  std::map<std::uint32_t, std::uint64_t> model;
  std::uniform_real_distribution<double> exponent(-40, 50);
  for (int i = 0; i < 50'000; ++i) {
    const double value = std::exp2(exponent(random) / 4) * (random() % 5 == 0 ? -1 : 1);
    record(one, value);
    ++model[bucket_of(value)];
  }
  const auto points = close();
  // Points lie in the buckets that were used, with the counts that were recorded.
  std::map<std::uint32_t, std::uint64_t> found;
  for (const ValueCount& value : points[0].values) {
    found[bucket_of(value.value)] += static_cast<std::uint64_t>(value.count);
  }
  std::uint64_t apart = 0;
  for (const auto& [bucket, count] : model)
    apart += found[bucket] > count ? found[bucket] - count : count - found[bucket];
  // A value on a bucket's outer bound reads as the next bucket's: that may happen to a slice, never
  // to many.
  EXPECT_LE(apart, model.size());
}

TEST_F(CellsTest, BucketsSurviveManyClearings) {
  const Series& one = series(MetricKind::histogram, "h");
  for (int round = 0; round < 100; ++round) {
    for (int i = 0; i < 1000; ++i) record(one, i * 1.5);
    const auto points = close();
    ASSERT_EQ(points[0].count, 1000U);
    ASSERT_EQ(points[0].sum, 1.5 * 999 * 500);
    ASSERT_EQ(ledger.measurements_unbucketed.load(), 0U);
  }
}

TEST_F(FewBlocksTest, WithoutBlocksOnlyBucketsAreLost) {
  const Series& one = series(MetricKind::histogram, "h");
  double sum = 0;
  for (int octave = 0; octave < 10; ++octave) {
    record(one, std::exp2(octave));
    sum += std::exp2(octave);
  }
  const auto points = close();
  EXPECT_EQ(points[0].count, 10U);
  EXPECT_EQ(points[0].sum, sum);
  EXPECT_EQ(points[0].minimum, 1.0);
  EXPECT_EQ(points[0].maximum, 512.0);
  EXPECT_EQ(ledger.measurements_unbucketed.load(), 7U);
  double count = 0;
  double weighted = 0;
  for (const ValueCount& value : points[0].values) {
    count += value.count;
    weighted += value.value * value.count;
  }
  EXPECT_EQ(count, 10.0);
  EXPECT_EQ(weighted, sum);
}

TEST_F(CellsTest, RefusedSeriesAreCountedByWhatTheyWereRefusedFor) {
  const Series& invalid = table->refused(MetricKind::histogram, Refusal::invalid);
  record(invalid, 1.0);
  record(invalid, 2.0);
  const Series& too_many = table->refused(MetricKind::histogram, Refusal::no_room);
  record(too_many, 1.0);
  aggregator->add_sample(too_many.id, 1.0);
  aggregator->add_count(table->refused(MetricKind::counter, Refusal::no_room).id, 3, 7.0);
  EXPECT_TRUE(close().empty());
  const auto dropped = [&](DropCause cause) {
    return ledger.of(Signal::metrics).dropped_in_batch[static_cast<std::size_t>(cause)].load();
  };
  EXPECT_EQ(ledger.of(Signal::metrics).drained.load(), 7U);
  EXPECT_EQ(dropped(DropCause::invalid), 2U);
  EXPECT_EQ(dropped(DropCause::series_limit), 5U);
}

TEST_F(CellsTest, OnlyAValueAboveAllBeforeIsTheHighest) {
  const Series& one = series(MetricKind::histogram, "h");
  const auto record_one = [&](double value) {
    return bank->record(one.cell_offset, one.id, value);
  };
  EXPECT_EQ(record_one(5), Recorded::as_highest);
  EXPECT_EQ(record_one(5), Recorded::plainly);
  EXPECT_EQ(record_one(4), Recorded::plainly) << "the lowest";
  EXPECT_EQ(record_one(0), Recorded::plainly) << "an octave of its own";
  EXPECT_EQ(record_one(5.5), Recorded::as_highest);
  EXPECT_EQ(record_one(std::nan("")), Recorded::not_at_all);
  EXPECT_EQ(record_one(1e300), Recorded::not_at_all);
}

TEST_F(CellsTest, TheHighestExemplarsOfAllBanksAreKept) {
  const Series& one = series(MetricKind::histogram, "h");
  const auto exemplar = [&](double value) {
    record(one, value);
    bank->add_exemplar(one.cell_offset, {value, static_cast<std::uint64_t>(value), {1, 2}, 3});
  };
  for (int i = 1; i <= 7; ++i) exemplar(i);
  aggregator->take(*bank);
  bank->clear();
  exemplar(2.5);
  exemplar(9);
  const auto points = close();
  ASSERT_EQ(points.size(), 1U);
  std::vector<double> values;
  for (const Exemplar& kept : points[0].exemplars) {
    values.push_back(kept.value);
    EXPECT_EQ(kept.time_ns, static_cast<std::int64_t>(kept.value));
    EXPECT_EQ(kept.trace_id, (TraceId{1, 2}));
    EXPECT_EQ(kept.span_id, 3U);
  }
  EXPECT_EQ(values, (std::vector<double>{9, 7, 6, 5}));
  EXPECT_TRUE(bank_is_zero());
  record(one, 1);
  EXPECT_TRUE(close()[0].exemplars.empty()) << "of its own interval only";
}

TEST_F(CellsTest, AnExemplarWithoutAValueLeavesNothing) {
  const Series& one = series(MetricKind::histogram, "h");
  bank->add_exemplar(one.cell_offset, {8, 0, {1, 2}, 3});
  EXPECT_TRUE(close().empty());
  EXPECT_TRUE(bank_is_zero());
}

TEST(BankTest, BlocksAreAlignedWhateverTheNumberOfSeries) {
  for (const std::uint32_t series_max : {16U, 17U, 19U, 255U}) {
    const BankLayout layout{1U << 12, series_max, 4};
    const std::unique_ptr<std::byte, decltype(&std::free)> memory(
        static_cast<std::byte*>(std::aligned_alloc(cache_line_bytes, layout.bytes())), &std::free);
    std::memset(memory.get(), 0, layout.bytes());
    Bank* const bank = Bank::create(memory.get(), layout);
    const auto* const block = reinterpret_cast<const std::byte*>(&bank->octave_block(4));
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block) % alignof(ExemplarBlock), 0U) << series_max;
    EXPECT_LE(block + sizeof(OctaveBlock), memory.get() + layout.bytes());
  }
}

TEST_F(FewBlocksTest, WithoutABlockThereIsNoExemplar) {
  const Series& one = series(MetricKind::histogram, "h");
  for (const double value : {1.0, 2.0, 4.0, 8.0}) record(one, value);
  bank->add_exemplar(one.cell_offset, {8, 0, {1, 2}, 3});
  const auto points = close();
  EXPECT_TRUE(points[0].exemplars.empty());
  EXPECT_EQ(points[0].count, 4U);
}

TEST_F(CellsTest, ResolutionsCloseApart) {
  const Series& fine = series(MetricKind::counter, "c", Resolution::second);
  const Series& coarse = series(MetricKind::counter, "c");
  bank->add(fine.cell_offset, fine.id, 1.0);
  bank->add(coarse.cell_offset, coarse.id, 2.0);
  aggregator->take(*bank);
  const auto second = aggregator->close(Resolution::second, 5);
  ASSERT_EQ(second.size(), 1U);
  EXPECT_EQ(second[0].sum, 1.0);
  EXPECT_EQ(second[0].time_ms, 5);
  EXPECT_FALSE(aggregator->has(Resolution::second));
  EXPECT_TRUE(aggregator->has(Resolution::minute));
}

TEST_F(CellsTest, SamplesAndCellsMeetInOneSeries) {
  const Series& one = series(MetricKind::histogram, "h");
  record(one, 1.0);
  aggregator->add_sample(one.id, 3.0);
  const auto points = close();
  EXPECT_EQ(points[0].count, 2U);
  EXPECT_EQ(points[0].sum, 4.0);
  ASSERT_EQ(points[0].values.size(), 2U);
}

// ---- Series ----

TEST_F(CellsTest, SeriesAreInternedByAllThatDistinguishesThem) {
  SeriesKey key;
  key.name = "m";
  key.dimensions = {{"A", "1"}};
  const Series& first = table->intern(key);
  EXPECT_EQ(table->intern(key).id, first.id);
  EXPECT_TRUE(first.has_plain_texts);
  SeriesKey quoted = key;
  quoted.dimensions.push_back({"z", "a\"b"});
  EXPECT_FALSE(table->intern(quoted).has_plain_texts);
  for (const auto& change : std::initializer_list<std::function<void(SeriesKey&)>>{
           [](SeriesKey& k) { k.name = "n"; }, [](SeriesKey& k) { k.unit = Unit::bytes; },
           [](SeriesKey& k) { k.kind = MetricKind::gauge; },
           [](SeriesKey& k) { k.resolution = Resolution::second; },
           [](SeriesKey& k) { k.dimensions[0].value = "2"; },
           [](SeriesKey& k) { k.dimensions.clear(); }}) {
    SeriesKey other = key;
    change(other);
    EXPECT_NE(table->intern(other).id, first.id);
  }
}

TEST_F(CellsTest, CellsOfSeriesDoNotOverlap) {
  std::map<std::uint32_t, std::uint32_t> ranges;
  for (int i = 0; i < 60; ++i) {
    const Series& one = series(static_cast<MetricKind>(i % 3), "m" + std::to_string(i));
    ASSERT_FALSE(one.refusal != Refusal::none);
    ranges[one.cell_offset] = cell_bytes(one.key.kind);
  }
  std::uint32_t end = 0;
  for (const auto& [offset, bytes] : ranges) {
    EXPECT_GE(offset, end);
    end = offset + bytes;
  }
  EXPECT_EQ(ranges.size(), 60U);
}

TEST_F(CellsTest, PastTheBudgetOfAMetricNewValuesShareOneSeries) {
  std::uint32_t other = 0;
  for (int i = 0; i < 110; ++i) {
    SeriesKey key;
    key.name = "m";
    key.dimensions = {{"A", std::to_string(i)}};
    const Series& one = table->intern(key);
    ASSERT_FALSE(one.refusal != Refusal::none);
    if (i < 100) {
      EXPECT_EQ(one.key.dimensions[0].value, std::to_string(i));
    } else {
      EXPECT_EQ(one.key.dimensions[0].value, "__other__");
      EXPECT_TRUE(other == 0 || one.id == other);
      other = one.id;
    }
  }
}

TEST_F(CellsTest, TheDimensionWithTheMostValuesIsFolded) {
  const auto intern = [&](int route, int tenant) -> const Series& {
    SeriesKey key;
    key.name = "m";
    key.dimensions = {{"Route", std::to_string(route)},
                      {"Service", "orders"},
                      {"TenantID", std::to_string(tenant)}};
    return table->intern(std::move(key));
  };
  for (int tenant = 0; tenant < 200; ++tenant) intern(tenant % 2, tenant);
  const Series& late = intern(1, 777);
  EXPECT_TRUE(late.is_folded);
  EXPECT_EQ(late.key.dimensions,
            (Dimensions{{"Route", "1"}, {"Service", "orders"}, {"TenantID", "__other__"}}));
  EXPECT_EQ(intern(1, 3).key.dimensions[2].value, "3") << "what has its own series keeps it";
  const auto exploded = table->exploded();
  ASSERT_EQ(exploded.size(), 1U);
  EXPECT_EQ(exploded[0].name, "m");
  EXPECT_EQ(exploded[0].label, "TenantID");
  EXPECT_EQ(exploded[0].value_count, 100U);
  // When the folded ones are too many in their turn, the next dimension goes too.
  std::uint32_t folded = 0;
  std::uint32_t last = 0;
  for (int route = 2; route < 300; ++route) {
    const Series& one = intern(route, 1000 + route);
    ASSERT_EQ(one.key.dimensions[2].value, "__other__");
    ASSERT_EQ(one.key.dimensions[1].value, "orders");
    if (one.id != last && one.key.dimensions[0].value != "__other__") ++folded;
    last = one.id;
  }
  EXPECT_GT(folded, 0U);
  EXPECT_LE(folded, 11U);
  EXPECT_EQ((*table)[last].key.dimensions[0].value, "__other__");
  // Also a dimension that had one value until then makes no end of series.
  const std::uint32_t before = table->used();
  for (int service = 0; service < 50; ++service) {
    SeriesKey key;
    key.name = "m";
    key.dimensions = {{"Route", "5000"}, {"Service", std::to_string(service)}, {"TenantID", "x"}};
    ASSERT_NE(table->intern(std::move(key)).refusal, Refusal::no_room);
  }
  EXPECT_LE(table->used() - before, 2U);
}

TEST_F(CellsTest, WithoutRoomASeriesGoesToAFoldedOneThatIsThere) {
  const auto intern = [&](std::string name, int value) -> const Series& {
    SeriesKey key;
    key.name = std::move(name);
    key.dimensions = {{"A", std::to_string(value)}};
    return table->intern(std::move(key));
  };
  for (int i = 0; i < 101; ++i) intern("exploded", i);
  for (int i = 0; i < 300; ++i) intern("m" + std::to_string(i), 0);
  EXPECT_EQ(intern("exploded", 5000).key.dimensions[0].value, "__other__");
  EXPECT_EQ(intern("m0", 1).refusal, Refusal::no_room);
  EXPECT_EQ(table->used() + 6, table->size());
}

TEST_F(CellsTest, PastTheBudgetOfTheTableSeriesAreRefused) {
  bool refused = false;
  for (int i = 0; i < 300 && !refused; ++i)
    refused = series(MetricKind::counter, "m" + std::to_string(i)).refusal != Refusal::none;
  EXPECT_TRUE(refused);
  EXPECT_LE(table->size(), layout.series_max);
}

}  // namespace
}  // namespace spillway::detail
