// A prefill worker: an engine that computes prompts and hands each request over to a decode leader
// after its first tokens.
#pragma once

#include <memory>

#include "engine/handoff/handoff_metrics.h"
#include "engine/handoff/prefill_side.h"
#include "engine/handoff/worker_services.h"
#include "engine/serving/engine.h"

namespace tessera {

class PrefillEngine final : public PrefillWorker {
 public:
  /// What it works with; all outlive it. The mailbox is the listener of port and sender.
  struct Parts {
    StepRunner& runner;
    const BlockSource& source;  ///< its memory is registered with the sender
    KvSender& sender;
    DecodePort& port;
    PrefillMailbox& mailbox;
  };
  /// Starts the engine thread. Numbers of `side` that `engine` and `info` give are taken from
  /// there. Errors: INVALID_ARGUMENT naming the option.
  [[nodiscard]] static Result<std::unique_ptr<PrefillEngine>> create(EngineOptions engine,
                                                                     PrefillSideOptions side,
                                                                     WorkerInfo info,
                                                                     const Parts& parts);

  /// Errors also: INVALID_ARGUMENT when no decode candidate is named.
  [[nodiscard]] Status prefill(PrefillRequest request, std::shared_ptr<PrefillSink> sink) override;
  void cancel(const HandoffKey& key) override;
  [[nodiscard]] WorkerLoad load() const override;
  [[nodiscard]] const WorkerInfo& info() const override { return info_; }

  /// Ok while requests are accepted. Any thread.
  [[nodiscard]] Status readiness() const { return engine_->readiness(); }
  /// Refuses new requests; live ones are handed over. Any thread.
  void begin_drain() { engine_->begin_drain(); }
  /// As Engine::drain_blocking(); waits also until no block is read by the transport any more.
  [[nodiscard]] Status drain_blocking(Deadline deadline) {
    return engine_->drain_blocking(deadline);
  }

  [[nodiscard]] const EngineMetrics& metrics() const noexcept { return engine_->metrics(); }
  [[nodiscard]] const HandoffMetrics& handoff_metrics() const noexcept { return metrics_; }
  [[nodiscard]] Deadline::Clock::duration heartbeat_age() const { return engine_->heartbeat_age(); }

 private:
  PrefillEngine(PrefillSideOptions side, WorkerInfo info, const Parts& parts);

  const WorkerInfo info_;
  HandoffMetrics metrics_;
  PrefillSide side_;
  std::unique_ptr<Engine> engine_;  // last: its thread uses the rest
};

}  // namespace tessera
