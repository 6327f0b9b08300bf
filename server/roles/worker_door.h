// The HTTP port of a worker: health and metrics for operators and probes. Clients never reach it.
#pragma once

#include <functional>
#include <memory>

#include "engine/base/result.h"
#include "server/cli/options.h"
#include "server/metrics/family_list.h"

namespace tessera {

class WorkerDoor final {
 public:
  /// Called on the HTTP thread; must not block.
  struct Parts {
    std::function<Status()> readiness;
    std::function<Status()> liveness;
    std::function<void(metrics::FamilyList&)> add_families;
  };

  /// /livez, /readyz, /health and /metrics on --host and --port; logs the URL. Errors: UNAVAILABLE
  /// when the port cannot be bound, INVALID_ARGUMENT for a bad host.
  [[nodiscard]] static Result<std::unique_ptr<WorkerDoor>> open(const cli::Options& options,
                                                                Parts parts);
  ~WorkerDoor();
  WorkerDoor(const WorkerDoor&) = delete;
  WorkerDoor& operator=(const WorkerDoor&) = delete;

 private:
  struct State;
  explicit WorkerDoor(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace tessera
