// What turns conversations into token ids and back: tokenizer, chat template, sampling defaults.
#pragma once

#include <memory>
#include <optional>

#include "engine/base/result.h"
#include "engine/chat/chat_template.h"
#include "engine/config/model_config.h"
#include "engine/tokenizer/tokenizer.h"
#include "server/cli/options.h"

namespace tessera {

struct TextParts {
  std::unique_ptr<Tokenizer> tokenizer;
  std::optional<ChatTemplate> chat_template;  ///< none: the model knows no chat
  GenerationDefaults defaults;
};

/// Reads the checkpoint folder's files, or --chat-template. Errors: NOT_FOUND, INVALID_ARGUMENT,
/// UNIMPLEMENTED, and FAILED_PRECONDITION when the tokenizer has ids that the model has not.
[[nodiscard]] Result<TextParts> load_text_parts(const cli::Options& options,
                                                const ModelConfig& config);

}  // namespace tessera
