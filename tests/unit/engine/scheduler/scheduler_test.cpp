#include "engine/scheduler/scheduler.h"

#include <algorithm>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "tests/unit/engine/scheduler/scheduling_fixture.h"

namespace tessera {
namespace {

using testing::SchedulingFixture;

Sequence& first_of(SequenceGroup& group) {
  return *group.choices.front();
}

TEST(SchedulerTest, PlansNothingWithoutSequences) {
  SchedulingFixture fixture({.max_num_seqs = 4, .max_num_batched_tokens = 16}, 4);
  EXPECT_TRUE(fixture.scheduler.schedule().is_empty());
}

TEST(SchedulerTest, CutsAPromptIntoChunksOfTheBudget) {
  SchedulingFixture fixture({.max_num_seqs = 4, .max_num_batched_tokens = 64}, 4);
  Sequence& sequence = first_of(fixture.add(130));
  EXPECT_EQ(fixture.step().prefills.at(0).num_tokens, 64);
  EXPECT_TRUE(fixture.sampled.empty());
  EXPECT_EQ(fixture.step().prefills.at(0).num_tokens, 64);
  EXPECT_TRUE(fixture.sampled.empty());
  EXPECT_EQ(sequence.state(), SequenceState::kPrefilling);
  EXPECT_EQ(fixture.step().prefills.at(0).num_tokens, 2);
  EXPECT_EQ(fixture.sampled, std::vector<Sequence*>{&sequence});
  EXPECT_EQ(sequence.state(), SequenceState::kRunning);
  EXPECT_EQ(sequence.num_computed(), 130);
}

TEST(SchedulerTest, DecodesFirstAndFillsTheBudgetWithPrefill) {
  SchedulingFixture fixture({.max_num_seqs = 4, .max_num_batched_tokens = 10}, 8);
  Sequence& first = first_of(fixture.add(10));
  fixture.step();
  Sequence& second = first_of(fixture.add(20));
  const StepPlan& plan = fixture.step();
  EXPECT_EQ(plan.decodes, std::vector<Sequence*>{&first});
  ASSERT_EQ(plan.prefills.size(), 1U);
  EXPECT_EQ(plan.prefills[0].sequence, &second);
  EXPECT_EQ(plan.prefills[0].num_tokens, 9);
}

TEST(SchedulerTest, MixesPromptsOfOneStepInArrivalOrder) {
  SchedulingFixture fixture({.max_num_seqs = 4, .max_num_batched_tokens = 12}, 8);
  Sequence& first = first_of(fixture.add(5));
  Sequence& second = first_of(fixture.add(5));
  Sequence& third = first_of(fixture.add(5));
  const StepPlan& plan = fixture.step();
  ASSERT_EQ(plan.prefills.size(), 3U);
  EXPECT_EQ(plan.prefills[0].sequence, &first);
  EXPECT_EQ(plan.prefills[1].sequence, &second);
  EXPECT_EQ(plan.prefills[2].sequence, &third);
  EXPECT_EQ(plan.prefills[2].num_tokens, 2);
}

TEST(SchedulerTest, NobodyOvertakesTheOldestWaitingSequence) {
  SchedulingFixture fixture({.max_num_seqs = 4, .max_num_batched_tokens = 512}, 4);
  fixture.add(100);
  Sequence& large = first_of(fixture.add(200));
  Sequence& small = first_of(fixture.add(10));
  fixture.step();
  EXPECT_EQ(large.state(), SequenceState::kWaiting);
  EXPECT_EQ(small.state(), SequenceState::kWaiting);
}

TEST(SchedulerTest, RunsAtMostMaxNumSeqs) {
  SchedulingFixture fixture({.max_num_seqs = 2, .max_num_batched_tokens = 512}, 8);
  fixture.add(3);
  SequenceGroup& second = fixture.add(3);
  Sequence& third = first_of(fixture.add(3));
  EXPECT_EQ(fixture.step().prefills.size(), 2U);
  EXPECT_EQ(third.state(), SequenceState::kWaiting);
  fixture.finish(second);
  fixture.step();
  EXPECT_EQ(third.state(), SequenceState::kRunning);
}

TEST(SchedulerTest, ChoicesToComeTakeTheirSeatsBeforeTheFork) {
  SchedulingFixture fixture({.max_num_seqs = 4, .max_num_batched_tokens = 512}, 16);
  fixture.add(3, 3);
  Sequence& pair = first_of(fixture.add(3, 2));
  fixture.step();
  EXPECT_EQ(pair.state(), SequenceState::kWaiting);
}

TEST(SchedulerTest, PreemptsTheYoungestForAnOlderOne) {
  SchedulingFixture fixture({.max_num_seqs = 4, .max_num_batched_tokens = 512}, 3);
  Sequence& oldest = first_of(fixture.add(64));
  Sequence& middle = first_of(fixture.add(10));
  Sequence& youngest = first_of(fixture.add(10));
  fixture.step();
  EXPECT_EQ(fixture.allocator.num_free(), 0);

  const StepPlan& plan = fixture.step();  // position 64 of the oldest needs a block
  EXPECT_EQ(plan.decodes, (std::vector<Sequence*>{&oldest, &middle}));
  EXPECT_EQ(youngest.state(), SequenceState::kPreempted);
  EXPECT_EQ(youngest.num_computed(), 0);
  EXPECT_EQ(youngest.table().num_blocks(), 0);
  EXPECT_EQ(fixture.scheduler.num_preemptions(), 1);
}

TEST(SchedulerTest, APreemptedSequenceComputesItsGeneratedTokensAgain) {
  SchedulingFixture fixture({.max_num_seqs = 4, .max_num_batched_tokens = 512}, 2);
  SequenceGroup& old_group = fixture.add(64);
  Sequence& young = first_of(fixture.add(10));
  fixture.step();
  fixture.step();
  ASSERT_EQ(young.state(), SequenceState::kPreempted);
  fixture.finish(old_group);
  const StepPlan& plan = fixture.step();
  ASSERT_EQ(plan.prefills.size(), 1U);
  EXPECT_EQ(plan.prefills[0].num_tokens, 11);
  EXPECT_EQ(young.num_generated(), 2);
  EXPECT_EQ(young.state(), SequenceState::kRunning);
}

TEST(SchedulerTest, TheYoungestWaitsWithItsBlocksWhenOlderOnesHoldTheRest) {
  SchedulingFixture fixture({.max_num_seqs = 4, .max_num_batched_tokens = 512}, 2);
  SequenceGroup& old_group = fixture.add(10);
  Sequence& young = first_of(fixture.add(64));
  fixture.step();
  const StepPlan& plan = fixture.step();
  EXPECT_EQ(plan.decodes, std::vector<Sequence*>{&first_of(old_group)});
  EXPECT_EQ(young.state(), SequenceState::kRunning);
  EXPECT_EQ(fixture.scheduler.num_preemptions(), 0);
  fixture.finish(old_group);
  EXPECT_EQ(fixture.step().decodes, std::vector<Sequence*>{&young});
}

struct PrefixCase {
  int64_t num_prompt_tokens;
  int64_t num_cached_tokens;
};

class SchedulerPrefixTest : public ::testing::TestWithParam<PrefixCase> {};

TEST_P(SchedulerPrefixTest, ReusesFullBlocksAndComputesTheLastTokenAtLeast) {
  SchedulingFixture fixture({.max_num_seqs = 4, .max_num_batched_tokens = 512}, 8, true);
  SequenceGroup& first = fixture.add(GetParam().num_prompt_tokens);
  fixture.step();
  fixture.finish(first);
  SequenceGroup& second = fixture.add(GetParam().num_prompt_tokens);
  const StepPlan& plan = fixture.step();
  EXPECT_EQ(second.num_cached_tokens, GetParam().num_cached_tokens);
  EXPECT_EQ(plan.prefills.at(0).num_tokens,
            GetParam().num_prompt_tokens - GetParam().num_cached_tokens);
}

INSTANTIATE_TEST_SUITE_P(EdgeSizes,
                         SchedulerPrefixTest,
                         ::testing::Values(PrefixCase{1, 0},
                                           PrefixCase{63, 0},
                                           PrefixCase{64, 0},
                                           PrefixCase{65, 64},
                                           PrefixCase{128, 64},
                                           PrefixCase{129, 128}));

TEST(SchedulerTest, LiveSequencesShareTheirPrefix) {
  SchedulingFixture fixture({.max_num_seqs = 4, .max_num_batched_tokens = 512}, 8, true);
  Sequence& first = first_of(fixture.add(130));
  fixture.step();
  Sequence& second = first_of(fixture.add(130));
  fixture.step();
  EXPECT_EQ(second.table().ids()[0], first.table().ids()[0]);
  EXPECT_EQ(second.table().ids()[1], first.table().ids()[1]);
  EXPECT_NE(second.table().ids()[2], first.table().ids()[2]);
  EXPECT_EQ(fixture.allocator.num_used(), 4);
}

TEST(SchedulerTest, AForkSharesFullBlocksAndCopiesThePartialOne) {
  SchedulingFixture fixture({.max_num_seqs = 4, .max_num_batched_tokens = 512}, 8);
  SequenceGroup& group = fixture.add(70, 3);
  fixture.step();
  ASSERT_EQ(fixture.copies.blocks.size(), 2U);
  const auto first = first_of(group).table().ids();
  for (size_t i = 1; i < 3; ++i) {
    const Sequence& choice = *group.choices[i];
    EXPECT_EQ(choice.state(), SequenceState::kRunning);
    EXPECT_EQ(choice.num_computed(), 70);
    EXPECT_EQ(choice.table().ids()[0], first[0]);
    EXPECT_EQ(fixture.copies.blocks[i - 1].source, first[1]);
    EXPECT_EQ(fixture.copies.blocks[i - 1].destination, choice.table().ids()[1]);
  }
  EXPECT_EQ(fixture.allocator.num_used(), 4);
  EXPECT_EQ(fixture.step().decodes.size(), 3U);
}

TEST(SchedulerTest, AForkAtABlocksEndCopiesNothing) {
  SchedulingFixture fixture({.max_num_seqs = 4, .max_num_batched_tokens = 512}, 8);
  fixture.add(64, 3);
  fixture.step();
  EXPECT_TRUE(fixture.copies.blocks.empty());
  EXPECT_EQ(fixture.allocator.num_used(), 1);
  fixture.step();
  EXPECT_EQ(fixture.allocator.num_used(), 4);
}

TEST(SchedulerTest, AForkWithoutBlocksPreemptsTheChoice) {
  SchedulingFixture fixture({.max_num_seqs = 4, .max_num_batched_tokens = 512}, 2);
  SequenceGroup& group = fixture.add(70, 2);
  fixture.step();
  EXPECT_EQ(group.choices[1]->state(), SequenceState::kPreempted);
  EXPECT_EQ(group.choices[1]->table().num_blocks(), 0);
  fixture.scheduler.finish(first_of(group));
  fixture.step();
  EXPECT_EQ(group.choices[1]->state(), SequenceState::kRunning);
}

TEST(SchedulerTest, AFinishedChoiceIsNotForked) {
  SchedulingFixture fixture({.max_num_seqs = 4, .max_num_batched_tokens = 512}, 8);
  SequenceGroup& group = fixture.add(10, 3);
  const StepPlan& plan = fixture.scheduler.schedule();
  fixture.scheduler.complete(plan);
  for (const auto& choice : group.choices) {
    choice->append_token(1);
  }
  fixture.scheduler.finish(*group.choices[1]);
  ForkCopies copies;
  fixture.scheduler.fork(group, copies);
  EXPECT_EQ(copies.blocks.size(), 1U);
  EXPECT_EQ(fixture.step().decodes.size(), 2U);
}

TEST(SchedulerTest, CountsGroupsThatRun) {
  SchedulingFixture fixture({.max_num_seqs = 4, .max_num_batched_tokens = 512}, 8);
  fixture.add(3, 3);
  fixture.add(3);
  fixture.add(3);
  fixture.step();
  EXPECT_EQ(fixture.scheduler.num_running_groups(), 2);
}

class ListGate final : public StartGate {
 public:
  bool may_start(const SequenceGroup& group) override {
    return std::find(allowed.begin(), allowed.end(), &group) != allowed.end();
  }
  std::vector<const SequenceGroup*> allowed;
};

TEST(SchedulerTest, AGatePassesOverAndKeepsThePlace) {
  ListGate gate;
  BlockAllocator allocator(16);
  Scheduler scheduler({.max_num_seqs = 4, .max_num_batched_tokens = 64}, allocator, nullptr, &gate);
  const auto older = testing::make_group(0, 10);
  const auto younger = testing::make_group(1, 10);
  scheduler.add(*older);
  scheduler.add(*younger);
  EXPECT_TRUE(scheduler.schedule().is_empty()) << "nobody may start";
  gate.allowed.push_back(younger.get());
  EXPECT_EQ(scheduler.schedule().prefills.size(), 1U);
  EXPECT_EQ(younger->choices[0]->state(), SequenceState::kPrefilling);
  gate.allowed.push_back(older.get());
  ASSERT_EQ(scheduler.schedule().prefills.size(), 2U);
  EXPECT_EQ(scheduler.running().front(), older->choices[0].get());
  scheduler.finish(*older->choices[0]);
  scheduler.finish(*younger->choices[0]);
}

TEST(SchedulerTest, OneChunkWaitsForAStepThatHasRoomForAllOfIt) {
  SchedulingFixture fixture({.max_num_seqs = 4, .max_num_batched_tokens = 64}, 16);
  fixture.add(100);
  SequenceGroup& whole = fixture.add(40);
  whole.is_one_chunk = true;
  fixture.step();
  EXPECT_EQ(fixture.step().prefills.size(), 1U) << "28 tokens are left, 40 are needed";
  ASSERT_EQ(fixture.step().prefills.size(), 1U);
  EXPECT_EQ(whole.choices[0]->num_computed(), 40);
}

TEST(SchedulerTest, OneChunkTakesNoPrefixHit) {
  SchedulingFixture fixture({.max_num_seqs = 4, .max_num_batched_tokens = 256}, 16, true);
  fixture.add(100);
  fixture.step();
  SequenceGroup& whole = fixture.add(100);
  whole.is_one_chunk = true;
  fixture.step();
  EXPECT_EQ(whole.num_cached_tokens, 0);
}

TEST(SchedulerTest, PublishesUpToTheGroupsLimitOnly) {
  SchedulingFixture fixture({.max_num_seqs = 4, .max_num_batched_tokens = 512}, 16, true);
  fixture.add(200).max_published_tokens = 130;
  fixture.step();
  SequenceGroup& second = fixture.add(200);
  fixture.step();
  EXPECT_EQ(second.num_cached_tokens, 128);
}

TEST(SchedulerTest, WithoutRecomputingAPreemptedGroupIsGivenUpOnce) {
  SchedulingFixture fixture(
      {.max_num_seqs = 4, .max_num_batched_tokens = 256, .recomputes_preempted = false}, 4);
  fixture.add(64);
  SequenceGroup& younger = fixture.add(64, 2);
  std::vector<SequenceGroup*> given_up;
  for (int i = 0; i < 80 && given_up.empty(); ++i) {
    fixture.step();
    fixture.scheduler.take_given_up(given_up);
  }
  EXPECT_EQ(given_up, std::vector<SequenceGroup*>{&younger});
  fixture.finish(younger);
  fixture.scheduler.take_given_up(given_up);
  EXPECT_TRUE(given_up.empty());
}

TEST(SchedulerTest, AnAdoptedSequenceRunsAndPublishesItsBlocks) {
  SchedulingFixture fixture({.max_num_seqs = 4, .max_num_batched_tokens = 256}, 16, true);
  const auto group = testing::make_group(7, 130);
  Sequence& sequence = *group->choices[0];
  sequence.append_token(3);
  BlockTable table;
  for (int64_t i = 0; i < 3; ++i) {
    table.append(fixture.allocator.try_allocate(i));
  }
  fixture.scheduler.adopt_running(sequence, std::move(table));
  group->is_forked = true;
  EXPECT_EQ(sequence.num_computed(), 130);
  SequenceGroup& other = fixture.add(200);
  const StepPlan& plan = fixture.scheduler.schedule();
  EXPECT_EQ(plan.decodes, std::vector<Sequence*>{&sequence});
  EXPECT_EQ(other.num_cached_tokens, 128);
  EXPECT_EQ(fixture.scheduler.num_uncomputed_tokens(), 200 - 128);
  fixture.scheduler.finish(sequence);
}

constexpr kernels::WindowRing kRing{.window = {.num_first = 2, .num_last = 3}, .ring_rows = 3};

TEST(SchedulerWindowTest, EachRunningSequenceHasARingOfItsOwnUntilItEnds) {
  SchedulingFixture fixture({.max_num_seqs = 3, .max_num_batched_tokens = 512, .ring = kRing}, 8);
  Sequence& first = first_of(fixture.add(10));
  Sequence& second = first_of(fixture.add(10));
  EXPECT_FALSE(first.ring().is_valid()) << "it waits";
  fixture.step();
  ASSERT_TRUE(first.ring().is_valid() && second.ring().is_valid());
  EXPECT_NE(first.ring().id(), second.ring().id());
  const int64_t freed = first.ring().id();
  fixture.scheduler.finish(first);
  EXPECT_FALSE(first.ring().is_valid());
  Sequence& third = first_of(fixture.add(10));
  fixture.step();
  EXPECT_EQ(third.ring().id(), freed);
}

TEST(SchedulerWindowTest, AsManyRingsAsSeatsAreEnough) {
  SchedulingFixture fixture({.max_num_seqs = 4, .max_num_batched_tokens = 512, .ring = kRing}, 32);
  for (int i = 0; i < 6; ++i) {
    fixture.add(70, i % 3 + 1);  // groups of 1, 2 and 3 choices
  }
  for (int step = 0; step < 60; ++step) {
    fixture.step();
    const std::vector<Sequence*> running(fixture.scheduler.running().begin(),
                                         fixture.scheduler.running().end());
    std::set<int64_t> rings;
    for (Sequence* sequence : running) {
      ASSERT_TRUE(sequence->ring().is_valid());
      rings.insert(sequence->ring().id());
      if (sequence->num_tokens() > 70 + 4 + sequence->choice()) {
        fixture.scheduler.finish(*sequence);
      }
    }
    EXPECT_EQ(rings.size(), running.size());
    EXPECT_LE(rings.size(), 4U);
  }
  EXPECT_TRUE(fixture.scheduler.running().empty());
  EXPECT_EQ(fixture.allocator.num_used(), 0);
}

TEST(SchedulerWindowTest, AForkCopiesTheRing) {
  SchedulingFixture fixture({.max_num_seqs = 4, .max_num_batched_tokens = 512, .ring = kRing}, 8);
  SequenceGroup& group = fixture.add(64, 3);
  fixture.step();
  ASSERT_EQ(fixture.copies.rings.size(), 2U);
  for (size_t i = 1; i < 3; ++i) {
    EXPECT_EQ(fixture.copies.rings[i - 1].source, first_of(group).ring().id());
    EXPECT_EQ(fixture.copies.rings[i - 1].destination, group.choices[i]->ring().id());
    EXPECT_NE(group.choices[i]->ring().id(), first_of(group).ring().id());
  }
}

TEST(SchedulerWindowTest, APreemptedSequenceGivesItsRingBackAndTakesOneAgain) {
  SchedulingFixture fixture({.max_num_seqs = 2, .max_num_batched_tokens = 256, .ring = kRing}, 3);
  Sequence& older = first_of(fixture.add(64));
  Sequence& younger = first_of(fixture.add(64));
  for (int i = 0; i < 70 && younger.state() != SequenceState::kPreempted; ++i) {
    fixture.step();
  }
  ASSERT_EQ(younger.state(), SequenceState::kPreempted);
  EXPECT_FALSE(younger.ring().is_valid());
  fixture.scheduler.finish(older);
  fixture.step();
  EXPECT_TRUE(younger.ring().is_valid());
}

TEST(SchedulerWindowTest, TakesNoPrefixHitSinceTheWindowsRowsWouldBeMissing) {
  SchedulingFixture fixture(
      {.max_num_seqs = 4, .max_num_batched_tokens = 512, .ring = kRing}, 8, true);
  fixture.add(130);
  fixture.step();
  SequenceGroup& second = fixture.add(130);
  fixture.step();
  EXPECT_EQ(second.num_cached_tokens, 0);
}

TEST(SchedulerWindowTest, AnAdoptedSequenceHasARing) {
  SchedulingFixture fixture({.max_num_seqs = 4, .max_num_batched_tokens = 256, .ring = kRing}, 8);
  const auto group = testing::make_group(7, 10);
  Sequence& sequence = *group->choices[0];
  sequence.append_token(3);
  BlockTable table;
  table.append(fixture.allocator.try_allocate(0));
  fixture.scheduler.adopt_running(sequence, std::move(table));
  EXPECT_TRUE(sequence.ring().is_valid());
  fixture.scheduler.finish(sequence);
}

}  // namespace
}  // namespace tessera
