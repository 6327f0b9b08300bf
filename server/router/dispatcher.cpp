#include "server/router/dispatcher.h"

#include <algorithm>
#include <utility>

#include "engine/base/log.h"
#include "engine/base/text.h"

namespace tessera::router {
namespace {

void set_matches(const std::vector<PrefixRecord::Match>& matches,
                 int64_t num_prompt_tokens,
                 std::vector<WorkerView>& views) {
  for (WorkerView& view : views) {
    const auto found = std::find_if(matches.begin(), matches.end(), [&view](const auto& match) {
      return match.worker == view.id;
    });
    if (found != matches.end()) {
      // The last token is always computed: its logits are what the prompt is for.
      view.num_matched_tokens =
          std::min(found->num_blocks * kPrefixBlockTokens, num_prompt_tokens - 1);
    }
  }
}

std::vector<std::string> addresses_of(const std::vector<WorkerId>& ids,
                                      const std::vector<WorkerView>& views) {
  std::vector<std::string> addresses;
  for (const WorkerId id : ids) {
    const auto found =
        std::find_if(views.begin(), views.end(), [id](const auto& view) { return view.id == id; });
    addresses.push_back(found->address);
  }
  return addresses;
}

}  // namespace

Dispatcher::Choice Dispatcher::choose(const ClientRequest& request,
                                      const Part& part,
                                      int64_t num_prompt_tokens) {
  std::vector<WorkerView> prefill = parts_.pool.ready(WorkerRole::kPrefill);
  std::vector<WorkerView> decode = parts_.pool.ready(WorkerRole::kDecode);
  const auto matches = record_.match(request.chain);
  set_matches(matches, num_prompt_tokens, prefill);
  set_matches(matches, num_prompt_tokens, decode);
  const RouteQuery query{.num_prompt_tokens = num_prompt_tokens,
                         .local_prefill_max_tokens = parts_.options.local_prefill_max_tokens,
                         .max_decode_candidates = parts_.options.max_decode_candidates,
                         .avoid = part.avoid,
                         .rotation = num_choices_made_};
  Choice choice{choose_route(parts_.options.policy, query, prefill, decode), {}};
  choice.addresses = addresses_of(choice.route.decode, decode);
  return choice;
}

void Dispatcher::count_attempt(const Route& route, int64_t num_prompt_tokens) {
  RouterMetrics& metrics = parts_.metrics;
  ++num_choices_made_;
  metrics.attempts.add();
  metrics.attempts_local.add(route.is_local() ? 1 : 0);
  metrics.prompt_tokens.add(num_prompt_tokens);
  metrics.prompt_tokens_matched.add(route.num_matched_tokens);
  (route.num_matched_tokens > 0 ? metrics.affinity_hits : metrics.affinity_misses).add();
}

Result<LegId> Dispatcher::open(LegOwner owner,
                               const Attempt& attempt,
                               GenerationRequest generation) {
  if (attempt.prefill_worker == 0) {
    return parts_.legs.generate(owner, attempt.decode_worker, attempt.key, std::move(generation));
  }
  return parts_.legs.prefill(owner,
                             attempt.prefill_worker,
                             {.key = attempt.key,
                              .generation = std::move(generation),
                              .decode_candidates = attempt.addresses});
}

StartOutcome Dispatcher::start(ClientRequest& request, size_t part_index, TimePoint now) {
  Part& part = request.parts[part_index];
  GenerationRequest generation = make_generation(request, part);
  const auto num_prompt_tokens = static_cast<int64_t>(generation.prompt_ids.size());
  Choice choice = choose(request, part, num_prompt_tokens);
  const Route& route = choice.route;
  if (!route.is_found()) {
    return StartOutcome::kNoWorker;
  }
  count_attempt(route, num_prompt_tokens);
  Attempt& attempt = part.attempt.emplace();
  attempt.key = {part.id, ++part.num_attempts};
  attempt.prefill_worker = route.prefill;
  attempt.decode_worker = route.is_local() ? route.decode.front() : 0;
  attempt.candidates = route.decode;
  attempt.addresses = std::move(choice.addresses);
  attempt.num_replayed_tokens = generation.num_replayed_tokens;
  attempt.last_event_at = now;
  const auto leg = open({request.serial, part_index}, attempt, std::move(generation));
  if (!leg.is_ok()) {
    part.last_error = leg.status();
    return StartOutcome::kRefused;
  }
  (route.is_local() ? attempt.decode : attempt.prefill) = leg.value();
  if (!route.is_local()) {
    record_.note(request.chain, route.prefill);
  }
  log_debug("attempt_started",
            "request_id",
            request.generation.id.to_string(),
            "key",
            attempt.key.to_string(),
            "trace_id",
            request.generation.trace.trace_id(),
            "prefill",
            route.is_local() ? "none" : parts_.pool.address(route.prefill),
            "decode_candidates",
            join_list(attempt.addresses),
            "replayed_tokens",
            attempt.num_replayed_tokens,
            "matched_tokens",
            route.num_matched_tokens);
  return StartOutcome::kStarted;
}

Status Dispatcher::attach(ClientRequest& request, size_t part_index, const std::string& address) {
  Part& part = request.parts[part_index];
  Attempt& attempt = *part.attempt;
  const auto found = std::find(attempt.addresses.begin(), attempt.addresses.end(), address);
  if (attempt.decode_worker != 0 || found == attempt.addresses.end()) {
    return internal_error(str_cat("a prefill worker reserved at ", address, " out of turn"));
  }
  attempt.decode_worker =
      attempt.candidates[static_cast<size_t>(found - attempt.addresses.begin())];
  TESSERA_TRY(attempt.decode,
              parts_.legs.attach(
                  {request.serial, part_index}, attempt.decode_worker, make_attach(request, part)));
  record_.note(request.chain, attempt.decode_worker);
  return Status::ok();
}

}  // namespace tessera::router
