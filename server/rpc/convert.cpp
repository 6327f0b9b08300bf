#include "server/rpc/convert.h"

#include <optional>
#include <string>

#include <grpcpp/support/status.h>

#include "proto/tessera/common.pb.h"
#include "proto/tessera/decode.pb.h"
#include "proto/tessera/prefill.pb.h"
#include "proto/tessera/worker.pb.h"
#include "server/rpc/field_checks.h"

namespace tessera::rpc {
namespace {

/// gRPC percent-encodes messages into trailers of at most 8 KiB.
constexpr int64_t kMaxTrailerMessageBytes = 2048;

StatusCode code_of(int64_t code) {
  const bool is_known = code >= 0 && code <= static_cast<int64_t>(StatusCode::kUnauthenticated);
  return is_known ? static_cast<StatusCode>(code) : StatusCode::kUnknown;
}

v1::FinishReason to_proto(std::optional<FinishReason> reason) {
  if (!reason) {
    return v1::FINISH_REASON_UNSPECIFIED;
  }
  switch (*reason) {
    case FinishReason::kStop:
      return v1::FINISH_REASON_STOP;
    case FinishReason::kLength:
      return v1::FINISH_REASON_LENGTH;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

Result<std::optional<FinishReason>> from_proto(v1::FinishReason reason) {
  if (reason == v1::FINISH_REASON_UNSPECIFIED) {
    return std::optional<FinishReason>();
  }
  if (reason == v1::FINISH_REASON_STOP) {
    return std::optional(FinishReason::kStop);
  }
  if (reason == v1::FINISH_REASON_LENGTH) {
    return std::optional(FinishReason::kLength);
  }
  return invalid_argument(str_cat("finish_reason is ",
                                  static_cast<int>(reason),
                                  ", expected 0 to ",
                                  static_cast<int>(v1::FINISH_REASON_LENGTH)));
}

/// The fields that GenerationRequest and AttachRequest share.
template <typename Message>
Status check_choices(const Message& message) {
  TESSERA_RETURN_IF_ERROR(check_range("num_choices", message.num_choices(), 1, kMaxChoices));
  TESSERA_RETURN_IF_ERROR(
      check_range("first_choice", message.first_choice(), 0, kMaxChoiceNumber - kMaxChoices));
  TESSERA_RETURN_IF_ERROR(
      check_range("num_replayed_tokens", message.num_replayed_tokens(), 0, kMaxPromptTokens));
  return check_range("timeout_ms", message.timeout_ms(), 0, kMaxTimeoutMs);
}

template <typename Message, typename Out>
void copy_choices(const Message& message, Out& out) {
  out.num_choices = message.num_choices();
  out.first_choice = message.first_choice();
  out.num_replayed_tokens = message.num_replayed_tokens();
  out.deadline = from_timeout_ms(message.timeout_ms());
  out.trace = TraceContext::parse(message.traceparent()).value_or(TraceContext{});
}

std::string to_traceparent(const TraceContext& trace) {
  return trace.is_valid() ? trace.child().traceparent() : std::string();
}

Status check(const v1::GenerationRequest& request, int64_t max_prompt_tokens) {
  const int64_t num_prompt_tokens = request.prompt_ids_size();
  if (num_prompt_tokens < 1 || num_prompt_tokens > max_prompt_tokens) {
    return invalid_argument(str_cat(
        "prompt_ids has ", num_prompt_tokens, " tokens, expected 1 to ", max_prompt_tokens));
  }
  TESSERA_RETURN_IF_ERROR(check_token_ids("prompt_ids", request.prompt_ids(), max_prompt_tokens));
  TESSERA_RETURN_IF_ERROR(check_choices(request));
  return check_range("num_replayed_tokens", request.num_replayed_tokens(), 0, num_prompt_tokens);
}

Result<GenerationRequest> from_proto(const v1::GenerationRequest& request,
                                     const HandoffKey& key,
                                     int64_t max_prompt_tokens) {
  TESSERA_RETURN_IF_ERROR(check(request, max_prompt_tokens));
  TESSERA_TRY(auto sampling, rpc::from_proto(request.sampling()));
  GenerationRequest out;
  out.id = key.request;
  out.prompt_ids.assign(request.prompt_ids().begin(), request.prompt_ids().end());
  out.sampling = std::move(sampling);
  copy_choices(request, out);
  return out;
}

Status check(const v1::SamplingParams& sampling) {
  TESSERA_RETURN_IF_ERROR(check_count("logit_bias", sampling.logit_bias_size(), kMaxLogitBiases));
  TESSERA_RETURN_IF_ERROR(
      check_token_ids("stop_token_ids", sampling.stop_token_ids(), kMaxStopTokenIds));
  TESSERA_RETURN_IF_ERROR(
      check_range("num_top_logprobs", sampling.num_top_logprobs(), 0, kMaxTopLogprobs));
  TESSERA_RETURN_IF_ERROR(check_range("max_tokens", sampling.max_tokens(), 0, kMaxTotalTokens));
  return check_range("min_tokens", sampling.min_tokens(), 0, kMaxTotalTokens);
}

Status check(const v1::TokenEvent& event) {
  TESSERA_RETURN_IF_ERROR(check_range("choice", event.choice(), 0, kMaxChoiceNumber));
  TESSERA_RETURN_IF_ERROR(check_range("index", event.index(), 0, kMaxTotalTokens));
  TESSERA_RETURN_IF_ERROR(check_not_negative("token_id", event.token_id()));
  TESSERA_RETURN_IF_ERROR(check_count("top_logprobs", event.top_logprobs_size(), kMaxTopLogprobs));
  return check_range("num_cached_tokens", event.num_cached_tokens(), 0, kMaxTotalTokens);
}

Status check(const v1::WorkerInfo& info) {
  const std::pair<const char*, const std::string*> texts[] = {
      {"model_name", &info.model_name()},
      {"model_fingerprint", &info.model_fingerprint()},
      {"layout_fingerprint", &info.layout_fingerprint()},
      {"attention", &info.attention()},
      {"version", &info.version()},
  };
  for (const auto& [name, text] : texts) {
    const Status status = check_bytes(name, *text, kMaxTextBytes);
    if (!status.is_ok()) {
      return status;
    }
  }
  TESSERA_RETURN_IF_ERROR(check_range("max_model_len", info.max_model_len(), 1, kMaxTotalTokens));
  TESSERA_RETURN_IF_ERROR(check_range("vocab_size", info.vocab_size(), 1, INT32_MAX));
  TESSERA_RETURN_IF_ERROR(check_range("num_ranks", info.num_ranks(), 0, INT32_MAX));
  TESSERA_RETURN_IF_ERROR(
      check_not_negative("cache_bytes_per_token", info.cache_bytes_per_token()));
  TESSERA_RETURN_IF_ERROR(check_not_negative("cache_bytes_per_token_replicated",
                                             info.cache_bytes_per_token_replicated()));
  return check_range(
      "max_local_prefill_tokens", info.max_local_prefill_tokens(), 0, kMaxTotalTokens);
}

}  // namespace

grpc::Status to_grpc(const Status& status) {
  return status.is_ok() ? grpc::Status::OK
                        : grpc::Status(static_cast<grpc::StatusCode>(status.code()),
                                       clean_text(status.message(), kMaxTrailerMessageBytes));
}

Status from_grpc(const grpc::Status& status) {
  return status.ok() ? Status::ok()
                     : Status(code_of(status.error_code()),
                              clean_text(status.error_message(), kMaxStatusBytes));
}

void to_proto(const HandoffKey& key, v1::HandoffKey& out) {
  out.set_request_high(key.request.high);
  out.set_request_low(key.request.low);
  out.set_attempt(key.attempt);
}

Status check_key(const HandoffKey& key) {
  return key.request == RequestId{} ? invalid_argument("key is all zeros") : Status::ok();
}

HandoffKey from_proto(const v1::HandoffKey& key) {
  return {{key.request_high(), key.request_low()}, key.attempt()};
}

void to_proto(const SamplingParams& sampling, v1::SamplingParams& out) {
  out.set_temperature(sampling.temperature);
  out.set_top_k(sampling.top_k);
  out.set_top_p(sampling.top_p);
  out.set_min_p(sampling.min_p);
  out.set_repetition_penalty(sampling.repetition_penalty);
  out.set_presence_penalty(sampling.presence_penalty);
  out.set_frequency_penalty(sampling.frequency_penalty);
  for (const auto& [token_id, bias] : sampling.logit_bias) {
    v1::LogitBias& entry = *out.add_logit_bias();
    entry.set_token_id(token_id);
    entry.set_bias(bias);
  }
  if (sampling.seed) {
    out.set_seed(*sampling.seed);
  }
  if (sampling.num_top_logprobs >= 0) {
    out.set_num_top_logprobs(sampling.num_top_logprobs);
  }
  out.set_max_tokens(sampling.max_tokens);
  out.set_min_tokens(sampling.min_tokens);
  out.set_ignore_eos(sampling.ignore_eos);
  out.mutable_stop_token_ids()->Add(sampling.stop_token_ids.begin(), sampling.stop_token_ids.end());
}

Result<SamplingParams> from_proto(const v1::SamplingParams& sampling) {
  TESSERA_RETURN_IF_ERROR(check(sampling));
  SamplingParams out;
  out.temperature = sampling.has_temperature() ? sampling.temperature() : out.temperature;
  out.top_k = sampling.has_top_k() ? sampling.top_k() : out.top_k;
  out.top_p = sampling.has_top_p() ? sampling.top_p() : out.top_p;
  out.min_p = sampling.has_min_p() ? sampling.min_p() : out.min_p;
  out.repetition_penalty =
      sampling.has_repetition_penalty() ? sampling.repetition_penalty() : out.repetition_penalty;
  out.presence_penalty =
      sampling.has_presence_penalty() ? sampling.presence_penalty() : out.presence_penalty;
  out.frequency_penalty =
      sampling.has_frequency_penalty() ? sampling.frequency_penalty() : out.frequency_penalty;
  for (const v1::LogitBias& entry : sampling.logit_bias()) {
    out.logit_bias.emplace_back(entry.token_id(), entry.bias());
  }
  if (sampling.has_seed()) {
    out.seed = sampling.seed();
  }
  if (sampling.has_num_top_logprobs()) {
    out.num_top_logprobs = sampling.num_top_logprobs();
  }
  out.max_tokens = sampling.max_tokens();
  out.min_tokens = sampling.min_tokens();
  out.ignore_eos = sampling.ignore_eos();
  out.stop_token_ids.assign(sampling.stop_token_ids().begin(), sampling.stop_token_ids().end());
  return out;
}

void to_proto(const TokenEvent& event, v1::TokenEvent& out) {
  out.set_choice(event.choice);
  out.set_index(event.index);
  out.set_token_id(event.token_id);
  out.set_logprob(event.logprob);
  for (const auto& [token_id, logprob] : event.top_logprobs) {
    v1::TokenLogprob& entry = *out.add_top_logprobs();
    entry.set_token_id(token_id);
    entry.set_logprob(logprob);
  }
  out.set_finish_reason(to_proto(event.finish_reason));
  if (event.stop_token_id) {
    out.set_stop_token_id(*event.stop_token_id);
  }
  out.set_num_cached_tokens(event.num_cached_tokens);
}

Result<TokenEvent> from_proto(const v1::TokenEvent& event) {
  TESSERA_RETURN_IF_ERROR(check(event));
  TESSERA_TRY(auto finish_reason, from_proto(event.finish_reason()));
  TokenEvent out;
  out.choice = event.choice();
  out.index = event.index();
  out.token_id = event.token_id();
  out.logprob = event.logprob();
  for (const v1::TokenLogprob& entry : event.top_logprobs()) {
    out.top_logprobs.emplace_back(entry.token_id(), entry.logprob());
  }
  out.finish_reason = finish_reason;
  if (event.has_stop_token_id()) {
    out.stop_token_id = event.stop_token_id();
  }
  out.num_cached_tokens = event.num_cached_tokens();
  return out;
}

void to_proto(const Status& status, v1::Status& out) {
  out.set_code(static_cast<int32_t>(status.code()));
  out.set_message(clean_text(status.message(), kMaxStatusBytes));
}

Status check_status(const v1::Status& status) {
  TESSERA_RETURN_IF_ERROR(check_range(
      "status.code", status.code(), 1, static_cast<int64_t>(StatusCode::kUnauthenticated)));
  return check_bytes("status.message", status.message(), kMaxStatusBytes);
}

Status from_proto(const v1::Status& status) {
  return {code_of(status.code()), status.message()};
}

void to_proto(const GenerationRequest& request, v1::GenerationRequest& out) {
  out.mutable_prompt_ids()->Add(request.prompt_ids.begin(), request.prompt_ids.end());
  to_proto(request.sampling, *out.mutable_sampling());
  out.set_num_choices(request.num_choices);
  out.set_first_choice(request.first_choice);
  out.set_num_replayed_tokens(request.num_replayed_tokens);
  out.set_timeout_ms(to_timeout_ms(request.deadline));
  out.set_traceparent(to_traceparent(request.trace));
}

void to_proto(const PrefillRequest& request, v1::PrefillRequest& out) {
  to_proto(request.key, *out.mutable_key());
  to_proto(request.generation, *out.mutable_generation());
  for (const std::string& address : request.decode_candidates) {
    out.add_decode_candidates(address);
  }
}

Result<PrefillRequest> from_proto(const v1::PrefillRequest& request, int64_t max_prompt_tokens) {
  TESSERA_RETURN_IF_ERROR(check_range("the number of decode_candidates",
                                      request.decode_candidates_size(),
                                      1,
                                      kMaxDecodeCandidates));
  for (const std::string& address : request.decode_candidates()) {
    const Status status = check_bytes("decode_candidates", address, kMaxAddressBytes);
    if (!status.is_ok()) {
      return status;
    }
  }
  PrefillRequest out;
  out.key = from_proto(request.key());
  TESSERA_RETURN_IF_ERROR(check_key(out.key));
  TESSERA_TRY(out.generation, from_proto(request.generation(), out.key, max_prompt_tokens));
  out.decode_candidates.assign(request.decode_candidates().begin(),
                               request.decode_candidates().end());
  return out;
}

void to_proto(const AttachRequest& request, v1::AttachRequest& out) {
  to_proto(request.key, *out.mutable_key());
  to_proto(request.sampling, *out.mutable_sampling());
  out.set_num_choices(request.num_choices);
  out.set_first_choice(request.first_choice);
  out.set_num_replayed_tokens(request.num_replayed_tokens);
  out.set_timeout_ms(to_timeout_ms(request.deadline));
  out.set_traceparent(to_traceparent(request.trace));
}

Result<AttachRequest> from_proto(const v1::AttachRequest& request) {
  TESSERA_RETURN_IF_ERROR(check_choices(request));
  AttachRequest out;
  out.key = from_proto(request.key());
  TESSERA_RETURN_IF_ERROR(check_key(out.key));
  TESSERA_TRY(out.sampling, from_proto(request.sampling()));
  copy_choices(request, out);
  return out;
}

void to_proto(const HandoffKey& key, const GenerationRequest& request, v1::GenerateRequest& out) {
  to_proto(key, *out.mutable_key());
  to_proto(request, *out.mutable_generation());
}

Result<std::pair<HandoffKey, GenerationRequest>> from_proto(const v1::GenerateRequest& request,
                                                            int64_t max_prompt_tokens) {
  const HandoffKey key = from_proto(request.key());
  TESSERA_RETURN_IF_ERROR(check_key(key));
  TESSERA_TRY(auto generation, from_proto(request.generation(), key, max_prompt_tokens));
  return std::pair(key, std::move(generation));
}

void to_proto(const WorkerIdentity& identity, v1::WorkerInfo& out) {
  const WorkerInfo& info = identity.info;
  out.set_role(identity.role == WorkerRole::kPrefill ? v1::WORKER_ROLE_PREFILL
                                                     : v1::WORKER_ROLE_DECODE);
  out.set_model_name(clean_text(info.model_name, kMaxTextBytes));
  out.set_model_fingerprint(clean_text(info.model_fingerprint, kMaxTextBytes));
  out.set_layout_fingerprint(clean_text(info.layout_fingerprint, kMaxTextBytes));
  out.set_epoch(info.epoch);
  out.set_max_model_len(info.max_model_len);
  out.set_vocab_size(info.vocab_size);
  out.set_max_local_prefill_tokens(info.max_local_prefill_tokens);
  out.set_attention(clean_text(info.attention, kMaxTextBytes));
  out.set_num_ranks(info.num_ranks);
  out.set_cache_bytes_per_token(info.cache_bytes_per_token);
  out.set_cache_bytes_per_token_replicated(info.cache_bytes_per_token_replicated);
  out.set_version(clean_text(identity.version, kMaxTextBytes));
}

Result<WorkerIdentity> from_proto(const v1::WorkerInfo& info) {
  TESSERA_RETURN_IF_ERROR(
      check_range("role", info.role(), v1::WORKER_ROLE_PREFILL, v1::WORKER_ROLE_DECODE));
  TESSERA_RETURN_IF_ERROR(check(info));
  WorkerIdentity out;
  out.role = info.role() == v1::WORKER_ROLE_PREFILL ? WorkerRole::kPrefill : WorkerRole::kDecode;
  out.info.model_name = info.model_name();
  out.info.model_fingerprint = info.model_fingerprint();
  out.info.layout_fingerprint = info.layout_fingerprint();
  out.info.epoch = info.epoch();
  out.info.max_model_len = info.max_model_len();
  out.info.vocab_size = info.vocab_size();
  out.info.max_local_prefill_tokens = info.max_local_prefill_tokens();
  out.info.attention = info.attention();
  out.info.num_ranks = info.num_ranks();
  out.info.cache_bytes_per_token = info.cache_bytes_per_token();
  out.info.cache_bytes_per_token_replicated = info.cache_bytes_per_token_replicated();
  out.version = info.version();
  return out;
}

void to_proto(const WorkerLoad& load, v1::WorkerLoad& out) {
  out.set_num_requests_running(load.num_requests_running);
  out.set_num_requests_waiting(load.num_requests_waiting);
  out.set_num_queued_prompt_tokens(load.num_queued_prompt_tokens);
  out.set_num_blocks_total(load.num_blocks_total);
  out.set_num_blocks_free(load.num_blocks_free);
  out.set_num_sequences_limit(load.num_sequences_limit);
  out.set_is_draining(load.is_draining);
  out.set_num_prompt_tokens(load.num_prompt_tokens);
  out.set_num_generated_tokens(load.num_generated_tokens);
  out.set_num_handoffs(load.num_handoffs);
  out.set_handoff_us(load.handoff_us);
  out.set_handoff_bytes(load.handoff_bytes);
}

Result<WorkerLoad> from_proto(const v1::WorkerLoad& load) {
  WorkerLoad out;
  const struct {
    const char* name;
    int64_t value;
    int64_t* out;
  } fields[] = {
      {"num_requests_running", load.num_requests_running(), &out.num_requests_running},
      {"num_requests_waiting", load.num_requests_waiting(), &out.num_requests_waiting},
      {"num_queued_prompt_tokens", load.num_queued_prompt_tokens(), &out.num_queued_prompt_tokens},
      {"num_blocks_total", load.num_blocks_total(), &out.num_blocks_total},
      {"num_blocks_free", load.num_blocks_free(), &out.num_blocks_free},
      {"num_sequences_limit", load.num_sequences_limit(), &out.num_sequences_limit},
      {"num_prompt_tokens", load.num_prompt_tokens(), &out.num_prompt_tokens},
      {"num_generated_tokens", load.num_generated_tokens(), &out.num_generated_tokens},
      {"num_handoffs", load.num_handoffs(), &out.num_handoffs},
      {"handoff_us", load.handoff_us(), &out.handoff_us},
      {"handoff_bytes", load.handoff_bytes(), &out.handoff_bytes},
  };
  for (const auto& field : fields) {
    const Status status = check_not_negative(field.name, field.value);
    if (!status.is_ok()) {
      return status;
    }
    *field.out = field.value;
  }
  out.is_draining = load.is_draining();
  return out;
}

}  // namespace tessera::rpc
