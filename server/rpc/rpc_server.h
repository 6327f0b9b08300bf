// A gRPC server: one listening port, our services, the standard health service and reflection.
// gRPC's own threads run the calls.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "engine/base/deadline.h"
#include "engine/base/result.h"
#include "server/rpc/rpc_service.h"
#include "server/rpc/tls_options.h"

namespace tessera::rpc {

struct RpcServerOptions {
  std::string host = "127.0.0.1";  ///< an address; IPv6 without brackets
  int port = 0;                    ///< 0: any free one
  TlsOptions tls;
  int max_streams_per_connection = 16384;
  /// A connection that does not answer a ping for keepalive_timeout is closed, its calls cancelled.
  std::chrono::milliseconds keepalive_period{5000};
  std::chrono::milliseconds keepalive_timeout{5000};
};

class RpcServer final {
 public:
  /// Listens; the health of all services is "not serving" until set_serving(). The services must
  /// outlive the server. Errors: UNAVAILABLE (port in use or not ours to bind, naming host and
  /// port), and those of the TLS files.
  [[nodiscard]] static Result<std::unique_ptr<RpcServer>> create(
      const RpcServerOptions& options, const std::vector<RpcService*>& services);
  /// Cancels what is still open.
  ~RpcServer();
  RpcServer(const RpcServer&) = delete;
  RpcServer& operator=(const RpcServer&) = delete;

  /// The actual port.
  [[nodiscard]] int port() const noexcept;
  /// "host:port", for clients on this host.
  [[nodiscard]] std::string address() const;
  /// The health of every service and of the server as a whole (""). Any thread.
  void set_serving(bool is_serving);
  /// Refuses new calls, ends links and watches, lets the others finish until `deadline`, cancels
  /// the rest. Blocks until no call is left. A repeated call does nothing.
  void shutdown_blocking(const Deadline& deadline);

 private:
  struct State;
  explicit RpcServer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace tessera::rpc
