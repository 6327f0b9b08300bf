// The vectorised inner loops of the CPU backend, compiled once per instruction set and chosen at
// start-up. Pointers need no alignment. T is float or BFloat16; sums are float32.
#pragma once

#include <cstdint>

#include "kernels/core/dtype.h"
#include "kernels/ops/probe_signs.h"

namespace tessera::kernels::cpu {

/// Rows of a matrix: `data + i * stride` (elements) is row i.
template <typename T>
struct Rows {
  const T* data = nullptr;
  int64_t stride = 0;
};

/// One instruction set's functions.
struct VectorMath {
  const char* name = "";

  /// out[i * out_stride + j] += q_i . k_j over `width` elements.
  void (*add_scores_f32)(Rows<float> q,
                         int64_t num_q,
                         Rows<float> k,
                         int64_t num_k,
                         int64_t width,
                         float* out,
                         int64_t out_stride) = nullptr;
  void (*add_scores_bf16)(Rows<BFloat16> q,
                          int64_t num_q,
                          Rows<BFloat16> k,
                          int64_t num_k,
                          int64_t width,
                          float* out,
                          int64_t out_stride) = nullptr;
  /// acc_i += sum_j p[i * p_stride + j] * v_j over `width` elements.
  void (*add_values_f32)(const float* p,
                         int64_t p_stride,
                         int64_t num_q,
                         Rows<float> v,
                         int64_t num_v,
                         int64_t width,
                         float* acc,
                         int64_t acc_stride) = nullptr;
  void (*add_values_bf16)(const float* p,
                          int64_t p_stride,
                          int64_t num_q,
                          Rows<BFloat16> v,
                          int64_t num_v,
                          int64_t width,
                          float* acc,
                          int64_t acc_stride) = nullptr;
  /// x_j = exp(x_j - shift); returns the sum.
  float (*exp_sum)(float* x, int64_t count, float shift) = nullptr;
  float (*max)(const float* x, int64_t count) = nullptr;
  float (*sum_of_squares)(const float* x, int64_t count) = nullptr;
  /// x_j *= factor.
  void (*scale)(float* x, int64_t count, float factor) = nullptr;
  /// y_j += factor * x_j.
  void (*add_scaled)(float* y, const float* x, int64_t count, float factor) = nullptr;
  /// out_j = x_j * factor * weight_j.
  void (*scale_mul_f32)(
      const float* x, const float* weight, float factor, int64_t count, float* out) = nullptr;
  void (*scale_mul_bf16)(
      const float* x, const float* weight, float factor, int64_t count, BFloat16* out) = nullptr;
  /// out_j = silu(gate_j) * up_j.
  void (*silu_mul_f32)(const float* gate, const float* up, int64_t count, float* out) = nullptr;
  void (*silu_mul_bf16)(const float* gate, const float* up, int64_t count, BFloat16* out) = nullptr;
  void (*to_bf16)(const float* x, int64_t count, BFloat16* out) = nullptr;
  void (*to_f32)(const BFloat16* x, int64_t count, float* out) = nullptr;

  /// Adds x and |x| to `total`, x_j negated where bit j % 64 of negative[j / 64] is set. In double.
  void (*add_signed_f32)(const float* x,
                         int64_t count,
                         const uint64_t* negative,
                         ProbeSum* total) = nullptr;
  void (*add_signed_bf16)(const BFloat16* x,
                          int64_t count,
                          const uint64_t* negative,
                          ProbeSum* total) = nullptr;

  // The same by element type, for templates.
  void add_scores(Rows<float> q,
                  int64_t num_q,
                  Rows<float> k,
                  int64_t num_k,
                  int64_t width,
                  float* out,
                  int64_t out_stride) const {
    add_scores_f32(q, num_q, k, num_k, width, out, out_stride);
  }
  void add_scores(Rows<BFloat16> q,
                  int64_t num_q,
                  Rows<BFloat16> k,
                  int64_t num_k,
                  int64_t width,
                  float* out,
                  int64_t out_stride) const {
    add_scores_bf16(q, num_q, k, num_k, width, out, out_stride);
  }
  void add_values(const float* p,
                  int64_t p_stride,
                  int64_t num_q,
                  Rows<float> v,
                  int64_t num_v,
                  int64_t width,
                  float* acc,
                  int64_t acc_stride) const {
    add_values_f32(p, p_stride, num_q, v, num_v, width, acc, acc_stride);
  }
  void add_values(const float* p,
                  int64_t p_stride,
                  int64_t num_q,
                  Rows<BFloat16> v,
                  int64_t num_v,
                  int64_t width,
                  float* acc,
                  int64_t acc_stride) const {
    add_values_bf16(p, p_stride, num_q, v, num_v, width, acc, acc_stride);
  }
  void add_signed(const float* x, int64_t count, const uint64_t* negative, ProbeSum* total) const {
    add_signed_f32(x, count, negative, total);
  }
  void add_signed(const BFloat16* x,
                  int64_t count,
                  const uint64_t* negative,
                  ProbeSum* total) const {
    add_signed_bf16(x, count, negative, total);
  }
};

/// The widest instruction set that this machine and this build have.
[[nodiscard]] const VectorMath& vector_math();

}  // namespace tessera::kernels::cpu
