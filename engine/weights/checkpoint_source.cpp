#include "engine/weights/checkpoint_source.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "engine/base/check.h"
#include "engine/base/text.h"
#include "engine/weights/float8_faults.h"
#include "engine/weights/float_convert.h"
#include "engine/weights/tensor_table.h"

namespace tessera {
namespace {

using kernels::ConstTensorView;
using kernels::DType;

constexpr size_t kMaxFaultsShown = 1000;
constexpr const char* kMultimodalPrefix = "language_model.";
constexpr const char* kScaleSuffix = "_scale_inv";

std::string shape_text(const ConstTensorView& view) {
  return join_list(std::vector<int64_t>(view.shape.begin(), view.shape.begin() + view.rank));
}

bool has_shape(const ConstTensorView& view, const std::vector<int64_t>& shape) {
  return view.rank == static_cast<int>(shape.size()) &&
         std::equal(shape.begin(), shape.end(), view.shape.begin());
}

bool is_aligned(const ConstTensorView& view) {
  return reinterpret_cast<uintptr_t>(view.data) %
             static_cast<uintptr_t>(kernels::dtype_bytes(view.dtype)) ==
         0;
}

Status status_of(const std::string& title, const std::vector<std::string>& faults) {
  if (faults.empty()) {
    return Status::ok();
  }
  std::string message = str_cat(title, " (", faults.size(), " faults)");
  for (size_t i = 0; i < std::min(faults.size(), kMaxFaultsShown); ++i) {
    message += "\n" + faults[i];
  }
  if (faults.size() > kMaxFaultsShown) {
    message += str_cat("\nand ", faults.size() - kMaxFaultsShown, " more");
  }
  return invalid_argument(std::move(message));
}

// Compares one checkpoint with one config; collects a line for every difference.
class Comparison {
 public:
  Comparison(const ModelConfig& config, const Checkpoint& checkpoint, const std::string& prefix)
      : config_(config), checkpoint_(checkpoint), prefix_(prefix) {}

  /// Returns the stored bytes of what will be read.
  int64_t run() {
    for (const TensorSpec& spec : expected_tensors(config_)) {
      check_tensor(spec);
    }
    for (const std::string& name : checkpoint_.names()) {
      // Beside the prefix of a multimodal model lie its other parts, which are not ours.
      if (name.starts_with(prefix_) && known_.count(name) == 0 &&
          !is_ignored_tensor(config_, name.substr(prefix_.size()))) {
        faults_.push_back(
            str_cat(name, ": unexpected, of shape ", shape_text(*checkpoint_.find(name))));
      }
    }
    return num_bytes_;
  }

  [[nodiscard]] Status status() const {
    return status_of("the weights do not fit config.json", faults_);
  }

 private:
  void check_tensor(const TensorSpec& spec) {
    const std::string name = prefix_ + spec.name;
    known_.insert(name);
    const auto view = checkpoint_.find(name);
    if (!view) {
      faults_.push_back(str_cat(name, ": missing, expected shape ", join_list(spec.shape)));
      return;
    }
    if (!has_shape(*view, spec.shape)) {
      faults_.push_back(
          str_cat(name, ": has shape ", shape_text(*view), ", expected ", join_list(spec.shape)));
      return;
    }
    num_bytes_ += view->num_elements() * kernels::dtype_bytes(view->dtype);
    if (view->dtype == DType::kFloat8E4M3) {
      check_scale(name, spec);
    } else if (!is_plain_float(view->dtype)) {
      faults_.push_back(str_cat(name,
                                ": has type ",
                                kernels::dtype_name(view->dtype),
                                ", expected float32, bfloat16 or float16"));
    }
  }

  void check_scale(const std::string& name, const TensorSpec& spec) {
    if (!config_.quantization || spec.shape.size() != 2) {
      faults_.push_back(str_cat(name,
                                ": has type float8_e4m3, ",
                                spec.shape.size() == 2
                                    ? "but config.json has no quantization_config"
                                    : "expected a plain float for a vector"));
      return;
    }
    const BlockQuantization& blocks = *config_.quantization;
    const std::vector<int64_t> shape = {
        (spec.shape[0] + blocks.block_rows - 1) / blocks.block_rows,
        (spec.shape[1] + blocks.block_columns - 1) / blocks.block_columns};
    const std::string scale_name = name + kScaleSuffix;
    known_.insert(scale_name);
    const auto scale = checkpoint_.find(scale_name);
    if (!scale) {
      faults_.push_back(str_cat(scale_name, ": missing, expected shape ", join_list(shape)));
    } else if (!has_shape(*scale, shape)) {
      faults_.push_back(
          str_cat(scale_name, ": has shape ", shape_text(*scale), ", expected ", join_list(shape)));
    } else if (!is_plain_float(scale->dtype)) {
      faults_.push_back(str_cat(
          scale_name, ": has type ", kernels::dtype_name(scale->dtype), ", expected float32"));
    }
  }

  const ModelConfig& config_;
  const Checkpoint& checkpoint_;
  const std::string& prefix_;
  std::unordered_set<std::string> known_;
  std::vector<std::string> faults_;
  int64_t num_bytes_ = 0;
};

}  // namespace

Result<std::unique_ptr<CheckpointSource>> CheckpointSource::create(const ModelConfig& config,
                                                                   const Checkpoint& checkpoint) {
  const std::string prefixed = str_cat(kMultimodalPrefix, "model.embed_tokens.weight");
  std::string prefix = checkpoint.has(prefixed) ? kMultimodalPrefix : "";
  Comparison comparison(config, checkpoint, prefix);
  const int64_t num_bytes = comparison.run();
  TESSERA_RETURN_IF_ERROR(comparison.status());
  std::unique_ptr<CheckpointSource> source(
      new CheckpointSource(checkpoint, std::move(prefix), config.quantization));
  source->num_bytes_ = num_bytes;
  return source;
}

ConstTensorView CheckpointSource::take(const std::string& name) {
  checkpoint_.release(last_name_);
  last_name_ = prefix_ + name;
  const auto found = checkpoint_.find(last_name_);
  TESSERA_CHECK(found.has_value(), str_cat(name, " is not one of expected_tensors()"));
  num_bytes_read_ += found->num_elements() * kernels::dtype_bytes(found->dtype);
  return *found;
}

ConstTensorView CheckpointSource::read(const std::string& name) {
  ConstTensorView view = take(name);
  const bool is_quantized = view.dtype == DType::kFloat8E4M3;
  if (!is_quantized && is_aligned(view)) {
    return view;
  }
  staging_.resize(static_cast<size_t>(view.num_elements()));
  if (is_quantized) {
    check_values(view, {0, view.dim(0)}, {0, view.dim(1)});
    dequantize_blocks(view, read_scales(), *blocks_, staging_.data());
  } else {
    convert_to_float(view, staging_.data());
  }
  view.data = staging_.data();
  view.dtype = DType::kFloat32;
  return view;
}

std::optional<StoredBlocks> CheckpointSource::stored_blocks(const std::string& name) const {
  const auto found = checkpoint_.find(prefix_ + name);
  if (!found || found->dtype != DType::kFloat8E4M3) {
    return std::nullopt;
  }
  return StoredBlocks{found->dim(0), found->dim(1), *blocks_};
}

ConstTensorView CheckpointSource::read_scales() {
  const std::string name = last_name_ + kScaleSuffix;
  ConstTensorView scales = *checkpoint_.find(name);
  scales_.resize(static_cast<size_t>(scales.num_elements()));
  convert_to_float(scales, scales_.data());
  scales.data = scales_.data();
  scales.dtype = DType::kFloat32;
  if (const BadElements bad = find_not_finite(scales); bad.count > 0) {
    faults_.push_back(str_cat(name,
                              ": ",
                              bad.count,
                              " of ",
                              scales.num_elements(),
                              " scales are not finite, the first at [",
                              bad.first_row,
                              ", ",
                              bad.first_column,
                              "]"));
  }
  return scales;
}

/// Only what is used: a rank's part is a fraction of what it would read otherwise.
void CheckpointSource::check_values(const ConstTensorView& values,
                                    const IndexRange& rows,
                                    const IndexRange& columns) {
  const ConstTensorView used =
      values.slice(0, rows.begin, rows.size()).slice(1, columns.begin, columns.size());
  if (const BadElements bad = find_float8_nan(used); bad.count > 0) {
    faults_.push_back(str_cat(last_name_,
                              ": ",
                              bad.count,
                              " of ",
                              used.num_elements(),
                              " elements are NaN, the first at [",
                              rows.begin + bad.first_row,
                              ", ",
                              columns.begin + bad.first_column,
                              "]"));
  }
}

Status CheckpointSource::status() const {
  return status_of("the weights are not all numbers", faults_);
}

kernels::Float8Matrix CheckpointSource::read_float8(const std::string& name,
                                                    const IndexRange& rows,
                                                    const IndexRange& columns) {
  const ConstTensorView values = take(name);
  TESSERA_CHECK(values.dtype == DType::kFloat8E4M3, str_cat(name, " is not stored in FP8"));
  check_values(values, rows, columns);
  return {values, read_scales()};
}

}  // namespace tessera
