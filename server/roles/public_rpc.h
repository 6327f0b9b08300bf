// The public gRPC port: InferenceService in front of a GenerationService, beside HTTP.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/base/deadline.h"
#include "engine/base/result.h"
#include "server/cli/options.h"
#include "server/openai/authenticator.h"
#include "server/openai/options.h"
#include "server/rpc/inference_service.h"
#include "server/rpc/rpc_server.h"

namespace tessera {

class PublicRpc final {
 public:
  /// Listens on --rpc-host and --rpc-port with the names, limits and keys of the HTTP API; reports
  /// itself as serving and logs the address. All of `parts` outlive it. Errors: UNAVAILABLE (port).
  [[nodiscard]] static Result<std::unique_ptr<PublicRpc>> open(
      const cli::Options& options,
      const openai::OpenAiOptions& api,
      const rpc::InferenceServiceImpl::Parts& parts);
  ~PublicRpc() = default;
  PublicRpc(const PublicRpc&) = delete;
  PublicRpc& operator=(const PublicRpc&) = delete;

  /// Calls from now on need one of these; none: open.
  void replace_keys(const std::vector<std::string>& keys) { authenticator_.replace_keys(keys); }
  /// Health checks fail from here on; calls go on.
  void set_draining() { server_->set_serving(false); }
  /// Waits for the last bytes of calls whose requests have ended; cancels the rest.
  void close_blocking(Deadline deadline) { server_->shutdown_blocking(deadline); }

 private:
  PublicRpc(const openai::OpenAiOptions& api, const rpc::InferenceServiceImpl::Parts& parts);
  [[nodiscard]] rpc::InferenceOptions inference_options(const openai::OpenAiOptions& api) const;

  openai::Authenticator authenticator_;
  rpc::InferenceServiceImpl service_;
  std::unique_ptr<rpc::RpcServer> server_;  // last: its calls use the rest
};

}  // namespace tessera
