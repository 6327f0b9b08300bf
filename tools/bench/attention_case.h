// One shape of decode attention on a GPU: operands of random numbers, the call, and its comparison
// with double precision.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/ops/attention_params.h"
#include "kernels/ops/latent_row.h"
#include "tools/bench/flash_mla.h"
#include "tools/bench/gpu_bench.h"

namespace tessera::bench {

struct AttentionShape {
  std::string name;
  int64_t heads = 64;
  int64_t width = 256;  ///< latent columns in a cache row
  int64_t rope = 64;
  int64_t batch = 64;       ///< sequences
  int64_t context = 32768;  ///< tokens of each; kMixed: 1 to 32768, by turns
  int64_t tokens = 1;       ///< query tokens of a sequence, rows of their own, causal
  kernels::LatentWindow window = {};
  int64_t float8 = 0;  ///< 1: the paged rows are float8, as --kv-cache-dtype fp8_e4m3 has them
  /// The shape of the baseline's that this one stands in for; 0: the same.
  int64_t baseline_heads = 0;
  int64_t baseline_width = 0;

  static constexpr int64_t kMixed = 0;
  /// Of sequence `sequence`, for its last query token.
  [[nodiscard]] int64_t length(int64_t sequence) const;
  [[nodiscard]] kernels::DType cache_dtype() const {
    return float8 != 0 ? kernels::DType::kFloat8E4M3 : kernels::DType::kBFloat16;
  }
  [[nodiscard]] double num_tokens() const;  ///< of all sequences
  /// Of the cache, that have to be read once.
  [[nodiscard]] double cache_bytes() const;
  [[nodiscard]] double operations() const;
};

/// How far results are from double precision.
struct AttentionError {
  double values = 0.0;  ///< || out - exact || / || exact || over a sample of rows; NaN: not finite
  double log_sum_exp = 0.0;  ///< largest difference
  [[nodiscard]] bool is_ok() const { return values < 1e-2 && log_sum_exp < 1e-3; }
};

/// The backend's operation, or FlashMLA's (which not all builds have).
enum class DecodeWay { kOps, kFlashMla };

class AttentionCase final {
 public:
  /// `num_copies` of the cache, which runs take in turns. Whatever decode has no business with is
  /// NaN.
  AttentionCase(GpuBench& bench,
                const AttentionShape& shape,
                int64_t num_copies,
                DecodeWay way = DecodeWay::kOps);

  /// Queues the call on the bench's stream.
  void run(int number);
  /// Runs once and compares all results of some (row, head).
  [[nodiscard]] AttentionError error_blocking();

 private:
  struct Row {
    int64_t row = 0, head = 0;
  };
  struct Exact {
    std::vector<double> values;
    double log_sum_exp = 0.0;
  };

  [[nodiscard]] int64_t row_elements() const { return shape_.width + shape_.rope; }
  [[nodiscard]] kernels::LatentRowLayout layout() const {
    return kernels::latent_row_layout(shape_.cache_dtype(), shape_.width, shape_.rope);
  }
  [[nodiscard]] int64_t block_bytes() const { return kernels::kBlockTokens * layout().row_bytes; }
  [[nodiscard]] int64_t row_length(int64_t row) const;
  void make_tables();
  [[nodiscard]] kernels::LatentCacheView paged_cache(int64_t copy) const;
  void fill_float8(int64_t copy);
  void poison(int64_t copy);
  void poison_tokens(int64_t copy, int64_t sequence, int64_t begin, int64_t end);
  [[nodiscard]] kernels::MlaDecodeParams params(int64_t copy) const;
  [[nodiscard]] Exact exact(const Row& at) const;
  /// The rows of the block with this token, of the first copy.
  [[nodiscard]] std::vector<double> block(int64_t sequence, int64_t position) const;
  [[nodiscard]] std::vector<double> window_row(int64_t sequence, int64_t position) const;

  GpuBench& bench_;
  const AttentionShape shape_;
  kernels::WindowRing ring_;
  std::vector<int32_t> tables_;  ///< [batch, max_blocks]
  int64_t max_blocks_ = 0;
  int64_t num_blocks_ = 0;  ///< of a copy, those that are no sequence's included
  std::vector<int32_t> spare_blocks_;
  std::vector<kernels::DeviceBuffer> caches_;
  kernels::DeviceBuffer device_tables_, lengths_, q_, q_whole_, rings_, first_slots_, out_, lse_;
  std::unique_ptr<DecodeBaseline> baseline_;  ///< runs instead of the operation
};

}  // namespace tessera::bench
