#include "tests/support/mirrored_backend.h"

#include <algorithm>
#include <cstdlib>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/core/check.h"

namespace tessera::testing {
namespace {

using kernels::ConstTensorView;
using kernels::Device;
using kernels::DeviceBuffer;
using kernels::StreamView;
using kernels::TensorView;

constexpr int64_t kAlignment = 256;

/// Elements from the first to the last, times their size.
int64_t extent_bytes(const ConstTensorView& view) {
  if (view.is_empty()) {
    return 0;
  }
  int64_t last = 0;
  for (int axis = 0; axis < view.rank; ++axis) {
    last += (view.dim(axis) - 1) * view.stride[static_cast<size_t>(axis)];
  }
  return (last + 1) * kernels::dtype_bytes(view.dtype);
}

/// The operands of one call: add() each, upload(), run, download().
class Mirror final {
 public:
  explicit Mirror(Device& device) : device_(device) {}

  template <typename Pointer>
  void add(Pointer& data, int64_t num_bytes) {
    using Value = std::remove_const_t<std::remove_pointer_t<Pointer>>;
    if (data != nullptr && num_bytes > 0) {
      pieces_.push_back({const_cast<char*>(reinterpret_cast<const char*>(data)),
                         num_bytes,
                         reinterpret_cast<void**>(const_cast<Value**>(&data))});
    }
  }
  void add(ConstTensorView& view) { add(view.data, extent_bytes(view)); }
  void add(TensorView& view) { add(view.data, extent_bytes(view)); }
  void add(kernels::LatentCacheView& cache) {
    add(cache.base, cache.num_blocks * cache.block_stride_bytes);
  }

  /// Operands that overlap stay so.
  void upload() {
    std::vector<Piece> sorted = pieces_;
    std::sort(sorted.begin(), sorted.end(), [](const Piece& a, const Piece& b) {
      return a.host < b.host;
    });
    for (const Piece& piece : sorted) {
      if (!ranges_.empty() && piece.host < ranges_.back().host + ranges_.back().num_bytes) {
        Range& last = ranges_.back();
        last.num_bytes = std::max(last.num_bytes, piece.host + piece.num_bytes - last.host);
      } else {
        ranges_.push_back({piece.host, piece.num_bytes, nullptr, {}});
      }
    }
    for (Range& range : ranges_) {
      const auto offset =
          static_cast<int64_t>(reinterpret_cast<uintptr_t>(range.host) % kAlignment);
      range.buffer = device_.allocate(range.num_bytes + offset);
      range.device = static_cast<char*>(range.buffer.data()) + offset;
      device_.copy_from_host(range.device, range.host, range.num_bytes, {});
    }
    for (const Piece& piece : pieces_) {
      for (const Range& range : ranges_) {
        if (piece.host >= range.host && piece.host < range.host + range.num_bytes) {
          *piece.pointer = range.device + (piece.host - range.host);
          break;
        }
      }
    }
  }
  void download_blocking() {
    for (const Range& range : ranges_) {
      device_.copy_to_host(range.host, range.device, range.num_bytes, {});
    }
    device_.synchronize_blocking({});
  }

 private:
  struct Piece {
    char* host;
    int64_t num_bytes;
    void** pointer;  ///< becomes the address on the device
  };
  struct Range {
    char* host;
    int64_t num_bytes;
    char* device;
    DeviceBuffer buffer;
  };

  Device& device_;
  std::vector<Piece> pieces_;
  std::vector<Range> ranges_;
};

class MirroredOps final : public kernels::Ops {
 public:
  explicit MirroredOps(kernels::Backend& backend)
      : device_(backend.device()), ops_(backend.ops()) {}
  [[nodiscard]] bool multiplies_float8() const noexcept override {
    return ops_.multiplies_float8();
  }

 private:
  using Ops = kernels::Ops;

  /// Runs `operation` on `params`, of which `views` are the operands.
  template <typename Params, typename... Views>
  void run(void (Ops::*operation)(const Params&, StreamView), Params& params, Views&... views) {
    Mirror mirror(device_);
    (mirror.add(views), ...);
    run(operation, params, mirror);
  }
  template <typename Params>
  void run(void (Ops::*operation)(const Params&, StreamView), Params& params, Mirror& mirror) {
    mirror.upload();
    (ops_.*operation)(params, {});
    mirror.download_blocking();
  }

  std::unique_ptr<kernels::LinearWeight> do_make_linear_weight(
      const kernels::LinearShape& shape) override {
    return ops_.make_linear_weight(shape);
  }
  void do_load_linear_weight(kernels::LinearWeight& weight,
                             int64_t group,
                             const ConstTensorView& matrix) override {
    ops_.load_linear_weight(weight, group, matrix);
  }
  void do_load_float8_weight(kernels::LinearWeight& weight,
                             int64_t group,
                             const kernels::Float8Matrix& matrix) override {
    ops_.load_float8_weight(weight, group, matrix);
  }
  void do_fill_linear_weight(kernels::LinearWeight& weight,
                             int64_t group,
                             std::span<const kernels::RandomRows> parts) override {
    ops_.fill_linear_weight(weight, group, parts);
  }
  void do_embedding(const kernels::EmbeddingParams& params, StreamView) override {
    auto p = params;
    run(&Ops::embedding, p, p.ids, p.table, p.out);
  }
  void do_rms_norm(const kernels::RmsNormParams& params, StreamView) override {
    auto p = params;
    run(&Ops::rms_norm, p, p.x, p.add, p.weight, p.out);
  }
  void do_rope(const kernels::RopeParams& params, StreamView) override {
    auto p = params;
    run(&Ops::rope, p, p.x, p.positions, p.cos, p.sin);
  }
  void do_silu_mul(const kernels::SiluMulParams& params, StreamView) override {
    auto p = params;
    run(&Ops::silu_mul, p, p.x, p.out);
  }
  void do_cast(const kernels::CastParams& params, StreamView) override {
    auto p = params;
    run(&Ops::cast, p, p.x, p.out);
  }
  void do_gather_rows(const kernels::GatherRowsParams& params, StreamView) override {
    auto p = params;
    run(&Ops::gather_rows, p, p.x, p.rows, p.out);
  }
  void do_linear(const kernels::LinearParams& params, StreamView) override {
    auto p = params;
    run(&Ops::linear, p, p.x, p.bias, p.out);
  }
  void do_batched_linear(const kernels::BatchedLinearParams& params, StreamView) override {
    auto p = params;
    run(&Ops::batched_linear, p, p.x, p.out);
  }
  void do_grouped_linear(const kernels::GroupedLinearParams& params, StreamView) override {
    auto p = params;
    run(&Ops::grouped_linear, p, p.x, p.offsets, p.out);
  }
  void do_latent_write(const kernels::LatentWriteParams& params, StreamView) override {
    auto p = params;
    run(&Ops::latent_write, p, p.latent, p.rope, p.slots, p.cache);
  }
  void do_latent_gather(const kernels::LatentGatherParams& params, StreamView) override {
    auto p = params;
    run(&Ops::latent_gather, p, p.cache, p.block_table, p.latent, p.rope);
  }
  void do_latent_probe(const kernels::LatentProbeParams& params, StreamView) override {
    auto p = params;
    const auto* slots = params.slots.as<int64_t>();
    int64_t num_sums = 0;
    for (int64_t t = 0; t < params.slots.dim(0); ++t) {
      num_sums = std::max(num_sums, slots[t] * params.sum_stride + 1);
    }
    Mirror mirror(device_);
    mirror.add(p.latent);
    mirror.add(p.rope);
    mirror.add(p.positions);
    mirror.add(p.slots);
    mirror.add(p.sums, num_sums * static_cast<int64_t>(sizeof(double)));
    run(&Ops::latent_probe, p, mirror);
  }
  void do_cache_probe(const kernels::CacheProbeParams& params, StreamView) override {
    auto p = params;
    Mirror mirror(device_);
    mirror.add(p.cache);
    mirror.add(p.blocks);
    mirror.add(p.sums, params.blocks.dim(0) * static_cast<int64_t>(sizeof(kernels::ProbeSum)));
    run(&Ops::cache_probe, p, mirror);
  }
  void do_mla_prefill(const kernels::MlaPrefillParams& params, StreamView) override {
    auto p = params;
    run(&Ops::mla_prefill, p, p.q, p.kv, p.k_rope, p.accumulator, p.max_logit, p.sum, p.out);
  }
  void do_mla_decode(const kernels::MlaDecodeParams& params, StreamView) override {
    auto p = params;
    Mirror mirror(device_);
    mirror.add(p.q_latent);
    mirror.add(p.q_rope);
    mirror.add(p.cache);
    mirror.add(p.block_tables);
    mirror.add(p.lengths);
    mirror.add(p.out);
    mirror.add(p.log_sum_exp);
    if (p.window) {
      mirror.add(p.window->cache);
      mirror.add(p.window->q_latent);
      mirror.add(p.window->first_slots);
    }
    run(&Ops::mla_decode, p, mirror);
  }
  void do_merge_scale(const kernels::MergeScaleParams& params, StreamView) override {
    auto p = params;
    run(&Ops::merge_scale, p, p.log_sum_exp, p.values);
  }
  void do_moe_gate(const kernels::MoeGateParams& params, StreamView) override {
    auto p = params;
    run(&Ops::moe_gate, p, p.logits, p.bias, p.expert_ids, p.expert_weights);
  }
  void do_moe_permute(const kernels::MoePermuteParams& params, StreamView) override {
    auto p = params;
    run(&Ops::moe_permute, p, p.x, p.expert_ids, p.permuted, p.offsets, p.row_of_pair);
  }
  void do_moe_combine(const kernels::MoeCombineParams& params, StreamView) override {
    auto p = params;
    run(&Ops::moe_combine, p, p.expert_out, p.row_of_pair, p.expert_weights, p.offsets, p.out);
  }
  void do_sample(const kernels::SampleParams& params, StreamView) override {
    auto p = params;
    run(&Ops::sample,
        p,
        p.logits,
        p.rows,
        p.history_ids,
        p.history_counts,
        p.bias_ids,
        p.bias_values,
        p.token_ids,
        p.logprobs,
        p.top_ids,
        p.top_logprobs);
  }

  Device& device_;
  Ops& ops_;
};

/// The device it offers is the mirrored backend's.
class MirroredBackend final : public kernels::Backend {
 public:
  explicit MirroredBackend(std::unique_ptr<kernels::Backend> backend)
      : backend_(std::move(backend)), ops_(*backend_) {}
  [[nodiscard]] Device& device() noexcept override { return backend_->device(); }
  [[nodiscard]] kernels::Ops& ops() noexcept override { return ops_; }
  [[nodiscard]] kernels::DType preferred_dtype() const noexcept override {
    return backend_->preferred_dtype();
  }

 private:
  std::unique_ptr<kernels::Backend> backend_;
  MirroredOps ops_;  // uses backend_
};

}  // namespace

std::unique_ptr<kernels::Backend> mirror_to_host(std::unique_ptr<kernels::Backend> backend) {
  return std::make_unique<MirroredBackend>(std::move(backend));
}

}  // namespace tessera::testing
