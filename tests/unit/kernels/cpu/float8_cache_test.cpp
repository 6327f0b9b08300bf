// Float8 rows of the latent cache: written, gathered, probed and attended to. What is stored is
// known exactly, so that operations on it have the tolerances that they have on other rows.

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/ops/probe_signs.h"
#include "tests/support/reference_ops.h"
#include "tests/unit/kernels/cpu/latent_fixture.h"
#include "tests/unit/kernels/cpu/ops_fixture.h"

namespace tessera::testing {
namespace {

using kernels::DType;
using kernels::kBlockTokens;
using kernels::LatentColumns;

constexpr DType kTypes[] = {DType::kFloat32, DType::kBFloat16};
/// Of e4m3, which has 3 bits behind the first one: half of the last one, relative.
constexpr double kFloat8Rounding = 0x1.0p-4;

class Float8CacheTest : public CpuOpsTest {
 protected:
  void write(const Array& latent,
             const Array& rope,
             const std::vector<int64_t>& slots,
             const LatentColumns& columns,
             const kernels::LatentCacheView& cache) {
    const HostTensor latents(DType::kFloat32, latent, 3);
    const HostTensor ropes(DType::kFloat32, rope, 1);
    const HostTensor slot(slots);
    ops().latent_write({.latent = latents.view(),
                        .rope = ropes.view(),
                        .slots = slot.view(),
                        .columns = columns,
                        .cache = cache},
                       {});
  }
  void write_all(const Array& latent,
                 const Array& rope,
                 const std::vector<int32_t>& blocks,
                 const kernels::LatentCacheView& cache) {
    write(latent, rope, slots_of(blocks, latent.dim(0)), LatentColumns::all(latent.dim(1)), cache);
  }
  [[nodiscard]] Array gathered(const kernels::LatentCacheView& cache, int64_t count) {
    const HostTensor table(std::vector<int32_t>{0});
    HostTensor latent(DType::kFloat32, std::vector<int64_t>{count, cache.latent_width});
    HostTensor rope(DType::kFloat32, std::vector<int64_t>{count, cache.rope_width});
    ops().latent_gather({.cache = cache,
                         .block_table = table.view(),
                         .columns = LatentColumns::all(cache.latent_width),
                         .latent = latent.view(),
                         .rope = rope.view()},
                        {});
    return latent.to_array();
  }
};

TEST_P(Float8CacheTest, RowsComeBackAsE4m3RoundsThem) {
  for (const int64_t width : {8, 24, 40, 104, 256, 512}) {
    for (const int64_t count : {1, 63, 64, 65, 200}) {
      const int64_t rope_width = width % 16 == 0 ? 64 : 6;
      const Float8Cache cache(6, width, rope_width);
      const std::vector<int32_t> blocks = {4, 0, 5, 2};
      const Array latent = random_latents(random_, count, width);
      const Array rope = random_.array({count, rope_width});
      write_all(latent, rope, blocks, cache.view());
      const Array stored = reference::float8_rows(latent);
      for (const DType dtype : kTypes) {
        const int64_t begin = count / 2;
        const HostTensor table(blocks);
        HostTensor latent_out(dtype, std::vector<int64_t>{count - begin, width}, 5);
        HostTensor rope_out(dtype, std::vector<int64_t>{count - begin, rope_width}, 1);
        ops().latent_gather({.cache = cache.view(),
                             .block_table = table.view(),
                             .begin = begin,
                             .columns = LatentColumns::all(width),
                             .latent = latent_out.view(),
                             .rope = rope_out.view()},
                            {});
        // Exact in both types: a scale is a power of two.
        EXPECT_EQ(latent_out.to_array().values, stored.rows(begin, count - begin).values);
        EXPECT_EQ(rope_out.to_array().values,
                  HostTensor(DType::kBFloat16, rope.rows(begin, count - begin)).to_array().values);
        EXPECT_TRUE(latent_out.is_padding_untouched());
      }
      for (int64_t row = 0; row < count; ++row) {
        const double smallest = reference::float8_unit(latent.row(row), width) * 0x1.0p-10;
        for (int64_t i = 0; i < width; ++i) {
          ASSERT_LE(std::fabs(stored.at(row, i) - latent.at(row, i)),
                    std::max(kFloat8Rounding * std::fabs(latent.at(row, i)), smallest));
        }
      }
    }
  }
}

TEST_P(Float8CacheTest, SlicesHaveTheirOwnScales) {
  constexpr int64_t kCount = 66, kWidth = 28, kShared = 8;
  const Array latent = random_latents(random_, kCount, kWidth);
  const Array rope = random_.array({kCount, 4});
  for (const int64_t num_slices : {1, 2, 4}) {
    for (int64_t slice = 0; slice < num_slices; ++slice) {
      const auto columns = LatentColumns::of_slice(kWidth, kShared, slice, num_slices);
      const std::vector<int64_t> held = row_columns(columns);
      const Float8Cache cache(2, columns.width(), 4);
      const std::vector<int32_t> blocks = {1, 0};
      write(latent, rope, slots_of(blocks, kCount), columns, cache.view());
      const HostTensor table(blocks);
      HostTensor latent_out(DType::kBFloat16, std::vector<int64_t>{kCount, kWidth});
      HostTensor rope_out(DType::kBFloat16, std::vector<int64_t>{kCount, 4});
      ops().latent_gather({.cache = cache.view(),
                           .block_table = table.view(),
                           .columns = columns,
                           .latent = latent_out.view(),
                           .rope = rope_out.view()},
                          {});
      EXPECT_EQ(pick_columns(latent_out.to_array(), held).values,
                reference::float8_rows(pick_columns(latent, held)).values);
    }
  }
}

TEST_P(Float8CacheTest, ARowIsLatentsScaleAndRopePartWithZerosBetween) {
  const Float8Cache cache(1, 5, 3);
  Array latent({1, 5}, {448.0, -1.0, 0.0, 1.0, 0.0});
  write(latent, Array({1, 3}, 1.0), {7}, LatentColumns::all(5), cache.view());
  const float scale = 1.0F;
  std::vector<char> expected(32, '\0');
  const std::vector<uint8_t> codes = {0x7e, 0xb8, 0x00, 0x38, 0x00};
  std::memcpy(expected.data(), codes.data(), codes.size());
  std::memcpy(expected.data() + 8, &scale, sizeof(scale));
  for (size_t i = 0; i < 3; ++i) {
    expected[16 + 2 * i] = '\x80';  // 0x3f80 is 1
    expected[16 + 2 * i + 1] = '\x3f';
  }
  EXPECT_EQ(std::vector<char>(cache.row(7), cache.row(8)), expected);
  for (size_t i = 0; i < cache.bytes().size(); ++i) {
    const auto at = static_cast<int64_t>(i);
    ASSERT_TRUE(at / 32 == 7 || cache.bytes()[i] == '\xff') << "byte " << at;
  }
}

TEST_P(Float8CacheTest, RowsOfZerosAndOfHugeAndTinyNumbers) {
  constexpr double kLargest = 3.4028234663852886e38;
  const Array latent({5, 4}, {0.0,      0.0,   0.0,   0.0,     //
                              kLargest, 1e38,  -3e38, 1.0,     //
                              1e-38,    2e-38, 0.0,   -3e-39,  //
                              1e-30,    -1e30, 3e29,  0.0,     //
                              1e-44,    0.0,   0.0,   0.0});
  const Float8Cache cache(1, 4, 2);
  write_all(latent, Array({5, 2}), {0}, cache.view());
  const Array stored = gathered(cache.view(), 5);
  EXPECT_EQ(stored.values, reference::float8_rows(latent).values);
  EXPECT_EQ(stored.at(0, 0), 0.0);
  EXPECT_EQ(stored.at(1, 0), 448.0 * 0x1.0p119);  // as large as it goes, not infinite
  EXPECT_NEAR(stored.at(3, 1), -1e30, 1e30 * kFloat8Rounding);
  EXPECT_EQ(stored.at(4, 0), 0.0);
}

TEST_P(Float8CacheTest, WhatIsNoNumberStaysNone) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const Array latent({2, 4}, {1.0, std::nan(""), -2.0, 0.5, 1.0, -kInfinity, 3.0, 2.0});
  const Float8Cache cache(1, 4, 2);
  write_all(latent, Array({2, 2}), {0}, cache.view());
  const Array stored = gathered(cache.view(), 2);
  EXPECT_TRUE(std::isnan(stored.at(0, 1)));
  EXPECT_EQ(stored.at(0, 2), -2.0);
  EXPECT_TRUE(std::isnan(stored.at(1, 1)));
}

TEST_P(Float8CacheTest, ProbesAreOfWhatIsStored) {
  constexpr int64_t kCount = 70, kWidth = 24, kRope = 6;
  const LatentColumns columns = LatentColumns::of_slice(kWidth, 8, 1, 2);
  const std::vector<int64_t> held = row_columns(columns);
  const Array latent = random_latents(random_, kCount, kWidth);
  const Array rope = random_.array({kCount, kRope});
  const std::vector<int32_t> blocks = {1, 0};
  const Float8Cache cache(2, columns.width(), kRope);
  const std::vector<int64_t> slot_list = slots_of(blocks, kCount);
  write(latent, rope, slot_list, columns, cache.view());

  const Array stored = reference::float8_rows(pick_columns(latent, held));
  const Array stored_rope = HostTensor(DType::kBFloat16, rope).to_array();
  const auto sign = [](int64_t position, int64_t first_word, int64_t column) {
    const uint64_t word = kernels::probe_sign_word(3, position, first_word + column / 64);
    return ((word >> (column % 64)) & 1U) != 0 ? -1.0 : 1.0;
  };
  std::vector<double> expected(kCount);
  double magnitude = 0.0;
  for (int64_t t = 0; t < kCount; ++t) {
    double& sum = expected[static_cast<size_t>(t)];
    for (size_t i = 0; i < held.size(); ++i) {
      sum += sign(t, 0, held[i]) * stored.at(t, static_cast<int64_t>(i));
      magnitude += std::fabs(stored.at(t, static_cast<int64_t>(i)));
    }
    for (int64_t i = 0; i < kRope; ++i) {
      sum += sign(t, kernels::kProbeRopeWord, i) * stored_rope.at(t, i);
    }
  }
  std::vector<int32_t> positions;
  for (int32_t t = 0; t < kCount; ++t) {
    positions.push_back(t);
  }
  const HostTensor latents(DType::kFloat32, latent), ropes(DType::kFloat32, rope);
  const HostTensor position(positions), slots(slot_list), block_ids(blocks);
  std::vector<double> of_latents(2 * kBlockTokens);
  ops().latent_probe({.latent = latents.view(),
                      .rope = ropes.view(),
                      .positions = position.view(),
                      .slots = slots.view(),
                      .layer = 3,
                      .columns = columns,
                      .dtype = DType::kFloat8E4M3,
                      .sums = of_latents.data()},
                     {});
  std::vector<kernels::ProbeSum> of_cache(2);
  ops().cache_probe({.cache = cache.view(),
                     .blocks = block_ids.view(),
                     .layer = 3,
                     .columns = columns,
                     .end = kCount,
                     .sums = of_cache.data()},
                    {});
  double total = 0.0;
  for (size_t t = 0; t < expected.size(); ++t) {
    ASSERT_NEAR(of_latents[static_cast<size_t>(slot_list[t])], expected[t], 1e-13 * magnitude) << t;
    total += expected[t];
  }
  EXPECT_NEAR(of_cache[0].sum + of_cache[1].sum, total, 1e-13 * magnitude);
}

struct DecodeShape {
  int64_t num_heads = 1;
  int64_t latent = 8;
  int64_t rope = 2;
  DType dtype = DType::kFloat32;
};

class Float8DecodeTest : public Float8CacheTest {
 protected:
  static constexpr double kScale = 0.0625;

  static Array row_of(const Array& array, int64_t b) {
    Array row = array.rows(b, 1);
    row.shape.erase(row.shape.begin());
    return row;
  }

  /// How far the attention over what is stored may be from that over the latents themselves: a
  /// logit is off by d at most, so a weight by a factor of exp(2 d) at most, and so is each value
  /// by its own rounding.
  static double format_slack(const reference::MlaDecode& exact, const Array& stored) {
    double shift = 0.0, value_error = 0.0, largest = 0.0;
    for (int64_t j = 0; j < stored.dim(0); ++j) {
      const double smallest =
          reference::float8_unit(exact.latent.row(j), stored.dim(1)) * 0x1.0p-10;
      for (int64_t h = 0; h < exact.q_latent.dim(0); ++h) {
        double error = 0.0;
        for (int64_t i = 0; i < stored.dim(1); ++i) {
          const double magnitude = std::fabs(exact.latent.at(j, i));
          const double bound = std::max(kFloat8Rounding * magnitude, smallest);
          error += std::fabs(exact.q_latent.at(h, i)) * bound;
          value_error = std::max(value_error, bound);
          largest = std::max(largest, magnitude);
        }
        for (int64_t i = 0; i < exact.rope.dim(1); ++i) {
          error += std::fabs(exact.q_rope.at(h, i) * exact.rope.at(j, i)) * kBFloat16Rounding;
        }
        shift = std::max(shift, kScale * error);
      }
    }
    return std::expm1(2.0 * shift) * (largest + value_error) + value_error;
  }

  void check(const std::vector<int32_t>& lengths, const DecodeShape& shape) {
    const auto batch = static_cast<int64_t>(lengths.size());
    const int64_t max_blocks = *std::max_element(lengths.begin(), lengths.end()) / kBlockTokens + 1;
    const int64_t num_blocks = batch * max_blocks + 2;
    const Float8Cache cache(num_blocks, shape.latent, shape.rope);
    const std::vector<int32_t> blocks = random_.permutation(num_blocks);
    Array tables({batch, max_blocks});
    std::vector<Array> latents, ropes;
    for (int64_t b = 0; b < batch; ++b) {
      const auto first = blocks.begin() + b * max_blocks;
      std::copy_n(first, max_blocks, tables.values.begin() + b * max_blocks);
      const int64_t length = lengths[static_cast<size_t>(b)];
      latents.push_back(
          HostTensor(DType::kFloat32, random_.array({length, shape.latent})).to_array());
      ropes.push_back(HostTensor(DType::kBFloat16, random_.array({length, shape.rope})).to_array());
      write_all(latents.back(), ropes.back(), {first, first + max_blocks}, cache.view());
    }
    const HostTensor q_latent(
        shape.dtype, random_.array({batch, shape.num_heads, shape.latent}), 2);
    const HostTensor q_rope(shape.dtype, random_.array({batch, shape.num_heads, shape.rope}), 5);
    const HostTensor block_tables(DType::kInt32, tables, 4);
    const HostTensor length(lengths);
    HostTensor out(shape.dtype, {batch, shape.num_heads, shape.latent}, 1);
    HostTensor lse(DType::kFloat32, std::vector<int64_t>{batch, shape.num_heads});
    ops().mla_decode({.q_latent = q_latent.view(),
                      .q_rope = q_rope.view(),
                      .cache = cache.view(),
                      .block_tables = block_tables.view(),
                      .lengths = length.view(),
                      .scale = static_cast<float>(kScale),
                      .out = out.view(),
                      .log_sum_exp = lse.view()},
                     {});
    EXPECT_TRUE(out.is_padding_untouched());
    double error = 0.0, norm = 0.0;
    for (int64_t b = 0; b < batch; ++b) {
      SCOPED_TRACE("length " + std::to_string(lengths[static_cast<size_t>(b)]));
      reference::MlaDecode params{.q_latent = row_of(q_latent.to_array(), b),
                                  .q_rope = row_of(q_rope.to_array(), b),
                                  .latent = latents[static_cast<size_t>(b)],
                                  .rope = ropes[static_cast<size_t>(b)],
                                  .scale = kScale};
      const auto exact = reference::mla_decode(params);
      const Array stored = reference::float8_rows(params.latent);
      const double slack = format_slack(params, stored);
      params.latent = stored;
      const auto expected = reference::mla_decode(params);
      const Tolerance rounding = tolerance(shape, params.latent.dim(0));
      expect_close(row_of(out.to_array(), b), expected.out, rounding);
      expect_close(row_of(lse.to_array(), b),
                   expected.log_sum_exp,
                   {.relative = kFloat32Rounding, .slack = rounding.slack});
      expect_close(row_of(out.to_array(), b),
                   exact.out,
                   {.relative = rounding.relative, .slack = rounding.slack + slack});
      const Array actual = row_of(out.to_array(), b);
      for (size_t i = 0; i < actual.values.size(); ++i) {
        error += std::pow(actual.values[i] - exact.out.values[i], 2);
        norm += std::pow(exact.out.values[i], 2);
      }
    }
    // Far from the worst case: roundings add up like noise.
    const double relative = std::sqrt(error / norm);
    EXPECT_LT(relative, kFloat8Rounding);
    RecordProperty("output_error", std::to_string(relative));
  }

  /// As in mla_decode_test: sums of R + dr products round to float32, weights follow, and the sum
  /// rounds once a key. Values are at most 1.
  static Tolerance tolerance(const DecodeShape& shape, int64_t length) {
    const double logit_error = kScale * static_cast<double>(shape.latent) / 2.0 + 20.0;
    return {.relative = rounding_of(shape.dtype),
            .slack = (logit_error + static_cast<double>(length)) * kFloat32Rounding};
  }
};

TEST_P(Float8DecodeTest, MatchesTheReferenceForMixedLengths) {
  for (const DType dtype : kTypes) {
    check({1, 63, 64, 65, 127, 1000, 0}, {3, 40, 8, dtype});
  }
}

TEST_P(Float8DecodeTest, MatchesTheReferenceForAnyWidthAndHeads) {
  for (const int64_t width : {8, 24, 104, 256, 512}) {
    for (const int64_t heads : {1, 5, 17}) {
      SCOPED_TRACE("R " + std::to_string(width) + ", heads " + std::to_string(heads));
      check({65, 130}, {heads, width, 64, DType::kFloat32});
      check({65, 130}, {heads, width, 64, DType::kBFloat16});
    }
  }
}

TEST_P(Float8DecodeTest, SplitsALongSequence) {
  check({2500, 1}, {2, 24, 8, DType::kBFloat16});
}

TEST_P(Float8DecodeTest, TokensOfTheExactWindowComeFromItsOwnRows) {
  constexpr int64_t kWidth = 24, kRope = 8, kHeads = 3, kLength = 100;
  const kernels::WindowRing ring = kernels::WindowRing::create({.num_first = 3, .num_last = 20});
  const LatentColumns columns = LatentColumns::of_slice(kWidth, 8, 1, 2);
  const std::vector<int64_t> held = row_columns(columns);
  for (const DType dtype : kTypes) {
    const Float8Cache paged(3, columns.width(), kRope);
    const PoisonedCache whole(dtype, 1, kWidth, kRope);
    kernels::LatentCacheView rings = whole.view();
    rings.block_stride_bytes = kBlockTokens * rings.layout().row_bytes;
    const Array latent = HostTensor(dtype, random_.array({kLength, kWidth})).to_array();
    const Array rope = HostTensor(DType::kBFloat16, random_.array({kLength, kRope})).to_array();
    std::vector<int64_t> paged_slots = slots_of({2, 0}, kLength), window_slots;
    Array values = reference::float8_rows(pick_columns(latent, held));
    for (int64_t position = 0; position < kLength; ++position) {
      const bool is_inside = ring.window.contains(position, kLength);
      window_slots.push_back(is_inside ? ring.row(position) : -1);
      if (is_inside) {
        paged_slots[static_cast<size_t>(position)] = -1;
        for (size_t i = 0; i < held.size(); ++i) {
          values.at(position, static_cast<int64_t>(i)) = latent.at(position, held[i]);
        }
      }
    }
    write(latent, rope, paged_slots, columns, paged.view());
    write(latent, rope, window_slots, LatentColumns::all(kWidth), rings);
    const HostTensor q_latent(dtype, random_.array({1, kHeads, columns.width()}));
    const HostTensor q_whole(dtype, random_.array({1, kHeads, kWidth}));
    const HostTensor q_rope(dtype, random_.array({1, kHeads, kRope}));
    const HostTensor tables(DType::kInt32, Array({1, 2}, {2.0, 0.0}));
    const HostTensor lengths(std::vector<int32_t>{kLength});
    const HostTensor first_slots(std::vector<int64_t>{0});
    HostTensor out(dtype, std::vector<int64_t>{1, kHeads, columns.width()});
    HostTensor lse(DType::kFloat32, std::vector<int64_t>{1, kHeads});
    ops().mla_decode({.q_latent = q_latent.view(),
                      .q_rope = q_rope.view(),
                      .cache = paged.view(),
                      .block_tables = tables.view(),
                      .lengths = lengths.view(),
                      .scale = static_cast<float>(kScale),
                      .window = kernels::DecodeWindow{.cache = rings,
                                                      .ring = ring,
                                                      .columns = columns,
                                                      .q_latent = q_whole.view(),
                                                      .first_slots = first_slots.view()},
                      .out = out.view(),
                      .log_sum_exp = lse.view()},
                     {});
    const auto expected = reference::mla_decode({.q_latent = row_of(q_latent.to_array(), 0),
                                                 .q_rope = row_of(q_rope.to_array(), 0),
                                                 .latent = values,
                                                 .rope = rope,
                                                 .scale = kScale,
                                                 .window = ring.window,
                                                 .window_q_latent = row_of(q_whole.to_array(), 0),
                                                 .window_latent = latent});
    // Tensor cores may take the window's plain rows: they round weights.
    Tolerance tolerated = tolerance({kHeads, kWidth, kRope, dtype}, kLength);
    tolerated.slack += rounding_of(dtype);
    expect_close(row_of(out.to_array(), 0), expected.out, tolerated);
  }
}

TESSERA_TEST_THREADS(Float8CacheTest);
TESSERA_TEST_THREADS(Float8DecodeTest);

}  // namespace
}  // namespace tessera::testing
