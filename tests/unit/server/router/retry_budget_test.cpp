#include "server/router/retry_budget.h"

#include <gtest/gtest.h>

namespace tessera::router {
namespace {

using std::chrono::milliseconds;
using TimePoint = RetryBudget::TimePoint;

RouterOptions small_budget() {
  RouterOptions options;
  options.retry_burst = 2;
  options.retry_ratio = 0.1;
  options.retry_floor_per_second = 4;
  return options;
}

TEST(RetryBudgetTest, PaysABurstThenTheFloor) {
  const RouterOptions options = small_budget();
  RetryBudget budget(options);
  const TimePoint now{std::chrono::hours(1)};
  EXPECT_TRUE(budget.try_take(now));
  EXPECT_TRUE(budget.try_take(now));
  EXPECT_FALSE(budget.try_take(now));
  const TimePoint next = budget.next_at(now);
  EXPECT_GE(next - now, milliseconds(250));
  EXPECT_LT(next - now, milliseconds(251));
  EXPECT_TRUE(budget.try_take(next));
}

TEST(RetryBudgetTest, TenRequestsEarnOneReplay) {
  const RouterOptions options = small_budget();
  RetryBudget budget(options);
  const TimePoint now{std::chrono::hours(1)};
  EXPECT_TRUE(budget.try_take(now) && budget.try_take(now));
  for (int i = 0; i < 9; ++i) {
    budget.note_request();
  }
  EXPECT_FALSE(budget.try_take(now));
  budget.note_request();
  budget.note_request();  // one more than ten: 0.1 is not exact
  EXPECT_TRUE(budget.try_take(now));
}

TEST(RetryBudgetTest, BackoffDoublesWithinItsBoundAndJitters) {
  RouterOptions options;
  options.backoff_first = milliseconds(20);
  options.backoff_last = milliseconds(100);
  RetryBudget budget(options);
  const double expected[] = {20, 40, 80, 100, 100};
  for (int32_t i = 1; i <= 5; ++i) {
    for (int repeat = 0; repeat < 20; ++repeat) {
      const double pause =
          std::chrono::duration<double, std::milli>(budget.backoff(i)).count() / expected[i - 1];
      EXPECT_GE(pause, 0.499);
      EXPECT_LE(pause, 1.501);
    }
  }
}

}  // namespace
}  // namespace tessera::router
