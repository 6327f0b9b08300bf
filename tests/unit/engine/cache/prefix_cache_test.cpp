#include "engine/cache/prefix_cache.h"

#include <numeric>
#include <vector>

#include <gtest/gtest.h>

namespace tessera {
namespace {

std::vector<int32_t> block_ids(int32_t first) {
  std::vector<int32_t> ids(static_cast<size_t>(kBlockTokens));
  std::iota(ids.begin(), ids.end(), first);
  return ids;
}

TEST(PrefixCacheTest, HashDependsOnSaltParentAndEveryId) {
  BlockAllocator allocator(1);
  PrefixCache cache(allocator, "model a");
  PrefixCache other(allocator, "model b");
  const auto ids = block_ids(0);
  const BlockHash hash = cache.hash({}, ids);
  EXPECT_EQ(cache.hash({}, ids), hash);
  EXPECT_NE(other.hash({}, ids), hash);
  EXPECT_NE(cache.hash(hash, ids), hash);
  for (const size_t changed : {size_t{0}, size_t{63}}) {
    auto near = ids;
    ++near[changed];
    EXPECT_NE(cache.hash({}, near), hash);
  }
}

TEST(PrefixCacheTest, FindsABlockWhileItIsHeldAndAfter) {
  BlockAllocator allocator(2);
  PrefixCache cache(allocator, "");
  const auto ids = block_ids(0);
  const BlockHash hash = cache.hash({}, ids);
  EXPECT_FALSE(cache.find(hash, ids).is_valid());

  Block block = allocator.try_allocate();
  const int32_t id = block.id();
  cache.insert(hash, ids, block);
  EXPECT_EQ(cache.find(hash, ids).id(), id);
  block.reset();
  EXPECT_EQ(allocator.num_used(), 0);
  EXPECT_EQ(cache.find(hash, ids).id(), id);
}

TEST(PrefixCacheTest, ComparesIdsAndNotHashesAlone) {
  BlockAllocator allocator(1);
  PrefixCache cache(allocator, "");
  const auto ids = block_ids(0);
  const BlockHash hash = cache.hash({}, ids);
  const Block block = allocator.try_allocate();
  cache.insert(hash, ids, block);
  EXPECT_FALSE(cache.find(hash, block_ids(1)).is_valid());
}

TEST(PrefixCacheTest, ForgetsABlockThatWasHandedOutAnew) {
  BlockAllocator allocator(1);
  PrefixCache cache(allocator, "");
  const auto ids = block_ids(0);
  const BlockHash hash = cache.hash({}, ids);
  cache.insert(hash, ids, allocator.try_allocate());
  const Block taken = allocator.try_allocate();
  EXPECT_FALSE(cache.find(hash, ids).is_valid());
}

TEST(PrefixCacheTest, EvictsTheLongestUnusedBlockFirst) {
  BlockAllocator allocator(2);
  PrefixCache cache(allocator, "");
  const auto old_ids = block_ids(0);
  const auto new_ids = block_ids(100);
  const BlockHash old_hash = cache.hash({}, old_ids);
  const BlockHash new_hash = cache.hash({}, new_ids);
  {
    const Block a = allocator.try_allocate();
    const Block b = allocator.try_allocate();
    cache.insert(old_hash, old_ids, a);
    cache.insert(new_hash, new_ids, b);
  }
  EXPECT_TRUE(cache.find(new_hash, new_ids).is_valid());
  EXPECT_TRUE(cache.find(old_hash, old_ids).is_valid());  // now the latest used
  const Block taken = allocator.try_allocate();
  EXPECT_FALSE(cache.find(new_hash, new_ids).is_valid());
  EXPECT_TRUE(cache.find(old_hash, old_ids).is_valid());
}

TEST(PrefixCacheTest, KeepsTheFirstOfTwoEqualLiveBlocks) {
  BlockAllocator allocator(2);
  PrefixCache cache(allocator, "");
  const auto ids = block_ids(0);
  const BlockHash hash = cache.hash({}, ids);
  const Block first = allocator.try_allocate();
  const Block second = allocator.try_allocate();
  cache.insert(hash, ids, first);
  cache.insert(hash, ids, second);
  EXPECT_EQ(cache.find(hash, ids).id(), first.id());
}

TEST(PrefixCacheTest, NumberOfEntriesStaysBounded) {
  BlockAllocator allocator(3);
  PrefixCache cache(allocator, "");
  for (int32_t i = 0; i < 100; ++i) {
    const auto ids = block_ids(i % 7);
    const Block block = allocator.try_allocate();
    cache.insert(cache.hash({}, ids), ids, block);
    EXPECT_EQ(cache.find(cache.hash({}, ids), ids).is_valid(), true);
    EXPECT_LE(cache.num_entries(), 3U);
  }
}

TEST(PrefixCacheTest, TakesTheLongestCachedPrefix) {
  BlockAllocator allocator(4);
  PrefixCache cache(allocator, "");
  std::vector<int32_t> ids(200);
  std::iota(ids.begin(), ids.end(), 0);
  BlockTable published;
  BlockHash parent;
  for (size_t i = 0; i < 2; ++i) {
    const std::span<const int32_t> tokens(ids.data() + 64 * i, 64);
    parent = cache.hash(parent, tokens);
    published.append(allocator.try_allocate());
    cache.insert(parent, tokens, published.block(static_cast<int64_t>(i)));
  }
  BlockTable table;
  cache.take_prefix(ids, table);
  EXPECT_EQ(table.num_blocks(), 2);
  table.clear();
  cache.take_prefix(std::span(ids).first(127), table);
  EXPECT_EQ(table.num_blocks(), 1) << "whole blocks only";
  table.clear();
  cache.take_prefix(std::span(ids).subspan(1), table);
  EXPECT_EQ(table.num_blocks(), 0);
}

}  // namespace
}  // namespace tessera
