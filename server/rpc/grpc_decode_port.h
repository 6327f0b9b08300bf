// Prefill's links to decode leaders over DecodeService.Handoff: one call and one connection a link.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>

#include "engine/handoff/handoff_link.h"
#include "server/rpc/outbox.h"
#include "server/rpc/worker_channel.h"

namespace tessera::rpc {

struct DecodePortOptions {
  ChannelOptions channel;
  OutboxLimits outbox;  ///< of one link
  /// A leader that has said nothing so long after open() is given up.
  std::chrono::milliseconds answer_timeout{5000};
};

/// Any thread. The listener is called from gRPC's threads; messages of one link in order and one at
/// a time, then on_link_closed() exactly once: ok after close(), else why. That may come before
/// open() has returned.
class GrpcDecodePort final : public DecodePort {
 public:
  explicit GrpcDecodePort(const DecodePortOptions& options = {});
  /// Closes all links; blocks until the listener has heard of each.
  ~GrpcDecodePort() override;
  GrpcDecodePort(const GrpcDecodePort&) = delete;
  GrpcDecodePort& operator=(const GrpcDecodePort&) = delete;

  /// Once, before the first open(). `listener` must outlive the port.
  void set_listener(Listener& listener);
  [[nodiscard]] LinkId open(const std::string& address) override;
  void send(LinkId link, PrefillMessage message) override;
  void close(LinkId link) override;

 private:
  struct State;
  const std::shared_ptr<State> state_;  // shared with the links
};

}  // namespace tessera::rpc
