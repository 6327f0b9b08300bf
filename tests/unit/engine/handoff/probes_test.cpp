// Probes from one end to the other: a prefill runner's expected sums against what lies in the
// caches of a decode group after its blocks were dealt out, rightly and with each systematic fault.

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "engine/handoff/parcel_plan.h"
#include "engine/handoff/probe_check.h"
#include "engine/runner/parallel_runner.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/support/small_model.h"
#include "tests/support/step_input.h"

namespace tessera::testing {
namespace {

using kernels::DType;
using test::SequenceTokens;
using test::StepInput;

constexpr int64_t kNumTokens = 150;  // two full blocks and a part

class CacheSource final : public BlockSource {
 public:
  explicit CacheSource(const PagedLatentCache& cache) : cache_(cache) {}
  const void* image_address(int32_t block_id, int32_t image) const override {
    return cache_.image_address(block_id, image);
  }
  int64_t image_bytes(int32_t image) const override { return cache_.image_bytes(image); }
  int32_t num_images() const override { return static_cast<int32_t>(cache_.num_images()); }

 private:
  const PagedLatentCache& cache_;
};

struct Case {
  const char* name;
  DType dtype;
  ShardOptions decode;
};

class ProbesTest : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    const ShardOptions& sharding = GetParam().decode;
    layout_.num_ranks = static_cast<int32_t>(sharding.num_ranks);
    if (sharding.attention == AttentionSharding::kDcp) {
      layout_.dealing = DecodeLayout::Dealing::kBlocks;
    }
    layout_.num_images = static_cast<int32_t>(std::max<int64_t>(1, sharding.num_slices));
    prefill_ = create({.num_ranks = 2}, layout_.num_images, sharding.shared_columns);
    decode_ = create(sharding, 0, {});
    for (int rank = 0; rank < decode_->num_ranks(); ++rank) {  // NaN
      PagedLatentCache& cache = decode_->cache(rank);
      std::memset(cache.image_address(0, 0), 0xff, static_cast<size_t>(cache.num_bytes()));
    }
  }

  std::unique_ptr<ParallelRunner> create(const ShardOptions& sharding,
                                         int64_t prefill_slices,
                                         const std::vector<int64_t>& prefill_shared_columns) {
    std::vector<std::unique_ptr<kernels::Backend>> backends;
    for (int64_t rank = 0; rank < sharding.num_ranks; ++rank) {
      backends.push_back(kernels::cpu::create_cpu_backend(1));
    }
    return ParallelRunner::create(
               {.config = config_,
                .sharding = sharding,
                .limits = {.max_tokens = 160,
                           .max_sequences = 4,
                           .max_logits_rows = 4,
                           .max_model_len = 256},
                .num_blocks = 10,
                .prefill_slices = prefill_slices,
                .prefill_shared_columns = prefill_shared_columns,
                .keeps_probes = prefill_slices > 0,
                .load = {.dtype = GetParam().dtype, .progress = {}},
                .load_weights =
                    [this](kernels::Backend& backend, const LoadOptions& options) {
                      return make_dummy_weights(config_, backend, options, 11);
                    }},
               std::move(backends))
        .value();
  }
  void prefill(const SequenceTokens& sequence, int64_t begin, int64_t end) {
    static_cast<void>(
        prefill_->forward_blocking(StepInput(3).prefill(sequence, begin, end).input()));
  }
  /// Where image `block` of the decode group's sequence lies on `rank`.
  [[nodiscard]] char* landed(int rank, int64_t block) {
    const int32_t id = decode_blocks_[static_cast<size_t>(block)];
    const int32_t step = layout_.dealing == DecodeLayout::Dealing::kBlocks ? layout_.num_ranks : 1;
    return static_cast<char*>(decode_->cache(rank).image_address(id / step, 0));
  }
  /// As the transport does from block `first` on. `turn` gives each rank another's parcels.
  void deal(const std::vector<int32_t>& source_blocks, int64_t first = 0, int32_t turn = 0) {
    const CacheSource source(prefill_->cache(0));
    const ParcelPlan plan({}, layout_, kNumTokens, 0);
    for (int64_t block = first; block < 3; ++block) {
      std::vector<Parcel> parcels;
      plan.append(source, source_blocks[static_cast<size_t>(block)], block, parcels);
      for (const Parcel& parcel : parcels) {
        const int rank = (parcel.rank + turn) % layout_.num_ranks;
        std::memcpy(landed(rank, block), parcel.source, static_cast<size_t>(parcel.num_bytes));
      }
    }
  }
  [[nodiscard]] Status check(const std::vector<int32_t>& source_blocks, int64_t begin = 0) {
    return compare_probes(layout_,
                          prefill_->cache(0).probes_blocking(source_blocks, begin, kNumTokens),
                          decode_->landed_probes_blocking(decode_blocks_, begin, kNumTokens));
  }
  /// What a right dealing gave, then a fault in it.
  template <typename Fault>
  void expect_caught(Fault fault) {
    prefill(sequence_, 0, kNumTokens);
    deal(sequence_.blocks);
    ASSERT_TRUE(check(sequence_.blocks).is_ok());
    fault();
    const Status status = check(sequence_.blocks);
    EXPECT_EQ(status.code(), StatusCode::kDataLoss) << status.to_string();
  }
  /// One that gets block 0.
  static constexpr int kRank = 0;

  const ModelConfig config_ = test::small_model_config(3);
  const SequenceTokens sequence_{test::make_ids(kNumTokens, 97, 1), {4, 1, 2}};
  /// id mod ranks = index mod ranks, for 2 ranks.
  const std::vector<int32_t> decode_blocks_ = {6, 3, 8};
  DecodeLayout layout_;
  std::unique_ptr<ParallelRunner> prefill_;
  std::unique_ptr<ParallelRunner> decode_;
};

TEST_P(ProbesTest, AgreeAfterARightDealing) {
  prefill(sequence_, 0, 70);
  prefill(sequence_, 70, kNumTokens);
  deal(sequence_.blocks);
  const Status status = check(sequence_.blocks);
  EXPECT_TRUE(status.is_ok()) << status.to_string();
  for (const kernels::ProbeSum& sum : decode_->landed_probes_blocking(decode_blocks_, 0, 150)) {
    EXPECT_GT(sum.magnitude, 100.0);
  }
}

TEST_P(ProbesTest, StayWithBlocksOfThePrefixCache) {
  prefill(sequence_, 0, kNumTokens);
  // Another prompt with the same first block, which is not computed again.
  SequenceTokens other{test::make_ids(kNumTokens, 97, 5), {4, 7, 9}};
  std::copy_n(sequence_.ids.begin(), 64, other.ids.begin());
  prefill(other, 64, kNumTokens);
  deal(other.blocks);
  EXPECT_TRUE(check(other.blocks).is_ok());
  // The blocks of the one that went before hold something else now.
  prefill({test::make_ids(kNumTokens, 97, 6), {1, 2, 3}}, 0, kNumTokens);
  deal({1, 2, 3});
  EXPECT_TRUE(check({1, 2, 3}).is_ok());
  EXPECT_FALSE(check(other.blocks).is_ok());
}

TEST_P(ProbesTest, LeaveOutWhatDecodeHeld) {
  prefill(sequence_, 0, kNumTokens);
  deal(sequence_.blocks, 1);  // block 0 has NaN there
  EXPECT_TRUE(check(sequence_.blocks, 64).is_ok());
  EXPECT_FALSE(check(sequence_.blocks, 0).is_ok());
}

TEST_P(ProbesTest, GoAlongWhenABlockIsCopied) {
  prefill(sequence_, 0, kNumTokens);
  prefill_->copy_block(2, 5);
  deal({4, 1, 5});
  EXPECT_TRUE(check({4, 1, 5}).is_ok());
}

/// Of layouts whose ranks get different bytes.
class UnequalRanksProbesTest : public ProbesTest {};

TEST_P(UnequalRanksProbesTest, CatchRanksThatAreSwapped) {
  expect_caught([this] {
    std::memset(landed(0, 0), 0, static_cast<size_t>(decode_->cache(0).image_bytes(0)));
    std::memset(landed(1, 1), 0, static_cast<size_t>(decode_->cache(1).image_bytes(0)));
    deal(sequence_.blocks, 0, 1);
  });
}

class SlicedProbesTest : public ProbesTest {};

TEST_P(SlicedProbesTest, CatchSlicesThatAreSwapped) {
  expect_caught([this] {
    for (int64_t block = 0; block < 3; ++block) {
      for (int rank = 0; rank < decode_->num_ranks(); ++rank) {
        const PagedLatentCache& source = prefill_->cache(0);
        const int64_t image = (rank + 1) % layout_.num_images;
        std::memcpy(landed(rank, block),
                    source.image_address(sequence_.blocks[static_cast<size_t>(block)], image),
                    static_cast<size_t>(source.image_bytes(image)));
      }
    }
  });
}

TEST_P(ProbesTest, CatchLayersThatAreSwapped) {
  expect_caught([this] {
    const LatentShard& shard = decode_->cache(kRank).shard();
    char* block = landed(kRank, 0);
    std::swap_ranges(block + shard.layer_offset_bytes(1),
                     block + shard.layer_offset_bytes(2),
                     block + shard.layer_offset_bytes(2));
  });
}

TEST_P(ProbesTest, CatchTokensThatAreShiftedByOne) {
  expect_caught([this] {
    const LatentShard& shard = decode_->cache(kRank).shard();
    for (int64_t layer = 0; layer < shard.num_layers(); ++layer) {
      char* rows = landed(kRank, 0) + shard.layer_offset_bytes(layer);
      std::memmove(rows + shard.row_bytes(layer),
                   rows,
                   static_cast<size_t>((kBlockTokens - 1) * shard.row_bytes(layer)));
    }
  });
}

TEST_P(ProbesTest, CatchBlocksThatAreSwapped) {
  expect_caught([this] {
    const int64_t num_bytes = decode_->cache(kRank).image_bytes(0);
    // Of one rank: blocks 0 and 1, or, where ranks share them out, 0 and 2.
    const int64_t other = layout_.dealing == DecodeLayout::Dealing::kBlocks ? 2 : 1;
    std::swap_ranges(landed(kRank, 0), landed(kRank, 0) + num_bytes, landed(kRank, other));
  });
}

TEST_P(ProbesTest, CatchABlockOfAnotherPrompt) {
  expect_caught([this] {
    prefill({test::make_ids(kNumTokens, 97, 9), {5, 7, 9}}, 0, kNumTokens);
    deal({4, 1, 9}, 2);
  });
}

/// In bfloat16 too, where this machine multiplies it.
std::vector<Case> cases(bool (*is_wanted)(const ShardOptions&)) {
  const bool has_half = kernels::cpu::create_cpu_backend(1)->preferred_dtype() == DType::kBFloat16;
  std::vector<Case> all;
  const ShardOptions slices{.attention = AttentionSharding::kTpla, .num_ranks = 2, .num_slices = 2};
  const ShardOptions groups{.attention = AttentionSharding::kTpla, .num_ranks = 4, .num_slices = 2};
  // A layer of slices and shared columns, one without shared columns, one that is whole on each
  // rank.
  const ShardOptions shared{.attention = AttentionSharding::kTpla,
                            .num_ranks = 2,
                            .num_slices = 2,
                            .shared_columns = {16, 0, 32}};
  const ShardOptions striped{.attention = AttentionSharding::kDcp, .num_ranks = 2};
  for (const bool is_half : {false, true}) {
    if (is_half && !has_half) {
      break;
    }
    const DType dtype = is_half ? DType::kBFloat16 : DType::kFloat32;
    all.push_back({is_half ? "Full1Bf16" : "Full1", dtype, {}});
    all.push_back({is_half ? "Full2Bf16" : "Full2", dtype, {.num_ranks = 2}});
    all.push_back({is_half ? "Cols2Bf16" : "Cols2", dtype, slices});
    all.push_back({is_half ? "Cols2On4Bf16" : "Cols2On4", dtype, groups});
    all.push_back({is_half ? "Cols2SharedBf16" : "Cols2Shared", dtype, shared});
    all.push_back({is_half ? "Dcp2Bf16" : "Dcp2", dtype, striped});
  }
  std::erase_if(all, [&](const Case& one) { return !is_wanted(one.decode); });
  return all;
}

bool is_any(const ShardOptions&) {
  return true;
}

bool is_sliced(const ShardOptions& sharding) {
  return sharding.attention == AttentionSharding::kTpla;
}

bool has_unequal_ranks(const ShardOptions& sharding) {
  return sharding.attention != AttentionSharding::kReplicated;
}

std::string case_name(const ::testing::TestParamInfo<Case>& each) {
  return each.param.name;
}

INSTANTIATE_TEST_SUITE_P(Layouts, ProbesTest, ::testing::ValuesIn(cases(is_any)), case_name);
INSTANTIATE_TEST_SUITE_P(Layouts,
                         UnequalRanksProbesTest,
                         ::testing::ValuesIn(cases(has_unequal_ranks)),
                         case_name);
INSTANTIATE_TEST_SUITE_P(Layouts,
                         SlicedProbesTest,
                         ::testing::ValuesIn(cases(is_sliced)),
                         case_name);

}  // namespace
}  // namespace tessera::testing
