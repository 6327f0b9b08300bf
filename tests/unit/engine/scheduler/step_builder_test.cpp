#include "engine/scheduler/step_builder.h"

#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/engine/scheduler/scheduling_fixture.h"

namespace tessera {
namespace {

using ::testing::ElementsAre;

TEST(StepBuilderTest, PutsDecodeRowsBeforeChunks) {
  testing::SchedulingFixture fixture({.max_num_seqs = 4, .max_num_batched_tokens = 71}, 8);
  Sequence& running = *fixture.add(64).choices.front();
  fixture.step();
  Sequence& whole = *fixture.add(2, 1, 20).choices.front();
  Sequence& cut = *fixture.add(100, 1, 30).choices.front();

  const StepPlan& plan = fixture.scheduler.schedule();
  ModelInput input;
  std::vector<Sequence*> sampled;
  build_model_input(plan, input, sampled);

  EXPECT_EQ(input.num_decode, 1);
  EXPECT_EQ(input.num_tokens(), 71);
  EXPECT_THAT(input.decode_lengths, ElementsAre(65));
  EXPECT_EQ(input.positions[0], 64);
  EXPECT_EQ(input.token_ids[0], 1);
  EXPECT_EQ(input.slots[0], running.table().ids()[1] * 64);
  ASSERT_EQ(input.chunks.size(), 2U);
  EXPECT_EQ(input.chunks[0].row_begin, 1);
  EXPECT_EQ(input.chunks[0].num_tokens, 2);
  EXPECT_EQ(input.chunks[0].table_row, 1);
  EXPECT_EQ(input.chunks[1].row_begin, 3);
  EXPECT_EQ(input.chunks[1].num_tokens, 68);
  EXPECT_EQ(input.chunks[1].context_begin, 0);
  EXPECT_EQ(input.slots[3 + 65], cut.table().ids()[1] * 64 + 1);
  EXPECT_THAT(input.logits_rows, ElementsAre(0, 2));
  EXPECT_THAT(sampled, ElementsAre(&running, &whole));
  EXPECT_EQ(input.max_blocks_per_sequence, 2);
  EXPECT_THAT(input.block_tables,
              ElementsAre(running.table().ids()[0],
                          running.table().ids()[1],
                          whole.table().ids()[0],
                          0,
                          cut.table().ids()[0],
                          cut.table().ids()[1]));
}

TEST(StepBuilderTest, ContinuesAChunkWhereTheCacheEnds) {
  testing::SchedulingFixture fixture({.max_num_seqs = 1, .max_num_batched_tokens = 63}, 8);
  fixture.add(65);
  fixture.step();
  ModelInput input;
  std::vector<Sequence*> sampled;
  build_model_input(fixture.scheduler.schedule(), input, sampled);
  EXPECT_EQ(input.chunks.at(0).context_begin, 63);
  EXPECT_THAT(input.positions, ElementsAre(63, 64));
  EXPECT_THAT(input.logits_rows, ElementsAre(1));
}

TEST(StepBuilderTest, NamesTheWindowsRows) {
  // Rings of 1 first row and 2 behind it.
  testing::SchedulingFixture fixture(
      {.max_num_seqs = 4,
       .max_num_batched_tokens = 8,
       .ring = {.window = {.num_first = 1, .num_last = 2}, .ring_rows = 2}},
      8);
  Sequence& running = *fixture.add(3).choices.front();
  fixture.step();
  Sequence& cut = *fixture.add(9).choices.front();
  ModelInput input;
  std::vector<Sequence*> sampled;
  build_model_input(fixture.scheduler.schedule(), input, sampled);
  ASSERT_EQ(running.ring().id(), 0);
  ASSERT_EQ(cut.ring().id(), 1);
  EXPECT_THAT(input.window_first_slots, ElementsAre(0)) << "of decode rows only";
  // Position 3 over that of position 1; of the chunk of 7 tokens the first and the last two.
  EXPECT_THAT(input.window_slots, ElementsAre(1, 3, -1, -1, -1, -1, 4, 5));
}

TEST(StepBuilderTest, WithoutAWindowThereAreNoRowsOfIt) {
  testing::SchedulingFixture fixture({.max_num_seqs = 1, .max_num_batched_tokens = 63}, 8);
  fixture.add(65);
  ModelInput input;
  std::vector<Sequence*> sampled;
  build_model_input(fixture.scheduler.schedule(), input, sampled);
  EXPECT_TRUE(input.window_slots.empty());
  EXPECT_TRUE(input.window_first_slots.empty());
}

}  // namespace
}  // namespace tessera
