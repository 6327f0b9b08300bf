#include "engine/serving/worker_info.h"

#include <algorithm>
#include <filesystem>

#include "engine/request/generation_request.h"

namespace tessera {

WorkerInfo make_worker_info(const WorkerConfig& worker, const ModelParts& model) {
  const WorkerPlan& plan = model.plan();
  WorkerInfo info;
  std::error_code error;
  const auto path = std::filesystem::weakly_canonical(worker.model, error);
  info.model_name = error ? worker.model : path.filename().string();
  info.model_fingerprint = plan.model;
  info.layout_fingerprint = plan.layout;
  info.epoch = RequestId::random().low;
  info.max_model_len = plan.memory.max_model_len;
  info.vocab_size = model.config().vocab_size;
  info.max_local_prefill_tokens = worker.max_local_prefill_tokens;
  info.attention = plan.description;
  info.num_ranks = plan.memory.num_ranks;
  info.cache_bytes_per_token = plan.memory.kv_bytes_per_token_and_rank;
  info.cache_bytes_per_token_replicated = plan.memory.whole_kv_bytes_per_token;
  return info;
}

HandoffTimes handoff_times(const HandoffSettings& settings) {
  HandoffTimes times;
  times.lease = settings.lease;
  times.keep_alive_period =
      std::min<HandoffTimes::Duration>(times.keep_alive_period, settings.lease / 4);
  return times;
}

}  // namespace tessera
