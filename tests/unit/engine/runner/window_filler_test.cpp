#include "engine/runner/window_filler.h"

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "engine/runner/parallel_runner.h"
#include "kernels/cpu/cpu_backend.h"

namespace tessera {
namespace {

using kernels::DType;

constexpr int64_t kNumBlocks = 24;
constexpr int64_t kNumRings = 3;

ModelConfig small_config() {
  return ModelConfig::parse(R"({
    "architectures": ["DeepseekV3ForCausalLM"], "vocab_size": 97, "hidden_size": 32,
    "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48,
    "max_position_embeddings": 512, "q_lora_rank": 16, "kv_lora_rank": 32,
    "qk_nope_head_dim": 16, "qk_rope_head_dim": 16, "v_head_dim": 16, "n_routed_experts": 5,
    "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
    "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "scoring_func": "sigmoid",
    "topk_method": "noaux_tc", "norm_topk_prob": true, "routed_scaling_factor": 1.0})")
      .value();
}

/// A number of its own, exact in bfloat16, for each column (R and above: rope) of each token.
float value_of(int64_t layer, int64_t position, int64_t column) {
  const int64_t mixed = layer * 7919 + position * 104729 + column * 1299709;
  return static_cast<float>(mixed % 251 - 125);
}

/// The row of a slot, as floats.
std::vector<float> read_row(const kernels::LatentCacheView& view, int64_t slot) {
  const int64_t width = view.latent_width + view.rope_width;
  const char* at = static_cast<const char*>(view.base) +
                   slot / kBlockTokens * view.block_stride_bytes +
                   slot % kBlockTokens * width * kernels::dtype_bytes(view.dtype);
  std::vector<float> row(static_cast<size_t>(width));
  for (int64_t i = 0; i < width; ++i) {
    if (view.dtype == DType::kFloat32) {
      std::memcpy(&row[static_cast<size_t>(i)], at + 4 * i, 4);
    } else {
      uint32_t word = 0;
      std::memcpy(reinterpret_cast<char*>(&word) + 2, at + 2 * i, 2);
      std::memcpy(&row[static_cast<size_t>(i)], &word, 4);
    }
  }
  return row;
}

void write_row(const kernels::LatentCacheView& view, int64_t slot, const std::vector<float>& row) {
  const auto width = static_cast<int64_t>(row.size());
  char* at = static_cast<char*>(view.base) + slot / kBlockTokens * view.block_stride_bytes +
             slot % kBlockTokens * width * kernels::dtype_bytes(view.dtype);
  for (int64_t i = 0; i < width; ++i) {
    uint32_t word = 0;
    std::memcpy(&word, &row[static_cast<size_t>(i)], 4);
    if (view.dtype == DType::kFloat32) {
      std::memcpy(at + 4 * i, &word, 4);
    } else {
      std::memcpy(at + 2 * i, reinterpret_cast<char*>(&word) + 2, 2);
    }
  }
}

struct Case {
  std::string name;
  ShardOptions sharding;
  DType dtype = DType::kFloat32;
};

class WindowFillerTest : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override { runner_ = create(GetParam().sharding, GetParam().dtype).value(); }

  Result<std::unique_ptr<ParallelRunner>> create(const ShardOptions& sharding, DType dtype) {
    std::vector<std::unique_ptr<kernels::Backend>> backends;
    for (int64_t rank = 0; rank < sharding.num_ranks; ++rank) {
      backends.push_back(kernels::cpu::create_cpu_backend(1));
    }
    auto runner =
        ParallelRunner::create({.config = config_,
                                .sharding = sharding,
                                .limits = {.max_tokens = 16,
                                           .max_sequences = kNumRings,
                                           .max_logits_rows = 4,
                                           .max_model_len = 512},
                                .num_blocks = kNumBlocks,
                                .window_step_rows = 2,
                                .load = {.dtype = dtype, .progress = {}},
                                .load_weights =
                                    [this](kernels::Backend& backend, const LoadOptions& options) {
                                      return make_dummy_weights(config_, backend, options, 11);
                                    }},
                               std::move(backends));
    for (int rank = 0; runner.is_ok() && rank < runner.value()->num_ranks(); ++rank) {
      PagedLatentCache& cache = runner.value()->cache(rank);
      std::memset(cache.image_address(0, 0), 0xff, static_cast<size_t>(cache.num_bytes()));
    }
    return runner;
  }
  /// Writes the image of `slice` of block `index` of a sequence to block `id` of one rank.
  void land(int rank, int64_t slice, int64_t index, int64_t id) {
    const PagedLatentCache& cache = runner_->cache(rank);
    const ShardOptions& sharding = GetParam().sharding;
    for (int64_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
      const int64_t shared =
          sharding.shared_columns.empty() ? 0 : sharding.shared_columns[static_cast<size_t>(layer)];
      const auto columns = ShardPlan::slice_columns(config_, shared, slice, sharding.num_slices);
      for (int64_t offset = 0; offset < kBlockTokens; ++offset) {
        const int64_t position = index * kBlockTokens + offset;
        std::vector<float> row;
        columns.for_each_range([&](const kernels::ColumnRange& range, int64_t) {
          for (int64_t i = 0; i < range.count; ++i) {
            row.push_back(value_of(layer, position, range.begin + i));
          }
        });
        for (int64_t i = 0; i < config_.qk_rope_head_dim; ++i) {
          row.push_back(value_of(layer, position, config_.kv_lora_rank + i));
        }
        write_row(cache.layer_view(layer), id * kBlockTokens + offset, row);
      }
    }
  }
  /// A prompt of `num_tokens` whose blocks and images lie on every rank; fills ring `ring`.
  void fill(int64_t num_tokens, int64_t ring) {
    const int64_t slices = GetParam().sharding.num_slices;
    const auto wanted = window_blocks(GetParam().sharding.window, num_tokens);
    std::vector<int32_t> blocks;
    std::vector<int32_t> others;
    auto next = static_cast<int32_t>(kNumBlocks);
    for (int64_t index = 0; index < blocks_for_tokens(num_tokens); ++index) {
      blocks.push_back(--next);
    }
    for (size_t i = 0; i < wanted.size() * static_cast<size_t>(slices - 1); ++i) {
      others.push_back(--next);
    }
    for (int rank = 0; rank < runner_->num_ranks(); ++rank) {
      for (const int64_t index : wanted) {
        land(rank, rank % slices, index, blocks[static_cast<size_t>(index)]);
      }
      for (size_t i = 0; i < others.size(); ++i) {
        const auto o = static_cast<int64_t>(i) % (slices - 1);
        land(rank, (rank + 1 + o) % slices, wanted[i / static_cast<size_t>(slices - 1)], others[i]);
      }
    }
    runner_->fill_window(
        {.ring = ring, .num_tokens = num_tokens, .blocks = blocks, .other_images = others});
  }
  void expect_window(int64_t num_tokens, int64_t ring) {
    for (int rank = 0; rank < runner_->num_ranks(); ++rank) {
      const WindowCache& windows = *runner_->window_cache(rank);
      for (int64_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
        if (windows.layer_view(layer).num_blocks == 0) {
          continue;
        }
        for (int64_t position = 0; position < num_tokens; ++position) {
          if (!windows.ring().window.contains(position, num_tokens)) {
            continue;
          }
          const auto row = read_row(windows.layer_view(layer),
                                    windows.first_slot(ring) + windows.ring().row(position));
          ASSERT_EQ(static_cast<int64_t>(row.size()), config_.latent_row_width());
          for (int64_t i = 0; i < config_.latent_row_width(); ++i) {
            ASSERT_EQ(row[static_cast<size_t>(i)], value_of(layer, position, i))
                << "rank " << rank << " layer " << layer << " position " << position << " column "
                << i;
          }
        }
      }
    }
  }

  const ModelConfig config_ = small_config();
  std::unique_ptr<ParallelRunner> runner_;
};

TEST_P(WindowFillerTest, PutsWholeLatentsTogetherFromTheImagesOfAllSlices) {
  for (const int64_t num_tokens : {1, 3, 64, 65, 131, 200}) {
    fill(num_tokens, 1);
    expect_window(num_tokens, 1);
  }
}

TEST_P(WindowFillerTest, RingsOfOtherSequencesStayAndAForkHasTheSame) {
  fill(131, 0);
  fill(70, 2);
  expect_window(131, 0);
  runner_->copy_window(0, 1);
  fill(66, 0);
  expect_window(131, 1);
  expect_window(70, 2);
}

std::vector<Case> cases() {
  const ShardOptions two{.attention = AttentionSharding::kTpla,
                         .num_ranks = 2,
                         .num_slices = 2,
                         .window = {.num_first = 3, .num_last = 70}};
  ShardOptions groups = two;
  groups.num_ranks = 4;
  groups.shared_columns = {8, 32, 0};
  groups.window = {.num_first = 0, .num_last = 5};
  ShardOptions four = groups;
  four.num_slices = 4;
  four.shared_columns = {16, 0, 32};
  four.window = {.num_first = 66, .num_last = 0};
  return {{"TwoSlices", two},
          {"BFloat16", two, DType::kBFloat16},
          {"TwoGroupsShared", groups},
          {"FourSlicesFirstTokens", four}};
}

INSTANTIATE_TEST_SUITE_P(Cases,
                         WindowFillerTest,
                         ::testing::ValuesIn(cases()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace tessera
