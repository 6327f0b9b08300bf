// write_tpla_calibration. Format: https://github.com/huggingface/safetensors, README, "Format".

#include <array>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <limits>
#include <memory>
#include <sstream>
#include <system_error>

#include <nlohmann/json.hpp>
#include <unistd.h>

#include "engine/base/text.h"
#include "engine/weights/fault_list.h"
#include "engine/weights/fingerprint.h"
#include "engine/weights/tpla_calibration.h"
#include "engine/weights/tpla_calibration_check.h"

namespace tessera {
namespace {

using Json = nlohmann::ordered_json;

Status check(const ModelConfig& config, const TplaCalibration& calibration) {
  FaultList faults;
  if (check_calibration_header(config, calibration, faults)) {
    for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
      check_calibration_layer(config, calibration, layer, faults);
    }
  }
  return faults.status();
}

/// "0,8,8".
template <typename Field>
std::string list(const TplaCalibration& calibration, Field TplaCalibration::Layer::*field) {
  std::ostringstream out;
  out.precision(std::numeric_limits<double>::max_digits10);
  const char* separator = "";
  for (const TplaCalibration::Layer& layer : calibration.layers) {
    out << separator << layer.*field;
    separator = ",";
  }
  return out.str();
}

Json metadata(const ModelConfig& config, const TplaCalibration& calibration) {
  Json texts = {{"format", kTplaCalibrationFormat},
                {"model_fingerprint", model_fingerprint(config)},
                {"basis", calibration.basis},
                {"dealing", calibration.dealing},
                {"slices", str_cat(calibration.num_slices)},
                {"shared", list(calibration, &TplaCalibration::Layer::num_shared)},
                {"alpha", list(calibration, &TplaCalibration::Layer::logit_factor)}};
  for (const TplaCalibration::Layer& layer : calibration.layers) {
    if (layer.harm != 0.0) {
      texts["harm"] = list(calibration, &TplaCalibration::Layer::harm);
    }
  }
  const kernels::LatentWindow& window = calibration.window;
  if (!window.is_empty()) {
    texts["window"] = str_cat(window.num_first, ",", window.num_last);
  }
  texts["report"] = calibration.report;
  return texts;
}

struct Tensor {
  std::string name;
  std::vector<int64_t> shape;
  const std::vector<float>* values;
};

std::vector<Tensor> tensors_of(const ModelConfig& config, const TplaCalibration& calibration) {
  const int64_t width = config.kv_lora_rank;
  const int64_t slices = calibration.num_slices;
  std::vector<Tensor> tensors;
  for (size_t index = 0; index < calibration.layers.size(); ++index) {
    const TplaCalibration::Layer& layer = calibration.layers[index];
    const std::string prefix = str_cat("layers.", index, ".");
    tensors.push_back({prefix + "basis", {width, width}, &layer.basis});
    if (!layer.inverse.empty()) {
      tensors.push_back({prefix + "inverse", {width, width}, &layer.inverse});
    }
    if (!layer.keys.empty()) {
      const int64_t kept = layer.num_shared + (width - layer.num_shared) / slices;
      tensors.push_back({prefix + "keys",
                         {slices, config.num_attention_heads, kept, config.qk_nope_head_dim},
                         &layer.keys});
    }
  }
  return tensors;
}

int64_t num_bytes(const std::vector<float>& values) {
  return static_cast<int64_t>(values.size() * sizeof(float));
}

std::string header_of(Json texts, const std::vector<Tensor>& tensors) {
  Json header = {{"__metadata__", std::move(texts)}};
  int64_t begin = 0;
  for (const Tensor& tensor : tensors) {
    const int64_t end = begin + num_bytes(*tensor.values);
    header[tensor.name] = {
        {"dtype", "F32"}, {"shape", tensor.shape}, {"data_offsets", {begin, end}}};
    begin = end;
  }
  std::string text = header.dump(-1, ' ', false, Json::error_handler_t::replace);
  text.resize((text.size() + 7) / 8 * 8, ' ');  // the data begin on a multiple of 8 bytes
  return text;
}

struct CloseFile {
  void operator()(std::FILE* file) const noexcept { std::fclose(file); }
};

/// True when everything has reached the disk.
bool write_file(const std::string& path,
                const std::string& header,
                const std::vector<Tensor>& tensors) {
  const std::unique_ptr<std::FILE, CloseFile> file(std::fopen(path.c_str(), "wb"));
  if (file == nullptr) {
    return false;
  }
  const auto write = [&](const void* data, size_t size) {
    return std::fwrite(data, 1, size, file.get()) == size;
  };
  std::array<unsigned char, 8> length{};
  for (size_t i = 0; i < length.size(); ++i) {
    length[i] = static_cast<unsigned char>(header.size() >> (8 * i));
  }
  bool is_written = write(length.data(), length.size()) && write(header.data(), header.size());
  for (const Tensor& tensor : tensors) {
    is_written = is_written && write(tensor.values->data(), tensor.values->size() * sizeof(float));
  }
  return is_written && std::fflush(file.get()) == 0 && fsync(fileno(file.get())) == 0;
}

}  // namespace

Status write_tpla_calibration(const std::string& path,
                              const ModelConfig& config,
                              const TplaCalibration& calibration) {
  TESSERA_RETURN_IF_ERROR(check(config, calibration).with_context(path));
  const std::vector<Tensor> tensors = tensors_of(config, calibration);
  const std::string header = header_of(metadata(config, calibration), tensors);
  const std::string partial = str_cat(path, ".", getpid(), ".partial");
  if (write_file(partial, header, tensors) && std::rename(partial.c_str(), path.c_str()) == 0) {
    return Status::ok();
  }
  const int error = errno;
  static_cast<void>(std::remove(partial.c_str()));
  return internal_error(str_cat(path, ": ", std::generic_category().message(error)));
}

}  // namespace tessera
