// The metadata key under which a request's id travels beside the calls, for logs.
#pragma once

namespace tessera::rpc {

inline constexpr const char* kRequestIdKey = "x-request-id";

}  // namespace tessera::rpc
