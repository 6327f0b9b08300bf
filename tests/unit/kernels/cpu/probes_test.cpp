// Probes against a plain double loop over the same signs.

#include <cmath>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/ops/probe_signs.h"
#include "tests/unit/kernels/cpu/latent_fixture.h"
#include "tests/unit/kernels/cpu/ops_fixture.h"

namespace tessera::testing {
namespace {

using kernels::DType;
using kernels::kBlockTokens;
using kernels::LatentColumns;
using kernels::ProbeSum;

double sign(int64_t layer, int64_t position, int64_t first_word, int64_t column) {
  const uint64_t word = kernels::probe_sign_word(layer, position, first_word + column / 64);
  return ((word >> (column % 64)) & 1U) != 0 ? -1.0 : 1.0;
}

/// A layer of T tokens: what an op is given, and the values as the cache rounds them.
struct Latents {
  Latents(Random& random, DType dtype, int64_t count, int64_t width, int64_t rope_width)
      : latent(DType::kFloat32, random.array({count, width}), 5),
        rope(DType::kFloat32, random.array({count, rope_width}), 2),
        latent_values(HostTensor(dtype, latent.to_array()).to_array()),
        rope_values(HostTensor(dtype, rope.to_array()).to_array()) {}

  /// Of some latent columns and the rope part of one token.
  [[nodiscard]] ProbeSum sum(int64_t token,
                             int64_t layer,
                             int64_t position,
                             const std::vector<int64_t>& columns) const {
    ProbeSum total;
    const auto add = [&](int64_t word, int64_t column, double value) {
      total.sum += sign(layer, position, word, column) * value;
      total.magnitude += std::fabs(value);
    };
    for (const int64_t column : columns) {
      add(0, column, latent_values.at(token, column));
    }
    for (int64_t column = 0; column < rope_values.dim(1); ++column) {
      add(kernels::kProbeRopeWord, column, rope_values.at(token, column));
    }
    return total;
  }

  HostTensor latent;
  HostTensor rope;
  Array latent_values;
  Array rope_values;
};

class ProbesTest : public CpuOpsTest {};

TEST(ProbeSignsTest, AreBalancedAndDifferByLayerPositionAndWord) {
  std::set<uint64_t> words;
  int64_t num_set = 0;
  for (int64_t layer = 0; layer < 8; ++layer) {
    for (int64_t position = 0; position < 300; ++position) {
      for (const int64_t word : {int64_t{0}, int64_t{1}, int64_t{7}, kernels::kProbeRopeWord}) {
        const uint64_t bits = kernels::probe_sign_word(layer, position, word);
        words.insert(bits);
        num_set += __builtin_popcountll(bits);
      }
    }
  }
  constexpr int64_t kNumWords = 8 * 300 * 4;
  EXPECT_EQ(words.size(), static_cast<size_t>(kNumWords));
  EXPECT_NEAR(static_cast<double>(num_set), kNumWords * 32.0, 5 * std::sqrt(kNumWords * 16.0));
}

TEST_P(ProbesTest, OfLatentsIsAPlainLoopOverRoundedValues) {
  struct Case {
    int64_t width;
    LatentColumns columns;
    int64_t rope_width;
  };
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const Case& shape : {Case{512, LatentColumns::of_slice(512, 0, 1, 2), 64},
                              Case{2200, {.ranges = {{{100, 2060}}}}, 64},
                              Case{32, LatentColumns::of_slice(32, 0, 1, 2), 16},
                              Case{70, {.ranges = {{{3, 67}}}}, 10},
                              Case{192, LatentColumns::of_slice(192, 0, 1, 2), 0},
                              Case{28, LatentColumns::of_slice(28, 8, 1, 4), 6},
                              Case{512, LatentColumns::of_slice(512, 64, 0, 2), 64},
                              Case{300, {.ranges = {{{290, 7}, {63, 130}}}}, 4}}) {
      constexpr int64_t kCount = 100;
      const std::vector<int32_t> blocks = {2, 0};
      std::vector<int64_t> slot_list = slots_of(blocks, kCount);
      slot_list[7] = -1;
      const HostTensor slots(slot_list);
      std::vector<int32_t> positions;
      for (int32_t i = 0; i < kCount; ++i) {
        positions.push_back(i + 1000);
      }
      const HostTensor position_tensor(positions);
      std::vector<double> sums(static_cast<size_t>(3 * kBlockTokens * 2), 123.0);
      std::vector<ProbeSum> expected(kCount);
      for (int64_t layer = 0; layer < 3; ++layer) {
        const Latents latents(random_, dtype, kCount, shape.width, shape.rope_width);
        ops().latent_probe({.latent = latents.latent.view(),
                            .rope = latents.rope.view(),
                            .positions = position_tensor.view(),
                            .slots = slots.view(),
                            .layer = layer,
                            .columns = shape.columns,
                            .dtype = dtype,
                            .sums = sums.data() + 1,
                            .sum_stride = 2},
                           {});
        for (int64_t token = 0; token < kCount; ++token) {
          const ProbeSum own = latents.sum(token, layer, token + 1000, row_columns(shape.columns));
          expected[static_cast<size_t>(token)].sum += own.sum;
          expected[static_cast<size_t>(token)].magnitude += own.magnitude;
        }
      }
      for (size_t token = 0; token < kCount; ++token) {
        if (slot_list[token] < 0) {
          continue;
        }
        const auto slot = static_cast<size_t>(slot_list[token]);
        ASSERT_NEAR(sums[slot * 2 + 1], expected[token].sum, 1e-13 * expected[token].magnitude)
            << shape.width << ", token " << token;
        ASSERT_EQ(sums[slot * 2], 123.0) << "the other image's";
      }
      EXPECT_EQ(sums[static_cast<size_t>(slots_of(blocks, kCount)[7] * 2 + 1)], 123.0);
    }
  }
}

TEST_P(ProbesTest, OfACacheIsAPlainLoopOverWhatItHolds) {
  constexpr int64_t kEnd = 4 * kBlockTokens + 11;  // the sequence has blocks 0 to 4
  // What the cache's 40 columns are of the latent.
  constexpr LatentColumns kColumns = {.ranges = {{{120, 22}, {50, 18}}}};
  const std::vector<int64_t> held = row_columns(kColumns);
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    // Blocks 1 and 3 of the sequence, then 4, 5 and 6 (nothing of 5 and 6 counts).
    for (const int64_t step : {int64_t{2}, int64_t{1}}) {
      const int64_t first_index = step == 2 ? 1 : 4;
      const std::vector<int32_t> blocks =
          step == 2 ? std::vector<int32_t>{3, 1} : std::vector<int32_t>{0, 2, 4};
      std::vector<ProbeSum> sums(blocks.size(), ProbeSum{9.0, 9.0});
      std::vector<ProbeSum> expected(blocks.size());
      for (int64_t layer = 0; layer < 2; ++layer) {
        const PoisonedCache cache(dtype, 5, 40, 12);
        const auto count = static_cast<int64_t>(blocks.size()) * kBlockTokens;
        const Latents latents(random_, dtype, count, 40, 12);
        std::vector<int64_t> slot_list = slots_of(blocks, count);
        for (int64_t row = 0; row < count; ++row) {
          const int64_t index = first_index + row / kBlockTokens * step;
          const int64_t position = index * kBlockTokens + row % kBlockTokens;
          if (position >= kEnd) {
            slot_list[static_cast<size_t>(row)] = -1;  // stays NaN
            continue;
          }
          ProbeSum own;
          for (int64_t column = 0; column < 40; ++column) {
            const double value = latents.latent_values.at(row, column);
            own.sum += sign(layer, position, 0, held[static_cast<size_t>(column)]) * value;
            own.magnitude += std::fabs(value);
          }
          const ProbeSum rope = latents.sum(row, layer, position, {});
          ProbeSum& kept = expected[static_cast<size_t>(row / kBlockTokens)];
          kept.sum += own.sum + rope.sum;
          kept.magnitude += own.magnitude + rope.magnitude;
        }
        const HostTensor slots(slot_list);
        ops().latent_write({.latent = latents.latent.view(),
                            .rope = latents.rope.view(),
                            .slots = slots.view(),
                            .columns = LatentColumns::all(40),
                            .cache = cache.view()},
                           {});
        const HostTensor block_ids(blocks);
        ops().cache_probe({.cache = cache.view(),
                           .blocks = block_ids.view(),
                           .layer = layer,
                           .columns = kColumns,
                           .first_index = first_index,
                           .index_step = step,
                           .end = kEnd,
                           .sums = sums.data()},
                          {});
      }
      for (size_t i = 0; i < blocks.size(); ++i) {
        ASSERT_NEAR(sums[i].sum, expected[i].sum, 1e-13 * expected[i].magnitude) << i;
        ASSERT_NEAR(sums[i].magnitude, expected[i].magnitude, 1e-13 * expected[i].magnitude) << i;
      }
    }
  }
}

TESSERA_TEST_THREADS(ProbesTest);

}  // namespace
}  // namespace tessera::testing
