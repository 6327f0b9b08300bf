// Prefill attention on tensor cores (mma.sync): a block is 128 queries of one head, a warp 16 of
// them with its own running softmax; weights stay in registers.
// Source: FlashAttention-2 (arXiv 2307.08691).

#include "kernels/cuda/attention/prefill_pass.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/tensor_core.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarp;
constexpr int kQueries = kWarps * 16;
constexpr int kKeys = 64;  ///< of a tile
constexpr int kStages = 2;
constexpr float kLog2E = 1.44269504088896340736F;
constexpr float kLn2 = 0.69314718055994530942F;

// The heads of DeepSeek-V2 and V3, and of all that follow them.
constexpr int kNopeWidth = 128;
constexpr int kRopeWidth = 64;
constexpr int kValueWidth = 128;
constexpr int kKeyPanels = (kNopeWidth + kRopeWidth) / kPanelColumns;
constexpr int kValuePanels = kValueWidth / kPanelColumns;
constexpr int kSteps = (kNopeWidth + kRopeWidth) / 16;
constexpr int kKeyTiles = kKeys / 8;
constexpr int kValueTiles = kValueWidth / 8;
constexpr int kKeyBytes = kKeys * kKeyPanels * static_cast<int>(kPanelBytes);
constexpr int kStageBytes = kKeyBytes + kKeys * kValuePanels * static_cast<int>(kPanelBytes);
constexpr int kQueryBytes = kQueries * kKeyPanels * static_cast<int>(kPanelBytes);
constexpr int kSharedBytes = kQueryBytes + kStages * kStageBytes;
static_assert(kSharedBytes <= kMaxSharedBytes);

__device__ void load_queries(const PrefillPass& p, unsigned tile, int first, int head) {
  constexpr int kChunks = kKeyPanels * static_cast<int>(kPanelChunks);
  const Bf16* q = static_cast<const Bf16*>(p.q) + head * p.q_head_stride;
  for (int i = static_cast<int>(threadIdx.x); i < kQueries * kChunks; i += kThreads) {
    const int row = i / kChunks;
    const int chunk = i % kChunks;
    const bool is_valid = first + row < p.num_queries;
    const int64_t query = is_valid ? first + row : first;
    copy_async(tile + tile_byte(row, kKeyPanels, chunk),
               q + query * p.q_stride + chunk * kChunkColumns,
               is_valid);
  }
}

/// Four threads copy a row, every fourth chunk each.
__device__ void load_keys(const PrefillPass& p, unsigned tile, int first, int head) {
  constexpr int kThreadsOfRow = kThreads / kKeys;
  constexpr int kNopeChunks = kNopeWidth / kChunkColumns;
  constexpr int kRopeChunks = kRopeWidth / kChunkColumns;
  constexpr int kValueChunks = kValueWidth / kChunkColumns;
  static_assert(kNopeChunks % kThreadsOfRow == 0 && kRopeChunks % kThreadsOfRow == 0 &&
                kValueChunks % kThreadsOfRow == 0);
  const int row = static_cast<int>(threadIdx.x) / kThreadsOfRow;
  const int own = static_cast<int>(threadIdx.x) % kThreadsOfRow;
  const bool is_valid = first + row < p.num_keys;
  const int64_t key = is_valid ? first + row : first;
  const Bf16* kv = static_cast<const Bf16*>(p.kv) + head * p.kv_head_stride + key * p.kv_stride;
  const Bf16* rope = static_cast<const Bf16*>(p.k_rope) + key * p.k_rope_stride;
#pragma unroll
  for (int i = 0; i < kNopeChunks; i += kThreadsOfRow) {
    copy_async(
        tile + tile_byte(row, kKeyPanels, i + own), kv + (i + own) * kChunkColumns, is_valid);
  }
#pragma unroll
  for (int i = 0; i < kRopeChunks; i += kThreadsOfRow) {
    copy_async(tile + tile_byte(row, kKeyPanels, kNopeChunks + i + own),
               rope + (i + own) * kChunkColumns,
               is_valid);
  }
#pragma unroll
  for (int i = 0; i < kValueChunks; i += kThreadsOfRow) {
    copy_async(tile + kKeyBytes + tile_byte(row, kValuePanels, i + own),
               kv + kNopeWidth + (i + own) * kChunkColumns,
               is_valid);
  }
}

/// A warp's 16 queries; a thread has rows g and g + 8, g = lane / 4.
struct Softmax {
  float values[kValueTiles][4] = {};
  float max_log2[2] = {-INFINITY, -INFINITY};
  float sum[2] = {0.0F, 0.0F};  ///< of this thread's columns; of all once finished

  /// logits, without their factor `scale`, become weights; what came before is corrected.
  __device__ void add_logits(float (&logits)[kKeyTiles][4], float scale) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float largest = -INFINITY;
#pragma unroll
      for (int j = 0; j < kKeyTiles; ++j) {
        largest = fmaxf(largest, fmaxf(logits[j][2 * r], logits[j][2 * r + 1]));
      }
      largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 2));
      largest = fmaxf(max_log2[r], largest * scale);
      // A query that sees no key yet has no maximum.
      const float subtract = largest == -INFINITY ? 0.0F : largest;
      const float correction = exp2_approx(max_log2[r] - subtract);
      max_log2[r] = largest;
      sum[r] *= correction;
#pragma unroll
      for (int j = 0; j < kValueTiles; ++j) {
        values[j][2 * r] *= correction;
        values[j][2 * r + 1] *= correction;
      }
#pragma unroll
      for (int j = 0; j < kKeyTiles; ++j) {
        logits[j][2 * r] = exp2_approx(fmaf(logits[j][2 * r], scale, -subtract));
        logits[j][2 * r + 1] = exp2_approx(fmaf(logits[j][2 * r + 1], scale, -subtract));
        sum[r] += logits[j][2 * r] + logits[j][2 * r + 1];
      }
    }
  }

  __device__ void add_values(const float (&weights)[kKeyTiles][4], unsigned tile, int lane) {
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k) {
      const float(&low)[4] = weights[2 * k];
      const float(&high)[4] = weights[2 * k + 1];
      const Fragment4 a = {{pack_bf16(low[0], low[1]),
                            pack_bf16(low[2], low[3]),
                            pack_bf16(high[0], high[1]),
                            pack_bf16(high[2], high[3])}};
#pragma unroll
      for (int j = 0; j < kValueTiles; j += 2) {
        const Fragment4 b = load_values(tile, kValuePanels, 16 * k, j, j + 1, lane);
        multiply_add(values[j], a, b.r[0], b.r[1]);
        multiply_add(values[j + 1], a, b.r[2], b.r[3]);
      }
    }
  }

  __device__ void finish() {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      sum[r] += __shfl_xor_sync(kAllLanes, sum[r], 1);
      sum[r] += __shfl_xor_sync(kAllLanes, sum[r], 2);
    }
  }

  __device__ void load(const PrefillPass& p, int first, int head, int lane) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int query = first + lane / 4 + 8 * r;
      if (query >= p.num_queries) {
        continue;
      }
      max_log2[r] = p.max_logit.row(query)[head] * kLog2E;
      sum[r] = lane % 4 == 0 ? p.sum.row(query)[head] : 0.0F;
      const float* from = p.accumulator.row(query, head) + lane % 4 * 2;
#pragma unroll
      for (int j = 0; j < kValueTiles; ++j) {
        values[j][2 * r] = from[8 * j];
        values[j][2 * r + 1] = from[8 * j + 1];
      }
    }
  }

  __device__ void store(const PrefillPass& p, int first, int head, int lane) const {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int query = first + lane / 4 + 8 * r;
      if (query >= p.num_queries) {
        continue;
      }
      if (p.is_last_tile) {
        Bf16* out = static_cast<Bf16*>(p.out) + query * p.out_stride + head * p.out_head_stride +
                    lane % 4 * 2;
        const float factor = 1.0F / sum[r];
#pragma unroll
        for (int j = 0; j < kValueTiles; ++j) {
          out[8 * j] = from_float<Bf16>(values[j][2 * r] * factor);
          out[8 * j + 1] = from_float<Bf16>(values[j][2 * r + 1] * factor);
        }
        continue;
      }
      float* to = p.accumulator.row(query, head) + lane % 4 * 2;
#pragma unroll
      for (int j = 0; j < kValueTiles; ++j) {
        to[8 * j] = values[j][2 * r];
        to[8 * j + 1] = values[j][2 * r + 1];
      }
      if (lane % 4 == 0) {
        p.max_logit.row(query)[head] = max_log2[r] * kLn2;
        p.sum.row(query)[head] = sum[r];
      }
    }
  }
};

__global__ void __launch_bounds__(kThreads, 1)
    prefill_tensor(const __grid_constant__ PrefillPass p) {
  extern __shared__ __align__(128) char shared[];
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  // The last queries see most keys: they go first.
  const int first = static_cast<int>(gridDim.x - 1 - blockIdx.x) * kQueries;
  const int head = static_cast<int>(blockIdx.y);
  const int own_first = first + 16 * warp;
  const unsigned queries = shared_address(shared);
  const unsigned stages = queries + kQueryBytes;
  const int num_keys = p.num_visible(min(first + kQueries, p.num_queries) - 1);
  const int num_tiles = (num_keys + kKeys - 1) / kKeys;
  load_queries(p, queries, first, head);
  if (num_tiles > 0) {
    load_keys(p, stages, 0, head);
  }
  copy_async_commit();
  Softmax softmax;
  if (!p.is_first_tile) {
    softmax.load(p, own_first, head, lane);
  }
  copy_async_wait<0>();
  __syncthreads();
  const float scale = p.scale * kLog2E;
  for (int tile = 0; tile < num_tiles; ++tile) {
    const unsigned keys = stages + tile % kStages * kStageBytes;
    if (tile + 1 < num_tiles) {
      load_keys(p, stages + (tile + 1) % kStages * kStageBytes, (tile + 1) * kKeys, head);
    }
    copy_async_commit();
    float logits[kKeyTiles][4] = {};
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      // Read anew for every tile: in registers they would leave too few to work with.
      const Fragment4 q = load_rows(queries, kKeyPanels, 16 * warp, 2 * step, lane);
#pragma unroll
      for (int j = 0; j < kKeyTiles; j += 2) {
        const Fragment4 b = load_columns(keys, kKeyPanels, 8 * j, 2 * step, lane);
        multiply_add(logits[j], q, b.r[0], b.r[1]);
        multiply_add(logits[j + 1], q, b.r[2], b.r[3]);
      }
    }
    if ((tile + 1) * kKeys > p.num_visible(own_first)) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int num_visible = p.num_visible(own_first + lane / 4 + e / 2 * 8);
#pragma unroll
        for (int j = 0; j < kKeyTiles; ++j) {
          const int key = tile * kKeys + 8 * j + lane % 4 * 2 + e % 2;
          logits[j][e] = key < num_visible ? logits[j][e] : -INFINITY;
        }
      }
    }
    softmax.add_logits(logits, scale);
    softmax.add_values(logits, keys + kKeyBytes, lane);
    copy_async_wait<0>();
    __syncthreads();  // the next tile has landed; this one is free
  }
  softmax.finish();
  softmax.store(p, own_first, head, lane);
}

bool is_chunked(const void* pointer, int64_t stride, int64_t head_stride) {
  return reinterpret_cast<uintptr_t>(pointer) % 16 == 0 && stride % kChunkColumns == 0 &&
         head_stride % kChunkColumns == 0;
}

}  // namespace

bool can_use_tensor_cores(const PrefillPass& pass) {
  return pass.nope_width == kNopeWidth && pass.rope_width == kRopeWidth &&
         pass.value_width == kValueWidth && is_chunked(pass.q, pass.q_stride, pass.q_head_stride) &&
         is_chunked(pass.kv, pass.kv_stride, pass.kv_head_stride) &&
         is_chunked(pass.k_rope, pass.k_rope_stride, 0);
}

void launch_prefill_tensor(const PrefillPass& pass, cudaStream_t stream) {
  launch("mla_prefill (tensor cores)",
         prefill_tensor,
         {{to_grid(ceil_div(pass.num_queries, kQueries)), to_grid(pass.num_heads)},
          kThreads,
          kSharedBytes},
         stream,
         pass);
}

}  // namespace tessera::kernels::cuda
