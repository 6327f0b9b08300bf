#include "server/rpc/credentials.h"

#include <fstream>
#include <iterator>
#include <string>

#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>

#include "engine/base/text.h"

namespace tessera::rpc {
namespace {

struct Texts {
  std::string certificate;
  std::string key;
  std::string ca;
};

Result<std::string> read_text(const std::string& path) {
  if (path.empty()) {
    return std::string();
  }
  std::ifstream file(path, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file || text.empty()) {
    return not_found(str_cat("cannot read the TLS file ", path, ", or it is empty"));
  }
  return text;
}

Result<Texts> read_texts(const TlsOptions& options) {
  if (options.certificate_file.empty() != options.key_file.empty()) {
    return invalid_argument(str_cat("TLS needs certificate and key together: certificate \"",
                                    options.certificate_file,
                                    "\", key \"",
                                    options.key_file,
                                    "\""));
  }
  Texts texts;
  TESSERA_TRY(texts.certificate, read_text(options.certificate_file));
  TESSERA_TRY(texts.key, read_text(options.key_file));
  TESSERA_TRY(texts.ca, read_text(options.ca_file));
  return texts;
}

}  // namespace

Result<std::shared_ptr<grpc::ServerCredentials>> make_server_credentials(
    const TlsOptions& options) {
  if (!options.is_enabled()) {
    return grpc::InsecureServerCredentials();
  }
  if (options.certificate_file.empty()) {
    return invalid_argument("a TLS server needs a certificate and its key");
  }
  TESSERA_TRY(const Texts texts, read_texts(options));
  grpc::SslServerCredentialsOptions ssl(
      texts.ca.empty() ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                       : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  ssl.pem_root_certs = texts.ca;
  ssl.pem_key_cert_pairs.push_back({texts.key, texts.certificate});
  return grpc::SslServerCredentials(ssl);
}

Result<std::shared_ptr<grpc::ChannelCredentials>> make_channel_credentials(
    const TlsOptions& options) {
  if (!options.is_enabled()) {
    return grpc::InsecureChannelCredentials();
  }
  TESSERA_TRY(const Texts texts, read_texts(options));
  grpc::SslCredentialsOptions ssl;
  ssl.pem_root_certs = texts.ca;
  ssl.pem_cert_chain = texts.certificate;
  ssl.pem_private_key = texts.key;
  return grpc::SslCredentials(ssl);
}

}  // namespace tessera::rpc
