#include "server/bench/workload.h"

#include <string_view>
#include <utility>

#include "server/bench/file_workloads.h"
#include "server/bench/random_tokens.h"

namespace tessera::bench {
namespace {

constexpr std::string_view kConsonants = "bcdfglmnprst";
constexpr std::string_view kVowels = "aeiou";

/// Random ids, after one of several prefixes where there are groups.
class RandomWorkload final : public Workload {
 public:
  RandomWorkload(const DataSettings& settings, uint64_t seed) : settings_(settings), seed_(seed) {
    if (settings.kind == DataKind::kSharedPrefix) {
      for (int64_t group = 0; group < settings.num_prefix_groups; ++group) {
        std::mt19937_64 random = make_random(seed, Purpose::kPrefix, group);
        append_tokens(settings, random, settings.prefix_tokens, prefixes_.emplace_back());
      }
    }
  }

  [[nodiscard]] Prompt prompt(int64_t index) const override {
    Prompt prompt;
    std::mt19937_64 random = make_random(seed_, Purpose::kPrompt, index);
    if (!prefixes_.empty()) {
      std::uniform_int_distribution<size_t> group(0, prefixes_.size() - 1);
      prompt.token_ids = prefixes_[group(random)];
    }
    const int64_t length = random_length(settings_.input_tokens, settings_.length_range, random);
    prompt.output_tokens = random_length(settings_.output_tokens, settings_.length_range, random);
    append_tokens(settings_, random, length, prompt.token_ids);
    return prompt;
  }
  [[nodiscard]] int64_t size() const noexcept override { return 0; }
  [[nodiscard]] const std::vector<double>& trace_ms() const noexcept override { return no_trace_; }

 private:
  const DataSettings settings_;
  const uint64_t seed_;
  std::vector<std::vector<int32_t>> prefixes_;
  const std::vector<double> no_trace_;
};

}  // namespace

Result<std::unique_ptr<Workload>> make_workload(const BenchSettings& settings) {
  switch (settings.data.kind) {
    case DataKind::kJsonl:
      return read_jsonl_workload(settings.data, settings.api);
    case DataKind::kMooncake:
      return read_mooncake_workload(settings.data, settings.seed);
    case DataKind::kRandom:
    case DataKind::kSharedPrefix:
      break;
  }
  return std::unique_ptr<Workload>(std::make_unique<RandomWorkload>(settings.data, settings.seed));
}

std::string text_of(const std::vector<int32_t>& token_ids) {
  std::string text;
  text.reserve(token_ids.size() * 4);
  for (const int32_t id : token_ids) {
    auto rest = static_cast<uint32_t>(id);
    text += text.empty() ? "" : " ";
    text += kConsonants[rest % kConsonants.size()];
    rest /= kConsonants.size();
    text += kVowels[rest % kVowels.size()];
    rest /= kVowels.size();
    text += kConsonants[rest % kConsonants.size()];
  }
  return text;
}

}  // namespace tessera::bench
