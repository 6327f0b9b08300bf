#include "server/openai/authenticator.h"

#include <algorithm>
#include <utility>

#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <strings.h>

namespace tessera::openai {
namespace {

constexpr std::string_view kScheme = "Bearer ";

}  // namespace

Authenticator::Authenticator(const std::vector<std::string>& keys) : digests_(digests_of(keys)) {}

void Authenticator::replace_keys(const std::vector<std::string>& keys) {
  auto digests = digests_of(keys);
  const std::lock_guard lock(mutex_);
  digests_ = std::move(digests);
}

std::shared_ptr<const Authenticator::Digests> Authenticator::snapshot() const {
  const std::lock_guard lock(mutex_);
  return digests_;
}

Authenticator::Digest Authenticator::digest_of(std::string_view key) {
  Digest digest{};
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), digest.data());
  return digest;
}

std::shared_ptr<const Authenticator::Digests> Authenticator::digests_of(
    const std::vector<std::string>& keys) {
  auto digests = std::make_shared<Digests>();
  for (const std::string& key : keys) {
    if (!key.empty()) {
      digests->push_back(digest_of(key));
    }
  }
  return digests;
}

bool Authenticator::is_known(const Digests& digests, std::string_view key) {
  const Digest digest = digest_of(key);
  int num_matches = 0;
  for (const Digest& known : digests) {  // all of them: no early end
    num_matches += CRYPTO_memcmp(known.data(), digest.data(), digest.size()) == 0 ? 1 : 0;
  }
  return num_matches > 0;
}

bool Authenticator::allows(const http::Request& request) const {
  const std::shared_ptr<const Digests> digests = snapshot();
  if (digests->empty()) {
    return true;
  }
  if (const auto key = request.header("x-api-key"); key.has_value() && is_known(*digests, *key)) {
    return true;
  }
  const auto authorization = request.header("Authorization");
  if (!authorization.has_value() || authorization->size() < kScheme.size() ||
      strncasecmp(authorization->data(), kScheme.data(), kScheme.size()) != 0) {
    return false;
  }
  std::string_view key = authorization->substr(kScheme.size());
  key.remove_prefix(std::min(key.find_first_not_of(' '), key.size()));
  return is_known(*digests, key);
}

bool Authenticator::allows_key(std::string_view key) const {
  const std::shared_ptr<const Digests> digests = snapshot();
  return digests->empty() || is_known(*digests, key);
}

}  // namespace tessera::openai
