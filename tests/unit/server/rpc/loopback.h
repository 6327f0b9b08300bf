// A server on loopback with the services that a test names, and channels to it.
#pragma once

#include <memory>
#include <vector>

#include <gtest/gtest.h>

#include "server/rpc/rpc_server.h"
#include "server/rpc/worker_channel.h"

namespace tessera::rpc::testing {

[[nodiscard]] inline std::unique_ptr<RpcServer> start_server(
    const std::vector<RpcService*>& services, const RpcServerOptions& options = {}) {
  auto server = RpcServer::create(options, services);
  EXPECT_TRUE(server.is_ok()) << server.status().to_string();
  return server.is_ok() ? std::move(server).value() : nullptr;
}

[[nodiscard]] inline std::shared_ptr<WorkerChannel> connect(const std::string& address) {
  auto channel = WorkerChannel::create(address);
  EXPECT_TRUE(channel.is_ok()) << channel.status().to_string();
  return channel.is_ok() ? std::move(channel).value() : nullptr;
}

}  // namespace tessera::rpc::testing
