#include "engine/calibration/latent_basis.h"

#include <gtest/gtest.h>

#include "tests/unit/engine/calibration/test_layer.h"

namespace tessera {
namespace {

constexpr int64_t kWidth = 32;
constexpr BasisKind kAll[] = {BasisKind::kNone,
                              BasisKind::kHadamard,
                              BasisKind::kPca,
                              BasisKind::kBalanced,
                              BasisKind::kBalancedOrthonormal};

TEST(LatentBasisTest, EveryBasisHasItsInverse) {
  const LatentMoments moments = test::random_moments(kWidth, 11);
  for (const BasisKind kind : kAll) {
    const LatentBasis basis = make_basis(kind, moments, 1);
    EXPECT_LT(test::identity_error(basis.forward * basis.inverse), 1e-9) << basis_kind_name(kind);
    const double orthogonality = test::identity_error(basis.forward.transpose() * basis.forward);
    EXPECT_EQ(basis.is_orthogonal, orthogonality < 1e-9) << basis_kind_name(kind);
    EXPECT_EQ(basis.strength.size(), kWidth);
  }
}

TEST(LatentBasisTest, PcaDiagonalisesTheCovarianceStrongestFirst) {
  const LatentMoments moments = test::random_moments(kWidth, 12);
  const LatentBasis basis = make_basis(BasisKind::kPca, moments, 1);
  const Matrix variances = basis.forward.transpose() * moments.covariance * basis.forward;
  EXPECT_LT(test::off_diagonal(variances), 1e-12);
  for (int64_t i = 1; i < kWidth; ++i) {
    EXPECT_GE(variances(i - 1, i - 1), variances(i, i));
  }
}

TEST(LatentBasisTest, BalancedMakesLatentsAndQueriesEqualAndUncorrelated) {
  const LatentMoments moments = test::random_moments(kWidth, 13);
  const LatentBasis basis = make_basis(BasisKind::kBalanced, moments, 1);
  const Matrix latent = basis.forward.transpose() * moments.covariance * basis.forward;
  const Matrix query = basis.inverse * moments.query * basis.inverse.transpose();
  // Not exact: both are regularised by 1e-4 of their mean.
  const double tolerance = 2e-3 * basis.strength(0);
  EXPECT_LT(test::off_diagonal(latent), tolerance);
  EXPECT_LT(test::off_diagonal(query), tolerance);
  for (int64_t i = 0; i < kWidth; ++i) {
    EXPECT_NEAR(latent(i, i), query(i, i), tolerance);
    EXPECT_NEAR(latent(i, i), basis.strength(i), tolerance);
    EXPECT_TRUE(i == 0 || basis.strength(i - 1) >= basis.strength(i) - tolerance);
  }
}

TEST(LatentBasisTest, BalancedOrthonormalSpansTheSameStrongestDirections) {
  const LatentMoments moments = test::random_moments(kWidth, 14);
  const Matrix free = make_basis(BasisKind::kBalanced, moments, 1).forward;
  const Matrix orthonormal = make_basis(BasisKind::kBalancedOrthonormal, moments, 1).forward;
  for (const int64_t count : {1, 5, 20}) {
    const Matrix span = orthonormal.leftCols(count);
    const Matrix outside = free.leftCols(count) - span * (span.transpose() * free.leftCols(count));
    EXPECT_LT(outside.cwiseAbs().maxCoeff(), 1e-9);
  }
}

TEST(LatentBasisTest, HadamardBlendsAllDirectionsAlike) {
  const LatentBasis basis = make_basis(BasisKind::kHadamard, test::random_moments(kWidth, 15), 1);
  EXPECT_TRUE(basis.is_mixed);
  for (Eigen::Index i = 0; i < basis.forward.size(); ++i) {
    EXPECT_NEAR(basis.forward(i) * basis.forward(i), 1.0 / kWidth, 1e-12);
  }
}

TEST(LatentBasisTest, LatentsThatNeverVaryAreNoObstacle) {
  LatentMoments moments = test::random_moments(kWidth, 16);
  moments.covariance.row(3).setZero();
  moments.covariance.col(3).setZero();
  moments.query.row(5).setZero();
  moments.query.col(5).setZero();
  const LatentBasis basis = make_basis(BasisKind::kBalanced, moments, 1);
  EXPECT_TRUE(basis.forward.allFinite());
  EXPECT_LT(test::identity_error(basis.forward * basis.inverse), 1e-9);
}

TEST(LatentBasisTest, NamesAreReadBack) {
  for (const BasisKind kind : kAll) {
    EXPECT_EQ(parse_basis_kind(basis_kind_name(kind)), kind);
  }
  EXPECT_EQ(parse_basis_kind("pcaa"), std::nullopt);
}

}  // namespace
}  // namespace tessera
