#include "engine/serving/event_builder.h"

namespace tessera {

void fill_token_event(const Sequence& choice,
                      const StopDecision& decision,
                      const StepOutput& output,
                      size_t row,
                      TokenEvent& event) {
  const SequenceGroup& group = choice.group();
  event.choice = choice.choice();
  event.index = choice.num_generated() - 1;
  event.token_id = output.token_ids[row];
  event.finish_reason = decision.reason;
  event.stop_token_id = decision.stop_token_id;
  event.num_cached_tokens = group.num_cached_tokens;
  event.logprob = 0.0F;
  event.top_logprobs.clear();
  if (group.sampling.num_top_logprobs < 0) {
    return;
  }
  event.logprob = output.logprobs[row];
  const size_t begin = row * static_cast<size_t>(kernels::kMaxTopLogprobs);
  const size_t end = begin + static_cast<size_t>(group.sampling.num_top_logprobs);
  for (size_t i = begin; i < end; ++i) {
    event.top_logprobs.emplace_back(output.top_ids[i], output.top_logprobs[i]);
  }
}

}  // namespace tessera
