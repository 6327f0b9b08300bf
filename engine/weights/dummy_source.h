// Random tensors of a config's shapes (`--load-format dummy`): any config.json runs without
// weights.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/config/model_config.h"
#include "engine/weights/tensor_source.h"

namespace tessera {

/// bfloat16, uniform with standard deviation 0.02 (Hugging Face's initializer_range); norms around
/// 1. The values of a tensor depend on the seed and its name alone.
class DummySource final : public TensorSource {
 public:
  DummySource(const ModelConfig& config, uint64_t seed);

  [[nodiscard]] kernels::ConstTensorView read(const std::string& name) override;
  [[nodiscard]] std::optional<kernels::RandomRows> take_random(const std::string& name) override;
  [[nodiscard]] int64_t num_bytes() const override { return num_bytes_; }
  [[nodiscard]] int64_t num_bytes_read() const override { return num_bytes_read_; }

 private:
  [[nodiscard]] const std::vector<int64_t>& shape(const std::string& name) const;
  /// Of the tensor's first element.
  [[nodiscard]] uint64_t counter(const std::string& name) const;

  uint64_t seed_;
  std::unordered_map<std::string, std::vector<int64_t>> shapes_;
  int64_t num_bytes_ = 0;
  int64_t num_bytes_read_ = 0;
  std::vector<kernels::BFloat16> values_;  // of the last tensor
};

}  // namespace tessera
