#include "engine/serving/prefill_parts.h"

#include <utility>

#include "engine/serving/worker_info.h"
#include "engine/transport/ucx_transport.h"
#include "kernels/core/image_mover.h"

namespace tessera {
namespace {

/// Every rank has all latents: rank 0 sends.
class CacheBlockSource final : public BlockSource {
 public:
  explicit CacheBlockSource(const PagedLatentCache& cache) : cache_(cache) {}

  [[nodiscard]] const void* image_address(int32_t block_id, int32_t image) const override {
    return cache_.image_address(block_id, image);
  }
  [[nodiscard]] int64_t image_bytes(int32_t image) const override {
    return cache_.image_bytes(image);
  }
  [[nodiscard]] int32_t num_images() const override {
    return static_cast<int32_t>(cache_.num_images());
  }
  [[nodiscard]] std::vector<double> probes(std::span<const int32_t> block_ids,
                                           int64_t begin,
                                           int64_t end) const override {
    return cache_.probes_blocking(block_ids, begin, end);
  }

 private:
  const PagedLatentCache& cache_;
};

}  // namespace

PrefillParts::PrefillParts(std::unique_ptr<ModelParts> model) : model_(std::move(model)) {}
PrefillParts::~PrefillParts() = default;

Result<std::unique_ptr<PrefillParts>> PrefillParts::create(const WorkerConfig& worker,
                                                           std::unique_ptr<ModelParts> model,
                                                           const HandoffSettings& settings,
                                                           const MakePort& make_port) {
  std::unique_ptr<PrefillParts> parts(new PrefillParts(std::move(model)));
  PagedLatentCache& cache = parts->model_->runner().cache(0);
  parts->source_ = std::make_unique<CacheBlockSource>(cache);
  SenderOptions sender;
  sender.allow_staged_handoff = settings.allow_staged_handoff;
  sender.faults = settings.faults;
  parts->mover_ = parts->model_->runner().backend(0).device().make_image_mover();
  TESSERA_TRY(parts->sender_, create_ucx_sender(sender, parts->mailbox_, parts->mover_.get()));
  TESSERA_RETURN_IF_ERROR(
      parts->sender_->register_memory(cache.image_address(0, 0), cache.num_bytes()));
  parts->port_ = make_port(parts->mailbox_);
  PrefillSideOptions side;
  side.times = handoff_times(settings);
  side.worker_name = settings.worker_name;
  side.window = parts->model_->plan().window;
  TESSERA_TRY(parts->engine_,
              PrefillEngine::create(make_engine_options(worker, *parts->model_),
                                    std::move(side),
                                    make_worker_info(worker, *parts->model_),
                                    {.runner = parts->model_->runner(),
                                     .source = *parts->source_,
                                     .sender = *parts->sender_,
                                     .port = *parts->port_,
                                     .mailbox = parts->mailbox_}));
  return parts;
}

}  // namespace tessera
