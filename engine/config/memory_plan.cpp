#include "engine/config/memory_plan.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <limits>
#include <optional>

#include "engine/base/size_text.h"
#include "engine/base/text.h"

namespace tessera {
namespace {

constexpr int64_t kFloatBytes = 4;
constexpr int64_t kFloat8BlockRows = 128;
constexpr int64_t kFloat8BlockColumns = 128;  // what backends that keep FP8 ask for
constexpr int64_t kDefaultCacheLimit = int64_t{4} << 30;

/// Numbers of a layer or a model, by how they are stored.
struct WeightCount {
  int64_t products = 0;  // in the dtype of the products, unless they stay in FP8
  int64_t float8 = 0;    // of products, what may stay in FP8
  int64_t copies = 0;    // of products, stored a second time in another form
  int64_t floats = 0;    // float32 in every dtype
};

void count_attention(const ModelConfig& c, bool is_rotated, WeightCount& count) {
  const int64_t query_width = c.num_attention_heads * c.qk_head_dim();
  const int64_t kv_up =
      c.kv_lora_rank * c.num_attention_heads * (c.qk_nope_head_dim + c.v_head_dim);
  const int64_t input_width =
      (c.q_lora_rank == 0 ? query_width : c.q_lora_rank) + c.latent_row_width();
  const int64_t input = c.hidden_size * input_width;
  const int64_t others =
      c.q_lora_rank * query_width + c.num_attention_heads * c.v_head_dim * c.hidden_size;
  count.products += input + others + kv_up;
  count.float8 += is_rotated ? others : input + others;
  count.copies += kv_up;
  count.floats += c.q_lora_rank + c.kv_lora_rank + 2 * c.hidden_size;
}

WeightCount count_weights(const ModelConfig& c, bool is_rotated) {
  WeightCount count;
  const int64_t table = c.vocab_size * c.hidden_size;
  count.products = c.tie_word_embeddings ? table : 2 * table;
  count.copies = c.tie_word_embeddings ? table : 0;
  count.floats = c.hidden_size;
  for (int64_t layer = 0; layer < c.num_hidden_layers; ++layer) {
    count_attention(c, is_rotated, count);
    if (c.is_moe_layer(layer)) {
      const int64_t experts =
          (c.n_routed_experts + c.n_shared_experts) * 3 * c.hidden_size * c.moe_intermediate_size;
      count.products += experts;
      count.float8 += experts;
      count.floats += c.n_routed_experts * c.hidden_size;
      count.floats += c.topk_method == TopkMethod::kNoauxTc ? c.n_routed_experts : 0;
    } else {
      count.products += 3 * c.hidden_size * c.intermediate_size;
      count.float8 += 3 * c.hidden_size * c.intermediate_size;
    }
  }
  return count;
}

/// Whether every rank's part of a matrix, and every matrix that is stacked on another, begins with
/// a whole block of rows. Elsewhere backends keep scales for each row.
bool has_whole_blocks(const ModelConfig& c, int64_t num_ranks) {
  const int64_t widths[] = {c.intermediate_size,
                            c.moe_intermediate_size,
                            c.num_attention_heads * c.qk_head_dim(),
                            c.q_lora_rank * num_ranks};  // not divided
  return c.quantization->block_rows == kFloat8BlockRows &&
         std::all_of(std::begin(widths), std::end(widths), [&](int64_t width) {
           return width % (kFloat8BlockRows * num_ranks) == 0;
         });
}

/// What FP8 saves of products in `element_bytes`: a byte a number is left, and float32 scales.
int64_t saved_by_float8(const ModelConfig& c,
                        const WeightCount& count,
                        int64_t element_bytes,
                        int64_t num_ranks) {
  if (!c.quantization || c.quantization->block_columns != kFloat8BlockColumns) {
    return 0;
  }
  const int64_t rows = has_whole_blocks(c, num_ranks) ? kFloat8BlockRows : 1;
  return count.float8 * (element_bytes - 1) -
         count.float8 / (rows * kFloat8BlockColumns) * kFloatBytes;
}

int64_t divide_up(int64_t value, int64_t step) {
  return (value + step - 1) / step;
}

std::optional<int64_t> read_number(const char* path) {
  std::ifstream file(path);
  int64_t value = 0;
  return file >> value ? std::optional(value) : std::nullopt;  // "max" reads as no limit
}

/// Blocks that the longest sequence takes while it arrives.
int64_t longest_sequence(const MemoryPlan& plan, const CacheShape& cache) {
  return divide_up(plan.max_model_len, kPlanBlockTokens) + cache.landing_blocks;
}

Result<int64_t> cache_bytes(const MemoryPlan& plan,
                            const WorkerConfig& options,
                            const CacheShape& cache,
                            const MemoryBudget& budget) {
  if (options.num_blocks != 0) {
    return options.num_blocks * plan.bytes_per_block;
  }
  if (options.kv_cache_memory_bytes != 0) {
    return options.kv_cache_memory_bytes;
  }
  const int64_t left =
      plan.available_bytes - plan.weight_bytes - plan.window_bytes - plan.handoff_bytes;
  if (left < plan.bytes_per_block) {
    const std::string windows = plan.window_bytes == 0
                                    ? ""
                                    : str_cat(", the exact windows of ",
                                              options.max_num_seqs,
                                              " sequences ",
                                              format_size_approx(plan.window_bytes));
    const std::string handoff =
        plan.handoff_bytes == 0
            ? ""
            : str_cat(", memory for handoffs ", format_size_approx(plan.handoff_bytes));
    return resource_exhausted(str_cat("the weights need about ",
                                      format_size_approx(plan.weight_bytes),
                                      windows,
                                      handoff,
                                      ", available are ",
                                      format_size_approx(plan.available_bytes)));
  }
  const int64_t sequence = longest_sequence(plan, cache) * plan.bytes_per_block;
  const int64_t all_sequences =
      sequence > std::numeric_limits<int64_t>::max() / options.max_num_seqs
          ? std::numeric_limits<int64_t>::max()
          : sequence * options.max_num_seqs;
  if (budget.is_exclusive) {
    return std::min(left, all_sequences);
  }
  return std::min({left / 2, all_sequences, std::max(kDefaultCacheLimit, sequence)});
}

Status size_cache(const WorkerConfig& options,
                  const CacheShape& cache,
                  const MemoryBudget& budget,
                  MemoryPlan& plan) {
  TESSERA_TRY(const int64_t bytes, cache_bytes(plan, options, cache, budget));
  plan.num_blocks = bytes / plan.bytes_per_block;
  plan.kv_cache_bytes = plan.num_blocks * plan.bytes_per_block;
  const int64_t needed = longest_sequence(plan, cache);
  if (plan.num_blocks >= needed) {
    return Status::ok();
  }
  if (options.max_model_len != 0 || plan.num_blocks <= cache.landing_blocks) {
    return resource_exhausted(str_cat("a sequence of ",
                                      plan.max_model_len,
                                      " tokens needs ",
                                      needed,
                                      " blocks (",
                                      format_size_approx(needed * plan.bytes_per_block),
                                      "), the cache holds ",
                                      plan.num_blocks,
                                      ": lower --max-model-len or raise --kv-cache-memory"));
  }
  plan.max_model_len = (plan.num_blocks - cache.landing_blocks) * kPlanBlockTokens;
  plan.is_context_reduced = true;
  return Status::ok();
}

std::string with_millions(int64_t count) {
  std::array<char, 48> text{};
  std::snprintf(text.data(), text.size(), "%.2f million", static_cast<double>(count) / 1e6);
  return text.data();
}

/// What each rank keeps of a token, where it is not just everything once.
std::string rank_line(const MemoryPlan& plan) {
  if (plan.kv_bytes_per_token == plan.whole_kv_bytes_per_token && plan.num_ranks == 1) {
    return "";
  }
  return str_cat("\n  on each rank      ",
                 plan.kv_bytes_per_token_and_rank,
                 " (",
                 100 * plan.kv_bytes_per_token_and_rank / plan.whole_kv_bytes_per_token,
                 " % of a replicated cache), ",
                 plan.num_ranks,
                 plan.num_ranks == 1 ? " rank" : " ranks");
}

/// The bytes of a whole row of one layer.
std::string row_text(const MemoryPlan& plan, const ModelConfig& config) {
  return plan.has_float8_cache ? str_cat(plan.whole_kv_bytes_per_token / config.num_hidden_layers,
                                         " (",
                                         config.kv_lora_rank,
                                         " latent in float8, scale, ",
                                         config.qk_rope_head_dim,
                                         " rope in bfloat16)")
                               : str_cat("(",
                                         config.kv_lora_rank,
                                         " latent + ",
                                         config.qk_rope_head_dim,
                                         " rope) x ",
                                         plan.element_bytes,
                                         " bytes");
}

std::string transform_text(const MemoryPlan& plan) {
  return plan.transform_bytes == 0 ? ""
                                   : str_cat(", ",
                                             format_size_approx(plan.transform_bytes),
                                             " of it what slicing the latents adds");
}

std::string window_line(const MemoryPlan& plan) {
  return plan.window_bytes == 0 ? ""
                                : str_cat("\nexact windows       ",
                                          format_size_approx(plan.window_bytes),
                                          ", of --max-num-seqs sequences");
}

std::string handoff_line(const MemoryPlan& plan) {
  return plan.handoff_bytes == 0 ? ""
                                 : str_cat("\nhandoff memory      ",
                                           format_size_approx(plan.handoff_bytes),
                                           ", landing arenas or send rings on GPUs");
}

}  // namespace

int64_t available_memory_bytes() {
  int64_t available = 0;
  std::ifstream meminfo("/proc/meminfo");
  for (std::string line; std::getline(meminfo, line);) {
    long long kibibytes = 0;
    if (std::sscanf(line.c_str(), "MemAvailable: %lld kB", &kibibytes) == 1) {
      available = int64_t{kibibytes} * 1024;
    }
  }
  const auto limit = read_number("/sys/fs/cgroup/memory.max");
  const auto used = read_number("/sys/fs/cgroup/memory.current");
  if (limit.has_value() && used.has_value()) {
    available = std::min(available, std::max<int64_t>(0, *limit - *used));
  }
  return available;
}

Result<MemoryPlan> plan_memory(const ModelConfig& config,
                               const WorkerConfig& options,
                               const CacheShape& cache,
                               int64_t element_bytes,
                               const MemoryBudget& budget) {
  if (options.max_model_len > config.max_position_embeddings) {
    return invalid_argument(str_cat("--max-model-len ",
                                    options.max_model_len,
                                    " is more than the model's max_position_embeddings ",
                                    config.max_position_embeddings));
  }
  const WeightCount count =
      options.is_mock() ? WeightCount{} : count_weights(config, cache.is_rotated);
  MemoryPlan plan;
  plan.element_bytes = element_bytes;
  plan.available_bytes = budget.available_bytes;
  plan.num_parameters = count.products + count.floats;
  plan.transform_bytes =
      cache.basis_elements * kFloatBytes + cache.window_key_elements * element_bytes;
  plan.weight_bytes = (count.products + count.copies) * element_bytes + count.floats * kFloatBytes +
                      plan.transform_bytes;
  if (budget.keeps_float8) {
    plan.weight_bytes -= saved_by_float8(config, count, element_bytes, cache.num_ranks);
  }
  plan.window_bytes = options.max_num_seqs * cache.window_elements * element_bytes;
  plan.handoff_bytes = cache.handoff_elements * element_bytes;
  const int64_t row_elements = config.num_hidden_layers * config.latent_row_width();
  const auto bytes_per_token = [&](int64_t elements) {
    return (elements != 0 ? elements : row_elements) * element_bytes;
  };
  plan.num_ranks = cache.num_ranks;
  plan.whole_kv_bytes_per_token = bytes_per_token(cache.whole_elements);
  plan.has_float8_cache = options.kv_cache_dtype == "fp8_e4m3";
  plan.kv_bytes_per_token = bytes_per_token(cache.worker_elements);
  plan.kv_bytes_per_token_and_rank = bytes_per_token(cache.rank_elements);
  plan.bytes_per_block = plan.kv_bytes_per_token * kPlanBlockTokens;
  plan.max_model_len =
      options.max_model_len != 0 ? options.max_model_len : config.max_position_embeddings;
  TESSERA_RETURN_IF_ERROR(size_cache(options, cache, budget, plan));
  return plan;
}

std::string describe(const MemoryPlan& plan, const ModelConfig& config) {
  return str_cat("architecture        ",
                 config.architecture,
                 "\nparameters          ",
                 with_millions(plan.num_parameters),
                 "\nweights             ",
                 format_size_approx(plan.weight_bytes),
                 " (estimate",
                 transform_text(plan),
                 ")\nKV bytes per token  ",
                 plan.whole_kv_bytes_per_token,
                 " = ",
                 config.num_hidden_layers,
                 " layers x ",
                 row_text(plan, config),
                 rank_line(plan),
                 window_line(plan),
                 handoff_line(plan),
                 "\nbytes per block     ",
                 plan.bytes_per_block,
                 " (",
                 kPlanBlockTokens,
                 " tokens)\nblocks              ",
                 plan.num_blocks,
                 " = ",
                 plan.cache_tokens(),
                 " tokens, ",
                 format_size_approx(plan.kv_cache_bytes),
                 "\nlongest sequence    ",
                 plan.max_model_len,
                 " tokens",
                 plan.is_context_reduced ? " (cut to what the cache holds)" : "",
                 "\nmemory              ",
                 format_size_approx(plan.needed_bytes()),
                 " of ",
                 format_size_approx(plan.available_bytes),
                 " available\n");
}

}  // namespace tessera
