#include <cmath>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "tests/unit/kernels/cpu/latent_fixture.h"
#include "tests/unit/kernels/cpu/ops_fixture.h"

namespace tessera::testing {
namespace {

using kernels::DType;

class LatentCacheTest : public CpuOpsTest {};

TEST_P(LatentCacheTest, WrittenRowsComeBackFromShuffledBlocks) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const int64_t count : {1, 63, 64, 65, 200}) {
      const PoisonedCache cache(dtype, 6, 40, 12);
      const std::vector<int32_t> blocks = {4, 0, 5, 2};
      const HostTensor slots(slots_of(blocks, count));
      const HostTensor latent(DType::kFloat32, random_.array({count, 40}), 3);
      const HostTensor rope(DType::kFloat32, random_.array({count, 12}), 40);
      ops().latent_write({.latent = latent.view(),
                          .rope = rope.view(),
                          .slots = slots.view(),
                          .cache = cache.view()},
                         {});
      const HostTensor table(blocks);
      for (const int64_t begin : {int64_t{0}, count / 2, count - 1}) {
        HostTensor latent_out(dtype, std::vector<int64_t>{count - begin, 40}, 5);
        HostTensor rope_out(dtype, std::vector<int64_t>{count - begin, 12}, 1);
        ops().latent_gather({.cache = cache.view(),
                             .block_table = table.view(),
                             .begin = begin,
                             .latent = latent_out.view(),
                             .rope = rope_out.view()},
                            {});
        // Storing rounds to the cache's type and nothing else.
        const Array latent_rows = latent.to_array().rows(begin, count - begin);
        const Array rope_rows = rope.to_array().rows(begin, count - begin);
        EXPECT_EQ(latent_out.bytes(), HostTensor(dtype, latent_rows, 5).bytes());
        EXPECT_EQ(rope_out.bytes(), HostTensor(dtype, rope_rows, 1).bytes());
      }
    }
  }
}

TEST_P(LatentCacheTest, OtherRowsStayAsTheyWere) {
  const PoisonedCache cache(DType::kBFloat16, 3, 8, 4);
  const std::vector<int64_t> written = {64, 127, 5};
  const HostTensor slots(written);
  const HostTensor latent(DType::kFloat32, random_.array({3, 8}));
  const HostTensor rope(DType::kFloat32, random_.array({3, 4}));
  ops().latent_write(
      {.latent = latent.view(), .rope = rope.view(), .slots = slots.view(), .cache = cache.view()},
      {});
  std::set<int64_t> rows;  // counted with the gaps between blocks
  for (const int64_t slot : written) {
    rows.insert(slot + slot / kernels::kBlockTokens * PoisonedCache::kGapRows);
  }
  const Array all = cache.rows().to_array();
  for (int64_t row = 0; row < all.dim(0); ++row) {
    for (int64_t column = 0; column < all.dim(1); ++column) {
      ASSERT_EQ(std::isnan(all.at(row, column)), rows.count(row) == 0) << row << ", " << column;
    }
  }
}

TEST_P(LatentCacheTest, TokensOfOtherRanksAreSkipped) {
  const PoisonedCache cache(DType::kFloat32, 2, 8, 4);
  const HostTensor slots(std::vector<int64_t>{-1, 70, -1});
  const HostTensor latent(DType::kFloat32, random_.array({3, 8}));
  const HostTensor rope(DType::kFloat32, random_.array({3, 4}));
  ops().latent_write(
      {.latent = latent.view(), .rope = rope.view(), .slots = slots.view(), .cache = cache.view()},
      {});
  const Array all = cache.rows().to_array();
  for (int64_t row = 0; row < all.dim(0); ++row) {
    ASSERT_EQ(std::isnan(all.at(row, 0)), row != 70 + PoisonedCache::kGapRows) << row;
  }
  EXPECT_EQ(all.at(70 + PoisonedCache::kGapRows, 7), latent.to_array().at(1, 7));
}

TEST_P(LatentCacheTest, NothingToWriteOrGather) {
  const PoisonedCache cache(DType::kFloat32, 1, 8, 4);
  const HostTensor none(std::vector<int64_t>{});
  const HostTensor latent(DType::kFloat32, Array({0, 8}));
  const HostTensor rope(DType::kFloat32, Array({0, 4}));
  ops().latent_write(
      {.latent = latent.view(), .rope = rope.view(), .slots = none.view(), .cache = cache.view()},
      {});
  const PoisonedCache untouched(DType::kFloat32, 1, 8, 4);
  EXPECT_EQ(cache.rows().bytes(), untouched.rows().bytes());
}

TESSERA_TEST_THREADS(LatentCacheTest);

}  // namespace
}  // namespace tessera::testing
