#include "server/bench/answer_reader.h"

#include <algorithm>
#include <array>
#include <cstring>

#include <nlohmann/json.hpp>

namespace tessera::bench {
namespace {

using nlohmann::json;

constexpr std::array<std::string_view, 4> kTextKeys = {
    "\"content\"", "\"text\"", "\"reasoning_content\"", "\"reasoning\""};
constexpr std::string_view kUsage = "\"usage\"";
constexpr std::string_view kFinishReason = "\"finish_reason\"";
constexpr std::string_view kWhiteSpace = " \t\r\n";
constexpr size_t kMaxMessageBytes = 160;

/// As find(); memmem() skips where string_view's stops at each quote, of which JSON is full.
size_t find_key(std::string_view payload, std::string_view key, size_t begin = 0) noexcept {
  const char* from = payload.data() + begin;
  const void* found = memmem(from, payload.size() - begin, key.data(), key.size());
  return found == nullptr ? std::string_view::npos
                          : static_cast<size_t>(static_cast<const char*>(found) - payload.data());
}

/// What follows a key that ends at `at`, and its colon; "" when that is no key.
std::string_view value_after(std::string_view payload, size_t at) noexcept {
  at = payload.find_first_not_of(kWhiteSpace, at);
  if (at == std::string_view::npos || payload[at] != ':') {
    return {};
  }
  at = payload.find_first_not_of(kWhiteSpace, at + 1);
  return at == std::string_view::npos ? std::string_view() : payload.substr(at);
}

bool has_text(std::string_view payload, std::string_view key) noexcept {
  for (size_t at = find_key(payload, key); at != std::string_view::npos;
       at = find_key(payload, key, at)) {
    at += key.size();
    const std::string_view value = value_after(payload, at);
    if (value.size() > 1 && value[0] == '"' && value[1] != '"') {
      return true;
    }
  }
  return false;
}

/// The first character of the first value under `key`; '\0' without one.
char first_of_value(std::string_view payload, std::string_view key) noexcept {
  const size_t at = find_key(payload, key);
  const std::string_view value =
      at == std::string_view::npos ? std::string_view() : value_after(payload, at + key.size());
  return value.empty() ? '\0' : value.front();
}

std::string one_line(std::string_view text) {
  std::string line(text.substr(0, kMaxMessageBytes));
  std::replace_if(
      line.begin(), line.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20; }, ' ');
  return line;
}

const json* member(const json& object, const char* key) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

int64_t count_of(const json& usage, const char* key) {
  const json* value = member(usage, key);
  return value != nullptr && value->is_number_integer() ? value->get<int64_t>() : 0;
}

bool has_reason(const json& event) {
  const json* choices = member(event, "choices");
  return choices != nullptr && choices->is_array() &&
         std::any_of(choices->begin(), choices->end(), [](const json& choice) {
           return member(choice, "finish_reason") != nullptr;
         });
}

}  // namespace

bool has_content(std::string_view payload) noexcept {
  return std::any_of(kTextKeys.begin(), kTextKeys.end(), [&](std::string_view key) {
    return has_text(payload, key);
  });
}

void AnswerReader::on_event(std::string_view payload) {
  if (payload.starts_with("[DONE]")) {
    is_done_ = true;
    return;
  }
  if (first_of_value(payload, kUsage) == '{') {
    usage_event_ = payload;
  }
  if (has_content(payload)) {
    trace_.on_content(now_);
    has_finish_reason_ = has_finish_reason_ || first_of_value(payload, kFinishReason) == '"';
    return;
  }
  read_other(payload);
}

void AnswerReader::read_other(std::string_view payload) {
  const json event = json::parse(payload, nullptr, /*allow_exceptions=*/false);
  if (!event.is_object()) {
    error_ = error_.empty() ? "event is not a JSON object" : error_;
    return;
  }
  if (member(event, "error") != nullptr) {
    error_ = error_.empty() ? "error event: " + error_message(payload) : error_;
    return;
  }
  if (has_reason(event)) {
    has_finish_reason_ = true;
    trace_.on_finish_reason(now_);
  }
}

void AnswerReader::finish() {
  RequestRecord& record = trace_.record();
  record.completion_tokens = record.num_content_events;
  if (usage_event_.empty()) {
    return;
  }
  const json event = json::parse(usage_event_, nullptr, /*allow_exceptions=*/false);
  const json* usage = member(event, "usage");
  if (usage == nullptr) {
    return;
  }
  record.prompt_tokens = count_of(*usage, "prompt_tokens");
  if (const int64_t count = count_of(*usage, "completion_tokens"); count > 0) {
    record.completion_tokens = count;
  }
}

std::string error_message(std::string_view body) {
  const json object = json::parse(body, nullptr, /*allow_exceptions=*/false);
  const json* error = member(object, "error");
  if (error == nullptr) {
    error = object.is_object() ? &object : nullptr;
  }
  if (error != nullptr && error->is_string()) {
    return one_line(error->get_ref<const std::string&>());
  }
  const json* message = error == nullptr ? nullptr : member(*error, "message");
  if (message != nullptr && message->is_string()) {
    return one_line(message->get_ref<const std::string&>());
  }
  return one_line(body);
}

}  // namespace tessera::bench
