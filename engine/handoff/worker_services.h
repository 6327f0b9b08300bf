// What the two kinds of workers offer to a router, as the engine defines it. The gRPC services of
// the server call these; integration tests call them directly. Any thread; nothing blocks.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/request/generation_request.h"
#include "engine/request/handoff_key.h"
#include "engine/request/token_event.h"

namespace tessera {

/// What a router needs to choose a worker. A snapshot; values may be a step old.
struct WorkerLoad {
  int64_t num_requests_running = 0;
  int64_t num_requests_waiting = 0;
  int64_t num_queued_prompt_tokens = 0;  ///< prompt tokens that are not computed yet
  int64_t num_blocks_total = 0;
  int64_t num_blocks_free = 0;  ///< neither held nor reserved
  int64_t num_sequences_limit = 0;
  bool is_draining = false;

  // What it has done since it started, for people who watch.
  int64_t num_prompt_tokens = 0;
  int64_t num_generated_tokens = 0;
  int64_t num_handoffs = 0;   ///< prefill: transferred; decode: landed
  int64_t handoff_us = 0;     ///< of all of them, from the end of prefill on
  int64_t handoff_bytes = 0;  ///< prefill only
};

/// What does not change while a worker lives.
struct WorkerInfo {
  std::string model_name;          ///< of the checkpoint's folder
  std::string model_fingerprint;   ///< of the model's numbers: all workers of a router must agree
  std::string layout_fingerprint;  ///< of the cache's bytes: prefill and decode must agree
  uint64_t epoch = 0;
  int64_t max_model_len = 0;
  int64_t vocab_size = 0;
  int64_t max_local_prefill_tokens = 0;  ///< decode only; 0: never prefills itself
  std::string attention;                 ///< "tpla 2 slices on 2 ranks", for people
  int64_t num_ranks = 1;
  int64_t cache_bytes_per_token = 0;             ///< on each rank, on average
  int64_t cache_bytes_per_token_replicated = 0;  ///< if a rank held all of it
};

/// Events of one prefill. on_token() gives the first token of each choice, with its finish reason
/// when it ends there. After on_error() or on_handed_over() no call follows.
class PrefillSink : public TokenSink {
 public:
  /// Decode at `address` has reserved room: attach there now.
  virtual void on_reserved(const std::string& address) = 0;
  /// Decode has committed, or every choice ended with its first token: prefill's part is over.
  virtual void on_handed_over() = 0;
};

struct PrefillRequest {
  HandoffKey key;
  GenerationRequest generation;                ///< its id equals key.request
  std::vector<std::string> decode_candidates;  ///< addresses of decode leaders, best first
};

class PrefillWorker {
 public:
  PrefillWorker() = default;
  virtual ~PrefillWorker() = default;
  PrefillWorker(const PrefillWorker&) = delete;
  PrefillWorker& operator=(const PrefillWorker&) = delete;

  /// Errors as GenerationService::submit(); then the sink is not called.
  [[nodiscard]] virtual Status prefill(PrefillRequest request,
                                       std::shared_ptr<PrefillSink> sink) = 0;
  virtual void cancel(const HandoffKey& key) = 0;
  [[nodiscard]] virtual WorkerLoad load() const = 0;
  [[nodiscard]] virtual const WorkerInfo& info() const = 0;
};

struct AttachRequest {
  HandoffKey key;
  SamplingParams sampling;
  int32_t num_choices = 1;
  int32_t first_choice = 0;
  int64_t num_replayed_tokens = 0;
  Deadline deadline;
  TraceContext trace{};
};

class DecodeWorker {
 public:
  DecodeWorker() = default;
  virtual ~DecodeWorker() = default;
  DecodeWorker(const DecodeWorker&) = delete;
  DecodeWorker& operator=(const DecodeWorker&) = delete;

  /// Tells decode who waits for the tokens of a reserved key; events begin with the second token of
  /// each choice. Errors: NOT_FOUND (no such reservation), ALREADY_EXISTS; then no sink call.
  [[nodiscard]] virtual Status attach(AttachRequest request, std::shared_ptr<TokenSink> sink) = 0;
  /// Prefill and decode here, for prompts of at most max_local_prefill_tokens; events begin with
  /// the first token. Errors as GenerationService::submit().
  [[nodiscard]] virtual Status generate(const HandoffKey& key,
                                        GenerationRequest request,
                                        std::shared_ptr<TokenSink> sink) = 0;
  virtual void cancel(const HandoffKey& key) = 0;
  [[nodiscard]] virtual WorkerLoad load() const = 0;
  [[nodiscard]] virtual const WorkerInfo& info() const = 0;
};

}  // namespace tessera
