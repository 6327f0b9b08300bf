// Both backends on the same operands, at sizes at which a loop in double precision would take
// minutes: the GPU is compared with the CPU by ||gpu - cpu|| / ||cpu||.
#pragma once

#include <cmath>
#include <cstdint>
#include <iostream>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cuda/cuda_backend.h"
#include "tests/support/host_tensor.h"
#include "tests/support/mirrored_backend.h"

namespace tessera::testing {

/// Sums in float32, in different orders.
inline constexpr double kFloat32Parity = 1e-5;
/// Operands, weights of a softmax and results rounded to bfloat16.
inline constexpr double kBFloat16Parity = 6e-3;

[[nodiscard]] inline double parity_of(kernels::DType dtype) {
  return dtype == kernels::DType::kFloat32 ? kFloat32Parity : kBFloat16Parity;
}

class ParityTest : public ::testing::Test {
 protected:
  void TearDown() override {
    if (HasFailure()) {
      std::cerr << "random seed of this test: " << seed_ << '\n';
    }
  }
  [[nodiscard]] kernels::Ops& cpu() { return cpu_->ops(); }
  [[nodiscard]] kernels::Ops& gpu() { return gpu_->ops(); }

  static void expect_same(const HostTensor& gpu, const HostTensor& cpu, double tolerance) {
    const Array actual = gpu.to_array();
    const Array expected = cpu.to_array();
    ASSERT_EQ(actual.shape, expected.shape);
    double error = 0.0;
    double norm = 0.0;
    for (size_t i = 0; i < expected.values.size(); ++i) {
      const double want = expected.values[i];
      const double got = actual.values[i];
      if (std::isinf(want) || std::isnan(want)) {
        ASSERT_TRUE(got == want || (std::isnan(got) && std::isnan(want))) << "element " << i;
        continue;
      }
      ASSERT_TRUE(std::isfinite(got)) << "element " << i << " is " << got << ", not " << want;
      error += (got - want) * (got - want);
      norm += want * want;
    }
    EXPECT_LE(std::sqrt(error), tolerance * std::sqrt(norm) + 1e-30);
    EXPECT_TRUE(gpu.is_padding_untouched());
  }

  /// Fresh numbers in every run.
  uint64_t seed_ = std::random_device{}();
  Random random_{seed_};
  std::unique_ptr<kernels::Backend> cpu_ = kernels::cpu::create_cpu_backend(8);
  std::unique_ptr<kernels::Backend> gpu_ = mirror_to_host(kernels::cuda::create_cuda_backend(0));
};

}  // namespace tessera::testing
