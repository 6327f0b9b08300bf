#include "engine/calibration/layer_calibration.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace tessera {
namespace {

/// Keeps keys finite where a direction of a slice does not vary.
constexpr double kRegularisation = 1e-4;

using FloatMatrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

std::vector<float> to_floats(const Matrix& matrix) {
  const FloatMatrix rows = matrix.cast<float>();
  return {rows.data(), rows.data() + rows.size()};
}

/// The basis's columns by falling strength, unless they are cut as they stand.
std::vector<Eigen::Index> order_of(const LatentBasis& basis, const DealingOptions& dealing) {
  std::vector<Eigen::Index> order(static_cast<size_t>(basis.strength.size()));
  std::iota(order.begin(), order.end(), 0);
  if (dealing.kind != DealingKind::kContiguous || dealing.num_shared > 0) {
    std::stable_sort(order.begin(), order.end(), [&](Eigen::Index a, Eigen::Index b) {
      return basis.strength(a) > basis.strength(b);
    });
  }
  return order;
}

struct DealtBasis {
  Matrix forward;  // [R, R]
  Matrix inverse;
};

DealtBasis dealt(const LatentBasis& basis, const DealingOptions& dealing) {
  const std::vector<Eigen::Index> order = order_of(basis, dealing);
  const Matrix columns = deal(basis.forward.cols(), dealing);
  const Matrix forward = basis.forward(Eigen::all, order);
  const Matrix inverse = basis.inverse(order, Eigen::all);
  return {forward * columns, columns.transpose() * inverse};
}

/// In the order of the slice's rows: the others' shares of the shared columns, its own, its
/// columns.
std::vector<Eigen::Index> columns_of_slice(const DealingOptions& dealing,
                                           int64_t width,
                                           int64_t slice) {
  const int64_t share = dealing.num_shared / dealing.num_slices;
  const int64_t own = (width - dealing.num_shared) / dealing.num_slices;
  std::vector<Eigen::Index> columns;
  const auto add = [&columns](int64_t begin, int64_t count) {
    for (int64_t column = begin; column < begin + count; ++column) {
      columns.push_back(column);
    }
  };
  add(0, slice * share);
  add((slice + 1) * share, (dealing.num_slices - 1 - slice) * share);
  add(slice * share, share);
  add(dealing.num_shared + slice * own, own);
  return columns;
}

/// S: the slice's columns of m = n A, Sigma the covariance of m. Of all linear functions of m_S the
/// one nearest to the logit q.n is q^T A^-T Sigma_{:,S} Sigma_SS^-1 m_S.
std::vector<float> least_squares_keys(const LayerKnowledge& layer,
                                      const DealtBasis& basis,
                                      const DealingOptions& dealing) {
  const Matrix sigma = basis.forward.transpose() * layer.moments.covariance * basis.forward;
  std::vector<float> result;
  for (int64_t slice = 0; slice < dealing.num_slices; ++slice) {
    const auto columns = columns_of_slice(dealing, sigma.rows(), slice);
    const Matrix own = regularised(sigma(columns, columns), kRegularisation);
    const Matrix estimate = solve_positive(own, sigma(columns, Eigen::all)) * basis.inverse;
    for (const Matrix& keys : layer.keys) {
      const std::vector<float> head = to_floats(estimate * keys);
      result.insert(result.end(), head.begin(), head.end());
    }
  }
  return result;
}

}  // namespace

std::string_view refit_kind_name(RefitKind kind) noexcept {
  return kind == RefitKind::kNone ? "none" : "least_squares";
}

std::optional<RefitKind> parse_refit_kind(std::string_view name) noexcept {
  for (const RefitKind kind : {RefitKind::kNone, RefitKind::kLeastSquares}) {
    if (refit_kind_name(kind) == name) {
      return kind;
    }
  }
  return std::nullopt;
}

double default_logit_factor(const LatentBasis& basis, const DealingOptions& dealing) noexcept {
  const bool is_mixed = basis.is_mixed || is_mixing(dealing.kind);
  return is_mixed ? static_cast<double>(dealing.num_slices) : 1.0;
}

TplaCalibration::Layer calibrate_layer(const LayerKnowledge& layer,
                                       const LatentBasis& basis,
                                       const CutOptions& options) {
  const int64_t width = basis.forward.rows();
  TplaCalibration::Layer result;
  result.num_shared = options.dealing.num_shared;
  if (result.num_shared == width) {
    result.basis = to_floats(Matrix::Identity(width, width));
    return result;
  }
  const DealtBasis cut = dealt(basis, options.dealing);
  result.basis = to_floats(cut.forward);
  if (!basis.is_orthogonal) {
    result.inverse = to_floats(cut.inverse);
  }
  result.logit_factor = options.logit_factor.value_or(default_logit_factor(basis, options.dealing));
  if (options.refit == RefitKind::kLeastSquares) {
    result.keys = least_squares_keys(layer, cut, options.dealing);
  }
  return result;
}

}  // namespace tessera
