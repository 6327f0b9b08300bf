// PrefillService of a prefill worker. The calls convert, hand over and return.
#pragma once

#include <memory>
#include <string_view>

#include "engine/handoff/worker_services.h"
#include "server/rpc/rpc_service.h"
#include "server/rpc/service_limits.h"

namespace tessera::rpc {

class PrefillServiceImpl final : public RpcService {
 public:
  /// `worker` must outlive the server.
  explicit PrefillServiceImpl(PrefillWorker& worker, const ServiceLimits& limits = {});
  ~PrefillServiceImpl() override;
  PrefillServiceImpl(const PrefillServiceImpl&) = delete;
  PrefillServiceImpl& operator=(const PrefillServiceImpl&) = delete;

  [[nodiscard]] grpc::Service& grpc_service() noexcept override;
  [[nodiscard]] std::string_view name() const noexcept override;
  void end_endless_calls() override {}

 private:
  class Service;
  std::unique_ptr<Service> service_;
};

}  // namespace tessera::rpc
