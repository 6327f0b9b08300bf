// The gRPC port of a worker: its own service and WorkerService, with health and reflection.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "engine/base/deadline.h"
#include "engine/base/result.h"
#include "engine/handoff/worker_services.h"
#include "server/cli/options.h"
#include "server/rpc/rpc_server.h"
#include "server/rpc/worker_identity.h"
#include "server/rpc/worker_service.h"

namespace tessera {

/// How roles speak to each other, as servers and as clients.
[[nodiscard]] rpc::TlsOptions cluster_tls(const cli::Options& options);

class RpcDoor final {
 public:
  struct Parts {
    std::unique_ptr<rpc::RpcService> service;
    size_t max_open_calls = 0;  ///< of the service; a router may open all over one connection
    rpc::WorkerIdentity identity;
    std::function<WorkerLoad()> load;
    std::function<Status()> liveness;
    std::function<void()> start_drain;
  };

  /// Listens on --rpc-host and --rpc-port and reports itself as serving.
  [[nodiscard]] static Result<std::unique_ptr<RpcDoor>> open(const cli::Options& options,
                                                             Parts parts);

  [[nodiscard]] std::string address() const { return server_->address(); }
  /// Health checks fail from here on; calls go on.
  void set_draining() { server_->set_serving(false); }
  void close_blocking(Deadline deadline) { server_->shutdown_blocking(deadline); }

 private:
  explicit RpcDoor(Parts parts);

  std::unique_ptr<rpc::RpcService> service_;
  rpc::WorkerServiceImpl worker_service_;
  std::unique_ptr<rpc::RpcServer> server_;  // last: its calls use the services
};

}  // namespace tessera
