// Follows one worker: who it is, its load, and when it goes away. Reconnects for ever, with a
// back-off of at most one second.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>

#include "engine/base/deadline.h"
#include "engine/base/result.h"
#include "engine/handoff/worker_services.h"
#include "server/rpc/worker_channel.h"
#include "server/rpc/worker_identity.h"

namespace tessera::rpc {

class WorkerWatch final {
 public:
  /// Called from gRPC's threads, one call at a time; must not block nor destroy the watch.
  class Listener {
   public:
    Listener() = default;
    virtual ~Listener() = default;
    Listener(const Listener&) = delete;
    Listener& operator=(const Listener&) = delete;
    /// The worker answers: at first, after a loss, and when it is another one (a new epoch).
    virtual void on_worker_up(const WorkerIdentity& identity) = 0;
    /// After on_worker_up(), at once and whenever it changed.
    virtual void on_worker_load(const WorkerLoad& load) = 0;
    /// After on_worker_up(). OK: the worker has drained and stops; else it cannot be reached.
    virtual void on_worker_gone(const Status& status) = 0;
  };
  struct Options {
    std::chrono::milliseconds load_period{200};
    std::chrono::milliseconds info_timeout{5000};
  };

  /// `listener` must outlive the watch.
  WorkerWatch(std::shared_ptr<WorkerChannel> channel, Listener& listener, const Options& options);
  WorkerWatch(std::shared_ptr<WorkerChannel> channel, Listener& listener)
      : WorkerWatch(std::move(channel), listener, Options()) {}
  /// Blocks until the listener's last call has returned.
  ~WorkerWatch();
  WorkerWatch(const WorkerWatch&) = delete;
  WorkerWatch& operator=(const WorkerWatch&) = delete;

 private:
  class Loop;
  const std::shared_ptr<Loop> loop_;  // shared with gRPC's callbacks
};

/// Asks a worker to refuse new requests and to answer when none is left, or at `deadline` with the
/// number of those that are. Does not block; `on_answer` is called once, from gRPC's threads.
void drain_worker(const std::shared_ptr<WorkerChannel>& channel,
                  const Deadline& deadline,
                  std::function<void(Result<int64_t>)> on_answer);

}  // namespace tessera::rpc
