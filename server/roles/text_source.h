// The text that eval and calibrate run a model over, as token ids.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/config/model_config.h"

namespace tessera {

struct TextTokens {
  std::vector<int32_t> ids;       ///< without special tokens
  std::optional<int32_t> bos_id;  ///< when the tokenizer begins every prompt with it
};

/// Reads the whole file and tokenizes it with the checkpoint's tokenizer. Errors: those of
/// load_tokenizer(); NOT_FOUND; INVALID_ARGUMENT (not UTF-8, larger than 256 MiB, ids that the
/// model does not have).
[[nodiscard]] Result<TextTokens> load_text_tokens(const std::string& model_folder,
                                                  const std::string& text_path,
                                                  const ModelConfig& config);

}  // namespace tessera
