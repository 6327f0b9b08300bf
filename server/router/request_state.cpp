#include "server/router/request_state.h"

#include <algorithm>
#include <utility>

namespace tessera::router {
namespace {

template <typename Predicate>
bool all_choices(ClientRequest& request, const Part& part, Predicate predicate) {
  for (int32_t i = 0; i < part.num_choices; ++i) {
    if (!predicate(choice_of(request, part.first_choice + i))) {
      return false;
    }
  }
  return true;
}

bool is_of_part(const Part& part, int32_t choice) {
  return choice >= part.first_choice && choice - part.first_choice < part.num_choices;
}

}  // namespace

std::unique_ptr<ClientRequest> make_client_request(Submission submission,
                                                   uint64_t serial,
                                                   TimePoint now) {
  auto request = std::make_unique<ClientRequest>();
  request->serial = serial;
  request->generation = std::move(submission.request);
  request->chain = std::move(submission.chain);
  request->sink = std::move(submission.sink);
  request->submitted_at = now;
  GenerationRequest& generation = request->generation;
  if (!generation.sampling.seed.has_value()) {
    generation.sampling.seed = generation.id.low;  // random bits already, as in Engine
  }
  request->choices.resize(static_cast<size_t>(generation.num_choices));
  request->num_open_choices = generation.num_choices;
  Part part;
  part.id = generation.id;
  part.first_choice = generation.first_choice;
  part.num_choices = generation.num_choices;
  request->parts.push_back(std::move(part));
  return request;
}

ChoiceState& choice_of(ClientRequest& request, int32_t number) {
  return request.choices[static_cast<size_t>(number - request.generation.first_choice)];
}

int64_t next_index(const ClientRequest& request, int32_t choice) {
  const auto place = static_cast<size_t>(choice - request.generation.first_choice);
  return request.generation.num_replayed_tokens +
         static_cast<int64_t>(request.choices[place].token_ids.size());
}

bool is_finished(ClientRequest& request, const Part& part) {
  return all_choices(request, part, [](const ChoiceState& choice) { return choice.is_finished; });
}

bool has_first_tokens(ClientRequest& request, const Part& part) {
  const int64_t base = request.generation.num_replayed_tokens;
  return all_choices(request, part, [&](const ChoiceState& choice) {
    const int64_t next = base + static_cast<int64_t>(choice.token_ids.size());
    return choice.is_finished || next > part.attempt->num_replayed_tokens;
  });
}

GenerationRequest make_generation(ClientRequest& request, const Part& part) {
  GenerationRequest generation = request.generation;
  generation.id = part.id;
  generation.first_choice = part.first_choice;
  generation.num_choices = part.num_choices;
  if (part.num_choices == 1) {
    const auto& streamed = choice_of(request, part.first_choice).token_ids;
    generation.prompt_ids.insert(generation.prompt_ids.end(), streamed.begin(), streamed.end());
    generation.num_replayed_tokens += static_cast<int64_t>(streamed.size());
  }
  return generation;
}

AttachRequest make_attach(const ClientRequest& request, const Part& part) {
  return {.key = part.attempt->key,
          .sampling = request.generation.sampling,
          .num_choices = part.num_choices,
          .first_choice = part.first_choice,
          .num_replayed_tokens = part.attempt->num_replayed_tokens,
          .deadline = request.generation.deadline,
          .trace = request.generation.trace};
}

TokenVerdict judge_token(ClientRequest& request,
                         const Part& part,
                         LegKind kind,
                         const TokenEvent& event) {
  if (!is_of_part(part, event.choice) || choice_of(request, event.choice).is_finished) {
    return TokenVerdict::kFault;
  }
  const int64_t first = part.attempt->num_replayed_tokens;
  const int64_t next = next_index(request, event.choice);
  if (kind == LegKind::kPrefill && event.index != first) {
    return TokenVerdict::kFault;  // prefill gives the first token only
  }
  if (kind == LegKind::kAttach && next == first) {
    const bool may_come = part.attempt->prefill != 0 && event.index > first;
    return may_come ? TokenVerdict::kHold : TokenVerdict::kFault;
  }
  return event.index == next ? TokenVerdict::kForward : TokenVerdict::kFault;
}

std::vector<size_t> split_for_replay(ClientRequest& request, size_t part) {
  const Part& failed = request.parts[part];
  const bool is_untouched = all_choices(
      request, failed, [](const ChoiceState& choice) { return choice.token_ids.empty(); });
  if (failed.num_choices == 1 || is_untouched) {
    return {part};
  }
  std::vector<size_t> parts;
  for (int32_t i = 0; i < failed.num_choices; ++i) {
    const int32_t number = failed.first_choice + i;
    if (choice_of(request, number).is_finished) {
      continue;
    }
    Part single;
    single.id = RequestId::random();
    single.first_choice = number;
    single.num_failures = failed.num_failures;
    single.avoid = failed.avoid;
    single.last_error = failed.last_error;
    parts.push_back(request.parts.size());
    request.parts.push_back(std::move(single));
  }
  request.parts[part].state = PartState::kOver;
  return parts;
}

}  // namespace tessera::router
