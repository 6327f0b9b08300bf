#include "engine/calibration/layer_calibration.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "kernels/ops/latent_columns.h"

namespace tessera {
namespace {

/// Keeps keys finite where a direction of a slice does not vary.
constexpr double kRegularisation = 1e-4;
/// Keeps the factor of a slice that does not vary finite.
constexpr double kLeastShare = 1e-6;

std::vector<float> to_floats(const Matrix& matrix) {
  const FloatMatrix rows = matrix.cast<float>();
  return {rows.data(), rows.data() + rows.size()};
}

void append_floats(const std::vector<Matrix>& matrices, std::vector<float>& out) {
  for (const Matrix& matrix : matrices) {
    const std::vector<float> values = to_floats(matrix);
    out.insert(out.end(), values.begin(), values.end());
  }
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

/// In the order of the slice's rows.
std::vector<Eigen::Index> columns_of_slice(const DealingOptions& dealing,
                                           int64_t width,
                                           int64_t slice) {
  const auto kept =
      kernels::LatentColumns::of_slice(width, dealing.num_shared, slice, dealing.num_slices);
  std::vector<Eigen::Index> columns;
  for (const kernels::ColumnRange& range : kept.ranges) {
    for (int64_t column = range.begin; column < range.begin + range.count; ++column) {
      columns.push_back(column);
    }
  }
  return columns;
}

/// What a slice multiplies queries by, of one layer cut in one way.
class SliceKeys final {
 public:
  SliceKeys(const LayerKnowledge& layer, const DealtBasis& basis, const CutOptions& options)
      : layer_(layer), basis_(basis), options_(options) {}

  /// Keys become the slice's: [w, dn] of each head.
  [[nodiscard]] std::vector<Matrix> of_slice(int64_t slice, double logit_factor) {
    const auto columns = columns_of(slice);
    const Matrix forward = basis_.forward(Eigen::all, columns);
    Matrix estimate = basis_.inverse(columns, Eigen::all);
    const int64_t shared = options_.dealing.num_shared;
    estimate.bottomRows(estimate.rows() - shared) *= logit_factor;
    std::vector<Matrix> keys;
    int64_t group = -1;
    for (const HeadKnowledge& head : layer_.heads) {
      const Matrix& covariance = covariance_of(head);
      if (options_.refit != RefitKind::kNone && head.covariance_group != group) {
        group = head.covariance_group;
        estimate = least_squares(covariance, forward);
      }
      keys.emplace_back(estimate * head.keys);
      const Matrix error = forward * keys.back() - head.keys;  // [R, dn]
      const Matrix variance = error.transpose() * covariance * error;
      logit_error_ += head.value_weight * variance.cwiseProduct(head.query_moment).sum();
    }
    return keys;
  }
  /// The part that a slice's own columns have of the variance of all columns that are split.
  [[nodiscard]] double share_of(int64_t slice) const {
    const Matrix& covariance = layer_.latent_covariance;
    const int64_t shared = options_.dealing.num_shared;
    const Vector variances =
        (basis_.forward.transpose() * covariance * basis_.forward).diagonal().cwiseMax(0.0);
    const auto columns = columns_of(slice);
    const double own = variances(columns).tail(static_cast<int64_t>(columns.size()) - shared).sum();
    return own / std::max(variances.tail(variances.size() - shared).sum(), 1e-300);
  }
  /// Of all slices so far.
  [[nodiscard]] double logit_error() const noexcept { return logit_error_; }

 private:
  [[nodiscard]] std::vector<Eigen::Index> columns_of(int64_t slice) const {
    return columns_of_slice(options_.dealing, basis_.forward.cols(), slice);
  }
  [[nodiscard]] const Matrix& covariance_of(const HeadKnowledge& head) const {
    return layer_.attention_covariances[static_cast<size_t>(head.covariance_group)];
  }
  /// B the slice's columns of A, C the covariance of n: of all linear functions of n B the nearest
  /// to n x is n B (B^T C B)^-1 B^T C x.
  static Matrix least_squares(const Matrix& covariance, const Matrix& forward) {
    const Matrix right = forward.transpose() * covariance;
    return solve_positive(regularised(right * forward, kRegularisation), right);
  }

  const LayerKnowledge& layer_;
  const DealtBasis& basis_;
  const CutOptions& options_;
  double logit_error_ = 0.0;
};

}  // namespace

std::string_view refit_kind_name(RefitKind kind) noexcept {
  switch (kind) {
    case RefitKind::kNone:
      return "none";
    case RefitKind::kLeastSquares:
      return "least_squares";
    case RefitKind::kGradient:
      break;
  }
  return "gradient";
}

std::optional<RefitKind> parse_refit_kind(std::string_view name) noexcept {
  for (const RefitKind kind : {RefitKind::kNone, RefitKind::kLeastSquares, RefitKind::kGradient}) {
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

CutLayer cut_layer(const LayerKnowledge& layer,
                   const LatentBasis& basis,
                   const CutOptions& options) {
  const int64_t width = basis.forward.rows();
  CutLayer cut;
  TplaCalibration::Layer& result = cut.calibration;
  result.num_shared = options.dealing.num_shared;
  if (result.num_shared == width) {
    result.basis = to_floats(Matrix::Identity(width, width));
    return cut;
  }
  const DealtBasis columns = dealt(basis, options.dealing);
  result.basis = to_floats(columns.forward);
  if (!basis.is_orthogonal) {
    result.inverse = to_floats(columns.inverse);
  }
  const LogitFactor& factor = options.logit_factor;
  if (factor.kind == LogitFactorKind::kAuto) {
    result.logit_factor = default_logit_factor(basis, options.dealing);
  } else if (factor.kind == LogitFactorKind::kGiven) {
    result.logit_factor = factor.value;
  }
  const bool is_share = factor.kind == LogitFactorKind::kShare;
  SliceKeys slices(layer, columns, options);
  for (int64_t slice = 0; slice < options.dealing.num_slices; ++slice) {
    const double own =
        is_share ? 1.0 / std::max(slices.share_of(slice), kLeastShare) : result.logit_factor;
    const std::vector<Matrix> keys = slices.of_slice(slice, own);
    // One factor a layer is all that can be said without keys.
    if (is_share || options.refit != RefitKind::kNone) {
      append_floats(keys, result.keys);
    }
  }
  cut.logit_error = slices.logit_error();
  return cut;
}

}  // namespace tessera
