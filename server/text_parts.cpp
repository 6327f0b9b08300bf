#include "server/text_parts.h"

#include <fstream>
#include <iterator>

#include "engine/base/log.h"

namespace tessera {
namespace {

Result<std::string> template_source(const cli::Options& options) {
  if (options.chat_template.empty()) {
    return load_chat_template_source(options.model);
  }
  std::ifstream file(options.chat_template, std::ios::binary);
  if (!file) {
    return invalid_argument(str_cat("--chat-template ", options.chat_template, ": cannot be read"));
  }
  return std::string(std::istreambuf_iterator<char>(file), {});
}

}  // namespace

Result<TextParts> load_text_parts(const cli::Options& options, const ModelConfig& config) {
  TextParts parts;
  TESSERA_TRY(parts.tokenizer, load_tokenizer(options.model));
  if (parts.tokenizer->vocab_size() > config.vocab_size) {
    return failed_precondition(str_cat("the tokenizer has ",
                                       parts.tokenizer->vocab_size(),
                                       " ids, the model's vocab_size is ",
                                       config.vocab_size));
  }
  TESSERA_TRY(parts.defaults, GenerationDefaults::load(options.model));
  const auto source = template_source(options);
  if (source.status().code() == StatusCode::kNotFound) {
    log_warning("no_chat_template", "effect", "chat requests are refused");
    return parts;
  }
  TESSERA_TRY(const std::string text, source);
  auto parsed = ChatTemplate::parse(text);
  if (!parsed.is_ok()) {
    return parsed.status().with_context("chat template");
  }
  parts.chat_template.emplace(std::move(parsed).value());
  return parts;
}

}  // namespace tessera
