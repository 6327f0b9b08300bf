// A prefill worker below its gRPC and HTTP doors, built in order: model, transport, engine.
#pragma once

#include <functional>
#include <memory>

#include "engine/base/result.h"
#include "engine/handoff/handoff_link.h"
#include "engine/handoff/prefill_mailbox.h"
#include "engine/serving/handoff_settings.h"
#include "engine/serving/model_parts.h"
#include "engine/serving/prefill_engine.h"

namespace tessera {
namespace kernels {
class ImageMover;
}

class PrefillParts final {
 public:
  /// Makes the way to decode leaders; `listener` outlives it.
  using MakePort = std::function<std::unique_ptr<DecodePort>(DecodePort::Listener& listener)>;

  /// Starts the transport's and the engine's threads. Errors: those of create_ucx_sender(),
  /// KvSender::register_memory() and PrefillEngine::create().
  [[nodiscard]] static Result<std::unique_ptr<PrefillParts>> create(
      const WorkerConfig& worker,
      std::unique_ptr<ModelParts> model,
      const HandoffSettings& settings,
      const MakePort& make_port);
  ~PrefillParts();
  PrefillParts(const PrefillParts&) = delete;
  PrefillParts& operator=(const PrefillParts&) = delete;

  [[nodiscard]] PrefillEngine& engine() noexcept { return *engine_; }
  /// Ok while requests are accepted. Any thread.
  [[nodiscard]] Status readiness() const { return engine_->readiness(); }
  [[nodiscard]] const ModelParts& model() const noexcept { return *model_; }
  [[nodiscard]] const KvSender& sender() const noexcept { return *sender_; }

 private:
  explicit PrefillParts(std::unique_ptr<ModelParts> model);

  std::unique_ptr<ModelParts> model_;
  PrefillMailbox mailbox_;
  std::unique_ptr<BlockSource> source_;
  std::unique_ptr<kernels::ImageMover> mover_;  // null: the cache is in the host's memory
  std::unique_ptr<KvSender> sender_;
  std::unique_ptr<DecodePort> port_;
  std::unique_ptr<PrefillEngine> engine_;  // last: its thread uses the rest
};

}  // namespace tessera
