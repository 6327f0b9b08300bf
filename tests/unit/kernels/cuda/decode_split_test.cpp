#include "kernels/cuda/attention/decode_split.h"

#include <random>
#include <set>
#include <vector>

#include <gtest/gtest.h>

namespace tessera::testing {
namespace {

using kernels::cuda::BlockRange;
using kernels::cuda::DecodeSplit;

/// Walks over all parts and sequences as the workers do and checks that every block is worked on
/// once, in order, by parts that know it.
void check(const std::vector<int>& blocks, int num_parts) {
  std::vector<int> before;
  int total = 0;
  for (const int count : blocks) {
    before.push_back(total);
    total += DecodeSplit::cost(count);
  }
  const DecodeSplit split = DecodeSplit::create(total, num_parts);
  std::set<int64_t> partials;
  std::set<int> waiting;  // parts that begin a sequence which others end
  int num_many_splits = 0;
  for (size_t i = 0; i < blocks.size(); ++i) {
    const int first = split.first_part(before[i]);
    const int last = split.last_part(before[i], blocks[i]);
    ASSERT_LE(0, first);
    ASSERT_LE(first, last);
    ASSERT_LT(last, num_parts);
    int next = 0;
    for (int part = 0; part < num_parts; ++part) {
      const BlockRange range = split.blocks(part, before[i], blocks[i]);
      const bool is_inside = part >= first && part <= last;
      ASSERT_LE(range.end - range.begin, (total + num_parts - 1) / num_parts);
      if (!is_inside) {
        ASSERT_EQ(range.begin, range.end) << "part " << part << " of sequence " << i;
        continue;
      }
      ASSERT_EQ(range.begin, next);
      ASSERT_TRUE(range.begin < range.end || blocks[i] == 0);
      next = range.end;
      const int64_t partial = DecodeSplit::partial(part, static_cast<int>(i));
      ASSERT_LT(partial, num_parts + static_cast<int64_t>(blocks.size()));
      ASSERT_TRUE(partials.insert(partial).second) << "two results at " << partial;
    }
    ASSERT_EQ(next, blocks[i]);
    ASSERT_EQ(split.splits(before[i], blocks[i]).first_part, first);
    ASSERT_EQ(split.splits(before[i], blocks[i]).count, last - first + 1);
    if (first < last) {
      ASSERT_TRUE(waiting.insert(first).second) << "two sequences begin and are cut in " << first;
      ASSERT_TRUE(i + 1 == blocks.size() || split.first_part(before[i + 1]) > first)
          << "part " << first << " goes on behind the sequence that it would wait for";
    }
    num_many_splits += last - first + 1 > DecodeSplit::kFewSplits ? 1 : 0;
  }
  ASSERT_LE(num_many_splits, DecodeSplit::max_many_splits(num_parts));
}

TEST(DecodeSplitTest, EveryBlockIsWorkedOnOnce) {
  for (const int num_parts : {1, 2, 7, 132}) {
    check({0}, num_parts);
    check({1}, num_parts);
    check({512}, num_parts);
    check({0, 0, 0, 5, 0, 0}, num_parts);
    check(std::vector<int>(64, 512), num_parts);
    check(std::vector<int>(300, 1), num_parts);
    check({2048, 1, 1, 1, 0, 2048, 3}, num_parts);
  }
}

TEST(DecodeSplitTest, EveryBlockIsWorkedOnOnceForRandomLengths) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (int round = 0; round < 300; ++round) {
    std::vector<int> blocks(1 + random() % 200);
    for (int& count : blocks) {
      count = static_cast<int>(random() % 8 == 0 ? random() % 600 : random() % 12);
    }
    check(blocks, static_cast<int>(1 + random() % 140));
    if (HasFatalFailure()) {
      return;
    }
  }
}

TEST(DecodeSplitTest, PartsCostTheSame) {
  const int total = 64 * DecodeSplit::cost(512);
  const DecodeSplit split = DecodeSplit::create(total, 132);
  for (int part = 0; part < 132; ++part) {
    const int cost = split.begin(part + 1) - split.begin(part);
    EXPECT_TRUE(cost == total / 132 || cost == total / 132 + 1) << part << " costs " << cost;
  }
  EXPECT_EQ(split.begin(132), total);
}

TEST(DecodeSplitTest, FewBlocksAreFewParts) {
  EXPECT_EQ(DecodeSplit::create(DecodeSplit::cost(1), 132).num_parts, 5);
  EXPECT_EQ(DecodeSplit::create(0, 132).num_parts, 1);
}

TEST(DecodeSplitTest, ShortSequencesNearlyAsManyAsPartsAreWhole) {
  const int cost = DecodeSplit::cost(16);
  const DecodeSplit split = DecodeSplit::create(128 * cost, 132);
  for (int i = 0; i < 128; ++i) {
    EXPECT_EQ(split.first_part(i * cost), i);
    EXPECT_EQ(split.last_part(i * cost, 16), i);
  }
}

TEST(DecodeSplitTest, HoldsForTheLargestBatches) {
  const int largest = static_cast<int>((int64_t{1} << 31) / 132);
  const DecodeSplit split = DecodeSplit::create(largest, 132);
  EXPECT_EQ(split.begin(132), largest);
  EXPECT_EQ(split.last_part(0, largest - DecodeSplit::kSequenceCost), 131);
}

}  // namespace
}  // namespace tessera::testing
