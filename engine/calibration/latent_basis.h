// Bases of a layer's latent space, and how strong each of their directions is. Pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "engine/calibration/linear_algebra.h"

namespace tessera {

enum class BasisKind : uint8_t {
  kNone,      ///< the latents as they are
  kHadamard,  ///< signed Hadamard: every direction a blend of all
  kPca,       ///< eigenvectors of the latents' covariance
  kBalanced,  ///< covariance and queries' second moment both diagonal, and equal; not orthogonal
  kBalancedOrthonormal,  ///< its directions, strongest first, made orthonormal
};

[[nodiscard]] std::string_view basis_kind_name(BasisKind kind) noexcept;
[[nodiscard]] std::optional<BasisKind> parse_basis_kind(std::string_view name) noexcept;

/// What a layer's bases follow from.
struct LatentMoments {
  Matrix covariance;  ///< [R, R] of n, centred
  Matrix query;       ///< [R, R]: E[q q^T] of the absorbed queries, n.q the logit; sum over heads
};

/// The cache holds n A: coordinates along the columns of A.
struct LatentBasis {
  Matrix forward;  ///< A [R, R], columns by falling strength
  Matrix inverse;  ///< A^-1
  bool is_orthogonal = false;
  bool is_mixed = false;  ///< no direction is stronger than another: slices are alike as they come
  Vector strength;        ///< of each column: what it brings to the logits' variance, to compare
};

[[nodiscard]] LatentBasis make_basis(BasisKind kind, const LatentMoments& moments, uint64_t seed);

}  // namespace tessera
