#include "server/bench/file_workloads.h"

#include <algorithm>
#include <fstream>
#include <functional>
#include <utility>

#include "engine/base/json_reader.h"
#include "engine/base/text.h"
#include "server/bench/random_tokens.h"

namespace tessera::bench {
namespace {

constexpr int64_t kMaxLines = 2'000'000;
constexpr size_t kMaxLineBytes = size_t{16} << 20;
constexpr int64_t kMaxFileBytes = int64_t{2} << 30;
constexpr int64_t kMaxTokens = int64_t{1} << 20;

/// Calls `read` with each line that is not empty.
Status read_lines(const std::string& path, const std::function<Status(JsonReader&)>& read) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    return not_found(str_cat(path, ": cannot be read"));
  }
  std::string line;
  int64_t num_bytes = 0;
  for (int64_t number = 1; std::getline(file, line); ++number) {
    num_bytes += static_cast<int64_t>(line.size());
    if (number > kMaxLines || line.size() > kMaxLineBytes || num_bytes > kMaxFileBytes) {
      return invalid_argument(str_cat(path, ": too long at line ", number));
    }
    if (line.find_first_not_of(" \t\r") == std::string::npos) {
      continue;
    }
    auto reader = JsonReader::parse(line);
    Status status = reader.status();
    if (reader.is_ok()) {
      status = read(reader.value());
    }
    if (!status.is_ok()) {
      return status.with_context(str_cat(path, ":", number));
    }
  }
  return Status::ok();
}

Result<int64_t> read_length(JsonReader& line, std::string_view key, int64_t fallback) {
  const int64_t length = line.get_int(key).value_or(fallback);
  TESSERA_RETURN_IF_ERROR(line.faults());
  if (length < 1 || length > kMaxTokens) {
    return invalid_argument(str_cat(key, " is ", length, ", expected 1 to ", kMaxTokens));
  }
  return length;
}

Result<std::vector<int32_t>> narrow(const std::vector<int64_t>& ids) {
  std::vector<int32_t> narrowed;
  narrowed.reserve(ids.size());
  for (const int64_t id : ids) {
    if (id < 0 || id > INT32_MAX) {
      return invalid_argument(str_cat("prompt: ", id, " is not a token id"));
    }
    narrowed.push_back(static_cast<int32_t>(id));
  }
  return narrowed;
}

Result<Prompt> read_prompt(JsonReader& line, int64_t output_tokens) {
  Prompt prompt;
  TESSERA_TRY(prompt.output_tokens, read_length(line, "output_tokens", output_tokens));
  const std::string messages = line.get_json("messages").value_or("");
  if (messages.starts_with('[')) {
    prompt.messages_json = messages;
    return prompt;
  }
  if (line.get_json("prompt").value_or("").starts_with('[')) {
    TESSERA_TRY(prompt.token_ids,
                narrow(line.get_int_list("prompt").value_or(std::vector<int64_t>())));
  } else {
    prompt.text = line.get_string("prompt").value_or("");
  }
  TESSERA_RETURN_IF_ERROR(line.faults());
  if (prompt.token_ids.empty() && prompt.text.empty()) {
    return invalid_argument("neither a prompt nor messages");
  }
  return prompt;
}

class JsonlWorkload final : public Workload {
 public:
  explicit JsonlWorkload(std::vector<Prompt> prompts) : prompts_(std::move(prompts)) {}

  [[nodiscard]] Prompt prompt(int64_t index) const override {
    return prompts_[static_cast<size_t>(index) % prompts_.size()];
  }
  [[nodiscard]] int64_t size() const noexcept override {
    return static_cast<int64_t>(prompts_.size());
  }
  [[nodiscard]] const std::vector<double>& trace_ms() const noexcept override { return no_trace_; }

 private:
  const std::vector<Prompt> prompts_;
  const std::vector<double> no_trace_;
};

struct TraceLine {
  int64_t input_tokens = 0;
  int64_t output_tokens = 0;
  std::vector<int64_t> hash_ids;
};

class MooncakeWorkload final : public Workload {
 public:
  MooncakeWorkload(const DataSettings& settings,
                   uint64_t seed,
                   std::vector<TraceLine> lines,
                   std::vector<double> trace_ms)
      : settings_(settings),
        seed_(seed),
        lines_(std::move(lines)),
        trace_ms_(std::move(trace_ms)) {}

  [[nodiscard]] Prompt prompt(int64_t index) const override {
    const TraceLine& line = lines_[static_cast<size_t>(index) % lines_.size()];
    Prompt prompt;
    prompt.output_tokens = line.output_tokens;
    const auto length = static_cast<size_t>(line.input_tokens);
    for (const int64_t id : line.hash_ids) {
      if (prompt.token_ids.size() >= length) {
        break;
      }
      std::mt19937_64 random = make_random(seed_, Purpose::kBlock, id);
      append_tokens(settings_, random, kTraceBlockTokens, prompt.token_ids);
    }
    if (prompt.token_ids.size() < length) {  // a trace may leave out the last, partial block
      std::mt19937_64 random = make_random(seed_, Purpose::kPrompt, index);
      const size_t missing = length - prompt.token_ids.size();
      append_tokens(settings_, random, static_cast<int64_t>(missing), prompt.token_ids);
    }
    prompt.token_ids.resize(length);
    return prompt;
  }
  [[nodiscard]] int64_t size() const noexcept override {
    return static_cast<int64_t>(lines_.size());
  }
  [[nodiscard]] const std::vector<double>& trace_ms() const noexcept override { return trace_ms_; }

 private:
  const DataSettings settings_;
  const uint64_t seed_;
  const std::vector<TraceLine> lines_;
  const std::vector<double> trace_ms_;
};

Result<TraceLine> read_trace_line(JsonReader& line, int64_t output_tokens) {
  TraceLine result;
  TESSERA_TRY(result.input_tokens, read_length(line, "input_length", 0));
  TESSERA_TRY(result.output_tokens, read_length(line, "output_length", output_tokens));
  result.hash_ids = line.get_int_list("hash_ids").value_or(std::vector<int64_t>());
  TESSERA_RETURN_IF_ERROR(line.faults());
  return result;
}

Result<double> read_timestamp(JsonReader& line, const std::vector<double>& before) {
  const double at_ms = line.get_number("timestamp").value_or(0.0);
  TESSERA_RETURN_IF_ERROR(line.faults());
  if (!before.empty() && at_ms < before.back()) {
    return invalid_argument(
        str_cat("timestamp ", at_ms, " is before that of the line above, ", before.back()));
  }
  return at_ms;
}

}  // namespace

Result<std::unique_ptr<Workload>> read_jsonl_workload(const DataSettings& settings, Api api) {
  std::vector<Prompt> prompts;
  const auto read = [&](JsonReader& line) -> Status {
    TESSERA_TRY(Prompt prompt, read_prompt(line, settings.output_tokens));
    if (api == Api::kCompletions && !prompt.messages_json.empty()) {
      return invalid_argument("messages are for --api chat");
    }
    if (api == Api::kChat && !prompt.token_ids.empty()) {
      return invalid_argument("token ids are for --api completions");
    }
    prompts.push_back(std::move(prompt));
    return Status::ok();
  };
  TESSERA_RETURN_IF_ERROR(read_lines(settings.path, read));
  if (prompts.empty()) {
    return invalid_argument(settings.path + ": has no line");
  }
  return std::unique_ptr<Workload>(std::make_unique<JsonlWorkload>(std::move(prompts)));
}

Result<std::unique_ptr<Workload>> read_mooncake_workload(const DataSettings& settings,
                                                         uint64_t seed) {
  std::vector<TraceLine> lines;
  std::vector<double> trace_ms;
  const auto read = [&](JsonReader& reader) -> Status {
    TESSERA_TRY(TraceLine line, read_trace_line(reader, settings.output_tokens));
    TESSERA_TRY(const double at_ms, read_timestamp(reader, trace_ms));
    lines.push_back(std::move(line));
    trace_ms.push_back(at_ms);
    return Status::ok();
  };
  TESSERA_RETURN_IF_ERROR(read_lines(settings.path, read));
  if (lines.empty()) {
    return invalid_argument(settings.path + ": has no line");
  }
  return std::unique_ptr<Workload>(
      std::make_unique<MooncakeWorkload>(settings, seed, std::move(lines), std::move(trace_ms)));
}

}  // namespace tessera::bench
