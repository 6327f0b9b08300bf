// A decode group below its gRPC and HTTP doors, built in order: model, transport, engine.
#pragma once

#include <memory>
#include <vector>

#include "engine/base/result.h"
#include "engine/handoff/decode_mailbox.h"
#include "engine/handoff/handoff_link.h"
#include "engine/serving/decode_engine.h"
#include "engine/serving/handoff_settings.h"
#include "engine/serving/model_parts.h"
#include "engine/transport/kv_receiver.h"

namespace tessera {
namespace kernels {
class ImageMover;
}

class DecodeParts final {
 public:
  /// Starts the threads of the ranks' transports and the engine's. Errors: those of
  /// create_ucx_receiver() and DecodeEngine::create().
  [[nodiscard]] static Result<std::unique_ptr<DecodeParts>> create(
      const WorkerConfig& worker,
      std::unique_ptr<ModelParts> model,
      const HandoffSettings& settings);
  ~DecodeParts();
  DecodeParts(const DecodeParts&) = delete;
  DecodeParts& operator=(const DecodeParts&) = delete;

  [[nodiscard]] DecodeEngine& engine() noexcept { return *engine_; }
  /// Ok while requests are accepted and new links can be given a landing region. Any thread.
  [[nodiscard]] Status readiness() const;
  /// Where prefill workers' links arrive.
  [[nodiscard]] PrefillDoor& door() noexcept { return mailbox_; }
  [[nodiscard]] const ModelParts& model() const noexcept { return *model_; }
  /// By rank.
  [[nodiscard]] const std::vector<std::unique_ptr<KvReceiver>>& receivers() const noexcept {
    return receivers_;
  }

 private:
  explicit DecodeParts(std::unique_ptr<ModelParts> model);

  std::unique_ptr<ModelParts> model_;
  DecodeMailbox mailbox_;
  std::vector<std::unique_ptr<kernels::ImageMover>> movers_;  // of ranks on GPUs; null else
  std::vector<std::unique_ptr<KvReceiver>> receivers_;
  int64_t max_revoked_regions_ = 0;       // of each
  std::unique_ptr<DecodeEngine> engine_;  // last: its thread uses the rest
};

}  // namespace tessera
