#include "server/roles/eval_role.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <unistd.h>

#include "engine/base/text.h"
#include "engine/config/memory_plan.h"
#include "engine/config/model_config.h"
#include "engine/quality/decode_mode.h"
#include "engine/quality/quality.h"
#include "engine/quality/report.h"
#include "engine/quality/report_page.h"
#include "engine/quality/windows.h"
#include "engine/serving/model_parts.h"
#include "engine/weights/checkpoint.h"
#include "engine/weights/fingerprint.h"
#include "engine/weights/weight_loader.h"
#include "server/cli/progress_bar.h"
#include "server/roles/role_parts.h"
#include "server/roles/text_source.h"

namespace tessera {
namespace {

// Sequences of the exact model side by side while it continues prompts.
constexpr int64_t kGreedySequences = 16;

/// What is measured: everything that follows from the options before the weights are read.
struct EvalPlan {
  ModelConfig config;
  ComputeChoice compute;
  std::vector<DecodeMode> modes;
  std::vector<ModeSetup> setups;  ///< by mode
  std::vector<QualityLengths> lengths;
  std::vector<std::vector<TextWindow>> windows;  ///< by lengths
  int64_t max_prompt = 0;
  int64_t max_length = 0;
  int64_t text_tokens = 0;
};

std::vector<std::string> or_default(std::vector<std::string> texts, const std::string& fallback) {
  if (texts.empty()) {
    texts.push_back(fallback);
  }
  return texts;
}

Status read_modes(const cli::Options& options, EvalPlan& plan) {
  TESSERA_TRY(plan.modes,
              parse_decode_modes(or_default(options.modes, "replicated:2,dcp:2,tpla:2")));
  for (DecodeMode& mode : plan.modes) {
    TESSERA_RETURN_IF_ERROR(settle_basis(plan.config, options.model, mode).with_context(mode.text));
    auto setup = resolve_mode(mode, plan.config);
    if (!setup.is_ok()) {
      return setup.status().with_context(mode.text);
    }
    plan.setups.push_back(std::move(setup).value());
  }
  return Status::ok();
}

int64_t max_ranks(const EvalPlan& plan) {
  int64_t most = 1;
  for (const ModeSetup& setup : plan.setups) {
    most = std::max(most, setup.sharding.num_ranks);
  }
  return most;
}

Status read_windows(const cli::Options& options, EvalPlan& plan) {
  TESSERA_TRY(plan.lengths, parse_quality_lengths(or_default(options.lengths, "256:256")));
  TESSERA_TRY(const TextTokens text,
              load_text_tokens(options.model, options.text_path, plan.config));
  plan.text_tokens = static_cast<int64_t>(text.ids.size());
  for (const QualityLengths& lengths : plan.lengths) {
    plan.max_prompt = std::max(plan.max_prompt, lengths.prefill_tokens);
    plan.max_length = std::max(plan.max_length, lengths.window_tokens() - 1);
  }
  if (plan.max_length > plan.config.max_position_embeddings) {
    return invalid_argument(str_cat("--lengths need ",
                                    plan.max_length,
                                    " positions, the model has ",
                                    plan.config.max_position_embeddings));
  }
  for (const QualityLengths& lengths : plan.lengths) {
    TESSERA_TRY(
        auto windows,
        choose_windows(text.ids, text.bos_id, options.num_windows, lengths.window_tokens()));
    plan.windows.push_back(std::move(windows));
  }
  return Status::ok();
}

/// A progress bar over several steps, each of its own length and weight.
class Steps final {
 public:
  Steps(std::string label, double total)
      : bar_(stderr, isatty(STDERR_FILENO) == 1, std::move(label)), total_(total) {}
  [[nodiscard]] QualityProgress next(double weight) {
    before_ += last_;
    last_ = 0.0;
    return [this, weight](int64_t done, int64_t /*total*/) {
      last_ = weight * static_cast<double>(done);
      bar_.update(before_ + last_, total_);
    };
  }

 private:
  cli::ProgressBar bar_;
  const double total_;
  double before_ = 0.0;
  double last_ = 0.0;
};

/// Decoded tokens of all models, the exact one's continuations included.
double num_steps(const EvalPlan& plan) {
  double tokens = 0.0;
  for (size_t i = 0; i < plan.lengths.size(); ++i) {
    tokens += static_cast<double>(plan.lengths[i].decode_tokens) *
              static_cast<double>(plan.windows[i].size());
  }
  return tokens * static_cast<double>(plan.modes.size() + 1);
}

class Evaluation final {
 public:
  Evaluation(const EvalPlan& plan, const MeasuredParts& parts)
      : plan_(plan),
        parts_(parts),
        threads_(make_thread_communicators(plan.compute.num_threads, plan.compute.num_threads)),
        steps_("measuring", num_steps(plan)),
        cells_(plan.lengths.size()) {}

  [[nodiscard]] Result<std::vector<QualityCell>> run() {
    TESSERA_RETURN_IF_ERROR(open_exact());
    for (size_t begin = 0; begin < plan_.modes.size(); begin += group_.size()) {
      TESSERA_RETURN_IF_ERROR(open_group(begin));
      TESSERA_RETURN_IF_ERROR(measure_group(begin));
    }
    std::vector<QualityCell> cells;
    for (auto& row : cells_) {
      std::move(row.begin(), row.end(), std::back_inserter(cells));
    }
    return cells;
  }

 private:
  [[nodiscard]] MeasuredOptions options() const {
    return {.dtype = plan_.compute.dtype,
            .num_threads = plan_.compute.num_threads,
            .max_prompt = plan_.max_prompt,
            .max_length = plan_.max_length};
  }

  Status open_exact() {
    MeasuredOptions exact = options();
    exact.num_sequences =
        std::min(kGreedySequences, static_cast<int64_t>(plan_.windows.front().size()));
    TESSERA_TRY(exact_, MeasuredModel::create(parts_, exact));
    for (size_t i = 0; i < plan_.lengths.size(); ++i) {
      TESSERA_TRY(auto greedy,
                  continue_greedily(*exact_, plan_.windows[i], plan_.lengths[i], steps_.next(1.0)));
      greedy_.push_back(std::move(greedy));
    }
    return Status::ok();
  }

  /// As many modes as fit in memory with room to spare: the exact model runs once for all of them.
  Status open_group(size_t begin) {
    group_.clear();
    for (size_t mode = begin; mode < plan_.modes.size(); ++mode) {
      const int64_t before = available_memory_bytes();
      MeasuredOptions wanted = options();
      wanted.sharding = plan_.setups[mode].sharding;
      wanted.transform = &plan_.setups[mode].transform;
      wanted.cache_dtype = plan_.compute.cache_dtype;
      auto model = MeasuredModel::create(parts_, wanted);
      if (!model.is_ok()) {
        return model.status().with_context(plan_.modes[mode].text);
      }
      group_.push_back(std::move(model).value());
      const int64_t after = available_memory_bytes();
      if (after < 2 * (before - after)) {
        break;
      }
    }
    return Status::ok();
  }

  Status measure_group(size_t begin) {
    std::vector<MeasuredModel*> models;
    for (const auto& model : group_) {
      models.push_back(model.get());
    }
    for (size_t i = 0; i < plan_.lengths.size(); ++i) {
      const QualityTask task{.exact = *exact_,
                             .modes = models,
                             .windows = plan_.windows[i],
                             .lengths = plan_.lengths[i],
                             .greedy = &greedy_[i],
                             .threads = threads_};
      TESSERA_TRY(auto results,
                  measure_quality(task, steps_.next(static_cast<double>(models.size()))));
      for (size_t k = 0; k < results.size(); ++k) {
        cells_[i].push_back({.mode = plan_.modes[begin + k],
                             .basis = plan_.setups[begin + k].transform.name(),
                             .quality = std::move(results[k])});
      }
    }
    return Status::ok();
  }

  const EvalPlan& plan_;
  const MeasuredParts& parts_;
  RankGroup threads_;
  Steps steps_;
  std::unique_ptr<MeasuredModel> exact_;
  std::vector<std::unique_ptr<MeasuredModel>> group_;  // the modes that are loaded
  std::vector<GreedyTokens> greedy_;                   // by lengths
  std::vector<std::vector<QualityCell>> cells_;        // by lengths, then by mode
};

Status write_file(const std::string& path, const std::string& content) {
  std::ofstream file(path, std::ios::binary);
  file << content;
  file.close();
  return file ? Status::ok() : invalid_argument(str_cat(path, ": cannot be written"));
}

/// "bfloat16", or with another type of cached latents "bfloat16 (latents float8_e4m3)".
std::string dtype_text(const ComputeChoice& compute) {
  const std::string_view dtype = kernels::dtype_name(compute.dtype);
  return compute.cache_dtype == compute.dtype
             ? std::string(dtype)
             : str_cat(dtype, " (latents ", kernels::dtype_name(compute.cache_dtype), ")");
}

}  // namespace

Status run_eval(const cli::ResolvedOptions& resolved) {
  const cli::Options& options = resolved.options;
  EvalPlan plan;
  TESSERA_TRY(plan.config, ModelConfig::load(options.model));
  TESSERA_RETURN_IF_ERROR(read_modes(options, plan));
  TESSERA_TRY(plan.compute, choose_compute(options, max_ranks(plan)));
  TESSERA_RETURN_IF_ERROR(read_windows(options, plan));
  TESSERA_TRY(const Checkpoint checkpoint, Checkpoint::open(options.model));
  const MeasuredParts parts{.config = plan.config,
                            .load_weights =
                                [&](kernels::Backend& backend, const LoadOptions& load) {
                                  return load_model_weights(plan.config, checkpoint, backend, load);
                                },
                            .make_backend = plan.compute.make_backend,
                            .make_communicators = plan.compute.make_communicators};
  QualityReport report{.model = folder_name(options.model),
                       .model_fingerprint = model_fingerprint(plan.config),
                       .text = std::filesystem::path(options.text_path).filename().string(),
                       .text_tokens = plan.text_tokens,
                       .dtype = dtype_text(plan.compute),
                       .num_windows = options.num_windows,
                       .cells = {}};
  TESSERA_TRY(report.cells, Evaluation(plan, parts).run());
  std::fputs(render_table(report).c_str(), stdout);
  if (!options.json_path.empty()) {
    TESSERA_RETURN_IF_ERROR(write_file(options.json_path, render_json(report)));
  }
  if (!options.html_path.empty()) {
    TESSERA_RETURN_IF_ERROR(write_file(options.html_path, render_page(report)));
  }
  return Status::ok();
}

}  // namespace tessera
