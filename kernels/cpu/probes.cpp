// Probes of the latent cache: signed sums of what was computed and of what lies in a cache.

#include <algorithm>
#include <array>

#include "kernels/core/check.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/latent_rows.h"
#include "kernels/ops/probe_signs.h"

namespace tessera::kernels::cpu {
namespace {

constexpr int64_t kPieceWords = 16;
constexpr int64_t kPieceColumns = kPieceWords * kProbeWordColumns;

constexpr int64_t kRopeColumn = kProbeRopeWord * kProbeWordColumns;

struct ProbedToken {
  int64_t layer = 0;
  int64_t position = 0;
};

/// Adds `count` values, of which the first is of column `column`.
template <typename T>
void add_columns(const VectorMath& math,
                 const ProbedToken& token,
                 int64_t column,
                 const T* values,
                 int64_t count,
                 ProbeSum& total) {
  std::array<uint64_t, kPieceWords> negative;
  const auto shift = static_cast<uint64_t>(column % kProbeWordColumns);
  for (int64_t done = 0; done < count; done += kPieceColumns) {
    const int64_t piece = std::min(kPieceColumns, count - done);
    const int64_t num_words = (piece + kProbeWordColumns - 1) / kProbeWordColumns;
    const int64_t first = (column + done) / kProbeWordColumns;
    for (int64_t i = 0; i < num_words; ++i) {
      uint64_t word = probe_sign_word(token.layer, token.position, first + i) >> shift;
      if (shift != 0) {
        const uint64_t next = probe_sign_word(token.layer, token.position, first + i + 1);
        word |= next << (kProbeWordColumns - shift);
      }
      negative[static_cast<size_t>(i)] = word;
    }
    math.add_signed(values + done, piece, negative.data(), &total);
  }
}

}  // namespace

void CpuOps::do_latent_probe(const LatentProbeParams& params, StreamView) {
  const int64_t rope_width = params.rope.dim(1);
  const int64_t width = params.num_columns + rope_width;
  const auto add_values = [&](const ProbedToken& token,
                              int64_t column,
                              const float* values,
                              int64_t count,
                              int worker) {
    ProbeSum total;
    if (params.dtype == DType::kFloat32) {
      add_columns(math_, token, column, values, count, total);
      return total.sum;
    }
    auto* rounded = reinterpret_cast<BFloat16*>(scratch(worker, count));
    math_.to_bf16(values, count, rounded);
    add_columns(math_, token, column, rounded, count, total);
    return total.sum;
  };
  for_row_ranges(params.slots.dim(0), width, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t slot = params.slots.as<int64_t>()[t];
      if (slot < 0) {
        continue;
      }
      const ProbedToken token{params.layer, params.positions.as<int32_t>()[t]};
      const float* latent =
          params.latent.as<float>() + t * params.latent.stride[0] + params.column_begin;
      const float* rope = params.rope.as<float>() + t * params.rope.stride[0];
      const double sum =
          add_values(token, params.column_begin, latent, params.num_columns, worker) +
          add_values(token, kRopeColumn, rope, rope_width, worker);
      double& kept = params.sums[slot * params.sum_stride];
      kept = params.layer == 0 ? sum : kept + sum;
    }
  });
}

template <typename T>
ProbeSum CpuOps::cache_probe_block(const CacheProbeParams& params, int64_t i) const {
  const LatentCacheView& cache = params.cache;
  const int64_t block = params.blocks.as<int32_t>()[i];
  TESSERA_DCHECK(block >= 0 && block < cache.num_blocks, "block outside the cache");
  const int64_t first = (params.first_index + i * params.index_step) * kBlockTokens;
  const int64_t num_tokens = std::clamp<int64_t>(params.end - first, 0, kBlockTokens);
  ProbeSum total;
  for (int64_t offset = 0; offset < num_tokens; ++offset) {
    const ProbedToken token{params.layer, first + offset};
    const T* row = latent_row<T>(cache, block, offset);
    add_columns(math_, token, params.column_begin, row, cache.latent_width, total);
    add_columns(math_, token, kRopeColumn, row + cache.latent_width, cache.rope_width, total);
  }
  return total;
}

void CpuOps::do_cache_probe(const CacheProbeParams& params, StreamView) {
  const int64_t block_cost = kBlockTokens * (params.cache.latent_width + params.cache.rope_width);
  for_row_ranges(params.blocks.dim(0), block_cost, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const ProbeSum own = params.cache.dtype == DType::kFloat32
                               ? cache_probe_block<float>(params, i)
                               : cache_probe_block<BFloat16>(params, i);
      ProbeSum& kept = params.sums[i];
      kept.sum = params.layer == 0 ? own.sum : kept.sum + own.sum;
      kept.magnitude = params.layer == 0 ? own.magnitude : kept.magnitude + own.magnitude;
    }
  });
}

}  // namespace tessera::kernels::cpu
