// How a layer's latents are changed before they are cut into slices, and what a slice's queries are
// multiplied by: folded into the weights while they load. An orthogonal basis passes through the
// norm and is folded into the down-projection; any other is a product of its own behind the norm.
// Source: TPLA (arXiv 2508.15881), section on reparametrisation; shared columns, bases that are not
// orthogonal and fitted keys are not in it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/config/model_config.h"
#include "engine/weights/tpla_calibration.h"

namespace tessera {

class TplaTransform final {
 public:
  /// Latents as the checkpoint has them.
  TplaTransform() = default;
  /// The seed of everybody who is told none: prefill workers and decode groups must rotate alike.
  static constexpr uint64_t kHadamardSeed = 0;
  /// U = diag(signs) H of every layer: H a Sylvester Hadamard matrix / sqrt(n), n the largest power
  /// of two that divides kv_lora_rank (so blocks of n columns where it is none itself); signs a
  /// function of `seed` and the layer. Errors: INVALID_ARGUMENT when no slice would be mixed: n is
  /// less than 8.
  [[nodiscard]] static Result<TplaTransform> hadamard(const ModelConfig& config, uint64_t seed);
  /// A calibration, checked by read_tpla_calibration() or made here.
  [[nodiscard]] static TplaTransform create(const ModelConfig& config, TplaCalibration calibration);
  /// read_tpla_calibration(), then create().
  [[nodiscard]] static Result<TplaTransform> load(const std::string& path,
                                                  const ModelConfig& config);

  /// "none", "hadamard:<seed>", or basis and dealing of the calibration.
  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  [[nodiscard]] bool is_identity() const noexcept { return layers_.empty(); }
  /// What of it decides the bytes of a cache: equal texts, equal bases, slices, shared columns and
  /// window. Logit factors and fitted keys are not in it.
  [[nodiscard]] const std::string& fingerprint() const noexcept { return fingerprint_; }
  /// g that it was calibrated for; 0: any.
  [[nodiscard]] int64_t num_slices() const noexcept { return num_slices_; }
  /// s of each layer; empty: none anywhere.
  [[nodiscard]] std::vector<int64_t> shared_columns() const;
  /// Tokens whose latents are kept whole; empty: none.
  [[nodiscard]] const kernels::LatentWindow& window() const noexcept { return window_; }
  /// The calibration's report, JSON; empty without one.
  [[nodiscard]] const std::string& report() const noexcept { return report_; }

  /// Whether the layer's basis is folded into the down-projection (orthogonal, or none at all).
  [[nodiscard]] bool is_folded(int64_t layer) const noexcept;
  /// A [R, R], row-major; empty for the identity.
  [[nodiscard]] std::span<const float> basis(int64_t layer) const noexcept;
  /// alpha: what a slice's own part of the logit is multiplied by to estimate the whole.
  /// `num_slices` unless the calibration says otherwise.
  [[nodiscard]] double logit_factor(int64_t layer, int64_t num_slices) const noexcept;
  /// [H, w, dn] of one slice; empty: not fitted.
  [[nodiscard]] std::span<const float> keys(int64_t layer, int64_t slice) const noexcept;

  /// rows = A^T rows: `rows` [R, width], the latent rows of kv_a_proj (width 1: of its bias). Only
  /// of a folded basis.
  void rotate_rows(int64_t layer, float* rows, int64_t width) const;
  /// rows = rows diag(gamma) A^-T: `rows` [num_rows, R] of kv_b_proj, `gamma` [R] of the latent's
  /// norm.
  void rotate_columns(int64_t layer,
                      std::span<const float> gamma,
                      float* rows,
                      int64_t num_rows) const;

 private:
  void set_fingerprint();
  [[nodiscard]] const TplaCalibration::Layer& layer(int64_t index) const noexcept;
  [[nodiscard]] std::vector<float> inverse_transposed(int64_t layer) const;

  std::string name_ = "none";
  std::string fingerprint_ = "none";
  std::string report_;
  int64_t width_ = 0;       // R
  int64_t num_slices_ = 0;  // 0: any
  bool has_factors_ = false;
  kernels::LatentWindow window_;
  std::vector<TplaCalibration::Layer> layers_;  // one a layer, or none at all
};

}  // namespace tessera
