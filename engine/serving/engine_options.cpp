#include "engine/serving/engine_options.h"

#include <limits>

#include "engine/base/result.h"
#include "engine/base/text.h"
#include "engine/cache/latent_layout.h"
#include "engine/runner/step_runner.h"
#include "engine/scheduler/stop_criteria.h"

namespace tessera {
namespace {

constexpr int64_t kMax = std::numeric_limits<int32_t>::max();

Status check_option(const char* name, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) {
    return Status::ok();
  }
  return invalid_argument(str_cat(name, " is ", value, ", expected ", low, " to ", high));
}

Status check_prompt(const std::vector<int32_t>& prompt_ids, const EngineOptions& options) {
  const auto num_tokens = static_cast<int64_t>(prompt_ids.size());
  if (num_tokens < 1) {
    return invalid_argument("the prompt is empty");
  }
  if (num_tokens >= options.max_model_len) {
    return invalid_argument(str_cat("the prompt has ",
                                    num_tokens,
                                    " tokens, which leaves no room to generate in max_model_len ",
                                    options.max_model_len));
  }
  for (const int32_t id : prompt_ids) {
    if (id < 0 || id >= options.vocab_size) {
      return invalid_argument(str_cat(
          "the prompt names token ", id, ", the vocabulary has ", options.vocab_size, " tokens"));
    }
  }
  return Status::ok();
}

Status check_replay(const GenerationRequest& request) {
  const auto num_tokens = static_cast<int64_t>(request.prompt_ids.size());
  TESSERA_RETURN_IF_ERROR(
      check_option("num_replayed_tokens", request.num_replayed_tokens, 0, num_tokens - 1));
  if (request.num_replayed_tokens == 0) {
    return Status::ok();
  }
  if (request.num_choices != 1) {
    return invalid_argument(str_cat("a replay has one choice, not ", request.num_choices));
  }
  if (request.sampling.temperature > 0.0F && !request.sampling.seed) {
    return invalid_argument("a replay that draws at random needs a seed");
  }
  return request.num_replayed_tokens < request.sampling.max_tokens
             ? Status::ok()
             : invalid_argument(str_cat("max_tokens ",
                                        request.sampling.max_tokens,
                                        " are replayed already (",
                                        request.num_replayed_tokens,
                                        ")"));
}

}  // namespace

Status EngineOptions::validate() const {
  TESSERA_RETURN_IF_ERROR(check_option("vocab_size", vocab_size, 1, kMax));
  TESSERA_RETURN_IF_ERROR(check_option("max_model_len", max_model_len, 2, kMax));
  TESSERA_RETURN_IF_ERROR(check_option("num_blocks", num_blocks, 1, kMax));
  TESSERA_RETURN_IF_ERROR(check_option("max_num_seqs", max_num_seqs, 1, kMax));
  TESSERA_RETURN_IF_ERROR(
      check_option("max_num_batched_tokens", max_num_batched_tokens, max_num_seqs, kMax));
  TESSERA_RETURN_IF_ERROR(check_option("max_queued_requests", max_queued_requests, 1, kMax));
  TESSERA_RETURN_IF_ERROR(check_option("num_stripes", num_stripes, 1, num_blocks));
  TESSERA_RETURN_IF_ERROR(check_option("ring_rows", ring.ring_rows, ring.window.num_last, kMax));
  for (const int32_t id : eos_ids) {
    if (id < 0 || id >= vocab_size) {
      return check_option("eos_token_id", id, 0, vocab_size - 1);
    }
  }
  return Status::ok();
}

Status EngineOptions::check_request(const GenerationRequest& request) const {
  TESSERA_RETURN_IF_ERROR(check_prompt(request.prompt_ids, *this));
  TESSERA_RETURN_IF_ERROR(request.sampling.validate(vocab_size));
  TESSERA_RETURN_IF_ERROR(check_option("n", request.num_choices, 1, max_num_seqs));
  TESSERA_RETURN_IF_ERROR(check_option("first_choice", request.first_choice, 0, kMax - kMax / 2));
  TESSERA_RETURN_IF_ERROR(check_replay(request));
  TESSERA_RETURN_IF_ERROR(check_option(
      "top_logprobs", request.sampling.num_top_logprobs, -1, kernels::kMaxTopLogprobs));
  const StopCriteria stop(eos_ids, max_model_len);
  const auto num_prompt_tokens =
      static_cast<int64_t>(request.prompt_ids.size()) - request.num_replayed_tokens;
  // The last generated token is never computed.
  const int64_t num_blocks_needed =
      blocks_for_tokens(stop.max_total_tokens(request.sampling, num_prompt_tokens) - 1);
  if (num_blocks_needed > num_blocks) {
    return invalid_argument(str_cat("the request needs ",
                                    num_blocks_needed,
                                    " cache blocks of ",
                                    kBlockTokens,
                                    " tokens, the cache has ",
                                    num_blocks,
                                    ": shorten the prompt or max_tokens"));
  }
  return Status::ok();
}

}  // namespace tessera
