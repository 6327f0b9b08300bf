#include "engine/weights/shard_plan.h"

#include <algorithm>
#include <string>

#include "engine/base/text.h"
#include "engine/weights/fault_list.h"

namespace tessera {
namespace {

/// Every range of columns in a cache row is a multiple of this: 16 bytes of float32, 8 of bfloat16,
/// so that ranges are copied in whole words on every backend. No coarser, because a range is one of
/// g parts of the shared columns or of the rest: small latents leave no choice of s otherwise.
constexpr int64_t kColumnStep = 4;

IndexRange part(int64_t size, int64_t index, int64_t count) {
  return {size * index / count, size * (index + 1) / count};
}

void divides(FaultList& faults, const char* name, int64_t value, const char* by_name, int64_t by) {
  faults.require(value % by == 0,
                 str_cat(name, " ", value, " is not divisible by ", by_name, " ", by));
}

void at_least(FaultList& faults, const char* name, int64_t value, int64_t num_ranks) {
  faults.require(value >= num_ranks,
                 str_cat(name, " ", value, " is less than num_ranks ", num_ranks));
}

void check_shared_columns(const ModelConfig& config,
                          int64_t num_slices,
                          const std::vector<int64_t>& shared,
                          FaultList& faults) {
  if (static_cast<int64_t>(shared.size()) != config.num_hidden_layers) {
    faults.add(str_cat("shared columns of ",
                       shared.size(),
                       " layers, expected num_hidden_layers ",
                       config.num_hidden_layers));
    return;
  }
  const int64_t step = kColumnStep * num_slices;
  for (size_t layer = 0; layer < shared.size(); ++layer) {
    const int64_t s = shared[layer];
    const std::string name = str_cat("layer ", layer, ": ", s, " shared columns");
    if (s < 0 || s > config.kv_lora_rank) {
      faults.add(str_cat(name, ", expected 0 to kv_lora_rank ", config.kv_lora_rank));
      continue;
    }
    const std::string rule =
        str_cat(" multiple of ", step, " (num_slices ", num_slices, " times ", kColumnStep, ")");
    faults.require(s % step == 0, str_cat(name, " are not a", rule));
    faults.require((config.kv_lora_rank - s) % step == 0,
                   str_cat(name,
                           " leave ",
                           config.kv_lora_rank - s,
                           " of kv_lora_rank ",
                           config.kv_lora_rank,
                           ", not a",
                           rule));
  }
}

/// "4+16": first and last.
std::string window_text(const kernels::LatentWindow& window) {
  return str_cat(window.num_first, "+", window.num_last);
}

void check_slices(const ModelConfig& config, const ShardOptions& options, FaultList& faults) {
  const int64_t slices = options.num_slices;
  const bool is_tpla = options.attention == AttentionSharding::kTpla;
  if (!is_tpla) {
    faults.require(slices == 1,
                   str_cat("num_slices is ",
                           slices,
                           ", expected 1 with attention sharding ",
                           attention_sharding_name(options.attention)));
  }
  if ((!is_tpla || slices == 1) && !options.shared_columns.empty()) {
    faults.add(str_cat("shared columns with attention sharding ",
                       attention_sharding_name(options.attention),
                       " of ",
                       slices,
                       " slices, expected tpla of 2 or more"));
    return;
  }
  if ((!is_tpla || slices == 1) && !options.window.is_empty()) {
    faults.add(str_cat("an exact window of ",
                       window_text(options.window),
                       " tokens with attention sharding ",
                       attention_sharding_name(options.attention),
                       " of ",
                       slices,
                       " slices, expected tpla of 2 or more"));
  }
  faults.add(validate_window(options.window));
  if (is_tpla && slices >= 1) {
    divides(faults, "num_ranks", options.num_ranks, "num_slices", slices);
  }
  if (is_tpla) {
    faults.add(validate_slices(config, slices, options.shared_columns));
  }
}

ShardPlan::Layer make_layer(const ModelConfig& config,
                            const ShardOptions& options,
                            const ShardPlan& plan,
                            size_t index) {
  const int64_t heads = config.num_attention_heads;
  const int64_t shared = options.shared_columns.empty() ? 0 : options.shared_columns[index];
  ShardPlan::Layer layer;
  layer.columns = ShardPlan::slice_columns(config, shared, plan.slice, plan.num_slices);
  layer.num_shared = shared;
  layer.decode_heads = plan.own_heads;
  if (options.attention == AttentionSharding::kDcp) {
    layer.decode_heads = {0, heads};
    layer.group_size = plan.num_ranks;
  } else if (layer.columns.width() < config.kv_lora_rank) {
    layer.decode_heads = part(heads, plan.head_group, plan.num_ranks / plan.num_slices);
    layer.group_size = plan.num_slices;
  }
  return layer;
}

}  // namespace

std::string_view attention_sharding_name(AttentionSharding sharding) noexcept {
  switch (sharding) {
    case AttentionSharding::kReplicated:
      return "replicated";
    case AttentionSharding::kTpla:
      return "tpla";
    case AttentionSharding::kDcp:
      return "dcp";
  }
  return "";
}

Status validate_slices(const ModelConfig& config,
                       int64_t num_slices,
                       const std::vector<int64_t>& shared_columns) {
  if (num_slices < 1) {
    return invalid_argument(str_cat("num_slices is ", num_slices, ", expected 1 or more"));
  }
  FaultList faults;
  divides(faults, "kv_lora_rank", config.kv_lora_rank, "num_slices", num_slices);
  const int64_t width = config.kv_lora_rank / num_slices;
  faults.require(num_slices == 1 || width % kColumnStep == 0,
                 str_cat("a slice of kv_lora_rank ",
                         config.kv_lora_rank,
                         " / num_slices ",
                         num_slices,
                         " = ",
                         width,
                         " columns is not a multiple of ",
                         kColumnStep));
  if (!shared_columns.empty()) {
    check_shared_columns(config, num_slices, shared_columns, faults);
  }
  return faults.status();
}

Status validate_window(const kernels::LatentWindow& window) {
  const auto is_possible = [](int64_t size) { return size >= 0 && size <= kMaxWindowTokens; };
  if (is_possible(window.num_first) && is_possible(window.num_last)) {
    return Status::ok();
  }
  return invalid_argument(str_cat("the exact window is of ",
                                  window_text(window),
                                  " tokens (first and last), expected 0 to ",
                                  kMaxWindowTokens,
                                  " of either"));
}

Status validate_sharding(const ModelConfig& config, const ShardOptions& options) {
  if (options.num_ranks < 1) {
    return invalid_argument(str_cat("num_ranks is ", options.num_ranks, ", expected 1 or more"));
  }
  FaultList faults;
  const int64_t ranks = options.num_ranks;
  divides(faults, "num_attention_heads", config.num_attention_heads, "num_ranks", ranks);
  check_slices(config, options, faults);
  at_least(faults, "vocab_size", config.vocab_size, ranks);
  bool has_dense = false;
  bool has_experts = false;
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    (config.is_moe_layer(layer) ? has_experts : has_dense) = true;
  }
  if (has_dense) {
    at_least(faults, "intermediate_size", config.intermediate_size, ranks);
  }
  if (has_experts) {
    at_least(faults, "n_routed_experts", config.n_routed_experts, ranks);
  }
  if (has_experts && config.n_shared_experts > 0) {
    at_least(faults,
             "the width of the shared experts",
             config.n_shared_experts * config.moe_intermediate_size,
             ranks);
  }
  return faults.status();
}

Result<ShardPlan> ShardPlan::create(const ModelConfig& config,
                                    const ShardOptions& options,
                                    int64_t rank) {
  TESSERA_RETURN_IF_ERROR(validate_sharding(config, options));
  if (rank < 0 || rank >= options.num_ranks) {
    return invalid_argument(str_cat("rank ", rank, " of num_ranks ", options.num_ranks));
  }
  ShardPlan plan;
  plan.attention = options.attention;
  plan.num_ranks = options.num_ranks;
  plan.rank = rank;
  plan.num_slices = options.num_slices;
  plan.slice = rank % options.num_slices;
  plan.head_group = rank / options.num_slices;
  plan.own_heads = part(config.num_attention_heads, rank, options.num_ranks);
  plan.window = options.window;
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    plan.layers.push_back(make_layer(config, options, plan, static_cast<size_t>(layer)));
  }
  plan.experts = part(config.n_routed_experts, rank, options.num_ranks);
  plan.vocabulary = part(config.vocab_size, rank, options.num_ranks);
  return plan;
}

IndexRange ShardPlan::inner_features(int64_t width) const noexcept {
  return part(width, rank, num_ranks);
}

kernels::LatentColumns ShardPlan::slice_columns(const ModelConfig& config,
                                                int64_t num_shared,
                                                int64_t slice,
                                                int64_t num_slices) noexcept {
  const int64_t width = config.kv_lora_rank;
  return num_slices == 1 || num_shared == width
             ? kernels::LatentColumns::all(width)
             : kernels::LatentColumns::of_slice(width, num_shared, slice, num_slices);
}

std::vector<bool> ShardPlan::sliced_layers() const {
  std::vector<bool> sliced;
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    sliced.push_back(is_sliced(static_cast<int64_t>(layer)));
  }
  return sliced;
}

int64_t ShardPlan::attention_group_size() const noexcept {
  int64_t size = 1;
  for (const Layer& layer : layers) {
    size = std::max(size, layer.group_size);
  }
  return size;
}

}  // namespace tessera
