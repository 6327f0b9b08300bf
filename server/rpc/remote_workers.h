// Workers behind gRPC with the interface of local ones, for a router. Sinks are called from gRPC's
// threads, one call at a time; a lost connection is on_error(UNAVAILABLE).
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>

#include "engine/handoff/worker_services.h"
#include "server/rpc/worker_channel.h"

namespace tessera::rpc {

class CallTable;

struct RemoteWorkerOptions {
  size_t max_open_calls = 16384;
};

/// Calls return ok at once; what the worker answers comes through the sink. Refused here:
/// ALREADY_EXISTS (key in use), RESOURCE_EXHAUSTED (max_open_calls). After cancel() the sink is not
/// called again. The destructor cancels open calls: their sinks get CANCELLED, perhaps later.
class RemotePrefillWorker final : public PrefillWorker {
 public:
  /// `info` as WorkerWatch reports it.
  RemotePrefillWorker(std::shared_ptr<WorkerChannel> channel,
                      WorkerInfo info,
                      const RemoteWorkerOptions& options = {});
  ~RemotePrefillWorker() override;
  RemotePrefillWorker(const RemotePrefillWorker&) = delete;
  RemotePrefillWorker& operator=(const RemotePrefillWorker&) = delete;

  [[nodiscard]] Status prefill(PrefillRequest request, std::shared_ptr<PrefillSink> sink) override;
  void cancel(const HandoffKey& key) override;
  [[nodiscard]] WorkerLoad load() const override;
  [[nodiscard]] const WorkerInfo& info() const override { return info_; }
  /// What load() gives; fed from WorkerWatch.
  void set_load(const WorkerLoad& load);

 private:
  struct Stub;
  const std::shared_ptr<WorkerChannel> channel_;  // shared with the worker's other clients
  const WorkerInfo info_;
  const std::unique_ptr<Stub> stub_;
  const std::shared_ptr<CallTable> calls_;  // shared with the calls
  mutable std::mutex mutex_;                // guards load_
  WorkerLoad load_;
};

/// As RemotePrefillWorker.
class RemoteDecodeWorker final : public DecodeWorker {
 public:
  RemoteDecodeWorker(std::shared_ptr<WorkerChannel> channel,
                     WorkerInfo info,
                     const RemoteWorkerOptions& options = {});
  ~RemoteDecodeWorker() override;
  RemoteDecodeWorker(const RemoteDecodeWorker&) = delete;
  RemoteDecodeWorker& operator=(const RemoteDecodeWorker&) = delete;

  [[nodiscard]] Status attach(AttachRequest request, std::shared_ptr<TokenSink> sink) override;
  [[nodiscard]] Status generate(const HandoffKey& key,
                                GenerationRequest request,
                                std::shared_ptr<TokenSink> sink) override;
  void cancel(const HandoffKey& key) override;
  [[nodiscard]] WorkerLoad load() const override;
  [[nodiscard]] const WorkerInfo& info() const override { return info_; }
  void set_load(const WorkerLoad& load);

 private:
  struct Stub;
  const std::shared_ptr<WorkerChannel> channel_;  // shared with the worker's other clients
  const WorkerInfo info_;
  const std::unique_ptr<Stub> stub_;
  const std::shared_ptr<CallTable> calls_;  // shared with the calls
  mutable std::mutex mutex_;                // guards load_
  WorkerLoad load_;
};

}  // namespace tessera::rpc
