// Decides whether a request carries one of the server's API keys. Any thread.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "server/http/exchange.h"

namespace tessera::openai {

/// Keeps SHA-256 digests, not keys, and compares them in constant time, so that neither memory
/// dumps of this object nor response times tell a key.
class Authenticator final {
 public:
  /// Without keys every request is allowed. Empty keys are left out.
  explicit Authenticator(const std::vector<std::string>& keys);
  Authenticator(const Authenticator&) = delete;
  Authenticator& operator=(const Authenticator&) = delete;

  /// Requests checked from now on need one of these.
  void replace_keys(const std::vector<std::string>& keys);

  /// True when no key is asked for, or `Authorization: Bearer KEY` or `x-api-key: KEY` matches.
  [[nodiscard]] bool allows(const http::Request& request) const;
  /// True when no key is asked for, or `key` is one of them.
  [[nodiscard]] bool allows_key(std::string_view key) const;

 private:
  using Digest = std::array<unsigned char, 32>;
  using Digests = std::vector<Digest>;
  [[nodiscard]] static Digest digest_of(std::string_view key);
  [[nodiscard]] static std::shared_ptr<const Digests> digests_of(
      const std::vector<std::string>& keys);
  [[nodiscard]] static bool is_known(const Digests& digests, std::string_view key);
  [[nodiscard]] std::shared_ptr<const Digests> snapshot() const;

  mutable std::mutex mutex_;                // guards digests_
  std::shared_ptr<const Digests> digests_;  // shared: checks keep the snapshot they began with
};

}  // namespace tessera::openai
