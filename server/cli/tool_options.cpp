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
           "dcp:RANKS, tpla:SLICES[/RANKS][:BASIS], BASIS none, hadamard (default) or a "
           "calibration file (default: replicated:2,dcp:2,tpla:2)",
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

std::vector<OptionSpec> calibrate_options() {
  return {};
}

}  // namespace

std::vector<OptionSpec> tool_options() {
  std::vector<OptionSpec> table = {
      {.name = "text",
       .group = "Text",
       .field = &Options::text_path,
       .help = "UTF-8 file to run the model over",
       .roles = kEval | kCalibrate},
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
  if (options.text_path.empty()) {
    faults.emplace_back("no text: give --text FILE");
  }
  return faults;
}

}  // namespace tessera::cli
