// What a calibration says of a model's latents, as it lies in one safetensors file: written by
// `tessera calibrate`, read when weights are loaded for sliced attention (tpla).
//
// Letters: R kv_lora_rank, g slices, s a layer's shared columns, w = s + (R - s) / g the columns
// that a rank keeps, H heads, dn qk_nope_head_dim.
// Metadata of the file: `format` (kTplaCalibrationFormat), `model_fingerprint`
// (model_fingerprint(config)), `basis`, `dealing`, `slices`, `shared` and `alpha` (a number a
// layer, separated by commas), `harm` likewise if it was measured, `window` (first and last tokens,
// separated by a comma) if there is one, and `report`.
// Tensors, float32: `layers.<l>.basis` [R, R]; `layers.<l>.inverse` [R, R] unless the basis is
// orthogonal; `layers.<l>.keys` [g, H, w, dn] if the keys were fitted.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/config/model_config.h"
#include "kernels/ops/latent_window.h"

namespace tessera {

inline constexpr const char* kTplaCalibrationFormat = "tessera-tpla-calibration-1";
/// The file's name inside a checkpoint's folder, where it is found without being named.
inline constexpr const char* kTplaCalibrationFile = "tpla_calibration.safetensors";

struct TplaCalibration {
  struct Layer {
    /// A [R, R], row-major: the cache holds n A, where n is the latent divided by its root mean
    /// square (without the norm's weight). Columns in the order shared, own of slice 0, own of
    /// slice 1, ...; the basis already contains the dealing of directions to slices.
    std::vector<float> basis;
    /// A^-1; empty when A is orthogonal. Such a basis is folded into the down-projection; any other
    /// is a product of its own behind the norm.
    std::vector<float> inverse;
    int64_t num_shared = 0;  ///< s: 0 is plain tpla, R keeps everything on every rank
    /// Multiplies a slice's own part of the logit; never the shared part nor the rope part.
    double logit_factor = 1.0;
    /// [g, H, w, dn]: replaces, for slice i, what a query is multiplied by to match rows of the
    /// slice (columns in the order of kernels::LatentColumns::of_slice). Empty: the basis's own
    /// keys times logit_factor.
    std::vector<float> keys;
    double harm = 0.0;  ///< mean divergence, nats a token, when this layer alone is sliced so
  };

  std::string basis;    ///< "balanced", "pca", ...
  std::string dealing;  ///< "fold", "contiguous", ...
  int64_t num_slices = 0;
  std::vector<Layer> layers;
  /// Tokens whose latents every rank keeps whole, in the layers that are sliced.
  kernels::LatentWindow window = {};
  /// JSON object for people and for the log: texts, tokens, budget, and under "quality" what was
  /// measured on held-out text ("kl", "perplexity", "exact_perplexity", "top1_agreement",
  /// "prefill_tokens", "decode_tokens"). "{}" when nothing was.
  std::string report = "{}";
};

/// Writes the file as a whole or not at all (beside it, then renamed). Errors: INVALID_ARGUMENT
/// (sizes that contradict each other), INTERNAL naming the path and the system's reason.
[[nodiscard]] Status write_tpla_calibration(const std::string& path,
                                            const ModelConfig& config,
                                            const TplaCalibration& calibration);

/// Reads and checks the file. Errors: NOT_FOUND; INVALID_ARGUMENT with every fault, each naming
/// both values (another model, sizes, a basis whose inverse is not its inverse).
[[nodiscard]] Result<TplaCalibration> read_tpla_calibration(const std::string& path,
                                                            const ModelConfig& config);

}  // namespace tessera
