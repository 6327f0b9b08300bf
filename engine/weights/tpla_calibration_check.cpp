#include "engine/weights/tpla_calibration_check.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <string>

#include "engine/base/json_reader.h"
#include "engine/base/text.h"
#include "engine/weights/shard_plan.h"

namespace tessera {
namespace {

/// Largest element of |A^T A - I|: float32 eigenvectors stay below a hundredth of it.
constexpr double kOrthogonality = 1e-4;
/// Largest element of |A A^-1 - I|. Both are rounded to float32, and their sizes multiply: a
/// condition of 10^4 stays below it.
constexpr double kInverse = 1e-3;
constexpr size_t kMaxName = 64;

/// sums += factor * row.
void add_scaled(double factor, const float* row, int64_t width, double* sums) {
  for (int64_t k = 0; k < width; ++k) {
    sums[k] += factor * static_cast<double>(row[k]);
  }
}

/// Largest element of |A B - I|, or of |A^T A - I| where B is empty; infinite when one is not a
/// number.
double identity_error(const std::vector<float>& a, const std::vector<float>& b, int64_t width) {
  std::vector<double> sums(static_cast<size_t>(width * width), 0.0);
  for (int64_t i = 0; i < width; ++i) {
    for (int64_t j = 0; j < width; ++j) {
      // A B: a[i][j] times row j of B joins row i. A^T A: a[i][j] times row i of A joins row j.
      const double factor = a[static_cast<size_t>(i * width + j)];
      const float* row = b.empty() ? a.data() + i * width : b.data() + j * width;
      add_scaled(factor, row, width, sums.data() + (b.empty() ? j : i) * width);
    }
  }
  double worst = 0.0;
  for (int64_t i = 0; i < width * width; ++i) {
    const double expected = i % (width + 1) == 0 ? 1.0 : 0.0;
    const double error = std::abs(sums[static_cast<size_t>(i)] - expected);
    if (std::isnan(error)) {
      return INFINITY;
    }
    worst = std::max(worst, error);
  }
  return worst;
}

bool are_finite(const std::vector<float>& values) {
  return std::all_of(
      values.begin(), values.end(), [](float value) { return std::isfinite(value); });
}

/// It ends up in log lines and in names of layouts.
bool is_name(const std::string& text) {
  return !text.empty() && text.size() <= kMaxName &&
         std::all_of(text.begin(), text.end(), [](char letter) {
           return std::isalnum(static_cast<unsigned char>(letter)) != 0 ||
                  std::string_view(" -_.:+").find(letter) != std::string_view::npos;
         });
}

void check_name(const char* key, const std::string& name, FaultList& faults) {
  faults.require(is_name(name),
                 str_cat(key,
                         " is \"",
                         is_valid_utf8(name) ? name : "not UTF-8",
                         "\", expected 1 to ",
                         kMaxName,
                         " letters, digits and spaces"));
}

void check_size(const std::string& name,
                const std::vector<float>& values,
                int64_t expected,
                FaultList& faults) {
  faults.require(static_cast<int64_t>(values.size()) == expected,
                 str_cat(name, ": has ", values.size(), " elements, expected ", expected));
}

void check_basis(const std::string& prefix,
                 const TplaCalibration::Layer& layer,
                 int64_t width,
                 FaultList& faults) {
  const auto size = static_cast<size_t>(width * width);
  if (layer.basis.size() != size || (!layer.inverse.empty() && layer.inverse.size() != size)) {
    return;
  }
  const double error = identity_error(layer.basis, layer.inverse, width);
  if (layer.inverse.empty()) {
    faults.require(error <= kOrthogonality,
                   str_cat(prefix,
                           "basis: is not orthogonal and has no inverse: A^T A differs from the "
                           "identity by ",
                           error,
                           ", at most ",
                           kOrthogonality,
                           " is allowed"));
    return;
  }
  faults.require(error <= kInverse,
                 str_cat(prefix,
                         "inverse: is not the basis's: A A^-1 differs from the identity by ",
                         error,
                         ", at most ",
                         kInverse,
                         " is allowed"));
}

void check_keys(const std::string& prefix,
                const TplaCalibration::Layer& layer,
                const ModelConfig& config,
                int64_t num_slices,
                FaultList& faults) {
  if (layer.keys.empty()) {
    return;
  }
  if (layer.num_shared == config.kv_lora_rank) {
    faults.add(str_cat(prefix,
                       "keys: are given, but all ",
                       layer.num_shared,
                       " columns are shared: nothing is fitted there"));
    return;
  }
  check_size(prefix + "keys",
             layer.keys,
             num_calibration_keys(config, num_slices, layer.num_shared),
             faults);
  faults.require(are_finite(layer.keys), prefix + "keys: has values that are not finite");
}

}  // namespace

bool check_calibration_header(const ModelConfig& config,
                              const TplaCalibration& calibration,
                              FaultList& faults) {
  FaultList own;
  check_name("basis", calibration.basis, own);
  check_name("dealing", calibration.dealing, own);
  own.require(calibration.num_slices >= 2,
              str_cat("slices is ", calibration.num_slices, ", expected 2 or more"));
  if (calibration.num_slices >= 2) {
    std::vector<int64_t> shared;
    for (const TplaCalibration::Layer& layer : calibration.layers) {
      shared.push_back(layer.num_shared);
    }
    // A model without layers does not exist: the list is empty only when it is wrong.
    own.require(!shared.empty(), "no layers");
    own.add(validate_slices(config, calibration.num_slices, shared));
  }
  own.add(validate_window(calibration.window));
  const auto report = JsonReader::parse(calibration.report);
  own.add(report.is_ok() ? Status::ok() : report.status().with_context("report"));
  faults.add(own.status());
  return own.status().is_ok();
}

int64_t num_calibration_keys(const ModelConfig& config, int64_t num_slices, int64_t num_shared) {
  const int64_t width = num_shared + (config.kv_lora_rank - num_shared) / num_slices;
  return num_slices * config.num_attention_heads * width * config.qk_nope_head_dim;
}

void check_calibration_layer(const ModelConfig& config,
                             const TplaCalibration& calibration,
                             int64_t layer,
                             FaultList& faults) {
  const TplaCalibration::Layer& own = calibration.layers[static_cast<size_t>(layer)];
  const std::string prefix = str_cat("layers.", layer, ".");
  const int64_t width = config.kv_lora_rank;
  check_size(prefix + "basis", own.basis, width * width, faults);
  if (!own.inverse.empty()) {
    check_size(prefix + "inverse", own.inverse, width * width, faults);
  }
  check_basis(prefix, own, width, faults);
  check_keys(prefix, own, config, calibration.num_slices, faults);
  faults.require(std::isfinite(own.logit_factor) && own.logit_factor > 0.0,
                 str_cat("alpha of layer ", layer, " is ", own.logit_factor, ", expected above 0"));
  faults.require(std::isfinite(own.harm),
                 str_cat("harm of layer ", layer, " is ", own.harm, ", expected a finite number"));
}

}  // namespace tessera
