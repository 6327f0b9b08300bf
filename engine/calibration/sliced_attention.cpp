#include "engine/calibration/sliced_attention.h"

#include <algorithm>

#include "engine/base/check.h"
#include "kernels/ops/latent_columns.h"

namespace tessera {
namespace {

std::vector<Eigen::Index> columns_of(int64_t width, int64_t shared, int64_t slice, int64_t slices) {
  std::vector<Eigen::Index> columns;
  const auto kept = kernels::LatentColumns::of_slice(width, shared, slice, slices);
  kept.for_each_range([&](const kernels::ColumnRange& range, int64_t) {
    for (int64_t i = 0; i < range.count; ++i) {
      columns.push_back(range.begin + i);
    }
  });
  return columns;
}

int64_t num_seen(const QueryBlock& block) {
  return block.positions.back() + 1;
}

/// Calls visit(column of the logits, column of window_logits) for the tokens of the exact window of
/// a context of `num_tokens`.
template <typename Visit>
void for_each_in_window(const kernels::LatentWindow& window, int64_t num_tokens, Visit&& visit) {
  for (int64_t token = 0; token < window.outside_begin(num_tokens); ++token) {
    visit(token, token);
  }
  const int64_t begin = window.outside_end(num_tokens);
  for (int64_t token = begin; token < num_tokens; ++token) {
    visit(token, window.num_first + token - begin);
  }
}

}  // namespace

/// Everything that a gradient needs of the way forward.
struct SlicedAttention::Pass {
  std::vector<FloatMatrix> attention;  // by slice [H Q, T]
  std::vector<FloatMatrix> latents;    // by slice [H Q, w]: what the attention makes of the slice
  FloatMatrix difference;              // [H Q, dv]: sliced output - exact output
};

SlicedAttention::SlicedAttention(const ModelConfig& config,
                                 const LayerWeightsOfHeads& weights,
                                 const TplaCalibration::Layer& layer,
                                 int64_t num_slices,
                                 kernels::LatentWindow window)
    : weights_(weights),
      window_(window),
      num_slices_(num_slices),
      num_heads_(config.num_attention_heads),
      width_(layer.num_shared + (config.kv_lora_rank - layer.num_shared) / num_slices),
      key_dim_(config.qk_nope_head_dim),
      scale_(config.softmax_scale()) {
  const int64_t width = config.kv_lora_rank;
  TESSERA_CHECK(layer.num_shared < width, "a layer that is sliced");
  const FloatMatrix basis = FloatRows(layer.basis.data(), width, width);
  const FloatMatrix inverse = layer.inverse.empty()
                                  ? FloatMatrix(basis.transpose())
                                  : FloatMatrix(FloatRows(layer.inverse.data(), width, width));
  for (int64_t slice = 0; slice < num_slices; ++slice) {
    const auto columns = columns_of(width, layer.num_shared, slice, num_slices);
    forward_.emplace_back(basis(Eigen::all, columns));
    // Every slice has its mean of the shared columns' values.
    FloatMatrix rows = inverse(columns, Eigen::all);
    rows.topRows(layer.num_shared) /= static_cast<float>(num_slices);
    values_.emplace_back();
    for (const Matrix& values : weights.values) {
      values_.back().emplace_back(rows * values.cast<float>());
    }
  }
}

FloatRows SlicedAttention::keys_of(std::span<const float> keys, int64_t slice, int64_t head) const {
  return {keys.data() + key_offset(slice, head), width_, key_dim_};
}

SlicedTokens SlicedAttention::slice_tokens(const AttentionSample& sample) const {
  SlicedTokens tokens;
  for (const FloatMatrix& forward : forward_) {
    tokens.slices.emplace_back(sample.latents.rows(), width_ + sample.rope.cols());
    tokens.slices.back() << sample.latents * forward, sample.rope;
  }
  return tokens;
}

std::vector<QueryBlock> SlicedAttention::make_blocks(const AttentionSample& sample,
                                                     const SlicedTokens& tokens,
                                                     int64_t block_queries) const {
  const auto total = static_cast<int64_t>(sample.positions.size());
  const int64_t head_dim = sample.queries.cols() / num_heads_;
  std::vector<QueryBlock> blocks;
  for (int64_t begin = 0; begin < total; begin += block_queries) {
    const int64_t count = std::min(block_queries, total - begin);
    QueryBlock block;
    block.tokens = &tokens;
    block.positions.assign(sample.positions.begin() + begin,
                           sample.positions.begin() + begin + count);
    block.queries.resize(num_heads_ * count, head_dim);
    for (int64_t head = 0; head < num_heads_; ++head) {
      block.queries.middleRows(head * count, count) =
          sample.queries.block(begin, head * head_dim, count, head_dim);
    }
    compute_exact(sample, block);
    blocks.push_back(std::move(block));
  }
  return blocks;
}

void SlicedAttention::compute_exact(const AttentionSample& sample, QueryBlock& block) const {
  const auto count = static_cast<int64_t>(block.positions.size());
  const int64_t width = sample.latents.cols();
  const int64_t rope_dim = sample.rope.cols();
  const int64_t seen = num_seen(block);
  FloatMatrix keyed(block.queries.rows(), width);
  for (int64_t head = 0; head < num_heads_; ++head) {
    const FloatMatrix keys = weights_.keys[static_cast<size_t>(head)].cast<float>();
    keyed.middleRows(head * count, count).noalias() =
        block.queries.middleRows(head * count, count).leftCols(key_dim_) * keys.transpose();
  }
  FloatMatrix logits = keyed * sample.latents.topRows(seen).transpose();
  logits.noalias() += block.queries.rightCols(rope_dim) * sample.rope.topRows(seen).transpose();
  logits *= scale_;
  block.window_logits = FloatMatrix::Zero(logits.rows(), window_.num_first + window_.num_last);
  for (Eigen::Index row = 0; row < logits.rows(); ++row) {
    const int64_t length = block.positions[static_cast<size_t>(row % count)] + 1;
    for_each_in_window(window_, length, [&](int64_t token, int64_t column) {
      block.window_logits(row, column) = logits(row, token);
    });
  }
  attend(block, logits);
  const FloatMatrix latents = logits * sample.latents.topRows(seen);
  block.outputs.resize(latents.rows(), weights_.values.front().cols());
  for (int64_t head = 0; head < num_heads_; ++head) {
    block.outputs.middleRows(head * count, count).noalias() =
        latents.middleRows(head * count, count) *
        weights_.values[static_cast<size_t>(head)].cast<float>();
  }
}

void SlicedAttention::attend(const QueryBlock& block, FloatMatrix& logits) const {
  const auto count = static_cast<int64_t>(block.positions.size());
  for (Eigen::Index row = 0; row < logits.rows(); ++row) {
    const int64_t length = block.positions[static_cast<size_t>(row % count)] + 1;
    for_each_in_window(window_, length, [&](int64_t token, int64_t column) {
      logits(row, token) = block.window_logits(row, column);
    });
    auto seen = logits.row(row).head(length);
    seen = (seen.array() - seen.maxCoeff()).exp();
    seen /= seen.sum();
    logits.row(row).tail(logits.cols() - length).setZero();
  }
}

FloatMatrix SlicedAttention::slice_logits(std::span<const float> keys,
                                          const QueryBlock& block,
                                          int64_t slice) const {
  const auto count = static_cast<int64_t>(block.positions.size());
  const FloatMatrix& tokens = block.tokens->slices[static_cast<size_t>(slice)];
  FloatMatrix keyed(block.queries.rows(), tokens.cols());
  for (int64_t head = 0; head < num_heads_; ++head) {
    const auto queries = block.queries.middleRows(head * count, count);
    auto rows = keyed.middleRows(head * count, count);
    rows.leftCols(width_).noalias() =
        queries.leftCols(key_dim_) * keys_of(keys, slice, head).transpose();
    rows.rightCols(tokens.cols() - width_) = queries.rightCols(tokens.cols() - width_);
  }
  keyed *= scale_;
  return keyed * tokens.topRows(num_seen(block)).transpose();
}

SlicedAttention::Pass SlicedAttention::run(std::span<const float> keys,
                                           const QueryBlock& block) const {
  const auto count = static_cast<int64_t>(block.positions.size());
  Pass pass;
  pass.difference = -block.outputs;
  for (int64_t slice = 0; slice < num_slices_; ++slice) {
    const auto index = static_cast<size_t>(slice);
    FloatMatrix attention = slice_logits(keys, block, slice);
    attend(block, attention);
    FloatMatrix latents =
        attention * block.tokens->slices[index].topLeftCorner(num_seen(block), width_);
    for (int64_t head = 0; head < num_heads_; ++head) {
      pass.difference.middleRows(head * count, count).noalias() +=
          latents.middleRows(head * count, count) * values_[index][static_cast<size_t>(head)];
    }
    pass.attention.push_back(std::move(attention));
    pass.latents.push_back(std::move(latents));
  }
  return pass;
}

void SlicedAttention::add_error(std::span<const float> keys,
                                const QueryBlock& block,
                                AttentionError& sums) const {
  const auto count = static_cast<int64_t>(block.positions.size());
  const Pass pass = run(keys, block);
  sums.error.resize(static_cast<size_t>(num_heads_), 0.0);
  sums.energy.resize(static_cast<size_t>(num_heads_), 0.0);
  for (int64_t head = 0; head < num_heads_; ++head) {
    const auto index = static_cast<size_t>(head);
    sums.error[index] +=
        pass.difference.middleRows(head * count, count).cast<double>().squaredNorm();
    sums.energy[index] +=
        block.outputs.middleRows(head * count, count).cast<double>().squaredNorm();
  }
}

void SlicedAttention::add_gradient(std::span<const float> keys,
                                   const QueryBlock& block,
                                   std::span<const float> weights,
                                   std::span<float> gradient) const {
  const auto count = static_cast<int64_t>(block.positions.size());
  Pass pass = run(keys, block);
  FloatMatrix pulls(block.queries.rows(), width_);  // of the loss on what a slice puts out
  for (int64_t slice = 0; slice < num_slices_; ++slice) {
    const auto index = static_cast<size_t>(slice);
    for (int64_t head = 0; head < num_heads_; ++head) {
      const auto own = static_cast<size_t>(head);
      pulls.middleRows(head * count, count).noalias() =
          2.0F * weights[own] * pass.difference.middleRows(head * count, count) *
          values_[index][own].transpose();
    }
    // Through the softmax: dL/ds_j = a_j (p.n_j - p.o), p the pull and o = sum_j a_j n_j.
    const auto tokens = block.tokens->slices[index].topLeftCorner(num_seen(block), width_);
    const Eigen::VectorXf means = pulls.cwiseProduct(pass.latents[index]).rowwise().sum();
    FloatMatrix on_logits = pulls * tokens.transpose();
    on_logits.colwise() -= means;
    on_logits.array() *= pass.attention[index].array();
    for (Eigen::Index row = 0; row < on_logits.rows(); ++row) {
      const int64_t length = block.positions[static_cast<size_t>(row % count)] + 1;
      // Logits of the exact window do not depend on the keys.
      for_each_in_window(
          window_, length, [&](int64_t token, int64_t) { on_logits(row, token) = 0.0F; });
    }
    const FloatMatrix on_keyed = scale_ * (on_logits * tokens);
    for (int64_t head = 0; head < num_heads_; ++head) {
      Eigen::Map<FloatMatrix> out(gradient.data() + key_offset(slice, head), width_, key_dim_);
      out.noalias() += on_keyed.middleRows(head * count, count).transpose() *
                       block.queries.middleRows(head * count, count).leftCols(key_dim_);
    }
  }
}

}  // namespace tessera
