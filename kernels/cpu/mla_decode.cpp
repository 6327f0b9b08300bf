// Absorbed MLA attention against the paged latents, split over keys when there are few sequences
// (flash-decoding): each task keeps a running softmax over its blocks, then splits are merged by
// log-sum-exp.

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/latent_rows.h"

namespace tessera::kernels::cpu {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

/// Heads worked on together: their accumulators stay in L2 while a block's rows are in L1.
constexpr int64_t kMaxHeadsPerTask = 16;

/// How B sequences of H heads are cut into tasks.
struct DecodeSplit {
  int64_t num_splits = 1;  ///< of each sequence's blocks
  int64_t head_tile = 1;
  int64_t num_head_tiles = 1;
};

DecodeSplit plan_split(int64_t num_rows, int64_t num_heads, int64_t max_blocks, int num_threads) {
  DecodeSplit split;
  split.head_tile = std::min(num_heads, kMaxHeadsPerTask);
  split.num_head_tiles = (num_heads + split.head_tile - 1) / split.head_tile;
  const int64_t num_tasks = num_rows * split.num_head_tiles;
  // Four tasks a thread even out lengths; a split of fewer than 4 blocks is not worth its merge.
  const int64_t wanted = (4 * num_threads + num_tasks - 1) / num_tasks;
  split.num_splits = std::clamp<int64_t>(wanted, 1, std::max<int64_t>(1, max_blocks / 4));
  return split;
}

/// Softmax state of one head over the keys seen so far; the accumulator lies beside it.
struct HeadState {
  float max_logit = kMinusInfinity;
  float sum = 0.0F;
};

}  // namespace

template <typename T>
void CpuOps::mla_decode_typed(const MlaDecodeParams& params) {
  const LatentCacheView& cache = params.cache;
  const int64_t num_rows = params.q_latent.dim(0);
  const int64_t num_heads = params.q_latent.dim(1);
  const int64_t width = cache.latent_width;
  const int64_t value_width = width - params.value_begin;
  const int64_t row_width = width + cache.rope_width;
  const int32_t* lengths = params.lengths.as<int32_t>();
  const int64_t max_length = *std::max_element(lengths, lengths + num_rows);
  const int64_t max_blocks = (max_length + kBlockTokens - 1) / kBlockTokens;
  const DecodeSplit split = plan_split(num_rows, num_heads, max_blocks, pool_.num_threads());

  // Per (row, split, head): accumulator [value_width], then maximum and sum.
  const int64_t state_width = value_width + 2;
  float* partial = shared_scratch(num_rows * split.num_splits * num_heads * state_width);
  const auto partial_of = [&](int64_t b, int64_t s, int64_t h) {
    return partial + ((b * split.num_splits + s) * num_heads + h) * state_width;
  };

  const int64_t tasks_per_row = split.num_splits * split.num_head_tiles;
  pool_.parallel_for_blocking(num_rows * tasks_per_row, [&](int64_t task, int worker) {
    const int64_t b = task / tasks_per_row;
    const int64_t s = task % tasks_per_row / split.num_head_tiles;
    const int64_t head_begin = task % split.num_head_tiles * split.head_tile;
    const int64_t heads = std::min(split.head_tile, num_heads - head_begin);
    const int64_t num_blocks = (lengths[b] + kBlockTokens - 1) / kBlockTokens;
    const int64_t block_begin = num_blocks * s / split.num_splits;
    const int64_t block_end = num_blocks * (s + 1) / split.num_splits;
    float* scores = scratch(worker, heads * kBlockTokens);
    HeadState states[kMaxHeadsPerTask];
    for (int64_t h = 0; h < heads; ++h) {
      std::fill_n(partial_of(b, s, head_begin + h), value_width, 0.0F);
    }
    const Rows<T> q_latent{params.q_latent.as<T>() + b * params.q_latent.stride[0] +
                               head_begin * params.q_latent.stride[1],
                           params.q_latent.stride[1]};
    const Rows<T> q_rope{
        params.q_rope.as<T>() + b * params.q_rope.stride[0] + head_begin * params.q_rope.stride[1],
        params.q_rope.stride[1]};
    for (int64_t i = block_begin; i < block_end; ++i) {
      const int64_t block =
          params.block_tables.as<int32_t>()[b * params.block_tables.stride[0] + i];
      const int64_t num_keys = std::min(kBlockTokens, lengths[b] - i * kBlockTokens);
      const T* rows = latent_row<T>(cache, block, 0);
      std::fill_n(scores, heads * kBlockTokens, 0.0F);
      math_.add_scores(
          q_latent, heads, Rows<T>{rows, row_width}, num_keys, width, scores, kBlockTokens);
      math_.add_scores(q_rope,
                       heads,
                       Rows<T>{rows + width, row_width},
                       num_keys,
                       cache.rope_width,
                       scores,
                       kBlockTokens);
      for (int64_t h = 0; h < heads; ++h) {
        HeadState& state = states[h];
        float* score = scores + h * kBlockTokens;
        math_.scale(score, num_keys, params.scale);
        const float new_max = std::max(state.max_logit, math_.max(score, num_keys));
        const float correction = std::exp(state.max_logit - new_max);
        state.sum = state.sum * correction + math_.exp_sum(score, num_keys, new_max);
        if (correction != 1.0F) {
          math_.scale(partial_of(b, s, head_begin + h), value_width, correction);
        }
        state.max_logit = new_max;
      }
      math_.add_values(scores,
                       kBlockTokens,
                       heads,
                       Rows<T>{rows + params.value_begin, row_width},
                       num_keys,
                       value_width,
                       partial_of(b, s, head_begin),
                       state_width);
    }
    for (int64_t h = 0; h < heads; ++h) {
      float* state = partial_of(b, s, head_begin + h) + value_width;
      state[0] = states[h].max_logit;
      state[1] = states[h].sum;
    }
  });

  const int64_t merge_cost = 2 * value_width * split.num_splits;
  for_row_ranges(num_rows * num_heads, merge_cost, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = i / num_heads;
      const int64_t h = i % num_heads;
      float max_logit = kMinusInfinity;
      for (int64_t s = 0; s < split.num_splits; ++s) {
        max_logit = std::max(max_logit, partial_of(b, s, h)[value_width]);
      }
      float* merged = partial_of(b, 0, h);
      float sum = 0.0F;
      for (int64_t s = 0; s < split.num_splits && max_logit != kMinusInfinity; ++s) {
        const float* state = partial_of(b, s, h);
        const float factor = std::exp(state[value_width] - max_logit);
        sum += factor * state[value_width + 1];
        if (s == 0) {
          math_.scale(merged, value_width, factor);
        } else {
          math_.add_scaled(merged, state, value_width, factor);
        }
      }
      math_.scale(merged, value_width, sum > 0.0F ? 1.0F / sum : 0.0F);
      T* out = params.out.as<T>() + b * params.out.stride[0] + h * params.out.stride[1];
      if constexpr (std::is_same_v<T, float>) {
        std::copy_n(merged, value_width, out);
      } else {
        math_.to_bf16(merged, value_width, out);
      }
      params.log_sum_exp.as<float>()[b * params.log_sum_exp.stride[0] + h] =
          sum > 0.0F ? max_logit + std::log(sum) : kMinusInfinity;
    }
  });
}

void CpuOps::do_mla_decode(const MlaDecodeParams& params, StreamView) {
  if (params.cache.dtype == DType::kFloat32) {
    mla_decode_typed<float>(params);
  } else {
    mla_decode_typed<BFloat16>(params);
  }
}

void CpuOps::do_merge_scale(const MergeScaleParams& params, StreamView) {
  const int64_t num_parts = params.log_sum_exp.dim(0);
  const int64_t num_heads = params.values.dim(1);
  const int64_t width = params.values.dim(2);
  const int64_t num_states = params.values.dim(0) * num_heads;
  for_row_ranges(num_states, width + 8 * num_parts, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const float* lse = params.log_sum_exp.as<float>() + i;  // of part g: lse[g * num_states]
      float max_lse = kMinusInfinity;
      for (int64_t g = 0; g < num_parts; ++g) {
        max_lse = std::max(max_lse, lse[g * num_states]);
      }
      float sum = 0.0F;
      float own = 0.0F;
      for (int64_t g = 0; g < num_parts && max_lse != kMinusInfinity; ++g) {
        const float share = std::exp(lse[g * num_states] - max_lse);
        sum += share;
        own = g == params.part ? share : own;
      }
      float* values = params.values.as<float>() + i / num_heads * params.values.stride[0] +
                      i % num_heads * params.values.stride[1];
      math_.scale(values, width, sum > 0.0F ? own / sum : 0.0F);
    }
  });
}

}  // namespace tessera::kernels::cpu
