#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/ops/linear_params.h"
#include "kernels/ops/random_weight.h"
#include "tests/support/reference_ops.h"
#include "tests/unit/kernels/cpu/ops_fixture.h"

namespace tessera::testing {
namespace {

using kernels::DType;
using kernels::LinearWeight;

struct Sizes {
  int64_t out_features, in_features;
};
// Below, at and over oneDNN's panels of 64 and the vector widths; from 200 features on they are cut
// in slices. The last two are of more input features than the warps of a GPU's block take at a
// time.
constexpr Sizes kSizes[] = {{1, 1},
                            {1, 200},
                            {7, 24},
                            {24, 7},
                            {40, 72},
                            {64, 64},
                            {72, 40},
                            {200, 1},
                            {200, 200},
                            {65, 300},
                            {33, 1160},
                            {20, 2312}};
// Around the tiles of 16, 32 and 64 rows.
constexpr int64_t kTokens[] = {0, 1, 2, 3, 15, 16, 17, 31, 33, 63, 64, 65, 100};
constexpr DType kDtypes[] = {DType::kFloat32, DType::kBFloat16};

class LinearTest : public CpuOpsTest {
 protected:
  /// `matrices` [G, N, K].
  std::unique_ptr<LinearWeight> load(const HostTensor& matrices, DType dtype) {
    const auto view = matrices.view();
    auto weight = ops().make_linear_weight({.num_groups = view.dim(0),
                                            .out_features = view.dim(1),
                                            .in_features = view.dim(2),
                                            .dtype = dtype});
    for (int64_t g = 0; g < view.dim(0); ++g) {
      auto matrix = view.slice(0, g, 1);
      matrix.rank = 2;
      matrix.shape = {view.dim(1), view.dim(2)};
      matrix.stride = {view.stride[1], view.stride[2]};
      ops().load_linear_weight(*weight, g, matrix);
    }
    return weight;
  }

  /// K products are rounded and added in some order: each of at most K + 1 roundings moves the sum
  /// by half a unit of the sum of magnitudes. The result is then rounded to the output's type.
  static Tolerance tolerance(DType out_dtype, int64_t num_products, Array magnitude) {
    return {.relative = rounding_of(out_dtype),
            .slack = static_cast<double>(num_products + 1) * kFloat32Rounding,
            .magnitude = std::move(magnitude)};
  }

  void check_linear(const Sizes& sizes, DType dtype, DType out_dtype, int64_t padding) {
    const HostTensor weight(
        dtype, random_.array({1, sizes.out_features, sizes.in_features}), padding);
    const HostTensor x(dtype, random_.array({100, sizes.in_features}), padding);
    const auto loaded = load(weight, dtype);
    Array matrix = weight.to_array();
    matrix.shape = {sizes.out_features, sizes.in_features};
    const Array expected = reference::linear(x.to_array(), matrix, {});
    const Array magnitude = reference::linear(x.to_array().abs(), matrix.abs(), {});
    for (const int64_t tokens : kTokens) {
      SCOPED_TRACE("T " + std::to_string(tokens));
      HostTensor out(out_dtype, std::vector<int64_t>{tokens, sizes.out_features}, padding);
      ops().linear({.x = x.view().slice(0, 0, tokens),
                    .weight = loaded.get(),
                    .bias = {},
                    .out = out.view()},
                   {});
      expect_close(out.to_array(),
                   expected.rows(0, tokens),
                   tolerance(out_dtype, sizes.in_features, magnitude.rows(0, tokens)));
      EXPECT_TRUE(out.is_padding_untouched());
    }
  }
};

TEST_P(LinearTest, MatchesTheReferenceForAllSizes) {
  for (const Sizes& sizes : kSizes) {
    for (const DType dtype : kDtypes) {
      SCOPED_TRACE("N " + std::to_string(sizes.out_features) + ", K " +
                   std::to_string(sizes.in_features) + " " + std::string(dtype_name(dtype)));
      check_linear(sizes, dtype, DType::kFloat32, 0);
    }
  }
}

TEST_P(LinearTest, ReadsAndWritesStridedRows) {
  for (const Sizes& sizes : {Sizes{7, 24}, Sizes{72, 40}, Sizes{200, 200}}) {
    for (const int64_t padding : {1, 5, 64}) {
      check_linear(sizes, DType::kFloat32, DType::kFloat32, padding);
      check_linear(sizes, DType::kBFloat16, DType::kFloat32, padding);
      check_linear(sizes, DType::kBFloat16, DType::kBFloat16, padding);
    }
  }
}

TEST_P(LinearTest, MultipliesColumnsAmongOthersIntoColumnsAmongOthers) {
  // A latent among the projections of an input, in float32 whatever the model's type.
  for (const int64_t width : {28, 64, 192, 512}) {
    const HostTensor weight(DType::kFloat32, random_.array({1, width, width}));
    const HostTensor x(DType::kFloat32, random_.array({33, width + 40}));
    const auto loaded = load(weight, DType::kFloat32);
    Array matrix = weight.to_array();
    matrix.shape = {width, width};
    Array latent({33, width});
    for (int64_t t = 0; t < 33; ++t) {
      std::copy_n(x.to_array().row(t) + 23, width, &latent.at(t, 0));
    }
    for (const int64_t tokens : {1, 5, 33}) {
      SCOPED_TRACE("R " + std::to_string(width) + ", T " + std::to_string(tokens));
      HostTensor out(DType::kFloat32, std::vector<int64_t>{tokens, width + 10});
      ops().linear({.x = x.view().slice(0, 0, tokens).slice(1, 23, width),
                    .weight = loaded.get(),
                    .bias = {},
                    .out = out.view().slice(1, 3, width)},
                   {});
      const Array written = out.to_array();
      Array own({tokens, width});
      for (int64_t t = 0; t < tokens; ++t) {
        std::copy_n(written.row(t) + 3, width, &own.at(t, 0));
        for (const int64_t column : {int64_t{0}, int64_t{2}, width + 3, width + 9}) {
          EXPECT_TRUE(std::isnan(written.at(t, column))) << t << ", " << column;
        }
      }
      const Array rows = latent.rows(0, tokens);
      expect_close(
          own,
          reference::linear(rows, matrix, {}),
          tolerance(DType::kFloat32, width, reference::linear(rows.abs(), matrix.abs(), {})));
    }
  }
}

TEST_P(LinearTest, RoundsToBFloat16Outputs) {
  for (const Sizes& sizes : kSizes) {
    check_linear(sizes, DType::kBFloat16, DType::kBFloat16, 0);
  }
}

TEST_P(LinearTest, AddsBias) {
  for (const DType dtype : kDtypes) {
    const HostTensor weight(dtype, random_.array({1, 72, 40}));
    const HostTensor x(dtype, random_.array({17, 40}));
    const HostTensor bias(DType::kFloat32, random_.array({72}));
    const auto loaded = load(weight, dtype);
    HostTensor out(dtype, std::vector<int64_t>{17, 72}, 3);
    ops().linear({.x = x.view(), .weight = loaded.get(), .bias = bias.view(), .out = out.view()},
                 {});
    Array matrix = weight.to_array();
    matrix.shape = {72, 40};
    Tolerance bound = tolerance(
        dtype, 41, reference::linear(x.to_array().abs(), matrix.abs(), bias.to_array().abs()));
    bound.slack += rounding_of(dtype);  // the product may be rounded before the bias is added
    expect_close(out.to_array(), reference::linear(x.to_array(), matrix, bias.to_array()), bound);
    EXPECT_TRUE(out.is_padding_untouched());
  }
}

TEST_P(LinearTest, LoadsAnyFloatMatrixIntoAnyWeight) {
  // Multiples of 1/8 up to 4 are exact in every format.
  Array matrix({1, 7, 24});
  for (double& value : matrix.values) {
    value = static_cast<double>(random_.index(65) - 32) / 8.0;
  }
  const HostTensor x(DType::kBFloat16, random_.array({3, 24}));
  const HostTensor x_f32(DType::kFloat32, x.to_array());
  Array flat = matrix;
  flat.shape = {7, 24};
  const Array expected = reference::linear(x.to_array(), flat, {});
  const Array magnitude = reference::linear(x.to_array().abs(), flat.abs(), {});
  for (const DType source : kDtypes) {
    for (const DType dtype : kDtypes) {
      const auto loaded = load(HostTensor(source, matrix, 2), dtype);
      HostTensor out(DType::kFloat32, std::vector<int64_t>{3, 7});
      const auto& input = dtype == DType::kFloat32 ? x_f32 : x;
      ops().linear({.x = input.view(), .weight = loaded.get(), .bias = {}, .out = out.view()}, {});
      expect_close(out.to_array(), expected, tolerance(DType::kFloat32, 24, magnitude));
    }
  }
}

TEST_P(LinearTest, LoadsATransposedHalfPrecisionMatrix) {
  // out_features 2, in_features 3, stored column by column: 1, 2 / 0.5, -1 / -2, 65504.
  const std::vector<uint16_t> halves = {0x3c00, 0x4000, 0x3800, 0xbc00, 0xc000, 0x7bff};
  kernels::ConstTensorView matrix(halves.data(), DType::kFloat16, {2, 3});
  matrix.stride = {1, 2};
  auto weight = ops().make_linear_weight({.out_features = 2, .in_features = 3});
  ops().load_linear_weight(*weight, 0, matrix);
  const HostTensor x(DType::kFloat32, Array({1, 3}, {1.0, 10.0, 100.0}));
  HostTensor out(DType::kFloat32, std::vector<int64_t>{1, 2});
  ops().linear({.x = x.view(), .weight = weight.get(), .bias = {}, .out = out.view()}, {});
  EXPECT_EQ(out.to_array().values,
            (std::vector<double>{1.0 + 5.0 - 200.0, 2.0 - 10.0 + 6550400.0}));
}

TEST_P(LinearTest, FillsTheRowsOfSeveralPartsWithTheirNumbers) {
  constexpr int64_t kIn = 24;
  const std::vector<kernels::RandomRows> parts = {{.counter = 5, .rows = 3, .half_width = 0.5F},
                                                  {.counter = 1000, .rows = 4, .half_width = 2.0F}};
  std::vector<double> expected;  // [N, K]
  for (const kernels::RandomRows& part : parts) {
    for (int64_t i = 0; i < part.rows * kIn; ++i) {
      const float value =
          part.half_width * kernels::random_unit(part.counter + static_cast<uint64_t>(i));
      expected.push_back(static_cast<double>(kernels::BFloat16::from_float(value).to_float()));
    }
  }
  Array identity({kIn, kIn});
  for (int64_t i = 0; i < kIn; ++i) {
    identity.values[static_cast<size_t>(i * kIn + i)] = 1.0;
  }
  for (const DType dtype : kDtypes) {
    auto weight = ops().make_linear_weight(
        {.num_groups = 2, .out_features = 7, .in_features = kIn, .dtype = dtype});
    ops().load_linear_weight(*weight, 0, HostTensor(dtype, random_.array({7, kIn})).view());
    ops().fill_linear_weight(*weight, 1, parts);
    const HostTensor x(dtype, identity);
    const HostTensor bounds(std::vector<int32_t>{0, 0, static_cast<int32_t>(kIn)});
    HostTensor out(DType::kFloat32, std::vector<int64_t>{kIn, 7});
    ops().grouped_linear(
        {.x = x.view(), .offsets = bounds.view(), .weight = weight.get(), .out = out.view()}, {});
    const std::vector<double> transposed = out.to_array().values;  // [K, N]
    for (int64_t n = 0; n < 7; ++n) {
      for (int64_t k = 0; k < kIn; ++k) {
        EXPECT_EQ(transposed[static_cast<size_t>(k * 7 + n)],
                  expected[static_cast<size_t>(n * kIn + k)])
            << "row " << n << ", column " << k;
      }
    }
  }
}

TEST_P(LinearTest, ReportsPackedBytes) {
  const auto weight =
      load(HostTensor(DType::kFloat32, random_.array({2, 64, 64})), DType::kFloat32);
  EXPECT_GE(weight->num_bytes(), 2 * 64 * 64 * 4);
}

TEST_P(LinearTest, BatchedMatchesTheReference) {
  for (const DType dtype : kDtypes) {
    for (const Sizes& sizes : {Sizes{7, 24}, Sizes{64, 40}, Sizes{200, 128}}) {
      const HostTensor weight(dtype, random_.array({5, sizes.out_features, sizes.in_features}));
      const HostTensor x(dtype, random_.array({65, 5, sizes.in_features}), 3);
      const auto loaded = load(weight, dtype);
      const Array expected = reference::batched_linear(x.to_array(), weight.to_array());
      const Array magnitude =
          reference::batched_linear(x.to_array().abs(), weight.to_array().abs());
      for (const int64_t tokens : {0, 1, 3, 17, 65}) {
        HostTensor out(dtype, std::vector<int64_t>{tokens, 5, sizes.out_features}, 1);
        ops().batched_linear(
            {.x = x.view().slice(0, 0, tokens), .weight = loaded.get(), .out = out.view()}, {});
        expect_close(out.to_array(),
                     expected.rows(0, tokens),
                     tolerance(dtype, sizes.in_features, magnitude.rows(0, tokens)));
        EXPECT_TRUE(out.is_padding_untouched());
      }
    }
  }
}

TEST_P(LinearTest, GroupedMatchesTheReferenceWithEmptyGroups) {
  const std::vector<int32_t> kOffsets[] = {
      {0, 0, 0, 5, 5}, {0, 1, 3, 3, 20}, {0, 70, 70, 86, 100}, {0, 0, 0, 0, 0}, {0, 0, 0, 0, 64}};
  for (const DType dtype : kDtypes) {
    for (const Sizes& sizes : {Sizes{7, 24}, Sizes{200, 128}}) {
      const HostTensor weight(dtype, random_.array({4, sizes.out_features, sizes.in_features}));
      const auto loaded = load(weight, dtype);
      for (const auto& bounds : kOffsets) {
        const HostTensor x(dtype, random_.array({bounds.back(), sizes.in_features}), 2);
        const HostTensor offsets(bounds);
        HostTensor out(dtype, std::vector<int64_t>{bounds.back(), sizes.out_features}, 1);
        ops().grouped_linear(
            {.x = x.view(), .offsets = offsets.view(), .weight = loaded.get(), .out = out.view()},
            {});
        expect_close(out.to_array(),
                     reference::grouped_linear(x.to_array(), bounds, weight.to_array()),
                     tolerance(dtype,
                               sizes.in_features,
                               reference::grouped_linear(
                                   x.to_array().abs(), bounds, weight.to_array().abs())));
        EXPECT_TRUE(out.is_padding_untouched());
      }
    }
  }
}

TEST_P(LinearTest, GroupedLeavesRowsOfNoGroupAlone) {
  const HostTensor weight(DType::kFloat32, random_.array({2, 7, 24}));
  const auto loaded = load(weight, DType::kFloat32);
  const HostTensor x(DType::kFloat32, random_.array({5, 24}));
  const HostTensor offsets(std::vector<int32_t>{0, 1, 3});
  HostTensor out(DType::kFloat32, std::vector<int64_t>{5, 7});
  const HostTensor untouched(DType::kFloat32, std::vector<int64_t>{2, 7});
  ops().grouped_linear(
      {.x = x.view(), .offsets = offsets.view(), .weight = loaded.get(), .out = out.view()}, {});
  const std::vector<char> tail(out.bytes().begin() + std::ptrdiff_t{3 * 7 * 4}, out.bytes().end());
  EXPECT_EQ(tail, untouched.bytes());
}

TESSERA_TEST_THREADS(LinearTest);

}  // namespace
}  // namespace tessera::testing
