// The only place where messages of proto/ become the engine's types and back. Everything that comes
// in is checked against wire_limits.h: errors are INVALID_ARGUMENT, naming the field and both
// values. Semantics (vocabulary, context length) stay with the worker. Pure functions, any thread.
#pragma once

#include <cstdint>
#include <utility>

#include "engine/base/result.h"
#include "engine/handoff/messages.h"
#include "engine/handoff/worker_services.h"
#include "server/rpc/worker_identity.h"

namespace grpc {
class Status;
}

namespace tessera::v1 {
class AttachRequest;
class DecodeMessage;
class GenerateRequest;
class GenerationRequest;
class HandoffKey;
class PrefillMessage;
class PrefillRequest;
class SamplingParams;
class Status;
class TokenEvent;
class WorkerInfo;
class WorkerLoad;
}  // namespace tessera::v1

namespace tessera::rpc {

/// The message is cut to what fits into HTTP/2 trailers.
[[nodiscard]] grpc::Status to_grpc(const Status& status);
[[nodiscard]] Status from_grpc(const grpc::Status& status);

void to_proto(const HandoffKey& key, v1::HandoffKey& out);
void to_proto(const SamplingParams& sampling, v1::SamplingParams& out);
void to_proto(const TokenEvent& event, v1::TokenEvent& out);
void to_proto(const Status& status, v1::Status& out);
/// The deadline becomes the time that is left, at least 1 ms.
void to_proto(const GenerationRequest& request, v1::GenerationRequest& out);
void to_proto(const PrefillRequest& request, v1::PrefillRequest& out);
void to_proto(const AttachRequest& request, v1::AttachRequest& out);
void to_proto(const HandoffKey& key, const GenerationRequest& request, v1::GenerateRequest& out);
void to_proto(const PrefillMessage& message, v1::PrefillMessage& out);
void to_proto(const DecodeMessage& message, v1::DecodeMessage& out);
void to_proto(const WorkerIdentity& identity, v1::WorkerInfo& out);
void to_proto(const WorkerLoad& load, v1::WorkerLoad& out);

[[nodiscard]] HandoffKey from_proto(const v1::HandoffKey& key);
/// Errors: INVALID_ARGUMENT for the key that nobody makes: an absent one.
[[nodiscard]] Status check_key(const HandoffKey& key);
[[nodiscard]] Result<SamplingParams> from_proto(const v1::SamplingParams& sampling);
[[nodiscard]] Result<TokenEvent> from_proto(const v1::TokenEvent& event);
/// Of a failure: an ok code is an error too.
[[nodiscard]] Status check_status(const v1::Status& status);
/// After check_status().
[[nodiscard]] Status from_proto(const v1::Status& status);
/// Prompts hold at most `max_prompt_tokens`; the timeout counts from now.
[[nodiscard]] Result<PrefillRequest> from_proto(const v1::PrefillRequest& request,
                                                int64_t max_prompt_tokens);
[[nodiscard]] Result<std::pair<HandoffKey, GenerationRequest>> from_proto(
    const v1::GenerateRequest& request, int64_t max_prompt_tokens);
[[nodiscard]] Result<AttachRequest> from_proto(const v1::AttachRequest& request);
[[nodiscard]] Result<PrefillMessage> from_proto(const v1::PrefillMessage& message);
[[nodiscard]] Result<DecodeMessage> from_proto(const v1::DecodeMessage& message);
[[nodiscard]] Result<WorkerIdentity> from_proto(const v1::WorkerInfo& info);
[[nodiscard]] Result<WorkerLoad> from_proto(const v1::WorkerLoad& load);

}  // namespace tessera::rpc
