// TlsOptions as gRPC's credentials.
#pragma once

#include <memory>

#include "engine/base/result.h"
#include "server/rpc/tls_options.h"

namespace grpc {
class ChannelCredentials;
class ServerCredentials;
}  // namespace grpc

namespace tessera::rpc {

/// The files are read again when they change. Errors: INVALID_ARGUMENT (one of the three is not
/// named), NOT_FOUND (no such file).
[[nodiscard]] Result<std::shared_ptr<grpc::ServerCredentials>> make_server_credentials(
    const TlsOptions& options);
[[nodiscard]] Result<std::shared_ptr<grpc::ChannelCredentials>> make_channel_credentials(
    const TlsOptions& options);

}  // namespace tessera::rpc
