#include "engine/weights/shard_plan.h"

#include <string>

#include "engine/base/text.h"

namespace tessera {
namespace {

/// Columns of a slice are read in vectors of this many.
constexpr int64_t kColumnStep = 8;

IndexRange part(int64_t size, int64_t index, int64_t count) {
  return {size * index / count, size * (index + 1) / count};
}

class Faults {
 public:
  void require(bool condition, const std::string& fault) {
    if (!condition) {
      text_ += (text_.empty() ? "" : "\n") + fault;
    }
  }
  void divides(const char* name, int64_t value, const char* by_name, int64_t by) {
    require(value % by == 0, str_cat(name, " ", value, " is not divisible by ", by_name, " ", by));
  }
  void at_least(const char* name, int64_t value, int64_t num_ranks) {
    require(value >= num_ranks, str_cat(name, " ", value, " is less than num_ranks ", num_ranks));
  }
  [[nodiscard]] Status status() const {
    return text_.empty() ? Status::ok() : invalid_argument(text_);
  }

 private:
  std::string text_;
};

void check_slices(const ModelConfig& config, const ShardOptions& options, Faults& faults) {
  const int64_t slices = options.num_slices;
  if (options.attention != AttentionSharding::kTpla) {
    faults.require(slices == 1,
                   str_cat("num_slices is ",
                           slices,
                           ", expected 1 with attention sharding ",
                           attention_sharding_name(options.attention)));
    return;
  }
  if (slices < 1) {
    faults.require(false, str_cat("num_slices is ", slices, ", expected 1 or more"));
    return;
  }
  faults.divides("num_ranks", options.num_ranks, "num_slices", slices);
  faults.divides("kv_lora_rank", config.kv_lora_rank, "num_slices", slices);
  const int64_t width = config.kv_lora_rank / slices;
  faults.require(slices == 1 || width % kColumnStep == 0,
                 str_cat("a slice of kv_lora_rank ",
                         config.kv_lora_rank,
                         " / num_slices ",
                         slices,
                         " = ",
                         width,
                         " columns is not a multiple of ",
                         kColumnStep));
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

Status validate_sharding(const ModelConfig& config, const ShardOptions& options) {
  if (options.num_ranks < 1) {
    return invalid_argument(str_cat("num_ranks is ", options.num_ranks, ", expected 1 or more"));
  }
  Faults faults;
  const int64_t ranks = options.num_ranks;
  faults.divides("num_attention_heads", config.num_attention_heads, "num_ranks", ranks);
  check_slices(config, options, faults);
  faults.at_least("vocab_size", config.vocab_size, ranks);
  bool has_dense = false;
  bool has_experts = false;
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    (config.is_moe_layer(layer) ? has_experts : has_dense) = true;
  }
  if (has_dense) {
    faults.at_least("intermediate_size", config.intermediate_size, ranks);
  }
  if (has_experts) {
    faults.at_least("n_routed_experts", config.n_routed_experts, ranks);
  }
  if (has_experts && config.n_shared_experts > 0) {
    faults.at_least("the width of the shared experts",
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
  const int64_t heads = config.num_attention_heads;
  ShardPlan plan;
  plan.attention = options.attention;
  plan.num_ranks = options.num_ranks;
  plan.rank = rank;
  plan.num_slices = options.num_slices;
  plan.slice = rank % options.num_slices;
  plan.head_group = rank / options.num_slices;
  plan.own_heads = part(heads, rank, options.num_ranks);
  plan.decode_heads = options.attention == AttentionSharding::kDcp
                          ? IndexRange{0, heads}
                          : part(heads, plan.head_group, options.num_ranks / options.num_slices);
  plan.latent_columns.assign(static_cast<size_t>(config.num_hidden_layers),
                             part(config.kv_lora_rank, plan.slice, options.num_slices));
  plan.experts = part(config.n_routed_experts, rank, options.num_ranks);
  plan.vocabulary = part(config.vocab_size, rank, options.num_ranks);
  return plan;
}

IndexRange ShardPlan::inner_features(int64_t width) const noexcept {
  return part(width, rank, num_ranks);
}

int64_t ShardPlan::attention_group_size() const noexcept {
  return attention == AttentionSharding::kDcp ? num_ranks : num_slices;
}

}  // namespace tessera
