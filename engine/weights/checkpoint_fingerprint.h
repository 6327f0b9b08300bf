// Names the weights of a model folder: two workers that serve one request must have the same.
#pragma once

#include <string>

#include "engine/base/result.h"

namespace tessera {

/// Over config.json and, of each safetensors file in the order of names, its name, size, header and
/// 64 samples of its data of 4 KiB each, evenly spread: reads little, and tells finetunes of one
/// model apart. Errors: NOT_FOUND, INVALID_ARGUMENT for a file that cannot be read.
[[nodiscard]] Result<std::string> checkpoint_fingerprint(const std::string& folder);

}  // namespace tessera
