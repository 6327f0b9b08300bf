// What a sequence's sums begin with in a part of Hopper's decode attention, and what happens to
// them at its end: they are a result, or a partial one, or others' partial results are added first.
#pragma once

#include "kernels/cuda/attention/decode_pass.cuh"
#include "kernels/cuda/attention/decode_sm90_part.cuh"
#include "kernels/cuda/attention/decode_sm90_sums.cuh"

namespace tessera::kernels::cuda {
namespace detail {

/// Where a warpgroup's part of a result goes.
struct Destination {
  int sequence = 0;
  int part = 0;
  int first_head = 0;  ///< of the warpgroup

  __device__ __forceinline__ static Destination create(const Part& part,
                                                       int sequence,
                                                       int first_head) {
    // What depends on it is not to be kept in registers while the sums need them.
    asm volatile("" : "+r"(first_head));
    return {sequence, part.number, first_head};
  }
  [[nodiscard]] __device__ __forceinline__ int64_t partial() const {
    return DecodeSplit::partial(part, sequence);
  }
};

/// What a warpgroup has of rows of kRowWidth columns: of a thread's sums, which are those of the
/// columns from kFirstColumn on, kCount from kFrom on.
template <int kRowWidth_, int kFirstColumn_, int kFrom_, int kCount_>
struct Share {
  static constexpr int kRowWidth = kRowWidth_;
  static constexpr int kFirstColumn = kFirstColumn_;
  static constexpr int kFrom = kFrom_;
  static constexpr int kCount = kCount_;
  static constexpr bool kIsFirst = kFirstColumn == 0 && kFrom == 0;  ///< log-sum-exps are its own

  /// The first of the calling warp's 16 heads.
  __device__ __forceinline__ static int warp_head(const Destination& to) {
    return to.first_head + threadIdx.x % 128 / 32 * PartialTile::kHeads;
  }
  /// Where a thread's first four numbers of a partial result are; the others follow, kGroupFloats
  /// apart.
  __device__ __forceinline__ static float* partial(const DecodeSm90Args& args,
                                                   int warp_head,
                                                   int64_t partial) {
    return args.split_out + PartialTile::offset(partial, args.num_heads, warp_head, kRowWidth) +
           (kFirstColumn / PartialTile::kGroup + kFrom / 4) * PartialTile::kGroupFloats;
  }
  /// The column of a thread's number `i` in its first lane.
  __device__ __forceinline__ static constexpr int column(int i) {
    return kFirstColumn + (kFrom + i) / 4 * PartialTile::kGroup;
  }
};

/// The sums of a sequence begin with what its exact window yields, of the columns from kFirstColumn
/// on. Those of probabilities are the first of four threads', before they are added up.
template <int kFirstColumn, int kPanels>
__device__ __forceinline__ void start_from_window(const DecodeSm90Args& args,
                                                  Accumulator<kPanels>& sums,
                                                  int sequence,
                                                  int first_head) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int head = head_of(first_head, r);
    const int64_t row = int64_t{sequence} * args.num_heads + head;
    const float lse = head < args.num_heads ? args.window_lse[row] * kLog2E : -INFINITY;
    const bool has_tokens = lse > kLowest;
    sums.max[r] = has_tokens ? lse : kLowest;
    sums.sum[r] = has_tokens && threadIdx.x % 4 == 0 ? 1.0F : 0.0F;
    const float* values = args.window_out + row * args.latent_width;
#pragma unroll
    for (int i = 0; i < Accumulator<kPanels>::kCount; i += 4) {
      const int column = kFirstColumn + i * 2 + threadIdx.x % 4 * 2;
      const bool is_there = has_tokens && column < args.latent_width;
      const float2 pair = is_there ? *reinterpret_cast<const float2*>(values + column) : float2{};
      sums.values[i + 2 * r] = pair.x;
      sums.values[i + 2 * r + 1] = pair.y;
    }
  }
}

/// The sums of a part of a sequence.
template <int kFirstColumn, int kPanels>
__device__ __forceinline__ void start(const DecodeSm90Args& args,
                                      Accumulator<kPanels>& sums,
                                      const PartBlocks& blocks,
                                      int sequence,
                                      int first_head) {
  if (args.window_lse != nullptr && blocks.first == 0) {
    start_from_window<kFirstColumn>(args, sums, sequence, first_head);
  } else {
    sums.clear();
  }
}

/// Of the sums of probabilities; 0 where there were no tokens.
struct Inverses {
  float of_row[2];

  template <int kPanels>
  __device__ __forceinline__ static Inverses create(const Accumulator<kPanels>& sums) {
    Inverses inverses;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      inverses.of_row[r] = sums.sum[r] > 0.0F ? 1.0F / sums.sum[r] : 0.0F;
    }
    return inverses;
  }
};

/// Of base 2; -inf where there were no tokens.
template <int kPanels>
__device__ __forceinline__ float log_sum_exp(const Accumulator<kPanels>& sums, int r) {
  return sums.sum[r] > 0.0F ? sums.max[r] + log2f(sums.sum[r]) : -INFINITY;
}

template <typename Share, int kPanels>
__device__ __forceinline__ void write_partial(const DecodeSm90Args& args,
                                              const Accumulator<kPanels>& sums,
                                              const Destination& to) {
  if (Share::warp_head(to) >= args.num_heads) {
    return;
  }
  const Inverses inverses = Inverses::create(sums);
  float* out = Share::partial(args, Share::warp_head(to), to.partial());
#pragma unroll
  for (int i = 0; i < Share::kCount; i += 4) {
    const float* from = sums.values + Share::kFrom + i;
    *reinterpret_cast<float4*>(out + i / 4 * PartialTile::kGroupFloats) =
        make_float4(from[0] * inverses.of_row[0],
                    from[1] * inverses.of_row[0],
                    from[2] * inverses.of_row[1],
                    from[3] * inverses.of_row[1]);
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int head = head_of(to.first_head, r);
    if (Share::kIsFirst && head < args.num_heads && threadIdx.x % 4 == 0) {
      args.split_lse[to.partial() * args.num_heads + head] = log_sum_exp(sums, r);
    }
  }
}

/// Four threads side by side, with word i of each being column i of theirs: word i becomes that of
/// thread i, of the column with the calling thread's number.
__device__ __forceinline__ void transpose(uint32_t (&words)[4]) {
  constexpr unsigned kAll = 0xFFFFFFFFU;
  const auto exchange = [&](int distance, uint32_t& low, uint32_t& high) {
    const bool is_high = (threadIdx.x & distance) != 0;
    const uint32_t other = __shfl_xor_sync(kAll, is_high ? low : high, distance);
    (is_high ? low : high) = other;
  };
  exchange(1, words[0], words[1]);
  exchange(1, words[2], words[3]);
  exchange(2, words[0], words[2]);
  exchange(2, words[1], words[3]);
}

/// A thread's numbers of four groups of columns, as they lie in its sums.
struct Chunk {
  static constexpr int kCount = 16;
  float values[kCount];

  /// Rows of the result: 16 bytes a thread, four threads side by side.
  __device__ __forceinline__ void write(const DecodeSm90Args& args,
                                        const Destination& to,
                                        int first_column) const {
    const int column = first_column + threadIdx.x % 4 * 8;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      uint32_t words[4];
#pragma unroll
      for (int group = 0; group < 4; ++group) {
        const __nv_bfloat162 pair =
            __floats2bfloat162_rn(values[group * 4 + r * 2], values[group * 4 + r * 2 + 1]);
        words[group] = *reinterpret_cast<const uint32_t*>(&pair);
      }
      transpose(words);
      const int head = head_of(to.first_head, r);
      if (head < args.num_heads && column < args.latent_width) {
        __nv_bfloat16* row =
            args.out + to.sequence * args.out_stride[0] + head * args.out_stride[1];
        *reinterpret_cast<uint4*>(row + column) =
            make_uint4(words[0], words[1], words[2], words[3]);
      }
    }
  }
};

/// `value`: of base 2, of a thread's row r.
__device__ __forceinline__ void write_log_sum_exp(const DecodeSm90Args& args,
                                                  const Destination& to,
                                                  int r,
                                                  float value) {
  const int head = head_of(to.first_head, r);
  if (head < args.num_heads && threadIdx.x % 4 == 0) {
    args.log_sum_exp[to.sequence * args.lse_stride + head] = value * kLn2;
  }
}

/// The result of a sequence that is not cut.
template <typename Share, int kPanels>
__device__ __forceinline__ void write_out(const DecodeSm90Args& args,
                                          const Accumulator<kPanels>& sums,
                                          const Destination& to) {
  const Inverses inverses = Inverses::create(sums);
#pragma unroll
  for (int begin = 0; begin < Share::kCount; begin += Chunk::kCount) {
    Chunk chunk;
#pragma unroll
    for (int i = 0; i < Chunk::kCount; ++i) {
      chunk.values[i] = sums.values[Share::kFrom + begin + i] * inverses.of_row[i / 2 % 2];
    }
    chunk.write(args, to, Share::column(begin));
  }
  if constexpr (Share::kIsFirst) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      write_log_sum_exp(args, to, r, log_sum_exp(sums, r));
    }
  }
}

/// Adds what another part has of the sequence. The loads of the values do not wait for the weights.
template <typename Share, int kPanels>
__device__ __forceinline__ void add_partial(const DecodeSm90Args& args,
                                            Accumulator<kPanels>& sums,
                                            const Destination& to,
                                            int64_t partial) {
  constexpr int kBatch = Share::kCount % 32 == 0 ? 8 : 4;
  // A warp without heads adds those of the last one that has some, and writes nothing: the shuffles
  // behind are not to be in a branch of some warps, which costs the uniform registers.
  const int warp_head = min(Share::warp_head(to), args.num_heads - 1);
  const float* in = Share::partial(args, warp_head, partial);
  float own[2];
  float other[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int head = min(head_of(to.first_head, r), args.num_heads - 1);
    const float lse = __ldcg(args.split_lse + partial * args.num_heads + head);
    const float top = fmaxf(sums.max[r], lse);
    own[r] = exp2f(sums.max[r] - top);
    other[r] = exp2f(lse - top);
    sums.sum[r] = sums.sum[r] * own[r] + other[r];
    sums.max[r] = top;
  }
#pragma unroll
  for (int begin = 0; begin < Share::kCount; begin += kBatch * 4) {
    float4 batch[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      batch[i] =
          __ldcg(reinterpret_cast<const float4*>(in + (begin / 4 + i) * PartialTile::kGroupFloats));
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      float* values = sums.values + Share::kFrom + begin + i * 4;
      values[0] = values[0] * own[0] + batch[i].x * other[0];
      values[1] = values[1] * own[0] + batch[i].y * other[0];
      values[2] = values[2] * own[1] + batch[i].z * other[1];
      values[3] = values[3] * own[1] + batch[i].w * other[1];
    }
  }
}

/// By all warps of a warpgroup, at the end of a part's blocks of a sequence: its share of the
/// result. `sums` are those of whole rows.
///
/// Of a sequence that is cut into few splits, the thread block with its first blocks, which are its
/// last ones, adds up the others' partial results in order. It waits for thread blocks of lower
/// numbers only, which were launched before it. Of more splits all are partial, and merged by
/// decode_sm90_combine.cuh.
template <typename Shape, typename Share, int kPanels>
__device__ __forceinline__ void finish(const DecodeSm90Args& args,
                                       Accumulator<kPanels>& sums,
                                       const Part& part,
                                       const PartBlocks& blocks,
                                       int sequence,
                                       int first_head) {
  const Destination to = Destination::create(part, sequence, first_head);
  if (blocks.is_cut()) {
    const Splits splits = blocks.first > 0 ? part.first_splits : part.last_splits;
    const bool is_few = splits.count <= DecodeSplit::kFewSplits;
    uint32_t* num_written =
        args.tickets[splits.first_part * args.num_head_tiles + blockIdx.x % args.num_head_tiles]
            .num_written;
    const int tile = (Share::warp_head(to) - part.first_head) / PartialTile::kHeads;
    if (!is_few || part.number != splits.first_part) {
      write_partial<Share>(args, sums, to);
      if (is_few) {
        __syncwarp();
        if (threadIdx.x % 32 == 0) {
          count_up(num_written + tile);
        }
      }
      return;
    }
    const int last_tile = (args.num_heads - 1 - part.first_head) / PartialTile::kHeads;
    wait_for_count(num_written + min(tile, last_tile), (splits.count - 1) * Shape::kTileWarps);
#pragma unroll 1
    for (int i = 1; i < splits.count; ++i) {
      add_partial<Share>(args, sums, to, DecodeSplit::partial(splits.first_part + i, sequence));
    }
  }
  write_out<Share>(args, sums, to);
}

}  // namespace detail

}  // namespace tessera::kernels::cuda
