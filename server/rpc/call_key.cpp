#include "server/rpc/call_key.h"

#include <algorithm>
#include <optional>

#include <grpcpp/server_context.h>
#include <strings.h>

namespace tessera::rpc {
namespace {

constexpr std::string_view kScheme = "Bearer ";

std::optional<std::string_view> metadata_of(const grpc::CallbackServerContext& context,
                                            const char* name) {
  const auto entry = context.client_metadata().find(name);
  if (entry == context.client_metadata().end()) {
    return std::nullopt;
  }
  return std::string_view(entry->second.data(), entry->second.size());
}

std::string_view bearer_key(std::string_view authorization) {
  if (authorization.size() < kScheme.size() ||
      strncasecmp(authorization.data(), kScheme.data(), kScheme.size()) != 0) {
    return {};
  }
  authorization.remove_prefix(kScheme.size());
  authorization.remove_prefix(std::min(authorization.find_first_not_of(' '), authorization.size()));
  return authorization;
}

}  // namespace

bool is_call_allowed(const grpc::CallbackServerContext& context,
                     const std::function<bool(std::string_view key)>& allows) {
  if (!allows) {
    return true;
  }
  const auto key = metadata_of(context, "x-api-key");
  if (key.has_value() && allows(*key)) {
    return true;
  }
  return allows(bearer_key(metadata_of(context, "authorization").value_or("")));
}

}  // namespace tessera::rpc
