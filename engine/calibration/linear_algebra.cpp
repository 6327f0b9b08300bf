#include "engine/calibration/linear_algebra.h"

#include <Eigen/Cholesky>
#include <Eigen/Eigenvalues>
#include <Eigen/QR>
#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>
#include <random>

#include "engine/base/check.h"

namespace tessera {

SymmetricEigen symmetric_eigen(const Matrix& matrix) {
  const Eigen::SelfAdjointEigenSolver<Matrix> solver(matrix);
  TESSERA_CHECK(solver.info() == Eigen::Success, "eigenvalues of a finite matrix were not found");
  return {solver.eigenvalues().reverse(), solver.eigenvectors().rowwise().reverse()};
}

Matrix regularised(const Matrix& matrix, double share) {
  const double mean = matrix.trace() / static_cast<double>(matrix.rows());
  Matrix result = matrix;
  result.diagonal().array() += mean > 0.0 ? share * mean : 1.0;
  return result;
}

namespace {

Eigen::LLT<Matrix> factored(const Matrix& matrix) {
  TESSERA_CHECK(matrix.allFinite(), "a matrix to be factored is finite");
  Eigen::LLT<Matrix> factor(matrix);
  const double scale = std::max(matrix.diagonal().cwiseAbs().maxCoeff(), 1e-300);
  for (double ridge = 1e-12 * scale; factor.info() != Eigen::Success; ridge *= 10.0) {
    Matrix raised = matrix;
    raised.diagonal().array() += ridge;
    factor.compute(raised);
  }
  return factor;
}

}  // namespace

Matrix cholesky_factor(const Matrix& matrix) {
  return factored(matrix).matrixL();
}

Matrix solve_positive(const Matrix& matrix, const Matrix& right) {
  return factored(matrix).solve(right);
}

Matrix orthonormalised(const Matrix& matrix) {
  const Eigen::HouseholderQR<Matrix> qr(matrix);
  Matrix q = qr.householderQ();
  for (Eigen::Index column = 0; column < q.cols(); ++column) {
    if (qr.matrixQR()(column, column) < 0.0) {
      q.col(column) *= -1.0;
    }
  }
  return q;
}

Matrix random_orthogonal(int64_t size, uint64_t seed) {
  std::mt19937_64 engine(seed);
  // Not std::normal_distribution, whose values differ between libraries.
  const auto uniform = [&engine] { return (static_cast<double>(engine() >> 11) + 0.5) * 0x1p-53; };
  Matrix gaussian(size, size);
  for (Eigen::Index column = 0; column < size; ++column) {
    for (Eigen::Index row = 0; row < size; ++row) {
      const double radius = std::sqrt(-2.0 * std::log(uniform()));
      gaussian(row, column) = radius * std::cos(2.0 * std::numbers::pi * uniform());
    }
  }
  return orthonormalised(gaussian);
}

Matrix mixing_matrix(int64_t size) {
  Matrix matrix(size, size);
  const auto width = static_cast<double>(size);
  const bool is_power_of_two = std::has_single_bit(static_cast<uint64_t>(size));
  for (int64_t i = 0; i < size; ++i) {
    for (int64_t k = 0; k < size; ++k) {
      if (is_power_of_two) {
        const bool is_odd = std::popcount(static_cast<uint64_t>(i & k)) % 2 == 1;
        matrix(i, k) = (is_odd ? -1.0 : 1.0) / std::sqrt(width);
      } else {
        const double angle =
            std::numbers::pi * (static_cast<double>(i) + 0.5) * static_cast<double>(k) / width;
        matrix(i, k) = std::sqrt((k == 0 ? 1.0 : 2.0) / width) * std::cos(angle);
      }
    }
  }
  return matrix;
}

}  // namespace tessera
