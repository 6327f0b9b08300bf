// Files of PEM for connections that are encrypted and known on both ends. All empty: plain text,
// for a private network only.
#pragma once

#include <string>

namespace tessera::rpc {

struct TlsOptions {
  std::string certificate_file;  ///< own chain
  std::string key_file;
  std::string ca_file;    ///< who signs the peers: each end demands the other's certificate
  std::string peer_name;  ///< DNS name in a server's certificate; empty: the host of its address

  [[nodiscard]] bool is_enabled() const noexcept {
    return !certificate_file.empty() || !key_file.empty() || !ca_file.empty();
  }
};

}  // namespace tessera::rpc
