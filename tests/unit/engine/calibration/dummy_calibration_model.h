// A small model with random weights, as calibration takes one.
#pragma once

#include <memory>

#include "engine/calibration/statistics_run.h"
#include "engine/weights/dummy_source.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/unit/engine/calibration/test_layer.h"

namespace tessera::test {

class DummyCalibrationModel final {
 public:
  [[nodiscard]] const ModelConfig& config() const { return config_; }
  [[nodiscard]] const CalibrationModel& model() const { return model_; }

 private:
  static constexpr uint64_t kSeed = 11;
  const ModelConfig config_ = small_model_config();
  const MeasuredParts parts_ = {
      .config = config_,
      .load_weights =
          [this](kernels::Backend& backend, const LoadOptions& options) {
            return make_dummy_weights(config_, backend, options, kSeed);
          },
      .make_backend = [](int, int threads) { return kernels::cpu::create_cpu_backend(threads); }};
  const CalibrationModel model_ = {
      .parts = parts_, .open_source = [this]() -> Result<std::unique_ptr<TensorSource>> {
        return std::unique_ptr<TensorSource>(std::make_unique<DummySource>(config_, kSeed));
      }};
};

}  // namespace tessera::test
