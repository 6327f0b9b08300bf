#include "server/roles/worker_role.h"

#include <algorithm>
#include <utility>

#include "engine/serving/decode_parts.h"
#include "engine/serving/prefill_parts.h"
#include "server/cli/version.h"
#include "server/roles/role_parts.h"
#include "server/roles/rpc_door.h"
#include "server/roles/worker_door.h"
#include "server/roles/worker_families.h"
#include "server/rpc/decode_service.h"
#include "server/rpc/grpc_decode_port.h"
#include "server/rpc/prefill_service.h"

namespace tessera {
namespace {

/// The engine's own limits decide; a call stays open a little longer than its request.
rpc::ServiceLimits service_limits(const cli::Options& options) {
  rpc::ServiceLimits limits;
  limits.max_open_calls =
      std::max(limits.max_open_calls,
               static_cast<size_t>(2 * (options.max_num_seqs + options.max_queued_requests)));
  return limits;
}

/// A worker over PrefillParts or DecodeParts, whose engines are alike to operators.
template <typename Parts>
class WorkerOf final : public WorkerRoleProcess {
 public:
  explicit WorkerOf(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

  [[nodiscard]] Status open_doors(const cli::Options& options,
                                  rpc::WorkerRole role,
                                  std::unique_ptr<rpc::RpcService> service,
                                  bool has_http) {
    auto& engine = parts_->engine();
    RpcDoor::Parts rpc;
    rpc.service = std::move(service);
    rpc.max_open_calls = service_limits(options).max_open_calls;
    rpc.identity = {role, engine.info(), cli::version_number()};
    rpc.load = [this] {
      WorkerLoad load = parts_->engine().load();
      load.is_draining = !parts_->readiness().is_ok();
      return load;
    };
    rpc.liveness = [this] { return liveness(); };
    rpc.start_drain = [&engine] { engine.begin_drain(); };
    TESSERA_TRY(rpc_, RpcDoor::open(options, std::move(rpc)));
    if (!has_http) {
      return Status::ok();
    }
    WorkerDoor::Parts http;
    http.readiness = [this] { return parts_->readiness(); };
    http.liveness = [this] { return liveness(); };
    http.add_families = [this](metrics::FamilyList& list) { add_families(list); };
    TESSERA_TRY(http_, WorkerDoor::open(options, std::move(http)));
    return Status::ok();
  }

  [[nodiscard]] std::string rpc_address() const override { return rpc_->address(); }

  void add_families(metrics::FamilyList& list) override { add_worker_families(list, *parts_); }

  [[nodiscard]] metrics::StatsReading stats() const override {
    return metrics::read_stats(parts_->engine().metrics(), handoff_bytes(*parts_));
  }

  [[nodiscard]] Status liveness() const override {
    return check_heartbeat(parts_->engine().heartbeat_age());
  }

  [[nodiscard]] Status drain_blocking(Deadline deadline) override {
    rpc_->set_draining();
    Status status = parts_->engine().drain_blocking(deadline);
    rpc_->close_blocking(Deadline::after(kLastWrites));
    return status;
  }

 private:
  std::unique_ptr<Parts> parts_;
  std::unique_ptr<RpcDoor> rpc_;
  std::unique_ptr<WorkerDoor> http_;
};

}  // namespace

Result<std::unique_ptr<WorkerRoleProcess>> open_prefill_role(const cli::Options& options,
                                                             const ModelConfig& config,
                                                             bool has_http) {
  TESSERA_TRY(const HandoffSettings settings, handoff_settings(options));
  TESSERA_TRY(auto model, load_model(options, config, WorkerRole::kPrefill));
  const auto make_port = [&](DecodePort::Listener& listener) -> std::unique_ptr<DecodePort> {
    rpc::DecodePortOptions to_decode;
    to_decode.channel.tls = cluster_tls(options);
    auto port = std::make_unique<rpc::GrpcDecodePort>(to_decode);
    port->set_listener(listener);
    return port;
  };
  TESSERA_TRY(auto parts, PrefillParts::create(options, std::move(model), settings, make_port));
  auto service =
      std::make_unique<rpc::PrefillServiceImpl>(parts->engine(), service_limits(options));
  auto role = std::make_unique<WorkerOf<PrefillParts>>(std::move(parts));
  TESSERA_RETURN_IF_ERROR(
      role->open_doors(options, rpc::WorkerRole::kPrefill, std::move(service), has_http));
  return std::unique_ptr<WorkerRoleProcess>(std::move(role));
}

Result<std::unique_ptr<WorkerRoleProcess>> open_decode_role(const cli::Options& options,
                                                            const ModelConfig& config,
                                                            bool has_http) {
  TESSERA_TRY(const HandoffSettings settings, handoff_settings(options));
  TESSERA_TRY(auto model, load_model(options, config, WorkerRole::kDecode));
  TESSERA_TRY(auto parts, DecodeParts::create(options, std::move(model), settings));
  auto service = std::make_unique<rpc::DecodeServiceImpl>(
      parts->engine(), parts->door(), service_limits(options));
  auto role = std::make_unique<WorkerOf<DecodeParts>>(std::move(parts));
  TESSERA_RETURN_IF_ERROR(
      role->open_doors(options, rpc::WorkerRole::kDecode, std::move(service), has_http));
  return std::unique_ptr<WorkerRoleProcess>(std::move(role));
}

}  // namespace tessera
