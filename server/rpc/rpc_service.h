// What an RpcServer serves. Keeps gRPC out of the headers of the services.
#pragma once

#include <string_view>

namespace grpc {
class Service;
}

namespace tessera::rpc {

/// Must outlive the server that serves it.
class RpcService {
 public:
  RpcService() = default;
  virtual ~RpcService() = default;
  RpcService(const RpcService&) = delete;
  RpcService& operator=(const RpcService&) = delete;

  /// For the server.
  [[nodiscard]] virtual grpc::Service& grpc_service() noexcept = 0;
  /// "tessera.v1.PrefillService": the name in health checks.
  [[nodiscard]] virtual std::string_view name() const noexcept = 0;
  /// The server shuts down: ends the calls that have no end of their own (watches, links).
  virtual void end_endless_calls() = 0;
};

}  // namespace tessera::rpc
