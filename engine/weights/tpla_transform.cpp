#include "engine/weights/tpla_transform.h"

#include <bit>
#include <cmath>

#include "engine/base/check.h"
#include "engine/base/text.h"
#include "engine/weights/fingerprint.h"

namespace tessera {
namespace {

constexpr int64_t kMinHadamard = 8;

// SplitMix64 (Steele, Lea, Flood 2014): a random word for every value of a counter.
uint64_t random_word(uint64_t counter) {
  uint64_t z = counter * 0x9e3779b97f4a7c15U;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31);
}

/// Sylvester: element (i, j) of H_n is (-1)^popcount(i & j).
std::vector<float> signed_hadamard(int64_t width, int64_t block, uint64_t seed) {
  std::vector<float> basis(static_cast<size_t>(width * width), 0.0F);
  const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(block)));
  for (int64_t i = 0; i < width; ++i) {
    const bool is_flipped = (random_word(seed + static_cast<uint64_t>(i)) & 1U) != 0;
    const int64_t first = i / block * block;
    for (int64_t j = 0; j < block; ++j) {
      const auto both = static_cast<uint64_t>((i - first) & j);
      const bool is_odd = std::popcount(both) % 2 == 1;
      basis[static_cast<size_t>(i * width + first + j)] = is_odd != is_flipped ? -scale : scale;
    }
  }
  return basis;
}

}  // namespace

Result<TplaTransform> TplaTransform::hadamard(const ModelConfig& config, uint64_t seed) {
  const int64_t width = config.kv_lora_rank;
  const int64_t block = width & -width;
  if (block < kMinHadamard) {
    return invalid_argument(str_cat("kv_lora_rank ",
                                    width,
                                    " has the power of two ",
                                    block,
                                    ", a Hadamard basis needs at least ",
                                    kMinHadamard));
  }
  TplaTransform transform;
  transform.name_ = str_cat("hadamard:", seed);
  transform.width_ = width;
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    transform.bases_.push_back(signed_hadamard(
        width, block, random_word(seed * 0x100000001b3U + static_cast<uint64_t>(layer))));
  }
  transform.set_fingerprint();
  return transform;
}

std::span<const float> TplaTransform::basis(int64_t layer) const noexcept {
  return is_identity() ? std::span<const float>{} : bases_[static_cast<size_t>(layer)];
}

double TplaTransform::logit_factor(int64_t layer, int64_t num_slices) const noexcept {
  return factors_.empty() ? static_cast<double>(num_slices) : factors_[static_cast<size_t>(layer)];
}

void TplaTransform::set_fingerprint() {
  Fingerprint digest;
  digest.add(name_);
  for (const std::vector<float>& basis : bases_) {
    digest.add({reinterpret_cast<const char*>(basis.data()), basis.size() * sizeof(float)});
  }
  fingerprint_ = digest.finish();
}

void TplaTransform::rotate_rows(int64_t layer, float* rows, int64_t width) const {
  if (is_identity()) {
    return;
  }
  const float* basis = bases_[static_cast<size_t>(layer)].data();
  std::vector<double> sums(static_cast<size_t>(width_ * width), 0.0);
  for (int64_t i = 0; i < width_; ++i) {
    for (int64_t j = 0; j < width_; ++j) {
      const double factor = basis[i * width_ + j];  // row j of U^T takes row i of W
      double* sum = sums.data() + j * width;
      for (int64_t k = 0; factor != 0.0 && k < width; ++k) {
        sum[k] += factor * static_cast<double>(rows[i * width + k]);
      }
    }
  }
  for (int64_t i = 0; i < width_ * width; ++i) {
    rows[i] = static_cast<float>(sums[static_cast<size_t>(i)]);
  }
}

void TplaTransform::rotate_columns(int64_t layer,
                                   std::span<const float> gamma,
                                   float* rows,
                                   int64_t num_rows) const {
  if (is_identity()) {
    return;
  }
  TESSERA_CHECK(static_cast<int64_t>(gamma.size()) == width_, "gamma is one number a column");
  const float* basis = bases_[static_cast<size_t>(layer)].data();
  std::vector<double> sums(static_cast<size_t>(width_));
  for (int64_t row = 0; row < num_rows; ++row) {
    float* values = rows + row * width_;
    sums.assign(sums.size(), 0.0);
    for (int64_t i = 0; i < width_; ++i) {
      const double factor = static_cast<double>(values[i]) * gamma[static_cast<size_t>(i)];
      for (int64_t j = 0; j < width_; ++j) {
        sums[static_cast<size_t>(j)] += factor * static_cast<double>(basis[i * width_ + j]);
      }
    }
    for (int64_t j = 0; j < width_; ++j) {
      values[j] = static_cast<float>(sums[static_cast<size_t>(j)]);
    }
  }
}

}  // namespace tessera
