#include "server/router/prefix_record.h"

#include <numeric>

#include <gtest/gtest.h>

namespace tessera::router {
namespace {

std::vector<int32_t> ids(int32_t count, int32_t first = 0) {
  std::vector<int32_t> out(static_cast<size_t>(count));
  std::iota(out.begin(), out.end(), first);
  return out;
}

int64_t blocks_of(const PrefixRecord& record,
                  const std::vector<BlockHash>& chain,
                  WorkerId worker) {
  for (const auto& match : record.match(chain)) {
    if (match.worker == worker) {
      return match.num_blocks;
    }
  }
  return 0;
}

TEST(HashBlocksTest, NamesWholeBlocksOnly) {
  EXPECT_EQ(hash_blocks(ids(0), {}).size(), 0U);
  EXPECT_EQ(hash_blocks(ids(63), {}).size(), 0U);
  EXPECT_EQ(hash_blocks(ids(64), {}).size(), 1U);
  EXPECT_EQ(hash_blocks(ids(65), {}).size(), 1U);
  EXPECT_EQ(hash_blocks(ids(128), {}).size(), 2U);
}

TEST(HashBlocksTest, DependsOnContentParentAndSalt) {
  const auto chain = hash_blocks(ids(128), {});
  auto other = ids(128);
  other[0] = 7;
  const auto changed = hash_blocks(other, {});
  EXPECT_NE(chain[0], changed[0]);
  EXPECT_NE(chain[1], changed[1]) << "the second block's own ids are the same";
  EXPECT_NE(chain[0], hash_blocks(ids(64), {1, 2})[0]);
  EXPECT_EQ(chain[0], hash_blocks(ids(100), {})[0]);
}

TEST(PrefixRecordTest, CountsLeadingBlocksPerWorker) {
  PrefixRecord record(100);
  const auto chain = hash_blocks(ids(64 * 4), {});
  record.note(std::span(chain).first(3), 1);
  record.note(std::span(chain).first(1), 2);
  EXPECT_EQ(blocks_of(record, chain, 1), 3);
  EXPECT_EQ(blocks_of(record, chain, 2), 1);
  EXPECT_EQ(blocks_of(record, chain, 3), 0);
  EXPECT_TRUE(record.match(hash_blocks(ids(64, 5), {})).empty());
}

TEST(PrefixRecordTest, StaysWithinItsBoundAndKeepsHeadsLongest) {
  PrefixRecord record(4);
  const auto first = hash_blocks(ids(64 * 3), {});
  const auto second = hash_blocks(ids(64 * 2, 1000), {});
  record.note(first, 1);
  record.note(second, 1);
  EXPECT_EQ(record.size(), 4);
  EXPECT_EQ(blocks_of(record, first, 1), 2) << "the end of the oldest chain goes first";
  EXPECT_EQ(blocks_of(record, second, 1), 2);
}

TEST(PrefixRecordTest, HoldsNothingWithABoundOfZero) {
  PrefixRecord record(0);
  record.note(hash_blocks(ids(640), {}), 1);
  EXPECT_EQ(record.size(), 0);
}

TEST(PrefixRecordTest, ForgetsTheOldestOfTooManyWorkers) {
  PrefixRecord record(4);
  const auto chain = hash_blocks(ids(64), {});
  for (WorkerId worker = 1; worker <= 9; ++worker) {
    record.note(chain, worker);
  }
  EXPECT_EQ(blocks_of(record, chain, 1), 0);
  EXPECT_EQ(blocks_of(record, chain, 2), 1);
  EXPECT_EQ(blocks_of(record, chain, 9), 1);
}

}  // namespace
}  // namespace tessera::router
