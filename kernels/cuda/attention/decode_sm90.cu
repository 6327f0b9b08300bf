#include <algorithm>

#include "kernels/cuda/attention/decode_pass.cuh"
#include "kernels/cuda/attention/decode_sm90.cuh"
#include "kernels/cuda/attention/decode_sm90.h"
#include "kernels/cuda/attention/decode_sm90_columns.cuh"
#include "kernels/cuda/attention/decode_sm90_combine.cuh"
#include "kernels/cuda/attention/decode_sm90_launch.cuh"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/tensor_map.h"

namespace tessera::kernels::cuda {
namespace {

constexpr int64_t kMaxHeads = 128;
constexpr int64_t kMaxTokens = 4;
constexpr int64_t kMaxWidth = 512;
/// Wider latents are divided between warpgroups, and heads between thread blocks.
constexpr int64_t kMaxWholeWidth = 256;
constexpr int64_t kBox = 64;
constexpr int64_t kElement = 2;
/// Bytes of a float8 row that the copy engine brings of its scale.
constexpr int64_t kScaleBytes = 16;
/// Sequences times tiles of 16 heads up to which the splits of a column are merged by eight warps,
/// or two: beyond there are thread blocks enough when one does.
constexpr int64_t kFewTiles = 16;
constexpr int64_t kSomeTiles = 64;

/// Of numbers in bfloat16, from byte `begin` of the rows on.
CUtensorMap map_of_rows(const LatentCacheView& cache, int64_t begin, int64_t width) {
  return make_tensor_map(
      {.base = static_cast<const char*>(cache.base) + begin,
       .size = {width, kBlockTokens, cache.num_blocks},
       .stride = {cache.layout().row_bytes / kElement, cache.block_stride_bytes / kElement},
       .box = {kBox, 1}});
}

CUtensorMap map_of_bytes(const LatentCacheView& cache, int64_t begin, int64_t width, int64_t box) {
  return make_byte_map({.base = static_cast<const char*>(cache.base) + begin,
                        .size = {width, kBlockTokens, cache.num_blocks},
                        .stride = {cache.layout().row_bytes, cache.block_stride_bytes},
                        .box = {box, kBlockTokens, 1}});
}

int64_t num_queries(const MlaDecodeParams& params) {
  return params.q_latent.dim(0) * params.q_latent.dim(1);
}

/// Whether the heads of consecutive rows lie as if they were one row's.
bool has_adjacent_rows(const ConstTensorView& rows) {
  return rows.stride[0] == rows.dim(1) * rows.stride[1];
}

/// Query tokens of a sequence that are worked on together.
int64_t num_tokens(const MlaDecodeParams& params) {
  const bool is_adjacent = has_adjacent_rows(params.q_latent) && has_adjacent_rows(params.q_rope) &&
                           has_adjacent_rows(params.out) &&
                           params.log_sum_exp.stride[0] == params.q_latent.dim(1);
  return is_adjacent && params.row_tokens <= kMaxTokens ? params.row_tokens : 1;
}

int64_t num_sequences(const MlaDecodeParams& params) {
  return params.q_latent.dim(0) / num_tokens(params);
}

/// Of all tokens of a sequence.
int64_t num_heads(const MlaDecodeParams& params) {
  return params.q_latent.dim(1) * num_tokens(params);
}

CUtensorMap map_of_queries(const ConstTensorView& q, int64_t num_tokens) {
  return make_tensor_map({.base = q.data,
                          .size = {q.dim(2), q.dim(1) * num_tokens, q.dim(0) / num_tokens},
                          .stride = {q.stride[1], q.stride[0] * num_tokens},
                          .box = {kBox, 1}});
}

int64_t num_head_tiles(const MlaDecodeParams& params) {
  const int64_t tile_heads = params.cache.latent_width <= kMaxWholeWidth
                                 ? DecodeSm90Shape<1, true>::kTileHeads
                                 : DecodeSm90ColumnsShape<8, 4>::kTileHeads;
  return ceil_div(num_heads(params), tile_heads);
}

/// Parts that the step's cache blocks are cut into.
int num_parts(const MlaDecodeParams& params, int num_multiprocessors) {
  return std::min(num_multiprocessors, kMaxDecodeTickets) /
         static_cast<int>(num_head_tiles(params));
}

/// Of sequences that are cut.
int64_t num_partials(const MlaDecodeParams& params, int num_multiprocessors) {
  return num_parts(params, num_multiprocessors) + num_sequences(params);
}

/// The narrowest that there is a kernel for.
int64_t padded_width(const MlaDecodeParams& params) {
  for (const int64_t width : {64, 128, 256, 320}) {
    if (params.cache.latent_width <= width) {
      return width;
    }
  }
  return kMaxWidth;
}

int64_t num_partial_values(const MlaDecodeParams& params, int num_multiprocessors) {
  return num_partials(params, num_multiprocessors) *
         PartialTile::floats(num_heads(params), padded_width(params));
}

DecodeSm90Maps make_maps(const MlaDecodeParams& params) {
  const LatentCacheView& cache = params.cache;
  const LatentRowLayout layout = cache.layout();
  DecodeSm90Maps maps = {
      .ropes = map_of_rows(cache, layout.rope, cache.rope_width),
      .q_latent = map_of_queries(params.q_latent, num_tokens(params)),
      .q_rope = map_of_queries(params.q_rope, num_tokens(params)),
  };
  if (cache.is_float8()) {
    const int64_t scale = layout.scale / kScaleBytes * kScaleBytes;
    maps.latents = map_of_bytes(cache, 0, cache.latent_width, padded_width(params));
    maps.scales = map_of_bytes(cache, scale, kScaleBytes, kScaleBytes);
  } else {
    maps.latents = map_of_rows(cache, 0, cache.latent_width);
  }
  return maps;
}

DecodeSm90Args make_args(const MlaDecodeParams& params,
                         int num_multiprocessors,
                         const Sm90DecodeMemory& memory) {
  DecodeSm90Args args;
  const int64_t tokens = num_tokens(params);
  args.block_tables = params.block_tables.as<int32_t>();
  args.table_stride = params.block_tables.stride[0] * tokens;
  args.lengths = params.lengths.as<int32_t>() + tokens - 1;
  args.length_stride = static_cast<int>(tokens);
  args.num_sequences = static_cast<int>(num_sequences(params));
  args.num_tokens = static_cast<int>(tokens);
  args.token_heads = static_cast<int>(params.q_latent.dim(1));
  args.scale_log2 = params.scale * kLog2E;
  args.num_heads = static_cast<int>(num_heads(params));
  args.num_head_tiles = static_cast<int>(num_head_tiles(params));
  args.latent_width = static_cast<int>(params.cache.latent_width);
  if (params.cache.is_float8()) {
    args.scale_offset = static_cast<int>(params.cache.layout().scale % kScaleBytes);
  }
  args.q_latent = params.q_latent.as<__nv_bfloat16>();
  args.q_stride[0] = params.q_latent.stride[0] * tokens;
  args.q_stride[1] = params.q_latent.stride[1];
  args.out = static_cast<__nv_bfloat16*>(params.out.data);
  args.out_stride[0] = params.out.stride[0] * tokens;
  args.out_stride[1] = params.out.stride[1];
  args.log_sum_exp = params.log_sum_exp.as<float>();
  args.lse_stride = params.log_sum_exp.stride[0] * tokens;
  args.split_out = static_cast<float*>(memory.scratch);
  args.tickets = static_cast<DecodeTicket*>(memory.tickets);
  float* end = args.split_out + num_partial_values(params, num_multiprocessors);
  if (params.window) {
    const Sm90WindowPartials window =
        sm90_window_partials(params, num_multiprocessors, memory.scratch);
    args.window = params.window->ring.window;
    args.window_out = window.values;
    args.window_lse = window.sums;
    end = window.sums + num_queries(params);
  }
  args.split_lse = end;
  return args;
}

/// Sequences that may have many splits.
int64_t max_merged(const DecodeSm90Args& args, int num_parts) {
  // One at least: the tickets are to be cleared.
  return std::clamp(DecodeSplit::max_many_splits(num_parts), 1, args.num_sequences);
}

template <int kWidth, int kGroups, int kSplitWarps>
void merge_by(const DecodeSm90Args& args, int num_parts, cudaStream_t stream) {
  constexpr int kBlockGroups = kGroups * 8 / kSplitWarps;
  constexpr int kColumnBlocks = kWidth / PartialTile::kGroup / kBlockGroups;
  static_assert(kColumnBlocks * kBlockGroups * PartialTile::kGroup == kWidth);
  launch_early("mla_decode (merge)",
               combine_splits_kernel<kWidth, kGroups, kSplitWarps>,
               {{to_grid(max_merged(args, num_parts)),
                 to_grid(PartialTile::num_tiles(args.num_heads)),
                 kColumnBlocks},
                256},
               stream,
               args,
               num_parts);
}

template <int kWidth>
void merge(const DecodeSm90Args& args, int num_parts, cudaStream_t stream) {
  const int64_t num_tiles = max_merged(args, num_parts) * PartialTile::num_tiles(args.num_heads);
  if (num_tiles <= kFewTiles) {
    merge_by<kWidth, 2, 8>(args, num_parts, stream);
  } else if (num_tiles <= kSomeTiles) {
    merge_by<kWidth, 2, 2>(args, num_parts, stream);
  } else {
    merge_by<kWidth, kWidth / 64, 1>(args, num_parts, stream);
  }
}

template <int kPanels>
void attend_panels(const DecodeSm90Maps& maps,
                   const DecodeSm90Args& args,
                   int num_parts,
                   cudaStream_t stream) {
  if (args.scale_offset >= 0) {
    attend_float8<kPanels>(maps, args, num_parts, stream);
  } else if (args.num_heads <= 64) {
    using Shape = DecodeSm90Shape<kPanels, false>;
    attend<Shape>(decode_sm90_kernel<Shape>, maps, args, num_parts, stream);
  } else {
    using Shape = DecodeSm90Shape<kPanels, true>;
    attend<Shape>(decode_sm90_kernel<Shape>, maps, args, num_parts, stream);
  }
}

template <int kPanels, int kLeadPanels>
void attend_columns(const DecodeSm90Maps& maps,
                    const DecodeSm90Args& args,
                    int num_parts,
                    cudaStream_t stream) {
  using Shape = DecodeSm90ColumnsShape<kPanels, kLeadPanels>;
  attend<Shape>(decode_sm90_columns_kernel<Shape>, maps, args, num_parts, stream);
}

}  // namespace

bool can_use_sm90_decode(const MlaDecodeParams& params) {
  const LatentCacheView& cache = params.cache;
  const int64_t max_width = cache.is_float8() ? kMaxWholeWidth : kMaxWidth;
  return params.q_latent.dtype == DType::kBFloat16 &&
         (cache.dtype == DType::kBFloat16 || cache.is_float8()) && cache.latent_width > 0 &&
         cache.latent_width <= max_width && cache.rope_width > 0 && cache.rope_width <= kBox &&
         params.q_latent.dim(1) <= kMaxHeads && is_copy_aligned(cache.base) &&
         is_copy_aligned(cache.latent_width) && is_copy_aligned(cache.rope_width) &&
         is_copy_aligned(cache.block_stride_bytes / kElement) &&
         is_copy_aligned(params.q_latent.data) && is_copy_aligned(params.q_latent.stride[0]) &&
         is_copy_aligned(params.q_latent.stride[1]) && is_copy_aligned(params.q_rope.data) &&
         is_copy_aligned(params.q_rope.stride[0]) && is_copy_aligned(params.q_rope.stride[1]) &&
         is_copy_aligned(params.out.data) && is_copy_aligned(params.out.stride[0]) &&
         is_copy_aligned(params.out.stride[1]);
}

int64_t sm90_decode_scratch_bytes(const MlaDecodeParams& params, int num_multiprocessors) {
  const int64_t window_floats =
      params.window ? num_queries(params) * (params.cache.latent_width + 1) : 0;
  const int64_t split_floats = num_partial_values(params, num_multiprocessors) +
                               num_partials(params, num_multiprocessors) * num_heads(params);
  return (window_floats + split_floats) * static_cast<int64_t>(sizeof(float));
}

int64_t sm90_decode_ticket_bytes() {
  return kMaxDecodeTickets * static_cast<int64_t>(sizeof(DecodeTicket));
}

Sm90WindowPartials sm90_window_partials(const MlaDecodeParams& params,
                                        int num_multiprocessors,
                                        void* scratch) {
  float* values = static_cast<float*>(scratch) + num_partial_values(params, num_multiprocessors);
  return {values, values + num_queries(params) * params.cache.latent_width};
}

void launch_sm90_decode(const MlaDecodeParams& params,
                        int num_multiprocessors,
                        const Sm90DecodeMemory& memory,
                        cudaStream_t stream) {
  const DecodeSm90Maps maps = make_maps(params);
  const DecodeSm90Args args = make_args(params, num_multiprocessors, memory);
  const int parts = num_parts(params, num_multiprocessors);
  switch (padded_width(params)) {
    case 64:
      attend_panels<1>(maps, args, parts, stream);
      return merge<64>(args, parts, stream);
    case 128:
      attend_panels<2>(maps, args, parts, stream);
      return merge<128>(args, parts, stream);
    case 256:
      attend_panels<4>(maps, args, parts, stream);
      return merge<256>(args, parts, stream);
    case 320:
      attend_columns<5, 2>(maps, args, parts, stream);
      return merge<320>(args, parts, stream);
    default:
      attend_columns<8, 4>(maps, args, parts, stream);
      return merge<512>(args, parts, stream);
  }
}

}  // namespace tessera::kernels::cuda
