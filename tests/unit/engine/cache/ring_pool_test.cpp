#include "engine/cache/ring_pool.h"

#include <set>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace tessera {
namespace {

constexpr kernels::WindowRing kRing{.window = {.num_first = 3, .num_last = 4}, .ring_rows = 4};

TEST(RingPoolTest, GivesEachRingOnceAndTakesItBack) {
  RingPool pool(kRing, 3);
  std::vector<RingHandle> held;
  std::set<int64_t> ids;
  for (int i = 0; i < 3; ++i) {
    held.push_back(pool.take());
    ids.insert(held.back().id());
  }
  EXPECT_EQ(ids, (std::set<int64_t>{0, 1, 2}));
  EXPECT_EQ(pool.num_free(), 0);
  const int64_t freed = held[1].id();
  held[1].reset();
  EXPECT_FALSE(held[1].is_valid());
  EXPECT_EQ(pool.num_free(), 1);
  EXPECT_EQ(pool.take().id(), freed);
  EXPECT_EQ(pool.num_free(), 1) << "the handle died";
}

TEST(RingPoolTest, AMovedHandleIsTheOneOwner) {
  RingPool pool(kRing, 2);
  RingHandle first = pool.take();
  const int64_t id = first.id();
  RingHandle second = std::move(first);
  EXPECT_EQ(second.id(), id);
  EXPECT_EQ(pool.num_free(), 1);
  second = pool.take();
  EXPECT_EQ(pool.num_free(), 1) << "what it held came back";
  EXPECT_NE(second.id(), id);
}

TEST(RingPoolTest, MoreRingsThanThereAreIsABug) {
  RingPool pool(kRing, 1);
  const RingHandle held = pool.take();
  EXPECT_DEATH(static_cast<void>(pool.take()), "rings");
}

TEST(RingHandleTest, NamesTheRowOfEachTokenOfTheWindow) {
  RingPool pool(kRing, 2);
  const RingHandle ring_0 = pool.take();
  const RingHandle ring = pool.take();
  ASSERT_EQ(ring.id(), 1);
  EXPECT_EQ(ring.first_slot(), 7) << "3 first rows and a ring of 4";
  // A chunk that ends with 12 tokens: the first 3 and the last 4.
  std::vector<int64_t> slots;
  for (int64_t position = 0; position < 12; ++position) {
    slots.push_back(ring.slot(position, 12));
  }
  EXPECT_EQ(slots, (std::vector<int64_t>{7, 8, 9, -1, -1, -1, -1, -1, 11, 12, 13, 10}));
  EXPECT_EQ(ring.slot(12, 13), 11) << "over the row of position 8, which has left the window";
  EXPECT_EQ(ring.slot(1, 2), 8) << "a context shorter than the first tokens";
}

TEST(RingHandleTest, WithoutLastTokensOnlyTheFirstOnesHaveRows) {
  RingPool pool({.window = {.num_first = 2, .num_last = 0}, .ring_rows = 0}, 1);
  const RingHandle ring = pool.take();
  EXPECT_EQ(ring.slot(1, 2), 1);
  EXPECT_EQ(ring.slot(2, 3), -1);
}

}  // namespace
}  // namespace tessera
