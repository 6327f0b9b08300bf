// The way to one worker: one gRPC channel, connected with the first call, reconnected by gRPC with
// a back-off of at most one second. Shared by all clients of that worker. Any thread.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "engine/base/result.h"
#include "server/rpc/tls_options.h"

namespace grpc {
class Channel;
}

namespace tessera::rpc {

struct ChannelOptions {
  TlsOptions tls;
  /// A connection with open calls that does not answer a ping for keepalive_timeout is dead.
  std::chrono::milliseconds keepalive_period{5000};
  std::chrono::milliseconds keepalive_timeout{5000};
};

class WorkerChannel final {
 public:
  /// `address`: "host:port". Errors: those of the TLS files, INVALID_ARGUMENT (address too long).
  [[nodiscard]] static Result<std::shared_ptr<WorkerChannel>> create(
      const std::string& address, const ChannelOptions& options = {});
  WorkerChannel(std::string address, std::shared_ptr<grpc::Channel> channel);

  [[nodiscard]] const std::string& address() const noexcept { return address_; }
  /// For the clients of this folder.
  [[nodiscard]] const std::shared_ptr<grpc::Channel>& grpc_channel() const noexcept {
    return channel_;
  }

 private:
  const std::string address_;
  const std::shared_ptr<grpc::Channel> channel_;  // shared with gRPC's stubs
};

}  // namespace tessera::rpc
