#include "server/rpc/event_stream.h"

#include "server/rpc/request_id.h"

namespace tessera::rpc {
namespace {

constexpr size_t kMaxRequestIdBytes = 256;

}  // namespace

std::string pass_request_id(grpc::CallbackServerContext& context) {
  const auto entry = context.client_metadata().find(kRequestIdKey);
  if (entry == context.client_metadata().end() || entry->second.size() > kMaxRequestIdBytes) {
    return {};
  }
  std::string id(entry->second.data(), entry->second.size());
  context.AddInitialMetadata(kRequestIdKey, id);
  return id;
}

}  // namespace tessera::rpc
