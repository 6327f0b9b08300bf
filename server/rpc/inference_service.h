// InferenceService, the public API over gRPC: text or token ids in, text and tokens out.
#pragma once

#include <memory>
#include <string_view>

#include "engine/request/generation_service.h"
#include "server/rpc/inference_options.h"
#include "server/rpc/rpc_service.h"

namespace tessera {
class ChatTemplate;
class Tokenizer;
}  // namespace tessera

namespace tessera::rpc {

class InferenceServiceImpl final : public RpcService {
 public:
  struct Parts {
    GenerationService& service;
    const Tokenizer& tokenizer;
    const ChatTemplate* chat_template = nullptr;  ///< null: chat is refused
  };

  /// All of `parts` outlive the service, which outlives the server.
  InferenceServiceImpl(InferenceOptions options, const Parts& parts);
  ~InferenceServiceImpl() override;
  InferenceServiceImpl(const InferenceServiceImpl&) = delete;
  InferenceServiceImpl& operator=(const InferenceServiceImpl&) = delete;

  [[nodiscard]] grpc::Service& grpc_service() noexcept override;
  [[nodiscard]] std::string_view name() const noexcept override;
  void end_endless_calls() override {}

 private:
  class Service;
  std::unique_ptr<Service> service_;
};

}  // namespace tessera::rpc
