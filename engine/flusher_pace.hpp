// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

namespace spillway::detail {

/// How long the flusher sleeps between two rounds, as a multiple of Config::poll_interval. Waking up
/// costs two switches of the core and cold caches, some 30 us for flusher and sender together, so it is
/// done as often as the rings need it and not at each record: an idle flusher is as slow, and a burst out
/// of silence has to find room in the rings in any case.
class FlusherPace {
 public:
  static constexpr int slowest = 16;

  /// fullest  how full the fullest ring was at the round that has ended
  int next(double fullest) noexcept {
    if (fullest >= full) {
      pace_ = 1;
    } else if (fullest < half_empty) {
      pace_ = std::min(pace_ * 2, slowest);
    }
    return pace_;
  }

 private:
  // Twice as slow, a ring that is filled steadily is below `full` at the next round.
  static constexpr double half_empty = 1.0 / 8;
  static constexpr double full = 1.0 / 4;
  int pace_ = 1;
};

}  // namespace spillway::detail
