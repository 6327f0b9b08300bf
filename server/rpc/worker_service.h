// WorkerService of any worker: who it is, how loaded it is, and draining. Snapshots are taken by
// asking the worker at intervals; nothing of the worker is called while a lock is held.
#pragma once

#include <functional>
#include <memory>
#include <string_view>

#include "engine/handoff/worker_services.h"
#include "server/rpc/rpc_service.h"
#include "server/rpc/service_limits.h"
#include "server/rpc/worker_identity.h"

namespace tessera::rpc {

class WorkerServiceImpl final : public RpcService {
 public:
  /// Called from any thread; must not block; must outlive the server.
  struct Callbacks {
    std::function<WorkerIdentity()> identity;
    std::function<WorkerLoad()> load;
    /// Not OK: the engine has failed or hangs.
    std::function<Status()> liveness;
    /// Refuse new requests from now on. May be called again.
    std::function<void()> start_drain;
  };

  explicit WorkerServiceImpl(Callbacks callbacks, const ServiceLimits& limits = {});
  ~WorkerServiceImpl() override;
  WorkerServiceImpl(const WorkerServiceImpl&) = delete;
  WorkerServiceImpl& operator=(const WorkerServiceImpl&) = delete;

  [[nodiscard]] grpc::Service& grpc_service() noexcept override;
  [[nodiscard]] std::string_view name() const noexcept override;
  /// Ends the watches and the drains that still wait: with OK when the worker drains, lives and
  /// holds no request any more.
  void end_endless_calls() override;

 private:
  class Service;
  std::unique_ptr<Service> service_;
};

}  // namespace tessera::rpc
