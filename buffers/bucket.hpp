// SPDX-License-Identifier: Apache-2.0
//
// Log-linear buckets of doubles: every power of two is an octave of 128 equal buckets. A bucket's
// number is the top 19 bits of the double itself (sign, exponent, 7 bits of mantissa), so finding
// it is one shift.
//
// A bucket is at most 1/128 of its lower bound wide: any value chosen inside it is within 0.79 % of
// any other, its middle within 0.39 %.
#pragma once

#include <bit>
#include <cstdint>

namespace spillway::detail {

inline constexpr int bucket_bits = 7;
inline constexpr std::uint32_t buckets_per_octave = 1U << bucket_bits;
inline constexpr int bucket_shift = 52 - bucket_bits;

/// CloudWatch takes magnitudes up to 2^360 (PutMetricData, MetricDatum.Value), and refuses ones that are
/// too small: the smallest that a reference ever named is this, about 2^-359.
inline constexpr double magnitude_max = 0x1p360;
inline constexpr double magnitude_min = 8.515920e-109;

/// Whether CloudWatch would take the value: finite, at most 2^360 in magnitude.
constexpr bool is_valid_measurement(double value) noexcept {
  return value >= -magnitude_max && value <= magnitude_max;
}

/// A value as it is recorded: one that is too small for CloudWatch is zero.
constexpr double without_tiny(double value) noexcept {
  return value > -magnitude_min && value < magnitude_min ? 0.0 : value;
}

/// Bucket of a finite value; zero (of either sign) is bucket 0. Nothing that is recorded lies between
/// zero and the tiny.
constexpr std::uint32_t bucket_of(double value) noexcept {
  const auto bucket =
      static_cast<std::uint32_t>(std::bit_cast<std::uint64_t>(value) >> bucket_shift);
  constexpr std::uint32_t negative_zero = 1U << (11 + bucket_bits);
  return bucket == negative_zero ? 0 : bucket;
}

/// The bound nearer to zero. Belongs to the bucket.
constexpr double bucket_inner_bound(std::uint32_t bucket) noexcept {
  return std::bit_cast<double>(std::uint64_t{bucket} << bucket_shift);
}

/// The bound farther from zero, of `width` buckets from this one on. Does not belong to them. Bucket
/// 0 is the single value zero.
constexpr double bucket_outer_bound(std::uint32_t bucket, std::uint32_t width = 1) noexcept {
  return bucket == 0 ? 0.0 : std::bit_cast<double>((std::uint64_t{bucket} + width) << bucket_shift);
}

/// How far two values of a bucket can be apart, relative to the smaller one; the closest that a
/// histogram can be asked for.
inline constexpr double bucket_error_min = 1.0 / buckets_per_octave;

/// How many bits of a bucket's number may go, so that buckets become wider, with values of one no
/// farther apart than `error`. At least bucket_error_min.
constexpr int coarse_bits_for(double error) noexcept {
  int bits = 0;
  while (bits < bucket_bits && bucket_error_min * (2U << bits) <= error) ++bits;
  return bits;
}

/// Buckets that go together when `coarse_bits` of their numbers go: not those of the lowest octave,
/// where zero is one.
constexpr std::uint32_t bucket_width(std::uint32_t bucket, int coarse_bits) noexcept {
  return bucket < buckets_per_octave ? 1 : 1U << coarse_bits;
}

}  // namespace spillway::detail
