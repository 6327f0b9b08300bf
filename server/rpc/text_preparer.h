// Messages of the public API to what the engine takes: checks every bound, renders and tokenises.
// Slow on long texts. Immutable; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"
#include "engine/request/generation_request.h"
#include "server/rpc/inference_options.h"

namespace tessera {
class ChatTemplate;
class Tokenizer;
}  // namespace tessera

namespace tessera::v1 {
class ChatPrompt;
class DetokenizeRequest;
class DetokenizeResponse;
class GenerateTextRequest;
class TokenIds;
class TokenizeRequest;
class TokenizeResponse;
}  // namespace tessera::v1

namespace tessera::rpc {

struct PreparedText {
  GenerationRequest generation;  ///< the caller sets id and deadline
  std::vector<std::string> stop;
};

class TextPreparer final {
 public:
  /// `chat_template` may be null: chat is then refused. All outlive the preparer.
  TextPreparer(const InferenceOptions& options,
               const Tokenizer& tokenizer,
               const ChatTemplate* chat_template);

  /// Errors of all three: INVALID_ARGUMENT naming the field, NOT_FOUND for another model's name.
  [[nodiscard]] Result<PreparedText> prepare(const v1::GenerateTextRequest& request) const;
  [[nodiscard]] Status tokenize(const v1::TokenizeRequest& request,
                                v1::TokenizeResponse& out) const;
  [[nodiscard]] Status detokenize(const v1::DetokenizeRequest& request,
                                  v1::DetokenizeResponse& out) const;

 private:
  [[nodiscard]] Status check_model(std::string_view name) const;
  [[nodiscard]] Status check_vocabulary(std::string_view field, int32_t largest_id) const;
  [[nodiscard]] Result<std::vector<int32_t>> prompt_of(
      const v1::GenerateTextRequest& request) const;
  [[nodiscard]] Result<std::vector<int32_t>> check_ids(const v1::TokenIds& prompt) const;
  [[nodiscard]] Result<std::vector<int32_t>> encode_chat(const v1::ChatPrompt& chat) const;
  [[nodiscard]] Result<std::vector<int32_t>> encode_text(std::string_view text,
                                                         bool add_special_tokens) const;
  [[nodiscard]] Status fit_to_context(int64_t num_prompt_tokens, SamplingParams& sampling) const;

  const InferenceOptions& options_;
  const Tokenizer& tokenizer_;
  const ChatTemplate* chat_template_;
};

}  // namespace tessera::rpc
