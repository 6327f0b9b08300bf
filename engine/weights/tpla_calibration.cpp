// read_tpla_calibration: the file is outside input, every fault of it is reported.
#include "engine/weights/tpla_calibration.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include "engine/base/text.h"
#include "engine/weights/fault_list.h"
#include "engine/weights/fingerprint.h"
#include "engine/weights/float_convert.h"
#include "engine/weights/safetensors.h"
#include "engine/weights/tpla_calibration_check.h"

namespace tessera {
namespace {

/// "2,2,1.5"; nothing when it is anything else.
template <typename Number>
std::optional<std::vector<Number>> parse_numbers(std::string_view text) {
  std::vector<Number> numbers;
  const char* const end = text.data() + text.size();
  for (const char* at = text.data(); at != end;) {
    Number number{};
    const auto [next, error] = std::from_chars(at, end, number);
    const bool is_last = next == end;
    if (error != std::errc{} || (!is_last && (*next != ',' || next + 1 == end))) {
      return std::nullopt;
    }
    numbers.push_back(number);
    at = is_last ? end : next + 1;
  }
  return numbers;
}

class Reader {
 public:
  Reader(const SafetensorsFile& file, const ModelConfig& config)
      : file_(file), config_(config), metadata_(file.metadata()) {}

  Result<TplaCalibration> read() {
    expect_text("format", kTplaCalibrationFormat);
    expect_text("model_fingerprint", model_fingerprint(config_));
    read_header();
    if (faults_.status().is_ok() && check_calibration_header(config_, calibration_, faults_)) {
      read_tensors();
    }
    TESSERA_RETURN_IF_ERROR(faults_.status());
    return std::move(calibration_);
  }

 private:
  [[nodiscard]] std::string text(const std::string& key) const {
    const auto found = metadata_.find(key);
    return found == metadata_.end() ? "" : found->second;
  }
  void expect_text(const std::string& key, const std::string& expected) {
    faults_.require(
        text(key) == expected,
        str_cat("metadata: ", key, " is \"", text(key), "\", expected \"", expected, "\""));
  }
  template <typename Number>
  std::vector<Number> numbers(const std::string& key, size_t count, const char* what) {
    auto values = parse_numbers<Number>(text(key));
    if (!values || values->size() != count) {
      faults_.add(
          str_cat("metadata: ", key, " is \"", text(key), "\", expected ", count, " ", what));
      return std::vector<Number>(count);
    }
    return std::move(*values);
  }

  void read_header() {
    const auto num_layers = static_cast<size_t>(config_.num_hidden_layers);
    calibration_.basis = text("basis");
    calibration_.dealing = text("dealing");
    calibration_.num_slices = numbers<int64_t>("slices", 1, "whole number")[0];
    if (metadata_.count("window") != 0) {
      const auto window = numbers<int64_t>("window", 2, "whole numbers, of first and last tokens");
      calibration_.window = {.num_first = window[0], .num_last = window[1]};
    }
    if (metadata_.count("report") != 0) {
      calibration_.report = text("report");
    }
    calibration_.layers.resize(num_layers);
    const auto shared = numbers<int64_t>("shared", num_layers, "whole numbers, one a layer");
    const auto alpha = numbers<double>("alpha", num_layers, "numbers, one a layer");
    const auto harm = metadata_.count("harm") == 0
                          ? std::vector<double>(num_layers)
                          : numbers<double>("harm", num_layers, "numbers, one a layer");
    for (size_t layer = 0; layer < num_layers; ++layer) {
      calibration_.layers[layer].num_shared = shared[layer];
      calibration_.layers[layer].logit_factor = alpha[layer];
      calibration_.layers[layer].harm = harm[layer];
    }
  }

  void read_tensors() {
    const int64_t width = config_.kv_lora_rank;
    const int64_t slices = calibration_.num_slices;
    for (int64_t index = 0; index < config_.num_hidden_layers; ++index) {
      TplaCalibration::Layer& layer = calibration_.layers[static_cast<size_t>(index)];
      const std::string prefix = str_cat("layers.", index, ".");
      const int64_t kept = layer.num_shared + (width - layer.num_shared) / slices;
      is_complete_ = true;
      layer.basis = tensor(prefix + "basis", {width, width}, true);
      layer.inverse = tensor(prefix + "inverse", {width, width}, false);
      layer.keys = tensor(prefix + "keys",
                          {slices, config_.num_attention_heads, kept, config_.qk_nope_head_dim},
                          false);
      if (is_complete_) {
        check_calibration_layer(config_, calibration_, index, faults_);
      }
    }
    for (const SafetensorsEntry& entry : file_.entries()) {
      faults_.require(known_.count(entry.name) != 0, entry.name + ": unexpected");
    }
  }
  std::vector<float> tensor(const std::string& name,
                            const std::vector<int64_t>& shape,
                            bool is_required) {
    known_.insert(name);
    const auto& entries = file_.entries();
    const auto entry = std::find_if(
        entries.begin(), entries.end(), [&](const auto& item) { return item.name == name; });
    if (entry == entries.end()) {
      if (is_required) {
        faults_.add(str_cat(name, ": missing, expected shape ", join_list(shape)));
        is_complete_ = false;
      }
      return {};
    }
    const kernels::ConstTensorView view = file_.view(*entry);
    const auto rank = static_cast<std::ptrdiff_t>(view.rank);
    if (view.dtype != kernels::DType::kFloat32 ||
        !std::equal(shape.begin(), shape.end(), view.shape.begin(), view.shape.begin() + rank)) {
      faults_.add(str_cat(name, ": is ", view.to_string(), ", expected float32", join_list(shape)));
      is_complete_ = false;
      return {};
    }
    std::vector<float> values(static_cast<size_t>(view.num_elements()));
    convert_to_float(view, values.data());
    file_.release(*entry);
    return values;
  }

  const SafetensorsFile& file_;
  const ModelConfig& config_;
  const std::map<std::string, std::string> metadata_;
  TplaCalibration calibration_;
  std::set<std::string> known_;
  bool is_complete_ = true;  // every tensor of the layer has its shape
  FaultList faults_;
};

}  // namespace

Result<TplaCalibration> read_tpla_calibration(const std::string& path, const ModelConfig& config) {
  TESSERA_TRY(const SafetensorsFile file, SafetensorsFile::open(path));
  auto calibration = Reader(file, config).read();
  TESSERA_RETURN_IF_ERROR(calibration.status().with_context(path));
  return calibration;
}

}  // namespace tessera
