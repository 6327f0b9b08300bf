// Products with weights in float8. The GPU holds bytes and scales; what it computes is compared
// with the CPU's product, in float32, with the numbers that they stand for.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/ops/random_weight.h"
#include "tests/unit/kernels/cuda/parity_fixture.h"

namespace tessera::testing {
namespace {

using kernels::BlockScales;
using kernels::DType;
using kernels::kScaleBlock;
using kernels::LinearShape;
using kernels::LinearWeight;

/// Rows and weights are rounded to float8 or bfloat16 before, alike on either side; cuBLASLt keeps
/// some 13 bits of a sum inside of a block of 128 columns.
constexpr double kFloat8SumParity = 1e-2;

/// One weight on either backend.
struct Weights {
  std::unique_ptr<LinearWeight> cpu, gpu;
};

class Float8ParityTest : public ParityTest {
 protected:
  static LinearShape shape_of(int64_t groups, int64_t out, int64_t in, const BlockScales& scales) {
    return {.num_groups = groups,
            .out_features = out,
            .in_features = in,
            .dtype = DType::kBFloat16,
            .scales = scales};
  }

  /// Random codes and scales; of the latter no two are equal.
  Weights load(const LinearShape& shape) {
    Weights weights{
        cpu().make_linear_weight({shape.num_groups, shape.out_features, shape.in_features}),
        gpu().make_linear_weight(shape)};
    for (int64_t g = 0; g < shape.num_groups; ++g) {
      std::vector<uint8_t> values;
      for (int64_t i = 0; i < shape.out_features * shape.in_features; ++i) {
        values.push_back(
            kernels::float8_e4m3_from_float(static_cast<float>(random_.uniform(-448.0, 448.0))));
      }
      std::vector<float> scales;
      for (int64_t i = 0; i < shape.scale_rows() * shape.scale_columns(); ++i) {
        scales.push_back(static_cast<float>(random_.uniform(1e-4, 4e-4)));
      }
      load_group(weights, g, values, scales);
    }
    return weights;
  }

  void load_group(const Weights& weights,
                  int64_t group,
                  const std::vector<uint8_t>& values,
                  const std::vector<float>& scales) {
    const LinearShape& shape = weights.gpu->shape();
    const int64_t out = shape.out_features;
    const int64_t in = shape.in_features;
    Array matrix({out, in});
    for (int64_t n = 0; n < out; ++n) {
      for (int64_t k = 0; k < in; ++k) {
        const int64_t scale = n / shape.scales->rows * shape.scale_columns() +
                              (shape.scales->first_column + k) / kScaleBlock;
        matrix.at(n, k) = static_cast<double>(kernels::float8_e4m3_to_float(
                              values[static_cast<size_t>(n * in + k)])) *
                          static_cast<double>(scales[static_cast<size_t>(scale)]);
      }
    }
    cpu().load_linear_weight(*weights.cpu, group, HostTensor(DType::kFloat32, matrix).view());
    gpu().load_float8_weight(
        *weights.gpu,
        group,
        {kernels::ConstTensorView{values.data(), DType::kFloat8E4M3, {out, in}},
         kernels::ConstTensorView{
             scales.data(), DType::kFloat32, {shape.scale_rows(), shape.scale_columns()}}});
  }

  /// `expected_x`: what the CPU multiplies, if it is not x.
  void check_dense(const Weights& weights,
                   const HostTensor& x,
                   DType out_dtype,
                   double tolerance,
                   const Array* expected_x = nullptr) {
    const int64_t rows = x.view().dim(0);
    const int64_t out = weights.gpu->shape().out_features;
    const HostTensor cpu_x(DType::kFloat32, expected_x != nullptr ? *expected_x : x.to_array());
    const HostTensor bias(DType::kFloat32, random_.array({out}));
    HostTensor expected(DType::kFloat32, std::vector<int64_t>{rows, out});
    HostTensor actual(out_dtype, std::vector<int64_t>{rows, out}, 8);
    cpu().linear({.x = cpu_x.view(),
                  .weight = weights.cpu.get(),
                  .bias = bias.view(),
                  .out = expected.view()},
                 {});
    gpu().linear(
        {.x = x.view(), .weight = weights.gpu.get(), .bias = bias.view(), .out = actual.view()},
        {});
    expect_same(actual, expected, tolerance);
  }
  void check_dense(const LinearShape& shape,
                   const std::vector<int64_t>& rows,
                   double float32_tolerance) {
    const Weights weights = load(shape);
    for (const int64_t count : rows) {
      for (const DType out_dtype : {DType::kFloat32, DType::kBFloat16}) {
        SCOPED_TRACE(std::to_string(count) + " x " + std::to_string(shape.out_features) + " x " +
                     std::to_string(shape.in_features) + " into " +
                     std::string(dtype_name(out_dtype)));
        const HostTensor x(DType::kBFloat16, random_.array({count, shape.in_features}), 16);
        check_dense(weights,
                    x,
                    out_dtype,
                    out_dtype == DType::kFloat32 ? float32_tolerance : kBFloat16Parity);
      }
    }
  }

  /// `first`: rows of no group before the first one's.
  void check_grouped(const LinearShape& shape,
                     const std::vector<int32_t>& counts,
                     DType out_dtype,
                     int32_t first = 0) {
    const Weights weights = load(shape);
    std::vector<int32_t> offsets = {first};
    for (const int32_t count : counts) {
      offsets.push_back(offsets.back() + count);
    }
    const int64_t rows = offsets.back() + first;
    const HostTensor x(DType::kBFloat16, random_.array({rows, shape.in_features}));
    const HostTensor cpu_x(DType::kFloat32, x.to_array());
    const HostTensor bounds(offsets);
    HostTensor expected(DType::kFloat32, std::vector<int64_t>{rows, shape.out_features});
    HostTensor actual(out_dtype, std::vector<int64_t>{rows, shape.out_features}, 8);
    cpu().grouped_linear({.x = cpu_x.view(),
                          .offsets = bounds.view(),
                          .weight = weights.cpu.get(),
                          .out = expected.view()},
                         {});
    gpu().grouped_linear({.x = x.view(),
                          .offsets = bounds.view(),
                          .weight = weights.gpu.get(),
                          .out = actual.view()},
                         {});
    expect_same(actual, expected, out_dtype == DType::kFloat32 ? kFloat32Parity : kBFloat16Parity);
  }
  std::vector<int32_t> random_counts(size_t groups, int64_t below) {
    std::vector<int32_t> counts(groups);
    for (int32_t& count : counts) {
      count = static_cast<int32_t>(random_.index(below));
    }
    counts.front() = 0;
    counts.back() = 0;
    return counts;
  }

  /// Rows as the GPU rounds them: a scale for each row and 128 columns.
  static Array rounded_to_float8(const Array& x) {
    Array rounded = x;
    for (int64_t t = 0; t < x.dim(0); ++t) {
      for (int64_t begin = 0; begin < x.dim(1); begin += kScaleBlock) {
        round_block(&rounded.at(t, begin), std::min(kScaleBlock, x.dim(1) - begin));
      }
    }
    return rounded;
  }
  static void round_block(double* values, int64_t count) {
    double largest = 1e-30;
    for (int64_t i = 0; i < count; ++i) {
      largest = std::max(largest, std::abs(values[i]));
    }
    const float scale = static_cast<float>(largest) / 448.0F;
    for (int64_t i = 0; i < count; ++i) {
      const uint8_t code = kernels::float8_e4m3_from_float(static_cast<float>(values[i]) / scale);
      values[i] = static_cast<double>(kernels::float8_e4m3_to_float(code) * scale);
    }
  }
};

TEST_F(Float8ParityTest, EveryCodeHasItsValue) {
  constexpr int64_t kOut = 250;  // not asked of cuBLASLt, which would round rows
  constexpr int64_t kIn = 256;
  const LinearShape shape = shape_of(1, kOut, kIn, {});
  const Weights weights{cpu().make_linear_weight({1, kOut, kIn}), gpu().make_linear_weight(shape)};
  std::vector<uint8_t> values;
  for (int64_t n = 0; n < kOut; ++n) {
    for (int64_t k = 0; k < kIn; ++k) {
      const auto code = static_cast<uint8_t>(n + k);
      values.push_back((code & 0x7fU) == 0x7fU ? uint8_t{0} : code);  // not NaN
    }
  }
  load_group(weights, 0, values, {1.0F, 2.0F, 0.5F, 4.0F});
  Array identity({kIn, kIn});
  for (int64_t i = 0; i < kIn; ++i) {
    identity.at(i, i) = 1.0;
  }
  // A way each: few rows, tiles, and (by rows that are not aligned) any size.
  for (const auto& [rows, padding] : {std::pair<int64_t, int64_t>{16, 0}, {64, 0}, {64, 3}}) {
    for (int64_t begin = 0; begin < kIn; begin += rows) {
      const HostTensor x(DType::kBFloat16, identity.rows(begin, rows), padding);
      const HostTensor cpu_x(DType::kFloat32, identity.rows(begin, rows));
      HostTensor expected(DType::kFloat32, std::vector<int64_t>{rows, kOut});
      HostTensor actual = expected;
      cpu().linear(
          {.x = cpu_x.view(), .weight = weights.cpu.get(), .bias = {}, .out = expected.view()}, {});
      gpu().linear({.x = x.view(), .weight = weights.gpu.get(), .bias = {}, .out = actual.view()},
                   {});
      ASSERT_EQ(actual.to_array().values, expected.to_array().values) << rows << ", " << padding;
    }
  }
}

TEST_F(Float8ParityTest, FewRowsOfAModelsSizes) {
  const std::vector<int64_t> rows = {1, 7, 8, 9, 16};
  for (const auto& [out, in] :
       {std::pair<int64_t, int64_t>{1536, 2048}, {576, 7168}, {2049, 528}, {5, 16}, {130, 1536}}) {
    check_dense(shape_of(1, out, in, {}), rows, kFloat32Parity);
  }
}

/// Of sizes that cuBLASLt is not asked for.
TEST_F(Float8ParityTest, SomeRows) {
  for (const auto& [out, in] :
       {std::pair<int64_t, int64_t>{2049, 2048}, {2049, 528}, {5, 16}, {63, 272}}) {
    check_dense(shape_of(1, out, in, {}), {17, 33, 63, 64}, kFloat32Parity);
  }
}

TEST_F(Float8ParityTest, BlocksThatAreCut) {
  for (const int64_t first_column : {0, 16, 64, 112}) {
    for (const int64_t scale_rows : {int64_t{1}, kScaleBlock}) {
      SCOPED_TRACE(std::to_string(first_column) + ", " + std::to_string(scale_rows));
      const BlockScales scales{scale_rows, first_column};
      for (const int64_t in : {16, 128, 528, 1376}) {
        check_dense(shape_of(1, 200, in, scales), {1, 9, 40}, kFloat32Parity);
      }
      check_grouped(shape_of(7, 200, 272, scales), random_counts(7, 9), DType::kFloat32);
      check_grouped(shape_of(7, 200, 272, scales), random_counts(7, 50), DType::kFloat32);
    }
  }
}

TEST_F(Float8ParityTest, ColumnsThatAreNotAligned) {
  for (const auto& [in, first_column] : {std::pair<int64_t, int64_t>{513, 0}, {200, 5}, {24, 8}}) {
    SCOPED_TRACE(std::to_string(in) + ", " + std::to_string(first_column));
    const LinearShape shape = shape_of(1, 67, in, {1, first_column});
    check_dense(shape, {1, 20}, kFloat32Parity);
    check_dense(shape, {70}, kBFloat16Parity);  // weights may be rounded to bfloat16
    check_grouped(shape_of(5, 67, in, {1, first_column}), random_counts(5, 20), DType::kFloat32);
  }
}

TEST_F(Float8ParityTest, ManyRowsOfOtherSizesTakeWeightsInBFloat16) {
  check_dense(shape_of(1, 384, 1024, {1, 0}), {65, 257}, kBFloat16Parity);
  check_dense(shape_of(1, 384, 1024, {kScaleBlock, 64}), {65, 257}, kBFloat16Parity);
  // Sizes that cuBLASLt is not asked for.
  check_dense(shape_of(1, 2050, 528, {}), {65, 130}, kBFloat16Parity);
  // More than scratch memory holds at a time: 96 MiB are 3072 features.
  check_dense(shape_of(1, 3300, 16384, {1, 0}), {65}, kBFloat16Parity);
}

/// cuBLASLt's product, where it has one that agrees; else weights in bfloat16.
TEST_F(Float8ParityTest, ManyRows) {
  const auto backend = kernels::cuda::create_cuda_backend(0);
  const bool rounds_rows = kernels::cuda::multiplies_rows_in_float8(*backend);
  RecordProperty("rows_in_float8", rounds_rows ? "yes" : "no");
  std::cout << "rows in float8: " << (rounds_rows ? "yes" : "no") << '\n';
  for (const auto& [out, in] :
       {std::pair<int64_t, int64_t>{1536, 2048}, {576, 7168}, {2112, 640}}) {
    const Weights weights = load(shape_of(1, out, in, {}));
    for (const int64_t rows : {17, 32, 63, 65, 68, 128, 259, 1024}) {
      for (const DType out_dtype : {DType::kFloat32, DType::kBFloat16}) {
        SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(out) + " x " +
                     std::to_string(in) + " into " + std::string(dtype_name(out_dtype)));
        const HostTensor x(DType::kBFloat16, random_.array({rows, in}), 16);
        if (rounds_rows) {
          // The rows behind a multiple of four are not rounded: nearer than the bound either way.
          Array rounded = rounded_to_float8(x.to_array());
          for (int64_t row = rows / 4 * 4; row < rows; ++row) {
            std::copy_n(x.to_array().row(row), in, &rounded.at(row, 0));
          }
          check_dense(weights, x, out_dtype, kFloat8SumParity, &rounded);
        } else {
          check_dense(weights, x, out_dtype, kBFloat16Parity);
        }
      }
    }
  }
}

TEST_F(Float8ParityTest, FewRowsAnExpert) {
  check_grouped(shape_of(64, 704, 256, {}), random_counts(64, 8), DType::kFloat32);
  check_grouped(shape_of(64, 200, 272, {}), random_counts(64, 16), DType::kBFloat16);
  check_grouped(shape_of(9, 129, 2048, {}), random_counts(9, 5), DType::kFloat32);
}

TEST_F(Float8ParityTest, SomeAndManyRowsAnExpert) {
  check_grouped(shape_of(64, 704, 256, {}), random_counts(64, 50), DType::kFloat32);
  check_grouped(shape_of(37, 320, 512, {}), random_counts(37, 300), DType::kFloat32);
  check_grouped(shape_of(37, 130, 80, {}), random_counts(37, 200), DType::kBFloat16);
}

TEST_F(Float8ParityTest, RowsAroundTheEdgesOfTiles) {
  const std::vector<int32_t> counts = {1, 7, 8, 9, 15, 16, 17, 63, 64, 65, 0, 127, 128, 129, 257};
  check_grouped(shape_of(15, 264, 384, {}), counts, DType::kFloat32);
  check_grouped(shape_of(15, 8, 208, {}), counts, DType::kBFloat16);
  const std::vector<int32_t> few = {1, 7, 8, 9, 15, 16, 17, 0, 0, 0, 0, 0};
  check_grouped(shape_of(12, 264, 384, {}), few, DType::kFloat32);
}

/// A rank's experts: rows of others come before and after, and stay as they were.
TEST_F(Float8ParityTest, AWindowOfTheExperts) {
  for (const std::vector<int32_t>& counts :
       {std::vector<int32_t>{3, 0, 4}, {30, 1, 9}, {130, 1, 129}}) {
    check_grouped(shape_of(3, 256, 128, {}), counts, DType::kFloat32, 70);
  }
}

TEST_F(Float8ParityTest, OneExpertHasAllRows) {
  for (const int32_t rows : {1, 17, 300}) {
    std::vector<int32_t> counts(256, 0);
    counts[200] = rows;
    check_grouped(shape_of(256, 128, 128, {}), counts, DType::kFloat32);
  }
}

TEST_F(Float8ParityTest, FillsRowsWithRoundedRandomNumbers) {
  constexpr int64_t kIn = 48;
  const std::vector<kernels::RandomRows> parts = {{.counter = 5, .rows = 3, .half_width = 0.5F},
                                                  {.counter = 1000, .rows = 4, .half_width = 0.5F}};
  const auto weight = gpu().make_linear_weight(shape_of(1, 7, kIn, {}));
  gpu().fill_linear_weight(*weight, 0, parts);
  Array identity({kIn, kIn});
  for (int64_t i = 0; i < kIn; ++i) {
    identity.at(i, i) = 1.0;
  }
  const HostTensor x(DType::kBFloat16, identity);
  HostTensor out(DType::kFloat32, std::vector<int64_t>{kIn, 7});
  gpu().linear({.x = x.view(), .weight = weight.get(), .bias = {}, .out = out.view()}, {});
  int64_t row = 0;
  for (const kernels::RandomRows& part : parts) {
    for (int64_t i = 0; i < part.rows * kIn; ++i) {
      const float unit = kernels::random_unit(part.counter + static_cast<uint64_t>(i));
      const float code =
          kernels::float8_e4m3_to_float(kernels::float8_e4m3_from_float(224.0F * unit));
      EXPECT_EQ(out.to_array().at(i % kIn, row + i / kIn),
                static_cast<double>(code * (0.5F / 224.0F)));
    }
    row += part.rows;
  }
}

}  // namespace
}  // namespace tessera::testing
