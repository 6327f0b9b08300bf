#include "server/roles/text_source.h"

#include <algorithm>
#include <fstream>
#include <utility>

#include "engine/base/text.h"
#include "engine/tokenizer/tokenizer.h"

namespace tessera {
namespace {

constexpr int64_t kMaxTextBytes = int64_t{256} << 20;

Result<std::string> read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) {
    return not_found(str_cat(path, ": cannot be read"));
  }
  const auto num_bytes = static_cast<int64_t>(file.tellg());
  if (num_bytes > kMaxTextBytes) {
    return invalid_argument(str_cat(path, ": ", num_bytes, " bytes, at most ", kMaxTextBytes));
  }
  std::string text(static_cast<size_t>(std::max<int64_t>(num_bytes, 0)), '\0');
  file.seekg(0);
  file.read(text.data(), num_bytes);
  return file ? Result<std::string>(std::move(text))
              : Result<std::string>(not_found(str_cat(path, ": cannot be read")));
}

}  // namespace

Result<TextTokens> load_text_tokens(const std::string& model_folder,
                                    const std::string& text_path,
                                    const ModelConfig& config) {
  TESSERA_TRY(const auto tokenizer, load_tokenizer(model_folder));
  TESSERA_TRY(const std::string text, read_text(text_path));
  TextTokens tokens;
  auto ids = tokenizer->encode(text, {.add_special_tokens = false, .parse_special_tokens = false});
  if (!ids.is_ok()) {
    return ids.status().with_context(text_path);
  }
  tokens.ids = std::move(ids).value();
  TESSERA_TRY(const auto empty, tokenizer->encode("", {}));
  if (!empty.empty() && empty.front() == tokenizer->bos_id()) {
    tokens.bos_id = tokenizer->bos_id();
  }
  const auto largest = std::max_element(tokens.ids.begin(), tokens.ids.end());
  if (largest != tokens.ids.end() && *largest >= config.vocab_size) {
    return invalid_argument(str_cat(
        "the tokenizer has id ", *largest, ", the model's vocab_size is ", config.vocab_size));
  }
  return tokens;
}

}  // namespace tessera
