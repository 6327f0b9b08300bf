// The few decompositions that calibration needs, in double precision, one thread, deterministic.
#pragma once

#include <Eigen/Core>
#include <cstdint>

namespace tessera {

using Matrix = Eigen::MatrixXd;
using Vector = Eigen::VectorXd;
/// Rows of float32, as activations lie in memory.
using FloatMatrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using FloatRows = Eigen::Map<const FloatMatrix>;

struct SymmetricEigen {
  Vector values;   ///< falling
  Matrix vectors;  ///< columns, orthonormal
};
/// Of a symmetric matrix; its lower triangle is read.
[[nodiscard]] SymmetricEigen symmetric_eigen(const Matrix& matrix);

/// matrix + share * mean(diagonal) * I: positive definite when `matrix` is positive semidefinite
/// and not zero; the identity when it is zero.
[[nodiscard]] Matrix regularised(const Matrix& matrix, double share);

/// L with L L^T = matrix. A matrix that rounding has left not quite positive definite gets the
/// least ridge, in steps of ten, that makes it so. `matrix` is finite.
[[nodiscard]] Matrix cholesky_factor(const Matrix& matrix);

/// Solves matrix * X = right, with the matrix as cholesky_factor() takes it.
[[nodiscard]] Matrix solve_positive(const Matrix& matrix, const Matrix& right);

/// Q of the QR decomposition, signs chosen so that R has a positive diagonal: the columns of
/// `matrix` made orthonormal one after the other.
[[nodiscard]] Matrix orthonormalised(const Matrix& matrix);

/// A random orthogonal matrix, a function of size and seed.
[[nodiscard]] Matrix random_orthogonal(int64_t size, uint64_t seed);

/// An orthogonal matrix whose first column is constant: Sylvester's Hadamard matrix where `size` is
/// a power of two (all elements +-size^-1/2), else the discrete cosine transform.
[[nodiscard]] Matrix mixing_matrix(int64_t size);

}  // namespace tessera
