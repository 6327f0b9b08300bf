// The JSON header of a safetensors file, read as hostile input. Needs no file: fuzzed directly.
// Format: https://github.com/huggingface/safetensors, README, "Format".
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"
#include "kernels/core/dtype.h"

namespace tessera {

inline constexpr int64_t kMaxSafetensorsHeaderBytes = 100'000'000;

/// One tensor; its bytes are [begin, end) of the data after the header.
struct SafetensorsEntry {
  std::string name;
  kernels::DType dtype = kernels::DType::kFloat32;
  int rank = 0;
  std::array<int64_t, 4> shape{};
  int64_t begin = 0;
  int64_t end = 0;
};

/// Entries in the order of their bytes. Checked: JSON and its depth, no name twice, known dtype,
/// rank at most 4, shape times element size equals the byte range, and ranges that tile
/// [0, data_bytes) without overlap or gap. Errors: INVALID_ARGUMENT, names the tensor.
[[nodiscard]] Result<std::vector<SafetensorsEntry>> parse_safetensors_header(
    std::string_view header_json, int64_t data_bytes);

/// The texts under `__metadata__` of a header that parse_safetensors_header accepts; others there
/// are left out.
[[nodiscard]] std::map<std::string, std::string> parse_safetensors_metadata(
    std::string_view header_json);

}  // namespace tessera
