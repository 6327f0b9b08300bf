// Parameters of the probes of the latent cache: signed sums, by probe_signs.h, of what was computed
// and of what lies in a cache.
#pragma once

#include <cstdint>

#include "kernels/core/tensor_view.h"
#include "kernels/ops/attention_params.h"
#include "kernels/ops/probe_signs.h"

namespace tessera::kernels {

/// sums[slot * sum_stride] becomes (layer 0) or grows by (every other) the signed sum of the
/// token's row of one image of the cache: the latent columns that its rows hold and the rope part,
/// as the cache's rows round them. A sign belongs to a column of the latent, wherever the row has
/// it. Tokens with a negative slot are skipped.
struct LatentProbeParams {
  ConstTensorView latent;     ///< [T, R] float32: all columns, row stride free
  ConstTensorView rope;       ///< [T, dr] float32, row stride free
  ConstTensorView positions;  ///< [T] int32
  ConstTensorView slots;      ///< [T] int64
  int64_t layer = 0;
  LatentColumns columns;
  DType dtype = DType::kFloat32;  ///< of the cache
  double* sums = nullptr;         ///< device memory
  int64_t sum_stride = 1;
};

/// sums[i] becomes (layer 0) or grows by (every other) the sums over what lies in block
/// `blocks[i]`, which is block first_index + i * index_step of its sequence; positions from `end`
/// on do not count.
struct CacheProbeParams {
  LatentCacheView cache;
  ConstTensorView blocks;  ///< [n] int32
  int64_t layer = 0;
  LatentColumns columns;  ///< of the latent, that the cache's rows hold
  int64_t first_index = 0;
  int64_t index_step = 1;
  int64_t end = 0;
  ProbeSum* sums = nullptr;  ///< [n], device memory
};

}  // namespace tessera::kernels
