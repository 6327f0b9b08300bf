#include "engine/serving/engine.h"

#include <chrono>
#include <exception>
#include <utility>

#include <pthread.h>

#include "engine/base/log.h"
#include "engine/base/text.h"

namespace tessera {
namespace {

// After an abort the engine thread ends the rest at its next turn; a device may hang for ever.
constexpr std::chrono::seconds kAbortGrace{5};

}  // namespace

Result<std::unique_ptr<Engine>> Engine::create(EngineOptions options,
                                               StepRunner& runner,
                                               HandoffSide* side) {
  TESSERA_RETURN_IF_ERROR(options.validate());
  return std::unique_ptr<Engine>(new Engine(std::move(options), runner, side));
}

Engine::Engine(EngineOptions options, StepRunner& runner, HandoffSide* side)
    : options_(std::move(options)),
      inbox_(options_.max_queued_requests),
      loop_(options_, runner, inbox_, metrics_, side),
      thread_([this](const std::stop_token& stop) { run_thread(stop); }) {}

Engine::~Engine() {
  inbox_.close(unavailable("the engine is stopped"));
  thread_.request_stop();
  inbox_.wake();
}

Status Engine::submit(GenerationRequest request, std::shared_ptr<TokenSink> sink) {
  return submit(std::move(request), std::move(sink), [](SequenceGroup&) {});
}

Status Engine::submit(GenerationRequest request,
                      std::shared_ptr<TokenSink> sink,
                      const std::function<void(SequenceGroup&)>& prepare) {
  TESSERA_RETURN_IF_ERROR(inbox_.state());  // spares the work below
  TESSERA_RETURN_IF_ERROR(options_.check_request(request));
  auto group = make_sequence_group(std::move(request), std::move(sink));
  prepare(*group);
  // Counted before the engine thread can see it, so that the gauge never misses a queued request.
  metrics_.num_requests_waiting.add(1);
  Status status = inbox_.submit(std::move(group));
  if (!status.is_ok()) {
    metrics_.num_requests_waiting.add(-1);
  }
  if (status.code() == StatusCode::kResourceExhausted) {
    metrics_.requests_rejected.add();
  }
  return status;
}

void Engine::cancel(const RequestId& id) {
  (void)cancel(HandoffKey{id, 0});
}

bool Engine::cancel(const HandoffKey& key) {
  return inbox_.cancel(key);
}

Status Engine::readiness() const {
  return inbox_.state();
}

void Engine::begin_drain() {
  inbox_.close(unavailable("the engine is draining"));
}

Status Engine::drain_blocking(Deadline deadline) {
  begin_drain();
  if (inbox_.wait_until_empty_blocking(deadline)) {
    return Status::ok();
  }
  inbox_.abort_live(unavailable("the engine is shutting down"));
  const bool is_empty = inbox_.wait_until_empty_blocking(Deadline::after(kAbortGrace));
  return {StatusCode::kDeadlineExceeded,
          is_empty ? "requests were ended at the drain's deadline"
                   : "requests are still live after the drain's deadline"};
}

Deadline::Clock::duration Engine::heartbeat_age() const {
  return Deadline::Clock::now() - loop_.heartbeat();
}

void Engine::run_thread(const std::stop_token& stop) {
  pthread_setname_np(pthread_self(), "engine");
  Status status = unavailable("the engine is stopped");
  try {
    loop_.run_blocking(stop);
  } catch (const std::exception& error) {
    status = unavailable(str_cat("the engine failed: ", error.what()));
    log_error("engine_failed", "reason", error.what());
  }
  inbox_.close(status);  // before fail_all, which takes the last submissions
  loop_.fail_all(status);
}

}  // namespace tessera
