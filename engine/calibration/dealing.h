// How the directions of a basis become columns of slices. Pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "engine/calibration/linear_algebra.h"

namespace tessera {

enum class DealingKind : uint8_t {
  kContiguous,  ///< the first directions to slice 0, the next to slice 1, ...
  kSnake,       ///< one by one, forth and back
  kFold,        ///< each strong direction mixed with g - 1 weak ones, one mixture to each slice
  kRandomMix,   ///< a random rotation, cut
};

[[nodiscard]] std::string_view dealing_kind_name(DealingKind kind) noexcept;
[[nodiscard]] std::optional<DealingKind> parse_dealing_kind(std::string_view name) noexcept;
/// Whether every slice's columns blend directions that the other slices blend too: then a slice's
/// part of the logit estimates a share of all of it.
[[nodiscard]] bool is_mixing(DealingKind kind) noexcept;

struct DealingOptions {
  DealingKind kind = DealingKind::kFold;
  int64_t num_slices = 2;
  /// s: the first directions are dealt to nobody, they stand first.
  int64_t num_shared = 0;
  uint64_t seed = 0;  ///< of kRandomMix
};

/// Orthogonal D [R, R]: column k of the cache is the basis's directions, ordered by falling
/// strength, times column k of D. Columns: shared, own of slice 0, own of slice 1, ... R - s is
/// divisible by g.
[[nodiscard]] Matrix deal(int64_t width, const DealingOptions& options);

}  // namespace tessera
