#include "engine/scheduler/sequence_group.h"

#include <algorithm>
#include <utility>

namespace tessera {
namespace {

// Tokens a choice may generate before its arrays grow.
constexpr int64_t kReservedTokens = 1024;

bool has_penalties(const SamplingParams& sampling) {
  return sampling.repetition_penalty != 1.0F || sampling.presence_penalty != 0.0F ||
         sampling.frequency_penalty != 0.0F;
}

}  // namespace

std::unique_ptr<SequenceGroup> make_sequence_group(GenerationRequest request,
                                                   std::shared_ptr<TokenSink> sink) {
  auto group = std::make_unique<SequenceGroup>();
  group->id = request.id;
  group->sampling = std::move(request.sampling);
  group->deadline = request.deadline;
  group->trace = request.trace;
  group->sink = std::move(sink);
  group->seed = group->sampling.seed.value_or(request.id.low);  // random bits already
  group->submitted_at = Deadline::Clock::now();
  const auto num_prompt_tokens = static_cast<int64_t>(request.prompt_ids.size());
  for (int32_t i = 0; i < request.num_choices; ++i) {
    auto& choice = group->choices.emplace_back(std::make_unique<Sequence>(
        *group, request.first_choice + i, request.prompt_ids, request.num_replayed_tokens));
    choice->reserve_tokens(num_prompt_tokens +
                           std::min(group->sampling.max_tokens, kReservedTokens));
    if (has_penalties(group->sampling)) {
      choice->keep_history();
    }
  }
  return group;
}

}  // namespace tessera
