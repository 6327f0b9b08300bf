// How a layer's latents are rotated before they are cut into slices, and by what a slice's logits
// are scaled: folded into the weights while they load. Orthogonal bases only: the norm stands
// between the down-projection and the cache, and only a rotation passes through it.
// Source: TPLA (arXiv 2508.15881), section on reparametrisation.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/config/model_config.h"

namespace tessera {

class TplaTransform final {
 public:
  /// Latents as the checkpoint has them.
  TplaTransform() = default;
  /// U = diag(signs) H of every layer: H a Sylvester Hadamard matrix / sqrt(n), n the largest power
  /// of two that divides kv_lora_rank (so blocks of n columns where it is none itself); signs a
  /// function of `seed` and the layer. Errors: INVALID_ARGUMENT when no slice would be mixed: n is
  /// less than 8.
  [[nodiscard]] static Result<TplaTransform> hadamard(const ModelConfig& config, uint64_t seed);
  /// Reads a calibration file: safetensors `layers.<l>.basis` [R, R] float32 of every layer, and in
  /// its metadata `format` ("tessera-tpla-calibration-1"), `model_fingerprint`, `basis` (its name)
  /// and, if it says, `alpha`: one number a layer, separated by commas.
  /// Errors: NOT_FOUND; INVALID_ARGUMENT with every fault, each naming both values (another model,
  /// sizes, a basis that is not orthogonal).
  [[nodiscard]] static Result<TplaTransform> load(const std::string& path,
                                                  const ModelConfig& config);

  /// "none", "hadamard:<seed>" or the calibration's name of it.
  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  [[nodiscard]] bool is_identity() const noexcept { return bases_.empty(); }
  /// What of it decides the bytes of a cache: equal texts, equal rotations. Gains are not in it.
  [[nodiscard]] const std::string& fingerprint() const noexcept { return fingerprint_; }
  /// U [R, R], row-major; empty for the identity.
  [[nodiscard]] std::span<const float> basis(int64_t layer) const noexcept;
  /// alpha: what a slice's part of the logit is multiplied by to estimate the whole. `num_slices`
  /// unless the calibration says otherwise.
  [[nodiscard]] double logit_factor(int64_t layer, int64_t num_slices) const noexcept;

  /// rows = U^T rows: `rows` [R, width], the latent rows of kv_a_proj (width 1: of its bias).
  void rotate_rows(int64_t layer, float* rows, int64_t width) const;
  /// rows = rows diag(gamma) U: `rows` [num_rows, R] of kv_b_proj, `gamma` [R] of the latent's
  /// norm.
  void rotate_columns(int64_t layer,
                      std::span<const float> gamma,
                      float* rows,
                      int64_t num_rows) const;

 private:
  void set_fingerprint();

  std::string name_ = "none";
  std::string fingerprint_ = "none";
  int64_t width_ = 0;                      // R
  std::vector<std::vector<float>> bases_;  // one a layer, or none at all
  std::vector<double> factors_;            // one a layer, or none at all
};

}  // namespace tessera
