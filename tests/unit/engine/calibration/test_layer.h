// Layers with random moments, for the tests of this folder.
#pragma once

#include <random>
#include <string>
#include <vector>

#include "engine/calibration/layer_knowledge.h"
#include "tests/support/small_model.h"

namespace tessera::test {

inline Matrix random_matrix(int64_t rows, int64_t columns, uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<double> normal;
  Matrix matrix(rows, columns);
  for (Eigen::Index i = 0; i < matrix.size(); ++i) {
    matrix(i) = normal(engine);
  }
  return matrix;
}

/// A covariance whose directions differ in strength by up to two orders of magnitude.
inline Matrix random_covariance(int64_t size, uint64_t seed) {
  Matrix factor = random_matrix(size, 2 * size, seed);
  for (Eigen::Index row = 0; row < size; ++row) {
    factor.row(row) /= 1.0 + 0.2 * static_cast<double>(row);
  }
  return factor * factor.transpose() / static_cast<double>(2 * size);
}

inline LatentMoments random_moments(int64_t size, uint64_t seed) {
  return {.covariance = random_covariance(size, seed), .query = random_covariance(size, seed + 1)};
}

/// Heads in groups of two.
inline LayerKnowledge random_layer(int64_t width, int64_t heads, int64_t key_dim, uint64_t seed) {
  LayerKnowledge layer;
  for (int64_t head = 0; head < heads; ++head) {
    const uint64_t own = seed + 10 * static_cast<uint64_t>(head + 1);
    layer.heads.push_back({.keys = random_matrix(width, key_dim, own),
                           .query_moment = random_covariance(key_dim, own + 1),
                           .value_weight = 0.5 + static_cast<double>(head),
                           .covariance_group = head / 2});
    if (head % 2 == 0) {
      layer.attention_covariances.push_back(random_covariance(width, own + 2));
    }
  }
  layer.latent_covariance = random_covariance(width, seed);
  return layer;
}

/// Distance from the identity, largest element.
inline double identity_error(const Matrix& matrix) {
  return (matrix - Matrix::Identity(matrix.rows(), matrix.cols())).cwiseAbs().maxCoeff();
}

/// Largest element off the diagonal.
inline double off_diagonal(const Matrix& matrix) {
  return (matrix - Matrix(matrix.diagonal().asDiagonal())).cwiseAbs().maxCoeff();
}

}  // namespace tessera::test
