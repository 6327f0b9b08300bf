// What a router knows of its workers, for people and dashboards: the router thread puts it up, any
// thread reads it.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/handoff/worker_services.h"
#include "server/router/worker_connector.h"

namespace tessera::router {

enum class WorkerState : uint8_t {
  kConnecting,
  kReady,
  kDraining,  ///< or no longer listed: finishes what it has
  kRefused,   ///< serves another model
  kLost,      ///< waits for the next try to connect
};

/// "ready" and so on.
[[nodiscard]] std::string_view worker_state_name(WorkerState state) noexcept;
[[nodiscard]] std::string_view worker_role_name(WorkerRole role) noexcept;

struct WorkerStatus {
  std::string_view role;  ///< as worker_role_name(), or "combined"
  std::string address;
  WorkerState state = WorkerState::kConnecting;
  std::optional<WorkerInfo> info;  ///< none until it was reached
  std::optional<WorkerLoad> load;
  int64_t num_open_calls = 0;  ///< of this router
};

class ClusterBoard final {
 public:
  using Snapshot = std::shared_ptr<const std::vector<WorkerStatus>>;

  void put(std::vector<WorkerStatus> workers);
  /// Prefill workers first, each role by address. Never null.
  [[nodiscard]] Snapshot read() const;

 private:
  mutable std::mutex mutex_;                                                 // guards snapshot_
  Snapshot snapshot_ = std::make_shared<const std::vector<WorkerStatus>>();  // shared with readers
};

}  // namespace tessera::router
