// Decode attention on tensor cores (mma.sync): a block is a tile of heads of one split, all heads
// over one key and value row a token. Eight warps share the logits of 64 tokens, exchange maxima
// and weights through shared memory, then each adds up its own columns of the values.
// Sources: FlashAttention-2 (arXiv 2307.08691) for the running softmax, DeepSeek-V2 (arXiv
// 2405.04434) section 2.1 for the absorbed form.

#include <algorithm>

#include "kernels/cuda/attention/decode_float8.cuh"
#include "kernels/cuda/attention/decode_pass.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/tensor_core.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarp;
constexpr int kTokens = 64;  ///< keys of a tile
constexpr int kMaxRopeWidth = kPanelColumns;
constexpr int kMaxLatentWidth = 512;

/// 16 * kTilesM heads; each warp owns 8 * kTilesV columns of the values.
template <int kTilesM_, int kTilesV_, int kStages_, bool kIsFloat8_ = false>
struct DecodeShape {
  static constexpr bool kIsFloat8 = kIsFloat8_;
  static constexpr int kTilesM = kTilesM_;
  static constexpr int kTilesV = kTilesV_;
  static constexpr int kStages = kStages_;
  static constexpr int kHeads = 16 * kTilesM;
  // Logits: kTilesM warps over heads, the rest over tokens.
  static constexpr int kWarpsN = kWarps / kTilesM;
  static constexpr int kTilesN = kTokens / kWarpsN / 8;
  static_assert(kTilesM * kWarpsN == kWarps && kTilesN >= 1);
  static constexpr int kWeightBytes = kHeads * kTokens * 2;
  static constexpr int kExchangeFloats = (kWarpsN + 1) * kHeads;

  static int64_t shared_bytes(int row_panels) {
    return (kHeads + kStages * kTokens) * row_panels * int64_t{kPanelBytes} + kWeightBytes +
           kExchangeFloats * int64_t{sizeof(float)};
  }
};

/// Panels of a key in shared memory: the latent's, the last one padded with zeros, and the rope's.
__host__ __device__ int panels_of(const DeviceCache& cache) {
  return (cache.latent_width + kPanelColumns - 1) / kPanelColumns + 1;
}

/// Zeros wherever no chunk of a row will ever be copied to.
__device__ void clear_padding(unsigned tile,
                              int num_rows,
                              int row_panels,
                              const DeviceCache& cache) {
  const int latent_chunks = cache.latent_width / kChunkColumns;
  const int rope_begin = (row_panels - 1) * kPanelChunks;
  const int rope_end = rope_begin + cache.rope_width / kChunkColumns;
  for (int i = static_cast<int>(threadIdx.x); i < num_rows * row_panels * kPanelChunks;
       i += kThreads) {
    const int row = i / (row_panels * kPanelChunks);
    const int chunk = i % (row_panels * kPanelChunks);
    if (chunk >= latent_chunks && (chunk < rope_begin || chunk >= rope_end)) {
      asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(
                       tile + tile_byte(row, row_panels, chunk)),
                   "r"(0)
                   : "memory");
    }
  }
}

/// Chunk of the tile's row that holds chunk `chunk` of a cache row.
__device__ int tile_chunk(const DeviceCache& cache, int row_panels, int chunk) {
  const int latent_chunks = cache.latent_width / kChunkColumns;
  return chunk < latent_chunks ? chunk : (row_panels - 1) * kPanelChunks + chunk - latent_chunks;
}

/// Rows of tokens [first, first + kTokens); of those behind the last one, zeros.
__device__ void load_keys(
    const DecodePass& p, const DecodeRow& sequence, unsigned tile, int row_panels, int first) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int num_chunks = (p.cache.latent_width + p.cache.rope_width) / kChunkColumns;
  // Each lane looks one row up, so that the look-ups do not wait for each other.
  constexpr int kRowsOfWarp = kTokens / kWarps;
  const int own = first + warp + lane % kRowsOfWarp * kWarps;
  const auto own_key =
      reinterpret_cast<uintptr_t>(sequence.key(p, own < sequence.num_tokens ? own : first));
  for (int i = 0; i < kRowsOfWarp; ++i) {
    const int row = warp + i * kWarps;
    const auto* key = reinterpret_cast<const char*>(__shfl_sync(kAllLanes, own_key, i));
    const bool is_valid = first + row < sequence.num_tokens;
    for (int chunk = lane; chunk < num_chunks; chunk += kWarp) {
      copy_async(tile + tile_byte(row, row_panels, tile_chunk(p.cache, row_panels, chunk)),
                 key + chunk * 16,
                 is_valid);
    }
  }
}

__device__ void load_queries(
    const DecodePass& p, unsigned tile, int row_panels, int row, int first_head, int num_rows) {
  const int latent_chunks = p.cache.latent_width / kChunkColumns;
  const int num_chunks = latent_chunks + p.cache.rope_width / kChunkColumns;
  const Bf16* q_latent = static_cast<const Bf16*>(p.q_latent) + row * p.q_latent_stride;
  const Bf16* q_rope = static_cast<const Bf16*>(p.q_rope) + row * p.q_rope_stride;
  for (int i = static_cast<int>(threadIdx.x); i < num_rows * num_chunks; i += kThreads) {
    const int at = i / num_chunks;
    const int chunk = i % num_chunks;
    const bool is_valid = first_head + at < p.num_heads;
    const int head = is_valid ? first_head + at : first_head;
    const Bf16* from =
        chunk < latent_chunks
            ? q_latent + head * p.q_latent_head_stride + chunk * kChunkColumns
            : q_rope + head * p.q_rope_head_stride + (chunk - latent_chunks) * kChunkColumns;
    copy_async(
        tile + tile_byte(at, row_panels, tile_chunk(p.cache, row_panels, chunk)), from, is_valid);
  }
}

/// Running softmax of the two heads (g and g + 8) whose logits a thread holds.
struct RowState {
  float max_log2[2] = {-INFINITY, -INFINITY};
  float sum[2] = {0.0F, 0.0F};  ///< of this thread's columns only
};

template <typename Shape>
struct Attention {
  static constexpr int kHeads = Shape::kHeads;

  const DecodePass& p;
  unsigned queries, keys, weights;  ///< shared memory
  float* maxima;                    ///< [kWarpsN, kHeads]
  float* corrections;               ///< [kHeads]
  int row_panels;
  int warp, lane;
  RowState state = {};
  float values[Shape::kTilesM][Shape::kTilesV][4] = {};

  [[nodiscard]] __device__ int logit_head() const {
    return warp / Shape::kWarpsN * 16 + lane / 4;  // and the one 8 further
  }
  [[nodiscard]] __device__ int logit_token() const {
    return warp % Shape::kWarpsN * Shape::kTilesN * 8;
  }

  __device__ void add_logits(unsigned tile,
                             int first_chunk,
                             int num_chunks,
                             float (&logits)[Shape::kTilesN][4]) const {
    const int head = warp / Shape::kWarpsN * 16;
#pragma unroll 4
    for (int i = 0; i < num_chunks; i += 2) {
      const int chunk = first_chunk + i;
      const Fragment4 a = load_rows(queries, row_panels, head, chunk, lane);
      if constexpr (Shape::kTilesN == 1) {
        // Rows beyond the warp's eight are another warp's: loaded, not used.
        const int row = logit_token() + lane % 8;
        const Fragment4 b = load_matrix(tile + tile_byte(row, row_panels, chunk + lane / 8 % 2));
        multiply_add(logits[0], a, b.r[0], b.r[1]);
      } else {
#pragma unroll
        for (int j = 0; j < Shape::kTilesN; j += 2) {
          const Fragment4 b = load_columns(tile, row_panels, logit_token() + 8 * j, chunk, lane);
          multiply_add(logits[j], a, b.r[0], b.r[1]);
          multiply_add(logits[j + 1], a, b.r[2], b.r[3]);
        }
      }
    }
  }

  /// Logits of this tile, times log2(e), and their maxima over this warp's tokens in `maxima`.
  __device__ void compute_logits(unsigned tile,
                                 int num_valid,
                                 float (&logits)[Shape::kTilesN][4]) const {
    const int latent_chunks = (p.cache.latent_width + 15) / 16 * 2;
    const int rope_chunks = (p.cache.rope_width + 15) / 16 * 2;
    add_logits(tile, 0, latent_chunks, logits);
    add_logits(tile, (row_panels - 1) * kPanelChunks, rope_chunks, logits);
    const float scale = p.scale * kLog2E;
    float largest[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (int j = 0; j < Shape::kTilesN; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int token = logit_token() + 8 * j + lane % 4 * 2 + e % 2;
        logits[j][e] = token < num_valid ? logits[j][e] * scale : -INFINITY;
        largest[e / 2] = fmaxf(largest[e / 2], logits[j][e]);
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      largest[r] = fmaxf(largest[r], __shfl_xor_sync(kAllLanes, largest[r], 1));
      largest[r] = fmaxf(largest[r], __shfl_xor_sync(kAllLanes, largest[r], 2));
      if (lane % 4 == 0) {
        maxima[warp % Shape::kWarpsN * kHeads + logit_head() + 8 * r] = largest[r];
      }
    }
  }

  /// Weights exp(logit - maximum) of this tile to shared memory; corrections of what came before.
  __device__ void compute_weights(const float (&logits)[Shape::kTilesN][4]) {
    float correction[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float largest = state.max_log2[r];
#pragma unroll
      for (int w = 0; w < Shape::kWarpsN; ++w) {
        largest = fmaxf(largest, maxima[w * kHeads + logit_head() + 8 * r]);
      }
      correction[r] = exp2_approx(state.max_log2[r] - largest);
      state.max_log2[r] = largest;
      state.sum[r] *= correction[r];
      if (warp % Shape::kWarpsN == 0 && lane % 4 == 0) {
        corrections[logit_head() + 8 * r] = correction[r];
      }
    }
#pragma unroll
    for (int j = 0; j < Shape::kTilesN; ++j) {
      const int chunk = logit_token() / 8 + j;
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float first = exp2_approx(logits[j][2 * r] - state.max_log2[r]);
        const float second = exp2_approx(logits[j][2 * r + 1] - state.max_log2[r]);
        state.sum[r] += first + second;
        asm volatile("st.shared.b32 [%0], %1;" ::"r"(
                         weights + tile_byte(logit_head() + 8 * r, 1, chunk) + lane % 4 * 4),
                     "r"(pack_bf16(first, second))
                     : "memory");
      }
    }
  }

  __device__ void add_values(unsigned tile) {
    const int num_chunks = p.value_width / kChunkColumns;
    const int first_chunk = warp * Shape::kTilesV;
    if (first_chunk >= num_chunks) {
      return;
    }
#pragma unroll
    for (int i = 0; i < Shape::kTilesM; ++i) {
      const float low = corrections[16 * i + lane / 4];
      const float high = corrections[16 * i + lane / 4 + 8];
#pragma unroll
      for (int j = 0; j < Shape::kTilesV; ++j) {
        values[i][j][0] *= low;
        values[i][j][1] *= low;
        values[i][j][2] *= high;
        values[i][j][3] *= high;
      }
    }
#pragma unroll
    for (int k = 0; k < kTokens / 16; ++k) {
      Fragment4 a[Shape::kTilesM];
#pragma unroll
      for (int i = 0; i < Shape::kTilesM; ++i) {
        a[i] = load_rows(weights, 1, 16 * i, 2 * k, lane);
      }
#pragma unroll
      for (int j = 0; j < Shape::kTilesV; j += 2) {
        const int first = first_chunk + j;
        if (first >= num_chunks) {
          break;
        }
        const int second = min(first + 1, num_chunks - 1);
        const Fragment4 b = load_values(tile,
                                        row_panels,
                                        16 * k,
                                        p.value_columns.latent_column(first * 8) / 8,
                                        p.value_columns.latent_column(second * 8) / 8,
                                        lane);
#pragma unroll
        for (int i = 0; i < Shape::kTilesM; ++i) {
          multiply_add(values[i][j], a[i], b.r[0], b.r[1]);
          multiply_add(values[i][j + 1], a[i], b.r[2], b.r[3]);
        }
      }
    }
  }

  /// Every head's log-sum-exp to `corrections` and the inverse of its sum to `maxima`.
  __device__ void finish_sums() {
    __syncthreads();  // the last tile's corrections are read
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float sum = state.sum[r];
      sum += __shfl_xor_sync(kAllLanes, sum, 1);
      sum += __shfl_xor_sync(kAllLanes, sum, 2);
      if (lane % 4 == 0) {
        maxima[warp % Shape::kWarpsN * kHeads + logit_head() + 8 * r] = sum;
      }
    }
    __syncthreads();
    if (warp % Shape::kWarpsN == 0 && lane % 4 == 0) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int head = logit_head() + 8 * r;
        float sum = 0.0F;
        for (int w = 0; w < Shape::kWarpsN; ++w) {
          sum += maxima[w * kHeads + head];
        }
        corrections[head] = log_sum_exp_of(state.max_log2[r], sum);
        maxima[head] = sum > 0.0F ? 1.0F / sum : 0.0F;
      }
    }
    __syncthreads();
  }

  __device__ void store(int row, int split, int first_head) const {
    for (int at = static_cast<int>(threadIdx.x); at < kHeads; at += kThreads) {
      const int head = first_head + at;
      if (head < p.num_heads) {
        (p.out == nullptr ? p.partial_sums[p.partial(row, split, head)]
                          : p.log_sum_exp[row * p.log_sum_exp_stride + head]) = corrections[at];
      }
    }
#pragma unroll
    for (int i = 0; i < Shape::kTilesM; ++i) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int at = 16 * i + lane / 4 + 8 * r;
        const int head = first_head + at;
        if (head >= p.num_heads) {
          continue;
        }
        const float factor = maxima[at];
#pragma unroll
        for (int j = 0; j < Shape::kTilesV; ++j) {
          const int column = (warp * Shape::kTilesV + j) * 8 + lane % 4 * 2;
          if (column >= p.value_width) {
            continue;
          }
          const float first = values[i][j][2 * r] * factor;
          const float second = values[i][j][2 * r + 1] * factor;
          if (p.out == nullptr) {
            float* to = p.partial_values + p.partial(row, split, head) * p.value_width + column;
            *reinterpret_cast<float2*>(to) = {first, second};
          } else {
            Bf16* to = static_cast<Bf16*>(p.out) + row * p.out_stride + head * p.out_head_stride;
            to[column] = from_float<Bf16>(first);
            to[column + 1] = from_float<Bf16>(second);
          }
        }
      }
    }
  }
};

/// The ring of tiles of keys in shared memory, and how they get there.
template <typename Shape>
struct KeyTiles {
  const DecodePass& p;
  unsigned keys;  ///< shared memory
  int row_panels;
  int begin, end;  ///< tiles of the block

  [[nodiscard]] __device__ unsigned stage(int tile) const {
    const auto slot = static_cast<unsigned>((tile - begin) % Shape::kStages);
    return keys + slot * static_cast<unsigned>(kTokens * row_panels) * kPanelBytes;
  }

  /// By asynchronous copies, several tiles ahead of attend(tile). The queries' copies are under
  /// way.
  template <typename Attend>
  __device__ void copy_all(const DecodeRow& sequence, const Attend& attend) const {
    const auto load_tile = [&](int tile) {
      if (tile < end) {
        load_keys(p, sequence, stage(tile), row_panels, tile * kTokens);
      }
      copy_async_commit();
    };
    for (int i = 0; i < Shape::kStages - 1; ++i) {
      load_tile(begin + i);  // the queries are in the first group
    }
    for (int tile = begin; tile < end; ++tile) {
      copy_async_wait<Shape::kStages - 2>();
      __syncthreads();  // this tile has landed; the stage before it is free
      load_tile(tile + Shape::kStages - 1);
      attend(tile);
    }
  }

  /// Of float8 rows, by way of registers: loaded during attend() of the tile before.
  template <typename Attend>
  __device__ void convert_all(const DecodeRow& sequence, const Attend& attend) const {
    copy_async_commit();
    Float8Keys<kTokens, kWarps, kMaxLatentWidth, kMaxRopeWidth> rows(p, sequence);
    if (begin < end) {
      rows.fetch(begin * kTokens);
      rows.put(stage(begin), row_panels);
    }
    copy_async_wait<0>();
    for (int tile = begin; tile < end; ++tile) {
      __syncthreads();  // this tile is there; the stage before it is free
      if (tile + 1 < end) {
        rows.fetch((tile + 1) * kTokens);
      }
      attend(tile);
      if (tile + 1 < end) {
        rows.put(stage(tile + 1), row_panels);
      }
    }
  }
};

template <typename Shape>
__global__ void __launch_bounds__(kThreads, 1) attend_tensor(const __grid_constant__ DecodePass p) {
  extern __shared__ __align__(128) char shared[];
  const int first_head = static_cast<int>(blockIdx.x) * Shape::kHeads;
  const int split = static_cast<int>(blockIdx.y);
  const int row = static_cast<int>(blockIdx.z);
  const int row_panels = panels_of(p.cache);
  const int row_bytes = row_panels * static_cast<int>(kPanelBytes);
  const unsigned queries = shared_address(shared);
  const unsigned keys = queries + Shape::kHeads * row_bytes;
  char* after_keys = shared + (Shape::kHeads + Shape::kStages * kTokens) * row_bytes;
  auto* maxima = reinterpret_cast<float*>(after_keys + Shape::kWeightBytes);
  Attention<Shape> attention{.p = p,
                             .queries = queries,
                             .keys = keys,
                             .weights = shared_address(after_keys),
                             .maxima = maxima,
                             .corrections = maxima + Shape::kWarpsN * Shape::kHeads,
                             .row_panels = row_panels,
                             .warp = static_cast<int>(threadIdx.x) / kWarp,
                             .lane = static_cast<int>(threadIdx.x) % kWarp};
  const DecodeRow sequence(p, row);
  const int num_tokens = sequence.num_tokens;
  const int num_tiles = (num_tokens + kTokens - 1) / kTokens;
  const int tile_begin = static_cast<int>(int64_t{num_tiles} * split / p.num_splits);
  const int tile_end = static_cast<int>(int64_t{num_tiles} * (split + 1) / p.num_splits);
  clear_padding(queries, Shape::kHeads + Shape::kStages * kTokens, row_panels, p.cache);
  load_queries(p, queries, row_panels, row, first_head, Shape::kHeads);
  const KeyTiles<Shape> tiles{p, keys, row_panels, tile_begin, tile_end};
  const auto attend = [&](int tile) {
    float logits[Shape::kTilesN][4] = {};
    attention.compute_logits(tiles.stage(tile), num_tokens - tile * kTokens, logits);
    __syncthreads();
    attention.compute_weights(logits);
    __syncthreads();
    attention.add_values(tiles.stage(tile));
  };
  if constexpr (Shape::kIsFloat8) {
    tiles.convert_all(sequence, attend);
  } else {
    tiles.copy_all(sequence, attend);
  }
  copy_async_wait<0>();
  attention.finish_sums();
  attention.store(row, split, first_head);
}

template <typename Shape>
void launch_shape(const DecodePass& pass, int64_t num_rows, cudaStream_t stream) {
  launch("mla_decode (tensor cores)",
         attend_tensor<Shape>,
         {{to_grid(ceil_div(pass.num_heads, Shape::kHeads)),
           to_grid(pass.num_splits),
           to_grid(num_rows)},
          kThreads,
          Shape::shared_bytes(panels_of(pass.cache))},
         stream,
         pass);
}

/// Stages as deep as shared memory allows for keys this wide.
template <int kTilesM, int kTilesV>
void launch_values(const DecodePass& pass, int64_t num_rows, cudaStream_t stream) {
  if (pass.cache.is_float8) {
    launch_shape<DecodeShape<kTilesM, kTilesV, 2, true>>(pass, num_rows, stream);
    return;
  }
  if constexpr (kTilesV < 8) {
    if (pass.cache.latent_width <= 256) {
      launch_shape<DecodeShape<kTilesM, kTilesV, 4>>(pass, num_rows, stream);
      return;
    }
  }
  launch_shape<DecodeShape<kTilesM, kTilesV, 2>>(pass, num_rows, stream);
}

template <int kTilesM>
void launch_heads(const DecodePass& pass, int64_t num_rows, cudaStream_t stream) {
  if (pass.value_width <= 128) {
    launch_values<kTilesM, 2>(pass, num_rows, stream);
  } else if (pass.value_width <= 256) {
    launch_values<kTilesM, 4>(pass, num_rows, stream);
  } else {
    launch_values<kTilesM, 8>(pass, num_rows, stream);
  }
}

bool is_chunked(const void* pointer, int64_t stride, int64_t head_stride) {
  return reinterpret_cast<uintptr_t>(pointer) % 16 == 0 && stride % kChunkColumns == 0 &&
         head_stride % kChunkColumns == 0;
}

bool has_chunked_ranges(const DeviceColumns& columns) {
  return columns.begin[0] % kChunkColumns == 0 && columns.count[0] % kChunkColumns == 0 &&
         columns.begin[1] % kChunkColumns == 0;
}

}  // namespace

bool can_use_tensor_cores(const DecodePass& pass) {
  const DeviceCache& cache = pass.cache;
  const bool has_chunked_rows =
      cache.latent_width % kChunkColumns == 0 && cache.rope_width % kChunkColumns == 0 &&
      pass.value_width % kChunkColumns == 0 && cache.block_stride_bytes % 16 == 0;
  return has_chunked_rows && cache.latent_width <= kMaxLatentWidth &&
         cache.rope_width <= kMaxRopeWidth && is_chunked(cache.base, 0, 0) &&
         is_chunked(pass.q_latent, pass.q_latent_stride, pass.q_latent_head_stride) &&
         is_chunked(pass.q_rope, pass.q_rope_stride, pass.q_rope_head_stride) &&
         has_chunked_ranges(pass.value_columns);
}

int64_t tensor_head_tile(int64_t num_heads) {
  return num_heads <= 16 ? 16 : 64;
}

void launch_decode_tensor(const DecodePass& pass, int64_t num_rows, cudaStream_t stream) {
  if (tensor_head_tile(pass.num_heads) == 16) {
    launch_heads<1>(pass, num_rows, stream);
  } else {
    launch_heads<4>(pass, num_rows, stream);
  }
}

}  // namespace tessera::kernels::cuda
