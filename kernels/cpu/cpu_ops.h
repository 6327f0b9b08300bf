// Ops on the CPU. Each member is implemented in the source file of its family: linear.cpp,
// rowwise.cpp, latent_cache.cpp, probes.cpp, mla_prefill.cpp, mla_decode.cpp, moe.cpp,
// sampling.cpp.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "kernels/cpu/matmul.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/cpu/vector_math.h"
#include "kernels/ops/ops.h"

namespace tessera::kernels::cpu {

class CpuOps final : public Ops {
 public:
  explicit CpuOps(int num_threads);
  ~CpuOps() override;

 private:
  std::unique_ptr<LinearWeight> do_make_linear_weight(const LinearShape& shape) override;
  void do_load_linear_weight(LinearWeight& weight,
                             int64_t group,
                             const ConstTensorView& matrix) override;
  void do_embedding(const EmbeddingParams& params, StreamView stream) override;
  void do_rms_norm(const RmsNormParams& params, StreamView stream) override;
  void do_rope(const RopeParams& params, StreamView stream) override;
  void do_silu_mul(const SiluMulParams& params, StreamView stream) override;
  void do_cast(const CastParams& params, StreamView stream) override;
  void do_gather_rows(const GatherRowsParams& params, StreamView stream) override;
  void do_linear(const LinearParams& params, StreamView stream) override;
  void do_batched_linear(const BatchedLinearParams& params, StreamView stream) override;
  void do_grouped_linear(const GroupedLinearParams& params, StreamView stream) override;
  void do_latent_write(const LatentWriteParams& params, StreamView stream) override;
  void do_latent_gather(const LatentGatherParams& params, StreamView stream) override;
  void do_latent_probe(const LatentProbeParams& params, StreamView stream) override;
  void do_cache_probe(const CacheProbeParams& params, StreamView stream) override;
  void do_mla_prefill(const MlaPrefillParams& params, StreamView stream) override;
  void do_mla_decode(const MlaDecodeParams& params, StreamView stream) override;
  void do_merge_scale(const MergeScaleParams& params, StreamView stream) override;
  void do_moe_gate(const MoeGateParams& params, StreamView stream) override;
  void do_moe_permute(const MoePermuteParams& params, StreamView stream) override;
  void do_moe_combine(const MoeCombineParams& params, StreamView stream) override;
  void do_sample(const SampleParams& params, StreamView stream) override;

  template <typename T>
  void mla_prefill_typed(const MlaPrefillParams& params);
  template <typename T>
  void mla_decode_typed(const MlaDecodeParams& params);
  void latent_probe_row(const LatentProbeParams& params, int64_t t, int worker);
  /// The sums over the i-th block.
  [[nodiscard]] ProbeSum cache_probe_block(const CacheProbeParams& params, int64_t i, int worker);
  /// Runs task(begin, end, worker) over ranges of [0, num_rows), about `row_cost` operations a row;
  /// small work stays on the calling thread.
  template <typename Task>
  void for_row_ranges(int64_t num_rows, int64_t row_cost, Task&& task);
  /// Floats of worker-private scratch; grows on first use, never in a warm step.
  [[nodiscard]] float* scratch(int worker, int64_t count);
  /// Scratch seen by all workers.
  [[nodiscard]] float* shared_scratch(int64_t count);

  ThreadPool pool_;
  Matmul matmul_;
  const VectorMath& math_;
  std::vector<std::vector<float>> worker_scratch_;
  std::vector<float> shared_scratch_;
};

template <typename Task>
void CpuOps::for_row_ranges(int64_t num_rows, int64_t row_cost, Task&& task) {
  // Below this a fork costs more than it saves (about 1 us against 20,000 simple operations).
  constexpr int64_t kMinRangeCost = 20'000;
  const int64_t max_ranges = std::max<int64_t>(1, num_rows * row_cost / kMinRangeCost);
  const int64_t num_ranges = std::min<int64_t>({max_ranges, num_rows, pool_.num_threads()});
  if (num_ranges <= 1) {
    task(int64_t{0}, num_rows, 0);
    return;
  }
  pool_.parallel_for_blocking(num_ranges, [&](int64_t range, int worker) {
    task(num_rows * range / num_ranges, num_rows * (range + 1) / num_ranges, worker);
  });
}

}  // namespace tessera::kernels::cpu
