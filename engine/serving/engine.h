// The local implementation of GenerationService: one engine thread that runs an EngineLoop over a
// StepRunner, and the doors to it for other threads.
#pragma once

#include <functional>
#include <memory>
#include <thread>

#include "engine/base/deadline.h"
#include "engine/base/result.h"
#include "engine/handoff/handoff_side.h"
#include "engine/request/generation_service.h"
#include "engine/runner/step_runner.h"
#include "engine/serving/engine_inbox.h"
#include "engine/serving/engine_loop.h"
#include "engine/serving/engine_metrics.h"
#include "engine/serving/engine_options.h"

namespace tessera {

class Engine final : public GenerationService {
 public:
  /// Starts the engine thread. `runner` and `side` outlive the engine and are used by its thread
  /// only; without a side the engine prefills and decodes itself.
  /// Errors: INVALID_ARGUMENT naming the option.
  [[nodiscard]] static Result<std::unique_ptr<Engine>> create(EngineOptions options,
                                                              StepRunner& runner,
                                                              HandoffSide* side = nullptr);
  /// Ends what is still live with UNAVAILABLE. Blocks for at most one step.
  ~Engine() override;

  [[nodiscard]] Status submit(GenerationRequest request, std::shared_ptr<TokenSink> sink) override;
  /// The same; `prepare` completes the group before the engine sees it.
  [[nodiscard]] Status submit(GenerationRequest request,
                              std::shared_ptr<TokenSink> sink,
                              const std::function<void(SequenceGroup&)>& prepare);
  void cancel(const RequestId& id) override;
  /// One attempt of a request; submit() makes attempt 0 if nothing else is prepared. False when it
  /// is not live.
  bool cancel(const HandoffKey& key);
  [[nodiscard]] Status readiness() const override;

  /// Refuses new requests from now on; live ones go on. Any thread.
  void begin_drain();
  /// begin_drain(), then waits for the live requests; at the deadline the rest ends with
  /// UNAVAILABLE. Errors: DEADLINE_EXCEEDED when some had to be ended. Any thread but the engine's.
  [[nodiscard]] Status drain_blocking(Deadline deadline);

  [[nodiscard]] const EngineOptions& options() const noexcept { return options_; }
  [[nodiscard]] const EngineMetrics& metrics() const noexcept { return metrics_; }
  /// Time since the engine thread's last turn began: at most a step, or half a second when idle,
  /// plus waiting for a processor. Grows without bound once the engine failed. Any thread.
  [[nodiscard]] Deadline::Clock::duration heartbeat_age() const;

 private:
  Engine(EngineOptions options, StepRunner& runner, HandoffSide* side);
  void run_thread(const std::stop_token& stop);

  const EngineOptions options_;
  EngineMetrics metrics_;
  EngineInbox inbox_;
  EngineLoop loop_;      // of the engine thread
  std::jthread thread_;  // last: joined before what it uses dies
};

}  // namespace tessera
