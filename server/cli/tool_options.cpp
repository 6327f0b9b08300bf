#include "server/cli/tool_options.h"

namespace tessera::cli {
namespace {

constexpr auto kEval = static_cast<uint8_t>(Role::kEval);
constexpr auto kCalibrate = static_cast<uint8_t>(Role::kCalibrate);

std::vector<OptionSpec> eval_options() {
  return {
      {.name = "modes",
       .group = "Measurement",
       .field = &Options::modes,
       .help =
           "Decode modes to compare with exact attention, separated by commas: replicated:RANKS, "
           "dcp:RANKS, tpla:SLICES[/RANKS][:BASIS][@[FIRST+]LAST], BASIS none, hadamard or a "
           "calibration file (without one, as in serving, tpla_calibration.safetensors in the "
           "model's folder where it is for so many slices, else hadamard), @ an exact window of "
           "the "
           "first and last tokens in place of the file's (default: replicated:2,dcp:2,tpla:2)",
       .roles = kEval},
      {.name = "lengths",
       .group = "Measurement",
       .field = &Options::lengths,
       .help = "Pairs N:M, separated by commas: M tokens decoded after an exact prefill of N "
               "(default: 256:256)",
       .roles = kEval},
      {.name = "windows",
       .group = "Measurement",
       .field = &Options::num_windows,
       .help = "Pieces of the text, evenly spaced, the same for all modes",
       .minimum = 1,
       .maximum = 4096,
       .roles = kEval},
      {.name = "json",
       .group = "Output",
       .field = &Options::json_path,
       .help = "File for all figures and curves",
       .roles = kEval},
      {.name = "html",
       .group = "Output",
       .field = &Options::html_path,
       .help = "File for one page of tables and curves",
       .roles = kEval},
  };
}

std::vector<OptionSpec> cut_options() {
  return {
      {.name = "slices",
       .group = "Calibration",
       .field = &Options::num_slices,
       .help = "Slices of a latent: ranks of a tpla group",
       .minimum = 2,
       .maximum = 64,
       .roles = kCalibrate},
      {.name = "tpla-budget",
       .group = "Calibration",
       .field = &Options::budget,
       .help = "Cache bytes per token and rank, as a multiple of those without shared columns and "
               "window",
       .roles = kCalibrate},
      {.name = "window",
       .group = "Calibration",
       .field = &Options::window,
       .help = "Tokens before a query whose latents every rank keeps whole; auto is the best of "
               "0, 8, 16 and 32 within the budget, which counts it at a context of 1024 tokens",
       .roles = kCalibrate},
      {.name = "sinks",
       .group = "Calibration",
       .field = &Options::num_sinks,
       .help = "With a window, so many of the first tokens too",
       .maximum = 1024,
       .roles = kCalibrate},
      {.name = "basis",
       .group = "Calibration",
       .field = &Options::basis,
       .help = "Directions that latents are cut along",
       .choices = {"none", "hadamard", "pca", "balanced", "balanced_orthonormal"},
       .roles = kCalibrate},
      {.name = "dealing",
       .group = "Calibration",
       .field = &Options::dealing,
       .help = "How directions come to slices",
       .choices = {"contiguous", "snake", "fold", "random_mix"},
       .roles = kCalibrate},
      {.name = "refit",
       .group = "Calibration",
       .field = &Options::refit,
       .help = "Keys of the slices: the basis's own; fitted to the logits under attention; or from "
               "there by gradient descent to the attention's output",
       .choices = {"none", "least_squares", "gradient"},
       .roles = kCalibrate},
      {.name = "logit-factor",
       .group = "Calibration",
       .field = &Options::logit_factor,
       .help = "Factor on a slice's own part of the logit without a refit: a number; auto, the "
               "number of slices where directions are mixed, else 1; or share, one over the "
               "slice's part of the latents' variance",
       .roles = kCalibrate},
  };
}

std::vector<OptionSpec> calibrate_options() {
  std::vector<OptionSpec> table = {
      {.name = "text",
       .group = "Text",
       .field = &Options::calibration_texts,
       .help = "UTF-8 files to run the model over, each as long as several thousand tokens; the "
               "last tenth of each is held out to measure the result",
       .roles = kCalibrate},
      {.name = "tokens",
       .group = "Text",
       .field = &Options::calibration_tokens,
       .help = "Tokens to look at, of all files together",
       .minimum = 2048,
       .maximum = int64_t{1} << 32,
       .roles = kCalibrate},
      {.name = "output",
       .group = "Output",
       .field = &Options::output_path,
       .help = "Calibration file (default: tpla_calibration.safetensors in the model's folder, "
               "where workers find it)",
       .roles = kCalibrate},
      {.name = "statistics",
       .group = "Output",
       .field = &Options::statistics_path,
       .help = "File of statistics: an interrupted calibration goes on from it, another one with "
               "the same text starts from it (default: beside the output)",
       .roles = kCalibrate},
  };
  const std::vector<OptionSpec> cut = cut_options();
  table.insert(table.end(), cut.begin(), cut.end());
  return table;
}

}  // namespace

std::vector<OptionSpec> tool_options() {
  std::vector<OptionSpec> table = {
      {.name = "text",
       .group = "Text",
       .field = &Options::text_path,
       .help = "UTF-8 file to run the model over",
       .roles = kEval},
  };
  for (const auto& part : {eval_options(), calibrate_options()}) {
    table.insert(table.end(), part.begin(), part.end());
  }
  return table;
}

std::vector<std::string> check_tool_options(Role role, const Options& options) {
  if (role != Role::kEval && role != Role::kCalibrate) {
    return {};
  }
  std::vector<std::string> faults;
  const bool has_text =
      role == Role::kEval ? !options.text_path.empty() : !options.calibration_texts.empty();
  if (!has_text) {
    faults.emplace_back("no text: give --text FILE");
  }
  return faults;
}

}  // namespace tessera::cli
