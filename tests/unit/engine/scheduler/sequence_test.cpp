#include "engine/scheduler/sequence.h"

#include <set>
#include <utility>

#include <gtest/gtest.h>

#include "tests/unit/engine/scheduler/scheduling_fixture.h"

namespace tessera {
namespace {

using enum SequenceState;

TEST(SequenceTest, AllowsExactlyTheListedMoves) {
  const std::set<std::pair<SequenceState, SequenceState>> allowed = {
      {kWaiting, kPrefilling},
      {kWaiting, kRunning},
      {kWaiting, kPreempted},
      {kWaiting, kFinished},
      {kPrefilling, kRunning},
      {kPrefilling, kPreempted},
      {kPrefilling, kFinished},
      {kRunning, kPreempted},
      {kRunning, kFinished},
      {kPreempted, kPrefilling},
      {kPreempted, kFinished},
  };
  for (int from = 0; from < kNumSequenceStates; ++from) {
    for (int to = 0; to < kNumSequenceStates; ++to) {
      const auto a = static_cast<SequenceState>(from);
      const auto b = static_cast<SequenceState>(to);
      EXPECT_EQ(is_allowed_move(a, b), allowed.contains({a, b}))
          << sequence_state_name(a) << " to " << sequence_state_name(b);
    }
  }
}

TEST(SequenceDeathTest, AForbiddenMoveAborts) {
  const auto group = testing::make_group(0, 1);
  Sequence& sequence = *group->choices.front();
  sequence.move_to(kFinished);
  EXPECT_DEATH(sequence.move_to(kRunning), "from finished to running");
}

TEST(SequenceTest, AgeIsArrivalThenChoice) {
  const auto first = testing::make_group(1, 1, 2);
  const auto second = testing::make_group(2, 1);
  EXPECT_TRUE(first->choices[1]->is_older_than(*second->choices[0]));
  EXPECT_TRUE(first->choices[0]->is_older_than(*first->choices[1]));
  EXPECT_FALSE(first->choices[0]->is_older_than(*first->choices[0]));
  EXPECT_FALSE(second->choices[0]->is_older_than(*first->choices[1]));
}

TEST(SequenceTest, BlockHashesFormAChain) {
  BlockAllocator allocator(1);
  PrefixCache cache(allocator, "salt");
  const auto group = testing::make_group(0, 129);
  Sequence& sequence = *group->choices.front();
  const BlockHash second = sequence.block_hash(cache, 1);
  const BlockHash first = sequence.block_hash(cache, 0);
  EXPECT_EQ(first, cache.hash({}, sequence.tokens().first(64)));
  EXPECT_EQ(second, cache.hash(first, sequence.tokens().subspan(64, 64)));
}

TEST(SequenceTest, KeepsAHistoryWhenAsked) {
  const auto group = testing::make_group(0, 3);
  Sequence& sequence = *group->choices.front();
  EXPECT_EQ(sequence.history(), nullptr);
  sequence.keep_history();
  sequence.append_token(9);
  ASSERT_NE(sequence.history(), nullptr);
  EXPECT_EQ(sequence.history()->ids().size(), 2U);
  EXPECT_EQ(sequence.num_generated(), 1);
}

TEST(SequenceTest, ReplayedTokensCountAsGenerated) {
  GenerationRequest request;
  request.prompt_ids = {4, 5, 6, 5, 5};
  request.num_replayed_tokens = 2;
  request.first_choice = 3;
  request.sampling.presence_penalty = 1.0F;
  const auto group = make_sequence_group(request, nullptr);
  const Sequence& sequence = *group->choices[0];
  EXPECT_EQ(sequence.choice(), 3);
  EXPECT_EQ(sequence.num_prompt_tokens(), 3);
  EXPECT_EQ(sequence.num_generated(), 2);
  ASSERT_NE(sequence.history(), nullptr);
  const auto counts = sequence.history()->counts();
  EXPECT_EQ(std::vector<int32_t>(counts.begin(), counts.end()), (std::vector<int32_t>{0, 2, 0}));
}

}  // namespace
}  // namespace tessera
