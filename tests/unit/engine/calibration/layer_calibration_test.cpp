#include "engine/calibration/layer_calibration.h"

#include <limits>

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
  [[nodiscard]] LatentBasis basis(BasisKind kind) const {
    return make_basis(kind, moments_for(kind, layer_), 1);
  }
  [[nodiscard]] CutLayer cut(BasisKind kind, const CutOptions& options) const {
    return cut_layer(layer_, basis(kind), options);
  }
  [[nodiscard]] TplaCalibration::Layer make(BasisKind kind, const CutOptions& options) const {
    return cut(kind, options).calibration;
  }

  const LayerKnowledge layer_ = test::random_layer(kWidth, kHeads, kKeyDim, 21);
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
  const LatentBasis balanced = basis(BasisKind::kBalanced);
  const TplaCalibration::Layer layer =
      make(BasisKind::kBalanced, {.dealing = {.num_slices = 2, .num_shared = 8}});
  const Matrix columns = to_matrix(layer.basis);
  for (int64_t direction = 0; direction < 8; ++direction) {
    EXPECT_LT((columns.col(direction) - balanced.forward.col(direction)).cwiseAbs().maxCoeff(),
              1e-4);
  }
}

TEST_F(LayerCalibrationTest, MixedSlicesEstimateAllOfTheLogit) {
  EXPECT_EQ(make(BasisKind::kBalanced, {.dealing = {.num_slices = 4}}).logit_factor, 4.0);
  const CutOptions contiguous{.dealing = {.kind = DealingKind::kContiguous}};
  EXPECT_EQ(make(BasisKind::kPca, contiguous).logit_factor, 1.0);
  EXPECT_EQ(make(BasisKind::kHadamard, contiguous).logit_factor, 2.0);
  CutOptions given = contiguous;
  given.logit_factor = {LogitFactorKind::kGiven, 1.25};
  EXPECT_EQ(make(BasisKind::kPca, given).logit_factor, 1.25);
}

TEST_F(LayerCalibrationTest, ShareDividesASlicesOwnKeysByItsPartOfTheVariance) {
  const TplaCalibration::Layer layer =
      make(BasisKind::kPca,
           {.dealing = {.kind = DealingKind::kContiguous, .num_slices = 2, .num_shared = 8},
            .logit_factor = {LogitFactorKind::kShare}});
  const Matrix basis = to_matrix(layer.basis);
  const Vector variances = (basis.transpose() * layer_.latent_covariance * basis).diagonal();
  ASSERT_EQ(layer.keys.size(), 2U * kHeads * 20 * kKeyDim);
  for (int64_t slice = 0; slice < 2; ++slice) {
    const double share = variances.segment(8 + slice * 12, 12).sum() / variances.tail(24).sum();
    for (int64_t head = 0; head < kHeads; ++head) {
      const float* values = layer.keys.data() + (slice * kHeads + head) * 20 * kKeyDim;
      const Matrix all = basis.transpose() * layer_.heads[static_cast<size_t>(head)].keys;
      Matrix expected(20, kKeyDim);
      expected << all.topRows(8), all.middleRows(8 + slice * 12, 12) / share;
      const double error = (to_matrix(values, 20, kKeyDim) - expected).cwiseAbs().maxCoeff();
      EXPECT_LT(error, 1e-4 * expected.cwiseAbs().maxCoeff());
    }
  }
}

TEST_F(LayerCalibrationTest, AllColumnsSharedIsTheIdentity) {
  const TplaCalibration::Layer layer =
      make(BasisKind::kBalanced,
           {.dealing = {.num_slices = 2, .num_shared = kWidth}, .refit = RefitKind::kLeastSquares});
  EXPECT_EQ(to_matrix(layer.basis), Matrix::Identity(kWidth, kWidth));
  EXPECT_TRUE(layer.inverse.empty());
  EXPECT_TRUE(layer.keys.empty());
}

/// The columns of a slice of 32 columns, 8 shared, in two slices: the shared ones, its own.
Matrix slice_columns(const Matrix& basis, int64_t slice) {
  Matrix columns(kWidth, 20);
  columns << basis.leftCols(8), basis.middleCols(8 + slice * 12, 12);
  return columns;
}

/// E[q^T D^T C D q] by a sum over the square roots of both, D = columns key - exact.
double logit_error(const Matrix& columns,
                   const Matrix& key,
                   const LayerKnowledge& layer,
                   size_t h) {
  const HeadKnowledge& head = layer.heads[h];
  const Matrix& covariance = layer.attention_covariances[h / 2];
  const Matrix difference = columns * key - head.keys;
  const Matrix latent_root = cholesky_factor(covariance);
  const Matrix query_root = cholesky_factor(head.query_moment);
  return head.value_weight * (latent_root.transpose() * difference * query_root).squaredNorm();
}

TEST_F(LayerCalibrationTest, LeastSquaresKeysEstimateBetterThanAnyNearby) {
  const CutLayer cut_by_two =
      cut(BasisKind::kBalanced,
          {.dealing = {.num_slices = 2, .num_shared = 8}, .refit = RefitKind::kLeastSquares});
  const TplaCalibration::Layer& layer = cut_by_two.calibration;
  const int64_t size = 20 * kKeyDim;
  ASSERT_EQ(static_cast<int64_t>(layer.keys.size()), 2 * kHeads * size);
  double sum = 0.0;
  for (int64_t slice = 0; slice < 2; ++slice) {
    const Matrix columns = slice_columns(to_matrix(layer.basis), slice);
    for (int64_t head = 0; head < kHeads; ++head) {
      const auto index = static_cast<size_t>(head);
      const Matrix key = to_matrix(layer.keys.data() + (slice * kHeads + head) * size, 20, kKeyDim);
      const double error = logit_error(columns, key, layer_, index);
      sum += error;
      for (uint64_t seed = 0; seed < 5; ++seed) {
        // Large against the regularisation, small against the keys.
        const Matrix step = 0.05 * test::random_matrix(20, kKeyDim, 100 + seed);
        EXPECT_LT(error, logit_error(columns, key + step, layer_, index));
      }
    }
  }
  EXPECT_NEAR(cut_by_two.logit_error, sum, 1e-3 * sum);  // keys are rounded to float32
}

TEST_F(LayerCalibrationTest, LogitErrorFallsWithSharedColumnsAndWithARefit) {
  double last = std::numeric_limits<double>::infinity();
  for (const int64_t shared : {0, 8, 16, 24, 32}) {
    CutOptions options{.dealing = {.num_slices = 2, .num_shared = shared}};
    const double plain = cut(BasisKind::kBalanced, options).logit_error;
    options.refit = RefitKind::kLeastSquares;
    const double refitted = cut(BasisKind::kBalanced, options).logit_error;
    EXPECT_LE(refitted, plain);
    EXPECT_LT(refitted, last);
    last = refitted;
  }
  EXPECT_EQ(last, 0.0);
}

TEST_F(LayerCalibrationTest, PcaKnowsAllTokensAlike) {
  EXPECT_EQ(moments_for(BasisKind::kPca, layer_).covariance, layer_.latent_covariance);
  Matrix mean = Matrix::Zero(kWidth, kWidth);
  for (size_t head = 0; head < kHeads; ++head) {
    mean += layer_.attention_covariances[head / 2] / static_cast<double>(kHeads);
  }
  const Matrix actual = moments_for(BasisKind::kBalanced, layer_).covariance;
  EXPECT_LT((actual - mean).cwiseAbs().maxCoeff(), 1e-12);
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
  for (const RefitKind kind : {RefitKind::kNone, RefitKind::kLeastSquares, RefitKind::kGradient}) {
    EXPECT_EQ(parse_refit_kind(refit_kind_name(kind)), kind);
  }
  EXPECT_EQ(parse_refit_kind("best"), std::nullopt);
}

}  // namespace
}  // namespace tessera
