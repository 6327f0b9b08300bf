// DecodeService of the leader of a decode group: requests, and the links of prefill workers. The
// calls convert, hand over and return.
#pragma once

#include <memory>
#include <string_view>

#include "engine/handoff/handoff_link.h"
#include "engine/handoff/worker_services.h"
#include "server/rpc/rpc_service.h"
#include "server/rpc/service_limits.h"

namespace tessera::rpc {

class DecodeServiceImpl final : public RpcService {
 public:
  /// Both must outlive the server.
  DecodeServiceImpl(DecodeWorker& worker, PrefillDoor& door, const ServiceLimits& limits = {});
  ~DecodeServiceImpl() override;
  DecodeServiceImpl(const DecodeServiceImpl&) = delete;
  DecodeServiceImpl& operator=(const DecodeServiceImpl&) = delete;

  [[nodiscard]] grpc::Service& grpc_service() noexcept override;
  [[nodiscard]] std::string_view name() const noexcept override;
  /// Ends the links.
  void end_endless_calls() override;

 private:
  class Service;
  std::unique_ptr<Service> service_;
};

}  // namespace tessera::rpc
