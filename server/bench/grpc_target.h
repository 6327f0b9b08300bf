// tessera.v1.InferenceService as a target: each request is a call over one of a few connections.
// One thread of the target's own receives and stamps all events, and measures how late it is; an
// exchange's end comes to the lane's loop.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "engine/base/deadline.h"
#include "engine/base/metrics.h"
#include "engine/base/result.h"
#include "server/bench/target.h"
#include "server/http/asio_types.h"

namespace tessera::bench {

/// One lane's thread.
class GrpcTarget final : public Target {
 public:
  /// `num_events` counts events with text; it and the others outlive the target.
  GrpcTarget(const BenchSettings& settings, boost::asio::io_context& loop, Counter& num_events);
  ~GrpcTarget() override;
  GrpcTarget(const GrpcTarget&) = delete;
  GrpcTarget& operator=(const GrpcTarget&) = delete;

  [[nodiscard]] std::shared_ptr<Exchange> prepare(const Prompt& prompt, int64_t index) override;
  void probe_receiver() override;
  [[nodiscard]] Result<std::vector<float>> end_receiver_blocking(const Deadline& deadline) override;

 private:
  struct Connection;
  class Receiver;

  const BenchSettings& settings_;
  boost::asio::io_context& loop_;
  Counter& num_events_;
  std::vector<std::unique_ptr<Connection>> connections_;
  const std::unique_ptr<Receiver> receiver_;
};

/// Asks for the models; the first one's name. Seconds at most; blocks. Errors: UNAVAILABLE,
/// UNAUTHENTICATED, UNIMPLEMENTED (another gRPC server, such as a worker's).
[[nodiscard]] Result<std::string> probe_grpc_blocking(const BenchSettings& settings);

}  // namespace tessera::bench
