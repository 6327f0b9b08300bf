#include "engine/weights/tpla_transform.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

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

/// sums += factor * row.
void add_scaled(double factor, const float* row, int64_t width, double* sums) {
  for (int64_t k = 0; factor != 0.0 && k < width; ++k) {
    sums[k] += factor * static_cast<double>(row[k]);
  }
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
    const uint64_t word = random_word(seed * 0x100000001b3U + static_cast<uint64_t>(layer));
    transform.layers_.emplace_back().basis = signed_hadamard(width, block, word);
  }
  transform.set_fingerprint();
  return transform;
}

TplaTransform TplaTransform::create(const ModelConfig& config, TplaCalibration calibration) {
  TESSERA_CHECK(static_cast<int64_t>(calibration.layers.size()) == config.num_hidden_layers,
                "a calibration has every layer");
  TplaTransform transform;
  transform.name_ = calibration.basis;
  if (!calibration.dealing.empty()) {
    transform.name_ += " " + calibration.dealing;
  }
  transform.report_ = std::move(calibration.report);
  transform.width_ = config.kv_lora_rank;
  transform.num_slices_ = calibration.num_slices;
  transform.has_factors_ = true;
  transform.window_ = calibration.window;
  transform.layers_ = std::move(calibration.layers);
  transform.set_fingerprint();
  return transform;
}

Result<TplaTransform> TplaTransform::load(const std::string& path, const ModelConfig& config) {
  TESSERA_TRY(TplaCalibration calibration, read_tpla_calibration(path, config));
  return create(config, std::move(calibration));
}

const TplaCalibration::Layer& TplaTransform::layer(int64_t index) const noexcept {
  return layers_[static_cast<size_t>(index)];
}

std::vector<int64_t> TplaTransform::shared_columns() const {
  std::vector<int64_t> shared;
  for (const TplaCalibration::Layer& layer : layers_) {
    shared.push_back(layer.num_shared);
  }
  const bool has_any = std::any_of(shared.begin(), shared.end(), [](int64_t s) { return s > 0; });
  return has_any ? shared : std::vector<int64_t>{};
}

bool TplaTransform::is_folded(int64_t layer) const noexcept {
  return is_identity() || this->layer(layer).inverse.empty();
}

std::span<const float> TplaTransform::basis(int64_t layer) const noexcept {
  return is_identity() ? std::span<const float>{} : this->layer(layer).basis;
}

double TplaTransform::logit_factor(int64_t layer, int64_t num_slices) const noexcept {
  return has_factors_ ? this->layer(layer).logit_factor : static_cast<double>(num_slices);
}

std::span<const float> TplaTransform::keys(int64_t layer, int64_t slice) const noexcept {
  if (is_identity() || this->layer(layer).keys.empty()) {
    return {};
  }
  const std::vector<float>& all = this->layer(layer).keys;
  const size_t size = all.size() / static_cast<size_t>(num_slices_);
  return std::span<const float>(all).subspan(static_cast<size_t>(slice) * size, size);
}

void TplaTransform::set_fingerprint() {
  Fingerprint digest;
  digest.add(name_).add(str_cat(num_slices_));
  if (!window_.is_empty()) {
    digest.add(str_cat("window ", window_.num_first, " ", window_.num_last));
  }
  for (const TplaCalibration::Layer& layer : layers_) {
    const std::vector<float>& basis = layer.basis;
    digest.add(str_cat(layer.num_shared));
    digest.add({reinterpret_cast<const char*>(basis.data()), basis.size() * sizeof(float)});
  }
  fingerprint_ = digest.finish();
}

void TplaTransform::rotate_rows(int64_t layer, float* rows, int64_t width) const {
  if (is_identity()) {
    return;
  }
  TESSERA_CHECK(is_folded(layer), "only an orthogonal basis passes through the norm");
  const float* basis = this->layer(layer).basis.data();
  std::vector<double> sums(static_cast<size_t>(width_ * width), 0.0);
  for (int64_t i = 0; i < width_; ++i) {
    for (int64_t j = 0; j < width_; ++j) {
      const double factor = basis[i * width_ + j];  // row j of U^T takes row i of W
      add_scaled(factor, rows + i * width, width, sums.data() + j * width);
    }
  }
  for (int64_t i = 0; i < width_ * width; ++i) {
    rows[i] = static_cast<float>(sums[static_cast<size_t>(i)]);
  }
}

std::vector<float> TplaTransform::inverse_transposed(int64_t layer) const {
  if (is_folded(layer)) {
    return this->layer(layer).basis;
  }
  const std::vector<float>& inverse = this->layer(layer).inverse;
  std::vector<float> transposed(inverse.size());
  for (int64_t i = 0; i < width_; ++i) {
    for (int64_t j = 0; j < width_; ++j) {
      transposed[static_cast<size_t>(j * width_ + i)] =
          inverse[static_cast<size_t>(i * width_ + j)];
    }
  }
  return transposed;
}

void TplaTransform::rotate_columns(int64_t layer,
                                   std::span<const float> gamma,
                                   float* rows,
                                   int64_t num_rows) const {
  if (is_identity()) {
    return;
  }
  TESSERA_CHECK(static_cast<int64_t>(gamma.size()) == width_, "gamma is one number a column");
  const std::vector<float> transposed_inverse = inverse_transposed(layer);
  const float* basis = transposed_inverse.data();
  std::vector<double> sums(static_cast<size_t>(width_));
  for (int64_t row = 0; row < num_rows; ++row) {
    float* values = rows + row * width_;
    sums.assign(sums.size(), 0.0);
    for (int64_t i = 0; i < width_; ++i) {
      const double factor = static_cast<double>(values[i]) * gamma[static_cast<size_t>(i)];
      add_scaled(factor, basis + i * width_, width_, sums.data());
    }
    for (int64_t j = 0; j < width_; ++j) {
      values[j] = static_cast<float>(sums[static_cast<size_t>(j)]);
    }
  }
}

}  // namespace tessera
