// TplaTransform::load: a calibration file is outside input, every fault of it is reported.

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include "engine/base/text.h"
#include "engine/weights/fingerprint.h"
#include "engine/weights/float_convert.h"
#include "engine/weights/safetensors.h"
#include "engine/weights/tpla_transform.h"

namespace tessera {
namespace {

constexpr const char* kFormat = "tessera-tpla-calibration-1";
/// Largest element of |U^T U - I|: float32 eigenvectors stay below a hundredth of it.
constexpr double kOrthogonality = 1e-4;

class Faults {
 public:
  void add(const std::string& fault) { text_ += (text_.empty() ? "" : "\n") + fault; }
  [[nodiscard]] Status status() const {
    return text_.empty() ? Status::ok() : invalid_argument(text_);
  }

 private:
  std::string text_;
};

double orthogonality_error(const std::vector<float>& basis, int64_t width) {
  std::vector<double> product(static_cast<size_t>(width * width), 0.0);
  for (int64_t i = 0; i < width; ++i) {
    const float* row = basis.data() + i * width;
    for (int64_t j = 0; j < width; ++j) {
      const double factor = row[j];
      double* sums = product.data() + j * width;
      for (int64_t k = 0; k < width; ++k) {
        sums[k] += factor * static_cast<double>(row[k]);
      }
    }
  }
  double worst = 0.0;
  for (int64_t i = 0; i < width * width; ++i) {
    const double expected = i % (width + 1) == 0 ? 1.0 : 0.0;
    const double error = std::abs(product[static_cast<size_t>(i)] - expected);
    worst = error <= worst ? worst : error;
    if (std::isnan(error)) {
      return INFINITY;
    }
  }
  return worst;
}

/// "2,2,1.5" as finite numbers above 0; empty when it is anything else.
std::vector<double> parse_numbers(std::string_view text) {
  std::vector<double> numbers;
  const char* const end = text.data() + text.size();
  for (const char* at = text.data(); at != end;) {
    double number = 0.0;
    const auto [next, error] = std::from_chars(at, end, number);
    const bool is_last = next == end;
    if (error != std::errc{} || !std::isfinite(number) || number <= 0.0 ||
        (!is_last && (*next != ',' || next + 1 == end))) {
      return {};
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

  std::string read_name() {
    expect_text("format", kFormat);
    expect_text("model_fingerprint", model_fingerprint(config_));
    const std::string name = text("basis");
    if (name.empty()) {
      faults_.add("metadata: basis is missing");
    }
    return name;
  }
  std::vector<std::vector<float>> read_bases() {
    std::vector<std::vector<float>> bases;
    for (int64_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
      bases.push_back(read_basis(str_cat("layers.", layer, ".basis")));
    }
    for (const SafetensorsEntry& entry : file_.entries()) {
      if (known_.count(entry.name) == 0) {
        faults_.add(str_cat(entry.name, ": unexpected"));
      }
    }
    return bases;
  }
  std::vector<double> read_factors() {
    if (metadata_.count("alpha") == 0) {
      return {};
    }
    const std::vector<double> factors = parse_numbers(text("alpha"));
    if (static_cast<int64_t>(factors.size()) != config_.num_hidden_layers) {
      faults_.add(str_cat("metadata: alpha \"",
                          text("alpha"),
                          "\" is not ",
                          config_.num_hidden_layers,
                          " numbers above 0, one a layer"));
    }
    return factors;
  }
  [[nodiscard]] Status status() const { return faults_.status(); }

 private:
  [[nodiscard]] std::string text(const std::string& key) const {
    const auto found = metadata_.find(key);
    return found == metadata_.end() ? "" : found->second;
  }
  void expect_text(const std::string& key, const std::string& expected) {
    if (text(key) != expected) {
      faults_.add(
          str_cat("metadata: ", key, " is \"", text(key), "\", expected \"", expected, "\""));
    }
  }
  std::vector<float> read_basis(const std::string& name) {
    known_[name] = true;
    const auto& entries = file_.entries();
    const auto entry = std::find_if(
        entries.begin(), entries.end(), [&](const auto& item) { return item.name == name; });
    const int64_t width = config_.kv_lora_rank;
    if (entry == entries.end()) {
      faults_.add(
          str_cat(name, ": missing, expected shape ", join_list(std::vector{width, width})));
      return {};
    }
    const kernels::ConstTensorView view = file_.view(*entry);
    if (view.dtype != kernels::DType::kFloat32 || view.rank != 2 || view.dim(0) != width ||
        view.dim(1) != width) {
      faults_.add(str_cat(name,
                          ": is ",
                          view.to_string(),
                          ", expected float32",
                          join_list(std::vector{width, width})));
      return {};
    }
    std::vector<float> basis(static_cast<size_t>(width * width));
    convert_to_float(view, basis.data());
    const double error = orthogonality_error(basis, width);
    if (!(error <= kOrthogonality)) {
      faults_.add(str_cat(name,
                          ": is not orthogonal: U^T U differs from the identity by ",
                          error,
                          ", at most ",
                          kOrthogonality,
                          " is allowed"));
    }
    return basis;
  }

  const SafetensorsFile& file_;
  const ModelConfig& config_;
  const std::map<std::string, std::string> metadata_;
  std::map<std::string, bool> known_;
  Faults faults_;
};

}  // namespace

Result<TplaTransform> TplaTransform::load(const std::string& path, const ModelConfig& config) {
  TESSERA_TRY(const SafetensorsFile file, SafetensorsFile::open(path));
  Reader reader(file, config);
  TplaTransform transform;
  transform.name_ = reader.read_name();
  transform.width_ = config.kv_lora_rank;
  transform.bases_ = reader.read_bases();
  transform.factors_ = reader.read_factors();
  TESSERA_RETURN_IF_ERROR(reader.status().with_context(path));
  transform.set_fingerprint();
  return transform;
}

}  // namespace tessera
