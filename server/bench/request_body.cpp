#include "server/bench/request_body.h"

#include <array>
#include <charconv>

#include <nlohmann/json.hpp>

namespace tessera::bench {
namespace {

/// A JSON string. Bytes that are not UTF-8 become replacement characters.
std::string quoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

void append_int(std::string& out, int64_t value) {
  std::array<char, 24> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
  out.append(digits.data(), end);
}

void append_ids(std::string& out, const std::vector<int32_t>& ids) {
  out += '[';
  for (size_t i = 0; i < ids.size(); ++i) {
    if (i > 0) {
      out += ',';
    }
    append_int(out, ids[i]);
  }
  out += ']';
}

void append_chat(std::string& out, const Prompt& prompt) {
  out += R"("messages":)";
  if (!prompt.messages_json.empty()) {
    out += prompt.messages_json;
    return;
  }
  out += R"([{"role":"user","content":)";
  out += quoted(prompt.text.empty() ? text_of(prompt.token_ids) : prompt.text);
  out += "}]";
}

void append_prompt(std::string& out, const Prompt& prompt) {
  out += R"("prompt":)";
  if (!prompt.token_ids.empty()) {
    append_ids(out, prompt.token_ids);
    return;
  }
  out += quoted(prompt.text.empty() ? prompt.messages_json : prompt.text);
}

}  // namespace

std::string request_body(const BenchSettings& settings, const Prompt& prompt) {
  std::string body = R"({"model":)" + quoted(settings.model) + ",";
  const bool is_chat = settings.api == Api::kChat;
  if (is_chat) {
    append_chat(body, prompt);
  } else {
    append_prompt(body, prompt);
  }
  body += is_chat ? R"(,"max_completion_tokens":)" : R"(,"max_tokens":)";
  append_int(body, prompt.output_tokens);
  body += R"(,"temperature":)" + nlohmann::json(settings.temperature).dump();
  if (settings.ignore_eos) {
    body += R"(,"ignore_eos":true)";
  }
  return body + R"(,"stream":true,"stream_options":{"include_usage":true}})";
}

}  // namespace tessera::bench
