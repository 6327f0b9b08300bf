#include "engine/serving/prefill_engine.h"

#include <utility>

#include "engine/serving/worker_load.h"

namespace tessera {

Result<std::unique_ptr<PrefillEngine>> PrefillEngine::create(EngineOptions engine,
                                                             PrefillSideOptions side,
                                                             WorkerInfo info,
                                                             const Parts& parts) {
  side.epoch = info.epoch;
  side.fingerprint = info.layout_fingerprint;
  side.max_model_len = engine.max_model_len;
  side.early_reservation_tokens = engine.max_num_batched_tokens;  // what the next step can take
  std::unique_ptr<PrefillEngine> self(new PrefillEngine(std::move(side), std::move(info), parts));
  TESSERA_TRY(self->engine_, Engine::create(std::move(engine), parts.runner, &self->side_));
  return self;
}

PrefillEngine::PrefillEngine(PrefillSideOptions side, WorkerInfo info, const Parts& parts)
    : info_(std::move(info)),
      side_(std::move(side),
            {.mailbox = parts.mailbox,
             .port = parts.port,
             .sender = parts.sender,
             .source = parts.source,
             .metrics = metrics_}) {}

Status PrefillEngine::prefill(PrefillRequest request, std::shared_ptr<PrefillSink> sink) {
  if (request.decode_candidates.empty()) {
    return invalid_argument("no decode candidate is named");
  }
  if (request.generation.id != request.key.request) {
    return invalid_argument("the request's id differs from its handoff key's");
  }
  return engine_->submit(
      std::move(request.generation), std::move(sink), [&request](SequenceGroup& group) {
        group.attempt = request.key.attempt;
        group.decode_candidates = std::move(request.decode_candidates);
      });
}

void PrefillEngine::cancel(const HandoffKey& key) {
  (void)engine_->cancel(key);
}

WorkerLoad PrefillEngine::load() const {
  WorkerLoad load = worker_load(*engine_);
  add_handoffs(metrics_.transfer_seconds, &metrics_.sent_bytes, load);
  return load;
}

}  // namespace tessera
