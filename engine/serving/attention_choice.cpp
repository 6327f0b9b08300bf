#include "engine/serving/attention_choice.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <numeric>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "engine/base/json_reader.h"
#include "engine/base/log.h"
#include "engine/base/text.h"
#include "engine/cache/latent_layout.h"
#include "engine/weights/tpla_calibration.h"

namespace tessera {
namespace {

/// The model folder's calibration; empty: there is none, or it cannot be used. Random weights have
/// nothing to do with what lies beside a checkpoint.
std::string bundled_calibration(const WorkerConfig& worker) {
  if (worker.load_format == "dummy" || worker.tpla_slices < 2) {
    return "";
  }
  const std::string path = worker.model + "/" + kTplaCalibrationFile;
  std::error_code error;
  return std::filesystem::is_regular_file(path, error) ? path : "";
}

Result<TplaTransform> load_calibration(const std::string& path,
                                       const WorkerConfig& worker,
                                       const ModelConfig& config) {
  TESSERA_TRY(TplaTransform transform, TplaTransform::load(path, config));
  if (transform.num_slices() != worker.tpla_slices) {
    return invalid_argument(str_cat(path,
                                    ": is a calibration for ",
                                    transform.num_slices(),
                                    " slices, --tpla-slices is ",
                                    worker.tpla_slices,
                                    "; --tpla-basis hadamard does without a calibration"));
  }
  return transform;
}

/// For sliced attention of 1 or more slices.
Status choose_transform(const WorkerConfig& worker,
                        const ModelConfig& config,
                        AttentionChoice& choice) {
  const bool is_named = !worker.tpla_calibration.empty();
  if (worker.tpla_basis == "auto") {
    choice.calibration = is_named ? worker.tpla_calibration : bundled_calibration(worker);
  }
  if (!choice.calibration.empty()) {
    TESSERA_TRY(choice.transform, load_calibration(choice.calibration, worker, config));
    choice.sharding.shared_columns = choice.transform.shared_columns();
    choice.sharding.window = choice.transform.window();
  } else if (worker.tpla_slices > 1 && worker.tpla_basis != "none") {
    TESSERA_TRY(choice.transform, TplaTransform::hadamard(config, TplaTransform::kHadamardSeed));
  }
  return Status::ok();
}

int64_t sum(const std::vector<int64_t>& values) {
  return std::accumulate(values.begin(), values.end(), int64_t{0});
}

/// Blocks that `num_tokens` consecutive tokens can touch at most.
int64_t most_blocks(int64_t num_tokens) {
  return num_tokens == 0 ? 0 : blocks_for_tokens(num_tokens - 1) + 1;
}

/// What the ranks of `own` keep beside weights and cache because latents are sliced.
void add_slicing(const ModelConfig& config,
                 const AttentionChoice& choice,
                 const ShardOptions& own,
                 CacheShape& shape) {
  const int64_t width = config.kv_lora_rank;
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    shape.basis_elements += choice.transform.is_folded(layer) ? 0 : own.num_ranks * width * width;
  }
  const kernels::LatentWindow& window = own.window;  // a decode group's only
  if (window.is_empty()) {
    return;
  }
  const std::vector<int64_t>& shared = own.shared_columns;
  const int64_t num_sliced =
      config.num_hidden_layers - std::count(shared.begin(), shared.end(), width);
  // Each slice has the keys of all heads, dealt out over its ranks.
  shape.window_key_elements =
      num_sliced * own.num_slices * config.num_attention_heads * width * config.qk_nope_head_dim;
  shape.window_elements = num_sliced * own.num_ranks * config.latent_row_width() *
                          kernels::WindowRing::create(window).rows_per_sequence();
  shape.landing_blocks =
      (own.num_slices - 1) * (blocks_for_tokens(window.num_first) + most_blocks(window.num_last));
}

/// "0.0123".
std::string with_digits(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.4g", value);
  return text;
}

}  // namespace

Result<AttentionChoice> choose_attention(const WorkerConfig& worker,
                                         const ModelConfig& config,
                                         WorkerRole role) {
  AttentionChoice choice;
  const int64_t default_ranks = role == WorkerRole::kDecode ? 2 : 1;
  choice.sharding.num_ranks =
      worker.tensor_parallel_size != 0 ? worker.tensor_parallel_size : default_ranks;
  if (role == WorkerRole::kCombined) {
    return choice;
  }
  if (worker.attention_sharding == "dcp") {
    choice.sharding.attention = AttentionSharding::kDcp;
  }
  const bool is_auto = worker.attention_sharding == "auto";
  const bool is_named = !worker.tpla_calibration.empty();
  const bool has_bundled = worker.tpla_basis == "auto" && !bundled_calibration(worker).empty();
  if (worker.attention_sharding != "tpla" && !(is_auto && (is_named || has_bundled))) {
    return choice;
  }
  AttentionChoice sliced = choice;
  sliced.sharding.attention = AttentionSharding::kTpla;
  sliced.sharding.num_slices = worker.tpla_slices;
  const Status status = choose_transform(worker, config, sliced);
  if (status.is_ok()) {
    return sliced;
  }
  if (!is_auto || is_named) {
    return status;
  }
  choice.refused = status.message();
  return choice;
}

CacheShape cache_shape(const ModelConfig& config,
                       const AttentionChoice& choice,
                       const ShardOptions& own,
                       int64_t num_images,
                       const CacheTypes& types) {
  const ShardOptions& sharding = choice.sharding;
  const int64_t num_layers = config.num_hidden_layers;
  const auto row_elements = [&](int64_t latent_width) {
    return kernels::latent_row_layout(types.cache, latent_width, config.qk_rope_head_dim)
               .row_bytes /
           kernels::dtype_bytes(types.activations);
  };
  const int64_t whole = num_layers * row_elements(config.kv_lora_rank);
  int64_t slice = 0;
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    const int64_t shared =
        sharding.shared_columns.empty() ? 0 : sharding.shared_columns[static_cast<size_t>(layer)];
    slice += row_elements(ShardPlan::slice_columns(config, shared, 0, sharding.num_slices).width());
  }
  CacheShape shape;
  shape.num_ranks = own.num_ranks;
  shape.is_rotated = !choice.transform.is_identity();
  add_slicing(config, choice, own, shape);
  shape.whole_elements = whole;
  if (own.attention == AttentionSharding::kDcp) {
    shape.rank_elements = whole / own.num_ranks;
    shape.worker_elements = whole;
    return shape;
  }
  // Every prefill rank keeps every image.
  shape.rank_elements = num_images > 0 ? num_images * slice : slice;
  shape.worker_elements = shape.rank_elements * own.num_ranks;
  return shape;
}

std::string describe(const AttentionChoice& choice, const ModelConfig& config, int64_t num_ranks) {
  const ShardOptions& sharding = choice.sharding;
  std::string text = str_cat(attention_sharding_name(sharding.attention),
                             ", ",
                             sharding.num_slices,
                             sharding.num_slices == 1 ? " slice on " : " slices on ",
                             num_ranks,
                             num_ranks == 1 ? " rank" : " ranks",
                             ", basis ",
                             choice.transform.name());
  if (!sharding.shared_columns.empty()) {
    const double average = static_cast<double>(sum(sharding.shared_columns)) /
                           static_cast<double>(sharding.shared_columns.size());
    text += str_cat(
        ", ", with_digits(average), " of ", config.kv_lora_rank, " columns shared on average");
  }
  if (!sharding.window.is_empty()) {
    text += str_cat(", exact window of the first ",
                    sharding.window.num_first,
                    " and the last ",
                    sharding.window.num_last,
                    " tokens");
  }
  return text;
}

void log_auto(const WorkerConfig& worker,
              const ModelConfig& config,
              const AttentionChoice& choice) {
  if (worker.attention_sharding != "auto") {
    return;
  }
  if (!choice.refused.empty()) {
    log_warning("calibration_not_used",
                "reason",
                choice.refused,
                "attention_sharding",
                "replicated",
                "to_insist",
                "--attention-sharding tpla");
  }
  if (choice.sharding.attention == AttentionSharding::kTpla) {
    log_info("attention_sharding", "auto", "tpla", "calibration", choice.calibration);
    return;
  }
  const int64_t whole = config.latent_row_width();
  const int64_t half = config.kv_lora_rank / 2 + config.qk_rope_head_dim;
  log_info("attention_sharding",
           "auto",
           "replicated",
           "reason",
           "no calibration for this model",
           "tpla_would_save",
           str_cat(100 - 100 * half / whole, " % of each rank's cache with 2 slices"));
}

void log_quality(const WorkerConfig& worker, const AttentionChoice& choice) {
  if (choice.sharding.num_slices < 2) {
    return;  // exact
  }
  const std::string remedy = str_cat("tessera calibrate ", worker.model, " --text FILE");
  if (choice.calibration.empty()) {
    log_warning("tpla_loss_is_unknown",
                "reason",
                "sliced attention is an approximation, and this group runs it without a "
                "calibration: nothing is known of what it costs this model",
                "basis",
                choice.transform.name(),
                "remedy",
                remedy);
    return;
  }
  auto report = JsonReader::parse(choice.transform.report());
  auto quality = report.is_ok() ? report.value().get_object("quality") : std::nullopt;
  const auto divergence = quality ? quality->get_number("kl") : std::nullopt;
  const auto agreement = quality ? quality->get_number("top1_agreement") : std::nullopt;
  if (!divergence || !agreement) {
    log_warning("tpla_loss_is_unknown",
                "reason",
                "the calibration says nothing of what was measured with it",
                "calibration",
                choice.calibration,
                "remedy",
                remedy);
    return;
  }
  log_info("tpla_quality",
           "calibration",
           choice.calibration,
           "kl_nats_a_token",
           with_digits(*divergence),
           "top1_agreement",
           with_digits(*agreement),
           "perplexity",
           with_digits(quality->get_number("perplexity").value_or(0.0)),
           "exact_perplexity",
           with_digits(quality->get_number("exact_perplexity").value_or(0.0)),
           "prefill_tokens",
           quality->get_int("prefill_tokens").value_or(0),
           "decode_tokens",
           quality->get_int("decode_tokens").value_or(0));
}

}  // namespace tessera
