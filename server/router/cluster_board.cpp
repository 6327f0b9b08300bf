#include "server/router/cluster_board.h"

#include <utility>

namespace tessera::router {

std::string_view worker_state_name(WorkerState state) noexcept {
  switch (state) {
    case WorkerState::kConnecting:
      return "connecting";
    case WorkerState::kReady:
      return "ready";
    case WorkerState::kDraining:
      return "draining";
    case WorkerState::kRefused:
      return "refused";
    case WorkerState::kLost:
      return "lost";
  }
  return "";
}

std::string_view worker_role_name(WorkerRole role) noexcept {
  return role == WorkerRole::kPrefill ? "prefill" : "decode";
}

void ClusterBoard::put(std::vector<WorkerStatus> workers) {
  auto snapshot = std::make_shared<const std::vector<WorkerStatus>>(std::move(workers));
  const std::lock_guard lock(mutex_);
  snapshot_.swap(snapshot);
}

ClusterBoard::Snapshot ClusterBoard::read() const {
  const std::lock_guard lock(mutex_);
  return snapshot_;
}

}  // namespace tessera::router
