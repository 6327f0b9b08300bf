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

/// Adds up one token's row.
struct TokenProbe {
  const VectorMath& math;
  int64_t layer = 0;
  int64_t position = 0;
  ProbeSum total = {};

  /// `count` values, of which the first is of column `column`.
  template <typename T>
  void add(int64_t column, const T* values, int64_t count) {
    std::array<uint64_t, kPieceWords> negative;
    for (int64_t done = 0; done < count; done += kPieceColumns) {
      const int64_t piece = std::min(kPieceColumns, count - done);
      const int64_t num_words = (piece + kProbeWordColumns - 1) / kProbeWordColumns;
      for (int64_t i = 0; i < num_words; ++i) {
        negative[static_cast<size_t>(i)] = word_from(column + done + i * kProbeWordColumns);
      }
      math.add_signed(values + done, piece, negative.data(), &total);
    }
  }

 private:
  /// The signs of 64 columns, the first of which is `column`.
  [[nodiscard]] uint64_t word_from(int64_t column) const {
    const int64_t word = column / kProbeWordColumns;
    const auto shift = static_cast<uint64_t>(column % kProbeWordColumns);
    const uint64_t low = probe_sign_word(layer, position, word) >> shift;
    return shift == 0
               ? low
               : low | probe_sign_word(layer, position, word + 1) << (kProbeWordColumns - shift);
  }
};

/// Adds up what lies in a cache's row. T is the cache's element type.
template <typename T>
void add_plain_row(const CacheProbeParams& params, const char* row, TokenProbe& token) {
  const T* latent = reinterpret_cast<const T*>(row);
  params.columns.for_each_range([&](const ColumnRange& range, int64_t row_begin) {
    token.add(range.begin, latent + row_begin, range.count);
  });
  token.add(kRopeColumn, latent + params.cache.latent_width, params.cache.rope_width);
}

/// `numbers` has room for the latent columns, or for the rope part.
void add_float8_row(const CacheProbeParams& params,
                    const char* row,
                    float* numbers,
                    TokenProbe& token) {
  const LatentCacheView& cache = params.cache;
  read_float8_latents(cache, row, 0, cache.latent_width, numbers);
  params.columns.for_each_range([&](const ColumnRange& range, int64_t row_begin) {
    token.add(range.begin, numbers + row_begin, range.count);
  });
  read_float8_rope(cache, row, numbers);
  token.add(kRopeColumn, numbers, cache.rope_width);
}

}  // namespace

void CpuOps::latent_probe_row(const LatentProbeParams& params, int64_t t, int worker) {
  const int64_t slot = params.slots.as<int64_t>()[t];
  if (slot < 0) {
    return;
  }
  const float* latent = params.latent.as<float>() + t * params.latent.stride[0];
  const float* rope = params.rope.as<float>() + t * params.rope.stride[0];
  const int64_t rope_width = params.rope.dim(1);
  TokenProbe token{math_, params.layer, params.positions.as<int32_t>()[t]};
  if (params.dtype == DType::kFloat32) {
    params.columns.for_each_range([&](const ColumnRange& range, int64_t) {
      token.add(range.begin, latent + range.begin, range.count);
    });
    token.add(kRopeColumn, rope, rope_width);
  } else if (params.dtype == DType::kFloat8E4M3) {
    const int exponent = float8_exponent(params.columns, latent);
    float* rounded = scratch(worker, std::max(params.columns.width(), rope_width));
    params.columns.for_each_range([&](const ColumnRange& range, int64_t) {
      round_to_float8(latent + range.begin, range.count, exponent, rounded);
      token.add(range.begin, rounded, range.count);
    });
    for (int64_t i = 0; i < rope_width; ++i) {
      rounded[i] = BFloat16::from_float(rope[i]).to_float();
    }
    token.add(kRopeColumn, rounded, rope_width);
  } else {
    const int64_t widest = std::max(params.columns.width(), rope_width);
    auto* rounded = reinterpret_cast<BFloat16*>(scratch(worker, widest));
    params.columns.for_each_range([&](const ColumnRange& range, int64_t) {
      math_.to_bf16(latent + range.begin, range.count, rounded);
      token.add(range.begin, rounded, range.count);
    });
    math_.to_bf16(rope, rope_width, rounded);
    token.add(kRopeColumn, rounded, rope_width);
  }
  double& kept = params.sums[slot * params.sum_stride];
  kept = params.layer == 0 ? token.total.sum : kept + token.total.sum;
}

void CpuOps::do_latent_probe(const LatentProbeParams& params, StreamView) {
  const int64_t width = params.columns.width() + params.rope.dim(1);
  for_row_ranges(params.slots.dim(0), width, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t t = begin; t < end; ++t) {
      latent_probe_row(params, t, worker);
    }
  });
}

ProbeSum CpuOps::cache_probe_block(const CacheProbeParams& params, int64_t i, int worker) {
  const LatentCacheView& cache = params.cache;
  const int64_t block = params.blocks.as<int32_t>()[i];
  TESSERA_DCHECK(block >= 0 && block < cache.num_blocks, "block outside the cache");
  const int64_t first = (params.first_index + i * params.index_step) * kBlockTokens;
  const int64_t num_tokens = std::clamp<int64_t>(params.end - first, 0, kBlockTokens);
  TokenProbe token{math_, params.layer, first};
  for (int64_t offset = 0; offset < num_tokens; ++offset) {
    const char* row = latent_row_bytes(cache, block, offset);
    token.position = first + offset;
    if (cache.is_float8()) {
      float* numbers = scratch(worker, std::max(cache.latent_width, cache.rope_width));
      add_float8_row(params, row, numbers, token);
    } else if (cache.dtype == DType::kFloat32) {
      add_plain_row<float>(params, row, token);
    } else {
      add_plain_row<BFloat16>(params, row, token);
    }
  }
  return token.total;
}

void CpuOps::do_cache_probe(const CacheProbeParams& params, StreamView) {
  const int64_t block_cost = kBlockTokens * (params.cache.latent_width + params.cache.rope_width);
  for_row_ranges(params.blocks.dim(0), block_cost, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t i = begin; i < end; ++i) {
      const ProbeSum own = cache_probe_block(params, i, worker);
      ProbeSum& kept = params.sums[i];
      kept.sum = params.layer == 0 ? own.sum : kept.sum + own.sum;
      kept.magnitude = params.layer == 0 ? own.magnitude : kept.magnitude + own.magnitude;
    }
  });
}

}  // namespace tessera::kernels::cpu
