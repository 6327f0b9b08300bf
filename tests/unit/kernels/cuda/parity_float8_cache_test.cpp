// Float8 rows of the latent cache at the sizes of real models: the same bytes on both backends, and
// the same attention over them.

#include <algorithm>
#include <cmath>
#include <optional>
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

struct Float8Case {
  int64_t heads;
  int64_t width;
  std::vector<int32_t> lengths;  ///< of sequences
  DType dtype = DType::kBFloat16;
  int64_t rope = 64;
  int64_t row_tokens = 1;
  kernels::LatentWindow window = {};
  /// Latents are multiplied by 2^exponent (above 0 those of every other token), queries by
  /// 2^-exponent.
  int exponent = 0;
};

/// Attention over a cache in which all that is no token of the paged pass is NaN.
class Float8DecodeTest : public ParityTest {
 protected:
  void check(const Float8Case& shape) {
    SCOPED_TRACE(std::to_string(shape.heads) + " heads, width " + std::to_string(shape.width) +
                 ", rope " + std::to_string(shape.rope) + ", " + std::to_string(shape.row_tokens) +
                 " query tokens, window " + std::to_string(shape.window.num_first) + " + " +
                 std::to_string(shape.window.num_last) + ", 2^" + std::to_string(shape.exponent));
    const auto num_sequences = static_cast<int64_t>(shape.lengths.size());
    const int64_t num_rows = num_sequences * shape.row_tokens;
    const int64_t longest = *std::max_element(shape.lengths.begin(), shape.lengths.end());
    const int64_t max_blocks = (longest + kBlockTokens - 1) / kBlockTokens;
    const int64_t num_blocks = num_sequences * max_blocks + 3;
    const Float8Cache cache(num_blocks, shape.width, shape.rope);
    const std::vector<int32_t> blocks = random_.permutation(num_blocks);
    const auto ring =
        kernels::WindowRing::create(shape.window, std::max<int64_t>(2, shape.row_tokens));
    Array tables({num_rows, max_blocks});
    std::vector<int32_t> row_lengths;
    std::vector<int64_t> first_slots;
    for (int64_t row = 0; row < num_rows; ++row) {
      const int64_t sequence = row / shape.row_tokens;
      const auto later = static_cast<int32_t>(shape.row_tokens - 1 - row % shape.row_tokens);
      const int32_t length = shape.lengths[static_cast<size_t>(sequence)];
      const auto first = blocks.begin() + sequence * max_blocks;
      std::copy_n(first, max_blocks, tables.values.begin() + row * max_blocks);
      row_lengths.push_back(std::max(0, length - later));
      first_slots.push_back(sequence * ring.rows_per_sequence());
      if (later == 0) {
        fill(cache, shape, {first, first + max_blocks}, length);
      }
    }
    const int64_t ring_blocks = num_sequences * ring.rows_per_sequence() / kBlockTokens + 1;
    HostTensor rings(shape.dtype,
                     random_.array({ring_blocks * kBlockTokens, shape.width + shape.rope}));
    const HostTensor block_tables(DType::kInt32, tables, 1);
    const HostTensor lengths(row_lengths);
    const HostTensor slots(first_slots);
    Array queries = random_.array({num_rows, shape.heads, shape.width});
    for (double& value : queries.values) {
      value *= std::exp2(-shape.exponent);
    }
    const HostTensor q_latent(shape.dtype, queries);
    const HostTensor q_rope(shape.dtype, random_.array({num_rows, shape.heads, shape.rope}));
    std::optional<kernels::DecodeWindow> window;
    if (!shape.window.is_empty()) {
      window = {.cache = {.base = rings.view().data,
                          .block_stride_bytes = kBlockTokens * (shape.width + shape.rope) *
                                                kernels::dtype_bytes(shape.dtype),
                          .num_blocks = ring_blocks,
                          .latent_width = shape.width,
                          .rope_width = shape.rope,
                          .dtype = shape.dtype},
                .ring = ring,
                .columns = LatentColumns::all(shape.width),
                .q_latent = q_latent.view(),
                .first_slots = slots.view()};
    }
    HostTensor expected(shape.dtype, {num_rows, shape.heads, shape.width});
    HostTensor expected_lse(DType::kFloat32, std::vector<int64_t>{num_rows, shape.heads});
    HostTensor actual = expected;
    HostTensor actual_lse = expected_lse;
    const auto attend = [&](kernels::Ops& ops, HostTensor& out, HostTensor& lse) {
      ops.mla_decode({.q_latent = q_latent.view(),
                      .q_rope = q_rope.view(),
                      .cache = cache.view(),
                      .block_tables = block_tables.view(),
                      .lengths = lengths.view(),
                      .scale = 0.1147F,
                      .row_tokens = shape.row_tokens,
                      .window = window,
                      .out = out.view(),
                      .log_sum_exp = lse.view()},
                     {});
    };
    attend(cpu(), expected, expected_lse);
    attend(gpu(), actual, actual_lse);
    expect_same(actual, expected, parity_of(shape.dtype));
    expect_same(actual_lse, expected_lse, kFloat32Parity);
  }

 private:
  /// The tokens outside of the window of a sequence's last query token.
  void fill(const Float8Cache& cache,
            const Float8Case& shape,
            const std::vector<int32_t>& table,
            int64_t length) {
    const int64_t begin = shape.window.outside_begin(length);
    const int64_t count = shape.window.outside_end(length) - begin;
    Array latents = random_.array({count, shape.width});
    const int64_t step = shape.exponent > 0 ? 2 : 1;
    for (int64_t token = 0; token < count; token += step) {
      for (int64_t i = 0; i < shape.width; ++i) {
        latents.at(token, i) *= std::exp2(shape.exponent);
      }
    }
    std::vector<int64_t> of_tokens = slots_of(table, length);
    of_tokens = {of_tokens.begin() + begin, of_tokens.begin() + begin + count};
    const HostTensor latent(DType::kFloat32, latents);
    const HostTensor rope(DType::kFloat32, random_.array({count, shape.rope}));
    const HostTensor slots(of_tokens);
    cpu().latent_write({.latent = latent.view(),
                        .rope = rope.view(),
                        .slots = slots.view(),
                        .columns = LatentColumns::all(shape.width),
                        .cache = cache.view()},
                       {});
  }
};

TEST_F(Float8DecodeTest, OfAnyWidth) {
  for (const int64_t width : {8, 64, 72, 120, 128, 136, 200, 256, 264, 320, 512}) {
    for (const int64_t rope : {32, 64}) {
      check({.heads = 16, .width = width, .lengths = {1, 63, 64, 65, 1000, 0}, .rope = rope});
    }
  }
}

TEST_F(Float8DecodeTest, OfAnyNumberOfHeads) {
  for (const int64_t heads : {1, 5, 20, 64, 65, 128}) {
    for (const int64_t width : {64, 72, 128, 200, 256}) {
      check({.heads = heads, .width = width, .lengths = {0, 1, 63, 64, 65, 1000}});
    }
  }
}

TEST_F(Float8DecodeTest, OfALongContextInManyParts) {
  for (const int64_t heads : {64, 128}) {
    for (const int64_t width : {64, 128, 256}) {
      check({.heads = heads, .width = width, .lengths = {20000, 64, 0, 4001}});
    }
  }
}

TEST_F(Float8DecodeTest, OfManySequences) {
  std::vector<int32_t> lengths(300);
  for (int32_t& length : lengths) {
    length = static_cast<int32_t>(random_.index(300));
  }
  lengths[0] = 300;
  check({.heads = 16, .width = 256, .lengths = lengths});
  check({.heads = 128, .width = 256, .lengths = lengths});
  check({.heads = 65, .width = 72, .lengths = lengths});
}

TEST_F(Float8DecodeTest, SeveralQueryTokensOfASequence) {
  for (const int64_t row_tokens : {2, 4}) {
    for (const int64_t heads : {1, 16, 20, 32, 64}) {
      check({.heads = heads,
             .width = 256,
             .lengths = {4, 63, 64, 65, 66, 67, 1000, 0},
             .row_tokens = row_tokens});
    }
  }
}

TEST_F(Float8DecodeTest, OutsideOfAWindow) {
  for (const int64_t heads : {20, 64, 128}) {
    for (const int64_t width : {128, 256}) {
      check({.heads = heads,
             .width = width,
             .lengths = {1, 68, 69, 70, 128, 132, 133, 1000, 0},
             .window = {4, 64}});
    }
  }
  check({.heads = 16, .width = 256, .lengths = {5, 10, 11, 700}, .window = {10, 0}});
  check({.heads = 16,
         .width = 256,
         .lengths = {73, 88, 150, 700},
         .row_tokens = 4,
         .window = {70, 16}});
}

TEST_F(Float8DecodeTest, OfLatentsOfAnySize) {
  for (const int exponent : {-80, -20, 8, 20, 90}) {
    for (const int64_t heads : {20, 128}) {
      check({.heads = heads, .width = 256, .lengths = {1, 64, 300}, .exponent = exponent});
    }
  }
}

TEST_F(Float8DecodeTest, InFloat32) {
  check({.heads = 5, .width = 72, .lengths = {700, 2}, .dtype = DType::kFloat32});
}

}  // namespace
}  // namespace tessera::testing
