#include "engine/calibration/key_fit.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <random>
#include <span>

#include "engine/calibration/sliced_attention.h"

namespace tessera {
namespace {

/// Near each other, so that little is computed of tokens that only the last of them sees.
constexpr int64_t kBlockQueries = 16;
constexpr int64_t kHeldOutEvery = 8;
constexpr int64_t kWarmUpSteps = 20;
// Adam: D. Kingma, J. Ba, arXiv 1412.6980.
constexpr float kBeta1 = 0.9F;
constexpr float kBeta2 = 0.98F;
constexpr float kEpsilon = 1e-8F;

using FloatArray = Eigen::ArrayXf;

class KeyFit final {
 public:
  KeyFit(const ModelConfig& config,
         const LayerWeightsOfHeads& weights,
         const std::vector<AttentionSample>& samples,
         const KeyFitOptions& options,
         TplaCalibration::Layer& layer)
      : options_(options),
        num_heads_(config.num_attention_heads),
        key_dim_(config.qk_nope_head_dim),
        attention_(config, weights, layer, options.num_slices, options.window),
        keys_(layer.keys) {
    slice_samples(samples);
  }

  KeyFitResult run() {
    const std::vector<float> start = keys_;
    const std::vector<double> before = relative_errors(start);
    descend();
    const std::vector<double> after = relative_errors(keys_);
    KeyFitResult result;
    for (int64_t head = 0; head < num_heads_; ++head) {
      const auto index = static_cast<size_t>(head);
      const bool is_better = after[index] < before[index];
      if (!is_better) {
        restore_head(start, head);
      }
      result.error_before += before[index];
      result.error_after += is_better ? after[index] : before[index];
      result.num_fitted_heads += is_better ? 1 : 0;
    }
    result.error_before /= static_cast<double>(num_heads_);
    result.error_after /= static_cast<double>(num_heads_);
    return result;
  }

 private:
  [[nodiscard]] int64_t head_keys() const { return attention_.width() * key_dim_; }

  void slice_samples(const std::vector<AttentionSample>& samples) {
    tokens_.reserve(samples.size());  // blocks point into it
    for (size_t i = 0; i < samples.size(); ++i) {
      tokens_.push_back(attention_.slice_tokens(samples[i]));
      auto own = attention_.make_blocks(samples[i], tokens_.back(), kBlockQueries);
      const bool is_held_out =
          i % kHeldOutEvery == kHeldOutEvery - 1 || (i == 1 && samples.size() < kHeldOutEvery);
      auto& blocks = is_held_out ? held_out_ : blocks_;
      std::move(own.begin(), own.end(), std::back_inserter(blocks));
    }
  }

  [[nodiscard]] std::vector<double> relative_errors(std::span<const float> keys) const {
    AttentionError sums;
    for (const QueryBlock& block : held_out_) {
      attention_.add_error(keys, block, sums);
    }
    for (size_t head = 0; head < sums.error.size(); ++head) {
      sums.error[head] /= std::max(sums.energy[head], 1e-300);
    }
    return sums.error;
  }

  /// Every row of a slice's keys (a column of the latent) is fitted in units of its own size.
  [[nodiscard]] FloatArray units() const {
    const int64_t width = attention_.width();
    FloatArray units(static_cast<int64_t>(keys_.size()));
    for (int64_t slice = 0; slice < options_.num_slices; ++slice) {
      Eigen::VectorXf squares = Eigen::VectorXf::Zero(width);
      for (int64_t head = 0; head < num_heads_; ++head) {
        squares += rows(keys_.data(), slice, head).rowwise().squaredNorm();
      }
      squares /= static_cast<float>(num_heads_ * key_dim_);
      const Eigen::VectorXf roots = squares.cwiseSqrt();
      for (int64_t head = 0; head < num_heads_; ++head) {
        Eigen::Map<FloatMatrix>(
            units.data() + (slice * num_heads_ + head) * head_keys(), width, key_dim_) =
            roots.replicate(1, key_dim_);
      }
    }
    return units;
  }

  [[nodiscard]] FloatRows rows(const float* keys, int64_t slice, int64_t head) const {
    return {keys + (slice * num_heads_ + head) * head_keys(), attention_.width(), key_dim_};
  }

  /// One over the mean square of a head's output in as many queries as a step has.
  [[nodiscard]] std::vector<float> head_weights() const {
    std::vector<double> energy(static_cast<size_t>(num_heads_), 0.0);
    double num_rows = 0.0;
    for (const QueryBlock& block : blocks_) {
      const auto count = static_cast<int64_t>(block.positions.size());
      num_rows += static_cast<double>(count);
      for (int64_t head = 0; head < num_heads_; ++head) {
        energy[static_cast<size_t>(head)] +=
            block.outputs.middleRows(head * count, count).squaredNorm();
      }
    }
    const auto step_rows = static_cast<double>(options_.num_blocks * kBlockQueries);
    std::vector<float> weights;
    for (const double sum : energy) {
      weights.push_back(static_cast<float>(num_rows / (step_rows * std::max(sum, 1e-30))));
    }
    return weights;
  }

  /// The next blocks of a random order, a new one whenever all have been used.
  const QueryBlock& next_block(std::mt19937_64& engine) {
    if (order_.empty()) {
      order_.resize(blocks_.size());
      std::iota(order_.begin(), order_.end(), 0);
      for (size_t left = order_.size(); left > 1; --left) {
        std::swap(order_[left - 1], order_[engine() % left]);
      }
    }
    const size_t index = order_.back();
    order_.pop_back();
    return blocks_[index];
  }

  [[nodiscard]] float step_size(int64_t step) const {
    const double rise =
        std::min(1.0, static_cast<double>(step + 1) / static_cast<double>(kWarmUpSteps));
    const double done = static_cast<double>(step) / static_cast<double>(options_.num_steps);
    return static_cast<float>(options_.step_size * rise * 0.5 *
                              (1.0 + std::cos(std::numbers::pi * done)));
  }

  void descend() {
    std::mt19937_64 engine(options_.seed);
    const FloatArray units = this->units();
    const std::vector<float> weights = head_weights();
    Eigen::Map<FloatArray> keys(keys_.data(), static_cast<int64_t>(keys_.size()));
    FloatArray first = FloatArray::Zero(keys.size());
    FloatArray second = FloatArray::Zero(keys.size());
    FloatArray gradient(keys.size());
    for (int64_t step = 0; step < options_.num_steps; ++step) {
      gradient.setZero();
      for (int64_t i = 0; i < options_.num_blocks; ++i) {
        attention_.add_gradient(
            keys_, next_block(engine), weights, {gradient.data(), keys_.size()});
      }
      gradient *= units;
      first = kBeta1 * first + (1.0F - kBeta1) * gradient;
      second = kBeta2 * second + (1.0F - kBeta2) * gradient.square();
      const auto count = static_cast<float>(step + 1);
      const float first_scale = 1.0F / (1.0F - std::pow(kBeta1, count));
      const float second_scale = 1.0F / (1.0F - std::pow(kBeta2, count));
      keys -= step_size(step) * first_scale * units * first /
              ((second_scale * second).sqrt() + kEpsilon);
    }
  }

  void restore_head(const std::vector<float>& start, int64_t head) {
    for (int64_t slice = 0; slice < options_.num_slices; ++slice) {
      const int64_t begin = (slice * num_heads_ + head) * head_keys();
      std::copy_n(start.begin() + begin, head_keys(), keys_.begin() + begin);
    }
  }

  const KeyFitOptions& options_;
  const int64_t num_heads_;
  const int64_t key_dim_;
  const SlicedAttention attention_;
  std::vector<float>& keys_;
  std::vector<SlicedTokens> tokens_;
  std::vector<QueryBlock> blocks_;
  std::vector<QueryBlock> held_out_;
  std::vector<size_t> order_;  // blocks not used yet of this round
};

}  // namespace

KeyFitResult fit_keys(const ModelConfig& config,
                      const LayerWeightsOfHeads& weights,
                      const std::vector<AttentionSample>& samples,
                      const KeyFitOptions& options,
                      TplaCalibration::Layer& layer) {
  return KeyFit(config, weights, samples, options, layer).run();
}

}  // namespace tessera
