// Absorbed MLA attention against the paged latents: chooses a kernel, splits contexts when there
// are few sequences, and merges the parts (the exact window is one of them) by log-sum-exp.

#include <algorithm>

#include "kernels/core/check.h"
#include "kernels/cuda/attention/decode_pass.cuh"
#include "kernels/cuda/attention/decode_sm90.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/launch.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int64_t kMaxSplits = 128;
constexpr int64_t kMaxParts = kMaxSplits + 1;  ///< and the window
/// A split of fewer blocks of the cache is not worth its merge.
constexpr int64_t kMinSplitBlocks = 2;

struct Merge {
  const float* values = nullptr;
  const float* sums = nullptr;
  int32_t num_parts = 0;
  int32_t num_heads = 0;
  int32_t width = 0;
  void* out = nullptr;
  int64_t out_stride = 0, out_head_stride = 0;
  float* log_sum_exp = nullptr;
  int64_t log_sum_exp_stride = 0;
};

template <typename T>
__global__ void __launch_bounds__(kThreads) merge_parts(const Merge p) {
  __shared__ float shares[kMaxParts];
  const int head = static_cast<int>(blockIdx.x);
  const int64_t row = blockIdx.y;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const auto at = [&](int part) { return (row * p.num_parts + part) * p.num_heads + head; };
  if (threadIdx.x < kWarp) {
    float largest = -INFINITY;
    for (int part = lane; part < p.num_parts; part += kWarp) {
      largest = fmaxf(largest, p.sums[at(part)]);
    }
    largest = warp_max(largest);
    float total = 0.0F;
    for (int part = lane; part < p.num_parts; part += kWarp) {
      const float share = largest == -INFINITY ? 0.0F : expf(p.sums[at(part)] - largest);
      shares[part] = share;
      total += share;
    }
    total = warp_sum(total);
    __syncwarp();
    for (int part = lane; part < p.num_parts; part += kWarp) {
      shares[part] = total > 0.0F ? shares[part] / total : 0.0F;
    }
    if (lane == 0 && blockIdx.z == 0) {
      p.log_sum_exp[row * p.log_sum_exp_stride + head] =
          total > 0.0F ? largest + logf(total) : -INFINITY;
    }
  }
  __syncthreads();
  T* out = static_cast<T*>(p.out) + row * p.out_stride + head * p.out_head_stride;
  if (const int c = static_cast<int>(blockIdx.z * kThreads + threadIdx.x); c < p.width) {
    float value = 0.0F;
#pragma unroll 16
    for (int part = 0; part < p.num_parts; ++part) {
      value += shares[part] * p.values[at(part) * p.width + c];
    }
    out[c] = from_float<T>(value);
  }
}

struct MergeScale {
  const float* log_sum_exp = nullptr;
  int64_t num_states = 0;
  int32_t num_parts = 0;
  int32_t part = 0;
  int32_t width = 0;
  DeviceHeads<float> values;
};

__global__ void __launch_bounds__(kThreads) scale_part(const MergeScale p) {
  const int64_t row = blockIdx.y;
  const int head = static_cast<int>(blockIdx.x);
  const float* lse = p.log_sum_exp + row * gridDim.x + head;  // of part g: lse[g * num_states]
  float largest = -INFINITY;
  for (int g = 0; g < p.num_parts; ++g) {
    largest = fmaxf(largest, lse[g * p.num_states]);
  }
  float sum = 0.0F;
  float own = 0.0F;
  for (int g = 0; g < p.num_parts && largest != -INFINITY; ++g) {
    const float share = expf(lse[g * p.num_states] - largest);
    sum += share;
    own = g == p.part ? share : own;
  }
  const float factor = sum > 0.0F ? own / sum : 0.0F;
  float* values = p.values.row(row, head);
  for (int c = static_cast<int>(threadIdx.x); c < p.width; c += kThreads) {
    values[c] *= factor;
  }
}

/// The fewest splits that keep nearly all multiprocessors busy: a row's lengths are known on the
/// device only, so that all rows are split alike.
int64_t choose_splits(int64_t num_items, int64_t max_blocks, int64_t num_multiprocessors) {
  const int64_t most = std::clamp<int64_t>(max_blocks / kMinSplitBlocks, 1, kMaxSplits);
  int64_t best = 1;
  double best_share = 0.0;
  for (int64_t splits = 1; splits <= most; ++splits) {
    const int64_t waves = ceil_div(num_items * splits, num_multiprocessors);
    const double share =
        static_cast<double>(num_items * splits) / static_cast<double>(waves * num_multiprocessors);
    if (share > best_share + 0.05) {
      best = splits;
      best_share = share;
    }
  }
  return best;
}

DecodePass paged_pass(const MlaDecodeParams& params) {
  const auto width = static_cast<int32_t>(params.cache.latent_width);
  return {.q_latent = params.q_latent.data,
          .q_rope = params.q_rope.data,
          .q_latent_stride = params.q_latent.stride[0],
          .q_latent_head_stride = params.q_latent.stride[1],
          .q_rope_stride = params.q_rope.stride[0],
          .q_rope_head_stride = params.q_rope.stride[1],
          .cache = device_cache(params.cache),
          .block_tables = params.block_tables.as<int32_t>(),
          .block_table_stride = params.block_tables.stride[0],
          .lengths = params.lengths.as<int32_t>(),
          .value_columns = device_columns(LatentColumns::all(width)),
          .value_width = width,
          .num_heads = static_cast<int32_t>(params.q_latent.dim(1)),
          .scale = params.scale,
          .out = params.out.data,
          .out_stride = params.out.stride[0],
          .out_head_stride = params.out.stride[1],
          .log_sum_exp = params.log_sum_exp.as<float>(),
          .log_sum_exp_stride = params.log_sum_exp.stride[0]};
}

/// The same over the exact window; both write partial results.
DecodePass window_pass(const DecodePass& paged, const DecodeWindow& window) {
  DecodePass pass = paged;
  pass.q_latent = window.q_latent.data;
  pass.q_latent_stride = window.q_latent.stride[0];
  pass.q_latent_head_stride = window.q_latent.stride[1];
  pass.cache = device_cache(window.cache);
  pass.first_slots = window.first_slots.as<int64_t>();
  pass.value_columns = device_columns(window.columns);
  pass.num_splits = 1;
  pass.first_split = paged.num_splits;
  return pass;
}

/// The same for rows [begin, begin + count) alone.
MlaDecodeParams row_range(const MlaDecodeParams& params, int64_t begin, int64_t count) {
  MlaDecodeParams part = params;
  part.q_latent = params.q_latent.slice(0, begin, count);
  part.q_rope = params.q_rope.slice(0, begin, count);
  part.block_tables = params.block_tables.slice(0, begin, count);
  part.lengths = params.lengths.slice(0, begin, count);
  part.out = params.out.slice(0, begin, count);
  part.log_sum_exp = params.log_sum_exp.slice(0, begin, count);
  if (part.window) {
    part.window->q_latent = params.window->q_latent.slice(0, begin, count);
    part.window->first_slots = params.window->first_slots.slice(0, begin, count);
  }
  if (begin % params.row_tokens != 0 || count % params.row_tokens != 0) {
    part.row_tokens = 1;
  }
  return part;
}

void run_pass(const DecodePass& pass, DType dtype, int64_t num_rows, cudaStream_t stream) {
  if (dtype == DType::kFloat32) {
    launch_decode_simt<float>(pass, num_rows, stream);
  } else if (can_use_window_kernel(pass)) {
    launch_decode_window(pass, num_rows, stream);
  } else if (can_use_tensor_cores(pass)) {
    launch_decode_tensor(pass, num_rows, stream);
  } else {
    launch_decode_simt<Bf16>(pass, num_rows, stream);
  }
}

/// By Hopper's own instructions; the window first, since its pass is short and the other one can be
/// launched while it runs.
void decode_sm90(const MlaDecodeParams& params,
                 int num_multiprocessors,
                 const Sm90DecodeMemory& memory,
                 cudaStream_t stream) {
  if (params.window) {
    const Sm90WindowPartials partials =
        sm90_window_partials(params, num_multiprocessors, memory.scratch);
    DecodePass paged = paged_pass(params);
    paged.ring = params.window->ring;
    paged.num_splits = 0;
    paged.partial_values = partials.values;
    paged.partial_sums = partials.sums;
    paged.out = nullptr;
    run_pass(
        window_pass(paged, *params.window), params.q_latent.dtype, params.q_latent.dim(0), stream);
  }
  launch_sm90_decode(params, num_multiprocessors, memory, stream);
}

}  // namespace

void CudaOps::do_mla_decode(const MlaDecodeParams& params, StreamView stream) {
  const cudaStream_t on = device_.enter(stream);
  const int64_t num_rows = params.q_latent.dim(0);
  if (can_use_sm90_decode(params)) {
    if (sm90_decode_scratch_bytes(params, device_.num_multiprocessors()) <= kScratchBytes) {
      decode_sm90(
          params, device_.num_multiprocessors(), {scratch_.data(), decode_tickets_.data()}, on);
      return;
    }
    if (num_rows > 1) {
      const int64_t num_sequences = num_rows / params.row_tokens;
      const int64_t half = num_sequences > 1 ? num_sequences / 2 * params.row_tokens : 1;
      do_mla_decode(row_range(params, 0, half), stream);
      do_mla_decode(row_range(params, half, num_rows - half), stream);
      return;
    }
  }
  const DType dtype = params.q_latent.dtype;
  DecodePass pass = paged_pass(params);
  if (params.window) {
    pass.ring = params.window->ring;
  }
  const bool is_tensor = dtype == DType::kBFloat16 && can_use_tensor_cores(pass);
  const int64_t head_tile = is_tensor ? tensor_head_tile(pass.num_heads) : kSimtHeads;
  const int64_t row_bytes = pass.num_heads * (pass.value_width + 1) * int64_t{sizeof(float)};
  const int64_t part_bytes = num_rows * row_bytes;
  const int64_t window_parts = params.window ? 1 : 0;
  const int64_t most_parts = kScratchBytes / part_bytes;
  if (most_parts < 1 + window_parts && window_parts > 0) {
    const int64_t most_rows = kScratchBytes / ((1 + window_parts) * row_bytes);
    TESSERA_CHECK(most_rows > 0, "mla_decode: a row does not fit the scratch");
    for (int64_t begin = 0; begin < num_rows; begin += most_rows) {
      do_mla_decode(row_range(params, begin, std::min(most_rows, num_rows - begin)), stream);
    }
    return;
  }
  // Eight blocks of the kernel without tensor cores share a multiprocessor.
  const int64_t num_slots = device_.num_multiprocessors() * (is_tensor ? 1 : 8);
  const int64_t splits = std::min(
      choose_splits(
          num_rows * ceil_div(pass.num_heads, head_tile), params.block_tables.dim(1), num_slots),
      most_parts - window_parts);
  pass.num_splits = static_cast<int32_t>(std::max<int64_t>(1, splits));
  pass.partials_per_row = pass.num_splits + static_cast<int32_t>(window_parts);
  if (pass.partials_per_row == 1) {
    run_pass(pass, dtype, num_rows, on);
    return;
  }
  pass.partial_values = static_cast<float*>(scratch_.data());
  pass.partial_sums =
      pass.partial_values + num_rows * pass.partials_per_row * pass.num_heads * pass.value_width;
  const Merge merge{.values = pass.partial_values,
                    .sums = pass.partial_sums,
                    .num_parts = pass.partials_per_row,
                    .num_heads = pass.num_heads,
                    .width = pass.value_width,
                    .out = pass.out,
                    .out_stride = pass.out_stride,
                    .out_head_stride = pass.out_head_stride,
                    .log_sum_exp = pass.log_sum_exp,
                    .log_sum_exp_stride = pass.log_sum_exp_stride};
  pass.out = nullptr;
  run_pass(pass, dtype, num_rows, on);
  if (params.window) {
    run_pass(window_pass(pass, *params.window), dtype, num_rows, on);
  }
  visit_dtype(dtype, [&](auto tag) {
    launch("mla_decode (merge)",
           merge_parts<decltype(tag)>,
           {{to_grid(pass.num_heads), to_grid(num_rows), to_grid(ceil_div(merge.width, kThreads))},
            kThreads},
           on,
           merge);
  });
}

void CudaOps::do_merge_scale(const MergeScaleParams& params, StreamView stream) {
  const int64_t num_rows = params.values.dim(0);
  const int64_t num_heads = params.values.dim(1);
  launch("merge_scale",
         scale_part,
         {{to_grid(num_heads), to_grid(num_rows)}, kThreads},
         device_.enter(stream),
         MergeScale{params.log_sum_exp.as<float>(),
                    num_rows * num_heads,
                    static_cast<int32_t>(params.log_sum_exp.dim(0)),
                    static_cast<int32_t>(params.part),
                    static_cast<int32_t>(params.values.dim(2)),
                    heads_of<float>(params.values)});
}

}  // namespace tessera::kernels::cuda
