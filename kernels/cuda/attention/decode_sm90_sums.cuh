// One warpgroup's work on one block of Hopper's decode attention: scores, softmax, sums of values,
// and where the sums go at a sequence's end.
#pragma once

#include "kernels/cuda/attention/decode_sm90_args.cuh"

namespace tessera::kernels::cuda {
namespace detail {

using namespace sm90;  // NOLINT: instructions

constexpr float kLowest = -1e30F;

/// Sums of one warpgroup over 64 rows: thread t has rows 16 (t / 32) + t % 32 / 4 and 8 below, of
/// each group of 8 columns the two at 2 (t % 4).
template <typename Shape>
struct Accumulator {
  static constexpr int kCount = Shape::kValuePanels * 32;
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

/// Zeroes value rows of a block. By 128 threads.
template <typename Shape>
__device__ __forceinline__ void clear_rows(uint8_t* stage, RowRange rows, int thread) {
  const int num_chunks = (rows.end - rows.begin) * 8;
  for (int chunk = thread; chunk < num_chunks * Shape::kValuePanels; chunk += 128) {
    const int panel = chunk / num_chunks;
    const int within = chunk % num_chunks;
    *reinterpret_cast<uint4*>(stage + panel * Shape::kPanelBytes + (rows.begin + within / 8) * 128 +
                              within % 8 * 16) = make_uint4(0, 0, 0, 0);
  }
}

template <typename Shape>
__device__ __forceinline__ void start_scores(float (&scores)[32], uint32_t tile, uint32_t stage) {
  const uint64_t a = tile_descriptor(tile, 0);
  const uint64_t b = tile_descriptor(stage, 0);
#pragma unroll
  for (int k = 0; k < Shape::kPanels * 4; ++k) {
    const uint64_t offset = (k / 4) * (Shape::kPanelBytes / 16) + (k % 4) * 2;
    wgmma_rows(scores, a + offset, b + offset, k > 0);
  }
  wgmma_commit();
}

/// Leaves the scores of `valid` rows.
__device__ __forceinline__ void mask_scores(float (&scores)[32], RowRange valid, int lane) {
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    const int row = (i / 4) * 8 + (lane % 4) * 2 + (i & 1);
    if (row < valid.begin || row >= valid.end) {
      scores[i] = kLowest;
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
template <typename Shape>
__device__ __forceinline__ Rescale softmax(float (&scores)[32],
                                           Accumulator<Shape>& sums,
                                           float scale_log2) {
  float top[2] = {kLowest, kLowest};
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
    scores[i] = exp2f(fmaf(scores[i], scale_log2, -sums.max[i / 2 % 2]));
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

template <typename Shape>
__device__ __forceinline__ void apply(const Rescale& rescale, Accumulator<Shape>& sums) {
  if (rescale.is_needed) {
#pragma unroll
    for (int i = 0; i < Accumulator<Shape>::kCount; ++i) {
      sums.values[i] *= rescale.factor[i / 2 % 2];
    }
  }
}

template <typename Shape>
__device__ __forceinline__ void start_values(Accumulator<Shape>& sums,
                                             const uint32_t (&packed)[4][4],
                                             uint32_t stage) {
  const uint64_t b = tile_descriptor(stage, Shape::kPanelBytes);
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    wgmma_pv(sums.values, packed[k], b + k * (16 * 128 / 16));
  }
  wgmma_commit();
}

/// Where a sequence's result goes.
struct Destination {
  int sequence = 0;
  int64_t partial = -1;  ///< -1: the sequence is not cut
};

template <typename Shape>
__device__ __forceinline__ void write_result(const DecodeSm90Args& args,
                                             Accumulator<Shape>& sums,
                                             Destination to,
                                             int first_head) {
  const int thread = threadIdx.x % 128;
  const int lane = thread % 32;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int head = first_head + thread / 32 * 16 + lane / 4 + r * 8;
    if (head >= args.num_heads) {
      continue;
    }
    const float inverse = sums.sum[r] > 0.0F ? 1.0F / sums.sum[r] : 0.0F;
    const float lse = sums.sum[r] > 0.0F ? sums.max[r] + log2f(sums.sum[r]) : -INFINITY;
    if (to.partial >= 0) {
      const int64_t row = to.partial * args.num_heads + head;
      float* out = args.split_out + row * Shape::kValueWidth;
#pragma unroll
      for (int i = 0; i < Accumulator<Shape>::kCount; i += 4) {
        const int column = i / 4 * 8 + lane % 4 * 2;
        *reinterpret_cast<float2*>(out + column) =
            make_float2(sums.values[i + 2 * r] * inverse, sums.values[i + 2 * r + 1] * inverse);
      }
      if (lane % 4 == 0) {
        args.split_lse[row] = lse;
      }
      continue;
    }
    __nv_bfloat16* out = args.out + to.sequence * args.out_stride[0] + head * args.out_stride[1];
#pragma unroll
    for (int i = 0; i < Accumulator<Shape>::kCount; i += 4) {
      const int column = i / 4 * 8 + lane % 4 * 2;
      if (column < args.latent_width) {
        *reinterpret_cast<__nv_bfloat162*>(out + column) = __floats2bfloat162_rn(
            sums.values[i + 2 * r] * inverse, sums.values[i + 2 * r + 1] * inverse);
      }
    }
    if (lane % 4 == 0) {
      args.log_sum_exp[to.sequence * args.lse_stride + head] = lse * 0.69314718055994531F;
    }
  }
}

/// Narrow: the second warpgroup's sums come to the first, 64 columns at a time.
template <typename Shape>
__device__ __forceinline__ void merge_warpgroups(Accumulator<Shape>& sums,
                                                 float* shared,
                                                 float* state) {
  constexpr int kPart = 32;
  constexpr int kParts = Accumulator<Shape>::kCount / kPart;
  static_assert(kPart * 128 * sizeof(float) <= Shape::kMergeBytes);
  const int thread = threadIdx.x % 128;
  const bool is_second = threadIdx.x >= 256;
  if (is_second) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      state[r * 128 + thread] = sums.max[r];
      state[(2 + r) * 128 + thread] = sums.sum[r];
    }
  }
  float own[2];
  float other[2];
#pragma unroll
  for (int part = 0; part < kParts; ++part) {
    if (is_second) {
#pragma unroll
      for (int i = 0; i < kPart; ++i) {
        shared[i * 128 + thread] = sums.values[part * kPart + i];
      }
    }
    named_barrier<1, 256>();
    if (!is_second) {
      if (part == 0) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          const float max = state[r * 128 + thread];
          const float top = fmaxf(sums.max[r], max);
          own[r] = exp2f(sums.max[r] - top);
          other[r] = exp2f(max - top);
          sums.sum[r] = sums.sum[r] * own[r] + state[(2 + r) * 128 + thread] * other[r];
          sums.max[r] = top;
        }
      }
#pragma unroll
      for (int i = 0; i < kPart; ++i) {
        const int at = part * kPart + i;
        sums.values[at] =
            sums.values[at] * own[at / 2 % 2] + shared[i * 128 + thread] * other[at / 2 % 2];
      }
    }
    named_barrier<1, 256>();
  }
}

}  // namespace detail

}  // namespace tessera::kernels::cuda
