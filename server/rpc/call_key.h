// The API key that a call brings in its metadata. Any thread.
#pragma once

#include <functional>
#include <string_view>

namespace grpc {
class CallbackServerContext;
}

namespace tessera::rpc {

/// True when `allows` is empty, or true for `x-api-key: KEY`, for `authorization: Bearer KEY`, or,
/// where the call brings neither, for "".
[[nodiscard]] bool is_call_allowed(const grpc::CallbackServerContext& context,
                                   const std::function<bool(std::string_view key)>& allows);

}  // namespace tessera::rpc
