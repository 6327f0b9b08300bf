#include "engine/runner/parallel_runner.h"

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/cpu/cpu_backend.h"
#include "tests/support/fake_backend.h"
#include "tests/support/recording_backend.h"
#include "tests/support/small_model.h"
#include "tests/support/step_input.h"

namespace tessera {
namespace {

using test::SequenceTokens;
using test::StepInput;
using ::testing::HasSubstr;

constexpr StepLimits kLimits = {
    .max_tokens = 160, .max_sequences = 4, .max_logits_rows = 4, .max_model_len = 256};

SamplingInput greedy(int64_t num_rows) {
  SamplingInput sampling;
  for (int64_t i = 0; i < num_rows; ++i) {
    kernels::SampleRow row;
    row.logits_row = static_cast<int32_t>(i);
    row.temperature = 0.0F;
    row.num_top_logprobs = 0;
    sampling.rows.push_back(row);
  }
  return sampling;
}

class ParallelRunnerTest : public ::testing::Test {
 protected:
  using Backends = std::vector<std::unique_ptr<kernels::Backend>>;

  Result<std::unique_ptr<ParallelRunner>> create(const ShardOptions& sharding,
                                                 int64_t prefill_slices = 0) {
    Backends backends;
    for (int64_t rank = 0; rank < sharding.num_ranks; ++rank) {
      backends.push_back(kernels::cpu::create_cpu_backend(1));
    }
    return create_on(std::move(backends), sharding, prefill_slices);
  }
  Result<std::unique_ptr<ParallelRunner>> create_on(Backends backends,
                                                    const ShardOptions& sharding,
                                                    int64_t prefill_slices = 0) {
    return ParallelRunner::create(
        {.config = config_,
         .sharding = sharding,
         .limits = kLimits,
         .num_blocks = 9,
         .prefill_slices = prefill_slices,
         .load = {.dtype = kernels::DType::kFloat32, .progress = {}},
         .load_weights =
             [this](kernels::Backend& backend, const LoadOptions& options) {
               return make_dummy_weights(config_, backend, options, 11);
             }},
        std::move(backends));
  }
  std::unique_ptr<ParallelRunner> create_poisoned(const ShardOptions& sharding) {
    auto runner = create(sharding).value();
    for (int rank = 0; rank < runner->num_ranks(); ++rank) {
      PagedLatentCache& cache = runner->cache(rank);
      std::memset(cache.image_address(0, 0), 0xff, static_cast<size_t>(cache.num_bytes()));
    }
    return runner;
  }
  static StepOutput run(StepRunner& runner, const StepInput& step, int64_t num_rows) {
    StepOutput output;
    runner.run_blocking(step.input(), greedy(num_rows), output);
    return output;
  }
  static void expect_near(const StepOutput& actual, const StepOutput& expected) {
    EXPECT_EQ(actual.token_ids, expected.token_ids);
    ASSERT_EQ(actual.logprobs.size(), expected.logprobs.size());
    for (size_t i = 0; i < actual.logprobs.size(); ++i) {
      EXPECT_NEAR(actual.logprobs[i], expected.logprobs[i], 1e-4);  // NaN fails
    }
  }

  const ModelConfig config_ = test::small_model_config();
  /// Blocks that keep the rule of two and of four striped ranks: id mod N = index mod N.
  const SequenceTokens long_{test::make_ids(131, 97, 1), {4, 1, 2}};
  const SequenceTokens short_{test::make_ids(40, 97, 2), {8}};
};

constexpr ShardOptions kReplicated{.num_ranks = 2};
constexpr ShardOptions kStriped{.attention = AttentionSharding::kDcp, .num_ranks = 2};

TEST_F(ParallelRunnerTest, SamplesWhatOneRankSamples) {
  const auto one = create_poisoned({});
  const auto prefill = StepInput(3).prefill(long_, 0, 130);
  const auto mixed = StepInput(3).decode(long_, 131).prefill(short_, 0, 40);
  const StepOutput first = run(*one, prefill, 1);
  const StepOutput second = run(*one, mixed, 2);
  for (const ShardOptions& sharding :
       {kReplicated,
        kStriped,
        ShardOptions{.attention = AttentionSharding::kDcp, .num_ranks = 4}}) {
    const auto runner = create_poisoned(sharding);
    expect_near(run(*runner, prefill, 1), first);
    expect_near(run(*runner, mixed, 2), second);
  }
}

TEST_F(ParallelRunnerTest, RunsTheSameStepTwiceToTheSameBits) {
  const auto runner =
      create_poisoned({.attention = AttentionSharding::kTpla, .num_ranks = 4, .num_slices = 2});
  static_cast<void>(run(*runner, StepInput(3).prefill(long_, 0, 130), 1));
  const StepOutput first = run(*runner, StepInput(3).decode(long_, 131), 1);
  const StepOutput second = run(*runner, StepInput(3).decode(long_, 131), 1);
  EXPECT_EQ(first.logprobs, second.logprobs);
  EXPECT_EQ(first.token_ids, second.token_ids);
}

TEST_F(ParallelRunnerTest, RecordedStepsOfAGroupEqualTheOthers) {
  for (const ShardOptions& sharding :
       {kReplicated,
        kStriped,
        ShardOptions{.attention = AttentionSharding::kTpla, .num_ranks = 2, .num_slices = 2}}) {
    const auto plain = create_poisoned(sharding);
    Backends backends;
    std::vector<test::RecordingBackend*> devices;
    for (int64_t rank = 0; rank < sharding.num_ranks; ++rank) {
      auto& backend = backends.emplace_back(std::make_unique<test::RecordingBackend>(1));
      devices.push_back(static_cast<test::RecordingBackend*>(backend.get()));
    }
    const auto recorded = create_on(std::move(backends), sharding).value();
    const auto prefill = StepInput(3).prefill(long_, 0, 128);
    static_cast<void>(run(*plain, prefill, 1));
    static_cast<void>(run(*recorded, prefill, 1));
    for (int64_t length = 129; length <= 131; ++length) {
      const auto step = StepInput(3).decode(long_, length);
      expect_near(run(*recorded, step, 1), run(*plain, step, 1));
    }
    for (const test::RecordingBackend* device : devices) {
      EXPECT_EQ(device->recording.num_launches, 2) << "all steps but the first";
    }
  }
}

TEST_F(ParallelRunnerTest, AForkGoesOnInACopiedBlock) {
  for (const ShardOptions& sharding : {kReplicated, kStriped}) {
    const auto runner = create_poisoned(sharding);
    static_cast<void>(run(*runner, StepInput(3).prefill(long_, 0, 130), 1));
    runner->copy_block(2, 6);
    const SequenceTokens fork{long_.ids, {4, 1, 6}};
    const StepOutput of_fork = run(*runner, StepInput(3).decode(fork, 131), 1);
    const StepOutput of_parent = run(*runner, StepInput(3).decode(long_, 131), 1);
    EXPECT_EQ(of_fork.logprobs, of_parent.logprobs);
    EXPECT_TRUE(std::isfinite(of_fork.logprobs.at(0)));
  }
}

TEST_F(ParallelRunnerTest, StripedRanksKeepTheirPartOfTheBlocks) {
  const auto runner = create(kStriped).value();
  EXPECT_EQ(runner->cache(0).num_blocks(), 5);  // of 9
  EXPECT_EQ(create(kReplicated).value()->cache(1).num_blocks(), 9);
}

TEST_F(ParallelRunnerTest, APrefillWorkerKeepsOneImageASlice) {
  const auto runner = create({}, 2).value();
  EXPECT_EQ(runner->cache(0).num_images(), 2);
  const auto group =
      create({.attention = AttentionSharding::kTpla, .num_ranks = 2, .num_slices = 2}).value();
  EXPECT_EQ(runner->cache(0).image_bytes(1), group->cache(1).image_bytes(0));
}

TEST_F(ParallelRunnerTest, ReportsWhatCannotBeDivided) {
  EXPECT_THAT(create({.num_ranks = 3}).status().message(),
              HasSubstr("num_attention_heads 4 is not divisible by num_ranks 3"));
  EXPECT_THAT(create({}, 3).status().message(),
              HasSubstr("kv_lora_rank 32 is not divisible by num_slices 3"));
  EXPECT_THAT(create(kStriped, 2).status().message(), HasSubstr("expected replicated"));
}

TEST_F(ParallelRunnerTest, ReportsARankThatRunsOutOfMemory) {
  std::vector<std::unique_ptr<kernels::Backend>> backends;
  backends.push_back(kernels::cpu::create_cpu_backend(1));
  auto full = std::make_unique<test::FakeBackend>();
  full->fake_device().set_bytes_left(10'000);
  backends.push_back(std::move(full));
  const auto runner =
      ParallelRunner::create({.config = config_,
                              .sharding = kReplicated,
                              .limits = kLimits,
                              .num_blocks = 4,
                              .load = {.dtype = kernels::DType::kFloat32, .progress = {}},
                              .load_weights =
                                  [this](kernels::Backend& backend, const LoadOptions& options) {
                                    return make_dummy_weights(config_, backend, options, 11);
                                  }},
                             std::move(backends));
  ASSERT_FALSE(runner.is_ok());
  EXPECT_EQ(runner.status().code(), StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace tessera
