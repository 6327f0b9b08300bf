#include "engine/serving/decode_engine.h"

#include <utility>

#include "engine/base/text.h"
#include "engine/serving/worker_load.h"

namespace tessera {

Result<std::unique_ptr<DecodeEngine>> DecodeEngine::create(EngineOptions engine,
                                                           DecodeSideOptions side,
                                                           WorkerInfo info,
                                                           const Parts& parts) {
  if (info.max_local_prefill_tokens > engine.max_num_batched_tokens - engine.max_num_seqs) {
    return invalid_argument(str_cat("local_prefill_max_tokens ",
                                    info.max_local_prefill_tokens,
                                    " do not fit into one step of ",
                                    engine.max_num_batched_tokens,
                                    " tokens beside ",
                                    engine.max_num_seqs,
                                    " decoding sequences"));
  }
  side.epoch = info.epoch;
  side.fingerprint = info.layout_fingerprint;
  side.vocab_size = engine.vocab_size;
  side.max_model_len = engine.max_model_len;
  side.max_num_seqs = engine.max_num_seqs;
  side.layout.window = engine.ring.window;
  engine.recomputes_preempted = false;
  engine.num_stripes =
      side.layout.dealing == DecodeLayout::Dealing::kBlocks ? side.layout.num_ranks : 1;
  std::unique_ptr<DecodeEngine> self(new DecodeEngine(std::move(side), std::move(info), parts));
  TESSERA_TRY(self->engine_, Engine::create(std::move(engine), parts.runner, &self->side_));
  return self;
}

DecodeEngine::DecodeEngine(DecodeSideOptions side, WorkerInfo info, const Parts& parts)
    : info_(std::move(info)),
      publishes_own_blocks_(side.publishes_own_blocks),
      mailbox_(parts.mailbox),
      side_(std::move(side),
            {.mailbox = parts.mailbox,
             .receivers = parts.receivers,
             .metrics = metrics_,
             .check_probes = parts.check_probes}) {}

Status DecodeEngine::attach(AttachRequest request, std::shared_ptr<TokenSink> sink) {
  return mailbox_.attach(std::move(request), std::move(sink));
}

Status DecodeEngine::generate(const HandoffKey& key,
                              GenerationRequest request,
                              std::shared_ptr<TokenSink> sink) {
  const auto num_tokens = static_cast<int64_t>(request.prompt_ids.size());
  if (num_tokens > info_.max_local_prefill_tokens) {
    return invalid_argument(str_cat("the prompt has ",
                                    num_tokens,
                                    " tokens, this decode group prefills at most ",
                                    info_.max_local_prefill_tokens));
  }
  if (request.id != key.request) {
    return invalid_argument("the request's id differs from its handoff key's");
  }
  return engine_->submit(std::move(request), std::move(sink), [&](SequenceGroup& group) {
    group.attempt = key.attempt;
    group.is_one_chunk = true;
    if (!publishes_own_blocks_) {
      group.max_published_tokens = 0;
    }
  });
}

void DecodeEngine::cancel(const HandoffKey& key) {
  if (!engine_->cancel(key)) {
    mailbox_.cancel(key);  // not committed yet, or not heard of
  }
}

WorkerLoad DecodeEngine::load() const {
  WorkerLoad load = worker_load(*engine_);
  add_handoffs(metrics_.landing_seconds, nullptr, load);
  return load;
}

void DecodeEngine::begin_drain() {
  side_.begin_drain();
  engine_->begin_drain();
}

Status DecodeEngine::drain_blocking(Deadline deadline) {
  begin_drain();
  return engine_->drain_blocking(deadline);
}

}  // namespace tessera
