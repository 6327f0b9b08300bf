#include "engine/cache/block_allocator.h"

#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace tessera {
namespace {

TEST(BlockAllocatorTest, ReturnsBlocksWhenLastHandleDies) {
  BlockAllocator allocator(2);
  {
    const Block block = allocator.try_allocate();
    EXPECT_EQ(allocator.num_used(), 1);
    {
      const Block copy = block;
      EXPECT_EQ(copy.id(), block.id());
    }
    EXPECT_EQ(allocator.num_used(), 1);
  }
  EXPECT_EQ(allocator.num_used(), 0);
  EXPECT_EQ(allocator.num_free(), 2);
}

TEST(BlockAllocatorTest, GivesAnInvalidHandleWhenEmpty) {
  BlockAllocator none(0);
  EXPECT_FALSE(none.try_allocate().is_valid());

  BlockAllocator one(1);
  Block block = one.try_allocate();
  EXPECT_TRUE(block.is_valid());
  EXPECT_FALSE(one.try_allocate().is_valid());
  block.reset();
  EXPECT_TRUE(one.try_allocate().is_valid());
}

TEST(BlockAllocatorTest, GivesEachBlockOnce) {
  BlockAllocator allocator(65);
  std::vector<Block> blocks;
  std::vector<bool> is_seen(65, false);
  for (int i = 0; i < 65; ++i) {
    blocks.push_back(allocator.try_allocate());
    const auto id = static_cast<size_t>(blocks.back().id());
    ASSERT_LT(id, is_seen.size());
    EXPECT_FALSE(is_seen[id]);
    is_seen[id] = true;
  }
  EXPECT_EQ(allocator.num_free(), 0);
}

TEST(BlockAllocatorTest, MovingAHandleKeepsOneHolder) {
  BlockAllocator allocator(1);
  Block block = allocator.try_allocate();
  Block moved = std::move(block);
  EXPECT_TRUE(moved.is_valid());
  block = std::move(moved);
  EXPECT_EQ(allocator.num_used(), 1);
  block.reset();
  EXPECT_EQ(allocator.num_used(), 0);
}

TEST(BlockAllocatorTest, AssigningAHandleFreesTheOldBlock) {
  BlockAllocator allocator(2);
  Block a = allocator.try_allocate();
  Block b = allocator.try_allocate();
  const int32_t id = b.id();
  a = b;
  EXPECT_EQ(allocator.num_used(), 1);
  b.reset();
  EXPECT_EQ(allocator.num_used(), 1);
  EXPECT_EQ(a.id(), id);
  a = *&a;
  EXPECT_EQ(allocator.num_used(), 1);
}

TEST(BlockAllocatorTest, RevivesAFreeBlockUntilItIsHandedOutAnew) {
  BlockAllocator allocator(1);
  Block block = allocator.try_allocate();
  const int32_t id = block.id();
  const uint64_t generation = allocator.generation(id);
  block.reset();

  block = allocator.try_revive(id, generation);
  EXPECT_TRUE(block.is_valid());
  EXPECT_EQ(allocator.num_used(), 1);
  block.reset();

  block = allocator.try_allocate();
  EXPECT_FALSE(allocator.try_revive(id, generation).is_valid());
}

TEST(BlockAllocatorTest, RevivesAHeldBlockAsASecondHolder) {
  BlockAllocator allocator(1);
  Block first = allocator.try_allocate();
  Block second = allocator.try_revive(first.id(), allocator.generation(first.id()));
  first.reset();
  EXPECT_EQ(allocator.num_used(), 1);
  second.reset();
  EXPECT_EQ(allocator.num_used(), 0);
}

TEST(BlockAllocatorTest, ReusesKeptBlocksLastAndOldestFirst) {
  BlockAllocator allocator(3);
  Block kept_first = allocator.try_allocate();
  Block kept_second = allocator.try_allocate();
  Block plain = allocator.try_allocate();
  const int32_t first_id = kept_first.id();
  const int32_t second_id = kept_second.id();
  const int32_t plain_id = plain.id();
  allocator.keep_content(kept_first);
  allocator.keep_content(kept_second);
  kept_first.reset();
  kept_second.reset();
  plain.reset();

  const Block a = allocator.try_allocate();
  const Block b = allocator.try_allocate();
  const Block c = allocator.try_allocate();
  EXPECT_EQ(a.id(), plain_id);
  EXPECT_EQ(b.id(), first_id);
  EXPECT_EQ(c.id(), second_id);
}

TEST(BlockAllocatorTest, AStripedBlockHasTheStripeOfItsIndex) {
  BlockAllocator allocator(8, 3);  // stripes of 3, 3 and 2 blocks
  std::vector<Block> blocks;
  for (int64_t index = 0; index < 8; ++index) {
    blocks.push_back(allocator.try_allocate(index));
    ASSERT_TRUE(blocks.back().is_valid()) << index;
    EXPECT_EQ(blocks.back().id() % 3, index % 3);
  }
  EXPECT_FALSE(allocator.try_allocate(0).is_valid());
  blocks.erase(blocks.begin() + 1);
  EXPECT_FALSE(allocator.try_allocate(0).is_valid()) << "what is free is in stripe 1";
  EXPECT_EQ(allocator.try_allocate(4).id() % 3, 1);
}

TEST(BlockAllocatorTest, CountsFreeBlocksByStripe) {
  BlockAllocator allocator(8, 3);
  EXPECT_TRUE(allocator.can_allocate(0, 8));
  EXPECT_FALSE(allocator.can_allocate(2, 7)) << "indices 2, 5 and 8 need three blocks of stripe 2";
  EXPECT_TRUE(allocator.can_allocate(2, 6));
  EXPECT_TRUE(allocator.can_allocate(5, 0));
  const Block taken = allocator.try_allocate(1);
  EXPECT_FALSE(allocator.can_allocate(0, 8));
  EXPECT_TRUE(allocator.can_allocate(2, 5));
  EXPECT_FALSE(allocator.can_allocate(1, 7));
}

}  // namespace
}  // namespace tessera
