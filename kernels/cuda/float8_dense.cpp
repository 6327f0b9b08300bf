#include "kernels/cuda/float8_dense.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/core/check.h"
#include "kernels/ops/random_weight.h"

namespace tessera::kernels::cuda {
namespace {

/// More rows than these are worth a pass over the rows before the product, or over the weight.
constexpr int64_t kFewRows = 16;
constexpr int64_t kSomeRows = 64;
/// cuBLASLt reads scales of x 16 bytes at a time: rows behind a multiple of 4 go another way.
constexpr int64_t kRowStep = 4;
/// Of features: what float8 in tensor cores is aligned to.
constexpr int64_t kFeatureStep = 16;

int64_t round_down(int64_t value, int64_t step) {
  return value / step * step;
}

const char* offset(const void* pointer, int64_t num_bytes) {
  return static_cast<const char*>(pointer) + num_bytes;
}
char* offset(void* pointer, int64_t num_bytes) {
  return static_cast<char*>(pointer) + num_bytes;
}

/// Rows [begin, begin + count) of it.
Float8Product rows_of(const Float8Product& p, int64_t begin, int64_t count) {
  Float8Product part = p;
  part.product.x = offset(p.product.x, begin * p.product.x_stride * dtype_bytes(p.product.dtype));
  part.product.out =
      offset(p.product.out, begin * p.product.out_stride * dtype_bytes(p.product.out_dtype));
  part.product.rows = count;
  return part;
}

/// What the comparison multiplies: more blocks of columns than a row of scales is padded to, half a
/// block of features at the end, no two blocks with the same scale beside or below each other.
constexpr int64_t kTestRows = 132;
constexpr int64_t kTestOut = 448;
constexpr int64_t kTestIn = 640;
/// cuBLASLt's sums inside a block keep some 13 bits; scales in wrong places give errors of 0.4 and
/// more.
constexpr double kTestTolerance = 1e-2;

uint8_t test_float8(uint64_t counter) {
  const auto code = static_cast<uint8_t>(random_word(counter) >> 40);
  return static_cast<uint8_t>((code & 0x80U) | (0x20U + (code & 0x1fU)));  // 2^-3 to 2^1
}

/// Rows that are exact in float8: in each block one number is 448 times a power of two.
std::vector<BFloat16> test_rows() {
  std::vector<BFloat16> rows;
  for (int64_t t = 0; t < kTestRows; ++t) {
    for (int64_t k = 0; k < kTestIn; ++k) {
      const auto exponent = static_cast<int>((t + k / kScaleBlock * 3) % 5) - 8;
      const bool is_largest = k % kScaleBlock == t % kScaleBlock;
      const float value =
          is_largest ? 448.0F
                     : float8_e4m3_to_float(test_float8(static_cast<uint64_t>(t * kTestIn + k)));
      rows.push_back(BFloat16::from_float(std::ldexp(value, exponent)));
    }
  }
  return rows;
}

struct TestWeight {
  std::vector<uint8_t> values;
  std::vector<float> scales;
};
TestWeight test_weight(const CudaLinearWeight& weight) {
  TestWeight test;
  for (int64_t i = 0; i < kTestOut * kTestIn; ++i) {
    test.values.push_back(test_float8(static_cast<uint64_t>(i) + (uint64_t{1} << 32)));
  }
  for (int64_t i = 0; i < weight.group_scales(); ++i) {
    test.scales.push_back(std::ldexp(1.0F, static_cast<int>(i * 5 % 7) - 3));
  }
  return test;
}

}  // namespace

void Float8Dense::run(const CudaLinearWeight& weight,
                      const GroupedProduct& product,
                      cudaStream_t stream) {
  const Float8Product all = float8_product(weight, 0, product);
  const int64_t whole = round_down(product.rows, kRowStep);
  if (product.rows > kFewRows && is_usable_.value_or(false) &&
      run_in_float8(rows_of(all, 0, whole), stream)) {
    if (whole < product.rows) {
      multiply_float8(rows_of(all, whole, product.rows - whole), stream);
    }
  } else if (product.rows <= kSomeRows) {
    multiply_float8(all, stream);
  } else {
    run_in_bfloat16(all, stream);
  }
}

bool Float8Dense::run_in_float8(const Float8Product& p, cudaStream_t stream) {
  const GroupedProduct& product = p.product;
  const bool has_whole_blocks =
      p.scale_shift != 0 && p.first_column == 0 && product.in_features % kScaleBlock == 0;
  if (!has_whole_blocks || product.out_features % kFeatureStep != 0 || !can_use_float8_tiles(p)) {
    return false;
  }
  const int64_t scales_a_row = product.in_features / kScaleBlock;
  const int64_t row_bytes =
      product.in_features + scales_a_row * static_cast<int64_t>(sizeof(float));
  const int64_t most = round_down(scratch_.num_bytes() / row_bytes, kRowStep);
  TESSERA_CHECK(most > 0, "linear: a row in float8 does not fit the scratch");
  for (int64_t begin = 0; begin < product.rows; begin += most) {
    const Float8Product part = rows_of(p, begin, std::min(most, product.rows - begin));
    const int64_t rows = part.product.rows;
    const Float8Rows x{
        scratch_.data(),
        reinterpret_cast<float*>(offset(scratch_.data(), rows * product.in_features))};
    quantize_rows(part.product, x, stream);
    const bool is_done = blas_.run({.x = x.values,
                                    .weight = product.weight,
                                    .out = part.product.out,
                                    .rows = rows,
                                    .out_features = product.out_features,
                                    .in_features = product.in_features,
                                    .x_stride = product.in_features,
                                    .out_stride = product.out_stride,
                                    .dtype = DType::kFloat8E4M3,
                                    .out_dtype = product.out_dtype,
                                    .weight_scales = p.scales,
                                    .x_scales = x.scales},
                                   stream);
    if (!is_done) {
      return false;  // of an earlier part too, or of none: the caller computes all of them
    }
  }
  return true;
}

void Float8Dense::run_in_bfloat16(const Float8Product& p, cudaStream_t stream) {
  const GroupedProduct& product = p.product;
  const int64_t feature_bytes = product.in_features * dtype_bytes(product.dtype);
  const int64_t most = std::max<int64_t>(1, round_down(scratch_.num_bytes() / feature_bytes, 128));
  for (int64_t begin = 0; begin < product.out_features; begin += most) {
    const int64_t count = std::min<int64_t>(most, product.out_features - begin);
    dequantize_float8(p, begin, count, scratch_.data(), stream);
    const bool is_done =
        blas_.run({.x = product.x,
                   .weight = scratch_.data(),
                   .out = offset(product.out, begin * dtype_bytes(product.out_dtype)),
                   .rows = product.rows,
                   .out_features = count,
                   .in_features = product.in_features,
                   .x_stride = product.x_stride,
                   .out_stride = product.out_stride,
                   .dtype = product.dtype,
                   .out_dtype = product.out_dtype},
                  stream);
    if (!is_done) {
      multiply_float8(p, stream);
      return;
    }
  }
}

bool Float8Dense::is_usable_blocking() {
  if (!is_usable_) {
    is_usable_ = compare_blocking();
  }
  return *is_usable_;
}

bool Float8Dense::compare_blocking() {
  const LinearShape shape{.out_features = kTestOut,
                          .in_features = kTestIn,
                          .dtype = DType::kBFloat16,
                          .scales = BlockScales{}};
  const CudaLinearWeight weight(shape, device_.allocate(CudaLinearWeight::num_bytes(shape)));
  const TestWeight test = test_weight(weight);
  const std::vector<BFloat16> rows = test_rows();
  const auto row_bytes = static_cast<int64_t>(rows.size() * sizeof(BFloat16));
  const int64_t out_bytes = kTestRows * kTestOut * static_cast<int64_t>(sizeof(float));
  const DeviceBuffer x = device_.allocate(row_bytes);
  const DeviceBuffer out = device_.allocate(2 * out_bytes);
  device_.copy_from_host(weight.group(0), test.values.data(), weight.group_bytes(), {});
  device_.copy_from_host(weight.scales(0),
                         test.scales.data(),
                         weight.group_scales() * static_cast<int64_t>(sizeof(float)),
                         {});
  device_.copy_from_host(x.data(), rows.data(), row_bytes, {});
  const cudaStream_t stream = device_.enter({});
  Float8Product product = float8_product(weight,
                                         0,
                                         {.x = x.data(),
                                          .x_stride = kTestIn,
                                          .out = out.data(),
                                          .out_stride = kTestOut,
                                          .rows = kTestRows,
                                          .dtype = DType::kBFloat16,
                                          .out_dtype = DType::kFloat32});
  if (!run_in_float8(product, stream)) {
    device_.synchronize_blocking({});
    return false;
  }
  product.product.out = offset(out.data(), out_bytes);
  launch_float8_simt(product, stream);
  std::vector<float> results(static_cast<size_t>(2 * kTestRows * kTestOut));
  device_.copy_to_host(results.data(), out.data(), 2 * out_bytes, {});
  device_.synchronize_blocking({});
  double error = 0.0;
  double norm = 0.0;
  for (size_t i = 0; i < results.size() / 2; ++i) {
    const double want = static_cast<double>(results[results.size() / 2 + i]);
    const double difference = static_cast<double>(results[i]) - want;
    error += difference * difference;
    norm += want * want;
  }
  return std::isfinite(error) && std::sqrt(error) <= kTestTolerance * std::sqrt(norm);
}

}  // namespace tessera::kernels::cuda
