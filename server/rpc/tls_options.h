// Files of PEM for encrypted connections. All empty: plain text, for a private network only.
#pragma once

#include <string>

namespace tessera::rpc {

struct TlsOptions {
  std::string certificate_file;  ///< own chain; with key_file. A server needs both.
  std::string key_file;
  std::string ca_file;  ///< who signs the peer. A server then demands certificates of clients.

  [[nodiscard]] bool is_enabled() const noexcept {
    return !certificate_file.empty() || !key_file.empty() || !ca_file.empty();
  }
};

}  // namespace tessera::rpc
