// SPDX-License-Identifier: Apache-2.0
//
// The values that stand for a histogram, against the measurements themselves: the model keeps every
// one of them, and the k-th smallest point is compared with the k-th smallest measurement.
#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <ostream>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <support/seed.hpp>

#include <spillway/buffers/bucket.hpp>
#include <spillway/engine/distribution.hpp>

namespace spillway::detail {
namespace {

// What a histogram's cell makes of these measurements. Those at `unbucketed` and behind found no
// block and have no bucket.
Distribution distribution_of(const std::vector<double>& measurements,
                             std::size_t unbucketed = ~std::size_t{0}) {
  Distribution all;
  std::map<std::uint32_t, std::uint64_t> buckets;
  all.minimum = all.maximum = measurements.empty() ? 0 : measurements.front();
  for (std::size_t i = 0; i < measurements.size(); ++i) {
    const double value = measurements[i];
    ++all.count;
    all.sum += value;
    all.minimum = std::min(all.minimum, value);
    all.maximum = std::max(all.maximum, value);
    if (i < unbucketed) ++buckets[bucket_of(value)];
  }
  all.buckets.assign(buckets.begin(), buckets.end());
  return all;
}

std::vector<ValueCount> points_of(const Distribution& all) {
  std::vector<ValueCount> points;
  append_points(all, points);
  return points;
}

// The weighted sum with 11 more bits than a double has.
long double weighted_sum(const std::vector<ValueCount>& points) {
  long double sum = 0;
  for (const ValueCount& point : points) {
    sum += static_cast<long double>(point.value) * static_cast<long double>(point.count);
  }
  return sum;
}

// As far as the sum of these measurements, added one by one, can be from the true one, and a last
// bit for the points.
double sum_error_max(const std::vector<double>& measurements) {
  double magnitude = 0;
  for (const double value : measurements) magnitude += std::fabs(value);
  return magnitude * 0x1p-52 * (1 + static_cast<double>(measurements.size()) / 2);
}

void expect_well_formed(const Distribution& all, const std::vector<ValueCount>& points) {
  ASSERT_FALSE(points.empty());
  EXPECT_EQ(points.front().value, all.minimum);
  EXPECT_EQ(points.back().value, all.maximum);
  double count = 0;
  for (std::size_t i = 0; i < points.size(); ++i) {
    if (i > 0) {
      EXPECT_LT(points[i - 1].value, points[i].value);
    }
    EXPECT_GE(points[i].count, 1);
    EXPECT_EQ(points[i].count, std::floor(points[i].count));
    count += points[i].count;
  }
  EXPECT_EQ(count, static_cast<double>(all.count));
}

// Every measurement's stand-in is within the width of its bucket, 1/128 of the bound nearer to
// zero.
void expect_close(std::vector<double> measurements, const std::vector<ValueCount>& points) {
  std::sort(measurements.begin(), measurements.end());
  std::size_t rank = 0;
  for (const ValueCount& point : points) {
    for (double i = 0; i < point.count; ++i, ++rank) {
      ASSERT_LT(rank, measurements.size());
      ASSERT_LE(std::fabs(point.value - measurements[rank]), std::fabs(measurements[rank]) / 128)
          << "the measurement of rank " << rank << " is " << measurements[rank];
    }
  }
}

void check(const std::vector<double>& measurements) {
  const Distribution all = distribution_of(measurements);
  const std::vector<ValueCount> points = points_of(all);
  expect_well_formed(all, points);
  expect_close(measurements, points);
  const long double error = weighted_sum(points) - static_cast<long double>(all.sum);
  EXPECT_LE(std::fabs(static_cast<double>(error)), sum_error_max(measurements)) << "of " << all.sum;
}

// ---- Small ones ----

TEST(DistributionTest, NothingIsNoPoint) { EXPECT_TRUE(points_of(Distribution{}).empty()); }

TEST(DistributionTest, OneMeasurementIsItself) {
  for (const double value : {0.0, 1.0, -1.0, 0.1, 873.25, 1e-300, magnitude_max, -magnitude_max}) {
    const auto points = points_of(distribution_of({value}));
    ASSERT_EQ(points.size(), 1U);
    EXPECT_EQ(points[0].value, value);
    EXPECT_EQ(points[0].count, 1);
  }
}

TEST(DistributionTest, EqualMeasurementsAreOnePoint) {
  const auto points = points_of(distribution_of(std::vector<double>(1000, 0.1)));
  ASSERT_EQ(points.size(), 1U);
  EXPECT_EQ(points[0].value, 0.1);
  EXPECT_EQ(points[0].count, 1000);
}

TEST(DistributionTest, TwoMeasurementsAreTheExtremes) {
  const auto points = points_of(distribution_of({-3.75, 12.5}));
  ASSERT_EQ(points.size(), 2U);
  EXPECT_EQ(points[0].value, -3.75);
  EXPECT_EQ(points[1].value, 12.5);
}

TEST(DistributionTest, TheCallersPointsStay) {
  std::vector<ValueCount> points{{7, 1}};
  append_points(distribution_of({7, 7}), points);
  ASSERT_EQ(points.size(), 2U);
  EXPECT_EQ(points[0].count, 1);
  EXPECT_EQ(points[1].count, 2);
}

TEST(DistributionTest, ExtremesThatShareABucketKeepTheSum) { check({1, 1.001, 1.002, 1.007}); }

TEST(DistributionTest, ZeroesAndSignsAreBucketsOfTheirOwn) {
  check({0, 0, 0, 1, -1, -1.001, -1.002, 5, 0});
  check({-5, -5.001, -5.002, -5.003});
}

// ---- Numbers are short ----

// Digits of the shortest text of a number.
std::size_t digits_of(double value) {
  char text[32];
  for (int precision = 1; precision < 18; ++precision) {
    std::snprintf(text, sizeof text, "%.*e", precision - 1, value);
    if (std::strtod(text, nullptr) == value) return static_cast<std::size_t>(precision);
  }
  return 17;
}

TEST(DistributionTest, MostValuesOfALatencyAreShortNumbers) {
  std::mt19937_64 random(7);
  std::lognormal_distribution<double> latency(6.5, 0.8);
  std::vector<double> measurements;
  for (int i = 0; i < 20'000; ++i) measurements.push_back(std::round(latency(random)));
  const auto points = points_of(distribution_of(measurements));
  const auto is_long = [](const ValueCount& point) { return digits_of(point.value) > 6; };
  EXPECT_LE(std::count_if(points.begin(), points.end(), is_long), 3);
  check(measurements);
}

TEST(DistributionTest, WholeMeasurementsAddUpToTheLastBit) {
  const std::uint64_t seed = testing::seed_or(11);
  SCOPED_TRACE(testing::seed_note(seed));
  std::mt19937_64 random(seed);
  for (int round = 0; round < 200; ++round) {
    std::vector<double> measurements;
    const double top = std::exp2(static_cast<double>(random() % 30));
    const std::size_t count = 2 + random() % 2000;
    for (std::size_t i = 0; i < count; ++i) {
      measurements.push_back(std::floor(top * std::generate_canonical<double, 53>(random)));
    }
    const Distribution all = distribution_of(measurements);
    ASSERT_EQ(static_cast<double>(weighted_sum(points_of(all))), all.sum) << "round " << round;
  }
}

// ---- Any measurements ----

struct Shape {
  const char* name;
  std::function<double(std::mt19937_64&)> draw;
};
void PrintTo(const Shape& shape, std::ostream* out) { *out << shape.name; }

double uniform(std::mt19937_64& random) { return std::generate_canonical<double, 53>(random); }
double power(std::mt19937_64& random, double low, double high) {
  return std::exp2(low + (high - low) * uniform(random));
}

const Shape shapes[] = {
    {"uniform", [](auto& random) { return uniform(random); }},
    {"one octave", [](auto& random) { return 1 + uniform(random); }},
    {"six decades", [](auto& random) { return power(random, -10, 10); }},
    {"signed decades",
     [](auto& random) { return power(random, -10, 10) * (random() % 2 == 0 ? 1 : -1); }},
    {"every magnitude", [](auto& random) { return power(random, -360, 360); }},
    {"every magnitude, signed",
     [](auto& random) { return power(random, -360, 360) * (random() % 2 == 0 ? 1 : -1); }},
    {"many small, few huge",
     [](auto& random) { return random() % 100 == 0 ? power(random, 50, 60) : uniform(random); }},
    {"many huge, few small",
     [](auto& random) { return random() % 100 == 0 ? uniform(random) : power(random, 50, 60); }},
    {"at lower bounds", [](auto& random) { return std::exp2(static_cast<double>(random() % 40)); }},
    {"below upper bounds",
     [](auto& random) {
       return std::nextafter(std::exp2(static_cast<double>(random() % 40)), 0.0);
     }},
    {"two bounds", [](auto& random) { return random() % 2 == 0 ? 1.0 : std::nextafter(2.0, 0.0); }},
    {"zeroes and tiny",
     [](auto& random) { return random() % 2 == 0 ? 0.0 : power(random, -360, -300); }},
    {"cents", [](auto& random) { return std::round(10'000 * uniform(random)) / 100; }},
    {"one bucket", [](auto& random) { return 1000 + 0.001 * uniform(random); }},
    {"negative latency", [](auto& random) { return -power(random, 0, 20); }},
};

class DistributionShapeTest : public ::testing::TestWithParam<Shape> {};

TEST_P(DistributionShapeTest, PointsKeepCountSumExtremesAndNearness) {
  const std::uint64_t seed = testing::seed_or(2026);
  SCOPED_TRACE(testing::seed_note(seed));
  std::mt19937_64 random(seed);
  for (int round = 0; round < 150; ++round) {
    SCOPED_TRACE("round " + std::to_string(round));
    std::vector<double> measurements;
    const std::size_t count = 1 + random() % (round % 10 == 9 ? 5000 : 40);
    for (std::size_t i = 0; i < count; ++i) measurements.push_back(GetParam().draw(random));
    check(measurements);
    if (HasFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, DistributionShapeTest, ::testing::ValuesIn(shapes),
                         [](const auto& shape) {
                           std::string name;
                           for (const char c : std::string(shape.param.name)) {
                             if (std::isalnum(static_cast<unsigned char>(c)) != 0) name += c;
                           }
                           return name;
                         });

// ---- Measurements without a bucket ----

TEST(DistributionTest, WiderBucketsKeepTheirErrorAndTheFigures) {
  for (const double error : {0.0079, 0.01, 0.02, 0.05, 0.25}) {
    const int bits = coarse_bits_for(error);
    Distribution all;
    std::map<std::uint32_t, std::uint64_t> buckets;
    std::vector<double> measurements;
    std::mt19937_64 random(testing::seed_or(20261121));
    std::lognormal_distribution<double> latency(6, 1.5);
    for (int i = 0; i < 3000; ++i) {
      const double value = i % 100 == 0 ? 0.0 : (i % 7 == 0 ? -1 : 1) * latency(random);
      measurements.push_back(value);
      all.sum += value;
      const std::uint32_t bucket = bucket_of(value);
      ++buckets[bucket & ~(bucket_width(bucket, bits) - 1)];
    }
    std::sort(measurements.begin(), measurements.end());
    all.count = measurements.size();
    all.minimum = measurements.front();
    all.maximum = measurements.back();
    all.coarse_bits = bits;
    all.buckets.assign(buckets.begin(), buckets.end());
    const auto points = points_of(all);
    expect_well_formed(all, points);
    EXPECT_NEAR(static_cast<double>(weighted_sum(points)), all.sum, std::fabs(all.sum) * 1e-12);
    std::size_t rank = 0;
    for (const ValueCount& point : points) {
      for (double i = 0; i < point.count; ++i, ++rank) {
        ASSERT_LE(std::fabs(point.value - measurements[rank]),
                  error * std::fabs(measurements[rank]))
            << "error " << error << ", rank " << rank;
      }
    }
  }
}

TEST(DistributionTest, TheErrorIsKeptByTheWidestBucketsThatDo) {
  EXPECT_EQ(coarse_bits_for(bucket_error_min), 0);
  EXPECT_EQ(coarse_bits_for(2 * bucket_error_min - 1e-9), 0);
  EXPECT_EQ(coarse_bits_for(2 * bucket_error_min), 1);
  EXPECT_EQ(coarse_bits_for(0.25), 5);
  EXPECT_EQ(coarse_bits_for(100), bucket_bits);
  EXPECT_EQ(bucket_width(bucket_of(0), 3), 1U);
  EXPECT_EQ(bucket_width(bucket_of(1), 3), 8U);
}

TEST(DistributionTest, WhatHasNoBucketLiesBetweenTheExtremes) {
  const std::uint64_t seed = testing::seed_or(3);
  SCOPED_TRACE(testing::seed_note(seed));
  std::mt19937_64 random(seed);
  for (int round = 0; round < 500; ++round) {
    SCOPED_TRACE("round " + std::to_string(round));
    std::vector<double> measurements;
    const std::size_t count = 2 + random() % 50;
    for (std::size_t i = 0; i < count; ++i) measurements.push_back(power(random, -4, 12));
    const Distribution all = distribution_of(measurements, random() % (count + 1));
    const auto points = points_of(all);
    expect_well_formed(all, points);
    const double error = static_cast<double>(weighted_sum(points) - all.sum);
    EXPECT_LE(std::fabs(error), sum_error_max(measurements)) << "of " << all.sum;
    if (HasFailure()) return;
  }
}

TEST(DistributionTest, TheMaximumIsTakenOutOfItsBucketNotOutOfWhatHasNone) {
  const Distribution all = distribution_of({100, 1, 50}, 1);
  const auto points = points_of(all);
  expect_well_formed(all, points);
  EXPECT_EQ(weighted_sum(points), 151);
}

}  // namespace
}  // namespace spillway::detail
