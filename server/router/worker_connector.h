// How a router reaches its workers: one connection per address, whatever lies underneath (gRPC in
// production, plain objects in tests).
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "engine/base/status.h"
#include "engine/handoff/worker_services.h"

namespace tessera::router {

enum class WorkerRole : uint8_t { kPrefill, kDecode };

/// What a connection reports. Any thread, one call at a time; the calls only enqueue.
class WorkerObserver {
 public:
  WorkerObserver() = default;
  virtual ~WorkerObserver() = default;
  WorkerObserver(const WorkerObserver&) = delete;
  WorkerObserver& operator=(const WorkerObserver&) = delete;

  /// Once, before the first load.
  virtual void on_info(const WorkerInfo& info) = 0;
  virtual void on_load(const WorkerLoad& load) = 0;
  /// OK: the worker was stopped and had drained. Else it could not be reached or went away, or
  /// another process answers at its address. The last call: the router drops the connection and
  /// makes a new one later.
  virtual void on_gone(const Status& status) = 0;
};

/// Its destructor ends the calls that are still open and the reports. Must not wait for the peer.
class WorkerConnection {
 public:
  WorkerConnection() = default;
  virtual ~WorkerConnection() = default;
  WorkerConnection(const WorkerConnection&) = delete;
  WorkerConnection& operator=(const WorkerConnection&) = delete;

  /// Null when the connection was made for the other role. Live as long as the connection.
  [[nodiscard]] virtual PrefillWorker* prefill() = 0;
  [[nodiscard]] virtual DecodeWorker* decode() = 0;
};

class WorkerConnector {
 public:
  WorkerConnector() = default;
  virtual ~WorkerConnector() = default;
  WorkerConnector(const WorkerConnector&) = delete;
  WorkerConnector& operator=(const WorkerConnector&) = delete;

  /// Never blocks, never null; a worker that cannot be reached is reported as gone. Shared by the
  /// router's list of workers and by the calls that are open on it. Router thread.
  [[nodiscard]] virtual std::shared_ptr<WorkerConnection> connect(
      const std::string& address, WorkerRole role, std::shared_ptr<WorkerObserver> observer) = 0;
};

}  // namespace tessera::router
