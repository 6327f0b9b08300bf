// Row-wise and elementwise operations: a block is a row, or a piece of one where its columns do not
// need each other. A decode step runs hundreds of these on a row or two, so what counts is that
// loads do not wait for one another.

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/row_add.h"

namespace tessera::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kNormThreads = 512;
constexpr int kKept = 16;  ///< columns that a thread of a norm keeps in registers

/// The calling thread's first column, where a block is kThreads times `kColumns` of row blockIdx.x.
template <int kColumns>
__device__ int64_t column() {
  return (int64_t{blockIdx.y} * kThreads + threadIdx.x) * kColumns;
}
[[nodiscard]] dim3 pieces(int64_t rows, int64_t width, int64_t columns) {
  const int64_t piece = kThreads * columns;
  return {to_grid(rows), to_grid((width + piece - 1) / piece)};
}

template <typename From, typename To>
struct CopyRows {
  DeviceRows<const From> from;
  DeviceRows<To> to;
  const int32_t* rows = nullptr;  ///< of `from`, or null: as they come
  int64_t width = 0;
};

template <typename From, typename To, int kColumns>
__global__ void __launch_bounds__(kThreads) copy_rows(const CopyRows<From, To> p) {
  wait_for_kernel_before();
  const int64_t row = blockIdx.x;
  const From* from = p.from.row(p.rows == nullptr ? row : p.rows[row]);
  To* to = p.to.row(row);
  if (const int64_t c = column<kColumns>(); c < p.width) {
    const auto values = *reinterpret_cast<const Pack<From, kColumns>*>(from + c);
    Pack<To, kColumns> result;
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
      result.values[i] = from_float<To>(to_float(values.values[i]));
    }
    *reinterpret_cast<Pack<To, kColumns>*>(to + c) = result;
  }
}

template <typename From, typename To>
void launch_copy_rows(const char* name,
                      const ConstTensorView& from,
                      const TensorView& to,
                      const int32_t* rows,
                      cudaStream_t stream) {
  const bool is_packed = is_packable(from, to.dim(1)) && is_packable(to, to.dim(1));
  launch_early(name,
               is_packed ? copy_rows<From, To, kPackColumns> : copy_rows<From, To, 1>,
               {pieces(to.dim(0), to.dim(1), is_packed ? kPackColumns : 1), kThreads},
               stream,
               CopyRows<From, To>{rows_of<From>(from), rows_of<To>(to), rows, to.dim(1)});
}

template <typename Out>
struct RmsNorm {
  DeviceRows<float> x;
  DeviceRows<const float> add;  ///< null data: nothing to add
  const float* weight = nullptr;
  DeviceRows<Out> out;
  int64_t width = 0;
  float epsilon = 0.0F;
};

// Each thread touches only its own columns, so `out` may be `x`. Columns beyond what all threads
// keep are read again.
template <typename Out>
__global__ void __launch_bounds__(kNormThreads) normalise_rows(const RmsNorm<Out> p) {
  __shared__ float shared[kNormThreads / kWarp];
  float* x = p.x.row(blockIdx.x);
  const float* add = p.add.data == nullptr ? nullptr : p.add.row(blockIdx.x);
  const auto load = [&](int64_t c) {
    float value = x[c];
    if (add != nullptr) {
      value += add[c];
      x[c] = value;
    }
    return value;
  };
  float kept[kKept] = {};
  float weights[kKept] = {};
  float sum = 0.0F;
#pragma unroll
  for (int k = 0; k < kKept; ++k) {
    if (const int64_t c = threadIdx.x + k * kNormThreads; c < p.width) {
      weights[k] = p.weight[c];
    }
  }
  wait_for_kernel_before();
#pragma unroll
  for (int k = 0; k < kKept; ++k) {
    if (const int64_t c = threadIdx.x + k * kNormThreads; c < p.width) {
      kept[k] = load(c);
    }
  }
#pragma unroll
  for (int k = 0; k < kKept; ++k) {
    sum += kept[k] * kept[k];
  }
  for (int64_t c = threadIdx.x + kKept * kNormThreads; c < p.width; c += kNormThreads) {
    const float value = load(c);
    sum += value * value;
  }
  sum = block_sum<kNormThreads>(sum, shared);
  const float factor = 1.0F / sqrtf(sum / static_cast<float>(p.width) + p.epsilon);
  Out* out = p.out.row(blockIdx.x);
#pragma unroll
  for (int k = 0; k < kKept; ++k) {
    if (const int64_t c = threadIdx.x + k * kNormThreads; c < p.width) {
      out[c] = from_float<Out>(kept[k] * factor * weights[k]);
    }
  }
  for (int64_t c = threadIdx.x + kKept * kNormThreads; c < p.width; c += kNormThreads) {
    out[c] = from_float<Out>(x[c] * factor * p.weight[c]);
  }
}

template <typename T>
struct Rope {
  DeviceHeads<T> x;
  const int32_t* positions = nullptr;
  DeviceRows<const float> cosine, sine;
  int num_pairs = 0;  ///< of a token: heads * half
  int half = 0;
  bool is_interleaved = true;
};

constexpr int kRopePairs = 4;  ///< of a thread, whose loads are on their way together

/// Block y has the y-th kThreads * kRopePairs pairs of a token.
template <typename T>
__global__ void __launch_bounds__(kThreads) rotate_rows(const Rope<T> p) {
  wait_for_kernel_before();
  const int64_t t = blockIdx.x;
  const int64_t position = p.positions[t];
  const float* cosine = p.cosine.row(position);
  const float* sine = p.sine.row(position);
  const int first = static_cast<int>(blockIdx.y) * kThreads * kRopePairs;
  const auto for_pairs = [&](const auto& work) {
#pragma unroll
    for (int k = 0; k < kRopePairs; ++k) {
      if (const int i = first + k * kThreads + static_cast<int>(threadIdx.x); i < p.num_pairs) {
        const int head = i / p.half;
        const int pair = i - head * p.half;
        T* x = p.x.row(t, head);
        T* a = x + (p.is_interleaved ? 2 * pair : pair);
        work(k, pair, a, p.is_interleaved ? a + 1 : a + p.half);
      }
    }
  };
  float2 values[kRopePairs];
  float2 turns[kRopePairs];
  for_pairs([&](int k, int pair, const T* a, const T* b) {
    values[k] = {to_float(*a), to_float(*b)};
    turns[k] = {cosine[pair], sine[pair]};
  });
  for_pairs([&](int k, int /*pair*/, T* a, T* b) {
    *a = from_float<T>(values[k].x * turns[k].x - values[k].y * turns[k].y);
    *b = from_float<T>(values[k].y * turns[k].x + values[k].x * turns[k].y);
  });
}

template <typename Out>
struct SiluMul {
  DeviceRows<const float> x;
  DeviceRows<Out> out;
  int64_t width = 0;
};

template <typename Out, int kColumns>
__global__ void __launch_bounds__(kThreads) silu_mul_rows(const SiluMul<Out> p) {
  wait_for_kernel_before();
  using In = Pack<float, kColumns>;
  const float* x = p.x.row(blockIdx.x);
  Out* out = p.out.row(blockIdx.x);
  if (const int64_t c = column<kColumns>(); c < p.width) {
    const In gate = *reinterpret_cast<const In*>(x + c);
    const In up = *reinterpret_cast<const In*>(x + p.width + c);
    Pack<Out, kColumns> result;
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
      const float value = gate.values[i];
      result.values[i] = from_float<Out>(value / (1.0F + expf(-value)) * up.values[i]);
    }
    *reinterpret_cast<Pack<Out, kColumns>*>(out + c) = result;
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    add_row(const float* row, const DeviceRows<T> matrix, int64_t width) {
  wait_for_kernel_before();
  T* out = matrix.row(blockIdx.x);
  if (const int64_t c = column<1>(); c < width) {
    out[c] = from_float<T>(to_float(out[c]) + row[c]);
  }
}

}  // namespace

void add_to_rows(const float* row, const TensorView& matrix, cudaStream_t stream) {
  visit_dtype(matrix.dtype, [&](auto tag) {
    using T = decltype(tag);
    launch_early("bias",
                 add_row<T>,
                 {pieces(matrix.dim(0), matrix.dim(1), 1), kThreads},
                 stream,
                 row,
                 rows_of<T>(matrix),
                 matrix.dim(1));
  });
}

void CudaOps::do_embedding(const EmbeddingParams& params, StreamView stream) {
  visit_dtype(params.table.dtype, [&](auto tag) {
    launch_copy_rows<decltype(tag), float>(
        "embedding", params.table, params.out, params.ids.as<int32_t>(), device_.enter(stream));
  });
}

void CudaOps::do_gather_rows(const GatherRowsParams& params, StreamView stream) {
  launch_copy_rows<float, float>(
      "gather_rows", params.x, params.out, params.rows.as<int32_t>(), device_.enter(stream));
}

void CudaOps::do_cast(const CastParams& params, StreamView stream) {
  visit_dtype(params.x.dtype, [&](auto from) {
    visit_dtype(params.out.dtype, [&](auto to) {
      launch_copy_rows<decltype(from), decltype(to)>(
          "cast", params.x, params.out, nullptr, device_.enter(stream));
    });
  });
}

void CudaOps::do_rms_norm(const RmsNormParams& params, StreamView stream) {
  visit_dtype(params.out.dtype, [&](auto tag) {
    using Out = decltype(tag);
    const bool has_add = params.add.data != nullptr;
    launch_early("rms_norm",
                 normalise_rows<Out>,
                 {to_grid(params.x.dim(0)), kNormThreads},
                 device_.enter(stream),
                 RmsNorm<Out>{rows_of<float>(params.x),
                              has_add ? rows_of<float>(params.add) : DeviceRows<const float>{},
                              params.weight.as<float>(),
                              rows_of<Out>(params.out),
                              params.x.dim(1),
                              params.epsilon});
  });
}

void CudaOps::do_rope(const RopeParams& params, StreamView stream) {
  visit_dtype(params.x.dtype, [&](auto tag) {
    using T = decltype(tag);
    const int64_t half = params.x.dim(2) / 2;
    const int64_t num_pairs = params.x.dim(1) * half;
    launch_early(
        "rope",
        rotate_rows<T>,
        {{to_grid(params.x.dim(0)), to_grid(ceil_div(num_pairs, kThreads * kRopePairs))}, kThreads},
        device_.enter(stream),
        Rope<T>{heads_of<T>(params.x),
                params.positions.as<int32_t>(),
                rows_of<float>(params.cos),
                rows_of<float>(params.sin),
                static_cast<int>(num_pairs),
                static_cast<int>(half),
                params.is_interleaved});
  });
}

void CudaOps::do_silu_mul(const SiluMulParams& params, StreamView stream) {
  visit_dtype(params.out.dtype, [&](auto tag) {
    using Out = decltype(tag);
    const int64_t width = params.out.dim(1);
    const bool is_packed = is_packable(params.x, width) && is_packable(params.out, width);
    launch_early(
        "silu_mul",
        is_packed ? silu_mul_rows<Out, kPackColumns> : silu_mul_rows<Out, 1>,
        {pieces(params.x.dim(0), params.out.dim(1), is_packed ? kPackColumns : 1), kThreads},
        device_.enter(stream),
        SiluMul<Out>{rows_of<float>(params.x), rows_of<Out>(params.out), width});
  });
}

}  // namespace tessera::kernels::cuda
