// What the tests of the operations share: a backend per thread count, random numbers whose seed is
// printed on failure, and comparison against a bound per element. Other backends run the same
// tests: each test executable says what backend it is about.
#pragma once

#include <cmath>
#include <cstdint>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/ops/backend.h"
#include "tests/support/host_tensor.h"

namespace tessera::testing {

/// Half a unit in the last place of a float32, relative: one rounding.
inline constexpr double kFloat32Rounding = 0x1.0p-24;
/// The same of a bfloat16, doubled so that a value next to a tie may fall to either side.
inline constexpr double kBFloat16Rounding = 0x1.0p-8;
/// Denormals may be flushed.
inline constexpr double kTiny = 1e-37;

[[nodiscard]] inline double rounding_of(kernels::DType dtype) {
  return dtype == kernels::DType::kBFloat16 ? kBFloat16Rounding : kFloat32Rounding;
}

/// Every element within relative * |expected| + slack * magnitude of `expected`, where `magnitude`
/// is the sum of the absolute terms that were added up (empty: no such term).
struct Tolerance {
  double relative = 0.0;
  double slack = 0.0;
  Array magnitude = {};
};

inline void expect_close(const Array& actual, const Array& expected, const Tolerance& tolerance) {
  ASSERT_EQ(actual.shape, expected.shape);
  for (size_t i = 0; i < expected.values.size(); ++i) {
    const double want = expected.values[i];
    const double terms = tolerance.magnitude.values.empty() ? 1.0 : tolerance.magnitude.values[i];
    const double bound = tolerance.relative * std::fabs(want) + tolerance.slack * terms + kTiny;
    const bool is_same = actual.values[i] == want;  // infinities
    ASSERT_TRUE(is_same || std::fabs(actual.values[i] - want) <= bound)
        << "element " << i << ": " << actual.values[i] << ", expected " << want << " within "
        << bound;
  }
}

/// The backend that this executable tests, on operands in host memory.
[[nodiscard]] std::unique_ptr<kernels::Backend> make_host_backend(int num_threads);
/// The numbers of threads to test it with.
[[nodiscard]] std::vector<int> tested_thread_counts();

/// The parameter is the number of threads.
class CpuOpsTest : public ::testing::TestWithParam<int> {
 protected:
  void TearDown() override {
    if (HasFailure()) {
      std::cerr << "random seed of this test: " << kSeed << '\n';
    }
  }
  [[nodiscard]] kernels::Ops& ops() { return backend_->ops(); }

  static constexpr uint64_t kSeed = 20260611;
  Random random_{kSeed};
  std::unique_ptr<kernels::Backend> backend_ = make_host_backend(GetParam());
};

inline std::string thread_count_name(const ::testing::TestParamInfo<int>& info) {
  return std::to_string(info.param) + (info.param == 1 ? "Thread" : "Threads");
}

#define TESSERA_TEST_THREADS(Fixture) \
  INSTANTIATE_TEST_SUITE_P(           \
      Threads, Fixture, ::testing::ValuesIn(tested_thread_counts()), thread_count_name)

}  // namespace tessera::testing
