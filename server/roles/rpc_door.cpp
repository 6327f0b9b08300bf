#include "server/roles/rpc_door.h"

#include <algorithm>
#include <utility>

namespace tessera {

rpc::TlsOptions cluster_tls(const cli::Options& options) {
  return {.certificate_file = options.rpc_ssl_certfile,
          .key_file = options.rpc_ssl_keyfile,
          .ca_file = options.rpc_ssl_ca_certs,
          .peer_name = options.rpc_ssl_name};
}

RpcDoor::RpcDoor(Parts parts)
    : service_(std::move(parts.service)),
      worker_service_({.identity = [identity = std::move(parts.identity)] { return identity; },
                       .load = std::move(parts.load),
                       .liveness = std::move(parts.liveness),
                       .start_drain = std::move(parts.start_drain)}) {}

Result<std::unique_ptr<RpcDoor>> RpcDoor::open(const cli::Options& options, Parts parts) {
  rpc::RpcServerOptions server;
  server.host = options.rpc_host;
  server.port = static_cast<int>(options.rpc_port);
  server.tls = cluster_tls(options);
  server.max_streams_per_connection =
      std::max(server.max_streams_per_connection, static_cast<int>(parts.max_open_calls));
  std::unique_ptr<RpcDoor> door(new RpcDoor(std::move(parts)));
  TESSERA_TRY(door->server_,
              rpc::RpcServer::create(server, {door->service_.get(), &door->worker_service_}));
  door->server_->set_serving(true);
  return door;
}

}  // namespace tessera
