#include "server/rpc/worker_channel.h"

#include <utility>

#include <grpcpp/channel.h>
#include <grpcpp/create_channel.h>

#include "server/rpc/credentials.h"
#include "server/rpc/field_checks.h"
#include "server/rpc/grpc_process.h"

namespace tessera::rpc {

Result<std::shared_ptr<WorkerChannel>> WorkerChannel::create(const std::string& address,
                                                             const ChannelOptions& options) {
  TESSERA_RETURN_IF_ERROR(check_bytes("address", address, kMaxAddressBytes));
  TESSERA_TRY(auto credentials, make_channel_credentials(options.tls));
  set_up_grpc();
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetMaxSendMessageSize(kMaxMessageBytes);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 5000);  // gRPC's name for: connect timeout
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, static_cast<int>(options.keepalive_period.count()));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                   static_cast<int>(options.keepalive_timeout.count()));
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);  // as many as needed
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);     // a connection of its own
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);  // the router decides what is tried again
  if (!options.tls.peer_name.empty()) {
    arguments.SetSslTargetNameOverride(options.tls.peer_name);
  }
  auto channel = grpc::CreateCustomChannel(address, credentials, arguments);
  return std::make_shared<WorkerChannel>(address, std::move(channel));
}

WorkerChannel::WorkerChannel(std::string address, std::shared_ptr<grpc::Channel> channel)
    : address_(std::move(address)), channel_(std::move(channel)) {}

}  // namespace tessera::rpc
