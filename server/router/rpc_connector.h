// Workers behind gRPC: a channel, a watch and a client for each connection of the router.
#pragma once

#include <memory>
#include <string>

#include "server/router/worker_connector.h"
#include "server/rpc/remote_workers.h"
#include "server/rpc/worker_channel.h"
#include "server/rpc/worker_watch.h"

namespace tessera::router {

struct RpcConnectorOptions {
  rpc::ChannelOptions channel;
  rpc::WorkerWatch::Options watch;
  rpc::RemoteWorkerOptions workers;
};

class RpcConnector final : public WorkerConnector {
 public:
  explicit RpcConnector(RpcConnectorOptions options = {}) : options_(std::move(options)) {}

  /// A worker that was never reached is tried by the watch itself, for ever. A worker of the other
  /// role or with a new epoch is reported as lost.
  [[nodiscard]] std::shared_ptr<WorkerConnection> connect(
      const std::string& address,
      WorkerRole role,
      std::shared_ptr<WorkerObserver> observer) override;

 private:
  const RpcConnectorOptions options_;
};

}  // namespace tessera::router
