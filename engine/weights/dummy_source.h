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
/// 1. The values of a tensor depend on the seed and its name alone. With a quantization_config the
/// matrices that DeepSeek-V3 stores in FP8 may be had so too: the same numbers, rounded.
class DummySource final : public TensorSource {
 public:
  DummySource(const ModelConfig& config, uint64_t seed);

  [[nodiscard]] kernels::ConstTensorView read(const std::string& name) override;
  [[nodiscard]] std::optional<kernels::RandomRows> take_random(const std::string& name) override;
  [[nodiscard]] std::optional<StoredBlocks> stored_blocks(const std::string& name) const override;
  [[nodiscard]] kernels::Float8Matrix read_float8(const std::string& name,
                                                  const IndexRange& rows,
                                                  const IndexRange& columns) override;
  [[nodiscard]] int64_t num_bytes() const override { return num_bytes_; }
  [[nodiscard]] int64_t num_bytes_read() const override { return num_bytes_read_; }

 private:
  [[nodiscard]] const std::vector<int64_t>& shape(const std::string& name) const;
  /// Of the tensor's first element.
  [[nodiscard]] uint64_t counter(const std::string& name) const;

  uint64_t seed_;
  std::optional<BlockQuantization> blocks_;
  std::unordered_map<std::string, std::vector<int64_t>> shapes_;
  int64_t num_bytes_ = 0;
  int64_t num_bytes_read_ = 0;
  std::vector<kernels::BFloat16> values_;  // of the last tensor
  std::vector<uint8_t> float8_;            // likewise
  std::vector<float> scales_;              // likewise
};

}  // namespace tessera
