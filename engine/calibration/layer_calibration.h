// One layer of a calibration file, from what is known of the layer and how it is to be cut. Pure
// functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "engine/calibration/dealing.h"
#include "engine/calibration/latent_basis.h"
#include "engine/calibration/layer_knowledge.h"
#include "engine/weights/tpla_calibration.h"

namespace tessera {

enum class RefitKind : uint8_t {
  kNone,  ///< the basis's own keys, times the logit factor
  /// Of each head, the best linear estimate of the whole logit from what a slice holds, under the
  /// head's attention.
  kLeastSquares,
  kGradient,  ///< from there, gradient descent on the attention's output (key_fit.h)
};

[[nodiscard]] std::string_view refit_kind_name(RefitKind kind) noexcept;
[[nodiscard]] std::optional<RefitKind> parse_refit_kind(std::string_view name) noexcept;

enum class LogitFactorKind : uint8_t {
  kAuto,   ///< default_logit_factor()
  kGiven,  ///< one number for all slices
  /// One over the slice's part of the latents' centred variance, of the columns that are split; a
  /// number of its own for each slice. Source: TPLA (arXiv 2508.15881), eq. 18.
  kShare,
};

/// What the basis's own keys are multiplied by for the columns that a slice has alone.
struct LogitFactor {
  LogitFactorKind kind = LogitFactorKind::kAuto;
  double value = 1.0;  ///< of kGiven
};

struct CutOptions {
  DealingOptions dealing;
  LogitFactor logit_factor = {};  ///< without a refit
  RefitKind refit = RefitKind::kNone;
};

/// g where slices are mixed (a slice's part of the logit is a g-th of all of it), else 1.
[[nodiscard]] double default_logit_factor(const LatentBasis& basis,
                                          const DealingOptions& dealing) noexcept;

struct CutLayer {
  /// The basis with its directions dealt, its inverse, factor and keys. With all columns shared:
  /// the latents as they are.
  TplaCalibration::Layer calibration;
  /// How wrong the slices' logits are under the model's own attention, as far as it matters: sum
  /// over slices and heads of v_h E_t[tr(Cov_a(n)) Var_a(slice's logit - logit)]. 0 with all
  /// columns shared. Only its ratio to that of another cut of the same layer means anything: the
  /// harm of small errors is proportional to it.
  double logit_error = 0.0;
};

[[nodiscard]] CutLayer cut_layer(const LayerKnowledge& layer,
                                 const LatentBasis& basis,
                                 const CutOptions& options);

}  // namespace tessera
