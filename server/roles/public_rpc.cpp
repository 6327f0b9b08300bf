#include "server/roles/public_rpc.h"

#include <utility>

#include "engine/base/log.h"

namespace tessera {

PublicRpc::PublicRpc(const openai::OpenAiOptions& api,
                     const rpc::InferenceServiceImpl::Parts& parts)
    : authenticator_(api.api_keys), service_(inference_options(api), parts) {}

rpc::InferenceOptions PublicRpc::inference_options(const openai::OpenAiOptions& api) const {
  rpc::InferenceOptions inference;
  inference.served_model_names = api.served_model_names;
  inference.max_model_len = api.max_model_len;
  inference.vocab_size = api.vocab_size;
  inference.max_choices = api.limits.max_n;
  inference.max_top_logprobs = api.limits.max_logprobs;
  inference.request_timeout = api.request_timeout;
  inference.allows_key = [this](std::string_view key) { return authenticator_.allows_key(key); };
  return inference;
}

Result<std::unique_ptr<PublicRpc>> PublicRpc::open(const cli::Options& options,
                                                   const openai::OpenAiOptions& api,
                                                   const rpc::InferenceServiceImpl::Parts& parts) {
  std::unique_ptr<PublicRpc> door(new PublicRpc(api, parts));
  rpc::RpcServerOptions server;
  server.host = options.rpc_host;
  server.port = static_cast<int>(options.rpc_port);
  TESSERA_TRY(door->server_, rpc::RpcServer::create(server, {&door->service_}));
  door->server_->set_serving(true);
  log_info("public_rpc_open",
           "address",
           door->server_->address(),
           "api_keys",
           api.api_keys.empty() ? "none: open to everybody who reaches the port" : "required");
  return door;
}

}  // namespace tessera
