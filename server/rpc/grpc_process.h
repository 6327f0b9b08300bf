// What gRPC needs once a process.
#pragma once

namespace tessera::rpc {

/// Called before the first server or channel is made; a repeated call does nothing. gRPC's own
/// messages go to our log; health checks and reflection are on for every server; gRPC's callback
/// threads live as long as the process.
void set_up_grpc();

}  // namespace tessera::rpc
