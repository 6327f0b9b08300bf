#include "engine/model/local_input.h"

#include <numeric>
#include <vector>

#include <gtest/gtest.h>

namespace tessera {
namespace {

TEST(LocalLengthTest, CountsTheTokensOfTheRanksBlocks) {
  for (const int64_t num_ranks : {1, 2, 3, 4}) {
    for (const int64_t length : {0, 1, 63, 64, 65, 127, 128, 129, 200, 640}) {
      std::vector<int64_t> counts(static_cast<size_t>(num_ranks), 0);
      for (int64_t position = 0; position < length; ++position) {
        ++counts[static_cast<size_t>(position / 64 % num_ranks)];
      }
      for (int64_t rank = 0; rank < num_ranks; ++rank) {
        EXPECT_EQ(local_length(length, {rank, num_ranks}), counts[static_cast<size_t>(rank)])
            << length << " tokens, rank " << rank << " of " << num_ranks;
      }
    }
  }
}

/// A decode row of 130 tokens (blocks 4, 1, 8), one of 10 (block 2), a chunk of two tokens in
/// block 6. Two ranks.
ModelInput two_rows_and_a_chunk() {
  ModelInput input;
  input.token_ids = {7, 8, 9, 10};
  input.positions = {129, 9, 0, 1};
  input.slots = {8 * 64 + 1, 2 * 64 + 9, 6 * 64, 6 * 64 + 1};
  input.num_decode = 2;
  input.decode_lengths = {130, 10};
  input.chunks = {{.row_begin = 2, .num_tokens = 2, .context_begin = 0, .table_row = 2}};
  input.block_tables = {4, 1, 8, 2, 0, 0, 6, 0, 0};
  input.max_blocks_per_sequence = 3;
  input.logits_rows = {0, 1, 3};
  return input;
}

TEST(LocalInputTest, TakesEverySecondBlock) {
  const ModelInput input = two_rows_and_a_chunk();
  ModelInput local;
  make_local_input(input, {0, 2}, local);
  EXPECT_EQ(local.slots, (std::vector<int64_t>{4 * 64 + 1, 64 + 9, 3 * 64, 3 * 64 + 1}));
  EXPECT_EQ(local.decode_lengths, (std::vector<int32_t>{66, 10}));
  EXPECT_EQ(local.max_blocks_per_sequence, 2);
  EXPECT_EQ(local.block_tables, (std::vector<int32_t>{2, 4, 1, 0, 3, 0}));
  EXPECT_EQ(local.token_ids, input.token_ids);
  EXPECT_EQ(local.positions, input.positions);
  EXPECT_EQ(local.num_decode, 2);
  EXPECT_EQ(local.chunks.size(), 1U);
  EXPECT_EQ(local.logits_rows, input.logits_rows);

  make_local_input(input, {1, 2}, local);  // nothing of the first call is left
  EXPECT_EQ(local.slots, (std::vector<int64_t>{-1, -1, -1, -1}));
  EXPECT_EQ(local.decode_lengths, (std::vector<int32_t>{64, 0}));
  EXPECT_EQ(local.block_tables, (std::vector<int32_t>{0, 0, 0, 0, 0, 0}));
}

TEST(LocalInputTest, OneRankSeesTheStepAsItIs) {
  const ModelInput input = two_rows_and_a_chunk();
  ModelInput local;
  make_local_input(input, {0, 1}, local);
  EXPECT_EQ(local.slots, input.slots);
  EXPECT_EQ(local.decode_lengths, input.decode_lengths);
  EXPECT_EQ(local.block_tables, input.block_tables);
}

TEST(LocalInputDeathTest, RefusesABlockOfAnotherRank) {
  ModelInput input = two_rows_and_a_chunk();
  input.block_tables[1] = 2;
  ModelInput local;
  EXPECT_DEATH(make_local_input(input, {0, 2}, local), "block of the wrong rank");
}

}  // namespace
}  // namespace tessera
