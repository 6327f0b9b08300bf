// The two forms of MLA attention on the same weights: q_nope . (W_UK c) = (W_UK^T q_nope) . c and
// sum_j p_j (W_UV c_j) = W_UV (sum_j p_j c_j) (DeepSeek-V2, arXiv 2405.04434, section 2.1.2).

#include <vector>

#include <gtest/gtest.h>

#include "tests/support/reference_ops.h"
#include "tests/unit/kernels/cpu/latent_fixture.h"
#include "tests/unit/kernels/cpu/ops_fixture.h"

namespace tessera::testing {
namespace {

using kernels::DType;

constexpr int64_t kHeads = 5;
constexpr int64_t kLatent = 48;
constexpr int64_t kNope = 24;
constexpr int64_t kRope = 8;
constexpr int64_t kValue = 20;
constexpr int64_t kLength = 150;

class MlaAbsorptionTest : public CpuOpsTest {
 protected:
  std::unique_ptr<kernels::LinearWeight> load(const Array& matrices) {
    auto weight = ops().make_linear_weight({.num_groups = matrices.dim(0),
                                            .out_features = matrices.dim(1),
                                            .in_features = matrices.dim(2)});
    for (int64_t g = 0; g < matrices.dim(0); ++g) {
      Array matrix = matrices.rows(g, 1);
      matrix.shape = {matrices.dim(1), matrices.dim(2)};
      const HostTensor tensor(DType::kFloat32, matrix);
      ops().load_linear_weight(*weight, g, tensor.view());
    }
    return weight;
  }

  /// The last position's output [1, H, dv] by up-projecting the latents of all positions.
  Array up_projected() {
    const auto up = load(kv_b_);
    // Each head up-projects the same latents.
    Array repeated({kLength, kHeads, kLatent});
    for (int64_t i = 0; i < kLength * kHeads * kLatent; ++i) {
      repeated.at(i / kLatent / kHeads, i / kLatent % kHeads, i % kLatent) =
          latent_.at(i / kLatent / kHeads, i % kLatent);
    }
    const HostTensor x(DType::kFloat32, repeated);
    HostTensor kv(DType::kFloat32, std::vector<int64_t>{kLength, kHeads, kNope + kValue});
    ops().batched_linear({.x = x.view(), .weight = up.get(), .out = kv.view()}, {});
    const HostTensor q(DType::kFloat32, q_);
    const HostTensor k_rope(DType::kFloat32, rope_);
    HostTensor accumulator(DType::kFloat32, std::vector<int64_t>{1, kHeads, kValue});
    HostTensor max_logit(DType::kFloat32, std::vector<int64_t>{1, kHeads});
    HostTensor sum(DType::kFloat32, std::vector<int64_t>{1, kHeads});
    HostTensor out(DType::kFloat32, std::vector<int64_t>{1, kHeads, kValue});
    ops().mla_prefill({.q = q.view(),
                       .kv = kv.view(),
                       .k_rope = k_rope.view(),
                       .query_begin = kLength - 1,
                       .scale = kScale,
                       .accumulator = accumulator.view(),
                       .max_logit = max_logit.view(),
                       .sum = sum.view(),
                       .out = out.view()},
                      {});
    return out.to_array();
  }

  /// The same from the paged latents.
  Array absorbed() {
    Array w_uk_t({kHeads, kLatent, kNope});
    Array w_uv({kHeads, kValue, kLatent});
    for (int64_t h = 0; h < kHeads; ++h) {
      for (int64_t r = 0; r < kLatent; ++r) {
        for (int64_t d = 0; d < kNope; ++d) {
          w_uk_t.at(h, r, d) = kv_b_.at(h, d, r);
        }
        for (int64_t d = 0; d < kValue; ++d) {
          w_uv.at(h, d, r) = kv_b_.at(h, kNope + d, r);
        }
      }
    }
    const auto absorb_q = load(w_uk_t);
    const auto project = load(w_uv);
    const HostTensor q(DType::kFloat32, q_);
    HostTensor q_latent(DType::kFloat32, std::vector<int64_t>{1, kHeads, kLatent});
    ops().batched_linear(
        {.x = q.view().slice(2, 0, kNope), .weight = absorb_q.get(), .out = q_latent.view()}, {});
    const std::vector<int32_t> blocks = {3, 1, 0};
    const PoisonedCache cache(DType::kFloat32, 5, kLatent, kRope);
    const HostTensor slots(slots_of(blocks, kLength));
    const HostTensor latent(DType::kFloat32, latent_);
    const HostTensor rope(DType::kFloat32, rope_);
    ops().latent_write({.latent = latent.view(),
                        .rope = rope.view(),
                        .slots = slots.view(),
                        .columns = kernels::LatentColumns::all(kLatent),
                        .cache = cache.view()},
                       {});
    const HostTensor tables(DType::kInt32, Array({1, 3}, {3.0, 1.0, 0.0}));
    const HostTensor lengths(std::vector<int32_t>{kLength});
    HostTensor mixed(DType::kFloat32, std::vector<int64_t>{1, kHeads, kLatent});
    HostTensor lse(DType::kFloat32, std::vector<int64_t>{1, kHeads});
    ops().mla_decode({.q_latent = q_latent.view(),
                      .q_rope = q.view().slice(2, kNope, kRope),
                      .cache = cache.view(),
                      .block_tables = tables.view(),
                      .lengths = lengths.view(),
                      .scale = kScale,
                      .out = mixed.view(),
                      .log_sum_exp = lse.view()},
                     {});
    HostTensor out(DType::kFloat32, std::vector<int64_t>{1, kHeads, kValue});
    ops().batched_linear({.x = mixed.view(), .weight = project.get(), .out = out.view()}, {});
    return out.to_array();
  }

  static constexpr float kScale = 0.1F;
  Array kv_b_ = random_.array({kHeads, kNope + kValue, kLatent}, 0.3);
  Array q_ = random_.array({1, kHeads, kNope + kRope});
  Array latent_ = random_.array({kLength, kLatent});
  Array rope_ = random_.array({kLength, kRope});
};

TEST_P(MlaAbsorptionTest, AbsorbedEqualsUpProjected) {
  // Values are sums of 48 products below 0.3, so at most 15; a few hundred float32 roundings.
  expect_close(absorbed(), up_projected(), {.slack = 15.0 * 300.0 * kFloat32Rounding});
}

TESSERA_TEST_THREADS(MlaAbsorptionTest);

}  // namespace
}  // namespace tessera::testing
