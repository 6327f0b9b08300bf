#include "engine/calibration/layer_calibration.h"

#include <gtest/gtest.h>

#include "tests/unit/engine/calibration/test_layer.h"

namespace tessera {
namespace {

constexpr int64_t kWidth = 32;
constexpr int64_t kHeads = 3;
constexpr int64_t kKeyDim = 8;

Matrix to_matrix(const float* values, int64_t rows, int64_t columns) {
  return FloatRows(values, rows, columns).cast<double>();
}
Matrix to_matrix(const std::vector<float>& values) {
  return to_matrix(values.data(), kWidth, kWidth);
}

class LayerCalibrationTest : public ::testing::Test {
 protected:
  LayerCalibrationTest() {
    for (uint64_t head = 0; head < kHeads; ++head) {
      keys_.push_back(test::random_matrix(kWidth, kKeyDim, 40 + head));
    }
  }
  TplaCalibration::Layer make(BasisKind kind, const CutOptions& options) const {
    return calibrate_layer(
        {.moments = moments_, .keys = keys_}, make_basis(kind, moments_, 1), options);
  }

  const LatentMoments moments_ = test::random_moments(kWidth, 21);
  HeadKeys keys_;
};

TEST_F(LayerCalibrationTest, InverseOfTheDealtBasisIsItsInverse) {
  for (const int64_t shared : {0, 8, 16}) {
    const TplaCalibration::Layer layer =
        make(BasisKind::kBalanced, {.dealing = {.num_slices = 2, .num_shared = shared}});
    EXPECT_LT(test::identity_error(to_matrix(layer.basis) * to_matrix(layer.inverse)), 1e-4);
    EXPECT_EQ(layer.num_shared, shared);
  }
}

TEST_F(LayerCalibrationTest, OrthogonalBasesHaveNoInverse) {
  for (const BasisKind kind :
       {BasisKind::kNone, BasisKind::kHadamard, BasisKind::kPca, BasisKind::kBalancedOrthonormal}) {
    const TplaCalibration::Layer layer = make(kind, {});
    EXPECT_TRUE(layer.inverse.empty());
    const Matrix basis = to_matrix(layer.basis);
    EXPECT_LT(test::identity_error(basis.transpose() * basis), 1e-5) << basis_kind_name(kind);
  }
}

TEST_F(LayerCalibrationTest, SharedColumnsAreTheStrongestDirections) {
  const LatentBasis basis = make_basis(BasisKind::kBalanced, moments_, 1);
  const TplaCalibration::Layer layer =
      make(BasisKind::kBalanced, {.dealing = {.num_slices = 2, .num_shared = 8}});
  const Matrix columns = to_matrix(layer.basis);
  for (int64_t direction = 0; direction < 8; ++direction) {
    const int64_t column = direction % 2 * 4 + direction / 2;
    EXPECT_LT((columns.col(column) - basis.forward.col(direction)).cwiseAbs().maxCoeff(), 1e-4);
  }
}

TEST_F(LayerCalibrationTest, MixedSlicesEstimateAllOfTheLogit) {
  EXPECT_EQ(make(BasisKind::kBalanced, {.dealing = {.num_slices = 4}}).logit_factor, 4.0);
  const CutOptions contiguous{.dealing = {.kind = DealingKind::kContiguous}};
  EXPECT_EQ(make(BasisKind::kPca, contiguous).logit_factor, 1.0);
  EXPECT_EQ(make(BasisKind::kHadamard, contiguous).logit_factor, 2.0);
  CutOptions given = contiguous;
  given.logit_factor = 1.25;
  EXPECT_EQ(make(BasisKind::kPca, given).logit_factor, 1.25);
}

TEST_F(LayerCalibrationTest, AllColumnsSharedIsTheIdentity) {
  const TplaCalibration::Layer layer =
      make(BasisKind::kBalanced,
           {.dealing = {.num_slices = 2, .num_shared = kWidth}, .refit = RefitKind::kLeastSquares});
  EXPECT_EQ(to_matrix(layer.basis), Matrix::Identity(kWidth, kWidth));
  EXPECT_TRUE(layer.inverse.empty());
  EXPECT_TRUE(layer.keys.empty());
}

/// Error variance of estimating (K q).n from the slice's columns with the given keys [w, dn].
double estimate_error(const LatentMoments& moments,
                      const Matrix& columns,  // [R, w] of the basis
                      const Matrix& key,      // [w, dn]
                      const Matrix& exact) {  // [R, dn]
  const Matrix difference = columns * key - exact;
  return (difference.transpose() * moments.covariance * difference).trace();
}

TEST_F(LayerCalibrationTest, LeastSquaresKeysEstimateBetterThanAnyNearby) {
  const int64_t shared = 8;
  const int64_t kept = 8 + 12;
  const TplaCalibration::Layer layer =
      make(BasisKind::kBalanced,
           {.dealing = {.num_slices = 2, .num_shared = shared}, .refit = RefitKind::kLeastSquares});
  ASSERT_EQ(static_cast<int64_t>(layer.keys.size()), 2 * kHeads * kept * kKeyDim);
  const Matrix basis = to_matrix(layer.basis);
  for (int64_t slice = 0; slice < 2; ++slice) {
    Matrix columns(kWidth, kept);  // the other's share, the own share, the own columns
    columns << basis.middleCols(slice == 0 ? 4 : 0, 4), basis.middleCols(slice == 0 ? 0 : 4, 4),
        basis.middleCols(8 + slice * 12, 12);
    for (int64_t head = 0; head < kHeads; ++head) {
      const Matrix key =
          to_matrix(layer.keys.data() + (slice * kHeads + head) * kept * kKeyDim, kept, kKeyDim);
      const Matrix& exact = keys_[static_cast<size_t>(head)];
      const double error = estimate_error(moments_, columns, key, exact);
      for (uint64_t seed = 0; seed < 5; ++seed) {
        // Large against the regularisation, small against the keys.
        const Matrix step = 0.05 * test::random_matrix(kept, kKeyDim, 100 + seed);
        EXPECT_LT(error, estimate_error(moments_, columns, key + step, exact));
      }
    }
  }
}

TEST_F(LayerCalibrationTest, IsAFunctionOfItsInputs) {
  const CutOptions options{.dealing = {.kind = DealingKind::kRandomMix, .seed = 3},
                           .refit = RefitKind::kLeastSquares};
  const TplaCalibration::Layer first = make(BasisKind::kBalanced, options);
  const TplaCalibration::Layer second = make(BasisKind::kBalanced, options);
  EXPECT_EQ(first.basis, second.basis);
  EXPECT_EQ(first.inverse, second.inverse);
  EXPECT_EQ(first.keys, second.keys);
}

TEST(RefitKindTest, NamesAreReadBack) {
  for (const RefitKind kind : {RefitKind::kNone, RefitKind::kLeastSquares}) {
    EXPECT_EQ(parse_refit_kind(refit_kind_name(kind)), kind);
  }
  EXPECT_EQ(parse_refit_kind("best"), std::nullopt);
}

}  // namespace
}  // namespace tessera
