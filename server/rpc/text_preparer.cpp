#include "server/rpc/text_preparer.h"

#include <algorithm>
#include <utility>

#include <nlohmann/json.hpp>

#include "engine/chat/chat_template.h"
#include "engine/tokenizer/tokenizer.h"
#include "proto/tessera/inference.pb.h"
#include "server/rpc/convert.h"
#include "server/rpc/field_checks.h"

namespace tessera::rpc {
namespace {

constexpr int64_t kMaxStopStrings = 16;
constexpr int64_t kMaxStopBytes = 1024;
constexpr int64_t kMaxMessages = 4096;
constexpr int64_t kMaxBytesPerPosition = 8;
constexpr int64_t kMaxShownNameBytes = 64;

std::string token_text(const Tokenizer& tokenizer, std::optional<int32_t> id) {
  return id.has_value() ? std::string(tokenizer.token_bytes(*id)) : std::string();
}

template <typename Ids>
int32_t largest(const Ids& ids) {
  return ids.empty() ? 0 : *std::max_element(ids.begin(), ids.end());
}

Status check_stop_strings(const v1::GenerateTextRequest& request) {
  for (const std::string& stop : request.stop()) {
    Status status = check_bytes("stop", stop, kMaxStopBytes);
    if (!status.is_ok()) {
      return status;
    }
  }
  return check_count("stop", request.stop_size(), kMaxStopStrings);
}

Status check_bounds(const v1::GenerateTextRequest& request, const InferenceOptions& options) {
  TESSERA_RETURN_IF_ERROR(
      check_range("num_choices", request.num_choices(), 0, options.max_choices));
  TESSERA_RETURN_IF_ERROR(check_stop_strings(request));
  return check_range("sampling.num_top_logprobs",
                     request.sampling().num_top_logprobs(),
                     0,
                     options.max_top_logprobs);
}

}  // namespace

TextPreparer::TextPreparer(const InferenceOptions& options,
                           const Tokenizer& tokenizer,
                           const ChatTemplate* chat_template)
    : options_(options), tokenizer_(tokenizer), chat_template_(chat_template) {}

Result<PreparedText> TextPreparer::prepare(const v1::GenerateTextRequest& request) const {
  TESSERA_RETURN_IF_ERROR(check_model(request.model()));
  TESSERA_RETURN_IF_ERROR(check_bounds(request, options_));
  PreparedText out;
  TESSERA_TRY(out.generation.sampling, from_proto(request.sampling()));
  TESSERA_TRY(out.generation.prompt_ids, prompt_of(request));
  TESSERA_RETURN_IF_ERROR(fit_to_context(static_cast<int64_t>(out.generation.prompt_ids.size()),
                                         out.generation.sampling));
  TESSERA_RETURN_IF_ERROR(out.generation.sampling.validate(options_.vocab_size));
  out.generation.num_choices = std::max(request.num_choices(), 1);
  out.stop.assign(request.stop().begin(), request.stop().end());
  return out;
}

Status TextPreparer::tokenize(const v1::TokenizeRequest& request, v1::TokenizeResponse& out) const {
  TESSERA_RETURN_IF_ERROR(check_model(request.model()));
  TESSERA_TRY(const auto ids, encode_text(request.text(), request.add_special_tokens()));
  out.mutable_ids()->Add(ids.begin(), ids.end());
  out.set_max_model_len(options_.max_model_len);
  return Status::ok();
}

Status TextPreparer::detokenize(const v1::DetokenizeRequest& request,
                                v1::DetokenizeResponse& out) const {
  TESSERA_RETURN_IF_ERROR(check_model(request.model()));
  TESSERA_RETURN_IF_ERROR(check_token_ids("ids", request.ids(), kMaxPromptTokens));
  TESSERA_RETURN_IF_ERROR(check_vocabulary("ids", largest(request.ids())));
  out.set_text(tokenizer_.decode({request.ids().begin(), request.ids().end()},
                                 request.skip_special_tokens()));
  return Status::ok();
}

Status TextPreparer::check_model(std::string_view name) const {
  const auto& names = options_.served_model_names;
  if (name.empty() || std::find(names.begin(), names.end(), name) != names.end()) {
    return Status::ok();
  }
  return not_found(
      str_cat("the model \"", clean_text(name, kMaxShownNameBytes), "\" is not served here"));
}

Status TextPreparer::check_vocabulary(std::string_view field, int32_t largest_id) const {
  if (largest_id < options_.vocab_size) {
    return Status::ok();
  }
  return invalid_argument(str_cat(
      field, " names token ", largest_id, ", the vocabulary has ", options_.vocab_size, " tokens"));
}

Result<std::vector<int32_t>> TextPreparer::prompt_of(const v1::GenerateTextRequest& request) const {
  switch (request.prompt_case()) {
    case v1::GenerateTextRequest::kText:
      return encode_text(request.text(), /*add_special_tokens=*/true);
    case v1::GenerateTextRequest::kChat:
      return encode_chat(request.chat());
    case v1::GenerateTextRequest::kTokenIds:
      return check_ids(request.token_ids());
    case v1::GenerateTextRequest::PROMPT_NOT_SET:
      break;
  }
  return invalid_argument("prompt is not set, expected text, token_ids or chat");
}

Result<std::vector<int32_t>> TextPreparer::check_ids(const v1::TokenIds& prompt) const {
  const auto& ids = prompt.ids();
  TESSERA_RETURN_IF_ERROR(check_token_ids("token_ids", ids, options_.max_model_len));
  TESSERA_RETURN_IF_ERROR(check_vocabulary("token_ids", largest(ids)));
  return std::vector<int32_t>(ids.begin(), ids.end());
}

Result<std::vector<int32_t>> TextPreparer::encode_chat(const v1::ChatPrompt& chat) const {
  if (chat_template_ == nullptr) {
    return invalid_argument("this model has no chat template; send text or token_ids");
  }
  TESSERA_RETURN_IF_ERROR(check_range("messages", chat.messages_size(), 1, kMaxMessages));
  nlohmann::json variables = {{"messages", nlohmann::json::array()},
                              {"add_generation_prompt", true},
                              {"bos_token", token_text(tokenizer_, tokenizer_.bos_id())},
                              {"eos_token", token_text(tokenizer_, tokenizer_.eos_id())}};
  for (const v1::ChatMessage& message : chat.messages()) {
    variables["messages"].push_back({{"role", message.role()}, {"content", message.content()}});
  }
  const auto text = chat_template_->render(variables.dump());
  if (!text.is_ok()) {
    // The conversation, which the client wrote, is what a fixed template trips over.
    return invalid_argument(
        str_cat("the chat template refused the messages: ", text.status().message()));
  }
  return encode_text(text.value(), /*add_special_tokens=*/false);  // the template writes them
}

Result<std::vector<int32_t>> TextPreparer::encode_text(std::string_view text,
                                                       bool add_special_tokens) const {
  const auto num_bytes = static_cast<int64_t>(text.size());
  if (num_bytes / kMaxBytesPerPosition > options_.max_model_len) {
    return invalid_argument(str_cat("the text has ",
                                    num_bytes,
                                    " bytes, the model's context holds ",
                                    options_.max_model_len,
                                    " tokens"));
  }
  EncodeOptions options;
  options.add_special_tokens = add_special_tokens;
  return tokenizer_.encode(text, options);
}

Status TextPreparer::fit_to_context(int64_t num_prompt_tokens, SamplingParams& sampling) const {
  if (num_prompt_tokens == 0) {
    return invalid_argument("the prompt has no tokens");
  }
  const int64_t room = options_.max_model_len - num_prompt_tokens;
  if (room < 1 || sampling.max_tokens > room) {
    return invalid_argument(str_cat("the prompt has ",
                                    num_prompt_tokens,
                                    " tokens and max_tokens is ",
                                    std::max<int64_t>(sampling.max_tokens, 1),
                                    ", the model's context holds ",
                                    options_.max_model_len));
  }
  if (sampling.max_tokens == 0) {
    sampling.max_tokens = room;
  }
  return Status::ok();
}

}  // namespace tessera::rpc
