#include "engine/runner/decode_graphs.h"

#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "engine/runner/model_runner.h"
#include "engine/weights/weight_loader.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/support/recording_backend.h"
#include "tests/support/step_input.h"

namespace tessera {
namespace {

using test::RecordingBackend;
using test::RecordingDevice;
using test::SequenceTokens;
using test::StepInput;

/// The bundled model's shape with random weights, and room for a few sequences.
struct Runner {
  explicit Runner(std::unique_ptr<kernels::Backend> own)
      : backend(std::move(own)),
        config(ModelConfig::load(std::string(TESSERA_SOURCE_DIR) + "/configs/demo_model").value()),
        weights(make_dummy_weights(config, *backend, {}, 5).value()),
        cache(PagedLatentCache::create(
                  backend->device(),
                  LatentShard::full(
                      {.latent_widths = std::vector<int64_t>(
                           static_cast<size_t>(config.num_hidden_layers), config.kv_lora_rank),
                       .rope_width = config.qk_rope_head_dim,
                       .dtype = kernels::DType::kFloat32}),
                  30)
                  .value()),
        runner(config,
               weights,
               {.max_tokens = 200, .max_sequences = 7, .max_logits_rows = 7, .max_model_len = 1200},
               cache,
               *backend) {}

  StepOutput run(const StepInput& step) {
    SamplingInput sampling;
    for (size_t row = 0; row < step.input().logits_rows.size(); ++row) {
      sampling.rows.push_back(
          {.logits_row = static_cast<int32_t>(row), .temperature = 0.0F, .num_top_logprobs = 0});
    }
    StepOutput output;
    runner.run_blocking(step.input(), sampling, output);
    return output;
  }

  std::unique_ptr<kernels::Backend> backend;
  ModelConfig config;
  ModelWeights weights;
  PagedLatentCache cache;
  ModelRunner runner;
};

TEST(DecodeGraphsTest, RowsArePaddedByAnEighthAtMost) {
  EXPECT_EQ(padded_decode_rows(1, 100), 1);
  EXPECT_EQ(padded_decode_rows(3, 100), 4);
  EXPECT_EQ(padded_decode_rows(8, 100), 8);
  EXPECT_EQ(padded_decode_rows(9, 100), 12);
  EXPECT_EQ(padded_decode_rows(65, 100), 72);
  EXPECT_EQ(padded_decode_rows(99, 100), 100);
  for (int64_t rows = 32; rows < 1000; ++rows) {
    const int64_t padded = padded_decode_rows(rows, 1000);
    EXPECT_GE(padded, rows);
    EXPECT_LE(padded, rows + rows / 8);
    EXPECT_EQ(padded_decode_rows(padded, 1000), padded);
  }
}

TEST(DecodeGraphsTest, PaddingRowsHaveNoContext) {
  const SequenceTokens first = {{4, 5, 6}, {2}};
  const SequenceTokens second = {std::vector<int32_t>(70, 9), {3, 1}};
  ModelInput padded;
  pad_decode_step(StepInput(2).decode(first, 3).decode(second, 70).input(), 4, 3, padded);
  EXPECT_EQ(padded.token_ids, (std::vector<int32_t>{6, 9, 0, 0}));
  EXPECT_EQ(padded.positions, (std::vector<int32_t>{2, 69, 0, 0}));
  EXPECT_EQ(padded.slots, (std::vector<int64_t>{2 * 64 + 2, 1 * 64 + 5, -1, -1}));
  EXPECT_EQ(padded.decode_lengths, (std::vector<int32_t>{3, 70, 0, 0}));
  EXPECT_EQ(padded.block_tables, (std::vector<int32_t>{2, 0, 0, 3, 1, 0, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(padded.logits_rows, (std::vector<int32_t>{0, 1, 2, 3}));
  EXPECT_EQ(padded.num_decode, 4);
  EXPECT_EQ(padded.max_blocks_per_sequence, 3);
}

TEST(DecodeGraphsTest, RecordedStepsEqualTheModels) {
  Runner plain(kernels::cpu::create_cpu_backend(2));
  auto recording = std::make_unique<RecordingBackend>(2);
  RecordingDevice& device = recording->recording;
  Runner recorded(std::move(recording));
  const SequenceTokens sequences[] = {{test::make_ids(80, 8000, 1), {1, 2}},
                                      {test::make_ids(80, 8000, 2), {20, 4}},
                                      {test::make_ids(80, 8000, 3), {7, 0}}};
  for (const SequenceTokens& sequence : sequences) {
    static_cast<void>(plain.run(StepInput(2).prefill(sequence, 0, 60)));
    static_cast<void>(recorded.run(StepInput(2).prefill(sequence, 0, 60)));
  }
  // One to three rows, in turns, so that each size comes again with other rows.
  for (int64_t length = 61; length <= 70; ++length) {
    StepInput step(2);
    for (int64_t i = 0; i < 3; ++i) {
      step.decode(sequences[(length + i) % 3], length);
    }
    const StepOutput expected = plain.run(step);
    const StepOutput actual = recorded.run(step);
    EXPECT_EQ(actual.token_ids, expected.token_ids);
    ASSERT_EQ(actual.logprobs.size(), 3U);
    for (size_t row = 0; row < 3; ++row) {
      EXPECT_NEAR(actual.logprobs[row], expected.logprobs[row], 1e-4F);
    }
  }
  EXPECT_EQ(device.num_launches, 9) << "all steps but the first";
}

}  // namespace
}  // namespace tessera
