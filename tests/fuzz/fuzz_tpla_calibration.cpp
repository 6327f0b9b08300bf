// A calibration file as hostile bytes. Input: edits of a whole file, 3 bytes each: where (2 bytes,
// little endian) and what is written there; one byte that is left over is a length to cut off.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

#include "engine/weights/tpla_calibration.h"
#include "engine/weights/tpla_transform.h"
#include "tests/support/small_model.h"
#include "tests/support/temp_folder.h"

namespace {

using tessera::TplaCalibration;

constexpr int64_t kSlices = 2;
constexpr int64_t kShared = 8;

/// One layer with fitted keys and an inverse, one plain.
TplaCalibration valid_calibration(const tessera::ModelConfig& config) {
  const auto width = static_cast<size_t>(config.kv_lora_rank);
  TplaCalibration::Layer plain;
  plain.basis.assign(width * width, 0.0F);
  for (size_t i = 0; i < width; ++i) {
    plain.basis[i * (width + 1)] = 1.0F;
  }
  TplaCalibration::Layer fitted = plain;
  fitted.inverse = fitted.basis;
  fitted.num_shared = kShared;
  const int64_t kept = kShared + (config.kv_lora_rank - kShared) / kSlices;
  fitted.keys.assign(
      static_cast<size_t>(kSlices * config.num_attention_heads * kept * config.qk_nope_head_dim),
      0.5F);
  return {.basis = "balanced",
          .dealing = "fold",
          .num_slices = kSlices,
          .layers = {fitted, plain},
          .window = {.num_first = 4, .num_last = 16}};
}

struct Fixture {
  const tessera::ModelConfig config = tessera::test::small_model_config();
  const tessera::test::TempFolder folder;
  const std::string path = folder.file("calibration.safetensors");
  std::string bytes;

  Fixture() {
    if (!write_tpla_calibration(path, config, valid_calibration(config)).is_ok()) {
      std::abort();
    }
    std::ifstream in(path, std::ios::binary);
    bytes.assign(std::istreambuf_iterator<char>(in), {});
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Fixture fixture;
  std::string bytes = fixture.bytes;
  for (size_t i = 0; i + 3 <= size; i += 3) {
    const size_t at = (data[i] + size_t{256} * data[i + 1]) % bytes.size();
    bytes[at] = static_cast<char>(data[i + 2]);
  }
  if (size % 3 != 0) {
    bytes.resize(bytes.size() - data[size - 1]);
  }
  std::ofstream(fixture.path, std::ios::binary) << bytes;
  auto calibration = tessera::read_tpla_calibration(fixture.path, fixture.config);
  if (!calibration.is_ok()) {
    return 0;
  }
  // What was accepted can be used as it is.
  const auto num_layers = static_cast<size_t>(fixture.config.num_hidden_layers);
  if (calibration.value().layers.size() != num_layers || calibration.value().num_slices < 2) {
    std::abort();
  }
  const auto transform =
      tessera::TplaTransform::create(fixture.config, std::move(calibration).value());
  if (transform.shared_columns().size() != num_layers) {
    std::abort();
  }
  return 0;
}
