#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/reference_ops.h"
#include "tests/unit/kernels/cpu/latent_fixture.h"
#include "tests/unit/kernels/cpu/ops_fixture.h"

namespace tessera::testing {
namespace {

using kernels::DType;

struct DecodeShape {
  int64_t num_heads = 1;
  int64_t latent = 1;
  int64_t rope = 2;
  DType dtype = DType::kFloat32;
  int64_t padding = 1;  ///< columns behind a row of queries or results, a multiple of it

  /// Rows as tensor cores can take them, which round weights to bfloat16.
  [[nodiscard]] bool is_aligned() const { return padding % 8 == 0; }
};

class MlaDecodeTest : public CpuOpsTest {
 protected:
  struct Result {
    HostTensor out, log_sum_exp;
  };

  /// Runs a batch of these lengths over shuffled blocks; checks it against the reference.
  Result check(const std::vector<int32_t>& lengths, const DecodeShape& shape) {
    const auto batch = static_cast<int64_t>(lengths.size());
    const int64_t max_blocks = blocks_of(*std::max_element(lengths.begin(), lengths.end()));
    const PoisonedCache cache(shape.dtype, batch * max_blocks + 2, shape.latent, shape.rope);
    // Every row has max_blocks table entries of its own; those past its length stay poisoned.
    const std::vector<int32_t> blocks = random_.permutation(batch * max_blocks + 2);
    Array tables({batch, max_blocks});
    std::vector<Array> latents, ropes;
    for (int64_t b = 0; b < batch; ++b) {
      const auto first = blocks.begin() + b * max_blocks;
      std::copy_n(first, max_blocks, tables.values.begin() + b * max_blocks);
      fill(cache, {first, first + max_blocks}, lengths[static_cast<size_t>(b)], shape);
      latents.push_back(last_latent_);
      ropes.push_back(last_rope_);
    }
    const HostTensor q_latent(
        shape.dtype, random_.array({batch, shape.num_heads, shape.latent}), 2 * shape.padding);
    const HostTensor q_rope(
        shape.dtype, random_.array({batch, shape.num_heads, shape.rope}), 5 * shape.padding);
    const HostTensor block_tables(DType::kInt32, tables, 4);
    const HostTensor length(lengths);
    Result result{HostTensor(shape.dtype, {batch, shape.num_heads, shape.latent}, shape.padding),
                  HostTensor(DType::kFloat32, std::vector<int64_t>{batch, shape.num_heads})};
    constexpr float kScale = 0.07F;
    ops().mla_decode({.q_latent = q_latent.view(),
                      .q_rope = q_rope.view(),
                      .cache = cache.view(),
                      .block_tables = block_tables.view(),
                      .lengths = length.view(),
                      .scale = kScale,
                      .out = result.out.view(),
                      .log_sum_exp = result.log_sum_exp.view()},
                     {});
    EXPECT_TRUE(result.out.is_padding_untouched());
    const Array out = result.out.to_array();
    const Array lse = result.log_sum_exp.to_array();
    for (int64_t b = 0; b < batch; ++b) {
      SCOPED_TRACE("length " + std::to_string(lengths[static_cast<size_t>(b)]));
      const auto expected = reference::mla_decode({.q_latent = row_of(q_latent.to_array(), b),
                                                   .q_rope = row_of(q_rope.to_array(), b),
                                                   .latent = latents[static_cast<size_t>(b)],
                                                   .rope = ropes[static_cast<size_t>(b)],
                                                   .scale = static_cast<double>(kScale)});
      expect_close(row_of(out, b), expected.out, tolerance(shape, lengths[static_cast<size_t>(b)]));
      // A logarithm of a sum: its error is the logit's, absolute.
      expect_close(row_of(lse, b),
                   expected.log_sum_exp,
                   {.relative = kFloat32Rounding,
                    .slack = sum_slack(shape, lengths[static_cast<size_t>(b)])});
    }
    return result;
  }

  /// Runs sequences of these lengths with `row_tokens` query tokens each, the last ones of their
  /// contexts, in adjacent rows.
  void check_tokens(const std::vector<int32_t>& lengths,
                    const DecodeShape& shape,
                    int64_t row_tokens) {
    const int64_t max_blocks = blocks_of(*std::max_element(lengths.begin(), lengths.end()));
    const int64_t rows = static_cast<int64_t>(lengths.size()) * row_tokens;
    const PoisonedCache cache(
        shape.dtype, rows / row_tokens * max_blocks + 2, shape.latent, shape.rope);
    const std::vector<int32_t> blocks = random_.permutation(rows / row_tokens * max_blocks + 2);
    Array tables({rows, max_blocks});
    std::vector<int32_t> row_lengths;
    std::vector<Array> latents, ropes;
    for (int64_t row = 0; row < rows; ++row) {
      const int32_t length = lengths[static_cast<size_t>(row / row_tokens)];
      const auto first = blocks.begin() + row / row_tokens * max_blocks;
      std::copy_n(first, max_blocks, tables.values.begin() + row * max_blocks);
      const auto later = static_cast<int32_t>(row_tokens - 1 - row % row_tokens);
      row_lengths.push_back(length == 0 ? 0 : length - later);
      if (row % row_tokens == 0) {
        fill(cache, {first, first + max_blocks}, length, shape);
        latents.push_back(last_latent_);
        ropes.push_back(last_rope_);
      }
    }
    const HostTensor q_latent(shape.dtype, random_.array({rows, shape.num_heads, shape.latent}));
    const HostTensor q_rope(shape.dtype, random_.array({rows, shape.num_heads, shape.rope}));
    const HostTensor block_tables(DType::kInt32, tables);
    const HostTensor length(row_lengths);
    HostTensor out(shape.dtype, std::vector<int64_t>{rows, shape.num_heads, shape.latent});
    HostTensor lse(DType::kFloat32, std::vector<int64_t>{rows, shape.num_heads});
    ops().mla_decode({.q_latent = q_latent.view(),
                      .q_rope = q_rope.view(),
                      .cache = cache.view(),
                      .block_tables = block_tables.view(),
                      .lengths = length.view(),
                      .scale = 0.07F,
                      .row_tokens = row_tokens,
                      .out = out.view(),
                      .log_sum_exp = lse.view()},
                     {});
    const Array latent_queries = q_latent.to_array(), rope_queries = q_rope.to_array();
    const Array values = out.to_array(), sums = lse.to_array();
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t count = row_lengths[static_cast<size_t>(row)];
      SCOPED_TRACE("length " + std::to_string(count));
      const auto sequence = static_cast<size_t>(row / row_tokens);
      const auto expected = reference::mla_decode({.q_latent = row_of(latent_queries, row),
                                                   .q_rope = row_of(rope_queries, row),
                                                   .latent = latents[sequence].rows(0, count),
                                                   .rope = ropes[sequence].rows(0, count),
                                                   .scale = 0.07});
      expect_close(row_of(values, row), expected.out, tolerance(shape, count));
      expect_close(row_of(sums, row),
                   expected.log_sum_exp,
                   {.relative = kFloat32Rounding, .slack = sum_slack(shape, count)});
    }
  }

  static int64_t blocks_of(int64_t length) {
    return (length + kernels::kBlockTokens - 1) / kernels::kBlockTokens;
  }
  static Array row_of(const Array& array, int64_t b) {
    Array row = array.rows(b, 1);
    row.shape.erase(row.shape.begin());
    return row;
  }

  void fill(const PoisonedCache& cache,
            const std::vector<int32_t>& table,
            int64_t length,
            const DecodeShape& shape) {
    const HostTensor slots(slots_of(table, length));
    const HostTensor latent(shape.dtype, random_.array({length, shape.latent}));
    const HostTensor rope(shape.dtype, random_.array({length, shape.rope}));
    last_latent_ = latent.to_array();
    last_rope_ = rope.to_array();
    const HostTensor latent_f32(DType::kFloat32, last_latent_);
    const HostTensor rope_f32(DType::kFloat32, last_rope_);
    ops().latent_write({.latent = latent_f32.view(),
                        .rope = rope_f32.view(),
                        .slots = slots.view(),
                        .columns = kernels::LatentColumns::all(shape.latent),
                        .cache = cache.view()},
                       {});
  }

  /// Means of values of at most 1, so errors are absolute: products' sums of R + dr terms round to
  /// float32 (scaled by 0.07), weights follow, and the sum rounds once a key. Tensor cores round
  /// sums of 16 products toward zero.
  static double sum_slack(const DecodeShape& shape, int64_t length) {
    const double logit_error = 0.07 * static_cast<double>(shape.latent) / 2.0 + 20.0;
    const double factor = shape.is_aligned() ? 4.0 : 1.0;
    return factor * (logit_error + static_cast<double>(length)) * kFloat32Rounding;
  }
  /// Values are at most 1, and so is the sum of weights whose roundings add up.
  static Tolerance tolerance(const DecodeShape& shape, int64_t length) {
    const double weights = shape.is_aligned() ? rounding_of(shape.dtype) : 0.0;
    return {.relative = rounding_of(shape.dtype), .slack = sum_slack(shape, length) + weights};
  }

  Array last_latent_, last_rope_;
};

TEST_P(MlaDecodeTest, MatchesTheReferenceForMixedLengths) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    check({1, 63, 64, 65, 127, 1000, 0}, {3, 40, 8, dtype});
  }
}

TEST_P(MlaDecodeTest, MatchesTheReferenceForAnyNumberOfHeads) {
  for (const int64_t heads : {1, 3, 16, 17, 33}) {
    SCOPED_TRACE("heads " + std::to_string(heads));
    check({70, 5}, {heads, 32, 16, DType::kFloat32});
    check({70, 5}, {heads, 32, 16, DType::kBFloat16});
  }
}

TEST_P(MlaDecodeTest, MatchesTheReferenceForAnyWidth) {
  for (const int64_t latent : {8, 24, 28, 100, 512}) {
    for (const int64_t rope : {2, 20, 64}) {
      SCOPED_TRACE("R " + std::to_string(latent) + ", dr " + std::to_string(rope));
      check({65, 130}, {5, latent, rope, DType::kFloat32});
      check({65, 130}, {5, latent, rope, DType::kBFloat16});
    }
  }
}

TEST_P(MlaDecodeTest, MatchesTheReferenceForAnyWidthOfModels) {
  for (const int64_t latent : {64, 128, 192, 256, 320, 448, 512}) {
    SCOPED_TRACE("R " + std::to_string(latent));
    check({1, 63, 64, 65, 0, 130, 1000}, {4, latent, 64, DType::kBFloat16, 8});
    check({65, 200}, {4, latent, 32, DType::kBFloat16, 8});
  }
}

TEST_P(MlaDecodeTest, MatchesTheReferenceForAnyHeadsOfModels) {
  for (const int64_t latent : {128, 256, 320, 512}) {
    for (const int64_t heads : {1, 16, 17, 64, 65, 128}) {
      SCOPED_TRACE("R " + std::to_string(latent) + ", heads " + std::to_string(heads));
      check({65, 1, 130}, {heads, latent, 64, DType::kBFloat16, 8});
    }
  }
}

TEST_P(MlaDecodeTest, QueryTokensOfASequenceSeeTheTokensBeforeThem) {
  for (const int64_t latent : {256, 320}) {
    for (const int64_t heads : {3, 40, 100}) {
      SCOPED_TRACE("R " + std::to_string(latent) + ", heads " + std::to_string(heads));
      check_tokens({2, 65, 0}, {heads, latent, 64, DType::kBFloat16, 8}, 2);
    }
  }
  check_tokens({4, 64, 65, 66, 67, 130, 0}, {3, 256, 64, DType::kBFloat16, 8}, 4);
}

TEST_P(MlaDecodeTest, SplitsALongSequenceOverThreads) {
  check({2500}, {2, 24, 8, DType::kFloat32});
  check({2500, 1}, {1, 24, 8, DType::kBFloat16});
}

TEST_P(MlaDecodeTest, QueriesAndOutputsOfAnyOuterStrides) {
  constexpr int64_t kRows = 2, kHeads = 5, kWidth = 28, kRope = 6, kLength = 70;
  const PoisonedCache cache(DType::kBFloat16, 3, kWidth, kRope);
  const std::vector<int32_t> blocks = {2, 1};
  fill(cache, blocks, kLength, {kHeads, kWidth, kRope, DType::kBFloat16});
  // Heads outside, rows inside, and a column of somebody else's on both sides.
  const HostTensor q(DType::kBFloat16, random_.array({kHeads, kRows, kWidth + kRope + 2}));
  HostTensor out(DType::kBFloat16, std::vector<int64_t>{kHeads, kRows, kWidth + 2});
  const auto rows_first = [](auto view, int64_t begin, int64_t count) {
    auto result = view.slice(2, begin, count);
    std::swap(result.shape[0], result.shape[1]);
    std::swap(result.stride[0], result.stride[1]);
    return result;
  };
  const HostTensor tables(DType::kInt32, Array({kRows, 2}, {2.0, 1.0, 2.0, 1.0}));
  const HostTensor lengths(std::vector<int32_t>{kLength, 3});
  HostTensor lse(DType::kFloat32, std::vector<int64_t>{kRows, kHeads});
  ops().mla_decode({.q_latent = rows_first(q.view(), 1, kWidth),
                    .q_rope = rows_first(q.view(), 1 + kWidth, kRope),
                    .cache = cache.view(),
                    .block_tables = tables.view(),
                    .lengths = lengths.view(),
                    .scale = 0.07F,
                    .out = rows_first(out.view(), 1, kWidth),
                    .log_sum_exp = lse.view()},
                   {});
  const Array written = out.to_array();
  const Array queries = q.to_array();
  for (int64_t b = 0; b < kRows; ++b) {
    const int64_t length = b == 0 ? kLength : 3;
    Array q_latent({kHeads, kWidth}), q_rope({kHeads, kRope}), own({kHeads, kWidth});
    for (int64_t h = 0; h < kHeads; ++h) {
      std::copy_n(queries.row(h, b) + 1, kWidth, &q_latent.at(h, 0));
      std::copy_n(queries.row(h, b) + 1 + kWidth, kRope, &q_rope.at(h, 0));
      std::copy_n(written.row(h, b) + 1, kWidth, &own.at(h, 0));
      EXPECT_TRUE(std::isnan(written.at(h, b, 0)));
      EXPECT_TRUE(std::isnan(written.at(h, b, kWidth + 1)));
    }
    const auto expected = reference::mla_decode({.q_latent = q_latent,
                                                 .q_rope = q_rope,
                                                 .latent = last_latent_.rows(0, length),
                                                 .rope = last_rope_.rows(0, length),
                                                 .scale = 0.07});
    expect_close(own, expected.out, tolerance({kHeads, kWidth, kRope, DType::kBFloat16}, length));
  }
}

TEST_P(MlaDecodeTest, EmptySequenceGivesZerosAndMinusInfinity) {
  const Result result = check({0, 300, 0}, {2, 16, 4, DType::kFloat32});
  const Array out = result.out.to_array();
  const Array lse = result.log_sum_exp.to_array();
  for (const int64_t b : {0, 2}) {
    EXPECT_EQ(row_of(out, b).values, std::vector<double>(32, 0.0));
    EXPECT_EQ(row_of(lse, b).values,
              std::vector<double>(2, -std::numeric_limits<double>::infinity()));
  }
}

TEST_P(MlaDecodeTest, OnlyEmptySequences) {
  const Result result = check({0, 0}, {2, 16, 4, DType::kBFloat16});
  EXPECT_EQ(result.out.to_array().values, std::vector<double>(64, 0.0));
}

TEST_P(MlaDecodeTest, MergeScaleWeighsPartsByTheirTokens) {
  constexpr int64_t kParts = 3, kRows = 4, kHeads = 5, kWidth = 19;
  // Differences of up to 40 round to 40 / 2^24 of the weight.
  Array lse = random_.array({kParts, kRows, kHeads}, 20.0);
  lse.at(1, 2, 3) = -std::numeric_limits<double>::infinity();  // a part without tokens
  const HostTensor stored(DType::kFloat32, lse);
  const Array rounded = stored.to_array();
  for (int64_t part = 0; part < kParts; ++part) {
    HostTensor values(DType::kFloat32, random_.array({kRows, kHeads, kWidth}), 3);
    const Array before = values.to_array();
    ops().merge_scale({.log_sum_exp = stored.view(), .part = part, .values = values.view()}, {});
    expect_close(
        values.to_array(), reference::merge_scale(before, rounded, part), {.relative = 5e-6});
    EXPECT_TRUE(values.is_padding_untouched());
  }
}

TEST_P(MlaDecodeTest, MergeScaleGivesZeroWhereNobodyHasTokens) {
  const HostTensor lse(DType::kFloat32, Array({2, 1, 1}, -std::numeric_limits<double>::infinity()));
  HostTensor values(DType::kFloat32, Array({1, 1, 4}, 1.0));
  ops().merge_scale({.log_sum_exp = lse.view(), .part = 0, .values = values.view()}, {});
  EXPECT_EQ(values.to_array().values, std::vector<double>(4, 0.0));
}

TESSERA_TEST_THREADS(MlaDecodeTest);

}  // namespace
}  // namespace tessera::testing
