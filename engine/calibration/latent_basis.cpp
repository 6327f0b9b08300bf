#include "engine/calibration/latent_basis.h"

#include <array>
#include <cmath>
#include <utility>

#include "engine/base/check.h"

namespace tessera {
namespace {

constexpr std::array<std::pair<BasisKind, std::string_view>, 5> kNames = {{
    {BasisKind::kNone, "none"},
    {BasisKind::kHadamard, "hadamard"},
    {BasisKind::kPca, "pca"},
    {BasisKind::kBalanced, "balanced"},
    {BasisKind::kBalancedOrthonormal, "balanced_orthonormal"},
}};

/// Directions that hardly vary are not stretched by more than this says: rounding to float32 and
/// bfloat16 stays harmless.
constexpr double kRegularisation = 1e-4;

/// Variance of the coordinate times second moment of the query along it.
Vector strength_of(const LatentBasis& basis, const LatentMoments& moments) {
  const Matrix covariance = basis.forward.transpose() * moments.covariance * basis.forward;
  const Matrix query = basis.inverse * moments.query * basis.inverse.transpose();
  return covariance.diagonal().cwiseProduct(query.diagonal()).cwiseMax(0.0).cwiseSqrt();
}

LatentBasis orthogonal(Matrix forward) {
  LatentBasis basis;
  basis.inverse = forward.transpose();
  basis.forward = std::move(forward);
  basis.is_orthogonal = true;
  return basis;
}

/// C = L L^T, L^T Q L = V s^2 V^T, A = L^-T V s^1/2: A^T C A = A^-1 Q A^-T = s.
LatentBasis balanced(const LatentMoments& moments) {
  const Matrix factor = cholesky_factor(regularised(moments.covariance, kRegularisation));
  const Matrix query = regularised(moments.query, kRegularisation);
  const SymmetricEigen eigen = symmetric_eigen(factor.transpose() * query * factor);
  const Vector root = eigen.values.cwiseMax(1e-30).array().pow(0.25);  // s^1/2
  LatentBasis basis;
  basis.forward =
      factor.transpose().triangularView<Eigen::Upper>().solve(eigen.vectors) * root.asDiagonal();
  basis.inverse = root.cwiseInverse().asDiagonal() * eigen.vectors.transpose() * factor.transpose();
  return basis;
}

/// The first power of two that divides the width decides the size of its blocks.
Matrix signed_hadamard(int64_t width, uint64_t seed) {
  const int64_t block = width & -width;
  const Matrix mixing = mixing_matrix(block);
  // Signs of a random orthogonal matrix's first column: a function of width and seed.
  const Vector signs = random_orthogonal(width, seed).col(0);
  Matrix forward = Matrix::Zero(width, width);
  for (int64_t first = 0; first < width; first += block) {
    forward.block(first, first, block, block) = mixing;
  }
  for (int64_t row = 0; row < width; ++row) {
    forward.row(row) *= signs(row) < 0.0 ? -1.0 : 1.0;
  }
  return forward;
}

LatentBasis unordered_basis(BasisKind kind, const LatentMoments& moments, uint64_t seed) {
  const int64_t width = moments.covariance.rows();
  switch (kind) {
    case BasisKind::kNone:
      return orthogonal(Matrix::Identity(width, width));
    case BasisKind::kHadamard: {
      LatentBasis basis = orthogonal(signed_hadamard(width, seed));
      basis.is_mixed = true;
      return basis;
    }
    case BasisKind::kPca:
      return orthogonal(symmetric_eigen(moments.covariance).vectors);
    case BasisKind::kBalanced:
      return balanced(moments);
    case BasisKind::kBalancedOrthonormal:
      return orthogonal(orthonormalised(balanced(moments).forward));
  }
  return {};
}

}  // namespace

std::string_view basis_kind_name(BasisKind kind) noexcept {
  for (const auto& [value, name] : kNames) {
    if (value == kind) {
      return name;
    }
  }
  return "";
}

std::optional<BasisKind> parse_basis_kind(std::string_view name) noexcept {
  for (const auto& [value, known] : kNames) {
    if (known == name) {
      return value;
    }
  }
  return std::nullopt;
}

LatentBasis make_basis(BasisKind kind, const LatentMoments& moments, uint64_t seed) {
  TESSERA_CHECK(moments.covariance.rows() == moments.query.rows(), "moments of one layer");
  LatentBasis basis = unordered_basis(kind, moments, seed);
  basis.strength = strength_of(basis, moments);
  return basis;
}

}  // namespace tessera
