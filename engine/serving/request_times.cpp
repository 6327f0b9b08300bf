#include "engine/serving/request_times.h"

#include <algorithm>
#include <chrono>

#include "engine/base/log.h"

namespace tessera {
namespace {

using TimePoint = Deadline::Clock::time_point;

double seconds_between(TimePoint begin, TimePoint end) {
  return std::chrono::duration<double>(end - begin).count();
}

}  // namespace

void note_request_start(SequenceGroup& group, TimePoint now, EngineMetrics& metrics) {
  group.started_at = now;
  metrics.queue_seconds.observe(seconds_between(group.submitted_at, now));
  metrics.prompt_tokens.add(group.choices.front()->num_prompt_tokens());
  metrics.prompt_tokens_cached.add(group.num_cached_tokens);
  metrics.shapes.prompt_tokens.observe(
      static_cast<double>(group.choices.front()->num_prompt_tokens()));
  metrics.shapes.num_choices.observe(static_cast<double>(group.num_choices()));
  metrics.shapes.max_tokens.observe(static_cast<double>(group.sampling.max_tokens));
}

void note_request_token(SequenceGroup& group, TimePoint now, EngineMetrics& metrics) {
  if (!group.is_forked) {
    metrics.time_to_first_token_seconds.observe(seconds_between(group.submitted_at, now));
    metrics.prefill_seconds.observe(seconds_between(group.started_at, now));
    group.first_token_at = now;
  } else if (group.last_token_at != now) {  // choices of one step count once
    metrics.inter_token_seconds.observe(seconds_between(group.last_token_at, now));
    ++group.num_later_tokens;
  }
  group.last_token_at = now;
}

void note_request_finish(const SequenceGroup& group, EngineMetrics& metrics) {
  Counter& counter =
      group.is_cut_by_length ? metrics.requests_finished_length : metrics.requests_finished_stop;
  counter.add();
  const double decode_seconds = seconds_between(group.first_token_at, group.last_token_at);
  metrics.decode_seconds.observe(decode_seconds);
  if (group.num_later_tokens > 0) {
    metrics.shapes.time_per_output_token_seconds.observe(
        decode_seconds / static_cast<double>(group.num_later_tokens));
  }
  int64_t longest = 0;
  for (const auto& choice : group.choices) {
    longest = std::max(longest, choice->num_generated());
    metrics.shapes.generation_tokens.observe(static_cast<double>(choice->num_generated()));
  }
  metrics.shapes.longest_generation_tokens.observe(static_cast<double>(longest));
}

void note_request_end(const SequenceGroup& group, TimePoint now, EngineMetrics& metrics) {
  const double seconds = seconds_between(group.submitted_at, now);
  metrics.request_seconds.observe(seconds);
  const Sequence& first = *group.choices.front();
  log_debug("request_ended",
            "request_id",
            group.id.to_string(),
            "trace_id",
            group.trace.trace_id(),
            "attempt",
            group.attempt,
            "prompt_tokens",
            first.num_prompt_tokens(),
            "generated_tokens",
            first.num_generated(),
            "seconds",
            seconds);
}

}  // namespace tessera
