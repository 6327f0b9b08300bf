// The leader of a decode group: an engine that takes over requests which a prefill worker computed,
// and prefills short ones itself.
#pragma once

#include <memory>
#include <vector>

#include "engine/handoff/decode_side.h"
#include "engine/handoff/handoff_metrics.h"
#include "engine/handoff/worker_services.h"
#include "engine/serving/engine.h"

namespace tessera {

class DecodeEngine final : public DecodeWorker {
 public:
  /// What it works with; all outlive it. The mailbox is the listener of the receivers and the door
  /// of the carrier.
  struct Parts {
    StepRunner& runner;
    std::vector<KvReceiver*> receivers;  ///< by rank
    DecodeMailbox& mailbox;
    DecodeSide::ProbeCheck check_probes;  ///< empty: probes are not checked
  };
  /// Starts the engine thread. Numbers that `engine` and `info` give, and the window, are taken
  /// from there; preempted requests end; the blocks are striped as `side.layout` deals them.
  /// Errors: INVALID_ARGUMENT naming the option.
  [[nodiscard]] static Result<std::unique_ptr<DecodeEngine>> create(EngineOptions engine,
                                                                    DecodeSideOptions side,
                                                                    WorkerInfo info,
                                                                    const Parts& parts);

  [[nodiscard]] Status attach(AttachRequest request, std::shared_ptr<TokenSink> sink) override;
  /// Errors also: INVALID_ARGUMENT when the prompt is longer than max_local_prefill_tokens.
  [[nodiscard]] Status generate(const HandoffKey& key,
                                GenerationRequest request,
                                std::shared_ptr<TokenSink> sink) override;
  void cancel(const HandoffKey& key) override;
  [[nodiscard]] WorkerLoad load() const override;
  [[nodiscard]] const WorkerInfo& info() const override { return info_; }

  /// Ok while requests are accepted. Any thread.
  [[nodiscard]] Status readiness() const { return engine_->readiness(); }
  /// Refuses new reservations and requests; what is reserved or runs goes on. Any thread.
  void begin_drain();
  /// begin_drain(), then as Engine::drain_blocking(); waits for reservations too.
  [[nodiscard]] Status drain_blocking(Deadline deadline);

  [[nodiscard]] const EngineMetrics& metrics() const noexcept { return engine_->metrics(); }
  [[nodiscard]] const HandoffMetrics& handoff_metrics() const noexcept { return metrics_; }
  [[nodiscard]] Deadline::Clock::duration heartbeat_age() const { return engine_->heartbeat_age(); }

 private:
  DecodeEngine(DecodeSideOptions side, WorkerInfo info, const Parts& parts);

  const WorkerInfo info_;
  const bool publishes_own_blocks_;
  DecodeMailbox& mailbox_;
  HandoffMetrics metrics_;
  DecodeSide side_;
  std::unique_ptr<Engine> engine_;  // last: its thread uses the rest
};

}  // namespace tessera
