// A checkpoint's tensors, checked against what the config asks for; dequantised on reading, or as
// they are stored.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/config/model_config.h"
#include "engine/weights/checkpoint.h"
#include "engine/weights/tensor_source.h"

namespace tessera {

class CheckpointSource final : public TensorSource {
 public:
  /// Compares the checkpoint with the config. Errors: INVALID_ARGUMENT with every missing,
  /// unexpected, misshapen or ill-typed tensor, one a line. `checkpoint` outlives the source.
  [[nodiscard]] static Result<std::unique_ptr<CheckpointSource>> create(
      const ModelConfig& config, const Checkpoint& checkpoint);

  [[nodiscard]] kernels::ConstTensorView read(const std::string& name) override;
  [[nodiscard]] std::optional<StoredBlocks> stored_blocks(const std::string& name) const override;
  [[nodiscard]] kernels::Float8Matrix read_float8(const std::string& name,
                                                  const IndexRange& rows,
                                                  const IndexRange& columns) override;
  [[nodiscard]] int64_t num_bytes() const override { return num_bytes_; }
  [[nodiscard]] int64_t num_bytes_read() const override { return num_bytes_read_; }
  /// Of what was read so far: INVALID_ARGUMENT with every FP8 tensor that has NaN codes, and all
  /// scales of one that are not finite, one a line.
  [[nodiscard]] Status status() const;

 private:
  CheckpointSource(const Checkpoint& checkpoint,
                   std::string prefix,
                   std::optional<BlockQuantization> blocks)
      : checkpoint_(checkpoint), prefix_(std::move(prefix)), blocks_(blocks) {}

  /// The tensor; what was read before is given back.
  [[nodiscard]] kernels::ConstTensorView take(const std::string& name);
  /// Of the tensor that was taken, in float32.
  [[nodiscard]] kernels::ConstTensorView read_scales();
  void check_values(const kernels::ConstTensorView& values,
                    const IndexRange& rows,
                    const IndexRange& columns);

  const Checkpoint& checkpoint_;
  std::string prefix_;  // before every name: "" or "language_model."
  std::optional<BlockQuantization> blocks_;
  int64_t num_bytes_ = 0;
  int64_t num_bytes_read_ = 0;
  std::string last_name_;       // its pages are released by the next read
  std::vector<float> staging_;  // of the last tensor that was dequantised or unaligned
  std::vector<float> scales_;   // of the last tensor in FP8
  std::vector<std::string> faults_;
};

}  // namespace tessera
