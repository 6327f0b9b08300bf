// Float8 rows of the latent cache at the sizes of real models: the same bytes on both backends, and
// the same attention over them.

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/unit/kernels/cpu/latent_fixture.h"
#include "tests/unit/kernels/cuda/parity_fixture.h"

namespace tessera::testing {
namespace {

using kernels::DType;
using kernels::kBlockTokens;
using kernels::LatentColumns;

class Float8CacheParityTest : public ParityTest {};

TEST_F(Float8CacheParityTest, WritesTheSameBytes) {
  for (const int64_t num_slices : {1, 2, 4}) {
    constexpr int64_t kCount = 1000;
    const int64_t width = 64 + 448 / num_slices;
    const Float8Cache expected(20, width, 64), actual(20, width, 64);
    const HostTensor latent(DType::kFloat32, random_latents(random_, kCount, 512));
    const HostTensor rope(DType::kFloat32, random_.array({kCount, 64}));
    const std::vector<int64_t> slots = slots_of(random_.permutation(20), kCount);
    const HostTensor slot(slots);
    const LatentColumns columns = LatentColumns::of_slice(512, 64, 0, num_slices);
    for (const auto& [ops, cache] : {std::pair(&cpu(), &expected), std::pair(&gpu(), &actual)}) {
      ops->latent_write({.latent = latent.view(),
                         .rope = rope.view(),
                         .slots = slot.view(),
                         .columns = columns,
                         .cache = cache->view()},
                        {});
    }
    EXPECT_EQ(actual.bytes(), expected.bytes()) << num_slices << " slices";
  }
}

TEST_F(Float8CacheParityTest, DecodesTheSame) {
  struct Case {
    int64_t heads, width;
    std::vector<int32_t> lengths;
    DType dtype = DType::kBFloat16;
  };
  for (const Case& shape : {Case{16, 512, {1, 63, 64, 65, 300, 0}},
                            Case{64, 256, {1, 63, 64, 65, 300, 0}},
                            Case{128, 320, {200, 7}},
                            Case{16, 128, {9000}},
                            Case{5, 72, {700, 2}, DType::kFloat32}}) {
    SCOPED_TRACE(std::to_string(shape.heads) + " heads, width " + std::to_string(shape.width));
    constexpr int64_t kRope = 64;
    const auto batch = static_cast<int64_t>(shape.lengths.size());
    const int64_t longest = *std::max_element(shape.lengths.begin(), shape.lengths.end());
    const int64_t max_blocks = (longest + kBlockTokens - 1) / kBlockTokens;
    const Float8Cache cache(batch * max_blocks + 3, shape.width, kRope);
    const std::vector<int32_t> blocks = random_.permutation(batch * max_blocks + 3);
    Array tables({batch, max_blocks});
    for (int64_t b = 0; b < batch; ++b) {
      const auto first = blocks.begin() + b * max_blocks;
      std::copy_n(first, max_blocks, tables.values.begin() + b * max_blocks);
      const int64_t length = shape.lengths[static_cast<size_t>(b)];
      const HostTensor latent(DType::kFloat32, random_.array({length, shape.width}));
      const HostTensor rope(DType::kFloat32, random_.array({length, kRope}));
      const HostTensor slot(slots_of({first, first + max_blocks}, length));
      cpu().latent_write({.latent = latent.view(),
                          .rope = rope.view(),
                          .slots = slot.view(),
                          .columns = LatentColumns::all(shape.width),
                          .cache = cache.view()},
                         {});
    }
    const HostTensor block_tables(DType::kInt32, tables, 1);
    const HostTensor lengths(shape.lengths);
    const HostTensor q_latent(shape.dtype, random_.array({batch, shape.heads, shape.width}));
    const HostTensor q_rope(shape.dtype, random_.array({batch, shape.heads, kRope}));
    HostTensor expected(shape.dtype, {batch, shape.heads, shape.width});
    HostTensor expected_lse(DType::kFloat32, std::vector<int64_t>{batch, shape.heads});
    HostTensor actual = expected;
    HostTensor actual_lse = expected_lse;
    const auto attend = [&](kernels::Ops& ops, HostTensor& out, HostTensor& lse) {
      ops.mla_decode({.q_latent = q_latent.view(),
                      .q_rope = q_rope.view(),
                      .cache = cache.view(),
                      .block_tables = block_tables.view(),
                      .lengths = lengths.view(),
                      .scale = 0.1147F,
                      .out = out.view(),
                      .log_sum_exp = lse.view()},
                     {});
    };
    attend(cpu(), expected, expected_lse);
    attend(gpu(), actual, actual_lse);
    expect_same(actual, expected, parity_of(shape.dtype));
    expect_same(actual_lse, expected_lse, kFloat32Parity);
  }
}

}  // namespace
}  // namespace tessera::testing
