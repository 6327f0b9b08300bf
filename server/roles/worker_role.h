// Prefill worker and decode group as processes: engine, gRPC port, HTTP port for operators.
#pragma once

#include <memory>
#include <string>

#include "engine/base/deadline.h"
#include "engine/base/result.h"
#include "engine/config/model_config.h"
#include "server/cli/options.h"
#include "server/metrics/family_list.h"
#include "server/metrics/stats_line.h"

namespace tessera {

/// One role that workers play; made by open_prefill_role() or open_decode_role().
class WorkerRoleProcess {
 public:
  WorkerRoleProcess() = default;
  virtual ~WorkerRoleProcess() = default;
  WorkerRoleProcess(const WorkerRoleProcess&) = delete;
  WorkerRoleProcess& operator=(const WorkerRoleProcess&) = delete;

  /// "host:port" of the gRPC port.
  [[nodiscard]] virtual std::string rpc_address() const = 0;
  /// Any thread.
  virtual void add_families(metrics::FamilyList& list) = 0;
  [[nodiscard]] virtual metrics::StatsReading stats() const = 0;
  /// UNAVAILABLE when the engine is stuck. Any thread.
  [[nodiscard]] virtual Status liveness() const = 0;
  /// Refuses new requests, lets live ones end until `deadline`, then ends the rest and closes the
  /// gRPC port. Errors: DEADLINE_EXCEEDED when some had to be ended.
  [[nodiscard]] virtual Status drain_blocking(Deadline deadline) = 0;
};

/// Load the model, then listen. Whether an HTTP port for operators is opened is said by
/// `has_http`: roles that share a process have one front door. Errors: those of loading, of the
/// transport and of the ports.
[[nodiscard]] Result<std::unique_ptr<WorkerRoleProcess>> open_prefill_role(
    const cli::Options& options, const ModelConfig& config, bool has_http);
[[nodiscard]] Result<std::unique_ptr<WorkerRoleProcess>> open_decode_role(
    const cli::Options& options, const ModelConfig& config, bool has_http);

}  // namespace tessera
