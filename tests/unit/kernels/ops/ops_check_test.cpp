// Every operation refuses operands that do not fit, and names what is wrong. Backends see only
// operands that passed, so that a CPU backend stands for all of them.

#include <memory>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/cpu/cpu_backend.h"
#include "tests/support/host_tensor.h"

namespace tessera::kernels {
namespace {

using testing::Array;
using testing::HostTensor;

class OpsCheckDeathTest : public ::testing::Test {
 protected:
  [[nodiscard]] Ops& ops() { return backend_->ops(); }
  TensorView floats(std::vector<int64_t> shape) {
    return keep(HostTensor(DType::kFloat32, Array(std::move(shape))));
  }
  TensorView halves(std::vector<int64_t> shape) {
    return keep(HostTensor(DType::kBFloat16, Array(std::move(shape))));
  }
  TensorView ints(std::vector<int64_t> shape) {
    return keep(HostTensor(DType::kInt32, Array(std::move(shape))));
  }
  LatentCacheView cache() {
    return {.base = floats({2 * kBlockTokens, 12}).data,
            .block_stride_bytes = kBlockTokens * 12 * 4,
            .num_blocks = 2,
            .latent_width = 8,
            .rope_width = 4,
            .dtype = DType::kFloat32};
  }
  const LinearWeight* weight(const LinearShape& shape) {
    weights_.push_back(ops().make_linear_weight(shape));
    return weights_.back().get();
  }

 private:
  TensorView keep(HostTensor tensor) {
    tensors_.push_back(std::make_unique<HostTensor>(std::move(tensor)));
    return tensors_.back()->view();
  }
  std::unique_ptr<Backend> backend_ = cpu::create_cpu_backend(1);
  std::vector<std::unique_ptr<HostTensor>> tensors_;
  std::vector<std::unique_ptr<LinearWeight>> weights_;
};

TEST_F(OpsCheckDeathTest, Embedding) {
  EXPECT_DEATH(
      ops().embedding({.ids = ints({3}), .table = floats({5, 4}), .out = floats({2, 4})}, {}),
      "embedding: out float32\\[2, 4\\]: axis T is 2, expected 3");
}

TEST_F(OpsCheckDeathTest, RmsNorm) {
  EXPECT_DEATH(
      ops().rms_norm({.x = floats({3, 4}), .add = {}, .weight = floats({5}), .out = floats({3, 4})},
                     {}),
      "rms_norm: weight float32\\[5\\]: axis D is 5, expected 4");
  EXPECT_DEATH(
      ops().rms_norm({.x = halves({3, 4}), .add = {}, .weight = floats({4}), .out = floats({3, 4})},
                     {}),
      "rms_norm: x bfloat16\\[3, 4\\] has the wrong dtype");
}

TEST_F(OpsCheckDeathTest, Rope) {
  EXPECT_DEATH(ops().rope({.x = floats({3, 2, 6}),
                           .positions = ints({3}),
                           .cos = floats({9, 4}),
                           .sin = floats({9, 4})},
                          {}),
               "rope: dr is not twice the width of cos");
}

TEST_F(OpsCheckDeathTest, SiluMul) {
  EXPECT_DEATH(ops().silu_mul({.x = floats({3, 9}), .out = floats({3, 4})}, {}),
               "silu_mul: x is not twice as wide as out");
}

TEST_F(OpsCheckDeathTest, CastAndGatherRows) {
  EXPECT_DEATH(ops().cast({.x = floats({3, 9}), .out = halves({3, 8})}, {}),
               "cast: out bfloat16\\[3, 8\\]: axis D is 8, expected 9");
  EXPECT_DEATH(
      ops().gather_rows({.x = floats({3, 9}), .rows = ints({2}), .out = floats({3, 9})}, {}),
      "gather_rows: out float32\\[3, 9\\]: axis n is 3, expected 2");
}

TEST_F(OpsCheckDeathTest, LinearWeight) {
  EXPECT_DEATH(static_cast<void>(ops().make_linear_weight({.out_features = 0, .in_features = 3})),
               "make_linear_weight: sizes must be positive");
  const auto weight = ops().make_linear_weight({.out_features = 4, .in_features = 3});
  EXPECT_DEATH(ops().load_linear_weight(*weight, 1, floats({4, 3})), "group out of range");
  EXPECT_DEATH(ops().load_linear_weight(*weight, 0, floats({3, 4})), "another shape");
  EXPECT_DEATH(ops().load_linear_weight(*weight, 0, ints({4, 3})), "float32, bfloat16 or float16");
}

TEST_F(OpsCheckDeathTest, WeightsInFloat8) {
  EXPECT_DEATH(static_cast<void>(ops().make_linear_weight({.out_features = 4,
                                                           .in_features = 3,
                                                           .dtype = DType::kBFloat16,
                                                           .scales = BlockScales{}})),
               "make_linear_weight: this backend holds no weights in float8");
  const auto weight = ops().make_linear_weight({.out_features = 4, .in_features = 3});
  EXPECT_DEATH(ops().load_float8_weight(*weight, 0, {floats({4, 3}), floats({1, 1})}),
               "load_float8_weight: the weight is not held in float8");
}

TEST_F(OpsCheckDeathTest, Linear) {
  EXPECT_DEATH(ops().linear({.x = floats({2, 5}),
                             .weight = weight({.out_features = 4, .in_features = 3}),
                             .bias = {},
                             .out = floats({2, 4})},
                            {}),
               "linear: x float32\\[2, 5\\]: axis K is 5, expected 3");
  EXPECT_DEATH(ops().linear({.x = floats({2, 3}),
                             .weight = weight({.out_features = 4, .in_features = 3}),
                             .bias = floats({5}),
                             .out = floats({2, 4})},
                            {}),
               "linear: bias float32\\[5\\]: axis N is 5, expected 4");
}

TEST_F(OpsCheckDeathTest, BatchedAndGroupedLinear) {
  const LinearShape shape = {.num_groups = 2, .out_features = 4, .in_features = 3};
  EXPECT_DEATH(ops().batched_linear(
                   {.x = floats({5, 3, 3}), .weight = weight(shape), .out = floats({5, 3, 4})}, {}),
               "batched_linear: x float32\\[5, 3, 3\\]: axis G is 3, expected 2");
  EXPECT_DEATH(ops().grouped_linear({.x = floats({5, 3}),
                                     .offsets = ints({2}),
                                     .weight = weight(shape),
                                     .out = floats({5, 4})},
                                    {}),
               "grouped_linear: offsets int32\\[2\\]: axis G . 1 is 2, expected 3");
}

TEST_F(OpsCheckDeathTest, LatentCache) {
  LatentCacheView overlapping = cache();
  overlapping.block_stride_bytes -= 4;
  const HostTensor slots(std::vector<int64_t>{0, 1});
  LatentWriteParams write = {.latent = floats({2, 8}),
                             .rope = floats({2, 4}),
                             .slots = slots.view(),
                             .columns = LatentColumns::all(8),
                             .cache = overlapping};
  EXPECT_DEATH(ops().latent_write(write, {}), "latent_write: the cache's blocks overlap");
  write.cache = cache();
  write.latent = floats({2, 7});
  EXPECT_DEATH(ops().latent_write(write, {}), "latent_write: columns outside of the latent");
  write.latent = floats({2, 9});
  write.columns = LatentColumns::all(9);
  EXPECT_DEATH(ops().latent_write(write, {}),
               "latent_write: the cache's rows are not as wide as the columns");
  write.columns = {.ranges = {{{0, 5}, {6, 3}}}};  // 8 of the 9
  write.rope = floats({2, 5});
  EXPECT_DEATH(ops().latent_write(write, {}),
               "latent_write: rope float32\\[2, 5\\]: axis dr is 5, expected 4");
  LatentGatherParams gather = {.cache = cache(),
                               .block_table = ints({1}),
                               .begin = 60,
                               .columns = LatentColumns::all(8),
                               .latent = floats({5, 8}),
                               .rope = floats({5, 4})};
  EXPECT_DEATH(ops().latent_gather(gather, {}),
               "latent_gather: positions outside of the block table");
  gather.columns = {.ranges = {{{0, 4}, {3, 4}}}};
  EXPECT_DEATH(ops().latent_gather(gather, {}), "latent_gather: columns outside of the latent");
  gather.columns = {};
  EXPECT_DEATH(ops().latent_gather(gather, {}),
               "latent_gather: the cache's rows are not as wide as the columns");
}

TEST_F(OpsCheckDeathTest, Probes) {
  const HostTensor slots(std::vector<int64_t>{0, 1});
  std::vector<double> sums(2);
  EXPECT_DEATH(ops().latent_probe({.latent = floats({2, 8}),
                                   .rope = floats({2, 4}),
                                   .positions = ints({2}),
                                   .slots = slots.view(),
                                   .columns = {.ranges = {{{0, 2}, {5, 4}}}},
                                   .sums = sums.data()},
                                  {}),
               "latent_probe: columns outside of the latent");
  std::vector<ProbeSum> block_sums(1);
  EXPECT_DEATH(ops().cache_probe({.cache = cache(),
                                  .blocks = ints({1}),
                                  .columns = LatentColumns::all(7),
                                  .sums = block_sums.data()},
                                 {}),
               "cache_probe: the cache's rows are not as wide as the columns");
}

TEST_F(OpsCheckDeathTest, MlaPrefill) {
  MlaPrefillParams params = {.q = floats({3, 2, 10}),
                             .kv = floats({5, 2, 11}),
                             .k_rope = floats({5, 4}),
                             .accumulator = floats({3, 2, 5}),
                             .max_logit = floats({3, 2}),
                             .sum = floats({3, 2}),
                             .out = floats({3, 2, 5})};
  params.key_begin = 64;
  EXPECT_DEATH(ops().mla_prefill(params, {}), "mla_prefill: the first tile holds the first keys");
  params.kv = floats({5, 2, 12});
  EXPECT_DEATH(ops().mla_prefill(params, {}), "mla_prefill: q and kv disagree about dn");
  params.kv = floats({5, 3, 11});
  EXPECT_DEATH(ops().mla_prefill(params, {}),
               "mla_prefill: kv float32\\[5, 3, 11\\]: axis H is 3, expected 2");
}

TEST_F(OpsCheckDeathTest, MlaDecode) {
  MlaDecodeParams params = {.q_latent = floats({2, 3, 8}),
                            .q_rope = floats({2, 3, 4}),
                            .cache = cache(),
                            .block_tables = ints({2, 2}),
                            .lengths = ints({3}),
                            .out = floats({2, 3, 8}),
                            .log_sum_exp = floats({2, 3})};
  EXPECT_DEATH(ops().mla_decode(params, {}),
               "mla_decode: lengths int32\\[3\\]: axis B is 3, expected 2");
  params.lengths = ints({2});
  params.out = floats({2, 3, 5});
  EXPECT_DEATH(ops().mla_decode(params, {}),
               "mla_decode: out float32\\[2, 3, 5\\]: axis w is 5, expected 8");
  params.out = floats({2, 3, 8});
  params.row_tokens = 3;
  EXPECT_DEATH(ops().mla_decode(params, {}), "mla_decode: rows are no whole number of sequences");
}

TEST_F(OpsCheckDeathTest, MlaDecodeWindow) {
  const WindowRing ring = WindowRing::create({.num_first = 4, .num_last = 16});
  LatentCacheView whole = cache();  // rows of 8 + 4, two blocks of them
  MlaDecodeParams params = {.q_latent = floats({2, 3, 6}),
                            .q_rope = floats({2, 3, 4}),
                            .cache = cache(),
                            .block_tables = ints({2, 2}),
                            .lengths = ints({2}),
                            .window = DecodeWindow{.cache = whole,
                                                   .ring = ring,
                                                   .columns = {.ranges = {{{0, 2}, {4, 4}}}},
                                                   .q_latent = floats({2, 3, 8}),
                                                   .first_slots = ints({2})},
                            .out = floats({2, 3, 6}),
                            .log_sum_exp = floats({2, 3})};
  params.cache.latent_width = 6;
  EXPECT_DEATH(ops().mla_decode(params, {}), "mla_decode: window.first_slots int32");
  params.window->q_latent = floats({2, 3, 6});
  EXPECT_DEATH(ops().mla_decode(params, {}), "window.q_latent .* axis R is 6, expected 8");
  params.window->ring.ring_rows = 15;
  EXPECT_DEATH(ops().mla_decode(params, {}), "the window does not fit its ring");
  params.window->columns = LatentColumns::all(8);
  EXPECT_DEATH(ops().mla_decode(params, {}), "the cache's rows are not as wide as the columns");
  params.window->cache.block_stride_bytes += 4;
  EXPECT_DEATH(ops().mla_decode(params, {}), "the window's rows do not lie back to back");
  params.window->cache.rope_width = 2;
  EXPECT_DEATH(ops().mla_decode(params, {}), "the window's rows are of another kind");
}

TEST_F(OpsCheckDeathTest, MoeGate) {
  MoeGateParams params = {.logits = floats({2, 8}),
                          .bias = {},
                          .topk = MoeTopk::kGroupLimitedGreedy,
                          .num_groups = 4,
                          .num_kept_groups = 1,
                          .expert_ids = ints({2, 3}),
                          .expert_weights = floats({2, 3})};
  EXPECT_DEATH(ops().moe_gate(params, {}), "moe_gate: top-k is larger than the number of experts");
  params.num_groups = 3;
  EXPECT_DEATH(ops().moe_gate(params, {}), "moe_gate: the experts do not divide into the groups");
}

TEST_F(OpsCheckDeathTest, MoePermuteAndCombine) {
  EXPECT_DEATH(ops().moe_permute({.x = floats({2, 5}),
                                  .expert_ids = ints({2, 3}),
                                  .permuted = floats({5, 5}),
                                  .offsets = ints({9}),
                                  .row_of_pair = ints({2, 3})},
                                 {}),
               "moe_permute: permuted has not T \\* k rows");
  EXPECT_DEATH(ops().moe_combine({.expert_out = floats({6, 5}),
                                  .row_of_pair = ints({2, 3}),
                                  .expert_weights = floats({2, 2}),
                                  .out = floats({2, 5})},
                                 {}),
               "moe_combine: expert_weights float32\\[2, 2\\]: axis k is 2, expected 3");
}

TEST_F(OpsCheckDeathTest, Sample) {
  const std::vector<SampleRow> rows(2);
  EXPECT_DEATH(ops().sample({.logits = floats({2, 9}),
                             .rows = {rows.data(), DType::kUint8, {3}},
                             .history_ids = ints({0}),
                             .history_counts = ints({0}),
                             .bias_ids = ints({0}),
                             .bias_values = floats({0}),
                             .token_ids = ints({2}),
                             .logprobs = floats({2}),
                             .top_ids = ints({2, kMaxTopLogprobs}),
                             .top_logprobs = floats({2, kMaxTopLogprobs})},
                            {}),
               "sample: rows do not match the outputs");
}

TEST_F(OpsCheckDeathTest, MergeScale) {
  EXPECT_DEATH(ops().merge_scale(
                   {.log_sum_exp = floats({2, 3, 4}), .part = 0, .values = floats({3, 5, 8})}, {}),
               "merge_scale: values float32\\[3, 5, 8\\]: axis H is 5, expected 4");
  EXPECT_DEATH(ops().merge_scale(
                   {.log_sum_exp = floats({2, 3, 4}), .part = 2, .values = floats({3, 4, 8})}, {}),
               "merge_scale: no such part");
}

TEST_F(OpsCheckDeathTest, MoeCombineWindow) {
  EXPECT_DEATH(ops().moe_combine({.expert_out = floats({6, 4}),
                                  .row_of_pair = ints({3, 2}),
                                  .expert_weights = floats({3, 2}),
                                  .offsets = ints({1}),
                                  .accumulate = false,
                                  .out = floats({3, 4})},
                                 {}),
               "moe_combine: offsets are of one expert or more");
}

}  // namespace
}  // namespace tessera::kernels
