#include "server/rpc/rpc_server.h"

#include <algorithm>
#include <mutex>
#include <utility>

#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include "engine/base/log.h"
#include "engine/base/text.h"
#include "server/rpc/credentials.h"
#include "server/rpc/grpc_process.h"
#include "server/rpc/wire_limits.h"

namespace tessera::rpc {
namespace {

constexpr std::chrono::hours kLongestShutdown{24};

std::string join_address(const std::string& host, int port) {
  const bool is_ipv6 = host.find(':') != std::string::npos;
  return is_ipv6 ? str_cat("[", host, "]:", port) : str_cat(host, ":", port);
}

void set_arguments(const RpcServerOptions& options, grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.SetMaxSendMessageSize(kMaxMessageBytes);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options.max_streams_per_connection);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS,
                             static_cast<int>(options.keepalive_period.count()));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                             static_cast<int>(options.keepalive_timeout.count()));
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);  // as many as needed
  // Clients ping too, to notice a dead host.
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 500);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
}

std::chrono::system_clock::time_point to_system_time(const Deadline& deadline) {
  const auto left = std::min<Deadline::Clock::duration>(
      deadline.is_infinite() ? Deadline::Clock::duration(kLongestShutdown)
                             : deadline.at() - Deadline::Clock::now(),
      kLongestShutdown);
  return std::chrono::system_clock::now() +
         std::chrono::duration_cast<std::chrono::system_clock::duration>(left);
}

}  // namespace

struct RpcServer::State {
  std::string host;
  int port = 0;
  std::vector<RpcService*> services;
  std::unique_ptr<grpc::Server> server;
  std::once_flag shutdown_once;
};

Result<std::unique_ptr<RpcServer>> RpcServer::create(const RpcServerOptions& options,
                                                     const std::vector<RpcService*>& services) {
  TESSERA_TRY(auto credentials, make_server_credentials(options.tls));
  set_up_grpc();

  auto state = std::make_unique<State>();
  state->host = options.host;
  state->services = services;
  const std::string address = join_address(options.host, options.port);
  grpc::ServerBuilder builder;
  builder.AddListeningPort(address, credentials, &state->port);
  set_arguments(options, builder);
  for (RpcService* service : services) {
    builder.RegisterService(&service->grpc_service());
  }
  state->server = builder.BuildAndStart();
  if (state->server == nullptr || state->port == 0) {
    return unavailable(str_cat("cannot listen for gRPC on host ",
                               options.host,
                               ", port ",
                               options.port,
                               ": in use, or not an address of this machine"));
  }
  std::unique_ptr<RpcServer> server(new RpcServer(std::move(state)));
  server->set_serving(false);
  log_info("rpc_listening", "address", server->address(), "tls", options.tls.is_enabled());
  return server;
}

RpcServer::RpcServer(std::unique_ptr<State> state) : state_(std::move(state)) {}
RpcServer::~RpcServer() {
  shutdown_blocking(Deadline::after(std::chrono::seconds(0)));
}

int RpcServer::port() const noexcept {
  return state_->port;
}
std::string RpcServer::address() const {
  return join_address(state_->host, state_->port);
}

void RpcServer::set_serving(bool is_serving) {
  grpc::HealthCheckServiceInterface* health = state_->server->GetHealthCheckService();
  for (const RpcService* service : state_->services) {
    health->SetServingStatus(std::string(service->name()), is_serving);
  }
  health->SetServingStatus(is_serving);
}

void RpcServer::shutdown_blocking(const Deadline& deadline) {
  std::call_once(state_->shutdown_once, [&] {
    state_->server->GetHealthCheckService()->Shutdown();
    for (RpcService* service : state_->services) {
      service->end_endless_calls();
    }
    state_->server->Shutdown(to_system_time(deadline));
    state_->server->Wait();
  });
}

}  // namespace tessera::rpc
