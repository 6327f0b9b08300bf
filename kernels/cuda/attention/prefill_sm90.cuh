// Prefill attention for Hopper: heads of 128 + 64 key and 128 value columns, bfloat16, causal.
//
// A thread block is 128 queries of one head. One warp feeds two rings in shared memory, of keys and
// of values, with the bulk tensor copy engine; two warpgroups compute 64 queries each. In a
// warpgroup the softmax of a tile of keys runs while the values of the tile before are summed; that
// the two also take turns at starting products, by hardware barriers, made it 2 % slower. The last
// keys come first: only they need the causal mask. Source: FlashAttention-3 (arXiv 2407.08608).
#pragma once

#include "kernels/cuda/attention/prefill_pass.cuh"
#include "kernels/cuda/copy_ring.cuh"
#include "kernels/cuda/sm90.cuh"

namespace tessera::kernels::cuda {

/// What the copy engine reads and writes, in boxes of 64 columns; rows that are not there come as
/// zeros, and are not written.
struct PrefillSm90Maps {
  CUtensorMap q;       ///< [T, H, 192], boxes of 64 queries
  CUtensorMap kv;      ///< [n, H, 256], boxes of kKeys
  CUtensorMap k_rope;  ///< [n, 1, 64], boxes of kKeys
  CUtensorMap out;     ///< [T, H, 128], boxes of 64 queries
};

struct PrefillSm90Shape {
  static constexpr int kNopeWidth = 128;
  static constexpr int kRopeWidth = 64;
  static constexpr int kValueWidth = 128;
  static constexpr int kKeyPanels = (kNopeWidth + kRopeWidth) / 64;
  static constexpr int kValuePanels = kValueWidth / 64;
  static constexpr int kGroups = 2;         ///< warpgroups that compute
  static constexpr int kGroupQueries = 64;  ///< rows of a wgmma
  static constexpr int kQueries = kGroups * kGroupQueries;
  static constexpr int kKeys = 128;  ///< of a tile
  static constexpr int kStages = 2;
  static constexpr int kHeads = 8;  ///< at a time
  static constexpr int kQueryPanelBytes = kGroupQueries * 128;
  static constexpr int kGroupBytes = kKeyPanels * kQueryPanelBytes;
  static constexpr int kPanelBytes = kKeys * 128;
  static constexpr int kKeyBytes = kKeyPanels * kPanelBytes;
  static constexpr int kValueBytes = kValuePanels * kPanelBytes;
  static constexpr int kBarrierBytes = 1024;
  static constexpr int kSharedBytes = kBarrierBytes + kGroups * kGroupBytes +
                                      kStages * (kKeyBytes + kValueBytes) + 1024;  // for alignment
  static constexpr int kThreads = 128 + kGroups * 128;
  static_assert(kSharedBytes <= 232448);
};

namespace prefill_detail {

using namespace sm90;  // NOLINT: instructions
using Shape = PrefillSm90Shape;

constexpr float kLog2E = 1.44269504088896340736F;
constexpr float kLn2 = 0.69314718055994530942F;
constexpr int kScores = Shape::kKeys / 2;  ///< a thread's, of a tile
constexpr int kSteps = Shape::kKeys / 16;
constexpr int kValues = Shape::kValueWidth / 2;

using Ring = CopyRing<Shape::kStages>;

/// Where things lie in shared memory.
struct Places {
  uint32_t queries_full = 0;
  uint32_t queries = 0;
  Ring keys;
  Ring values;

  __device__ explicit Places(uint32_t base) {
    queries_full = base;
    queries = base + Shape::kBarrierBytes;
    keys = {base + 64, base + 128, queries + Shape::kGroups * Shape::kGroupBytes, Shape::kKeyBytes};
    values = {
        base + 192, base + 256, keys.slots + Shape::kStages * keys.slot_bytes, Shape::kValueBytes};
  }
  __device__ void init_barriers() const {
    barrier_init(queries_full, 1);
    keys.init_barriers(Shape::kGroups * 4);
    values.init_barriers(Shape::kGroups * 4);
    barrier_init_fence();
  }
};

/// The work of a thread block.
struct Block {
  int first = 0;  ///< query
  int head = 0;
  int num_tiles = 0;

  /// Some heads at a time, as many as the L2 cache has room for the keys of. Of these the last
  /// queries of all heads go first: they see most keys.
  __device__ explicit Block(const PrefillPass& p) {
    const int num_blocks = (p.num_queries + Shape::kQueries - 1) / Shape::kQueries;
    const int number = static_cast<int>(blockIdx.x);
    const int first_head = number / (num_blocks * Shape::kHeads) * Shape::kHeads;
    const int num_heads = min(Shape::kHeads, p.num_heads - first_head);
    const int within = number - first_head * num_blocks;
    head = first_head + within % num_heads;
    first = (num_blocks - 1 - within / num_heads) * Shape::kQueries;
    const int num_keys = p.num_visible(min(first + Shape::kQueries, p.num_queries) - 1);
    num_tiles = (num_keys + Shape::kKeys - 1) / Shape::kKeys;
  }
  /// First key of the tile that comes as number `number`.
  __device__ __forceinline__ int key_of(int number) const {
    return (num_tiles - 1 - number) * Shape::kKeys;
  }
};

__device__ __forceinline__ void load_keys(const PrefillSm90Maps& maps,
                                          const Ring& ring,
                                          const Block& block,
                                          int number) {
  ring.wait_free(number);
  const uint32_t to = ring.fill(number, ring.slot_bytes);
  const int key = block.key_of(number);
  for (int panel = 0; panel < Shape::kNopeWidth / 64; ++panel) {
    copy_box<kEvictNormal>(to + panel * Shape::kPanelBytes,
                           &maps.kv,
                           panel * 64,
                           block.head,
                           key,
                           ring.full_of(number));
  }
  copy_box<kEvictNormal>(to + Shape::kNopeWidth / 64 * Shape::kPanelBytes,
                         &maps.k_rope,
                         0,
                         0,
                         key,
                         ring.full_of(number));
}

__device__ __forceinline__ void load_values(const PrefillSm90Maps& maps,
                                            const Ring& ring,
                                            const Block& block,
                                            int number) {
  ring.wait_free(number);
  const uint32_t to = ring.fill(number, ring.slot_bytes);
  for (int panel = 0; panel < Shape::kValuePanels; ++panel) {
    copy_box<kEvictNormal>(to + panel * Shape::kPanelBytes,
                           &maps.kv,
                           Shape::kNopeWidth + panel * 64,
                           block.head,
                           block.key_of(number),
                           ring.full_of(number));
  }
}

/// One thread. The keys of a tile are needed before the values of the tile before.
__device__ __forceinline__ void produce(const PrefillSm90Maps& maps,
                                        const Places& places,
                                        const Block& block) {
  barrier_expect(places.queries_full, Shape::kGroups * Shape::kGroupBytes);
  for (int group = 0; group < Shape::kGroups; ++group) {
    for (int panel = 0; panel < Shape::kKeyPanels; ++panel) {
      copy_box<kEvictFirst>(
          places.queries + group * Shape::kGroupBytes + panel * Shape::kQueryPanelBytes,
          &maps.q,
          panel * 64,
          block.head,
          block.first + group * Shape::kGroupQueries,
          places.queries_full);
    }
  }
  for (int number = 0; number <= block.num_tiles; ++number) {
    if (number < block.num_tiles) {
      load_keys(maps, places.keys, block, number);
    }
    if (number > 0) {
      load_values(maps, places.values, block, number - 1);
    }
  }
}

/// A warpgroup's 64 queries: thread t has rows 16 (t / 32) + t % 32 / 4 and 8 below, of each group
/// of 8 columns the two at 2 (t % 4).
struct Softmax {
  float values[kValues];
  float max_log2[2] = {-INFINITY, -INFINITY};
  float sum[2] = {0.0F, 0.0F};  ///< of this thread's columns; of all once finished

  __device__ __forceinline__ void load(const PrefillPass& p, int row, int head) {
#pragma unroll
    for (float& value : values) {
      value = 0.0F;
    }
    if (p.is_first_tile) {
      return;
    }
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int query = row + 8 * r;
      if (query >= p.num_queries) {
        continue;
      }
      max_log2[r] = p.max_logit.row(query)[head] * kLog2E;
      sum[r] = lane % 4 == 0 ? p.sum.row(query)[head] : 0.0F;
      const float* from = p.accumulator.row(query, head) + lane % 4 * 2;
#pragma unroll
      for (int i = 0; i < kValues; i += 4) {
        values[i + 2 * r] = from[2 * i];
        values[i + 2 * r + 1] = from[2 * i + 1];
      }
    }
  }

  /// Logits, without their factor `scale`, become weights, in place. What the values so far have to
  /// be multiplied by comes back in `factor`, if by anything: the same in all threads of a warp.
  __device__ __forceinline__ bool weigh(float (&scores)[kScores], float scale, float (&factor)[2]) {
    float top[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (int i = 0; i < kScores; i += 4) {
      top[0] = fmaxf(top[0], fmaxf(scores[i], scores[i + 1]));
      top[1] = fmaxf(top[1], fmaxf(scores[i + 2], scores[i + 3]));
    }
    bool grows = false;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      top[r] = fmaxf(top[r], __shfl_xor_sync(kAllLanes, top[r], 1));
      top[r] = fmaxf(top[r], __shfl_xor_sync(kAllLanes, top[r], 2));
      top[r] = fmaxf(max_log2[r], top[r] * scale);
      // Rescaling is put off while the numbers stay small: bfloat16 has the range.
      grows = grows || top[r] > max_log2[r] + 8.0F;
    }
    const bool is_needed = __any_sync(kAllLanes, grows);
    if (is_needed) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        // A query that sees no key yet has no maximum, nor anything to rescale.
        factor[r] = top[r] == -INFINITY ? 1.0F : exp2_approx(max_log2[r] - top[r]);
        sum[r] *= factor[r];
        max_log2[r] = top[r];
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float subtract = max_log2[r] == -INFINITY ? 0.0F : max_log2[r];
#pragma unroll
      for (int i = 2 * r; i < kScores; i += 4) {
        scores[i] = exp2_approx(fmaf(scores[i], scale, -subtract));
        scores[i + 1] = exp2_approx(fmaf(scores[i + 1], scale, -subtract));
        sum[r] += scores[i] + scores[i + 1];
      }
    }
    return is_needed;
  }

  __device__ __forceinline__ void rescale(const float (&factor)[2]) {
#pragma unroll
    for (int i = 0; i < kValues; ++i) {
      values[i] *= factor[i / 2 % 2];
    }
  }

  /// The sums over all columns.
  __device__ __forceinline__ void finish() {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      sum[r] += __shfl_xor_sync(kAllLanes, sum[r], 1);
      sum[r] += __shfl_xor_sync(kAllLanes, sum[r], 2);
    }
  }

  /// For the keys to come.
  __device__ __forceinline__ void store_state(const PrefillPass& p, int row, int head) const {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int query = row + 8 * r;
      if (query >= p.num_queries) {
        continue;
      }
      float* to = p.accumulator.row(query, head) + lane % 4 * 2;
#pragma unroll
      for (int i = 0; i < kValues; i += 4) {
        to[2 * i] = values[i + 2 * r];
        to[2 * i + 1] = values[i + 2 * r + 1];
      }
      if (lane % 4 == 0) {
        p.max_logit.row(query)[head] = max_log2[r] * kLn2;
        p.sum.row(query)[head] = sum[r];
      }
    }
  }

  /// Normalised, to panels in shared memory as the copy engine reads them.
  __device__ __forceinline__ void store_rows(uint8_t* tile) const {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float inverse = 1.0F / sum[r];
      const int row = threadIdx.x % 128 / 32 * 16 + lane / 4 + 8 * r;
#pragma unroll
      for (int i = 0; i < kValues; i += 4) {
        const int chunk = i / 4;  // of 8 columns
        *reinterpret_cast<__nv_bfloat162*>(tile + chunk / 8 * Shape::kQueryPanelBytes + row * 128 +
                                           (chunk % 8 ^ row % 8) * 16 + lane % 4 * 4) =
            __floats2bfloat162_rn(values[i + 2 * r] * inverse, values[i + 2 * r + 1] * inverse);
      }
    }
  }
};

__device__ __forceinline__ void start_scores(float (&scores)[kScores],
                                             uint32_t queries,
                                             uint32_t keys) {
  const uint64_t a = tile_descriptor(queries, 0);
  const uint64_t b = tile_descriptor(keys, 0);
#pragma unroll
  for (int k = 0; k < Shape::kKeyPanels * 4; ++k) {
    wgmma_rows(scores,
               a + k / 4 * (Shape::kQueryPanelBytes / 16) + k % 4 * 2,
               b + k / 4 * (Shape::kPanelBytes / 16) + k % 4 * 2,
               k > 0);
  }
  wgmma_commit();
}

__device__ __forceinline__ void start_values(float (&values)[kValues],
                                             const uint32_t (&weights)[kSteps][4],
                                             uint32_t tile) {
  const uint64_t b = tile_descriptor(tile, Shape::kPanelBytes);
#pragma unroll
  for (int k = 0; k < kSteps; ++k) {
    wgmma_pv(values, weights[k], b + k * (16 * 128 / 16));
  }
  wgmma_commit();
}

/// Weights as wgmma's left operand.
__device__ __forceinline__ void pack(const float (&weights)[kScores],
                                     uint32_t (&packed)[kSteps][4]) {
#pragma unroll
  for (int i = 0; i < kScores; i += 2) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(weights[i], weights[i + 1]);
    packed[i / 8][i / 2 % 4] = *reinterpret_cast<const uint32_t*>(&pair);
  }
}

/// Of keys from `key` on.
__device__ __forceinline__ void mask(const PrefillPass& p,
                                     float (&scores)[kScores],
                                     int row,
                                     int key) {
  const int own_key = key + threadIdx.x % 4 * 2;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int num_visible = p.num_visible(row + 8 * r) - own_key;
#pragma unroll
    for (int i = 2 * r; i < kScores; i += 4) {
      scores[i] = i / 4 * 8 < num_visible ? scores[i] : -INFINITY;
      scores[i + 1] = i / 4 * 8 + 1 < num_visible ? scores[i + 1] : -INFINITY;
    }
  }
}

__device__ __forceinline__ void attend(const PrefillPass& p,
                                       const Places& places,
                                       const Block& block,
                                       uint32_t queries,
                                       Softmax& softmax,
                                       int row) {
  const float scale = p.scale * kLog2E;
  const int group_row = row - threadIdx.x % 128 / 32 * 16 - threadIdx.x % 32 / 4;
  const int all_visible = p.num_visible(group_row);  // keys that each of the group's queries sees
  float scores[kScores];
  uint32_t packed[kSteps][4];
  float factor[2];
  uint32_t keys = places.keys.wait(0);
  pin(scores);
  wgmma_fence();
  start_scores(scores, queries, keys);
  wgmma_wait<0>();
  pin(scores);
  places.keys.release(0);
  mask(p, scores, row, block.key_of(0));
  if (softmax.weigh(scores, scale, factor)) {
    softmax.rescale(factor);
  }
  pack(scores, packed);
#pragma unroll 1
  for (int number = 1; number < block.num_tiles; ++number) {
    keys = places.keys.wait(number);
    const uint32_t values = places.values.wait(number - 1);
    pin(scores);
    pin(softmax.values);
    wgmma_fence();
    start_scores(scores, queries, keys);
    start_values(softmax.values, packed, values);
    wgmma_wait<1>();
    pin(scores);
    places.keys.release(number);
    if (block.key_of(number) + Shape::kKeys > all_visible) {
      mask(p, scores, row, block.key_of(number));
    }
    const bool is_rescaled = softmax.weigh(scores, scale, factor);
    wgmma_wait<0>();
    pin(softmax.values);
    places.values.release(number - 1);
    if (is_rescaled) {
      softmax.rescale(factor);
    }
    pack(scores, packed);
  }
  const uint32_t values = places.values.wait(block.num_tiles - 1);
  pin(softmax.values);
  wgmma_fence();
  start_values(softmax.values, packed, values);
  wgmma_wait<0>();
  pin(softmax.values);
}

__device__ __forceinline__ void meet_group(int group) {
  if (group == 0) {
    named_barrier<1, 128>();
  } else {
    named_barrier<2, 128>();
  }
}

/// A warpgroup.
__device__ __forceinline__ void consume(const PrefillPass& p,
                                        const PrefillSm90Maps& maps,
                                        const Places& places,
                                        const Block& block,
                                        uint8_t* shared) {
  const int group = static_cast<int>(threadIdx.x) / 128 - 1;
  const int thread = static_cast<int>(threadIdx.x) % 128;
  const int first = block.first + group * Shape::kGroupQueries;
  const int row = first + thread / 32 * 16 + thread % 32 / 4;
  const int tile = Shape::kBarrierBytes + group * Shape::kGroupBytes;
  const uint32_t queries = places.queries + group * Shape::kGroupBytes;
  Softmax softmax;
  softmax.load(p, row, block.head);
  barrier_wait(places.queries_full, 0);
  if (block.num_tiles > 0) {
    attend(p, places, block, queries, softmax, row);
  }
  softmax.finish();
  if (!p.is_last_tile) {
    softmax.store_state(p, row, block.head);
    return;
  }
  meet_group(group);  // the group's queries are no longer needed
  softmax.store_rows(shared + tile);
  fence_async_proxy();
  meet_group(group);
  if (thread == 0) {
    for (int panel = 0; panel < Shape::kValuePanels; ++panel) {
      store_box(
          &maps.out, queries + panel * Shape::kQueryPanelBytes, panel * 64, block.head, first);
    }
    store_commit();
    store_wait<0>();
  }
}

}  // namespace prefill_detail

}  // namespace tessera::kernels::cuda
