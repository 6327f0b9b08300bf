#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/ops/transform_params.h"
#include "tests/support/reference_ops.h"
#include "tests/unit/kernels/cpu/ops_fixture.h"

namespace tessera::testing {
namespace {

using kernels::DType;

constexpr DType kDtypes[] = {DType::kFloat32, DType::kBFloat16};

class RowwiseTest : public CpuOpsTest {};

/// D squares are summed in float32 (half of which error the root keeps), then four roundings.
Tolerance rms_tolerance(DType out_dtype, int64_t width) {
  return {.relative =
              rounding_of(out_dtype) + (static_cast<double>(width) / 2.0 + 4.0) * kFloat32Rounding};
}

TEST_P(RowwiseTest, RmsNormMatchesTheReference) {
  for (const DType dtype : kDtypes) {
    for (const int64_t width : {1, 7, 16, 33, 128, 1000}) {
      for (const int64_t tokens : {0, 1, 5, 70}) {
        HostTensor x(DType::kFloat32, random_.array({tokens, width}, 3.0), 2);
        const HostTensor before = x;
        const HostTensor weight(DType::kFloat32, random_.array({width}));
        HostTensor out(dtype, std::vector<int64_t>{tokens, width}, 1);
        ops().rms_norm({.x = x.view(),
                        .add = {},
                        .weight = weight.view(),
                        .epsilon = 1e-5F,
                        .out = out.view()},
                       {});
        // epsilon is a float32.
        expect_close(out.to_array(),
                     reference::rms_norm(x.to_array(), weight.to_array(), 1e-5F),
                     rms_tolerance(dtype, width));
        EXPECT_TRUE(out.is_padding_untouched());
        EXPECT_EQ(x.bytes(), before.bytes()) << "x is rewritten only when `add` is given";
      }
    }
  }
}

TEST_P(RowwiseTest, RmsNormAddsTheResidualFirst) {
  HostTensor x(DType::kFloat32, random_.array({33, 100}), 3);
  const HostTensor add(DType::kFloat32, random_.array({33, 100}), 1);
  const HostTensor weight(DType::kFloat32, random_.array({100}));
  HostTensor out(DType::kBFloat16, std::vector<int64_t>{33, 100});
  Array sum = x.to_array();
  const Array added = add.to_array();
  for (size_t i = 0; i < sum.values.size(); ++i) {
    sum.values[i] += added.values[i];
  }
  ops().rms_norm({.x = x.view(), .add = add.view(), .weight = weight.view(), .out = out.view()},
                 {});
  expect_close(x.to_array(), sum, {.relative = kFloat32Rounding});
  EXPECT_TRUE(x.is_padding_untouched());
  expect_close(out.to_array(),
               reference::rms_norm(x.to_array(), weight.to_array(), 1e-6F),
               rms_tolerance(DType::kBFloat16, 100));
}

TEST_P(RowwiseTest, RmsNormWorksInPlace) {
  HostTensor x(DType::kFloat32, random_.array({9, 40}));
  const HostTensor weight(DType::kFloat32, random_.array({40}));
  const Array expected = reference::rms_norm(x.to_array(), weight.to_array(), 1e-6F);
  ops().rms_norm({.x = x.view(), .add = {}, .weight = weight.view(), .out = x.view()}, {});
  expect_close(x.to_array(), expected, rms_tolerance(DType::kFloat32, 40));
}

TEST_P(RowwiseTest, RmsNormOfZerosIsZero) {
  HostTensor x(DType::kFloat32, Array({2, 20}));
  const HostTensor weight(DType::kFloat32, random_.array({20}));
  HostTensor out(DType::kFloat32, std::vector<int64_t>{2, 20});
  ops().rms_norm({.x = x.view(), .add = {}, .weight = weight.view(), .out = out.view()}, {});
  EXPECT_EQ(out.to_array().values, std::vector<double>(40, 0.0));
}

TEST_P(RowwiseTest, RopeRotatesStridedHeads) {
  constexpr int64_t kNope = 5;  // columns before the rope part, which stay as they are
  // Heads and columns; the last ones have more than a GPU's block works on.
  constexpr std::pair<int64_t, int64_t> kShapes[] = {
      {3, 2}, {3, 8}, {3, 34}, {3, 64}, {70, 34}, {128, 64}};
  for (const DType dtype : kDtypes) {
    for (const bool is_interleaved : {true, false}) {
      for (const auto& [heads, width] : kShapes) {
        HostTensor q(dtype, random_.array({40, heads, kNope + width}), 1);
        const Array before = q.to_array();
        kernels::TensorView part = q.view().slice(2, kNope, width);
        reference::Rope rotation{.positions = {},
                                 .cos = Array({50, width / 2}),
                                 .sin = Array({50, width / 2}),
                                 .is_interleaved = is_interleaved};
        for (size_t i = 0; i < rotation.cos.values.size(); ++i) {
          const double angle = random_.uniform(-4.0, 4.0);
          rotation.cos.values[i] = static_cast<float>(std::cos(angle));
          rotation.sin.values[i] = static_cast<float>(std::sin(angle));
        }
        for (int t = 0; t < 40; ++t) {
          rotation.positions.push_back(static_cast<int32_t>(random_.index(50)));
        }
        const HostTensor cos(DType::kFloat32, rotation.cos, 2);
        const HostTensor sin(DType::kFloat32, rotation.sin, 2);
        const HostTensor positions(rotation.positions);
        ops().rope({.x = part,
                    .positions = positions.view(),
                    .cos = cos.view(),
                    .sin = sin.view(),
                    .is_interleaved = is_interleaved},
                   {});
        Array expected = before;
        Array rope_part({40, heads, width});
        for (int64_t i = 0; i < 40 * heads * width; ++i) {
          rope_part.values[static_cast<size_t>(i)] =
              before.at(i / width / heads, i / width % heads, kNope + i % width);
        }
        const Array rotated = reference::rope(rope_part, rotation);
        for (int64_t i = 0; i < 40 * heads * width; ++i) {
          expected.at(i / width / heads, i / width % heads, kNope + i % width) =
              rotated.values[static_cast<size_t>(i)];
        }
        // Two products of numbers below 1 and their sum.
        expect_close(q.to_array(),
                     expected,
                     {.relative = rounding_of(dtype), .slack = 4.0 * kFloat32Rounding});
        EXPECT_TRUE(q.is_padding_untouched());
      }
    }
  }
}

TEST_P(RowwiseTest, SiluMulMatchesTheReference) {
  for (const DType dtype : kDtypes) {
    for (const int64_t width : {1, 15, 16, 17, 100}) {
      const HostTensor x(DType::kFloat32, random_.array({60, 2 * width}, 20.0), 3);
      HostTensor out(dtype, std::vector<int64_t>{60, width}, 1);
      ops().silu_mul({.x = x.view(), .out = out.view()}, {});
      // exp within 3e-7 (vector_math), then a sum, a quotient and a product.
      expect_close(out.to_array(),
                   reference::silu_mul(x.to_array()),
                   {.relative = rounding_of(dtype) + 8.0 * kFloat32Rounding});
      EXPECT_TRUE(out.is_padding_untouched());
    }
  }
}

TEST_P(RowwiseTest, SiluMulOfLargeMagnitudes) {
  const std::vector<double> gates = {0.0,
                                     -0.0,
                                     50.0,
                                     -50.0,
                                     88.0,
                                     -88.0,
                                     89.0,
                                     -89.0,
                                     1e4,
                                     -1e4,
                                     1e30,
                                     -1e30,
                                     3e38,
                                     -3e38,
                                     1e-38,
                                     -1e-38,
                                     20.0};
  const auto width = static_cast<int64_t>(gates.size());
  Array input({1, 2 * width}, 1.0);
  std::copy(gates.begin(), gates.end(), input.values.begin());
  const HostTensor x(DType::kFloat32, input);
  HostTensor out(DType::kFloat32, std::vector<int64_t>{1, width});
  ops().silu_mul({.x = x.view(), .out = out.view()}, {});
  // exp flushes to 0 below -87, where silu is smaller than 87 exp(-87) = 1.5e-36.
  expect_close(out.to_array(),
               reference::silu_mul(x.to_array()),
               {.relative = 8.0 * kFloat32Rounding, .slack = 2e-36});
}

TEST_P(RowwiseTest, CastRoundsAndWidens) {
  for (const int64_t width : {1, 16, 37}) {
    const HostTensor x(DType::kFloat32, random_.array({80, width}, 100.0), 2);
    HostTensor half(DType::kBFloat16, std::vector<int64_t>{80, width}, 1);
    ops().cast({.x = x.view(), .out = half.view()}, {});
    EXPECT_EQ(half.bytes(), HostTensor(DType::kBFloat16, x.to_array(), 1).bytes());
    HostTensor wide(DType::kFloat32, std::vector<int64_t>{80, width}, 3);
    ops().cast({.x = half.view(), .out = wide.view()}, {});
    EXPECT_EQ(wide.to_array().values, half.to_array().values);
    EXPECT_TRUE(wide.is_padding_untouched());
    for (const HostTensor* same : {&x, static_cast<const HostTensor*>(&half)}) {
      HostTensor copy(same->view().dtype, std::vector<int64_t>{80, width}, 5);
      ops().cast({.x = same->view(), .out = copy.view()}, {});
      EXPECT_EQ(copy.to_array().values, same->to_array().values);
      EXPECT_TRUE(copy.is_padding_untouched());
    }
  }
}

TEST_P(RowwiseTest, EmbeddingCopiesTableRows) {
  const std::vector<int32_t> ids = {3, 0, 3, 9, 1};
  for (const DType dtype : kDtypes) {
    const HostTensor table(dtype, random_.array({10, 37}), 1);
    const HostTensor tokens(ids);
    HostTensor out(DType::kFloat32, std::vector<int64_t>{5, 37}, 2);
    ops().embedding({.ids = tokens.view(), .table = table.view(), .out = out.view()}, {});
    EXPECT_EQ(out.to_array().values, reference::gather_rows(table.to_array(), ids).values);
    EXPECT_TRUE(out.is_padding_untouched());
  }
}

TEST_P(RowwiseTest, GatherRowsRepeatsAndReorders) {
  const std::vector<int32_t> wanted = {7, 7, 0, 2};
  const HostTensor x(DType::kFloat32, random_.array({8, 19}), 3);
  const HostTensor rows(wanted);
  HostTensor out(DType::kFloat32, std::vector<int64_t>{4, 19}, 1);
  ops().gather_rows({.x = x.view(), .rows = rows.view(), .out = out.view()}, {});
  EXPECT_EQ(out.to_array().values, reference::gather_rows(x.to_array(), wanted).values);
  EXPECT_TRUE(out.is_padding_untouched());
}

TESSERA_TEST_THREADS(RowwiseTest);

}  // namespace
}  // namespace tessera::testing
