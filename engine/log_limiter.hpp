// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace spillway::detail {

/// Lets so many records a second of each call site through, and counts the rest. Flusher only: what
/// records pays nothing for it.
class LogLimiter {
 public:
  /// 0: all.
  explicit LogLimiter(std::uint64_t per_second) noexcept : per_second_(per_second) {}

  /// Whether a record of call site number `site` goes out in this second, which never goes back.
  bool admit(std::uint32_t site, std::int64_t second) {
    if (per_second_ == 0) return true;
    if (site >= sites_.size()) sites_.resize(site + 1 + site / 2);
    Site& here = sites_[site];
    if (here.second != second) {
      here.second = second;
      here.admitted = 0;
    }
    if (here.admitted < per_second_) {
      ++here.admitted;
      return true;
    }
    if (here.held_back++ == 0) over_.push_back(site);
    return false;
  }

  /// Calls `visit(site, count)` for what was held back since the last call.
  template <class Visit>
  void report(Visit&& visit) {
    for (const std::uint32_t site : over_) visit(site, std::exchange(sites_[site].held_back, 0));
    over_.clear();
  }

 private:
  struct Site {
    std::int64_t second = -1;
    std::uint64_t admitted = 0;
    std::uint64_t held_back = 0;
  };
  const std::uint64_t per_second_;
  std::vector<Site> sites_;  // by number
  std::vector<std::uint32_t> over_;
};

}  // namespace spillway::detail
