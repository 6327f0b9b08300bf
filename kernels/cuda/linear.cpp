// Weights and matrix products.

#include <algorithm>
#include <vector>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/few_rows_linear.h"
#include "kernels/cuda/float8_linear.h"
#include "kernels/cuda/grouped_linear.h"
#include "kernels/cuda/linear_weight.h"
#include "kernels/cuda/row_add.h"

namespace tessera::kernels::cuda {
namespace {

float element(const ConstTensorView& matrix, int64_t at) {
  if (matrix.dtype == DType::kFloat32) {
    return matrix.as<float>()[at];
  }
  if (matrix.dtype == DType::kBFloat16) {
    return matrix.as<BFloat16>()[at].to_float();
  }
  return float16_to_float(matrix.as<uint16_t>()[at]);
}

void store(float value, float& to) {
  to = value;
}
void store(float value, BFloat16& to) {
  to = BFloat16::from_float(value);
}

/// Rows [begin, begin + count) of `matrix`, contiguous.
template <typename T>
void convert_rows(const ConstTensorView& matrix, int64_t begin, int64_t count, T* to) {
  for (int64_t row = begin; row < begin + count; ++row) {
    for (int64_t column = 0; column < matrix.dim(1); ++column) {
      store(element(matrix, row * matrix.stride[0] + column * matrix.stride[1]), *to++);
    }
  }
}

/// cuBLASLt's strides span a row at least; that of a single row says nothing.
int64_t row_stride(int64_t stride, int64_t rows, int64_t width) {
  return rows == 1 ? width : stride;
}

/// False, with nothing done, for problems that neither way can do.
bool multiply(Blas& blas, const BlasProblem& problem, cudaStream_t stream) {
  if (can_use_few_rows(problem)) {
    launch_few_rows(problem, stream);
    return true;
  }
  return blas.run(problem, stream);
}

constexpr int64_t kPieceBytes = int64_t{1} << 20;

}  // namespace

std::unique_ptr<LinearWeight> CudaOps::do_make_linear_weight(const LinearShape& shape) {
  if (shape.scales) {
    static_cast<void>(float8_dense_.is_usable_blocking());  // tries it out, before any step
  }
  return std::make_unique<CudaLinearWeight>(shape,
                                            device_.allocate(CudaLinearWeight::num_bytes(shape)));
}

void CudaOps::do_load_float8_weight(LinearWeight& weight,
                                    int64_t group,
                                    const Float8Matrix& matrix) {
  const auto& target = static_cast<const CudaLinearWeight&>(weight);
  const int64_t columns = matrix.scales.dim(1);
  const int64_t stride = target.scale_stride();
  std::vector<float> scales(static_cast<size_t>(target.group_scales()), 1.0F);
  for (int64_t row = 0; row < matrix.scales.dim(0); ++row) {
    std::copy_n(matrix.scales.as<float>() + row * columns, columns, scales.data() + row * stride);
  }
  device_.copy_from_host(target.group(group), matrix.values.data, target.group_bytes(), {});
  device_.copy_from_host(target.scales(group),
                         scales.data(),
                         target.group_scales() * static_cast<int64_t>(sizeof(float)),
                         {});
  device_.synchronize_blocking({});
}

void CudaOps::do_load_linear_weight(LinearWeight& weight,
                                    int64_t group,
                                    const ConstTensorView& matrix) {
  const LinearShape& shape = weight.shape();
  const auto& target = static_cast<const CudaLinearWeight&>(weight);
  if (matrix.dtype == shape.dtype && matrix.is_contiguous()) {
    device_.copy_from_host(target.group(group), matrix.data, target.group_bytes(), {});
    device_.synchronize_blocking({});
    return;
  }
  // A few rows at a time: their conversion overlaps the copy of the rows before.
  const int64_t row_bytes = shape.in_features * dtype_bytes(shape.dtype);
  const int64_t piece = std::max<int64_t>(1, kPieceBytes / row_bytes);
  std::vector<char> storage(static_cast<size_t>(std::min(piece, shape.out_features) * row_bytes));
  for (int64_t row = 0; row < shape.out_features; row += piece) {
    const int64_t count = std::min(piece, shape.out_features - row);
    if (shape.dtype == DType::kFloat32) {
      convert_rows(matrix, row, count, reinterpret_cast<float*>(storage.data()));
    } else {
      convert_rows(matrix, row, count, reinterpret_cast<BFloat16*>(storage.data()));
    }
    device_.copy_from_host(
        target.group(group) + row * row_bytes, storage.data(), count * row_bytes, {});
  }
  device_.synchronize_blocking({});
}

void CudaOps::do_linear(const LinearParams& params, StreamView stream) {
  const cudaStream_t on = device_.enter(stream);
  const LinearShape& shape = params.weight->shape();
  const int64_t rows = params.x.dim(0);
  if (shape.scales) {
    float8_dense_.run(on_device(params.weight),
                      {.x = params.x.data,
                       .x_stride = row_stride(params.x.stride[0], rows, shape.in_features),
                       .out = params.out.data,
                       .out_stride = row_stride(params.out.stride[0], rows, shape.out_features),
                       .rows = rows,
                       .dtype = shape.dtype,
                       .out_dtype = params.out.dtype},
                      on);
    if (params.bias.data != nullptr) {
      add_to_rows(params.bias.as<float>(), params.out, on);
    }
    return;
  }
  const bool is_done =
      multiply(blas_,
               {.x = params.x.data,
                .weight = on_device(params.weight).group(0),
                .out = params.out.data,
                .rows = rows,
                .out_features = shape.out_features,
                .in_features = shape.in_features,
                .x_stride = row_stride(params.x.stride[0], rows, shape.in_features),
                .out_stride = row_stride(params.out.stride[0], rows, shape.out_features),
                .dtype = shape.dtype,
                .out_dtype = params.out.dtype},
               on);
  if (!is_done) {
    grouped_product({.x = params.x.data,
                     .x_stride = params.x.stride[0],
                     .weight = on_device(params.weight).group(0),
                     .out = params.out.data,
                     .out_stride = params.out.stride[0],
                     .rows = rows,
                     .out_features = static_cast<int32_t>(shape.out_features),
                     .in_features = static_cast<int32_t>(shape.in_features),
                     .dtype = shape.dtype,
                     .out_dtype = params.out.dtype,
                     .next_tile = static_cast<int32_t*>(scratch_.data())},
                    on);
  }
  if (params.bias.data != nullptr) {
    add_to_rows(params.bias.as<float>(), params.out, on);
  }
}

void CudaOps::do_batched_linear(const BatchedLinearParams& params, StreamView stream) {
  const cudaStream_t on = device_.enter(stream);
  const LinearShape& shape = params.weight->shape();
  const int64_t rows = params.x.dim(0);
  const bool is_done =
      multiply(blas_,
               {.x = params.x.data,
                .weight = on_device(params.weight).group(0),
                .out = params.out.data,
                .rows = rows,
                .out_features = shape.out_features,
                .in_features = shape.in_features,
                .batch = shape.num_groups,
                .x_stride = row_stride(params.x.stride[0], rows, shape.in_features),
                .x_batch_stride = params.x.stride[1],
                .out_stride = row_stride(params.out.stride[0], rows, shape.out_features),
                .out_batch_stride = params.out.stride[1],
                .dtype = shape.dtype,
                .out_dtype = params.out.dtype},
               on);
  for (int64_t g = 0; g < shape.num_groups && !is_done; ++g) {
    const ConstTensorView x = params.x.slice(1, g, 1);
    const TensorView out = params.out.slice(1, g, 1);
    grouped_product({.x = x.data,
                     .x_stride = x.stride[0],
                     .weight = on_device(params.weight).group(g),
                     .out = out.data,
                     .out_stride = out.stride[0],
                     .rows = rows,
                     .out_features = static_cast<int32_t>(shape.out_features),
                     .in_features = static_cast<int32_t>(shape.in_features),
                     .dtype = shape.dtype,
                     .out_dtype = params.out.dtype,
                     .next_tile = static_cast<int32_t*>(scratch_.data())},
                    on);
  }
}

void CudaOps::do_grouped_linear(const GroupedLinearParams& params, StreamView stream) {
  const LinearShape& shape = params.weight->shape();
  const cudaStream_t on = device_.enter(stream);
  const GroupedProduct product{.x = params.x.data,
                               .x_stride = params.x.stride[0],
                               .weight = on_device(params.weight).group(0),
                               .offsets = params.offsets.as<int32_t>(),
                               .out = params.out.data,
                               .out_stride = params.out.stride[0],
                               .rows = params.x.dim(0),
                               .num_groups = static_cast<int32_t>(shape.num_groups),
                               .out_features = static_cast<int32_t>(shape.out_features),
                               .in_features = static_cast<int32_t>(shape.in_features),
                               .dtype = shape.dtype,
                               .out_dtype = params.out.dtype,
                               .next_tile = static_cast<int32_t*>(scratch_.data())};
  if (shape.scales) {
    multiply_float8(float8_product(on_device(params.weight), 0, product), on);
  } else {
    grouped_product(product, on);
  }
}

}  // namespace tessera::kernels::cuda
