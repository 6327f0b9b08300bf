#include "tests/support/tpla_bases.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace tessera::test {

using ::tessera::testing::Array;
using ::tessera::testing::Random;
using ::tessera::testing::TplaReference;

namespace {

std::vector<float> rounded(const Array& a) {
  return {a.values.begin(), a.values.end()};
}

Array identity(int64_t n) {
  Array a({n, n});
  for (int64_t i = 0; i < n; ++i) {
    a.at(i, i) = 1.0;
  }
  return a;
}

/// Puts a rotation in place of rows and columns [begin, begin + size) of the identity `a`.
void put_rotation(Array& a, int64_t begin, int64_t size, Random& random) {
  const Array rotation = size > 0 ? random_rotation(size, random) : Array();
  for (int64_t i = 0; i < size; ++i) {
    for (int64_t j = 0; j < size; ++j) {
      a.at(begin + i, begin + j) = rotation.at(i, j);
    }
  }
}

}  // namespace

Array transposed(const Array& a) {
  Array out({a.dim(1), a.dim(0)});
  for (int64_t i = 0; i < a.dim(0); ++i) {
    for (int64_t j = 0; j < a.dim(1); ++j) {
      out.at(j, i) = a.at(i, j);
    }
  }
  return out;
}

Array product(const Array& a, const Array& b) {
  const int64_t width = b.dim(1);
  Array out({a.dim(0), width});
  for (int64_t i = 0; i < a.dim(0); ++i) {
    double* sums = &out.at(i, 0);
    for (int64_t k = 0; k < a.dim(1); ++k) {
      const double factor = a.at(i, k);
      const double* row = b.row(k);
      for (int64_t j = 0; j < width; ++j) {
        sums[j] += factor * row[j];
      }
    }
  }
  return out;
}

/// Gram and Schmidt, twice, because once leaves rounding behind.
Array random_rotation(int64_t n, Random& random) {
  Array q = random.array({n, n});
  for (int64_t i = 0; i < n; ++i) {
    double* own = &q.at(i, 0);
    for (int64_t other = 0; other < 2 * i; ++other) {
      const double* row = q.row(other % i);
      const double dot = std::inner_product(own, own + n, row, 0.0);
      for (int64_t j = 0; j < n; ++j) {
        own[j] -= dot * row[j];
      }
    }
    const double norm = std::sqrt(std::inner_product(own, own + n, own, 0.0));
    std::for_each(own, own + n, [&](double& value) { value /= norm; });
  }
  return q;
}

TplaCalibration make_calibration(const ModelConfig& config, const CalibrationChoice& choice) {
  Random random(choice.seed);
  const int64_t n = config.kv_lora_rank;
  TplaCalibration calibration;
  calibration.basis = choice.basis == BasisKind::kOrthogonal ? "orthogonal" : "invertible";
  calibration.dealing = "random mix";
  calibration.num_slices = choice.num_slices;
  for (int64_t index = 0; index < config.num_hidden_layers; ++index) {
    TplaCalibration::Layer layer;
    Array basis = random_rotation(n, random);
    if (choice.basis == BasisKind::kInvertible) {
      Array stretched = basis;
      Array shrunk = basis;
      for (int64_t j = 0; j < n; ++j) {
        const double scale = std::exp2(random.uniform(-1.0, 1.0));
        for (int64_t i = 0; i < n; ++i) {
          stretched.at(i, j) *= scale;
          shrunk.at(i, j) /= scale;
        }
      }
      // A = Q S P has the inverse P^T S^-1 Q^T.
      const Array second = random_rotation(n, random);
      layer.inverse = rounded(product(transposed(second), transposed(shrunk)));
      basis = product(stretched, second);
    }
    layer.basis = rounded(basis);
    layer.num_shared =
        choice.shared_columns.empty() ? 0 : choice.shared_columns[static_cast<size_t>(index)];
    // Neither 1 nor g: a test of either would not see the other.
    layer.logit_factor = 0.75 * static_cast<double>(choice.num_slices);
    if (choice.has_keys && layer.num_shared < n) {
      const int64_t width = layer.num_shared + (n - layer.num_shared) / choice.num_slices;
      layer.keys = rounded(random.array(
          {choice.num_slices, config.num_attention_heads, width, config.qk_nope_head_dim}, 0.2));
    }
    calibration.layers.push_back(std::move(layer));
  }
  return calibration;
}

std::vector<TplaReference::Layer> reference_layers(const ModelConfig& config,
                                                   const TplaCalibration& calibration) {
  const int64_t n = config.kv_lora_rank;
  const int64_t slices = calibration.num_slices;
  std::vector<TplaReference::Layer> layers;
  for (const TplaCalibration::Layer& layer : calibration.layers) {
    TplaReference::Layer& own = layers.emplace_back();
    own.basis = Array({n, n}, std::vector<double>(layer.basis.begin(), layer.basis.end()));
    own.num_shared = layer.num_shared;
    own.logit_factor = layer.logit_factor;
    if (!layer.keys.empty()) {
      const int64_t width = layer.num_shared + (n - layer.num_shared) / slices;
      own.keys = Array({slices, config.num_attention_heads, width, config.qk_nope_head_dim},
                       std::vector<double>(layer.keys.begin(), layer.keys.end()));
    }
  }
  return layers;
}

void rotate_inside_slices(const ModelConfig& config, TplaCalibration& calibration, uint64_t seed) {
  Random random(seed);
  const int64_t n = config.kv_lora_rank;
  const int64_t slices = calibration.num_slices;
  for (TplaCalibration::Layer& layer : calibration.layers) {
    const int64_t share = layer.num_shared / slices;
    const int64_t own = (n - layer.num_shared) / slices;
    Array turn = identity(n);
    for (int64_t slice = 0; slice < slices; ++slice) {
      put_rotation(turn, slice * share, share, random);
      put_rotation(turn, layer.num_shared + slice * own, own, random);
    }
    const Array basis({n, n}, std::vector<double>(layer.basis.begin(), layer.basis.end()));
    layer.basis = rounded(product(basis, turn));
    if (!layer.inverse.empty()) {
      const Array inverse({n, n}, std::vector<double>(layer.inverse.begin(), layer.inverse.end()));
      layer.inverse = rounded(product(transposed(turn), inverse));
    }
  }
}

}  // namespace tessera::test
