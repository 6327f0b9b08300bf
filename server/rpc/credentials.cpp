#include "server/rpc/credentials.h"

#include <fstream>
#include <string>
#include <utility>

#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>

#include "engine/base/text.h"

namespace tessera::rpc {
namespace {

using grpc::experimental::FileWatcherCertificateProvider;

/// How soon files that changed are used. New connections only: open ones go on.
constexpr unsigned kRefreshSeconds = 5;

Status check_readable(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file || file.peek() == std::ifstream::traits_type::eof()) {
    return not_found(str_cat("cannot read the TLS file ", path, ", or it is empty"));
  }
  return Status::ok();
}

Result<std::shared_ptr<FileWatcherCertificateProvider>> watch_files(const TlsOptions& options) {
  const auto paths = {&options.certificate_file, &options.key_file, &options.ca_file};
  for (const std::string* path : paths) {
    if (path->empty()) {
      return invalid_argument(str_cat("TLS needs three files: certificate \"",
                                      options.certificate_file,
                                      "\", key \"",
                                      options.key_file,
                                      "\", authority \"",
                                      options.ca_file,
                                      "\""));
    }
  }
  for (const std::string* path : paths) {
    TESSERA_RETURN_IF_ERROR(check_readable(*path));
  }
  return std::make_shared<FileWatcherCertificateProvider>(
      options.key_file, options.certificate_file, options.ca_file, kRefreshSeconds);
}

}  // namespace

Result<std::shared_ptr<grpc::ServerCredentials>> make_server_credentials(
    const TlsOptions& options) {
  if (!options.is_enabled()) {
    return grpc::InsecureServerCredentials();
  }
  TESSERA_TRY(auto files, watch_files(options));
  grpc::experimental::TlsServerCredentialsOptions tls(std::move(files));
  tls.watch_root_certs();
  tls.watch_identity_key_cert_pairs();
  tls.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  return grpc::experimental::TlsServerCredentials(tls);
}

Result<std::shared_ptr<grpc::ChannelCredentials>> make_channel_credentials(
    const TlsOptions& options) {
  if (!options.is_enabled()) {
    return grpc::InsecureChannelCredentials();
  }
  TESSERA_TRY(auto files, watch_files(options));
  grpc::experimental::TlsChannelCredentialsOptions tls;
  tls.set_certificate_provider(std::move(files));
  tls.watch_root_certs();
  tls.watch_identity_key_cert_pairs();
  return grpc::experimental::TlsCredentials(tls);
}

}  // namespace tessera::rpc
