// Decode attention over an exact window on tensor cores (mma.sync): few tokens, so that a block has
// only 16 heads, and many blocks share a multiprocessor. Of rows of 512 + 64 columns, which is what
// the models have.
//
// Four warps divide the columns: of the keys for the scores, whose parts they add up in shared
// memory, and of the values. Each takes the whole softmax by itself. Queries go straight from
// memory to registers.

#include "kernels/cuda/attention/decode_pass.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/tensor_core.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarp;
constexpr int kHeads = 16;
constexpr int kTokens = 32;  ///< of a tile
constexpr int kLatentWidth = 512;
constexpr int kRopeWidth = 64;
constexpr int kRowChunks = (kLatentWidth + kRopeWidth) / kChunkColumns;
constexpr int kRowPanels = kRowChunks / static_cast<int>(kPanelChunks);
constexpr int kStepsOfWarp = kRowChunks / 2 / kWarps;  ///< of 16 columns
constexpr int kTilesN = kTokens / 8;
constexpr int kScoreStride = kTokens + 8;  ///< rows 8 banks apart: a quad's pairs do not conflict
static_assert(kStepsOfWarp * kWarps * 2 == kRowChunks);

struct Shared {
  alignas(128) char keys[kTokens * kRowPanels * kPanelBytes];
  float scores[kWarps][kHeads][kScoreStride];
};
static_assert(sizeof(Shared) <= kDefaultSharedBytes);

/// This warp's columns of the heads' queries. Beyond the last head it is that one's once more, of
/// which nothing is stored.
__device__ void load_queries(const DecodePass& p,
                             int row,
                             int first_head,
                             Fragment4 (&queries)[kStepsOfWarp]) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const Bf16* latent[2];
  const Bf16* rope[2];  // columns count over latent and rope part
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int head = min(first_head + lane / 4 + 8 * r, p.num_heads - 1);
    latent[r] = static_cast<const Bf16*>(p.q_latent) + row * p.q_latent_stride +
                head * p.q_latent_head_stride + lane % 4 * 2;
    rope[r] = static_cast<const Bf16*>(p.q_rope) + row * p.q_rope_stride +
              head * p.q_rope_head_stride + lane % 4 * 2 - kLatentWidth;
  }
#pragma unroll
  for (int step = 0; step < kStepsOfWarp; ++step) {
    const int column = (warp * kStepsOfWarp + step) * 16;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const Bf16* from = column < kLatentWidth ? latent[i % 2] : rope[i % 2];
      queries[step].r[i] = *reinterpret_cast<const unsigned*>(from + column + i / 2 * 8);
    }
  }
}

/// Tokens of a tile come in groups of 16, which a product takes; groups without tokens are left
/// out.
constexpr int kGroupTokens = 16;

/// Rows of the groups of the tile that begins at token `first`; of those behind the last token,
/// zeros. Where a row is takes a division: each lane finds one.
__device__ void load_keys(const DecodePass& p,
                          const DecodeRow& sequence,
                          unsigned tile,
                          int first) {
  static_assert(kTokens == kWarp);
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int num_valid = sequence.num_tokens - first;
  const char* own = sequence.key(p, lane < num_valid ? first + lane : first);
  const int end = num_valid > kGroupTokens ? kTokens : kGroupTokens;
  for (int row = warp; row < end; row += kWarps) {
    const auto* key = reinterpret_cast<const char*>(
        __shfl_sync(kAllLanes, reinterpret_cast<unsigned long long>(own), row));
    for (int chunk = lane; chunk < kRowChunks; chunk += kWarp) {
      copy_async(tile + tile_byte(row, kRowPanels, chunk), key + chunk * 16, row < num_valid);
    }
  }
}

/// Of the two heads (g and g + 8) whose scores a thread holds.
struct RowState {
  float max_log2[2] = {-INFINITY, -INFINITY};
  float sum[2] = {0.0F, 0.0F};
};

/// This warp's columns of the scores.
__device__ void add_scores(const Fragment4 (&queries)[kStepsOfWarp],
                           unsigned tile,
                           int num_valid,
                           float (&scores)[kTilesN][4]) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
  for (int step = 0; step < kStepsOfWarp; ++step) {
    const int chunk = (warp * kStepsOfWarp + step) * 2;
#pragma unroll
    for (int j = 0; j < kTilesN; j += 2) {
      if (8 * j >= num_valid) {
        break;
      }
      const Fragment4 b = load_columns(tile, kRowPanels, 8 * j, chunk, lane);
      multiply_add(scores[j], queries[step], b.r[0], b.r[1]);
      multiply_add(scores[j + 1], queries[step], b.r[2], b.r[3]);
    }
  }
}

/// Scores over all columns, in every warp.
__device__ void exchange_scores(Shared& shared, int num_valid, float (&scores)[kTilesN][4]) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const auto at = [&](int from, int j, int r) {
    return reinterpret_cast<float2*>(&shared.scores[from][lane / 4 + 8 * r][8 * j + lane % 4 * 2]);
  };
#pragma unroll
  for (int j = 0; j < kTilesN; ++j) {
    if (8 * j >= num_valid) {
      break;
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      *at(warp, j, r) = {scores[j][2 * r], scores[j][2 * r + 1]};
    }
  }
  __syncthreads();
#pragma unroll
  for (int j = 0; j < kTilesN; ++j) {
    if (8 * j >= num_valid) {
      break;
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float2 sum = {0.0F, 0.0F};
#pragma unroll
      for (int from = 0; from < kWarps; ++from) {  // in one order: all warps have the same
        const float2 part = *at(from, j, r);
        sum.x += part.x;
        sum.y += part.y;
      }
      scores[j][2 * r] = sum.x;
      scores[j][2 * r + 1] = sum.y;
    }
  }
}

/// Scores to weights, in place; what the sums so far have to be multiplied by, to `corrections`.
__device__ void take_softmax(float (&scores)[kTilesN][4],
                             RowState& state,
                             float scale_log2,
                             int num_valid,
                             float (&corrections)[2]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float largest = state.max_log2[r];
#pragma unroll
    for (int j = 0; j < kTilesN; ++j) {
#pragma unroll
      for (int e = 2 * r; e < 2 * r + 2; ++e) {
        const int token = 8 * j + lane % 4 * 2 + e % 2;
        scores[j][e] = token < num_valid ? scores[j][e] * scale_log2 : -INFINITY;
        largest = fmaxf(largest, scores[j][e]);
      }
    }
    largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 2));
    corrections[r] = exp2_approx(state.max_log2[r] - largest);
    state.max_log2[r] = largest;
    float sum = 0.0F;
#pragma unroll
    for (int j = 0; j < kTilesN; ++j) {
#pragma unroll
      for (int e = 2 * r; e < 2 * r + 2; ++e) {
        scores[j][e] = exp2_approx(scores[j][e] - largest);
        sum += scores[j][e];
      }
    }
    sum += __shfl_xor_sync(kAllLanes, sum, 1);
    sum += __shfl_xor_sync(kAllLanes, sum, 2);
    state.sum[r] = state.sum[r] * corrections[r] + sum;
  }
}

/// A warp's columns of the values: 8 * kTilesV of them.
template <int kTilesV>
struct Values {
  float sums[kTilesV][4] = {};

  __device__ void add(const DecodePass& p,
                      const float (&weights)[kTilesN][4],
                      const float (&corrections)[2],
                      unsigned tile,
                      int num_valid) {
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const int num_chunks = p.value_width / kChunkColumns;
    const int first_chunk = warp * kTilesV;
#pragma unroll
    for (int j = 0; j < kTilesV; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        sums[j][e] *= corrections[e / 2];
      }
    }
#pragma unroll
    for (int k = 0; k < kTokens / kGroupTokens; ++k) {
      if (kGroupTokens * k >= num_valid) {
        break;
      }
      const Fragment4 a = {pack_bf16(weights[2 * k][0], weights[2 * k][1]),
                           pack_bf16(weights[2 * k][2], weights[2 * k][3]),
                           pack_bf16(weights[2 * k + 1][0], weights[2 * k + 1][1]),
                           pack_bf16(weights[2 * k + 1][2], weights[2 * k + 1][3])};
#pragma unroll
      for (int j = 0; j < kTilesV; j += 2) {
        const int first = first_chunk + j;
        if (first >= num_chunks) {
          break;
        }
        const int second = min(first + 1, num_chunks - 1);
        const Fragment4 b = load_values(tile,
                                        kRowPanels,
                                        kGroupTokens * k,
                                        p.value_columns.latent_column(first * 8) / 8,
                                        p.value_columns.latent_column(second * 8) / 8,
                                        lane);
        multiply_add(sums[j], a, b.r[0], b.r[1]);
        multiply_add(sums[j + 1], a, b.r[2], b.r[3]);
      }
    }
  }

  __device__ void store(const DecodePass& p, const RowState& state, int row, int first_head) const {
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int head = first_head + lane / 4 + 8 * r;
      if (head >= p.num_heads) {
        continue;
      }
      const float factor = state.sum[r] > 0.0F ? 1.0F / state.sum[r] : 0.0F;
      float* to = p.partial_values + p.partial(row, 0, head) * p.value_width;
#pragma unroll
      for (int j = 0; j < kTilesV; ++j) {
        const int column = (warp * kTilesV + j) * 8 + lane % 4 * 2;
        if (column < p.value_width) {
          *reinterpret_cast<float2*>(to + column) = {sums[j][2 * r] * factor,
                                                     sums[j][2 * r + 1] * factor};
        }
      }
      if (warp == 0 && lane % 4 == 0) {
        p.partial_sums[p.partial(row, 0, head)] = log_sum_exp_of(state.max_log2[r], state.sum[r]);
      }
    }
  }
};

template <int kTilesV>
__global__ void __launch_bounds__(kThreads, kTilesV <= 8 ? 4 : 3)
    attend_window(const __grid_constant__ DecodePass p) {
  __shared__ Shared shared;
  const int first_head = static_cast<int>(blockIdx.x) * kHeads;
  const int row = static_cast<int>(blockIdx.y);
  const unsigned tile = shared_address(shared.keys);
  const DecodeRow sequence(p, row);
  RowState state;
  Values<kTilesV> values;
  Fragment4 queries[kStepsOfWarp];
  load_queries(p, row, first_head, queries);
  for (int first = 0; first < sequence.num_tokens; first += kTokens) {
    load_keys(p, sequence, tile, first);
    copy_async_commit();
    copy_async_wait<0>();
    __syncthreads();
    const int num_valid = sequence.num_tokens - first;
    float scores[kTilesN][4] = {};
    add_scores(queries, tile, num_valid, scores);
    exchange_scores(shared, num_valid, scores);
    float corrections[2];
    take_softmax(scores, state, p.scale * kLog2E, num_valid, corrections);
    values.add(p, scores, corrections, tile, num_valid);
    __syncthreads();  // the next tile takes the place of this one
  }
  values.store(p, state, row, first_head);
}

template <int kTilesV>
void launch_tiles(const DecodePass& pass, int64_t num_rows, cudaStream_t stream) {
  launch("mla_decode (window)",
         attend_window<kTilesV>,
         {{to_grid(ceil_div(pass.num_heads, kHeads)), to_grid(num_rows)}, kThreads},
         stream,
         pass);
}

/// Columns of values that a block of kTilesV has.
constexpr int64_t width_of(int64_t tiles) {
  return tiles * kWarps * kChunkColumns;
}

}  // namespace

bool can_use_window_kernel(const DecodePass& pass) {
  return pass.first_slots != nullptr && !pass.cache.is_float8 &&
         pass.cache.latent_width == kLatentWidth && pass.cache.rope_width == kRopeWidth &&
         pass.value_width <= width_of(10) && pass.num_splits == 1 && pass.out == nullptr &&
         can_use_tensor_cores(pass);
}

void launch_decode_window(const DecodePass& pass, int64_t num_rows, cudaStream_t stream) {
  if (pass.value_width <= width_of(4)) {
    launch_tiles<4>(pass, num_rows, stream);
  } else if (pass.value_width <= width_of(8)) {
    launch_tiles<8>(pass, num_rows, stream);
  } else {
    launch_tiles<10>(pass, num_rows, stream);
  }
}

}  // namespace tessera::kernels::cuda
