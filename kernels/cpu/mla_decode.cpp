// Absorbed MLA attention against the paged latents, split over keys when there are few sequences
// (flash-decoding): each task keeps a running softmax over its blocks, then splits are merged by
// log-sum-exp. Tokens of an exact window are a split of their own, over rows of all columns.

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/core/check.h"
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

/// Rows of consecutive tokens: latent columns, then the rope part.
template <typename T>
struct KeyRows {
  const T* first = nullptr;
  int64_t count = 0;     // at most kBlockTokens
  int64_t width = 0;     // of the latent part
  LatentColumns values;  // columns of it that are values
};

/// Rows [begin, end) of a cache block, unpacked to `scratch` where they are float8 rows.
template <typename T>
KeyRows<T> block_rows(
    const LatentCacheView& cache, int64_t block, int64_t begin, int64_t end, T* scratch) {
  const int64_t width = cache.latent_width;
  KeyRows<T> keys{scratch, end - begin, width, LatentColumns::all(width)};
  if (!cache.is_float8()) {
    keys.first = latent_row<T>(cache, block, begin);
    return keys;
  }
  for (int64_t token = begin; token < end; ++token) {
    const char* row = latent_row_bytes(cache, block, token);
    read_float8_latents(cache, row, 0, width, scratch);
    read_float8_rope(cache, row, scratch + width);
    scratch += width + cache.rope_width;
  }
  return keys;
}

/// The running softmax of some heads of one decode row.
template <typename T>
class HeadTile {
 public:
  /// Of head h the accumulator begins at partial + h * stride, then come maximum and sum. `scores`
  /// is of num_heads rows.
  HeadTile(const VectorMath& math, int64_t num_heads, float* scores, float* partial, int64_t stride)
      : math_(math), num_heads_(num_heads), scores_(scores), partial_(partial), stride_(stride) {
    std::fill_n(partial, num_heads * stride, 0.0F);
  }

  /// Attends to some rows with queries that match them.
  void add(const KeyRows<T>& keys,
           const Rows<T>& q_latent,
           const Rows<T>& q_rope,
           int64_t rope_width,
           float scale) {
    const Rows<T> rows{keys.first, keys.width + rope_width};
    const Rows<T> rope{keys.first + keys.width, keys.width + rope_width};
    std::fill_n(scores_, num_heads_ * kBlockTokens, 0.0F);
    math_.add_scores(q_latent, num_heads_, rows, keys.count, keys.width, scores_, kBlockTokens);
    math_.add_scores(q_rope, num_heads_, rope, keys.count, rope_width, scores_, kBlockTokens);
    for (int64_t h = 0; h < num_heads_; ++h) {
      weigh(h, keys.count, scale);
    }
    keys.values.for_each_range([&](const ColumnRange& range, int64_t row_begin) {
      math_.add_values(scores_,
                       kBlockTokens,
                       num_heads_,
                       Rows<T>{rows.data + range.begin, rows.stride},
                       keys.count,
                       range.count,
                       partial_ + row_begin,
                       stride_);
    });
  }
  void finish() {
    for (int64_t h = 0; h < num_heads_; ++h) {
      float* end = partial_ + (h + 1) * stride_;
      end[-2] = states_[h].max_logit;
      end[-1] = states_[h].sum;
    }
  }

 private:
  /// Makes weights of head h's scores and brings what it has so far to the same maximum.
  void weigh(int64_t h, int64_t num_keys, float scale) {
    HeadState& state = states_[h];
    float* score = scores_ + h * kBlockTokens;
    math_.scale(score, num_keys, scale);
    const float new_max = std::max(state.max_logit, math_.max(score, num_keys));
    const float correction = std::exp(state.max_logit - new_max);
    state.sum = state.sum * correction + math_.exp_sum(score, num_keys, new_max);
    if (correction != 1.0F) {
      math_.scale(partial_ + h * stride_, stride_ - 2, correction);
    }
    state.max_logit = new_max;
  }

  const VectorMath& math_;
  const int64_t num_heads_;
  float* const scores_;
  float* const partial_;
  const int64_t stride_;
  HeadState states_[kMaxHeadsPerTask];
};

/// The queries of the heads of decode row b from `head` on.
template <typename T>
Rows<T> head_rows(const ConstTensorView& q, int64_t b, int64_t head) {
  return {q.as<T>() + b * q.stride[0] + head * q.stride[1], q.stride[1]};
}

/// Calls visit(row, count) for the window's tokens, a run of rows that lie one behind another at a
/// time: rows counted from the sequence's first.
template <typename Visit>
void for_each_run(const WindowRing& ring, int64_t num_tokens, const Visit& visit) {
  const LatentWindow& window = ring.window;
  const auto visit_tokens = [&](int64_t begin, int64_t end) {
    for (int64_t position = begin; position < end;) {
      const int64_t row = ring.row(position);
      const int64_t part_end = row < window.num_first ? window.num_first : ring.rows_per_sequence();
      const int64_t count = std::min({kBlockTokens, end - position, part_end - row});
      visit(row, count);
      position += count;
    }
  };
  visit_tokens(0, window.outside_begin(num_tokens));
  visit_tokens(window.outside_end(num_tokens), num_tokens);
}

}  // namespace

template <typename T>
void CpuOps::mla_decode_typed(const MlaDecodeParams& params) {
  const LatentCacheView& cache = params.cache;
  const int64_t num_rows = params.q_latent.dim(0);
  const int64_t num_heads = params.q_latent.dim(1);
  const int64_t width = cache.latent_width;
  const int32_t* lengths = params.lengths.as<int32_t>();
  const int64_t max_length = *std::max_element(lengths, lengths + num_rows);
  const int64_t max_blocks = (max_length + kBlockTokens - 1) / kBlockTokens;
  const DecodeSplit split = plan_split(num_rows, num_heads, max_blocks, pool_.num_threads());
  // A window is one more split: its rows are few, and no others are as wide.
  const int64_t num_parts = split.num_splits + (params.window ? 1 : 0);

  // Per (row, part, head): accumulator [width], then maximum and sum.
  const int64_t state_width = width + 2;
  float* partial = shared_scratch(num_rows * num_parts * num_heads * state_width);
  const auto partial_of = [&](int64_t b, int64_t s, int64_t h) {
    return partial + ((b * num_parts + s) * num_heads + h) * state_width;
  };

  const auto attend_paged =
      [&](int64_t b, int64_t s, int64_t head, HeadTile<T>& tile, T* unpacked) {
        const LatentWindow window = params.window ? params.window->ring.window : LatentWindow{};
        const int64_t key_begin = window.outside_begin(lengths[b]);
        const int64_t key_end = window.outside_end(lengths[b]);
        const int64_t first_block = key_begin / kBlockTokens;
        const int64_t num_blocks =
            key_end > key_begin ? (key_end + kBlockTokens - 1) / kBlockTokens - first_block : 0;
        const Rows<T> q_latent = head_rows<T>(params.q_latent, b, head);
        const Rows<T> q_rope = head_rows<T>(params.q_rope, b, head);
        const int64_t block_end = first_block + num_blocks * (s + 1) / split.num_splits;
        for (int64_t i = first_block + num_blocks * s / split.num_splits; i < block_end; ++i) {
          const int64_t block =
              params.block_tables.as<int32_t>()[b * params.block_tables.stride[0] + i];
          const int64_t begin = std::max(key_begin - i * kBlockTokens, int64_t{0});
          const int64_t end = std::min(kBlockTokens, key_end - i * kBlockTokens);
          tile.add(block_rows(cache, block, begin, end, unpacked),
                   q_latent,
                   q_rope,
                   cache.rope_width,
                   params.scale);
        }
      };
  const auto attend_window = [&](int64_t b, int64_t head, HeadTile<T>& tile) {
    const DecodeWindow& window = *params.window;
    const int64_t first_slot = window.first_slots.as<int64_t>()[b];
    const Rows<T> q_latent = head_rows<T>(window.q_latent, b, head);
    const Rows<T> q_rope = head_rows<T>(params.q_rope, b, head);
    for_each_run(window.ring, lengths[b], [&](int64_t row, int64_t count) {
      const int64_t slot = first_slot + row;
      TESSERA_DCHECK(slot >= 0 && slot + count <= window.cache.num_blocks * kBlockTokens,
                     "slot outside the window cache");
      tile.add({latent_row<T>(window.cache, slot / kBlockTokens, slot % kBlockTokens),
                count,
                window.cache.latent_width,
                window.columns},
               q_latent,
               q_rope,
               cache.rope_width,
               params.scale);
    });
  };

  const int64_t unpacked_width = cache.is_float8() ? kBlockTokens * (width + cache.rope_width) : 0;
  const int64_t tasks_per_row = num_parts * split.num_head_tiles;
  pool_.parallel_for_blocking(num_rows * tasks_per_row, [&](int64_t task, int worker) {
    const int64_t b = task / tasks_per_row;
    const int64_t s = task % tasks_per_row / split.num_head_tiles;
    const int64_t head = task % split.num_head_tiles * split.head_tile;
    const int64_t heads = std::min(split.head_tile, num_heads - head);
    float* scores = scratch(worker, heads * kBlockTokens + unpacked_width);
    HeadTile<T> tile(math_, heads, scores, partial_of(b, s, head), state_width);
    if (s < split.num_splits) {
      attend_paged(b, s, head, tile, reinterpret_cast<T*>(scores + heads * kBlockTokens));
    } else {
      attend_window(b, head, tile);
    }
    tile.finish();
  });

  for_row_ranges(num_rows * num_heads, 2 * width * num_parts, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = i / num_heads;
      const int64_t h = i % num_heads;
      float max_logit = kMinusInfinity;
      for (int64_t s = 0; s < num_parts; ++s) {
        max_logit = std::max(max_logit, partial_of(b, s, h)[width]);
      }
      float* merged = partial_of(b, 0, h);
      float sum = 0.0F;
      for (int64_t s = 0; s < num_parts && max_logit != kMinusInfinity; ++s) {
        const float* state = partial_of(b, s, h);
        const float factor = std::exp(state[width] - max_logit);
        sum += factor * state[width + 1];
        if (s == 0) {
          math_.scale(merged, width, factor);
        } else {
          math_.add_scaled(merged, state, width, factor);
        }
      }
      math_.scale(merged, width, sum > 0.0F ? 1.0F / sum : 0.0F);
      T* out = params.out.as<T>() + b * params.out.stride[0] + h * params.out.stride[1];
      if constexpr (std::is_same_v<T, float>) {
        std::copy_n(merged, width, out);
      } else {
        math_.to_bf16(merged, width, out);
      }
      params.log_sum_exp.as<float>()[b * params.log_sum_exp.stride[0] + h] =
          sum > 0.0F ? max_logit + std::log(sum) : kMinusInfinity;
    }
  });
}

void CpuOps::do_mla_decode(const MlaDecodeParams& params, StreamView) {
  if (params.q_latent.dtype == DType::kFloat32) {
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
