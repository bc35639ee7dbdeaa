// SPDX-License-Identifier: Apache-2.0
//
// The series of wide events whose metrics are aggregated. Interning a series makes a key of texts and
// takes a lock; events of one call site with the same dimensions have the same series, so that is done
// once for them. Flusher only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include <spillway/buffers/batch.hpp>
#include <spillway/buffers/series.hpp>

namespace spillway::detail {

class EventSeries {
 public:
  /// Call sites times values of their dimensions that are known at once. Past it, all are forgotten.
  static constexpr std::size_t known_max = 1U << 14;
  /// With more than so many bytes of dimensions they are looked up each time.
  static constexpr std::size_t key_bytes_max = 2048;

  /// `common`: dimensions of every event that has no dimension of the same name. `intern` gives the
  /// number of a key's series.
  EventSeries(Dimensions common, std::function<std::uint32_t(SeriesKey)> intern);

  /// The series of the event's metrics, in the order of its fields. Valid until the next call.
  std::span<const std::uint32_t> of(const LogView& event);

 private:
  std::vector<std::uint32_t> intern_all(const LogView& event) const;

  const Dimensions common_;
  const std::function<std::uint32_t(SeriesKey)> intern_;
  // By the address of the call site, which never moves, and its dimensions as they are packed.
  std::unordered_map<std::string, std::vector<std::uint32_t>> known_;
  std::string key_;
  std::vector<std::uint32_t> series_;  // of the last one that was not known
};

}  // namespace spillway::detail
