#include "engine/calibration/dealing.h"

#include <array>
#include <utility>

#include "engine/base/check.h"

namespace tessera {
namespace {

constexpr std::array<std::pair<DealingKind, std::string_view>, 4> kNames = {{
    {DealingKind::kContiguous, "contiguous"},
    {DealingKind::kSnake, "snake"},
    {DealingKind::kFold, "fold"},
    {DealingKind::kRandomMix, "random_mix"},
}};

/// Element `index` of row `turn` when rows of `length` are written forth and back.
int64_t boustrophedon(int64_t turn, int64_t index, int64_t length) {
  return turn * length + (turn % 2 == 0 ? index : length - 1 - index);
}

/// Member k of group j is direction j of the k-th of g parts, every second part turned round:
/// (j, n - 1 - j) with two slices.
Matrix fold(int64_t num_directions, int64_t num_slices) {
  const int64_t length = num_directions / num_slices;
  const Matrix mixing = mixing_matrix(num_slices);
  Matrix result = Matrix::Zero(num_directions, num_directions);
  for (int64_t group = 0; group < length; ++group) {
    for (int64_t slice = 0; slice < num_slices; ++slice) {
      for (int64_t member = 0; member < num_slices; ++member) {
        result(boustrophedon(member, group, length), slice * length + group) =
            mixing(slice, member);
      }
    }
  }
  return result;
}

Matrix snake(int64_t num_directions, int64_t num_slices) {
  const int64_t length = num_directions / num_slices;
  Matrix result = Matrix::Zero(num_directions, num_directions);
  for (int64_t turn = 0; turn < length; ++turn) {
    for (int64_t slice = 0; slice < num_slices; ++slice) {
      result(boustrophedon(turn, slice, num_slices), slice * length + turn) = 1.0;
    }
  }
  return result;
}

Matrix deal_rest(int64_t num_directions, const DealingOptions& options) {
  switch (options.kind) {
    case DealingKind::kContiguous:
      break;
    case DealingKind::kSnake:
      return snake(num_directions, options.num_slices);
    case DealingKind::kFold:
      return fold(num_directions, options.num_slices);
    case DealingKind::kRandomMix:
      return random_orthogonal(num_directions, options.seed);
  }
  return Matrix::Identity(num_directions, num_directions);
}

}  // namespace

std::string_view dealing_kind_name(DealingKind kind) noexcept {
  for (const auto& [value, name] : kNames) {
    if (value == kind) {
      return name;
    }
  }
  return "";
}

std::optional<DealingKind> parse_dealing_kind(std::string_view name) noexcept {
  for (const auto& [value, known] : kNames) {
    if (known == name) {
      return value;
    }
  }
  return std::nullopt;
}

bool is_mixing(DealingKind kind) noexcept {
  return kind == DealingKind::kFold || kind == DealingKind::kRandomMix;
}

Matrix deal(int64_t width, const DealingOptions& options) {
  const int64_t shared = options.num_shared;
  const int64_t slices = options.num_slices;
  TESSERA_CHECK(slices > 0 && shared >= 0 && shared <= width && (width - shared) % slices == 0,
                "slices of equal size");
  Matrix result = Matrix::Identity(width, width);
  const int64_t rest = width - shared;
  if (rest > 0) {
    result.bottomRightCorner(rest, rest) = deal_rest(rest, options);
  }
  return result;
}

}  // namespace tessera
