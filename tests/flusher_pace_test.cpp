// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <spillway/engine/flusher_pace.hpp>

namespace spillway::detail {
namespace {

TEST(FlusherPaceTest, SlowsDownWhereThereIsLittleToDrain) {
  FlusherPace pace;
  for (const int expected : {2, 4, 8, 16, 16}) EXPECT_EQ(pace.next(0.0), expected);
  FlusherPace with_work;
  for (const int expected : {2, 4, 8, 16, 16}) EXPECT_EQ(with_work.next(0.01), expected);
}

TEST(FlusherPaceTest, IsFastAtOnceWhenARingFillsUp) {
  FlusherPace pace;
  while (pace.next(0) != FlusherPace::slowest) {
  }
  EXPECT_EQ(pace.next(0.25), 1);
  EXPECT_EQ(pace.next(7), 1) << "went on while it was drained";
}

// A ring that is filled so much in each millisecond is never more than half full at a round, and the pace
// comes to rest.
TEST(FlusherPaceTest, FindsTheSlowestThatASteadyLoadAllows) {
  for (int per_mille = 1; per_mille <= 500; ++per_mille) {
    SCOPED_TRACE(per_mille);
    const double a_millisecond = per_mille / 1000.0;
    FlusherPace pace;
    int now = 1;
    for (int i = 0; i < 20; ++i) {
      const double fullest = a_millisecond * now;
      EXPECT_LE(fullest, 0.5);
      now = pace.next(fullest);
    }
    EXPECT_EQ(pace.next(a_millisecond * now), now);
    if (a_millisecond < 1.0 / 128) {
      EXPECT_EQ(now, FlusherPace::slowest);
    }
    if (now != FlusherPace::slowest) {
      EXPECT_GE(a_millisecond * now, 1.0 / 8);
    }
  }
}

}  // namespace
}  // namespace spillway::detail
