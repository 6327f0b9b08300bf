#include "engine/serving/decode_parts.h"

#include <utility>

#include "engine/base/text.h"
#include "engine/serving/worker_info.h"
#include "engine/transport/ucx_transport.h"
#include "kernels/core/image_mover.h"

namespace tessera {
namespace {

DecodeLayout decode_layout(const ShardOptions& sharding) {
  DecodeLayout layout;
  layout.num_ranks = static_cast<int32_t>(sharding.num_ranks);
  if (sharding.attention == AttentionSharding::kDcp) {
    layout.dealing = DecodeLayout::Dealing::kBlocks;
  } else if (sharding.attention == AttentionSharding::kTpla) {
    layout.num_images = static_cast<int32_t>(sharding.num_slices);
  }
  return layout;
}

CacheBlocks cache_blocks(PagedLatentCache& cache) {
  return {.base = static_cast<std::byte*>(cache.image_address(0, 0)),
          .stride_bytes = cache.block_bytes(),
          .image_bytes = cache.image_bytes(0),
          .num_blocks = cache.num_blocks()};
}

}  // namespace

DecodeParts::DecodeParts(std::unique_ptr<ModelParts> model) : model_(std::move(model)) {}
DecodeParts::~DecodeParts() = default;

Result<std::unique_ptr<DecodeParts>> DecodeParts::create(const WorkerConfig& worker,
                                                         std::unique_ptr<ModelParts> model,
                                                         const HandoffSettings& settings) {
  std::unique_ptr<DecodeParts> parts(new DecodeParts(std::move(model)));
  GroupRunner& runner = parts->model_->runner();
  const ShardOptions& sharding = parts->model_->plan().sharding;
  ReceiverOptions options;
  options.num_slots = settings.landing_slots;
  options.faults = settings.faults;
  for (int rank = 0; rank < runner.num_ranks(); ++rank) {
    parts->movers_.push_back(runner.backend(rank).device().make_image_mover());
  }
  if (parts->movers_.front() != nullptr) {
    options.max_regions = kGpuLandingRegions;
    options.max_revoked_regions = kGpuLandingRegions;
  }
  parts->max_revoked_regions_ = options.max_revoked_regions;
  std::vector<KvReceiver*> receivers;
  for (int rank = 0; rank < runner.num_ranks(); ++rank) {
    TESSERA_TRY(auto receiver,
                create_ucx_receiver(options,
                                    rank,
                                    cache_blocks(runner.cache(rank)),
                                    parts->mailbox_,
                                    parts->movers_[static_cast<size_t>(rank)].get()));
    receivers.push_back(receiver.get());
    parts->receivers_.push_back(std::move(receiver));
  }
  DecodeSideOptions side;
  side.times = handoff_times(settings);
  side.layout = decode_layout(sharding);
  // A sliced group computes its own tokens approximately: nobody else may read those.
  side.publishes_own_blocks =
      sharding.attention != AttentionSharding::kTpla || sharding.num_slices == 1;
  DecodeSide::ProbeCheck check_probes;
  if (runner.has_probes()) {
    check_probes = [&runner, layout = side.layout](const std::vector<double>& expected,
                                                   const LandedTokens& landed) {
      return compare_probes(
          layout,
          expected,
          runner.landed_probes_blocking(landed.block_ids, landed.begin, landed.end));
    };
  }
  TESSERA_TRY(parts->engine_,
              DecodeEngine::create(make_engine_options(worker, *parts->model_),
                                   std::move(side),
                                   make_worker_info(worker, *parts->model_),
                                   {.runner = runner,
                                    .receivers = std::move(receivers),
                                    .mailbox = parts->mailbox_,
                                    .check_probes = std::move(check_probes)}));
  return parts;
}

Status DecodeParts::readiness() const {
  TESSERA_RETURN_IF_ERROR(engine_->readiness());
  for (size_t rank = 0; rank < receivers_.size(); ++rank) {
    const int64_t num_revoked = receivers_[rank]->statistics().revoked_regions;
    if (num_revoked >= max_revoked_regions_) {
      return unavailable(str_cat("rank ",
                                 rank,
                                 " keeps ",
                                 num_revoked,
                                 " landing regions of prefill workers that left without a word: "
                                 "restart this group"));
    }
  }
  return Status::ok();
}

}  // namespace tessera
