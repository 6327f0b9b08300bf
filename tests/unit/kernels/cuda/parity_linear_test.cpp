#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/unit/kernels/cuda/parity_fixture.h"

namespace tessera::testing {
namespace {

using kernels::DType;
using kernels::LinearShape;
using kernels::LinearWeight;

/// One weight on either backend.
struct Weights {
  std::unique_ptr<LinearWeight> cpu, gpu;
};

class LinearParityTest : public ParityTest {
 protected:
  Weights load(const LinearShape& shape) {
    Weights weights{cpu().make_linear_weight(shape), gpu().make_linear_weight(shape)};
    for (int64_t g = 0; g < shape.num_groups; ++g) {
      const HostTensor matrix(DType::kFloat32,
                              random_.array({shape.out_features, shape.in_features}, 0.1));
      cpu().load_linear_weight(*weights.cpu, g, matrix.view());
      gpu().load_linear_weight(*weights.gpu, g, matrix.view());
    }
    return weights;
  }

  void check_grouped(const LinearShape& shape,
                     const std::vector<int32_t>& counts,
                     DType out_dtype) {
    const Weights weights = load(shape);
    std::vector<int32_t> offsets = {0};
    for (const int32_t count : counts) {
      offsets.push_back(offsets.back() + count);
    }
    const int64_t rows = offsets.back();
    const HostTensor x(shape.dtype, random_.array({rows, shape.in_features}));
    const HostTensor bounds(offsets);
    HostTensor expected(out_dtype, std::vector<int64_t>{rows, shape.out_features}, 8);
    HostTensor actual = expected;
    cpu().grouped_linear({.x = x.view(),
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
};

TEST_F(LinearParityTest, DenseProductsOfAModelsSizes) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const int64_t rows : {1, 7, 64, 257}) {
      for (const auto& [out, in] :
           {std::pair<int64_t, int64_t>{1536, 2048}, {576, 2048}, {2049, 513}}) {
        SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(out) + " x " +
                     std::to_string(in));
        const Weights weights = load({1, out, in, dtype});
        const HostTensor x(dtype, random_.array({rows, in}), 16);
        const HostTensor bias(DType::kFloat32, random_.array({out}));
        HostTensor expected(DType::kFloat32, std::vector<int64_t>{rows, out}, 3);
        HostTensor actual = expected;
        cpu().linear({.x = x.view(),
                      .weight = weights.cpu.get(),
                      .bias = bias.view(),
                      .out = expected.view()},
                     {});
        gpu().linear(
            {.x = x.view(), .weight = weights.gpu.get(), .bias = bias.view(), .out = actual.view()},
            {});
        expect_same(actual, expected, kFloat32Parity);
      }
    }
  }
}

TEST_F(LinearParityTest, HeadsWithRowsOutsideOrInside) {
  const LinearShape shape{16, 512, 128, DType::kBFloat16};
  const Weights weights = load(shape);
  for (const int64_t rows : {1, 5, 64}) {
    const HostTensor x(shape.dtype, random_.array({rows, 16, 192}));
    HostTensor expected(shape.dtype, std::vector<int64_t>{rows, 16, 512});
    HostTensor actual = expected;
    const auto nope = x.view().slice(2, 0, 128);
    cpu().batched_linear({.x = nope, .weight = weights.cpu.get(), .out = expected.view()}, {});
    gpu().batched_linear({.x = nope, .weight = weights.gpu.get(), .out = actual.view()}, {});
    expect_same(actual, expected, kBFloat16Parity);
  }
}

TEST_F(LinearParityTest, FewRowsAnExpert) {
  std::vector<int32_t> counts(64);
  for (int32_t& count : counts) {
    count = static_cast<int32_t>(random_.index(12));
  }
  counts[3] = 0;
  counts[63] = 0;
  check_grouped({64, 704, 256, DType::kBFloat16}, counts, DType::kFloat32);
  check_grouped({64, 200, 264, DType::kBFloat16}, counts, DType::kBFloat16);
  check_grouped({64, 65, 100, DType::kFloat32}, counts, DType::kFloat32);
}

TEST_F(LinearParityTest, SomeRowsAnExpert) {
  std::vector<int32_t> counts(64);
  for (int32_t& count : counts) {
    count = static_cast<int32_t>(random_.index(50));
  }
  counts[0] = 0;
  counts[40] = 0;
  check_grouped({64, 704, 256, DType::kBFloat16}, counts, DType::kFloat32);
  check_grouped({64, 200, 264, DType::kBFloat16}, counts, DType::kBFloat16);
}

TEST_F(LinearParityTest, ManyRowsAnExpert) {
  std::vector<int32_t> counts(37);
  for (int32_t& count : counts) {
    count = static_cast<int32_t>(random_.index(200));
  }
  counts[0] = 0;
  counts[17] = 0;
  check_grouped({37, 320, 512, DType::kBFloat16}, counts, DType::kFloat32);
  check_grouped({37, 130, 72, DType::kBFloat16}, counts, DType::kBFloat16);
  check_grouped({37, 129, 72, DType::kBFloat16}, counts, DType::kBFloat16);
  check_grouped({37, 129, 71, DType::kBFloat16}, counts, DType::kFloat32);
}

TEST_F(LinearParityTest, RowsAroundTheEdgesOfTiles) {
  const std::vector<int32_t> counts = {
      1, 63, 64, 65, 0, 127, 128, 129, 191, 192, 193, 255, 256, 257};
  for (const DType out_dtype : {DType::kFloat32, DType::kBFloat16}) {
    check_grouped({14, 384, 1408, DType::kBFloat16}, counts, out_dtype);
    check_grouped({14, 8, 200, DType::kBFloat16}, counts, out_dtype);
  }
}

/// A rank's experts: rows of others come before and after, and stay as they were.
TEST_F(LinearParityTest, AWindowOfTheExperts) {
  const LinearShape shape{3, 256, 128, DType::kBFloat16};
  const Weights weights = load(shape);
  const HostTensor offsets(std::vector<int32_t>{70, 200, 201, 330});
  const HostTensor x(shape.dtype, random_.array({500, shape.in_features}));
  HostTensor expected(DType::kFloat32, std::vector<int64_t>{500, shape.out_features});
  HostTensor actual = expected;
  const auto multiply = [&](kernels::Ops& ops, const LinearWeight* weight, HostTensor& out) {
    ops.grouped_linear(
        {.x = x.view(), .offsets = offsets.view(), .weight = weight, .out = out.view()}, {});
  };
  multiply(cpu(), weights.cpu.get(), expected);
  multiply(gpu(), weights.gpu.get(), actual);
  expect_same(actual, expected, kFloat32Parity);
}

TEST_F(LinearParityTest, OneExpertHasAllRows) {
  std::vector<int32_t> counts(256, 0);
  counts[200] = 300;
  check_grouped({256, 128, 128, DType::kBFloat16}, counts, DType::kFloat32);
}

TEST_F(LinearParityTest, ExpertsOfManyTokensAreSortedAlike) {
  constexpr int64_t kTokens = 3001, kTopK = 8, kExperts = 256, kWidth = 24;
  Array ids({kTokens, kTopK});
  for (double& id : ids.values) {
    id = static_cast<double>(random_.index(kExperts));
  }
  const HostTensor expert_ids(DType::kInt32, ids);
  const HostTensor x(DType::kBFloat16, random_.array({kTokens, kWidth}), 8);
  struct Result {
    HostTensor permuted{DType::kBFloat16, std::vector<int64_t>{kTokens * kTopK, kWidth}};
    HostTensor offsets{DType::kInt32, std::vector<int64_t>{kExperts + 1}};
    HostTensor row_of_pair{DType::kInt32, std::vector<int64_t>{kTokens, kTopK}};
  } expected, actual;
  const auto permute = [&](kernels::Ops& ops, Result& result) {
    ops.moe_permute({.x = x.view(),
                     .expert_ids = expert_ids.view(),
                     .permuted = result.permuted.view(),
                     .offsets = result.offsets.view(),
                     .row_of_pair = result.row_of_pair.view()},
                    {});
  };
  permute(cpu(), expected);
  permute(gpu(), actual);
  expect_same(actual.offsets, expected.offsets, 0.0);
  expect_same(actual.row_of_pair, expected.row_of_pair, 0.0);
  expect_same(actual.permuted, expected.permuted, 0.0);
}

}  // namespace
}  // namespace tessera::testing
