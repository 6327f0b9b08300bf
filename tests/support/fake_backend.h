// A backend that multiplies nothing: memory is the host's, and a packed weight keeps its float
// matrices, so that a test can look at what was packed.
#pragma once

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "kernels/core/check.h"
#include "kernels/ops/backend.h"

namespace tessera::test {

class FakeDevice final : public kernels::Device {
 public:
  kernels::DeviceBuffer allocate(int64_t num_bytes) override {
    if (bytes_left_ < num_bytes) {
      throw DeviceError("fake device: out of memory");
    }
    bytes_left_ -= num_bytes;
    void* data = std::aligned_alloc(64, static_cast<size_t>((num_bytes + 63) / 64 * 64 + 64));
    return {this, data, num_bytes};
  }
  void copy_from_host(void* destination,
                      const void* source,
                      int64_t num_bytes,
                      kernels::StreamView) override {
    std::memcpy(destination, source, static_cast<size_t>(num_bytes));
  }
  void copy_to_host(void* destination,
                    const void* source,
                    int64_t num_bytes,
                    kernels::StreamView) override {
    std::memcpy(destination, source, static_cast<size_t>(num_bytes));
  }
  void copy(void* destination,
            const void* source,
            int64_t num_bytes,
            kernels::StreamView) override {
    std::memcpy(destination, source, static_cast<size_t>(num_bytes));
  }
  void synchronize_blocking(kernels::StreamView) override {}
  [[nodiscard]] std::string description() const override { return "fake"; }

  void set_bytes_left(int64_t num_bytes) { bytes_left_ = num_bytes; }

 private:
  void deallocate(void* data) noexcept override { std::free(data); }

  int64_t bytes_left_ = INT64_MAX;
};

/// Groups as row-major float matrices [out_features, in_features]; empty until loaded.
class FakeLinearWeight final : public kernels::LinearWeight {
 public:
  explicit FakeLinearWeight(const kernels::LinearShape& shape)
      : LinearWeight(shape),
        groups(static_cast<size_t>(shape.num_groups)),
        float8_groups(shape.scales ? static_cast<size_t>(shape.num_groups) : 0) {}
  [[nodiscard]] int64_t num_bytes() const noexcept override {
    if (shape().scales) {
      const int64_t scale_bytes = shape().scale_rows() * shape().scale_columns() * 4;
      return shape().num_groups * (shape().out_features * shape().in_features + scale_bytes);
    }
    return shape().num_groups * shape().out_features * shape().in_features *
           kernels::dtype_bytes(shape().dtype);
  }
  [[nodiscard]] float at(size_t group, int64_t row, int64_t column) const {
    return groups.at(group).at(static_cast<size_t>(row * shape().in_features + column));
  }

  std::vector<std::vector<float>> groups;
  /// Of a weight with scales, instead.
  struct Float8Group {
    std::vector<uint8_t> values;
    std::vector<float> scales;
  };
  std::vector<Float8Group> float8_groups;
};

class FakeOps final : public kernels::Ops {
 public:
  [[nodiscard]] bool multiplies_float8() const noexcept override { return multiplies_float8_; }
  void set_multiplies_float8() { multiplies_float8_ = true; }

 private:
  using StreamView = kernels::StreamView;
  using ConstTensorView = kernels::ConstTensorView;

  std::unique_ptr<kernels::LinearWeight> do_make_linear_weight(
      const kernels::LinearShape& shape) override {
    return std::make_unique<FakeLinearWeight>(shape);
  }
  void do_load_linear_weight(kernels::LinearWeight& weight,
                             int64_t group,
                             const ConstTensorView& matrix) override {
    auto& values = static_cast<FakeLinearWeight&>(weight).groups.at(static_cast<size_t>(group));
    for (int64_t row = 0; row < matrix.dim(0); ++row) {
      for (int64_t column = 0; column < matrix.dim(1); ++column) {
        values.push_back(element(matrix, row * matrix.stride[0] + column * matrix.stride[1]));
      }
    }
  }
  void do_load_float8_weight(kernels::LinearWeight& weight,
                             int64_t group,
                             const kernels::Float8Matrix& matrix) override {
    const auto* values = matrix.values.as<uint8_t>();
    const auto* scales = matrix.scales.as<float>();
    static_cast<FakeLinearWeight&>(weight).float8_groups.at(static_cast<size_t>(group)) = {
        {values, values + matrix.values.num_elements()},
        {scales, scales + matrix.scales.num_elements()}};
  }
  static float element(const ConstTensorView& matrix, int64_t index) {
    if (matrix.dtype == kernels::DType::kFloat32) {
      return matrix.as<float>()[index];
    }
    const uint16_t bits = matrix.as<uint16_t>()[index];
    return matrix.dtype == kernels::DType::kBFloat16 ? kernels::BFloat16{bits}.to_float()
                                                     : kernels::float16_to_float(bits);
  }
  [[noreturn]] static void refuse() {
    TESSERA_CHECK(false, "the fake backend does not compute");
    std::abort();
  }
  void do_embedding(const kernels::EmbeddingParams&, StreamView) override { refuse(); }
  void do_rms_norm(const kernels::RmsNormParams&, StreamView) override { refuse(); }
  void do_rope(const kernels::RopeParams&, StreamView) override { refuse(); }
  void do_silu_mul(const kernels::SiluMulParams&, StreamView) override { refuse(); }
  void do_cast(const kernels::CastParams&, StreamView) override { refuse(); }
  void do_gather_rows(const kernels::GatherRowsParams&, StreamView) override { refuse(); }
  void do_linear(const kernels::LinearParams&, StreamView) override { refuse(); }
  void do_batched_linear(const kernels::BatchedLinearParams&, StreamView) override { refuse(); }
  void do_grouped_linear(const kernels::GroupedLinearParams&, StreamView) override { refuse(); }
  void do_latent_write(const kernels::LatentWriteParams&, StreamView) override { refuse(); }
  void do_latent_probe(const kernels::LatentProbeParams&, StreamView) override { refuse(); }
  void do_cache_probe(const kernels::CacheProbeParams&, StreamView) override { refuse(); }
  void do_latent_gather(const kernels::LatentGatherParams&, StreamView) override { refuse(); }
  void do_mla_prefill(const kernels::MlaPrefillParams&, StreamView) override { refuse(); }
  void do_mla_decode(const kernels::MlaDecodeParams&, StreamView) override { refuse(); }
  void do_merge_scale(const kernels::MergeScaleParams&, StreamView) override { refuse(); }
  void do_moe_gate(const kernels::MoeGateParams&, StreamView) override { refuse(); }
  void do_moe_permute(const kernels::MoePermuteParams&, StreamView) override { refuse(); }
  void do_moe_combine(const kernels::MoeCombineParams&, StreamView) override { refuse(); }
  void do_sample(const kernels::SampleParams&, StreamView) override { refuse(); }

  bool multiplies_float8_ = false;
};

class FakeBackend final : public kernels::Backend {
 public:
  kernels::Device& device() noexcept override { return device_; }
  kernels::Ops& ops() noexcept override { return ops_; }
  [[nodiscard]] kernels::DType preferred_dtype() const noexcept override {
    return kernels::DType::kFloat32;
  }
  FakeDevice& fake_device() { return device_; }
  FakeOps& fake_ops() { return ops_; }

 private:
  FakeDevice device_;
  FakeOps ops_;
};

}  // namespace tessera::test
