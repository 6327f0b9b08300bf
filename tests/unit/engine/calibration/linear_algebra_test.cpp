#include "engine/calibration/linear_algebra.h"

#include <gtest/gtest.h>

#include "tests/unit/engine/calibration/test_layer.h"

namespace tessera {
namespace {

TEST(LinearAlgebraTest, EigenvaluesFallAndRebuildTheMatrix) {
  const Matrix matrix = test::random_covariance(24, 3);
  const SymmetricEigen eigen = symmetric_eigen(matrix);
  for (Eigen::Index i = 1; i < eigen.values.size(); ++i) {
    EXPECT_GE(eigen.values(i - 1), eigen.values(i));
  }
  EXPECT_LT(test::identity_error(eigen.vectors.transpose() * eigen.vectors), 1e-12);
  const Matrix rebuilt = eigen.vectors * eigen.values.asDiagonal() * eigen.vectors.transpose();
  EXPECT_LT((rebuilt - matrix).cwiseAbs().maxCoeff(), 1e-12);
}

TEST(LinearAlgebraTest, RegularisesAlsoZero) {
  EXPECT_EQ(regularised(Matrix::Zero(3, 3), 0.1), Matrix::Identity(3, 3));
  const Matrix matrix = 2.0 * Matrix::Identity(3, 3);
  EXPECT_LT((regularised(matrix, 0.5) - 3.0 * Matrix::Identity(3, 3)).cwiseAbs().maxCoeff(), 1e-15);
}

TEST(LinearAlgebraTest, SolvesWithAPositiveMatrix) {
  const Matrix matrix = test::random_covariance(12, 5);
  const Matrix right = test::random_matrix(12, 4, 6);
  EXPECT_LT((matrix * solve_positive(matrix, right) - right).cwiseAbs().maxCoeff(), 1e-9);
  const Matrix factor = cholesky_factor(matrix);
  EXPECT_LT((factor * factor.transpose() - matrix).cwiseAbs().maxCoeff(), 1e-12);
}

TEST(LinearAlgebraTest, OrthonormalisesColumnsOneAfterTheOther) {
  const Matrix matrix = test::random_matrix(10, 10, 7);
  const Matrix q = orthonormalised(matrix);
  EXPECT_LT(test::identity_error(q.transpose() * q), 1e-12);
  const Matrix triangle = q.transpose() * matrix;  // upper, with a positive diagonal
  for (Eigen::Index row = 0; row < 10; ++row) {
    EXPECT_GT(triangle(row, row), 0.0);
    for (Eigen::Index column = 0; column < row; ++column) {
      EXPECT_NEAR(triangle(row, column), 0.0, 1e-12);
    }
  }
}

TEST(LinearAlgebraTest, RandomRotationsAreAFunctionOfTheSeed) {
  const Matrix one = random_orthogonal(16, 1);
  EXPECT_LT(test::identity_error(one.transpose() * one), 1e-12);
  EXPECT_EQ(one, random_orthogonal(16, 1));
  EXPECT_GT((one - random_orthogonal(16, 2)).cwiseAbs().maxCoeff(), 0.1);
}

TEST(LinearAlgebraTest, MixingMatricesGiveTheFirstMemberToEverySliceAlike) {
  for (const int64_t size : {1, 2, 3, 4, 6, 8}) {
    const Matrix mixing = mixing_matrix(size);
    EXPECT_LT(test::identity_error(mixing.transpose() * mixing), 1e-12) << size;
    for (int64_t slice = 0; slice < size; ++slice) {
      EXPECT_NEAR(mixing(slice, 0) * mixing(slice, 0) * static_cast<double>(size), 1.0, 1e-12);
    }
  }
}

}  // namespace
}  // namespace tessera
