// Which part of a model one rank holds: arithmetic only. Ranges are half-open.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/base/result.h"
#include "engine/config/model_config.h"
#include "kernels/ops/latent_columns.h"
#include "kernels/ops/latent_window.h"

namespace tessera {

/// How the ranks of a group share the attention over the latent cache.
enum class AttentionSharding : uint8_t {
  kReplicated,  ///< heads split, latents on every rank: exact
  kTpla,        ///< latents split into slices, heads split between groups of slices: approximate
  kDcp,         ///< tokens striped over ranks block by block, all heads on every rank: exact
};

/// "replicated", "tpla", "dcp".
[[nodiscard]] std::string_view attention_sharding_name(AttentionSharding sharding) noexcept;

struct IndexRange {
  int64_t begin = 0;
  int64_t end = 0;
  [[nodiscard]] int64_t size() const noexcept { return end - begin; }
  friend bool operator==(const IndexRange&, const IndexRange&) = default;
};

/// What a whole group is told.
struct ShardOptions {
  AttentionSharding attention = AttentionSharding::kReplicated;
  int64_t num_ranks = 1;
  int64_t num_slices = 1;  ///< g, kTpla only
  /// s of each layer, kTpla with g > 1 only; empty: none anywhere. A layer whose latent is shared
  /// whole (s = R) is stored and computed as kReplicated does.
  std::vector<int64_t> shared_columns = {};
  /// Tokens whose latents are kept whole in every layer that is sliced; kTpla with g > 1 only.
  kernels::LatentWindow window = {};
};

/// Most tokens of either part of an exact window.
inline constexpr int64_t kMaxWindowTokens = 16'384;

/// Checks that the model can be divided so. Errors: INVALID_ARGUMENT with every fault, one a line,
/// each naming both values.
[[nodiscard]] Status validate_sharding(const ModelConfig& config, const ShardOptions& options);

/// The part of it that is about latents: that they can be cut into `num_slices` slices with so many
/// shared columns a layer (empty: none), on whatever ranks.
[[nodiscard]] Status validate_slices(const ModelConfig& config,
                                     int64_t num_slices,
                                     const std::vector<int64_t>& shared_columns);

/// The sizes of an exact window. Errors: INVALID_ARGUMENT naming both.
[[nodiscard]] Status validate_window(const kernels::LatentWindow& window);

/// One rank's part. The ranks of a head group are consecutive and hold one slice each.
struct ShardPlan {
  AttentionSharding attention = AttentionSharding::kReplicated;
  int64_t num_ranks = 1;
  int64_t rank = 0;
  int64_t num_slices = 1;
  int64_t slice = 0;       ///< rank mod num_slices
  int64_t head_group = 0;  ///< rank div num_slices
  IndexRange own_heads;    ///< of prefill and o_proj; inside every layer's decode_heads
  struct Layer {
    IndexRange decode_heads;  ///< heads whose decode rows are computed over what this rank caches
    kernels::LatentColumns columns;  ///< cached here
    int64_t num_shared = 0;          ///< s: the row's first columns that every rank keeps, kTpla
    /// Ranks whose decode rows are parts of the same heads: their partial values are added up.
    int64_t group_size = 1;
  };
  std::vector<Layer> layers;
  kernels::LatentWindow window;  ///< kept whole beside the slices, in the layers that are sliced
  IndexRange experts;
  IndexRange vocabulary;  ///< rows of lm_head

  /// `config` is valid. Errors: those of validate_sharding, and INVALID_ARGUMENT for a rank out of
  /// range.
  [[nodiscard]] static Result<ShardPlan> create(const ModelConfig& config,
                                                const ShardOptions& options,
                                                int64_t rank);

  /// This rank's part of an MLP's `width` inner features (uneven when they do not divide).
  [[nodiscard]] IndexRange inner_features(int64_t width) const noexcept;
  /// What slice `slice` of `num_slices` keeps of a layer of `num_shared` shared columns.
  [[nodiscard]] static kernels::LatentColumns slice_columns(const ModelConfig& config,
                                                            int64_t num_shared,
                                                            int64_t slice,
                                                            int64_t num_slices) noexcept;
  /// The largest group_size of the layers.
  [[nodiscard]] int64_t attention_group_size() const noexcept;
  [[nodiscard]] const Layer& layer(int64_t index) const noexcept {
    return layers[static_cast<size_t>(index)];
  }
  /// Whether this rank keeps only a slice of the layer's latents.
  [[nodiscard]] bool is_sliced(int64_t index) const noexcept {
    return attention == AttentionSharding::kTpla && layer(index).group_size > 1;
  }
  /// By layer.
  [[nodiscard]] std::vector<bool> sliced_layers() const;
};

}  // namespace tessera
