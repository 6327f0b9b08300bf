#include "engine/runner/mock_runner.h"

#include <cstring>
#include <limits>
#include <memory>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "engine/base/deadline.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/support/small_model.h"
#include "tests/support/step_input.h"

namespace tessera {
namespace {

using test::make_ids;
using test::SequenceTokens;
using test::StepInput;

constexpr MockSpeed kFast = {.prefill_tokens_per_s = 1'000'000'000};
constexpr ShardOptions kReplicated{.num_ranks = 2};
constexpr ShardOptions kStriped{.attention = AttentionSharding::kDcp, .num_ranks = 2};

ShardOptions sliced() {
  return {.attention = AttentionSharding::kTpla, .num_ranks = 2, .num_slices = 2};
}

SamplingInput one_row(float temperature = 0.0F, uint64_t seed = 0) {
  SamplingInput sampling;
  sampling.rows.push_back({.temperature = temperature, .seed = seed});
  return sampling;
}

class MockRunnerTest : public ::testing::Test {
 protected:
  std::unique_ptr<MockRunner> create(const ShardOptions& sharding = {},
                                     int64_t prefill_slices = 0,
                                     const MockSpeed& speed = kFast) {
    std::vector<std::unique_ptr<kernels::Backend>> backends;
    for (int64_t rank = 0; rank < sharding.num_ranks; ++rank) {
      backends.push_back(kernels::cpu::create_cpu_backend(1));
    }
    return MockRunner::create({.config = config_,
                               .sharding = sharding,
                               .limits = {},
                               .num_blocks = 9,
                               .prefill_slices = prefill_slices,
                               .load = {.dtype = kernels::DType::kFloat32, .progress = {}},
                               .load_weights = {}},
                              speed,
                              std::move(backends))
        .value();
  }
  static int32_t run(StepRunner& runner,
                     const StepInput& step,
                     const SamplingInput& sampling = one_row()) {
    StepOutput output;
    runner.run_blocking(step.input(), sampling, output);
    return output.token_ids.at(0);
  }
  static int32_t prefill(StepRunner& runner, const SequenceTokens& sequence) {
    return run(runner,
               StepInput(3).prefill(sequence, 0, static_cast<int64_t>(sequence.ids.size())));
  }

  ModelConfig config_ = test::small_model_config();
  /// Blocks that keep the rule of two striped ranks: id mod 2 = index mod 2.
  const SequenceTokens sequence_{make_ids(131, 97, 1), {4, 1, 2}};
};

TEST_F(MockRunnerTest, ATokenDoesNotDependOnHowThePromptWasCut) {
  const int32_t whole = prefill(*create(), sequence_);
  for (const ShardOptions& sharding : {ShardOptions{}, kReplicated, kStriped, sliced()}) {
    const auto runner = create(sharding);
    static_cast<void>(run(*runner, StepInput(3).prefill(sequence_, 0, 64)));
    static_cast<void>(run(*runner, StepInput(3).prefill(sequence_, 64, 130)));
    EXPECT_EQ(run(*runner, StepInput(3).decode(sequence_, 131)), whole);
  }
}

TEST_F(MockRunnerTest, AnotherPromptHasOtherTokens) {
  std::set<int32_t> tokens;
  for (int64_t seed = 0; seed < 20; ++seed) {
    tokens.insert(prefill(*create(), {make_ids(70, 97, seed), {3, 5}}));
  }
  EXPECT_GT(tokens.size(), 8U);  // of 48 possible ones
}

TEST_F(MockRunnerTest, ALostBlockShowsInTheToken) {
  const auto runner = create();
  const int32_t right = prefill(*runner, sequence_);
  std::memset(
      runner->cache(0).image_address(2, 0), 0, static_cast<size_t>(runner->cache(0).block_bytes()));
  EXPECT_NE(run(*runner, StepInput(3).decode(sequence_, 131)), right);
}

TEST_F(MockRunnerTest, AnImageThatTravelledGoesOnAsIfItHadNot) {
  const auto from = create({}, 2);
  const int32_t right = prefill(*from, sequence_);
  const auto to = create(sliced());
  for (const int32_t block : sequence_.blocks) {
    for (int rank = 0; rank < 2; ++rank) {
      const auto num_bytes = static_cast<size_t>(from->cache(0).image_bytes(rank));
      ASSERT_EQ(to->cache(rank).image_bytes(0), from->cache(0).image_bytes(rank));
      std::memcpy(to->cache(rank).image_address(block, 0),
                  from->cache(0).image_address(block, rank),
                  num_bytes);
    }
  }
  EXPECT_EQ(run(*to, StepInput(3).decode(sequence_, 131)), right);
}

TEST_F(MockRunnerTest, AForkGoesOnInACopiedBlock) {
  for (const ShardOptions& sharding : {kReplicated, kStriped}) {
    const auto runner = create(sharding);
    static_cast<void>(prefill(*runner, sequence_));
    runner->copy_block(2, 6);
    const SequenceTokens fork{sequence_.ids, {4, 1, 6}};
    EXPECT_EQ(run(*runner, StepInput(3).decode(fork, 131)),
              run(*runner, StepInput(3).decode(sequence_, 131)));
  }
}

TEST_F(MockRunnerTest, OnlySampledRowsDependOnTheSeed) {
  const auto step = StepInput(3).prefill(sequence_, 0, 131);
  std::set<int32_t> greedy;
  std::set<int32_t> sampled;
  for (uint64_t seed = 0; seed < 10; ++seed) {
    greedy.insert(run(*create(), step, one_row(0.0F, seed)));
    sampled.insert(run(*create(), step, one_row(1.0F, seed)));
  }
  EXPECT_EQ(greedy.size(), 1U);
  EXPECT_GT(sampled.size(), 1U);
}

TEST_F(MockRunnerTest, EndTokensAndForbiddenOnesAreNotDrawn) {
  config_.eos_token_ids = {24, 25};
  SamplingInput sampling = one_row(1.0F);
  for (int32_t id = 26; id < 72; ++id) {
    sampling.bias_ids.push_back(id);
    sampling.bias_values.push_back(-std::numeric_limits<float>::infinity());
  }
  sampling.rows[0].bias_end = 46;
  const auto runner = create();
  sampling.bias_ids[20] = 0;  // 46 is allowed, the only one from 24 to 71, the middle half of 97
  for (uint64_t seed = 0; seed < 5; ++seed) {
    sampling.rows[0].seed = seed;
    EXPECT_EQ(run(*runner, StepInput(3).prefill(sequence_, 0, 131), sampling), 46);
  }
}

TEST_F(MockRunnerTest, AStepTakesTheTimeOfItsTokens) {
  const auto runner =
      create({}, 0, {.prefill_tokens_per_s = 1000, .decode_step = std::chrono::milliseconds(30)});
  auto begin = Deadline::Clock::now();
  static_cast<void>(run(*runner, StepInput(3).prefill(sequence_, 0, 20)));
  EXPECT_GE(Deadline::Clock::now() - begin, std::chrono::milliseconds(20));
  begin = Deadline::Clock::now();
  static_cast<void>(run(*runner, StepInput(3).decode(sequence_, 21)));
  EXPECT_GE(Deadline::Clock::now() - begin, std::chrono::milliseconds(30));
}

TEST_F(MockRunnerTest, TheBestTokensBeginWithTheDrawnOne) {
  SamplingInput sampling = one_row();
  sampling.rows[0].num_top_logprobs = 3;
  StepOutput output;
  create()->run_blocking(StepInput(3).prefill(sequence_, 0, 131).input(), sampling, output);
  EXPECT_EQ(output.top_ids.at(0), output.token_ids.at(0));
  EXPECT_EQ(output.top_logprobs.at(0), output.logprobs.at(0));
  EXPECT_LT(output.top_logprobs.at(2), output.top_logprobs.at(1));
}

}  // namespace
}  // namespace tessera
