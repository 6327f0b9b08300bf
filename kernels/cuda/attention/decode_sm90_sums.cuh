// One warpgroup's work on one block of Hopper's decode attention: scores, softmax, sums of values.
#pragma once

#include "kernels/cuda/attention/decode_sm90_args.cuh"
#include "kernels/cuda/device_math.cuh"

namespace tessera::kernels::cuda {
namespace detail {

using namespace sm90;  // NOLINT: instructions

constexpr float kLowest = -1e30F;  ///< maximum of no scores
constexpr float kMasked = -3e38F;  ///< a score that, scaled, is below it: weight 0 in any row

/// Sums of one warpgroup over 64 rows: thread t has rows 16 (t / 32) + t % 32 / 4 and 8 below, of
/// each group of 8 columns the two at 2 (t % 4). Columns are those of kPanels panels.
template <int kPanels>
struct Accumulator {
  static constexpr int kCount = kPanels * 32;
  float values[kCount];
  float max[2];
  float sum[2];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      values[i] = 0.0F;
    }
    max[0] = max[1] = kLowest;
    sum[0] = sum[1] = 0.0F;
  }
};

/// Rows of a block.
struct RowRange {
  int begin = 0;
  int end = 0;
};

/// Zeroes rows of a block's first kPanels panels. By 128 threads.
template <int kPanels>
__device__ __forceinline__ void clear_rows(uint8_t* stage, RowRange rows, int thread) {
  const int num_chunks = (rows.end - rows.begin) * 8;
  for (int chunk = thread; chunk < num_chunks * kPanels; chunk += 128) {
    const int panel = chunk / num_chunks;
    const int within = chunk % num_chunks;
    *reinterpret_cast<uint4*>(stage + panel * kDecodePanelBytes + (rows.begin + within / 8) * 128 +
                              within % 8 * 16) = make_uint4(0, 0, 0, 0);
  }
}

/// Head of a thread's row 0 or 1.
__device__ __forceinline__ int head_of(int first_head, int r) {
  const int thread = threadIdx.x % 128;
  return first_head + thread / 32 * 16 + thread % 32 / 4 + r * 8;
}

/// The queries' value panels that are not in shared memory, as wgmma's left operands.
template <typename Shape>
struct HeldQueries {
  static constexpr int kSteps = Shape::kHeldPanels * 4;  // of 16 columns
  uint32_t values[kSteps > 0 ? kSteps : 1][4];

  __device__ __forceinline__ void load(const DecodeSm90Args& args, int sequence, int first_head) {
    const __nv_bfloat16* queries = args.q_latent + sequence * args.q_stride[0];
#pragma unroll
    for (int i = 0; i < kSteps * 4; ++i) {
      const int head = head_of(first_head, i % 2);
      const int column =
          Shape::kQueryPanels * 64 + i / 4 * 16 + i / 2 % 2 * 8 + threadIdx.x % 4 * 2;
      const bool is_there = head < args.num_heads && column < args.latent_width;
      values[i / 4][i % 4] =
          is_there ? *reinterpret_cast<const uint32_t*>(queries + head * args.q_stride[1] + column)
                   : 0U;
    }
  }
};

/// Of the queries at `tile` and those held, and the block whose panels are at `values` and `rope`.
template <typename Shape>
__device__ __forceinline__ void start_scores(float (&scores)[32],
                                             uint32_t tile,
                                             const HeldQueries<Shape>& held,
                                             uint32_t values,
                                             uint32_t rope) {
  const uint64_t a = tile_descriptor(tile, 0);
  const uint64_t b = tile_descriptor(values, 0);
#pragma unroll
  for (int k = 0; k < Shape::kQueryPanels * 4; ++k) {
    const uint64_t offset = (k / 4) * (kDecodePanelBytes / 16) + (k % 4) * 2;
    wgmma_rows(scores, a + offset, b + offset, k > 0);
  }
#pragma unroll
  for (int k = 0; k < HeldQueries<Shape>::kSteps; ++k) {
    const int panel = Shape::kQueryPanels + k / 4;
    wgmma_held_rows(scores, held.values[k], b + panel * (kDecodePanelBytes / 16) + (k % 4) * 2);
  }
  const uint64_t a_rope = a + Shape::kQueryPanels * (kDecodePanelBytes / 16);
  const uint64_t b_rope = tile_descriptor(rope, 0);
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    wgmma_rows(scores, a_rope + k * 2, b_rope + k * 2, 1);
  }
  wgmma_commit();
}

/// Leaves, of the scores of a thread's row r, those of `valid` rows of a block.
__device__ __forceinline__ void mask_scores(float (&scores)[32], int r, RowRange valid) {
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    const int row = (i / 4) * 8 + (threadIdx.x % 4) * 2 + (i & 1);
    if (i / 2 % 2 == r && (row < valid.begin || row >= valid.end)) {
      scores[i] = kMasked;
    }
  }
}

/// What the sums so far have to be multiplied by, each of a thread's two rows.
struct Rescale {
  bool is_needed = false;  // the same in all threads of a warp
  float factor[2];
};

/// Scores to probabilities (unnormalised), in place. Updates maxima and sums of probabilities, not
/// the values.
template <int kPanels>
__device__ __forceinline__ Rescale softmax(float (&scores)[32],
                                           Accumulator<kPanels>& sums,
                                           float scale_log2) {
  float top[2] = {kMasked, kMasked};
#pragma unroll
  for (int i = 0; i < 32; i += 4) {
    top[0] = fmaxf(top[0], fmaxf(scores[i], scores[i + 1]));
    top[1] = fmaxf(top[1], fmaxf(scores[i + 2], scores[i + 3]));
  }
  Rescale rescale;
  bool grows = false;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    top[r] = fmaxf(top[r], __shfl_xor_sync(0xFFFFFFFFU, top[r], 1));
    top[r] = fmaxf(top[r], __shfl_xor_sync(0xFFFFFFFFU, top[r], 2));
    top[r] = fmaxf(sums.max[r], top[r] * scale_log2);
    // Rescaling is put off while the numbers stay small: bfloat16 has the range.
    grows = grows || top[r] > sums.max[r] + 8.0F;
  }
  rescale.is_needed = __any_sync(0xFFFFFFFFU, grows);
  if (rescale.is_needed) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      rescale.factor[r] = exp2f(sums.max[r] - top[r]);
      sums.sum[r] *= rescale.factor[r];
      sums.max[r] = top[r];
    }
  }
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    scores[i] = exp2_approx(fmaf(scores[i], scale_log2, -sums.max[i / 2 % 2]));
    sums.sum[i / 2 % 2] += scores[i];
  }
  return rescale;
}

/// Probabilities as wgmma's left operand.
__device__ __forceinline__ void pack(const float (&probabilities)[32], uint32_t (&packed)[4][4]) {
#pragma unroll
  for (int i = 0; i < 32; i += 2) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(probabilities[i], probabilities[i + 1]);
    packed[i / 8][i / 2 % 4] = *reinterpret_cast<const uint32_t*>(&pair);
  }
}

template <int kPanels>
__device__ __forceinline__ void apply(const Rescale& rescale, Accumulator<kPanels>& sums) {
  if (rescale.is_needed) {
#pragma unroll
    for (int i = 0; i < Accumulator<kPanels>::kCount; ++i) {
      sums.values[i] *= rescale.factor[i / 2 % 2];
    }
  }
}

/// Adds the values of the panels from `panels` on, weighed.
template <int kPanels>
__device__ __forceinline__ void start_values(Accumulator<kPanels>& sums,
                                             const uint32_t (&packed)[4][4],
                                             uint32_t panels) {
  const uint64_t b = tile_descriptor(panels, kDecodePanelBytes);
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    wgmma_pv(sums.values, packed[k], b + k * (16 * 128 / 16));
  }
  wgmma_commit();
}

/// Adds up the sums of probabilities of the four threads that share rows.
template <int kPanels>
__device__ __forceinline__ void add_up_rows(Accumulator<kPanels>& sums) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    sums.sum[r] += __shfl_xor_sync(0xFFFFFFFFU, sums.sum[r], 1);
    sums.sum[r] += __shfl_xor_sync(0xFFFFFFFFU, sums.sum[r], 2);
  }
}

/// Narrow: the two warpgroups' sums are added up, by each those of half of the columns: of a
/// thread's numbers the first half by the first group, the second by the second. `shared`:
/// kMergeBytes; `state`: kStateBytes.
template <typename Shape>
__device__ __forceinline__ void merge_warpgroups(Accumulator<Shape::kValuePanels>& sums,
                                                 float* shared,
                                                 float* state) {
  constexpr int kPart = 16;
  constexpr int kHalf = Accumulator<Shape::kValuePanels>::kCount / 2;
  static_assert(2 * kPart * 128 * sizeof(float) <= Shape::kMergeBytes && kHalf % kPart == 0);
  const int thread = threadIdx.x % 128;
  const int group = threadIdx.x / 256;
  float* own_state = state + group * 512 + thread;
  const float* other_state = state + (1 - group) * 512 + thread;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    own_state[r * 128] = sums.max[r];
    own_state[(2 + r) * 128] = sums.sum[r];
  }
  float* sent = shared + group * kPart * 128 + thread;
  const float* received = shared + (1 - group) * kPart * 128 + thread;
  float own[2];
  float other[2];
#pragma unroll
  for (int part = 0; part < kHalf; part += kPart) {
#pragma unroll
    for (int i = 0; i < kPart; ++i) {
      sent[i * 128] = group == 0 ? sums.values[kHalf + part + i] : sums.values[part + i];
    }
    named_barrier<1, 256>();
    if (part == 0) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float max = other_state[r * 128];
        const float top = fmaxf(sums.max[r], max);
        own[r] = exp2f(sums.max[r] - top);
        other[r] = exp2f(max - top);
        sums.sum[r] = sums.sum[r] * own[r] + other_state[(2 + r) * 128] * other[r];
        sums.max[r] = top;
      }
    }
#pragma unroll
    for (int i = 0; i < kPart; ++i) {
      const float add = received[i * 128] * other[i / 2 % 2];
      if (group == 0) {
        sums.values[part + i] = sums.values[part + i] * own[i / 2 % 2] + add;
      } else {
        sums.values[kHalf + part + i] = sums.values[kHalf + part + i] * own[i / 2 % 2] + add;
      }
    }
    named_barrier<1, 256>();
  }
}

}  // namespace detail

}  // namespace tessera::kernels::cuda
