// Calibrations for tests: random bases of known kind, shared columns, keys that were never fitted.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/config/model_config.h"
#include "engine/weights/tpla_calibration.h"
#include "tests/support/host_tensor.h"
#include "tests/support/tpla_reference.h"

namespace tessera::test {

enum class BasisKind { kOrthogonal, kInvertible };

struct CalibrationChoice {
  int64_t num_slices = 2;
  BasisKind basis = BasisKind::kInvertible;
  /// s of each layer; empty: none anywhere.
  std::vector<int64_t> shared_columns = {};
  /// Random keys in every layer that is sliced.
  bool has_keys = false;
  uint64_t seed = 1;
};

/// n x n, random; its columns are orthonormal.
[[nodiscard]] ::tessera::testing::Array random_rotation(int64_t n,
                                                        ::tessera::testing::Random& random);
[[nodiscard]] ::tessera::testing::Array product(const ::tessera::testing::Array& a,
                                                const ::tessera::testing::Array& b);
[[nodiscard]] ::tessera::testing::Array transposed(const ::tessera::testing::Array& a);

/// Invertible bases have singular values between 1/2 and 2.
[[nodiscard]] TplaCalibration make_calibration(const ModelConfig& config,
                                               const CalibrationChoice& choice);

/// The same for the reference, which inverts the bases itself.
[[nodiscard]] std::vector<::tessera::testing::TplaReference::Layer> reference_layers(
    const ModelConfig& config, const TplaCalibration& calibration);

/// Turns the columns that a slice multiplies as values among themselves: within its share of the
/// shared ones, and within its own.
void rotate_inside_slices(const ModelConfig& config, TplaCalibration& calibration, uint64_t seed);

}  // namespace tessera::test
